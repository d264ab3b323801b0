#include "header.hpp"

#include <cinttypes>
#include <cstring>

#include "arrays.hpp"
#include "status.hpp"

namespace framegate::impl {
namespace {
constexpr auto kRelaxed = std::memory_order_relaxed;
}  // namespace

bool read_header(const Generation& generation, unsigned char* data, std::uint32_t index,
                 std::uint64_t sequence, fg_frame* out) {
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
    const auto* header = reinterpret_cast<const SlotHeader*>(generation.slot_header(data, index));
    out->data = generation.payload(data, index);
    out->bytes = bytes;
    out->sequence = sequence;
    out->published_ns = slot.published_ns.load(kRelaxed);
    out->timestamp_s = slot.timestamp_s.load(kRelaxed);
    out->content_type = content_type_bytes != 0 ? header->content_type : nullptr;
    out->user_metadata = user_metadata_bytes != 0 ? header->user_metadata : nullptr;
    out->content_type_bytes = content_type_bytes;
    out->user_metadata_bytes = user_metadata_bytes;
    out->array_count = array_count;
    out->slot = index;
    out->lost = 0;
    out->redelivered = 0;
    out->reserved = 0;
    return true;
}

fg_status read_arrays(const Topic& topic, const Generation& generation, unsigned char* data,
                      const fg_frame& frame, fg_array* out, std::size_t capacity,
                      std::size_t* count) {
    const bool by_schema =
        (generation.view_.slots[frame.slot].flags.load(kRelaxed) & kFrameArraysFromSchema) != 0;
    const auto* header =
        reinterpret_cast<const SlotHeader*>(generation.slot_header(data, frame.slot));
    for (std::uint32_t i = 0; i < frame.array_count && i < FG_ARRAYS_MAX && i < capacity; ++i) {
        fg_array array;
        std::memcpy(&array, by_schema ? &topic.schema_[i] : &header->arrays[i], sizeof array);
        if (check_frame_array(array, i, frame.bytes) != FG_OK) {
            return fail(FG_SEGMENT_CORRUPT,
                        "topic \"%s\": array %u of frame %" PRIu64 " makes no sense", topic.name_,
                        i, frame.sequence);
        }
        out[i] = array;
    }
    if (count != nullptr) {
        *count = frame.array_count;
    }
    return FG_OK;
}

}  // namespace framegate::impl
