// Small typed maps for metadata, from C++: writing one and reading one. See shm.h for the encoding.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "framegate/error.hpp"

namespace framegate {

/// A map under construction. Keys and strings are not copied: they live until `encode()`.
class Values {
  public:
    Values& set(std::string_view key, bool value) {
        fg_value& entry = add(key, FG_VALUE_BOOL);
        entry.integer = value ? 1 : 0;
        return *this;
    }
    template <std::integral Integer>
        requires(!std::same_as<Integer, bool>)
    Values& set(std::string_view key, Integer value) {
        add(key, FG_VALUE_INT).integer = static_cast<std::int64_t>(value);
        return *this;
    }
    Values& set(std::string_view key, double value) {
        add(key, FG_VALUE_FLOAT).real = value;
        return *this;
    }
    Values& set(std::string_view key, std::string_view value) {
        fg_value& entry = add(key, FG_VALUE_STRING);
        entry.data = value.data();
        entry.data_bytes = value.size();
        return *this;
    }
    Values& set(std::string_view key, const char* value) {
        return set(key, std::string_view(value));
    }
    Values& set(std::string_view key, std::span<const std::byte> value) {
        fg_value& entry = add(key, FG_VALUE_BYTES);
        entry.data = value.data();
        entry.data_bytes = value.size();
        return *this;
    }

    std::span<const fg_value> entries() const { return entries_; }

    /// The map as bytes, for `FrameInfo::user_metadata`.
    Result<std::vector<std::byte>> encode() const {
        std::size_t bytes = 0;
        fg_status status = fg_values_encode(entries_.data(), entries_.size(), nullptr, 0, &bytes);
        std::vector<std::byte> out(bytes);
        if (bytes != 0) {
            status = fg_values_encode(entries_.data(), entries_.size(), out.data(), bytes, &bytes);
        }
        if (status != FG_OK) {
            return Error::last(status);
        }
        return out;
    }

  private:
    fg_value& add(std::string_view key, std::uint32_t type) {
        fg_value& entry = entries_.emplace_back();
        entry.key = key.data();
        entry.key_bytes = static_cast<std::uint32_t>(key.size());
        entry.type = type;
        return entry;
    }
    std::vector<fg_value> entries_;
};

/// A map that was read; its strings point into the bytes that it was read from.
class ValuesView {
  public:
    static Result<ValuesView> decode(std::span<const std::byte> bytes) {
        ValuesView view;
        view.entries_.resize(FG_VALUES_MAX);
        std::size_t count = 0;
        const fg_status status = fg_values_decode(bytes.data(), bytes.size(), view.entries_.data(),
                                                  view.entries_.size(), &count);
        if (status != FG_OK) {
            return Error::last(status);
        }
        view.entries_.resize(count);
        return view;
    }

    std::span<const fg_value> entries() const { return entries_; }
    const fg_value* find(std::string_view key) const {
        for (const fg_value& entry : entries_) {
            if (std::string_view(entry.key, entry.key_bytes) == key) {
                return &entry;
            }
        }
        return nullptr;
    }
    /// A value of that key and that type, else nothing.
    std::optional<bool> boolean(std::string_view key) const {
        const fg_value* entry = find(key, FG_VALUE_BOOL);
        return entry == nullptr ? std::nullopt : std::optional(entry->integer != 0);
    }
    std::optional<std::int64_t> integer(std::string_view key) const {
        const fg_value* entry = find(key, FG_VALUE_INT);
        return entry == nullptr ? std::nullopt : std::optional(entry->integer);
    }
    std::optional<double> real(std::string_view key) const {
        const fg_value* entry = find(key, FG_VALUE_FLOAT);
        return entry == nullptr ? std::nullopt : std::optional(entry->real);
    }
    std::optional<std::string_view> string(std::string_view key) const {
        const fg_value* entry = find(key, FG_VALUE_STRING);
        return entry == nullptr ? std::nullopt
                                : std::optional(std::string_view(
                                      static_cast<const char*>(entry->data), entry->data_bytes));
    }
    std::optional<std::span<const std::byte>> bytes(std::string_view key) const {
        const fg_value* entry = find(key, FG_VALUE_BYTES);
        return entry == nullptr
                   ? std::nullopt
                   : std::optional(std::span(static_cast<const std::byte*>(entry->data),
                                             static_cast<std::size_t>(entry->data_bytes)));
    }

  private:
    const fg_value* find(std::string_view key, std::uint32_t type) const {
        const fg_value* entry = find(key);
        return entry != nullptr && entry->type == type ? entry : nullptr;
    }
    std::vector<fg_value> entries_;
};

}  // namespace framegate
