#include "dlpack_import.hpp"

#include "errors.hpp"

namespace framegate::py {
namespace {

bool is_host_memory(std::int32_t device) {
    return device == dlpack::kDeviceCpu || device == dlpack::kDeviceCudaHost ||
           device == dlpack::kDeviceRocmHost;
}

// The capsule of `producer`; null when it says that its memory is a device's.
nb::object capsule_of(nb::handle producer) {
    const nb::object device = producer.attr("__dlpack_device__")();
    if (!is_host_memory(nb::cast<std::int32_t>(nb::int_(nb::object(device[0]))))) {
        return {};
    }
    const nb::object export_tensor = producer.attr("__dlpack__");
    try {
        return export_tensor(nb::arg("max_version") =
                                 nb::make_tuple(dlpack::kMajor, dlpack::kMinor));
    } catch (nb::python_error& error) {
        if (!error.matches(PyExc_TypeError)) {
            throw;
        }
    }
    return export_tensor();  // from before 1.0: it knows no such argument
}

}  // namespace

ImportedTensor ImportedTensor::from(nb::handle producer) {
    const nb::object capsule = capsule_of(producer);
    ImportedTensor imported;
    if (!capsule.is_valid()) {
        return imported;
    }
    const char* used = nullptr;
    if (PyCapsule_IsValid(capsule.ptr(), dlpack::kVersionedName) != 0) {
        auto* managed = static_cast<dlpack::ManagedTensorVersioned*>(
            PyCapsule_GetPointer(capsule.ptr(), dlpack::kVersionedName));
        if (managed->version.major != dlpack::kMajor) {
            throw nb::buffer_error("the tensor is of a DLPack version that is not 1.x");
        }
        imported.managed_ = managed;
        imported.tensor_ = &managed->tensor;
        imported.is_versioned_ = true;
        used = dlpack::kVersionedUsedName;
    } else if (PyCapsule_IsValid(capsule.ptr(), dlpack::kName) != 0) {
        auto* managed =
            static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kName));
        imported.managed_ = managed;
        imported.tensor_ = &managed->tensor;
        used = dlpack::kUsedName;
    } else {
        throw nb::type_error("__dlpack__ returned something else than a DLPack capsule");
    }
    if (PyCapsule_SetName(capsule.ptr(), used) != 0) {
        imported.managed_ = nullptr;  // still the capsule's
        throw nb::python_error();
    }
    if (!is_host_memory(imported.tensor_->device.type)) {
        return {};
    }
    return imported;
}

ImportedTensor::~ImportedTensor() {
    if (managed_ == nullptr) {
        return;
    }
    if (is_versioned_) {
        auto* managed = static_cast<dlpack::ManagedTensorVersioned*>(managed_);
        if (managed->deleter != nullptr) {
            managed->deleter(managed);
        }
    } else {
        auto* managed = static_cast<dlpack::ManagedTensor*>(managed_);
        if (managed->deleter != nullptr) {
            managed->deleter(managed);
        }
    }
}

}  // namespace framegate::py
