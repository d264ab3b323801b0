#include "region.hpp"

#include <nanobind/stl/pair.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "dlpack.hpp"
#include "errors.hpp"
#include "fast_call.hpp"
#include "fork.hpp"
#include "numpy_api.hpp"

namespace framegate::py {

// ---- schemas ------------------------------------------------------------------------------------

const Field* Schema::find(std::string_view name) const {
    for (const Field& field : fields) {
        if (field.name == name) {
            return &field;
        }
    }
    return nullptr;
}

SchemaPtr schema_from_arrays(const fg_array* arrays, std::size_t count) {
    auto schema = std::make_shared<Schema>();
    schema->fields.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
        const fg_array& array = arrays[i];
        Field& field = schema->fields[i];
        field.name.assign(array.name, array.name_bytes);
        field.type = dtype_of_code(array.dtype);
        if (field.type == nullptr || array.dimension_count > FG_ARRAY_DIMENSIONS_MAX) {
            raise_error(FG_SEGMENT_CORRUPT,
                        "array " + field.name + " has an unknown dtype or too many dimensions");
        }
        field.ndim = array.dimension_count;
        field.offset = array.offset;
        field.bytes = array.bytes;
        field.record_bytes = array.record_bytes;
        field.record_ndim = static_cast<int>(array.record_dimensions);
        if (field.record_bytes != schema->fields[0].record_bytes ||
            field.record_ndim != schema->fields[0].record_ndim || field.record_ndim > field.ndim ||
            !std::equal(array.shape, array.shape + field.record_ndim, arrays[0].shape)) {
            raise_error(FG_SEGMENT_CORRUPT,
                        "array " + field.name + " is no field of the same records as the others");
        }
        auto stride = static_cast<Py_ssize_t>(field.type->bytes);
        for (int axis = field.ndim - 1; axis >= 0; --axis) {
            if (field.record_bytes != 0 && axis == field.record_ndim - 1) {
                stride = static_cast<Py_ssize_t>(field.record_bytes);
            }
            field.strides[axis] = stride;
            if (array.shape[axis] == FG_DIMENSION_ANY) {
                field.shape[axis] = -1;
                schema->is_fixed = false;
            } else {
                field.shape[axis] = static_cast<Py_ssize_t>(array.shape[axis]);
                stride *= field.shape[axis];
            }
        }
        std::size_t end = field.offset + field.bytes;
        if (field.record_bytes != 0 && schema->is_fixed) {
            end = field.record_bytes;
            for (int axis = 0; axis < field.record_ndim; ++axis) {
                end *= static_cast<std::size_t>(field.shape[axis]);
            }
        }
        schema->payload_bytes = std::max(schema->payload_bytes, end);
    }
    if (!schema->is_fixed) {
        schema->payload_bytes = 0;
    }
    return schema;
}

SchemaPtr shared_schema_from_arrays(const fg_array* arrays, std::size_t count) {
    struct Known {
        std::vector<fg_array> arrays;
        SchemaPtr schema;
    };
    static Known known[8];  // as many kinds of frames as a program reads in turns
    static std::size_t oldest = 0;
    static nb::ft_mutex mutex;
    const nb::ft_lock_guard guard(mutex);  // no Python below but for an error's class
    for (const Known& entry : known) {
        if (entry.arrays.size() == count && entry.schema != nullptr &&
            std::memcmp(entry.arrays.data(), arrays, count * sizeof *arrays) == 0) {
            return entry.schema;
        }
    }
    SchemaPtr schema = schema_from_arrays(arrays, count);
    known[oldest] = {{arrays, arrays + count}, schema};
    oldest = (oldest + 1) % std::size(known);
    return schema;
}

std::vector<fg_array> arrays_from_schema(const Schema& schema) {
    std::vector<fg_array> arrays(schema.fields.size());
    for (std::size_t i = 0; i < arrays.size(); ++i) {
        const Field& field = schema.fields[i];
        fg_array& array = arrays[i];
        array = {};
        if (field.name.size() > FG_ARRAY_NAME_BYTES_MAX) {
            raise_error(FG_INVALID_ARGUMENT,
                        "array name \"" + field.name + "\" has " +
                            std::to_string(field.name.size()) + " bytes; at most " +
                            std::to_string(FG_ARRAY_NAME_BYTES_MAX) + " are possible");
        }
        std::memcpy(array.name, field.name.data(), field.name.size());
        array.name_bytes = static_cast<std::uint8_t>(field.name.size());
        array.dtype = field.type->code;
        array.dimension_count = static_cast<std::uint8_t>(field.ndim);
        for (int axis = 0; axis < field.ndim; ++axis) {
            array.shape[axis] = field.shape[axis] < 0
                                    ? FG_DIMENSION_ANY
                                    : static_cast<std::uint64_t>(field.shape[axis]);
        }
        array.offset = field.offset;
        array.bytes = field.bytes;
        if (field.record_bytes != 0) {
            array.flags = FG_ARRAY_FIELD;
            array.record_bytes = field.record_bytes;
            array.record_dimensions = static_cast<std::uint32_t>(field.record_ndim);
        }
    }
    return arrays;
}

std::string describe(const char* dtype, int ndim, const Py_ssize_t* shape) {
    std::string text = dtype;
    text += " (";
    for (int axis = 0; axis < ndim; ++axis) {
        if (axis > 0) {
            text += ", ";
        }
        text += shape[axis] < 0 ? "any" : std::to_string(shape[axis]);
    }
    return text + (ndim == 1 ? ",)" : ")");
}

nb::list schema_to_python(const Schema& schema) {
    nb::list rows;
    for (const Field& field : schema.fields) {
        nb::list shape;
        for (int axis = 0; axis < field.ndim; ++axis) {
            shape.append(field.shape[axis]);
        }
        rows.append(nb::make_tuple(nb::str(field.name.c_str(), field.name.size()),
                                   nb::str(field.type->name), nb::tuple(shape)));
    }
    return rows;
}

nb::list records_to_python(const Schema& schema) {
    nb::list rows;
    if (!schema.has_records()) {
        return rows;
    }
    const nb::list plain = schema_to_python(schema);
    for (std::size_t i = 0; i < schema.fields.size(); ++i) {
        const Field& field = schema.fields[i];
        const nb::object row = plain[i];
        rows.append(
            nb::make_tuple(row[0], row[1], row[2],
                           nb::make_tuple(field.offset, field.record_bytes, field.record_ndim)));
    }
    return rows;
}

// ---- regions ------------------------------------------------------------------------------------

void Region::require_live() const {
    if (fork_generation != py::fork_generation()) [[unlikely]] {
        raise_error(FG_FORKED,
                    std::string("this ") + noun +
                        " belongs to the parent process; open the topic again after fork()");
    }
    if (!live) [[unlikely]] {
        raise_error(FG_CLOSED, std::string("this ") + noun + " was " + ended);
    }
}

const Field* Region::only_field(const char* what) {
    const Schema& arrays = schema();
    if (arrays.is_raw()) {
        return nullptr;
    }
    if (const Field* field = arrays.only()) {
        return field;
    }
    std::string message = std::string(what) + " needs one array, this " + noun + " has ";
    message += std::to_string(arrays.fields.size()) + " (";
    for (const Field& field : arrays.fields) {
        if (&field != arrays.fields.data()) {
            message += ", ";
        }
        message += field.name;
    }
    raise_error(FG_SCHEMA_MISMATCH, message + "); use .arrays[name]");
}

int fill_buffer(PyObject* exporter, Region& region, const Field* field, Py_buffer* view,
                int flags) noexcept {
    view->obj = nullptr;
    if ((flags & PyBUF_WRITABLE) == PyBUF_WRITABLE && region.readonly) {
        PyErr_SetString(PyExc_BufferError,
                        "a frame is read-only: other processes read the same memory");
        return -1;
    }
    view->internal = nullptr;
    view->readonly = region.readonly ? 1 : 0;
    view->suboffsets = nullptr;
    if (field != nullptr && field->record_bytes != 0) {
        const bool any_order = (flags & PyBUF_STRIDES) == PyBUF_STRIDES &&
                               (flags & PyBUF_C_CONTIGUOUS) != PyBUF_C_CONTIGUOUS &&
                               (flags & PyBUF_ANY_CONTIGUOUS) != PyBUF_ANY_CONTIGUOUS &&
                               (flags & PyBUF_F_CONTIGUOUS) != PyBUF_F_CONTIGUOUS;
        if (!any_order) {
            PyErr_SetString(PyExc_BufferError,
                            "a field of records is not contiguous: its strides are needed");
            return -1;
        }
    }
    if (field != nullptr) {
        view->buf = region.data + field->offset;
        view->len = static_cast<Py_ssize_t>(field->bytes);
        view->itemsize = field->type->bytes;
        view->ndim = field->ndim;
        view->shape = const_cast<Py_ssize_t*>(field->shape);
        view->strides = const_cast<Py_ssize_t*>(field->strides);
        view->format = const_cast<char*>(field->type->format);
    } else {
        static Py_ssize_t one = 1;
        region.flat_shape = static_cast<Py_ssize_t>(region.bytes);
        view->buf = region.data;
        view->len = region.flat_shape;
        view->itemsize = 1;
        view->ndim = 1;
        view->shape = &region.flat_shape;
        view->strides = &one;
        view->format = const_cast<char*>("B");
    }
    // Every region is C-contiguous, so a consumer that asks for less than strides or shape may have
    // less; one that asks for Fortran order may not.
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && view->ndim > 1) {
        PyErr_SetString(PyExc_BufferError, "frames are in C order");
        return -1;
    }
    if ((flags & PyBUF_STRIDES) != PyBUF_STRIDES) {
        view->strides = nullptr;
    }
    if ((flags & PyBUF_ND) != PyBUF_ND) {
        view->shape = nullptr;
        view->ndim = 1;
    }
    if ((flags & PyBUF_FORMAT) != PyBUF_FORMAT) {
        view->format = nullptr;
    }
    view->obj = exporter;
    Py_INCREF(exporter);
    ++region.exports;
    return 0;
}

// ---- numpy --------------------------------------------------------------------------------------

namespace {

// The base of a numpy array: one view of a region, for as long as the array lives.
struct ArrayOwner {
    ArrayOwner(nb::object owner_, Region& region_) : owner(std::move(owner_)), region(&region_) {
        ++region->exports;
    }
    ArrayOwner(const ArrayOwner&) = delete;
    ArrayOwner& operator=(const ArrayOwner&) = delete;
    ~ArrayOwner() { --region->exports; }

    nb::object owner;
    Region* region;  // of the owner
};

int traverse_array_owner(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        Py_VISIT(nb::inst_ptr<ArrayOwner>(self)->owner.ptr());
    }
    return 0;
}

PyType_Slot array_owner_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(&traverse_array_owner)},
                                   {0, nullptr}};

nb::object make_array_owner(nb::handle owner, Region& region) {
    nb::object object = nb::inst_alloc(reinterpret_cast<PyObject*>(fast_type<ArrayOwner>));
    if (!object.is_valid()) {
        throw nb::python_error();
    }
    new (nb::inst_ptr<ArrayOwner>(object)) ArrayOwner(nb::borrow(owner), region);
    nb::inst_mark_ready(object);
    return object;
}

}  // namespace

nb::object to_array(nb::handle owner, Region& region, const Field* field) {
    if (const NumpyApi* numpy = NumpyApi::get()) [[likely]] {
        if (field == nullptr) {
            static constexpr Py_ssize_t kOne = 1;
            const auto length = static_cast<Py_ssize_t>(region.bytes);
            return numpy->array(*dtype_of_code(FG_DTYPE_UINT8), 1, &length, &kOne, region.data,
                                !region.readonly, make_array_owner(owner, region));
        }
        return numpy->array(*field->type, field->ndim, field->shape, field->strides,
                            region.data + field->offset, !region.readonly,
                            make_array_owner(owner, region));
    }
    nb::object exporter = nb::borrow(owner);
    if (field != nullptr && region.schema().fields.size() != 1) {
        exporter = nb::cast(FieldView{exporter, &region, field});
    }
    const nb::object numpy = import_optional("numpy");
    if (!numpy.is_valid()) {
        return nb::steal(PyMemoryView_FromObject(exporter.ptr()));
    }
    return numpy.attr("asarray")(exporter);  // a numpy that numpy_api.hpp does not know
}

nb::object whole_array(nb::handle owner, Region& region, const char* what) {
    if (region.schema().has_records()) {
        return nb::module_::import_("framegate.records")
            .attr("view")(owner, records_to_python(region.schema()));
    }
    return to_array(owner, region, region.only_field(what));
}

nb::object whole_shape(Region& region) {
    const Schema& schema = region.schema();
    if (!schema.has_records()) {
        return shape_of(region, region.only_field("shape"));
    }
    nb::list shape;
    for (int axis = 0; axis < schema.fields[0].record_ndim; ++axis) {
        shape.append(schema.fields[0].shape[axis]);
    }
    return nb::tuple(shape);
}

nb::str whole_dtype(Region& region) {
    return region.schema().has_records() ? nb::str("record")
                                         : dtype_name_of(region.only_field("dtype"));
}

nb::object shape_of(const Region& region, const Field* field) {
    if (field == nullptr) {
        return nb::make_tuple(region.bytes);
    }
    nb::object shape = nb::steal(PyTuple_New(field->ndim));
    for (int axis = 0; axis < field->ndim; ++axis) {
        PyTuple_SET_ITEM(shape.ptr(), axis, PyLong_FromSsize_t(field->shape[axis]));
    }
    return shape;
}

nb::str dtype_name_of(const Field* field) {
    return nb::str(field == nullptr ? "uint8" : field->type->name);
}

nb::dict array_interface(nb::handle exporter, const Region& region, const Field* field) {
    // Kind letters of numpy's type strings, by DLPack code; bfloat16 has none and shows its bits.
    std::string typestr = "|u1";
    if (field != nullptr) {
        constexpr const char kKinds[] = {'i', 'u', 'f', '?', 'u', 'c', 'b'};
        typestr = field->type->bytes == 1 ? "|" : (PY_LITTLE_ENDIAN ? "<" : ">");
        typestr += kKinds[field->type->dlpack_code];
        typestr += std::to_string(field->type->bytes);
    }
    nb::dict interface;
    interface["version"] = 3;
    interface["shape"] = shape_of(region, field);
    interface["typestr"] = typestr.c_str();
    // A memoryview instead of a bare address: the consumer's reference to it keeps the lease, as
    // any other view does.
    interface["data"] = nb::steal(PyMemoryView_FromObject(exporter.ptr()));
    return interface;
}

nb::dict arrays_of(nb::handle owner, Region& region) {
    region.require_live();
    nb::dict arrays;
    for (const Field& field : region.schema().fields) {
        arrays[nb::str(field.name.c_str(), field.name.size())] = to_array(owner, region, &field);
    }
    return arrays;
}

nb::object array_named(nb::handle owner, Region& region, const std::string& name) {
    region.require_live();
    const Schema& schema = region.schema();
    const Field* field = schema.find(name);
    if (field == nullptr) {
        std::string message = std::string("this ") + region.noun + " has no array \"" + name + "\"";
        message += schema.is_raw() ? ": it is raw bytes" : "; it has";
        for (const Field& other : schema.fields) {
            message += (&other == schema.fields.data() ? " \"" : ", \"") + other.name + "\"";
        }
        throw nb::key_error(message.c_str());
    }
    return to_array(owner, region, field);
}

// ---- DLPack -------------------------------------------------------------------------------------

namespace {

// What a capsule's deleter needs: the owner of the region, or (when the consumer asked for a copy)
// memory of its own, which holds no lease.
template <typename Managed>
struct Export {
    Managed managed;
    PyObject* owner;
    Region* region;
    std::byte* copied;
    std::int64_t shape[FG_ARRAY_DIMENSIONS_MAX];
    std::int64_t strides[FG_ARRAY_DIMENSIONS_MAX];
};

template <typename Managed>
void delete_export(Managed* managed) {
    auto* exported = static_cast<Export<Managed>*>(managed->context);
    // Consumers may delete on any thread, without the GIL, and after the interpreter is gone.
    if (nb::detail::cleanup_guard guard{}) {
        if (exported->owner != nullptr) {
            --exported->region->exports;
            Py_DECREF(exported->owner);
        }
        delete[] exported->copied;
        delete exported;
    }
}

template <typename Managed>
constexpr const char* kCapsuleName = dlpack::kName;
template <>
constexpr const char* kCapsuleName<dlpack::ManagedTensorVersioned> = dlpack::kVersionedName;

// A consumer renames the capsule and takes over the deleter; one that still has its name was never
// consumed.
template <typename Managed>
void capsule_destructor(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, kCapsuleName<Managed>) != 0) {
        auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, kCapsuleName<Managed>));
        managed->deleter(managed);
    }
}

template <typename Managed>
nb::object make_capsule(nb::handle owner, Region& region, const Field* field, bool copy) {
    auto exported = std::make_unique<Export<Managed>>();
    const std::size_t bytes = field == nullptr ? region.bytes : field->bytes;
    std::byte* data = region.data + (field == nullptr ? 0 : field->offset);
    if (copy) {
        exported->copied = new std::byte[bytes == 0 ? 1 : bytes];
        if (bytes > 0) {
            std::memcpy(exported->copied, data, bytes);
        }
        data = exported->copied;
    }
    const DType& type = field == nullptr ? *dtype_of_code(FG_DTYPE_UINT8) : *field->type;
    const int ndim = field == nullptr ? 1 : field->ndim;
    for (int axis = 0; axis < ndim; ++axis) {
        exported->shape[axis] =
            field == nullptr ? static_cast<std::int64_t>(region.bytes) : field->shape[axis];
        exported->strides[axis] = field == nullptr ? 1 : field->strides[axis] / type.bytes;
    }
    Managed& managed = exported->managed;
    managed = {};
    managed.context = exported.get();
    managed.deleter = delete_export<Managed>;
    managed.tensor.data = data;
    managed.tensor.device = {dlpack::kDeviceCpu, 0};
    managed.tensor.ndim = ndim;
    managed.tensor.dtype = {type.dlpack_code, static_cast<std::uint8_t>(type.bytes * 8), 1};
    managed.tensor.shape = exported->shape;
    managed.tensor.strides = exported->strides;
    if constexpr (std::is_same_v<Managed, dlpack::ManagedTensorVersioned>) {
        managed.version = {dlpack::kMajor, dlpack::kMinor};
        if (copy) {
            managed.flags = dlpack::kFlagIsCopied;
        } else if (region.readonly) {
            managed.flags = dlpack::kFlagReadOnly;
        }
    }
    nb::object capsule =
        nb::steal(PyCapsule_New(&managed, kCapsuleName<Managed>, capsule_destructor<Managed>));
    if (!capsule.is_valid()) {
        delete[] exported->copied;
        throw nb::python_error();
    }
    if (!copy) {
        exported->region = &region;
        exported->owner = owner.inc_ref().ptr();
        ++region.exports;
    }
    exported.release();  // NOLINT(bugprone-unused-return-value): the capsule owns it now
    return capsule;
}

}  // namespace

nb::object to_dlpack(nb::handle owner, Region& region, const Field* field, nb::handle stream,
                     nb::handle max_version, nb::handle device, nb::handle copy) {
    region.require_live();
    if (field != nullptr && field->record_bytes != 0) {
        throw nb::buffer_error("a field of records lies interleaved: copy it, then exchange it");
    }
    if (!stream.is_none() && !(nb::isinstance<nb::int_>(stream) && nb::cast<long>(stream) == -1)) {
        throw nb::buffer_error("frames are in host memory: stream must be None");
    }
    if (!device.is_none()) {
        std::pair<int, int> wanted;
        if (!nb::try_cast(device, wanted)) {
            throw nb::type_error("dl_device is a pair of integers");
        }
        if (wanted.first != dlpack::kDeviceCpu || wanted.second != 0) {
            throw nb::buffer_error("frames are in host memory: dl_device must be (1, 0), the CPU");
        }
    }
    const bool copied = PyObject_IsTrue(copy.ptr()) == 1;
    std::pair<unsigned, unsigned> version{0, 0};
    if (!max_version.is_none() && !nb::try_cast(max_version, version)) {
        throw nb::type_error("max_version is a pair of integers");
    }
    if (version.first >= dlpack::kMajor) {
        return make_capsule<dlpack::ManagedTensorVersioned>(owner, region, field, copied);
    }
    if (region.readonly && !copied) {
        // Before 1.0 a consumer could not be told that it must not write.
        throw nb::buffer_error(
            "a frame is read-only, which DLPack before 1.0 cannot say: pass max_version=(1, 0) or "
            "copy=True");
    }
    return make_capsule<dlpack::ManagedTensor>(owner, region, field, copied);
}

// ---- one named array ----------------------------------------------------------------------------

namespace {

int field_getbuffer(PyObject* self, Py_buffer* view, int flags) noexcept {
    view->obj = nullptr;
    if (!nb::inst_ready(self)) {
        PyErr_SetString(PyExc_TypeError, "this object was never initialised");
        return -1;
    }
    FieldView& field_view = *nb::inst_ptr<FieldView>(self);
    const nb::ft_object_guard guard(field_view.owner);
    try {
        field_view.region->require_live();
    } catch (nb::python_error& error) {
        error.restore();
        return -1;
    }
    return fill_buffer(self, *field_view.region, field_view.field, view, flags);
}

void field_releasebuffer(PyObject* self, Py_buffer*) noexcept {
    --nb::inst_ptr<FieldView>(self)->region->exports;
}

int traverse_field(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        Py_VISIT(nb::inst_ptr<FieldView>(self)->owner.ptr());
    }
    return 0;
}

PyType_Slot field_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(&traverse_field)},
                             {Py_bf_getbuffer, reinterpret_cast<void*>(&field_getbuffer)},
                             {Py_bf_releasebuffer, reinterpret_cast<void*>(&field_releasebuffer)},
                             {0, nullptr}};

}  // namespace

void bind_region(nb::module_& module) {
    nb::class_<ArrayOwner> owner(
        module, "ArrayOwner", nb::type_slots(array_owner_slots), nb::is_final(), nb::pooled(64),
        "The base of the numpy arrays of frames and loans: keeps their memory.");
    fast_type<ArrayOwner> = reinterpret_cast<PyTypeObject*>(owner.ptr());
    nb::class_<FieldView>(
        module, "FieldView", nb::type_slots(field_slots), nb::is_final(),
        "One named array of a frame or loan, as a buffer. What `.arrays` makes its views\n"
        "from.")
        .def_prop_ro(
            "shape", [](const FieldView& self) { return shape_of(*self.region, self.field); },
            nb::sig("def shape(self) -> tuple[int, ...]"))
        .def_prop_ro("dtype", [](const FieldView& self) { return dtype_name_of(self.field); });
}

}  // namespace framegate::py
