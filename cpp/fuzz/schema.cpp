// Array descriptors of any content: what is accepted keeps its promises.
#include "arrays.hpp"
#include "support.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    fg_array arrays[FG_ARRAYS_MAX];
    const std::uint32_t count = 1 + input.below(FG_ARRAYS_MAX);
    const auto payload_bytes = input.next<std::uint64_t>();
    for (std::uint32_t i = 0; i < count; ++i) {
        arrays[i] = input.next<fg_array>();
        if ((input.next<std::uint8_t>() & 1) != 0) {  // near something good
            arrays[i].name_bytes = static_cast<std::uint8_t>(1 + arrays[i].name_bytes % 36);
            std::memset(arrays[i].name, 'a', sizeof arrays[i].name);
            std::memset(arrays[i].name + arrays[i].name_bytes, 0,
                        sizeof arrays[i].name - arrays[i].name_bytes);
            arrays[i].reserved = 0;
        }
        if (framegate::impl::check_frame_array(arrays[i], i, payload_bytes) == FG_OK) {
            std::uint64_t bytes = 0;
            fuzz::demand(
                framegate::impl::array_bytes(arrays[i], &bytes) && bytes == arrays[i].bytes,
                "a checked array has the bytes of its shape");
            fuzz::demand(arrays[i].offset <= payload_bytes &&
                             arrays[i].bytes <= payload_bytes - arrays[i].offset,
                         "a checked array lies in its payload");
        }
        if (framegate::impl::check_array(arrays[i], i) == FG_OK) {
            fuzz::demand(framegate::impl::same_schema(arrays[i], arrays[i]),
                         "an array is its own schema");
            if (framegate::impl::has_fixed_shape(arrays[i])) {
                fuzz::demand(framegate::impl::fits_schema(arrays[i], arrays[i]),
                             "an array fits itself");
            }
        }
    }
    std::uint64_t needed = 0;
    if (fg_arrays_lay_out(arrays, count, &needed) == FG_OK) {
        std::uint64_t end = 0;
        for (std::uint32_t i = 0; i < count; ++i) {
            fuzz::demand(arrays[i].offset >= end && arrays[i].offset % FG_ARRAY_ALIGNMENT == 0,
                         "arrays follow each other, aligned");
            end = arrays[i].offset + arrays[i].bytes;
            fuzz::demand(end >= arrays[i].offset && end <= needed, "the payload holds them");
            fuzz::demand(framegate::impl::check_frame_array(arrays[i], i, needed) == FG_OK,
                         "what was laid out passes the check of a frame");
        }
    }
    return 0;
}
