// What each slot holds and who holds it, seen without taking part.
//
// A frame's header (bytes, time) is written between CLAIM and COMMIT. Read between two looks at a
// slot word that both name frame `sequence` (as PUB or TRY), it belongs to that frame, because a
// sequence is never used twice. Publishers pay nothing for being watched: on a machine that makes
// their stores visible in another order, a look may at worst show one wrong number to a person.
#include "inspector.hpp"

namespace framegate::impl {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kLooks = 16;  // a slot that changes faster is shown without its header

// The frame that a slot word names; 0: none.
std::uint64_t frame_of(std::uint64_t word) {
    const SlotState state = word_state(word);
    return state == SlotState::kPub || state == SlotState::kTry ? word_sequence(word) : 0;
}

void look(const SegmentView& view, const SlotRecord& record, fg_slot* slot) {
    slot->owner = FG_SLOT_NO_OWNER;
    for (int i = 0; i < kLooks; ++i) {
        // acquire: pairs with the release of the publisher's COMMIT and PUB; the header is at least
        // as new as the word.
        const std::uint64_t word = record.word.load(std::memory_order_acquire);
        for (std::uint32_t half = 0; half < view.participant_words; ++half) {
            slot->holders[half] = record.holders[half].load(kRelaxed);
        }
        slot->sequence = frame_of(word);
        if (slot->sequence == 0) {
            const SlotState state = word_state(word);
            if (state == SlotState::kClaim || state == SlotState::kCommit ||
                state == SlotState::kHanded) {
                const std::uint32_t owner = owner_participant(word_owner(word));
                slot->owner = owner < view.participants_max ? owner : FG_SLOT_NO_OWNER;
                slot->state = FG_SLOT_LOANED;
            } else {
                slot->state = FG_SLOT_FREE;
            }
            return;
        }
        slot->state = FG_SLOT_PUBLISHED;
        // acquire: the header is read before the second look at the word. (No fence:
        // ThreadSanitizer does not know them.)
        slot->bytes = record.bytes.load(std::memory_order_acquire);
        slot->published_ns = record.published_ns.load(std::memory_order_acquire);
        if (frame_of(record.word.load(kRelaxed)) == slot->sequence) {
            return;
        }
        slot->bytes = 0;
        slot->published_ns = 0;
    }
}

}  // namespace

fg_status Inspector::slots(fg_slot* out, std::size_t capacity, std::size_t* count) const {
    if (const fg_status status = usable(); status != FG_OK) {
        return status;
    }
    const Newest newest(*this);
    const SegmentView& view = newest.view();
    for (std::uint32_t i = 0; i < view.slot_count && i < capacity; ++i) {
        out[i] = fg_slot{};
        out[i].index = i;
        look(view, view.slots[i], &out[i]);
    }
    *count = view.slot_count;
    return FG_OK;
}

}  // namespace framegate::impl
