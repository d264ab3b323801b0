#include "stamp.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "os.hpp"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace framegate::impl {

std::uint64_t monotonic_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000000000U +
           static_cast<std::uint64_t>(now.tv_nsec);
}

#if defined(__x86_64__)
namespace {

// Reading the clock takes some 60 ticks; more than this is an interrupt or another host.
constexpr std::uint64_t kReadTicksMax = 500;
constexpr std::uint64_t kRateNsMin = 1000000;
constexpr std::uint64_t kRateNsMax =
    1000000000;  // longer, and the shift in measure() would overflow

bool clocksource_is_tsc() {
    const int error = errno;
    const int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
                        O_RDONLY | O_CLOEXEC);
    char name[4] = {};
    const bool is_tsc = fd >= 0 && read(fd, name, sizeof name) == sizeof name &&
                        std::memcmp(name, "tsc\n", sizeof name) == 0;
    if (fd >= 0) {
        close(fd);
    }
    errno = error;
    return is_tsc;
}

// One rate in all states of the CPU.
bool counter_is_invariant() {
    unsigned int eax = 0;
    unsigned int ebx = 0;
    unsigned int ecx = 0;
    unsigned int edx = 0;
    return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) != 0 && (edx >> 8 & 1) != 0;
}

}  // namespace

bool Stamp::counter_is_the_clock() {
    enum : int { kUnknown, kNo, kYes };
    static constinit std::atomic<int> answer{kUnknown};
    // relaxed: threads that ask at the same time find the same.
    int known = answer.load(std::memory_order_relaxed);
    if (known == kUnknown) {
        known = counter_is_invariant() && clocksource_is_tsc() ? kYes : kNo;
        answer.store(known, std::memory_order_relaxed);
    }
    return known == kYes;
}

std::uint64_t Stamp::start_again() {
    const std::uint64_t before = __builtin_ia32_rdtsc();
    const std::uint64_t ns = monotonic_ns();
    const std::uint64_t ticks = __builtin_ia32_rdtsc();
    if (ticks - before < kReadTicksMax && counter_is_the_clock()) {
        measure(ticks, ns);
        start_ticks_ = ticks;
        start_ns_ = ns;
    }
    last_ns_ = ns > last_ns_ ? ns : last_ns_;
    return last_ns_;
}

void Stamp::measure(std::uint64_t ticks, std::uint64_t ns) {
    const std::uint64_t passed_ns = ns - rate_ns_;
    const std::uint64_t passed_ticks = ticks - rate_ticks_;
    if (passed_ns < kRateNsMin) {
        return;
    }
    // A counter that went back, or at less than 1 GHz, has no rate.
    if (passed_ns < kRateNsMax && passed_ticks >= passed_ns) {
        scale_ = (passed_ns << 32) / passed_ticks;
        window_ticks_ = scale_ != 0 ? (kWindowNs << 32) / scale_ : 0;
    } else if (passed_ns < kRateNsMax) {
        window_ticks_ = 0;
    }
    rate_ticks_ = ticks;
    rate_ns_ = ns;
}
#else
bool Stamp::counter_is_the_clock() { return false; }
std::uint64_t Stamp::start_again() { return monotonic_ns(); }
#endif

}  // namespace framegate::impl
