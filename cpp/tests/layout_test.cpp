#include <cstddef>

#include "support.hpp"

using namespace framegate::impl;

TEST_CASE("slot words keep their parts apart") {
    const std::uint32_t owner = owner_of(255, 15);
    const std::uint64_t word = slot_word(FG_SEQUENCE_MAX, owner, SlotState::kCommit);
    CHECK(word_sequence(word) == FG_SEQUENCE_MAX);
    CHECK(word_owner(word) == owner);
    CHECK(owner_participant(word_owner(word)) == 255);
    CHECK(word_state(word) == SlotState::kCommit);
    CHECK(slot_word(1, 0, SlotState::kFree) == 0x10000);
}

TEST_CASE("ring entries keep their parts apart") {
    const std::uint64_t entry = ring_entry(FG_SEQUENCE_MAX, FG_SLOTS_MAX - 1);
    CHECK(entry_sequence(entry) == FG_SEQUENCE_MAX);
    CHECK(entry_slot(entry) == FG_SLOTS_MAX - 1);
    CHECK(entry_slot(ring_entry(7, kClosedSlot)) == kClosedSlot);
}

TEST_CASE("incarnations of one row are different owners") {
    CHECK(self_of(3, 1).owner != self_of(3, 2).owner);
    CHECK(self_of(3, 1).owner == self_of(3, 17).owner);  // four bits
    CHECK(self_of(200, 0).word == 3);
    CHECK(self_of(200, 0).bit == std::uint64_t{1} << 8);
}

TEST_CASE("sections of the control file follow each other without overlap") {
    for (std::uint32_t slots : {2U, 3U, 8U, 1000U, 4096U}) {
        for (std::uint32_t participants : {2U, 64U, 65U, 256U}) {
            fg_topic_options options = test::options(slots, 1000);
            options.participants_max = participants;
            options.mailbox_bytes = 100;
            Identity identity{};
            compute_geometry(options, &identity);
            const std::uint64_t offsets[] = {kSchemaOffset,
                                             identity.shared_offset,
                                             identity.participants_offset,
                                             identity.ring_offset,
                                             identity.slots_offset,
                                             identity.groups_offset,
                                             identity.metadata_offset,
                                             identity.mailboxes_offset,
                                             identity.control_bytes};
            for (std::size_t i = 1; i < sizeof offsets / sizeof offsets[0]; ++i) {
                CHECK(offsets[i - 1] < offsets[i]);
                CHECK(offsets[i] % kCacheLine == 0);
            }
            CHECK(identity.mailboxes_offset % kPageBytes == 0);
            CHECK(identity.ring_length >= 2 * slots);
            CHECK((identity.ring_length & (identity.ring_length - 1)) == 0);
            CHECK(identity.participant_words == (participants + 63) / 64);
            CHECK(identity.ring_offset - identity.participants_offset >=
                  participants * sizeof(ParticipantRow));
            CHECK(identity.control_bytes - identity.mailboxes_offset >= participants * 128);
            CHECK(identity.slot_stride == 2 * kPageBytes);
            CHECK(identity.data_bytes == identity.slot_stride * slots);
        }
    }
}

TEST_CASE("largest topic does not overflow") {
    fg_topic_options options = test::options(FG_SLOTS_MAX, FG_SLOT_BYTES_MAX);
    options.participants_max = FG_PARTICIPANTS_MAX;
    options.metadata_bytes = FG_METADATA_BYTES_MAX;
    options.mailbox_bytes = FG_MAILBOX_BYTES_MAX;
    Identity identity{};
    compute_geometry(options, &identity);
    CHECK(identity.data_bytes == (FG_SLOT_BYTES_MAX + kPageBytes) * FG_SLOTS_MAX);
}

TEST_CASE("header is accepted as made and refused with any field changed") {
    Identity identity{};
    compute_geometry(test::options(8, 4096), &identity);
    seal_identity(&identity);
    CHECK(check_identity(identity, identity.control_bytes, "t") == FG_OK);
    CHECK(check_identity(identity, identity.control_bytes + 1, "t") == FG_SEGMENT_CORRUPT);
    for (std::size_t byte = 0; byte < sizeof identity; ++byte) {
        Identity changed = identity;
        reinterpret_cast<unsigned char*>(&changed)[byte] ^= 1;
        CHECK(check_identity(changed, identity.control_bytes, "t") != FG_OK);
        // A checksum alone is no protection: whoever writes the file can write that, too. Free
        // fields are the id, the time of creation, the generation and the reserved words.
        seal_identity(&changed);
        const bool is_free =
            (byte >= offsetof(Identity, id) && byte < offsetof(Identity, control_bytes)) ||
            (byte >= offsetof(Identity, generation));
        const bool is_option = check_identity(changed, changed.control_bytes, "t") == FG_OK;
        if (is_option && !is_free) {
            // The only other accepted change is one that makes another consistent header.
            Identity expected{};
            compute_geometry(test::options(changed.slots, changed.slot_bytes), &expected);
            CHECK((changed.control_bytes == expected.control_bytes || changed.keep != 1 ||
                   changed.mode != 0600 || changed.schema_count != 0 ||
                   changed.participants_max != 128));
        }
    }
}

TEST_CASE("another version is incompatible, not corrupt") {
    Identity identity{};
    compute_geometry(test::options(8, 4096), &identity);
    identity.layout_version = 2;
    seal_identity(&identity);
    CHECK(check_identity(identity, identity.control_bytes, "t") == FG_SEGMENT_INCOMPATIBLE);
    CHECK(std::string(fg_last_error()).find("version 2") != std::string::npos);
}

TEST_CASE("status table has every code once") {
    std::size_t count = 0;
    const fg_status_info* table = fg_status_table(&count);
    std::set<fg_status> codes;
    std::set<std::string> names;
    for (std::size_t i = 0; i < count; ++i) {
        codes.insert(table[i].code);
        names.insert(table[i].name);
        CHECK(std::strlen(table[i].text) > 0);
    }
    CHECK(codes.size() == count);
    CHECK(names.size() == count);
    CHECK(*codes.begin() == 0);
    CHECK(*codes.rbegin() == static_cast<fg_status>(count) - 1);
}

TEST_CASE("arrays are laid out at multiples of 64") {
    fg_array arrays[2] = {};
    arrays[0].dtype = fg_dtype_from_name("uint8", 5);
    arrays[0].dimension_count = 2;
    arrays[0].shape[0] = 3;
    arrays[0].shape[1] = 5;
    arrays[1].dtype = FG_DTYPE_BFLOAT16;
    std::uint64_t bytes = 0;
    REQUIRE(fg_arrays_lay_out(arrays, 2, &bytes) == FG_OK);
    CHECK(arrays[0].bytes == 15);
    CHECK(arrays[1].offset == 64);
    CHECK(bytes == 66);
    arrays[0].shape[0] = std::uint64_t{1} << 33;
    arrays[0].shape[1] = std::uint64_t{1} << 33;
    CHECK(fg_arrays_lay_out(arrays, 2, &bytes) == FG_INVALID_ARGUMENT);
    arrays[0].dtype = 200;
    CHECK(fg_arrays_lay_out(arrays, 2, &bytes) == FG_INVALID_ARGUMENT);
}
