// Small typed maps (string to bool, int, float, string or bytes): user metadata of frames, metadata
// of topics and arrays. Pure functions on (pointer, length); what they read is untrusted.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"

namespace framegate::impl {

// Writes `count` values as one map; `bytes` is what it needs, written whenever the values are good.
fg_status encode_values(const fg_value* values, std::size_t count, void* out, std::size_t capacity,
                        std::size_t* bytes);

// The inverse. The values point into `data`. Nothing at all is an empty map. `count` is what the
// map holds, also when `capacity` is smaller. Says in the last error at which byte it stopped.
fg_status decode_values(const void* data, std::size_t bytes, fg_value* out, std::size_t capacity,
                        std::size_t* count);

// Strictly by RFC 3629.
bool is_utf8(const void* data, std::size_t bytes);

}  // namespace framegate::impl
