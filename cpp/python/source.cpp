#include "source.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "errors.hpp"

namespace framegate::py {
namespace {

[[noreturn]] void raise_not_an_array(nb::handle object) {
    std::string message = "cannot publish a ";
    message += nb::type_name(object.type()).c_str();
    message +=
        ": it has neither the buffer protocol nor __dlpack__ on the CPU (bytes, numpy arrays, "
        "tensors do)";
    throw nb::type_error(message.c_str());
}

[[noreturn]] void raise_too_many_dimensions(int ndim) {
    raise_error(FG_INVALID_ARGUMENT, "the array has " + std::to_string(ndim) +
                                         " dimensions, a frame at most " +
                                         std::to_string(FG_ARRAY_DIMENSIONS_MAX));
}

// Elements one by one along the last axis. Fixed sizes let the compiler make each a load and a
// store.
template <std::size_t N>
void copy_elements(std::byte* to, const std::byte* from, Py_ssize_t count,
                   Py_ssize_t stride) noexcept {
    for (Py_ssize_t i = 0; i < count; ++i) {
        std::memcpy(to + static_cast<std::size_t>(i) * N, from + i * stride, N);
    }
}

void copy_row(std::byte* to, const std::byte* from, Py_ssize_t count, Py_ssize_t stride,
              std::size_t item) noexcept {
    switch (item) {
        case 1:
            return copy_elements<1>(to, from, count, stride);
        case 2:
            return copy_elements<2>(to, from, count, stride);
        case 4:
            return copy_elements<4>(to, from, count, stride);
        case 8:
            return copy_elements<8>(to, from, count, stride);
        case 16:
            return copy_elements<16>(to, from, count, stride);
        default:
            break;
    }
    for (Py_ssize_t i = 0; i < count; ++i) {
        std::memcpy(to + static_cast<std::size_t>(i) * item, from + i * stride, item);
    }
}

struct Walk {
    const Py_ssize_t* shape;
    const Py_ssize_t* strides;
    int ndim;  // axes to walk; below them everything is one run
    std::size_t item;
    std::size_t run;  // bytes that are contiguous in the source at the innermost walked position
};

std::byte* walk(const Walk& plan, int axis, std::byte* to, const std::byte* from) noexcept {
    if (axis == plan.ndim) {
        std::memcpy(to, from, plan.run);
        return to + plan.run;
    }
    if (axis == plan.ndim - 1 && plan.run == plan.item) {
        copy_row(to, from, plan.shape[axis], plan.strides[axis], plan.item);
        return to + static_cast<std::size_t>(plan.shape[axis]) * plan.item;
    }
    for (Py_ssize_t i = 0; i < plan.shape[axis]; ++i) {
        to = walk(plan, axis + 1, to, from + i * plan.strides[axis]);
    }
    return to;
}

}  // namespace

Source::Source(nb::handle object) {
    if (PyObject_CheckBuffer(object.ptr()) != 0) {
        if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_FULL_RO) == 0) {
            has_buffer_ = true;
            try {
                from_buffer();
            } catch (...) {
                PyBuffer_Release(&buffer_);
                throw;
            }
            octets = is_octets(object);
            return;
        }
        nb::python_error refused;  // numpy cannot export the types of ml_dtypes as a buffer
        if (try_narrow_float(object)) {
            return;
        }
        if (!nb::hasattr(object, "__dlpack__")) {
            throw refused;
        }
        try {
            tensor_ = ImportedTensor::from(object);
        } catch (nb::python_error&) {
            throw refused;  // the first of the two says more
        }
    } else if (nb::hasattr(object, "__dlpack__")) {
        tensor_ = ImportedTensor::from(object);
    }
    if (tensor_.get() == nullptr) {
        raise_not_an_array(object);
    }
    from_tensor(*tensor_.get());
}

// Flat bytes of something that does not call itself an array: bytes, mmap, a memoryview, a frame of
// raw bytes.
bool Source::is_octets(nb::handle object) const {
    if (PyBytes_Check(object.ptr()) != 0 || PyByteArray_Check(object.ptr()) != 0) {
        return true;
    }
    if (ndim != 1 || item_bytes_ != 1 || type == nullptr || type->code != FG_DTYPE_UINT8) {
        return false;
    }
    return !nb::hasattr(object, "dtype") || is_raw_region(object);
}

Source::~Source() {
    if (has_buffer_) {
        PyBuffer_Release(&buffer_);
    }
}

void Source::from_buffer() {
    if (buffer_.suboffsets != nullptr) {
        throw nb::buffer_error("buffers with suboffsets cannot be published");
    }
    if (buffer_.ndim > FG_ARRAY_DIMENSIONS_MAX) {
        raise_too_many_dimensions(buffer_.ndim);
    }
    data = static_cast<const std::byte*>(buffer_.buf);
    bytes = static_cast<std::size_t>(buffer_.len);
    ndim = buffer_.ndim;
    item_bytes_ = static_cast<std::size_t>(buffer_.itemsize);
    std::copy_n(buffer_.shape, ndim, shape);
    std::copy_n(buffer_.strides, ndim, strides);
    type = dtype_of_format(buffer_.format, item_bytes_, swapped_);
    contiguous = !swapped_ && PyBuffer_IsContiguous(&buffer_, 'C') != 0;
}

void Source::from_tensor(const dlpack::Tensor& tensor) {
    if (tensor.ndim < 0 || tensor.ndim > FG_ARRAY_DIMENSIONS_MAX) {
        raise_too_many_dimensions(tensor.ndim);
    }
    if (tensor.dtype.bits % 8 != 0) {
        throw nb::type_error("elements of less than a byte cannot be published");
    }
    data = static_cast<const std::byte*>(tensor.data) + tensor.byte_offset;
    item_bytes_ = std::size_t{tensor.dtype.bits} / 8 * tensor.dtype.lanes;
    ndim = tensor.ndim;
    bytes = item_bytes_;
    auto expected = static_cast<Py_ssize_t>(item_bytes_);
    contiguous = true;
    for (int axis = ndim - 1; axis >= 0; --axis) {
        shape[axis] = static_cast<Py_ssize_t>(tensor.shape[axis]);
        // No strides: C order. They count elements.
        strides[axis] = tensor.strides == nullptr ? expected
                                                  : static_cast<Py_ssize_t>(tensor.strides[axis]) *
                                                        static_cast<Py_ssize_t>(item_bytes_);
        if (shape[axis] > 1 && strides[axis] != expected) {
            contiguous = false;
        }
        expected *= shape[axis];
        bytes *= static_cast<std::size_t>(shape[axis]);
    }
    if (bytes == 0) {
        contiguous = true;
    }
    type =
        tensor.dtype.lanes == 1 ? dtype_of_dlpack(tensor.dtype.code, tensor.dtype.bits) : nullptr;
}

// numpy arrays of bfloat16: the bits as uint16, the name from the array.
bool Source::try_narrow_float(nb::handle object) {
    if (!nb::hasattr(object, "dtype") || !nb::hasattr(object, "view")) {
        return false;
    }
    const nb::object name = nb::getattr(nb::getattr(object, "dtype"), "name", nb::none());
    if (!nb::isinstance<nb::str>(name)) {
        return false;
    }
    const DType* named = dtype_of_name(nb::cast<const char*>(name));
    if (named == nullptr || !named->needs_ml_dtypes) {
        return false;
    }
    const nb::object bits = object.attr("view")("uint16");
    if (PyObject_GetBuffer(bits.ptr(), &buffer_, PyBUF_FULL_RO) != 0) {
        throw nb::python_error();
    }
    has_buffer_ = true;  // the buffer keeps `bits` alive
    try {
        from_buffer();
    } catch (...) {
        PyBuffer_Release(&buffer_);
        throw;
    }
    type = named;
    return true;
}

void Source::copy_to(std::byte* destination) const noexcept {
    if (bytes == 0) {
        return;
    }
    if (contiguous) {
        std::memcpy(destination, data, bytes);
        return;
    }
    // Fold the innermost axes that are contiguous in the source into one run.
    Walk plan{shape, strides, ndim, item_bytes_, item_bytes_};
    while (plan.ndim > 0 && strides[plan.ndim - 1] == static_cast<Py_ssize_t>(plan.run)) {
        plan.run *= static_cast<std::size_t>(shape[plan.ndim - 1]);
        --plan.ndim;
    }
    walk(plan, 0, destination, data);
    if (!swapped_ || type == nullptr) {
        return;
    }
    const bool is_complex = type->code == FG_DTYPE_COMPLEX64 || type->code == FG_DTYPE_COMPLEX128;
    const std::size_t part =
        is_complex ? item_bytes_ / 2 : item_bytes_;  // a complex swaps its two halves apart
    for (std::size_t at = 0; at < bytes; at += part) {
        std::reverse(destination + at, destination + at + part);
    }
}

void Source::require(const Field& field, const char* topic) const {
    if (octets && field.bytes == bytes) {
        return;
    }
    bool same = type == field.type && ndim == field.ndim;
    for (int axis = 0; same && axis < ndim; ++axis) {
        same = field.shape[axis] < 0 || field.shape[axis] == shape[axis];
    }
    if (same) {
        return;
    }
    std::string message = "topic \"";
    message += topic;
    message += field.name.empty() ? "\" holds " : "\": array \"" + field.name + "\" is ";
    message += describe(field.type->name, field.ndim, field.shape) + ", got ";
    message += describe(type == nullptr ? "an unsupported dtype" : type->name, ndim, shape);
    raise_error(FG_SCHEMA_MISMATCH, message);
}

Field Source::as_field(const std::string& name) const {
    if (type == nullptr) {
        std::string message = "elements of buffer format ";
        message += has_buffer_ && buffer_.format != nullptr ? buffer_.format : "(none)";
        message += " cannot be stored as an array; publish their bytes, or convert them";
        throw nb::type_error(message.c_str());
    }
    Field field;
    field.name = name;
    field.type = type;
    field.ndim = ndim;
    std::copy_n(shape, ndim, field.shape);
    field.bytes = bytes;
    return field;
}

}  // namespace framegate::py
