// A topic as opened by this process: geometry and schema, and the way to publishers and
// subscribers.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

#include "region.hpp"

namespace framegate::py {

class Topic {
  public:
    explicit Topic(fg_topic* handle);
    Topic(const Topic&) = delete;
    Topic& operator=(const Topic&) = delete;
    ~Topic() { close(); }

    void close() noexcept;
    // Reads `info` anew: a topic may be resized by anybody.
    void refresh();
    // Raises ClosedError after close().
    [[nodiscard]] fg_topic* handle() const;

    std::string name;
    SchemaPtr schema;
    fg_topic_info info{};

  private:
    fg_topic* handle_;
};

// The name of an array; raises TypeError for anything but a string.
std::string name_from(nb::handle name);

// What is written as [(name, dtype, shape)], with None or -1 for an open dimension.
SchemaPtr schema_from_python(nb::handle rows);

void bind_topic(nb::module_& module);

}  // namespace framegate::py
