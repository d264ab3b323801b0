#include "mail.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <vector>

#include "deadline.hpp"
#include "dlpack.hpp"
#include "errors.hpp"
#include "fork.hpp"
#include "gil.hpp"
#include "values.hpp"

namespace framegate::py {
namespace {

// Copying this much costs about as much as a system call; leasing it would cost a slot.
constexpr std::size_t kCopyOutBytesMax = 16 * 1024;

constexpr MailFunctions kOfCaller = {
    [](void* handle, const fg_frame* frame, fg_array* out, std::size_t capacity,
       std::size_t* count) {
        return fg_caller_arrays(static_cast<fg_caller*>(handle), frame, out, capacity, count);
    },
    [](void* handle, fg_frame* frame) {
        return fg_caller_release(static_cast<fg_caller*>(handle), frame);
    }};
constexpr MailFunctions kOfResponder = {
    [](void* handle, const fg_frame* frame, fg_array* out, std::size_t capacity,
       std::size_t* count) {
        return fg_responder_arrays(static_cast<fg_responder*>(handle), frame, out, capacity, count);
    },
    [](void* handle, fg_frame* frame) {
        return fg_responder_release(static_cast<fg_responder*>(handle), frame);
    }};

// Bytes of another process as text, whatever they are.
nb::object text_of(const std::string& bytes) {
    nb::object text = nb::steal(
        PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace"));
    if (!text.is_valid()) {
        throw nb::python_error();
    }
    return text;
}

// Seconds from Python as the nanoseconds of a call; None never ends.
std::int64_t nanoseconds(std::optional<double> timeout) {
    const Deadline deadline(timeout);  // raises ValueError
    constexpr double kForEver = 1e9;
    return !timeout.has_value() || *timeout > kForEver ? -1
                                                       : static_cast<std::int64_t>(*timeout * 1e9);
}

}  // namespace

// ---- message ------------------------------------------------------------------------------------

Message::Message(const char* kind, void* handle, const MailFunctions& functions, fg_frame frame)
    : handle_(handle), functions_(functions), frame_(frame) {
    try {
        noun = kind;
        bytes = frame.bytes;
        fork_generation = py::fork_generation();
        fg_array arrays[FG_ARRAYS_MAX];
        std::size_t count = 0;
        if (frame.array_count != 0) {
            check(functions.arrays(handle, &frame_, arrays, FG_ARRAYS_MAX, &count));
        }
        schema_ = shared_schema_from_arrays(arrays, std::min<std::size_t>(count, FG_ARRAYS_MAX));
        metadata_text_.assign(static_cast<const char*>(frame.user_metadata),
                              frame.user_metadata_bytes);
        content_type_.assign(frame.content_type, frame.content_type_bytes);
        data = const_cast<std::byte*>(
            static_cast<const std::byte*>(frame.data));  // never written: `readonly` is set
        if (bytes <= kCopyOutBytesMax) {
            copy_.reset(static_cast<std::byte*>(::operator new[](
                std::max<std::size_t>(bytes, 1), std::align_val_t(FG_ARRAY_ALIGNMENT))));
            std::memcpy(copy_.get(), data, bytes);
            data = copy_.get();
            check(functions.release(handle, &frame_));
        }
        live = true;
    } catch (...) {
        (void)functions.release(handle, &frame_);  // harmless if it was
        throw;
    }
}

Message::~Message() {
    if (frame_.data != nullptr && fork_generation == py::fork_generation()) {
        (void)functions_.release(handle_, &frame_);
    }
}

void Message::release() {
    if (!live) {
        return;
    }
    require_live();
    if (exports > 0) {
        const std::string message =
            std::to_string(Py_ssize_t{exports}) + " view(s) of this " + noun +
            " exist (arrays, memoryviews, tensors): drop them first, or drop the " + noun +
            " and let the last of them end the lease";
        throw nb::buffer_error(message.c_str());
    }
    live = false;
    if (frame_.data != nullptr) {
        check(functions_.release(handle_, &frame_));
    }
}

nb::object Message::metadata() {
    if (!metadata_.is_valid()) {
        metadata_ = metadata_text_.empty()
                        ? nb::object(nb::dict())
                        : decode_values(metadata_text_.data(), metadata_text_.size(),
                                        std::string("the metadata of a ") + noun);
    }
    return metadata_;
}

nb::object Message::content_type() const {
    return content_type_.empty() ? nb::none() : text_of(content_type_);
}

// ---- request ------------------------------------------------------------------------------------

Request::Request(const Responder& responder, fg_responder* handle, const fg_request& request)
    : Message("request", handle, kOfResponder, request.frame),
      responder_(handle),
      request_(request),
      loans_(responder.topic) {
    loans_.borrow(fg_responder_loans(handle));
}

Request::~Request() {
    if (!is_answered() && fork_generation == py::fork_generation()) {
        fg_responder_drop(responder_, &request_);
    }
}

void Request::require_unanswered() const {
    if (fork_generation != py::fork_generation()) {
        raise_error(FG_FORKED, "this request belongs to the parent process");
    }
    if (is_answered()) {
        raise_error(FG_INVALID_ARGUMENT, "this request was answered before");
    }
}

bool Request::reply(nb::handle answer, const PublishDetails& details,
                    std::optional<double> timeout) {
    require_unanswered();
    FilledLoan filled = loans_.fill(answer, timeout);
    require_unanswered();  // another thread may have answered while this one waited for a slot
    const fg_publish_info info = details.info(filled.bytes, filled.arrays);
    const fg_status status = fg_responder_reply(responder_, &request_, filled.loan.get(), &info);
    if (status == FG_OK || status == FG_CALLER_GONE) {
        return status == FG_OK;
    }
    const std::string text = fg_last_error();  // before the loan goes back, which also is a call
    filled.loan.abandon();
    raise_error(status, text);
}

bool Request::fail(const std::string& text) {
    require_unanswered();
    const fg_status status = fg_responder_fail(responder_, &request_, text.data(), text.size());
    if (status != FG_CALLER_GONE) {
        check(status);
    }
    return status == FG_OK;
}

// ---- caller -------------------------------------------------------------------------------------

Caller::Caller(const Topic& opened, std::uint32_t calls_max, const std::string& name)
    : topic(opened.name), loans_(opened.name) {
    fg_caller_options options;
    fg_caller_options_init(&options);
    options.calls_max = calls_max;
    handle_ = opened.open_participant(fg_caller_open, options, name);
    loans_.borrow(fg_caller_loans(handle_));
}

void Caller::close() noexcept {
    fg_caller* handle = handle_;
    handle_ = nullptr;
    loans_.close();
    if (handle != nullptr) {
        fg_caller_close(handle);
    }
}

fg_caller* Caller::handle() const {
    if (handle_ == nullptr) {
        raise_error(FG_CLOSED, "this caller of topic \"" + topic + "\" was closed");
    }
    return handle_;
}

std::uint64_t Caller::start(nb::handle data, const PublishDetails& details,
                            std::optional<double> timeout, std::optional<double> slot_timeout) {
    (void)handle();
    FilledLoan filled = loans_.fill(data, slot_timeout);
    fg_caller* handle = this->handle();  // again: it may have been closed while we waited
    const fg_publish_info info = details.info(filled.bytes, filled.arrays);
    std::uint64_t call = 0;
    const fg_status status =
        fg_caller_call(handle, filled.loan.get(), &info, nanoseconds(timeout), &call);
    if (status != FG_OK) {
        const std::string text = fg_last_error();
        filled.loan.abandon();
        raise_error(status, text);
    }
    return call;
}

nb::object Caller::reply_of(fg_caller* handle, fg_status status, const fg_frame& frame) {
    if (status == FG_OK) {
        return nb::cast(
            std::make_unique<Message>("reply", static_cast<void*>(handle), kOfCaller, frame));
    }
    if (status == FG_EMPTY || status == FG_INTERRUPTED) {
        return {};
    }
    if (status == FG_CLOSED) {
        raise_error(status, "this caller of topic \"" + topic + "\" was closed");
    }
    raise_error(status, nb::cast<std::string>(text_of(fg_last_error())));
}

nb::object Caller::wait(std::uint64_t call) {
    constexpr std::int64_t kSliceNs = 250'000'000;  // Ctrl-C is served between two of them
    for (;;) {
        fg_caller* handle = this->handle();
        fg_frame frame{};
        fg_status status = FG_OK;
        const KeptCaller kept(handle);
        {
            const WithoutGil released;
            status = fg_caller_wait(handle, call, kSliceNs, &frame);
        }
        const nb::object reply = reply_of(handle, status, frame);
        if (reply.is_valid()) {
            return reply;
        }
        if (PyErr_CheckSignals() != 0) {
            if (handle_ != nullptr) {
                (void)fg_caller_cancel(handle_, call);
            }
            throw nb::python_error();
        }
    }
}

nb::object Caller::poll(std::uint64_t call) {
    fg_frame frame{};
    fg_caller* handle = this->handle();
    return reply_of(handle, fg_caller_wait(handle, call, 0, &frame), frame);
}

// ---- responder ----------------------------------------------------------------------------------

Responder::Responder(const Topic& opened, std::uint32_t requests_max, const std::string& name)
    : topic(opened.name) {
    fg_responder_options options;
    fg_responder_options_init(&options);
    options.requests_max = requests_max;
    handle_ = opened.open_participant(fg_responder_open, options, name);
}

void Responder::close() noexcept {
    fg_responder* handle = handle_;
    handle_ = nullptr;
    if (handle != nullptr) {
        fg_responder_close(handle);
    }
}

fg_responder* Responder::handle() const {
    if (handle_ == nullptr) {
        raise_error(FG_CLOSED, "this responder of topic \"" + topic + "\" was closed");
    }
    return handle_;
}

nb::object Responder::take(std::optional<double> timeout, bool& closed) {
    closed = false;
    const Deadline deadline(timeout);
    fg_responder* handle = this->handle();
    fg_request request{};
    fg_status status = fg_responder_take(handle, 0, &request);
    std::optional<KeptResponder> kept;
    if (status != FG_OK) {
        kept.emplace(handle);  // until there is a request, which keeps it
    }
    while (status == FG_EMPTY || status == FG_TIMEOUT || status == FG_INTERRUPTED) {
        if (PyErr_CheckSignals() != 0) {
            throw nb::python_error();
        }
        if (deadline.is_immediate() || deadline.is_over()) {
            return {};
        }
        const WithoutGil released;
        status = fg_responder_take(handle, deadline.slice_ns(), &request);
    }
    if (status == FG_CLOSED) {
        closed = true;
        return {};
    }
    check(status);
    try {
        return nb::cast(std::make_unique<Request>(*this, handle, request));
    } catch (...) {
        fg_responder_drop(handle, &request);
        throw;
    }
}

// ---- binding ------------------------------------------------------------------------------------

namespace {

nb::object or_none(nb::object object) { return object.is_valid() ? object : nb::none(); }

void bind_message(nb::module_& module) {
    using nb::literals::operator""_a;

    LockedClass<Message>(
        module, "Message", nb::type_slots(region_slots<Message>), nb::is_weak_referenceable(),
        "The payload of a request or a reply: bytes, or arrays.\n"
        "\n"
        "Views are read-only; those of large messages show the shared memory itself, which\n"
        "stays theirs until `release()`, the end of a `with` block, or until the message and\n"
        "every view of it are gone.")
        .def_prop_ro(
            "array",
            [](nb::handle_t<Message> self) {
                auto& message = nb::cast<Message&>(self);
                message.require_live();
                return whole_array(self, message, "array");
            },
            nb::sig("def array(self) -> numpy.typing.NDArray[typing.Any]"),
            "The only array, or the bytes, as a read-only numpy array (a memoryview without\n"
            "numpy).")
        .def_prop_ro(
            "arrays",
            [](nb::handle_t<Message> self) { return arrays_of(self, nb::cast<Message&>(self)); },
            nb::sig("def arrays(self) -> dict[str, numpy.typing.NDArray[typing.Any]]"),
            "The arrays by name, read-only; empty for raw bytes.")
        .def_prop_ro(
            "nbytes", [](const Message& self) { return self.bytes; }, "Payload bytes.")
        .def_prop_ro(
            "shape", [](Message& self) { return whole_shape(self); },
            nb::sig("def shape(self) -> tuple[int, ...]"),
            "Shape of the only array; `(nbytes,)` for raw bytes.")
        .def_prop_ro(
            "dtype", [](Message& self) { return whole_dtype(self); },
            "Name of its element type; `uint8` for raw bytes.")
        .def_prop_ro("metadata", &Message::metadata,
                     nb::sig("def metadata(self) -> dict[str, typing.Any]"),
                     "The mapping sent beside the payload; empty if there was none.")
        .def_prop_ro("content_type", &Message::content_type,
                     nb::sig("def content_type(self) -> str | None"),
                     "Media type of the payload, if one was given.")
        .def_prop_ro(
            "timestamp",
            [](const Message& self) -> std::optional<double> {
                return std::isnan(self.timestamp()) ? std::nullopt
                                                    : std::optional<double>(self.timestamp());
            },
            "The sender's own time in seconds, if it gave one.")
        .def_prop_ro(
            "published_ns", [](const Message& self) { return self.published_ns(); },
            "When it was sent, on the clock of `time.monotonic_ns()`.")
        .def_prop_ro(
            "released", [](const Message& self) { return !self.live; },
            "Whether the payload can no longer be read.")
        .def("release", &Message::release,
             "Gives the payload back. Raises BufferError while views of it exist.")
        .def(
            "__enter__",
            [](nb::handle_t<Message> self) {
                nb::cast<Message&>(self).require_live();
                return nb::borrow(self);
            },
            nb::sig("def __enter__(self) -> typing.Self"))
        .def(
            "__exit__",
            [](Message& self, nb::args) {
                if (self.exports == 0) {
                    self.release();
                }
            },
            nb::sig("def __exit__(self, *exception: object) -> None"))
        .def(
            "__dlpack__",
            [](nb::handle_t<Message> self, nb::object stream, nb::object max_version,
               nb::object dl_device, nb::object copy) {
                auto& message = nb::cast<Message&>(self);
                message.require_live();
                return to_dlpack(self, message, message.only_field("__dlpack__"), stream,
                                 max_version, dl_device, copy);
            },
            nb::kw_only(), "stream"_a = nb::none(), "max_version"_a = nb::none(),
            "dl_device"_a = nb::none(), "copy"_a = nb::none(),
            nb::sig("def __dlpack__(self, *, stream: int | None = None, max_version: tuple[int, "
                    "int] | None = None, dl_device: tuple[int, int] | None = None, copy: bool | "
                    "None = None) -> typing_extensions.CapsuleType"))
        .def(
            "__dlpack_device__",
            [](nb::handle_t<Message>) { return nb::make_tuple(dlpack::kDeviceCpu, 0); },
            nb::sig("def __dlpack_device__(self) -> tuple[int, int]"));
}

void bind_request(nb::module_& module) {
    using nb::literals::operator""_a;

    LockedClass<Request, Message>(
        module, "Request", nb::is_final(),
        "A request that waits for its answer: `reply()` or `fail()`, once. One that is\n"
        "forgotten fails the call.")
        .def(
            "reply",
            [](Request& self, nb::object data, std::optional<double> timestamp, nb::object metadata,
               std::optional<std::string> content_type, std::optional<double> timeout) {
                const PublishDetails details(timestamp, metadata, std::move(content_type));
                return self.reply(data, details, timeout);
            },
            "data"_a = nb::bytes("", 0), nb::kw_only(), "timestamp"_a = nb::none(),
            "metadata"_a = nb::none(), "content_type"_a = nb::none(), "timeout"_a.none() = 1.0,
            nb::sig("def reply(self, data: typing.Any = b'', *, timestamp: float | None = None, "
                    "metadata: collections.abc.Mapping[str, typing.Any] | None = None, "
                    "content_type: str | None = None, timeout: float | None = 1.0) -> bool"),
            "Answers with bytes, an array, or a mapping of arrays, copied once.\n"
            "\n"
            "Args:\n"
            "    data: As for `Publisher.send`; it need not follow the topic's schema.\n"
            "    timestamp: A time of the application in seconds.\n"
            "    metadata: A small mapping that travels beside it.\n"
            "    content_type: Media type of the payload, when it is encoded.\n"
            "    timeout: Seconds to wait for a free slot, as many replies may be on their way;\n"
            "        0 does not wait, as event loops want it.\n"
            "\n"
            "Returns:\n"
            "    False when the caller is gone.\n"
            "\n"
            "Raises:\n"
            "    TopicFull: No slot became free in time; reply again.\n"
            "    MailboxFull: The caller does not read its answers; reply again later.\n"
            "    ShmArgumentError: It was answered before.")
        .def("fail", &Request::fail, "text"_a,
             "Answers that it failed: `CallFailed` with this text (192 bytes at most) for the\n"
             "caller. False when the caller is gone.")
        .def_prop_ro("answered", &Request::is_answered)
        .def_prop_ro("caller", &Request::caller, "Who asks: the id of `participants()`.")
        .def_prop_ro(
            "time_left",
            [](const Request& self) -> std::optional<double> {
                if (self.deadline_ns() == UINT64_MAX) {
                    return std::nullopt;
                }
                // The library's clock, which steady_clock is on Linux only.
                timespec now{};
                clock_gettime(CLOCK_MONOTONIC, &now);
                const std::int64_t now_ns =
                    static_cast<std::int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
                return (static_cast<double>(self.deadline_ns()) - static_cast<double>(now_ns)) *
                       1e-9;
            },
            "Seconds until the caller gives up, negative when it has; None if it never does.");
}

}  // namespace

void bind_mail(nb::module_& module) {
    using nb::literals::operator""_a;
    bind_message(module);
    bind_request(module);

    LockedClass<Caller>(module, "Caller", "The asking side; see framegate.calls.Caller.")
        .def(nb::init<const Topic&, std::uint32_t, const std::string&>(), "topic"_a.lock(),
             nb::kw_only(), "calls_max"_a = 0, "name"_a = "")
        .def(
            "_start",
            [](Caller& self, nb::object data, std::optional<double> timeout,
               std::optional<double> slot_timeout, std::optional<double> timestamp,
               nb::object metadata, std::optional<std::string> content_type) {
                const PublishDetails details(timestamp, metadata, std::move(content_type));
                return self.start(data, details, timeout, slot_timeout);
            },
            "data"_a, "timeout"_a.none(), "slot_timeout"_a.none(), "timestamp"_a.none(),
            "metadata"_a.none(), "content_type"_a.none(),
            nb::sig("def _start(self, data: typing.Any, timeout: float | None, slot_timeout: float "
                    "| None, timestamp: float | None, metadata: collections.abc.Mapping[str, "
                    "typing.Any] | None, content_type: str | None) -> int"))
        .def("_wait", &Caller::wait, "call"_a, nb::sig("def _wait(self, call: int) -> Message"))
        .def(
            "_poll", [](Caller& self, std::uint64_t call) { return or_none(self.poll(call)); },
            "call"_a, nb::sig("def _poll(self, call: int) -> Message | None"))
        .def(
            "_cancel",
            [](const Caller& self, std::uint64_t call) {
                if (!self.is_closed()) {
                    check(fg_caller_cancel(self.handle(), call));
                }
            },
            "call"_a)
        .def(
            "fileno",
            [](const Caller& self) {
                int fd = -1;
                check(fg_caller_event_fd(self.handle(), &fd));
                return fd;
            },
            "A descriptor for event loops, readable when a reply may have come after `arm()`.\n"
            "Never read or close it.")
        .def(
            "arm",
            [](const Caller& self) {
                int ready = 0;
                check(fg_caller_arm(self.handle(), &ready));
                return ready != 0;
            },
            "Asks for `fileno()` to become readable at the next reply. True: there is one\n"
            "already, take it instead.")
        .def(
            "drain", [](const Caller& self) { check(fg_caller_drain(self.handle())); },
            "Makes `fileno()` unreadable again; look at every call afterwards.")
        .def_prop_ro(
            "topic", [](const Caller& self) { return self.topic; }, "Name of the topic.")
        .def_prop_ro("closed", &Caller::is_closed,
                     "Whether it was closed, here or by another thread.")
        .def("close", &Caller::close,
             "Leaves the topic: calls in flight end with ClosedError, replies stay valid.");

    LockedClass<Responder>(module, "Responder",
                           "The answering side; see framegate.calls.Responder.")
        .def(nb::init<const Topic&, std::uint32_t, const std::string&>(), "topic"_a.lock(),
             nb::kw_only(), "requests_max"_a = 0, "name"_a = "")
        .def(
            "take",
            [](Responder& self, std::optional<double> timeout) {
                bool closed = false;
                nb::object request = self.take(timeout, closed);
                if (closed) {
                    raise_error(FG_CLOSED,
                                "this responder of topic \"" + self.topic + "\" was closed");
                }
                return or_none(request);
            },
            nb::kw_only(), "timeout"_a.none() = nb::none(),
            nb::sig("def take(self, *, timeout: float | None = None) -> Request | None"),
            "Takes the next request, waiting for one.\n"
            "\n"
            "Args:\n"
            "    timeout: Seconds to wait; None waits for ever, 0 does not wait.\n"
            "\n"
            "Returns:\n"
            "    The request, or None when none came in time.\n"
            "\n"
            "Raises:\n"
            "    LeaseQuotaExceeded: `requests_max` requests wait for their answers.\n"
            "    ClosedError: The responder was closed, here or by another thread.")
        .def(
            "__iter__", [](nb::handle_t<Responder> self) { return nb::borrow(self); },
            nb::sig("def __iter__(self) -> collections.abc.Iterator[Request]"))
        .def(
            "__next__",
            [](Responder& self) {
                if (self.is_closed()) {
                    throw nb::stop_iteration();
                }
                bool closed = false;
                nb::object request = self.take(std::nullopt, closed);
                if (closed) {
                    throw nb::stop_iteration();
                }
                return request;
            },
            nb::sig("def __next__(self) -> Request"))
        .def(
            "fileno",
            [](const Responder& self) {
                int fd = -1;
                check(fg_responder_event_fd(self.handle(), &fd));
                return fd;
            },
            "A descriptor for event loops, readable when a request may have come after `arm()`.\n"
            "Never read or close it.")
        .def(
            "arm",
            [](const Responder& self) {
                int ready = 0;
                check(fg_responder_arm(self.handle(), &ready));
                return ready != 0;
            },
            "Asks for `fileno()` to become readable at the next request. True: there is one\n"
            "already, take it instead.")
        .def(
            "drain", [](const Responder& self) { check(fg_responder_drain(self.handle())); },
            "Makes `fileno()` unreadable again; take until empty afterwards.")
        .def_prop_ro(
            "topic", [](const Responder& self) { return self.topic; }, "Name of the topic.")
        .def_prop_ro("closed", &Responder::is_closed,
                     "Whether it was closed, here or by another thread.")
        .def("close", &Responder::close,
             "Takes no more requests; those that were taken can still be answered.");
}

}  // namespace framegate::py
