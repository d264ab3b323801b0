// Static metadata of a topic and of its arrays: small typed maps, appended while the topic runs.
//
// The area in the control file is a list of records, each a map for the topic or for one array. Only
// `SharedWords::metadata` says how much of it there is, so an appender that dies leaves nothing that
// anybody would read, and what is there never changes. Appenders exclude each other by the lock of
// one byte of the control file, which the kernel frees with its owner.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"
#include "layout.hpp"

namespace framegate::impl {

struct Topic;

// SharedWords::metadata = generation:32 | bytes:32; a generation is one append.
constexpr std::uint64_t metadata_word(std::uint32_t generation, std::uint32_t bytes) {
    return std::uint64_t{generation} << 32 | bytes;
}
constexpr std::uint32_t metadata_generation(std::uint64_t word) {
    return static_cast<std::uint32_t>(word >> 32);
}

// ---- pure functions on bytes that nobody has to trust

// The record at `*position` of an area, and `*position` moved behind it. FG_EMPTY at the end,
// FG_SEGMENT_CORRUPT for anything that is no record or no map.
fg_status next_metadata(const void* area, std::size_t bytes, std::size_t* position,
                        std::uint32_t* array, fg_value* out, std::size_t capacity,
                        std::size_t* count);
// The first units that the area gives to an array; false if it has none.
bool find_units(const void* area, std::size_t bytes, std::uint32_t array, fg_value* out);

// Names, numbers and sizes of what a topic shall be created with.
fg_status check_initial_metadata(const fg_topic_options& options);

// ---- in a segment

// Of a topic that nobody else sees yet.
fg_status write_initial_metadata(const fg_topic_options& options, const Identity& identity,
                                 unsigned char* control);
// The committed area, copied. `bytes` is what there is; more than `capacity` is
// FG_INVALID_ARGUMENT.
fg_status read_metadata(const Identity& identity, const unsigned char* control, void* out,
                        std::size_t capacity, std::size_t* bytes, std::uint32_t* generation);
fg_status append_metadata(Topic& topic, const fg_metadata& metadata, std::uint32_t* generation);
// FG_SCHEMA_MISMATCH if the options give an array other units than the topic has.
fg_status compare_units(const fg_topic_options& options, const Topic& topic);

}  // namespace framegate::impl
