#include "metadata.hpp"

#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "liveness.hpp"
#include "os.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "topic.hpp"
#include "values.hpp"
#include "wake.hpp"

namespace framegate::impl {
namespace {

constexpr char kUnitsKey[] = "units";
constexpr std::uint32_t kMetadataByte = FG_PARTICIPANTS_MAX;  // behind the bytes of participants
constexpr std::size_t kRecordAlignment = 8;
// An append holds the lock for microseconds. Whoever holds it for longer was stopped.
constexpr std::uint64_t kPatienceNs = 1000000000;
constexpr long kRetryNs = 1000000;

struct RecordHeader {
    std::uint32_t values_bytes;
    std::uint32_t array;  // FG_METADATA_TOPIC or the index of an array
};
static_assert(sizeof(RecordHeader) == 8);

std::uint64_t record_bytes(std::uint64_t values_bytes) {
    return (sizeof(RecordHeader) + values_bytes + kRecordAlignment - 1) / kRecordAlignment *
           kRecordAlignment;
}

SharedWords& shared_words(const Identity& identity, const unsigned char* control) {
    return *reinterpret_cast<SharedWords*>(const_cast<unsigned char*>(control) +
                                           identity.shared_offset);
}

// The committed word, with the byte count bounded.
std::uint64_t committed(const Identity& identity, const unsigned char* control,
                        std::uint32_t* used) {
    // acquire; pairs with the release in append_metadata(): the records before it are there.
    const std::uint64_t word =
        shared_words(identity, control).metadata.load(std::memory_order_acquire);
    const auto bytes = static_cast<std::uint32_t>(word);
    *used = bytes < identity.metadata_bytes ? bytes : identity.metadata_bytes;
    return word;
}

bool is_units(const fg_value& value) {
    return value.key_bytes == sizeof kUnitsKey - 1 &&
           std::memcmp(value.key, kUnitsKey, sizeof kUnitsKey - 1) == 0;
}

bool units_are_good(const fg_value& value) {
    return value.type == FG_VALUE_STRING && value.data_bytes >= 1 &&
           value.data_bytes <= FG_UNITS_BYTES_MAX;
}

bool is_array(std::uint32_t array, std::uint32_t schema_count) {
    return array == FG_METADATA_TOPIC || array < schema_count;
}

fg_status say_no_array(const fg_metadata& metadata, std::uint32_t schema_count) {
    return fail(FG_INVALID_ARGUMENT,
                "metadata for array %u of a schema of %u arrays (FG_METADATA_TOPIC: the topic)",
                metadata.array, schema_count);
}

// Writes one record of a map that is known to fit.
void write_record(unsigned char* at, const fg_metadata& metadata, std::size_t values_bytes) {
    const RecordHeader header = {static_cast<std::uint32_t>(values_bytes), metadata.array};
    std::memcpy(at, &header, sizeof header);
    std::size_t written = 0;
    static_cast<void>(encode_values(metadata.values, metadata.value_count, at + sizeof header,
                                    values_bytes, &written));
}

// FG_OK with the size of the map, or what is wrong with it.
fg_status measure(const fg_metadata& metadata, std::size_t* values_bytes) {
    if (metadata.value_count != 0 && metadata.values == nullptr) {
        return fail(FG_INVALID_ARGUMENT, "metadata.values is NULL");
    }
    *values_bytes = 0;
    const fg_status status =
        encode_values(metadata.values, metadata.value_count, nullptr, 0, values_bytes);
    return *values_bytes != 0 ? static_cast<fg_status>(FG_OK) : status;  // no room was meant
}

fg_status say_full(const char* name, std::uint64_t needed, std::uint64_t used,
                   std::uint32_t metadata_bytes) {
    return fail(FG_METADATA_FULL,
                "topic \"%s\": %" PRIu64 " bytes of metadata do not fit: %" PRIu64
                " of %u bytes are used; create it with a larger metadata_bytes",
                name, needed, used, metadata_bytes);
}

fg_status append_locked(Topic& topic, const fg_metadata& metadata, std::size_t values_bytes,
                        std::uint32_t* generation) {
    std::uint32_t used = 0;
    const std::uint64_t word = committed(topic.identity_, topic.control_, &used);
    const std::uint64_t needed = record_bytes(values_bytes);
    if (needed > topic.identity_.metadata_bytes - used) {
        return say_full(topic.name_, needed, used, topic.identity_.metadata_bytes);
    }
    write_record(topic.control_ + topic.identity_.metadata_offset + used, metadata, values_bytes);
    FG_STEP(kMetadataWritten);
    *generation = metadata_generation(word) + 1;
    // release; pairs with the acquire in committed().
    topic.view_.shared->metadata.store(
        metadata_word(*generation, used + static_cast<std::uint32_t>(needed)),
        std::memory_order_release);
    FG_STEP(kMetadataStored);
    return FG_OK;
}

}  // namespace

// ---- pure functions

fg_status next_metadata(const void* area, std::size_t bytes, std::size_t* position,
                        std::uint32_t* array, fg_value* out, std::size_t capacity,
                        std::size_t* count) {
    const auto* records = static_cast<const unsigned char*>(area);
    const std::size_t at = *position;
    if (at >= bytes) {
        return FG_EMPTY;
    }
    RecordHeader header{};
    if (bytes - at < sizeof header) {
        return fail(FG_SEGMENT_CORRUPT, "metadata: half a record at byte %zu of %zu", at, bytes);
    }
    std::memcpy(&header, records + at, sizeof header);
    const std::uint64_t whole = record_bytes(header.values_bytes);
    if (whole > bytes - at || !is_array(header.array, FG_ARRAYS_MAX)) {
        return fail(FG_SEGMENT_CORRUPT, "metadata: the record at byte %zu of %zu makes no sense",
                    at, bytes);
    }
    if (decode_values(records + at + sizeof header, header.values_bytes, out, capacity, count) !=
        FG_OK) {
        return fail(FG_SEGMENT_CORRUPT, "metadata: the map at byte %zu of %zu makes no sense", at,
                    bytes);
    }
    *array = header.array;
    *position = at + static_cast<std::size_t>(whole);
    return FG_OK;
}

bool find_units(const void* area, std::size_t bytes, std::uint32_t array, fg_value* out) {
    std::size_t position = 0;
    std::size_t count = 0;
    std::uint32_t of = 0;
    fg_value values[FG_VALUES_MAX];
    while (next_metadata(area, bytes, &position, &of, values, FG_VALUES_MAX, &count) == FG_OK) {
        for (std::size_t i = 0; of == array && i < count; ++i) {
            if (is_units(values[i]) && units_are_good(values[i])) {
                *out = values[i];
                return true;
            }
        }
    }
    return false;
}

fg_status check_initial_metadata(const fg_topic_options& options) {
    if (options.metadata_count > FG_ARRAYS_MAX + 1 ||
        (options.metadata_count != 0 && options.metadata == nullptr)) {
        return fail(FG_INVALID_ARGUMENT, "%u maps of metadata (at most %d) or NULL",
                    options.metadata_count, FG_ARRAYS_MAX + 1);
    }
    std::uint64_t total = 0;
    for (std::uint32_t i = 0; i < options.metadata_count; ++i) {
        const fg_metadata& metadata = options.metadata[i];
        std::size_t values_bytes = 0;
        if (!is_array(metadata.array, options.schema_count)) {
            return say_no_array(metadata, options.schema_count);
        }
        if (const fg_status status = measure(metadata, &values_bytes); status != FG_OK) {
            return status;
        }
        for (std::uint32_t k = 0; k < metadata.value_count; ++k) {
            if (metadata.array != FG_METADATA_TOPIC && is_units(metadata.values[k]) &&
                !units_are_good(metadata.values[k])) {
                return fail(FG_INVALID_ARGUMENT, "array %u: units are a string of 1 to %d bytes",
                            metadata.array, FG_UNITS_BYTES_MAX);
            }
        }
        total += record_bytes(values_bytes);
    }
    return total <= options.metadata_bytes
               ? static_cast<fg_status>(FG_OK)
               : fail(FG_METADATA_FULL,
                      "the metadata needs %" PRIu64 " bytes, metadata_bytes is %u", total,
                      options.metadata_bytes);
}

// ---- in a segment

fg_status write_initial_metadata(const fg_topic_options& options, const Identity& identity,
                                 unsigned char* control) {
    std::uint32_t used = 0;
    for (std::uint32_t i = 0; i < options.metadata_count; ++i) {
        std::size_t values_bytes = 0;
        if (const fg_status status = measure(options.metadata[i], &values_bytes); status != FG_OK) {
            return status;
        }
        write_record(control + identity.metadata_offset + used, options.metadata[i], values_bytes);
        used += static_cast<std::uint32_t>(record_bytes(values_bytes));
    }
    // relaxed: link() publishes the file.
    shared_words(identity, control)
        .metadata.store(metadata_word(options.metadata_count, used), std::memory_order_relaxed);
    return FG_OK;
}

fg_status read_metadata(const Identity& identity, const unsigned char* control, void* out,
                        std::size_t capacity, std::size_t* bytes, std::uint32_t* generation) {
    std::uint32_t used = 0;
    const std::uint64_t word = committed(identity, control, &used);
    *bytes = used;
    if (used > capacity) {
        return fail(FG_INVALID_ARGUMENT, "there are %u bytes of metadata and room for %zu", used,
                    capacity);
    }
    if (used != 0) {
        std::memcpy(out, control + identity.metadata_offset, used);
    }
    *generation = metadata_generation(word);
    return FG_OK;
}

fg_status append_metadata(Topic& topic, const fg_metadata& metadata, std::uint32_t* generation) {
    if (const fg_status status = check_usable(topic); status != FG_OK) {
        return status;
    }
    const std::uint32_t schema_count = topic.identity_.schema_count;
    if (!is_array(metadata.array, schema_count)) {
        return say_no_array(metadata, schema_count);
    }
    std::size_t values_bytes = 0;
    if (const fg_status status = measure(metadata, &values_bytes); status != FG_OK) {
        return status;
    }
    for (std::uint32_t i = 0; i < metadata.value_count; ++i) {
        if (metadata.array != FG_METADATA_TOPIC && is_units(metadata.values[i])) {
            return fail(FG_INVALID_ARGUMENT,
                        "topic \"%s\": the units of an array are fixed when the topic is created",
                        topic.name_);
        }
    }
    const std::uint64_t end = monotonic_ns() + kPatienceNs;
    for (;;) {
        // The mutex as well: the byte's lock does not exclude threads of the same open file.
        pthread_mutex_lock(&topic.mutex_);
        if (lock_byte(topic.control_fd(), kMetadataByte)) {
            FG_STEP(kMetadataLocked);
            const fg_status status = append_locked(topic, metadata, values_bytes, generation);
            unlock_byte(topic.control_fd(), kMetadataByte);
            pthread_mutex_unlock(&topic.mutex_);
            return status;
        }
        pthread_mutex_unlock(&topic.mutex_);
        if (monotonic_ns() >= end) {
            return fail(FG_TIMEOUT,
                        "topic \"%s\": a process was stopped while it appended metadata; continue "
                        "or end it",
                        topic.name_);
        }
        const timespec pause = {0, kRetryNs};
        nanosleep(&pause, nullptr);
    }
}

fg_status compare_units(const fg_topic_options& options, const Topic& topic) {
    const std::uint32_t capacity = topic.identity_.metadata_bytes;
    std::size_t bytes = 0;
    std::uint32_t generation = 0;
    // A copy: what a hostile peer changes under our eyes would be checked and then be different.
    void* copy = std::malloc(capacity + 1);
    if (copy == nullptr) {
        return fail(FG_OUT_OF_MEMORY, "no memory for the metadata of topic \"%s\"", topic.name_);
    }
    fg_status status =
        read_metadata(topic.identity_, topic.control_, copy, capacity, &bytes, &generation);
    for (std::uint32_t i = 0; status == FG_OK && i < options.metadata_count; ++i) {
        const fg_metadata& wanted = options.metadata[i];
        for (std::uint32_t k = 0; status == FG_OK && k < wanted.value_count; ++k) {
            const fg_value& units = wanted.values[k];
            if (wanted.array == FG_METADATA_TOPIC || !is_units(units)) {
                continue;
            }
            fg_value found{};
            if (!find_units(copy, bytes, wanted.array, &found) ||
                found.data_bytes != units.data_bytes ||
                std::memcmp(found.data, units.data, units.data_bytes) != 0) {
                status =
                    fail(FG_SCHEMA_MISMATCH, "topic \"%s\" exists with units \"%.*s\" of array %u",
                         topic.name_, static_cast<int>(found.data_bytes),
                         found.data == nullptr ? "" : static_cast<const char*>(found.data),
                         wanted.array);
            }
        }
    }
    std::free(copy);
    return status;
}

}  // namespace framegate::impl
