// What stands in for the GIL on a Python without it.
//
// Everything in this module was written for code that runs alone between two calls into Python.
// Without the GIL the same holds per object: each method, property and buffer slot runs in the
// critical section of its receiver (PEP 703), which is given up where the GIL would be: while it
// waits, and perhaps where it calls into Python. So a rule that was right under the GIL stays right
// as long as it speaks of one object. What several objects share is one of these:
//
// - handles of the library, which may be used from any thread (shm.h);
// - numbers that are `Shared`;
// - caches of the module, each with a lock or an atomic of its own.
//
// With the GIL all of this is nothing.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <utility>

namespace framegate::py {

namespace nb = nanobind;

// A number that several objects write.
#if defined(NB_FREE_THREADED)
template <typename T>
using Shared = std::atomic<T>;
#else
template <typename T>
using Shared = T;
#endif

// A class whose methods and properties run alone on their object.
template <typename T, typename... Extra>
class LockedClass : public nb::class_<T, Extra...> {
    using Base = nb::class_<T, Extra...>;

  public:
    using Base::Base;

    template <typename Function, typename... Annotations>
    LockedClass& def(const char* name, Function&& function, const Annotations&... annotations) {
        Base::def(name, std::forward<Function>(function), nb::lock_self(), annotations...);
        return *this;
    }

    // Nobody else has an object that is being made. Other objects that it reads are locked by their
    // argument: `"topic"_a.lock()`.
    template <typename... Arguments, typename... Annotations>
    LockedClass& def(nb::init<Arguments...>&& init, const Annotations&... annotations) {
        Base::def(std::move(init), annotations...);
        return *this;
    }

    template <typename Getter, typename... Annotations>
    LockedClass& def_prop_ro(const char* name, Getter&& getter, const Annotations&... annotations) {
        Base::def_prop_ro(name, std::forward<Getter>(getter), nb::lock_self(), annotations...);
        return *this;
    }
};

}  // namespace framegate::py
