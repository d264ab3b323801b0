// Time-outs: seconds in Python (None: for ever), nanoseconds in the library; long waits are cut
// into slices.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>

namespace framegate::py {

namespace nb = nanobind;

class Deadline {
  public:
    // Raises ValueError for a negative or undefined number.
    explicit Deadline(std::optional<double> seconds) {
        if (!seconds.has_value()) {
            return;
        }
        if (std::isnan(*seconds) || *seconds < 0) {
            throw nb::value_error(
                "timeout is a number of seconds, 0 (do not wait) or more, or None (wait for ever)");
        }
        immediate_ = *seconds == 0;
        constexpr double kForEver = 1e9;  // 30 years; more would overflow the clock
        if (*seconds < kForEver) {
            end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(*seconds));
        }
    }

    [[nodiscard]] bool is_immediate() const { return immediate_; }
    [[nodiscard]] bool is_over() const { return end_.has_value() && Clock::now() >= *end_; }

    // The next piece to wait, so short that Ctrl-C is served even if the signal interrupted another
    // thread.
    [[nodiscard]] std::int64_t slice_ns() const {
        constexpr std::int64_t kSliceNs = 250'000'000;
        if (!end_.has_value()) {
            return kSliceNs;
        }
        const auto left =
            std::chrono::duration_cast<std::chrono::nanoseconds>(*end_ - Clock::now()).count();
        return std::clamp<std::int64_t>(left, 1, kSliceNs);
    }

  private:
    using Clock = std::chrono::steady_clock;
    std::optional<Clock::time_point> end_;
    bool immediate_ = false;
};

}  // namespace framegate::py
