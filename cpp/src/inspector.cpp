#include "inspector.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#include "arrays.hpp"
#include "files.hpp"
#include "generation.hpp"
#include "group.hpp"
#include "liveness.hpp"
#include "metadata.hpp"
#include "names.hpp"
#include "os.hpp"
#include "status.hpp"
#include "topic.hpp"

namespace framegate::impl {
namespace {
constexpr auto kRelaxed = std::memory_order_relaxed;  // everything here is a snapshot for people

void add_group(const SegmentView& view, std::uint32_t index, fg_participant* participant) {
    const std::uint32_t group = group_of(view, index);
    if (group == kNoGroup) {
        return;
    }
    const GroupRow& row = view.groups[group];
    const std::uint32_t bytes = row.name_bytes.load(kRelaxed);
    constexpr std::uint32_t kBytesMax = FG_GROUP_NAME_BYTES_MAX;
    participant->group_bytes = bytes < kBytesMax ? bytes : kBytesMax;
    for (std::uint32_t word = 0; word < FG_GROUP_NAME_BYTES_MAX / 8; ++word) {
        const std::uint64_t letters = row.name[word].load(kRelaxed);
        std::memcpy(participant->group + word * 8, &letters, 8);
    }
}

}  // namespace

fg_status Inspector::open(const char* name, std::size_t name_bytes, Inspector** out) {
    char stem[FG_TOPIC_FILE_NAME_BYTES_MAX];
    if (const fg_status status = topic_file_stem(name, name_bytes, stem, sizeof stem);
        status != FG_OK) {
        return status;
    }
    void* memory = nullptr;
    if (posix_memalign(&memory, kCacheLine, sizeof(Inspector)) != 0) {
        return fail(FG_OUT_OF_MEMORY, "no memory for an inspector");
    }
    auto* inspector = new (memory) Inspector;
    std::memcpy(inspector->stem_, stem, sizeof stem);
    std::memcpy(inspector->name_, name, name_bytes);
    register_fork_node(inspector->node_);
    if (const fg_status status = inspector->open_files(); status != FG_OK) {
        inspector->destroy();
        return status;
    }
    *out = inspector;
    return FG_OK;
}

fg_status Inspector::open_files() {
    {
        const ForkGuard guard;
        if (const fg_status status = open_runtime_directory(false, &node_.fds[kDirectory]);
            status != FG_OK) {
            return status;
        }
        const fg_status status = open_control(node_.fds[kDirectory], stem_, name_, O_RDONLY,
                                              &node_.fds[kControl], &identity_);
        if (status != FG_OK) {
            return status;
        }
    }
    control_ = static_cast<unsigned char*>(
        map_unforked(identity_.control_bytes, PROT_READ, node_.fds[kControl]));
    if (control_ == nullptr) {
        return fail_errno("topic \"%s\": cannot map its control file", name_);
    }
    view_ = make_view(identity_, control_);
    newest_ = identity_;
    newest_view_ = view_;
    return FG_OK;
}

// Read-only, so nothing is helped: between a seal and the first frame behind it the old generation
// is shown.
Inspector::Newest::Newest(const Inspector& inspector) : inspector_(inspector) {
    pthread_mutex_lock(&inspector_.mutex_);
    for (int step = 0; step < kGenerationStepsMax; ++step) {
        const SegmentView& view = inspector_.newest_view_;
        // acquire: pairs with the CAS of resize.
        std::uint64_t next = view.flow->next_generation.load(std::memory_order_acquire);
        if (next == 0 || !sealed_after(view, load_head(view))) {
            break;
        }
        if (inspector_.map_generation(next)) {
            continue;
        }
        // Retired under our eyes: the topic's own control file leads past it.
        next = inspector_.view_.flow->next_generation.load(std::memory_order_acquire);
        if (!inspector_.map_generation(next)) {
            break;
        }
    }
}

bool Inspector::map_generation(std::uint64_t id) const {
    char file[kFileBytesMax];
    generation_file_name(file, stem_, id);
    const ForkGuard guard;
    int raw = -1;
    Identity identity{};
    if (open_control_file(node_.fds[kDirectory], file, name_, O_RDONLY, &raw, &identity) != FG_OK) {
        return false;
    }
    const Fd fd(raw);
    if (identity.id[0] != id || identity.participants_max != identity_.participants_max ||
        identity.generation <= newest_.generation) {
        return false;
    }
    void* memory = mmap(nullptr, identity.control_bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    auto* control = static_cast<unsigned char*>(memory);
    const SegmentView view = later_view(view_, identity, control);
    // acquire: pairs with make_ready().
    if (os::hide_from_children(memory, identity.control_bytes) != 0 ||
        view.flow->first_sequence.load(std::memory_order_acquire) == 0) {
        munmap(memory, identity.control_bytes);
        return false;
    }
    if (newest_control_ != nullptr) {
        munmap(newest_control_, newest_.control_bytes);
    }
    newest_ = identity;
    newest_view_ = view;
    newest_control_ = control;
    return true;
}

fg_status Inspector::usable() const {
    return node_.condition.load(kRelaxed) == kAlive
               ? static_cast<fg_status>(FG_OK)
               : fail(FG_FORKED, "the inspector of topic \"%s\" was opened before a fork", name_);
}

bool Inspector::is_alive(std::uint32_t index) const {
    return byte_is_locked(node_.fds[kControl], index);
}

fg_status Inspector::info(fg_topic_info* out) const {
    if (const fg_status status = usable(); status != FG_OK) {
        return status;
    }
    const Newest newest(*this);
    describe(newest.identity(), out);
    out->identity[0] = identity_.id[0];
    out->identity[1] = identity_.id[1];
    out->created_unix_ns = identity_.created_unix_ns;
    return FG_OK;
}

fg_status Inspector::schema(fg_array* out, std::size_t capacity, std::size_t* count) const {
    if (const fg_status status = usable(); status != FG_OK) {
        return status;
    }
    fg_array arrays[FG_ARRAYS_MAX];
    bool fixed = true;
    std::memcpy(arrays, control_ + kSchemaOffset, identity_.schema_count * sizeof(fg_array));
    for (std::uint32_t i = 0; i < identity_.schema_count; ++i) {
        if (check_array(arrays[i], i) != FG_OK) {
            return fail(FG_SEGMENT_CORRUPT, "topic \"%s\": array %u of its schema makes no sense",
                        name_, i);
        }
        fixed = fixed && has_fixed_shape(arrays[i]);
    }
    std::uint64_t payload = 0;
    if (fixed) {
        static_cast<void>(
            lay_out_arrays(arrays, identity_.schema_count, &payload));  // checked one by one above
    }
    for (std::uint32_t i = 0; i < identity_.schema_count && i < capacity; ++i) {
        out[i] = arrays[i];
    }
    *count = identity_.schema_count;
    return FG_OK;
}

fg_status Inspector::metadata(void* out, std::size_t capacity, std::size_t* bytes,
                              std::uint32_t* generation) const {
    const fg_status status = usable();
    return status != FG_OK ? status
                           : read_metadata(identity_, control_, out, capacity, bytes, generation);
}

fg_status Inspector::stats(fg_topic_stats* out) const {
    if (const fg_status status = usable(); status != FG_OK) {
        return status;
    }
    const std::uint32_t struct_bytes = out->struct_bytes;
    *out = fg_topic_stats{};
    out->struct_bytes = struct_bytes;
    const Newest newest(*this);
    const SegmentView& view = newest.view();
    out->head = load_head(view);
    for (std::uint32_t i = 0; i < view_.participants_max; ++i) {
        if (!row_in_use(view_, i)) {
            continue;
        }
        if (!is_alive(i)) {
            ++out->dead;
        } else if (view_.participants[i].role.load(kRelaxed) == FG_ROLE_PUBLISHER) {
            ++out->publishers;
        } else if (view_.participants[i].role.load(kRelaxed) == FG_ROLE_SUBSCRIBER) {
            ++out->subscribers;
        }
    }
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        const SlotRecord& slot = view.slots[i];
        switch (word_state(slot.word.load(kRelaxed))) {
            case SlotState::kFree:
                ++out->slots_free;
                break;
            case SlotState::kClaim:
            case SlotState::kCommit:
            case SlotState::kHanded:
                ++out->slots_loaned;
                break;
            default: {
                ++out->slots_published;
                std::uint64_t holders = slot.marks.load(kRelaxed);  // a group's unfinished work
                for (std::uint32_t word = 0; word < view_.participant_words; ++word) {
                    holders |= slot.holders[word].load(kRelaxed);
                }
                out->slots_leased += holders != 0 ? 1 : 0;
            }
        }
    }
    return FG_OK;
}

fg_status Inspector::participants(fg_participant* out, std::size_t capacity,
                                  std::size_t* count) const {
    if (const fg_status status = usable(); status != FG_OK) {
        return status;
    }
    std::size_t found = 0;
    for (std::uint32_t i = 0; i < view_.participants_max; ++i) {
        if (!row_in_use(view_, i)) {
            continue;
        }
        if (found++ >= capacity) {
            continue;
        }
        const ParticipantRow& row = view_.participants[i];
        fg_participant& participant = out[found - 1];
        participant = fg_participant{};
        participant.index = i;
        participant.role = row.role.load(kRelaxed);
        participant.policy = row.policy.load(kRelaxed);
        participant.alive = is_alive(i) ? 1 : 0;
        participant.pid = static_cast<std::int32_t>(row.pid.load(kRelaxed));
        participant.leases = row.leases.load(kRelaxed);
        participant.position = row.cursor.load(kRelaxed);
        participant.received = row.received.load(kRelaxed);
        participant.lost = row.lost.load(kRelaxed);
        participant.corrupt = row.corrupt.load(kRelaxed);
        participant.attached_unix_ns = row.attached_unix_ns.load(kRelaxed);
        const std::uint32_t name_bytes = row.name_bytes.load(kRelaxed);
        participant.name_bytes =
            name_bytes < kParticipantNameBytesMax ? name_bytes : kParticipantNameBytesMax;
        for (std::uint32_t word = 0; word < FG_PARTICIPANT_NAME_BYTES_MAX / 8; ++word) {
            const std::uint64_t letters = row.name[word].load(kRelaxed);
            std::memcpy(participant.name + word * 8, &letters, 8);
        }
        add_group(view_, i, &participant);
    }
    *count = found;
    return FG_OK;
}

void Inspector::close() { destroy(); }

void Inspector::destroy() {
    if (control_ != nullptr && node_.condition.load(kRelaxed) == kAlive) {
        munmap(control_, identity_.control_bytes);
        if (newest_control_ != nullptr) {
            munmap(newest_control_, newest_.control_bytes);
        }
    }
    unregister_fork_node(node_);
    std::free(this);
}

}  // namespace framegate::impl
