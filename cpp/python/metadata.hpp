// Metadata of topics and arrays for shm.py: [(index of an array or None, mapping)].
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <vector>

#include "framegate/shm.h"
#include "values.hpp"

namespace framegate::py {

// What a topic is created with; points into the mappings.
class InitialMetadata {
  public:
    explicit InitialMetadata(nb::handle rows);
    void put_into(fg_topic_options& options) const {
        options.metadata = metadata_.data();
        options.metadata_count = static_cast<std::uint32_t>(metadata_.size());
    }

  private:
    std::vector<std::unique_ptr<ValueList>> lists_;
    std::vector<fg_metadata> metadata_;
};

// (generation, [(index of an array or None, mapping)]) in the order in which they were appended.
nb::tuple metadata_of(const fg_topic* topic);
// The same of what fg_topic_metadata or fg_inspector_metadata copied.
nb::tuple metadata_to_python(const void* area, std::size_t bytes, std::uint32_t generation);

// Returns the new generation.
std::uint32_t append_metadata(fg_topic* topic, nb::handle mapping,
                              std::optional<std::uint32_t> array);

}  // namespace framegate::py
