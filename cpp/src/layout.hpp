// The bytes of segment version 1: structs, offsets, static_asserts; no behaviour.
//
// A topic is two files. The control file (<topic>.ctl) is mapped read-write by every participant:
//
//     Identity | schema[16] | SharedWords | ParticipantRow[participants_max] | ring[ring_length] |
//     SlotRecord[slots] | GroupRow[8] | static metadata | mailboxes
//
// The mailboxes are sparse: the pages of one are allocated when a participant first opens it.
//
// The data file (<topic>.<id>.data) is mapped read-write by publishers and read-only by
// subscribers: one SlotHeader page and the payload per slot. What a subscriber must not be able to
// forge for others (array descriptors, user metadata, payload) is in the data file; what every
// participant must be able to write (words, bits, cursors) is in the control file.
// docs/design/segment-format.md is the table of this header for people.
//
// Identity is written before the file gets its name and never changes; an opener copies it once to
// private memory, checks it, and never reads geometry from shared memory again. Everything reserved
// is zero.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "framegate/shm.h"

namespace framegate::impl {

inline constexpr char kMagic[8] = {'F', 'G', 'F', 'R', 'A', 'M', 'E', 'S'};
inline constexpr std::uint32_t kByteOrder = 0x01020304;
inline constexpr std::uint32_t kCacheLine = 64;
inline constexpr std::uint32_t kPageBytes = 4096;  // of the format, whatever the machine's page is
inline constexpr std::uint32_t kHolderWords = FG_PARTICIPANTS_MAX / 64;
inline constexpr std::uint32_t kGroups = FG_GROUPS_MAX;
// Byte of the control file whose lock a process holds while it joins or ends a group; behind those
// of the participants and that of metadata.
inline constexpr std::uint32_t kGroupsLockByte = FG_PARTICIPANTS_MAX + 1;
inline constexpr std::uint32_t kParticipantNameBytesMax = FG_PARTICIPANT_NAME_BYTES_MAX;

using Word = std::atomic<std::uint64_t>;
using HalfWord = std::atomic<std::uint32_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8);
static_assert(HalfWord::is_always_lock_free && sizeof(HalfWord) == 4);

// ---- packed words

// Slot word = sequence:48 | owner:12 | state:4. Owner = participant index:8 | incarnation:4; zero
// where nobody owns.
enum class SlotState : std::uint32_t {
    kFree = 0,   // no frame; keeps the last sequence
    kTry = 1,    // a publisher looks for holders; the bytes are still those of the frame `sequence`
    kClaim = 2,  // loaned: the owner writes the bytes; `sequence` is the frame that is gone
    kCommit = 3,  // filled; is frame `sequence` if and only if ring[sequence] names this slot
    kPub = 4,     // frame `sequence`
    kHanded =
        5,  // no frame: the owner reads it; `sequence` is the ticket of the letter that brought it
};
inline constexpr std::uint32_t kOwnerBits = 12;
inline constexpr std::uint32_t kStateBits = 4;
inline constexpr std::uint32_t kIncarnationMask = 0xf;

constexpr std::uint64_t slot_word(std::uint64_t sequence, std::uint32_t owner, SlotState state) {
    return sequence << (kOwnerBits + kStateBits) | std::uint64_t{owner} << kStateBits |
           static_cast<std::uint64_t>(state);
}
constexpr std::uint64_t word_sequence(std::uint64_t word) {
    return word >> (kOwnerBits + kStateBits);
}
constexpr std::uint32_t word_owner(std::uint64_t word) {
    return static_cast<std::uint32_t>(word >> kStateBits) & ((1U << kOwnerBits) - 1);
}
constexpr SlotState word_state(std::uint64_t word) {
    return static_cast<SlotState>(word & ((1U << kStateBits) - 1));
}
constexpr std::uint32_t owner_of(std::uint32_t participant, std::uint32_t incarnation) {
    return participant << 4 | (incarnation & kIncarnationMask);
}
constexpr std::uint32_t owner_participant(std::uint32_t owner) { return owner >> 4; }

// Ring entry = sequence:48 | slot:16. ring[s mod ring_length] names the slot of frame s. The CAS
// that writes it is the moment of publication. kClosedSlot seals the topic at that sequence.
inline constexpr std::uint32_t kClosedSlot = 0xffff;
constexpr std::uint64_t ring_entry(std::uint64_t sequence, std::uint32_t slot) {
    return sequence << 16 | slot;
}
constexpr std::uint64_t entry_sequence(std::uint64_t entry) { return entry >> 16; }
constexpr std::uint32_t entry_slot(std::uint64_t entry) {
    return static_cast<std::uint32_t>(entry & 0xffff);
}
static_assert(FG_SLOTS_MAX < kClosedSlot);

// ---- control file

struct Identity {
    char magic[8];
    std::uint32_t layout_version;
    std::uint32_t byte_order;
    std::uint32_t identity_bytes;  // sizeof(Identity)
    std::uint32_t flags;           // features an opener must know; version 1 knows none, so zero
    std::uint64_t id[2];           // random; names the data file and the wake sockets
    std::uint64_t created_unix_ns;
    std::uint64_t control_bytes;
    std::uint64_t data_bytes;
    std::uint32_t slots;
    std::uint32_t ring_length;  // power of two, at least twice the slots
    std::uint32_t keep;
    std::uint32_t participants_max;
    std::uint32_t participant_words;  // holder words in use: ceil(participants_max / 64)
    std::uint32_t checksum_kind;      // of payloads, FG_CHECKSUM_*
    std::uint64_t slot_bytes;
    std::uint64_t slot_stride;
    std::uint32_t slot_header_bytes;
    std::uint32_t schema_count;
    std::uint32_t metadata_bytes;
    std::uint32_t mailbox_bytes;
    std::uint64_t shared_offset;
    std::uint64_t participants_offset;
    std::uint64_t ring_offset;
    std::uint64_t slots_offset;
    std::uint64_t groups_offset;
    std::uint64_t metadata_offset;
    std::uint64_t mailboxes_offset;
    std::uint32_t mode;
    std::uint32_t generation;  // 0: the topic's own control file; n: of the n-th resize
    std::uint64_t reserved[40];
    std::uint64_t checksum;  // FNV-1a of all bytes before it
};
static_assert(sizeof(Identity) == 512 && offsetof(Identity, checksum) == 504);
static_assert(offsetof(Identity, id) == 24 && offsetof(Identity, slots) == 64);
static_assert(std::is_trivially_copyable_v<Identity>);

inline constexpr std::uint64_t kSchemaOffset = sizeof(Identity);
static_assert(sizeof(fg_array) == 128 && offsetof(fg_array, shape) == 40 &&
              offsetof(fg_array, offset) == 104);

// One cache line per word that different parties write. `head`, `next_slot`, `next_generation` and
// `first_sequence` are of one generation, like ring and slots; everything else is of the topic and
// lives in its first control file only (generation.hpp).
struct SharedWords {
    alignas(kCacheLine) Word head;  // newest committed sequence, 0: none
    Word groups;  // bit: this group is in use, its cursor holds publishers back. Written rarely
    alignas(kCacheLine) Word next_slot;  // where the next loan starts to look; only a hint
    alignas(kCacheLine) HalfWord wake;   // futex word of sleeping subscribers
    HalfWord announced;                  // low half of a sequence that is about to be published
    Word waiters[kHolderWords];          // bit: this participant sleeps (or is about to) on `wake`
    alignas(kCacheLine) Word fds[kHolderWords];  // bit: this participant has a wake socket
    alignas(kCacheLine) HalfWord space;          // futex word of loans that wait for a slot
    HalfWord space_reserved;
    Word space_waiters[kHolderWords];
    alignas(kCacheLine)
        Word reliable[kHolderWords];  // bit: this participant's cursor holds publishers back
    Word history[kHolderWords];       // bit: this participant wants more than the newest frame
    alignas(kCacheLine) Word next_generation;  // resize: id of the next one to go to; 0: none
    Word metadata;        // static metadata: appends so far:32 | bytes in use:32
    Word first_sequence;  // of this generation; 0: not known yet (a resize is going on)
    Word reserved[5];
    alignas(kCacheLine) Word mailboxes[kHolderWords];  // bit: this mailbox was opened once, so its
                                                       // pages exist
    Word mail_reserved[4];
};
static_assert(sizeof(SharedWords) == 8 * kCacheLine && std::is_standard_layout_v<SharedWords>);
static_assert(offsetof(SharedWords, groups) == 8 && offsetof(SharedWords, next_slot) == 64);
static_assert(offsetof(SharedWords, wake) == 128 && offsetof(SharedWords, waiters) == 136);
static_assert(offsetof(SharedWords, announced) == 132);
static_assert(offsetof(SharedWords, fds) == 192 && offsetof(SharedWords, space) == 256);
static_assert(offsetof(SharedWords, reliable) == 320 && offsetof(SharedWords, history) == 352);
static_assert(offsetof(SharedWords, mailboxes) == 448);

// A row belongs to whoever holds the lock of byte `index` of the control file (an OFD lock).
struct ParticipantRow {
    HalfWord state;        // 0 free, 1 in use
    HalfWord incarnation;  // counts owners of the row
    HalfWord role;         // FG_ROLE_*
    HalfWord policy;       // FG_POLICY_*
    HalfWord pid;          // for people
    HalfWord name_bytes;
    Word attached_unix_ns;
    Word name[FG_PARTICIPANT_NAME_BYTES_MAX / 8];
    Word mailbox_offset;  // reserved
    Word reserved_info[7];
    // Written by the owner while it works, on its own line.
    alignas(kCacheLine) Word cursor;  // last sequence taken
    Word armed;                       // send a datagram once this sequence exists; 0: no
    Word received;                    // subscriber: taken; publisher: published
    Word lost;
    HalfWord leases;
    HalfWord generation;  // the oldest one whose files it may still want to open
    Word group;           // subscriber: its work-queue group + 1; 0: none
    Word corrupt;         // subscriber: frames whose checksum was wrong
    Word reserved;
};
static_assert(sizeof(ParticipantRow) == 192 && std::is_standard_layout_v<ParticipantRow>);
static_assert(offsetof(ParticipantRow, cursor) == 128);

struct SlotRecord {
    alignas(kCacheLine) Word word;
    Word holders[kHolderWords];  // bit: this participant holds a lease (or is just checking)
    Word marks;                  // bit per group: given to a member that did not finish it
    Word reserved_state[2];
    // The frame's header: written by the owner of the loan before COMMIT, read under a validated
    // lease.
    alignas(kCacheLine) Word bytes;
    Word published_ns;
    std::atomic<double> timestamp_s;
    HalfWord array_count;
    HalfWord flags;  // kFrame*
    HalfWord content_type_bytes;
    HalfWord user_metadata_bytes;
    Word checksum;     // of the payload, if the topic has them
    Word deadline_ns;  // of a request: CLOCK_MONOTONIC at which its caller gives up
    Word reserved;
};
static_assert(sizeof(SlotRecord) == 128 && offsetof(SlotRecord, bytes) == 64);
static_assert(std::is_standard_layout_v<SlotRecord> && std::atomic<double>::is_always_lock_free);

inline constexpr std::uint32_t kFrameArraysFromSchema =
    1;  // descriptors are the topic's schema, not the slot header's

// A work-queue group: in use from its first member until its last one is gone. Rows change hands
// under the lock of kGroupsLockByte.
struct GroupRow {
    alignas(kCacheLine) Word cursor;  // last sequence given to a member
    Word redeliveries;                // bumped after marks were set: look for them
    Word members[kHolderWords];       // bit per participant
    HalfWord name_bytes;
    HalfWord reserved_half;
    Word reserved_state;
    alignas(kCacheLine) Word name[FG_GROUP_NAME_BYTES_MAX / 8];
    Word reserved[4];
};
static_assert(sizeof(GroupRow) == 128 && offsetof(GroupRow, members) == 16);
static_assert(offsetof(GroupRow, name_bytes) == 48 && offsetof(GroupRow, name) == 64);

// A mailbox: MailboxHeader, then cells. See mailbox.cpp.
struct MailboxHeader {
    Word epoch;        // of the owner while it is open (see mail_epoch), 0: closed
    HalfWord accepts;  // of a responder: may be asked
    HalfWord reserved_half;
    alignas(kCacheLine) Word tickets;   // the last one given out; never goes back
    alignas(kCacheLine) HalfWord bell;  // futex word of the owner's sleeping threads
    HalfWord sleepers;                  // not 0: they sleep, or are about to
    Word armed;                         // not 0: send a datagram with the next letter
    alignas(kCacheLine) Word reserved[8];
};
static_assert(sizeof(MailboxHeader) == 256 && std::is_standard_layout_v<MailboxHeader>);

// Cell word = ticket:48, poster:12, state:4, packed as a slot word. A FREE cell is zero.
enum class CellState : std::uint32_t {
    kFree = 0,
    kWriting = 1,  // the poster's, as long as it lives
    kReady = 2,    // a letter
};

struct MailCell {
    Word word;
    Word kind_type;         // kind, type << 32
    Word correlation;       // of a call
    Word from_epoch;        // of the poster
    Word to_epoch;          // of the mailbox that is meant
    Word from_slot;         // participant, slot << 32 (kNoSlot: none handed over)
    Word bytes_generation;  // of `data`; generation of the slot << 32
    Word reserved;
    Word data[FG_LETTER_BYTES_MAX / 8];
};
static_assert(sizeof(MailCell) == 256 && std::is_standard_layout_v<MailCell>);
inline constexpr std::uint32_t kNoSlot = 0xffffffff;

// ---- data file

struct SlotHeader {
    char content_type[FG_CONTENT_TYPE_BYTES_MAX];
    unsigned char user_metadata[FG_USER_METADATA_BYTES_MAX];
    fg_array arrays[FG_ARRAYS_MAX];
    unsigned char reserved[kPageBytes - FG_CONTENT_TYPE_BYTES_MAX - FG_USER_METADATA_BYTES_MAX -
                           FG_ARRAYS_MAX * sizeof(fg_array)];
};
static_assert(sizeof(SlotHeader) == kPageBytes && offsetof(SlotHeader, arrays) % kCacheLine == 0);

}  // namespace framegate::impl
