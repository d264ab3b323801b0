// From fg_status to the exceptions of framegate.errors, the one home of all of framegate's
// exception classes.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "framegate/shm.h"

namespace framegate::py {

namespace nb = nanobind;

// Name of the class in framegate.errors that stands for a status; nullptr for FG_OK.
const char* error_class_name(fg_status status);

// Raise for a failed call, with the library's own sentence.
[[noreturn]] void raise_status(fg_status status);
// The same with a sentence of ours.
[[noreturn]] void raise_error(fg_status status, const std::string& message);

inline void check(fg_status status) {
    if (status != FG_OK) [[unlikely]] {
        raise_status(status);
    }
}

void bind_errors(nb::module_& module);

}  // namespace framegate::py
