// Metadata of topics and arrays: appended while the topic runs, whole or not at all.
#include "metadata.hpp"

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "framegate/types.hpp"
#include "support.hpp"

namespace {

using framegate::Values;

fg_array length_array() { return framegate::make_array("length", FG_DTYPE_FLOAT32, {4}); }

fg_metadata of(const Values& values, std::uint32_t array = FG_METADATA_TOPIC) {
    return {array, static_cast<std::uint32_t>(values.entries().size()), values.entries().data()};
}

std::uint32_t appended(const test::Topic& topic, int number) {
    const Values values = std::move(Values().set("n", number));
    const fg_metadata metadata = of(values);
    std::uint32_t generation = 0;
    REQUIRE_MESSAGE(fg_topic_append_metadata(topic.get(), &metadata, &generation) == FG_OK,
                    fg_last_error());
    return generation;
}

// Every map of the topic has to make sense; the last "n", -1 if there is none.
std::int64_t last_number(const fg_topic* topic) {
    auto metadata = framegate::Metadata::read(topic);
    REQUIRE(metadata);
    const fg_value* value = metadata->find("n");
    return value == nullptr ? -1 : value->integer;
}

[[maybe_unused]] int steps_left = -1;
[[maybe_unused]] void die(std::uint32_t step) {
    if (static_cast<int>(step) == steps_left) {
        kill(getpid(), SIGKILL);
    }
}

}  // namespace

TEST_CASE("a topic begins with its metadata and another process sees what is appended") {
    const test::RuntimeDirectory directory;
    const fg_array array = length_array();
    const Values about = std::move(Values().set("site", "roof").set("rig", 7));
    const Values units = std::move(Values().set("units", "mm").set("offset", 0.5));
    const fg_metadata initial[] = {of(about), of(units, 0)};
    framegate::TopicOptions options;
    options.schema = &array;
    options.schema_count = 1;
    options.metadata = initial;
    options.metadata_count = 2;
    auto topic = framegate::Topic::create("meta", options);
    REQUIRE_MESSAGE(topic, fg_last_error());
    auto other = framegate::Topic::open("meta");
    auto before = other->metadata();
    REQUIRE(before);
    CHECK(before->generation() == 2);
    CHECK(before->find("rig")->integer == 7);
    CHECK(before->units(0) == "mm");
    CHECK(before->find("offset", 0)->real == 0.5);
    CHECK(before->find("offset") == nullptr);

    CHECK(*topic->append_metadata(std::move(Values().set("rig", 8))) == 3);
    CHECK(*topic->append_metadata(std::move(Values().set("offset", 0.75)), 0) == 4);
    CHECK(other->metadata_generation() == 4);
    auto after = other->metadata();
    CHECK(after->find("rig")->integer == 8);
    CHECK(after->find("offset", 0)->real == 0.75);
    CHECK(std::string(static_cast<const char*>(after->find("site")->data), 4) == "roof");

    const test::Inspector inspector = test::inspector("meta");
    std::vector<std::byte> bytes(4096);
    std::size_t used = 0;
    std::uint32_t generation = 0;
    REQUIRE(fg_inspector_metadata(inspector.get(), bytes.data(), bytes.size(), &used,
                                  &generation) == FG_OK);
    CHECK(generation == 4);
    CHECK(fg_inspector_metadata(inspector.get(), bytes.data(), used - 1, &used, &generation) ==
          FG_INVALID_ARGUMENT);
}

TEST_CASE("participants reach the metadata of their topic") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("meta", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    const Values values = std::move(Values().set("n", 5));
    const fg_metadata metadata = of(values);
    REQUIRE(fg_topic_append_metadata(fg_publisher_topic(publisher.get()), &metadata, nullptr) ==
            FG_OK);
    CHECK(last_number(fg_subscriber_topic(subscriber.get())) == 5);
    CHECK(fg_topic_metadata_generation(fg_subscriber_topic(subscriber.get())) == 1);
    CHECK(fg_publisher_topic(nullptr) == nullptr);
}

TEST_CASE("units are part of the schema") {
    const test::RuntimeDirectory directory;
    const fg_array array = length_array();
    const auto open_with = [&](const Values& values) {
        const fg_metadata metadata = of(values, 0);
        framegate::TopicOptions options;
        options.schema = &array;
        options.schema_count = 1;
        options.slot_bytes = 64;
        options.metadata = &metadata;
        options.metadata_count = 1;
        return framegate::Topic::create_or_open("meta", options);
    };
    const std::string longest(FG_UNITS_BYTES_MAX, 'm');
    CHECK_FALSE(open_with(Values().set("units", longest + "m")));
    CHECK_FALSE(open_with(Values().set("units", "")));
    CHECK_FALSE(open_with(Values().set("units", 1)));
    REQUIRE(open_with(Values().set("units", longest)));
    CHECK(open_with(Values().set("units", longest)));
    CHECK(open_with(Values().set("offset", 1)));  // says nothing about units
    auto other = open_with(Values().set("units", "km"));
    REQUIRE_FALSE(other);
    CHECK(other.error().code() == framegate::ErrorCode::SCHEMA_MISMATCH);
    CHECK(other.error().detail().find(longest) != std::string::npos);
    auto topic = framegate::Topic::open("meta");
    auto late = topic->append_metadata(std::move(Values().set("units", "km")), 0);
    REQUIRE_FALSE(late);
    CHECK(late.error().detail().find("fixed") != std::string::npos);
    CHECK(topic->append_metadata(std::move(Values().set("units", "of the topic: any"))));
    CHECK(topic->metadata()->units(0) == longest);
    CHECK_FALSE(topic->append_metadata(std::move(Values().set("n", 1)), 1));  // no such array
}

TEST_CASE("the area takes what it was made for and not a byte more") {
    const test::RuntimeDirectory directory;
    fg_topic_options options = test::options(2, 64);
    options.metadata_bytes = 48;
    const test::Topic topic = test::create("meta", options);
    for (int i = 0; i < 3; ++i) {
        CHECK(appended(topic, i) == static_cast<std::uint32_t>(i + 1));  // 8 + 4, rounded to 16
    }
    const Values values = std::move(Values().set("n", 3));
    const fg_metadata metadata = of(values);
    CHECK(fg_topic_append_metadata(topic.get(), &metadata, nullptr) == FG_METADATA_FULL);
    CHECK(last_number(topic.get()) == 2);
    options.metadata = &metadata;
    options.metadata_count = 1;
    options.metadata_bytes = 15;
    fg_topic* other = nullptr;
    CHECK(fg_topic_create("small", 5, &options, &other) == FG_METADATA_FULL);
    options.metadata_bytes = 16;
    CHECK(fg_topic_create("small", 5, &options, &other) == FG_OK);
    fg_topic_close(other);
    options.metadata_bytes = 0;
    options.metadata_count = 0;
    CHECK(fg_topic_create("none", 4, &options, &other) == FG_OK);
    CHECK(fg_topic_append_metadata(other, &metadata, nullptr) == FG_METADATA_FULL);
    CHECK(last_number(other) == -1);
    fg_topic_close(other);
    options.metadata_bytes = FG_METADATA_BYTES_MAX + 1;
    CHECK(fg_topic_create("large", 5, &options, &other) == FG_INVALID_ARGUMENT);
}

#ifndef _WIN32  // fork
TEST_CASE("an appender that dies at any step leaves all or nothing, and the next one appends") {
    using framegate::impl::Step;
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("meta", test::options(2, 64));
    int expected = 0;
    appended(topic, expected);
    for (const Step step : {Step::kMetadataLocked, Step::kMetadataWritten, Step::kMetadataStored}) {
        const pid_t child = test::in_child([&] {
            const test::Topic own = test::open("meta");
            steps_left = static_cast<int>(step);
            framegate_test_step = die;
            appended(own, 1000 + expected);
            return 1;
        });
        const int status = test::wait_for(child);  // a variable: macOS takes its address
        CHECK(WIFSIGNALED(status));
        const std::int64_t visible = last_number(topic.get());
        CHECK(visible == (step == Step::kMetadataStored ? 1000 + expected : expected));
        appended(topic, ++expected);
        CHECK(last_number(topic.get()) == expected);
    }
}
#endif

TEST_CASE("many appenders lose nothing and readers never see half a record") {
    const test::RuntimeDirectory directory;
    fg_topic_options options = test::options(2, 64);
    options.metadata_bytes = 1 << 16;
    const test::Topic topic = test::create("meta", options);
    std::atomic<int> running{3};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 3; ++thread) {
        threads.emplace_back([&, thread] {
            const test::Topic own = thread == 0 ? nullptr : test::open("meta");
            for (int i = 0; i < 200; ++i) {
                appended(own == nullptr ? topic : own, thread * 1000 + i);
            }
            --running;
        });
    }
    std::uint32_t seen = 0;
    while (running != 0) {
        auto metadata = framegate::Metadata::read(topic.get());
        REQUIRE(metadata);
        CHECK(metadata->generation() >= seen);
        seen = metadata->generation();
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(fg_topic_metadata_generation(topic.get()) == 600);
}

#ifndef _WIN32  // fork
TEST_CASE("a process that was stopped while appending is a time-out") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("meta", test::options(2, 64));
    const pid_t child = test::in_child([] {
        const test::Topic own = test::open("meta");
        framegate_test_step = [](std::uint32_t step) {
            if (step == static_cast<std::uint32_t>(framegate::impl::Step::kMetadataWritten)) {
                raise(SIGSTOP);
            }
        };
        appended(own, 1);
        return 0;
    });
    int status = 0;
    REQUIRE(waitpid(child, &status, WUNTRACED) == child);
    REQUIRE(WIFSTOPPED(status));
    const Values values = std::move(Values().set("n", 2));
    const fg_metadata metadata = of(values);
    CHECK(fg_topic_append_metadata(topic.get(), &metadata, nullptr) == FG_TIMEOUT);
    CHECK(last_number(topic.get()) == -1);
    kill(child, SIGCONT);
    CHECK(test::wait_for(child) == 0);
    CHECK(last_number(topic.get()) == 1);
    appended(topic, 2);
    CHECK(last_number(topic.get()) == 2);
}
#endif

TEST_CASE("no bytes in the area make a reader do anything but say no") {
    std::mt19937 random(3);
    for (int round = 0; round < 20000; ++round) {
        const std::size_t bytes = random() % 64;
        // An exact heap copy, so that AddressSanitizer sees a read past the end.
        const std::unique_ptr<unsigned char[]> area(new unsigned char[bytes]);
        for (std::size_t i = 0; i < bytes; ++i) {
            area[i] = static_cast<unsigned char>(random() % 4 == 0 ? random() : 0);
        }
        fg_value values[FG_VALUES_MAX];
        std::size_t position = 0;
        std::size_t count = 0;
        std::uint32_t array = 0;
        std::size_t before = 0;
        while (fg_metadata_next(area.get(), bytes, &position, &array, values, FG_VALUES_MAX,
                                &count) == FG_OK) {
            REQUIRE(position > before);
            REQUIRE(position <= bytes);
            before = position;
        }
        fg_value units{};
        static_cast<void>(framegate::impl::find_units(area.get(), bytes, 0, &units));
    }
}
