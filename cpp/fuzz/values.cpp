// Small typed maps of any bytes: what is decoded lies in the input and comes back when encoded.
#include <cmath>
#include <vector>

#include "support.hpp"

namespace {

bool lies_in(const void* data, std::uint64_t bytes, const std::vector<std::uint8_t>& input) {
    if (bytes == 0) {
        return true;
    }
    const auto first = reinterpret_cast<std::uintptr_t>(input.data());
    const auto at = reinterpret_cast<std::uintptr_t>(data);
    return at >= first && at - first <= input.size() && bytes <= input.size() - (at - first);
}

bool same(const fg_value& left, const fg_value& right) {
    return left.type == right.type && left.key_bytes == right.key_bytes &&
           std::memcmp(left.key, right.key, left.key_bytes) == 0 && left.integer == right.integer &&
           (left.real == right.real || (std::isnan(left.real) && std::isnan(right.real))) &&
           left.data_bytes == right.data_bytes &&
           (left.data_bytes == 0 || std::memcmp(left.data, right.data, left.data_bytes) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<std::uint8_t> input(data, data + size);
    fg_value values[FG_VALUES_MAX];
    std::size_t count = 0;
    if (fg_values_decode(input.data(), input.size(), values, FG_VALUES_MAX, &count) != FG_OK) {
        return 0;
    }
    fuzz::demand(count <= FG_VALUES_MAX, "a map has few values");
    for (std::size_t i = 0; i < count; ++i) {
        fuzz::demand(lies_in(values[i].key, values[i].key_bytes, input), "a key lies in the map");
        const bool has_data = values[i].type == FG_VALUE_STRING || values[i].type == FG_VALUE_BYTES;
        fuzz::demand(!has_data || lies_in(values[i].data, values[i].data_bytes, input),
                     "a value lies in the map");
    }
    std::size_t bytes = 0;
    fuzz::demand(fg_values_encode(values, count, nullptr, 0, &bytes) == FG_OK || bytes != 0,
                 "what was decoded can be encoded");
    std::vector<std::uint8_t> encoded(bytes);
    fuzz::demand(fg_values_encode(values, count, encoded.data(), encoded.size(), &bytes) == FG_OK,
                 "what was decoded can be encoded");
    fg_value again[FG_VALUES_MAX];
    std::size_t again_count = 0;
    fuzz::demand(fg_values_decode(encoded.data(), encoded.size(), again, FG_VALUES_MAX,
                                  &again_count) == FG_OK &&
                     again_count == count,
                 "what was encoded can be decoded");
    for (std::size_t i = 0; i < count; ++i) {
        fuzz::demand(same(values[i], again[i]), "a map goes there and back");
    }
    return 0;
}
