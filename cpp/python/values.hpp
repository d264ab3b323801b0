// Metadata as Python sees it: a mapping of strings to bool, int, float, str and bytes, and the
// bytes that stand for it (shm.h, fg_values_encode).
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "framegate/shm.h"

namespace framegate::py {

namespace nb = nanobind;

// A dict, or something else with keys and values that is no buffer.
bool is_mapping(nb::handle object);

// The entries of a mapping. They point into its keys and values, and into `kept`.
class ValueList {
  public:
    // Raises TypeError for anything that is no mapping of such values, naming `what` it is for.
    ValueList(nb::handle mapping, const char* what);
    [[nodiscard]] const std::vector<fg_value>& entries() const { return entries_; }

  private:
    std::vector<fg_value> entries_;
    std::vector<nb::object> kept_;
};

// The mapping as bytes, at most `bytes_max` of them; an empty one is no bytes. Raises
// ShmArgumentError.
std::string encode_values(nb::handle mapping, const char* what, std::size_t bytes_max);

// Raises SchemaMismatch that begins with `whose` for bytes that are no such map.
nb::dict decode_values(const void* data, std::size_t bytes, const std::string& whose);
nb::dict values_to_dict(const fg_value* values, std::size_t count);

}  // namespace framegate::py
