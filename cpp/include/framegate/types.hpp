// What publishers, subscribers and inspectors share: topics, options, array descriptors.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string_view>

#include "framegate/error.hpp"
#include "framegate/metadata.hpp"

namespace framegate {

/// A time-out; `kForever` never ends, zero never waits.
using Timeout = std::chrono::nanoseconds;
inline constexpr Timeout kForever{-1};

/// shm.h's options with their defaults.
struct TopicOptions : fg_topic_options {
    TopicOptions() : fg_topic_options{} { fg_topic_options_init(this); }
};

/// An array descriptor at offset 0; `fg_arrays_lay_out` places several.
inline fg_array make_array(std::string_view name, fg_dtype dtype,
                           std::initializer_list<std::uint64_t> shape) {
    fg_array array{};
    // Too long stays too long, so that the library refuses it with its own text.
    array.name_bytes = static_cast<std::uint8_t>(name.size() < 255 ? name.size() : 255);
    std::memcpy(array.name, name.data(),
                name.size() < sizeof array.name ? name.size() : sizeof array.name);
    array.dtype = dtype;
    array.dimension_count = static_cast<std::uint8_t>(shape.size() < 255 ? shape.size() : 255);
    std::size_t i = 0;
    for (const std::uint64_t length : shape) {
        if (i < FG_ARRAY_DIMENSIONS_MAX) {
            array.shape[i++] = length;
        }
    }
    array.bytes = fg_dtype_item_bytes(dtype);
    for (const std::uint64_t length : shape) {
        array.bytes *= length;
    }
    return array;
}

/// An open topic. Move-only; publishers and subscribers keep the topic open by themselves.
class Topic {
  public:
    static Result<Topic> create(std::string_view name, const TopicOptions& options = {}) {
        fg_topic* raw = nullptr;
        const fg_status status = fg_topic_create(name.data(), name.size(), &options, &raw);
        return wrap(status, raw);
    }
    static Result<Topic> open(std::string_view name) {
        fg_topic* raw = nullptr;
        const fg_status status = fg_topic_open(name.data(), name.size(), &raw);
        return wrap(status, raw);
    }
    static Result<Topic> create_or_open(std::string_view name, const TopicOptions& options = {}) {
        fg_topic* raw = nullptr;
        const fg_status status =
            fg_topic_create_or_open(name.data(), name.size(), &options, &raw, nullptr);
        return wrap(status, raw);
    }
    static Result<void> unlink(std::string_view name) {
        return Result<void>::from(fg_topic_unlink(name.data(), name.size()));
    }

    /// Goes on in slots of another number or size; 0 keeps what it is. Publishers and subscribers
    /// of all processes follow by themselves.
    Result<void> resize(std::uint32_t slots, std::uint64_t slot_bytes = 0, std::uint32_t keep = 0) {
        fg_resize_options options;
        fg_resize_options_init(&options);
        options.slots = slots;
        options.slot_bytes = slot_bytes;
        options.keep = keep;
        return Result<void>::from(fg_topic_resize(raw_.get(), &options));
    }
    /// Takes back what participants held that died; returns how many there were.
    Result<std::uint32_t> reap() {
        std::uint32_t reaped = 0;
        if (const fg_status status = fg_topic_sweep(raw_.get(), &reaped); status != FG_OK) {
            return Error::last(status);
        }
        return reaped;
    }

    std::string_view name() const { return fg_topic_name(raw_.get()); }
    fg_topic* get() const { return raw_.get(); }

    /// The metadata of the topic and its arrays as it is now.
    Result<Metadata> metadata() const { return Metadata::read(raw_.get()); }
    /// Grows with every append; one load.
    std::uint32_t metadata_generation() const { return fg_topic_metadata_generation(raw_.get()); }
    /// Appends for every process that has the topic open; returns the new generation.
    Result<std::uint32_t> append_metadata(const Values& values,
                                          std::uint32_t array = FG_METADATA_TOPIC) {
        const fg_metadata metadata = {array, static_cast<std::uint32_t>(values.entries().size()),
                                      values.entries().data()};
        std::uint32_t generation = 0;
        if (const fg_status status = fg_topic_append_metadata(raw_.get(), &metadata, &generation);
            status != FG_OK) {
            return Error::last(status);
        }
        return generation;
    }

  private:
    struct Close {
        void operator()(fg_topic* raw) const { fg_topic_close(raw); }
    };
    explicit Topic(fg_topic* raw) : raw_(raw) {}
    static Result<Topic> wrap(fg_status status, fg_topic* raw) {
        if (status != FG_OK) {
            return Error::last(status);
        }
        return Topic(raw);
    }
    std::unique_ptr<fg_topic, Close> raw_;
};

}  // namespace framegate
