// Resizing: the topic goes on in a new generation of slots, and everybody follows without noticing.
#include "generation.hpp"

#include <atomic>
#include <mutex>
#include <thread>

#include "support.hpp"

namespace {

fg_status resize(const test::Topic& topic, std::uint32_t slots, std::uint64_t slot_bytes = 0) {
    fg_resize_options options;
    fg_resize_options_init(&options);
    options.slots = slots;
    options.slot_bytes = slot_bytes;
    return fg_topic_resize(topic.get(), &options);
}

fg_topic_info info_of(const test::Topic& topic) {
    fg_topic_info info{};
    info.struct_bytes = sizeof info;
    REQUIRE(fg_topic_get_info(topic.get(), &info) == FG_OK);
    return info;
}

std::string take_text(const test::Subscriber& subscriber, std::int64_t timeout_ns = 0) {
    fg_frame frame{};
    const fg_status status = fg_subscriber_take(subscriber.get(), timeout_ns, &frame);
    if (status != FG_OK) {
        return "status " + std::to_string(status);
    }
    std::string text = std::to_string(frame.sequence) + ":" + test::text_of(frame);
    CHECK(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    return text;
}

std::size_t count_files(const test::RuntimeDirectory& directory, const std::string& suffix) {
    std::size_t count = 0;
    for (const std::string& file : directory.files()) {
        count += file.size() > suffix.size() &&
                         file.compare(file.size() - suffix.size(), suffix.size(), suffix) == 0
                     ? 1
                     : 0;
    }
    return count;
}

std::uint64_t to_number(const fg_frame& frame) { return std::stoull(test::text_of(frame)); }

}  // namespace

TEST_CASE("sequences carry on and nothing unseen is skipped") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber queue = test::subscriber(topic);
    const test::Subscriber latest = test::subscriber(topic, FG_POLICY_LATEST);
    REQUIRE(test::send(publisher, "a") == FG_OK);
    REQUIRE(test::send(publisher, "b") == FG_OK);
    REQUIRE(resize(topic, 8, 4096) == FG_OK);
    CHECK(info_of(topic).slots == 8);
    CHECK(info_of(topic).slot_bytes == 4096);
    REQUIRE(test::send(publisher, std::string(4000, 'x')) == FG_OK);
    CHECK(take_text(queue) == "1:a");
    CHECK(take_text(queue) == "2:b");
    CHECK(take_text(queue) == "3:" + std::string(4000, 'x'));
    CHECK(take_text(queue) == "status " + std::to_string(FG_EMPTY));
    CHECK(take_text(latest) == "3:" + std::string(4000, 'x'));
    REQUIRE(test::send(publisher, "d") == FG_OK);
    CHECK(take_text(latest) == "4:d");
    CHECK(take_text(queue) == "4:d");
}

TEST_CASE("newest frame stays in reach until the new generation has one") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber early = test::subscriber(topic, FG_POLICY_LATEST);
    REQUIRE(test::send(publisher, "still") == FG_OK);
    CHECK(take_text(early) == "1:still");
    REQUIRE(resize(topic, 6) == FG_OK);
    REQUIRE(resize(topic, 7) == FG_OK);
    fg_frame frame{};
    REQUIRE(fg_subscriber_peek(early.get(), &frame) == FG_OK);
    CHECK(test::text_of(frame) == "still");
    REQUIRE(fg_subscriber_release(early.get(), &frame) == FG_OK);
    const test::Subscriber late = test::subscriber(test::open("t"), FG_POLICY_LATEST);
    CHECK(take_text(late) == "1:still");
    CHECK(take_text(late) == "status " + std::to_string(FG_EMPTY));
    const test::Subscriber next = test::subscriber(topic, FG_POLICY_QUEUE);
    CHECK(take_text(next) == "status " + std::to_string(FG_EMPTY));
    REQUIRE(test::send(publisher, "new") == FG_OK);
    for (const auto* subscriber : {&early, &late, &next}) {
        CHECK(take_text(*subscriber) == "2:new");
    }
}

TEST_CASE("leases and loans live through a resize") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    REQUIRE(test::send(publisher, "held") == FG_OK);
    fg_frame held{};
    REQUIRE(fg_subscriber_take(subscriber.get(), 0, &held) == FG_OK);
    fg_loan carried{};
    fg_loan dropped{};
    fg_loan large{};
    REQUIRE(fg_publisher_loan(publisher.get(), 64, 0, &carried) == FG_OK);
    REQUIRE(fg_publisher_loan(publisher.get(), 64, 0, &dropped) == FG_OK);
    std::memcpy(carried.data, "carried", 7);
    REQUIRE(resize(topic, 4, 32) == FG_OK);
    const fg_publish_info info = test::bytes_info(7);
    std::uint64_t sequence = 0;
    REQUIRE(fg_publisher_publish(publisher.get(), &carried, &info, &sequence) == FG_OK);
    CHECK(sequence == 2);
    CHECK(carried.data == nullptr);
    CHECK(take_text(subscriber) == "2:carried");
    CHECK(fg_publisher_abandon(publisher.get(), &dropped) == FG_OK);
    // Too large for the new slots: the loan stays good and can be given back.
    REQUIRE(fg_publisher_loan(publisher.get(), 32, 0, &large) == FG_OK);
    REQUIRE(resize(topic, 4, 16) == FG_OK);
    const fg_publish_info too_large = test::bytes_info(32);
    CHECK(fg_publisher_publish(publisher.get(), &large, &too_large, nullptr) == FG_FRAME_TOO_LARGE);
    CHECK(fg_publisher_abandon(publisher.get(), &large) == FG_OK);
    CHECK(fg_publisher_loan(publisher.get(), 17, 0, &large) == FG_FRAME_TOO_LARGE);
    for (int i = 0; i < 10; ++i) {
        REQUIRE(test::send(publisher, "over") == FG_OK);
    }
    CHECK(test::text_of(held) == "held");
    CHECK(fg_subscriber_release(subscriber.get(), &held) == FG_OK);
}

TEST_CASE("memory of the old slots goes when the last participant has moved on") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber slow = test::subscriber(topic);
    fg_frame held{};
    REQUIRE(test::send(publisher, "held") == FG_OK);
    REQUIRE(fg_subscriber_take(slow.get(), 0, &held) == FG_OK);
    for (std::uint32_t slots = 5; slots < 9; ++slots) {
        REQUIRE(resize(topic, slots) == FG_OK);
        REQUIRE(test::send(publisher, std::to_string(slots)) == FG_OK);
    }
    CHECK(count_files(directory, ".data") == 5);  // the lease keeps all of them
    CHECK(fg_subscriber_release(slow.get(), &held) == FG_OK);
    for (std::uint32_t slots = 5; slots < 9; ++slots) {
        CHECK(take_text(slow) == std::to_string(slots - 3) + ":" + std::to_string(slots));
    }
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(count_files(directory, ".data") == 1);
    CHECK(count_files(directory, ".gen") == 1);
    CHECK(count_files(directory, ".ctl") == 1);
    // Whoever comes now goes straight to the newest.
    const test::Topic again = test::open("t");
    CHECK(info_of(again).slots == 8);
    const test::Publisher other = test::publisher(again);
    REQUIRE(test::send(other, "last") == FG_OK);
    CHECK(take_text(slow) == "6:last");
    REQUIRE(fg_topic_unlink("t", 1) == FG_OK);
    CHECK(directory.files().empty());
}

TEST_CASE("sleepers follow: threads, event loops, loans that wait for a slot") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(2, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber sleeper = test::subscriber(topic);
    const test::Subscriber looper = test::subscriber(topic);
    int fd = -1;
    int ready = 1;
    REQUIRE(fg_subscriber_event_fd(looper.get(), &fd) == FG_OK);
    REQUIRE(fg_subscriber_arm(looper.get(), &ready) == FG_OK);
    REQUIRE(ready == 0);
    std::string seen;
    std::thread thread([&] { seen = take_text(sleeper, test::kPatienceNs); });
    const auto& view = test::view_of(topic);
    while (!framegate::impl::any_mark(view, framegate::impl::Mark::kWaiter)) {
        std::this_thread::yield();
    }
    REQUIRE(resize(topic, 4) == FG_OK);
    REQUIRE(test::send(publisher, "hello") == FG_OK);
    thread.join();
    CHECK(seen == "1:hello");
    pollfd entry{fd, POLLIN, 0};
    CHECK(poll(&entry, 1, 60000) == 1);
    REQUIRE(fg_subscriber_drain(looper.get()) == FG_OK);
    CHECK(take_text(looper) == "1:hello");

    fg_loan loans[4] = {};
    for (fg_loan& loan : loans) {
        fg_publisher_loan(publisher.get(), 1, 0, &loan);  // the last one finds nothing
    }
    fg_status loaned = FG_TIMEOUT;
    fg_loan waited{};
    std::thread waiter(
        [&] { loaned = fg_publisher_loan(publisher.get(), 1, test::kPatienceNs, &waited); });
    while (!framegate::impl::any_mark(view, framegate::impl::Mark::kSpaceWaiter)) {
        std::this_thread::yield();
    }
    REQUIRE(resize(topic, 6) == FG_OK);
    waiter.join();
    CHECK(loaned == FG_OK);
    CHECK(fg_publisher_abandon(publisher.get(), &waited) == FG_OK);
    for (fg_loan& loan : loans) {
        CHECK(fg_publisher_abandon(publisher.get(), &loan) == FG_OK);
    }
}

TEST_CASE("resize that cannot be leaves everything as it was") {
    const test::RuntimeDirectory directory;
    fg_topic_options options = test::options(4, 64);
    fg_array schema{};
    schema.dtype = FG_DTYPE_UINT8;
    schema.dimension_count = 1;
    schema.shape[0] = 64;
    options.schema = &schema;
    options.schema_count = 1;
    const test::Topic topic = test::create("t", options);
    const std::set<std::string> files = directory.files();
    CHECK(resize(topic, 1) == FG_INVALID_ARGUMENT);
    CHECK(resize(topic, FG_SLOTS_MAX + 1) == FG_INVALID_ARGUMENT);
    CHECK(resize(topic, 4, 63) == FG_FRAME_TOO_LARGE);
    CHECK(resize(topic, 4000, std::uint64_t{1} << 40) == FG_NO_SPACE);
    CHECK(resize(topic, 4, 64) == FG_OK);  // as it is
    CHECK(directory.files() == files);
    CHECK(info_of(topic).slots == 4);
    fg_resize_options wrong{};
    CHECK(fg_topic_resize(topic.get(), &wrong) == FG_INVALID_ARGUMENT);
    CHECK(fg_topic_resize(nullptr, &wrong) == FG_INVALID_ARGUMENT);
}

TEST_CASE("inspectors follow") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Inspector inspector = test::inspector("t");
    REQUIRE(test::send(publisher, "a") == FG_OK);
    for (std::uint32_t slots = 5; slots < 8; ++slots) {
        REQUIRE(resize(topic, slots, slots * 64) == FG_OK);
        REQUIRE(test::send(publisher, "b") == FG_OK);
        fg_topic_info info{};
        info.struct_bytes = sizeof info;
        REQUIRE(fg_inspector_get_info(inspector.get(), &info) == FG_OK);
        CHECK(info.slots == slots);
        CHECK(info.slot_bytes == slots * 64);
        CHECK(info.identity[0] == info_of(topic).identity[0]);
        fg_topic_stats stats{};
        stats.struct_bytes = sizeof stats;
        REQUIRE(fg_inspector_stats(inspector.get(), &stats) == FG_OK);
        CHECK(stats.head == slots - 3);
        CHECK(stats.slots_published == 1);
        CHECK(stats.slots_free == slots - 1);
        CHECK(stats.publishers == 1);
    }
}

TEST_CASE("quota follows the number of slots") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic, FG_POLICY_QUEUE, 7);
    REQUIRE(resize(topic, 3) == FG_OK);
    REQUIRE(test::send(publisher, "1") == FG_OK);
    CHECK(take_text(subscriber) == "1:1");
    fg_subscriber_stats stats{};
    stats.struct_bytes = sizeof stats;
    REQUIRE(fg_subscriber_get_stats(subscriber.get(), &stats) == FG_OK);
    CHECK(stats.leases_max == 2);
    REQUIRE(resize(topic, 12) == FG_OK);
    REQUIRE(test::send(publisher, "2") == FG_OK);
    CHECK(take_text(subscriber) == "2:2");
    REQUIRE(fg_subscriber_get_stats(subscriber.get(), &stats) == FG_OK);
    CHECK(stats.leases_max == 7);
}

#ifndef _WIN32  // fork
TEST_CASE("dead holder in an old generation is reaped") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(2, 64));
    const test::Publisher publisher = test::publisher(topic);
    REQUIRE(resize(topic, 3) == FG_OK);
    REQUIRE(test::send(publisher, "x") == FG_OK);
    const pid_t child = test::in_child([] {
        const test::Topic own = test::open("t");
        const test::Publisher other = test::publisher(own);
        const test::Subscriber reader = test::subscriber(own, FG_POLICY_LATEST);
        fg_loan loan{};
        fg_frame frame{};
        fg_publisher_loan(other.get(), 1, 0, &loan);
        fg_subscriber_take(reader.get(), 0, &frame);
        kill(getpid(), SIGKILL);
        return 0;
    });
    test::wait_for(child);
    fg_loan loans[2] = {};
    CHECK(fg_publisher_loan(publisher.get(), 1, test::kPatienceNs, &loans[0]) == FG_OK);
    CHECK(fg_publisher_loan(publisher.get(), 1, 0, &loans[1]) == FG_OK);
    for (fg_loan& loan : loans) {
        CHECK(fg_publisher_abandon(publisher.get(), &loan) == FG_OK);
    }
}
#endif

// Publishers, resizers and a subscriber at once: every sequence arrives or is counted, in order.
TEST_CASE("storm of resizes loses no frame that is not counted") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(64, 64));
    const test::Subscriber subscriber = test::subscriber(topic);
    constexpr int kFrames = FG_TEST_TSAN ? 300 : 3000;
    constexpr int kPublishers = 2;
    std::vector<std::thread> threads;
    for (int i = 0; i < kPublishers; ++i) {
        threads.emplace_back([] {
            const test::Publisher publisher = test::publisher(test::open("t"));
            for (int n = 0; n < kFrames; ++n) {
                fg_loan loan{};
                REQUIRE(fg_publisher_loan(publisher.get(), 64, test::kPatienceNs, &loan) == FG_OK);
                const std::string text = std::to_string(n);
                std::memcpy(loan.data, text.data(), text.size());
                const fg_publish_info info = test::bytes_info(text.size());
                REQUIRE_MESSAGE(
                    fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_OK,
                    fg_last_error());
            }
        });
    }
    std::atomic<bool> stop{false};
    for (int i = 0; i < 2; ++i) {
        threads.emplace_back([&stop, i] {
            const test::Topic own = test::open("t");
            for (std::uint32_t n = 0; !stop.load(); ++n) {
                const fg_status status = resize(own, 64 + n % 5 + static_cast<std::uint32_t>(i));
                const std::string text = fg_last_error();
                CAPTURE(text);
                CAPTURE(status);
                REQUIRE((status == FG_OK || status == FG_SYSTEM));
            }
        });
    }
    std::uint64_t last = 0;
    std::uint64_t received = 0;
    std::uint64_t lost = 0;
    while (last < kFrames * kPublishers) {
        fg_frame frame{};
        REQUIRE_MESSAGE(fg_subscriber_take(subscriber.get(), test::kPatienceNs, &frame) == FG_OK,
                        fg_last_error());
        CHECK(frame.sequence == last + frame.lost + 1);
        CHECK(to_number(frame) < kFrames);
        last = frame.sequence;
        ++received;
        lost += frame.lost;
        REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    }
    stop.store(true);
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(received + lost == kFrames * kPublishers);
}

TEST_CASE("reliable subscriber gets every frame of both generations") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber reader = test::subscriber(topic, FG_POLICY_RELIABLE);
    for (const char* text : {"a", "b", "c", "d"}) {
        REQUIRE(test::send(publisher, text) == FG_OK);
    }
    CHECK(test::send(publisher, "e") == FG_TOPIC_FULL);
    REQUIRE(resize(topic, 2) == FG_OK);
    REQUIRE(test::send(publisher, "e") == FG_OK);
    REQUIRE(test::send(publisher, "f") == FG_OK);
    CHECK(test::send(publisher, "g") == FG_TOPIC_FULL);
    int number = 1;
    for (const char* text : {"a", "b", "c", "d", "e", "f"}) {
        CHECK(take_text(reader) == std::to_string(number++) + ":" + text);
    }
    REQUIRE(test::send(publisher, "g") == FG_OK);
    CHECK(take_text(reader) == "7:g");
    fg_subscriber_stats stats{};
    stats.struct_bytes = sizeof stats;
    REQUIRE(fg_subscriber_get_stats(reader.get(), &stats) == FG_OK);
    CHECK(stats.lost == 0);
}

TEST_CASE("reliable subscriber that attaches after a resize is kept from there on") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    REQUIRE(test::send(publisher, "a") == FG_OK);
    REQUIRE(resize(topic, 3) == FG_OK);
    const test::Subscriber before = test::subscriber(topic, FG_POLICY_RELIABLE);
    REQUIRE(test::send(publisher, "b") == FG_OK);
    const test::Subscriber after = test::subscriber(topic, FG_POLICY_RELIABLE);
    REQUIRE(test::send(publisher, "c") == FG_OK);
    CHECK(take_text(before) == "2:b");
    CHECK(take_text(before) == "3:c");
    CHECK(take_text(after) == "3:c");
}

namespace {

test::Subscriber join(const test::Topic& topic) {
    fg_subscriber_options options;
    fg_subscriber_options_init(&options);
    options.policy = FG_POLICY_GROUP;
    options.group = "work";
    options.group_bytes = 4;
    fg_subscriber* handle = nullptr;
    const fg_status status = fg_subscriber_open(topic.get(), &options, &handle);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    return test::Subscriber(handle);
}

const std::string kEmpty = "status " + std::to_string(FG_EMPTY);

}  // namespace

TEST_CASE("group goes on behind a resize, each frame to one member") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber one = join(topic);
    const test::Subscriber two = join(topic);
    for (const char* text : {"a", "b", "c", "d"}) {
        REQUIRE(test::send(publisher, text) == FG_OK);
    }
    CHECK(take_text(one) == "1:a");
    REQUIRE(resize(topic, 2) == FG_OK);
    CHECK(info_of(topic).slots == 2);
    REQUIRE(test::send(publisher, "e") == FG_OK);
    REQUIRE(test::send(publisher, "f") == FG_OK);
    CHECK(test::send(publisher, "g") == FG_TOPIC_FULL);  // the cursor holds the new slots back, too
    CHECK(take_text(two) == "2:b");
    CHECK(take_text(one) == "3:c");
    const test::Subscriber late = join(topic);  // begins where the group is, not where the topic is
    CHECK(take_text(late) == "4:d");
    CHECK(take_text(two) == "5:e");
    REQUIRE(test::send(publisher, "g") == FG_OK);
    CHECK(take_text(late) == "6:f");
    CHECK(take_text(one) == "7:g");
    for (const auto* member : {&one, &two, &late}) {
        CHECK(take_text(*member) == kEmpty);
    }
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(count_files(directory, ".data") == 1);
}

TEST_CASE("frame given back in an old generation goes to a member that has gone on") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber holder = join(topic);
    const test::Subscriber other = join(topic);
    for (const char* text : {"a", "b"}) {
        REQUIRE(test::send(publisher, text) == FG_OK);
    }
    fg_frame first{};
    fg_frame second{};
    REQUIRE(fg_subscriber_take(holder.get(), 0, &first) == FG_OK);
    REQUIRE(fg_subscriber_take(holder.get(), 0, &second) == FG_OK);
    for (std::uint32_t slots = 5; slots < 8; ++slots) {
        REQUIRE(resize(topic, slots) == FG_OK);
        REQUIRE(test::send(publisher, "new") == FG_OK);
        CHECK(take_text(other) == std::to_string(slots - 2) + ":new");
    }
    CHECK(fg_subscriber_nack(holder.get(), &second) == FG_OK);
    CHECK(fg_subscriber_nack(holder.get(), &first) == FG_OK);
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(count_files(directory, ".data") == 4);  // not retired: its frames are owed
    fg_frame again{};
    REQUIRE(fg_subscriber_take(other.get(), 0, &again) == FG_OK);
    CHECK(again.sequence == 1);
    CHECK(again.redelivered == 1);
    CHECK(test::text_of(again) == "a");
    CHECK(take_text(holder) == "2:b");
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(count_files(directory, ".data") == 4);  // "a" is held there
    CHECK(fg_subscriber_release(other.get(), &again) == FG_OK);
    CHECK(take_text(holder) == kEmpty);
    CHECK(take_text(other) == kEmpty);
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(count_files(directory, ".data") == 1);
}

#ifndef _WIN32  // fork
TEST_CASE("frame of a member that died in an old generation wakes members that have gone on") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber keeper = join(topic);
    REQUIRE(test::send(publisher, "a") == FG_OK);
    const pid_t child = test::in_child([] {
        const test::Topic own = test::open("t");
        const test::Subscriber member = join(own);
        fg_frame frame{};
        fg_subscriber_take(member.get(), 0, &frame);
        raise(SIGSTOP);
        pause();
        return 0;
    });
    int state = 0;
    REQUIRE(waitpid(child, &state, WUNTRACED) == child);
    REQUIRE(resize(topic, 6) == FG_OK);
    REQUIRE(test::send(publisher, "b") == FG_OK);
    CHECK(take_text(keeper) == "2:b");
    std::string seen;
    std::thread sleeper([&] { seen = take_text(keeper, test::kPatienceNs); });
    kill(child, SIGKILL);
    test::wait_for(child);
    sleeper.join();
    CHECK(seen == "1:a");
    // Who comes when all members are dead founds the group anew; the old frames are nobody's.
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(count_files(directory, ".data") == 1);
}
#endif

TEST_CASE("member that comes after a resize gets what the dead left behind") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    test::Subscriber holder = join(topic);
    for (const char* text : {"a", "b", "c"}) {
        REQUIRE(test::send(publisher, text) == FG_OK);
    }
    fg_frame held{};
    REQUIRE(fg_subscriber_take(holder.get(), 0, &held) == FG_OK);
    REQUIRE(resize(topic, 6) == FG_OK);
    REQUIRE(test::send(publisher, "d") == FG_OK);
    const test::Topic other = test::open("t");
    const test::Subscriber late = join(other);
    CHECK(fg_subscriber_nack(holder.get(), &held) == FG_OK);
    holder.reset();
    CHECK(take_text(late) == "1:a");
    CHECK(take_text(late) == "2:b");
    CHECK(take_text(late) == "3:c");
    CHECK(take_text(late) == "4:d");
    CHECK(take_text(late) == kEmpty);
}

TEST_CASE("group that is over keeps no old generation") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    {
        const test::Subscriber member = join(topic);
        REQUIRE(test::send(publisher, "a") == FG_OK);
        REQUIRE(test::send(publisher, "b") == FG_OK);
        fg_frame frame{};
        REQUIRE(fg_subscriber_take(member.get(), 0, &frame) == FG_OK);
        REQUIRE(resize(topic, 6) == FG_OK);
        REQUIRE(test::send(publisher, "c") == FG_OK);
        CHECK(fg_subscriber_nack(member.get(), &frame) == FG_OK);
        REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
        CHECK(count_files(directory, ".data") == 2);
    }
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(count_files(directory, ".data") == 1);
    const test::Subscriber member = join(topic);
    CHECK(take_text(member) == kEmpty);
    REQUIRE(test::send(publisher, "d") == FG_OK);
    CHECK(take_text(member) == "4:d");
}

// Members in processes of their own that hold, give back and die, publishers and resizers at once.
TEST_CASE("storm of resizes over a group: every frame is finished by somebody") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(16, 64));
    const test::Subscriber keeper = join(topic);  // so that the group is never over
    constexpr std::uint64_t kFrames = FG_TEST_TSAN ? 200 : 2000;
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> resizes{0};
    std::thread resizer([&] {
        const test::Topic own = test::open("t");
        for (std::uint32_t n = 0; !stop.load(); ++n) {
            REQUIRE_MESSAGE(resize(own, 16 + n % 5) == FG_OK, fg_last_error());
            resizes.fetch_add(1);
        }
    });
    std::thread source([&] {
        const test::Publisher publisher = test::publisher(test::open("t"));
        for (std::uint64_t n = 0; n < kFrames; ++n) {
            REQUIRE_MESSAGE(test::send(publisher, std::to_string(n), test::kPatienceNs) == FG_OK,
                            fg_last_error());
        }
    });
    std::vector<std::uint32_t> finished(kFrames, 0);
    std::mutex mutex;
    std::atomic<std::uint64_t> left{kFrames};
    const auto work = [&](const test::Subscriber& member, std::uint64_t turn) {
        fg_frame frame{};
        const fg_status status = fg_subscriber_take(member.get(), 50000000, &frame);
        if (status == FG_TIMEOUT || status == FG_EMPTY) {
            return;
        }
        REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
        CHECK(frame.lost == 0);
        const std::uint64_t number = to_number(frame);
        REQUIRE(number < kFrames);
        if (turn % 5 == 0) {
            REQUIRE_MESSAGE(fg_subscriber_nack(member.get(), &frame) == FG_OK, fg_last_error());
            return;
        }
        {
            const std::lock_guard<std::mutex> guard(mutex);
            left.fetch_sub(finished[number]++ == 0 ? 1 : 0);
        }
        REQUIRE(fg_subscriber_release(member.get(), &frame) == FG_OK);
    };
    std::vector<std::thread> members;
    for (int i = 0; i < 2; ++i) {
        members.emplace_back([&] {
            const test::Topic own = test::open("t");
            while (left.load() != 0) {
                const test::Subscriber member = join(own);
                fg_frame kept{};  // comes back when the member closes
                fg_subscriber_take(member.get(), 0, &kept);
                if (kept.data != nullptr) {
                    REQUIRE(fg_subscriber_nack(member.get(), &kept) == FG_OK);
                }
                for (std::uint64_t turn = 1; turn < 50 && left.load() != 0; ++turn) {
                    work(member, turn);
                }
            }
        });
    }
    for (std::uint64_t turn = 1; left.load() != 0; ++turn) {
        work(keeper, turn);
    }
    source.join();
    stop.store(true);
    resizer.join();
    for (std::thread& member : members) {
        member.join();
    }
    CHECK(resizes.load() > 3);
    for (std::uint64_t n = 0; n < kFrames; ++n) {
        CAPTURE(n);
        CHECK(finished[n] == 1);  // nobody died, so nothing was finished twice
    }
}
