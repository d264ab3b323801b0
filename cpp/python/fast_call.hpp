// A short way into the few methods that are called once per frame.
//
// nanobind's call is general: it resolves overloads, casts every argument and fills in the
// defaults of those that were not given, which for send() costs more than the send. So the usual
// shape of such a call (`send(b"...")`, `take()`, `release()`) is recognised before nanobind sees
// it. Whatever looks different, and whatever goes wrong, is left to the nanobind method: it alone
// knows keywords, defaults, waiting and error messages, and it alone shows in help() and stubs.
//
// A nanobind function is called through the vectorcall pointer in its own object, as PEP 590 says.
// intercept() puts another pointer there and keeps the first.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <utility>

namespace framegate::py {

namespace nb = nanobind;

// The Python type of T, looked up once when it is bound: the look-up by C++ type is a hash table's.
template <typename T>
inline PyTypeObject* fast_type = nullptr;

// The C++ object behind `object`, or null if it is something else or was never initialised.
template <typename T>
T* fast_cast(PyObject* object) noexcept {
    if (!PyObject_TypeCheck(object, fast_type<T>) || !nb::inst_ready(object)) [[unlikely]] {
        return nullptr;
    }
    return nb::inst_ptr<T>(object);
}

// What a short way answers: whether it dealt with the call, and the result (null: an exception is
// set).
struct FastResult {
    bool is_done = false;
    PyObject* value = nullptr;
};

using FastMethod = FastResult (*)(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                                  PyObject* keywords) noexcept;

// kUse tells several methods apart that share a short way.
template <FastMethod kMethod, int kUse>
struct Intercepted {
    static inline vectorcallfunc general = nullptr;

    // Without the GIL the receiver is locked, as nanobind does it for its own calls.
    static FastResult alone(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                            PyObject* keywords) noexcept {
        const nb::ft_object_guard guard(self);
        return kMethod(self, arguments, count, keywords);
    }

    static PyObject* call(PyObject* method, PyObject* const* arguments, std::size_t count_and_flag,
                          PyObject* keywords) noexcept {
        const Py_ssize_t count = PyVectorcall_NARGS(count_and_flag);
        if (count > 0) [[likely]] {
            const FastResult result = alone(arguments[0], arguments + 1, count - 1, keywords);
            if (result.is_done) [[likely]] {
                return result.value;
            }
        }
        return general(method, arguments, count_and_flag, keywords);
    }
};

// Puts kMethod before the nanobind method `name` of `type`.
template <FastMethod kMethod, int kUse = 0>
void intercept(nb::handle type, const char* name) {
    const nb::object method = nb::getattr(type, name);
    const Py_ssize_t offset = Py_TYPE(method.ptr())->tp_vectorcall_offset;
    if (offset <= 0) {
        return;  // not a function of nanobind as we know it: it stays as it is
    }
    auto* place = reinterpret_cast<vectorcallfunc*>(reinterpret_cast<char*>(method.ptr()) + offset);
    Intercepted<kMethod, kUse>::general = std::exchange(*place, &Intercepted<kMethod, kUse>::call);
}

}  // namespace framegate::py
