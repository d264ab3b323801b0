// Failing with a sentence: a status code and, per thread, the text for a person.
#pragma once

#include "framegate/shm.h"

namespace framegate::impl {

// Remembers the text for fg_last_error() and returns the status.
[[gnu::cold, gnu::format(printf, 2, 3)]] fg_status fail(fg_status status, const char* format, ...);
// The same for a failed system call: appends strerror(errno) and turns well-known errnos into their
// own status.
[[gnu::cold, gnu::format(printf, 1, 2)]] fg_status fail_errno(const char* format, ...);
const char* last_error();

}  // namespace framegate::impl
