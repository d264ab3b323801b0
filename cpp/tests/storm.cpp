// A storm: publishers, subscribers, callers, responders and resizers as processes, killed with SIGKILL at labelled steps and at
// random moments, stopped with SIGSTOP and continued, replaced at once, for a given time.
//
//     storm SECONDS [SEED [MUTATION]]
//
// Survivors are never killed or stopped. They and the parent check afterwards, and while it lasts:
//
// - No frame is torn: each carries a checksum over its words.
// - Every subscriber sees sequences grow; a reliable survivor sees every frame for which any
//   publish returned, once; of a group, every such frame gets to a member that lives long enough.
// - Nobody who was merely stopped loses a loan or a lease.
// - Every call ends, with the reply to its own request or with a reason; every control that was sent
//   to all publishers comes to each of them, in order.
// - Nobody is blocked beyond the bound: a subscriber gets a frame, and a publisher a slot, at the
//   latest one bounded re-check (a second) after it could have, whoever died meanwhile.
// - Afterwards no row is dead, no slot is loaned or leased, no letter is left, all but the kept ones can be loaned, and
//   with the topic's name the last file goes.
//
// The seed repeats the parent's decisions, not the scheduling. With a mutation (a rule of steps.hpp that is
// left out) a storm must end badly: that is a test of the storm.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "framegate/shm.h"
#include "mailbox.hpp"
#include "step_hooks.hpp"
#include "steps.hpp"
#include "topic.hpp"

using framegate::impl::Step;

namespace {

constexpr char kName[] = "storm";
constexpr std::uint32_t kSlots = 12;
constexpr std::uint32_t kFewSlots = 8;  // of a storm for collisions
constexpr std::uint64_t kWords = 256;
constexpr std::uint64_t kBytes = kWords * sizeof(std::uint64_t);
constexpr std::uint64_t kSequencesMax = 1U << 23;  // publishers rest when they get there
constexpr int kVictims = 6;
constexpr std::int64_t kMillisecondNs = 1'000'000;
constexpr std::int64_t kSecondNs = 1'000'000'000;
// One bounded re-check, and what a loaded machine (two cores, a dozen processes) adds to it.
constexpr std::int64_t kBoundNs = 1 * kSecondNs + 5 * kSecondNs;

enum class Kind {
    kPublisher,
    kLatest,
    kQueue,
    kEventLoop,
    kChurner,
    // Only with everything:
    kReliable,
    kGroup,
    kCaller,
    kResponder,
    kResizer,
    kCount
};
constexpr const char* kKindNames[] = {"publisher", "latest", "queue",  "event loop", "churner",
                                      "reliable",  "group",  "caller", "responder",  "resizer"};

// Shared by all processes, outside of the topic.
struct Board {
    std::atomic<bool> publishers_end;   // publish no more
    std::atomic<bool> subscribers_end;  // take what is there, then end
    std::atomic<std::uint64_t> taken[static_cast<int>(Kind::kCount)];
    std::atomic<std::uint64_t> controls;
    std::atomic<std::int64_t> slowest_loan_ns;
    std::atomic<std::int64_t> slowest_take_ns;
    // Per sequence: a publish returned it; a member of the group was through with it.
    std::atomic<std::uint8_t> published[kSequencesMax];
    std::atomic<std::uint8_t> finished[kSequencesMax];
};
Board* board;  // NOLINT: one mapping, inherited by every process

pid_t parent = 0;  // NOLINT
pid_t group = 0;   // NOLINT: process group of all children
// Reliable subscribers and groups hold publishers back, and that keeps publishers and subscribers off
// the same slot: without them, and without calls, there are more collisions.
bool with_everything = true;  // NOLINT
#ifdef __APPLE__
char directory[] = "/tmp/framegate-storm-XXXXXX";  // NOLINT
#else
char directory[] = "/dev/shm/framegate-storm-XXXXXX";  // NOLINT
#endif

std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return std::int64_t{now.tv_sec} * kSecondNs + now.tv_nsec;
}

void raise_to(std::atomic<std::int64_t>& most, std::int64_t value) {
    std::int64_t seen = most.load();
    while (seen < value && !most.compare_exchange_weak(seen, value)) {
    }
}

[[noreturn, gnu::format(printf, 1, 2)]] void complain(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::fprintf(stderr, "storm: process %d: ", getpid());
    std::vfprintf(stderr, format, arguments);
    std::fprintf(stderr, "; %s\n", fg_last_error());
    va_end(arguments);
    if (getpid() == parent) {
        kill(-group, SIGKILL);
        while (wait(nullptr) > 0) {
        }
        std::filesystem::remove_all(directory);
    }
    _exit(3);
}

// ---- frames

std::uint64_t mix(std::uint64_t value) {
    value = (value ^ (value >> 31)) * 0x9e3779b97f4a7c15U;
    return value ^ (value >> 29);
}

// The first word is the seed of the others, the last one their checksum.
void fill(void* data, std::uint64_t seed) {
    auto* words = static_cast<std::uint64_t*>(data);
    std::uint64_t sum = seed;
    words[0] = seed;
    for (std::uint64_t i = 1; i + 1 < kWords; ++i) {
        words[i] = mix(words[i - 1] + i);
        sum = mix(sum ^ words[i]);
    }
    words[kWords - 1] = sum;
}

void check_whole(const fg_frame& frame, const char* who) {
    const auto* words = static_cast<const std::uint64_t*>(frame.data);
    if (frame.bytes != kBytes) {
        complain("%s: frame %" PRIu64 " has %" PRIu64 " bytes", who, frame.sequence, frame.bytes);
    }
    std::uint64_t sum = words[0];
    std::uint64_t expected = words[0];
    for (std::uint64_t i = 1; i + 1 < kWords; ++i) {
        expected = mix(expected + i);
        if (words[i] != expected) {
            complain("%s: frame %" PRIu64 " is torn at word %" PRIu64, who, frame.sequence, i);
        }
        sum = mix(sum ^ words[i]);
    }
    if (words[kWords - 1] != sum) {
        complain("%s: frame %" PRIu64 " has a wrong checksum", who, frame.sequence);
    }
}

// ---- controls

// What senders put into each message.
struct Control {
    std::uint64_t sender;  // a process
    std::uint64_t number;  // counts its messages
    std::uint64_t done;    // those before it for which send_control returned FG_OK
    std::uint64_t sum;
};

class ControlSender {
  public:
    void send(fg_subscriber* subscriber) {
        Control control{static_cast<std::uint64_t>(getpid()), ++number_, done_, 0};
        control.sum = mix(control.sender ^ mix(control.number ^ mix(control.done)));
        const fg_status status =
            fg_subscriber_send_control(subscriber, 7, &control, sizeof control, nullptr);
        if (status != FG_OK && status != FG_MAILBOX_FULL) {
            complain("a control failed with %d", status);
        }
        done_ += status == FG_OK ? 1 : 0;
    }

  private:
    std::uint64_t number_ = 0;
    std::uint64_t done_ = 0;
};

// Every publisher gets what a sender was told that all publishers have, in its order.
class ControlReader {
  public:
    void read(fg_publisher* publisher) {
        fg_control controls[8];
        std::size_t count = 0;
        if (fg_publisher_controls(publisher, controls, 8, &count) != FG_OK) {
            complain("cannot read controls");
        }
        for (std::size_t i = 0; i < count; ++i) {
            Control control{};
            if (controls[i].type != 7 || controls[i].bytes != sizeof control) {
                complain("a control of type %u with %u bytes", controls[i].type, controls[i].bytes);
            }
            std::memcpy(&control, controls[i].data, sizeof control);
            check(control);
        }
    }

  private:
    struct Seen {
        std::uint64_t number = 0;
        std::uint64_t received = 0;
        std::uint64_t done = 0;  // when the first one came
    };

    void check(const Control& control) {
        if (control.sum != mix(control.sender ^ mix(control.number ^ mix(control.done)))) {
            complain("a torn control");
        }
        Seen& seen = seen_[control.sender];
        if (seen.number == 0) {
            seen.done = control.done;
        } else if (control.number <= seen.number) {
            complain("control %" PRIu64 " after %" PRIu64, control.number, seen.number);
        } else if (control.done - seen.done > seen.received) {
            complain("%" PRIu64 " controls came of %" PRIu64, seen.received,
                     control.done - seen.done);
        }
        seen.number = control.number;
        ++seen.received;
        board->controls.fetch_add(1);
    }

    std::map<std::uint64_t, Seen> seen_;
};

// ---- processes

fg_topic* open_topic() {
    fg_topic* topic = nullptr;
    if (fg_topic_open(kName, sizeof kName - 1, &topic) != FG_OK) {
        complain("cannot open the topic");
    }
    return topic;
}

fg_publisher* open_publisher(fg_topic* topic) {
    fg_publisher* publisher = nullptr;
    if (fg_publisher_open(topic, nullptr, &publisher) != FG_OK) {
        complain("cannot attach a publisher");
    }
    return publisher;
}

std::uint32_t policy_of(Kind kind) {
    switch (kind) {
        case Kind::kLatest:
            return FG_POLICY_LATEST;
        case Kind::kReliable:
            return FG_POLICY_RELIABLE;
        case Kind::kGroup:
            return FG_POLICY_GROUP;
        default:
            return FG_POLICY_QUEUE;
    }
}

fg_subscriber* open_subscriber(fg_topic* topic, Kind kind) {
    fg_subscriber_options options;
    fg_subscriber_options_init(&options);
    options.policy = policy_of(kind);
    if (kind == Kind::kGroup) {
        options.group = "workers";
        options.group_bytes = 7;
    }
    options.start = FG_START_NEXT;
    options.leases_max = 2;
    fg_subscriber* subscriber = nullptr;
    if (fg_subscriber_open(topic, &options, &subscriber) != FG_OK) {
        complain("cannot attach a %s subscriber", kKindNames[static_cast<int>(kind)]);
    }
    return subscriber;
}

// False once there is nothing to publish any more.
bool publish_one(fg_publisher* publisher, std::mt19937_64& random, std::int64_t timeout_ns,
                 bool is_survivor) {
    fg_loan loan{};
    const std::int64_t before = now_ns();
    const fg_status status = fg_publisher_loan(publisher, kBytes, timeout_ns, &loan);
    if (is_survivor) {
        const std::int64_t took = now_ns() - before;
        raise_to(board->slowest_loan_ns, took);
        if (status == FG_TOPIC_FULL || took > kBoundNs) {
            complain("a loan took %" PRId64 " ms", took / kMillisecondNs);
        }
    }
    if (status == FG_TOPIC_FULL) {
        return true;
    }
    if (status != FG_OK) {
        complain("loan failed with %d", status);
    }
    fill(loan.data, random());
    if (random() % 16 == 0) {
        if (fg_publisher_abandon(publisher, &loan) != FG_OK) {
            complain("a living publisher lost its loan");
        }
        return true;
    }
    fg_publish_info info;
    fg_publish_info_init(&info);
    info.bytes = kBytes;
    std::uint64_t sequence = 0;
    fg_status published = FG_TOPIC_FULL;
    while (published == FG_TOPIC_FULL) {  // resized, and the new slots are taken: stays good
        published = fg_publisher_publish(publisher, &loan, &info, &sequence);
        if (published == FG_TOPIC_FULL && now_ns() - before > kBoundNs) {
            complain("a loan could not be carried over for %" PRId64 " ms",
                     (now_ns() - before) / kMillisecondNs);
        }
    }
    if (published != FG_OK) {
        complain("publish failed with %d", published);
    }
    board->published[sequence].store(1);
    return sequence < kSequencesMax - 1000;
}

void run_publisher(std::uint64_t seed, bool is_survivor) {
    std::mt19937_64 random(seed);
    fg_topic* topic = open_topic();
    fg_publisher* publisher = open_publisher(topic);
    ControlReader controls;
    const std::int64_t timeout_ns = is_survivor ? 60 * kSecondNs : 20 * kMillisecondNs;
    while (!board->publishers_end.load() &&
           publish_one(publisher, random, timeout_ns, is_survivor)) {
        controls.read(publisher);
        if (random() % 8 == 0) {  // sometimes quiet, so that subscribers sleep
            const timespec nap{0, static_cast<long>(random() % 2000000)};
            nanosleep(&nap, nullptr);
        }
    }
    fg_publisher_close(publisher);
    fg_topic_close(topic);
}

// Waits on the event fd for the next look; as an event loop does.
void arm_and_poll(fg_subscriber* subscriber, int fd) {
    int ready = 0;
    if (fg_subscriber_arm(subscriber, &ready) != FG_OK) {
        complain("cannot arm");
    }
    pollfd entry{fd, POLLIN, 0};
    if (ready == 0) {
        poll(&entry, 1, 10000);
    }
    if (fg_subscriber_drain(subscriber) != FG_OK) {
        complain("cannot drain");
    }
}

class Taker {
  public:
    Taker(Kind kind, bool is_survivor)
        : kind_(kind), is_survivor_(is_survivor), name_(kKindNames[static_cast<int>(kind)]) {
        topic_ = open_topic();
        subscriber_ = open_subscriber(topic_, kind);
        if (kind == Kind::kEventLoop && fg_subscriber_event_fd(subscriber_, &fd_) != FG_OK) {
            complain("no event fd");
        }
    }
    ~Taker() {
        give_back();
        fg_subscriber_close(subscriber_);
        fg_topic_close(topic_);
    }
    Taker(const Taker&) = delete;
    Taker& operator=(const Taker&) = delete;

    // True if there was a frame.
    bool take(std::int64_t timeout_ns) {
        fg_frame frame{};
        const std::int64_t before = now_ns();
        const fg_status status = fg_subscriber_take(subscriber_, fd_ >= 0 ? 0 : timeout_ns, &frame);
        if (status == FG_EMPTY || status == FG_TIMEOUT) {
            if (fd_ >= 0 && timeout_ns != 0) {
                arm_and_poll(subscriber_, fd_);
            }
            return false;
        }
        if (status != FG_OK) {
            complain("%s: take failed with %d", name_, status);
        }
        const std::int64_t now = now_ns();
        const bool jumps = kind_ == Kind::kLatest || kind_ == Kind::kEventLoop;
        if (is_survivor_ && jumps) {
            // Slept although the frame was there? The others may lag behind for other reasons.
            const std::int64_t since =
                std::max(before, static_cast<std::int64_t>(frame.published_ns));
            raise_to(board->slowest_take_ns, now - since);
            if (now - since > kBoundNs) {
                complain("%s: frame %" PRIu64 " came %" PRId64 " ms late", name_, frame.sequence,
                         (now - since) / kMillisecondNs);
            }
        }
        const bool again = frame.redelivered != 0;
        if (frame.sequence <= last_ && !again) {
            complain("%s: frame %" PRIu64 " after %" PRIu64, name_, frame.sequence, last_);
        }
        // The surviving one was there before the first frame.
        if (kind_ == Kind::kReliable && (last_ != 0 || is_survivor_) &&
            frame.sequence != last_ + 1) {
            complain("reliable: frame %" PRIu64 " after %" PRIu64, frame.sequence, last_);
        }
        last_ = std::max(last_, frame.sequence);
        check_whole(frame, name_);
        // Holds each frame while the next is taken, and looks at it once more before it goes.
        give_back();
        held_ = frame;
        board->taken[static_cast<int>(kind_)].fetch_add(1);
        return true;
    }

    void give_back() {
        if (held_.data == nullptr) {
            return;
        }
        check_whole(held_, name_);
        if (kind_ == Kind::kGroup) {
            // Before the release, which acknowledges it: a death in between delivers it again.
            board->finished[held_.sequence].store(1);
        }
        if (fg_subscriber_release(subscriber_, &held_) != FG_OK) {
            complain("%s: a living subscriber lost its lease", name_);
        }
    }

    std::uint64_t last() const { return last_; }
    void send_control() { controls_.send(subscriber_); }

  private:
    Kind kind_;
    bool is_survivor_;
    const char* name_;
    fg_topic* topic_ = nullptr;
    fg_subscriber* subscriber_ = nullptr;
    int fd_ = -1;
    fg_frame held_{};
    std::uint64_t last_ = 0;
    ControlSender controls_;
};

// A frame that was published and that no member finished; 0: none.
std::uint64_t first_unfinished(std::uint64_t newest) {
    for (std::uint64_t sequence = 1; sequence <= newest; ++sequence) {
        if (board->published[sequence].load() != 0 && board->finished[sequence].load() == 0) {
            return sequence;
        }
    }
    return 0;
}

void run_subscriber(Kind kind, bool is_survivor) {
    Taker taker(kind, is_survivor);
    while (!board->subscribers_end.load()) {
        taker.take(is_survivor ? 50 * kMillisecondNs : 2 * kMillisecondNs);
        if (with_everything && taker.last() % 8 == 0) {
            taker.send_control();
        }
        if (!is_survivor && taker.last() % 7 == 0) {
            taker.give_back();
        }
    }
    if (!is_survivor) {
        return;
    }
    taker.give_back();
    // All publishers ended before: whatever is published is there now.
    std::uint64_t newest = kSequencesMax - 1;
    while (newest != 0 && board->published[newest].load() == 0) {
        --newest;
    }
    const std::int64_t deadline = now_ns() + kBoundNs;
    while (true) {
        const std::uint64_t missing = kind == Kind::kGroup    ? first_unfinished(newest)
                                      : taker.last() < newest ? newest
                                                              : 0;
        if (missing == 0) {
            return;
        }
        if (taker.take(10 * kMillisecondNs)) {
            taker.give_back();
        } else if (now_ns() > deadline) {
            complain("%s: frame %" PRIu64 " was published but never came",
                     kKindNames[static_cast<int>(kind)], missing);
        }
    }
}

// ---- calls

// What a responder makes of a request.
std::uint64_t answer_to(const fg_frame& request) {
    return mix(*static_cast<const std::uint64_t*>(request.data) + 1);
}

// Loans and fills; false if there is no slot now.
bool prepare(fg_publisher* loans, std::uint64_t seed, fg_loan* loan) {
    const fg_status status = fg_publisher_loan(loans, kBytes, 20 * kMillisecondNs, loan);
    if (status == FG_TOPIC_FULL) {
        return false;
    }
    if (status != FG_OK) {
        complain("loan failed with %d", status);
    }
    fill(loan->data, seed);
    return true;
}

void run_caller(std::uint64_t seed, bool is_survivor) {
    std::mt19937_64 random(seed);
    fg_topic* topic = open_topic();
    fg_caller* caller = nullptr;
    if (fg_caller_open(topic, nullptr, &caller) != FG_OK) {
        complain("cannot attach a caller");
    }
    fg_publisher* loans = fg_caller_loans(caller);
    fg_publish_info info;
    fg_publish_info_init(&info);
    info.bytes = kBytes;
    while (!board->subscribers_end.load()) {
        fg_loan loan{};
        if (!prepare(loans, random(), &loan)) {
            continue;
        }
        const std::uint64_t first = *static_cast<const std::uint64_t*>(loan.data);
        std::uint64_t call = 0;
        const std::int64_t patience = static_cast<std::int64_t>(random() % 100) * kMillisecondNs;
        fg_status status = fg_caller_call(caller, &loan, &info, patience, &call);
        if (status != FG_OK) {
            if (status != FG_NO_RESPONDER && status != FG_MAILBOX_FULL &&
                status != FG_RESPONDER_DIED && status != FG_CALLS_EXHAUSTED &&
                status != FG_TOPIC_FULL) {  // resized, and the new slots are taken
                complain("call failed with %d", status);
            }
            if (loan.data != nullptr && fg_publisher_abandon(loans, &loan) != FG_OK) {
                complain("a living caller lost its loan");
            }
            continue;
        }
        if (random() % 16 == 0) {
            if (fg_caller_cancel(caller, call) != FG_OK) {
                complain("cannot cancel");
            }
            continue;
        }
        fg_frame reply{};
        const std::int64_t before = now_ns();
        status = fg_caller_wait(caller, call, -1, &reply);
        const std::int64_t late = now_ns() - before - patience;
        if (is_survivor && late > kBoundNs) {
            complain("a call ended %" PRId64 " ms after its deadline", late / kMillisecondNs);
        }
        if (status == FG_OK) {
            check_whole(reply, "caller");
            if (*static_cast<const std::uint64_t*>(reply.data) != mix(first + 1)) {
                complain("a reply to another call");
            }
            if (fg_caller_release(caller, &reply) != FG_OK) {
                complain("a living caller lost its reply");
            }
            board->taken[static_cast<int>(Kind::kCaller)].fetch_add(1);
        } else if (status != FG_TIMEOUT && status != FG_RESPONDER_DIED &&
                   status != FG_CALL_FAILED) {
            complain("a call ended with %d", status);
        }
    }
    fg_caller_close(caller);
    fg_topic_close(topic);
}

void run_responder(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    fg_topic* topic = open_topic();
    fg_responder* responder = nullptr;
    if (fg_responder_open(topic, nullptr, &responder) != FG_OK) {
        complain("cannot attach a responder");
    }
    fg_publisher* loans = fg_responder_loans(responder);
    fg_publish_info info;
    fg_publish_info_init(&info);
    info.bytes = kBytes;
    while (!board->subscribers_end.load()) {
        fg_request request{};
        const fg_status status = fg_responder_take(responder, 5 * kMillisecondNs, &request);
        if (status == FG_TIMEOUT || status == FG_EMPTY) {
            continue;
        }
        if (status != FG_OK) {
            complain("responder: take failed with %d", status);
        }
        check_whole(request.frame, "responder");
        fg_loan loan{};
        if (random() % 16 == 0) {
            fg_responder_drop(responder, &request);
        } else if (prepare(loans, answer_to(request.frame), &loan)) {
            const fg_status sent = fg_responder_reply(responder, &request, &loan, &info);
            if (sent != FG_OK && sent != FG_CALLER_GONE && sent != FG_MAILBOX_FULL &&
                sent != FG_TOPIC_FULL) {  // resized, and the new slots are taken
                complain("reply failed with %d", sent);
            }
            if (loan.data != nullptr && fg_publisher_abandon(loans, &loan) != FG_OK) {
                complain("a living responder lost its loan");
            }
            if (request.id != 0) {
                fg_responder_drop(responder, &request);
            }
            board->taken[static_cast<int>(Kind::kResponder)].fetch_add(1);
        } else {
            fg_responder_drop(responder, &request);
        }
        if (request.frame.data != nullptr) {
            check_whole(request.frame, "responder");
            if (fg_responder_release(responder, &request.frame) != FG_OK) {
                complain("a living responder lost its request");
            }
        }
    }
    fg_responder_close(responder);
    fg_topic_close(topic);
}

// Goes on in other slots, again and again.
void run_resizer(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    fg_topic* topic = open_topic();
    while (!board->subscribers_end.load()) {
        fg_resize_options options;
        fg_resize_options_init(&options);
        options.slots = kSlots + static_cast<std::uint32_t>(random() % 4);
        const fg_status status = fg_topic_resize(topic, &options);
        // FG_TIMEOUT: somebody was stopped while it joined a group. FG_SYSTEM: others keep resizing.
        if (status != FG_OK && status != FG_TIMEOUT && status != FG_SYSTEM) {
            complain("a resize failed with %d", status);
        }
        board->taken[static_cast<int>(Kind::kResizer)].fetch_add(status == FG_OK ? 1 : 0);
        const timespec nap{0, static_cast<long>(random() % 30000000)};
        nanosleep(&nap, nullptr);
    }
    fg_topic_close(topic);
}

// Attaches and detaches, sweeps, looks.
void run_churner() {
    fg_topic* topic = open_topic();
    for (int turn = 0; !board->subscribers_end.load(); ++turn) {
        const Kind kinds[] = {Kind::kQueue, Kind::kReliable, Kind::kGroup};
        const Kind kind = kinds[with_everything ? turn % 3 : 0];
        fg_subscriber* subscriber = open_subscriber(topic, kind);
        fg_publisher* publisher = open_publisher(topic);
        fg_loan loan{};
        const fg_status status = fg_publisher_loan(publisher, kBytes, 0, &loan);
        if (status != FG_OK && status != FG_TOPIC_FULL) {
            complain("loan failed with %d", status);
        }
        fg_frame frame{};
        if (fg_subscriber_take(subscriber, kMillisecondNs, &frame) == FG_OK) {
            check_whole(frame, "churner");
            if (kind == Kind::kGroup) {
                board->finished[frame.sequence].store(1);
            }
        }
        fg_topic_sweep(topic, nullptr);
        fg_publisher_close(publisher);  // the row stays until the loan goes
        if (status == FG_OK && fg_publisher_abandon(publisher, &loan) != FG_OK) {
            complain("a living publisher lost its loan");
        }
        fg_subscriber_close(subscriber);
        if (frame.data != nullptr && fg_subscriber_release(subscriber, &frame) != FG_OK) {
            complain("a living subscriber lost its lease");
        }
    }
    fg_topic_close(topic);
}

// ---- death

struct Worker {
    pid_t pid = -1;
    Kind kind = Kind::kCount;
    bool is_stopped = false;
};

Worker start(Kind kind, std::uint64_t seed, bool is_survivor) {
    const pid_t child = fork();
    if (child < 0) {
        complain("cannot fork");
    }
    if (child != 0) {
        group = group == 0 ? child : group;
        setpgid(child, group);
        return {child, kind, false};
    }
    setpgid(0, group);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // an abandoned child must not stay
#endif
    if (getppid() != parent) {
        _exit(3);
    }
    if (!is_survivor && seed % 2 == 0) {
        const auto steps = static_cast<std::uint64_t>(Step::kCount) - 1;
        test::die_at(static_cast<Step>(1 + seed / 2 % steps), seed / 128 % 64);
    }
    if (kind == Kind::kPublisher) {
        run_publisher(seed, is_survivor);
    } else if (kind == Kind::kChurner) {
        run_churner();
    } else if (kind == Kind::kCaller) {
        run_caller(seed, is_survivor);
    } else if (kind == Kind::kResponder) {
        run_responder(seed);
    } else if (kind == Kind::kResizer) {
        run_resizer(seed);
    } else {
        run_subscriber(kind, is_survivor);
    }
    _exit(0);
}

struct Tally {
    int killed = 0;
    int died_at_step = 0;
    int stopped = 0;
};

// Collects one that ended by itself: at its step, or by a complaint.
bool has_ended(Worker& worker, Tally& tally) {
    int status = 0;
    if (waitpid(worker.pid, &status, WNOHANG) != worker.pid) {
        return false;
    }
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        complain("a %s ended with status %x", kKindNames[static_cast<int>(worker.kind)],
                 static_cast<unsigned>(status));
    }
    ++tally.died_at_step;
    return true;
}

void kill_and_wait(const Worker& worker) {
    kill(worker.pid, SIGKILL);
    waitpid(worker.pid, nullptr, 0);
}

void end_survivor(const Worker& worker) {
    int status = 0;
    if (waitpid(worker.pid, &status, 0) != worker.pid || status != 0) {
        complain("the surviving %s ended with status %x", kKindNames[static_cast<int>(worker.kind)],
                 static_cast<unsigned>(status));
    }
}

Kind random_kind(std::mt19937_64& random) {
    // Without a rule: more of those who need it.
    const std::uint32_t missing = framegate_test_mutations;
    if ((missing & framegate::impl::kMutateNoReturn) != 0) {
        return random() % 3 == 0 ? Kind::kResizer : Kind::kGroup;
    }
    if ((missing & framegate::impl::kMutateNoMailScrub) != 0) {
        return random() % 2 == 0 ? Kind::kCaller : Kind::kResponder;
    }
    const auto kinds = with_everything ? Kind::kCount : Kind::kReliable;
    return static_cast<Kind>(random() % static_cast<std::uint64_t>(kinds));
}

void check_survivors(const std::vector<Worker>& survivors) {
    for (const Worker& survivor : survivors) {
        int status = 0;
        if (waitpid(survivor.pid, &status, WNOHANG) != 0) {
            complain("a survivor (%s) ended early, status %x",
                     kKindNames[static_cast<int>(survivor.kind)], static_cast<unsigned>(status));
        }
    }
}

void rage(std::int64_t duration_ns, std::mt19937_64& random, const std::vector<Worker>& survivors,
          Tally& tally) {
    std::vector<Worker> victims;
    const std::int64_t end = now_ns() + duration_ns;
    while (now_ns() < end) {
        check_survivors(survivors);
        std::erase_if(victims, [&](Worker& victim) { return has_ended(victim, tally); });
        while (victims.size() < kVictims) {
            victims.push_back(start(random_kind(random), random(), false));
        }
        const timespec nap{0, static_cast<long>(random() % 8000000)};
        nanosleep(&nap, nullptr);
        Worker& victim = victims[random() % victims.size()];
        if (victim.is_stopped && random() % 2 == 0) {
            kill(victim.pid, SIGCONT);
            victim.is_stopped = false;
        } else if (random() % 3 == 0) {
            kill(victim.pid, SIGSTOP);
            victim.is_stopped = true;
            ++tally.stopped;
        } else {
            if (!has_ended(victim, tally)) {
                kill_and_wait(victim);
                ++tally.killed;
            }
            victim = victims.back();
            victims.pop_back();
        }
    }
    for (const Worker& victim : victims) {
        kill_and_wait(victim);
    }
}

// ---- afterwards

fg_topic_stats stats() {
    fg_inspector* inspector = nullptr;
    fg_topic_stats value{};
    value.struct_bytes = sizeof value;
    if (fg_inspector_open(kName, sizeof kName - 1, &inspector) != FG_OK ||
        fg_inspector_stats(inspector, &value) != FG_OK) {
        complain("cannot inspect");
    }
    fg_inspector_close(inspector);
    return value;
}

void check_nothing_is_left(fg_topic* topic) {
    fg_topic_sweep(topic, nullptr);
    const fg_topic_stats value = stats();
    if (value.dead != 0 || value.publishers != 0 || value.subscribers != 0) {
        complain("%u dead, %u publishers and %u subscribers are left", value.dead, value.publishers,
                 value.subscribers);
    }
    if (value.slots_loaned != 0 || value.slots_leased != 0) {
        complain("%u slots are loaned and %u leased by nobody", value.slots_loaned,
                 value.slots_leased);
    }
    const auto& view = reinterpret_cast<framegate::impl::Topic*>(topic)->view_;
    for (std::uint32_t i = 0; i < view.participants_max; ++i) {
        if (framegate::impl::has_mailbox(view, i) && framegate::impl::letters_in(view, i) != 0) {
            complain("letters are left in mailbox %u", i);
        }
    }
    fg_publisher* publisher = open_publisher(topic);
    const std::uint32_t slots = value.slots_free + value.slots_published;
    for (std::uint32_t i = 0; i + 1 < slots; ++i) {
        fg_loan loan{};
        if (fg_publisher_loan(publisher, kBytes, 0, &loan) != FG_OK) {
            complain("only %u of %u slots can be loaned", i, slots - 1);
        }
    }
    fg_topic_info info{};
    info.struct_bytes = sizeof info;
    if (fg_topic_get_info(topic, &info) != FG_OK || info.slots != slots) {
        complain("%u slots are there, %u of them free or published", info.slots, slots);
    }
    // Not closed: its end is the end of this process, and of the row.
    if (fg_topic_unlink(kName, sizeof kName - 1) != FG_OK) {
        complain("cannot unlink");
    }
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        complain("%s is left", entry.path().c_str());
    }
}

// "None" is a storm for collisions; without the second look at the holders it must not go well.
std::uint32_t mutation(const char* name) {
    using namespace framegate::impl;
    const std::pair<const char*, std::uint32_t> known[] = {
        {"None", 0},
        {"NoHoldersRecheck", kMutateNoHoldersRecheck},
        {"NoReliableBound", kMutateNoReliableBound},
        {"NoRedelivery", kMutateNoRedelivery},
        {"NoReturn", kMutateNoReturn},
        {"NoMailScrub", kMutateNoMailScrub},
    };
    for (const auto& [text, bit] : known) {
        if (std::strcmp(name, text) == 0) {
            return bit;
        }
    }
    complain("there is no mutation %s", name);
}

}  // namespace

int main(int argc, char** argv) {
    const std::int64_t seconds = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 10;
    const std::uint64_t seed =
        argc > 2 ? std::strtoul(argv[2], nullptr, 10) : std::random_device{}();
    framegate_test_mutations = argc > 3 ? mutation(argv[3]) : 0;
    with_everything = argc <= 3 || (framegate_test_mutations &
                                    ~std::uint32_t{framegate::impl::kMutateNoHoldersRecheck}) != 0;
    std::printf("storm of %" PRId64 " s, seed %" PRIu64 "\n", seconds, seed);
    std::fflush(stdout);
    parent = getpid();
    void* memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mkdtemp(directory) == nullptr || memory == MAP_FAILED) {
        complain("no directory or no memory");
    }
    setenv("FRAMEGATE_RUNTIME_DIR", directory, 1);
    board = static_cast<Board*>(memory);  // zeros are its beginning

    fg_topic_options options;
    fg_topic_options_init(&options);
    options.slots = with_everything ? kSlots : kFewSlots;
    options.slot_bytes = kBytes;
    options.mailbox_bytes = 4096;
    options.participants_max = 70;  // two words of participants
    fg_topic* topic = nullptr;
    if (fg_topic_create(kName, sizeof kName - 1, &options, &topic) != FG_OK) {
        complain("cannot create the topic");
    }
    std::mt19937_64 random(seed);
    std::vector<Worker> subscribers;
    for (const Kind kind :
         {Kind::kLatest, Kind::kQueue, Kind::kEventLoop, Kind::kReliable, Kind::kGroup}) {
        if (with_everything || kind < Kind::kReliable) {
            subscribers.push_back(start(kind, random(), true));
        }
    }
    while (stats().subscribers != subscribers.size()) {
        check_survivors(subscribers);
        sched_yield();
    }
    const Worker publisher = start(Kind::kPublisher, random(), true);
    if (with_everything) {
        for (const Kind kind : {Kind::kCaller, Kind::kResponder}) {
            subscribers.push_back(start(kind, random(), true));
        }
    }
    std::vector<Worker> survivors = subscribers;
    survivors.push_back(publisher);
    Tally tally;
    rage(seconds * kSecondNs, random, survivors, tally);
    board->publishers_end.store(true);
    end_survivor(publisher);
    board->subscribers_end.store(true);
    for (const Worker& subscriber : subscribers) {
        end_survivor(subscriber);
    }
    std::printf("%d killed at random moments, %d at steps, %d stopped; %" PRIu64
                " frames published\n",
                tally.killed, tally.died_at_step, tally.stopped, stats().head);
    for (int i = 1; i < static_cast<int>(Kind::kCount); ++i) {
        std::printf("%s: %" PRIu64 "\n", kKindNames[i], board->taken[i].load());
    }
    std::printf("controls: %" PRIu64 "\n", board->controls.load());
    std::printf("slowest loan %" PRId64 " ms, slowest take %" PRId64 " ms\n",
                board->slowest_loan_ns.load() / kMillisecondNs,
                board->slowest_take_ns.load() / kMillisecondNs);
    // With a rule taken away any complaint counts as noticed, so this one is only for the storm with all rules.
    if (framegate_test_mutations == 0 && tally.killed + tally.died_at_step < 5 * seconds) {
        complain("that was no storm");
    }
    if (with_everything && framegate_test_mutations == 0 &&
        (board->taken[static_cast<int>(Kind::kCaller)].load() == 0 ||
         board->taken[static_cast<int>(Kind::kResizer)].load() == 0 ||
         board->controls.load() == 0)) {
        complain("no call, no resize or no control went through");
    }
    check_nothing_is_left(topic);
    rmdir(directory);
    std::fflush(stdout);
    _exit(0);  // the loans of check_nothing_is_left are not given back
}
