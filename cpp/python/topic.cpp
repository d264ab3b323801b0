#include "topic.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>

#include "errors.hpp"
#include "gil.hpp"
#include "metadata.hpp"
#include "source.hpp"

namespace framegate::py {
namespace {

Py_ssize_t dimension_from(nb::handle value) {
    if (value.is_none()) {
        return -1;
    }
    const Py_ssize_t length = PyNumber_AsSsize_t(value.ptr(), PyExc_OverflowError);
    if (length == -1 && PyErr_Occurred() != nullptr) {
        throw nb::python_error();
    }
    if (length < -1) {
        throw nb::value_error("a dimension is 0 or more, or None for any length");
    }
    return length;
}

// Options by name; 0 stands for "the library's default".
fg_topic_options options_from(std::uint32_t slots, std::uint64_t slot_bytes, std::uint32_t keep,
                              std::uint32_t participants_max,
                              std::optional<std::uint32_t> metadata_bytes, std::uint32_t mode) {
    fg_topic_options options;
    fg_topic_options_init(&options);
    if (slots != 0) {
        options.slots = slots;
    }
    if (slot_bytes != 0) {
        options.slot_bytes = slot_bytes;
    }
    if (keep != 0) {
        options.keep = keep;
    }
    if (participants_max != 0) {
        options.participants_max = participants_max;
    }
    options.metadata_bytes = metadata_bytes.value_or(options.metadata_bytes);
    if (mode != 0) {
        options.mode = mode;
    }
    return options;
}

// As the policy argument of a subscriber is spelled.
nb::object policy_name(const fg_participant& row) {
    switch (row.policy) {
        case FG_POLICY_QUEUE:
            return nb::str("queue");
        case FG_POLICY_RELIABLE:
            return nb::str("reliable");
        case FG_POLICY_GROUP: {
            const std::size_t bytes =
                std::min<std::size_t>(row.group_bytes, FG_GROUP_NAME_BYTES_MAX);
            const std::string name = "group:" + std::string(row.group, bytes);
            return nb::steal(
                PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), "replace"));
        }
        default:
            return nb::str("latest");
    }
}

// What shm.py calls them.
constexpr std::array<const char*, 3> kChecksums = {"", "crc32c", "xxh3"};

nb::object checksum_name(std::uint32_t kind) {
    return kind == FG_CHECKSUM_NONE || kind >= kChecksums.size()
               ? nb::none()
               : nb::object(nb::str(kChecksums[kind]));
}

std::uint32_t checksum_kind(nb::handle name) {
    if (name.is_none()) {
        return FG_CHECKSUM_NONE;
    }
    for (std::uint32_t kind = 1; kind < kChecksums.size(); ++kind) {
        if (nb::isinstance<nb::str>(name) && nb::cast<std::string>(name) == kChecksums[kind]) {
            return kind;
        }
    }
    const std::string message =
        std::string("checksum is \"crc32c\", \"xxh3\" or None, not ") + nb::repr(name).c_str();
    throw nb::value_error(message.c_str());
}

nb::dict info_to_python(const fg_topic_info& info) {
    nb::dict result;
    result["slots"] = info.slots;
    result["slot_bytes"] = info.slot_bytes;
    result["keep"] = info.keep;
    result["participants_max"] = info.participants_max;
    result["checksum"] = checksum_name(info.checksum);
    result["metadata_bytes"] = info.metadata_bytes;
    result["mode"] = info.mode;
    char identity[33];
    std::snprintf(identity, sizeof identity, "%016llx%016llx",
                  static_cast<unsigned long long>(info.identity[0]),
                  static_cast<unsigned long long>(info.identity[1]));
    result["identity"] = static_cast<const char*>(identity);
    result["created_unix_ns"] = info.created_unix_ns;
    result["total_bytes"] = info.control_bytes + info.data_bytes;
    return result;
}

const char* role_name(std::uint32_t role) {
    switch (role) {
        case FG_ROLE_PUBLISHER:
            return "publisher";
        case FG_ROLE_CALLER:
            return "caller";
        case FG_ROLE_RESPONDER:
            return "responder";
        default:
            return "subscriber";
    }
}

class Inspector {
  public:
    explicit Inspector(const std::string& name) {
        fg_status status = FG_OK;
        {
            const WithoutGil released;
            status = fg_inspector_open(name.data(), name.size(), &handle_);
        }
        check(status);
    }
    Inspector(const Inspector&) = delete;
    Inspector& operator=(const Inspector&) = delete;
    ~Inspector() { close(); }

    void close() noexcept {
        if (handle_ != nullptr) {
            fg_inspector_close(handle_);
        }
        handle_ = nullptr;
    }

    nb::dict info() const {
        fg_topic_info info{};
        info.struct_bytes = sizeof info;
        check(fg_inspector_get_info(handle(), &info));
        return info_to_python(info);
    }

    nb::list schema() const {
        fg_array arrays[FG_ARRAYS_MAX];
        std::size_t count = 0;
        check(fg_inspector_schema(handle(), arrays, FG_ARRAYS_MAX, &count));
        return schema_to_python(*schema_from_arrays(arrays, count));
    }

    nb::tuple metadata() const {
        fg_topic_info info{};
        info.struct_bytes = sizeof info;
        check(fg_inspector_get_info(handle(), &info));
        std::string area(info.metadata_bytes, '\0');
        std::size_t bytes = 0;
        std::uint32_t generation = 0;
        check(fg_inspector_metadata(handle(), area.data(), area.size(), &bytes, &generation));
        return metadata_to_python(area.data(), bytes, generation);
    }

    nb::dict stats() const {
        fg_topic_stats stats{};
        stats.struct_bytes = sizeof stats;
        check(fg_inspector_stats(handle(), &stats));
        nb::dict result;
        result["publishers"] = stats.publishers;
        result["subscribers"] = stats.subscribers;
        result["dead"] = stats.dead;
        result["sequence"] = stats.head;
        result["slots_free"] = stats.slots_free;
        result["slots_loaned"] = stats.slots_loaned;
        result["slots_published"] = stats.slots_published;
        result["slots_leased"] = stats.slots_leased;
        return result;
    }

    nb::list participants() const {
        auto rows = std::make_unique<fg_participant[]>(FG_PARTICIPANTS_MAX);
        std::size_t count = 0;
        check(fg_inspector_participants(handle(), rows.get(), FG_PARTICIPANTS_MAX, &count));
        nb::list result;
        for (std::size_t i = 0; i < std::min<std::size_t>(count, FG_PARTICIPANTS_MAX); ++i) {
            const fg_participant& row = rows[i];
            nb::dict entry;
            entry["index"] = row.index;
            entry["role"] = role_name(row.role);
            if (row.role != FG_ROLE_SUBSCRIBER) {
                entry["policy"] = nb::none();
            } else {
                entry["policy"] = policy_name(row);
            }
            entry["alive"] = row.alive != 0;
            entry["pid"] = row.pid;
            entry["leases"] = row.leases;
            entry["position"] = row.position;
            entry["received"] = row.received;
            entry["lost"] = row.lost;
            entry["corrupt"] = row.corrupt;
            entry["attached_unix_ns"] = row.attached_unix_ns;
            // The name comes from another process: bounded here, and shown even if it is not UTF-8.
            const std::size_t bytes =
                std::min<std::size_t>(row.name_bytes, FG_PARTICIPANT_NAME_BYTES_MAX);
            entry["name"] = nb::steal(
                PyUnicode_DecodeUTF8(row.name, static_cast<Py_ssize_t>(bytes), "replace"));
            result.append(entry);
        }
        return result;
    }

    nb::list slots() const {
        std::size_t count = 0;
        check(fg_inspector_slots(handle(), nullptr, 0, &count));
        const auto rows = std::make_unique<fg_slot[]>(count);
        check(fg_inspector_slots(handle(), rows.get(), count, &count));
        nb::list result;
        for (std::size_t i = 0; i < count; ++i) {
            const fg_slot& row = rows[i];
            nb::list holders;
            for (std::uint32_t holder = 0; holder < FG_PARTICIPANTS_MAX; ++holder) {
                if ((row.holders[holder / 64] >> (holder % 64) & 1) != 0) {
                    holders.append(holder);
                }
            }
            static constexpr const char* kStates[] = {"free", "loaned", "published"};
            nb::dict entry;
            entry["index"] = row.index;
            entry["state"] = kStates[row.state];
            if (row.owner == FG_SLOT_NO_OWNER) {
                entry["owner"] = nb::none();
            } else {
                entry["owner"] = row.owner;
            }
            entry["sequence"] = row.sequence;
            entry["nbytes"] = row.bytes;
            entry["published_ns"] = row.published_ns;
            entry["holders"] = nb::tuple(holders);
            result.append(entry);
        }
        return result;
    }

  private:
    [[nodiscard]] fg_inspector* handle() const {
        if (handle_ == nullptr) {
            raise_error(FG_CLOSED, "this inspector was closed");
        }
        return handle_;
    }

    fg_inspector* handle_ = nullptr;
};

}  // namespace

Topic::Topic(fg_topic* handle) : handle_(handle) {
    name = fg_topic_name(handle);
    info.struct_bytes = sizeof info;
    fg_status status = fg_topic_get_info(handle, &info);
    fg_array arrays[FG_ARRAYS_MAX];
    std::size_t count = 0;
    if (status == FG_OK) {
        status = fg_topic_schema(handle, arrays, FG_ARRAYS_MAX, &count);
    }
    if (status != FG_OK) {
        close();  // the destructor of an object whose constructor throws does not run
        raise_status(status);
    }
    schema = schema_from_arrays(arrays, count);
}

void Topic::close() noexcept {
    if (handle_ != nullptr) {
        fg_topic_close(handle_);
    }
    handle_ = nullptr;
}

void Topic::refresh() {
    if (handle_ != nullptr) {  // what a closed topic was stays readable
        check(fg_topic_get_info(handle_, &info));
    }
}

fg_topic* Topic::handle() const {
    if (handle_ == nullptr) {
        raise_error(FG_CLOSED, "topic \"" + name + "\" was closed");
    }
    return handle_;
}

std::string name_from(nb::handle name) {
    if (PyUnicode_Check(name.ptr()) == 0) {
        throw nb::type_error("the name of an array is a string");
    }
    return nb::cast<std::string>(name);
}

SchemaPtr schema_from_python(nb::handle rows) {
    Schema schema;
    for (nb::handle row : rows) {
        if (nb::len(row) != 3 && nb::len(row) != 4) {
            throw nb::type_error(
                "an array of a schema is (name, dtype, shape), a field of records has its place");
        }
        Field field;
        field.name = name_from(row[0]);
        field.type = &dtype_of_object(row[1]);
        for (nb::handle length : nb::object(row[2])) {
            if (field.ndim == FG_ARRAY_DIMENSIONS_MAX) {
                raise_error(FG_INVALID_ARGUMENT, "an array of a topic has at most " +
                                                     std::to_string(FG_ARRAY_DIMENSIONS_MAX) +
                                                     " dimensions");
            }
            field.shape[field.ndim++] = dimension_from(length);
        }
        if (nb::len(row) == 4) {
            const nb::object place = row[3];
            field.offset = nb::cast<std::size_t>(nb::object(place[0]));
            field.record_bytes = nb::cast<std::uint32_t>(nb::object(place[1]));
            field.record_ndim = nb::cast<int>(nb::object(place[2]));
        }
        schema.fields.push_back(std::move(field));
    }
    if (schema.fields.size() > FG_ARRAYS_MAX) {
        raise_error(FG_INVALID_ARGUMENT, "a frame has at most " + std::to_string(FG_ARRAYS_MAX) +
                                             " arrays, not " +
                                             std::to_string(schema.fields.size()));
    }
    bool fixed = true;
    for (const Field& field : schema.fields) {
        for (int axis = 0; axis < field.ndim; ++axis) {
            fixed = fixed && field.shape[axis] >= 0;
        }
    }
    std::vector<fg_array> arrays = arrays_from_schema(schema);
    if (fixed && !arrays.empty()) {
        std::uint64_t payload_bytes = 0;
        check(fg_arrays_lay_out(arrays.data(), arrays.size(), &payload_bytes));
    }
    return schema_from_arrays(arrays.data(), arrays.size());
}

void bind_topic(nb::module_& module) {
    using nb::literals::operator""_a;

    LockedClass<Topic>(module, "Topic", nb::is_final(), "An open topic; see framegate.shm.Topic.")
        .def_static(
            "open_or_create",
            [](const std::string& name, bool open, bool create, std::uint32_t slots,
               std::uint64_t slot_bytes, nb::object schema_rows, std::uint32_t keep,
               std::uint32_t participants_max, std::optional<std::uint32_t> metadata_bytes,
               std::uint32_t mode, nb::object checksum, nb::object metadata) {
                fg_topic* handle = nullptr;
                int created = 0;
                fg_status status = FG_OK;
                if (!create) {
                    const WithoutGil released;
                    status = fg_topic_open(name.data(), name.size(), &handle);
                } else {
                    const SchemaPtr schema = schema_from_python(schema_rows);
                    if (slot_bytes == 0) {
                        slot_bytes = std::max<std::uint64_t>(schema->payload_bytes, 1);
                    }
                    fg_topic_options options = options_from(slots, slot_bytes, keep,
                                                            participants_max, metadata_bytes, mode);
                    const std::vector<fg_array> arrays = arrays_from_schema(*schema);
                    const InitialMetadata initial(metadata);
                    initial.put_into(options);
                    options.checksum = checksum_kind(checksum);
                    options.schema = arrays.data();
                    options.schema_count = static_cast<std::uint32_t>(arrays.size());
                    const WithoutGil released;  // touching every page may take a second
                    if (open) {
                        status = fg_topic_create_or_open(name.data(), name.size(), &options,
                                                         &handle, &created);
                    } else {
                        status = fg_topic_create(name.data(), name.size(), &options, &handle);
                        created = 1;
                    }
                }
                check(status);
                return std::pair<std::unique_ptr<Topic>, bool>(std::make_unique<Topic>(handle),
                                                               created != 0);
            },
            "name"_a, nb::kw_only(), "open"_a, "create"_a, "slots"_a = 0, "slot_bytes"_a = 0,
            "schema"_a = nb::make_tuple(), "keep"_a = 0, "participants_max"_a = 0,
            "metadata_bytes"_a = nb::none(), "mode"_a = 0, "checksum"_a = nb::none(),
            "metadata"_a = nb::make_tuple(),
            "Opens, creates, or whichever is needed; returns the topic and whether this call\n"
            "created it. Numbers that are 0 mean the default; `slot_bytes` defaults to what the\n"
            "schema needs.")
        .def_prop_ro("name", [](const Topic& self) { return self.name; })
        .def_prop_ro(
            "schema", [](const Topic& self) { return schema_to_python(*self.schema); },
            nb::sig("def schema(self) -> list[tuple[str, str, tuple[int, ...]]]"),
            "The arrays of every frame as (name, dtype, shape); -1 is a dimension of any length.")
        .def_prop_ro(
            "records", [](const Topic& self) { return records_to_python(*self.schema); },
            nb::sig("def records(self) -> list[tuple[str, str, tuple[int, ...], tuple[int, int, "
                    "int]]]"),
            "The fields of records with their places; empty unless frames are records.")
        .def_prop_ro(
            "info",
            [](Topic& self) {
                self.refresh();
                return info_to_python(self.info);
            },
            nb::sig("def info(self) -> dict[str, typing.Any]"))
        .def(
            "resize",
            [](Topic& self, std::uint32_t slots, std::uint64_t slot_bytes, std::uint32_t keep) {
                fg_resize_options options;
                fg_resize_options_init(&options);
                options.slots = slots;
                options.slot_bytes = slot_bytes;
                options.keep = keep;
                fg_topic* handle = self.handle();
                const KeptTopic kept(handle);
                fg_status status = FG_OK;
                {
                    const WithoutGil released;  // touching every page may take a second
                    status = fg_topic_resize(handle, &options);
                }
                check(status);
            },
            nb::kw_only(), "slots"_a = 0, "slot_bytes"_a = 0, "keep"_a = 0,
            "Goes on in slots of another number or size; 0 keeps what it is.")
        .def(
            "metadata", [](const Topic& self) { return metadata_of(self.handle()); },
            nb::sig("def metadata(self) -> tuple[int, list[tuple[int | None, dict[str, bool | int "
                    "| float | str | bytes]]]]"),
            "The generation and (array or None, mapping) in the order of their appending.")
        .def_prop_ro("metadata_generation",
                     [](const Topic& self) { return fg_topic_metadata_generation(self.handle()); })
        .def(
            "append_metadata",
            [](const Topic& self, nb::object mapping, std::optional<std::uint32_t> array) {
                return append_metadata(self.handle(), mapping, array);
            },
            "mapping"_a, "array"_a = nb::none(), "Returns the new generation.")
        .def(
            "sweep",
            [](const Topic& self) {
                std::uint32_t reaped = 0;
                fg_topic* handle = self.handle();
                const KeptTopic kept(handle);
                fg_status status = FG_OK;
                {
                    const WithoutGil released;  // it waits while somebody resizes
                    status = fg_topic_sweep(handle, &reaped);
                }
                check(status);
                return reaped;
            },
            "Takes back what died participants held; returns how many there were.")
        .def("close", &Topic::close,
             "Lets go of the topic; publishers, subscribers and frames of it go on.");

    LockedClass<Inspector>(module, "Inspector", nb::is_final(),
                           "A look at a topic; see framegate.shm.Inspector.")
        .def(nb::init<const std::string&>(), "name"_a)
        .def("info", &Inspector::info, nb::sig("def info(self) -> dict[str, typing.Any]"))
        .def("schema", &Inspector::schema,
             nb::sig("def schema(self) -> list[tuple[str, str, tuple[int, ...]]]"))
        .def("metadata", &Inspector::metadata,
             nb::sig("def metadata(self) -> tuple[int, list[tuple[int | None, dict[str, bool | int "
                     "| float | str | bytes]]]]"))
        .def("stats", &Inspector::stats, nb::sig("def stats(self) -> dict[str, int]"))
        .def("participants", &Inspector::participants,
             nb::sig("def participants(self) -> list[dict[str, typing.Any]]"))
        .def("slots", &Inspector::slots, nb::sig("def slots(self) -> list[dict[str, typing.Any]]"))
        .def("close", &Inspector::close);

    module.def(
        "collect_stale_topics",
        [](std::int64_t age_ns, bool dry_run) {
            std::vector<std::pair<std::string, std::uint64_t>> found;
            std::uint32_t orphans = 0;
            const auto remember = [](void* context, const char* name, std::uint64_t bytes) {
                static_cast<decltype(found)*>(context)->emplace_back(name, bytes);
            };
            fg_status status = FG_OK;
            {
                const WithoutGil released;
                status =
                    fg_collect_stale_topics(age_ns, dry_run ? 1 : 0, remember, &found, &orphans);
            }
            check(status);
            nb::list topics;
            for (const auto& [name, bytes] : found) {
                topics.append(nb::make_tuple(name, bytes));
            }
            return nb::make_tuple(topics, orphans);
        },
        "age_ns"_a, "dry_run"_a,
        nb::sig("def collect_stale_topics(age_ns: int, dry_run: bool) -> tuple[list[tuple[str, "
                "int]], int]"),
        "Removes topics without users; returns (name, bytes) of each, and how many other files.");
    module.def(
        "unlink", [](const std::string& name) { check(fg_topic_unlink(name.data(), name.size())); },
        "name"_a, "Removes a topic's files; open handles go on.");
    module.def(
        "check_topic_name",
        [](const std::string& name) { check(fg_topic_name_check(name.data(), name.size())); },
        "name"_a, "Raises TopicNameInvalid unless `name` follows the grammar.");
    module.def(
        "topic_of_file",
        [](const std::string& file) -> std::optional<std::string> {
            char name[FG_TOPIC_NAME_BYTES_MAX + 1];
            if (fg_topic_name_from_file(file.data(), file.size(), name, sizeof name) != FG_OK) {
                return std::nullopt;
            }
            return std::string(name);
        },
        "file"_a, "Topic whose control file has this name, or None.");
    module.def(
        "runtime_directory",
        [] {
            char path[4096];
            check(fg_runtime_directory(path, sizeof path));
            return std::string(path);
        },
        "Where the files of topics are; not necessarily there yet.");
    module.def(
        "checksum",
        [](nb::handle data, const std::string& kind) {
            const std::uint32_t code = checksum_kind(nb::cast(kind));
            const Source source(data);
            if (!source.contiguous) {
                throw nb::value_error("the checksum of an array needs it in C order");
            }
            const WithoutGil released;
            return fg_checksum(code, source.data, source.bytes);
        },
        "data"_a, "kind"_a = "crc32c",
        "The checksum of bytes or of an array, as topics compute it: `crc32c` or `xxh3`.");
    module.def(
        "payload_bytes",
        [](nb::object schema) { return schema_from_python(schema)->payload_bytes; }, "schema"_a,
        "Bytes that one frame of (name, dtype, shape) arrays needs; 0 if a dimension is open.");
    module.def(
        "dtype_item_bytes",
        [](nb::object dtype) { return static_cast<std::size_t>(dtype_of_object(dtype).bytes); },
        "dtype"_a,
        "Bytes of one element of a dtype, however it is spelled; TypeError if a topic cannot\n"
        "store it.");
    module.def(
        "dtype_name", [](nb::object dtype) { return std::string(dtype_of_object(dtype).name); },
        "dtype"_a,
        "The name under which a topic stores a dtype, however it was spelled; TypeError if it\n"
        "cannot.");
}

}  // namespace framegate::py
