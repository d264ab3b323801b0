// The algorithm on heap memory: single steps in chosen orders, then threads.
#include <atomic>
#include <set>
#include <thread>

#include "support.hpp"

using namespace framegate::impl;
using test::At;
using test::HeapSegment;
using test::holds_nothing;
using test::publish_one;

namespace {

TakeAttempt take(const SegmentView& view, const Self& self, std::uint64_t sequence) {
    return framegate::impl::take(view, self, sequence, holds_nothing, nullptr);
}

SlotState state_of(const SegmentView& view, std::uint32_t slot) {
    return word_state(view.slots[slot].word.load());
}

}  // namespace

TEST_CASE("sequences count up from one and takes find them") {
    HeapSegment segment(test::options(4, 64));
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    CHECK(take(segment.view(), reader, 1).result == TakeResult::kGone);
    for (std::uint64_t sequence = 1; sequence <= 20; ++sequence) {
        CHECK(publish_one(segment.view(), writer) == sequence);
        const TakeAttempt attempt = take(segment.view(), reader, sequence);
        REQUIRE(attempt.result == TakeResult::kOk);
        CHECK(release(segment.view(), reader, attempt.slot, sequence));
    }
    CHECK(load_head(segment.view()) == 20);
}

TEST_CASE("lease blocks reuse") {
    HeapSegment segment(test::options(2, 64));
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    publish_one(segment.view(), writer);
    const TakeAttempt lease = take(segment.view(), reader, 1);
    publish_one(segment.view(), writer);
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kNone);
    CHECK(release(segment.view(), reader, lease.slot, 1));
    CHECK(try_loan(segment.view(), writer).slot == lease.slot);
}

TEST_CASE("newest frames are never loaned") {
    fg_topic_options options = test::options(5, 64);
    options.keep = 3;
    HeapSegment segment(options);
    const Self writer = segment.join(0);
    for (int i = 0; i < 9; ++i) {
        publish_one(segment.view(), writer);
    }
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kOk);
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kOk);
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kNone);
    const Self reader = segment.join(1);
    for (std::uint64_t sequence = 7; sequence <= 9; ++sequence) {
        CHECK(take(segment.view(), reader, sequence).result == TakeResult::kOk);
    }
}

TEST_CASE("abandoned loan leaves nothing to take") {
    HeapSegment segment(test::options(2, 64));
    const Self writer = segment.join(0);
    const LoanAttempt loan = try_loan(segment.view(), writer);
    CHECK(abandon(segment.view(), loan.slot, loan.word));
    CHECK_FALSE(abandon(segment.view(), loan.slot, loan.word));
    CHECK(state_of(segment.view(), loan.slot) == SlotState::kFree);
    CHECK(load_head(segment.view()) == 0);
}

// A reader announces itself between the publisher's look at the holders and its claim.
TEST_CASE("publisher puts a frame back that was taken while it claimed it") {
    HeapSegment segment(test::options(2, 64));
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    publish_one(segment.view(), writer);
    publish_one(segment.view(), writer);
    TakeAttempt lease;
    {
        const At at(Step::kLoanCandidate, [&] { lease = take(segment.view(), reader, 1); });
        const LoanAttempt loan = try_loan(segment.view(), writer);
        CHECK(loan.result == LoanResult::kNone);
        CHECK(loan.space);
    }
    CHECK(lease.result == TakeResult::kOk);
    CHECK(state_of(segment.view(), lease.slot) == SlotState::kPub);
    CHECK(release(segment.view(), reader, lease.slot, 1));
}

// The same with the rule removed: the test above would not pass by luck.
TEST_CASE("without the second look at the holders a leased slot is loaned") {
    HeapSegment segment(test::options(2, 64));
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    publish_one(segment.view(), writer);
    publish_one(segment.view(), writer);
    TakeAttempt lease;
    const At at(Step::kLoanCandidate, [&] { lease = take(segment.view(), reader, 1); });
    framegate_test_mutations = kMutateNoHoldersRecheck;
    const LoanAttempt loan = try_loan(segment.view(), writer);
    CHECK(lease.result == TakeResult::kOk);
    CHECK(loan.result == LoanResult::kOk);
    CHECK(loan.slot == lease.slot);
    CHECK_FALSE(still_frame(segment.view(), lease.slot, 1));
}

TEST_CASE("take that meets a claim gives up and takes its bit back") {
    HeapSegment segment(test::options(2, 64));
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    publish_one(segment.view(), writer);
    publish_one(segment.view(), writer);
    TakeAttempt attempt;
    {
        // TRY stands still for the whole take: the publisher is off-CPU.
        const At at(Step::kLoanTry, [&] { attempt = take(segment.view(), reader, 1); });
        CHECK(try_loan(segment.view(), writer).result == LoanResult::kOk);
    }
    CHECK(attempt.result == TakeResult::kBusy);
    CHECK(attempt.space);
    CHECK(segment.view().slots[attempt.slot].holders[0].load() == 0);
    CHECK(take(segment.view(), reader, 1).result == TakeResult::kGone);
}

TEST_CASE("failed take leaves the bit of another lease alone") {
    HeapSegment segment(test::options(2, 64));
    const Self reader = segment.join(1);
    segment.view().ring[5 & segment.view().ring_mask].store(ring_entry(5, 0));
    segment.view().slots[0].word.store(slot_word(5, owner_of(9, 0), SlotState::kClaim));
    segment.view().slots[0].holders[0].store(reader.bit);
    const auto holds = [](void*, std::uint32_t) { return true; };
    CHECK(framegate::impl::take(segment.view(), reader, 5, holds, nullptr).result ==
          TakeResult::kGone);
    CHECK(segment.view().slots[0].holders[0].load() == reader.bit);
}

TEST_CASE("publisher that stopped between ring and head is helped") {
    HeapSegment segment(test::options(2, 64));
    const Self writer = segment.join(0);
    const Self other = segment.join(1);
    publish_one(segment.view(), writer);
    std::uint64_t helped = 0;
    LoanAttempt loan;
    {
        const At at(Step::kPublishRing, [&] {
            helped = help_head(segment.view());
            // Both slots are in play: the older frame is claimable only for those who help first.
            loan = try_loan(segment.view(), other);
        });
        publish_one(segment.view(), writer);
    }
    CHECK(helped == 2);
    CHECK(loan.result == LoanResult::kOk);
    CHECK(publish(segment.view(), other, loan.slot, loan.word).sequence == 3);
}

TEST_CASE("without help two slots wedge") {
    HeapSegment segment(test::options(2, 64));
    const Self writer = segment.join(0);
    const Self other = segment.join(1);
    publish_one(segment.view(), writer);
    LoanAttempt loan;
    const At at(Step::kPublishRing, [&] { loan = try_loan(segment.view(), other); });
    framegate_test_mutations = kMutateNoHelp;
    publish_one(segment.view(), writer);
    CHECK(loan.result == LoanResult::kNone);
}

TEST_CASE("two publishers that want the same sequence both get one") {
    HeapSegment segment(test::options(4, 64));
    const Self first = segment.join(0);
    const Self second = segment.join(1);
    std::uint64_t other = 0;
    std::uint64_t mine = 0;
    {
        const At at(Step::kPublishCommitted, [&] { other = publish_one(segment.view(), second); });
        mine = publish_one(segment.view(), first);
    }
    CHECK(other == 1);
    CHECK(mine == 2);
}

TEST_CASE("scrub decides by the state in which a publisher died") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    const Self dead = segment.join(3);
    const auto put = [&](std::uint32_t slot, std::uint64_t sequence, SlotState state) {
        view.slots[slot].word.store(slot_word(sequence, dead.owner, state));
        view.slots[slot].holders[0].store(dead.bit | 1);
    };
    SUBCASE("TRY of a frame: the frame is back") {
        put(0, 7, SlotState::kTry);
        scrub_row(view, 3);
        CHECK(view.slots[0].word.load() == slot_word(7, 0, SlotState::kPub));
    }
    SUBCASE("TRY of a free slot: free") {
        put(0, 0, SlotState::kTry);
        scrub_row(view, 3);
        CHECK(state_of(view, 0) == SlotState::kFree);
    }
    SUBCASE("CLAIM: free") {
        put(0, 7, SlotState::kClaim);
        scrub_row(view, 3);
        CHECK(state_of(view, 0) == SlotState::kFree);
    }
    SUBCASE("COMMIT that the ring names: a frame") {
        put(0, 7, SlotState::kCommit);
        view.ring[7 & view.ring_mask].store(ring_entry(7, 0));
        view.shared->head.store(6);
        scrub_row(view, 3);
        CHECK(view.slots[0].word.load() == slot_word(7, 0, SlotState::kPub));
        CHECK(load_head(view) == 7);
    }
    SUBCASE("COMMIT that the ring does not name: free") {
        put(0, 7, SlotState::kCommit);
        view.ring[7 & view.ring_mask].store(ring_entry(7, 1));
        scrub_row(view, 3);
        CHECK(state_of(view, 0) == SlotState::kFree);
    }
    SUBCASE("words of others stay") {
        view.slots[0].word.store(slot_word(7, owner_of(2, 0), SlotState::kClaim));
        scrub_row(view, 3);
        CHECK(state_of(view, 0) == SlotState::kClaim);
    }
    for (std::uint32_t i = 0; i < 4; ++i) {
        CHECK((view.slots[i].holders[0].load() & dead.bit) == 0);
    }
    CHECK((view.slots[0].holders[0].load() & ~std::uint64_t{1}) == 0);
    for (const Mark mark :
         {Mark::kWaiter, Mark::kSpaceWaiter, Mark::kFd, Mark::kReliable, Mark::kHistory}) {
        CHECK_FALSE(any_mark(view, mark));
    }
    scrub_row(view, 3);  // repeatable
    CHECK(row_in_use(view, 3));
    free_row(view, 3);
    CHECK_FALSE(row_in_use(view, 3));
}

// A slot abandoned with half overwritten bytes must not become its old frame again.
TEST_CASE("death on a free slot does not resurrect the frame that was there") {
    HeapSegment segment(test::options(2, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    publish_one(view, writer);
    publish_one(view, writer);
    const LoanAttempt loan =
        try_loan(view, writer);  // of the slot of frame 1, whose ring entry still names it
    abandon(view, loan.slot, loan.word);
    {
        const At at(Step::kLoanTry, [&] {
            scrub_row(view, writer.index);
            CHECK(take(view, reader, 1).result == TakeResult::kGone);
        });
        try_loan(view, writer);
    }
}

TEST_CASE("publisher that was reaped alive publishes nothing") {
    HeapSegment segment(test::options(4, 64));
    const Self writer = segment.join(0);
    const LoanAttempt loan = try_loan(segment.view(), writer);
    scrub_row(segment.view(), 0);
    const Self successor = segment.join(0);
    CHECK(successor.owner != writer.owner);
    CHECK(publish(segment.view(), writer, loan.slot, loan.word).result == PublishResult::kLost);
    const LoanAttempt again = try_loan(segment.view(), successor);
    segment.view().shared->next_slot.store(0);
    CHECK(publish(segment.view(), writer, again.slot, loan.word).result == PublishResult::kLost);
    CHECK(publish(segment.view(), successor, again.slot, again.word).sequence == 1);
}

TEST_CASE("large slots are reused warm while nobody wants old frames") {
    HeapSegment segment(test::options(8, 1 << 20));
    const SegmentView& view = segment.view();
    REQUIRE(view.reuse_warm);
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    const auto slots_in = [&](int frames) {
        std::set<std::uint32_t> slots;
        for (int i = 0; i < frames; ++i) {
            const LoanAttempt loan = try_loan(view, writer);
            REQUIRE(loan.result == LoanResult::kOk);
            slots.insert(loan.slot);
            REQUIRE(publish(view, writer, loan.slot, loan.word).result == PublishResult::kOk);
        }
        return slots.size();
    };
    slots_in(8);
    CHECK(slots_in(16) == 2);  // the newest, and the one before it
    const std::uint64_t held = load_head(view);
    REQUIRE(take(view, reader, held).result == TakeResult::kOk);
    CHECK(slots_in(16) == 2);  // the held one left alone, another one in its place
    set_mark(view, reader, Mark::kHistory);
    CHECK(slots_in(16) == 7);  // all but the held one, oldest frame first
    clear_mark(view, reader, Mark::kHistory);
    CHECK(slots_in(16) == 2);
    CHECK_FALSE(HeapSegment(test::options(8, 64)).view().reuse_warm);
}

TEST_CASE("release of a lease that was taken away says so") {
    HeapSegment segment(test::options(2, 64));
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    publish_one(segment.view(), writer);
    const TakeAttempt lease = take(segment.view(), reader, 1);
    scrub_row(segment.view(), reader.index);
    CHECK_FALSE(release(segment.view(), reader, lease.slot, 1));
}

TEST_CASE("reliable cursor holds publishers back") {
    HeapSegment segment(test::options(3, 64));
    const Self writer = segment.join(0);
    const Self reader = segment.join(70);
    set_mark(segment.view(), reader, Mark::kReliable);
    for (int i = 0; i < 3; ++i) {
        publish_one(segment.view(), writer);
    }
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kNone);
    segment.view().participants[70].cursor.store(1);
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kOk);
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kNone);
    clear_mark(segment.view(), reader, Mark::kReliable);
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kOk);
}

TEST_CASE("sealed topic refuses loans and publications") {
    HeapSegment segment(test::options(4, 64));
    const Self writer = segment.join(0);
    publish_one(segment.view(), writer);
    const LoanAttempt loan = try_loan(segment.view(), writer);
    segment.view().ring[2].store(ring_entry(2, kClosedSlot));
    CHECK(sealed_after(segment.view(), 1));
    const Publication refused = publish(segment.view(), writer, loan.slot, loan.word);
    CHECK(refused.result == PublishResult::kMoved);
    CHECK(state_of(segment.view(), loan.slot) == SlotState::kClaim);  // its bytes are needed yet
    CHECK(abandon(segment.view(), loan.slot, refused.word));
    CHECK(try_loan(segment.view(), writer).result == LoanResult::kMoved);
    CHECK(help_head(segment.view()) == 1);
}

TEST_CASE("sequence numbers end without wrapping") {
    HeapSegment segment(test::options(4, 64));
    const Self writer = segment.join(0);
    segment.view().shared->head.store(FG_SEQUENCE_MAX - 2);
    const LoanAttempt loan = try_loan(segment.view(), writer);
    const LoanAttempt next = try_loan(segment.view(), writer);
    CHECK(publish(segment.view(), writer, loan.slot, loan.word).sequence == FG_SEQUENCE_MAX - 1);
    CHECK(publish(segment.view(), writer, next.slot, next.word).result ==
          PublishResult::kExhausted);
    CHECK(state_of(segment.view(), next.slot) == SlotState::kFree);
}

TEST_CASE("participants of all four words are seen") {
    fg_topic_options options = test::options(2, 64);
    options.participants_max = 256;
    HeapSegment segment(options);
    const Self writer = segment.join(0);
    for (std::uint32_t index : {1U, 63U, 64U, 127U, 128U, 200U, 255U}) {
        const Self reader = segment.join(index);
        const std::uint64_t sequence = publish_one(segment.view(), writer);
        const TakeAttempt lease = take(segment.view(), reader, sequence);
        publish_one(segment.view(), writer);
        CHECK(try_loan(segment.view(), writer).result == LoanResult::kNone);
        CHECK(release(segment.view(), reader, lease.slot, sequence));
    }
}

TEST_CASE("every free slot is found whatever the hint says") {
    HeapSegment segment(test::options(4, 64));
    const Self writer = segment.join(0);
    for (std::uint64_t hint :
         {std::uint64_t{0}, std::uint64_t{3}, std::uint64_t{4}, ~std::uint64_t{0}}) {
        std::vector<LoanAttempt> loans;
        for (int i = 0; i < 4; ++i) {
            segment.view().shared->next_slot.store(hint);
            loans.push_back(try_loan(segment.view(), writer));
            CHECK(loans.back().result == LoanResult::kOk);
        }
        CHECK(try_loan(segment.view(), writer).result == LoanResult::kNone);
        for (const LoanAttempt& loan : loans) {
            abandon(segment.view(), loan.slot, loan.word);
        }
    }
}

TEST_CASE("nonsense in ring and head ends in an answer") {
    HeapSegment segment(test::options(4, 64));
    const SegmentView& view = segment.view();
    const Self writer = segment.join(0);
    const Self reader = segment.join(1);
    const LoanAttempt loan = try_loan(view, writer);
    view.ring[1].store(ring_entry(1000, 3));
    CHECK(publish(view, writer, loan.slot, loan.word).result == PublishResult::kCorrupt);
    view.ring[1].store(ring_entry(1, 60000));
    CHECK(take(view, reader, 1).result == TakeResult::kGone);
    view.shared->head.store(~std::uint64_t{0});
    CHECK(publish(view, writer, loan.slot, loan.word).result != PublishResult::kOk);
    static_cast<void>(try_loan(view, writer));
}

// Two publishers and two subscribers as threads over one mapping: ThreadSanitizer sees every
// pairing.
TEST_CASE("threads never see torn frames") {
    constexpr std::uint32_t kWords = 512;
    constexpr std::uint64_t kFrames = FG_TEST_TSAN ? 4000 : 40000;
    constexpr std::uint64_t kReads = 1000;
    HeapSegment segment(test::options(5, kWords * 8));
    const SegmentView& view = segment.view();
    std::atomic<std::uint64_t> published{0};
    std::atomic<std::uint64_t> torn{0};
    std::atomic<std::uint64_t> received{0};
    std::atomic<std::uint32_t> publishing{2};
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < 2; ++i) {
        threads.emplace_back([&, i, self = segment.join(i)] {
            // Also until the readers had their share: on a busy machine they may start late.
            for (std::uint64_t n = 1; published.load() < kFrames || received.load() < kReads; ++n) {
                const LoanAttempt loan = try_loan(view, self);
                if (loan.result != LoanResult::kOk) {
                    std::this_thread::yield();
                    continue;
                }
                std::uint64_t* words = segment.words(loan.slot);
                const std::uint64_t value = n << 8 | i;
                for (std::uint32_t word = 0; word < kWords; ++word) {
                    words[word] = value;
                }
                view.slots[loan.slot].bytes.store(value, std::memory_order_relaxed);
                if (publish(view, self, loan.slot, loan.word).result == PublishResult::kOk) {
                    published.fetch_add(1);
                }
            }
            publishing.fetch_sub(1);
        });
    }
    for (std::uint32_t i = 0; i < 2; ++i) {
        threads.emplace_back([&, i, self = segment.join(64 + i)] {
            std::uint64_t last = 0;
            while (publishing.load() != 0) {
                const std::uint64_t head = load_head(view);
                if (head <= last) {
                    std::this_thread::yield();
                    continue;
                }
                const std::uint64_t sequence = i == 0 ? head : last + 1;
                const TakeAttempt lease = take(view, self, sequence);
                last = sequence;
                if (lease.result != TakeResult::kOk) {
                    continue;
                }
                const std::uint64_t* words = segment.words(lease.slot);
                const std::uint64_t value = words[0];
                bool good = view.slots[lease.slot].bytes.load(std::memory_order_relaxed) == value;
                for (std::uint32_t word = 0; word < kWords; ++word) {
                    good = good && words[word] == value;
                }
                torn.fetch_add(good ? 0 : 1);
                received.fetch_add(1);
                if (!release(view, self, lease.slot, sequence)) {
                    torn.fetch_add(1);
                }
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(torn.load() == 0);
    CHECK(received.load() >= kReads);
    CHECK(load_head(view) == published.load());
    for (std::uint32_t slot = 0; slot < view.slot_count; ++slot) {
        CHECK(view.slots[slot].holders[1].load() == 0);
        CHECK(
            (state_of(view, slot) == SlotState::kPub || state_of(view, slot) == SlotState::kFree));
    }
}
