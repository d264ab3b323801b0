#include "numpy_api.hpp"

#include <cstring>

namespace framegate::py {
namespace {

// Places in the table `_ARRAY_API`.
constexpr std::size_t kArrayType = 2;
constexpr std::size_t kNewFromDescr = 94;
constexpr std::size_t kSetBaseObject = 282;

// Whether a fresh array looks as NumpyArray says.
bool is_as_we_know_it(nb::handle numpy) {
    const nb::object dtype = numpy.attr("dtype")("uint16");
    const nb::object array = numpy.attr("zeros")(nb::make_tuple(2, 3), dtype);
    const nb::object interface = array.attr("__array_interface__");
    const auto address = nb::cast<std::uintptr_t>(nb::object(interface["data"][0]));
    const auto& fields = *reinterpret_cast<const NumpyArray*>(array.ptr());
    return reinterpret_cast<std::uintptr_t>(fields.data) == address && fields.ndim == 2 &&
           fields.shape[0] == 2 && fields.shape[1] == 3 && fields.strides[0] == 6 &&
           fields.strides[1] == 2 && fields.base == nullptr && fields.dtype == dtype.ptr() &&
           (fields.flags & NumpyArray::kContiguous) != 0 &&
           (fields.flags & NumpyArray::kWriteable) != 0;
}

}  // namespace

nb::object import_optional(const char* name) {
    try {
        return nb::module_::import_(name);
    } catch (nb::python_error& error) {
        if (!error.matches(PyExc_ModuleNotFoundError)) {
            throw;
        }
        return {};
    }
}

// The first array ever, perhaps: numpy is there then, and can be looked at.
bool NumpyApi::meets_array(PyObject* object) noexcept {
    if (std::strcmp(Py_TYPE(object)->tp_name, "numpy.ndarray") != 0) {
        return false;
    }
    try {
        return get() != nullptr && Py_TYPE(object) == array_type.load(std::memory_order_relaxed);
    } catch (nb::python_error& error) {
        error.discard_as_unraisable("looking at numpy");
    } catch (const std::exception&) {
        return false;  // the general way says what is wrong, if anything is
    }
    return false;
}

bool NumpyApi::load(NumpyApi& api) {
    const nb::object numpy = import_optional("numpy");
    if (!numpy.is_valid()) {
        return false;
    }
    nb::object core = import_optional("numpy._core._multiarray_umath");  // since 2.0
    if (!core.is_valid()) {
        core = import_optional("numpy.core._multiarray_umath");
    }
    if (!core.is_valid() || !nb::hasattr(core, "_ARRAY_API")) {
        return false;
    }
    auto** table = static_cast<void**>(
        PyCapsule_GetPointer(nb::object(core.attr("_ARRAY_API")).ptr(), nullptr));
    if (table == nullptr) {
        PyErr_Clear();
        return false;
    }
    if (table[kArrayType] != nb::object(numpy.attr("ndarray")).ptr() || !is_as_we_know_it(numpy)) {
        return false;
    }
    api.new_from_descr_ = reinterpret_cast<NewFromDescr>(table[kNewFromDescr]);
    api.set_base_object_ = reinterpret_cast<SetBaseObject>(table[kSetBaseObject]);
    for (fg_dtype code = 1; code < dtypes.size(); ++code) {
        if (const DType* type = dtype_of_code(code); type != nullptr && !type->needs_ml_dtypes) {
            dtype(*type);
        }
    }
    array_type.store(static_cast<PyTypeObject*>(table[kArrayType]), std::memory_order_relaxed);
    return true;
}

const NumpyApi* NumpyApi::get() {
    // Asked once, or once by each of several threads that meet numpy at the same time: a lock would
    // be held while numpy is imported, and who waits for it might hold what the import waits for.
    // What it refers to is never given back, for the interpreter may be gone before static objects
    // are.
    enum : int { kUnknown, kAbsent, kThere };
    static NumpyApi api;
    static std::atomic<int> state = kUnknown;
    static std::atomic<bool> is_taken = false;
    // Acquire; pairs with the release below.
    if (const int known = state.load(std::memory_order_acquire); known != kUnknown) [[likely]] {
        return known == kThere ? &api : nullptr;
    }
    NumpyApi loaded;
    const bool is_there = load(loaded);
    // The first one to come here writes `api`; another one goes on with nothing this one time.
    if (!is_taken.exchange(true, std::memory_order_relaxed)) {
        api = loaded;
        state.store(is_there ? kThere : kAbsent, std::memory_order_release);
    }
    return state.load(std::memory_order_acquire) == kThere ? &api : nullptr;
}

PyObject* NumpyApi::dtype(const DType& type) {
    std::atomic<PyObject*>& place = dtypes.at(type.code);
    PyObject* known = place.load(std::memory_order_acquire);
    if (known == nullptr) {
        nb::object name = nb::str(type.name);
        if (type.needs_ml_dtypes) {
            const nb::object types = import_optional("ml_dtypes");
            if (!types.is_valid()) {
                return nullptr;
            }
            name = types.attr(type.name);
        }
        const nb::object made = nb::module_::import_("numpy").attr("dtype")(name);
        // Of two threads the first one's stays.
        if (place.compare_exchange_strong(known, made.ptr(), std::memory_order_acq_rel)) {
            known = nb::object(made).release().ptr();
        }
    }
    return known;
}

nb::object NumpyApi::array(const DType& type, int ndim, const Py_ssize_t* shape,
                           const Py_ssize_t* strides, void* data, bool is_writable,
                           nb::object base) const {
    PyObject* dtype = NumpyApi::dtype(type);
    if (dtype == nullptr) {
        // Without ml_dtypes the bits stay visible as unsigned integers of the same width.
        const DType* bits = dtype_of_dlpack(1, static_cast<std::uint8_t>(type.bytes * 8));
        dtype = NumpyApi::dtype(*bits);
    }
    nb::object made = nb::steal(new_from_descr_(array_type.load(std::memory_order_relaxed),
                                                Py_NewRef(dtype), ndim, shape, strides, data,
                                                is_writable ? NumpyArray::kWriteable : 0, nullptr));
    if (!made.is_valid() || set_base_object_(made.ptr(), base.release().ptr()) != 0) {
        throw nb::python_error();
    }
    return made;
}

}  // namespace framegate::py
