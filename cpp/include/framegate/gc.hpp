// Collecting topics that nobody uses, from C++; see fg_collect_stale_topics in shm.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "framegate/error.hpp"

namespace framegate {

/// What `gc` removed, or would have.
struct Garbage {
    std::vector<std::pair<std::string, std::uint64_t>> topics;  ///< name, bytes
    std::uint32_t orphans = 0;  ///< other files, of processes that died
};

/// Removes topics that no process has open and that nobody opened or left for `older_than`, and files
/// that dead processes left; never a living topic. With `dry_run` it only looks.
inline Result<Garbage> gc(std::chrono::nanoseconds older_than = std::chrono::hours(1),
                          bool dry_run = false) {
    Garbage garbage;
    const auto visit = [](void* context, const char* name, std::uint64_t bytes) {
        static_cast<Garbage*>(context)->topics.emplace_back(name, bytes);
    };
    const fg_status status = fg_collect_stale_topics(older_than.count(), dry_run ? 1 : 0, visit,
                                                     &garbage, &garbage.orphans);
    if (status != FG_OK) {
        return Error::last(status);
    }
    return garbage;
}

}  // namespace framegate
