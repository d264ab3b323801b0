// Callers and responders that close themselves, and the calls of tests.
#pragma once

#include <memory>
#include <string>

#include "mailbox.hpp"
#include "support.hpp"

namespace test {

struct CallerClose {
    void operator()(fg_caller* caller) const { fg_caller_close(caller); }
};
struct ResponderClose {
    void operator()(fg_responder* responder) const { fg_responder_close(responder); }
};
using Caller = std::unique_ptr<fg_caller, CallerClose>;
using Responder = std::unique_ptr<fg_responder, ResponderClose>;

inline Caller caller(const Topic& topic, std::uint32_t calls_max = 0) {
    fg_caller_options value;
    fg_caller_options_init(&value);
    value.calls_max = calls_max;
    fg_caller* handle = nullptr;
    const fg_status status = fg_caller_open(topic.get(), &value, &handle);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    return Caller(handle);
}

inline Responder responder(const Topic& topic, std::uint32_t requests_max = 0) {
    fg_responder_options value;
    fg_responder_options_init(&value);
    value.requests_max = requests_max;
    fg_responder* handle = nullptr;
    const fg_status status = fg_responder_open(topic.get(), &value, &handle);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    return Responder(handle);
}

// Posts `text`; on a refusal the loan goes back.
inline fg_status call(const Caller& handle, const std::string& text, std::uint64_t* number,
                      std::int64_t timeout_ns = kPatienceNs) {
    fg_loan loan{};
    fg_status status = fg_publisher_loan(fg_caller_loans(handle.get()), text.size(), 0, &loan);
    if (status != FG_OK) {
        return status;
    }
    std::memcpy(loan.data, text.data(), text.size());
    const fg_publish_info info = bytes_info(text.size());
    status = fg_caller_call(handle.get(), &loan, &info, timeout_ns, number);
    if (status != FG_OK && loan.data != nullptr) {
        fg_publisher_abandon(fg_caller_loans(handle.get()), &loan);
    }
    return status;
}

// The text of the answer, released.
inline fg_status answer(const Caller& handle, std::uint64_t number, std::string* text,
                        std::int64_t timeout_ns = kPatienceNs) {
    fg_frame reply{};
    const fg_status status = fg_caller_wait(handle.get(), number, timeout_ns, &reply);
    if (status == FG_OK) {
        *text = text_of(reply);
        return fg_caller_release(handle.get(), &reply);
    }
    return status;
}

inline fg_status reply(const Responder& handle, fg_request* request, const std::string& text) {
    fg_publisher* loans = fg_responder_loans(handle.get());
    fg_loan loan{};
    fg_status status = fg_publisher_loan(loans, text.size(), kPatienceNs, &loan);
    if (status != FG_OK) {
        return status;
    }
    std::memcpy(loan.data, text.data(), text.size());
    const fg_publish_info info = bytes_info(text.size());
    status = fg_responder_reply(handle.get(), request, &loan, &info);
    if (status != FG_OK) {
        fg_publisher_abandon(loans, &loan);
    }
    return status;
}

// Takes one request, answers it with its text backwards, releases it.
inline fg_status serve_one(const Responder& handle, std::int64_t timeout_ns = kPatienceNs) {
    fg_request request{};
    fg_status status = fg_responder_take(handle.get(), timeout_ns, &request);
    if (status == FG_OK) {
        const std::string text = text_of(request.frame);
        status = reply(handle, &request, std::string(text.rbegin(), text.rend()));
        fg_responder_drop(handle.get(), &request);
        fg_responder_release(handle.get(), &request.frame);
    }
    return status;
}

// Letters in all mailboxes, and slots that are not free (frames included).
inline std::uint32_t letters_everywhere(const Topic& topic) {
    std::uint32_t letters = 0;
    for (std::uint32_t i = 0; i < view_of(topic).participants_max; ++i) {
        letters += framegate::impl::has_mailbox(view_of(topic), i)
                       ? framegate::impl::letters_in(view_of(topic), i)
                       : 0;
    }
    return letters;
}
inline std::uint32_t busy_slots(const Topic& topic) {
    std::uint32_t busy = 0;
    for (std::uint32_t i = 0; i < view_of(topic).slot_count; ++i) {
        busy += framegate::impl::word_state(view_of(topic).slots[i].word.load()) !=
                        framegate::impl::SlotState::kFree
                    ? 1
                    : 0;
    }
    return busy;
}

}  // namespace test
