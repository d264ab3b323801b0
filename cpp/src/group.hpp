// Work-queue groups over mapped bytes: each frame to one member, again to another one if that dies.
// Atomics only, like slots.hpp; the theory is at the head of group.cpp.
#pragma once

#include <cstdint>

#include "layout.hpp"
#include "slots.hpp"

namespace framegate::impl {

inline constexpr std::uint32_t kNoGroup = ~std::uint32_t{0};

// Group of the participant, kNoGroup if it has none (or nonsense in its row).
std::uint32_t group_of(const SegmentView& view, std::uint32_t participant);
bool has_members(const SegmentView& view, std::uint32_t group);

// ---- membership; join and end need the lock of kGroupsLockByte

// Joins the group of that name or founds it; kNoGroup if all rows are used by other names. The row
// of `self` must be in use, so that a death in here leaves something to reap. A founded group
// starts behind head, or with the newest frame.
std::uint32_t join_group(const SegmentView& view, const Self& self, const char* name,
                         std::uint32_t name_bytes, bool newest);
// Of a member that detaches or is reaped, after its slots were scrubbed. No lock, repeatable.
// Afterwards the group may be over: is_over, end_group.
void leave_group(const SegmentView& view, std::uint32_t participant);
// In use, but without a member: whoever has the lock shall end it.
bool is_over(const SegmentView& view, std::uint32_t group);
// Frees what a group that is over pins in the slots of a generation, and then its row. The caller
// wakes space waiters.
void drop_marks(const SegmentView& view, std::uint32_t group);
// Of the groups in `groups` (a bit each): the cursor that is furthest behind, ~0 without any; and
// whether a slot of the generation carries a mark of one.
std::uint64_t oldest_group_cursor(const SegmentView& view, std::uint64_t groups);
bool any_mark_of(const SegmentView& view, std::uint64_t groups);
void end_group(const SegmentView& view, std::uint32_t group);
bool any_group(const SegmentView& view);

// ---- taking

struct GroupTake {
    TakeResult result = TakeResult::kGone;  // kGone: nothing to take
    std::uint32_t slot = 0;
    std::uint64_t sequence = 0;
    std::uint64_t lost = 0;  // frames that the group should have got and that do not exist
    bool redelivered = false;
    bool space = false;  // the caller must wake space waiters
};
// An unfinished frame of a member that died or gave it back, oldest first.
GroupTake take_unfinished(const SegmentView& view, const Self& self, std::uint32_t group,
                          HeldFunction held, void* context);
// The next frame that no member got yet.
GroupTake take_shared(const SegmentView& view, const Self& self, std::uint32_t group,
                      HeldFunction held, void* context);
bool any_unfinished(const SegmentView& view, std::uint32_t group);

// Gives a leased frame back to the group: mark first; the caller drops its lease, then announces.
void mark_unfinished(const SegmentView& view, std::uint32_t slot, std::uint32_t group);
// The same for a dead member, whose bit may also be a stray one. Repeatable.
void mark_unfinished_of(const SegmentView& view, std::uint32_t slot, std::uint32_t group,
                        const Self& dead);
// After marks were set and the holder bits are gone; the caller kicks everybody.
void announce_redelivery(const SegmentView& view, std::uint32_t group);

std::uint64_t load_redeliveries(const SegmentView& view, std::uint32_t group);
std::uint64_t load_group_cursor(const SegmentView& view, std::uint32_t group);

}  // namespace framegate::impl
