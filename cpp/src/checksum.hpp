// Checksums of payloads, by the kind that a topic was created with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"

namespace framegate::impl {

// FG_CHECKSUM_CRC32C or FG_CHECKSUM_XXH3; 0 for any other kind.
std::uint64_t checksum(std::uint32_t kind, const void* data, std::size_t bytes);

// Both ways to the same number, so that tests reach the one that this machine does not take.
std::uint32_t crc32c_in_software(const void* data, std::size_t bytes);
std::uint32_t crc32c(const void* data, std::size_t bytes);
// Has this machine instructions for it?
bool crc32c_is_in_hardware();

}  // namespace framegate::impl
