// numpy by its C API: arrays over the memory of a frame, and a look into arrays that are sent.
//
// By way of the buffer protocol a small array costs several times what sending or taking it does.
// numpy is optional and no dependency of the build, so its headers are not used: three entries of
// its function table and the head of its array structure are, which are frozen as long as numpy
// keeps its ABI (extensions built years ago rely on them). They are compared with a real array when
// numpy is first met; on any surprise everything goes by the buffer protocol.
#pragma once

#include <nanobind/nanobind.h>

#include <array>
#include <atomic>

#include "dtype.hpp"

namespace framegate::py {

namespace nb = nanobind;

// The head of PyArrayObject_fields.
struct NumpyArray {
    PyObject head;
    char* data;
    int ndim;
    Py_ssize_t* shape;
    Py_ssize_t* strides;
    PyObject* base;
    PyObject* dtype;
    int flags;

    static constexpr int kContiguous = 0x0001;
    static constexpr int kAligned = 0x0100;
    static constexpr int kWriteable = 0x0400;
};

class NumpyApi {
  public:
    // Null when numpy is not installed, or not as we know it. Imports numpy the first time.
    static const NumpyApi* get();
    // Whether `object` is exactly a numpy array (no subclass) whose head is a NumpyArray.
    static bool is_array(PyObject* object) noexcept {
        const PyTypeObject* known = array_type.load(std::memory_order_relaxed);
        return Py_TYPE(object) == known || (known == nullptr && meets_array(object));
    }
    // numpy's own dtype object of a type, the one that its arrays of native byte order share. Null
    // before numpy was met, and for a type that it cannot name. Borrowed.
    static PyObject* known_dtype(const DType& type) noexcept {
        return type.code < dtypes.size() ? dtypes[type.code].load(std::memory_order_acquire)
                                         : nullptr;
    }

    // A C-order array over `data`; `base` keeps the memory and is taken over. Raises.
    [[nodiscard]] nb::object array(const DType& type, int ndim, const Py_ssize_t* shape,
                                   const Py_ssize_t* strides, void* data, bool is_writable,
                                   nb::object base) const;

  private:
    static bool meets_array(PyObject* object) noexcept;
    static bool load(NumpyApi& api);
    static PyObject* dtype(const DType& type);

    using NewFromDescr = PyObject* (*)(PyTypeObject*, PyObject*, int, const Py_ssize_t*,
                                       const Py_ssize_t*, void*, int, PyObject*);
    using SetBaseObject = int (*)(PyObject*, PyObject*);

    // Null until load() trusts it. Relaxed: compared, never looked into.
    static inline std::atomic<PyTypeObject*> array_type = nullptr;
    // By fg_dtype. Release where one is made; pairs with the acquire in known_dtype() and dtype().
    static inline std::array<std::atomic<PyObject*>, 64> dtypes{};
    NewFromDescr new_from_descr_ = nullptr;
    SetBaseObject set_base_object_ = nullptr;
};

// An optional module, or null. Only "not installed" is forgiven.
nb::object import_optional(const char* name);

}  // namespace framegate::py
