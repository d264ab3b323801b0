#include "publisher.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "deadline.hpp"
#include "errors.hpp"
#include "fast_call.hpp"
#include "fork.hpp"
#include "gil.hpp"
#include "metadata.hpp"
#include "numpy_api.hpp"
#include "source.hpp"
#include "values.hpp"

namespace framegate::py {

PublishDetails::PublishDetails(std::optional<double> timestamp, nb::handle metadata,
                               std::optional<std::string> content_type)
    : timestamp_(timestamp.value_or(std::nan(""))),
      content_type_(std::move(content_type).value_or("")) {
    if (metadata.is_none()) {
        return;
    }
    metadata_ = encode_values(metadata, "metadata", FG_USER_METADATA_BYTES_MAX);
}

fg_publish_info PublishDetails::info(std::size_t bytes, const std::vector<fg_array>& arrays) const {
    fg_publish_info info;
    fg_publish_info_init(&info);
    info.bytes = bytes;
    info.timestamp_s = timestamp_;
    info.arrays = arrays.data();
    info.array_count = static_cast<std::uint32_t>(arrays.size());
    if (!metadata_.empty()) {
        info.user_metadata = metadata_.data();
        info.user_metadata_bytes = static_cast<std::uint32_t>(metadata_.size());
    }
    if (!content_type_.empty()) {
        info.content_type = content_type_.data();
        info.content_type_bytes = static_cast<std::uint32_t>(content_type_.size());
    }
    return info;
}

// More than any mailbox holds.
constexpr std::size_t kControlsMax = FG_MAILBOX_BYTES_MAX / 256;

// ---- publisher ----------------------------------------------------------------------------------

void Publisher::attach(const Topic& opened, const std::string& name) {
    if (handle_ != nullptr || closed_) {
        raise_error(FG_INVALID_ARGUMENT, "this publisher was attached before");
    }
    fg_publisher_options options;
    fg_publisher_options_init(&options);
    fg_publisher* publisher = opened.open_participant(fg_publisher_open, options, name);
    if (handle_ != nullptr || closed_) {
        fg_publisher_close(publisher);
        raise_error(FG_INVALID_ARGUMENT, "this publisher was attached or closed meanwhile");
    }
    handle_ = publisher;
    topic = opened.name;
    schema = opened.schema;
}

std::size_t Publisher::slot_bytes() const {
    std::uint64_t bytes = 0;
    check(fg_publisher_slot_bytes(handle(), &bytes));
    return bytes;
}

void Publisher::close() noexcept {
    closed_ = true;
    fg_publisher* handle = handle_;
    handle_ = nullptr;
    if (handle != nullptr && !is_borrowed_) {
        fg_publisher_close(handle);
    }
}

fg_publisher* Publisher::handle() const {
    if (handle_ == nullptr) [[unlikely]] {
        raise_error(FG_CLOSED, closed_ ? "this publisher of topic \"" + topic + "\" was closed"
                                       : "this publisher has no topic yet");
    }
    return handle_;
}

OwnedLoan Publisher::loan(std::size_t bytes, std::optional<double> timeout) {
    fg_publisher* handle = this->handle();
    const Deadline deadline(timeout);
    fg_loan loan{};
    fg_status status = fg_publisher_loan(handle, bytes, 0, &loan);
    if (status == FG_OK) [[likely]] {
        return {handle, loan};
    }
    const KeptPublisher kept(handle);  // a loan keeps it
    std::string full;                  // who held the topic back when it was last full
    while (status == FG_TOPIC_FULL || status == FG_INTERRUPTED) {
        if (status == FG_TOPIC_FULL) {
            full = fg_last_error();
        }
        if (PyErr_CheckSignals() != 0) {
            throw nb::python_error();
        }
        if (deadline.is_immediate() || deadline.is_over()) {
            raise_error(FG_TOPIC_FULL, full);
        }
        {
            const WithoutGil released;
            status = fg_publisher_loan(handle, bytes, deadline.slice_ns(), &loan);
        }
        if (status == FG_OK) {
            return {handle, loan};
        }
        if (status == FG_CLOSED) {
            raise_error(status, "this publisher of topic \"" + topic + "\" was closed");
        }
        if (status != FG_TOPIC_FULL && status != FG_INTERRUPTED) {
            break;
        }
    }
    raise_status(status);
}

namespace {

// What a frame will hold and where: how the bytes of a loan divide into arrays.
struct Layout {
    SchemaPtr schema;
    std::size_t bytes = 0;
    bool is_schema = false;             // exactly the topic's own, so a frame needs no descriptors
    std::vector<fg_array> arrays = {};  // the same as `schema`, where that is null
};

Layout lay_out(std::vector<Field> fields) {
    if (fields.size() > FG_ARRAYS_MAX) {
        raise_error(FG_INVALID_ARGUMENT, "a frame has at most " + std::to_string(FG_ARRAYS_MAX) +
                                             " arrays, not " + std::to_string(fields.size()));
    }
    Schema schema;
    schema.fields = std::move(fields);
    std::vector<fg_array> arrays = arrays_from_schema(schema);
    std::uint64_t bytes = 0;
    check(fg_arrays_lay_out(arrays.data(), arrays.size(), &bytes));
    return {schema_from_arrays(arrays.data(), arrays.size()), bytes, false};
}

// Of one array, for a frame that is filled at once: nobody looks at its schema.
Layout lay_out_one(Field field) {
    Schema schema;
    schema.fields.push_back(std::move(field));
    Layout layout;
    layout.arrays = arrays_from_schema(schema);
    std::uint64_t bytes = 0;
    check(fg_arrays_lay_out(layout.arrays.data(), 1, &bytes));
    layout.bytes = bytes;
    return layout;
}

const SchemaPtr& raw_schema() {
    static const SchemaPtr raw = std::make_shared<Schema>();
    return raw;
}

// (dtype, shape), or anything that has both.
Field field_from(const std::string& name, nb::handle spec) {
    nb::object dtype;
    nb::object shape;
    if (PyTuple_Check(spec.ptr()) != 0 && nb::len(spec) == 2) {
        dtype = nb::object(spec[0]);
        shape = nb::object(spec[1]);
    } else if (nb::hasattr(spec, "dtype") && nb::hasattr(spec, "shape")) {
        dtype = nb::getattr(spec, "dtype");
        shape = nb::getattr(spec, "shape");
    } else {
        return Source(spec).as_field(name);
    }
    if (PyLong_Check(shape.ptr()) != 0) {
        shape = nb::make_tuple(shape);
    }
    const nb::object row = nb::make_tuple(nb::str(name.c_str(), name.size()), dtype, shape);
    Field field = schema_from_python(nb::make_tuple(row))->fields[0];
    for (int axis = 0; axis < field.ndim; ++axis) {
        if (field.shape[axis] < 0) {
            throw nb::value_error("a loan needs the length of every dimension");
        }
    }
    return field;
}

std::vector<Field> fields_from(nb::handle layout) {
    std::vector<Field> fields;
    if (!is_mapping(layout)) {
        fields.push_back(field_from("", layout));
        return fields;
    }
    for (nb::handle item : layout.attr("items")()) {
        fields.push_back(field_from(name_from(item[0]), item[1]));
    }
    return fields;
}

// The layout against the topic: names, types and shapes must be the schema's, in any order.
Layout match(const Publisher& publisher, std::vector<Field> fields) {
    const Schema& schema = *publisher.schema;
    if (schema.is_raw()) {
        return lay_out(std::move(fields));
    }
    std::vector<Field> ordered;
    for (const Field& wanted : schema.fields) {
        const Field* found = nullptr;
        for (const Field& field : fields) {
            // The only array of a topic may go without its name.
            if (field.name == wanted.name || (schema.fields.size() == 1 && field.name.empty())) {
                found = &field;
            }
        }
        bool same = found != nullptr && found->type == wanted.type && found->ndim == wanted.ndim;
        same = same && found->record_bytes == wanted.record_bytes &&
               found->record_ndim == wanted.record_ndim &&
               (wanted.record_bytes == 0 || found->offset == wanted.offset);
        for (int axis = 0; same && axis < wanted.ndim; ++axis) {
            same = wanted.shape[axis] < 0 || wanted.shape[axis] == found->shape[axis];
        }
        if (!same) {
            raise_error(
                FG_SCHEMA_MISMATCH,
                "topic \"" + publisher.topic + "\": array \"" + wanted.name + "\" is " +
                    describe(wanted.type->name, wanted.ndim, wanted.shape) + ", got " +
                    (found == nullptr ? "none"
                                      : describe(found->type->name, found->ndim, found->shape)));
        }
        ordered.push_back(*found);
        ordered.back().name = wanted.name;
    }
    if (fields.size() != schema.fields.size()) {
        for (const Field& field : fields) {
            if (schema.find(field.name) != nullptr) {
                continue;
            }
            raise_error(FG_SCHEMA_MISMATCH,
                        "topic \"" + publisher.topic + "\" has no array \"" + field.name + "\"");
        }
    }
    if (schema.is_fixed) {
        return {publisher.schema, schema.payload_bytes, true};
    }
    return lay_out(std::move(ordered));
}

// Copies what completes a frame of so many bytes, as fg_publisher_send does: subscribers that sleep
// wake while the end of a large one is copied. `publisher`: who announces, or nullptr.
void copy_announced(fg_publisher* publisher, const Source& source, std::byte* to,
                    std::size_t frame_bytes) noexcept {
    std::size_t copied = 0;
    if (publisher != nullptr && frame_bytes >= FG_ANNOUNCE_BYTES_MIN && source.contiguous) {
        copied = source.bytes > FG_ANNOUNCE_BYTES ? source.bytes - FG_ANNOUNCE_BYTES : 0;
        if (copied != 0) {
            std::memcpy(to, source.data, copied);
        }
        (void)fg_publisher_announce(publisher);  // a handle that is closed by now: publish says so
    }
    if (copied == 0) {
        source.copy_to(to);
    } else {
        std::memcpy(to + copied, source.data + copied, source.bytes - copied);
    }
}

// A loan that holds what `fill` writes.
template <typename Fill>
FilledLoan fill_loan(Publisher& publisher, Layout& layout, std::optional<double> timeout,
                     Fill&& fill) {
    FilledLoan filled{publisher.loan(layout.bytes, timeout), layout.bytes, {}};
    if (layout.bytes > kCopyWithGilBytesMax) {
        const WithoutGil released;
        fill(filled.loan.data());
    } else {
        fill(filled.loan.data());
    }
    if (!layout.is_schema) {
        filled.arrays = layout.schema == nullptr ? std::move(layout.arrays)
                                                 : arrays_from_schema(*layout.schema);
    }
    return filled;
}

// Nothing is left behind when anything fails.
std::uint64_t publish_filled(Publisher& publisher, FilledLoan filled,
                             const PublishDetails& details) {
    std::uint64_t sequence = 0;
    const fg_status status =
        filled.loan.publish(details.info(filled.bytes, filled.arrays), sequence);
    if (status != FG_OK) [[unlikely]] {
        const std::string text =
            fg_last_error();  // before the loan goes back, which also is a call
        filled.loan.abandon();
        raise_error(status, text);
    }
    ++publisher.counters->published;
    publisher.counters->sequence = sequence;
    return sequence;
}

// numpy arrays with a structured dtype.
bool is_structured(nb::handle array) {
    const nb::object dtype = nb::getattr(array, "dtype", nb::none());
    return !nb::getattr(dtype, "fields", nb::none()).is_none();
}

FilledLoan fill_records(Publisher& publisher, nb::handle data, std::optional<double> timeout) {
    const nb::object flat = nb::module_::import_("framegate.records").attr("flatten")(data);
    const nb::object bytes = flat[1];
    const Source source{bytes};
    Layout layout = match(publisher, schema_from_python(nb::object(flat[0]))->fields);
    return fill_loan(publisher, layout, timeout,
                     [&](std::byte* to) noexcept { source.copy_to(to); });
}

FilledLoan fill_one(Publisher& publisher, nb::handle data, std::optional<double> timeout) {
    const Source source(data);
    const Schema& schema = *publisher.schema;
    Layout layout;
    if (source.type == nullptr && is_structured(data)) {
        return fill_records(publisher, data, timeout);
    }
    if (schema.has_records()) {
        if (!source.octets || !schema.is_fixed || source.bytes != schema.payload_bytes) {
            raise_error(FG_SCHEMA_MISMATCH,
                        "topic \"" + publisher.topic +
                            "\" holds records; send a structured array, or a mapping of field to "
                            "array");
        }
        layout = {publisher.schema, source.bytes, true};
    } else if (schema.fields.size() == 1) {
        source.require(schema.fields[0], publisher.topic.c_str());
        if (schema.is_fixed) {
            layout = {publisher.schema, source.bytes, true};
        } else if (source.octets) {
            layout = {raw_schema(), source.bytes, false};
        } else {
            layout = match(publisher, {source.as_field("")});
        }
    } else if (!schema.is_raw()) {
        raise_error(FG_SCHEMA_MISMATCH, "topic \"" + publisher.topic + "\" holds " +
                                            std::to_string(schema.fields.size()) +
                                            " named arrays; send a mapping of name to array");
    } else if (source.octets || source.type == nullptr) {
        if (!source.octets && !source.contiguous) {
            (void)source.as_field("");  // raises: bytes of what?
        }
        layout = {raw_schema(), source.bytes, false};
    } else {
        layout = lay_out_one(source.as_field(""));
    }
    fg_publisher* const announcer = publisher.announcer();
    return fill_loan(publisher, layout, timeout, [&](std::byte* to) noexcept {
        copy_announced(announcer, source, to, layout.bytes);
    });
}

FilledLoan fill_mapping(Publisher& publisher, nb::handle data, std::optional<double> timeout) {
    if (publisher.schema->has_records()) {
        const nb::object records =
            nb::module_::import_("framegate.records")
                .attr("interleave")(data, records_to_python(*publisher.schema));
        return fill_records(publisher, records, timeout);
    }
    std::vector<std::unique_ptr<Source>> sources;
    std::vector<Field> fields;
    for (nb::handle item : data.attr("items")()) {
        sources.push_back(std::make_unique<Source>(item[1]));
        fields.push_back(sources.back()->as_field(name_from(item[0])));
    }
    if (fields.empty()) {
        throw nb::value_error("a mapping without arrays is not a frame");
    }
    const std::vector<Field> given = fields;
    Layout layout = match(publisher, std::move(fields));
    // Where each source goes: by name, whatever the order of the mapping.
    std::vector<std::pair<const Source*, std::size_t>> places;
    for (std::size_t i = 0; i < given.size(); ++i) {
        const Field* field = layout.schema->find(given[i].name);
        if (field == nullptr) {
            field = layout.schema->fields.data();  // the only one, given without its name
        }
        places.emplace_back(sources[i].get(), field->offset);
    }
    fg_publisher* const announcer = publisher.announcer();
    return fill_loan(publisher, layout, timeout, [&](std::byte* to) noexcept {
        for (const auto& [source, offset] : places) {
            if (source == places.back().first) {
                copy_announced(announcer, *source, to + offset, layout.bytes);
            } else {
                source->copy_to(to + offset);
            }
        }
    });
}

}  // namespace

FilledLoan Publisher::fill(nb::handle data, std::optional<double> timeout) {
    return is_mapping(data) ? fill_mapping(*this, data, timeout) : fill_one(*this, data, timeout);
}

void Publisher::borrow(fg_publisher* handle) {
    handle_ = handle;
    is_borrowed_ = true;
    schema = raw_schema();
}

namespace {

// framegate.Publisher creates or opens the topic on first use; rows and bytes say what the frame at
// hand needs.
void prepare(nb::handle self, nb::handle data, bool is_layout) {
    auto& publisher = nb::cast<Publisher&>(self);
    if (publisher.is_attached() || publisher.is_closed()) {
        return;
    }
    nb::list rows;
    nb::object bytes = nb::none();
    if (is_layout && data.is_none()) {
        // Nothing is known: the Python side says so.
    } else if (is_layout && PyLong_Check(data.ptr()) != 0) {
        bytes = nb::borrow(data);
    } else if (is_layout || is_mapping(data)) {
        rows = schema_to_python(*lay_out(fields_from(data)).schema);
    } else {
        const Source source(data);
        bytes = nb::cast(source.bytes);
        if (source.type == nullptr && is_structured(data)) {
            rows = nb::cast<nb::list>(
                nb::module_::import_("framegate.records")
                    .attr("rows_of")(nb::getattr(data, "dtype"), nb::getattr(data, "shape")));
        } else if (!source.octets) {
            rows = schema_to_python(*lay_out({source.as_field("")}).schema);
        }
    }
    self.attr("_prepare")(rows, bytes);
}

nb::object make_loan(nb::handle self, nb::handle wanted, std::optional<double> timeout) {
    prepare(self, wanted, true);
    auto& publisher = nb::cast<Publisher&>(self);
    (void)publisher.handle();  // raises when closed
    const Schema& schema = *publisher.schema;
    Layout layout;
    if (wanted.is_none()) {
        if (!schema.is_raw() && !schema.is_fixed) {
            raise_error(
                FG_SCHEMA_MISMATCH,
                "topic \"" + publisher.topic +
                    "\" has dimensions of any length: say the dtype and shape of this loan");
        }
        layout = schema.is_raw() ? Layout{raw_schema(), publisher.slot_bytes(), false}
                                 : Layout{publisher.schema, schema.payload_bytes, true};
    } else if (PyLong_Check(wanted.ptr()) != 0) {
        const std::size_t bytes = PyLong_AsSize_t(wanted.ptr());
        if (bytes == static_cast<std::size_t>(-1) && PyErr_Occurred() != nullptr) {
            throw nb::python_error();
        }
        if (!schema.is_raw() && schema.is_fixed && bytes != schema.payload_bytes) {
            raise_error(FG_SCHEMA_MISMATCH, "a frame of topic \"" + publisher.topic + "\" has " +
                                                std::to_string(schema.payload_bytes) +
                                                " bytes, not " + std::to_string(bytes));
        }
        layout = !schema.is_raw() && schema.is_fixed ? Layout{publisher.schema, bytes, true}
                                                     : Layout{raw_schema(), bytes, false};
    } else if (schema.has_records()) {
        // (structured dtype, shape), or an array to be like
        const bool is_pair = PyTuple_Check(wanted.ptr()) != 0 && nb::len(wanted) == 2;
        const nb::object dtype =
            is_pair ? nb::object(wanted[0]) : nb::getattr(wanted, "dtype", nb::none());
        nb::object shape =
            is_pair ? nb::object(wanted[1]) : nb::getattr(wanted, "shape", nb::none());
        if (PyLong_Check(shape.ptr()) != 0) {
            shape = nb::make_tuple(shape);
        }
        if (nb::getattr(dtype, "fields", nb::none()).is_none()) {
            raise_error(FG_SCHEMA_MISMATCH,
                        "topic \"" + publisher.topic +
                            "\" holds records: loan (structured dtype, shape), or nothing");
        }
        const nb::object rows =
            nb::module_::import_("framegate.records").attr("rows_of")(dtype, shape);
        layout = match(publisher, schema_from_python(rows)->fields);
    } else {
        layout = match(publisher, fields_from(wanted));
    }
    return nb::cast(std::make_unique<Loan>(publisher, publisher.loan(layout.bytes, timeout),
                                           layout.bytes, layout.schema, layout.is_schema));
}

}  // namespace

// ---- loan ---------------------------------------------------------------------------------------

Loan::Loan(const Publisher& publisher, OwnedLoan loan, std::size_t size, SchemaPtr layout,
           bool is_schema)
    : loan_(std::move(loan)),
      kept_(loan_.handle()),
      counters_(publisher.counters),
      layout_(std::move(layout)),
      is_schema_(is_schema) {
    data = loan_.data();
    bytes = size;
    readonly = false;
    live = true;
    noun = "loan";
    fork_generation = py::fork_generation();
}

std::uint64_t Loan::publish(const PublishDetails& details, std::optional<std::size_t> size) {
    require_live();
    std::size_t published_bytes = bytes;
    if (size.has_value()) {
        if (!layout_->is_raw() && *size != bytes) {
            raise_error(FG_SCHEMA_MISMATCH, "a loan of arrays is published whole: it has " +
                                                std::to_string(bytes) + " bytes, not " +
                                                std::to_string(*size));
        }
        if (*size > bytes) {
            raise_error(FG_FRAME_TOO_LARGE, "the loan has " + std::to_string(bytes) +
                                                " bytes, fewer than " + std::to_string(*size));
        }
        published_bytes = *size;
    }
    std::vector<fg_array> arrays;
    if (!is_schema_) {
        arrays = arrays_from_schema(*layout_);
    }
    std::uint64_t sequence = 0;
    const fg_status status = loan_.publish(details.info(published_bytes, arrays), sequence);
    if (status == FG_OK) {
        end("published");
        ++counters_->published;
        counters_->sequence = sequence;
        return sequence;
    }
    const std::string text = fg_last_error();
    if (loan_.data() == nullptr) {
        end("lost");
    }
    raise_error(status, text);
}

Loan::~Loan() { abandon(); }

void Loan::abandon() noexcept {
    if (!live) {
        return;
    }
    if (fork_generation == py::fork_generation()) {
        loan_.abandon();
    } else {
        loan_.forget();
    }
    end("abandoned");
}

void Loan::remember(nb::handle array) {
    PyObject* reference = PyWeakref_NewRef(array.ptr(), nullptr);
    if (reference == nullptr) {
        throw nb::python_error();
    }
    handed_out_.push_back(nb::steal(reference));
    if (!live) {
        end(ended);  // on another thread, while the array was made
    }
}

void Loan::end(const char* how) noexcept {
    live = false;
    ended = how;
    // The memory belongs to others now. A view of a view escapes this; everything else gets an
    // error instead of writing into somebody's frame.
    for (const nb::object& reference : handed_out_) {
        try {
            const nb::object array = reference();
            if (!array.is_none()) {
                array.attr("flags").attr("writeable") = false;
            }
        } catch (nb::python_error& error) {
            error.discard_as_unraisable("a loan's array");
        }
    }
    handed_out_.clear();
}

// ---- binding ------------------------------------------------------------------------------------

namespace {

// `object` if it is a numpy array that is exactly the only array of the topic, in C order.
const NumpyArray* plain_array(const Publisher& publisher, PyObject* object) noexcept {
    const Schema& schema = *publisher.schema;
    if (schema.fields.size() != 1 || !schema.is_fixed || !NumpyApi::is_array(object)) {
        return nullptr;
    }
    const Field& field = schema.fields[0];
    const auto* array = reinterpret_cast<const NumpyArray*>(object);
    if ((array->flags & NumpyArray::kContiguous) == 0 || array->ndim != field.ndim ||
        array->dtype != NumpyApi::known_dtype(*field.type)) {
        return nullptr;
    }
    for (int axis = 0; axis < field.ndim; ++axis) {
        if (array->shape[axis] != field.shape[axis]) {
            return nullptr;
        }
    }
    return array;
}

// send(b"...") or send(array): a topic that is there, bytes that it takes as they are, a slot that
// is free.
FastResult send_fast(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                     PyObject* keywords) noexcept {
    if (count != 1 || keywords != nullptr) {
        return {};
    }
    auto* publisher = fast_cast<Publisher>(self);
    if (publisher == nullptr || !publisher->is_attached()) {
        return {};
    }
    const void* data = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_CheckExact(arguments[0])) {
        data = PyBytes_AS_STRING(arguments[0]);
        size = PyBytes_GET_SIZE(arguments[0]);
#if !defined(NB_FREE_THREADED)  // there another thread may resize it meanwhile
    } else if (PyByteArray_CheckExact(arguments[0])) {
        data = PyByteArray_AS_STRING(arguments[0]);
        size = PyByteArray_GET_SIZE(arguments[0]);
#endif
    } else if (const NumpyArray* array = plain_array(*publisher, arguments[0])) {
        data = array->data;
        size = static_cast<Py_ssize_t>(publisher->schema->payload_bytes);
    } else {
        return {};
    }
    const auto bytes = static_cast<std::size_t>(size);
    if (bytes > kCopyWithGilBytesMax || !publisher->takes_octets(bytes)) {
        return {};
    }
    fg_loan loan;
    fg_publisher* handle = publisher->handle();
    if (fg_publisher_loan(handle, bytes, 0, &loan) != FG_OK) {
        return {};
    }
    std::memcpy(loan.data, data, bytes);
    fg_publish_info info;
    fg_publish_info_init(&info);
    info.bytes = bytes;
    std::uint64_t sequence = 0;
    if (fg_publisher_publish(handle, &loan, &info, &sequence) != FG_OK) [[unlikely]] {
        (void)fg_publisher_abandon(handle, &loan);
        return {};
    }
    ++publisher->counters->published;
    publisher->counters->sequence = sequence;
    return {true, PyLong_FromUnsignedLongLong(sequence)};
}

// A msgspec.Struct, told by what its class has.
bool is_struct(nb::handle data) {
    return PyObject_CheckBuffer(data.ptr()) == 0 && PyDict_Check(data.ptr()) == 0 &&
           nb::hasattr(data.type(), "__struct_fields__");
}

// numpy arrays can be made read-only later; a memoryview (no numpy) cannot.
void remember_array(Loan& loan, nb::handle array) {
    if (nb::hasattr(array, "flags")) {
        loan.remember(array);
    }
}

}  // namespace

void bind_publisher(nb::module_& module) {
    using nb::literals::operator""_a;

    LockedClass<Loan> loan(
        module, "Loan", nb::type_slots(region_slots<Loan>), nb::is_final(),
        "The exclusive right to fill one slot.\n"
        "\n"
        "A context manager: leaving it without `publish()`, or by an exception, gives the\n"
        "slot back. Supports the buffer protocol (writable). When the loan ends, the arrays\n"
        "it handed out become read-only; do not keep views of them.");
    bind_dlpack(loan);
    refuse_pickling(loan, "loan");
    loan.def_prop_ro(
            "array",
            [](nb::handle_t<Loan> self) {
                Loan& loan = nb::cast<Loan&>(self);
                loan.require_live();
                nb::object array = whole_array(self, loan, "array");
                remember_array(loan, array);
                return array;
            },
            nb::sig("def array(self) -> numpy.typing.NDArray[typing.Any]"),
            "The slot as a writable numpy array (a memoryview without numpy). Raises\n"
            "SchemaMismatch for several.")
        .def_prop_ro(
            "arrays",
            [](nb::handle_t<Loan> self) {
                Loan& loan = nb::cast<Loan&>(self);
                nb::dict arrays = arrays_of(self, loan);
                for (auto [name, array] : arrays) {
                    remember_array(loan, array);
                }
                return arrays;
            },
            nb::sig("def arrays(self) -> dict[str, numpy.typing.NDArray[typing.Any]]"),
            "The arrays of the slot by name, writable.")
        .def(
            "__getitem__",
            [](nb::handle_t<Loan> self, const std::string& name) {
                Loan& loan = nb::cast<Loan&>(self);
                nb::object array = array_named(self, loan, name);
                remember_array(loan, array);
                return array;
            },
            "name"_a,
            nb::sig("def __getitem__(self, name: str) -> numpy.typing.NDArray[typing.Any]"),
            "One array by name, writable; raises KeyError.")
        .def_prop_ro(
            "nbytes", [](const Loan& self) { return self.bytes; }, "Payload bytes.")
        .def_prop_ro(
            "is_live", [](const Loan& self) { return self.live; },
            "Whether the slot can still be filled and published.")
        .def(
            "publish",
            [](Loan& self, std::optional<double> timestamp, nb::object metadata,
               std::optional<std::string> content_type, std::optional<std::size_t> size) {
                return self.publish(PublishDetails(timestamp, metadata, std::move(content_type)),
                                    size);
            },
            nb::kw_only(), "timestamp"_a = nb::none(), "metadata"_a = nb::none(),
            "content_type"_a = nb::none(), "size"_a = nb::none(),
            nb::sig("def publish(self, *, timestamp: float | None = None, metadata: "
                    "collections.abc.Mapping[str, "
                    "typing.Any] | None = None, content_type: str | None = None, size: int | None "
                    "= None) -> int"),
            "Publishes the slot as the next frame and returns its sequence; `size` may shorten\n"
            "raw bytes.")
        .def("abandon", &Loan::abandon,
             "Gives the slot back unpublished. Harmless when the loan has ended.")
        .def(
            "__enter__",
            [](nb::handle_t<Loan> self) {
                nb::cast<Loan&>(self).require_live();
                return nb::borrow(self);
            },
            nb::sig("def __enter__(self) -> Loan"))
        .def(
            "__exit__", [](Loan& self, nb::args) { self.abandon(); },
            nb::sig("def __exit__(self, *exception: object) -> None"));

    LockedClass<Publisher> publisher(module, "Publisher",
                                     "The writing side of a topic; see framegate.shm.Publisher.");
    publisher.def(nb::init<std::string>(), "topic"_a)
        .def("_attach", &Publisher::attach, "topic"_a.lock(), "name"_a)
        .def(
            "send",
            [](nb::handle_t<Publisher> self, nb::object data, std::optional<double> timestamp,
               nb::object metadata, std::optional<std::string> content_type,
               std::optional<double> timeout) {
                if (is_struct(data)) {
                    data = nb::module_::import_("framegate.structs").attr("arrays_of")(data);
                }
                prepare(self, data, false);
                auto& publisher = nb::cast<Publisher&>(self);
                (void)publisher.handle();  // raises when closed
                const PublishDetails details(timestamp, metadata, std::move(content_type));
                return publish_filled(publisher, publisher.fill(data, timeout), details);
            },
            "data"_a, nb::kw_only(), "timestamp"_a = nb::none(), "metadata"_a = nb::none(),
            "content_type"_a = nb::none(), "timeout"_a.none() = 0.0,
            nb::sig("def send(self, data: typing.Any, *, timestamp: float | "
                    "None = None, "
                    "metadata: collections.abc.Mapping[str, typing.Any] | None = None, "
                    "content_type: str | None = "
                    "None, timeout: float | None = 0.0) -> int"),
            "Copies `data` into a slot and publishes it.\n"
            "\n"
            "Args:\n"
            "    data: Bytes, an array (buffer protocol or DLPack, any strides), a msgspec.Struct\n"
            "        (see framegate.structs), or a mapping of\n"
            "        name to array.\n"
            "    timestamp: The application's own time of the frame in seconds, for example of "
            "its\n"
            "        exposure; on whatever clock the application uses.\n"
            "    metadata: A small mapping of str to bool, int, float, str or bytes that travels\n"
            "        beside the frame (1024 bytes encoded, at most).\n"
            "    content_type: Media type of the payload, when it is encoded.\n"
            "    timeout: Seconds to wait for a free slot; 0 does not wait, None waits for ever.\n"
            "\n"
            "Returns:\n"
            "    The sequence of the frame.\n"
            "\n"
            "Raises:\n"
            "    TopicFull: No slot became free in time.\n"
            "    SchemaMismatch: The topic holds arrays of another dtype, shape or name.\n"
            "    FrameTooLarge: The payload does not fit into a slot.")
        .def("loan", make_loan, "layout"_a = nb::none(), nb::kw_only(), "timeout"_a.none() = 0.0,
             nb::sig("def loan(self, layout: typing.Any = None, *, timeout: float | None = 0.0) -> "
                     "Loan"),
             "Gets a slot to fill in place.\n"
             "\n"
             "Args:\n"
             "    layout: Nothing for the topic's own arrays (or a whole slot of bytes), a number\n"
             "        of bytes, `(dtype, shape)`, something with both (an array to be like), or a\n"
             "        mapping of name to such.\n"
             "    timeout: Seconds to wait for a free slot; 0 does not wait, None waits for ever.\n"
             "\n"
             "Raises:\n"
             "    TopicFull: No slot became free in time.\n"
             "    SchemaMismatch: The topic holds arrays of another dtype, shape or name.\n"
             "    FrameTooLarge: The layout does not fit into a slot.")
        .def(
            "controls",
            [](const Publisher& self, std::size_t max) {
                std::vector<fg_control> messages(std::min<std::size_t>(max, kControlsMax));
                std::size_t count = 0;
                nb::list result;
                if (!messages.empty() && (self.is_attached() || self.is_closed())) {
                    check(fg_publisher_controls(self.handle(), messages.data(), messages.size(),
                                                &count));
                }
                for (std::size_t i = 0; i < count; ++i) {
                    const fg_control& message = messages[i];
                    result.append(nb::make_tuple(
                        message.sender, message.type,
                        nb::bytes(reinterpret_cast<const char*>(message.data), message.bytes)));
                }
                return result;
            },
            "max"_a = 256,
            nb::sig("def controls(self, max: int = 256) -> list[tuple[int, int, "
                    "bytes]]"),
            "Takes the control messages that subscribers sent: (reader id, type, data), oldest\n"
            "first. Never waits. The id is that of `participants()`.")
        .def_prop_ro(
            "topic", [](const Publisher& self) { return self.topic; }, "Name of the topic.")
        .def(
            "_metadata",
            [](const Publisher& self) { return metadata_of(fg_publisher_topic(self.handle())); },
            nb::sig("def _metadata(self) -> tuple[int, list[tuple[int | None, dict[str, bool | int "
                    "| float | str | bytes]]]]"))
        .def_prop_ro("is_attached", &Publisher::is_attached)
        .def_prop_ro("closed", &Publisher::is_closed)
        .def_prop_ro(
            "published",
            [](const Publisher& self) { return std::uint64_t{self.counters->published}; },
            "Frames published by this handle.")
        .def_prop_ro(
            "sequence",
            [](const Publisher& self) { return std::uint64_t{self.counters->sequence}; },
            "Sequence of the last frame published by this handle; 0 before the first.")
        .def_prop_ro(
            "slot_bytes", [](const Publisher& self) { return self.slot_bytes(); },
            "Payload bytes of a slot; 0 until the topic is known.")
        .def("close", &Publisher::close,
             "Leaves the topic; loans that are out can still be abandoned.");
    fast_type<Publisher> = reinterpret_cast<PyTypeObject*>(publisher.ptr());
    intercept<send_fast>(publisher, "send");
}

}  // namespace framegate::py
