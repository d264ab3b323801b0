// Topic names, file names and the runtime directory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"

namespace framegate::impl {

inline constexpr std::size_t kPathBytesMax = 4096;
inline constexpr std::size_t kFileBytesMax = 256;

fg_status check_topic_name(const char* name, std::size_t bytes);
fg_status topic_file_stem(const char* name, std::size_t bytes, char* out, std::size_t out_bytes);
fg_status topic_name_from_file(const char* file, std::size_t bytes, char* out,
                               std::size_t out_bytes);
fg_status runtime_directory_path(char* out, std::size_t out_bytes);
// Opens the runtime directory after checking that nobody else can put things there; creates it if
// asked.
fg_status open_runtime_directory(bool create, int* fd);

}  // namespace framegate::impl
