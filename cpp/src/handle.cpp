// A handle copied by fork() is never touched: its lock may be held by a thread that the child does
// not have. A poisoned one stores nothing in the segment any more, but ends like any other.
#include "handle.hpp"

#include <cstdlib>
#include <ctime>
#include <new>

#include "liveness.hpp"
#include "os.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "wake.hpp"

namespace framegate::impl {
namespace {

std::uint64_t unix_ns() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000000000U +
           static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

fg_status Handle::begin(Topic& topic, const RowInfo& info) {
    topic_ = &topic;
    Generation* generation = nullptr;
    fg_status status = attach(topic, info, kind_.access, &self_, &generation);
    if (status != FG_OK) {
        kind_.destroy(*this);
        return status;
    }
    status = sit_down(*generation);
    if (status != FG_OK) {
        detach(topic, self_);
        kind_.destroy(*this);
        return status;
    }
    retain_topic(topic);
    return FG_OK;
}

fg_status Handle::sit_down(Generation& generation) {
    auto* records =
        static_cast<unsigned char*>(std::calloc(generation.identity_.slots, kind_.record_bytes));
    if (records == nullptr) {
        leave_generation(*topic_, generation);
        return fail(FG_OUT_OF_MEMORY, "no memory for a %s of topic \"%s\"", kind_.noun,
                    topic_->name_);
    }
    seat_.generation = &generation;
    seat_.view = generation.view_;
    seat_.records = records;
    seat_.first_sequence = generation.first_sequence();
    seat_.held = 0;
    show_generation();
    return FG_OK;
}

void Handle::free_seat(Seat& seat) {
    std::free(seat.records);
    leave_generation(*topic_, *seat.generation);
}

void Handle::show_generation() {
    const Generation* oldest = seat_.generation;
    for (const Seat* seat = seat_.older; seat != nullptr; seat = seat->older) {
        oldest = seat->generation;
    }
    // release: pairs with whoever retires generations; everything we had before is ours or done.
    topic_->view_.participants[self_.index].generation.store(oldest->identity_.generation,
                                                             std::memory_order_release);
}

fg_status Handle::move_on(bool even_if_empty) {
    Generation* next = nullptr;
    if (const fg_status status =
            enter_next(*topic_, *seat_.generation, kind_.access, even_if_empty, &next);
        status != FG_OK) {
        return status;
    }
    Seat left = seat_;
    left.held = 0;
    for (std::uint32_t slot = 0; slot < geometry().slots; ++slot) {
        left.held += kind_.is_held(left.records + slot * kind_.record_bytes) ? 1 : 0;
    }
    if (kind_.held_besides != nullptr) {
        left.held += kind_.held_besides(*this);
    }
    Seat* kept = nullptr;
    if (left.held != 0) {
        void* memory = std::malloc(sizeof(Seat));
        if (memory == nullptr) {
            leave_generation(*topic_, *next);
            return fail(FG_OUT_OF_MEMORY, "no memory for a %s of topic \"%s\"", kind_.noun,
                        topic_->name_);
        }
        kept = new (memory) Seat(left);
        seat_.older = kept;
    }
    if (const fg_status status = sit_down(*next); status != FG_OK) {
        seat_ = left;
        std::free(kept);
        return status;
    }
    if (kept == nullptr) {
        free_seat(left);
    }
    retire_generations(*topic_);
    return FG_OK;
}

Handle::Seat* Handle::older_seat_of_sequence(std::uint64_t sequence) {
    Seat* seat = seat_.older;
    while (seat != nullptr && sequence < seat->first_sequence) {
        seat = seat->older;
    }
    return seat;
}

Handle::Seat* Handle::older_seat_of_generation(std::uint32_t generation) {
    Seat* seat = seat_.older;
    while (seat != nullptr && seat->generation->identity_.generation != generation) {
        seat = seat->older;
    }
    return seat;
}

fg_status Handle::sit_in_older(Generation& generation, Seat** out) {
    // Newest first: behind the last one that is not older.
    Seat* newer = &seat_;
    while (newer->older != nullptr &&
           newer->older->generation->identity_.generation >= generation.identity_.generation) {
        newer = newer->older;
    }
    if (newer->generation == &generation) {
        leave_generation(*topic_, generation);  // the seat has entered it, too
        *out = newer;
        return FG_OK;
    }
    void* memory = std::malloc(sizeof(Seat));
    void* records = std::calloc(generation.identity_.slots, kind_.record_bytes);
    if (memory == nullptr || records == nullptr) {
        std::free(memory);
        std::free(records);
        leave_generation(*topic_, generation);
        return fail(FG_OUT_OF_MEMORY, "no memory for a %s of topic \"%s\"", kind_.noun,
                    topic_->name_);
    }
    auto* seat = new (memory) Seat;
    seat->generation = &generation;
    seat->view = generation.view_;
    seat->records = static_cast<unsigned char*>(records);
    seat->first_sequence = generation.first_sequence();
    seat->older = newer->older;
    newer->older = seat;
    show_generation();
    *out = seat;
    return FG_OK;
}

void Handle::let_go_of_one(Seat* older) {
    --older->held;
    leave_if_unused(older);
}

void Handle::leave_if_unused(Seat* older) {
    if (older->held != 0) {
        return;
    }
    Seat* newer = &seat_;
    while (newer->older != older) {
        newer = newer->older;
    }
    newer->older = older->older;
    free_seat(*older);
    std::free(older);
    if (is_alive()) {
        show_generation();
        retire_generations(*topic_);
    }
}

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
        check_descriptors(*topic_);
        if (kind_.before_detach != nullptr) {
            kind_.before_detach(*this);
        }
        detach(*topic_, self_);
        free_seat(seat_);
        seat_ = Seat{};
        seat_.view = topic_->view_;
        seat_.generation = &topic_->first_;  // calls that come late see a view, then FG_CLOSED
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
