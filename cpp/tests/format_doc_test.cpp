// docs/design/segment-format.md says the bytes that layout.hpp says: every field of every struct is
// in the table of its section, at its offset.
#include <fstream>
#include <regex>
#include <sstream>

#include "support.hpp"

namespace {

struct Field {
    const char* section;
    const char* name;
    std::size_t offset;
};

#define FG_FIELD(type, name) {#type, #name, offsetof(framegate::impl::type, name)}
#define FG_DATA_FIELD(name) {"Data file", #name, offsetof(framegate::impl::SlotHeader, name)}
constexpr Field kFields[] = {
    FG_FIELD(Identity, magic),
    FG_FIELD(Identity, layout_version),
    FG_FIELD(Identity, byte_order),
    FG_FIELD(Identity, identity_bytes),
    FG_FIELD(Identity, flags),
    FG_FIELD(Identity, id),
    FG_FIELD(Identity, created_unix_ns),
    FG_FIELD(Identity, control_bytes),
    FG_FIELD(Identity, data_bytes),
    FG_FIELD(Identity, slots),
    FG_FIELD(Identity, ring_length),
    FG_FIELD(Identity, keep),
    FG_FIELD(Identity, participants_max),
    FG_FIELD(Identity, participant_words),
    FG_FIELD(Identity, checksum_kind),
    FG_FIELD(Identity, slot_bytes),
    FG_FIELD(Identity, slot_stride),
    FG_FIELD(Identity, slot_header_bytes),
    FG_FIELD(Identity, schema_count),
    FG_FIELD(Identity, metadata_bytes),
    FG_FIELD(Identity, mailbox_bytes),
    FG_FIELD(Identity, mode),
    FG_FIELD(Identity, generation),
    FG_FIELD(Identity, checksum),
    FG_FIELD(SharedWords, head),
    FG_FIELD(SharedWords, groups),
    FG_FIELD(SharedWords, next_slot),
    FG_FIELD(SharedWords, wake),
    FG_FIELD(SharedWords, announced),
    FG_FIELD(SharedWords, waiters),
    FG_FIELD(SharedWords, fds),
    FG_FIELD(SharedWords, space),
    FG_FIELD(SharedWords, space_waiters),
    FG_FIELD(SharedWords, reliable),
    FG_FIELD(SharedWords, history),
    FG_FIELD(SharedWords, next_generation),
    FG_FIELD(SharedWords, metadata),
    FG_FIELD(SharedWords, first_sequence),
    FG_FIELD(SharedWords, mailboxes),
    FG_FIELD(ParticipantRow, state),
    FG_FIELD(ParticipantRow, incarnation),
    FG_FIELD(ParticipantRow, role),
    FG_FIELD(ParticipantRow, policy),
    FG_FIELD(ParticipantRow, pid),
    FG_FIELD(ParticipantRow, name_bytes),
    FG_FIELD(ParticipantRow, attached_unix_ns),
    FG_FIELD(ParticipantRow, name),
    FG_FIELD(ParticipantRow, mailbox_offset),
    FG_FIELD(ParticipantRow, cursor),
    FG_FIELD(ParticipantRow, armed),
    FG_FIELD(ParticipantRow, received),
    FG_FIELD(ParticipantRow, lost),
    FG_FIELD(ParticipantRow, leases),
    FG_FIELD(ParticipantRow, generation),
    FG_FIELD(ParticipantRow, group),
    FG_FIELD(ParticipantRow, corrupt),
    FG_FIELD(GroupRow, cursor),
    FG_FIELD(GroupRow, redeliveries),
    FG_FIELD(GroupRow, members),
    FG_FIELD(GroupRow, name_bytes),
    FG_FIELD(GroupRow, name),
    FG_FIELD(SlotRecord, word),
    FG_FIELD(SlotRecord, holders),
    FG_FIELD(SlotRecord, marks),
    FG_FIELD(SlotRecord, bytes),
    FG_FIELD(SlotRecord, published_ns),
    FG_FIELD(SlotRecord, timestamp_s),
    FG_FIELD(SlotRecord, array_count),
    FG_FIELD(SlotRecord, flags),
    FG_FIELD(SlotRecord, content_type_bytes),
    FG_FIELD(SlotRecord, user_metadata_bytes),
    FG_FIELD(SlotRecord, checksum),
    FG_FIELD(SlotRecord, deadline_ns),
    FG_DATA_FIELD(content_type),
    FG_DATA_FIELD(user_metadata),
    FG_DATA_FIELD(arrays),
};

// Offsets by field name of the table rows under a heading. A row is
// | 64 | `a`, `b` u32 | ... |  (fields of one size follow each other) or  | 48, 56 | `a`, `b` | ... |
std::set<std::pair<std::string, std::size_t>> rows_of(const std::string& document,
                                                      const std::string& section) {
    std::set<std::pair<std::string, std::size_t>> found;
    std::istringstream lines(document);
    std::string line;
    bool inside = false;
    const std::regex row(R"(^\| ([0-9, ]+) \| ([^|]*) \|.*)");
    const std::regex field(R"(`([a-z_]+)(\[[0-9]+\])?`)");
    const std::regex number("[0-9]+");
    while (std::getline(lines, line)) {
        if (line.rfind("#", 0) == 0) {
            inside = line.substr(line.find_first_not_of("# ")) == section;
        }
        std::smatch match;
        if (!inside || !std::regex_match(line, match, row)) {
            continue;
        }
        const std::string places = match[1];
        const std::string text = match[2];
        std::vector<std::size_t> offsets;
        for (auto at = std::sregex_iterator(places.begin(), places.end(), number);
             at != std::sregex_iterator(); ++at) {
            offsets.push_back(std::stoul(at->str()));
        }
        const std::size_t size = text.find("u32") != std::string::npos ? 4 : 8;
        std::size_t index = 0;
        for (auto at = std::sregex_iterator(text.begin(), text.end(), field);
             at != std::sregex_iterator(); ++at, ++index) {
            const std::size_t offset = index < offsets.size()
                                           ? offsets[index]
                                           : offsets.back() + size * (index + 1 - offsets.size());
            found.emplace((*at)[1], offset);
        }
    }
    return found;
}

}  // namespace

TEST_CASE("document of the format has every field at its offset, and no other") {
    std::ifstream file(FRAMEGATE_FORMAT_DOCUMENT);
    std::stringstream text;
    text << file.rdbuf();
    REQUIRE(text.str().size() > 1000);
    std::set<std::pair<std::string, std::pair<std::string, std::size_t>>> ours;
    for (const Field& field : kFields) {
        const std::string section = field.section;
        const std::string name = field.name;
        CAPTURE(section);
        CAPTURE(name);
        CAPTURE(field.offset);
        CHECK(rows_of(text.str(), section).count({name, field.offset}) == 1);
        ours.insert({section, {name, field.offset}});
    }
    for (const char* section :
         {"Identity", "SharedWords", "ParticipantRow", "GroupRow", "SlotRecord"}) {
        for (const auto& row : rows_of(text.str(), section)) {
            CAPTURE(section);
            CAPTURE(row.first);
            CAPTURE(row.second);
            CHECK(ours.count({section, row}) == 1);
        }
    }
}
