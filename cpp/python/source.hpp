// What a user hands in to be published: anything with the buffer protocol (bytes, numpy,
// array.array, memoryview) or with `__dlpack__` on the CPU (torch, jax). Read in place, in any
// strides and either byte order, and copied once into the slot.
#pragma once

#include <nanobind/nanobind.h>

#include "dlpack_import.hpp"
#include "region.hpp"

namespace framegate::py {

class Source {
  public:
    explicit Source(nb::handle object);
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    ~Source();

    // True for bytes, mmap, flat memoryviews of bytes and the like: no array, just octets.
    bool octets = false;
    const DType* type = nullptr;  // null: a type that no topic can store (still fine as octets)
    bool contiguous = false;      // C order without gaps, in this machine's byte order
    const std::byte* data = nullptr;
    std::size_t bytes = 0;
    int ndim = 0;
    Py_ssize_t shape[FG_ARRAY_DIMENSIONS_MAX] = {};
    Py_ssize_t strides[FG_ARRAY_DIMENSIONS_MAX] = {};  // bytes

    // Copies all elements into `destination` in C order and native byte order. Does not need the
    // GIL.
    void copy_to(std::byte* destination) const noexcept;

    // Raises SchemaMismatch unless dtype and shape are the field's. Octets of the right length
    // pass.
    void require(const Field& field, const char* topic) const;

    // One field of dtype and shape of this array; raises TypeError if no topic can store it.
    [[nodiscard]] Field as_field(const std::string& name) const;

  private:
    [[nodiscard]] bool is_octets(nb::handle object) const;
    void from_buffer();
    void from_tensor(const dlpack::Tensor& tensor);
    bool try_narrow_float(nb::handle object);

    Py_buffer buffer_{};
    bool has_buffer_ = false;
    ImportedTensor tensor_;
    std::size_t item_bytes_ = 0;
    bool swapped_ = false;
};

// Copies below this size keep the GIL: giving it up and taking it back costs more than the copy.
inline constexpr std::size_t kCopyWithGilBytesMax = 64 * 1024;

}  // namespace framegate::py
