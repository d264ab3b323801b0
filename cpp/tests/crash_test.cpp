// kill -9 at every labelled step. A child process dies exactly there, while this process publishes
// and subscribes on the same topic. Afterwards nothing may be lost: frames whole, every slot
// loanable, no holder bit, no row, no file.
#include <algorithm>
#include <ctime>
#include <random>
#include <thread>

#include "support.hpp"

using framegate::impl::is_of_mail;
using framegate::impl::Step;

namespace {

constexpr std::uint64_t kBytes = 4096;
constexpr std::uint32_t kSlots = 6;
constexpr int kRounds = FG_TEST_TSAN ? 2 : 8;

void fill(void* data, std::uint64_t value) {
    auto* words = static_cast<std::uint64_t*>(data);
    std::fill(words, words + kBytes / 8, value);
}

bool is_whole(const fg_frame& frame) {
    const auto* words = static_cast<const std::uint64_t*>(frame.data);
    return frame.bytes == kBytes && std::all_of(words, words + kBytes / 8, [&](std::uint64_t word) {
               return word == words[0];
           });
}

// ---- what the child does until it dies

void publish_for_ever(
    const test::Publisher& publisher, const std::function<bool()>& is_time = [] { return true; }) {
    const fg_publish_info info = test::bytes_info(kBytes);
    for (std::uint64_t n = 0;; ++n) {
        fg_loan loan{};
        while (!is_time()) {
            std::this_thread::yield();
        }
        if (fg_publisher_loan(publisher.get(), kBytes, 1000000, &loan) != FG_OK) {
            continue;
        }
        fill(loan.data, n);
        if (n % 5 == 4) {
            fg_publisher_abandon(publisher.get(), &loan);
        } else {
            fg_publisher_publish(publisher.get(), &loan, &info, nullptr);
        }
    }
}

void subscribe_for_ever(const test::Subscriber& subscriber) {
    int fd = -1;
    int ready = 0;
    fg_subscriber_event_fd(subscriber.get(), &fd);
    for (;;) {
        fg_frame held{};
        fg_frame frame{};
        if (fg_subscriber_take(subscriber.get(), 1000000, &held) != FG_OK) {
            continue;
        }
        if (fg_subscriber_take(subscriber.get(), 1000000, &frame) == FG_OK) {
            fg_subscriber_release(subscriber.get(), &frame);
        }
        fg_subscriber_arm(subscriber.get(), &ready);
        fg_subscriber_drain(subscriber.get());
        fg_subscriber_release(subscriber.get(), &held);
    }
}

// Holds every slot it can, so that the survivors' wait for space is its own.
void fill_up_and_wait(const test::Publisher& publisher) {
    fg_loan loans[kSlots + 1] = {};
    for (fg_loan& loan : loans) {
        fg_publisher_loan(publisher.get(), kBytes, 10000000000, &loan);
    }
}

void attach_for_ever(const test::Topic& topic) {
    for (;;) {
        const test::Publisher publisher = test::publisher(topic);
        fg_loan loan{};
        fg_publisher_loan(publisher.get(), kBytes, 0, &loan);
        fg_publisher_abandon(publisher.get(), &loan);
    }
}

int die_with_a_loan_and_a_lease(std::uint64_t, std::uint64_t) {
    framegate_test_step = nullptr;
    const test::Topic own = test::open("crash");
    const test::Publisher publisher = test::publisher(own);
    const test::Subscriber subscriber = test::subscriber(own, FG_POLICY_LATEST);
    fg_loan loan{};
    fg_frame frame{};
    fg_publisher_loan(publisher.get(), kBytes, 0, &loan);
    fg_subscriber_take(subscriber.get(), 0, &frame);
    kill(getpid(), SIGKILL);
    return 1;
}

// Makes a dead participant, then reaps it, again and again.
void reap_for_ever(const test::Topic& topic) {
    for (;;) {
        test::wait_for(test::start(die_with_a_loan_and_a_lease));
        fg_topic_sweep(topic.get(), nullptr);
    }
}

void append_for_ever(const test::Topic& topic) {
    const fg_value value = {"k", 1, FG_VALUE_INT, 1, 0, nullptr, 0};
    const fg_metadata metadata = {FG_METADATA_TOPIC, 1, &value};
    while (fg_topic_append_metadata(topic.get(), &metadata, nullptr) == FG_OK) {
    }
}

void create_for_ever() {
    for (;;) {
        const fg_topic_options options = test::options(2, 64);
        fg_topic* topic = nullptr;
        fg_topic_create("made", 4, &options, &topic);
        fg_topic_close(topic);
        fg_topic_unlink("made", 4);
    }
}

void resize(const test::Topic& topic, std::uint32_t slots) {
    fg_resize_options options;
    fg_resize_options_init(&options);
    options.slots = slots;
    REQUIRE_MESSAGE(fg_topic_resize(topic.get(), &options) == FG_OK, fg_last_error());
}

void resize_for_ever(const test::Topic& topic) {
    for (std::uint32_t n = 0;; ++n) {
        resize(topic, kSlots + 1 + n % 3);
        fg_topic_sweep(topic.get(), nullptr);
    }
}

bool is_of_resize(Step step) { return step >= Step::kResizeBuilt && step <= Step::kRetireLinked; }

void collect_for_ever() {
    for (;;) {
        const fg_topic_options options = test::options(2, 64);
        fg_topic* topic = nullptr;
        fg_topic_create("made", 4, &options, &topic);
        fg_topic_close(topic);
        fg_collect_stale_topics(0, 0, nullptr, nullptr, nullptr);
    }
}

void play_role(Step step) {
    if (step >= Step::kCollectLocked && step <= Step::kCollectUnlinked) {
        collect_for_ever();
    }
    if (step >= Step::kCreateData && step <= Step::kCreateLinked) {
        create_for_ever();
    }
    const test::Topic topic = test::open("crash");
    if (is_of_resize(step)) {
        resize_for_ever(topic);
    }
    const framegate::impl::SegmentView& view = test::view_of(topic);
    switch (step) {
        case Step::kWakeBumped:  // somebody must sleep to be woken
            publish_for_ever(test::publisher(topic),
                             [&] { return any_mark(view, framegate::impl::Mark::kWaiter); });
            break;
        case Step::kWakeSent:
            publish_for_ever(test::publisher(topic), [&] {
                for (std::uint32_t i = 0; i < view.participants_max; ++i) {
                    if (view.participants[i].armed.load() != 0) {
                        return true;
                    }
                }
                return false;
            });
            break;
        case Step::kTakeAnnounced:
        case Step::kTakeDone:
        case Step::kReleased:
        case Step::kWaiting:
        case Step::kArmed:
            subscribe_for_ever(test::subscriber(topic));
            break;
        case Step::kSpaceWaiting:
            fill_up_and_wait(test::publisher(topic));
            break;
        case Step::kAttachLocked:
        case Step::kAttached:
        case Step::kDetachScrubbed:
            attach_for_ever(topic);
            break;
        case Step::kMetadataLocked:
        case Step::kMetadataWritten:
        case Step::kMetadataStored:
            append_for_ever(topic);
            break;
        case Step::kReapLocked:
        case Step::kReapMarks:
        case Step::kReapSlots:
        case Step::kReapHelped:
        case Step::kReapKicked:
        case Step::kReapFreed:
            reap_for_ever(topic);
            break;
        default:
            publish_for_ever(test::publisher(topic));
    }
}

int die_in_role(std::uint64_t step, std::uint64_t passes) {
    test::die_at(static_cast<Step>(step), passes);
    play_role(static_cast<Step>(step));
    return 1;
}

int publish_and_die_between_ring_and_head(std::uint64_t, std::uint64_t) {
    const test::Publisher other = test::publisher(test::open("wedge"));
    test::die_at(Step::kPublishRing, 0);
    test::send(other, "second");
    return 1;
}

int die_with_last_words(std::uint64_t step, std::uint64_t) {
    const test::Topic own = test::open("quiet");
    const test::Publisher publisher = test::publisher(own);
    const auto& view = test::view_of(own);
    while (!framegate::impl::any_mark(view, framegate::impl::Mark::kWaiter)) {
        std::this_thread::yield();  // until the subscriber is about to sleep
    }
    test::die_at(static_cast<Step>(step), 0);
    test::send(publisher, "last words");
    return 1;
}

int work_until_killed(std::uint64_t number, std::uint64_t) {
    const test::Topic topic = test::open("crash");
    if (number % 2 == 0) {
        publish_for_ever(test::publisher(topic));
    } else {
        subscribe_for_ever(test::subscriber(topic));
    }
    return 1;
}

// ---- what this process does meanwhile

// Room for what all rounds append.
fg_topic_options with_metadata(fg_topic_options options) {
    options.metadata_bytes = 1 << 16;
    return options;
}

struct Survivors {
    test::Topic topic = test::create("crash", with_metadata(test::options(kSlots, kBytes)));
    test::Publisher publisher = test::publisher(topic);
    test::Subscriber subscriber = test::subscriber(topic);
    int event_fd = -1;
    std::uint64_t published = 0;

    Survivors() { REQUIRE(fg_subscriber_event_fd(subscriber.get(), &event_fd) == FG_OK); }

    void publish(std::int64_t timeout_ns) {
        const fg_publish_info info = test::bytes_info(kBytes);
        fg_loan loan{};
        const fg_status status = fg_publisher_loan(publisher.get(), kBytes, timeout_ns, &loan);
        if (status == FG_TOPIC_FULL && timeout_ns == 0) {
            return;
        }
        REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
        fill(loan.data, ++published << 32);
        REQUIRE(fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_OK);
    }

    bool receive(std::int64_t timeout_ns) {
        fg_frame frame{};
        const fg_status status = fg_subscriber_take(subscriber.get(), timeout_ns, &frame);
        if (status == FG_EMPTY || status == FG_TIMEOUT) {
            return false;
        }
        REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
        REQUIRE(is_whole(frame));
        REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
        return true;
    }

    // Traffic that reaches the child's step: sometimes asleep, sometimes armed, sometimes full.
    void work(int turn, Step step = Step::kCount) {
        if (step == Step::kWakeBumped) {
            receive(100000000);
            return;
        }
        if (step == Step::kWakeSent) {
            int ready = 0;
            REQUIRE(fg_subscriber_drain(subscriber.get()) == FG_OK);
            while (receive(0)) {
            }
            REQUIRE(fg_subscriber_arm(subscriber.get(), &ready) == FG_OK);
            pollfd entry{event_fd, POLLIN, 0};
            poll(&entry, 1, ready != 0 ? 0 : 100);
            return;
        }
        if (turn % 3 != 0) {
            publish(0);
        }
        if (turn % 2 == 0) {
            receive(turn % 4 == 0 ? 200000 : 0);
        }
        if (turn % 5 == 0) {
            int ready = 0;
            REQUIRE(fg_subscriber_arm(subscriber.get(), &ready) == FG_OK);
            REQUIRE(fg_subscriber_drain(subscriber.get()) == FG_OK);
        }
    }

    void check_nothing_is_lost() {
        REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
        resize(topic, kSlots);  // nothing to do but after the deaths of resizers
        publish(test::kPatienceNs);
        while (receive(0)) {
        }
        publish(test::kPatienceNs);
        REQUIRE(receive(test::kPatienceNs));
        std::vector<fg_loan> loans(kSlots);
        std::uint32_t count = 0;
        while (count < kSlots &&
               fg_publisher_loan(publisher.get(), kBytes, 0, &loans[count]) == FG_OK) {
            ++count;
        }
        CHECK(count == kSlots - 1);
        const fg_topic_stats stats = test::stats("crash");
        CHECK(stats.slots_leased == 0);
        CHECK(stats.slots_loaned == kSlots - 1);
        CHECK(stats.dead == 0);
        CHECK(stats.publishers == 1);
        CHECK(stats.subscribers == 1);
        const framegate::impl::SegmentView& view = test::view_of(topic);
        CHECK_FALSE(framegate::impl::any_mark(view, framegate::impl::Mark::kWaiter));
        CHECK_FALSE(framegate::impl::any_mark(view, framegate::impl::Mark::kSpaceWaiter));
        for (std::uint32_t i = 0; i < count; ++i) {
            REQUIRE(fg_publisher_abandon(publisher.get(), &loans[i]) == FG_OK);
        }
    }
};

// Runs the child until it is dead; fails if it did not die at its step.
void run_until_death(pid_t child, const std::function<void(int)>& meanwhile) {
    int status = 0;
    for (int turn = 0;; ++turn) {
        const pid_t ended = waitpid(child, &status, WNOHANG);
        REQUIRE(ended >= 0);
        if (ended == child) {
            break;
        }
        meanwhile(turn);
    }
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGKILL);  // SIGALRM: the step was never reached
}

const char* const kNames[] = {"",
                              "LoanCandidate",
                              "LoanTry",
                              "LoanChecked",
                              "LoanClaimed",
                              "PublishCommitted",
                              "PublishRing",
                              "PublishWord",
                              "PublishDone",
                              "WakeBumped",
                              "WakeSent",
                              "Abandoned",
                              "TakeAnnounced",
                              "TakeDone",
                              "Released",
                              "Waiting",
                              "SpaceWaiting",
                              "Armed",
                              "AttachLocked",
                              "Attached",
                              "DetachScrubbed",
                              "ReliableMarked",
                              "ReliableAttached",
                              "ReliableMoved",
                              "GroupNamed",
                              "GroupBound",
                              "GroupJoining",
                              "GroupJoined",
                              "GroupTaken",
                              "GroupPickAnnounced",
                              "GroupPicked",
                              "GroupMarked",
                              "GroupReturned",
                              "GroupLeft",
                              "GroupEnded",
                              "ReapLocked",
                              "ReapMarks",
                              "ReapSlots",
                              "ReapHelped",
                              "ReapKicked",
                              "ReapFreed",
                              "MailClaimed",
                              "MailWritten",
                              "MailHanded",
                              "MailReady",
                              "MailRung",
                              "MailSent",
                              "MailRetracting",
                              "MailRetracted",
                              "MailLooked",
                              "MailPicked",
                              "MailReleased",
                              "MailOpened",
                              "MailWaiting",
                              "MailArmed",
                              "ReapMailClosed",
                              "ReapMailCells",
                              "ReapMailLetters",
                              "MetadataLocked",
                              "MetadataWritten",
                              "MetadataStored",
                              "CreateData",
                              "CreateControl",
                              "CreateLinked",
                              "ResizeBuilt",
                              "ResizeLinked",
                              "ResizeSealed",
                              "RetireLinked",
                              "CollectLocked",
                              "CollectUnlinked"};
// The steps of the policies reliable and group: policy_crash_test.cpp.
bool is_policy_step(Step step) {
    return step >= Step::kReliableMarked && step <= Step::kGroupEnded;
}

static_assert(sizeof kNames / sizeof kNames[0] == static_cast<std::size_t>(Step::kCount));

}  // namespace

TEST_CASE("death at any step loses nothing") {
    for (std::uint32_t step = 1; step < static_cast<std::uint32_t>(Step::kCount); ++step) {
        if (is_policy_step(static_cast<Step>(step))) {
            continue;
        }
#ifdef _WIN32  // too rare for wine, where children do less in their minute
        if (static_cast<Step>(step) == Step::kRetireLinked) {
            continue;
        }
#endif
        const std::string name = kNames[step];
        CAPTURE(name);
        if (is_of_mail(static_cast<Step>(step))) {
            continue;  // mail_crash_test.cpp
        }
        const test::RuntimeDirectory directory;
        Survivors survivors;
        const std::set<std::string> files = directory.files();
        for (int round = 0; round < kRounds; ++round) {
            CAPTURE(round);
            // The fill-up role passes its step only once; a retirement of several generations at a
            // time is rare.
            const bool once = static_cast<Step>(step) == Step::kSpaceWaiting ||
                              static_cast<Step>(step) == Step::kRetireLinked;
            const pid_t child =
                test::start(die_in_role, step, static_cast<std::uint64_t>(once ? 0 : round * 3));
            run_until_death(child,
                            [&](int turn) { survivors.work(turn, static_cast<Step>(step)); });
            survivors.check_nothing_is_lost();
        }
        // What a dead creator left goes with the next creation.
        test::create("sweeper", test::options(2, 64));
        REQUIRE(fg_topic_unlink("sweeper", 7) == FG_OK);
        fg_topic_unlink("made", 4);
        if (is_of_resize(static_cast<Step>(step))) {
            REQUIRE(fg_topic_sweep(survivors.topic.get(), nullptr) == FG_OK);
            // Control file, data file, wake socket, and the control file of the last generation.
            CHECK(directory.files().size() == files.size() + 1);
        } else {
            CHECK(directory.files() == files);
        }
    }
}

// Two slots, newest one kept: slot 1 is committed but head still says 0, so nobody could loan,
// nobody would publish, and nobody would move head. Fixed by helping head at the start of every
// loan.
TEST_CASE("death between ring and head does not wedge two slots") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("wedge", test::options(2, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    REQUIRE(test::send(publisher, "first") == FG_OK);
    const pid_t child = test::start(publish_and_die_between_ring_and_head);
    const int status = test::wait_for(child);  // a variable: macOS takes its address
    CHECK(WIFSIGNALED(status));
    CHECK(test::send(publisher, "third") == FG_OK);
    fg_frame frame{};
    for (const char* text : {"second", "third"}) {
        REQUIRE(fg_subscriber_take(subscriber.get(), 0, &frame) == FG_OK);
        CHECK(test::text_of(frame) == text);
        CHECK(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    }
}

// Nobody publishes afterwards: only the bounded re-check can find the frame.
TEST_CASE("frame of a publisher that died before waking anybody arrives") {
    for (const Step step :
         {Step::kPublishRing, Step::kPublishWord, Step::kPublishDone, Step::kWakeBumped}) {
        const std::string name = kNames[static_cast<std::size_t>(step)];
        CAPTURE(name);
        const test::RuntimeDirectory directory;
        const test::Topic topic = test::create("quiet", test::options(4, 64));
        const test::Subscriber sleeper = test::subscriber(topic);
        const test::Subscriber looper = test::subscriber(topic);
        int fd = -1;
        int ready = 1;
        REQUIRE(fg_subscriber_event_fd(looper.get(), &fd) == FG_OK);
        REQUIRE(fg_subscriber_arm(looper.get(), &ready) == FG_OK);
        REQUIRE(ready == 0);
        const pid_t child = test::start(die_with_last_words, static_cast<std::uint64_t>(step));
        fg_frame frame{};
        REQUIRE(fg_subscriber_take(sleeper.get(), test::kPatienceNs, &frame) == FG_OK);
        CHECK(test::text_of(frame) == "last words");
        REQUIRE(fg_subscriber_release(sleeper.get(), &frame) == FG_OK);
        test::wait_for(child);
        pollfd entry{fd, POLLIN, 0};
        REQUIRE(poll(&entry, 1, 60000) == 1);
        REQUIRE(fg_subscriber_drain(looper.get()) == FG_OK);
        REQUIRE(fg_subscriber_take(looper.get(), 0, &frame) == FG_OK);
        CHECK(test::text_of(frame) == "last words");
        REQUIRE(fg_subscriber_release(looper.get(), &frame) == FG_OK);
    }
}

#ifndef _WIN32  // SIGSTOP
TEST_CASE("loan that waits gets the slots of a dead holder") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(2, 64));
    const test::Publisher publisher = test::publisher(topic);
    const pid_t child = test::in_child([] {
        const test::Publisher other = test::publisher(test::open("t"));
        fg_loan loans[2] = {};
        fg_publisher_loan(other.get(), 1, 0, &loans[0]);
        fg_publisher_loan(other.get(), 1, 0, &loans[1]);
        raise(SIGSTOP);
        kill(getpid(), SIGKILL);
        return 0;
    });
    int status = 0;
    REQUIRE(waitpid(child, &status, WUNTRACED) == child);
    fg_loan loan{};
    CHECK(fg_publisher_loan(publisher.get(), 1, 0, &loan) == FG_TOPIC_FULL);
    kill(child, SIGCONT);
    CHECK(fg_publisher_loan(publisher.get(), 1, test::kPatienceNs, &loan) == FG_OK);
    CHECK(fg_publisher_abandon(publisher.get(), &loan) == FG_OK);
    test::wait_for(child);
}
#endif

// Deaths at random moments, several at a time.
TEST_CASE("storm of kills loses nothing") {
    const test::RuntimeDirectory directory;
    Survivors survivors;
    std::mt19937 random(3);
    for (int wave = 0; wave < (FG_TEST_TSAN ? 3 : 12); ++wave) {
        std::vector<pid_t> children;
        for (int i = 0; i < 4; ++i) {
            children.push_back(test::start(work_until_killed, static_cast<std::uint64_t>(i)));
        }
        const int turns = 50 + static_cast<int>(random() % 200);
        for (int turn = 0; turn < turns; ++turn) {
            survivors.work(turn);
        }
        for (const pid_t child : children) {
            kill(child, SIGKILL);
            test::wait_for(child);
        }
        survivors.check_nothing_is_lost();
    }
}
