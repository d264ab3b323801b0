// Is the owner of a row alive? Byte `index` of the control file is locked by an OFD lock as long as
// it is.
#pragma once

#include <cstdint>

#include "slots.hpp"
#include "topic.hpp"

namespace framegate::impl {

// Beyond those of the rows: held shared by everybody who has the topic open (collect.cpp).
inline constexpr std::uint32_t kOpenByte = 4096;

bool lock_byte(int fd, std::uint32_t byte);   // never blocks
bool share_byte(int fd, std::uint32_t byte);  // the same, shared
void unlock_byte(int fd, std::uint32_t byte);
bool byte_is_locked(int fd, std::uint32_t byte);  // by another open description

// Takes a row and enters the generation where the participant begins.
fg_status attach(Topic& topic, const RowInfo& info, Access access, Self* self,
                 Generation** generation);
void detach(Topic& topic, const Self& self);
// Before anything is closed or unlocked: were our descriptors closed behind our back, and are their
// numbers perhaps other files by now? Then all are forgotten and the topic is poisoned. Also of a
// topic that was never opened completely.
void check_descriptors(Topic& topic);
// The right to found, join and end groups, and to resize; under Topic::mutex_. FG_TIMEOUT if a
// stopped process has it.
fg_status lock_groups(Topic& topic);
void unlock_groups(Topic& topic);
// Reaps the dead; also verifies that our own locks still exist and poisons the handle if not.
// Number of reaped rows.
std::uint32_t sweep(Topic& topic);
// The same for waiters, whose many short or parallel waits on one handle shall not add up: about
// once a second.
void sweep_if_due(Topic& topic);

// Of this process or another one.
bool is_participant_alive(Topic& topic, std::uint32_t index);

}  // namespace framegate::impl
