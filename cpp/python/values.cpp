#include "values.hpp"

#include <algorithm>

#include "errors.hpp"

namespace framegate::py {
namespace {

[[noreturn]] void raise_kind(const char* what, nb::handle key, nb::handle value) {
    std::string message = what;
    message += "[";
    message += nb::repr(key).c_str();
    message += "] is a ";
    message += nb::type_name(value.type()).c_str();
    message += "; values are bool, int, float, str or bytes";
    throw nb::type_error(message.c_str());
}

// Kept by the str object itself.
const char* utf8_of(nb::handle text, Py_ssize_t& bytes) {
    const char* utf8 = PyUnicode_AsUTF8AndSize(text.ptr(), &bytes);
    if (utf8 == nullptr) {
        throw nb::python_error();
    }
    return utf8;
}

// numpy's scalars: its bool is no int, its float64 is a float already.
bool is_numpy_bool(nb::handle value) {
    const std::string_view name = Py_TYPE(value.ptr())->tp_name;
    return name == "numpy.bool" || name == "numpy.bool_";
}

void set_integer(fg_value& entry, nb::handle number) {
    int overflow = 0;
    const long long integer = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
    if (overflow != 0) {
        const std::string message = "metadata \"" + std::string(entry.key, entry.key_bytes) +
                                    "\": integers have 64 bits; send a larger one as str or bytes";
        raise_error(FG_INVALID_ARGUMENT, message);
    }
    if (integer == -1 && PyErr_Occurred() != nullptr) {
        throw nb::python_error();
    }
    entry.type = FG_VALUE_INT;
    entry.integer = integer;
}

}  // namespace

bool is_mapping(nb::handle object) {
    if (PyDict_Check(object.ptr()) != 0) {
        return true;
    }
    // Bytes and arrays have the mapping slots too; asking them for `keys` would cost more than a
    // small send.
    return PyObject_CheckBuffer(object.ptr()) == 0 && PyMapping_Check(object.ptr()) != 0 &&
           nb::hasattr(object, "keys") && nb::hasattr(object, "values");
}

ValueList::ValueList(nb::handle mapping, const char* what) {
    if (!is_mapping(mapping)) {
        const std::string message =
            std::string(what) + " is a mapping of str to bool, int, float, str or bytes";
        throw nb::type_error(message.c_str());
    }
    for (nb::handle item : mapping.attr("items")()) {
        const nb::object key = item[0];
        const nb::object value = item[1];
        if (PyUnicode_Check(key.ptr()) == 0) {
            throw nb::type_error((std::string("the keys of ") + what + " are str").c_str());
        }
        fg_value entry{};
        Py_ssize_t bytes = 0;
        entry.key = utf8_of(key, bytes);
        entry.key_bytes = static_cast<std::uint32_t>(std::min<Py_ssize_t>(bytes, 1 << 20));
        kept_.push_back(key);
        kept_.push_back(value);
        if (PyBool_Check(value.ptr()) != 0 || is_numpy_bool(value)) {
            entry.type = FG_VALUE_BOOL;
            entry.integer = PyObject_IsTrue(value.ptr());
        } else if (PyLong_Check(value.ptr()) != 0) {
            set_integer(entry, value);
        } else if (PyFloat_Check(value.ptr()) != 0) {
            entry.type = FG_VALUE_FLOAT;
            entry.real = PyFloat_AS_DOUBLE(value.ptr());
        } else if (PyUnicode_Check(value.ptr()) != 0) {
            entry.type = FG_VALUE_STRING;
            entry.data = utf8_of(value, bytes);
            entry.data_bytes = static_cast<std::uint64_t>(bytes);
        } else if (PyBytes_Check(value.ptr()) != 0 || PyByteArray_Check(value.ptr()) != 0) {
            // A copy of a bytearray: another thread may resize it.
            const nb::object copy = nb::steal(PyBytes_FromObject(value.ptr()));
            if (!copy.is_valid()) {
                throw nb::python_error();
            }
            kept_.push_back(copy);
            entry.type = FG_VALUE_BYTES;
            entry.data = PyBytes_AS_STRING(copy.ptr());
            entry.data_bytes = static_cast<std::uint64_t>(PyBytes_GET_SIZE(copy.ptr()));
        } else if (PyIndex_Check(value.ptr()) != 0 && !nb::hasattr(value, "__len__")) {
            const nb::object number = nb::steal(PyNumber_Index(value.ptr()));  // numpy.int32
            if (!number.is_valid()) {
                throw nb::python_error();
            }
            set_integer(entry, number);
        } else if (nb::hasattr(value, "__float__") && !nb::hasattr(value, "__len__")) {
            entry.type = FG_VALUE_FLOAT;  // numpy.float32
            entry.real = PyFloat_AsDouble(value.ptr());
            if (PyErr_Occurred() != nullptr) {
                throw nb::python_error();
            }
        } else {
            raise_kind(what, key, value);
        }
        entries_.push_back(entry);
    }
}

std::string encode_values(nb::handle mapping, const char* what, std::size_t bytes_max) {
    const ValueList list(mapping, what);
    if (list.entries().empty()) {
        return {};
    }
    std::size_t bytes = 0;
    std::string out(std::min<std::size_t>(bytes_max, FG_USER_METADATA_BYTES_MAX), '\0');
    const fg_status status = fg_values_encode(list.entries().data(), list.entries().size(),
                                              out.data(), out.size(), &bytes);
    if (bytes > bytes_max) {
        raise_error(FG_INVALID_ARGUMENT, std::string(what) + " needs " + std::to_string(bytes) +
                                             " bytes; at most " + std::to_string(bytes_max) +
                                             " are possible: put the rest into an array");
    }
    check(status);
    out.resize(bytes);
    return out;
}

nb::dict values_to_dict(const fg_value* values, std::size_t count) {
    nb::dict result;
    for (std::size_t i = 0; i < count; ++i) {
        const fg_value& entry = values[i];
        nb::object value;
        const char* data = static_cast<const char*>(entry.data);
        const auto bytes = static_cast<std::size_t>(entry.data_bytes);
        switch (entry.type) {
            case FG_VALUE_BOOL:
                value = nb::bool_(entry.integer != 0);
                break;
            case FG_VALUE_INT:
                value = nb::int_(entry.integer);
                break;
            case FG_VALUE_FLOAT:
                value = nb::float_(entry.real);
                break;
            case FG_VALUE_STRING:
                value = nb::str(bytes == 0 ? "" : data, bytes);
                break;
            default:
                value = nb::bytes(bytes == 0 ? "" : data, bytes);
        }
        result[nb::str(entry.key, entry.key_bytes)] = value;
    }
    return result;
}

nb::dict decode_values(const void* data, std::size_t bytes, const std::string& whose) {
    fg_value values[FG_VALUES_MAX];
    std::size_t count = 0;
    if (fg_values_decode(data, bytes, values, FG_VALUES_MAX, &count) != FG_OK) {
        raise_error(FG_SCHEMA_MISMATCH,
                    whose + " is not what framegate writes there: " + fg_last_error());
    }
    return values_to_dict(values, count);
}

}  // namespace framegate::py
