// Nobody sleeps on although there is something for him. The bounded re-check (a second) would hide a
// lost wake, so it is switched off here (mutation NoRecheck): a wake that is lost stays lost, and a
// wait runs into its patience.
//
// Each round puts somebody to sleep at about the moment at which the other side does what he waits
// for; random delays of up to a few microseconds move that moment around.
#include <atomic>
#include <random>
#include <thread>

#include "support.hpp"

using namespace framegate::impl;

namespace {

constexpr int kRounds = FG_TEST_TSAN ? 400 : 4000;
constexpr std::size_t kSleepers = 3;

class WithoutRecheck {
  public:
    explicit WithoutRecheck(std::uint32_t more = 0) {
        framegate_test_mutations = kMutateNoRecheck | more;
    }
    ~WithoutRecheck() { framegate_test_mutations = 0; }
    WithoutRecheck(const WithoutRecheck&) = delete;
    WithoutRecheck& operator=(const WithoutRecheck&) = delete;
};

void dawdle(std::minstd_rand& random) {
    for (volatile unsigned long turns = random() % 4 == 0 ? 0 : random() % 2000; turns != 0;) {
        turns = turns - 1;
    }
}

// One publisher; every frame is waited for by all sleepers, and the next comes when all have it.
class PingPong {
  public:
    // True if `rounds` went by without a wait that took longer than the patience.
    bool run(int rounds, bool with_fd, std::int64_t patience_ns) {
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < kSleepers; ++i) {
            threads.emplace_back([&, i] { sleep(rounds, with_fd, patience_ns, i); });
        }
        std::minstd_rand random(7);
        while (ready_.load() != kSleepers) {
            std::this_thread::yield();
        }
        for (int round = 0; round < rounds && !is_lost_; ++round) {
            dawdle(random);
            if (test::send(publisher_, "x") != FG_OK) {
                is_lost_ = true;
            }
            while (received_.load() < kSleepers * static_cast<std::size_t>(round + 1) &&
                   !is_lost_) {
                std::this_thread::yield();
            }
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        return !is_lost_;
    }

  private:
    void sleep(int rounds, bool with_fd, std::int64_t patience_ns, std::size_t number) {
        const test::Subscriber subscriber = test::subscriber(topic_);
        int fd = -1;
        if (with_fd && fg_subscriber_event_fd(subscriber.get(), &fd) != FG_OK) {
            is_lost_ = true;
        }
        std::minstd_rand random(static_cast<std::uint32_t>(number + 1));
        ready_.fetch_add(1);
        for (int round = 0; round < rounds && !is_lost_; ++round) {
            fg_frame frame{};
            const bool came =
                with_fd ? take_as_event_loop(subscriber, fd, patience_ns, &frame)
                        : fg_subscriber_take(subscriber.get(), patience_ns, &frame) == FG_OK;
            if (!came || fg_subscriber_release(subscriber.get(), &frame) != FG_OK) {
                is_lost_ = true;
                return;
            }
            received_.fetch_add(1);
            dawdle(random);
        }
    }

    static bool take_as_event_loop(const test::Subscriber& subscriber, int fd,
                                   std::int64_t patience_ns, fg_frame* frame) {
        while (fg_subscriber_take(subscriber.get(), 0, frame) != FG_OK) {
            int ready = 0;
            if (fg_subscriber_arm(subscriber.get(), &ready) != FG_OK) {
                return false;
            }
            pollfd entry{fd, POLLIN, 0};
            if (ready == 0 && poll(&entry, 1, static_cast<int>(patience_ns / 1000000)) != 1) {
                return false;
            }
            if (fg_subscriber_drain(subscriber.get()) != FG_OK) {
                return false;
            }
        }
        return true;
    }

    test::RuntimeDirectory directory_;
    test::Topic topic_ = test::create("t", test::options(8, 64));
    test::Publisher publisher_ = test::publisher(topic_);
    std::atomic<bool> is_lost_{false};
    std::atomic<std::size_t> ready_{0};
    std::atomic<std::size_t> received_{0};
};

}  // namespace

TEST_CASE("no thread sleeps through a frame") {
    const WithoutRecheck without;
    CHECK(PingPong().run(kRounds, false, test::kPatienceNs));
}

TEST_CASE("no event loop sleeps through a frame") {
    const WithoutRecheck without;
    CHECK(PingPong().run(kRounds, true, test::kPatienceNs));
}

// Two slots, the newest kept: the publisher needs the slot that the subscriber holds, every time.
TEST_CASE("no loan sleeps through a release") {
    const WithoutRecheck without;
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(2, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    std::atomic<bool> is_lost{false};
    std::thread sleeper([&] {
        std::minstd_rand random(1);
        for (int round = 0; round < kRounds && !is_lost; ++round) {
            if (test::send(publisher, "x", test::kPatienceNs) != FG_OK) {
                is_lost = true;
            }
            dawdle(random);
        }
    });
    std::minstd_rand random(2);
    std::uint64_t last = 0;
    while (last < static_cast<std::uint64_t>(kRounds) && !is_lost) {
        fg_frame frame{};
        if (fg_subscriber_take(subscriber.get(), test::kPatienceNs, &frame) != FG_OK) {
            is_lost = true;
            break;
        }
        last = frame.sequence;
        dawdle(random);
        if (fg_subscriber_release(subscriber.get(), &frame) != FG_OK) {
            is_lost = true;
        }
    }
    sleeper.join();
    CHECK_FALSE(is_lost);
}

// Whoever goes to sleep without looking again loses a wake soon: these tests would see it.
TEST_CASE("thread without the second look sleeps through a frame") {
    const WithoutRecheck without(kMutateNoSecondLook);
    CHECK_FALSE(PingPong().run(1000000, false, 1'000'000'000));
}

TEST_CASE("event loop without the second look sleeps through a frame") {
    const WithoutRecheck without(kMutateNoSecondLook);
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    int fd = -1;
    int ready = 1;
    REQUIRE(fg_subscriber_event_fd(subscriber.get(), &fd) == FG_OK);
    REQUIRE(test::send(publisher, "between the last take and the arming") == FG_OK);
    REQUIRE(fg_subscriber_arm(subscriber.get(), &ready) == FG_OK);
    pollfd entry{fd, POLLIN, 0};
    CHECK(ready == 0);
    CHECK(poll(&entry, 1, 50) == 0);
}
