// Metadata of a topic and of its arrays, from C++. See shm.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "framegate/values.hpp"

namespace framegate {

/// A copy of all metadata at one generation. Movable; its values point into it.
class Metadata {
  public:
    static Result<Metadata> read(const fg_topic* topic) {
        fg_topic_info info{};
        info.struct_bytes = sizeof info;
        fg_status status = fg_topic_get_info(topic, &info);
        Metadata metadata;
        if (status == FG_OK) {
            metadata.bytes_.resize(info.metadata_bytes);
            std::size_t bytes = 0;
            status = fg_topic_metadata(topic, metadata.bytes_.data(), metadata.bytes_.size(),
                                       &bytes, &metadata.generation_);
            metadata.bytes_.resize(status == FG_OK ? bytes : 0);
        }
        for (std::size_t position = 0; status == FG_OK;) {
            fg_value values[FG_VALUES_MAX];
            std::size_t count = 0;
            std::uint32_t array = 0;
            status = fg_metadata_next(metadata.bytes_.data(), metadata.bytes_.size(), &position,
                                      &array, values, FG_VALUES_MAX, &count);
            for (std::size_t i = 0; status == FG_OK && i < count; ++i) {
                metadata.entries_.push_back({array, values[i]});
            }
        }
        if (status != FG_EMPTY) {
            return Error::last(status);
        }
        return metadata;
    }

    std::uint32_t generation() const { return generation_; }
    /// The last value of a key, of the topic or of one array; nullptr if there is none.
    const fg_value* find(std::string_view key, std::uint32_t array = FG_METADATA_TOPIC) const {
        const fg_value* found = nullptr;
        for (const auto& [of, value] : entries_) {
            if (of == array && std::string_view(value.key, value.key_bytes) == key) {
                found = &value;
            }
        }
        return found;
    }
    /// The units of an array of the schema; empty if it has none.
    std::string_view units(std::uint32_t array) const {
        for (const auto& [of, value] : entries_) {
            if (of == array && std::string_view(value.key, value.key_bytes) == "units" &&
                value.type == FG_VALUE_STRING) {
                return {static_cast<const char*>(value.data), value.data_bytes};
            }
        }
        return {};
    }

  private:
    std::vector<std::byte> bytes_;
    std::vector<std::pair<std::uint32_t, fg_value>> entries_;
    std::uint32_t generation_ = 0;
};

}  // namespace framegate
