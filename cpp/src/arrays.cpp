#include "arrays.hpp"

#include <cstring>

#include "status.hpp"

namespace framegate::impl {
namespace {

struct DtypeInfo {
    const char* name;
    std::uint32_t item_bytes;
};
constexpr DtypeInfo kDtypes[] = {{nullptr, 0},
#define FG_DTYPE_ROW(name, code, bytes, text) {text, bytes},
                                 FG_DTYPE_LIST(FG_DTYPE_ROW)
#undef FG_DTYPE_ROW
};
// The table is indexed by code, so codes must count up from 1 without a gap.
#define FG_DTYPE_CHECK(name, code, wanted, text)               \
    static_assert(code < sizeof kDtypes / sizeof kDtypes[0] && \
                  kDtypes[code].item_bytes == (wanted));
FG_DTYPE_LIST(FG_DTYPE_CHECK)
#undef FG_DTYPE_CHECK
constexpr fg_dtype kDtypeCount = sizeof kDtypes / sizeof kDtypes[0];

bool same_name(const fg_array& left, const fg_array& right) {
    return left.name_bytes == right.name_bytes && left.name_bytes <= FG_ARRAY_NAME_BYTES_MAX &&
           std::memcmp(left.name, right.name, left.name_bytes) == 0;
}

}  // namespace

std::uint32_t dtype_item_bytes(fg_dtype dtype) {
    return dtype < kDtypeCount ? kDtypes[dtype].item_bytes : 0;
}

const char* dtype_name(fg_dtype dtype) {
    return dtype < kDtypeCount ? kDtypes[dtype].name : nullptr;
}

fg_dtype dtype_from_name(const char* name, std::size_t bytes) {
    for (fg_dtype code = 1; code < kDtypeCount; ++code) {
        if (std::strlen(kDtypes[code].name) == bytes &&
            std::memcmp(kDtypes[code].name, name, bytes) == 0) {
            return code;
        }
    }
    return 0;
}

bool array_bytes(const fg_array& array, std::uint64_t* bytes) {
    std::uint64_t total = dtype_item_bytes(array.dtype);
    bool overflow = false;
    for (std::uint32_t i = 0; i < array.dimension_count && i < FG_ARRAY_DIMENSIONS_MAX; ++i) {
        // An empty array is legal, but its other dimensions must not wrap on the way.
        overflow = overflow || array.shape[i] > FG_SLOT_BYTES_MAX ||
                   __builtin_mul_overflow(total, array.shape[i], &total);
    }
    *bytes = total;
    return !overflow && total <= FG_SLOT_BYTES_MAX;
}

bool has_fixed_shape(const fg_array& array) {
    for (std::uint32_t i = 0; i < array.dimension_count && i < FG_ARRAY_DIMENSIONS_MAX; ++i) {
        if (array.shape[i] == FG_DIMENSION_ANY) {
            return false;
        }
    }
    return true;
}

fg_status check_array(const fg_array& array, std::size_t index) {
    if (array.name_bytes > FG_ARRAY_NAME_BYTES_MAX) {
        return fail(FG_INVALID_ARGUMENT, "array %zu: its name is longer than %d bytes", index,
                    FG_ARRAY_NAME_BYTES_MAX);
    }
    if (dtype_item_bytes(array.dtype) == 0) {
        return fail(FG_INVALID_ARGUMENT, "array %zu: unknown dtype code %d", index, array.dtype);
    }
    if (array.dimension_count > FG_ARRAY_DIMENSIONS_MAX) {
        return fail(FG_INVALID_ARGUMENT, "array %zu: %d dimensions, at most %d are possible", index,
                    array.dimension_count, FG_ARRAY_DIMENSIONS_MAX);
    }
    if (array.flags != 0 || array.reserved != 0) {
        return fail(FG_INVALID_ARGUMENT, "array %zu: its reserved fields are not zero", index);
    }
    std::uint64_t bytes = 0;
    if (has_fixed_shape(array) && !array_bytes(array, &bytes)) {
        return fail(FG_INVALID_ARGUMENT, "array %zu: its shape is larger than any slot", index);
    }
    return FG_OK;
}

fg_status check_frame_array(const fg_array& array, std::size_t index, std::uint64_t payload_bytes) {
    if (const fg_status status = check_array(array, index); status != FG_OK) {
        return status;
    }
    std::uint64_t bytes = 0;
    if (!has_fixed_shape(array) || !array_bytes(array, &bytes) || bytes != array.bytes) {
        return fail(FG_INVALID_ARGUMENT,
                    "array %zu: %llu bytes do not follow from its dtype and shape", index,
                    static_cast<unsigned long long>(array.bytes));
    }
    if (array.offset % FG_ARRAY_ALIGNMENT != 0 || array.offset > payload_bytes ||
        bytes > payload_bytes - array.offset) {
        return fail(FG_INVALID_ARGUMENT,
                    "array %zu: offset %llu with %llu bytes is not aligned to %d or outside of a "
                    "payload of %llu bytes",
                    index, static_cast<unsigned long long>(array.offset),
                    static_cast<unsigned long long>(bytes), FG_ARRAY_ALIGNMENT,
                    static_cast<unsigned long long>(payload_bytes));
    }
    return FG_OK;
}

fg_status lay_out_arrays(fg_array* arrays, std::size_t count, std::uint64_t* payload_bytes) {
    if (count > FG_ARRAYS_MAX) {
        return fail(FG_INVALID_ARGUMENT, "%zu arrays, a frame has at most %d", count,
                    FG_ARRAYS_MAX);
    }
    std::uint64_t end = 0;
    for (std::size_t i = 0; i < count; ++i) {
        fg_array& array = arrays[i];
        if (const fg_status status = check_array(array, i); status != FG_OK) {
            return status;
        }
        if (!has_fixed_shape(array)) {
            return fail(FG_INVALID_ARGUMENT, "array %zu: a dimension is open", i);
        }
        static_cast<void>(
            array_bytes(array, &array.bytes));  // check_array saw that it does not overflow
        array.offset = (end + FG_ARRAY_ALIGNMENT - 1) / FG_ARRAY_ALIGNMENT * FG_ARRAY_ALIGNMENT;
        end = array.offset + array.bytes;  // at most 16 times 2^40: cannot wrap
    }
    *payload_bytes = end;
    return FG_OK;
}

bool fits_schema(const fg_array& array, const fg_array& schema) {
    if (!same_name(array, schema) || array.dtype != schema.dtype ||
        array.dimension_count != schema.dimension_count) {
        return false;
    }
    for (std::uint32_t i = 0; i < schema.dimension_count && i < FG_ARRAY_DIMENSIONS_MAX; ++i) {
        if (schema.shape[i] != FG_DIMENSION_ANY && schema.shape[i] != array.shape[i]) {
            return false;
        }
    }
    return true;
}

bool same_schema(const fg_array& left, const fg_array& right) {
    return fits_schema(left, right) && fits_schema(right, left);
}

}  // namespace framegate::impl
