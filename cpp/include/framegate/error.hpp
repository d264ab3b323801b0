// Errors as values for C++ callers of shm.h. Header-only; see shm.h for what each function does.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "framegate/shm.h"

namespace framegate {

/// The status codes of shm.h.
enum class ErrorCode : fg_status {
#define FG_ERROR_CODE(name, number, text) name = number,
    FG_STATUS_LIST(FG_ERROR_CODE)
#undef FG_ERROR_CODE
};

/// What failed, with a sentence for a person.
class [[nodiscard]] Error {
  public:
    Error(ErrorCode code, std::string detail) : code_(code), detail_(std::move(detail)) {}

    /// Of a call that just returned `status` on this thread.
    static Error last(fg_status status) {
        return {static_cast<ErrorCode>(status), fg_last_error()};
    }

    ErrorCode code() const { return code_; }
    const std::string& detail() const { return detail_; }

  private:
    ErrorCode code_;
    std::string detail_;
};

/// A value or an Error. `Result<void>` carries success alone.
template <typename T>
class [[nodiscard]] Result {
  public:
    Result(T value)
        : content_(std::move(value)) {}  // NOLINT(google-explicit-constructor): return value;
    Result(Error error)
        : content_(std::move(error)) {}  // NOLINT(google-explicit-constructor): return error;

    explicit operator bool() const { return std::holds_alternative<T>(content_); }
    T& value() { return std::get<T>(content_); }
    T& operator*() { return value(); }
    T* operator->() { return &value(); }
    const Error& error() const { return std::get<Error>(content_); }

  private:
    std::variant<T, Error> content_;
};

template <>
class [[nodiscard]] Result<void> : public Result<std::monostate> {
  public:
    using Result<std::monostate>::Result;
    /// Turns a status into a result.
    static Result from(fg_status status) {
        return status == FG_OK ? Result(std::monostate{}) : Result(Error::last(status));
    }
};

}  // namespace framegate
