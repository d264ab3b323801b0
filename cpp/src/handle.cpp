// A handle copied by fork() is never touched: its lock may be held by a thread that the child does
// not have. A poisoned one stores nothing in the segment any more, but ends like any other.
#include "handle.hpp"

#include <unistd.h>

#include <ctime>

#include "liveness.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "wake.hpp"

namespace framegate::impl {
namespace {

// relaxed: a flag that never goes back; fork and the sweep that sets it order everything else.
std::uint32_t condition_of(const Topic& topic) {
    return topic.fds_.condition.load(std::memory_order_relaxed);
}

std::uint64_t unix_ns() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000000000U +
           static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

fg_status Handle::begin(Topic& topic, const RowInfo& info) {
    const fg_status status = attach(topic, info, &self_);
    if (status == FG_OK) {
        retain_topic(topic);
        topic_ = &topic;
    }
    return status;
}

bool Handle::is_alive() const { return condition_of(*topic_) == kAlive; }
bool Handle::is_forked() const { return condition_of(*topic_) == kForked; }

fg_status Handle::say_closed() const {
    return fail(FG_CLOSED, "the %s of topic \"%s\" was closed", kind_.noun, topic_->name_);
}

fg_status Handle::begin_sleep() {
    const Locked guard(lock_);
    if (closed_) {
        return say_closed();
    }
    if (sleepers_++ == 0) {
        set_mark(view(), self_, kind_.sleep_mark);
    }
    return FG_OK;
}

void Handle::end_sleep() {
    const Call call(*this);
    if (--sleepers_ == 0 && is_alive()) {
        clear_mark(view(), self_, kind_.sleep_mark);
    }
}

void Handle::retain() {
    if (is_forked()) {
        return;
    }
    const Locked guard(lock_);
    ++references_;
}

void Handle::drop_reference() {
    if (is_forked()) {
        return;
    }
    const Call call(*this);
    --references_;
}

void Handle::close() {
    if (is_forked()) {
        return;
    }
    const Call call(*this);
    closed_ = true;
    --references_;
    if (sleepers_ != 0 && is_alive()) {
        if (kind_.sleep_mark == Mark::kSpaceWaiter) {
            wake_space(*topic_);
        } else {
            wake_sleepers(*topic_);
        }
    }
}

void Handle::finish_and_unlock() {
    if (!detached_ && live_ == 0 && sleepers_ == 0) {
        detached_ = true;
        if (kind_.before_detach != nullptr) {
            kind_.before_detach(*this);
        }
        detach(*topic_, self_);
    }
    Topic* topic = detached_ && references_ == 0 ? topic_ : nullptr;
    lock_.unlock();
    if (topic != nullptr) {
        kind_.destroy(*this);
        release_topic(topic);
    }
}

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
    if (FG_MUTATED(kMutateNoRecheck)) {
        return static_cast<std::int64_t>(rest);
    }
    return rest < static_cast<std::uint64_t>(kSweepIntervalNs) ? static_cast<std::int64_t>(rest)
                                                               : kSweepIntervalNs;
}

fg_status fill_row_info(std::uint32_t role, std::uint32_t policy, const char* name,
                        std::uint32_t name_bytes, RowInfo* info) {
    if (name_bytes > FG_PARTICIPANT_NAME_BYTES_MAX || (name == nullptr && name_bytes != 0)) {
        return fail(FG_INVALID_ARGUMENT,
                    "the participant name has %u bytes (at most %d) or is NULL", name_bytes,
                    FG_PARTICIPANT_NAME_BYTES_MAX);
    }
    info->role = role;
    info->policy = policy;
    info->pid = static_cast<std::uint32_t>(getpid());
    info->attached_unix_ns = unix_ns();
    info->name = name;
    info->name_bytes = name_bytes;
    return FG_OK;
}

}  // namespace framegate::impl
