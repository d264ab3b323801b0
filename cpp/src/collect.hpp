// Removing topics that nobody uses any more.
#pragma once

#include <cstdint>

#include "framegate/shm.h"

namespace framegate::impl {

fg_status collect_stale_topics(std::int64_t age_ns, bool dry_run, fg_stale_topic visit,
                               void* context, std::uint32_t* orphans);

}  // namespace framegate::impl
