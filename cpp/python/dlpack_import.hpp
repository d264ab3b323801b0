// The consumer's side of DLPack: a tensor that somebody else's `__dlpack__` hands out.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

#include "dlpack.hpp"

namespace framegate::py {

namespace nb = nanobind;

// Owns the tensor from the renaming of the capsule until it calls the producer's deleter.
class ImportedTensor {
  public:
    // Asks for DLPack 1.0, and for what came before from a producer that knows no more. Null when
    // the tensor is not in host memory; raises what the producer raises.
    static ImportedTensor from(nb::handle producer);

    ImportedTensor() = default;
    ImportedTensor(ImportedTensor&& other) noexcept
        : tensor_(std::exchange(other.tensor_, nullptr)),
          managed_(std::exchange(other.managed_, nullptr)),
          is_versioned_(other.is_versioned_) {}
    ImportedTensor& operator=(ImportedTensor&& other) noexcept {
        std::swap(tensor_, other.tensor_);
        std::swap(managed_, other.managed_);
        std::swap(is_versioned_, other.is_versioned_);
        return *this;
    }
    ImportedTensor(const ImportedTensor&) = delete;
    ImportedTensor& operator=(const ImportedTensor&) = delete;
    ~ImportedTensor();

    // Null when there is none.
    [[nodiscard]] const dlpack::Tensor* get() const { return tensor_; }

  private:
    const dlpack::Tensor* tensor_ = nullptr;
    void* managed_ = nullptr;
    bool is_versioned_ = false;
};

}  // namespace framegate::py
