// What the tests take from POSIX, on Windows. There is no fork() and no SIGSTOP: cases that need them
// are left out there. A child is the same program started again (test::start() in support.hpp).
#pragma once

#include <dirent.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace test::windows {

using Role = int (*)(std::uint64_t, std::uint64_t);

std::int64_t start(Role role, std::uint64_t a,
                   std::uint64_t b);  // its id, good until it was waited for
// True, and *status, if it ended in this time (-1: waits for it).
bool wait_process(std::int64_t pid, int timeout_ms, int* status);

int wait_readable(int socket, int timeout_ms);  // 1: it is; 0: not in this time
void end_process(std::int64_t pid);
void set_variable(const char* name, const char* value);  // nullptr: it is gone
std::string make_directory();                            // that is nobody's but ours

}  // namespace test::windows

inline constexpr int SIGKILL = 9;
inline constexpr int WNOHANG = 1;
// The exit code of a process is its status. TerminateProcess() says what end_process() gave it.
inline constexpr int kKilled = 0x4000;
constexpr bool WIFSIGNALED(int status) { return status == (kKilled | SIGKILL); }
constexpr int WTERMSIG(int status) { return status & 0xff; }
constexpr bool WIFEXITED(int status) { return !WIFSIGNALED(status); }
constexpr int WEXITSTATUS(int status) { return status; }
inline constexpr short POLLIN = 1;
struct pollfd {
    int fd;
    short events;
    short revents;
};

inline int poll(const pollfd* entry, int, int timeout_ms) {
    return test::windows::wait_readable(entry->fd, timeout_ms);
}
inline int kill(std::int64_t pid, int) {
    test::windows::end_process(pid);
    return 0;
}
inline std::int64_t waitpid(std::int64_t pid, int* status, int flags) {
    return test::windows::wait_process(pid, flags == WNOHANG ? 0 : -1, status) ? pid : 0;
}
inline void setenv(const char* name, const char* value, int) {
    test::windows::set_variable(name, value);
}
inline void unsetenv(const char* name) { test::windows::set_variable(name, nullptr); }
