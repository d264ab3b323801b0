// A topic as opened by this process: geometry and schema, and the way to publishers and
// subscribers.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "errors.hpp"
#include "gil.hpp"
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

    // Opens a participant of that name, by `fg_..._open`.
    template <typename Options, typename Handle>
    [[nodiscard]] Handle* open_participant(fg_status (*open)(fg_topic*, const Options*, Handle**),
                                           Options options, const std::string& name) const {
        options.name = name.data();
        options.name_bytes = static_cast<std::uint32_t>(
            std::min<std::size_t>(name.size(), FG_PARTICIPANT_NAME_BYTES_MAX));
        fg_topic* topic = handle();
        const KeptTopic kept(topic);
        Handle* opened = nullptr;
        fg_status status = FG_OK;
        {
            const WithoutGil released;  // it touches every page
            status = open(topic, &options, &opened);
        }
        check(status);
        return opened;
    }

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
