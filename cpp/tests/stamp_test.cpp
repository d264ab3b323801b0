// Publication times against the clock that they stand for.
#include "stamp.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>

#include "support.hpp"

using framegate::impl::monotonic_ns;
using framegate::impl::Stamp;

namespace {

// What the head of stamp.hpp promises is some 30 ns; a machine that is paused in between is not
// wrong.
constexpr std::uint64_t kWrongNsMax = 1000;

void sleep_us(long microseconds) {
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

void check_against_clock(Stamp& stamp, int times) {
    std::uint64_t last = 0;
    int wrong = 0;
    int back = 0;
    for (int i = 0; i < times; ++i) {
        const std::uint64_t before = monotonic_ns();
        const std::uint64_t now = stamp.now_ns();
        const std::uint64_t after = monotonic_ns();
        wrong += now + kWrongNsMax < before || now > after + kWrongNsMax ? 1 : 0;
        back += now < last ? 1 : 0;
        last = now;
    }
    CHECK(wrong == 0);
    CHECK(back == 0);
}

}  // namespace

TEST_CASE("stamps are the clock's time and never go back") {
    Stamp stamp;
    check_against_clock(stamp, 300000);  // thousands of windows
}

TEST_CASE("stamps are right again after every pause") {
    Stamp stamp;
    for (const long pause_us : {1, 10, 15, 25, 100, 900, 1100, 5000, 20000}) {
        for (int i = 0; i < 3; ++i) {
            sleep_us(pause_us);
            check_against_clock(stamp, 200);
        }
    }
}

TEST_CASE("a frame has the time of its publication") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    for (int i = 0; i < 20000; ++i) {
        fg_frame frame{};
        const std::uint64_t before = monotonic_ns();
        REQUIRE(test::send(publisher, "x") == FG_OK);
        const std::uint64_t after = monotonic_ns();
        REQUIRE(fg_subscriber_take(subscriber.get(), 0, &frame) == FG_OK);
        REQUIRE(frame.published_ns + kWrongNsMax >= before);
        REQUIRE(frame.published_ns <= after + kWrongNsMax);
        REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    }
}
