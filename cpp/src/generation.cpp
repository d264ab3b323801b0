// Resize. The new generation is built completely, then one CAS on `next_generation` decides which
// one it is (a loser adopts the winner's), then the old ring is sealed: its entry head + 1 becomes
// CLOSED by the CAS with which a publisher would have published there. So the seal has a place in
// the order of frames: everything before it is in the old generation and everything from that
// sequence on in the new one. A publisher that meets it carries its loan over; a subscriber that has
// taken the last frame before it goes on in the new ring. Anybody who gets there first writes the
// new head (make_ready), so a resizer may die at any step: before the CAS its files are orphans,
// after it the next resizer seals with them, after the seal there is nothing left to do but to wake.
//
// Nothing can be loaned in a sealed ring, so every frame in it stays until it is removed as a whole:
// when no participant's row says that it may still want it (`generation`, 0 from attaching until the
// participant knows where it is), no group has a frame in it that is not finished, and the next
// generation has a frame to show to late subscribers.
//
// Groups. The cursor is the topic's, the frames behind it are in the generation of their sequence:
// a member goes on when the cursor, not its own position, reached the seal. What members did not
// finish stays marked in the slots of the old generation, where members that have gone on look for
// it when the group's `redeliveries` moved. A frame there is always in one of two hands: a row that
// names this generation (or an older one) holds it, or a mark does. From row to mark the mark comes
// first (nack, reap); from mark to row the row comes first, and then a look, under the lock of the
// groups, whether the generation is still there (confirm_generation). Whoever retires holds that
// lock and reads the rows before the marks, so it sees one of them.
#include "generation.hpp"

#include <cerrno>
#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>

#include "files.hpp"
#include "group.hpp"
#include "liveness.hpp"
#include "lock.hpp"
#include "os.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "topic.hpp"
#include "wake.hpp"

namespace framegate::impl {
namespace {

constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kSeqCst = std::memory_order_seq_cst;

constexpr int kWalkAttempts = 16;  // lost races against retirement and other resizers
constexpr std::uint32_t kSealAttemptsMax = 1U << 20;

fg_status corrupt(const Topic& topic) {
    return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": its generations make no sense", topic.name_);
}

void unmap_data(Generation& generation) {
    for (unsigned char** mapping : {&generation.data_read_, &generation.data_write_}) {
        if (*mapping != nullptr) {
            munmap(*mapping, generation.identity_.data_bytes);
            *mapping = nullptr;
        }
    }
}

void free_later(Generation* generation, bool forked) {
    if (!forked) {
        unmap_data(*generation);
        if (generation->control_ != nullptr) {
            munmap(generation->control_, generation->identity_.control_bytes);
        }
    }
    unregister_fork_node(generation->fds_);
    generation->~Generation();
    std::free(generation);
}

bool has_name(int fd) {
    struct stat info{};
    return fd >= 0 && fstat(fd, &info) == 0 && info.st_nlink != 0;
}

bool is_unlinked(const Topic& topic) { return !has_name(topic.control_fd()); }

// Unmaps what nobody in this process uses and nobody anywhere will: retired ones. The files of an
// unlinked topic have no names either; it keeps what it has open, because nothing can be opened
// again.
void drop_unused(Topic& topic) {
    if (is_unlinked(topic)) {
        return;
    }
    const auto is_retired = [](const Generation& generation) {
        // acquire: pairs with the link CAS of resize or retire.
        return generation.view_.flow->next_generation.load(kAcquire) != 0 &&
               generation.fds_.fds[0] >= 0 && !has_name(generation.fds_.fds[0]);
    };
    if (topic.first_.users_ == 0 && is_retired(topic.first_)) {
        unmap_data(topic.first_);
        const ForkGuard guard;
        close(topic.first_.fds_.fds[0]);
        topic.first_.fds_.fds[0] = -1;
    }
    for (Generation** link = &topic.later_; *link != nullptr;) {
        Generation* generation = *link;
        if (generation->users_ == 0 && is_retired(*generation)) {
            *link = generation->next_opened_;
            free_later(generation, false);
        } else {
            link = &generation->next_opened_;
        }
    }
}

// FG_TOPIC_NOT_FOUND: it was retired meanwhile.
fg_status open_later(Topic& topic, std::uint64_t id, Generation** out) {
    for (Generation* known = topic.later_; known != nullptr; known = known->next_opened_) {
        if (known->identity_.id[0] == id) {
            *out = known;
            return FG_OK;
        }
    }
    void* memory = nullptr;
    if (posix_memalign(&memory, alignof(Generation), sizeof(Generation)) != 0) {
        return fail(FG_OUT_OF_MEMORY, "no memory for a generation of topic \"%s\"", topic.name_);
    }
    auto* generation = new (memory) Generation;
    register_fork_node(generation->fds_);
    char file[kFileBytesMax];
    generation_file_name(file, topic.stem_, id);
    fg_status status = FG_OK;
    int control = -1;
    {
        // Closed again before the guard ends: the locks are on the topic's own control file.
        const ForkGuard guard;
        status = open_control_file(topic.directory_fd(), file, topic.name_, O_RDWR, &control,
                                   &generation->identity_);
        if (status == FG_OK) {
            void* mapped = mmap(nullptr, generation->identity_.control_bytes,
                                PROT_READ | PROT_WRITE, MAP_SHARED, control, 0);
            if (mapped == MAP_FAILED ||
                os::hide_from_children(mapped, generation->identity_.control_bytes) != 0) {
                status = fail_errno("topic \"%s\": cannot map a control file", topic.name_);
            }
            generation->control_ =
                mapped == MAP_FAILED ? nullptr : static_cast<unsigned char*>(mapped);
            close(control);
        }
    }
    const Identity& identity = generation->identity_;
    if (status == FG_OK && (identity.id[0] != id || identity.generation == 0 ||
                            identity.participants_max != topic.identity_.participants_max)) {
        status = corrupt(topic);
    }
    if (status == FG_OK) {
        populate(generation->control_, identity.mailboxes_offset, true);
        generation->view_ = later_view(topic.view_, identity, generation->control_);
        status = open_data_file(topic, *generation);
    }
    if (status != FG_OK) {
        free_later(generation, false);
        return status;
    }
    generation->next_opened_ = topic.later_;
    topic.later_ = generation;
    *out = generation;
    return FG_OK;
}

// The generation after `from`, ready to be worked in; nullptr if `from` is the newest.
fg_status successor(Topic& topic, Generation& from, Generation** out) {
    *out = nullptr;
    // acquire: pairs with the CAS of the resizer. Without a link there is no seal.
    const std::uint64_t id = from.view_.flow->next_generation.load(kAcquire);
    if (id == 0 || !sealed_after(from.view_, help_head(from.view_))) {
        return FG_OK;
    }
    Generation* next = nullptr;
    if (const fg_status status = open_later(topic, id, &next); status != FG_OK) {
        return status;
    }
    // Strictly upwards, so that no chain, however hostile, is a circle.
    if (next->identity_.generation <= from.identity_.generation) {
        return corrupt(topic);
    }
    if (next->first_sequence() == 0) {
        make_ready(from.view_, next->view_);
    }
    *out = next;
    return FG_OK;
}

void retire_unwanted(Topic& topic);

bool has_frames(const Generation& generation) {
    // seq_cst inside: a subscriber that sleeps re-reads it after it showed its mark.
    return help_head(generation.view_) >= generation.first_sequence();
}

// From the topic's first generation to the newest; `visit(generation)` for each. Starts over if a
// link was retired under our eyes, so a visit may happen twice.
template <typename Visit>
fg_status walk(Topic& topic, Visit visit) {
    for (int attempt = 0; attempt < kWalkAttempts; ++attempt) {
        Generation* at = &topic.first_;
        fg_status status = FG_OK;
        for (int step = 0; step < kGenerationStepsMax && at != nullptr; ++step) {
            visit(*at);
            status = successor(topic, *at, &at);
            if (status != FG_OK) {
                break;
            }
        }
        if (status == FG_OK && at == nullptr) {
            return FG_OK;
        }
        if (status != FG_TOPIC_NOT_FOUND) {
            return status == FG_OK ? corrupt(topic) : status;
        }
    }
    return fail(FG_TOPIC_NOT_FOUND, "topic \"%s\": files of its newest generation are missing",
                topic.name_);
}

fg_status use(Topic& topic, Generation& generation, Access access) {
    fg_status status = FG_OK;
    if (access != Access::kNone) {
        status = map_data(topic, generation, access == Access::kWrite);
    }
    if (status == FG_OK) {
        ++generation.users_;
    }
    return status;
}

bool seal(const SegmentView& view) {
    // Every failure is a frame that somebody published meanwhile; so many only in a corrupt ring.
    for (std::uint32_t attempt = 0; attempt < kSealAttemptsMax; ++attempt) {
        const std::uint64_t head = help_head(view);
        Word& entry = view.ring[(head + 1) & view.ring_mask];
        std::uint64_t old = entry.load(kAcquire);  // acquire: pairs with publishers' ring CAS
        if (old == ring_entry(head + 1, kClosedSlot)) {
            return true;
        }
        // seq_cst: the same CAS as a publication, so a frame is before the seal or behind it.
        if (entry_sequence(old) <= head &&
            entry.compare_exchange_strong(old, ring_entry(head + 1, kClosedSlot), kSeqCst,
                                          std::memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

bool is_as_wanted(const Identity& identity, const fg_topic_options& options) {
    return identity.slots == options.slots && identity.slot_bytes == options.slot_bytes &&
           identity.keep == options.keep;
}

// One round: FG_OK with *done if the newest generation is as wanted.
fg_status resize_once(Topic& topic, const fg_resize_options& wanted, bool* done) {
    const MutexGuard guard(topic.mutex_);
    Generation* newest = nullptr;
    if (const fg_status status = walk(topic, [&](Generation& at) { newest = &at; });
        status != FG_OK) {
        return status;
    }
    fg_topic_options options = options_of(newest->identity_);
    options.schema = topic.schema_;
    options.schema_count = topic.identity_.schema_count;
    options.slots = wanted.slots != 0 ? wanted.slots : options.slots;
    options.slot_bytes = wanted.slot_bytes != 0 ? wanted.slot_bytes : options.slot_bytes;
    options.keep = wanted.keep != 0 ? wanted.keep : options.keep;
    if (const fg_status status = check_options(options); status != FG_OK) {
        return status;
    }
    *done = is_as_wanted(newest->identity_, options);
    if (*done) {
        return FG_OK;
    }
    Word& link = newest->view_.flow->next_generation;
    Topic* built = nullptr;
    // acquire: pairs with the link CAS of another resizer.
    if (link.load(kAcquire) == 0) {
        if (const fg_status status =
                build_generation(topic, options, newest->identity_.generation + 1, &built);
            status != FG_OK) {
            return status;
        }
        FG_STEP(kResizeBuilt);
    }
    // Who founds a group does so before the seal or behind it, where its promise begins.
    if (const fg_status status = lock_groups(topic); status != FG_OK) {
        if (built != nullptr) {
            discard_generation(built);
        }
        return status;
    }
    if (built != nullptr) {
        std::uint64_t none = 0;
        // seq_cst (release needed): the files are complete before anybody is led to them.
        if (link.compare_exchange_strong(none, built->identity_.id[0], kSeqCst, kAcquire)) {
            FG_STEP(kResizeLinked);
            keep_generation(built);
        } else {
            discard_generation(built);
        }
    }
    const bool sealed = seal(newest->view_);
    FG_STEP(kResizeSealed);
    unlock_groups(topic);
    if (!sealed) {
        return corrupt(topic);
    }
    Generation* next = nullptr;
    const fg_status status = successor(topic, *newest, &next);  // makes it ready
    // Not there any more: others have gone on and retired it. The next round looks where it leads.
    return status == FG_TOPIC_NOT_FOUND ? static_cast<fg_status>(FG_OK) : status;
}

}  // namespace

SegmentView later_view(const SegmentView& first, const Identity& identity, unsigned char* control) {
    SegmentView view = make_view(identity, control);
    view.shared = first.shared;
    view.participants = first.participants;
    view.groups = first.groups;
    view.mailboxes = first.mailboxes;
    view.mailbox_stride = first.mailbox_stride;
    view.mailbox_cells = first.mailbox_cells;
    return view;
}

void make_ready(const SegmentView& sealed, const SegmentView& next) {
    const std::uint64_t head = load_head(sealed);  // final
    std::uint64_t none = 0;
    // seq_cst as every head CAS. Before it nobody publishes there: all who come wait for the word
    // below; so it fails only if somebody else did the same.
    next.flow->head.compare_exchange_strong(none, head, kSeqCst, kSeqCst);
    none = 0;
    // release: head before it; pairs with first_sequence().
    next.flow->first_sequence.compare_exchange_strong(none, head + 1, kSeqCst, kAcquire);
}

fg_status enter_newest_locked(Topic& topic, Access access, bool wants_newest_frame,
                              Generation** out) {
    Generation* newest = nullptr;
    Generation* with_frames = nullptr;
    const fg_status status = walk(topic, [&](Generation& at) {
        newest = &at;
        with_frames = has_frames(at) ? &at : with_frames;
    });
    if (status != FG_OK) {
        return status;
    }
    *out = wants_newest_frame && with_frames != nullptr ? with_frames : newest;
    return use(topic, **out, access);
}

fg_status enter_at_cursor_locked(Topic& topic, Access access, std::uint32_t group,
                                 Generation** out) {
    const std::uint64_t next = load_group_cursor(topic.view_, group) + 1;
    Generation* found = nullptr;
    const fg_status status = walk(topic, [&](Generation& at) {
        // Members of the group may move the cursor meanwhile: too old is good, too new is not.
        found = found == nullptr || at.first_sequence() <= next ? &at : found;
    });
    if (status != FG_OK) {
        return status;
    }
    *out = found;
    return use(topic, *found, access);
}

fg_status enter_unfinished(Topic& topic, const Generation& current, Access access,
                           std::uint32_t group, bool* found, Generation** out) {
    *found = false;
    if (current.is_first() || FG_MUTATED(kMutateNoReturn)) {
        return FG_OK;
    }
    const MutexGuard guard(topic.mutex_);
    Generation* oldest = nullptr;
    const fg_status status = walk(topic, [&](Generation& at) {
        if (oldest == nullptr && at.identity_.generation < current.identity_.generation &&
            at.fds_.fds[0] >= 0 && any_unfinished(at.view_, group)) {
            oldest = &at;
        }
    });
    if (status != FG_OK || oldest == nullptr) {
        return status;
    }
    *found = true;
    if (out == nullptr) {
        return FG_OK;
    }
    *out = oldest;
    return use(topic, *oldest, access);
}

bool confirm_generation(Topic& topic, const Generation& generation) {
    const MutexGuard guard(topic.mutex_);
    if (!lock_byte(topic.control_fd(), kGroupsLockByte)) {
        return false;
    }
    bool is_there = false;
    const fg_status status = walk(topic, [&](const Generation& at) {
        // The chain skips the retired ones; the first one only loses its data file.
        is_there = is_there || (&at == &generation &&
                                (!at.is_first() || has_name(at.fds_.fds[0]) || is_unlinked(topic)));
    });
    unlock_groups(topic);
    return status == FG_OK && is_there;
}

fg_status enter_generation(Topic& topic, Access access, std::uint32_t ordinal, Generation** out) {
    const MutexGuard guard(topic.mutex_);
    Generation* found = nullptr;
    const fg_status status = walk(topic, [&](Generation& at) {
        found = at.identity_.generation == ordinal && at.fds_.fds[0] >= 0 ? &at : found;
    });
    if (status == FG_OK && found == nullptr) {
        return fail(FG_TOPIC_NOT_FOUND, "topic \"%s\": generation %u is gone", topic.name_,
                    ordinal);
    }
    if (status == FG_OK) {
        *out = found;
        return use(topic, *found, access);
    }
    return status;
}

fg_status enter_next(Topic& topic, Generation& from, Access access, bool even_if_empty,
                     Generation** out) {
    const MutexGuard guard(topic.mutex_);
    if (const fg_status status = successor(topic, from, out); status != FG_OK) {
        return status;
    }
    if (*out == nullptr) {
        return corrupt(topic);  // sealed, and nothing behind it
    }
    while (!even_if_empty && !has_frames(**out)) {
        Generation* empty = *out;
        if (const fg_status status = successor(topic, *empty, out); status != FG_OK) {
            return status;
        }
        if (*out == nullptr) {
            return FG_EMPTY;
        }
    }
    return use(topic, **out, access);
}

void leave_generation(Topic& topic, Generation& generation) {
    const MutexGuard guard(topic.mutex_);
    leave_generation_locked(topic, generation);
}

void leave_generation_locked(Topic& topic, Generation& generation) {
    --generation.users_;
    if (topic.fds_.condition.load(std::memory_order_relaxed) == kAlive) {
        drop_unused(topic);
    }
}

fg_status scrub_generations_locked(Topic& topic, std::uint32_t index) {
    return walk(topic, [&](Generation& at) { scrub_slots(at.view_, index); });
}

fg_status drop_marks_locked(Topic& topic, std::uint32_t group) {
    return walk(topic, [&](Generation& at) { drop_marks(at.view_, group); });
}

void retire_generations(Topic& topic) {
    const MutexGuard guard(topic.mutex_);
    retire_generations_locked(topic);
}

void retire_generations_locked(Topic& topic) {
    // acquire: pairs with the link CAS of resize or retire.
    if (topic.view_.flow->next_generation.load(kAcquire) == 0) {
        return;
    }
    // A group that is founded after this look begins in the newest generation. If somebody else has
    // the lock, a later look does it.
    const bool is_locked = any_group(topic.view_);
    if (is_locked && !lock_byte(topic.control_fd(), kGroupsLockByte)) {
        return;
    }
    retire_unwanted(topic);
    if (is_locked) {
        unlock_groups(topic);
    }
}

namespace {

void retire_unwanted(Topic& topic) {
    Word& first_link = topic.view_.flow->next_generation;
    std::uint64_t link = first_link.load(kAcquire);  // acquire: as above
    std::uint32_t oldest_wanted = ~0U;
    for (std::uint32_t i = 0; i < topic.view_.participants_max; ++i) {
        if (row_in_use(topic.view_, i)) {
            // acquire: pairs with the release store of a participant that moved on.
            const std::uint32_t wanted = topic.view_.participants[i].generation.load(kAcquire);
            oldest_wanted = wanted < oldest_wanted ? wanted : oldest_wanted;
        }
    }
    // acquire: pairs with F2 of group.cpp; the cursor of a group is there before its bit.
    const std::uint64_t groups = topic.view_.shared->groups.load(kAcquire);
    const std::uint64_t finished = oldest_group_cursor(topic.view_, groups);
    // The newest one that everybody has reached and that has a frame for those who come late.
    Generation* keep = nullptr;
    const fg_status status = walk(topic, [&](Generation& at) {
        if (!at.is_first() && at.identity_.generation <= oldest_wanted &&
            at.first_sequence() - 1 <= finished && (has_frames(at) || at.first_sequence() == 1)) {
            keep = &at;
        }
        // After the rows: what they held before is marked by now.
        if (at.identity_.generation < oldest_wanted && any_mark_of(at.view_, groups)) {
            oldest_wanted = at.identity_.generation;
        }
    });
    if (status != FG_OK || keep == nullptr) {
        return;
    }
    char file[kFileBytesMax];
    data_file_name(file, topic.stem_, topic.identity_.id[0]);
    unlinkat(topic.directory_fd(), file, 0);
    if (keep->identity_.id[0] == link) {
        return;
    }
    const std::uint64_t target = keep->identity_.id[0];
    // seq_cst (release needed): whoever starts at the topic's control file goes straight to it from
    // here on. A loser leaves the rest to the winner.
    if (!first_link.compare_exchange_strong(link, target, kSeqCst, kAcquire)) {
        return;
    }
    FG_STEP(kRetireLinked);
    for (int step = 0; step < kGenerationStepsMax && link != target && link != 0; ++step) {
        Generation* at = nullptr;
        if (open_later(topic, link, &at) != FG_OK) {
            break;
        }
        // acquire: pairs with the link CAS of resize.
        const std::uint64_t after = at->view_.flow->next_generation.load(kAcquire);
        generation_file_name(file, topic.stem_, link);
        unlinkat(topic.directory_fd(), file, 0);
        data_file_name(file, topic.stem_, link);
        unlinkat(topic.directory_fd(), file, 0);
        link = after;
    }
    drop_unused(topic);
}

}  // namespace

fg_status newest_identity(Topic& topic, Identity* out) {
    const MutexGuard guard(topic.mutex_);
    return walk(topic, [&](Generation& at) { *out = at.identity_; });
}

fg_status resize_topic(Topic& topic, const fg_resize_options& wanted) {
    bool done = false;
    fg_status status = check_usable(topic);
    for (int attempt = 0; status == FG_OK && !done; ++attempt) {
        if (attempt == kWalkAttempts) {
            return fail(FG_SYSTEM, "topic \"%s\": others keep resizing it", topic.name_);
        }
        status = resize_once(topic, wanted, &done);
        if (status == FG_OK && !done) {
            kick(topic);  // sleepers look again: loans that waited for space, and whoever is armed
        }
    }
    if (status == FG_OK) {
        retire_generations(topic);
        const MutexGuard guard(topic.mutex_);
        drop_unused(topic);
    }
    return status;
}

fg_status open_data_file(Topic& topic, Generation& generation) {
    char file[kFileBytesMax];
    data_file_name(file, topic.stem_, generation.identity_.id[0]);
    ForkNode& node = generation.fds_;
    if (open_recorded(node, 0, topic.directory_fd(), file, O_RDWR) < 0 && errno == EACCES) {
        open_recorded(node, 0, topic.directory_fd(), file, O_RDONLY);  // may subscribe, not publish
    }
    if (node.fds[0] < 0) {
        return errno == ENOENT ? static_cast<fg_status>(FG_TOPIC_NOT_FOUND)
                               : fail_errno("topic \"%s\": cannot open its data file", topic.name_);
    }
    struct stat info{};
    if (fstat(node.fds[0], &info) != 0 ||
        static_cast<std::uint64_t>(info.st_size) != generation.identity_.data_bytes) {
        return fail(FG_SEGMENT_CORRUPT,
                    "topic \"%s\": its data file has %lld bytes instead of %" PRIu64, topic.name_,
                    static_cast<long long>(info.st_size), generation.identity_.data_bytes);
    }
    return FG_OK;
}

fg_status map_data(Topic& topic, Generation& generation, bool writable) {
    unsigned char*& mapping = writable ? generation.data_write_ : generation.data_read_;
    if (mapping != nullptr) {
        return FG_OK;
    }
    const std::uint64_t bytes = generation.identity_.data_bytes;
    mapping = static_cast<unsigned char*>(
        map_unforked(bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, generation.fds_.fds[0]));
    if (mapping == nullptr) {
        return fail_errno("topic \"%s\": cannot map its %" PRIu64 " data bytes for %s", topic.name_,
                          bytes, writable ? "publishing" : "reading");
    }
    populate(mapping, bytes, writable);
    return FG_OK;
}

// Touches every page now, so that the first frames do not pay for it (six times a warm copy).
void populate(unsigned char* memory, std::uint64_t bytes, bool writable) {
#ifdef MADV_POPULATE_WRITE
    if (madvise(memory, bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) {
        return;
    }
#else
    static_cast<void>(writable);
#endif
    // Before Linux 5.14: reading a page of an allocated file maps it.
    for (std::uint64_t at = 0; at < bytes; at += kPageBytes) {
        static_cast<void>(*const_cast<volatile unsigned char*>(memory + at));
    }
}

void free_generations(Topic& topic, bool forked) {
    while (topic.later_ != nullptr) {
        Generation* generation = topic.later_;
        topic.later_ = generation->next_opened_;
        free_later(generation, forked);
    }
    if (!forked) {  // in a forked child these addresses may belong to something else by now
        unmap_data(topic.first_);
    }
    unregister_fork_node(topic.first_.fds_);
}

void forget_all_descriptors(Topic& topic) {
    forget_descriptors(topic.fds_);
    forget_descriptors(topic.first_.fds_);
    for (Generation* at = topic.later_; at != nullptr; at = at->next_opened_) {
        forget_descriptors(at->fds_);
    }
}

int open_recorded(ForkNode& node, int which, int directory, const char* file, int flags,
                  std::uint32_t mode) {
    const ForkGuard guard;
    node.fds[which] = openat(directory, file, flags | O_NOFOLLOW | O_CLOEXEC, mode);
    return node.fds[which];
}

}  // namespace framegate::impl
