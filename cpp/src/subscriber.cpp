// The holder bit in the segment is one per participant and slot, so threads that share a handle
// would take it from each other: the undo of a failed take on one thread could clear the bit of a
// lease that another thread just got. Hence the lock around every take and release, and a private
// count per slot; the bit is cleared when the count gets to zero.
#include "subscriber.hpp"

#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <new>

#include "checksum.hpp"
#include "header.hpp"
#include "liveness.hpp"
#include "mail.hpp"
#include "os.hpp"
#include "slots_hot.hpp"
#include "status.hpp"
#include "steps.hpp"

namespace framegate::impl {

using hot::kRelaxed;

namespace {

// Each retry needs a publisher that went once around all slots meanwhile, or a corrupt segment.
constexpr int kTakeRounds = 64;
// So often a wait says that there is a newer frame than the last one, and no take gets it, although
// head stays where it is: only in a corrupt segment.
constexpr int kTakesOfOneHead = 64;
// How often a take yields to a publisher that was interrupted between TRY and CLAIM, before it
// sweeps and gives up.
constexpr int kBusyYields = 100;
constexpr std::uint32_t kSpinNsMax = 1000000;
// How long a thread that was woken for an announced frame looks for it: the copy of its last part,
// on a machine ten times slower.
constexpr std::uint64_t kAnnouncedNs = 200000;

fg_status check_group(const fg_subscriber_options& options) {
    if (options.policy != FG_POLICY_GROUP) {
        return options.group_bytes == 0
                   ? static_cast<fg_status>(FG_OK)
                   : fail(FG_INVALID_ARGUMENT, "a group is given, but the policy is not group");
    }
    bool good = options.group != nullptr && options.group_bytes != 0 &&
                options.group_bytes <= FG_GROUP_NAME_BYTES_MAX;
    for (std::uint32_t i = 0; good && i < options.group_bytes; ++i) {
        const char c = options.group[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-' || c == '.';
    }
    return good ? static_cast<fg_status>(FG_OK)
                : fail(FG_INVALID_ARGUMENT,
                       "the name of a group is 1 to %d letters, digits, '_', '-' or '.'",
                       FG_GROUP_NAME_BYTES_MAX);
}

fg_status check_options(const fg_subscriber_options& options) {
    if (options.policy < FG_POLICY_LATEST || options.policy > FG_POLICY_GROUP) {
        return fail(FG_INVALID_ARGUMENT, "unknown policy %u", options.policy);
    }
    if (const fg_status status = check_group(options); status != FG_OK) {
        return status;
    }
    if (options.start > FG_START_NEWEST) {
        return fail(FG_INVALID_ARGUMENT, "unknown start %u", options.start);
    }
    if (options.spin_ns > kSpinNsMax) {
        return fail(FG_INVALID_ARGUMENT, "spin_ns is %u, at most %u", options.spin_ns, kSpinNsMax);
    }
    return FG_OK;
}

}  // namespace

constinit const Handle::Kind Subscriber::kKind = {
    .noun = "subscriber",
    .sleep_mark = Mark::kWaiter,
    .access = Access::kRead,
    .record_bytes = sizeof(Lease),
    .is_held = Subscriber::is_leased,
    .before_detach = Subscriber::close_event_fd,
    .destroy = Subscriber::destroy,
};

fg_status Subscriber::open(Topic& topic, const fg_subscriber_options& options, Subscriber** out) {
    if (const fg_status status = check_usable(topic); status != FG_OK) {
        return status;
    }
    if (const fg_status status = check_options(options); status != FG_OK) {
        return status;
    }
    RowInfo info;
    if (const fg_status status = fill_row_info(FG_ROLE_SUBSCRIBER, options.policy, options.name,
                                               options.name_bytes, &info);
        status != FG_OK) {
        return status;
    }
    info.newest = options.start == FG_START_NEWEST ||
                  (options.start == FG_START_DEFAULT && options.policy == FG_POLICY_LATEST);
    info.group = options.group;
    info.group_bytes = options.group_bytes;
    Identity newest{};
    if (const fg_status status = newest_identity(topic, &newest); status != FG_OK) {
        return status;
    }
    if (options.leases_max > newest.slots - newest.keep) {
        return fail(FG_INVALID_ARGUMENT,
                    "leases_max is %u, it must be 1 to slots - keep = %u (0: half of the slots)",
                    options.leases_max, newest.slots - newest.keep);
    }
    void* memory = nullptr;
    if (posix_memalign(&memory, kCacheLine, sizeof(Subscriber)) != 0) {
        return fail(FG_OUT_OF_MEMORY, "no memory for a subscriber of topic \"%s\"", topic.name_);
    }
    auto* subscriber = new (memory) Subscriber;
    info.newest = options.start == FG_START_NEWEST ||
                  (options.start == FG_START_DEFAULT && options.policy == FG_POLICY_LATEST);
    if (const fg_status status = subscriber->begin(topic, info); status != FG_OK) {
        return status;
    }
    subscriber->policy_ = options.policy;
    subscriber->spin_ns_ = options.spin_ns;
    subscriber->leases_wanted_ = options.leases_max;
    subscriber->adapt_quota();
    if (options.policy != FG_POLICY_LATEST) {
        set_mark(topic.view_, subscriber->self_, Mark::kHistory);
    }
    const std::uint64_t head = help_head(subscriber->view());
    subscriber->start(info.newest, head);
    *out = subscriber;
    return FG_OK;
}

void Subscriber::start(bool newest, std::uint64_t head) {
    Word& cursor = topic_->view_.participants[self_.index].cursor;
    switch (policy_) {
        case FG_POLICY_RELIABLE:  // attaching made the promise
            position_ = cursor.load(kRelaxed);
            return;
        case FG_POLICY_GROUP:
            group_ = group_of(view(), self_.index);
            position_ = load_group_cursor(view(), group_);
            look_again();
            break;
        default:
            position_ = promise_start(head, newest);
    }
    cursor.store(position_, kRelaxed);
}

// A resize may have fewer slots than were asked for as leases.
void Subscriber::adapt_quota() {
    const std::uint32_t most = geometry().slots - geometry().keep;
    const std::uint32_t wanted = leases_wanted_ != 0 ? leases_wanted_ : geometry().slots / 2;
    leases_max_ = wanted < most ? wanted : most;
}

// ---- leases

bool Subscriber::holds(void* context, std::uint32_t slot) {
    return lease_at(static_cast<const Subscriber*>(context)->seat_, slot).count != 0;
}

bool Subscriber::holds_in_seat(void* seat, std::uint32_t slot) {
    return lease_at(*static_cast<const Seat*>(seat), slot).count != 0;
}

[[gnu::always_inline]] inline Handle::Seat* Subscriber::seat_of(const fg_frame& frame) {
    Seat* seat =
        frame.sequence >= seat_.first_sequence ? &seat_ : older_seat_of_sequence(frame.sequence);
    if (seat == nullptr || seat->records == nullptr ||
        frame.slot >= seat->generation->view_.slot_count) {
        return nullptr;
    }
    const Lease& lease = lease_at(*seat, frame.slot);
    return lease.count != 0 && lease.sequence == frame.sequence ? seat : nullptr;
}

[[gnu::always_inline]] inline Subscriber::Attempt Subscriber::lease(std::uint64_t sequence,
                                                                    fg_frame* out) {
    std::uint32_t slot = 0;
    if (slots_held_ >= leases_max_ &&
        !(find_frame(view(), sequence, &slot) && lease_at(seat_, slot).count != 0 &&
          lease_at(seat_, slot).sequence == sequence)) {
        return Attempt::kQuota;
    }
    const TakeAttempt attempt = hot::take(view(), self_, sequence, holds, this);
    if (attempt.space) {
        wake_space(*topic_);
    }
    if (attempt.result != TakeResult::kOk) {
        return attempt.result == TakeResult::kBusy ? Attempt::kBusy : Attempt::kGone;
    }
    return adopt(seat_, attempt.slot, sequence, out);
}

// Records a lease that was just taken.
[[gnu::always_inline]] inline Subscriber::Attempt Subscriber::adopt(Seat& seat, std::uint32_t slot,
                                                                    std::uint64_t sequence,
                                                                    fg_frame* out) {
    Lease& lease = lease_at(seat, slot);
    lease.sequence = sequence;
    if (lease.count++ == 0) {
        ++slots_held_;
        seat.held += &seat != &seat_ ? 1 : 0;
        view().participants[self_.index].leases.store(slots_held_,
                                                      kRelaxed);  // relaxed: for inspectors
    }
    ++live_;
    const Generation& generation = *seat.generation;
    if (!read_header(generation, generation.data_read_, slot, sequence, out)) {
        drop_lease(seat, slot, sequence);
        return Attempt::kCorrupt;
    }
    return Attempt::kOk;
}

// True if the frame was protected to the end.
[[gnu::always_inline]] inline bool Subscriber::drop_lease(Seat& seat, std::uint32_t slot,
                                                          std::uint64_t sequence) {
    const SegmentView& view = seat.generation->view_;
    --live_;
    if (--lease_at(seat, slot).count != 0) {
        return still_frame(view, slot, sequence);
    }
    --slots_held_;
    view.participants[self_.index].leases.store(slots_held_, kRelaxed);
    const bool intact = hot::release(view, self_, slot, sequence);
    wake_space(*topic_);
    if (&seat != &seat_) {
        let_go_of_one(&seat);
    }
    return intact;
}

// ---- taking

// FG_MOVED comes without a text: it never leaves the subscriber.
fg_status Subscriber::nothing_new(std::uint64_t head) const {
    return hot::sealed_after(view(), head) ? FG_MOVED : FG_EMPTY;
}

fg_status Subscriber::over_quota() const {
    return fail(
        FG_LEASE_QUOTA,
        "topic \"%s\": this subscriber holds %u frames, as many as it may; release one first",
        topic_->name_, slots_held_);
}

fg_status Subscriber::nonsense(std::uint64_t sequence) const {
    return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": the header of frame %" PRIu64 " makes no sense",
                topic_->name_, sequence);
}

[[gnu::always_inline]] inline void Subscriber::moved_to(std::uint64_t position,
                                                        std::uint64_t lost) {
    position_ = position;
    lost_ += lost;
    lost_before_next_ += lost;
    ParticipantRow& row = view().participants[self_.index];
    row.lost.store(lost_, kRelaxed);
    if (policy_ != FG_POLICY_RELIABLE) {
        row.cursor.store(position_, kRelaxed);  // relaxed: for inspectors
        return;
    }
    // Only now that the frame is leased. seq_cst: the holder bit before it for publishers that obey
    // the cursor, and the cursor before our look for sleeping loans.
    row.cursor.store(position_, std::memory_order_seq_cst);
    FG_STEP(kReliableMoved);
    if (lost != 0) {  // jumped over by take_latest: they are nobody's now, without a release
        wake_space(*topic_);
    }
}

[[gnu::always_inline]] inline void Subscriber::delivered(fg_frame* out) {
    out->lost = lost_before_next_;
    lost_before_next_ = 0;
    view().participants[self_.index].received.store(++received_,
                                                    kRelaxed);  // relaxed: for inspectors
}

[[gnu::always_inline]] inline fg_status Subscriber::take_newest(Mode mode, bool busy_is_gone,
                                                                fg_frame* out, bool* busy) {
    for (int round = 0; round < kTakeRounds; ++round) {
        const std::uint64_t head = hot::load_head(view());
        if (head == 0 || (mode == Mode::kLatest && head <= position_)) {
            return nothing_new(head);
        }
        switch (lease(head, out)) {
            case Attempt::kOk:
                if (mode == Mode::kLatest) {
                    moved_to(head, head - position_ - 1);
                    delivered(out);
                }
                return FG_OK;
            case Attempt::kQuota:
                return over_quota();
            case Attempt::kBusy:
                if (!busy_is_gone) {
                    *busy = true;
                    return FG_EMPTY;
                }
                break;
            case Attempt::kCorrupt:
                return nonsense(head);
            case Attempt::kGone:
                break;  // newer frames went past: head moved
        }
    }
    return FG_EMPTY;
}

fg_status Subscriber::take_next(bool busy_is_gone, fg_frame* out, bool* busy) {
    for (int round = 0; round < kTakeRounds; ++round) {
        const std::uint64_t head = hot::load_head(view());
        if (head <= position_) {
            return nothing_new(head);
        }
        if (head > FG_SEQUENCE_MAX) {  // else the loop below would never end
            return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": its head is not a sequence",
                        topic_->name_);
        }
        const std::uint64_t ring_length = std::uint64_t{view().ring_mask} + 1;
        std::uint64_t next = position_ + 1;
        if (head - position_ > ring_length) {
            next = head - ring_length + 1;  // the ring forgot the others, and with it their slots
        }
        for (; next <= head; ++next) {
            const std::uint64_t skipped = next - position_ - 1;
            const Attempt attempt = lease(next, out);
            if (attempt == Attempt::kOk) {
                moved_to(next, skipped);
                delivered(out);
                return FG_OK;
            }
            if (attempt == Attempt::kQuota) {
                moved_to(next - 1, skipped);
                return over_quota();
            }
            if (attempt == Attempt::kBusy && !busy_is_gone) {
                moved_to(next - 1, skipped);
                *busy = true;
                return FG_EMPTY;
            }
            if (attempt == Attempt::kCorrupt) {
                moved_to(next, skipped + 1);
                return nonsense(next);
            }
        }
        moved_to(head, head - position_);  // all gone, so head moved; look again
    }
    return FG_EMPTY;
}

fg_status Subscriber::take_of_group(bool busy_is_gone, fg_frame* out, bool* busy) {
    const std::uint64_t head = hot::load_head(view());
    if (!has_unseen(head)) {
        return nothing_new(head);
    }
    if (slots_held_ >= leases_max_) {
        return over_quota();
    }
    const std::uint64_t redeliveries = load_redeliveries(view(), group_);
    GroupTake taken{};
    Seat* seat = &seat_;
    if (redeliveries != redeliveries_seen_) {
        if (const fg_status status = take_given_back(&taken, &seat); status != FG_OK) {
            return status;
        }
        // Busy: its publisher is about to put it back. If that is dead or stopped, the bounded
        // re-check looks again.
        if (taken.result == TakeResult::kGone ||
            (taken.result == TakeResult::kBusy && busy_is_gone)) {
            redeliveries_seen_ = redeliveries;
        }
    }
    bool space = taken.space;
    if (taken.result == TakeResult::kGone || (taken.result == TakeResult::kBusy && busy_is_gone)) {
        taken = take_shared(view(), self_, group_, holds, this);
        space = space || taken.space;
    }
    if (space) {
        wake_space(*topic_);
    }
    if (taken.lost != 0) {
        moved_to(position_, taken.lost);
    }
    switch (taken.result) {
        case TakeResult::kOk:
            break;
        case TakeResult::kBusy:
            *busy = !busy_is_gone;
            return FG_EMPTY;
        case TakeResult::kGone:
            return nothing_new(head);
    }
    if (adopt(*seat, taken.slot, taken.sequence, out) != Attempt::kOk) {
        return nonsense(taken.sequence);
    }
    moved_to(taken.sequence, 0);
    delivered(out);
    out->redelivered = taken.redelivered ? 1 : 0;
    return FG_OK;
}

// Is there, beyond what this subscriber took or looked at, something to take? For a member also
// what others gave back. seq_cst inside: the caller showed its bit (or `armed`) before.
bool Subscriber::has_unseen(std::uint64_t head) {
    if (!is_member()) {
        return head > position_;
    }
    if (head > load_group_cursor(view(), group_)) {
        return true;
    }
    const std::uint64_t redeliveries = load_redeliveries(view(), group_);
    if (redeliveries == redeliveries_seen_) {
        return false;
    }
    bool found = any_unfinished(view(), group_);
    if (found || enter_unfinished(*topic_, *seat_.generation, Access::kNone, group_, &found,
                                  nullptr) != FG_OK) {
        return true;  // or the take says what is wrong
    }
    if (found) {
        return true;
    }
    redeliveries_seen_ = redeliveries;
    return false;
}

// Given back to the group or left by the dead; in older generations first, because they go when
// nothing is left in them.
fg_status Subscriber::take_given_back(GroupTake* taken, Seat** seat) {
    bool found = false;
    Generation* older = nullptr;
    fg_status status =
        enter_unfinished(*topic_, *seat_.generation, Access::kRead, group_, &found, &older);
    if (status == FG_OK && found) {
        status = sit_in_older(*older, seat);
    }
    if (status != FG_OK) {
        return status;
    }
    bool is_busy = false;
    if (found) {
        FG_STEP(kGroupReturned);
        if (confirm_generation(*topic_, *older)) {
            *taken = take_unfinished(older->view_, self_, group_, holds_in_seat, *seat);
            if (taken->result == TakeResult::kOk) {
                return FG_OK;
            }
        }
        is_busy = true;  // somebody else was faster, or is at it: look again
        leave_if_unused(*seat);
        *seat = &seat_;
    }
    const bool space = taken->space;
    *taken = take_unfinished(view(), self_, group_, holds, this);
    taken->space = taken->space || space;
    if (is_busy && taken->result == TakeResult::kGone) {
        taken->result = TakeResult::kBusy;
    }
    return FG_OK;
}

// Behind the seal. What is not finished there is news to a member.
fg_status Subscriber::go_on() {
    const fg_status status = move_on(false);
    if (status == FG_OK) {
        adapt_quota();
        look_again();
    }
    return status;
}

// What was not to be had before may be by now: a publisher died or went on.
void Subscriber::look_again() {
    if (is_member()) {
        redeliveries_seen_ = load_redeliveries(view(), group_) - 1;
    }
}

Subscriber::Mode Subscriber::mode() const {
    return policy_ == FG_POLICY_LATEST ? Mode::kLatest : Mode::kNext;
}

[[gnu::always_inline]] inline fg_status Subscriber::take_locked(Mode mode, bool busy_is_gone,
                                                                fg_frame* out, bool* busy) {
    if (closed_) {
        return say_closed();
    }
    if (is_member() && mode != Mode::kNext) {
        return fail(FG_UNSUPPORTED,
                    "topic \"%s\": a member of a group takes frames by its policy only",
                    topic_->name_);
    }
    // The newest frame may be in the next generation already. A peek leaves the position alone, so it
    // does not leave unseen frames of a queue behind.
    while (mode != Mode::kNext && hot::sealed_after(view(), hot::load_head(view())) &&
           (mode == Mode::kLatest || policy_ == FG_POLICY_LATEST ||
            position_ >= hot::load_head(view()))) {
        const fg_status status = go_on();
        if (status == FG_EMPTY) {
            break;
        }
        if (status != FG_OK) {
            return status;
        }
    }
    for (;;) {
        fg_status status = mode != Mode::kNext ? take_newest(mode, busy_is_gone, out, busy)
                           : is_member()       ? take_of_group(busy_is_gone, out, busy)
                                               : take_next(busy_is_gone, out, busy);
        if (status != FG_MOVED) {
            return status;
        }
        // Everything before the seal was taken (or peeked at, and there is something newer).
        if (status = go_on(); status != FG_OK) {
            return status;
        }
    }
}

// Without the handle's lock, under the lease. A frame that is not what was published is given back,
// counted, and not delivered.
fg_status Subscriber::verify(Mode mode, fg_frame* out) {
    const std::uint32_t kind = topic_->identity_.checksum_kind;
    std::uint64_t expected = 0;
    {
        const Locked guard(lock_);
        const Seat* seat =
            seat_of(*out);  // ours, just taken; perhaps of an older generation by now
        if (seat != nullptr) {
            // relaxed: take() acquired it.
            expected = seat->generation->view_.slots[out->slot].checksum.load(kRelaxed);
        }
    }
    const std::uint64_t found = checksum(kind, out->data, out->bytes);
    if (found == expected) [[likely]] {
        return FG_OK;
    }
    {
        const Locked guard(lock_);
        ParticipantRow& row = view().participants[self_.index];
        if (mode != Mode::kPeek) {  // undoes delivered()
            lost_before_next_ += out->lost;
            row.received.store(--received_, kRelaxed);  // relaxed: for inspectors
        }
        row.corrupt.store(++corrupt_, kRelaxed);
    }
    if (const fg_status status = release(out); status != FG_OK) {
        return status;  // the lease was lost: no wonder
    }
    return fail(FG_CHECKSUM_MISMATCH,
                "topic \"%s\": frame %" PRIu64 " has checksum %016" PRIx64
                ", published was %016" PRIx64
                "; somebody writes to its memory, or the memory is bad",
                topic_->name_, out->sequence, found, expected);
}

fg_status Subscriber::try_take(Mode mode, fg_frame* out) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    for (int attempt = 0;; ++attempt) {
        bool busy = false;
        fg_status status = FG_OK;
        {
            const Locked guard(lock_);
            status = take_locked(mode, attempt > kBusyYields, out, &busy);
        }
        if (!busy) {
            const bool look = topic_->identity_.checksum_kind != FG_CHECKSUM_NONE;
            return look && status == FG_OK ? verify(mode, out) : status;
        }
        if (attempt == kBusyYields) {
            sweep(*topic_);  // dead between TRY and CLAIM: the frame comes back
        } else {
            sched_yield();
        }
    }
}

fg_status Subscriber::take(std::int64_t timeout_ns, fg_frame* out) {
    fg_status status = try_take(mode(), out);
    if (status != FG_EMPTY || timeout_ns == 0) {
        return status;
    }
    const Deadline deadline(timeout_ns);
    std::uint64_t head = 0;
    int takes = 0;  // in vain, since head was seen to move
    while (status == FG_EMPTY) {
        status = wait_until(deadline);
        if (status != FG_OK) {
            return status;
        }
        status = try_take(mode(), out);
        if (status != FG_EMPTY) {
            return status;
        }
        std::uint64_t head_now = 0;
        {
            const Locked guard(lock_);
            head_now = hot::load_head(view());
        }
        takes = head_now == head ? takes + 1 : 0;
        head = head_now;
        // Members of a group lose frames to each other, as often as it happens.
        if (takes >= kTakesOfOneHead && !is_member()) {
            return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": frame %" PRIu64 " is not in its slots",
                        topic_->name_, head);
        }
        if (deadline.slice_ns() == 0) {  // the waits end at once, so they do not look at it
            return FG_TIMEOUT;
        }
    }
    return status;
}

fg_status Subscriber::arrays(const fg_frame& frame, fg_array* out, std::size_t capacity,
                             std::size_t* count) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Locked guard(lock_);
    const Seat* seat = frame.data == nullptr ? nullptr : seat_of(frame);
    if (seat == nullptr) {
        return fail(FG_LEASE_LOST, "topic \"%s\": the frame was released before", topic_->name_);
    }
    return read_arrays(*topic_, *seat->generation, seat->generation->data_read_, frame, out,
                       capacity, count);
}

fg_status Subscriber::release(fg_frame* frame) {
    if (frame->data == nullptr) {
        return FG_OK;
    }
    frame->data = nullptr;
    if (is_forked()) {
        return check_usable(*topic_);
    }
    const Call call(*this);
    return end_lease(frame);
}

fg_status Subscriber::nack(fg_frame* frame) {
    if (!is_member()) {
        return fail(FG_INVALID_ARGUMENT,
                    "topic \"%s\": only members of a group can give a frame back unfinished",
                    topic_->name_);
    }
    if (frame->data == nullptr) {
        return FG_OK;
    }
    frame->data = nullptr;
    if (is_forked()) {
        return check_usable(*topic_);
    }
    const Call call(*this);
    const Seat* seat = seat_of(*frame);
    const bool marked = seat != nullptr && check_usable(*topic_) == FG_OK &&
                        still_frame(seat->generation->view_, frame->slot, frame->sequence);
    if (marked) {
        mark_unfinished(seat->generation->view_, frame->slot, group_);
    }
    const fg_status status = end_lease(frame);
    if (marked) {
        announce_redelivery(topic_->view_, group_);
        kick(*topic_);
    }
    return status;
}

[[gnu::always_inline]] inline fg_status Subscriber::end_lease(fg_frame* frame) {
    Seat* seat = seat_of(*frame);
    if (seat == nullptr) {
        return fail(FG_LEASE_LOST, "topic \"%s\": the frame was released before", topic_->name_);
    }
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        // Poisoned: the row may be somebody else's, so nothing is stored in the segment.
        --live_;
        if (--lease_at(*seat, frame->slot).count == 0 && seat != &seat_) {
            let_go_of_one(seat);
        }
        return status;
    }
    if (!drop_lease(*seat, frame->slot, frame->sequence)) {
        return fail(FG_LEASE_LOST,
                    "topic \"%s\": frame %" PRIu64
                    " was not protected to the end, because this process looked dead to another "
                    "one",
                    topic_->name_, frame->sequence);
    }
    return FG_OK;
}

// ---- sleeping

fg_status Subscriber::unseen_locked() {
    if (closed_) {
        return say_closed();
    }
    for (;;) {
        // seq_cst inside: after the waiter bit (or `armed`) was set; pairs with the head CAS of
        // publishers.
        const std::uint64_t head = hot::load_head(view());
        fg_status status = has_unseen(head) ? static_cast<fg_status>(FG_OK) : nothing_new(head);
        if (status != FG_MOVED) {
            return status;
        }
        if (status = go_on(); status != FG_OK) {
            return status;
        }
    }
}

fg_status Subscriber::wait(std::int64_t timeout_ns) {
    fg_status status = check_usable(*topic_);
    if (status == FG_OK) {
        const Locked guard(lock_);
        status = unseen_locked();
    }
    if (status != FG_EMPTY) {
        return status;
    }
    return timeout_ns == 0 ? static_cast<fg_status>(FG_TIMEOUT) : wait_until(Deadline(timeout_ns));
}

// Looks without sleeping. FG_EMPTY: it did not come.
fg_status Subscriber::look_for(std::uint64_t ns, const Deadline& deadline) {
    const std::uint64_t end = monotonic_ns() + ns;
    for (;;) {
        {
            const Locked guard(lock_);
            if (const fg_status status = unseen_locked(); status != FG_EMPTY) {
                return status;
            }
        }
        if (monotonic_ns() >= end || deadline.slice_ns() == 0) {
            return FG_EMPTY;
        }
        hot::cpu_pause();
    }
}

bool Subscriber::is_next_announced() {
    const Locked guard(lock_);
    return is_announced(shared(), hot::load_head(view()) + 1);
}

// Looks for as long as was asked for, or as the last frames make it worth; then sleeps.
fg_status Subscriber::wait_until(const Deadline& deadline) {
    const std::uint64_t began = monotonic_ns();
    std::uint64_t look_ns = spin_ns_;
    if (look_ns == 0 && !FG_MUTATED(kMutateNoRecheck)) {
        const Locked guard(lock_);
        look_ns = cadence_.look_ns();
    }
    const fg_status status =
        look_ns != 0 ? look_for(look_ns, deadline) : static_cast<fg_status>(FG_EMPTY);
    if (status == FG_EMPTY) {
        return sleep_until(deadline, look_ns != 0 ? 0 : began);
    }
    const Locked guard(lock_);
    if (status == FG_OK) {
        cadence_.came_after(monotonic_ns() - began, false);
    }
    return status;
}

// `began`: the wait, if nothing was looked for before; else 0.
fg_status Subscriber::sleep_until(const Deadline& deadline, std::uint64_t began) {
    if (const fg_status failed = begin_sleep(); failed != FG_OK) {
        return failed;
    }
    fg_status status = FG_OK;
    bool woken = false;
    for (bool is_first = true;; is_first = false) {
        // seq_cst, after the bit and before the head: whoever publishes after our look at head sees
        // the bit, and the bump makes the sleep return.
        const std::uint32_t value = shared().wake.load(std::memory_order_seq_cst);
        status = check_usable(*topic_);
        if (status == FG_OK) {
            const Locked guard(lock_);
            status = FG_MUTATED(kMutateNoSecondLook) && is_first ? static_cast<fg_status>(FG_EMPTY)
                                                                 : unseen_locked();
        }
        if (status != FG_EMPTY) {
            break;
        }
        if (woken && is_next_announced()) {
            status = look_for(kAnnouncedNs, deadline);
            if (status != FG_EMPTY) {
                break;
            }
            woken = false;
            continue;  // the futex word must be read before the last look
        }
        FG_STEP(kWaiting);
        const std::int64_t slice = deadline.slice_ns();
        if (slice == 0) {
            status = FG_TIMEOUT;
            break;
        }
        const SleepResult slept = futex_sleep(shared().wake, value, slice);
        woken = slept == SleepResult::kWoken;
        if (slept == SleepResult::kInterrupted) {
            status = fail(FG_INTERRUPTED, "topic \"%s\": a signal interrupted the wait for a frame",
                          topic_->name_);
            break;
        }
        if (slept == SleepResult::kTimeout) {
            // Bounded re-check: a publisher may have died between ring and head, or before waking
            // anybody.
            sweep_if_due(*topic_);
            const Locked guard(lock_);
            help_head(view());
            look_again();
        }
    }
    {
        const Locked guard(lock_);  // before end_sleep(), which may be the handle's end
        if (status == FG_OK && began != 0) {
            cadence_.came_after(monotonic_ns() - began, true);
        } else {
            cadence_.did_not_come();
        }
    }
    end_sleep();
    return status;
}

fg_status Subscriber::event_fd(int* fd) {
    return while_open([&] {
        if (!event_fd_.is_open()) {
            if (const fg_status status = event_fd_.open(*topic_, self_); status != FG_OK) {
                return status;
            }
            set_mark(view(), self_, Mark::kFd);
        }
        *fd = event_fd_.fd();
        return static_cast<fg_status>(FG_OK);
    });
}

fg_status Subscriber::arm(bool* ready) {
    return while_open([&] {
        if (!event_fd_.is_open()) {
            return fail(FG_INVALID_ARGUMENT, "topic \"%s\": ask for the event fd before arming it",
                        topic_->name_);
        }
        event_fd_.start_tick();
        // seq_cst: pairs with the head CAS and armed load of publishers.
        const std::uint64_t passed = is_member() ? load_group_cursor(view(), group_) : position_;
        view().participants[self_.index].armed.store(passed + 1, std::memory_order_seq_cst);
        FG_STEP(kArmed);
        const fg_status status =
            FG_MUTATED(kMutateNoSecondLook) ? static_cast<fg_status>(FG_EMPTY) : unseen_locked();
        if (status != FG_OK && status != FG_EMPTY) {
            return status;
        }
        *ready = status == FG_OK;
        return static_cast<fg_status>(FG_OK);
    });
}

fg_status Subscriber::drain() {
    bool ticked = false;
    const fg_status status = while_open([&] {
        ticked = event_fd_.is_open() && event_fd_.drain();
        return static_cast<fg_status>(FG_OK);
    });
    if (status != FG_OK) {
        return status;
    }
    if (ticked) {
        sweep_if_due(*topic_);
        const Locked guard(lock_);
        help_head(view());
        look_again();
    }
    return check_usable(*topic_);
}

fg_status Subscriber::send_control(std::uint32_t type, const void* data, std::uint32_t bytes,
                                   std::uint32_t* reached) {
    return while_open(
        [&] { return broadcast_control(*topic_, self_, type, data, bytes, reached); });
}

fg_status Subscriber::stats(fg_subscriber_stats* out) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Locked guard(lock_);
    out->leases = slots_held_;
    out->leases_max = leases_max_;
    out->policy = policy_;
    out->position = position_;
    out->head = hot::load_head(view());
    out->received = received_;
    out->lost = lost_;
    out->corrupt = corrupt_;
    return FG_OK;
}

// ---- ending

void Subscriber::close_event_fd(Handle& handle) {
    auto& subscriber = static_cast<Subscriber&>(handle);
    subscriber.event_fd_.close(*subscriber.topic_, subscriber.self_, subscriber.is_alive());
}

void Subscriber::destroy(Handle& handle) { std::free(static_cast<Subscriber*>(&handle)); }

}  // namespace framegate::impl
