// Segments: create, open, map, validate, unlink.
//
// Creation. The data file is made under a name that nobody else uses (<topic>.<id>.data), the
// control file, which records the id, under a temporary one. Both are allocated (a sparse file on a
// full tmpfs is a SIGBUS later) and touched. Then link() gives the control file its name: that one
// call decides who created the topic. Whoever dies before leaves files that no control file names;
// they are recognised by the lock that a creator holds on its data file, and swept by the next
// creation in the directory.
//
// Opening. The identity is read (not mapped) into private memory and must be exactly what
// compute_geometry() would make of the options in it, for files of exactly those sizes. After that
// no size or offset is ever read from the segment.
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "arrays.hpp"
#include "files.hpp"
#include "generation.hpp"
#include "liveness.hpp"
#include "metadata.hpp"
#include "names.hpp"
#include "os.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "topic.hpp"

namespace framegate::impl {
namespace {

// Below this a slot is filled in so few microseconds that a subscriber which read head would find
// its frame gone too often, and eight slots fit the caches anyway.
constexpr std::uint64_t kWarmSlotBytes = 256 * 1024;
constexpr int kOpenAttempts = 16;  // lost races against unlink and create before giving up

std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}

std::uint64_t fnv1a(const void* bytes, std::size_t count) {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (std::size_t i = 0; i < count; ++i) {
        hash = (hash ^ static_cast<const unsigned char*>(bytes)[i]) * 0x100000001b3U;
    }
    return hash;
}

// ---- memory

// On many kernels a signal takes back what the call has allocated so far. In one call, a profiler
// that ticks faster than the memory is there would let it never be there; a piece takes half a
// millisecond.
constexpr std::uint64_t kAllocatedAtOnce = 2 * 1024 * 1024;  // a huge page, if tmpfs has them

fg_status allocate(int fd, std::uint64_t offset, std::uint64_t bytes) {
    int error = 0;
    for (std::uint64_t done = 0; error == 0 && done < bytes;) {
        const std::uint64_t rest = bytes - done;
        const std::uint64_t piece = rest < kAllocatedAtOnce ? rest : kAllocatedAtOnce;
        do {
            error = os::allocate_file(fd, offset + done, piece);
        } while (error == EINTR);
        done += piece;
    }
    errno = error;
    return error == 0 ? FG_OK : FG_SYSTEM;
}

// What a topic takes when it is created; mailboxes come later, one by one.
std::uint64_t needed_bytes(const Identity& identity) {
    return identity.mailboxes_offset + identity.data_bytes;
}

Topic* new_topic(const char* name, std::size_t name_bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, alignof(Topic), sizeof(Topic)) != 0) {
        return nullptr;
    }
    auto* topic = new (memory) Topic;
    pthread_mutex_init(&topic->mutex_, nullptr);
    std::memcpy(topic->name_, name, name_bytes);
    register_fork_node(topic->fds_);
    register_fork_node(topic->first_.fds_);
    return topic;
}

void free_topic(Topic* topic) {
    check_descriptors(*topic);
    const bool forked = topic->fds_.condition.load(std::memory_order_relaxed) == kForked;
    free_generations(*topic, forked);
    if (!forked && topic->control_ != nullptr) {
        munmap(topic->control_, topic->identity_.control_bytes);
    }
    unregister_fork_node(topic->fds_);
    pthread_mutex_destroy(&topic->mutex_);
    topic->~Topic();
    std::free(topic);
}

fg_status open_directory_recorded(Topic& topic, bool create) {
    const ForkGuard guard;
    return open_runtime_directory(create, &topic.fds_.fds[kDirectoryFd]);
}

// Shared, so it is refused only by a collector that decides about the topic right now.
bool show_open(const Topic& topic) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
        if (share_byte(topic.control_fd(), kOpenByte)) {
            return true;
        }
        const timespec nap{0, 1000000};
        nanosleep(&nap, nullptr);
    }
    return false;
}

fg_status map_control(Topic& topic) {
    topic.control_ = static_cast<unsigned char*>(
        map_unforked(topic.identity_.control_bytes, PROT_READ | PROT_WRITE, topic.control_fd()));
    if (topic.control_ == nullptr) {
        return fail_errno("topic \"%s\": cannot map the control file", topic.name_);
    }
    populate(topic.control_, topic.identity_.mailboxes_offset, true);  // those are sparse
    topic.view_ = make_view(topic.identity_, topic.control_);
    topic.first_.identity_ = topic.identity_;
    topic.first_.view_ = topic.view_;
    struct stat info{};
    if (fstat(topic.control_fd(), &info) != 0) {
        return fail_errno("topic \"%s\": cannot stat the control file", topic.name_);
    }
    topic.device_ = info.st_dev;
    topic.inode_ = info.st_ino;
    if (!show_open(topic)) {
        return fail(FG_SYSTEM,
                    "topic \"%s\": another process has been looking for a second whether it is "
                    "stale; is it stopped (SIGSTOP, debugger)?",
                    topic.name_);
    }
    return FG_OK;
}

fg_status adopt_schema(Topic& topic) {
    const std::uint32_t count = topic.identity_.schema_count;
    // Copied before it is checked: the mapping may change under a hostile peer.
    std::memcpy(topic.schema_, topic.control_ + kSchemaOffset, count * sizeof(fg_array));
    bool fixed = count != 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        if (check_array(topic.schema_[i], i) != FG_OK) {
            return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": array %u of its schema makes no sense",
                        topic.name_, i);
        }
        fixed = fixed && has_fixed_shape(topic.schema_[i]);
    }
    if (check_record_group(topic.schema_, count) != FG_OK) {
        return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": its schema mixes records", topic.name_);
    }
    topic.schema_is_fixed_ = fixed;
    if (fixed && lay_out_arrays(topic.schema_, count, &topic.schema_bytes_) != FG_OK) {
        return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": its schema makes no sense", topic.name_);
    }
    return FG_OK;
}

fg_status no_space(Topic& topic, std::uint64_t needed) {
    struct statvfs space{};
    std::uint64_t free_bytes = 0;
    if (fstatvfs(topic.directory_fd(), &space) == 0) {
        free_bytes = std::uint64_t{space.f_bavail} * space.f_frsize;
    }
    char path[kPathBytesMax] = "the runtime directory";
    static_cast<void>(runtime_directory_path(path, sizeof path));
    return fail(FG_NO_SPACE,
                "topic \"%s\" needs %" PRIu64 " bytes, %" PRIu64
                " are free in %.200s; use fewer or smaller slots, or %s",
                topic.name_, needed, free_bytes, path, os::kMoreSpace);
}

fg_status check_free_space(Topic& topic, std::uint64_t needed) {
    // Before allocating: filling a tmpfs up to its limit hurts everybody else on the machine for a
    // moment.
    struct statvfs space{};
    if (fstatvfs(topic.directory_fd(), &space) == 0 && space.f_blocks != 0 &&
        needed > std::uint64_t{space.f_bavail} * space.f_frsize) {
        return no_space(topic, needed);
    }
    return FG_OK;
}

// A new file that is locked and still has its name (a sweeper may be faster than our lock).
fg_status make_data_file(Topic& topic, mode_t mode) {
    for (int attempt = 0; attempt < kOpenAttempts; ++attempt) {
        if (!os::random_bytes(topic.identity_.id, sizeof topic.identity_.id)) {
            return fail_errno("topic \"%s\": no random numbers", topic.name_);
        }
        char file[kFileBytesMax];
        data_file_name(file, topic.stem_, topic.identity_.id[0]);
        if (open_recorded(topic.first_.fds_, 0, topic.directory_fd(), file,
                          O_RDWR | O_CREAT | O_EXCL, mode) < 0) {
            if (errno == EEXIST) {
                continue;
            }
            return fail_errno("topic \"%s\": cannot create its data file", topic.name_);
        }
        struct stat info{};
        if (lock_byte(topic.data_fd(), 0) && fstat(topic.data_fd(), &info) == 0 &&
            info.st_nlink == 1) {
            return FG_OK;
        }
        const ForkGuard guard;
        close(topic.data_fd());
        topic.first_.fds_.fds[0] = -1;
    }
    return fail(FG_SYSTEM, "topic \"%s\": its data file keeps disappearing", topic.name_);
}

void discard_files(Topic& topic, void (&name_of)(char (&out)[kFileBytesMax], const char* stem,
                                                 std::uint64_t id)) {
    char file[kFileBytesMax];
    data_file_name(file, topic.stem_, topic.identity_.id[0]);
    unlinkat(topic.directory_fd(), file, 0);
    name_of(file, topic.stem_, topic.identity_.id[0]);
    unlinkat(topic.directory_fd(), file, 0);
    unlock_byte(topic.data_fd(), 0);
}

fg_status fill_control_file(Topic& topic, const fg_topic_options& options, const char* temporary) {
    const auto mode = static_cast<mode_t>(options.mode);
    if (open_recorded(topic.fds_, kControlFd, topic.directory_fd(), temporary,
                      O_RDWR | O_CREAT | O_EXCL, mode) < 0) {
        return fail_errno("topic \"%s\": cannot create its control file", topic.name_);
    }
    if (fchmod(topic.control_fd(), mode) != 0 ||
        fchmod(topic.data_fd(), mode) != 0) {  // the umask has no say
        return fail_errno("topic \"%s\": cannot set mode %04o", topic.name_,
                          static_cast<unsigned>(mode));
    }
    const std::uint64_t needed = needed_bytes(topic.identity_);
    if (allocate(topic.control_fd(), 0, topic.identity_.mailboxes_offset) != FG_OK ||
        ftruncate(topic.control_fd(), static_cast<off_t>(topic.identity_.control_bytes)) != 0 ||
        allocate(topic.data_fd(), 0, topic.identity_.data_bytes) != FG_OK) {
        if (errno == ENOSPC || errno == ENOMEM || errno == EFBIG) {
            return no_space(topic, needed);
        }
        return fail_errno("topic \"%s\": cannot allocate %" PRIu64 " bytes", topic.name_, needed);
    }
    if (const fg_status status = map_control(topic); status != FG_OK) {
        return status;
    }
    if (const fg_status status = map_data(topic, topic.first_, true); status != FG_OK) {
        return status;
    }
    for (std::uint32_t i = 0; i < options.schema_count; ++i) {
        fg_array array = options.schema[i];
        array.offset = array.flags == FG_ARRAY_FIELD ? array.offset : 0;  // its place in a record
        array.bytes = 0;
        std::memcpy(topic.control_ + kSchemaOffset + i * sizeof array, &array, sizeof array);
    }
    if (const fg_status status = write_initial_metadata(options, topic.identity_, topic.control_);
        status != FG_OK) {
        return status;
    }
    // Everything else starts as zero, which is what posix_fallocate made.
    std::memcpy(topic.control_, &topic.identity_, sizeof topic.identity_);
    return adopt_schema(topic);
}

// Everything of a generation but its place in a chain: a locked data file and a complete control
// file under the name that `name_of` gives it. On failure no file is left.
using FileName = void (&)(char (&out)[kFileBytesMax], const char* stem, std::uint64_t id);
fg_status build_files(Topic& topic, const fg_topic_options& options, FileName name_of) {
    compute_geometry(options, &topic.identity_);
    if (const fg_status status = check_free_space(topic, needed_bytes(topic.identity_));
        status != FG_OK) {
        return status;
    }
    if (const fg_status status = make_data_file(topic, static_cast<mode_t>(options.mode));
        status != FG_OK) {
        return status;
    }
    FG_STEP(kCreateData);
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    topic.identity_.created_unix_ns = static_cast<std::uint64_t>(now.tv_sec) * 1000000000U +
                                      static_cast<std::uint64_t>(now.tv_nsec);
    seal_identity(&topic.identity_);
    char control[kFileBytesMax];
    name_of(control, topic.stem_, topic.identity_.id[0]);
    const fg_status status = fill_control_file(topic, options, control);
    if (status == FG_OK) {
        FG_STEP(kCreateControl);
    } else {
        discard_files(topic, name_of);
    }
    return status;
}

fg_status create_files(Topic& topic, const fg_topic_options& options) {
    if (const fg_status status = open_directory_recorded(topic, true); status != FG_OK) {
        return status;
    }
    sweep_orphans(topic.directory_fd());
    char control[kFileBytesMax];
    control_file_name(control, topic.stem_);
    struct stat info{};
    if (fstatat(topic.directory_fd(), control, &info, AT_SYMLINK_NOFOLLOW) ==
        0) {  // link() decides; this saves work
        return fail(FG_TOPIC_EXISTS, "topic \"%s\" exists already", topic.name_);
    }
    fg_status status = build_files(topic, options, temporary_file_name);
    if (status != FG_OK) {
        return status;
    }
    char temporary[kFileBytesMax];
    temporary_file_name(temporary, topic.stem_, topic.identity_.id[0]);
    if (linkat(topic.directory_fd(), temporary, topic.directory_fd(), control, 0) != 0) {
        status = errno == EEXIST
                     ? fail(FG_TOPIC_EXISTS, "topic \"%s\" exists already", topic.name_)
                     : fail_errno("topic \"%s\": cannot name its control file", topic.name_);
        discard_files(topic, temporary_file_name);
        return status;
    }
    FG_STEP(kCreateLinked);
    unlinkat(topic.directory_fd(), temporary, 0);
    unlock_byte(topic.data_fd(), 0);
    return FG_OK;
}

fg_status open_files(Topic& topic) {
    if (topic.directory_fd() < 0) {
        if (const fg_status status = open_directory_recorded(topic, false); status != FG_OK) {
            return status;
        }
    }
    {
        const ForkGuard guard;
        const fg_status status =
            open_control(topic.directory_fd(), topic.stem_, topic.name_, O_RDWR,
                         &topic.fds_.fds[kControlFd], &topic.identity_);
        if (status != FG_OK) {
            return status;
        }
    }
    if (const fg_status status = map_control(topic); status != FG_OK) {
        return status;
    }
    if (const fg_status status = open_data_file(topic, topic.first_); status != FG_OK) {
        // acquire: pairs with the CAS of resize. A topic that was resized may have dropped its
        // first data file; no participant will want it.
        if (status != FG_TOPIC_NOT_FOUND ||
            topic.view_.flow->next_generation.load(std::memory_order_acquire) == 0) {
            return status;
        }
    }
    return adopt_schema(topic);
}

// True if the name leads to the file that we opened.
bool is_current(const Topic& topic) {
    char control[kFileBytesMax];
    control_file_name(control, topic.stem_);
    struct stat info{};
    return fstatat(topic.directory_fd(), control, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
           info.st_dev == topic.device_ && info.st_ino == topic.inode_;
}

}  // namespace

fg_status say_unusable(const Topic& topic) {
    if (topic.fds_.condition.load(std::memory_order_relaxed) == kForked) {
        return fail(FG_FORKED,
                    "topic \"%s\" was opened before a fork; open it again in this process",
                    topic.name_);
    }
    return fail(FG_POISONED,
                "topic \"%s\": this process lost the lock that shows it is alive (did something "
                "close all file "
                "descriptors?); close the topic and open it again",
                topic.name_);
}

fg_status check_options(const fg_topic_options& options) {
    if (options.slots < FG_SLOTS_MIN || options.slots > FG_SLOTS_MAX) {
        return fail(FG_INVALID_ARGUMENT, "slots is %u, it must be %d to %d", options.slots,
                    FG_SLOTS_MIN, FG_SLOTS_MAX);
    }
    if (options.slot_bytes < 1 || options.slot_bytes > FG_SLOT_BYTES_MAX) {
        return fail(FG_INVALID_ARGUMENT, "slot_bytes is %" PRIu64 ", it must be 1 to %" PRIu64,
                    options.slot_bytes, FG_SLOT_BYTES_MAX);
    }
    if (options.keep < 1 || options.keep >= options.slots) {
        return fail(FG_INVALID_ARGUMENT, "keep is %u, it must be 1 to slots - 1 = %u", options.keep,
                    options.slots - 1);
    }
    if (options.participants_max < 2 || options.participants_max > FG_PARTICIPANTS_MAX) {
        return fail(FG_INVALID_ARGUMENT, "participants_max is %u, it must be 2 to %d",
                    options.participants_max, FG_PARTICIPANTS_MAX);
    }
    if (options.metadata_bytes > FG_METADATA_BYTES_MAX) {
        return fail(FG_INVALID_ARGUMENT, "metadata_bytes is %u, at most %d", options.metadata_bytes,
                    FG_METADATA_BYTES_MAX);
    }
    if (options.mailbox_bytes > FG_MAILBOX_BYTES_MAX) {
        return fail(FG_INVALID_ARGUMENT, "mailbox_bytes is %u, at most %d", options.mailbox_bytes,
                    FG_MAILBOX_BYTES_MAX);
    }
    if (options.mode != 0600 && options.mode != 0660) {
        return fail(FG_INVALID_ARGUMENT, "mode is %04o, it must be 0600 or 0660", options.mode);
    }
    if (options.checksum > FG_CHECKSUM_XXH3) {
        return fail(FG_INVALID_ARGUMENT, "checksum is %u, it must be one of FG_CHECKSUM_*",
                    options.checksum);
    }
    if (options.schema_count > FG_ARRAYS_MAX ||
        (options.schema_count != 0 && options.schema == nullptr)) {
        return fail(FG_INVALID_ARGUMENT, "the schema has %u arrays (at most %d) or is NULL",
                    options.schema_count, FG_ARRAYS_MAX);
    }
    if (const fg_status status = check_initial_metadata(options); status != FG_OK) {
        return status;
    }
    fg_array copy[FG_ARRAYS_MAX] = {};
    bool fixed = options.schema_count != 0;
    for (std::uint32_t i = 0; i < options.schema_count; ++i) {
        if (const fg_status status = check_array(options.schema[i], i); status != FG_OK) {
            return status;
        }
        copy[i] = options.schema[i];
        fixed = fixed && has_fixed_shape(copy[i]);
    }
    if (const fg_status status = check_record_group(copy, options.schema_count); status != FG_OK) {
        return status;
    }
    std::uint64_t payload = 0;
    if (fixed && lay_out_arrays(copy, options.schema_count, &payload) == FG_OK &&
        payload > options.slot_bytes) {
        return fail(FG_FRAME_TOO_LARGE,
                    "a frame of the schema has %" PRIu64 " bytes, a slot %" PRIu64, payload,
                    options.slot_bytes);
    }
    return FG_OK;
}

void compute_geometry(const fg_topic_options& options, Identity* identity) {
    std::memcpy(identity->magic, kMagic, sizeof kMagic);
    identity->layout_version = FG_LAYOUT_VERSION;
    identity->byte_order = kByteOrder;
    identity->identity_bytes = sizeof(Identity);
    identity->slots = options.slots;
    identity->slot_bytes = options.slot_bytes;
    identity->keep = options.keep;
    identity->participants_max = options.participants_max;
    identity->metadata_bytes = options.metadata_bytes;
    identity->mailbox_bytes = options.mailbox_bytes;
    identity->schema_count = options.schema_count;
    identity->checksum_kind = options.checksum;
    identity->mode = options.mode;
    identity->participant_words = (options.participants_max + 63) / 64;
    std::uint32_t ring_length = 4;
    while (ring_length < 2 * options.slots) {
        ring_length *= 2;
    }
    identity->ring_length = ring_length;
    identity->slot_header_bytes = sizeof(SlotHeader);
    identity->slot_stride = sizeof(SlotHeader) + align_up(options.slot_bytes, kPageBytes);
    identity->data_bytes = identity->slot_stride * options.slots;  // at most 2^52

    std::uint64_t at = kSchemaOffset + FG_ARRAYS_MAX * sizeof(fg_array);
    const auto section = [&at](std::uint64_t bytes) {
        const std::uint64_t offset = at;
        at = align_up(at + bytes, kCacheLine);
        return offset;
    };
    identity->shared_offset = section(sizeof(SharedWords));
    identity->participants_offset =
        section(std::uint64_t{options.participants_max} * sizeof(ParticipantRow));
    identity->ring_offset = section(std::uint64_t{ring_length} * sizeof(Word));
    identity->slots_offset = section(std::uint64_t{options.slots} * sizeof(SlotRecord));
    identity->groups_offset = section(kGroups * sizeof(GroupRow));
    identity->metadata_offset = section(options.metadata_bytes);
    at = align_up(at, kPageBytes);  // a mailbox is allocated by itself
    identity->mailboxes_offset = section(std::uint64_t{options.participants_max} *
                                         align_up(options.mailbox_bytes, kPageBytes));
    identity->control_bytes = align_up(at, kPageBytes);
}

fg_topic_options options_of(const Identity& identity) {
    fg_topic_options options;
    fg_topic_options_init(&options);
    options.slots = identity.slots;
    options.slot_bytes = identity.slot_bytes;
    options.keep = identity.keep;
    options.participants_max = identity.participants_max;
    options.metadata_bytes = identity.metadata_bytes;
    options.mailbox_bytes = identity.mailbox_bytes;
    options.mode = identity.mode;
    options.checksum = identity.checksum_kind;
    return options;
}

void seal_identity(Identity* identity) {
    identity->checksum = fnv1a(identity, offsetof(Identity, checksum));
}

fg_status check_identity(const Identity& identity, std::uint64_t file_bytes, const char* name) {
    if (std::memcmp(identity.magic, kMagic, sizeof kMagic) != 0) {
        return fail(FG_SEGMENT_INCOMPATIBLE,
                    "topic \"%s\": its control file is not one of framegate", name);
    }
    if (identity.layout_version != FG_LAYOUT_VERSION || identity.byte_order != kByteOrder ||
        identity.flags != 0 || identity.identity_bytes != sizeof(Identity) ||
        identity.checksum_kind > FG_CHECKSUM_XXH3) {
        return fail(FG_SEGMENT_INCOMPATIBLE,
                    "topic \"%s\" has layout version %u (byte order %08x, flags %x), this library "
                    "reads version %d; "
                    "stop its users and create it again",
                    name, identity.layout_version, identity.byte_order, identity.flags,
                    FG_LAYOUT_VERSION);
    }
    if (identity.checksum != fnv1a(&identity, offsetof(Identity, checksum))) {
        return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": the checksum of its header is wrong", name);
    }
    fg_topic_options options = options_of(identity);
    if (identity.schema_count > FG_ARRAYS_MAX || check_options(options) != FG_OK) {
        return fail(FG_SEGMENT_CORRUPT,
                    "topic \"%s\": its header has numbers outside of the limits", name);
    }
    options.schema_count = identity.schema_count;
    Identity expected = identity;  // id, time and reserved bytes may be anything
    compute_geometry(options, &expected);
    if (std::memcmp(&expected, &identity, sizeof identity) != 0) {
        return fail(FG_SEGMENT_CORRUPT,
                    "topic \"%s\": the offsets in its header do not follow from its options", name);
    }
    if (identity.control_bytes != file_bytes) {
        return fail(FG_SEGMENT_CORRUPT,
                    "topic \"%s\": its control file has %" PRIu64 " bytes instead of %" PRIu64,
                    name, file_bytes, identity.control_bytes);
    }
    return FG_OK;
}

SegmentView make_view(const Identity& identity, unsigned char* control) {
    SegmentView view;
    view.shared = reinterpret_cast<SharedWords*>(control + identity.shared_offset);
    view.flow = view.shared;
    view.participants = reinterpret_cast<ParticipantRow*>(control + identity.participants_offset);
    view.ring = reinterpret_cast<Word*>(control + identity.ring_offset);
    view.slots = reinterpret_cast<SlotRecord*>(control + identity.slots_offset);
    view.groups = reinterpret_cast<GroupRow*>(control + identity.groups_offset);
    view.slot_count = identity.slots;
    view.ring_mask = identity.ring_length - 1;
    view.keep = identity.keep;
    view.participants_max = identity.participants_max;
    view.participant_words = identity.participant_words;
    view.mailboxes = control + identity.mailboxes_offset;
    view.mailbox_stride = align_up(identity.mailbox_bytes, kPageBytes);
    view.mailbox_cells =
        view.mailbox_stride == 0
            ? 0
            : static_cast<std::uint32_t>((view.mailbox_stride - sizeof(MailboxHeader)) /
                                         sizeof(MailCell));
    view.reuse_warm = identity.slot_bytes >= kWarmSlotBytes;
    return view;
}

fg_status open_control(int directory, const char* stem, const char* name, int flags, int* out,
                       Identity* identity) {
    char file[kFileBytesMax];
    control_file_name(file, stem);
    return open_control_file(directory, file, name, flags, out, identity);
}

fg_status open_control_file(int directory, const char* file, const char* name, int flags, int* out,
                            Identity* identity) {
    // O_NONBLOCK: a FIFO put there must not block us.
    const int fd = openat(directory, file, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT ? fail(FG_TOPIC_NOT_FOUND, "there is no topic \"%s\"", name)
                               : fail_errno("topic \"%s\": cannot open its control file", name);
    }
    struct stat info{};
    fg_status status = FG_OK;
    if (fstat(fd, &info) != 0) {
        status = fail_errno("topic \"%s\": cannot stat its control file", name);
    } else if (!S_ISREG(info.st_mode) ||
               static_cast<std::uint64_t>(info.st_size) < sizeof(Identity) ||
               pread(fd, identity, sizeof *identity, 0) != static_cast<ssize_t>(sizeof *identity)) {
        status = fail(FG_SEGMENT_INCOMPATIBLE,
                      "topic \"%s\": its control file is not one of framegate", name);
    } else {
        status = check_identity(*identity, static_cast<std::uint64_t>(info.st_size), name);
    }
    if (status != FG_OK) {
        close(fd);
        return status;
    }
    *out = fd;
    return FG_OK;
}

fg_status create_topic(const char* name, std::size_t name_bytes, const fg_topic_options& options,
                       Topic** out) {
    char stem[FG_TOPIC_FILE_NAME_BYTES_MAX];
    if (const fg_status status = topic_file_stem(name, name_bytes, stem, sizeof stem);
        status != FG_OK) {
        return status;
    }
    if (const fg_status status = check_options(options); status != FG_OK) {
        return status;
    }
    Topic* topic = new_topic(name, name_bytes);
    if (topic == nullptr) {
        return fail(FG_OUT_OF_MEMORY, "no memory for a topic handle");
    }
    std::memcpy(topic->stem_, stem, sizeof stem);
    const fg_status status = create_files(*topic, options);
    if (status != FG_OK) {
        free_topic(topic);
        return status;
    }
    *out = topic;
    return FG_OK;
}

fg_status build_generation(const Topic& topic, const fg_topic_options& options,
                           std::uint32_t ordinal, Topic** out) {
    Topic* built = new_topic(topic.name_, std::strlen(topic.name_));
    if (built == nullptr) {
        return fail(FG_OUT_OF_MEMORY, "no memory for a topic handle");
    }
    std::memcpy(built->stem_, topic.stem_, sizeof topic.stem_);
    built->identity_.generation = ordinal;
    fg_status status = FG_OK;
    {
        const ForkGuard guard;
        built->fds_.fds[kDirectoryFd] = fcntl(topic.directory_fd(), F_DUPFD_CLOEXEC, 0);
        if (built->directory_fd() < 0) {
            status = fail_errno("topic \"%s\": cannot resize", topic.name_);
        }
    }
    if (status == FG_OK) {
        status = build_files(*built, options, generation_file_name);
    }
    if (status != FG_OK) {
        free_topic(built);
        return status;
    }
    *out = built;
    return FG_OK;
}

void discard_generation(Topic* built) {
    discard_files(*built, generation_file_name);
    free_topic(built);
}

void keep_generation(Topic* built) {
    unlock_byte(built->data_fd(), 0);
    free_topic(built);
}

fg_status open_topic(const char* name, std::size_t name_bytes, Topic** out) {
    char stem[FG_TOPIC_FILE_NAME_BYTES_MAX];
    fg_status status = topic_file_stem(name, name_bytes, stem, sizeof stem);
    for (int attempt = 0; status == FG_OK; ++attempt) {
        Topic* topic = new_topic(name, name_bytes);
        if (topic == nullptr) {
            return fail(FG_OUT_OF_MEMORY, "no memory for a topic handle");
        }
        std::memcpy(topic->stem_, stem, sizeof stem);
        status = open_files(*topic);
        if (status == FG_OK && is_current(*topic)) {
            *out = topic;
            return FG_OK;
        }
        // The control file was there but its data file is not, or the name leads elsewhere by now:
        // unlinked, and maybe created again, while we were opening.
        const bool raced =
            status == FG_OK || (status == FG_TOPIC_NOT_FOUND && topic->control_fd() >= 0);
        free_topic(topic);
        if (raced) {
            status = attempt < kOpenAttempts
                         ? static_cast<fg_status>(FG_OK)
                         : fail(FG_TOPIC_NOT_FOUND,
                                "there is no topic \"%.*s\": its files keep disappearing",
                                static_cast<int>(name_bytes), name);
        }
    }
    return status;
}

fg_status create_or_open_topic(const char* name, std::size_t name_bytes,
                               const fg_topic_options& options, Topic** out, bool* created) {
    if (const fg_status status = check_options(options); status != FG_OK) {
        return status;
    }
    Topic* topic = nullptr;
    fg_status status = FG_OK;
    for (int attempt = 0; attempt < kOpenAttempts; ++attempt) {
        *created = false;
        status = open_topic(name, name_bytes, &topic);
        if (status == FG_TOPIC_NOT_FOUND) {
            *created = true;
            status = create_topic(name, name_bytes, options, &topic);
        }
        if (status != FG_TOPIC_EXISTS) {
            break;
        }
    }
    if (status != FG_OK) {
        return status;
    }
    // The schema first: with other arrays the size of a slot says nothing.
    if (options.schema_count != 0) {
        bool same = options.schema_count == topic->identity_.schema_count;
        for (std::uint32_t i = 0; same && i < options.schema_count; ++i) {
            same = same_schema(options.schema[i], topic->schema_[i]);
        }
        if (!same) {
            status =
                fail(FG_SCHEMA_MISMATCH, "topic \"%s\" exists with another schema", topic->name_);
        }
    }
    if (status == FG_OK && options.metadata_count != 0) {
        status = compare_units(options, *topic);
    }
    if (status == FG_OK && topic->identity_.slot_bytes < options.slot_bytes) {
        status = fail(FG_FRAME_TOO_LARGE,
                      "topic \"%s\" exists with slots of %" PRIu64 " bytes, %" PRIu64 " are wanted",
                      topic->name_, topic->identity_.slot_bytes, options.slot_bytes);
    }
    if (status != FG_OK) {
        release_topic(topic);
        return status;
    }
    *out = topic;
    return FG_OK;
}

fg_status unlink_topic(const char* name, std::size_t name_bytes) {
    char stem[FG_TOPIC_FILE_NAME_BYTES_MAX];
    if (const fg_status status = topic_file_stem(name, name_bytes, stem, sizeof stem);
        status != FG_OK) {
        return status;
    }
    int fd = -1;
    if (const fg_status status = open_runtime_directory(false, &fd); status != FG_OK) {
        return status;
    }
    const Fd directory(fd);
    char control[kFileBytesMax];
    control_file_name(control, stem);
    const bool was_there = unlinkat(directory.get(), control, 0) == 0;
    if (!was_there && errno != ENOENT) {
        return fail_errno("cannot remove topic \"%.*s\"", static_cast<int>(name_bytes), name);
    }
    // Nothing leads to its generations any more, whatever the control file said. If we die before,
    // the next creation in the directory does it.
    const std::uint32_t removed = sweep_orphans(directory.get(), stem);
    return was_there || removed != 0 ? static_cast<fg_status>(FG_OK)
                                     : fail(FG_TOPIC_NOT_FOUND, "there is no topic \"%.*s\"",
                                            static_cast<int>(name_bytes), name);
}

fg_status allocate_mailbox(Topic& topic, std::uint32_t index) {
    const std::uint64_t stride = topic.view_.mailbox_stride;
    if (allocate(topic.control_fd(), topic.identity_.mailboxes_offset + index * stride, stride) ==
        FG_OK) {
        return FG_OK;
    }
    return errno == ENOSPC || errno == ENOMEM
               ? no_space(topic, stride)
               : fail_errno("topic \"%s\": cannot allocate a mailbox", topic.name_);
}

void retain_topic(Topic& topic) {
    topic.references_.fetch_add(
        1, std::memory_order_relaxed);  // relaxed: the caller holds one already
}

void release_topic(Topic* topic) {
    // acq_rel: what others did with the topic happens before it is unmapped.
    if (topic != nullptr && topic->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        free_topic(topic);
    }
}

void describe(const Identity& identity, fg_topic_info* info) {
    info->slots = identity.slots;
    info->slot_bytes = identity.slot_bytes;
    info->keep = identity.keep;
    info->participants_max = identity.participants_max;
    info->metadata_bytes = identity.metadata_bytes;
    info->mailbox_bytes = identity.mailbox_bytes;
    info->schema_count = identity.schema_count;
    info->mode = identity.mode;
    info->identity[0] = identity.id[0];
    info->identity[1] = identity.id[1];
    info->created_unix_ns = identity.created_unix_ns;
    info->control_bytes = identity.mailboxes_offset;
    info->data_bytes = identity.data_bytes;
    info->checksum = identity.checksum_kind;
}

}  // namespace framegate::impl
