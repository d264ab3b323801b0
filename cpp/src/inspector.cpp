#include "inspector.hpp"

#include <fcntl.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "arrays.hpp"
#include "liveness.hpp"
#include "metadata.hpp"
#include "names.hpp"
#include "status.hpp"
#include "topic.hpp"

namespace framegate::impl {
namespace {
constexpr auto kRelaxed = std::memory_order_relaxed;  // everything here is a snapshot for people
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
    return FG_OK;
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
    describe(identity_, view_, out);
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
    out->head = load_head(view_);
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
    for (std::uint32_t i = 0; i < view_.slot_count; ++i) {
        const SlotRecord& slot = view_.slots[i];
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
                std::uint64_t holders = 0;
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
    }
    *count = found;
    return FG_OK;
}

void Inspector::close() { destroy(); }

void Inspector::destroy() {
    if (control_ != nullptr && node_.condition.load(kRelaxed) == kAlive) {
        munmap(control_, identity_.control_bytes);
    }
    unregister_fork_node(node_);
    std::free(this);
}

}  // namespace framegate::impl
