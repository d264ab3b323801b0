// Sleeping and waking: futex, event fd, space.
#include <thread>

#include "support.hpp"

namespace {

bool readable(int fd, int timeout_ms) {
    pollfd entry{fd, POLLIN, 0};
    return poll(&entry, 1, timeout_ms) == 1;
}

int event_fd(const test::Subscriber& subscriber) {
    int fd = -1;
    REQUIRE(fg_subscriber_event_fd(subscriber.get(), &fd) == FG_OK);
    return fd;
}

int arm(const test::Subscriber& subscriber) {
    int ready = -1;
    REQUIRE(fg_subscriber_arm(subscriber.get(), &ready) == FG_OK);
    return ready;
}

}  // namespace

TEST_CASE("wait ends with the time-out") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    fg_frame frame{};
    CHECK(fg_subscriber_wait(subscriber.get(), 0) == FG_TIMEOUT);
    CHECK(fg_subscriber_wait(subscriber.get(), 1000000) == FG_TIMEOUT);
    CHECK(fg_subscriber_take(subscriber.get(), 1000000, &frame) == FG_TIMEOUT);
    REQUIRE(test::send(publisher, "x") == FG_OK);
    CHECK(fg_subscriber_wait(subscriber.get(), 0) == FG_OK);
    CHECK(fg_subscriber_wait(subscriber.get(), -1) == FG_OK);
    fg_loan loans[4] = {};
    for (int i = 0; i < 3; ++i) {
        REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loans[i]) == FG_OK);
    }
    CHECK(fg_publisher_loan(publisher.get(), 1, 1000000, &loans[3]) == FG_TOPIC_FULL);
    CHECK(fg_publisher_loan(publisher.get(), 65, 1000000, &loans[3]) == FG_FRAME_TOO_LARGE);
    for (fg_loan& loan : loans) {
        CHECK(fg_publisher_abandon(publisher.get(), &loan) == FG_OK);
    }
}

TEST_CASE("sleeping subscribers of one handle all wake, in threads and with spinning") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    fg_subscriber_options options;
    fg_subscriber_options_init(&options);
    options.spin_ns = 100000;
    fg_subscriber* raw = nullptr;
    REQUIRE(fg_subscriber_open(topic.get(), &options, &raw) == FG_OK);
    const test::Subscriber subscriber(raw);
    std::atomic<int> woken{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            woken += fg_subscriber_wait(subscriber.get(), test::kPatienceNs) == FG_OK ? 1 : 0;
        });
    }
    REQUIRE(test::send(publisher, "x") == FG_OK);
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(woken.load() == 4);
    options.spin_ns = 1000001;
    CHECK(fg_subscriber_open(topic.get(), &options, &raw) == FG_INVALID_ARGUMENT);
}

#ifndef _WIN32  // signals
TEST_CASE("signal interrupts a wait") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(2, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    struct sigaction action{};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    REQUIRE(sigaction(SIGUSR1, &action, nullptr) == 0);
    fg_loan loans[2] = {};
    REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loans[0]) == FG_OK);
    REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loans[1]) == FG_OK);
    std::atomic<bool> done{false};
    fg_status wait_status = FG_OK;
    fg_status loan_status = FG_OK;
    std::thread sleeper([&] {
        wait_status = fg_subscriber_wait(subscriber.get(), test::kPatienceNs);
        fg_loan loan{};
        loan_status = fg_publisher_loan(publisher.get(), 1, test::kPatienceNs, &loan);
        done = true;
    });
    while (!done.load()) {  // a signal before the sleep has no effect: send until it had
        pthread_kill(sleeper.native_handle(), SIGUSR1);
        std::this_thread::yield();
    }
    sleeper.join();
    CHECK(wait_status == FG_INTERRUPTED);
    CHECK(loan_status == FG_INTERRUPTED);
    CHECK(fg_publisher_abandon(publisher.get(), &loans[0]) == FG_OK);
    CHECK(fg_publisher_abandon(publisher.get(), &loans[1]) == FG_OK);
}
#endif

TEST_CASE("event fd is readable after a publication and quiet after a drain") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    int ready = 0;
    CHECK(fg_subscriber_arm(subscriber.get(), &ready) == FG_INVALID_ARGUMENT);
    const int fd = event_fd(subscriber);
    CHECK(event_fd(subscriber) == fd);
    CHECK_FALSE(readable(fd, 0));
    CHECK(test::send(publisher, "not armed") == FG_OK);
    CHECK_FALSE(readable(fd, 0));
    CHECK(arm(subscriber) == 1);
    fg_frame frame{};
    REQUIRE(fg_subscriber_take(subscriber.get(), 0, &frame) == FG_OK);
    REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    CHECK(arm(subscriber) == 0);
    CHECK(test::send(publisher, "armed") == FG_OK);
    CHECK(test::send(publisher, "not again") == FG_OK);
    CHECK(readable(fd, 0));
    REQUIRE(fg_subscriber_drain(subscriber.get()) == FG_OK);
    CHECK_FALSE(readable(fd, 0));
    CHECK(directory.files().size() == 3);  // the socket
}

TEST_CASE("socket goes with its subscriber") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    {
        const test::Subscriber subscriber = test::subscriber(topic);
        event_fd(subscriber);
        CHECK(directory.files().size() == 3);
    }
    CHECK(directory.files().size() == 2);
    const pid_t child = test::start([](std::uint64_t, std::uint64_t) {
        const test::Subscriber subscriber = test::subscriber(test::open("t"));
        event_fd(subscriber);
        kill(getpid(), SIGKILL);
        return 0;
    });
    test::wait_for(child);
#ifndef _WIN32  // there the system removes it
    CHECK(directory.files().size() == 3);
#endif
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(directory.files().size() == 2);
}

TEST_CASE("armed event fd ticks by itself") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Subscriber subscriber = test::subscriber(topic);
    const int fd = event_fd(subscriber);
    CHECK(arm(subscriber) == 0);
    REQUIRE(readable(fd, 60000));
    REQUIRE(fg_subscriber_drain(subscriber.get()) == FG_OK);
    CHECK_FALSE(readable(fd, 0));
}

TEST_CASE("blocked loan wakes on whatever frees a slot") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(2, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Publisher other = test::publisher(topic);
    test::Subscriber subscriber = test::subscriber(topic, FG_POLICY_LATEST);
    REQUIRE(test::send(publisher, "a") == FG_OK);
    fg_frame frame{};
    fg_loan loan{};
    std::function<void()> free_a_slot;
    SUBCASE("release") {
        REQUIRE(fg_subscriber_take(subscriber.get(), 0, &frame) == FG_OK);
        REQUIRE(test::send(publisher, "b") == FG_OK);
        free_a_slot = [&] { CHECK(fg_subscriber_release(subscriber.get(), &frame) == FG_OK); };
    }
    SUBCASE("abandon") {
        REQUIRE(fg_publisher_loan(other.get(), 1, 0, &loan) == FG_OK);
        free_a_slot = [&] { CHECK(fg_publisher_abandon(other.get(), &loan) == FG_OK); };
    }
    SUBCASE("publish") {
        REQUIRE(fg_publisher_loan(other.get(), 1, 0, &loan) == FG_OK);
        free_a_slot = [&] {
            const fg_publish_info info = test::bytes_info(1);
            CHECK(fg_publisher_publish(other.get(), &loan, &info, nullptr) == FG_OK);
        };
    }
    SUBCASE("detach of a subscriber with its last frame") {
        REQUIRE(fg_subscriber_take(subscriber.get(), 0, &frame) == FG_OK);
        REQUIRE(test::send(publisher, "b") == FG_OK);
        free_a_slot = [&] {
            fg_subscriber* raw = subscriber.release();
            fg_subscriber_close(raw);
            CHECK(fg_subscriber_release(raw, &frame) == FG_OK);
        };
    }
    fg_status status = FG_EMPTY;
    std::thread blocked([&] {
        fg_loan mine{};
        status = fg_publisher_loan(publisher.get(), 1, test::kPatienceNs, &mine);
        fg_publisher_abandon(publisher.get(), &mine);
    });
    free_a_slot();
    blocked.join();
    CHECK(status == FG_OK);
}
