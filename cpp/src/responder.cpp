#include "responder.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

namespace framegate::impl {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr char kDropped[] = "the responder dropped the request without an answer";
constexpr char kUnreadable[] =
    "the responder could not read the request: it has no memory or descriptors left, or the topic "
    "is damaged";
constexpr char kClosing[] = "the responder closed before it took up the request";

// As much of the text as a letter holds, not cut inside of a UTF-8 sequence.
std::uint32_t fitting(const char* text, std::size_t bytes) {
    if (bytes <= FG_LETTER_BYTES_MAX) {
        return static_cast<std::uint32_t>(bytes);
    }
    std::uint32_t end = FG_LETTER_BYTES_MAX;
    while (end != 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
        --end;
    }
    return end;
}

}  // namespace

constinit const Handle::Kind Responder::kKind = {
    .noun = "responder",
    .sleep_mark = Mark::kSpaceWaiter,
    .access = Access::kWrite,
    .record_bytes = Responder::kRecordBytes,
    .is_held = Responder::is_loaned,
    .before_detach = Correspondent::close_event_fd,
    .destroy = Responder::destroy,
};

fg_status Responder::open(Topic& topic, const fg_responder_options& options, Responder** out) {
    if (options.requests_max > FG_REQUESTS_MAX) {
        return fail(FG_INVALID_ARGUMENT, "topic \"%s\": requests_max is %u, at most %d",
                    topic.name_, options.requests_max, FG_REQUESTS_MAX);
    }
    void* memory = nullptr;
    const std::uint32_t most =
        options.requests_max != 0 ? options.requests_max : topic.view_.mailbox_cells;
    auto* duties = static_cast<Duty*>(std::calloc(most + 1, sizeof(Duty)));
    if (duties == nullptr || posix_memalign(&memory, kCacheLine, sizeof(Responder)) != 0) {
        std::free(duties);
        return fail(FG_OUT_OF_MEMORY, "no memory for a responder of topic \"%s\"", topic.name_);
    }
    auto* responder = new (memory) Responder;
    responder->duties_ = duties;
    responder->requests_max_ = most;
    const fg_status status =
        responder->join_mail(topic, FG_ROLE_RESPONDER, options.name, options.name_bytes);
    if (status == FG_OK) {
        responder->header().accepts.store(1, kRelaxed);  // relaxed: a hint for callers
        *out = responder;
    }
    return status;
}

Responder::Duty* Responder::find(std::uint64_t id) {
    for (std::uint32_t i = 0; id != 0 && i < requests_max_; ++i) {
        if (duties_[i].id == id) {
            return &duties_[i];
        }
    }
    return nullptr;
}

fg_status Responder::look(fg_request* out) {
    if (requests_ == requests_max_) {
        return fail(FG_LEASE_QUOTA,
                    "topic \"%s\": this responder has %u requests to answer, as many as it may",
                    topic_->name_, requests_max_);
    }
    bool space = false;
    fg_status status = FG_EMPTY;
    Letter letter;
    while (status == FG_EMPTY && take_letter(view(), self_, epoch_, &letter, &space)) {
        if (letter.kind != LetterKind::kRequest || letter.slot == kNoSlot ||
            open_epoch(view(), letter.from.participant) != letter.from.epoch) {
            discard(letter);  // nobody of us sends such, or nobody waits any more
            continue;
        }
        const Seat* seat = lease(letter, &out->frame);
        if (seat == nullptr) {
            const Duty duty{letter.ticket, letter.correlation, letter.from};
            static_cast<void>(answer_with_text(duty, kUnreadable, sizeof kUnreadable - 1));
            continue;
        }
        // relaxed: lease() acquired it.
        const std::uint64_t deadline_ns =
            seat->generation->view_.slots[letter.slot].deadline_ns.load(kRelaxed);
        ParticipantRow& row = view().participants[self_.index];
        if (monotonic_ns() >= deadline_ns) {
            row.lost.store(++late_, kRelaxed);  // relaxed: for inspectors
            end_lease(&out->frame);
            continue;
        }
        Duty* duty = duties_;
        while (duty->id != 0) {
            ++duty;  // one is unused, see above
        }
        *duty = {letter.ticket, letter.correlation, letter.from};
        ++live_;
        row.leases.store(++requests_, kRelaxed);
        row.received.store(++received_, kRelaxed);
        out->id = letter.ticket;
        out->deadline_ns = deadline_ns;
        out->caller = letter.from.participant;
        out->reserved = 0;
        status = FG_OK;
    }
    if (space) {
        wake_space(*topic_);
    }
    return status;
}

fg_status Responder::take(std::int64_t timeout_ns, fg_request* out) {
    const fg_status status = wait_for_mail(timeout_ns, [&] { return look(out); });
    return status == FG_EMPTY && timeout_ns != 0 ? static_cast<fg_status>(FG_TIMEOUT) : status;
}

void Responder::end(Duty* duty, fg_request* request) {
    duty->id = 0;
    request->id = 0;
    --live_;
    --requests_;
    owes_ = owes_ && requests_ != 0;
    if (is_alive()) {
        view().participants[self_.index].leases.store(requests_, kRelaxed);  // for inspectors
    }
}

fg_status Responder::reply(fg_request* request, fg_loan* loan, const fg_publish_info& info) {
    if (is_forked()) {
        loan->data = nullptr;
        return check_usable(*topic_);
    }
    const Call guard(*this);
    Seat* seat = nullptr;
    if (const fg_status status = claim_seat(loan, "posted", &seat); status != FG_OK) {
        return status;
    }
    Duty* duty = find(request->id);
    if (duty == nullptr) {
        return fail(FG_INVALID_ARGUMENT, "topic \"%s\": the request was answered before",
                    topic_->name_);
    }
    fg_status status = check_letter(*seat, info);
    if (status == FG_OK) {
        status = bring_along(loan, info);
    }
    if (status != FG_OK) {
        return status;
    }
    write_header(loan->slot, info, Schema::kFree);
    Letter letter;
    letter.kind = LetterKind::kReply;
    letter.correlation = duty->call;
    letter.from = {self_.index, epoch_};
    letter.slot = loan->slot;
    letter.generation = loan->generation;
    const MailAddress to = duty->caller;
    switch (post_letter(view(), self_, to, letter, loan->ticket).result) {
        case PostResult::kOk:
            forget(loan, &seat_);
            end(duty, request);
            ring_mailbox(*topic_, to.participant);
            return FG_OK;
        case PostResult::kFull:
            return fail(FG_MAILBOX_FULL, "topic \"%s\": the mailbox of caller %u is full",
                        topic_->name_, to.participant);
        case PostResult::kLost:
            forget(loan, &seat_);
            wake_space(*topic_);
            break;
        case PostResult::kGone:
            break;
    }
    end(duty, request);
    return fail(FG_CALLER_GONE, "topic \"%s\": caller %u is gone", topic_->name_, to.participant);
}

fg_status Responder::answer_with_text(const Duty& duty, const char* text, std::size_t text_bytes) {
    Letter letter;
    letter.kind = LetterKind::kFailure;
    letter.correlation = duty.call;
    letter.from = {self_.index, epoch_};
    letter.bytes = fitting(text, text_bytes);
    if (letter.bytes != 0) {
        std::memcpy(letter.data, text, letter.bytes);
    }
    const std::uint32_t to = duty.caller.participant;
    switch (post_letter(view(), self_, duty.caller, letter, 0).result) {
        case PostResult::kOk:
            ring_mailbox(*topic_, to);
            return FG_OK;
        case PostResult::kFull:
            return fail(FG_MAILBOX_FULL, "topic \"%s\": the mailbox of caller %u is full",
                        topic_->name_, to);
        default:
            return fail(FG_CALLER_GONE, "topic \"%s\": caller %u is gone", topic_->name_, to);
    }
}

fg_status Responder::fail_request(fg_request* request, const char* text, std::size_t text_bytes) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Call guard(*this);
    Duty* duty = find(request->id);
    if (duty == nullptr) {
        return fail(FG_INVALID_ARGUMENT, "topic \"%s\": the request was answered before",
                    topic_->name_);
    }
    const fg_status status = answer_with_text(*duty, text, text_bytes);
    if (status != FG_MAILBOX_FULL) {
        end(duty, request);
    }
    return status;
}

void Responder::drop(fg_request* request) {
    if (is_forked()) {
        return;
    }
    const Call guard(*this);
    Duty* duty = find(request->id);
    if (duty != nullptr) {
        if (is_alive()) {
            static_cast<void>(answer_with_text(*duty, kDropped, sizeof kDropped - 1));
        }
        end(duty, request);
    }
}

void Responder::close() {
    if (is_forked()) {
        return;
    }
    {
        const Call guard(*this);
        if (is_alive()) {
            header().accepts.store(0, kRelaxed);  // relaxed: a hint; what comes anyway is scrubbed
            bool space = false;
            Letter letter;
            while (take_letter(view(), self_, epoch_, &letter, &space)) {
                if (letter.kind == LetterKind::kRequest) {
                    const Duty duty{letter.ticket, letter.correlation, letter.from};
                    static_cast<void>(answer_with_text(duty, kClosing, sizeof kClosing - 1));
                }
                discard(letter);
            }
        }
        owes_ = requests_ != 0;
        end_correspondence();
    }
    Handle::close();
}

void Responder::destroy(Handle& handle) {
    auto* responder = static_cast<Responder*>(&handle);
    std::free(responder->duties_);
    std::free(responder);
}

}  // namespace framegate::impl
