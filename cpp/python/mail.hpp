// Calls: Caller and Responder, and the messages that they exchange.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <string>

#include "publisher.hpp"
#include "region.hpp"
#include "topic.hpp"

namespace framegate::py {

// What the handle behind a message can do with it: the same for callers and responders.
struct MailFunctions {
    fg_status (*arrays)(void* handle, const fg_frame* frame, fg_array* out, std::size_t capacity,
                        std::size_t* count);
    fg_status (*release)(void* handle, fg_frame* frame);
};

// A request or a reply as it arrived. Small ones are copied out at once, so that they occupy no
// slot while somebody keeps them; large ones are leased like frames.
class Message : public Region {
  public:
    // Takes over the lease, also when it throws.
    Message(const char* kind, void* handle, const MailFunctions& functions, fg_frame frame);
    ~Message() override;

    const Schema& schema() override { return *schema_; }
    void release();
    nb::object metadata();
    nb::object content_type() const;
    [[nodiscard]] double timestamp() const { return frame_.timestamp_s; }
    [[nodiscard]] std::uint64_t published_ns() const { return frame_.published_ns; }

  private:
    struct Unaligned {
        void operator()(std::byte* memory) const {
            ::operator delete[](memory, std::align_val_t(FG_ARRAY_ALIGNMENT));
        }
    };

    void* handle_;  // kept alive by the lease
    const MailFunctions& functions_;
    fg_frame frame_;  // data is null once the lease ended
    std::unique_ptr<std::byte[], Unaligned> copy_;
    SchemaPtr schema_;
    std::string metadata_text_;
    std::string content_type_;
    nb::object metadata_;
};

class Responder;

// A message that waits for its answer; dropping it without one fails the call.
class Request final : public Message {
  public:
    Request(const Responder& responder, fg_responder* handle, const fg_request& request);
    ~Request() override;

    // False: nobody waits any more.
    bool reply(nb::handle data, const PublishDetails& details, std::optional<double> timeout);
    bool fail(const std::string& text);
    [[nodiscard]] bool is_answered() const { return request_.id == 0; }
    [[nodiscard]] std::uint32_t caller() const { return request_.caller; }
    [[nodiscard]] std::uint64_t deadline_ns() const { return request_.deadline_ns; }

  private:
    void require_unanswered() const;

    fg_responder* responder_;  // kept alive by the duty to answer
    fg_request request_;
    Publisher loans_;
};

class Caller {
  public:
    Caller(const Topic& topic, std::uint32_t calls_max, const std::string& name);
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;
    ~Caller() { close(); }

    void close() noexcept;
    [[nodiscard]] bool is_closed() const { return handle_ == nullptr; }
    [[nodiscard]] fg_caller* handle() const;  // raises ClosedError

    // Posts a request; the time-outs are those of the call and of the wait for a slot.
    std::uint64_t start(nb::handle data, const PublishDetails& details,
                        std::optional<double> timeout, std::optional<double> slot_timeout);
    nb::object wait(std::uint64_t call);
    nb::object poll(std::uint64_t call);  // null: not yet

    std::string topic;

  private:
    nb::object reply_of(fg_caller* handle, fg_status status, const fg_frame& frame);

    fg_caller* handle_ = nullptr;
    Publisher loans_;
};

class Responder {
  public:
    Responder(const Topic& topic, std::uint32_t requests_max, const std::string& name);
    Responder(const Responder&) = delete;
    Responder& operator=(const Responder&) = delete;
    ~Responder() { close(); }

    void close() noexcept;
    [[nodiscard]] bool is_closed() const { return handle_ == nullptr; }
    [[nodiscard]] fg_responder* handle() const;

    // A new Request; null when none came in time, or (in `closed`) when the handle was closed.
    nb::object take(std::optional<double> timeout, bool& closed);

    std::string topic;

  private:
    fg_responder* handle_ = nullptr;
};

void bind_mail(nb::module_& module);

}  // namespace framegate::py
