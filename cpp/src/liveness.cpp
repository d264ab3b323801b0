// Liveness by byte locks.
//
// The kernel drops an OFD lock when the last descriptor of its open description is closed, which it
// does after the address space of a killed process is gone: a free byte proves that its owner will
// not store again. Time-outs would instead reap a stopped process that still lives. Pids are for
// people: another pid namespace, or a reused number, makes them lie.
//
// The order of a reap: hold the byte, take back marks, slot words and bits, help head, leave the
// group, kick, state = 0, unlock. Each step can be repeated, so a reaper that dies is followed by the next one; the
// kick comes before state = 0 because after it nobody would repeat it.
//
// All of attach, detach and sweep run under the mutex of the Topic, because the threads of a
// process share its open description and its locks do not exclude each other there.
#include "liveness.hpp"

#include <cerrno>
#include <cstdio>
#include <ctime>

#include "group.hpp"
#include "lock.hpp"
#include "mailbox.hpp"
#include "os.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "wake.hpp"

namespace framegate::impl {
namespace {

// Joining takes microseconds; only a process that does not run holds the lock this long.
constexpr std::uint64_t kGroupsLockPatienceNs = 1000000000;
// Each time, somebody resized the topic between two system calls of an attach.
constexpr int kPromiseAttempts = 16;

struct flock byte_range(std::uint32_t byte, short type) {
    struct flock range{};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = byte;
    range.l_len = 1;
    return range;
}

bool set_lock(int fd, std::uint32_t byte, short type) {
    struct flock range = byte_range(byte, type);
    int result = 0;
    do {
        result = fcntl(fd, os::kSetLock, &range);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

// The age of a topic without users is the time since then.
void touch(const Topic& topic) { futimens(topic.control_fd(), nullptr); }

bool is_own(const Topic& topic, std::uint32_t index) {
    return (topic.own_rows_[index / 64] >> (index % 64) & 1) != 0;
}

// Our descriptors were closed or our locks are gone. Nothing of what the numbers mean now is ours to
// close.
void poison(Topic& topic) {
    // relaxed: a flag that never goes back.
    topic.fds_.condition.store(kPoisoned, std::memory_order_relaxed);
    forget_all_descriptors(topic);
}

// Our descriptor may have been closed behind our back and its number given to another file; or to
// another description of this one, if the topic was opened again. Then our locks, which the mapping
// keeps, are somebody else's to it.
bool control_fd_is_ours(const Topic& topic) {
    struct stat info{};
    if (fstat(topic.control_fd(), &info) != 0 || info.st_dev != topic.device_ ||
        info.st_ino != topic.inode_) {
        return false;
    }
    for (std::uint32_t i = 0; i < topic.view_.participants_max; ++i) {
        if (is_own(topic, i)) {
            return !byte_is_locked(topic.control_fd(), i);  // one tells
        }
    }
    return true;
}

// Our own locks look free through our own description, so ask through a fresh one of the same file.
bool own_locks_hold(Topic& topic) {
    const int fd = os::reopen_control_file(topic.control_fd(), topic.directory_fd(), topic.stem_);
    if (fd < 0) {
        return true;  // no /proc, no name or no descriptor left: no evidence
    }
    bool hold = true;
    struct stat info{};
    if (fstat(fd, &info) == 0 && info.st_dev == topic.device_ && info.st_ino == topic.inode_) {
        for (std::uint32_t i = 0; i < topic.view_.participants_max; ++i) {
            hold = hold && (!is_own(topic, i) || byte_is_locked(fd, i));
        }
    }
    close(fd);
    return hold;
}

// Of a group that lost its last member; with the lock of the groups.
fg_status end_if_over(Topic& topic, std::uint32_t group, bool* ended) {
    if (!is_over(topic.view_, group)) {
        return FG_OK;
    }
    const fg_status status = drop_marks_locked(topic, group);
    if (status == FG_OK) {
        end_group(topic.view_, group);
        *ended = true;
    }
    return status;
}

// If somebody else has the lock, which joiners and enders hold for microseconds, the next sweep does
// it. True if there was one.
bool end_groups(Topic& topic) {
    bool ended = false;
    for (std::uint32_t i = 0; i < kGroups; ++i) {
        if (!is_over(topic.view_, i) || !lock_byte(topic.control_fd(), kGroupsLockByte)) {
            continue;
        }
        // Looks again, now that nobody else can be joining. What fails is left to the next sweep.
        static_cast<void>(end_if_over(topic, i, &ended));
        unlock_byte(topic.control_fd(), kGroupsLockByte);
    }
    return ended;
}

// Joins unless the generation was sealed: FG_OK without `joined`.
fg_status try_join(Topic& topic, const RowInfo& info, const Self& self,
                   const Generation& generation, bool* joined) {
    const SegmentView& view = generation.view_;
    if (const fg_status status = lock_groups(topic); status != FG_OK) {
        return status;
    }
    if (sealed_after(view, help_head(view))) {
        unlock_groups(topic);
        return FG_OK;
    }
    // join_group would end them in the slots of this generation only.
    bool ended = false;
    for (std::uint32_t i = 0; i < kGroups; ++i) {
        if (const fg_status status = end_if_over(topic, i, &ended); status != FG_OK) {
            unlock_groups(topic);
            return status;
        }
    }
    const bool newest = info.newest && load_head(view) >= generation.first_sequence();
    const std::uint32_t group = join_group(view, self, info.group, info.group_bytes, newest);
    unlock_groups(topic);
    if (ended) {
        kick(topic);
    }
    *joined = group != kNoGroup;
    return group != kNoGroup
               ? static_cast<fg_status>(FG_OK)
               : fail(FG_GROUPS_FULL,
                      "topic \"%s\" has %u groups, as many as there can be; join one of them or "
                      "close all members of one",
                      topic.name_, kGroups);
}

// Begins the promise of a reliable subscriber or group in the newest generation. Under mutex_, with
// the row's byte locked. If the topic is resized meanwhile, it begins once more in the next one; a
// seal without a next one is not ours.
fg_status begin_promise(Topic& topic, const RowInfo& info, Access access, const Self& self,
                        Generation** generation) {
    for (int attempt = 0; attempt < kPromiseAttempts; ++attempt) {
        fg_status status = enter_newest_locked(topic, access, false, generation);
        if (status != FG_OK) {
            return status;
        }
        const SegmentView& view = (*generation)->view_;
        if (info.policy == FG_POLICY_RELIABLE) {
            const bool newest = info.newest && load_head(view) >= (*generation)->first_sequence();
            begin_reliable(view, self, newest);
            // After the mark: whoever publishes behind a seal that is not there yet obeys it.
            if (!sealed_after(view, load_head(view))) {
                return FG_OK;
            }
        } else {
            bool joined = false;
            status = try_join(topic, info, self, **generation, &joined);
            if (joined) {
                // An old group may be behind, in frames of older generations.
                Generation* newest = *generation;
                status = enter_at_cursor_locked(topic, access, group_of(topic.view_, self.index),
                                                generation);
                leave_generation_locked(topic, *newest);
                return status;
            }
            if (status != FG_OK) {
                leave_generation_locked(topic, **generation);
                return status;
            }
        }
        leave_generation_locked(topic, **generation);
    }
    return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": its newest generation is sealed", topic.name_);
}

// The row's byte must be locked by us. False if the slots of some generation are out of our reach
// (no descriptor or memory left): the row stays for somebody else, or for later.
bool reap_locked(Topic& topic, std::uint32_t index) {
    FG_STEP(kReapLocked);
    scrub_marks(topic.view_, index);
    if (scrub_generations_locked(topic, index) != FG_OK) {
        return false;
    }
    free_letters(topic.view_, index);
    remove_wake_socket(topic, index);
    leave_group(topic.view_, index);
    end_groups(topic);
    kick(topic);
    touch(topic);
    FG_STEP(kReapKicked);
    free_row(topic.view_, index);
    return true;
}

void detach_locked(Topic& topic, const Self& self) {
    scrub_marks(topic.view_, self.index);
    // Nothing is loaned or leased any more, so a generation out of our reach has nothing of ours.
    static_cast<void>(scrub_generations_locked(topic, self.index));
    free_letters(topic.view_, self.index);
    FG_STEP(kDetachScrubbed);
    leave_group(topic.view_, self.index);
    end_groups(topic);
    kick(topic);
    touch(topic);
    free_row(topic.view_, self.index);
    topic.own_rows_[self.word] &= ~self.bit;
    unlock_byte(topic.control_fd(), self.index);
}

std::uint32_t sweep_locked(Topic& topic) {
    topic.swept_ns_.store(monotonic_ns(),
                          std::memory_order_relaxed);  // relaxed: a rate, not a promise
    if (!control_fd_is_ours(topic)) {
        poison(topic);
        return 0;
    }
    std::uint32_t reaped = 0;
    for (std::uint32_t i = 0; i < topic.view_.participants_max; ++i) {
        if (is_own(topic, i) || !row_in_use(topic.view_, i) ||
            byte_is_locked(topic.control_fd(), i) || !lock_byte(topic.control_fd(), i)) {
            continue;
        }
        if (row_in_use(topic.view_, i)) {  // again, now that nobody else can be reaping it
            reaped += reap_locked(topic, i) ? 1 : 0;
        }
        unlock_byte(topic.control_fd(), i);
    }
    if (end_groups(topic)) {
        kick(topic);
    }
    retire_generations_locked(topic);
    if (!own_locks_hold(topic)) {
        poison(topic);
    }
    return reaped;
}

}  // namespace

bool lock_byte(int fd, std::uint32_t byte) { return set_lock(fd, byte, F_WRLCK); }
bool share_byte(int fd, std::uint32_t byte) { return set_lock(fd, byte, F_RDLCK); }

void unlock_byte(int fd, std::uint32_t byte) {
    struct flock range = byte_range(byte, F_UNLCK);
    fcntl(fd, os::kSetLock, &range);
}

bool byte_is_locked(int fd, std::uint32_t byte) {
    struct flock range = byte_range(byte, F_WRLCK);
    return fcntl(fd, os::kGetLock, &range) != 0 || range.l_type != F_UNLCK;
}

fg_status lock_groups(Topic& topic) {
    const std::uint64_t end = monotonic_ns() + kGroupsLockPatienceNs;
    while (!lock_byte(topic.control_fd(), kGroupsLockByte)) {
        if (monotonic_ns() > end) {
            return fail(FG_TIMEOUT,
                        "topic \"%s\": another process has been joining a group for a second; is "
                        "it stopped (SIGSTOP, debugger)?",
                        topic.name_);
        }
        const timespec nap{0, 100000};
        nanosleep(&nap, nullptr);
    }
    return FG_OK;
}

void unlock_groups(Topic& topic) { unlock_byte(topic.control_fd(), kGroupsLockByte); }

fg_status attach(Topic& topic, const RowInfo& info, Access access, Self* self,
                 Generation** generation) {
    const MutexGuard guard(topic.mutex_);
    sweep_locked(topic);
    if (const fg_status status = check_usable(topic); status != FG_OK) {
        return status;
    }
    for (std::uint32_t i = 0; i < topic.view_.participants_max; ++i) {
        if (is_own(topic, i) || row_in_use(topic.view_, i) || !lock_byte(topic.control_fd(), i)) {
            continue;
        }
        if (row_in_use(topic.view_, i) &&  // attached and died since the sweep
            !reap_locked(topic, i)) {
            unlock_byte(topic.control_fd(), i);
            continue;
        }
        *self = begin_row(topic.view_, i, info);
        touch(topic);
        topic.own_rows_[i / 64] |= std::uint64_t{1} << (i % 64);
        const bool promises = info.policy == FG_POLICY_RELIABLE || info.policy == FG_POLICY_GROUP;
        const fg_status status = promises
                                     ? begin_promise(topic, info, access, *self, generation)
                                     : enter_newest_locked(topic, access, info.newest, generation);
        if (status != FG_OK) {
            detach_locked(topic, *self);
        }
        return status;
    }
    return fail(FG_PARTICIPANTS_FULL,
                "topic \"%s\" has %u participants, as many as it was created for; close some or "
                "create it with a larger "
                "participants_max",
                topic.name_, topic.view_.participants_max);
}

void detach(Topic& topic, const Self& self) {
    if (check_usable(topic) != FG_OK) {
        return;  // not ours to touch any more; the locks go with the descriptor
    }
    const MutexGuard guard(topic.mutex_);
    detach_locked(topic, self);
}

void check_descriptors(Topic& topic) {
    // Without an inode the control file was not even mapped: opening it failed just now. Of a handle
    // copied by fork() not even the mutex is touched. relaxed: as in check_usable().
    if (topic.inode_ == 0 || topic.fds_.condition.load(std::memory_order_relaxed) != kAlive) {
        return;
    }
    const MutexGuard guard(topic.mutex_);
    if (!control_fd_is_ours(topic)) {
        poison(topic);
    }
}

void sweep_if_due(Topic& topic) {
    if (monotonic_ns() - topic.swept_ns_.load(std::memory_order_relaxed) >=
        static_cast<std::uint64_t>(kSweepDueNs)) {
        sweep(topic);
    }
}

bool is_participant_alive(Topic& topic, std::uint32_t index) {
    const MutexGuard guard(topic.mutex_);
    return is_own(topic, index) || byte_is_locked(topic.control_fd(), index);
}

std::uint32_t sweep(Topic& topic) {
    const MutexGuard guard(topic.mutex_);
    return check_usable(topic) == FG_OK ? sweep_locked(topic) : 0;
}

}  // namespace framegate::impl
