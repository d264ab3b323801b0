// The encoding is a subset of MessagePack, so that every MessagePack library reads it: one map,
// keys are strings, values are booleans, integers, floats, strings and binaries; no nil, no
// nesting, no extension types.
//
//     map     = (fixmap | map16) entry*
//     entry   = key value
//     key     = string of 1 to FG_VALUE_KEY_BYTES_MAX bytes
//     value   = false | true | integer | float32 | float64 | string | binary
//
// The encoder writes the shortest form of everything and floats as float64. The decoder takes every
// form, refuses unsigned integers beyond int64, repeated keys, strings that are not UTF-8, and
// bytes after the map. FG_VALUES_MAX bounds the work: looking for repeated keys is quadratic in it.
#include "values.hpp"

#include <cinttypes>
#include <cstring>
#include <limits>

#include "status.hpp"

namespace framegate::impl {
namespace {

// MessagePack's first bytes.
constexpr std::uint8_t kFixMap = 0x80, kFixString = 0xa0, kFalse = 0xc2, kTrue = 0xc3;
constexpr std::uint8_t kBinary8 = 0xc4, kBinary16 = 0xc5, kBinary32 = 0xc6;
constexpr std::uint8_t kFloat32 = 0xca, kFloat64 = 0xcb;
constexpr std::uint8_t kUint8 = 0xcc, kUint16 = 0xcd, kUint32 = 0xce, kUint64 = 0xcf;
constexpr std::uint8_t kInt8 = 0xd0, kInt16 = 0xd1, kInt32 = 0xd2, kInt64 = 0xd3;
constexpr std::uint8_t kString8 = 0xd9, kString16 = 0xda, kString32 = 0xdb;
constexpr std::uint8_t kMap16 = 0xde;
constexpr std::size_t kFixMapMax = 15, kFixStringMax = 31;

static_assert(FG_VALUE_KEY_BYTES_MAX <= 0xff && FG_VALUES_MAX <= 0xffff);

bool same_key(const fg_value& left, const fg_value& right) {
    return left.key_bytes == right.key_bytes &&
           std::memcmp(left.key, right.key, left.key_bytes) == 0;
}

// ---- writing: counts always, stores while there is room

class Writer {
  public:
    Writer(void* out, std::size_t capacity)
        : out_(static_cast<unsigned char*>(out)), capacity_(capacity) {}

    void byte(std::uint8_t value) { raw(&value, 1); }
    // `width` bytes, most significant first.
    void number(std::uint64_t value, std::size_t width) {
        unsigned char bytes[8];
        for (std::size_t i = 0; i < width; ++i) {
            bytes[i] = static_cast<unsigned char>(value >> (8 * (width - 1 - i)));
        }
        raw(bytes, width);
    }
    void raw(const void* data, std::size_t bytes) {
        if (bytes != 0 && used_ <= capacity_ && bytes <= capacity_ - used_) {
            std::memcpy(out_ + used_, data, bytes);
        }
        used_ += bytes;
    }
    std::size_t used() const { return used_; }

  private:
    unsigned char* out_;
    std::size_t capacity_;
    std::size_t used_ = 0;
};

void write_string(Writer& writer, const void* data, std::uint64_t bytes) {
    if (bytes <= kFixStringMax) {
        writer.byte(static_cast<std::uint8_t>(kFixString | bytes));
    } else if (bytes <= 0xff) {
        writer.byte(kString8);
        writer.number(bytes, 1);
    } else if (bytes <= 0xffff) {
        writer.byte(kString16);
        writer.number(bytes, 2);
    } else {
        writer.byte(kString32);
        writer.number(bytes, 4);
    }
    writer.raw(data, bytes);
}

void write_binary(Writer& writer, const void* data, std::uint64_t bytes) {
    if (bytes <= 0xff) {
        writer.byte(kBinary8);
        writer.number(bytes, 1);
    } else if (bytes <= 0xffff) {
        writer.byte(kBinary16);
        writer.number(bytes, 2);
    } else {
        writer.byte(kBinary32);
        writer.number(bytes, 4);
    }
    writer.raw(data, bytes);
}

void write_integer(Writer& writer, std::int64_t value) {
    const auto bits = static_cast<std::uint64_t>(value);
    if (value >= -32 && value <= 127) {
        writer.byte(static_cast<std::uint8_t>(bits));
    } else if (value >= 0) {
        const std::size_t width = bits <= 0xff         ? 1
                                  : bits <= 0xffff     ? 2
                                  : bits <= 0xffffffff ? 4
                                                       : 8;
        writer.byte(width == 1 ? kUint8 : width == 2 ? kUint16 : width == 4 ? kUint32 : kUint64);
        writer.number(bits, width);
    } else {
        const std::size_t width = value >= std::numeric_limits<std::int8_t>::min()    ? 1
                                  : value >= std::numeric_limits<std::int16_t>::min() ? 2
                                  : value >= std::numeric_limits<std::int32_t>::min() ? 4
                                                                                      : 8;
        writer.byte(width == 1 ? kInt8 : width == 2 ? kInt16 : width == 4 ? kInt32 : kInt64);
        writer.number(bits, width);
    }
}

fg_status check_value(const fg_value& value, std::size_t index) {
    if (value.key_bytes == 0 || value.key_bytes > FG_VALUE_KEY_BYTES_MAX || value.key == nullptr ||
        !is_utf8(value.key, value.key_bytes)) {
        return fail(FG_INVALID_ARGUMENT, "value %zu: its key must be 1 to %d bytes of UTF-8", index,
                    FG_VALUE_KEY_BYTES_MAX);
    }
    const bool has_data = value.type == FG_VALUE_STRING || value.type == FG_VALUE_BYTES;
    if (has_data && ((value.data == nullptr && value.data_bytes != 0) ||
                     value.data_bytes > FG_METADATA_BYTES_MAX)) {
        return fail(FG_INVALID_ARGUMENT, "value \"%.*s\": %" PRIu64 " bytes (at most %d) or NULL",
                    static_cast<int>(value.key_bytes), value.key, value.data_bytes,
                    FG_METADATA_BYTES_MAX);
    }
    if (value.type == FG_VALUE_STRING && !is_utf8(value.data, value.data_bytes)) {
        return fail(FG_INVALID_ARGUMENT, "value \"%.*s\": a string must be UTF-8",
                    static_cast<int>(value.key_bytes), value.key);
    }
    if (value.type < FG_VALUE_BOOL || value.type > FG_VALUE_BYTES) {
        return fail(FG_INVALID_ARGUMENT, "value \"%.*s\": unknown type %u",
                    static_cast<int>(value.key_bytes), value.key, value.type);
    }
    return FG_OK;
}

void write_value(Writer& writer, const fg_value& value) {
    write_string(writer, value.key, value.key_bytes);
    switch (value.type) {
        case FG_VALUE_BOOL:
            writer.byte(value.integer != 0 ? kTrue : kFalse);
            break;
        case FG_VALUE_INT:
            write_integer(writer, value.integer);
            break;
        case FG_VALUE_FLOAT: {
            std::uint64_t bits = 0;
            std::memcpy(&bits, &value.real, sizeof bits);
            writer.byte(kFloat64);
            writer.number(bits, 8);
            break;
        }
        case FG_VALUE_STRING:
            write_string(writer, value.data, value.data_bytes);
            break;
        default:
            write_binary(writer, value.data, value.data_bytes);
    }
}

// ---- reading: nothing is read past the end, whatever the bytes say

class Reader {
  public:
    Reader(const void* data, std::size_t bytes)
        : data_(static_cast<const unsigned char*>(data)), bytes_(bytes) {}

    // False (and no number) if fewer bytes are left.
    bool number(std::size_t width, std::uint64_t* value) {
        if (width > bytes_ - at_) {
            return false;
        }
        *value = 0;
        for (std::size_t i = 0; i < width; ++i) {
            *value = *value << 8 | data_[at_ + i];
        }
        at_ += width;
        return true;
    }
    bool raw(std::uint64_t bytes, const void** data) {
        if (bytes > bytes_ - at_) {
            return false;
        }
        *data = data_ + at_;
        at_ += bytes;
        return true;
    }
    std::size_t at() const { return at_; }
    bool is_at_end() const { return at_ == bytes_; }

  private:
    const unsigned char* data_;
    std::size_t bytes_;
    std::size_t at_ = 0;
};

// A length of `width` bytes and that many bytes.
bool read_sized(Reader& reader, std::size_t width, const void** data, std::uint64_t* bytes) {
    return reader.number(width, bytes) && reader.raw(*bytes, data);
}

bool read_string(Reader& reader, std::uint64_t first, const void** data, std::uint64_t* bytes) {
    if ((first & 0xe0) == kFixString) {
        *bytes = first & 0x1f;
        return reader.raw(*bytes, data) && is_utf8(*data, *bytes);
    }
    const std::size_t width = first == kString8    ? 1
                              : first == kString16 ? 2
                              : first == kString32 ? 4
                                                   : 0;
    return width != 0 && read_sized(reader, width, data, bytes) && is_utf8(*data, *bytes);
}

// The two's complement number of `width` bytes.
std::int64_t sign_extended(std::uint64_t bits, std::size_t width) {
    const std::size_t shift = 64 - 8 * width;
    return static_cast<std::int64_t>(bits << shift) >> shift;
}

bool read_value(Reader& reader, fg_value* value) {
    std::uint64_t first = 0;
    std::uint64_t bits = 0;
    if (!reader.number(1, &first)) {
        return false;
    }
    if (first <= 0x7f || first >= 0xe0) {
        value->type = FG_VALUE_INT;
        value->integer = sign_extended(first, 1);
        return true;
    }
    switch (first) {
        case kFalse:
        case kTrue:
            value->type = FG_VALUE_BOOL;
            value->integer = first == kTrue ? 1 : 0;
            return true;
        case kUint8:
        case kUint16:
        case kUint32:
        case kUint64:
            value->type = FG_VALUE_INT;
            if (!reader.number(std::size_t{1} << (first - kUint8), &bits) || bits >> 63 != 0) {
                return false;
            }
            value->integer = static_cast<std::int64_t>(bits);
            return true;
        case kInt8:
        case kInt16:
        case kInt32:
        case kInt64: {
            const std::size_t width = std::size_t{1} << (first - kInt8);
            value->type = FG_VALUE_INT;
            if (!reader.number(width, &bits)) {
                return false;
            }
            value->integer = sign_extended(bits, width);
            return true;
        }
        case kFloat32: {
            value->type = FG_VALUE_FLOAT;
            if (!reader.number(4, &bits)) {
                return false;
            }
            const auto narrow_bits = static_cast<std::uint32_t>(bits);
            float narrow = 0;
            std::memcpy(&narrow, &narrow_bits, sizeof narrow);
            value->real = narrow;
            return true;
        }
        case kFloat64:
            value->type = FG_VALUE_FLOAT;
            if (!reader.number(8, &bits)) {
                return false;
            }
            std::memcpy(&value->real, &bits, sizeof value->real);
            return true;
        case kBinary8:
        case kBinary16:
        case kBinary32:
            value->type = FG_VALUE_BYTES;
            return read_sized(reader, std::size_t{1} << (first - kBinary8), &value->data,
                              &value->data_bytes);
        default:
            value->type = FG_VALUE_STRING;
            return read_string(reader, first, &value->data, &value->data_bytes);
    }
}

bool read_key(Reader& reader, fg_value* value) {
    std::uint64_t first = 0;
    const void* key = nullptr;
    std::uint64_t bytes = 0;
    if (!reader.number(1, &first) || !read_string(reader, first, &key, &bytes) || bytes == 0 ||
        bytes > FG_VALUE_KEY_BYTES_MAX) {
        return false;
    }
    value->key = static_cast<const char*>(key);
    value->key_bytes = static_cast<std::uint32_t>(bytes);
    return true;
}

bool read_map_length(Reader& reader, std::uint64_t* count) {
    std::uint64_t first = 0;
    if (!reader.number(1, &first)) {
        return false;
    }
    if ((first & 0xf0) == kFixMap) {
        *count = first & 0x0f;
        return true;
    }
    return first == kMap16 && reader.number(2, count) && *count <= FG_VALUES_MAX;
}

}  // namespace

// RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF.
bool is_utf8(const void* data, std::size_t bytes) {
    const auto* text = static_cast<const unsigned char*>(data);
    std::size_t at = 0;
    while (at < bytes) {
        const unsigned char first = text[at];
        if (first < 0x80) {
            ++at;
            continue;
        }
        const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
        if (first < 0xc2 || first > 0xf4 || length > bytes - at) {
            return false;
        }
        // The second byte carries the exceptions.
        const unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        const unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (text[at + 1] < low || text[at + 1] > high) {
            return false;
        }
        for (std::size_t i = 2; i < length; ++i) {
            if ((text[at + i] & 0xc0) != 0x80) {
                return false;
            }
        }
        at += length;
    }
    return true;
}

fg_status encode_values(const fg_value* values, std::size_t count, void* out, std::size_t capacity,
                        std::size_t* bytes) {
    if (count > FG_VALUES_MAX) {
        return fail(FG_INVALID_ARGUMENT, "%zu values, a map has at most %d", count, FG_VALUES_MAX);
    }
    for (std::size_t i = 0; i < count; ++i) {
        if (const fg_status status = check_value(values[i], i); status != FG_OK) {
            return status;
        }
        for (std::size_t earlier = 0; earlier < i; ++earlier) {
            if (same_key(values[earlier], values[i])) {
                return fail(FG_INVALID_ARGUMENT, "key \"%.*s\" is there twice",
                            static_cast<int>(values[i].key_bytes), values[i].key);
            }
        }
    }
    Writer writer(out, capacity);
    if (count <= kFixMapMax) {
        writer.byte(static_cast<std::uint8_t>(kFixMap | count));
    } else {
        writer.byte(kMap16);
        writer.number(count, 2);
    }
    for (std::size_t i = 0; i < count; ++i) {
        write_value(writer, values[i]);
    }
    *bytes = writer.used();
    if (writer.used() > capacity) {
        return fail(FG_INVALID_ARGUMENT, "the values need %zu bytes, there is room for %zu",
                    writer.used(), capacity);
    }
    return FG_OK;
}

fg_status decode_values(const void* data, std::size_t bytes, fg_value* out, std::size_t capacity,
                        std::size_t* count) {
    Reader reader(data, bytes);
    std::uint64_t length = 0;
    if (bytes != 0 && !read_map_length(reader, &length)) {
        return fail(FG_INVALID_ARGUMENT, "the values do not begin with a map of at most %d entries",
                    FG_VALUES_MAX);
    }
    fg_value keys[FG_VALUES_MAX];  // the caller's array may be smaller
    for (std::uint64_t i = 0; i < length; ++i) {
        const std::size_t began = reader.at();
        fg_value& value = keys[i];
        value = fg_value{};
        if (!read_key(reader, &value) || !read_value(reader, &value)) {
            return fail(FG_INVALID_ARGUMENT,
                        "value %" PRIu64
                        ", at byte %zu of %zu, is broken or of a kind that maps "
                        "do not hold",
                        i, began, bytes);
        }
        for (std::uint64_t earlier = 0; earlier < i; ++earlier) {
            if (same_key(keys[earlier], value)) {
                return fail(FG_INVALID_ARGUMENT, "value %" PRIu64 ", at byte %zu: repeated key", i,
                            began);
            }
        }
        if (i < capacity) {
            out[i] = value;
        }
    }
    if (!reader.is_at_end()) {
        return fail(FG_INVALID_ARGUMENT, "%zu bytes follow the values", bytes - reader.at());
    }
    *count = length;
    return FG_OK;
}

}  // namespace framegate::impl
