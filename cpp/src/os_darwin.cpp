// macOS 14.4 and newer. Compiled and linked, never run (docs/release.md).
//
// - A word of a shared mapping: os_sync_wait_on_address() with the flag SHARED, which finds the
//   sleepers by the memory object and the offset in it, as a shared futex does.
// - The locks are the same as on Linux (os.hpp). They go when the last descriptor of the description
//   is closed. In a process that dies, its last thread closes them on its way through the kernel,
//   after all others ended: nobody stores any more. One thing is different: a mapping does not
//   keep a description here, so whoever closes our descriptors behind our back gives our rows to the
//   next sweeper, while this process may still write until its own next look (liveness.cpp).
// - There is no tmpfs. Topics are files on a disk, in a directory that the system empties at boot,
//   and their pages are written to it now and then, which nobody needs.
#ifdef __APPLE__
#include <mach/vm_inherit.h>
#include <sys/event.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "files.hpp"
#include "os.hpp"

// <os/os_sync_wait_on_address.h> and <os/clock.h>, which not every set of headers has.
extern "C" {
int os_sync_wait_on_address_with_timeout(void* address, std::uint64_t value, std::size_t bytes,
                                         std::uint32_t flags, std::uint32_t clock,
                                         std::uint64_t timeout_ns);
int os_sync_wake_by_address_any(void* address, std::size_t bytes, std::uint32_t flags);
int os_sync_wake_by_address_all(void* address, std::size_t bytes, std::uint32_t flags);
// <pthread/pthread_spis.h>; -1: the process's directory again.
int pthread_fchdir_np(int directory);
}

namespace framegate::impl::os {
namespace {

constexpr std::uint32_t kInProcess = 0;          // OS_SYNC_WAIT_ON_ADDRESS_NONE, ...WAKE...
constexpr std::uint32_t kShared = 1;             // ..._SHARED
constexpr std::uint32_t kMachAbsoluteTime = 32;  // OS_CLOCK_MACH_ABSOLUTE_TIME
constexpr uintptr_t kTimer = 1;                  // any number: timers have names of their own

int sleep_on(const std::atomic<std::uint32_t>& word, std::uint32_t value, std::int64_t timeout_ns,
             std::uint32_t flags) {
    // Only reads; it takes no const.
    auto* address = const_cast<std::atomic<std::uint32_t>*>(&word);
    if (os_sync_wait_on_address_with_timeout(address, value, sizeof value, flags, kMachAbsoluteTime,
                                             static_cast<std::uint64_t>(timeout_ns)) >= 0) {
        return 0;
    }
    // EFAULT: the page was not there. Whoever looks at the word brings it back.
    // ENOMEM: as good as woken; sleeping is an optimisation.
    return errno == EFAULT || errno == ENOMEM ? 0 : -1;
}

// Does `act` with an address of the file in the directory. There is no /proc/self/fd: the
// directory's present path if it fits, else its name alone, with the directory as this thread's.
template <typename Act>
auto with_address(int directory, const char* file, Act act) -> decltype(act(sockaddr_un{})) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    address.sun_len = sizeof address;
    char path[MAXPATHLEN];
    if (fcntl(directory, F_GETPATH, path) == 0) {
        const int used = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", path, file);
        if (used > 0 && static_cast<std::size_t>(used) < sizeof address.sun_path) {
            return act(address);
        }
    }
    if (std::strlen(file) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", file);
    if (pthread_fchdir_np(directory) != 0) {
        return -1;
    }
    const auto result = act(address);
    const int error = errno;
    pthread_fchdir_np(-1);
    errno = error;
    return result;
}

}  // namespace

void sleep_in_process(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                      std::int64_t timeout_ns) {
    static_cast<void>(sleep_on(word, value, timeout_ns, kInProcess));
}

void wake_one_in_process(std::atomic<std::uint32_t>& word) {
    os_sync_wake_by_address_any(&word, sizeof(std::uint32_t), kInProcess);
}

int sleep_shared(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                 std::int64_t timeout_ns) {
    return sleep_on(word, value, timeout_ns, kShared);
}

void wake_all_shared(std::atomic<std::uint32_t>& word) {
    os_sync_wake_by_address_all(&word, sizeof(std::uint32_t), kShared);
}

// By its name: /dev/fd/N would be another descriptor of the same description, and F_GETPATH may
// name the temporary link that a control file had first.
int reopen_control_file(int, int directory, const char* stem) {
    char file[kFileBytesMax];
    control_file_name(file, stem);
    return openat(directory, file, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
}

// Between the calls another thread's posix_spawn() can hand the socket down. It carries no lock.
int open_datagram_socket() {
    const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    const int yes = 1;
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0 ||
                    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &yes, sizeof yes) != 0)) {
        const int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

// fchmod() refuses sockets, so until the caller's fchmodat() the umask decides: for a moment, and
// among those whom the directory lets in.
int bind_in(int socket, int directory, const char* file, mode_t) {
    return with_address(directory, file, [socket](const sockaddr_un& address) {
        return bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    });
}

int connect_in(int socket, int directory, const char* file) {
    return with_address(directory, file, [socket](const sockaddr_un& address) {
        return connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    });
}

ssize_t send_in(int socket, int directory, const char* file) {
    return with_address(directory, file, [socket](const sockaddr_un& address) {
        const char byte = 1;
        return sendto(socket, &byte, 1, 0, reinterpret_cast<const sockaddr*>(&address),
                      sizeof address);
    });
}

ssize_t send_connected(int socket) {
    const char byte = 1;
    return send(socket, &byte, 1, 0);
}

bool queue_was_full(int error) { return error == EAGAIN || error == ENOBUFS; }

int open_wake_set(int* set, int* timer) {
    *timer = -1;
    *set = kqueue();  // not inherited by fork(), closed by exec
    return *set < 0 ? -1 : 0;
}

int fill_wake_set(int set, int socket, int) {
    struct kevent change;
    // As long as something is in the socket, not only when it comes.
    EV_SET(&change, socket, EVFILT_READ, EV_ADD, 0, 0, nullptr);
    return kevent(set, &change, 1, nullptr, 0, nullptr);
}

// It ticks once: drain_wake_set() would stop it anyway, and until then the set stays readable.
bool start_timer(int set, int, std::int64_t period_ns) {
    struct kevent change;
    EV_SET(&change, kTimer, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_NSECONDS, period_ns, nullptr);
    return kevent(set, &change, 1, nullptr, 0, nullptr) == 0;
}

bool drain_wake_set(int set, int socket, int, bool) {
    char byte = 0;
    while (recv(socket, &byte, 1, 0) >= 0) {
    }
    // After the socket: a kqueue counts what came until somebody asks it, and then looks again
    // whether the socket still has anything. Only this call makes the set itself unreadable.
    struct kevent events[2];
    const timespec now{};
    const int count = kevent(set, nullptr, 0, events, 2, &now);
    bool ticked = false;
    for (int i = 0; i < count; ++i) {
        ticked = ticked || events[i].filter == EVFILT_TIMER;
    }
    return ticked;
}

bool random_bytes(void* out, std::size_t bytes) { return getentropy(out, bytes) == 0; }

// Behind the end of the file there is F_PREALLOCATE; a hole in it cannot be given its place without
// writing, which could overwrite somebody, so of that (mailboxes) only the free space is asked. A
// disk that is full later is no SIGBUS here: the page stays in memory and is not written.
int allocate_file(int fd, std::uint64_t offset, std::uint64_t bytes) {
    struct stat info{};
    struct statvfs space{};
    if (fstat(fd, &info) != 0 || fstatvfs(fd, &space) != 0) {
        return errno;
    }
    const std::uint64_t end = offset + bytes;
    const auto size = static_cast<std::uint64_t>(info.st_size);
    const std::uint64_t missing = end > size ? end - size : bytes;
    if (missing > std::uint64_t{space.f_bavail} * space.f_frsize) {
        return ENOSPC;
    }
    if (end <= size) {
        return 0;
    }
    fstore_t store{};
    store.fst_flags = F_ALLOCATEALL;
    store.fst_posmode = F_PEOFPOSMODE;
    store.fst_length = static_cast<off_t>(missing);
    // A file system that cannot promise room gets along without.
    if (fcntl(fd, F_PREALLOCATE, &store) != 0 && errno != ENOTSUP && errno != EINVAL) {
        return errno;
    }
    return ftruncate(fd, static_cast<off_t>(end)) == 0 ? 0 : errno;
}

int hide_from_children(void* memory, std::size_t bytes) {
    return minherit(memory, bytes, VM_INHERIT_NONE);
}

// The user's own directory for temporary files, which needs no variable: $TMPDIR is another one in
// other sessions of the same user.
int default_runtime_directory(char* out, std::size_t bytes) {
    char path[MAXPATHLEN];
    const std::size_t used = confstr(_CS_DARWIN_USER_TEMP_DIR, path, sizeof path);
    const bool there = used > 1 && used <= sizeof path;
    const char* slash = there && path[used - 2] == '/' ? "" : "/";
    return snprintf(out, bytes, "%s%sframegate-%u", there ? path : "/tmp", slash, geteuid());
}

}  // namespace framegate::impl::os
#endif
