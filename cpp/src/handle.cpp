#include "handle.hpp"

#include "liveness.hpp"
#include "status.hpp"
#include "wake.hpp"

namespace framegate::impl {

Deadline::Deadline(std::int64_t timeout_ns) : end_ns_(~std::uint64_t{0}) {
    if (timeout_ns >= 0) {
        end_ns_ = monotonic_ns() +
                  static_cast<std::uint64_t>(timeout_ns);  // 2^64 ns are 584 years: no overflow
    }
}

std::int64_t Deadline::slice_ns() const {
    if (end_ns_ == ~std::uint64_t{0}) {
        return kSweepIntervalNs;
    }
    const std::uint64_t now = monotonic_ns();
    if (now >= end_ns_) {
        return 0;
    }
    const std::uint64_t rest = end_ns_ - now;
    return rest < static_cast<std::uint64_t>(kSweepIntervalNs) ? static_cast<std::int64_t>(rest)
                                                               : kSweepIntervalNs;
}

fg_status check_participant_name(const char* name, std::uint32_t name_bytes) {
    if (name_bytes > FG_PARTICIPANT_NAME_BYTES_MAX || (name == nullptr && name_bytes != 0)) {
        return fail(FG_INVALID_ARGUMENT,
                    "the participant name has %u bytes (at most %d) or is NULL", name_bytes,
                    FG_PARTICIPANT_NAME_BYTES_MAX);
    }
    return FG_OK;
}

}  // namespace framegate::impl
