#include "dtype.hpp"

#include <array>
#include <bit>

namespace framegate::py {
namespace {

// DLDataTypeCode
constexpr std::uint8_t kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4, kComplex = 5, kBool = 6;

// Python's `l` is the canonical 8-byte integer where a C long has 8 bytes; numpy shows `q` as
// another type number.
constexpr const char* kInt64Format = sizeof(long) == 8 ? "l" : "q";
constexpr const char* kUint64Format = sizeof(long) == 8 ? "L" : "Q";

constexpr auto kTypes = std::to_array<DType>({
    {FG_DTYPE_BOOL, "bool", kBool, 1, "?", false},
    {FG_DTYPE_INT8, "int8", kInt, 1, "b", false},
    {FG_DTYPE_INT16, "int16", kInt, 2, "h", false},
    {FG_DTYPE_INT32, "int32", kInt, 4, "i", false},
    {FG_DTYPE_INT64, "int64", kInt, 8, kInt64Format, false},
    {FG_DTYPE_UINT8, "uint8", kUint, 1, "B", false},
    {FG_DTYPE_UINT16, "uint16", kUint, 2, "H", false},
    {FG_DTYPE_UINT32, "uint32", kUint, 4, "I", false},
    {FG_DTYPE_UINT64, "uint64", kUint, 8, kUint64Format, false},
    {FG_DTYPE_FLOAT16, "float16", kFloat, 2, "e", false},
    {FG_DTYPE_FLOAT32, "float32", kFloat, 4, "f", false},
    {FG_DTYPE_FLOAT64, "float64", kFloat, 8, "d", false},
    {FG_DTYPE_COMPLEX64, "complex64", kComplex, 8, "Zf", false},
    {FG_DTYPE_COMPLEX128, "complex128", kComplex, 16, "Zd", false},
    {FG_DTYPE_BFLOAT16, "bfloat16", kBfloat, 2, "H", true},
});

#define FG_COUNT(name, code, item_bytes, text) +1
static_assert(kTypes.size() == 0 FG_DTYPE_LIST(FG_COUNT), "every type of shm.h needs a row here");
#undef FG_COUNT

// "<f4", "|u1", "f4": numpy's type strings in this machine's byte order.
const DType* of_typestr(std::string_view text) {
    if (!text.empty() && std::string_view("<>|=").find(text[0]) != std::string_view::npos) {
        const bool foreign = text[0] == (std::endian::native == std::endian::little ? '>' : '<');
        if (foreign) {
            return nullptr;
        }
        text.remove_prefix(1);
    }
    if (text.size() < 2 || text.size() > 3) {
        return nullptr;
    }
    std::size_t bytes = 0;
    for (char digit : text.substr(1)) {
        if (digit < '0' || digit > '9') {
            return nullptr;
        }
        bytes = bytes * 10 + static_cast<std::size_t>(digit - '0');
    }
    if (bytes == 0 || bytes > 16) {
        return nullptr;
    }
    const auto bits = static_cast<std::uint8_t>(bytes * 8);
    switch (text[0]) {
        case 'b':
            return dtype_of_dlpack(kBool, bits);
        case 'i':
            return dtype_of_dlpack(kInt, bits);
        case 'u':
            return dtype_of_dlpack(kUint, bits);
        case 'f':
            return dtype_of_dlpack(kFloat, bits);
        case 'c':
            return dtype_of_dlpack(kComplex, bits);
        default:
            return nullptr;
    }
}

const DType* of_text(std::string_view text) {
    if (text.starts_with("torch.")) {
        text.remove_prefix(6);
    }
    if (const DType* type = dtype_of_name(text)) {
        return type;
    }
    // Python's own scalar types, read as numpy reads them.
    if (text == "int") {
        return dtype_of_code(FG_DTYPE_INT64);
    }
    if (text == "float") {
        return dtype_of_code(FG_DTYPE_FLOAT64);
    }
    if (text == "complex") {
        return dtype_of_code(FG_DTYPE_COMPLEX128);
    }
    return of_typestr(text);
}

}  // namespace

const DType* dtype_of_code(fg_dtype code) {
    for (const DType& type : kTypes) {
        if (type.code == code) {
            return &type;
        }
    }
    return nullptr;
}

const DType* dtype_of_name(std::string_view name) {
    for (const DType& type : kTypes) {
        if (name == type.name) {
            return &type;
        }
    }
    return nullptr;
}

const DType* dtype_of_dlpack(std::uint8_t code, std::uint8_t bits) {
    for (const DType& type : kTypes) {
        if (type.dlpack_code == code && type.bytes * 8 == bits) {
            return &type;
        }
    }
    return nullptr;
}

const DType* dtype_of_format(const char* format, std::size_t item_bytes, bool& swapped) {
    swapped = false;
    std::string_view text = format == nullptr ? "B" : format;
    if (!text.empty() && std::string_view("@=<>!").find(text[0]) != std::string_view::npos) {
        const bool big = text[0] == '>' || text[0] == '!';
        const bool little = text[0] == '<';
        const bool host_is_little = std::endian::native == std::endian::little;
        swapped = item_bytes > 1 && ((big && host_is_little) || (little && !host_is_little));
        text.remove_prefix(1);
    }
    std::uint8_t code = 0;
    if (text == "Zf" || text == "Zd") {
        code = kComplex;
    } else if (text.size() == 1) {
        switch (text[0]) {
            case '?':
                code = kBool;
                break;
            case 'b':
            case 'h':
            case 'i':
            case 'l':
            case 'q':
            case 'n':
                code = kInt;
                break;
            case 'c':
            case 'B':
            case 'H':
            case 'I':
            case 'L':
            case 'Q':
            case 'N':
                code = kUint;
                break;
            case 'e':
            case 'f':
            case 'd':
                code = kFloat;
                break;
            default:
                return nullptr;
        }
    } else {
        return nullptr;
    }
    // The width decides, not the letter: `l` has 4 bytes in standard sizes and 8 in native ones.
    if (item_bytes == 0 || item_bytes > 16) {
        return nullptr;
    }
    return dtype_of_dlpack(code, static_cast<std::uint8_t>(item_bytes * 8));
}

const DType& dtype_of_object(nb::handle object) {
    nb::object text;
    if (nb::isinstance<nb::str>(object)) {
        text = nb::borrow(object);
    } else if (PyType_Check(object.ptr())) {
        text = nb::getattr(object, "__name__");  // numpy.float32, ml_dtypes.bfloat16, float
    } else if (nb::hasattr(object, "name")) {
        text = nb::getattr(object, "name");  // numpy.dtype
    } else {
        text = nb::str(object);  // torch.float32
    }
    if (nb::isinstance<nb::str>(text)) {
        Py_ssize_t size = 0;
        const char* utf8 = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
        if (utf8 == nullptr) {
            throw nb::python_error();
        }
        const std::string_view view(utf8, static_cast<std::size_t>(size));
        // A type's own name for bool is "bool" in Python and "bool" or "bool_" in numpy.
        if (const DType* type = of_text(view == "bool_" ? "bool" : view)) {
            return *type;
        }
    }
    std::string message = "dtype ";
    message += nb::repr(object).c_str();
    message += " cannot be stored in a topic; one of ";
    bool first = true;
    for (const DType& type : kTypes) {
        if (!first) {
            message += ", ";
        }
        message += type.name;
        first = false;
    }
    throw nb::type_error(message.c_str());
}

}  // namespace framegate::py
