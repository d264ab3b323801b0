// Subscriber and Frame: the reading side.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <string>

#include "fast_call.hpp"
#include "region.hpp"
#include "topic.hpp"

namespace framegate::py {

// A leased frame. The lease ends when the object and every view of it are gone, or by release().
//
// One that came over the network (framegate.remote) is the same class without a lease: its payload
// lies in the message that brought it, which it keeps instead of a slot.
class Frame final : public Region {
  public:
    // Takes over the lease.
    Frame(fg_subscriber* subscriber, const fg_frame& frame);
    // The payload is the message from `begin` on; `schema` has been compared with its length.
    Frame(nb::bytes message, std::size_t begin, SchemaPtr schema, const std::string& content_type,
          const fg_frame& head);
    ~Frame() override;

    const Schema& schema() override;
    void release();
    void nack();
    // release() if it is the usual case, in which nothing can be refused: the lease is ours and
    // ends, no view exists and nothing beside the payload is to be kept.
    FastResult release_plain() noexcept;

    [[nodiscard]] const fg_frame& header() const { return frame_; }
    // Can still be read after release().
    nb::object metadata();
    nb::object content_type();
    // The mapping behind `.metadata`, null before it was asked for. Users may put anything into it,
    // this very frame too: the garbage collector looks here.
    nb::object& cached_metadata() { return metadata_; }

  private:
    void end(fg_status (*way)(fg_subscriber*, fg_frame*));

    fg_subscriber* subscriber_;  // kept alive by the lease; null: no lease, but a message
    nb::object message_;         // bytes: nothing that could refer to this frame
    fg_frame frame_;
    SchemaPtr schema_;
    nb::object metadata_;
    // What lay beside the payload, copied at release().
    struct Kept {
        std::string metadata;
        std::string content_type;
    };
    std::unique_ptr<Kept> kept_;
};

class Subscriber {
  public:
    Subscriber(const Topic& topic, const std::string& policy, std::uint32_t max_leases,
               const std::string& start, double spin, const std::string& name);
    Subscriber(const Subscriber&) = delete;
    Subscriber& operator=(const Subscriber&) = delete;
    ~Subscriber() { close(); }

    void close() noexcept;
    [[nodiscard]] bool is_closed() const { return handle_ == nullptr; }
    [[nodiscard]] fg_subscriber* handle() const;  // raises ClosedError

    // A new Frame; null when none came in time, or (in `closed`) when the handle was closed
    // meanwhile.
    nb::object take(std::optional<double> timeout, bool& closed);
    // The next frame if there is one now; not done if there is anything else to say.
    FastResult take_waiting_frame() noexcept;
    nb::object peek();
    [[nodiscard]] fg_subscriber_stats stats() const;  // the last known ones after close()

    std::string topic;
    std::string policy;

  private:
    static PyObject* new_frame(fg_subscriber* handle, fg_frame& frame) noexcept;
    static nb::object make_frame(fg_subscriber* handle, fg_frame& frame);
    [[noreturn]] void raise(fg_status status) const;

    fg_subscriber* handle_ = nullptr;
    fg_subscriber_stats last_stats_{};
};

void bind_subscriber(nb::module_& module);

}  // namespace framegate::py
