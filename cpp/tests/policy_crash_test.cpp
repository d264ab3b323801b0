// kill -9 at every labelled step of the policies reliable and group. A child dies exactly there,
// while this process publishes, reads reliably and works in the group. Afterwards the reliable
// reader has every frame without a gap, every frame that publish returned for was finished by some
// member, and nobody is held back.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>

#include "group.hpp"
#include "support.hpp"

using framegate::impl::Step;

namespace {

constexpr std::uint64_t kBytes = 512;
constexpr std::uint32_t kSlots = 8;
constexpr int kRounds = FG_TEST_TSAN ? 2 : 6;
constexpr std::uint32_t kIdsMax = 1 << 20;

// What all processes tell each other outside of the topic.
struct Ledger {
    std::atomic<std::uint32_t> next_id;
    std::atomic<std::uint8_t> published[kIdsMax];  // publish returned
    std::atomic<std::uint8_t> finished[kIdsMax];   // by a member of "work"
};

Ledger* new_ledger() {
    void* memory =
        mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return static_cast<Ledger*>(memory);
}

// One process at its work; the child and this one alike.
struct Worker {
    Ledger* ledger;
    const test::Topic& topic;

    test::Subscriber join(const std::string& group) const {
        fg_subscriber_options options;
        fg_subscriber_options_init(&options);
        options.policy = FG_POLICY_GROUP;
        options.group = group.data();
        options.group_bytes = static_cast<std::uint32_t>(group.size());
        fg_subscriber* handle = nullptr;
        const fg_status status = fg_subscriber_open(topic.get(), &options, &handle);
        REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
        return test::Subscriber(handle);
    }

    bool publish(const test::Publisher& publisher, std::int64_t timeout_ns) const {
        const fg_publish_info info = test::bytes_info(kBytes);
        fg_loan loan{};
        const fg_status status = fg_publisher_loan(publisher.get(), kBytes, timeout_ns, &loan);
        if (status == FG_TOPIC_FULL) {
            return false;
        }
        REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
        const std::uint64_t id = ledger->next_id.fetch_add(1);
        REQUIRE(id < kIdsMax);
        auto* words = static_cast<std::uint64_t*>(loan.data);
        std::fill(words, words + kBytes / 8, id);
        REQUIRE(fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_OK);
        ledger->published[id].store(1);
        return true;
    }

    static std::uint64_t id_of(const fg_frame& frame) {
        const auto* words = static_cast<const std::uint64_t*>(frame.data);
        REQUIRE(frame.bytes == kBytes);
        REQUIRE(std::all_of(words, words + kBytes / 8,
                            [&](std::uint64_t word) { return word == words[0]; }));
        REQUIRE(words[0] < kIdsMax);
        return words[0];
    }

    // Takes one frame and finishes it, or gives it back.
    bool work(const test::Subscriber& member, bool give_back) const {
        fg_frame frame{};
        const fg_status status = fg_subscriber_take(member.get(), 0, &frame);
        if (status != FG_OK) {
            REQUIRE_MESSAGE(status == FG_EMPTY, fg_last_error());
            return false;
        }
        CHECK(frame.lost == 0);
        const std::uint64_t id = id_of(frame);
        if (give_back) {
            REQUIRE(fg_subscriber_nack(member.get(), &frame) == FG_OK);
            return true;
        }
        ledger->finished[id].store(1);
        REQUIRE(fg_subscriber_release(member.get(), &frame) == FG_OK);
        return true;
    }
};

// ---- what the child does until it dies

void read_reliably_for_ever(const test::Topic& topic) {
    for (;;) {
        const test::Subscriber reader = test::subscriber(topic, FG_POLICY_RELIABLE);
        for (int n = 0; n < 5; ++n) {
            fg_frame frame{};
            if (fg_subscriber_take(reader.get(), 1000000, &frame) == FG_OK) {
                fg_subscriber_release(reader.get(), &frame);
            }
        }
    }
}

void work_for_ever(const Worker& worker) {
    const test::Subscriber member = worker.join("work");
    for (std::uint32_t n = 0;; ++n) {
        worker.work(member, n % 3 == 0);
    }
}

// Joins a group with members and founds and ends one of its own, holding work at times.
void join_for_ever(const Worker& worker) {
    for (std::uint32_t n = 0;; ++n) {
        const test::Subscriber founder = worker.join("passing");
        const test::Subscriber joiner = worker.join("work");
        worker.work(joiner, n % 2 == 0);
        worker.work(founder, n % 2 == 0);
    }
}

// Makes members that die with work in hand, then reaps them: as the survivors do at the same time.
void reap_for_ever(const Worker& worker) {
    for (;;) {
        const pid_t victim = fork();
        if (victim == 0) {
            framegate_test_step = nullptr;
            const test::Topic own = test::open("policy");
            const Worker mine{worker.ledger, own};
            const test::Subscriber member = mine.join("work");
            const test::Subscriber last = mine.join("passing");
            const test::Subscriber reader = test::subscriber(own, FG_POLICY_RELIABLE);
            fg_frame frame{};
            fg_subscriber_take(member.get(), 2000000, &frame);
            kill(getpid(), SIGKILL);
        }
        int status = 0;
        waitpid(victim, &status, 0);
        fg_topic_sweep(worker.topic.get(), nullptr);
    }
}

// Resizes with a frame in hand and gives it back behind the resize.
void resize_for_ever(const Worker& worker) {
    const test::Publisher publisher = test::publisher(worker.topic);
    const test::Subscriber member = worker.join("work");
    for (std::uint32_t n = 0;; ++n) {
        fg_frame frames[2] = {};
        for (fg_frame& frame : frames) {
            worker.publish(publisher, 1000000);
            fg_subscriber_take(member.get(), 1000000, &frame);
            fg_resize_options options;
            fg_resize_options_init(&options);
            options.slots = kSlots + ++n % 3;
            fg_topic_resize(worker.topic.get(), &options);
        }
        for (fg_frame& frame : frames) {
            if (frame.data != nullptr) {
                fg_subscriber_nack(member.get(), &frame);
            }
        }
        worker.publish(publisher, 1000000);
        worker.work(member, false);
        worker.work(member, false);
    }
}

void publish_for_ever(const Worker& worker) {
    const test::Publisher publisher = test::publisher(worker.topic);
    for (;;) {
        worker.publish(publisher, 1000000);
    }
}

void play_role(Step step, Ledger* ledger) {
    const test::Topic topic = test::open("policy");
    const Worker worker{ledger, topic};
    switch (step) {
        case Step::kReliableMarked:
        case Step::kReliableAttached:
        case Step::kReliableMoved:
            read_reliably_for_ever(topic);
            break;
        case Step::kGroupNamed:
        case Step::kGroupBound:
        case Step::kGroupJoining:
        case Step::kGroupJoined:
        case Step::kGroupLeft:
        case Step::kGroupEnded:
            join_for_ever(worker);
            break;
        case Step::kGroupReturned:
        case Step::kResizeBuilt:
        case Step::kResizeLinked:
        case Step::kResizeSealed:
        case Step::kRetireLinked:
            resize_for_ever(worker);
            break;
        case Step::kReapLocked:
        case Step::kReapMarks:
        case Step::kReapSlots:
        case Step::kReapHelped:
        case Step::kReapKicked:
        case Step::kReapFreed:
            reap_for_ever(worker);
            break;
        case Step::kLoanTry:
        case Step::kLoanClaimed:
        case Step::kPublishCommitted:
        case Step::kPublishRing:
        case Step::kPublishWord:
        case Step::kPublishDone:
            publish_for_ever(worker);
            break;
        default:
            work_for_ever(worker);
    }
}

// ---- what this process does meanwhile

struct Survivors {
    Ledger* ledger = new_ledger();
    test::Topic topic = test::create("policy", test::options(kSlots, kBytes));
    Worker worker{ledger, topic};
    test::Publisher publisher = test::publisher(topic);
    test::Subscriber reader = test::subscriber(topic, FG_POLICY_RELIABLE);
    test::Subscriber member = worker.join("work");
    std::uint64_t read = 0;

    ~Survivors() { munmap(ledger, sizeof *ledger); }

    bool receive() {
        fg_frame frame{};
        const fg_status status = fg_subscriber_take(reader.get(), 0, &frame);
        if (status == FG_EMPTY) {
            return false;
        }
        REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
        CHECK(frame.sequence == ++read);
        CHECK(frame.lost == 0);
        Worker::id_of(frame);
        REQUIRE(fg_subscriber_release(reader.get(), &frame) == FG_OK);
        return true;
    }

    void meanwhile(int turn) {
        worker.publish(publisher, 0);
        receive();
        worker.work(member, turn % 7 == 0);
    }

    void check_nothing_is_lost() {
        REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
        // Nobody holds back what the living have read: more frames than slots pass.
        for (std::uint32_t i = 0; i < 2 * kSlots; ++i) {
            while (receive() || worker.work(member, false)) {
            }
            REQUIRE_MESSAGE(worker.publish(publisher, 0), fg_last_error());
        }
        while (receive() || worker.work(member, false)) {
        }
        std::uint32_t unfinished = 0;
        const std::uint32_t ids = ledger->next_id.load();
        for (std::uint32_t id = 0; id < ids; ++id) {
            unfinished += ledger->published[id].load() == 1 && ledger->finished[id].load() == 0;
        }
        CHECK(unfinished == 0);
        const framegate::impl::SegmentView& view = test::view_of(topic);
        CHECK(view.shared->groups.load() == 1);  // "work"
        for (std::uint32_t i = 0; i < kSlots; ++i) {
            CHECK(view.slots[i].marks.load() == 0);
            CHECK(view.slots[i].holders[0].load() == 0);
        }
        const fg_topic_stats stats = test::stats("policy");
        CHECK(read == stats.head);
        CHECK(stats.slots_leased == 0);
        CHECK(stats.dead == 0);
        CHECK(stats.subscribers == 2);
        CHECK(stats.publishers == 1);
    }
};

struct Death {
    Step step;
    const char* name;
};
constexpr Death kDeaths[] = {
    {Step::kReliableMarked, "ReliableMarked"},
    {Step::kReliableAttached, "ReliableAttached"},
    {Step::kReliableMoved, "ReliableMoved"},
    {Step::kGroupNamed, "GroupNamed"},
    {Step::kGroupBound, "GroupBound"},
    {Step::kGroupJoining, "GroupJoining"},
    {Step::kGroupJoined, "GroupJoined"},
    {Step::kGroupTaken, "GroupTaken"},
    {Step::kGroupPickAnnounced, "GroupPickAnnounced"},
    {Step::kGroupPicked, "GroupPicked"},
    {Step::kGroupMarked, "GroupMarked"},
    {Step::kGroupReturned, "GroupReturned"},
    {Step::kGroupLeft, "GroupLeft"},
    {Step::kGroupEnded, "GroupEnded"},
    // Older steps with these policies around them.
    {Step::kResizeBuilt, "ResizeBuilt"},
    {Step::kResizeLinked, "ResizeLinked"},
    {Step::kResizeSealed, "ResizeSealed"},
    {Step::kRetireLinked, "RetireLinked"},
    {Step::kTakeAnnounced, "TakeAnnounced"},
    {Step::kTakeDone, "TakeDone"},
    {Step::kReleased, "Released"},
    {Step::kLoanTry, "LoanTry"},
    {Step::kLoanClaimed, "LoanClaimed"},
    {Step::kPublishCommitted, "PublishCommitted"},
    {Step::kPublishRing, "PublishRing"},
    {Step::kPublishWord, "PublishWord"},
    {Step::kPublishDone, "PublishDone"},
    {Step::kReapLocked, "ReapLocked"},
    {Step::kReapMarks, "ReapMarks"},
    {Step::kReapSlots, "ReapSlots"},
    {Step::kReapHelped, "ReapHelped"},
    {Step::kReapKicked, "ReapKicked"},
    {Step::kReapFreed, "ReapFreed"},
};

}  // namespace

TEST_CASE("death at any step of a policy loses nothing and blocks nobody") {
    for (const Death& death : kDeaths) {
        const std::string name = death.name;
        CAPTURE(name);
        const test::RuntimeDirectory directory;
        Survivors survivors;
        for (int round = 0; round < kRounds; ++round) {
            CAPTURE(round);
            // To retire several generations at a time is rare.
            const int passes = death.step == Step::kRetireLinked ? 0 : round * 2;
            const pid_t child = test::in_child([&] {
                test::die_at(death.step, static_cast<std::uint64_t>(passes));
                play_role(death.step, survivors.ledger);
                return 1;
            });
            int status = 0;
            for (int turn = 0; waitpid(child, &status, WNOHANG) == 0; ++turn) {
                survivors.meanwhile(turn);
            }
            CHECK(WIFSIGNALED(status));
            CHECK(WTERMSIG(status) == SIGKILL);  // SIGALRM: the step was never reached
            survivors.check_nothing_is_lost();
        }
    }
}

// The bound that is stated: a death is noticed by a blocked loan at once, by a sleeping member
// within about a second.
TEST_CASE("sleeping member gets the frame of a member that dies") {
    const test::RuntimeDirectory directory;
    Survivors survivors;
    const pid_t child = test::in_child([&] {
        const test::Topic topic = test::open("policy");
        const Worker worker{survivors.ledger, topic};
        const test::Subscriber member = worker.join("work");
        survivors.ledger->next_id.store(1);
        fg_frame frame{};
        fg_subscriber_take(member.get(), test::kPatienceNs, &frame);
        raise(SIGSTOP);
        kill(getpid(), SIGKILL);
        return 1;
    });
    while (survivors.ledger->next_id.load() == 0) {  // until the child has joined
        sched_yield();
    }
    survivors.member.reset();  // so that only the child can get it
    int status = 0;
    REQUIRE(survivors.worker.publish(survivors.publisher, 0));
    REQUIRE(waitpid(child, &status, WUNTRACED) == child);
    survivors.member = survivors.worker.join("work");
    CHECK_FALSE(survivors.worker.work(survivors.member, false));
    kill(child, SIGCONT);
    fg_frame frame{};
    REQUIRE(fg_subscriber_take(survivors.member.get(), test::kPatienceNs, &frame) == FG_OK);
    CHECK(frame.redelivered == 1);
    CHECK(fg_subscriber_release(survivors.member.get(), &frame) == FG_OK);
    test::wait_for(child);
}
