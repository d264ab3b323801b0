// The structures of the DLPack 1.x exchange (https://dmlc.github.io/dlpack/latest/c_api.html): only
// what producer and consumer of host memory need. Layout is fixed by that ABI.
#pragma once

#include <cstdint>

namespace framegate::dlpack {

inline constexpr std::int32_t kDeviceCpu = 1;
inline constexpr std::int32_t kDeviceCudaHost = 3;  // pinned, but the CPU's
inline constexpr std::int32_t kDeviceRocmHost = 11;
inline constexpr std::uint64_t kFlagReadOnly = 1;
inline constexpr std::uint64_t kFlagIsCopied = 2;
inline constexpr std::uint32_t kMajor = 1;
inline constexpr std::uint32_t kMinor = 0;

// Names of capsules; a consumer renames the one that it takes over.
inline constexpr const char* kName = "dltensor";
inline constexpr const char* kUsedName = "used_dltensor";
inline constexpr const char* kVersionedName = "dltensor_versioned";
inline constexpr const char* kVersionedUsedName = "used_dltensor_versioned";

struct Device {
    std::int32_t type;
    std::int32_t id;
};

struct DataType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    std::int32_t ndim;
    DataType dtype;
    std::int64_t* shape;
    std::int64_t* strides;
    std::uint64_t byte_offset;
};

struct ManagedTensor {  // before 1.0; cannot say "read-only"
    Tensor tensor;
    void* context;
    void (*deleter)(ManagedTensor*);
};

struct ManagedTensorVersioned {
    struct {
        std::uint32_t major;
        std::uint32_t minor;
    } version;
    void* context;
    void (*deleter)(ManagedTensorVersioned*);
    std::uint64_t flags;
    Tensor tensor;
};

static_assert(sizeof(Tensor) == 48 && sizeof(ManagedTensor) == 64 &&
              sizeof(ManagedTensorVersioned) == 80);

}  // namespace framegate::dlpack
