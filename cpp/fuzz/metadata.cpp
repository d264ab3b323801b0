// Metadata records of any bytes: alone, and in the segment of a live topic, with any count before
// them. What is read lies in the area, the walk over it ends, and an append after it is whole or
// refused.
#include "metadata.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "support.hpp"
#include "topic.hpp"

namespace {

constexpr char kName[] = "metadata";
constexpr std::uint32_t kAreaBytes = 1024;

bool lies_in(const void* data, std::uint64_t bytes, const std::vector<std::uint8_t>& area) {
    const auto first = reinterpret_cast<std::uintptr_t>(area.data());
    const auto at = reinterpret_cast<std::uintptr_t>(data);
    return bytes == 0 ||
           (at >= first && at - first <= area.size() && bytes <= area.size() - (at - first));
}

// Returns how many records there were before the end or the first one that makes no sense.
std::size_t walk(const std::vector<std::uint8_t>& area) {
    std::size_t records = 0;
    fg_value values[FG_VALUES_MAX];
    for (std::size_t position = 0;; ++records) {
        const std::size_t before = position;
        std::uint32_t array = 0;
        std::size_t count = 0;
        if (fg_metadata_next(area.data(), area.size(), &position, &array, values, FG_VALUES_MAX,
                             &count) != FG_OK) {
            return records;
        }
        fuzz::demand(position > before && position <= area.size(), "a record has a length");
        fuzz::demand(count <= FG_VALUES_MAX, "a record has few values");
        for (std::size_t i = 0; i < count; ++i) {
            fuzz::demand(lies_in(values[i].key, values[i].key_bytes, area), "a key lies in it");
            const bool has_data =
                values[i].type == FG_VALUE_STRING || values[i].type == FG_VALUE_BYTES;
            fuzz::demand(!has_data || lies_in(values[i].data, values[i].data_bytes, area),
                         "a value lies in it");
        }
    }
}

// What a topic says its metadata is; empty if it refuses.
std::vector<std::uint8_t> read(const fg_topic* topic) {
    std::vector<std::uint8_t> area(kAreaBytes);
    std::size_t bytes = 0;
    std::uint32_t generation = 0;
    const fg_status status =
        fg_topic_metadata(topic, area.data(), area.size(), &bytes, &generation);
    fuzz::demand(status != FG_OK || bytes <= area.size(), "metadata fit their area");
    area.resize(status == FG_OK ? bytes : 0);
    area.shrink_to_fit();  // so that a read behind it is seen
    return area;
}

void spoil(fg_topic* topic, fuzz::Input& input, const std::string& bytes) {
    const auto* inside = reinterpret_cast<framegate::impl::Topic*>(topic);
    const std::size_t size = inside->identity_.control_bytes;
    const int fd = open(fuzz::runtime_directory().file("metadata.ctl").c_str(), O_RDWR | O_CLOEXEC);
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fuzz::demand(fd >= 0 && memory != MAP_FAILED, "the mapping of the hostile peer");
    close(fd);
    auto* control = static_cast<unsigned char*>(memory);
    const std::size_t at = input.below(64) * 8;
    const std::size_t room = kAreaBytes - at;
    std::memcpy(control + inside->identity_.metadata_offset + at, bytes.data(),
                bytes.size() < room ? bytes.size() : room);
    if (input.below(2) != 0) {
        const std::uint32_t counted =
            input.below(4) == 0 ? input.next<std::uint32_t>() : input.below(kAreaBytes + 16);
        const std::uint64_t word =
            framegate::impl::metadata_word(input.next<std::uint32_t>(), counted);
        std::memcpy(control + inside->identity_.shared_offset +
                        offsetof(framegate::impl::SharedWords, metadata),
                    &word, sizeof word);
    }
    munmap(memory, size);
}

fg_value number(const char* key, std::int64_t value) {
    fg_value entry{};
    entry.type = FG_VALUE_INT;
    entry.key = key;
    entry.key_bytes = static_cast<std::uint32_t>(std::strlen(key));
    entry.integer = value;
    return entry;
}

void live(fuzz::Input& input) {
    fg_topic_options options;
    fg_topic_options_init(&options);
    options.slots = 2;
    options.slot_bytes = 64;
    options.participants_max = 4;
    options.metadata_bytes = kAreaBytes;
    options.mailbox_bytes = 0;
    fg_topic* topic = nullptr;
    fuzz::demand(fg_topic_create(kName, sizeof kName - 1, &options, &topic) == FG_OK, "a topic");
    const fg_value value = number("key", 7);
    const fg_metadata metadata = {FG_METADATA_TOPIC, 1, &value};
    fuzz::demand(fg_topic_append_metadata(topic, &metadata, nullptr) == FG_OK, "an append");
    fuzz::demand(walk(read(topic)) == 1, "its record");
    while (!input.empty()) {
        const std::uint32_t bytes = input.below(200);
        spoil(topic, input, input.text(bytes));
        walk(read(topic));
        if (fg_topic_append_metadata(topic, &metadata, nullptr) == FG_OK) {
            fuzz::demand(!read(topic).empty(), "what was appended is there");
        }
        fg_topic* again = nullptr;
        if (fg_topic_create_or_open(kName, sizeof kName - 1, &options, &again, nullptr) == FG_OK) {
            walk(read(again));
            fg_topic_close(again);
        }
        fuzz::inspect(kName);
    }
    fg_topic_close(topic);
    static_cast<void>(fg_topic_unlink(kName, sizeof kName - 1));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static_cast<void>(fuzz::runtime_directory());
    fuzz::Input input(data, size);
    if (input.next<std::uint8_t>() % 4 != 0) {
        walk(std::vector<std::uint8_t>(data + (size != 0 ? 1 : 0), data + size));
    } else {
        live(input);
    }
    return 0;
}
