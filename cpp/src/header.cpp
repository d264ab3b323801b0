#include "header.hpp"

#include <cinttypes>
#include <cstring>

#include "arrays.hpp"
#include "status.hpp"

namespace framegate::impl {
namespace {
constexpr auto kRelaxed = std::memory_order_relaxed;
}  // namespace

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
