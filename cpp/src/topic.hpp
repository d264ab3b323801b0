// One open topic: descriptors, mappings, the checked geometry. Publishers and subscribers of a
// process share it.
#pragma once

#include <atomic>
#include <cstdint>

#include "fork.hpp"
#include "generation.hpp"
#include "layout.hpp"
#include "names.hpp"
#include "os.hpp"
#include "slots.hpp"

namespace framegate::impl {

inline constexpr std::int64_t kSweepIntervalNs = 1000000000;
inline constexpr std::int64_t kSweepDueNs =
    kSweepIntervalNs * 9 / 10;  // a timer that fires early must not skip a turn

struct Topic {
    // fds_.fds: kDirectoryFd, kControlFd, kSendFd, kConnectedFd. The control fd is the one open
    // description of this handle: mapped from it, byte locks on it, never opened a second time for
    // either.
    ForkNode fds_;
    std::atomic<std::uint32_t> references_{1};

    // Of the first generation: who takes part, sleeps and holds back. Sizes of slots are of each
    // generation; participants work on the view of theirs.
    Identity identity_{};  // private copy, checked
    SegmentView view_;
    unsigned char* control_ = nullptr;
    Generation first_;
    Generation* later_ = nullptr;  // those that this process has open, under mutex_

    fg_array schema_[FG_ARRAYS_MAX] = {};
    std::uint64_t schema_bytes_ =
        0;  // payload of a frame by the schema, if all dimensions are fixed
    bool schema_is_fixed_ = false;

    // Attach, detach and reap: OFD locks do not exclude threads that use the same open description.
    pthread_mutex_t mutex_;
    std::uint64_t own_rows_[kHolderWords] = {};  // rows of this handle, under mutex_

    std::atomic<std::uint64_t> swept_ns_{0};

    // Whom kConnectedFd is connected to, and whom the wake before went to, both under connecting_,
    // which nobody waits for.
    struct Wakened {
        std::uint32_t index = 0;
        std::uint64_t incarnation = 0;  // of the row, and 1; 0: nobody
        bool operator==(const Wakened& other) const = default;
    };
    std::atomic<std::uint32_t> connecting_{0};
    Wakened connected_;
    Wakened woken_last_;

    dev_t device_ = 0;
    ino_t inode_ = 0;
    char name_[FG_TOPIC_NAME_BYTES_MAX + 1] = {};
    char stem_[FG_TOPIC_FILE_NAME_BYTES_MAX] = {};

    int directory_fd() const { return fds_.fds[0]; }
    int control_fd() const { return fds_.fds[1]; }
    int data_fd() const { return first_.fds_.fds[0]; }
};
inline constexpr int kDirectoryFd = 0;
inline constexpr int kControlFd = 1;
inline constexpr int kSendFd = 2;
inline constexpr int kConnectedFd = 3;

// FG_FORKED or FG_POISONED, with the text.
fg_status say_unusable(const Topic& topic);
// FG_OK, or the above. One load on the hot path.
inline fg_status check_usable(const Topic& topic) {
    // relaxed: a flag that never goes back; fork and the sweep that sets it order everything else.
    return topic.fds_.condition.load(std::memory_order_relaxed) == kAlive
               ? static_cast<fg_status>(FG_OK)
               : say_unusable(topic);
}

// ---- segment.cpp

fg_status check_options(const fg_topic_options& options);
// Fills everything in Identity that follows from the options.
void compute_geometry(const fg_topic_options& options, Identity* identity);
fg_topic_options options_of(const Identity& identity);  // the inverse, without the schema
void seal_identity(Identity* identity);                 // writes the checksum
// Magic, version, checksum, and that every derived number is what compute_geometry makes of the
// options in it.
fg_status check_identity(const Identity& identity, std::uint64_t file_bytes, const char* name);
SegmentView make_view(const Identity& identity, unsigned char* control);

fg_status create_topic(const char* name, std::size_t name_bytes, const fg_topic_options& options,
                       Topic** out);
fg_status open_topic(const char* name, std::size_t name_bytes, Topic** out);
fg_status create_or_open_topic(const char* name, std::size_t name_bytes,
                               const fg_topic_options& options, Topic** out, bool* created);
fg_status unlink_topic(const char* name, std::size_t name_bytes);
// Memory for the mailbox of a row; once there it stays.
fg_status allocate_mailbox(Topic& topic, std::uint32_t index);
void retain_topic(Topic& topic);
void release_topic(Topic* topic);
void describe(const Identity& identity, fg_topic_info* info);
// Opens <stem>.ctl in `directory`, checks and copies its identity. `flags`: O_RDWR or O_RDONLY.
fg_status open_control(int directory, const char* stem, const char* name, int flags, int* fd,
                       Identity* identity);
// The same for any control file by its name in the directory.
fg_status open_control_file(int directory, const char* file, const char* name, int flags, int* fd,
                            Identity* identity);
// Files of one more generation, complete and locked, that nothing leads to yet. Then keep or discard
// them; both free `built`.
fg_status build_generation(const Topic& topic, const fg_topic_options& options,
                           std::uint32_t ordinal, Topic** built);
void keep_generation(Topic* built);
void discard_generation(Topic* built);

}  // namespace framegate::impl
