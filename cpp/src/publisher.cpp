#include "publisher.hpp"

#include <cinttypes>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "arrays.hpp"
#include "checksum.hpp"
#include "holdup.hpp"
#include "liveness.hpp"
#include "mail.hpp"
#include "mailbox.hpp"
#include "slots_hot.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "wake.hpp"

namespace framegate::impl {

using hot::kRelaxed;

constinit const Handle::Kind Publisher::kKind = {
    .noun = "publisher",
    .sleep_mark = Mark::kSpaceWaiter,
    .access = Access::kWrite,
    .record_bytes = Publisher::kRecordBytes,
    .is_held = Publisher::is_loaned,
    .before_detach = nullptr,
    .destroy = Publisher::destroy,
};

fg_status Publisher::open(Topic& topic, const fg_publisher_options& options, Publisher** out) {
    void* memory = nullptr;
    if (posix_memalign(&memory, kCacheLine, sizeof(Publisher)) != 0) {
        return fail(FG_OUT_OF_MEMORY, "no memory for a publisher of topic \"%s\"", topic.name_);
    }
    auto* publisher = new (memory) Publisher(kKind);
    const fg_status status =
        publisher->join(topic, FG_ROLE_PUBLISHER, options.name, options.name_bytes);
    if (status == FG_OK) {
        *out = publisher;
    }
    return status;
}

fg_status Publisher::join(Topic& topic, std::uint32_t role, const char* name,
                          std::uint32_t name_bytes) {
    RowInfo info;
    fg_status status = check_usable(topic);
    if (status == FG_OK) {
        status = fill_row_info(role, 0, name, name_bytes, &info);
    }
    if (status != FG_OK) {
        forsake();
        return status;
    }
    status = begin(topic, info);
    if (status != FG_OK || topic.view_.mailbox_cells == 0) {
        return status;
    }
    if (!has_mailbox(view(), self_.index)) {
        status = allocate_mailbox(topic, self_.index);
        if (status != FG_OK) {
            Handle::close();
            return status;
        }
    }
    // relaxed: our own row.
    epoch_ = mail_epoch(view().participants[self_.index].incarnation.load(kRelaxed));
    open_mailbox(view(), self_, epoch_);
    return FG_OK;
}

fg_status Publisher::check_bytes(std::uint64_t bytes) const {
    return bytes <= geometry().slot_bytes ? static_cast<fg_status>(FG_OK)
                                          : fail(FG_FRAME_TOO_LARGE,
                                                 "topic \"%s\": a frame of %" PRIu64
                                                 " bytes does not fit into a slot of %" PRIu64,
                                                 topic_->name_, bytes, geometry().slot_bytes);
}

fg_status Publisher::loan(std::uint64_t bytes, std::int64_t timeout_ns, fg_loan* out) {
    const fg_status status = try_loan_once(bytes, out);
    return status == FG_TOPIC_FULL ? wait_for_loan(bytes, timeout_ns, out) : status;
}

fg_status Publisher::try_loan_once(std::uint64_t bytes, fg_loan* out) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Locked guard(lock_);
    if (closed_ && !owes_) {
        return say_closed();
    }
    for (;;) {
        fg_status status = check_bytes(bytes);
        if (status == FG_OK) {
            status = loan_locked(bytes, out);
        } else if (sealed_after(view(), load_head(view()))) {
            status = FG_MOVED;  // perhaps to larger slots
        }
        if (status != FG_MOVED) {
            return status;
        }
        if (status = move_on(true); status != FG_OK) {
            return status;
        }
    }
}

fg_status Publisher::slot_bytes(std::uint64_t* out) {
    return while_open([&] {
        if (const fg_status status = catch_up(); status != FG_OK) {
            return status;
        }
        *out = geometry().slot_bytes;
        return static_cast<fg_status>(FG_OK);
    });
}

fg_status Publisher::catch_up() {
    while (sealed_after(view(), help_head(view()))) {
        if (const fg_status status = move_on(true); status != FG_OK) {
            return status;
        }
    }
    return FG_OK;
}

// FG_TOPIC_FULL and FG_MOVED come without a text. check_bytes(bytes) was FG_OK.
fg_status Publisher::loan_locked(std::uint64_t bytes, fg_loan* out) {
    if (make_room_ != nullptr && claimable_slots(view(), 2) < 2 &&
        !sealed_after(view(), load_head(view()))) {
        make_room_(*this);  // may go on to another generation, perhaps of smaller slots
        if (const fg_status status = check_bytes(bytes); status != FG_OK) {
            return sealed_after(view(), load_head(view())) ? FG_MOVED : status;
        }
        if (claimable_slots(view(), 2) < 2) {
            return sealed_after(view(), load_head(view())) ? FG_MOVED : FG_TOPIC_FULL;
        }
    }
    LoanAttempt attempt = hot::try_loan(view(), self_);
    if (make_room_ != nullptr && attempt.result == LoanResult::kOk &&
        claimable_slots(view(), 1) == 0) {
        // Somebody else took the other one meanwhile.
        framegate::impl::abandon(view(), attempt.slot, attempt.word);
        attempt.result = LoanResult::kNone;
        attempt.space = true;
    }
    if (attempt.space) {
        wake_space(*topic_);
    }
    if (attempt.result != LoanResult::kOk) {
        return attempt.result == LoanResult::kMoved ? FG_MOVED : FG_TOPIC_FULL;
    }
    ++live_;
    ticket(seat_, attempt.slot) = attempt.word;
    out->data = seat_.generation->payload(seat_.generation->data_write_, attempt.slot);
    out->capacity = geometry().slot_bytes;
    out->ticket = attempt.word;
    out->slot = attempt.slot;
    out->generation = geometry().generation;
    return FG_OK;
}

fg_status Publisher::wait_for_loan(std::uint64_t bytes, std::int64_t timeout_ns, fg_loan* out) {
    sweep(*topic_);
    fg_status status = try_loan_once(bytes, out);
    if (status == FG_TOPIC_FULL && timeout_ns != 0) {
        const Deadline deadline(timeout_ns);
        if (const fg_status failed = begin_sleep(); failed != FG_OK) {
            return failed;
        }
        for (;;) {
            // seq_cst, after the bit and before the scan: whoever frees a slot after our scan sees
            // the bit, and the bump makes the sleep return.
            const std::uint32_t value = shared().space.load(std::memory_order_seq_cst);
            status = try_loan_once(bytes, out);
            if (status != FG_TOPIC_FULL) {
                break;
            }
            FG_STEP(kSpaceWaiting);
            const std::int64_t slice = deadline.slice_ns();
            if (slice == 0) {
                break;
            }
            const SleepResult slept = futex_sleep(shared().space, value, slice);
            if (slept == SleepResult::kInterrupted) {
                status =
                    fail(FG_INTERRUPTED, "topic \"%s\": a signal interrupted the wait for a slot",
                         topic_->name_);
                break;
            }
            if (slept == SleepResult::kTimeout) {
                sweep_if_due(*topic_);  // bounded re-check: a holder may have died
            }
        }
        end_sleep();
    }
    if (status == FG_TOPIC_FULL) {
        const Locked guard(lock_);
        return say_full(*topic_, view());
    }
    return status;
}

fg_status Publisher::check_all_info(const fg_publish_info& info, Schema schema) const {
    const Topic& topic = *topic_;
    if (info.array_count > FG_ARRAYS_MAX || (info.array_count != 0 && info.arrays == nullptr)) {
        return fail(FG_INVALID_ARGUMENT, "the frame has %u arrays (at most %d) or they are NULL",
                    info.array_count, FG_ARRAYS_MAX);
    }
    if (info.content_type_bytes > FG_CONTENT_TYPE_BYTES_MAX ||
        (info.content_type_bytes != 0 && info.content_type == nullptr)) {
        return fail(FG_INVALID_ARGUMENT, "the content type has %u bytes (at most %d) or is NULL",
                    info.content_type_bytes, FG_CONTENT_TYPE_BYTES_MAX);
    }
    if (info.user_metadata_bytes > FG_USER_METADATA_BYTES_MAX ||
        (info.user_metadata_bytes != 0 && info.user_metadata == nullptr)) {
        return fail(FG_INVALID_ARGUMENT, "the user metadata has %u bytes (at most %d) or is NULL",
                    info.user_metadata_bytes, FG_USER_METADATA_BYTES_MAX);
    }
    for (std::uint32_t i = 0; i < info.array_count; ++i) {
        if (const fg_status status = check_frame_array(info.arrays[i], i, info.bytes);
            status != FG_OK) {
            return status;
        }
    }
    if (info.array_count > 1) {
        if (const fg_status status = check_record_group(info.arrays, info.array_count);
            status != FG_OK) {
            return status;
        }
    }
    const std::uint32_t schema_count = topic.identity_.schema_count;
    if (schema_count == 0 || schema == Schema::kFree) {
        return FG_OK;
    }
    if (info.array_count == 0) {
        if (!topic.schema_is_fixed_) {
            return fail(
                FG_SCHEMA_MISMATCH,
                "topic \"%s\" has a schema with open dimensions: say the shapes of the frame",
                topic.name_);
        }
        if (info.bytes != topic.schema_bytes_) {
            return fail(FG_SCHEMA_MISMATCH,
                        "topic \"%s\": %" PRIu64 " bytes, a frame of its schema has %" PRIu64,
                        topic.name_, info.bytes, topic.schema_bytes_);
        }
        return FG_OK;
    }
    if (info.array_count != schema_count) {
        return fail(FG_SCHEMA_MISMATCH, "topic \"%s\": %u arrays, its schema has %u", topic.name_,
                    info.array_count, schema_count);
    }
    for (std::uint32_t i = 0; i < schema_count; ++i) {
        if (!fits_schema(info.arrays[i], topic.schema_[i])) {
            return fail(FG_SCHEMA_MISMATCH,
                        "topic \"%s\": name, dtype or shape of array %u contradicts its schema",
                        topic.name_, i);
        }
    }
    return FG_OK;
}

void Publisher::write_header_page(std::uint32_t index, const fg_publish_info& info) {
    const Generation& generation = *seat_.generation;
    auto* header =
        reinterpret_cast<SlotHeader*>(generation.slot_header(generation.data_write_, index));
    if (info.array_count != 0) {
        std::memcpy(header->arrays, info.arrays, info.array_count * sizeof(fg_array));
    }
    if (info.content_type_bytes != 0) {
        std::memcpy(header->content_type, info.content_type, info.content_type_bytes);
    }
    if (info.user_metadata_bytes != 0) {
        std::memcpy(header->user_metadata, info.user_metadata, info.user_metadata_bytes);
    }
}

// Without the handle's lock: other threads of it need not wait for a hash over megabytes. So nothing
// of the loan is believed here; whether it is one shows later.
std::uint64_t Publisher::payload_checksum(const fg_loan& loan, const fg_publish_info& info) {
    const unsigned char* payload = nullptr;
    {
        const Locked guard(lock_);
        const Seat* seat = seat_of(loan);
        if (seat == nullptr || info.bytes > seat->generation->identity_.slot_bytes) {
            return 0;
        }
        payload = seat->generation->payload(seat->generation->data_write_, loan.slot);
    }
    return checksum(topic_->identity_.checksum_kind, payload, info.bytes);
}

// The topic was resized while the loan was filled: copies its bytes to a loan of the generation
// where the handle works now. On failure the loan stays as it is.
fg_status Publisher::carry_over(fg_loan* loan, std::uint64_t bytes) {
    if (const fg_status status = check_bytes(bytes); status != FG_OK) {
        return status;
    }
    fg_loan fresh{};
    if (const fg_status status = loan_locked(bytes, &fresh); status != FG_OK) {
        return status == FG_TOPIC_FULL
                   ? fail(FG_TOPIC_FULL,
                          "topic \"%s\" was resized and its new slots are taken already; the loan "
                          "stays good",
                          topic_->name_)
                   : status;
    }
    std::memcpy(fresh.data, loan->data, bytes);
    Seat* old = seat_of(*loan);
    framegate::impl::abandon(old->generation->view_, loan->slot, loan->ticket);
    forget(loan, old);
    *loan = fresh;
    return FG_OK;
}

// FG_MOVED: the generation of the loan is sealed, the loan still good.
[[gnu::always_inline]] inline fg_status Publisher::publish_once(fg_loan* loan,
                                                                const fg_publish_info& info,
                                                                std::uint64_t checksum,
                                                                std::uint64_t* sequence) {
    write_header(loan->slot, info, Schema::kTopic);
    view().slots[loan->slot].checksum.store(checksum, kRelaxed);  // relaxed: as the header
    const SegmentView& view = this->view();
    ParticipantRow& row = view.participants[self_.index];
    const Publication publication = hot::publish(view, self_, loan->slot, loan->ticket);
    if (publication.result == PublishResult::kMoved) {
        ticket(seat_, loan->slot) = publication.word;
        loan->ticket = publication.word;
        return FG_MOVED;
    }
    forget(loan, &seat_);
    if (publication.result == PublishResult::kOk) [[likely]] {
        row.received.store(++published_, kRelaxed);  // relaxed: for inspectors
        row.cursor.store(publication.sequence, kRelaxed);
        // The newest frame before this one became claimable, so space sleepers, too.
        if (any_of_marks(view, Mark::kWaiter, Mark::kFd, Mark::kSpaceWaiter)) [[unlikely]] {
            wake_subscribers(*topic_, publication.sequence);
            wake_space(*topic_);
        }
        *sequence = publication.sequence;
        return FG_OK;
    }
    wake_space(*topic_);  // our slot became free
    switch (publication.result) {
        case PublishResult::kLost:
            return fail(FG_LOAN_LOST,
                        "topic \"%s\": the loan was taken back, because this process looked dead "
                        "to another one",
                        topic_->name_);
        case PublishResult::kExhausted:
            return fail(FG_SEQUENCE_EXHAUSTED,
                        "topic \"%s\" used up its sequence numbers; create it again",
                        topic_->name_);
        case PublishResult::kOk:
        case PublishResult::kMoved:
        case PublishResult::kCorrupt:
            break;
    }
    return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": its ring contradicts its head", topic_->name_);
}

fg_status Publisher::say_not_loaned(fg_loan* loan, const char* verb) {
    loan->data = nullptr;
    return fail(FG_LOAN_LOST, "topic \"%s\": the loan was %s or abandoned before", topic_->name_,
                verb);
}

[[gnu::always_inline]] inline fg_status Publisher::publish_locked(fg_loan* loan,
                                                                  const fg_publish_info& info,
                                                                  std::uint64_t checksum,
                                                                  std::uint64_t* sequence) {
    Seat* seat = nullptr;
    if (const fg_status status = claim_seat(loan, "published", &seat); status != FG_OK) {
        return status;
    }
    // The slot that was loaned bounds the frame, whatever the topic's slots are now.
    if (info.bytes > seat->generation->identity_.slot_bytes) {
        return fail(FG_FRAME_TOO_LARGE,
                    "topic \"%s\": a frame of %" PRIu64
                    " bytes does not fit into a slot of %" PRIu64,
                    topic_->name_, info.bytes, seat->generation->identity_.slot_bytes);
    }
    if (const fg_status status = check_info(info, Schema::kTopic); status != FG_OK) {
        return status;  // the loan stays good
    }
    const fg_status status = seat == &seat_ ? publish_once(loan, info, checksum, sequence)
                                            : static_cast<fg_status>(FG_MOVED);
    return status == FG_MOVED ? publish_later(loan, info, checksum, sequence) : status;
}

// The topic was resized after the loan.
[[gnu::cold]] fg_status Publisher::publish_later(fg_loan* loan, const fg_publish_info& info,
                                                 std::uint64_t checksum, std::uint64_t* sequence) {
    fg_status status = FG_MOVED;
    while (status == FG_MOVED) {
        // Sealed is the generation of the loan or, if resizes follow each other, the one after.
        status =
            sealed_after(view(), help_head(view())) ? move_on(true) : static_cast<fg_status>(FG_OK);
        if (status == FG_OK) {
            status = carry_over(loan, info.bytes);
        }
        if (status == FG_OK) {
            status = publish_once(loan, info, checksum, sequence);
        }
    }
    return status;
}

fg_status Publisher::publish(fg_loan* loan, const fg_publish_info& info, std::uint64_t* sequence) {
    if (is_forked()) {
        loan->data = nullptr;
        return check_usable(*topic_);
    }
    std::uint64_t checksum = 0;
    if (topic_->identity_.checksum_kind != FG_CHECKSUM_NONE) [[unlikely]] {
        checksum = payload_checksum(*loan, info);
    }
    const Call call(*this);
    std::uint64_t number = 0;
    const fg_status status = publish_locked(loan, info, checksum, &number);
    if (status == FG_OK && sequence != nullptr) {
        *sequence = number;
    }
    return status;
}

fg_status Publisher::announce() {
    return while_open([&] {
        framegate::impl::announce(*topic_, hot::load_head(view()) + 1);
        return static_cast<fg_status>(FG_OK);
    });
}

fg_status Publisher::abandon(fg_loan* loan) {
    if (loan->data == nullptr) {
        return FG_OK;
    }
    if (is_forked()) {
        loan->data = nullptr;
        return check_usable(*topic_);
    }
    const Call call(*this);
    Seat* seat = seat_of(*loan);
    if (seat == nullptr) {
        loan->data = nullptr;
        return fail(FG_LOAN_LOST, "topic \"%s\": the loan was published or abandoned before",
                    topic_->name_);
    }
    fg_status status = check_usable(*topic_);
    if (status == FG_OK) {
        if (!framegate::impl::abandon(seat->generation->view_, loan->slot, loan->ticket)) {
            status =
                fail(FG_LOAN_LOST, "topic \"%s\": the loan had been taken back", topic_->name_);
        }
        wake_space(*topic_);
    }
    forget(loan, seat);
    return status;
}

fg_status Publisher::send(const void* data, const fg_publish_info& info, std::int64_t timeout_ns,
                          std::uint64_t* sequence) {
    if (const fg_status status = check_info(info, Schema::kTopic); status != FG_OK) {
        return status;
    }
    fg_loan loan{};
    if (const fg_status status = this->loan(info.bytes, timeout_ns, &loan); status != FG_OK) {
        return status;
    }
    std::uint64_t copied = 0;
    if (info.bytes >= FG_ANNOUNCE_BYTES_MIN) {
        copied = info.bytes > FG_ANNOUNCE_BYTES ? info.bytes - FG_ANNOUNCE_BYTES : 0;
        std::memcpy(loan.data, data, copied);
        (void)
            announce();  // a handle that is closed, forked or poisoned by now is publish()'s to report
    }
    if (info.bytes != copied) {
        std::memcpy(static_cast<char*>(loan.data) + copied, static_cast<const char*>(data) + copied,
                    info.bytes - copied);
    }
    return publish(&loan, info, sequence);
}

fg_status Publisher::controls(fg_control* out, std::size_t capacity, std::size_t* count) {
    *count = 0;
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Call call(*this);
    if (closed_) {
        return say_closed();
    }
    if (epoch_ == 0) {
        return say_no_mailboxes(*topic_);
    }
    bool space = false;
    Letter letter;
    while (*count < capacity && take_letter(view(), self_, epoch_, &letter, &space)) {
        if (letter.kind != LetterKind::kControl || letter.slot != kNoSlot) {
            continue;  // nobody of us sends such to a publisher
        }
        fg_control& control = out[(*count)++];
        control = fg_control{};
        control.sender = letter.from.participant;
        control.type = letter.type;
        control.bytes = letter.bytes;
        std::memcpy(control.data, letter.data, letter.bytes);
    }
    if (space) {
        wake_space(*topic_);
    }
    return FG_OK;
}

void Publisher::destroy(Handle& handle) { std::free(static_cast<Publisher*>(&handle)); }

}  // namespace framegate::impl
