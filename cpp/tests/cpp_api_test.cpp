// The RAII headers over the C ABI.
#include <utility>

#include "framegate/calls.hpp"
#include "framegate/gc.hpp"
#include "framegate/inspector.hpp"
#include "framegate/publisher.hpp"
#include "framegate/subscriber.hpp"
#include "support.hpp"

TEST_CASE("loan and frame are RAII") {
    const test::RuntimeDirectory directory;
    framegate::TopicOptions options;
    options.slots = 3;
    options.slot_bytes = 256;
    auto topic = framegate::Topic::create("cpp/api", options);
    REQUIRE(topic);
    CHECK(topic->name() == "cpp/api");
    auto publisher = framegate::Publisher::open(*topic, "camera");
    auto subscriber = framegate::Subscriber::open(*topic);
    REQUIRE((publisher && subscriber));
    for (int i = 0; i < 10; ++i) {
        auto abandoned = publisher->loan(1);
        REQUIRE(abandoned);
        framegate::Loan moved = std::move(*abandoned);
        CHECK(moved.bytes().size() == 256);
    }
    fg_array array = framegate::make_array("pixels", FG_DTYPE_UINT8, {4, 5});
    auto loan = publisher->loan(20);
    loan->bytes()[19] = std::byte{7};
    CHECK(publisher->announce());
    framegate::FrameInfo info(20);
    info.arrays = &array;
    info.array_count = 1;
    info.timestamp_s = 2.5;
    const auto sequence = loan->publish(info);
    REQUIRE(sequence);
    auto taken = subscriber->take(framegate::kForever);
    REQUIRE((taken && *taken));
    const framegate::Frame frame = std::move(**taken);
    CHECK(frame.bytes().size() == 20);
    CHECK(frame.bytes()[19] == std::byte{7});
    CHECK(frame.timestamp_s() == 2.5);
    auto arrays = frame.arrays();
    REQUIRE(arrays);
    CHECK(arrays->size() == 1);
    CHECK((*arrays)[0].shape[1] == 5);
    CHECK_FALSE(*subscriber->take());
    CHECK(subscriber->stats()->leases == 1);

    auto inspector = framegate::Inspector::open("cpp/api");
    REQUIRE(inspector);
    CHECK(inspector->info()->slots == 3);
    CHECK(inspector->stats()->slots_leased == 1);
    auto rows = inspector->participants();
    REQUIRE(rows->size() == 2);
    CHECK(std::string((*rows)[0].name, (*rows)[0].name_bytes) == "camera");
    CHECK((*rows)[1].leases == 1);
}

TEST_CASE("errors are values with a sentence") {
    const test::RuntimeDirectory directory;
    auto missing = framegate::Topic::open("nobody/made/this");
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code() == framegate::ErrorCode::TOPIC_NOT_FOUND);
    CHECK(missing.error().detail().find("nobody/made/this") != std::string::npos);
}

TEST_CASE("calls and control messages are RAII") {
    const test::RuntimeDirectory directory;
    framegate::TopicOptions options;
    options.slot_bytes = 64;
    auto topic = framegate::Topic::create("cpp/calls", options);
    auto caller = framegate::Caller::open(*topic, "asker");
    const auto bytes_of = [](std::string_view text) {
        return std::as_bytes(std::span(text.data(), text.size()));
    };
    const auto second = std::chrono::seconds(1);
    auto nobody = caller->call(bytes_of("x"), second);
    REQUIRE_FALSE(nobody);
    CHECK(nobody.error().code() == framegate::ErrorCode::NO_RESPONDER);
    auto responder = framegate::Responder::open(*topic, "server");
    REQUIRE(responder);

    auto loan = caller->loan(2);
    std::memcpy(loan->bytes().data(), "ab", 2);
    auto call = caller->start(*loan, framegate::FrameInfo(2), framegate::kForever);
    REQUIRE(call);
    CHECK_FALSE(call->wait(framegate::Timeout::zero())->has_value());
    {
        auto request = responder->take();
        REQUIRE(request->has_value());
        framegate::Request moved = std::move(**request);
        CHECK(moved.bytes().size() == 2);
        CHECK(moved.arrays()->empty());
        CHECK(moved.deadline_ns() == UINT64_MAX);
        REQUIRE(moved.reply(bytes_of("answer")));
        CHECK(moved.fail("twice").error().code() == framegate::ErrorCode::INVALID_ARGUMENT);
    }
    auto reply = call->wait();
    REQUIRE(reply->has_value());
    CHECK((*reply)->bytes().size() == 6);
    CHECK_FALSE((*reply)->timestamp_s().has_value());

    {
        auto forgotten = caller->loan(1);
        auto cancelled = caller->start(*forgotten, framegate::FrameInfo(1), framegate::kForever);
        REQUIRE(cancelled);
    }
    CHECK_FALSE(responder->take()->has_value());  // its destructor took it back
    auto again = caller->loan(1);
    auto failing = caller->start(*again, framegate::FrameInfo(1), framegate::kForever);
    {
        auto dropped = responder->take();
    }
    auto failed = failing->wait();
    REQUIRE_FALSE(failed);
    CHECK(failed.error().code() == framegate::ErrorCode::CALL_FAILED);

    auto publisher = framegate::Publisher::open(*topic);
    auto subscriber = framegate::Subscriber::open(*topic);
    CHECK(*subscriber->send_control(7, bytes_of("gain")) == 1);
    const std::vector<std::byte> too_long(FG_LETTER_BYTES_MAX + 1);
    CHECK_FALSE(subscriber->send_control(7, too_long));
    auto controls = publisher->controls();
    REQUIRE(controls->size() == 1);
    CHECK((*controls)[0].type == 7);
    CHECK((*controls)[0].bytes == 4);
}

TEST_CASE("topics are resized, reaped and collected") {
    const test::RuntimeDirectory directory;
    {
        framegate::TopicOptions options;
        options.slots = 4;
        options.slot_bytes = 64;
        auto topic = framegate::Topic::create("t", options);
        REQUIRE(topic);
        REQUIRE(topic->resize(6, 4096));
        CHECK(topic->resize(1).error().code() == framegate::ErrorCode::INVALID_ARGUMENT);
        CHECK(*topic->reap() == 0);
        auto publisher = framegate::Publisher::open(*topic);
        auto loan = publisher->loan(4096);
        REQUIRE(loan);
        REQUIRE(loan->publish(framegate::FrameInfo(4096)));
        auto nothing = framegate::gc(std::chrono::nanoseconds(0));
        REQUIRE(nothing);
        CHECK(nothing->topics.empty());
    }
    auto looked = framegate::gc(std::chrono::nanoseconds(0), true);
    REQUIRE(looked);
    REQUIRE(looked->topics.size() == 1);
    CHECK(looked->topics[0].first == "t");
    CHECK(looked->topics[0].second > 6 * 4096);
    auto young = framegate::gc();
    CHECK(young->topics.empty());
    auto collected = framegate::gc(std::chrono::nanoseconds(0));
    REQUIRE(collected);
    CHECK(collected->topics.size() == 1);
    CHECK(directory.files().empty());
    CHECK_FALSE(framegate::Topic::open("t"));
}
