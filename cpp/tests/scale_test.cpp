// The ends of the scales: sequences close to 2^48, 80 participants on a topic, 1000 topics.
#ifndef _WIN32
#include <sys/resource.h>
#endif

#include <atomic>
#include <thread>

#include "support.hpp"

namespace {

test::Subscriber member(const test::Topic& topic, const std::string& group) {
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

// Takes a frame that must be there, gives it back; its sequence.
std::uint64_t take_one(const test::Subscriber& subscriber) {
    fg_frame frame{};
    const fg_status status = fg_subscriber_take(subscriber.get(), 0, &frame);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    return frame.sequence;
}

}  // namespace

TEST_CASE("sequences end just below 2^48, and until then every policy works") {
    constexpr std::uint64_t kFrames = 40;  // several times around slots and ring
    constexpr std::uint64_t kFirst = FG_SEQUENCE_MAX - kFrames;
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("late", test::options(4, 64));
    test::view_of(topic).shared->head.store(kFirst - 2);  // as after nine years
    const test::Publisher publisher = test::publisher(topic);
    REQUIRE(test::send(publisher, "x") == FG_OK);
    const test::Subscriber latest = test::subscriber(topic, FG_POLICY_LATEST);
    CHECK(take_one(latest) == kFirst - 1);
    const test::Subscriber queue = test::subscriber(topic, FG_POLICY_QUEUE);
    const test::Subscriber reliable = test::subscriber(topic, FG_POLICY_RELIABLE);
    const test::Subscriber one = member(topic, "work");
    const test::Subscriber two = member(topic, "work");
    for (std::uint64_t sequence = kFirst; sequence < FG_SEQUENCE_MAX; ++sequence) {
        REQUIRE_MESSAGE(test::send(publisher, "x") == FG_OK, fg_last_error());
        for (const test::Subscriber* subscriber : {&latest, &queue, &reliable}) {
            CHECK(take_one(*subscriber) == sequence);
        }
        const bool even = sequence % 2 == 0;
        fg_frame frame{};
        REQUIRE(fg_subscriber_take((even ? one : two).get(), 0, &frame) == FG_OK);
        CHECK(frame.sequence == sequence);
        REQUIRE(fg_subscriber_nack((even ? one : two).get(), &frame) == FG_OK);
        CHECK(take_one(even ? two : one) == sequence);
    }
    for (int i = 0; i < 3; ++i) {
        CHECK(test::send(publisher, "x") == FG_SEQUENCE_EXHAUSTED);
    }
    for (const test::Subscriber* subscriber : {&latest, &queue, &reliable, &one, &two}) {
        fg_frame frame{};
        CHECK(fg_subscriber_take(subscriber->get(), 0, &frame) == FG_EMPTY);
        fg_subscriber_stats stats{};
        stats.struct_bytes = sizeof stats;
        REQUIRE(fg_subscriber_get_stats(subscriber->get(), &stats) == FG_OK);
        CHECK(stats.lost == 0);
        CHECK(stats.head == FG_SEQUENCE_MAX - 1);
    }
    fg_frame frame{};
    REQUIRE(fg_subscriber_peek(latest.get(), &frame) == FG_OK);
    CHECK(frame.sequence == FG_SEQUENCE_MAX - 1);
    CHECK(fg_subscriber_release(latest.get(), &frame) == FG_OK);
}

TEST_CASE("64 subscribers and 16 publishers on one topic") {
    constexpr std::uint32_t kPublishers = 16;
    constexpr std::uint32_t kOfEach = 16;  // latest, queue, reliable, members of four groups
    constexpr std::uint32_t kFramesEach = FG_TEST_TSAN ? 5 : 20;
    constexpr std::uint32_t kFrames = kPublishers * kFramesEach;
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("busy", test::options(96, 64));
    std::vector<test::Subscriber> subscribers;
    for (std::uint32_t i = 0; i < kOfEach; ++i) {
        subscribers.push_back(test::subscriber(topic, FG_POLICY_LATEST));
        subscribers.push_back(test::subscriber(topic, FG_POLICY_QUEUE));
        subscribers.push_back(test::subscriber(topic, FG_POLICY_RELIABLE));
        subscribers.push_back(member(topic, "group-" + std::to_string(i % 4)));
    }
    std::vector<test::Publisher> publishers;
    for (std::uint32_t i = 0; i < kPublishers; ++i) {
        publishers.push_back(test::publisher(topic));
    }
    CHECK(test::stats("busy").subscribers == 64);
    CHECK(test::stats("busy").publishers == kPublishers);
    std::atomic<std::uint32_t> wrong{0};
    std::atomic<std::uint32_t> worked[4] = {};
    std::atomic<std::uint32_t> reliable_frames{0};
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < subscribers.size(); ++i) {
        threads.emplace_back([&, i] {
            const std::uint32_t kind = i % 4;
            const std::uint32_t group = i / 4 % 4;
            std::uint64_t last = 0;
            for (;;) {
                // Latest and queue need not see the last one, so nobody waits for long.
                fg_frame frame{};
                const fg_status status = fg_subscriber_take(subscribers[i].get(), 20000000, &frame);
                const bool over = framegate::impl::load_head(test::view_of(topic)) == kFrames;
                if (status == FG_TIMEOUT && over && (kind != 3 || worked[group] == kFrames)) {
                    return;
                }
                if (status == FG_TIMEOUT) {
                    continue;
                }
                wrong += status == FG_OK && frame.sequence > last ? 0 : 1;
                if (status != FG_OK) {
                    return;
                }
                wrong += kind == 2 && frame.sequence != last + 1 ? 1 : 0;
                last = frame.sequence;
                worked[group] += kind == 3 ? 1 : 0;
                reliable_frames += kind == 2 ? 1 : 0;
                wrong += fg_subscriber_release(subscribers[i].get(), &frame) == FG_OK ? 0 : 1;
            }
        });
    }
    for (const test::Publisher& publisher : publishers) {
        threads.emplace_back([&] {
            for (std::uint32_t n = 0; n < kFramesEach; ++n) {
                wrong += test::send(publisher, "frame", test::kPatienceNs) == FG_OK ? 0 : 1;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(wrong == 0);
    CHECK(reliable_frames == kOfEach * kFrames);
    for (const auto& count : worked) {
        CHECK(count == kFrames);
    }
    CHECK(test::stats("busy").slots_leased == 0);
}

TEST_CASE("1000 topics in one process and one directory") {
#ifdef _WIN32
    constexpr int kTopics = 100;  // wine has descriptors for less than two hundred
#else
    constexpr int kTopics = FG_TEST_TSAN ? 200 : 1000;
#endif
#ifndef _WIN32
    rlimit limit{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;  // three descriptors each
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    REQUIRE(limit.rlim_cur > 4 * kTopics);
#endif
    const test::RuntimeDirectory directory;
    fg_topic_options options = test::options(2, 64);
    options.participants_max = 4;
    std::vector<test::Topic> topics;
    std::vector<test::Publisher> publishers;
    std::vector<test::Subscriber> subscribers;
    for (int i = 0; i < kTopics; ++i) {
        topics.push_back(test::create("many/" + std::to_string(i), options));
        publishers.push_back(test::publisher(topics.back()));
        subscribers.push_back(test::subscriber(topics.back(), FG_POLICY_RELIABLE));
    }
    for (std::size_t i = 0; i < publishers.size(); ++i) {
        REQUIRE(test::send(publishers[i], "topic " + std::to_string(i)) == FG_OK);
    }
    for (std::size_t i = 0; i < subscribers.size(); ++i) {
        fg_frame frame{};
        REQUIRE(fg_subscriber_take(subscribers[i].get(), 0, &frame) == FG_OK);
        CHECK(test::text_of(frame) == "topic " + std::to_string(i));
        CHECK(fg_subscriber_release(subscribers[i].get(), &frame) == FG_OK);
    }
    CHECK(directory.files().size() == 2 * static_cast<std::size_t>(kTopics));
}
