#include "caller.hpp"

#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <new>

namespace framegate::impl {
namespace {
constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::uint64_t kNever = ~std::uint64_t{0};
}  // namespace

constinit const Handle::Kind Caller::kKind = {
    .noun = "caller",
    .sleep_mark = Mark::kSpaceWaiter,
    .access = Access::kWrite,
    .record_bytes = Caller::kRecordBytes,
    .is_held = Caller::is_loaned,
    .before_detach = Correspondent::close_event_fd,
    .destroy = Caller::destroy,
    .held_besides = Caller::count_in_flight,
};

fg_status Caller::open(Topic& topic, const fg_caller_options& options, Caller** out) {
    const std::uint32_t cells = topic.view_.mailbox_cells;
    if (options.calls_max > cells && cells != 0) {
        return fail(FG_INVALID_ARGUMENT,
                    "topic \"%s\": calls_max is %u, a mailbox has room for %u answers", topic.name_,
                    options.calls_max, cells);
    }
    void* memory = nullptr;
    const std::uint32_t calls_max = options.calls_max != 0 ? options.calls_max : cells;
    auto* pending = static_cast<Pending*>(std::calloc(calls_max + 1, sizeof(Pending)));
    if (pending == nullptr || posix_memalign(&memory, kCacheLine, sizeof(Caller)) != 0) {
        std::free(pending);
        return fail(FG_OUT_OF_MEMORY, "no memory for a caller of topic \"%s\"", topic.name_);
    }
    auto* caller = new (memory) Caller;
    caller->make_room_ = make_room;
    caller->pending_ = pending;
    caller->calls_max_ = calls_max;
    const fg_status status =
        caller->join_mail(topic, FG_ROLE_CALLER, options.name, options.name_bytes);
    if (status == FG_OK) {
        *out = caller;
    }
    return status;
}

// A call keeps the generation of its request, and with it all later ones, until it is over: so the
// responder can read the request, and we the reply, whoever goes on meanwhile.
std::uint32_t Caller::count_in_flight(const Handle& handle) {
    const auto& caller = static_cast<const Caller&>(handle);
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < caller.calls_max_; ++i) {
        const Pending& pending = caller.pending_[i];
        count += (pending.state == State::kWaiting || pending.state == State::kAnswered) &&
                         pending.generation == caller.geometry().generation
                     ? 1
                     : 0;
    }
    return count;
}

// Of a call that somebody waited for.
void Caller::end(Pending* pending, State state) {
    pending->state = state;
    if (pending->generation != geometry().generation) {
        let_go_of_one(older_seat_of_generation(pending->generation));
    }
}

// Late answers in the mailbox occupy the very slots that a loan waits for.
void Caller::make_room(Publisher& self) { static_cast<Caller&>(self).read_mail(0); }

Caller::Pending* Caller::find(std::uint64_t number) {
    for (std::uint32_t i = 0; number != 0 && i < calls_max_; ++i) {
        if (pending_[i].state != State::kUnused && pending_[i].number == number) {
            return &pending_[i];
        }
    }
    return nullptr;
}

Caller::Pending* Caller::unused() {
    for (std::uint32_t i = 0; i < calls_max_; ++i) {
        Pending& pending = pending_[i];
        if (pending.state == State::kAbandoned &&
            open_epoch(view(), pending.responder.participant) != pending.responder.epoch) {
            pending.state = State::kUnused;  // it will never answer
        }
        if (pending.state == State::kUnused) {
            return &pending;
        }
    }
    return nullptr;
}

// The responder with the least to do of those not tried yet, from next_responder_ on.
bool Caller::pick(const std::uint64_t* tried, MailAddress* to) {
    const auto load_of = [this](std::uint32_t index) {
        // relaxed: a guess.
        return letters_in(view(), index) + view().participants[index].leases.load(kRelaxed);
    };
    std::uint32_t found = 0;
    std::uint32_t least = ~std::uint32_t{0};
    const std::uint32_t words = view().participant_words;
    const std::uint32_t start = next_responder_ % view().participants_max;
    const std::uint64_t before = (std::uint64_t{1} << (start % 64)) - 1;
    // The word in which we start comes twice: what is ahead in it, and at last what is behind.
    for (std::uint32_t n = 0; n <= words && least != 0; ++n) {
        const std::uint32_t at = (start / 64 + n) % words;
        // acquire: as in has_mailbox().
        std::uint64_t bits =
            view().shared->mailboxes[at].load(std::memory_order_acquire) & ~tried[at];
        bits &= n == 0 ? ~before : n == words ? before : ~std::uint64_t{0};
        for (; bits != 0 && least != 0; bits &= bits - 1) {
            const std::uint32_t i = at * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bits));
            const std::uint64_t epoch = open_epoch(view(), i);
            // relaxed: the role was stored before the mailbox was opened, `accepts` after it, by the
            // responder: both hints, post_letter() checks the epoch.
            if (epoch == 0 || view().participants[i].role.load(kRelaxed) != FG_ROLE_RESPONDER ||
                mailbox_header(view(), i).accepts.load(kRelaxed) == 0) {
                continue;
            }
            if (++found == 1) {
                *to = {i, epoch};  // what it has to do matters if there is another one
                continue;
            }
            least = found == 2 ? load_of(to->participant) : least;
            const std::uint32_t load = least == 0 ? 0 : load_of(i);
            if (load < least) {
                least = load;
                *to = {i, epoch};
            }
        }
    }
    return found != 0;
}

fg_status Caller::post(fg_loan* loan, Pending* pending) {
    std::uint64_t tried[kHolderWords] = {};
    std::uint32_t full = 0;
    Letter letter;
    letter.kind = LetterKind::kRequest;
    letter.correlation = pending->number;
    letter.from = {self_.index, epoch_};
    letter.slot = loan->slot;
    letter.generation = loan->generation;
    MailAddress to;
    while (pick(tried, &to)) {
        tried[to.participant / 64] |= std::uint64_t{1} << (to.participant % 64);
        if (!is_participant_alive(*topic_, to.participant)) {
            sweep(*topic_);
            continue;
        }
        const Posted posted = post_letter(view(), self_, to, letter, loan->ticket);
        if (posted.result == PostResult::kOk) {
            next_responder_ = to.participant + 1;
            pending->responder = to;
            pending->posted = posted;
            pending->slot = loan->slot;
            pending->generation = loan->generation;
            forget(loan, &seat_);
            ring_mailbox(*topic_, to.participant);
            return FG_OK;
        }
        if (posted.result == PostResult::kLost) {
            forget(loan, &seat_);
            wake_space(*topic_);
            return fail(FG_RESPONDER_DIED,
                        "topic \"%s\": the responder went away while it was asked", topic_->name_);
        }
        full += posted.result == PostResult::kFull ? 1 : 0;
    }
    return full == 0
               ? fail(FG_NO_RESPONDER, "topic \"%s\": nobody answers calls on it", topic_->name_)
               : fail(FG_MAILBOX_FULL,
                      "topic \"%s\": %u responders have full mailboxes, %u letters each; call "
                      "later, or start more responders",
                      topic_->name_, full, view().mailbox_cells);
}

fg_status Caller::call(fg_loan* loan, const fg_publish_info& info, std::int64_t timeout_ns,
                       std::uint64_t* number) {
    if (is_forked()) {
        loan->data = nullptr;
        return check_usable(*topic_);
    }
    const Call guard(*this);
    Seat* seat = nullptr;
    if (const fg_status status = claim_seat(loan, "posted", &seat); status != FG_OK) {
        return status;
    }
    if (closed_) {
        return say_closed();
    }
    fg_status status = check_letter(*seat, info);
    if (status != FG_OK) {
        return status;
    }
    Pending* pending = unused();
    if (pending == nullptr) {
        read_mail(0);  // late answers end calls that nobody waits for
        pending = unused();
    }
    if (pending == nullptr) {
        return fail(FG_CALLS_EXHAUSTED,
                    "topic \"%s\": %u calls are in flight, as many as this caller may have",
                    topic_->name_, calls_max_);
    }
    status = bring_along(loan, info);
    if (status != FG_OK) {
        return status;
    }
    pending->number = ++calls_;
    pending->deadline_ns =
        timeout_ns < 0 ? kNever : monotonic_ns() + static_cast<std::uint64_t>(timeout_ns);
    write_header(loan->slot, info, Schema::kFree);
    // relaxed: the HANDED CAS releases it.
    view().slots[loan->slot].deadline_ns.store(pending->deadline_ns, kRelaxed);
    status = post(loan, pending);
    if (status != FG_OK) {
        return status;
    }
    pending->state = State::kWaiting;
    *number = pending->number;
    return FG_OK;
}

// Sorts what lies in the mailbox into the pending calls; the caller looks for the answer to its
// `own` call. Late answers are thrown away here.
void Caller::read_mail(std::uint64_t own) {
    bool space = false;
    bool for_others = false;
    Letter letter;
    while (take_letter(view(), self_, epoch_, &letter, &space)) {
        Pending* pending = find(letter.correlation);
        const bool is_answer =
            letter.kind == LetterKind::kReply || letter.kind == LetterKind::kFailure;
        if (!is_answer || pending == nullptr || !(pending->responder == letter.from) ||
            pending->state == State::kAnswered) {
            discard(letter);
        } else if (pending->state == State::kAbandoned) {
            pending->state = State::kUnused;
            discard(letter);
        } else {
            pending->state = State::kAnswered;
            pending->answer = letter;
            for_others = for_others || letter.correlation != own;
        }
    }
    if (space) {
        wake_space(*topic_);
    }
    if (for_others) {
        ring_own();  // whoever waits for these may be another thread or task
    }
}

fg_status Caller::deliver(Pending* pending, fg_frame* reply) {
    const Letter& answer = pending->answer;
    view().participants[self_.index].received.store(++answered_, kRelaxed);  // for inspectors
    const bool has_reply = answer.kind != LetterKind::kFailure && lease(answer, reply) != nullptr;
    end(pending, State::kUnused);
    if (has_reply) {
        return FG_OK;
    }
    return answer.kind == LetterKind::kFailure
               ? fail(FG_CALL_FAILED, "%.*s", static_cast<int>(answer.bytes),
                      reinterpret_cast<const char*>(answer.data))
               : fail(FG_CALL_FAILED,
                      "topic \"%s\": the reply could not be read: no memory or descriptors left, "
                      "or the topic is damaged",
                      topic_->name_);
}

// Nobody waits for the answer any more. True if the responder never saw the request.
bool Caller::give_up(Pending* pending) {
    if (pending->state == State::kAnswered) {
        discard(pending->answer);
        end(pending, State::kUnused);
        return false;
    }
    const Withdrawal withdrawal =
        withdraw_letter(view(), self_, pending->responder, pending->posted,
                        // A slot of a generation that we left matters to nobody.
                        pending->generation == geometry().generation ? pending->slot : kNoSlot,
                        slot_word(0, 0, SlotState::kFree));
    wake_space(*topic_);
    end(pending, withdrawal == Withdrawal::kRead ? State::kAbandoned : State::kUnused);
    return withdrawal != Withdrawal::kRead;
}

fg_status Caller::look(std::uint64_t number, fg_frame* reply) {
    Pending* pending = find(number);
    if (pending == nullptr || pending->state == State::kAbandoned) {
        return fail(FG_INVALID_ARGUMENT, "topic \"%s\": call %" PRIu64 " is over", topic_->name_,
                    number);
    }
    // Before the mailbox is read: what it posted before it went is there then.
    const bool is_gone =
        open_epoch(view(), pending->responder.participant) != pending->responder.epoch;
    if (pending->state == State::kWaiting) {
        read_mail(number);
    }
    if (pending->state == State::kAnswered) {
        return deliver(pending, reply);
    }
    if (is_gone) {
        end(pending, State::kUnused);
        return fail(FG_RESPONDER_DIED,
                    "topic \"%s\": the responder died or closed before it answered", topic_->name_);
    }
    if (monotonic_ns() < pending->deadline_ns) {
        return FG_EMPTY;
    }
    view().participants[self_.index].lost.store(++late_, kRelaxed);  // for inspectors
    return give_up(pending)
               ? fail(FG_TIMEOUT, "topic \"%s\": no responder took up the call in time",
                      topic_->name_)
               : fail(FG_TIMEOUT,
                      "topic \"%s\": responder %u took up the call but did not answer in time",
                      topic_->name_, pending->responder.participant);
}

fg_status Caller::wait(std::uint64_t number, std::int64_t timeout_ns, fg_frame* reply) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;  // before lock_: in a forked child nobody may be there to unlock it
    }
    std::int64_t patience = timeout_ns;
    if (timeout_ns != 0) {
        const Locked guard(lock_);
        const Pending* pending = find(number);
        if (pending != nullptr && pending->deadline_ns != kNever) {
            const std::uint64_t now = monotonic_ns();
            // One more than the rest, so that the look afterwards finds the deadline passed.
            const auto rest = static_cast<std::int64_t>(
                pending->deadline_ns > now ? pending->deadline_ns - now + 1 : 1);
            patience = timeout_ns < 0 || rest < timeout_ns ? rest : timeout_ns;
        }
    }
    return wait_for_mail(patience, [&] { return look(number, reply); });
}

fg_status Caller::cancel(std::uint64_t number) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Call guard(*this);
    Pending* pending = find(number);
    if (pending != nullptr && pending->state != State::kAbandoned) {
        give_up(pending);
    }
    return FG_OK;
}

void Caller::close() {
    if (is_forked()) {
        return;
    }
    {
        const Call guard(*this);
        for (std::uint32_t i = 0; i < calls_max_; ++i) {
            if (pending_[i].state != State::kWaiting && pending_[i].state != State::kAnswered) {
                continue;
            }
            if (is_alive()) {
                give_up(&pending_[i]);
            } else {
                end(&pending_[i], State::kUnused);
            }
        }
        end_correspondence();
    }
    Handle::close();
}

void Caller::destroy(Handle& handle) {
    auto* caller = static_cast<Caller*>(&handle);
    std::free(caller->pending_);
    std::free(caller);
}

}  // namespace framegate::impl
