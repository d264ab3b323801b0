// Element types as Python spells them. The list, the codes and the names are those of shm.h; this
// file adds what the buffer protocol and DLPack call each of them.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "framegate/shm.h"

namespace framegate::py {

namespace nb = nanobind;

struct DType {
    fg_dtype code;
    const char* name;
    std::uint8_t dlpack_code;  // DLDataTypeCode
    std::uint8_t bytes;
    const char*
        format;  // of the buffer protocol; the same-width integer where Python has no letter
    bool needs_ml_dtypes;  // numpy alone cannot name it
};

// nullptr when there is no such type.
const DType* dtype_of_code(fg_dtype code);
const DType* dtype_of_name(std::string_view name);
const DType* dtype_of_dlpack(std::uint8_t code, std::uint8_t bits);

// What a buffer's format and item size mean; `swapped` is set for elements in the other byte order.
const DType* dtype_of_format(const char* format, std::size_t item_bytes, bool& swapped);

// What a user wrote: "float32", "<f4", numpy.float32, numpy.dtype("f4"), float, torch.float32.
// Raises TypeError.
const DType& dtype_of_object(nb::handle object);

}  // namespace framegate::py
