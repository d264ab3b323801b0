#include "subscriber.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "deadline.hpp"
#include "errors.hpp"
#include "fast_call.hpp"
#include "fork.hpp"
#include "gil.hpp"
#include "metadata.hpp"
#include "values.hpp"

namespace framegate::py {

// ---- frame --------------------------------------------------------------------------------------

Frame::Frame(fg_subscriber* subscriber, const fg_frame& frame)
    : subscriber_(subscriber), frame_(frame) {
    data = const_cast<std::byte*>(
        static_cast<const std::byte*>(frame.data));  // never written: `readonly` is set
    bytes = frame.bytes;
    live = true;
    fork_generation = py::fork_generation();
}

Frame::Frame(nb::bytes message, std::size_t begin, SchemaPtr schema,
             const std::string& content_type, const fg_frame& head)
    : subscriber_(nullptr),
      message_(std::move(message)),
      frame_(head),
      schema_(std::move(schema)),
      kept_(std::make_unique<Kept>()) {
    kept_->content_type = content_type;
    frame_.content_type = kept_->content_type.data();
    frame_.content_type_bytes = static_cast<std::uint32_t>(content_type.size());
    frame_.bytes = static_cast<std::uint64_t>(PyBytes_GET_SIZE(message_.ptr())) - begin;
    data = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(message_.ptr())) + begin;
    bytes = frame_.bytes;
    live = true;
    fork_generation = py::fork_generation();
}

Frame::~Frame() {
    // In a forked child the parent holds the lease. A lost lease shows in release(), which can
    // raise.
    if (live && subscriber_ != nullptr && fork_generation == py::fork_generation()) {
        (void)fg_subscriber_release(subscriber_, &frame_);
    }
}

const Schema& Frame::schema() {
    if (schema_ == nullptr) {
        if (frame_.array_count == 0) {
            schema_ = std::make_shared<Schema>();
        } else {
            require_live();
            fg_array arrays[FG_ARRAYS_MAX];
            std::size_t count = 0;
            check(fg_subscriber_arrays(subscriber_, &frame_, arrays, FG_ARRAYS_MAX, &count));
            schema_ =
                shared_schema_from_arrays(arrays, std::min<std::size_t>(count, FG_ARRAYS_MAX));
        }
    }
    return *schema_;
}

void Frame::release() { end(fg_subscriber_release); }

void Frame::nack() {
    if (live && subscriber_ == nullptr) {
        raise_error(FG_INVALID_ARGUMENT,
                    "this frame came over the network: it belongs to no group");
    }
    end(fg_subscriber_nack);
}

// Ends the lease by one of the library's ways to do so.
void Frame::end(fg_status (*way)(fg_subscriber*, fg_frame*)) {
    if (!live) {
        return;
    }
    require_live();
    if (exports > 0) {
        const std::string message =
            std::to_string(Py_ssize_t{exports}) +
            " view(s) of this frame exist (arrays, memoryviews, tensors): drop them first, or "
            "drop the frame and let the last of them end the lease";
        throw nb::buffer_error(message.c_str());
    }
    if (subscriber_ == nullptr) {
        live = false;
        message_.reset();
        return;
    }
    // These stay readable afterwards. As bytes: whatever a publisher put there, a release must not
    // fail of it.
    if ((frame_.user_metadata_bytes | frame_.content_type_bytes) != 0) {
        kept_ = std::make_unique<Kept>();
        kept_->metadata.assign(static_cast<const char*>(frame_.user_metadata),
                               frame_.user_metadata_bytes);
        kept_->content_type.assign(frame_.content_type, frame_.content_type_bytes);
    }
    const fg_status status = way(subscriber_, &frame_);
    live = status == FG_INVALID_ARGUMENT;  // a nack of a subscriber that is no member: refused
    check(status);
}

FastResult Frame::release_plain() noexcept {
    if (!live || exports > 0 || subscriber_ == nullptr ||
        fork_generation != py::fork_generation() ||
        (frame_.user_metadata_bytes | frame_.content_type_bytes) != 0) {
        return {};
    }
    live = false;
    const fg_status status = fg_subscriber_release(subscriber_, &frame_);
    if (status != FG_OK) [[unlikely]] {
        try {
            raise_status(status);
        } catch (nb::python_error& error) {
            error.restore();
        }
        return {true, nullptr};
    }
    return {true, Py_NewRef(Py_None)};
}

nb::object Frame::metadata() {
    if (metadata_.is_valid()) {
        return metadata_;
    }
    if (frame_.user_metadata_bytes == 0) {
        metadata_ = nb::dict();
        return metadata_;
    }
    std::string_view text;
    if (live) {
        require_live();
        text = {static_cast<const char*>(frame_.user_metadata), frame_.user_metadata_bytes};
    } else if (kept_ != nullptr) {
        text = kept_->metadata;
    }
    metadata_ = decode_values(text.data(), text.size(),
                              "the metadata of frame " + std::to_string(frame_.sequence));
    return metadata_;
}

bool is_raw_region(nb::handle object) {
    if (!nb::isinstance<Frame>(object)) {
        return false;
    }
    const nb::ft_object_guard guard(object);
    return nb::cast<Frame&>(object).schema().is_raw();
}

nb::object Frame::content_type() {
    if (frame_.content_type_bytes == 0) {
        return nb::none();
    }
    std::string_view text;
    if (live) {
        require_live();
        text = {frame_.content_type, frame_.content_type_bytes};
    } else if (kept_ != nullptr) {
        text = kept_->content_type;
    }
    nb::object decoded = nb::steal(
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
    if (!decoded.is_valid()) {
        throw nb::python_error();
    }
    return decoded;
}

// ---- subscriber ---------------------------------------------------------------------------------

Subscriber::Subscriber(const Topic& opened, const std::string& policy_name,
                       std::uint32_t max_leases, const std::string& start, double spin,
                       const std::string& name)
    : topic(opened.name), policy(policy_name) {
    fg_subscriber_options options;
    fg_subscriber_options_init(&options);
    constexpr std::string_view kGroup = "group:";
    if (policy == "latest") {
        options.policy = FG_POLICY_LATEST;
    } else if (policy == "queue") {
        options.policy = FG_POLICY_QUEUE;
    } else if (policy == "reliable") {
        options.policy = FG_POLICY_RELIABLE;
    } else if (policy.starts_with(kGroup)) {
        options.policy = FG_POLICY_GROUP;
        options.group = policy.data() + kGroup.size();
        // More than the library takes stays more than it takes.
        options.group_bytes =
            static_cast<std::uint32_t>(std::min<std::size_t>(policy.size() - kGroup.size(), 255));
    } else {
        const std::string message =
            "policy is \"latest\", \"queue\", \"reliable\" or \"group:NAME\", not \"" + policy +
            "\"";
        throw nb::value_error(message.c_str());
    }
    if (start == "next") {
        options.start = FG_START_NEXT;
    } else if (start == "newest") {
        options.start = FG_START_NEWEST;
    } else if (!start.empty()) {
        const std::string message = "start is \"next\" or \"newest\", not \"" + start + "\"";
        throw nb::value_error(message.c_str());
    }
    constexpr double kSpinMax = 1e-3;
    if (!(spin >= 0 && spin <= kSpinMax)) {
        throw nb::value_error("spin is a number of seconds from 0 to 0.001");
    }
    options.spin_ns = static_cast<std::uint32_t>(spin * 1e9);
    options.leases_max = max_leases;
    handle_ = opened.open_participant(fg_subscriber_open, options, name);
}

void Subscriber::close() noexcept {
    fg_subscriber* handle = handle_;
    if (handle == nullptr) {
        return;
    }
    last_stats_.struct_bytes = sizeof last_stats_;
    (void)fg_subscriber_get_stats(handle, &last_stats_);
    handle_ = nullptr;
    fg_subscriber_close(handle);
}

fg_subscriber* Subscriber::handle() const {
    if (handle_ == nullptr) [[unlikely]] {
        raise(FG_CLOSED);
    }
    return handle_;
}

void Subscriber::raise(fg_status status) const {
    if (status == FG_CLOSED) {
        raise_error(status, "this subscriber of topic \"" + topic + "\" was closed");
    }
    raise_status(status);
}

PyObject* Subscriber::new_frame(fg_subscriber* handle, fg_frame& frame) noexcept {
    PyObject* object =
        nb::inst_alloc(reinterpret_cast<PyObject*>(fast_type<Frame>)).release().ptr();
    if (object == nullptr) [[unlikely]] {
        (void)fg_subscriber_release(handle, &frame);
        return nullptr;
    }
    new (nb::inst_ptr<Frame>(object)) Frame(handle, frame);
    nb::inst_mark_ready(object);
    return object;
}

nb::object Subscriber::make_frame(fg_subscriber* handle, fg_frame& frame) {
    PyObject* object = new_frame(handle, frame);
    if (object == nullptr) {
        throw nb::python_error();
    }
    return nb::steal(object);
}

FastResult Subscriber::take_waiting_frame() noexcept {
    fg_frame frame;
    if (handle_ == nullptr) {
        return {};
    }
    const fg_status status = fg_subscriber_take(handle_, 0, &frame);
    if (status == FG_OK) [[likely]] {
        return {true, new_frame(handle_, frame)};
    }
    if (status == FG_CHECKSUM_MISMATCH) {
        // It skipped that frame, so a second attempt would tell another story.
        try {
            raise_status(status);
        } catch (nb::python_error& error) {
            error.restore();
        }
        return {true, nullptr};
    }
    return {};
}

nb::object Subscriber::take(std::optional<double> timeout, bool& closed) {
    closed = false;
    fg_subscriber* handle = this->handle();
    const Deadline deadline(timeout);
    fg_frame frame;
    fg_status status = fg_subscriber_take(handle, 0, &frame);
    if (status == FG_OK) [[likely]] {
        return make_frame(handle, frame);
    }
    const KeptSubscriber kept(handle);  // a frame keeps it by its lease
    while (status == FG_EMPTY || status == FG_TIMEOUT || status == FG_INTERRUPTED) {
        if (status == FG_INTERRUPTED && PyErr_CheckSignals() != 0) {
            throw nb::python_error();
        }
        if (deadline.is_immediate() || deadline.is_over()) {
            return {};
        }
        {
            const WithoutGil released;
            status = fg_subscriber_take(handle, deadline.slice_ns(), &frame);
        }
        if (status == FG_OK) {
            return make_frame(handle, frame);
        }
        if (PyErr_CheckSignals() != 0) {
            throw nb::python_error();
        }
    }
    if (status == FG_CLOSED) {
        closed = true;
        return {};
    }
    raise(status);
}

nb::object Subscriber::peek() {
    fg_subscriber* handle = this->handle();
    fg_frame frame;
    const fg_status status = fg_subscriber_peek(handle, &frame);
    if (status == FG_OK) {
        return make_frame(handle, frame);
    }
    if (status == FG_EMPTY) {
        return {};
    }
    raise(status);
}

fg_subscriber_stats Subscriber::stats() const {
    if (handle_ == nullptr) {
        return last_stats_;
    }
    fg_subscriber_stats stats{};
    stats.struct_bytes = sizeof stats;
    check(fg_subscriber_get_stats(handle_, &stats));
    return stats;
}

// ---- binding ------------------------------------------------------------------------------------

namespace {

nb::object or_none(nb::object object) { return object.is_valid() ? object : nb::none(); }

// take() and try_take() when there is a frame.
FastResult take_fast(PyObject* self, PyObject* const*, Py_ssize_t count,
                     PyObject* keywords) noexcept {
    if (count != 0 || keywords != nullptr) {
        return {};
    }
    auto* subscriber = fast_cast<Subscriber>(self);
    return subscriber == nullptr ? FastResult{} : subscriber->take_waiting_frame();
}

FastResult release_fast(PyObject* self, PyObject* const*, Py_ssize_t count,
                        PyObject* keywords) noexcept {
    if (count != 0 || keywords != nullptr) {
        return {};
    }
    auto* frame = fast_cast<Frame>(self);
    return frame != nullptr ? frame->release_plain() : FastResult{};
}

[[noreturn]] void raise_closed(const Subscriber& subscriber) {
    raise_error(FG_CLOSED, "this subscriber of topic \"" + subscriber.topic + "\" was closed");
}

int traverse_frame(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        Py_VISIT(nb::inst_ptr<Frame>(self)->cached_metadata().ptr());
    }
    return 0;
}

int clear_frame(PyObject* self) {
    if (nb::inst_ready(self)) {
        nb::inst_ptr<Frame>(self)->cached_metadata().reset();
    }
    return 0;
}

PyType_Slot frame_slots[] = {
    {Py_bf_getbuffer, reinterpret_cast<void*>(&region_getbuffer<Frame>)},
    {Py_bf_releasebuffer, reinterpret_cast<void*>(&region_releasebuffer<Frame>)},
    {Py_tp_traverse, reinterpret_cast<void*>(&traverse_frame)},
    {Py_tp_clear, reinterpret_cast<void*>(&clear_frame)},
    {0, nullptr}};

// What numpy and DLPack want at least: the largest element that a frame may have.
constexpr std::size_t kElementAlignment = 8;

// A frame that came over the network, as framegate.remote found it.
nb::object frame_over(nb::bytes message, std::size_t begin, const std::optional<std::string>& dtype,
                      const std::vector<std::uint64_t>& shape, const std::string& content_type,
                      std::uint64_t sequence, std::optional<double> timestamp,
                      std::uint64_t published_ns, std::uint64_t lost) {
    if (begin > message.size()) {
        throw nb::value_error("the payload begins behind the end of the message");
    }
    const std::size_t bytes = message.size() - begin;
    auto schema = std::make_shared<const Schema>();
    if (dtype.has_value()) {
        const DType* type = dtype_of_name(*dtype);
        if (type == nullptr || shape.size() > FG_ARRAY_DIMENSIONS_MAX) {
            raise_error(FG_SCHEMA_MISMATCH, "the frame is an array of " + *dtype + " with " +
                                                std::to_string(shape.size()) +
                                                " dimensions, which no frame can be");
        }
        fg_array array = {};
        array.dtype = type->code;
        array.dimension_count = static_cast<std::uint8_t>(shape.size());
        std::copy(shape.begin(), shape.end(), array.shape);
        array.bytes = bytes;
        // Lengths of dimensions come from the server: they may say anything. An empty one makes the
        // array empty, whatever the others are.
        std::uint64_t needed = type->bytes;
        const auto is_too_long = [&needed](std::uint64_t length) {
            return __builtin_mul_overflow(needed, std::max<std::uint64_t>(length, 1), &needed) ||
                   needed > PTRDIFF_MAX;
        };
        const bool is_possible = std::none_of(shape.begin(), shape.end(), is_too_long);
        const bool is_empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
        if (!is_possible || (is_empty ? 0 : needed) != bytes) {
            raise_error(FG_SCHEMA_MISMATCH,
                        "the frame has " + std::to_string(bytes) +
                            " bytes, which is not what its dtype and shape say");
        }
        schema = shared_schema_from_arrays(&array, 1);
    }
    if ((reinterpret_cast<std::uintptr_t>(message.c_str()) + begin) % kElementAlignment != 0) {
        message = nb::bytes(message.c_str() + begin, bytes);
        begin = 0;
    }
    fg_frame head = {};
    head.sequence = sequence;
    head.timestamp_s = timestamp.value_or(std::nan(""));
    head.published_ns = published_ns;
    head.lost = lost;
    head.array_count = static_cast<std::uint32_t>(schema->fields.size());
    nb::object frame = nb::inst_alloc(reinterpret_cast<PyObject*>(fast_type<Frame>));
    new (nb::inst_ptr<Frame>(frame))
        Frame(std::move(message), begin, std::move(schema), content_type, head);
    nb::inst_mark_ready(frame);
    return frame;
}

void bind_frame(nb::module_& module) {
    using nb::literals::operator""_a;

    LockedClass<Frame> frame(
        module, "Frame", nb::type_slots(frame_slots), nb::is_final(), nb::pooled(64),
        nb::is_weak_referenceable(),
        "One published frame, leased: its bytes stay valid and unchanged until the lease\n"
        "ends.\n"
        "\n"
        "The lease ends with `release()`, at the end of a `with` block, or when the frame and\n"
        "every view of it are gone. Views are read-only and zero-copy:\n"
        "`numpy.asarray(frame)`, `memoryview(frame)` and `torch.from_dlpack(frame)` show the\n"
        "shared memory itself.");
    frame
        .def_prop_ro(
            "sequence", [](const Frame& self) { return self.header().sequence; },
            "Number of the frame in its topic, from 1.")
        .def_prop_ro(
            "timestamp",
            [](const Frame& self) -> std::optional<double> {
                const double timestamp = self.header().timestamp_s;
                return std::isnan(timestamp) ? std::nullopt : std::optional<double>(timestamp);
            },
            "The application's own time of the frame in seconds, if its publisher gave one.")
        .def_prop_ro(
            "published_ns", [](const Frame& self) { return self.header().published_ns; },
            "When it was published, on the clock of `time.monotonic_ns()`.")
        .def_prop_ro(
            "lost", [](const Frame& self) { return self.header().lost; },
            "Frames that this subscriber lost just before this one.")
        .def_prop_ro(
            "redelivered", [](const Frame& self) { return self.header().redelivered != 0; },
            "Whether another member of the group had it before and did not finish it.")
        .def_prop_ro("metadata", &Frame::metadata,
                     nb::sig("def metadata(self) -> dict[str, bool | int | float | str | bytes]"),
                     "The mapping published beside the frame; empty if there was none.")
        .def_prop_ro("content_type", &Frame::content_type,
                     nb::sig("def content_type(self) -> str | None"),
                     "Media type of the payload, if the publisher gave one.")
        .def_prop_ro(
            "nbytes", [](const Frame& self) { return self.bytes; }, "Payload bytes.")
        .def_prop_ro(
            "shape", [](Frame& self) { return whole_shape(self); },
            nb::sig("def shape(self) -> tuple[int, ...]"),
            "Shape of the array; `(nbytes,)` for raw bytes. Raises SchemaMismatch for several\n"
            "arrays.")
        .def_prop_ro(
            "dtype", [](Frame& self) { return whole_dtype(self); },
            "Name of the element type, such as `uint8` or `bfloat16`; `uint8` for raw bytes.")
        .def_prop_ro(
            "array",
            [](nb::handle_t<Frame> self) {
                Frame& frame = nb::cast<Frame&>(self);
                frame.require_live();
                return whole_array(self, frame, "array");
            },
            nb::sig("def array(self) -> numpy.typing.NDArray[typing.Any]"),
            "The frame as a read-only numpy array without a copy (a memoryview without numpy).")
        .def_prop_ro(
            "arrays",
            [](nb::handle_t<Frame> self) { return arrays_of(self, nb::cast<Frame&>(self)); },
            nb::sig("def arrays(self) -> dict[str, numpy.typing.NDArray[typing.Any]]"),
            "The arrays of the frame by name, read-only, without a copy; empty for raw bytes.")
        .def(
            "__getitem__",
            [](nb::handle_t<Frame> self, const std::string& name) {
                return array_named(self, nb::cast<Frame&>(self), name);
            },
            "name"_a,
            nb::sig("def __getitem__(self, name: str) -> numpy.typing.NDArray[typing.Any]"),
            "One array by name, as in `arrays`; raises KeyError.")
        .def(
            "__contains__",
            [](Frame& self, nb::handle name) {
                return nb::isinstance<nb::str>(name) &&
                       self.schema().find(nb::cast<std::string>(name)) != nullptr;
            },
            "name"_a.none(), nb::sig("def __contains__(self, name: object) -> bool"))
        .def_prop_ro(
            "released", [](const Frame& self) { return !self.live; },
            "Whether the lease has ended.")
        .def("release", &Frame::release,
             "Ends the lease. Raises BufferError while views of the frame exist. Harmless when it\n"
             "has ended. For a member of a group it says that the frame is done.")
        .def("nack", &Frame::nack,
             "Ends the lease and gives the frame back to its group, not done: some member, maybe\n"
             "this one, takes it again. Raises BufferError while views of the frame exist,\n"
             "ShmArgumentError if the subscriber is no member of a group.")
        .def_prop_ro(
            "__array_interface__",
            [](nb::handle_t<Frame> self) {
                Frame& frame = nb::cast<Frame&>(self);
                frame.require_live();
                return array_interface(self, frame, frame.only_field("__array_interface__"));
            },
            nb::sig("def __array_interface__(self) -> dict[str, typing.Any]"))
        .def(
            "__array__",
            [](nb::handle_t<Frame> self, nb::object dtype, nb::object copy) {
                Frame& frame = nb::cast<Frame&>(self);
                frame.require_live();
                nb::object array = whole_array(self, frame, "__array__");
                const bool must_copy = !copy.is_none() && nb::cast<bool>(copy);
                if (dtype.is_none() && !must_copy) {
                    return array;
                }
                const nb::object numpy = nb::module_::import_("numpy");
                if (must_copy) {
                    return nb::object(numpy.attr("array")(array, dtype));
                }
                nb::object converted = numpy.attr("asarray")(array, dtype);
                if (!copy.is_none() && !converted.is(array)) {
                    throw nb::value_error("another dtype needs a copy");
                }
                return converted;
            },
            "dtype"_a = nb::none(), "copy"_a = nb::none(),
            nb::sig("def __array__(self, dtype: typing.Any = None, copy: bool | None = None) -> "
                    "numpy.typing.NDArray[typing.Any]"))
        .def(
            "__enter__",
            [](nb::handle_t<Frame> self) {
                nb::cast<Frame&>(self).require_live();
                return nb::borrow(self);
            },
            nb::sig("def __enter__(self) -> Frame"))
        .def(
            "__exit__",
            [](Frame& self, nb::args) {
                // `image = frame.array` inside the block is the normal use, and `image` outlives
                // the block: then the lease goes on and ends with the last view.
                if (self.exports == 0) {
                    self.release();
                }
            },
            nb::sig("def __exit__(self, *exception: object) -> None"))
        .def("__repr__", [](Frame& self) {
            std::string text = "<Frame " + std::to_string(self.header().sequence);
            if (!self.live) {
                return text + ", released>";
            }
            text += ", " + std::to_string(self.bytes) + " bytes";
            for (const Field& field : self.schema().fields) {
                text += field.name.empty() ? ", " : ", " + field.name + ": ";
                text += describe(field.type->name, field.ndim, field.shape);
            }
            return text + ">";
        });
    bind_dlpack(frame);
    refuse_pickling(frame, "frame");
    fast_type<Frame> = reinterpret_cast<PyTypeObject*>(frame.ptr());
    intercept<release_fast>(frame, "release");
    module.def("frame_over", &frame_over, "message"_a, "begin"_a, nb::kw_only(),
               "dtype"_a.none() = nb::none(), "shape"_a = nb::tuple(), "content_type"_a = "",
               "sequence"_a = 0, "timestamp"_a.none() = nb::none(), "published_ns"_a = 0,
               "lost"_a = 0,
               nb::sig("def frame_over(message: bytes, begin: int, *, dtype: str | None = None, "
                       "shape: collections.abc.Sequence[int] = (), content_type: str = '', "
                       "sequence: int = 0, timestamp: float | None = None, published_ns: int = 0, "
                       "lost: int = 0) -> Frame"),
               "A frame whose payload is a message from `begin` on; see framegate.remote.");
}

}  // namespace

void bind_subscriber(nb::module_& module) {
    using nb::literals::operator""_a;
    bind_frame(module);

    LockedClass<Subscriber> subscriber(
        module, "Subscriber", "The reading side of a topic; see framegate.shm.Subscriber.");
    subscriber
        .def(nb::init<const Topic&, const std::string&, std::uint32_t, const std::string&, double,
                      const std::string&>(),
             "topic"_a.lock(), nb::kw_only(), "policy"_a, "max_leases"_a, "start"_a, "spin"_a,
             "name"_a)
        .def(
            "take",
            [](Subscriber& self, std::optional<double> timeout) {
                bool closed = false;
                nb::object frame = self.take(timeout, closed);
                if (closed) {
                    raise_closed(self);
                }
                return or_none(std::move(frame));
            },
            nb::kw_only(), "timeout"_a.none() = nb::none(),
            nb::sig("def take(self, *, timeout: float | None = None) -> Frame | None"),
            "Takes the next frame by the policy, waiting for one.\n"
            "\n"
            "The GIL is released while waiting and Ctrl-C works.\n"
            "\n"
            "Args:\n"
            "    timeout: Seconds to wait; None waits for ever.\n"
            "\n"
            "Returns:\n"
            "    The frame, or None when none came in time (never without a time-out).\n"
            "\n"
            "Raises:\n"
            "    LeaseQuotaExceeded: This subscriber holds as many frames as it may.\n"
            "    ClosedError: The subscriber was closed, here or by another thread.")
        .def(
            "try_take",
            [](Subscriber& self) {
                bool closed = false;
                return or_none(self.take(0.0, closed));
            },
            nb::sig("def try_take(self) -> Frame | None"),
            "Takes the next frame by the policy, or returns None when there is none yet.")
        .def(
            "peek", [](Subscriber& self) { return or_none(self.peek()); },
            nb::sig("def peek(self) -> Frame | None"),
            "The newest frame even if it was taken before; None if nothing was ever published.")
        .def(
            "__iter__", [](nb::handle_t<Subscriber> self) { return nb::borrow(self); },
            nb::sig("def __iter__(self) -> collections.abc.Iterator[Frame]"))
        .def(
            "__next__",
            [](Subscriber& self) {
                if (self.is_closed()) {
                    throw nb::stop_iteration();
                }
                bool closed = false;
                nb::object frame = self.take(std::nullopt, closed);
                if (closed) {
                    throw nb::stop_iteration();
                }
                return frame;
            },
            nb::sig("def __next__(self) -> Frame"))
        .def(
            "fileno",
            [](const Subscriber& self) {
                int fd = -1;
                check(fg_subscriber_event_fd(self.handle(), &fd));
                return fd;
            },
            "A descriptor for event loops, readable when a frame may have come after `arm()`.\n"
            "Never read or close it.")
        .def(
            "arm",
            [](const Subscriber& self) {
                int ready = 0;
                check(fg_subscriber_arm(self.handle(), &ready));
                return ready != 0;
            },
            "Asks for `fileno()` to become readable at the next frame. True: there is one\n"
            "already, take it instead.")
        .def(
            "drain", [](const Subscriber& self) { check(fg_subscriber_drain(self.handle())); },
            "Makes `fileno()` unreadable again; take until empty afterwards.")
        .def_prop_ro(
            "topic", [](const Subscriber& self) { return self.topic; }, "Name of the topic.")
        .def_prop_ro(
            "policy", [](const Subscriber& self) { return self.policy; },
            "`latest`, `queue`, `reliable` or `group:NAME`.")
        .def_prop_ro(
            "received", [](const Subscriber& self) { return self.stats().received; },
            "Frames taken.")
        .def(
            "_metadata",
            [](const Subscriber& self) { return metadata_of(fg_subscriber_topic(self.handle())); },
            nb::sig("def _metadata(self) -> tuple[int, list[tuple[int | None, dict[str, bool | int "
                    "| float | str | bytes]]]]"))
        .def_prop_ro(
            "topic_metadata_generation",
            [](const Subscriber& self) {
                return fg_topic_metadata_generation(fg_subscriber_topic(self.handle()));
            },
            "Grows whenever somebody appends to the topic's metadata; costs next to nothing.")
        .def_prop_ro(
            "corrupt", [](const Subscriber& self) { return self.stats().corrupt; },
            "Frames that were refused with ChecksumMismatch.")
        .def_prop_ro(
            "lost", [](const Subscriber& self) { return self.stats().lost; },
            "Frames that this subscriber will never see: overwritten (queue) or jumped over\n"
            "(latest); always 0 for `reliable` and groups.")
        .def_prop_ro(
            "leases", [](const Subscriber& self) { return self.stats().leases; },
            "Frames held now.")
        .def_prop_ro(
            "max_leases", [](const Subscriber& self) { return self.stats().leases_max; },
            "Frames that may be held at once.")
        .def_prop_ro(
            "position", [](const Subscriber& self) { return self.stats().position; },
            "Sequence of the last frame taken or skipped.")
        .def_prop_ro(
            "head", [](const Subscriber& self) { return self.stats().head; },
            "Newest sequence of the topic.")
        .def(
            "send_control",
            [](const Subscriber& self, std::uint32_t type, nb::handle data) {
                Py_buffer view;
                if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_SIMPLE) != 0) {
                    throw nb::python_error();
                }
                std::uint32_t reached = 0;
                const auto bytes = static_cast<std::uint32_t>(
                    std::min<Py_ssize_t>(view.len, FG_LETTER_BYTES_MAX + 1));
                const fg_status status = self.is_closed()
                                             ? FG_CLOSED
                                             : fg_subscriber_send_control(
                                                   self.handle(), type, view.buf, bytes, &reached);
                PyBuffer_Release(&view);
                if (self.is_closed()) {
                    raise_closed(self);
                }
                check(status);
                return reached;
            },
            "type"_a, "data"_a = nb::bytes("", 0),
            nb::sig("def send_control(self, type: int, data: typing_extensions.Buffer = b'') -> "
                    "int"),
            "Sends a small message (192 bytes at most) to every publisher of the topic, which\n"
            "reads it by `Publisher.controls()`. Never waits.\n"
            "\n"
            "Args:\n"
            "    type: A number of the application, 0 to 4294967295.\n"
            "    data: Bytes.\n"
            "\n"
            "Returns:\n"
            "    How many publishers got it.\n"
            "\n"
            "Raises:\n"
            "    MailboxFull: A publisher does not read its messages; the others got it.")
        .def_prop_ro("closed", &Subscriber::is_closed)
        .def("close", &Subscriber::close,
             "Leaves the topic; frames and views that are held stay valid. Ends a `take()` of\n"
             "another thread.");
    fast_type<Subscriber> = reinterpret_cast<PyTypeObject*>(subscriber.ptr());
    intercept<take_fast>(subscriber, "take");
    intercept<take_fast, 1>(subscriber, "try_take");
}

}  // namespace framegate::py
