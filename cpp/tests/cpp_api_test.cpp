// The RAII headers over the C ABI.
#include <utility>

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
