#include "status.hpp"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "os.hpp"

namespace framegate::impl {
namespace {
// Per thread and plain, so it needs neither a constructor nor a lock. It is the library's only
// state beside the list of topics that fork() has to know.
constinit thread_local char last_error_text[512] = "";

// strerror_r is two different functions, by C library.
[[maybe_unused]] const char* error_text(const char* text, const char* /*buffer*/) { return text; }
[[maybe_unused]] const char* error_text(int /*result*/, const char* buffer) { return buffer; }
}  // namespace

fg_status fail(fg_status status, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error_text, sizeof last_error_text, format, arguments);
    va_end(arguments);
    return status;
}

fg_status fail_errno(const char* format, ...) {
    const int error = errno;
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(last_error_text, sizeof last_error_text, format, arguments);
    va_end(arguments);
    if (used < 0) {
        used = 0;
    }
    if (static_cast<size_t>(used) < sizeof last_error_text) {
        char buffer[128] = "";
        snprintf(last_error_text + used, sizeof last_error_text - static_cast<size_t>(used), ": %s",
                 error_text(strerror_r(error, buffer, sizeof buffer), buffer));
    }
    switch (error) {
        case EACCES:
        case EPERM:
        case EROFS:
            return FG_PERMISSION_DENIED;
        case ENOSPC:
        case EDQUOT:
            return FG_NO_SPACE;
        case ENOMEM:
            return FG_OUT_OF_MEMORY;
        default:
            return FG_SYSTEM;
    }
}

const char* last_error() { return last_error_text; }

}  // namespace framegate::impl
