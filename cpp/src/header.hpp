// The header of a frame or letter that this process holds, copied and checked.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"
#include "topic.hpp"

namespace framegate::impl {

// Of a slot under a lease, by this mapping of its generation; false if its numbers are impossible.
bool read_header(const Generation& generation, unsigned char* data, std::uint32_t slot,
                 std::uint64_t sequence, fg_frame* out);
// Its array descriptors; `count` may be nullptr.
fg_status read_arrays(const Topic& topic, const Generation& generation, unsigned char* data,
                      const fg_frame& frame, fg_array* out, std::size_t capacity,
                      std::size_t* count);

}  // namespace framegate::impl
