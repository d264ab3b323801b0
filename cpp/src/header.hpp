// The header of a frame or letter that this process holds, copied and checked.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"
#include "topic.hpp"

namespace framegate::impl {

// Of a slot under a lease, by this mapping of its generation; false if its numbers are impossible.
// Inline: half of what a take costs besides its atomic operations.
[[gnu::always_inline]] inline bool read_header(const Generation& generation, unsigned char* data,
                                               std::uint32_t index, std::uint64_t sequence,
                                               fg_frame* out) {
    constexpr auto kRelaxed = std::memory_order_relaxed;
    const SlotRecord& slot = generation.view_.slots[index];
    // relaxed: whoever leased the slot acquired them. Each is loaded once, then checked: a hostile
    // peer may change them at any time.
    const std::uint64_t bytes = slot.bytes.load(kRelaxed);
    const std::uint32_t array_count = slot.array_count.load(kRelaxed);
    const std::uint32_t content_type_bytes = slot.content_type_bytes.load(kRelaxed);
    const std::uint32_t user_metadata_bytes = slot.user_metadata_bytes.load(kRelaxed);
    if (bytes > generation.identity_.slot_bytes || array_count > FG_ARRAYS_MAX ||
        content_type_bytes > FG_CONTENT_TYPE_BYTES_MAX ||
        user_metadata_bytes > FG_USER_METADATA_BYTES_MAX) {
        return false;
    }
    out->data = generation.payload(data, index);
    out->bytes = bytes;
    out->sequence = sequence;
    out->published_ns = slot.published_ns.load(kRelaxed);
    out->timestamp_s = slot.timestamp_s.load(kRelaxed);
    out->content_type = nullptr;
    out->user_metadata = nullptr;
    if ((content_type_bytes | user_metadata_bytes) != 0) {
        const auto* header =
            reinterpret_cast<const SlotHeader*>(generation.slot_header(data, index));
        out->content_type = content_type_bytes != 0 ? header->content_type : nullptr;
        out->user_metadata = user_metadata_bytes != 0 ? header->user_metadata : nullptr;
    }
    out->content_type_bytes = content_type_bytes;
    out->user_metadata_bytes = user_metadata_bytes;
    out->array_count = array_count;
    out->slot = index;
    out->lost = 0;
    out->redelivered = 0;
    out->reserved = 0;
    return true;
}
// Its array descriptors; `count` may be nullptr.
fg_status read_arrays(const Topic& topic, const Generation& generation, unsigned char* data,
                      const fg_frame& frame, fg_array* out, std::size_t capacity,
                      std::size_t* count);

}  // namespace framegate::impl
