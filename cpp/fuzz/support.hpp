// What the fuzz targets share: an input read piece by piece, a private runtime directory, claims.
#pragma once

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "framegate/shm.h"

namespace fuzz {

// A broken promise of the library is a finding, like a crash.
inline void demand(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "broken promise: %s\n", what);
        std::abort();
    }
}

// Zeros once the input is used up.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t bytes) : data_(data), left_(bytes) {}
    bool empty() const { return left_ == 0; }
    template <typename T>
    T next() {
        T value{};
        const std::size_t bytes = left_ < sizeof value ? left_ : sizeof value;
        std::memcpy(&value, data_, bytes);
        data_ += bytes;
        left_ -= bytes;
        return value;
    }
    std::uint32_t below(std::uint32_t limit) { return next<std::uint16_t>() % limit; }
    std::string text(std::size_t bytes_max) {
        const std::size_t bytes = left_ < bytes_max ? left_ : bytes_max;
        std::string value(reinterpret_cast<const char*>(data_), bytes);
        data_ += bytes;
        left_ -= bytes;
        return value;
    }

  private:
    const std::uint8_t* data_;
    std::size_t left_;
};

// One for the life of the process; FRAMEGATE_RUNTIME_DIR names it.
class RuntimeDirectory {
  public:
    RuntimeDirectory() {
        char path[] = "/dev/shm/framegate-fuzz-XXXXXX";
        demand(mkdtemp(path) != nullptr, "a directory in /dev/shm");
        path_ = path;
        setenv("FRAMEGATE_RUNTIME_DIR", path, 1);
    }
    ~RuntimeDirectory() {
        clear();
        rmdir(path_.c_str());
    }
    RuntimeDirectory(const RuntimeDirectory&) = delete;
    RuntimeDirectory& operator=(const RuntimeDirectory&) = delete;
    std::string file(const char* name) const { return path_ + "/" + name; }
    void clear() const {
        DIR* entries = opendir(path_.c_str());
        while (const dirent* entry = entries != nullptr ? readdir(entries) : nullptr) {
            unlink((path_ + "/" + entry->d_name).c_str());
        }
        if (entries != nullptr) {
            closedir(entries);
        }
    }

  private:
    std::string path_;
};

inline const RuntimeDirectory& runtime_directory() {
    static const RuntimeDirectory directory;
    return directory;
}

// Keeps the compiler from dropping reads whose only purpose is that the sanitizer sees them.
inline std::uint8_t read_all(const void* data, std::uint64_t bytes) {
    const auto* at = static_cast<const volatile std::uint8_t*>(data);
    std::uint8_t sum = 0;
    for (std::uint64_t i = 0; i < bytes; ++i) {
        sum = static_cast<std::uint8_t>(sum + at[i]);
    }
    return sum;
}

// Everything that a leased frame promises.
inline void look_at(fg_subscriber* subscriber, const fg_frame& frame, std::uint64_t slot_bytes) {
    demand(frame.bytes <= slot_bytes, "a frame fits its slot");
    demand(frame.content_type_bytes <= FG_CONTENT_TYPE_BYTES_MAX, "a content type is short");
    demand(frame.user_metadata_bytes <= FG_USER_METADATA_BYTES_MAX, "metadata is short");
    demand(frame.array_count <= FG_ARRAYS_MAX, "a frame has few arrays");
    read_all(frame.data, frame.bytes);
    read_all(frame.content_type, frame.content_type_bytes);
    read_all(frame.user_metadata, frame.user_metadata_bytes);
    fg_value values[FG_VALUES_MAX];
    std::size_t value_count = 0;
    static_cast<void>(fg_values_decode(frame.user_metadata, frame.user_metadata_bytes, values,
                                       FG_VALUES_MAX, &value_count));
    fg_array arrays[FG_ARRAYS_MAX];
    std::size_t count = 0;
    if (fg_subscriber_arrays(subscriber, &frame, arrays, FG_ARRAYS_MAX, &count) != FG_OK) {
        return;
    }
    demand(count <= FG_ARRAYS_MAX, "the count of arrays is bounded");
    for (std::size_t i = 0; i < count; ++i) {
        demand(arrays[i].offset <= frame.bytes && arrays[i].bytes <= frame.bytes - arrays[i].offset,
               "an array lies in its payload");
        demand(arrays[i].offset % FG_ARRAY_ALIGNMENT == 0, "an array is aligned");
        read_all(static_cast<const char*>(frame.data) + arrays[i].offset, arrays[i].bytes);
    }
}

inline void inspect(const char* name) {
    fg_inspector* inspector = nullptr;
    if (fg_inspector_open(name, std::strlen(name), &inspector) != FG_OK) {
        return;
    }
    static fg_participant rows[FG_PARTICIPANTS_MAX];
    static fg_slot slots[FG_SLOTS_MAX];
    fg_array arrays[FG_ARRAYS_MAX];
    std::size_t count = 0;
    fg_topic_info info{};
    info.struct_bytes = sizeof info;
    fg_topic_stats stats{};
    stats.struct_bytes = sizeof stats;
    static_cast<void>(fg_inspector_get_info(inspector, &info));
    static_cast<void>(fg_inspector_stats(inspector, &stats));
    static_cast<void>(fg_inspector_schema(inspector, arrays, FG_ARRAYS_MAX, &count));
    if (fg_inspector_participants(inspector, rows, FG_PARTICIPANTS_MAX, &count) == FG_OK) {
        for (std::size_t i = 0; i < count && i < FG_PARTICIPANTS_MAX; ++i) {
            demand(rows[i].name_bytes <= FG_PARTICIPANT_NAME_BYTES_MAX, "a name is short");
        }
    }
    static_cast<void>(fg_inspector_slots(inspector, slots, FG_SLOTS_MAX, &count));
    fg_inspector_close(inspector);
}

}  // namespace fuzz
