#include "metadata.hpp"

#include <optional>
#include <string>

#include "errors.hpp"
#include "gil.hpp"

namespace framegate::py {

InitialMetadata::InitialMetadata(nb::handle rows) {
    for (nb::handle row : rows) {
        lists_.push_back(std::make_unique<ValueList>(nb::object(row[1]), "metadata"));
        const nb::object array = row[0];
        fg_metadata metadata{};
        metadata.array = array.is_none() ? FG_METADATA_TOPIC : nb::cast<std::uint32_t>(array);
        metadata.value_count = static_cast<std::uint32_t>(lists_.back()->entries().size());
        metadata.values = lists_.back()->entries().data();
        metadata_.push_back(metadata);
    }
}

nb::tuple metadata_to_python(const void* area, std::size_t bytes, std::uint32_t generation) {
    nb::list rows;
    std::size_t position = 0;
    for (;;) {
        fg_value values[FG_VALUES_MAX];
        std::size_t count = 0;
        std::uint32_t array = 0;
        const fg_status status =
            fg_metadata_next(area, bytes, &position, &array, values, FG_VALUES_MAX, &count);
        if (status == FG_EMPTY) {
            return nb::make_tuple(generation, rows);
        }
        check(status);
        rows.append(
            nb::make_tuple(array == FG_METADATA_TOPIC ? nb::none() : nb::object(nb::int_(array)),
                           values_to_dict(values, count)));
    }
}

nb::tuple metadata_of(const fg_topic* topic) {
    fg_topic_info info{};
    info.struct_bytes = sizeof info;
    check(fg_topic_get_info(topic, &info));
    std::string area(info.metadata_bytes, '\0');
    std::size_t bytes = 0;
    std::uint32_t generation = 0;
    check(fg_topic_metadata(topic, area.data(), area.size(), &bytes, &generation));
    return metadata_to_python(area.data(), bytes, generation);
}

std::uint32_t append_metadata(fg_topic* topic, nb::handle mapping,
                              std::optional<std::uint32_t> array) {
    const KeptTopic kept(topic);
    const ValueList list(mapping, "metadata");
    fg_metadata metadata{};
    metadata.array = array.value_or(FG_METADATA_TOPIC);
    metadata.value_count = static_cast<std::uint32_t>(list.entries().size());
    metadata.values = list.entries().data();
    std::uint32_t generation = 0;
    fg_status status = FG_OK;
    {
        const WithoutGil released;  // somebody else may be appending
        status = fg_topic_append_metadata(topic, &metadata, &generation);
    }
    check(status);
    return generation;
}

}  // namespace framegate::py
