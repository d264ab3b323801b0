// What operating systems differ in: os_linux.cpp, os_darwin.cpp and os_windows.cpp, each empty for the
// other ones, so that every build can take all files of this directory. Errors are -1 and errno
// unless said otherwise. Also the headers of POSIX that the library needs, or what stands for them
// on Windows.
//
// Darwin is compiled and linked here, for macOS 14.4 and newer, and was never run. Windows is run
// under wine only (docs/release.md).
#pragma once

#ifdef _WIN32
#include "os_windows.hpp"
#else
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ctime>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>

// glibc's own hint (2.32 and newer); weak, so that an older or another libc links and always takes
// the atomic way.
extern "C" char __libc_single_threaded __attribute__((weak));
#endif

namespace framegate::impl::os {

// ---- threads of this process that sleep on a word of it (lock.hpp)

#ifndef __linux__
inline bool single_threaded() { return false; }  // no hint that costs nothing
void sleep_in_process(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                      std::int64_t timeout_ns);
void wake_one_in_process(std::atomic<std::uint32_t>& word);
#else
inline bool single_threaded() {
    return &__libc_single_threaded != nullptr && __libc_single_threaded != 0;
}
inline void sleep_in_process(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                             std::int64_t timeout_ns) {
    const timespec timeout{static_cast<time_t>(timeout_ns / 1000000000),
                           static_cast<long>(timeout_ns % 1000000000)};
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, &timeout, nullptr, 0);
}
inline void wake_one_in_process(std::atomic<std::uint32_t>& word) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}
#endif

// ---- threads of all processes that sleep on a word of a shared mapping

// 0: somebody woke us, or the word has another value already; else -1 and ETIMEDOUT or EINTR.
int sleep_shared(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                 std::int64_t timeout_ns);
// After the word was changed from `before`; nobody else is woken for that change.
#ifdef _WIN32
void wake_all_shared(std::atomic<std::uint32_t>& word, std::uint32_t before);
#else
void wake_all_shared(std::atomic<std::uint32_t>& word);
inline void wake_all_shared(std::atomic<std::uint32_t>& word, std::uint32_t) {
    wake_all_shared(word);
}
#endif

// ---- locks that belong to an open description, for fcntl() and struct flock

#if defined(_WIN32)
inline constexpr int kSetLock = 2;
inline constexpr int kGetLock = 3;  // sees exclusive locks only
#elif defined(__APPLE__)
// The kernel's numbers, which older headers do not show.
inline constexpr int kSetLock = 90;
inline constexpr int kGetLock = 92;
#elif defined(F_OFD_SETLK)
inline constexpr int kSetLock = F_OFD_SETLK;
inline constexpr int kGetLock = F_OFD_GETLK;
#else
// Some C libraries name them for a 32-bit off_t only; the numbers are the kernel's.
inline constexpr int kSetLock = 37;
inline constexpr int kGetLock = 36;
#endif

// A new description of the control file that `fd` is open on, "<stem>.ctl" in `directory`. May be
// another file by now: compare. Closed by the caller.
int reopen_control_file(int fd, int directory, const char* stem);

// ---- datagram sockets with a name in a directory that is open: its path may be too long for an
// address, or mean another place by now.

int open_datagram_socket();  // closed by exec, never blocks
// The socket's file never has a wider mode than `mode`, where the kernel can promise that.
int bind_in(int socket, int directory, const char* file, mode_t mode);
int connect_in(int socket, int directory, const char* file);
// One byte.
ssize_t send_in(int socket, int directory, const char* file);
// One byte to whom connect_in() found. Fails once that socket is closed.
ssize_t send_connected(int socket);
// After send_in() or send_connected(): the queue of the receiver is full.
bool queue_was_full(int error);
// Whether a connected socket is worth it: each send_in() looks a path up.
#ifdef __linux__
inline constexpr bool kConnectsToWake = true;
#else
inline constexpr bool kConnectsToWake = false;  // connect_in() is a probe there, or was never run
#endif

// ---- the wake fd: readable when a socket or a timer is

// Where the timer sends to the socket, and that is the wake fd itself.
#ifdef _WIN32
inline constexpr bool kWakeSetIsTheSocket = true;
#else
inline constexpr bool kWakeSetIsTheSocket = false;
#endif

// What fork() leaves out has no descriptor in the child; its number may be another file there.
#ifdef __APPLE__
inline constexpr bool kWakeSetIsInherited = false;
#else
inline constexpr bool kWakeSetIsInherited = true;
#endif
// `timer` stays -1 where the set has timers of its own.
int open_wake_set(int* set, int* timer);
int fill_wake_set(int set, int socket, int timer);
bool start_timer(int set, int timer, std::int64_t period_ns);
// Empties the socket and the timer, and stops that. True if it had ticked. `is_due`: the period has
// passed; before it the timer need not be asked.
bool drain_wake_set(int set, int socket, int timer, bool is_due);

// ---- files and memory

bool random_bytes(void* out, std::size_t bytes);  // 256 at most
// Sees to it that these bytes of the file exist and have their place. The error, 0 if none; EINTR:
// again.
int allocate_file(int fd, std::uint64_t offset, std::uint64_t bytes);
// A child of fork() has a hole there.
#ifdef _WIN32
inline int hide_from_children(void*, std::size_t) { return 0; }
#else
int hide_from_children(void* memory, std::size_t bytes);
#endif
inline timespec modified(const struct stat& info) {
#ifdef __APPLE__
    return info.st_mtimespec;
#else
    return info.st_mtim;
#endif
}
// Where topics live if nobody says otherwise; what snprintf returns.
int default_runtime_directory(char* out, std::size_t bytes);
// What to do about a full one.
#ifndef __linux__
inline constexpr char kMoreSpace[] = "more room on that disk";
#else
inline constexpr char kMoreSpace[] = "a larger /dev/shm";
#endif

}  // namespace framegate::impl::os
