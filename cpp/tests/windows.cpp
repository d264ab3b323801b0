// Of every test on Windows. Does not see windows.hpp, which has another pollfd than winsock2.h.
// clang-format off: the first one before the others
#include <winsock2.h>
#include <windows.h>
// clang-format on

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

#include "doctest.h"
#include "os.hpp"

extern "C" IMAGE_DOS_HEADER __ImageBase;  // of this program, wherever it was loaded

namespace test::windows {
namespace {

constexpr UINT kKilled = 0x4000;
constexpr char kRole[] = "FRAMEGATE_TEST_ROLE";
std::map<std::int64_t, HANDLE> children;  // NOLINT: a process has one set of them

[[noreturn]] void end(int status) {
    TerminateProcess(GetCurrentProcess(), static_cast<UINT>(status));
    abort();
}

}  // namespace

using Role = int (*)(std::uint64_t, std::uint64_t);

// A function is at the same distance from the beginning of the program in both processes.
std::int64_t start(Role role, std::uint64_t a, std::uint64_t b) {
    char program[MAX_PATH];
    GetModuleFileNameA(nullptr, program, sizeof program);
    std::string command = std::string("\"") + program + "\" --test-case=child --no-skip --minimal";
    const auto distance = static_cast<unsigned long long>(reinterpret_cast<char*>(role) -
                                                          reinterpret_cast<char*>(&__ImageBase));
    char value[80];
    snprintf(value, sizeof value, "%llu %llu %llu", distance, static_cast<unsigned long long>(a),
             static_cast<unsigned long long>(b));
    SetEnvironmentVariableA(kRole, value);
    STARTUPINFOA with{};
    with.cb = sizeof with;
    PROCESS_INFORMATION made{};
    REQUIRE(CreateProcessA(nullptr, command.data(), nullptr, nullptr, 0, 0, nullptr, nullptr, &with,
                           &made) != 0);
    SetEnvironmentVariableA(kRole, nullptr);
    CloseHandle(made.hThread);
    children[made.dwProcessId] = made.hProcess;
    return made.dwProcessId;
}

bool wait_process(std::int64_t pid, int timeout_ms, int* status) {
    HANDLE process = children.at(pid);
    if (WaitForSingleObject(process, timeout_ms < 0 ? INFINITE : static_cast<DWORD>(timeout_ms)) !=
        WAIT_OBJECT_0) {
        return false;
    }
    DWORD code = 0;
    GetExitCodeProcess(process, &code);
    CloseHandle(process);
    children.erase(pid);
    *status = static_cast<int>(code);
    return true;
}

void end_process(std::int64_t pid) {
    HANDLE process = OpenProcess(PROCESS_TERMINATE, 0, static_cast<DWORD>(pid));
    TerminateProcess(process, kKilled | 9);
    CloseHandle(process);
}

int wait_readable(int socket, int timeout_ms) {
    // select() and not WSAPoll(): what Python's event loop on Windows takes.
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(static_cast<SOCKET>(socket), &readable);
    const timeval patience{timeout_ms / 1000, timeout_ms % 1000 * 1000};
    return select(0, &readable, nullptr, nullptr, &patience);
}

void set_variable(const char* name, const char* value) { SetEnvironmentVariableA(name, value); }

std::string make_directory() {
    char parent[MAX_PATH];
    const DWORD bytes = GetTempPathA(sizeof parent, parent);
    static int made = 0;
    std::string path;
    do {  // what an earlier process of this number left may be there
        path = std::string(parent, bytes) + "framegate-test-" +
               std::to_string(GetCurrentProcessId()) + "-" + std::to_string(++made);
        if (framegate::impl::mkdir(path.c_str(), 0700) == 0) {
            return path;
        }
    } while (errno == EEXIST);
    return "";
}

}  // namespace test::windows

TEST_CASE("child" * doctest::skip()) {
    using namespace test::windows;
    unsigned long long distance = 0;
    unsigned long long a = 0;
    unsigned long long b = 0;
    char value[80];
    if (GetEnvironmentVariableA(kRole, value, sizeof value) == 0 ||
        sscanf(value, "%llu %llu %llu", &distance, &a, &b) != 3) {
        return;  // somebody asked for all of them
    }
    SetEnvironmentVariableA(kRole, nullptr);
    // An abandoned child must not stay.
    CloseHandle(CreateThread(
        nullptr, 0,
        [](void*) -> DWORD {
            Sleep(60000);
            end(14);
        },
        nullptr, 0, nullptr));
    end(reinterpret_cast<Role>(reinterpret_cast<char*>(&__ImageBase) + distance)(a, b));
}
