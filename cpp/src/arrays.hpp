// Array descriptors: checking, laying out, comparing with a schema.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"

namespace framegate::impl {

std::uint32_t dtype_item_bytes(fg_dtype dtype);
const char* dtype_name(fg_dtype dtype);
fg_dtype dtype_from_name(const char* name, std::size_t bytes);

// Payload bytes of an array with fixed dimensions; false on overflow (or FG_DIMENSION_ANY).
bool array_bytes(const fg_array& array, std::uint64_t* bytes);
bool has_fixed_shape(const fg_array& array);
// Name, dtype, dimension count and reserved fields in order? Says in the last error what is not.
fg_status check_array(const fg_array& array, std::size_t index);
// check_array, no open dimension, bytes right, offset aligned and the whole inside the payload.
fg_status check_frame_array(const fg_array& array, std::size_t index, std::uint64_t payload_bytes);
// Either no array is a field, or all are fields of the same records.
fg_status check_record_group(const fg_array* arrays, std::size_t count);
fg_status lay_out_arrays(fg_array* arrays, std::size_t count, std::uint64_t* payload_bytes);
// Same name, dtype and dimensions; FG_DIMENSION_ANY in the schema fits every length.
bool fits_schema(const fg_array& array, const fg_array& schema);
bool same_schema(const fg_array& left, const fg_array& right);

}  // namespace framegate::impl
