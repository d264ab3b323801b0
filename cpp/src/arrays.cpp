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

bool is_field(const fg_array& array) { return (array.flags & FG_ARRAY_FIELD) != 0; }

// Records of a field whose dimensions are fixed; false if there are more than a slot can have.
bool record_count(const fg_array& array, std::uint64_t* records) {
    *records = 1;
    bool overflow = false;
    for (std::uint32_t i = 0; i < array.record_dimensions && i < FG_ARRAY_DIMENSIONS_MAX; ++i) {
        overflow = overflow || array.shape[i] > FG_SLOT_BYTES_MAX ||
                   __builtin_mul_overflow(*records, array.shape[i], records);
    }
    return !overflow;
}

fg_status check_field(const fg_array& array, std::size_t index) {
    if (array.flags == 0 && array.record_bytes == 0 && array.record_dimensions == 0) {
        return FG_OK;
    }
    if (array.flags != FG_ARRAY_FIELD || array.record_bytes == 0 ||
        array.record_dimensions > array.dimension_count) {
        return fail(FG_INVALID_ARGUMENT,
                    "array %zu: flags, record_bytes and record_dimensions make no sense together",
                    index);
    }
    std::uint64_t bytes = dtype_item_bytes(array.dtype);
    bool overflow = false;
    for (std::uint32_t i = array.record_dimensions; i < array.dimension_count; ++i) {
        overflow = overflow || array.shape[i] > array.record_bytes ||
                   __builtin_mul_overflow(bytes, array.shape[i], &bytes);
    }
    if (overflow || array.offset > array.record_bytes ||
        bytes > array.record_bytes - array.offset) {
        return fail(FG_INVALID_ARGUMENT,
                    "array %zu: at offset %llu it does not fit into a record of %u bytes", index,
                    static_cast<unsigned long long>(array.offset), array.record_bytes);
    }
    return FG_OK;
}

}  // namespace

fg_status check_record_group(const fg_array* arrays, std::size_t count) {
    for (std::size_t i = 1; i < count; ++i) {
        bool same = arrays[i].flags == arrays[0].flags &&
                    arrays[i].record_bytes == arrays[0].record_bytes &&
                    arrays[i].record_dimensions == arrays[0].record_dimensions;
        for (std::uint32_t axis = 0;
             same && axis < arrays[i].record_dimensions && axis < FG_ARRAY_DIMENSIONS_MAX; ++axis) {
            same = arrays[i].shape[axis] == arrays[0].shape[axis];
        }
        if (!same) {
            return fail(FG_INVALID_ARGUMENT,
                        "arrays 0 and %zu: all arrays of a frame are fields of the same records, "
                        "or none is",
                        i);
        }
    }
    return FG_OK;
}

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
    if (const fg_status status = check_field(array, index); status != FG_OK) {
        return status;
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
    if (is_field(array)) {
        std::uint64_t records = 0;
        std::uint64_t needed = 0;
        if (!record_count(array, &records) ||
            __builtin_mul_overflow(records, std::uint64_t{array.record_bytes}, &needed) ||
            needed > payload_bytes) {
            return fail(FG_INVALID_ARGUMENT,
                        "array %zu: its records of %u bytes are outside of a payload of %llu bytes",
                        index, array.record_bytes, static_cast<unsigned long long>(payload_bytes));
        }
        return FG_OK;
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
    if (const fg_status status = check_record_group(arrays, count); status != FG_OK) {
        return status;
    }
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
        if (is_field(array)) {
            std::uint64_t records = 0;
            if (!record_count(array, &records) ||
                __builtin_mul_overflow(records, std::uint64_t{array.record_bytes}, &end) ||
                end > FG_SLOT_BYTES_MAX) {
                return fail(FG_INVALID_ARGUMENT, "array %zu: its records are larger than any slot",
                            i);
            }
            continue;
        }
        array.offset = (end + FG_ARRAY_ALIGNMENT - 1) / FG_ARRAY_ALIGNMENT * FG_ARRAY_ALIGNMENT;
        end = array.offset + array.bytes;  // at most 16 times 2^40: cannot wrap
    }
    *payload_bytes = end;
    return FG_OK;
}

bool fits_schema(const fg_array& array, const fg_array& schema) {
    if (!same_name(array, schema) || array.dtype != schema.dtype ||
        array.dimension_count != schema.dimension_count || array.flags != schema.flags ||
        array.record_bytes != schema.record_bytes ||
        array.record_dimensions != schema.record_dimensions ||
        (is_field(array) && array.offset != schema.offset)) {
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
