// A snapshot of moving words, for people: every load is relaxed, nothing is decided by it.
#include "holdup.hpp"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "group.hpp"
#include "status.hpp"

namespace framegate::impl {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// Text that is cut at its end instead of overflowing.
class Text {
  public:
    [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) {
        va_list arguments;
        va_start(arguments, format);
        const int added = vsnprintf(text_ + used_, sizeof text_ - used_, format, arguments);
        va_end(arguments);
        if (added > 0) {
            const std::size_t room = sizeof text_ - used_ - 1;
            used_ +=
                static_cast<std::size_t>(added) < room ? static_cast<std::size_t>(added) : room;
        }
    }
    // Starts the next reason.
    void next() { add("%s", used_ == 0 ? "" : ", "); }
    const char* get() const { return text_; }

  private:
    char text_[400] = "";
    std::size_t used_ = 0;
};

// Names come from shared memory: printable or '?', cut at their limit.
template <std::size_t kWords>
void add_name(Text& text, const Word (&words)[kWords], std::uint32_t bytes) {
    char name[kWords * 8 + 1] = "";
    for (std::size_t i = 0; i < kWords; ++i) {
        const std::uint64_t letters = words[i].load(kRelaxed);
        std::memcpy(name + i * 8, &letters, 8);
    }
    name[bytes < kWords * 8 ? bytes : kWords * 8] = '\0';
    for (char* letter = name; *letter != '\0'; ++letter) {
        const auto code = static_cast<unsigned char>(*letter);
        *letter = code < 0x20 || code == 0x7f ? '?' : *letter;
    }
    text.add("\"%s\"", name);
}

void add_participant(Text& text, const SegmentView& view, std::uint32_t index) {
    const ParticipantRow& row = view.participants[index];
    add_name(text, row.name, row.name_bytes.load(kRelaxed));
    text.add(" (pid %u)", row.pid.load(kRelaxed));
}

struct Counts {
    std::uint32_t newest = 0;  // kept by the topic itself
    std::uint32_t unread = 0;  // behind the slowest cursor
    std::uint32_t leased = 0;
    std::uint32_t unfinished = 0;  // to be delivered again
    std::uint32_t loaned = 0;
};

Counts count_slots(const SegmentView& view, std::uint64_t head, std::uint64_t bound) {
    Counts counts;
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        const SlotRecord& slot = view.slots[i];
        const std::uint64_t word = slot.word.load(kRelaxed);
        const SlotState state = word_state(word);
        std::uint64_t holders = 0;
        for (std::uint32_t j = 0; j < view.participant_words; ++j) {
            holders |= slot.holders[j].load(kRelaxed);
        }
        if (state == SlotState::kClaim || state == SlotState::kCommit) {
            ++counts.loaned;
        } else if (holders != 0) {
            ++counts.leased;
        } else if (slot.marks.load(kRelaxed) != 0) {
            ++counts.unfinished;
        } else if (state != SlotState::kFree && word_sequence(word) > bound) {
            ++counts.unread;
        } else if (state != SlotState::kFree && word_sequence(word) + view.keep > head) {
            ++counts.newest;
        }
    }
    return counts;
}

struct Slowest {
    std::uint64_t cursor = ~std::uint64_t{0};
    std::uint32_t participant = 0;
    std::uint32_t group = kNoGroup;
};

Slowest find_slowest(const SegmentView& view) {
    Slowest slowest;
    for (std::uint32_t i = 0; i < view.participants_max; ++i) {
        const std::uint64_t bits = view.shared->reliable[i / 64].load(kRelaxed);
        const std::uint64_t cursor = view.participants[i].cursor.load(kRelaxed);
        if ((bits >> (i % 64) & 1) != 0 && cursor < slowest.cursor) {
            slowest = {cursor, i, kNoGroup};
        }
    }
    for (std::uint32_t i = 0; i < kGroups; ++i) {
        const std::uint64_t cursor = view.groups[i].cursor.load(kRelaxed);
        if ((view.shared->groups.load(kRelaxed) >> i & 1) != 0 && cursor < slowest.cursor) {
            slowest = {cursor, 0, i};
        }
    }
    return slowest;
}

// The participant with the most leases; its number of them in `leases`.
std::uint32_t find_greediest(const SegmentView& view, std::uint32_t* leases) {
    std::uint32_t counts[FG_PARTICIPANTS_MAX] = {};
    std::uint32_t greediest = 0;
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        for (std::uint32_t word = 0; word < view.participant_words; ++word) {
            std::uint64_t bits = view.slots[i].holders[word].load(kRelaxed);
            for (; bits != 0; bits &= bits - 1) {
                const auto index = word * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bits));
                greediest = ++counts[index] > counts[greediest] ? index : greediest;
            }
        }
    }
    *leases = counts[greediest];
    return greediest < view.participants_max ? greediest : 0;
}

}  // namespace

fg_status say_full(const Topic& topic, const SegmentView& view) {
    const std::uint64_t head = load_head(view);
    const Slowest slowest = find_slowest(view);
    const Counts counts = count_slots(view, head, slowest.cursor);
    Text text;
    if (counts.unread != 0) {
        text.next();
        text.add("%u wait for the %s ", counts.unread,
                 slowest.group != kNoGroup ? "group" : "reliable subscriber");
        if (slowest.group != kNoGroup) {
            const GroupRow& row = view.groups[slowest.group];
            add_name(text, row.name, row.name_bytes.load(kRelaxed));
        } else {
            add_participant(text, view, slowest.participant);
        }
        text.add(" which is at frame %" PRIu64 " of %" PRIu64, slowest.cursor, head);
    }
    if (counts.leased != 0) {
        std::uint32_t leases = 0;
        const std::uint32_t greediest = find_greediest(view, &leases);
        text.next();
        text.add("%u leased", counts.leased);
        if (leases != 0) {
            text.add(", %u of them by ", leases);
            add_participant(text, view, greediest);
        }
    }
    if (counts.unfinished != 0) {
        text.next();
        text.add("%u to be delivered again to a group", counts.unfinished);
    }
    if (counts.loaned != 0) {
        text.next();
        text.add("%u being filled", counts.loaned);
    }
    if (counts.newest != 0) {
        text.next();
        text.add("%u newest", counts.newest);
    }
    return fail(FG_TOPIC_FULL,
                "topic \"%s\": none of its %u slots is free: %s; release frames sooner, read "
                "faster or create it with more slots",
                topic.name_, view.slot_count, text.get());
}

}  // namespace framegate::impl
