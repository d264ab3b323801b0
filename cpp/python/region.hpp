// A region is the memory of one slot as Python sees it: bytes, how they divide into arrays, and how
// many views are out.
//
// Frame (read-only) and Loan (writable) each are one. Every view that Python makes of a region
// (buffer, numpy array, DLPack capsule) holds a reference to its owner and counts itself in
// `exports`, so that the slot outlives its views and an explicit release() can refuse while any
// exist. All of it runs under the GIL, or alone on the owner (free_threading.hpp).
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dlpack.hpp"
#include "dtype.hpp"
#include "free_threading.hpp"

namespace framegate::py {

// One array of a frame: type, shape and place in the payload. C order.
struct Field {
    std::string name;  // empty: the only, unnamed array
    const DType* type = nullptr;
    int ndim = 0;
    Py_ssize_t shape[FG_ARRAY_DIMENSIONS_MAX] =
        {};  // -1: any length (in the schema of a topic only)
    Py_ssize_t strides[FG_ARRAY_DIMENSIONS_MAX] = {};  // bytes
    std::size_t offset = 0;
    std::size_t bytes = 0;
    // Of a field of records, which lies interleaved with the others; else 0.
    std::uint32_t record_bytes = 0;
    int record_ndim = 0;
};

// The arrays of a frame, or of every frame of a topic. None: raw bytes.
struct Schema {
    std::vector<Field> fields;
    std::size_t payload_bytes = 0;  // what the arrays need; 0 when a dimension is open
    bool is_fixed = true;           // no dimension is open

    [[nodiscard]] bool is_raw() const { return fields.empty(); }
    // Its arrays are the fields of records: one structured array for numpy.
    [[nodiscard]] bool has_records() const {
        return !fields.empty() && fields[0].record_bytes != 0;
    }
    // The one array that the payload is, else null.
    [[nodiscard]] const Field* only() const {
        return fields.size() == 1 && !has_records() ? fields.data() : nullptr;
    }
    [[nodiscard]] const Field* find(std::string_view name) const;
};
using SchemaPtr = std::shared_ptr<const Schema>;

// Copies of the C descriptors, with strides; raises SegmentCorrupt for a dtype that the list does
// not have.
SchemaPtr schema_from_arrays(const fg_array* arrays, std::size_t count);
// The same; frames of one publisher have the same descriptors, so the last few are remembered.
SchemaPtr shared_schema_from_arrays(const fg_array* arrays, std::size_t count);
std::vector<fg_array> arrays_from_schema(const Schema& schema);

// "uint8 (1080, 1920, 3)" for messages.
std::string describe(const char* dtype, int ndim, const Py_ssize_t* shape);

class Region;

// [(name, dtype, shape)] as shm.py sees a schema; -1 is an open dimension.
nb::list schema_to_python(const Schema& schema);
// The same with the place of each field, as framegate.records takes it; empty unless it has records.
nb::list records_to_python(const Schema& schema);
// The whole payload as numpy sees it: its only array, or its records.
nb::object whole_array(nb::handle owner, Region& region, const char* what);
// The shape and the name of the type of the whole payload.
nb::object whole_shape(Region& region);
nb::str whole_dtype(Region& region);

class Region {
  public:
    Region() = default;
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;
    virtual ~Region() = default;

    // The arrays of the payload; may ask the segment the first time.
    virtual const Schema& schema() = 0;

    // Raises when the slot is no longer ours or this process is a forked child.
    void require_live() const;
    // The payload's only array, or nullptr for raw bytes; raises SchemaMismatch for several.
    const Field* only_field(const char* what);

    std::byte* data = nullptr;
    std::size_t bytes = 0;
    Shared<Py_ssize_t> exports = 0;  // views of it may die without the owner being locked
    bool readonly = true;
    bool live = false;
    const char* noun = "frame";
    const char* ended = "released";  // what to say when it is not live
    unsigned fork_generation = 0;    // of the process that made it; see fork.hpp
    Py_ssize_t flat_shape = 0;       // of the one-dimensional view of bytes; views point at it
};

// Fills `view` with one field, or with all bytes when `field` is null. Returns -1 with an exception
// set on failure, as a bf_getbuffer does.
int fill_buffer(PyObject* exporter, Region& region, const Field* field, Py_buffer* view,
                int flags) noexcept;

// The buffer slots of a class whose instances are a Region: typed when the payload is one array,
// else plain bytes.
template <typename T>
int region_getbuffer(PyObject* self, Py_buffer* view, int flags) noexcept;

// `__dlpack__` of one field or of all bytes; the capsule keeps `owner` alive.
nb::object to_dlpack(nb::handle owner, Region& region, const Field* field, nb::handle stream,
                     nb::handle max_version, nb::handle device, nb::handle copy);

// One field, or all bytes when `field` is null, as a numpy array that holds `owner`; a memoryview
// when numpy is not installed.
nb::object to_array(nb::handle owner, Region& region, const Field* field);

nb::object shape_of(const Region& region, const Field* field);
nb::str dtype_name_of(const Field* field);
nb::dict array_interface(nb::handle exporter, const Region& region, const Field* field);

// One named array of a Frame or Loan: the exporter behind `frame.arrays["name"]`.
struct FieldView {
    nb::object owner;
    Region* region;  // of the owner
    const Field* field;
};

// The arrays of a region by name; an unnamed one has the name "".
nb::dict arrays_of(nb::handle owner, Region& region);
// One of them; raises KeyError that says which there are.
nb::object array_named(nb::handle owner, Region& region, const std::string& name);

template <typename T>
int region_getbuffer(PyObject* self, Py_buffer* view, int flags) noexcept {
    view->obj = nullptr;
    if (!nb::inst_ready(self)) {  // T.__new__(T) makes one that nothing was put into
        PyErr_SetString(PyExc_TypeError, "this object was never initialised");
        return -1;
    }
    const nb::ft_object_guard guard(self);
    try {
        Region& region = *nb::inst_ptr<T>(self);
        region.require_live();
        const Schema& schema = region.schema();
        return fill_buffer(self, region, schema.only(), view, flags);
    } catch (nb::python_error& error) {
        error.restore();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_BufferError, error.what());
    }
    return -1;
}

template <typename T>
void region_releasebuffer(PyObject* self, Py_buffer*) noexcept {
    --nb::inst_ptr<T>(self)->exports;
}

template <typename T>
inline PyType_Slot region_slots[] = {
    {Py_bf_getbuffer, reinterpret_cast<void*>(&region_getbuffer<T>)},
    {Py_bf_releasebuffer, reinterpret_cast<void*>(&region_releasebuffer<T>)},
    {0, nullptr}};

// `__dlpack__` and `__dlpack_device__` of a class whose instances are a Region.
template <typename T>
void bind_dlpack(LockedClass<T>& type) {
    using nb::literals::operator""_a;
    type.def(
            "__dlpack__",
            [](nb::handle_t<T> self, nb::object stream, nb::object max_version,
               nb::object dl_device, nb::object copy) {
                Region& region = nb::cast<T&>(self);
                region.require_live();
                return to_dlpack(self, region, region.only_field("__dlpack__"), stream, max_version,
                                 dl_device, copy);
            },
            nb::kw_only(), "stream"_a = nb::none(), "max_version"_a = nb::none(),
            "dl_device"_a = nb::none(), "copy"_a = nb::none(),
            nb::sig("def __dlpack__(self, *, stream: int | None = None, max_version: tuple[int, "
                    "int] | None = None, "
                    "dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> "
                    "typing_extensions.CapsuleType"),
            "DLPack 1.x capsule of the memory itself, or of a copy of it with `copy=True`. That "
            "of\n"
            "a frame is read-only; before 1.0 there is no such thing, so max_version is needed.")
        .def(
            "__dlpack_device__",
            [](nb::handle_t<T>) { return nb::make_tuple(dlpack::kDeviceCpu, 0); },
            nb::sig("def __dlpack_device__(self) -> tuple[int, int]"));
}

// A lease or loan is this process's, and its memory is shared already.
template <typename T>
void refuse_pickling(LockedClass<T>& type, const char* noun) {
    type.def(
        "__reduce__",
        [noun](nb::handle_t<T>) -> nb::tuple {
            const std::string message =
                std::string("cannot pickle a ") + noun +
                ": it belongs to this process. Hand over the name of its topic and let the other "
                "process subscribe, or pickle a copy of its array";
            throw nb::type_error(message.c_str());
        },
        nb::sig("def __reduce__(self) -> typing.NoReturn"));
}

// Whether an object is a Frame of raw bytes: forwarding it makes raw bytes again.
bool is_raw_region(nb::handle object);

void bind_region(nb::module_& module);

}  // namespace framegate::py
