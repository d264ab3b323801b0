// Groups and reliable cursors on heap memory: single steps in chosen orders, then threads.
#include "group.hpp"

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "support.hpp"

using namespace framegate::impl;
using test::At;
using test::HeapSegment;
using test::holds_nothing;
using test::publish_one;

namespace {

// One member as a subscriber handle would be: knows which slots it leases.
struct Member {
    SegmentView view;
    Self self;
    std::uint32_t group = kNoGroup;

    GroupTake take_new() const { return take_shared(view, self, group, holds_nothing, nullptr); }
    GroupTake take_marked() const {
        return take_unfinished(view, self, group, holds_nothing, nullptr);
    }
    bool release(const GroupTake& take) const {
        return framegate::impl::release(view, self, take.slot, take.sequence);
    }
    void nack(const GroupTake& take) const {
        mark_unfinished(view, take.slot, group);
        release(take);
        announce_redelivery(view, group);
    }
};

Member join(const HeapSegment& segment, std::uint32_t index, const std::string& name = "work",
            bool newest = false) {
    Member member{segment.view(), segment.join(index)};
    member.group = join_group(segment.view(), member.self, name.data(),
                              static_cast<std::uint32_t>(name.size()), newest);
    return member;
}

// What detach and reap do.
void leave(const SegmentView& view, std::uint32_t index) {
    scrub_row(view, index);
    leave_group(view, index);
    for (std::uint32_t group = 0; group < kGroups; ++group) {
        if (is_over(view, group)) {
            end_group(view, group);
        }
    }
    free_row(view, index);
}

std::uint32_t publish_until_full(const SegmentView& view, const Self& self) {
    std::uint32_t count = 0;
    for (; count < 100; ++count) {
        const LoanAttempt loan = try_loan(view, self);
        if (loan.result != LoanResult::kOk) {
            break;
        }
        REQUIRE(publish(view, self, loan.slot, loan.word).result == PublishResult::kOk);
    }
    return count;
}

}  // namespace

// ---- reliable

TEST_CASE("reliable subscriber that attaches between a loan's looks gets what it was promised") {
    for (const Step step : {Step::kReliableMarked, Step::kReliableAttached}) {
        for (const bool newest : {false, true}) {
            HeapSegment segment(test::options(3, 64));
            const SegmentView& view = segment.view();
            const Self writer = segment.join(0);
            const Self reader = segment.join(1);
            publish_one(view, writer);
            {
                // As much as fits: with the mark but before the head is read again, and after.
                const At at(step, [&] { publish_until_full(view, writer); });
                begin_reliable(view, reader, newest);
            }
            publish_until_full(view, writer);
            const std::uint64_t cursor = view.participants[1].cursor.load();
            for (std::uint64_t next = cursor + 1; next <= load_head(view); ++next) {
                CHECK(take(view, reader, next, holds_nothing, nullptr).result == TakeResult::kOk);
            }
        }
    }
}

TEST_CASE("loan that looked before a reliable subscriber attached takes nothing of it") {
    HeapSegment segment(test::options(3, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    publish_until_full(view, writer);
    {
        // The loan has read head and all cursors, and is about to claim.
        const At at(Step::kLoanCandidate, [&] { begin_reliable(view, reader, true); });
        REQUIRE(try_loan(view, writer).result == LoanResult::kOk);
    }
    const std::uint64_t newest = load_head(view);
    CHECK(view.participants[1].cursor.load() == newest - 1);
    CHECK(take(view, reader, newest, holds_nothing, nullptr).result == TakeResult::kOk);
}

TEST_CASE("without the bound a loan takes what a reliable subscriber has not read") {
    HeapSegment segment(test::options(3, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    begin_reliable(view, reader, false);
    CHECK(publish_until_full(view, writer) == 3);
    framegate_test_mutations = kMutateNoReliableBound;
    CHECK(try_loan(view, writer).result == LoanResult::kOk);
    framegate_test_mutations = 0;
    CHECK(take(view, reader, 1, holds_nothing, nullptr).result == TakeResult::kGone);
}

// ---- membership

TEST_CASE("groups are found by name, eight at a time, and end with their last member") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    for (std::uint32_t i = 0; i < kGroups; ++i) {
        CHECK(join(segment, i, "group-" + std::to_string(i)).group == i);
        CHECK(join(segment, 20 + i, "group-" + std::to_string(i)).group == i);
    }
    CHECK(join(segment, 50, "one-too-many").group == kNoGroup);
    CHECK(join(segment, 50, "group-").group == kNoGroup);
    leave(view, 3);
    CHECK(join(segment, 50, "one-too-many").group == kNoGroup);
    leave(view, 23);
    CHECK(view.shared->groups.load() == 0xf7);
    CHECK(join(segment, 50, "one-too-many").group == 3);
    CHECK(join(segment, 51, "group-3").group == kNoGroup);
    CHECK(view.shared->groups.load() == 0xff);
}

TEST_CASE("name of 32 bytes is told from its beginning") {
    HeapSegment segment(test::options(4, 64));
    const std::string name(FG_GROUP_NAME_BYTES_MAX, 'x');
    CHECK(join(segment, 1, name).group == 0);
    CHECK(join(segment, 2, name.substr(1)).group == 1);
    CHECK(join(segment, 3, name).group == 0);
}

TEST_CASE("group begins behind head or with the newest frame, whoever joins it later") {
    HeapSegment segment(test::options(6, 64));
    const Self writer = segment.join(0);
    for (int i = 0; i < 3; ++i) {
        publish_one(segment.view(), writer);
    }
    const Member late = join(segment, 1, "late");
    const Member early = join(segment, 2, "early", true);
    const Member joiner = join(segment, 3, "late", true);
    CHECK(late.take_new().result == TakeResult::kGone);
    CHECK(joiner.take_new().result == TakeResult::kGone);
    CHECK(early.take_new().sequence == 3);
    publish_one(segment.view(), writer);
    CHECK(joiner.take_new().sequence == 4);
    CHECK(late.take_new().result == TakeResult::kGone);
    CHECK(early.take_new().sequence == 4);
}

TEST_CASE("group founded during a loan loses nothing") {
    for (const Step step : {Step::kGroupNamed, Step::kGroupBound, Step::kGroupJoining}) {
        HeapSegment segment(test::options(3, 64));
        const Self writer = segment.join(0);
        publish_one(segment.view(), writer);
        Member member;
        {
            const At at(step, [&] { publish_until_full(segment.view(), writer); });
            member = join(segment, 1, "work", true);
        }
        publish_until_full(segment.view(), writer);
        const std::uint64_t first = load_group_cursor(segment.view(), member.group) + 1;
        for (std::uint64_t next = first; next <= load_head(segment.view()); ++next) {
            const GroupTake taken = member.take_new();
            CHECK(taken.sequence == next);
            CHECK(taken.lost == 0);
        }
    }
}

TEST_CASE("founder that died before it was a member leaves a group that is over") {
    for (const Step step : {Step::kGroupBound, Step::kGroupJoining}) {
        HeapSegment segment(test::options(4, 64));
        const SegmentView& view = segment.view();
        std::uint64_t seen = 0;
        {
            const At at(step, [&] {
                seen = view.shared->groups.load();
                CHECK(is_over(view, 0));
            });
            join(segment, 1);
        }
        CHECK(seen == 1);
    }
}

// ---- delivery

TEST_CASE("every frame goes to one member") {
    HeapSegment segment(test::options(8, 64));
    const Self writer = segment.join(0);
    const Member first = join(segment, 1);
    const Member second = join(segment, 70);
    const Member other = join(segment, 2, "other");
    for (int i = 0; i < 4; ++i) {
        publish_one(segment.view(), writer);
    }
    CHECK(first.take_new().sequence == 1);
    CHECK(second.take_new().sequence == 2);
    CHECK(second.take_new().sequence == 3);
    CHECK(first.take_new().sequence == 4);
    CHECK(first.take_new().result == TakeResult::kGone);
    CHECK(other.take_new().sequence == 1);
}

TEST_CASE("member that loses the race for a frame takes its bit back and gets the next one") {
    HeapSegment segment(test::options(8, 64));
    const Self writer = segment.join(0);
    const Member first = join(segment, 1);
    const Member second = join(segment, 2);
    publish_one(segment.view(), writer);
    publish_one(segment.view(), writer);
    GroupTake won;
    GroupTake lost;
    {
        const At at(Step::kTakeDone, [&] { won = first.take_new(); });
        lost = second.take_new();
    }
    CHECK(won.sequence == 1);
    CHECK(lost.sequence == 2);
    CHECK(lost.space);
    CHECK(segment.view().slots[won.slot].holders[0].load() == first.self.bit);
}

TEST_CASE("frames that no member got hold publishers back until the group is over") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member member = join(segment, 1);
    CHECK(publish_until_full(view, writer) == 4);
    const GroupTake taken = member.take_new();
    CHECK(try_loan(view, writer).result == LoanResult::kNone);
    CHECK(member.release(taken));
    CHECK(publish_until_full(view, writer) == 1);
    leave(view, 1);
    CHECK(publish_until_full(view, writer) == 100);
}

// ---- redelivery

TEST_CASE("frame of a member that died goes to another one, oldest first, once") {
    HeapSegment segment(test::options(8, 64));
    const Self writer = segment.join(0);
    const Member dead = join(segment, 1);
    const Member alive = join(segment, 2);
    const Member other = join(segment, 3, "other");
    for (int i = 0; i < 5; ++i) {
        publish_one(segment.view(), writer);
    }
    CHECK(dead.take_new().sequence == 1);
    const GroupTake finished = alive.take_new();
    CHECK(dead.take_new().sequence == 3);
    CHECK(alive.release(finished));
    const std::uint64_t before = load_redeliveries(segment.view(), dead.group);
    leave(segment.view(), 1);
    CHECK(load_redeliveries(segment.view(), alive.group) != before);
    for (const std::uint64_t sequence : {1U, 3U}) {
        const GroupTake taken = alive.take_marked();
        REQUIRE(taken.result == TakeResult::kOk);
        CHECK(taken.sequence == sequence);
        CHECK(taken.redelivered);
    }
    CHECK(alive.take_marked().result == TakeResult::kGone);
    CHECK(other.take_marked().result == TakeResult::kGone);
    CHECK(alive.take_new().sequence == 4);
}

TEST_CASE("without redelivery the frame is never seen again") {
    HeapSegment segment(test::options(8, 64));
    const Self writer = segment.join(0);
    const Member dead = join(segment, 1);
    const Member alive = join(segment, 2);
    publish_one(segment.view(), writer);
    CHECK(dead.take_new().sequence == 1);
    framegate_test_mutations = kMutateNoRedelivery;
    leave(segment.view(), 1);
    framegate_test_mutations = 0;
    CHECK(alive.take_marked().result == TakeResult::kGone);
    CHECK(alive.take_new().result == TakeResult::kGone);
}

TEST_CASE("unfinished frame is not overwritten, finished it is free") {
    HeapSegment segment(test::options(3, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member dead = join(segment, 1);
    const Member alive = join(segment, 2);
    publish_one(view, writer);
    const std::uint32_t slot = dead.take_new().slot;
    leave(view, 1);
    publish_one(view, writer);
    publish_one(view, writer);
    CHECK(alive.release(alive.take_new()));
    CHECK(alive.release(alive.take_new()));
    CHECK(publish_until_full(view, writer) == 2);  // of three slots one is unfinished
    const GroupTake again = alive.take_marked();
    CHECK(again.slot == slot);
    CHECK(again.sequence == 1);
    CHECK(alive.release(again));
    const LoanAttempt loan = try_loan(view, writer);
    CHECK(loan.result == LoanResult::kOk);
    CHECK(loan.slot == slot);
}

TEST_CASE("frame that is given back comes again, also to the same member") {
    HeapSegment segment(test::options(4, 64));
    const Self writer = segment.join(0);
    const Member member = join(segment, 1);
    publish_one(segment.view(), writer);
    GroupTake taken = member.take_new();
    CHECK_FALSE(taken.redelivered);
    for (int i = 0; i < 3; ++i) {
        member.nack(taken);
        CHECK(any_unfinished(segment.view(), member.group));
        taken = member.take_marked();
        REQUIRE(taken.result == TakeResult::kOk);
        CHECK(taken.sequence == 1);
        CHECK(taken.redelivered);
    }
    CHECK(member.release(taken));
    CHECK_FALSE(any_unfinished(segment.view(), member.group));
}

TEST_CASE("one of two members that pick the same frame gets it") {
    HeapSegment segment(test::options(4, 64));
    const Self writer = segment.join(0);
    const Member first = join(segment, 1);
    const Member second = join(segment, 2);
    publish_one(segment.view(), writer);
    first.nack(first.take_new());
    GroupTake won;
    {
        const At at(Step::kGroupPickAnnounced, [&] { won = second.take_marked(); });
        CHECK(first.take_marked().result == TakeResult::kGone);
    }
    CHECK(won.sequence == 1);
    CHECK(segment.view().slots[won.slot].holders[0].load() == second.self.bit);
}

// A publisher stands between its TRY and its look at the holders.
TEST_CASE("pick that meets a publisher leaves the mark, and the publisher puts the frame back") {
    HeapSegment segment(test::options(2, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member member = join(segment, 1);
    publish_one(view, writer);
    const GroupTake taken = member.take_new();
    publish_one(view, writer);
    member.release(member.take_new());
    GroupTake picked;
    {
        // Released without a mark just before the publisher's TRY, marked after it: never so by a
        // member, whose mark comes first; here it makes the publisher stop in TRY.
        member.release(taken);
        const At at(Step::kLoanTry, [&] {
            mark_unfinished(view, taken.slot, member.group);
            picked = member.take_marked();
        });
        CHECK(try_loan(view, writer).result == LoanResult::kNone);
    }
    CHECK(picked.result == TakeResult::kBusy);
    CHECK(picked.space);
    CHECK(view.slots[taken.slot].holders[0].load() == 0);
    CHECK(member.take_marked().sequence == 1);
}

// The reaper has marked and cleared the bit between the publisher's two looks.
TEST_CASE("publisher that missed the bit of the dead sees the mark") {
    HeapSegment segment(test::options(2, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member dead = join(segment, 1);
    const Member alive = join(segment, 2);
    publish_one(view, writer);
    dead.take_new();
    publish_one(view, writer);
    alive.release(alive.take_new());
    {
        const At at(Step::kGroupMarked, [&] {
            CHECK(try_loan(view, writer).result == LoanResult::kNone);  // bit and mark
        });
        scrub_row(view, 1);
    }
    CHECK(try_loan(view, writer).result == LoanResult::kNone);  // mark alone
    {
        const At at(Step::kGroupPicked, [&] {
            CHECK(try_loan(view, writer).result == LoanResult::kNone);  // the picker's bit alone
        });
        CHECK(alive.take_marked().sequence == 1);
    }
}

TEST_CASE("stray bit of a dead member delivers nothing that the cursor will deliver") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member dead = join(segment, 1);
    const Member alive = join(segment, 2);
    publish_one(view, writer);
    {
        const At at(Step::kTakeDone, [&] { leave(view, 1); });  // before the cursor moved
        dead.take_new();
    }
    // Where its cursor CAS came after all, nothing was its own any more; here it did.
    CHECK(alive.take_marked().result == TakeResult::kGone);
}

TEST_CASE("mark on a slot without a frame is dropped") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member member = join(segment, 1);
    SUBCASE("free") { mark_unfinished(view, 2, member.group); }
    SUBCASE("claimed") {
        const LoanAttempt loan = try_loan(view, writer);
        mark_unfinished(view, loan.slot, member.group);
    }
    SUBCASE("a frame behind the cursor") {
        publish_one(view, writer);
        std::uint32_t slot = 0;
        REQUIRE(find_frame(view, 1, &slot));
        mark_unfinished(view, slot, member.group);
    }
    SUBCASE("committed under a sequence that another slot got") {
        view.slots[3].word.store(slot_word(7, writer.owner, SlotState::kCommit));
        view.groups[member.group].cursor.store(9);
        view.shared->head.store(9);
        mark_unfinished(view, 3, member.group);
    }
    CHECK(member.take_marked().result == TakeResult::kGone);
    CHECK_FALSE(any_unfinished(view, member.group));
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        CHECK(view.slots[i].holders[0].load() == 0);
    }
}

TEST_CASE("scrub of a member can be repeated from any point") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member dead = join(segment, 1);
    const Member alive = join(segment, 2);
    publish_one(view, writer);
    dead.take_new();
    scrub_row(view, 1);
    scrub_row(view, 1);
    leave_group(view, 1);
    scrub_row(view, 1);
    leave_group(view, 1);
    CHECK(has_members(view, alive.group));
    free_row(view, 1);
    CHECK(alive.take_marked().sequence == 1);
    CHECK(alive.take_marked().result == TakeResult::kGone);
}

TEST_CASE("end of a group frees its marks and no other's") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member mine = join(segment, 1);
    const Member other = join(segment, 2, "other");
    publish_one(view, writer);
    const GroupTake taken = mine.take_new();
    other.nack(other.take_new());
    leave(view, 1);  // with its frame unfinished
    CHECK(view.slots[taken.slot].marks.load() == std::uint64_t{1} << other.group);
    CHECK(other.take_marked().sequence == 1);
    CHECK(join(segment, 5).group == mine.group);
    CHECK_FALSE(any_unfinished(view, mine.group));
}

TEST_CASE("nonsense in rows, marks and cursors ends in an answer") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Member member = join(segment, 1);
    for (const std::uint64_t number : {std::uint64_t{9}, ~std::uint64_t{0}}) {
        view.participants[1].group.store(number);
        CHECK(group_of(view, 1) == kNoGroup);
    }
    view.shared->groups.store(~std::uint64_t{0});
    static_cast<void>(try_loan(view, writer));
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        view.slots[i].marks.store(~std::uint64_t{0});
        view.slots[i].word.store(~std::uint64_t{0});
    }
    static_cast<void>(member.take_marked());
    view.shared->head.store(std::uint64_t{1} << 60);
    CHECK(member.take_new().result == TakeResult::kGone);
    view.groups[member.group].cursor.store(~std::uint64_t{0});
    CHECK(member.take_new().result == TakeResult::kGone);
    const std::string name = "another";
    CHECK(join(segment, 2, name).group < kGroups);
}

// ---- threads

// Two publishers, a reliable reader, and members that now and then give a frame back or "die" with
// one in hand; a reaper follows. ThreadSanitizer sees every pairing.
TEST_CASE("threads: nothing torn, nothing lost, nothing twice without a reason") {
    constexpr std::uint32_t kWords = 64;
    constexpr std::uint64_t kFrames = FG_TEST_TSAN ? 3000 : 30000;
    constexpr std::uint32_t kMembers = 3;
    HeapSegment segment(test::options(6, kWords * 8));
    const SegmentView& view = segment.view();
    std::vector<std::atomic<std::uint32_t>> finished(kFrames + 1);
    std::vector<std::atomic<std::uint32_t>> excused(kFrames + 1);
    std::atomic<std::uint64_t> torn{0};
    std::atomic<std::uint64_t> gaps{0};
    std::atomic<std::uint32_t> deaths{0};
    std::atomic<std::uint64_t> started{0};
    std::mutex group_lock;  // stands for the byte locks

    const auto fill = [&](std::uint32_t slot, std::uint64_t value) {
        for (std::uint32_t word = 0; word < kWords; ++word) {
            segment.words(slot)[word] = value;
        }
    };
    const auto is_whole = [&](std::uint32_t slot) {
        const std::uint64_t* words = segment.words(slot);
        for (std::uint32_t word = 1; word < kWords; ++word) {
            if (words[word] != words[0]) {
                return false;
            }
        }
        return true;
    };
    const auto publish_all = [&](const Self& self) {
        while (started.fetch_add(1) < kFrames) {
            LoanAttempt loan = try_loan(view, self);
            while (loan.result != LoanResult::kOk) {
                std::this_thread::yield();
                loan = try_loan(view, self);
            }
            fill(loan.slot, started.load());
            publish(view, self, loan.slot, loan.word);
        }
    };
    const auto read_all = [&](const Self& self) {
        Word& cursor = view.participants[self.index].cursor;
        for (std::uint64_t next = cursor.load() + 1; next <= kFrames;) {
            if (load_head(view) < next) {
                std::this_thread::yield();
                continue;
            }
            const TakeAttempt lease =
                framegate::impl::take(view, self, next, holds_nothing, nullptr);
            if (lease.result == TakeResult::kBusy) {
                continue;
            }
            gaps.fetch_add(lease.result == TakeResult::kOk ? 0 : 1);
            cursor.store(next);
            if (lease.result == TakeResult::kOk) {
                torn.fetch_add(is_whole(lease.slot) ? 0 : 1);
                release(view, self, lease.slot, next);
            }
            ++next;
        }
    };
    const auto all_finished = [&] {
        for (std::uint64_t sequence = 1; sequence <= kFrames; ++sequence) {
            if (finished[sequence].load() == 0) {
                return false;
            }
        }
        return true;
    };
    std::atomic<bool> over{false};
    const auto work = [&](std::uint32_t index, Member member) {
        std::mt19937 random(index);
        while (!over.load()) {
            GroupTake taken = member.take_marked();
            if (taken.result != TakeResult::kOk) {
                taken = member.take_new();
            }
            gaps.fetch_add(taken.lost);
            if (taken.result != TakeResult::kOk) {
                if (load_head(view) >= kFrames && all_finished()) {
                    over.store(true);
                }
                std::this_thread::yield();
                continue;
            }
            torn.fetch_add(is_whole(taken.slot) ? 0 : 1);
            const std::uint32_t dice = random() % 64;
            if (dice == 0) {
                excused[taken.sequence].fetch_add(1);
                member.nack(taken);
            } else if (dice == 1) {
                // Dies here, with or without having finished. Another thread finds out at once.
                excused[taken.sequence].fetch_add(1);
                finished[taken.sequence].fetch_add(random() % 2);
                deaths.fetch_add(1);
                std::thread reaper([&] {
                    scrub_row(view, member.self.index);
                    const std::lock_guard guard(group_lock);
                    leave_group(view, member.self.index);
                    free_row(view, member.self.index);
                    member = join(segment, member.self.index);
                });
                reaper.join();
            } else {
                finished[taken.sequence].fetch_add(1);
                if (!member.release(taken)) {
                    torn.fetch_add(1);
                }
            }
        }
    };

    const Self reader = segment.join(9);
    begin_reliable(view, reader, false);
    const Member anchor = join(segment, 8);  // never takes; the group outlives every death
    std::vector<Member> members;
    for (std::uint32_t i = 0; i < kMembers; ++i) {
        members.push_back(join(segment, 64 + i));
        REQUIRE(members.back().group == anchor.group);
    }
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < 2; ++i) {
        threads.emplace_back([&, self = segment.join(i)] { publish_all(self); });
    }
    threads.emplace_back([&] { read_all(reader); });
    for (std::uint32_t i = 0; i < kMembers; ++i) {
        threads.emplace_back([&, i] { work(i, members[i]); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    // Of members that died last, after their work and before their release.
    for (GroupTake left = anchor.take_marked(); left.result == TakeResult::kOk;
         left = anchor.take_marked()) {
        CHECK(excused[left.sequence].load() != 0);
        anchor.release(left);
    }
    CHECK(torn.load() == 0);
    CHECK(gaps.load() == 0);
    CHECK(deaths.load() > 10);
    std::uint64_t wrong = 0;
    for (std::uint64_t sequence = 1; sequence <= kFrames; ++sequence) {
        const std::uint32_t times = finished[sequence].load();
        wrong += times >= 1 && times <= 1 + excused[sequence].load() ? 0 : 1;
    }
    CHECK(wrong == 0);
    for (std::uint32_t slot = 0; slot < view.slot_count; ++slot) {
        CHECK(view.slots[slot].holders[0].load() == 0);
        CHECK(view.slots[slot].holders[1].load() == 0);
        CHECK(view.slots[slot].marks.load() == 0);
    }
}
