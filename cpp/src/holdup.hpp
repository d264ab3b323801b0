// Why a topic has no slot to loan, in words: who holds back what.
#pragma once

#include "topic.hpp"

namespace framegate::impl {

// FG_TOPIC_FULL with a text that, for the generation of `view`, counts the slots by reason and names the slowest reliable
// subscriber or group and the participant with the most leases.
fg_status say_full(const Topic& topic, const SegmentView& view);

}  // namespace framegate::impl
