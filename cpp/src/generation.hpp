// A generation: ring, slots and payloads of a topic at one size. Resizing makes the next one.
//
// The first generation lives in the topic's own two files. Each later one has a control file and a
// data file of its own, of the same layout; only ring, slot records and the flow words (head,
// next_slot, next_generation, first_sequence) of that control file are used. Rows, marks, futex
// words, cursors, groups and everything else that says who takes part stay in the topic's first
// control file for ever, so a participant is the same one in all generations: its lock, its holder
// bit, its wake socket and its reliable cursor carry on.
#pragma once

#include <cstdint>

#include "fork.hpp"
#include "framegate/shm.h"
#include "layout.hpp"
#include "slots.hpp"

namespace framegate::impl {

struct Topic;

// More generations at once than participants can keep; what is longer is no chain of ours.
inline constexpr int kGenerationStepsMax = 4096;

struct Generation {
    ForkNode fds_;  // fds[0]: the data file, -1 if it is gone
    Identity identity_{};
    SegmentView view_;
    unsigned char* control_ = nullptr;     // of a later one; the first's belongs to its Topic
    unsigned char* data_read_ = nullptr;   // PROT_READ, for subscribers
    unsigned char* data_write_ = nullptr;  // for publishers
    // Under Topic::mutex_.
    Generation* next_opened_ = nullptr;  // list of Topic::later_, in no order
    std::uint32_t users_ = 0;            // seats of handles

    bool is_first() const { return identity_.generation == 0; }
    unsigned char* slot_header(unsigned char* data, std::uint32_t slot) const {
        return data + std::uint64_t{slot} * identity_.slot_stride;
    }
    unsigned char* payload(unsigned char* data, std::uint32_t slot) const {
        return slot_header(data, slot) + identity_.slot_header_bytes;
    }
    // Of its first frame; valid once anybody works in it. acquire: pairs with make_ready().
    std::uint64_t first_sequence() const {
        return is_first() ? 1 : view_.flow->first_sequence.load(std::memory_order_acquire);
    }
};

enum class Access { kNone, kRead, kWrite };  // how to map the payloads

// Where a participant begins: the newest generation, or, with `wants_newest_frame`, that of the
// newest frame. For attach(), under mutex_: the row must be in use, with generation 0, so that no
// file on the way is removed. Counts as a user until leave_generation().
fg_status enter_newest_locked(Topic& topic, Access access, bool wants_newest_frame,
                              Generation** out);
// The one after `from`, which must be sealed. Without `even_if_empty` the next one that has a frame,
// or FG_EMPTY: subscribers stay until then, so that the newest frame of the topic stays in reach.
fg_status enter_next(Topic& topic, Generation& from, Access access, bool even_if_empty,
                     Generation** out);
// For a member of a group: the generation of the frame behind the group's cursor. For attach(), as
// enter_newest_locked.
fg_status enter_at_cursor_locked(Topic& topic, Access access, std::uint32_t group,
                                 Generation** out);
// Before `current`, the oldest generation with a frame that a member of the group did not finish;
// nullptr: none. `out` may be nullptr: then only *found says whether there is one, and it is not
// entered.
fg_status enter_unfinished(Topic& topic, const Generation& current, Access access,
                           std::uint32_t group, bool* found, Generation** out);
// After the own row named it as the oldest one that it wants: is it part of the topic still? Then it
// stays. False also if that cannot be told right now.
bool confirm_generation(Topic& topic, const Generation& generation);
// That of this number. FG_TOPIC_NOT_FOUND: it was retired.
fg_status enter_generation(Topic& topic, Access access, std::uint32_t ordinal, Generation** out);
void leave_generation(Topic& topic, Generation& generation);
void leave_generation_locked(Topic& topic, Generation& generation);
// Removes the files of generations that no participant can want any more. Cheap if there are none.
void retire_generations(Topic& topic);

// For a reaper; under mutex_. Takes back what row `index` left in the slots of every generation.
fg_status scrub_generations_locked(Topic& topic, std::uint32_t index);
// What a group that is over left in them.
fg_status drop_marks_locked(Topic& topic, std::uint32_t group);
void retire_generations_locked(Topic& topic);

// Options and sizes as they are now.
fg_status newest_identity(Topic& topic, Identity* out);
fg_status resize_topic(Topic& topic, const fg_resize_options& wanted);

fg_status open_data_file(Topic& topic, Generation& generation);
fg_status map_data(Topic& topic, Generation& generation, bool writable);
void populate(unsigned char* memory, std::uint64_t bytes, bool writable);
void free_generations(Topic& topic, bool forked);
// Of the topic and of every generation; under mutex_ or by the last who refers to the topic.
void forget_all_descriptors(Topic& topic);
// openat() into a node, so that no fork happens between the call and its record.
int open_recorded(ForkNode& node, int which, int directory, const char* file, int flags,
                  std::uint32_t mode = 0);

// The view of a later generation: its own ring and slots, everybody's rows and marks.
SegmentView later_view(const SegmentView& first, const Identity& identity, unsigned char* control);
// Writes head and first sequence of the generation after `sealed`, if nobody did; idempotent.
void make_ready(const SegmentView& sealed, const SegmentView& next);

}  // namespace framegate::impl
