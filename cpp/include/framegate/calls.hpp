// Calls from C++: RAII over shm.h. A caller asks, a responder answers; see there what each does.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "framegate/publisher.hpp"
#include "framegate/types.hpp"

namespace framegate {

/// A slot on its way into a message; given back by the destructor unless it was posted. Move-only.
class MessageLoan {
  public:
    MessageLoan(MessageLoan&& other) noexcept
        : publisher_(other.publisher_),
          owner_(std::move(other.owner_)),
          raw_(std::exchange(other.raw_, fg_loan{})) {}
    MessageLoan(const MessageLoan&) = delete;
    MessageLoan& operator=(const MessageLoan&) = delete;
    MessageLoan& operator=(MessageLoan&&) = delete;
    ~MessageLoan() {
        if (raw_.data != nullptr) {
            fg_publisher_abandon(publisher_, &raw_);
        }
    }

    /// The slot's memory, writable until posted.
    std::span<std::byte> bytes() const {
        return {static_cast<std::byte*>(raw_.data), raw_.capacity};
    }

  private:
    friend class Caller;
    friend class Request;
    MessageLoan(fg_publisher* publisher, std::shared_ptr<void> owner, const fg_loan& raw)
        : publisher_(publisher), owner_(std::move(owner)), raw_(raw) {}
    fg_publisher* publisher_;
    std::shared_ptr<void> owner_;
    fg_loan raw_;
};

/// A reply: read-only, valid and unchanged until destroyed. Move-only; keeps its caller attached.
class Reply {
  public:
    Reply(Reply&& other) noexcept
        : caller_(std::move(other.caller_)), raw_(std::exchange(other.raw_, fg_frame{})) {}
    Reply(const Reply&) = delete;
    Reply& operator=(const Reply&) = delete;
    Reply& operator=(Reply&&) = delete;
    ~Reply() {
        if (raw_.data != nullptr) {
            fg_caller_release(caller_.get(), &raw_);
        }
    }

    std::span<const std::byte> bytes() const {
        return {static_cast<const std::byte*>(raw_.data), raw_.bytes};
    }
    std::optional<double> timestamp_s() const {
        return std::isnan(raw_.timestamp_s) ? std::nullopt : std::optional(raw_.timestamp_s);
    }
    std::string_view content_type() const { return {raw_.content_type, raw_.content_type_bytes}; }
    std::span<const std::byte> user_metadata() const {
        return {static_cast<const std::byte*>(raw_.user_metadata), raw_.user_metadata_bytes};
    }

    /// Validated copies of the array descriptors; empty: raw bytes.
    Result<std::vector<fg_array>> arrays() const {
        std::vector<fg_array> arrays(raw_.array_count);
        const fg_status status =
            fg_caller_arrays(caller_.get(), &raw_, arrays.data(), arrays.size(), nullptr);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return arrays;
    }

  private:
    friend class Call;
    Reply(std::shared_ptr<fg_caller> caller, const fg_frame& raw)
        : caller_(std::move(caller)), raw_(raw) {}
    std::shared_ptr<fg_caller> caller_;
    fg_frame raw_;
};

/// A call in flight; the destructor takes the request back. Move-only.
class Call {
  public:
    Call(Call&& other) noexcept
        : caller_(std::move(other.caller_)), number_(std::exchange(other.number_, 0)) {}
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    Call& operator=(Call&&) = delete;
    ~Call() {
        if (number_ != 0) {
            fg_caller_cancel(caller_.get(), number_);
        }
    }

    /// Waits for the reply, at most that long; no value: the call goes on. Any error but
    /// `INTERRUPTED` ends the call.
    Result<std::optional<Reply>> wait(Timeout timeout = kForever) {
        fg_frame raw{};
        const fg_status status = fg_caller_wait(caller_.get(), number_, timeout.count(), &raw);
        if (status == FG_EMPTY) {
            return std::optional<Reply>();
        }
        if (status != FG_OK) {
            return Error::last(status);
        }
        return std::optional<Reply>(Reply(caller_, raw));
    }

  private:
    friend class Caller;
    Call(std::shared_ptr<fg_caller> caller, std::uint64_t number)
        : caller_(std::move(caller)), number_(number) {}
    std::shared_ptr<fg_caller> caller_;
    std::uint64_t number_;
};

/// One participant that asks. Move-only; usable from several threads.
class Caller {
  public:
    static Result<Caller> open(const Topic& topic, std::string_view name = {},
                               std::uint32_t calls_max = 0) {
        fg_caller_options options;
        fg_caller_options_init(&options);
        options.name = name.data();
        options.name_bytes = static_cast<std::uint32_t>(name.size());
        options.calls_max = calls_max;
        fg_caller* raw = nullptr;
        if (const fg_status status = fg_caller_open(topic.get(), &options, &raw); status != FG_OK) {
            return Error::last(status);
        }
        return Caller(raw);
    }
    Caller(Caller&&) noexcept = default;
    Caller& operator=(Caller&&) noexcept = default;
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;

    /// A slot for a request of `bytes`; waits up to the time-out for one.
    Result<MessageLoan> loan(std::uint64_t bytes, Timeout timeout = Timeout::zero()) {
        fg_publisher* publisher = fg_caller_loans(raw_.get());
        fg_loan raw{};
        const fg_status status = fg_publisher_loan(publisher, bytes, timeout.count(), &raw);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return MessageLoan(publisher, raw_, raw);
    }

    /// Posts the loan to the responder that has the least to do. On a refusal that leaves it good,
    /// its `bytes()` stay usable.
    Result<Call> start(MessageLoan& loan, const FrameInfo& info, Timeout timeout) {
        std::uint64_t number = 0;
        const fg_status status =
            fg_caller_call(raw_.get(), &loan.raw_, &info, timeout.count(), &number);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return Call(raw_, number);
    }

    /// Loan, copy, post, wait for the reply.
    Result<Reply> call(std::span<const std::byte> bytes, Timeout timeout) {
        auto loan = this->loan(bytes.size(), timeout);
        if (!loan) {
            return loan.error();
        }
        if (!bytes.empty()) {
            std::memcpy(loan->bytes().data(), bytes.data(), bytes.size());
        }
        auto call = start(*loan, FrameInfo(bytes.size()), timeout);
        if (!call) {
            return call.error();
        }
        for (;;) {
            auto reply = call->wait();
            if (!reply) {
                return reply.error();
            }
            if (reply->has_value()) {
                return std::move(**reply);
            }
        }
    }

    /// The fd for event loops and its cycle: see fg_caller_event_fd.
    Result<int> event_fd() {
        int fd = -1;
        const fg_status status = fg_caller_event_fd(raw_.get(), &fd);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return fd;
    }
    Result<bool> arm() {
        int ready = 0;
        const fg_status status = fg_caller_arm(raw_.get(), &ready);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return ready != 0;
    }
    Result<void> drain() { return Result<void>::from(fg_caller_drain(raw_.get())); }

  private:
    explicit Caller(fg_caller* raw) : raw_(raw, fg_caller_close) {}
    std::shared_ptr<fg_caller> raw_;
};

/// A request that waits for its answer; the destructor fails it if there was none. Move-only.
class Request {
  public:
    Request(Request&& other) noexcept
        : responder_(std::move(other.responder_)), raw_(std::exchange(other.raw_, fg_request{})) {}
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    Request& operator=(Request&&) = delete;
    ~Request() {
        if (responder_ != nullptr) {
            fg_responder_release(responder_.get(), &raw_.frame);
            fg_responder_drop(responder_.get(), &raw_);
        }
    }

    std::span<const std::byte> bytes() const {
        return {static_cast<const std::byte*>(raw_.frame.data), raw_.frame.bytes};
    }
    std::string_view content_type() const {
        return {raw_.frame.content_type, raw_.frame.content_type_bytes};
    }
    std::span<const std::byte> user_metadata() const {
        return {static_cast<const std::byte*>(raw_.frame.user_metadata),
                raw_.frame.user_metadata_bytes};
    }
    /// CLOCK_MONOTONIC at which the caller gives up; UINT64_MAX: never.
    std::uint64_t deadline_ns() const { return raw_.deadline_ns; }
    std::uint32_t caller() const { return raw_.caller; }

    /// Validated copies of the array descriptors; empty: raw bytes.
    Result<std::vector<fg_array>> arrays() const {
        std::vector<fg_array> arrays(raw_.frame.array_count);
        const fg_status status = fg_responder_arrays(responder_.get(), &raw_.frame, arrays.data(),
                                                     arrays.size(), nullptr);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return arrays;
    }

    /// A slot for a reply of `bytes`; waits up to the time-out for one.
    Result<MessageLoan> loan(std::uint64_t bytes, Timeout timeout = Timeout::zero()) {
        fg_publisher* publisher = fg_responder_loans(responder_.get());
        fg_loan raw{};
        const fg_status status = fg_publisher_loan(publisher, bytes, timeout.count(), &raw);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return MessageLoan(publisher, responder_, raw);
    }

    /// Answers with the loan. `CALLER_GONE`: nobody waits any more.
    Result<void> reply(MessageLoan& loan, const FrameInfo& info) {
        return Result<void>::from(fg_responder_reply(responder_.get(), &raw_, &loan.raw_, &info));
    }
    /// Loan, copy, answer.
    Result<void> reply(std::span<const std::byte> bytes, Timeout timeout = Timeout::zero()) {
        auto loan = this->loan(bytes.size(), timeout);
        if (!loan) {
            return loan.error();
        }
        if (!bytes.empty()) {
            std::memcpy(loan->bytes().data(), bytes.data(), bytes.size());
        }
        return reply(*loan, FrameInfo(bytes.size()));
    }
    /// Answers that it failed.
    Result<void> fail(std::string_view text) {
        return Result<void>::from(
            fg_responder_fail(responder_.get(), &raw_, text.data(), text.size()));
    }

  private:
    friend class Responder;
    Request(std::shared_ptr<fg_responder> responder, const fg_request& raw)
        : responder_(std::move(responder)), raw_(raw) {}
    std::shared_ptr<fg_responder> responder_;
    fg_request raw_;
};

/// One participant that answers. Move-only; usable from several threads.
class Responder {
  public:
    static Result<Responder> open(const Topic& topic, std::string_view name = {},
                                  std::uint32_t requests_max = 0) {
        fg_responder_options options;
        fg_responder_options_init(&options);
        options.name = name.data();
        options.name_bytes = static_cast<std::uint32_t>(name.size());
        options.requests_max = requests_max;
        fg_responder* raw = nullptr;
        if (const fg_status status = fg_responder_open(topic.get(), &options, &raw);
            status != FG_OK) {
            return Error::last(status);
        }
        return Responder(raw);
    }
    Responder(Responder&&) noexcept = default;
    Responder& operator=(Responder&&) noexcept = default;
    Responder(const Responder&) = delete;
    Responder& operator=(const Responder&) = delete;

    /// Takes a request; no value: there was none within the time-out.
    Result<std::optional<Request>> take(Timeout timeout = Timeout::zero()) {
        fg_request raw{};
        const fg_status status = fg_responder_take(raw_.get(), timeout.count(), &raw);
        if (status == FG_EMPTY || status == FG_TIMEOUT) {
            return std::optional<Request>();
        }
        if (status != FG_OK) {
            return Error::last(status);
        }
        return std::optional<Request>(Request(raw_, raw));
    }

    /// The fd for event loops and its cycle: see fg_responder_event_fd.
    Result<int> event_fd() {
        int fd = -1;
        const fg_status status = fg_responder_event_fd(raw_.get(), &fd);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return fd;
    }
    Result<bool> arm() {
        int ready = 0;
        const fg_status status = fg_responder_arm(raw_.get(), &ready);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return ready != 0;
    }
    Result<void> drain() { return Result<void>::from(fg_responder_drain(raw_.get())); }

  private:
    explicit Responder(fg_responder* raw) : raw_(raw, fg_responder_close) {}
    std::shared_ptr<fg_responder> raw_;
};

}  // namespace framegate
