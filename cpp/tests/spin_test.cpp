// Looking instead of sleeping: while frames come fast, and for one that was announced. One thread does it
// all: what the publisher does happens at the step before the subscriber's sleep, so the
// sleep ends at once. Measured is CPU time, which other processes do not take.
#include <cstdint>
#include <ctime>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "cadence.hpp"
#include "step_hooks.hpp"
#include "support.hpp"
#include "wake.hpp"

namespace {

using framegate::impl::Cadence;
using framegate::impl::monotonic_ns;
using framegate::impl::Step;

std::uint64_t cpu_ns() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000000000U +
           static_cast<std::uint64_t>(now.tv_nsec);
}

struct Pair {
    test::RuntimeDirectory directory;
    test::Topic topic = test::create("t", test::options(4, 1 << 20));
    test::Publisher publisher = test::publisher(topic);
    test::Subscriber subscriber = test::subscriber(topic);

    // Takes; `when_asleep` happens instead of the sleep. CPU time until then.
    std::uint64_t take(const std::function<void()>& when_asleep, fg_status expected = FG_OK,
                       std::int64_t timeout_ns = 60'000'000'000) const {
        std::uint64_t asleep = 0;
        const test::At at(Step::kWaiting, [&] {
            asleep = cpu_ns();
            when_asleep();
        });
        fg_frame frame{};
        const std::uint64_t began = cpu_ns();
        REQUIRE(fg_subscriber_take(subscriber.get(), timeout_ns, &frame) == expected);
        REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
        return asleep - began;
    }
    void send() const { REQUIRE(test::send(publisher, "x") == FG_OK); }
};

constexpr std::uint64_t kSpinNs = Cadence::kLookNs * 9 / 10;
constexpr std::uint64_t kAnnouncedNs = 180000;

// At the step after the look, before the next sleep; called while the first sleep lasts.
void at_the_second_sleep(std::function<void()> action) {
    framegate_test_step = [](std::uint32_t reached) {
        if (reached == static_cast<std::uint32_t>(Step::kWaiting) && test::impl::awaited_action) {
            std::exchange(test::impl::awaited_action, {})();
        }
    };
    test::impl::awaited_action = std::move(action);
}

// CPU time that was used for something else (a cold cache, a sanitizer's own work) looks like spinning, and
// never like sleeping. So what holds in one try of some holds; what spins when it should not does in each.
bool in_some_try(const std::function<bool()>& holds) {
    for (int i = 0; i < 20; ++i) {
        if (holds()) {
            return true;
        }
    }
    return false;
}

}  // namespace

TEST_CASE("spins only while frames come fast, and a miss ends it") {
    const Pair pair;
    CHECK(in_some_try([&] {
        int spins = 0;
        int in_a_row = 0;
        int longest = 0;
        for (int i = 0; i < 40; ++i) {
            const bool spun = pair.take([&] { pair.send(); }) >= kSpinNs;
            spins += spun ? 1 : 0;
            in_a_row = spun ? in_a_row + 1 : 0;
            longest = in_a_row > longest ? in_a_row : longest;
        }
        // Four quick waits, then one that spins in vain, as the frame comes only afterwards.
        return spins >= 1 && spins <= 8 && longest == 1;
    }));
}

TEST_CASE("a look is worth it after so many fast waits, until one is not") {
    Cadence cadence;
    const auto be_fast = [&](std::uint32_t times) {
        for (std::uint32_t i = 0; i < times; ++i) {
            CHECK(cadence.look_ns() == 0);
            cadence.came_after(Cadence::kLookNs, false);
        }
    };
    be_fast(Cadence::kFastWaits);
    CHECK(cadence.look_ns() == Cadence::kLookNs);
    cadence.came_after(Cadence::kLookNs, false);
    cadence.came_after(Cadence::kLookNs + Cadence::kWakeNs, true);
    CHECK(cadence.look_ns() == Cadence::kLookNs);
    SUBCASE("it is not there yet") { cadence.did_not_come(); }
    SUBCASE("it came a little later") { cadence.came_after(Cadence::kLookNs + 1, false); }
    SUBCASE("it woke a little later") {
        cadence.came_after(Cadence::kLookNs + Cadence::kWakeNs + 1, true);
    }
    be_fast(Cadence::kFastWaits);
    CHECK(cadence.look_ns() == Cadence::kLookNs);
}

TEST_CASE("every frame is taken, slept for or looked for") {
    constexpr int kFrames = 600;
    const Pair pair;
    const test::Subscriber reliable = test::subscriber(pair.topic, FG_POLICY_RELIABLE);
    std::thread publisher([&] {
        for (int i = 0; i < kFrames; ++i) {
            const timespec pause{0, i < kFrames / 2 ? 250000 : 0};
            if (pause.tv_nsec != 0) {
                nanosleep(&pause, nullptr);
            }
            CHECK(test::send(pair.publisher, "x", 60'000'000'000) == FG_OK);
        }
    });
    for (std::uint64_t i = 1; i <= kFrames; ++i) {
        fg_frame frame{};
        REQUIRE(fg_subscriber_take(reliable.get(), 60'000'000'000, &frame) == FG_OK);
        CHECK(frame.sequence == i);
        REQUIRE(fg_subscriber_release(reliable.get(), &frame) == FG_OK);
    }
    publisher.join();
}

TEST_CASE("does not spin while frames come slowly") {
    const Pair pair;
    CHECK(in_some_try([&] {
        bool spun = false;
        for (int i = 0; i < 12; ++i) {
            spun |= pair.take([&] {
                const timespec pause{0, 2000000};
                nanosleep(&pause, nullptr);
                pair.send();
            }) >= kSpinNs;
        }
        return !spun;
    }));
}

TEST_CASE("an announced frame is looked for before the next sleep, once") {
    const Pair pair;
    // On the clock: the look ends by it, however little of the CPU it got.
    std::uint64_t announced = 0;
    std::uint64_t asleep_again = 0;
    pair.take([&] {
        at_the_second_sleep([&] {
            asleep_again = monotonic_ns();
            pair.send();
        });
        announced = monotonic_ns();
        REQUIRE(fg_publisher_announce(pair.publisher.get()) == FG_OK);
    });
    CHECK(asleep_again - announced >= kAnnouncedNs);
}

TEST_CASE("a wake without an announced frame leads back to sleep at once") {
    const Pair pair;
    pair.send();  // and what was announced before it is old
    REQUIRE(fg_publisher_announce(pair.publisher.get()) == FG_OK);
    pair.take([] {});
    CHECK(in_some_try([&] {
        std::uint64_t kicked = 0;
        std::uint64_t asleep_again = 0;
        pair.take([&] {
            at_the_second_sleep([&] {
                asleep_again = cpu_ns();
                pair.send();
            });
            kicked = cpu_ns();
            framegate::impl::kick(*reinterpret_cast<framegate::impl::Topic*>(pair.topic.get()));
        });
        return asleep_again - kicked < kAnnouncedNs;
    }));
}

TEST_CASE("large frames are announced while they are copied, small ones are not") {
    const Pair pair;
    const auto shared = [&] { return test::view_of(pair.topic).shared; };
    const std::vector<char> payload(1 << 20);
    const auto send = [&](std::uint64_t bytes) {
        const fg_publish_info info = test::bytes_info(bytes);
        REQUIRE(fg_publisher_send(pair.publisher.get(), payload.data(), &info, 0, nullptr) ==
                FG_OK);
    };
    pair.take([&] { send(FG_ANNOUNCE_BYTES_MIN - 1); });
    CHECK(shared()->announced.load() == 0);
    pair.take([&] { send(FG_ANNOUNCE_BYTES_MIN); });
    CHECK(shared()->announced.load() == 2);
    pair.take([&] { send(payload.size()); });
    CHECK(shared()->announced.load() == 3);
    send(payload.size());  // nobody sleeps
    CHECK(shared()->announced.load() == 3);
}
