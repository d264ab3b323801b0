#ifdef __linux__
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

#include "os.hpp"

namespace framegate::impl::os {
namespace {

// Through our descriptor of the directory. False if it does not fit, which a short name does.
bool fill_address(sockaddr_un& address, int directory, const char* file) {
    std::memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    const int used =
        snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory, file);
    if (used > 0 && static_cast<std::size_t>(used) < sizeof address.sun_path) {
        return true;
    }
    errno = ENAMETOOLONG;
    return false;
}

}  // namespace

int sleep_shared(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                 std::int64_t timeout_ns) {
    const timespec timeout{static_cast<time_t>(timeout_ns / 1000000000),
                           static_cast<long>(timeout_ns % 1000000000)};
    // Not FUTEX_WAIT_PRIVATE: the sleeper and the waker are different processes.
    const bool woken =
        syscall(SYS_futex, &word, FUTEX_WAIT, value, &timeout, nullptr, 0) == 0 || errno == EAGAIN;
    return woken ? 0 : -1;
}

void wake_all_shared(std::atomic<std::uint32_t>& word) {
    syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

int reopen_control_file(int fd, int, const char*) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

int open_datagram_socket() { return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

int bind_in(int socket, int directory, const char* file, mode_t mode) {
    sockaddr_un address;
    // The mode before bind(): the file is born with it, less what the umask takes.
    return fill_address(address, directory, file) && fchmod(socket, mode) == 0
               ? bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address)
               : -1;
}

int connect_in(int socket, int directory, const char* file) {
    sockaddr_un address;
    return fill_address(address, directory, file)
               ? connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address)
               : -1;
}

ssize_t send_in(int socket, int directory, const char* file) {
    sockaddr_un address;
    const char byte = 1;
    return fill_address(address, directory, file)
               ? sendto(socket, &byte, 1, MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
                        sizeof address)
               : -1;
}

ssize_t send_connected(int socket) {
    const char byte = 1;
    return send(socket, &byte, 1, MSG_NOSIGNAL);
}

bool queue_was_full(int error) { return error == EAGAIN; }

int open_wake_set(int* set, int* timer) {
    *timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const int error = *timer < 0 ? errno : 0;
    *set = epoll_create1(EPOLL_CLOEXEC);
    if (error != 0) {
        errno = error;
    }
    return *timer < 0 || *set < 0 ? -1 : 0;
}

int fill_wake_set(int set, int socket, int timer) {
    epoll_event event{};
    event.events = EPOLLIN;
    return epoll_ctl(set, EPOLL_CTL_ADD, socket, &event) == 0 &&
                   epoll_ctl(set, EPOLL_CTL_ADD, timer, &event) == 0
               ? 0
               : -1;
}

bool start_timer(int, int timer, std::int64_t period_ns) {
    itimerspec every{};
    every.it_value.tv_sec = static_cast<time_t>(period_ns / 1000000000);
    every.it_value.tv_nsec = static_cast<long>(period_ns % 1000000000);
    every.it_interval = every.it_value;
    return timerfd_settime(timer, 0, &every, nullptr) == 0;
}

bool drain_wake_set(int, int socket, int timer, bool is_due) {
    // Usually there is one datagram: the call that takes it also sees that there is no other.
    constexpr unsigned kAtOnce = 4;
    char byte = 0;
    iovec place{&byte, 1};
    mmsghdr messages[kAtOnce] = {};
    for (mmsghdr& one : messages) {
        one.msg_hdr.msg_iov = &place;
        one.msg_hdr.msg_iovlen = 1;
    }
    while (recvmmsg(socket, messages, kAtOnce, MSG_DONTWAIT, nullptr) ==
           static_cast<int>(kAtOnce)) {
    }
    if (!is_due) {
        return false;
    }
    std::uint64_t ticks = 0;
    const bool ticked = read(timer, &ticks, sizeof ticks) == static_cast<ssize_t>(sizeof ticks);
    if (ticked) {
        const itimerspec never{};
        timerfd_settime(timer, 0, &never, nullptr);
    }
    return ticked;
}

bool random_bytes(void* out, std::size_t bytes) {
    return getrandom(out, bytes, 0) == static_cast<ssize_t>(bytes);
}

int allocate_file(int fd, std::uint64_t offset, std::uint64_t bytes) {
    return posix_fallocate(fd, static_cast<off_t>(offset), static_cast<off_t>(bytes));
}

int hide_from_children(void* memory, std::size_t bytes) {
    return madvise(memory, bytes, MADV_DONTFORK);
}

int default_runtime_directory(char* out, std::size_t bytes) {
    return snprintf(out, bytes, "/dev/shm/framegate-%u", geteuid());
}

}  // namespace framegate::impl::os
#endif
