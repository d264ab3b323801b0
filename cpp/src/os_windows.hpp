// Windows 10 and newer: the names of POSIX that this library uses, as far as it uses them, so that
// the other files are the same on all systems. They lie in our namespace and hide those of the C
// library there. Included by os.hpp alone; how it is done: os_windows.cpp.
//
// A descriptor is a handle of the kernel or a socket: of both only the lower 32 bits count.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>

// What the C library's headers lack. Flags that it has no bits for are ours.
#define O_DIRECTORY 0x10000000
#define O_NOFOLLOW 0x20000000
#define O_CLOEXEC 0   // nothing is inherited here unless somebody asks for it
#define O_NONBLOCK 0  // no FIFO lies in a directory
#ifndef S_ISGID
#define S_ISGID 02000
#endif
#ifndef EDQUOT
#define EDQUOT 10069  // WSAEDQUOT
#endif

namespace framegate::impl {

using off_t = std::int64_t;
using mode_t = unsigned;
using dev_t = std::uint64_t;
using ino_t = std::uint64_t;
using ssize_t = std::intptr_t;
// Ours, or the C library's functions would be found by the type of their argument.
struct timespec {
    time_t tv_sec;
    long tv_nsec;
};

// ---- files

struct stat {
    dev_t st_dev;
    ino_t st_ino;
    std::uint32_t st_nlink;  // 0: it has no name any more
    mode_t st_mode;          // of a directory: 0700, or 0777 if others are in its access list
    std::uint32_t st_uid;    // of a directory: 0 if it is ours
    off_t st_size;
    timespec st_mtim;
};
struct statvfs {
    std::uint64_t f_blocks;
    std::uint64_t f_bavail;
    std::uint64_t f_frsize;
};

inline constexpr int AT_SYMLINK_NOFOLLOW = 1;  // always, so it says nothing

// A directory by its path in UTF-8; nothing else is opened by a path.
int open(const char* path, int flags);
// `file` is one name in the directory, or "." for itself. Never follows a link.
int openat(int directory, const char* file, int flags, mode_t mode = 0);
int close(int fd);
ssize_t read(int fd, void* out, std::size_t bytes);
ssize_t pread(int fd, void* out, std::size_t bytes, off_t offset);
int fstat(int fd, struct stat* out);
int fstatat(int directory, const char* file, struct stat* out, int flags);
int fstatvfs(int fd, struct statvfs* out);
int ftruncate(int fd, off_t bytes);  // grows only
int futimens(int fd, const timespec* now);
int mkdir(const char* path, mode_t mode);
// A rename that replaces nothing: one call decides who gets the name, as with a link, and it needs
// no file system that has links. The old name is gone already when it is removed.
int linkat(int directory, const char* from, int to_directory, const char* to, int flags);
int unlinkat(int directory, const char* file, int flags);
// The access list of the runtime directory decides, and only its owner is in it: 0600 or ENOTSUP.
int fchmod(int fd, mode_t mode);
int fchmodat(int directory, const char* file, mode_t mode, int flags);
inline std::uint32_t geteuid() { return 0; }  // see st_uid
std::uint32_t getpid();
// In UTF-8, good until the thread asks again.
const char* getenv(const char* name);

struct DIR;
struct dirent {
    char d_name[768];  // 255 UTF-16 units
};
DIR* fdopendir(int directory);
const dirent* readdir(DIR* entries);
int closedir(DIR* entries);

// ---- locks and copies of descriptors

struct flock {
    short l_type;
    short l_whence;
    off_t l_start;
    off_t l_len;
};
inline constexpr short F_RDLCK = 0;
inline constexpr short F_WRLCK = 1;
inline constexpr short F_UNLCK = 2;
inline constexpr int F_DUPFD_CLOEXEC = 1;

int fcntl(int fd, int command, struct flock* range);  // os::kSetLock, os::kGetLock
int fcntl(int fd, int command, int least);            // F_DUPFD_CLOEXEC

// ---- memory

inline constexpr int PROT_READ = 1;
inline constexpr int PROT_WRITE = 2;
inline constexpr int MAP_SHARED = 1;
inline void* const MAP_FAILED = nullptr;

void* mmap(void* at, std::size_t bytes, int protection, int flags, int fd, off_t offset);
int munmap(void* memory, std::size_t bytes);
// Freed by free(), so aligned as malloc() does it. That is enough for what is in the handles; a
// cache line would be for speed.
inline int posix_memalign(void** out, std::size_t, std::size_t bytes) {
    *out = std::malloc(bytes);
    return *out != nullptr ? 0 : ENOMEM;
}
inline int strerror_r(int error, char* out, std::size_t bytes) {
    return strerror_s(out, bytes, error);
}

// ---- time and threads

using clockid_t = int;
#undef CLOCK_REALTIME
#undef CLOCK_MONOTONIC
inline constexpr clockid_t CLOCK_REALTIME = 0;
inline constexpr clockid_t CLOCK_MONOTONIC = 1;  // QueryPerformanceCounter()
int clock_gettime(clockid_t clock, timespec* out);
int nanosleep(const timespec* pause, timespec* rest);
int sched_yield();

struct pthread_mutex_t {
    void* lock = nullptr;  // an SRWLOCK
};
inline constexpr pthread_mutex_t PTHREAD_MUTEX_INITIALIZER{};
int pthread_mutex_lock(pthread_mutex_t* mutex);
int pthread_mutex_unlock(pthread_mutex_t* mutex);
inline int pthread_mutex_init(pthread_mutex_t*, const void*) { return 0; }
inline int pthread_mutex_destroy(pthread_mutex_t*) { return 0; }
// There is no fork(), so nothing to install.
using pthread_once_t = int;
inline constexpr pthread_once_t PTHREAD_ONCE_INIT = 0;
inline int pthread_once(pthread_once_t*, void (*)()) { return 0; }
inline int pthread_atfork(void (*)(), void (*)(), void (*)()) { return 0; }

}  // namespace framegate::impl
