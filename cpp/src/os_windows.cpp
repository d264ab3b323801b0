// Windows 10 and newer. Compiled and linked, run under wine, never on Windows (docs/release.md).
//
// Files. Relative to the handle of the directory, as everywhere: NtCreateFile(). Everybody shares
// everything, deletion too. Names are the same in upper and lower case here, so topics are. A file
// loses its name at once where the file system has POSIX's way of deleting; else it gets the name
// of a temporary file, which is taken away later (unlinkat).
//
// Memory. There is no tmpfs: topics are files on a disk, marked as temporary so that the system
// is slow to write them. They are not sparse, so mailboxes have their place from the beginning.
//
// Locks. LockFileEx(): a lock belongs to the open file and the process, and goes when its handle is
// closed. In a process that dies, its last thread closes the handles on its way through the kernel,
// after all others ended: nobody stores any more. A mapping does not keep the lock, so whoever
// closes our handles behind our back gives our rows to the next sweeper (as on macOS). Locks here
// forbid reading and writing to others, so they lie where no file has bytes (kLockBase).
//
// Sleep and wake across processes. WaitOnAddress() is for one process. Sleepers wait for an event
// whose name is made of the file, the place of the word in it and the value that they have seen;
// whoever changed that value sets the event. It is never reset, because the value does not come back,
// and it goes with its last handle. No wake is lost: the sleeper has the event open before it looks
// at the word for the last time, and the waker looks for the event after it changed the word. So if
// the sleeper saw the old value, the waker finds the event. What it costs is a few calls of the
// kernel for each sleep and each wake instead of one. Who dies between the change and the call wakes
// nobody, as everywhere; but the next waker looks for its own value only, so those who slept then
// wake by themselves, within a second.
//
// The wake fd is a UDP socket of the loopback interface, because select() and an event loop take
// nothing but sockets. Its port is in its file, "<id>-<index>.sock", which the system removes when
// its owner closes it or dies. Any process of this machine can send to the port: a wake that means
// nothing, which is legal at any time; a flood of them keeps the owner busy, and nothing more.
#ifdef _WIN32
// clang-format off: the first one before the others
#include <winsock2.h>
#include <windows.h>
#include <winternl.h>
#include <aclapi.h>
#include <bcrypt.h>
#include <sddl.h>
// clang-format on

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cwchar>
#include <new>

#include "os.hpp"

namespace framegate::impl {
namespace {

constexpr std::size_t kNameUnitsMax = 256;
constexpr std::size_t kPathUnitsMax = 1024;
constexpr ULONG kShareAll = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

// NTSTATUS and classes of information that not every set of headers names.
constexpr NTSTATUS kDeletePending = static_cast<NTSTATUS>(0xc0000056);
constexpr NTSTATUS kIsDirectory = static_cast<NTSTATUS>(0xc00000ba);
constexpr NTSTATUS kNoMoreFiles = static_cast<NTSTATUS>(0x80000006);
constexpr auto kFileDirectoryInformation = static_cast<FILE_INFORMATION_CLASS>(1);
constexpr auto kFileRenameInformation = static_cast<FILE_INFORMATION_CLASS>(10);
constexpr auto kFileDispositionInfoEx = static_cast<FILE_INFO_BY_HANDLE_CLASS>(21);
constexpr auto kFsFullSizeInformation = static_cast<FS_INFORMATION_CLASS>(7);

extern "C" {
NTSTATUS NTAPI NtQueryDirectoryFile(HANDLE file, HANDLE event, PVOID routine, PVOID context,
                                    PIO_STATUS_BLOCK io, PVOID out, ULONG bytes,
                                    FILE_INFORMATION_CLASS type, BOOLEAN one,
                                    PUNICODE_STRING pattern, BOOLEAN restart);
NTSTATUS NTAPI NtQueryVolumeInformationFile(HANDLE file, PIO_STATUS_BLOCK io, PVOID out,
                                            ULONG bytes, FS_INFORMATION_CLASS type);
NTSTATUS NTAPI NtSetInformationFile(HANDLE file, PIO_STATUS_BLOCK io, PVOID in, ULONG bytes,
                                    FILE_INFORMATION_CLASS type);
}

HANDLE handle_of(int fd) { return reinterpret_cast<HANDLE>(static_cast<std::intptr_t>(fd)); }
int fd_of(HANDLE handle) { return static_cast<int>(reinterpret_cast<std::intptr_t>(handle)); }

class Owned {
  public:
    explicit Owned(HANDLE handle) : handle_(handle) {}
    ~Owned() {
        if (handle_ != nullptr) {
            CloseHandle(handle_);
        }
    }
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    HANDLE get() const { return handle_; }

  private:
    HANDLE handle_;
};

class Exclusive {
  public:
    explicit Exclusive(SRWLOCK& lock) : lock_(lock) { AcquireSRWLockExclusive(&lock_); }
    ~Exclusive() { ReleaseSRWLockExclusive(&lock_); }
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

  private:
    SRWLOCK& lock_;
};

// ---- errors

int errno_of(DWORD error) {
    switch (error) {
        case ERROR_FILE_NOT_FOUND:
        case ERROR_PATH_NOT_FOUND:
        case ERROR_DELETE_PENDING:
        case ERROR_INVALID_NAME:
        case ERROR_BAD_NETPATH:
            return ENOENT;
        case ERROR_FILE_EXISTS:
        case ERROR_ALREADY_EXISTS:
            return EEXIST;
        case ERROR_ACCESS_DENIED:
        case ERROR_PRIVILEGE_NOT_HELD:
            return EACCES;
        case ERROR_WRITE_PROTECT:
            return EROFS;
        case ERROR_SHARING_VIOLATION:
        case ERROR_USER_MAPPED_FILE:
        case ERROR_BUSY:
            return EBUSY;
        case ERROR_LOCK_VIOLATION:
        case WSAEWOULDBLOCK:
        case WSAENOBUFS:
            return EAGAIN;
        case ERROR_DISK_FULL:
        case ERROR_HANDLE_DISK_FULL:
            return ENOSPC;
        case ERROR_DISK_QUOTA_EXCEEDED:
            return EDQUOT;
        case ERROR_NOT_ENOUGH_MEMORY:
        case ERROR_OUTOFMEMORY:
        case ERROR_COMMITMENT_LIMIT:
        case ERROR_NO_SYSTEM_RESOURCES:
            return ENOMEM;
        case ERROR_TOO_MANY_OPEN_FILES:
        case WSAEMFILE:
            return EMFILE;
        case ERROR_INVALID_HANDLE:
        case WSAENOTSOCK:
            return EBADF;
        case ERROR_DIRECTORY:
            return ENOTDIR;
        case ERROR_INVALID_PARAMETER:
            return EINVAL;
        case ERROR_NOT_SUPPORTED:
        case ERROR_INVALID_FUNCTION:
            return ENOTSUP;
        default:
            return EIO;
    }
}

// -1, with errno.
int failed(DWORD error) {
    errno = errno_of(error);
    return -1;
}
int failed(NTSTATUS status) {
    if (status == kDeletePending) {
        errno = ENOENT;  // it has a name as long as somebody has it open, but not for us
    } else if (status == kIsDirectory) {
        errno = EISDIR;
    } else {
        errno = errno_of(RtlNtStatusToDosError(status));
    }
    return -1;
}

// ---- names

// False, with errno, if it does not fit.
template <std::size_t units>
bool widen(const char* text, wchar_t (&out)[units]) {
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, out,
                            static_cast<int>(units)) != 0) {
        return true;
    }
    errno = ENAMETOOLONG;
    return false;
}

// The file of this name in the directory, "." for itself. nullptr on failure, *status set.
HANDLE open_in(int directory, const char* file, ACCESS_MASK access, ULONG share, ULONG disposition,
               ULONG options, NTSTATUS* status) {
    wchar_t name[kNameUnitsMax];
    if (!widen(file, name)) {
        *status = static_cast<NTSTATUS>(0xc0000033);  // STATUS_OBJECT_NAME_INVALID
        return nullptr;
    }
    UNICODE_STRING wide;
    const bool itself = std::strcmp(file, ".") == 0;
    wide.Buffer = name;
    wide.Length = static_cast<USHORT>(itself ? 0 : std::wcslen(name) * sizeof(wchar_t));
    wide.MaximumLength = wide.Length;
    OBJECT_ATTRIBUTES attributes{};
    attributes.Length = sizeof attributes;
    attributes.RootDirectory = handle_of(directory);
    attributes.ObjectName = &wide;
    attributes.Attributes = OBJ_CASE_INSENSITIVE;
    IO_STATUS_BLOCK io{};
    HANDLE handle = nullptr;
    *status = NtCreateFile(
        &handle, access | SYNCHRONIZE, &attributes, &io, nullptr,
        FILE_ATTRIBUTE_TEMPORARY | FILE_ATTRIBUTE_NOT_CONTENT_INDEXED, share, disposition,
        options | FILE_SYNCHRONOUS_IO_NONALERT | FILE_OPEN_REPARSE_POINT, nullptr, 0);
    return NT_SUCCESS(*status) ? handle : nullptr;
}

bool is_link(HANDLE handle) {
    FILE_ATTRIBUTE_TAG_INFO info{};
    return GetFileInformationByHandleEx(handle, FileAttributeTagInfo, &info, sizeof info) != 0 &&
           (info.FileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0;
}

// Replaces nothing.
NTSTATUS rename_to(HANDLE handle, int directory, const wchar_t* name) {
    struct {
        BOOLEAN replace;
        HANDLE root;
        ULONG bytes;
        wchar_t name[kNameUnitsMax];
    } wanted{};
    wanted.root = handle_of(directory);
    wanted.bytes = static_cast<ULONG>(std::wcslen(name) * sizeof(wchar_t));
    std::memcpy(wanted.name, name, wanted.bytes);
    IO_STATUS_BLOCK io{};
    return NtSetInformationFile(handle, &io, &wanted, sizeof wanted, kFileRenameInformation);
}

// ---- who we are

// SID of the user, and that which owns what the user makes (of an administrator maybe the group).
struct Owner {
    alignas(TOKEN_USER) unsigned char user[sizeof(TOKEN_USER) + SECURITY_MAX_SID_SIZE];
    alignas(TOKEN_OWNER) unsigned char maker[sizeof(TOKEN_OWNER) + SECURITY_MAX_SID_SIZE];
    PSID user_sid() const { return reinterpret_cast<const TOKEN_USER*>(user)->User.Sid; }
    PSID maker_sid() const { return reinterpret_cast<const TOKEN_OWNER*>(maker)->Owner; }
};
bool find_owner(Owner& owner) {
    HANDLE raw = nullptr;
    if (OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw) == 0) {
        return false;
    }
    const Owned token(raw);
    DWORD used = 0;
    return GetTokenInformation(raw, TokenUser, owner.user, sizeof owner.user, &used) != 0 &&
           GetTokenInformation(raw, TokenOwner, owner.maker, sizeof owner.maker, &used) != 0;
}

// Access lists that name the user, and the system itself: of directories, and of events. These are
// for processes of the user at any integrity from medium on.
PSECURITY_DESCRIPTOR make_descriptor(const wchar_t* format) {
    Owner owner{};
    wchar_t* user = nullptr;
    wchar_t text[512];
    PSECURITY_DESCRIPTOR made = nullptr;
    if (find_owner(owner) && ConvertSidToStringSidW(owner.user_sid(), &user) != 0) {
        swprintf(text, sizeof text / sizeof *text, format, user);
        LocalFree(user);
        if (ConvertStringSecurityDescriptorToSecurityDescriptorW(text, SDDL_REVISION_1, &made,
                                                                 nullptr) == 0) {
            made = nullptr;
        }
    }
    return made;
}

// Does the access list let in anybody but the user, the system and its administrators?
bool lets_others_in(PACL list, const Owner& owner) {
    if (list == nullptr) {
        return true;
    }
    for (DWORD i = 0; i < list->AceCount; ++i) {
        void* entry = nullptr;
        if (GetAce(list, i, &entry) == 0) {
            return true;
        }
        const auto* ace = static_cast<ACCESS_ALLOWED_ACE*>(entry);
        if (ace->Header.AceType == ACCESS_DENIED_ACE_TYPE) {
            continue;
        }
        const PSID sid = const_cast<DWORD*>(&ace->SidStart);
        if (ace->Header.AceType != ACCESS_ALLOWED_ACE_TYPE ||
            !(EqualSid(sid, owner.user_sid()) != 0 || EqualSid(sid, owner.maker_sid()) != 0 ||
              IsWellKnownSid(sid, WinLocalSystemSid) != 0 ||
              IsWellKnownSid(sid, WinBuiltinAdministratorsSid) != 0 ||
              IsWellKnownSid(sid, WinCreatorOwnerSid) != 0 ||
              IsWellKnownSid(sid, WinCreatorOwnerRightsSid) != 0)) {
            return true;
        }
    }
    return false;
}

void look_at_owner(HANDLE directory, struct stat* out) {
    out->st_uid = 1;
    out->st_mode |= 0777;
    Owner owner{};
    PSID sid = nullptr;
    PACL list = nullptr;
    PSECURITY_DESCRIPTOR descriptor = nullptr;
    if (find_owner(owner) &&
        GetSecurityInfo(directory, SE_FILE_OBJECT,
                        OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION, &sid, nullptr,
                        &list, nullptr, &descriptor) == ERROR_SUCCESS) {
        if (sid != nullptr &&
            (EqualSid(sid, owner.user_sid()) != 0 || EqualSid(sid, owner.maker_sid()) != 0)) {
            out->st_uid = 0;
        }
        if (!lets_others_in(list, owner)) {
            out->st_mode &= ~mode_t{0077};
        }
        LocalFree(descriptor);
    }
}

timespec unix_time(std::int64_t ticks) {  // of 100 ns since 1601
    ticks -= 116444736000000000;
    return {static_cast<time_t>(ticks / 10000000), static_cast<long>(ticks % 10000000 * 100)};
}
std::int64_t wide(DWORD high, DWORD low) {
    return static_cast<std::int64_t>(std::uint64_t{high} << 32 | low);
}

int refuse_group(mode_t mode) {
    if ((mode & 0077) == 0) {
        return 0;
    }
    errno = ENOTSUP;
    return -1;
}

// ---- what belongs to the socket of a wake fd

struct WakeSocket {
    WakeSocket* next;
    int socket;
    HANDLE file;  // says the port, as long as it is open
    sockaddr_in address;
    PTP_TIMER timer;  // made for the first tick
    std::atomic<bool> ticked;
};
constinit SRWLOCK wake_sockets_lock = SRWLOCK_INIT;
constinit WakeSocket* wake_sockets = nullptr;

// Nobody closes it meanwhile: whoever asks has the handle that it belongs to.
WakeSocket* find_wake_socket(int socket) {
    const Exclusive guard(wake_sockets_lock);
    WakeSocket* at = wake_sockets;
    while (at != nullptr && at->socket != socket) {
        at = at->next;
    }
    return at;
}

void add_wake_socket(WakeSocket& added) {
    const Exclusive guard(wake_sockets_lock);
    added.next = wake_sockets;
    wake_sockets = &added;
}

// Before the socket is closed. Of one that is not bound: nothing.
void free_wake_socket(int socket) {
    WakeSocket* found = nullptr;
    {
        const Exclusive guard(wake_sockets_lock);
        WakeSocket** link = &wake_sockets;
        while (*link != nullptr && (*link)->socket != socket) {
            link = &(*link)->next;
        }
        found = *link;
        if (found == nullptr) {
            return;
        }
        *link = found->next;
    }
    if (found->timer != nullptr) {
        SetThreadpoolTimer(found->timer, nullptr, 0, 0);
        WaitForThreadpoolTimerCallbacks(found->timer, 1);  // it takes no lock
        CloseThreadpoolTimer(found->timer);
    }
    CloseHandle(found->file);
    found->~WakeSocket();
    std::free(found);
}

}  // namespace

// ---- files

int open(const char* path, int) {
    wchar_t wide_path[kPathUnitsMax];
    if (!widen(path, wide_path)) {
        return -1;
    }
    HANDLE handle =
        CreateFileW(wide_path, FILE_GENERIC_READ | FILE_TRAVERSE, kShareAll, nullptr, OPEN_EXISTING,
                    FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, nullptr);
    if (handle == INVALID_HANDLE_VALUE) {
        return failed(GetLastError());
    }
    FILE_STANDARD_INFO info{};
    const bool is_directory =
        GetFileInformationByHandleEx(handle, FileStandardInfo, &info, sizeof info) != 0 &&
        info.Directory != 0;
    const bool link = is_link(handle);
    if (link || !is_directory) {
        CloseHandle(handle);
        errno = link ? ELOOP : ENOTDIR;
        return -1;
    }
    return fd_of(handle);
}

int openat(int directory, const char* file, int flags, mode_t) {
    const bool is_directory = (flags & O_DIRECTORY) != 0;
    ACCESS_MASK access = FILE_GENERIC_READ;
    if ((flags & O_RDWR) != 0) {
        access |= FILE_GENERIC_WRITE;
    }
    const ULONG disposition = (flags & O_CREAT) != 0 ? FILE_CREATE : FILE_OPEN;  // O_EXCL, always
    NTSTATUS status = 0;
    HANDLE handle = open_in(directory, file, access, kShareAll, disposition,
                            is_directory ? FILE_DIRECTORY_FILE : FILE_NON_DIRECTORY_FILE, &status);
    if (handle == nullptr) {
        return failed(status);
    }
    if (is_link(handle)) {
        CloseHandle(handle);
        errno = ELOOP;
        return -1;
    }
    return fd_of(handle);
}

int close(int fd) {
    if (GetFileType(handle_of(fd)) == FILE_TYPE_DISK) {
        return CloseHandle(handle_of(fd)) != 0 ? 0 : failed(GetLastError());
    }
    free_wake_socket(fd);
    return closesocket(static_cast<SOCKET>(fd)) == 0
               ? 0
               : failed(static_cast<DWORD>(WSAGetLastError()));
}

ssize_t read(int fd, void* out, std::size_t bytes) {
    DWORD got = 0;
    return ReadFile(handle_of(fd), out, static_cast<DWORD>(bytes), &got, nullptr) != 0
               ? static_cast<ssize_t>(got)
               : failed(GetLastError());
}

ssize_t pread(int fd, void* out, std::size_t bytes, off_t offset) {
    OVERLAPPED at{};
    at.Offset = static_cast<DWORD>(offset);
    at.OffsetHigh = static_cast<DWORD>(offset >> 32);
    DWORD got = 0;
    if (ReadFile(handle_of(fd), out, static_cast<DWORD>(bytes), &got, &at) != 0) {
        return static_cast<ssize_t>(got);
    }
    const DWORD error = GetLastError();
    return error == ERROR_HANDLE_EOF ? 0 : failed(error);
}

int fstat(int fd, struct stat* out) {
    BY_HANDLE_FILE_INFORMATION info{};
    FILE_STANDARD_INFO standard{};
    HANDLE handle = handle_of(fd);
    if (GetFileInformationByHandle(handle, &info) == 0 ||
        GetFileInformationByHandleEx(handle, FileStandardInfo, &standard, sizeof standard) == 0) {
        return failed(GetLastError());
    }
    *out = {};
    // Without the volume (st_dev), which wine forgets with a rename: what is compared lies in one
    // directory, but for a handle that somebody closed and whose number was given again.
    out->st_ino = static_cast<ino_t>(wide(info.nFileIndexHigh, info.nFileIndexLow));
    // Hidden: what unlinkat() could not remove at once.
    const bool is_gone = standard.DeletePending != 0 || info.nNumberOfLinks == 0 ||
                         (info.dwFileAttributes & FILE_ATTRIBUTE_HIDDEN) != 0;
    out->st_nlink = is_gone ? 0 : 1;
    out->st_mode = standard.Directory != 0 ? S_IFDIR : S_IFREG | 0600;
    if ((info.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0) {
        out->st_mode = 0;
    }
    out->st_size = standard.EndOfFile.QuadPart;
    out->st_mtim =
        unix_time(wide(info.ftLastWriteTime.dwHighDateTime, info.ftLastWriteTime.dwLowDateTime));
    if (standard.Directory != 0) {
        look_at_owner(handle, out);
    }
    return 0;
}

int fstatat(int directory, const char* file, struct stat* out, int) {
    NTSTATUS status = 0;
    const Owned handle(
        open_in(directory, file, FILE_READ_ATTRIBUTES, kShareAll, FILE_OPEN, 0, &status));
    return handle.get() != nullptr ? fstat(fd_of(handle.get()), out) : failed(status);
}

int fstatvfs(int fd, struct statvfs* out) {
    struct {
        LARGE_INTEGER total;
        LARGE_INTEGER free_to_us;
        LARGE_INTEGER free;
        ULONG sectors_per_unit;
        ULONG bytes_per_sector;
    } space{};
    IO_STATUS_BLOCK io{};
    const NTSTATUS status = NtQueryVolumeInformationFile(handle_of(fd), &io, &space, sizeof space,
                                                         kFsFullSizeInformation);
    if (!NT_SUCCESS(status)) {
        return failed(status);
    }
    out->f_blocks = static_cast<std::uint64_t>(space.total.QuadPart);
    out->f_bavail = static_cast<std::uint64_t>(space.free_to_us.QuadPart);
    out->f_frsize = std::uint64_t{space.sectors_per_unit} * space.bytes_per_sector;
    return 0;
}

int ftruncate(int fd, off_t bytes) {
    FILE_END_OF_FILE_INFO end{};
    end.EndOfFile.QuadPart = bytes;
    return SetFileInformationByHandle(handle_of(fd), FileEndOfFileInfo, &end, sizeof end) != 0
               ? 0
               : failed(GetLastError());
}

int futimens(int fd, const timespec*) {
    FILETIME now{};
    GetSystemTimeAsFileTime(&now);
    return SetFileTime(handle_of(fd), nullptr, nullptr, &now) != 0 ? 0 : failed(GetLastError());
}

int mkdir(const char* path, mode_t) {
    wchar_t wide_path[kPathUnitsMax];
    if (!widen(path, wide_path)) {
        return -1;
    }
    SECURITY_ATTRIBUTES attributes{sizeof attributes, nullptr, 0};
    // Protected: whatever the directory above lets in has no say here.
    attributes.lpSecurityDescriptor =
        make_descriptor(L"D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;%ls)");
    if (attributes.lpSecurityDescriptor == nullptr) {
        return failed(GetLastError());
    }
    const bool made = CreateDirectoryW(wide_path, &attributes) != 0;
    const DWORD error = GetLastError();
    LocalFree(attributes.lpSecurityDescriptor);
    return made ? 0 : failed(error);
}

int linkat(int directory, const char* from, int, const char* to, int) {
    wchar_t name[kNameUnitsMax];
    if (!widen(to, name)) {
        return -1;
    }
    NTSTATUS status = 0;
    const Owned handle(open_in(directory, from, DELETE, kShareAll, FILE_OPEN, 0, &status));
    if (handle.get() == nullptr) {
        return failed(status);
    }
    status = rename_to(handle.get(), directory, name);
    return NT_SUCCESS(status) ? 0 : failed(status);
}

int unlinkat(int directory, const char* file, int) {
    NTSTATUS status = 0;
    const Owned handle(open_in(directory, file,
                               DELETE | FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES, kShareAll,
                               FILE_OPEN, FILE_NON_DIRECTORY_FILE, &status));
    if (handle.get() == nullptr) {
        return failed(status);
    }
    // FILE_DISPOSITION_FLAG_DELETE, _POSIX_SEMANTICS, _IGNORE_READONLY_ATTRIBUTE: the name is free
    // when our handle is closed, whoever has the file open.
    ULONG posix = 0x1 | 0x2 | 0x10;
    if (SetFileInformationByHandle(handle.get(), kFileDispositionInfoEx, &posix, sizeof posix) !=
        0) {
        return 0;
    }
    // Not every file system can do that, nor do it to a file that somebody has mapped; and the plain
    // way leaves the name until the last handle is closed. So first the file gets the name of a
    // temporary control file, which the next sweep takes away if we cannot.
    const std::size_t bytes = std::strlen(file);
    const bool is_temporary = bytes > 4 && std::strcmp(file + bytes - 4, ".tmp") == 0;
    bool is_renamed = false;
    if (!is_temporary) {
        std::uint64_t id = 0;
        char name[kNameUnitsMax];
        wchar_t wide_name[kNameUnitsMax];
        if (!os::random_bytes(&id, sizeof id)) {
            return -1;
        }
        snprintf(name, sizeof name, "%.200s.%016" PRIx64 ".tmp", file, id);
        if (!widen(name, wide_name)) {
            return -1;
        }
        // Hidden is the mark for fstat(): to whoever has it open it has no name.
        FILE_BASIC_INFO mark{};
        mark.FileAttributes = FILE_ATTRIBUTE_HIDDEN | FILE_ATTRIBUTE_TEMPORARY;
        status = rename_to(handle.get(), directory, wide_name);
        if (!NT_SUCCESS(status)) {
            return failed(status);
        }
        is_renamed = true;
        SetFileInformationByHandle(handle.get(), FileBasicInfo, &mark, sizeof mark);
    }
    FILE_DISPOSITION_INFO remove{1};
    return SetFileInformationByHandle(handle.get(), FileDispositionInfo, &remove, sizeof remove) !=
                       0 ||
                   is_renamed
               ? 0
               : failed(GetLastError());
}

int fchmod(int, mode_t mode) { return refuse_group(mode); }
int fchmodat(int, const char*, mode_t mode, int) { return refuse_group(mode); }
std::uint32_t getpid() { return GetCurrentProcessId(); }

const char* getenv(const char* name) {
    static constinit thread_local char value[kPathUnitsMax * 3];
    wchar_t wide_name[64];
    wchar_t wide_value[kPathUnitsMax];
    if (!widen(name, wide_name)) {
        return nullptr;
    }
    const DWORD units = GetEnvironmentVariableW(wide_name, wide_value, kPathUnitsMax);
    if (units == 0 || units >= kPathUnitsMax ||
        WideCharToMultiByte(CP_UTF8, 0, wide_value, -1, value, sizeof value, nullptr, nullptr) ==
            0) {
        return nullptr;
    }
    return value;
}

struct DIR {
    int directory;
    bool is_begun;
    ULONG at;  // in `found`; 0 with nothing left: ask for more
    bool is_more;
    dirent entry;
    alignas(8) unsigned char found[16384];
};

DIR* fdopendir(int directory) {
    void* memory = std::malloc(sizeof(DIR));
    if (memory == nullptr) {
        errno = ENOMEM;
        return nullptr;
    }
    auto* entries = new (memory) DIR;
    entries->directory = directory;
    entries->is_begun = false;
    entries->is_more = false;
    entries->at = 0;
    return entries;
}

const dirent* readdir(DIR* entries) {
    for (;;) {
        if (!entries->is_more) {
            IO_STATUS_BLOCK io{};
            const NTSTATUS status = NtQueryDirectoryFile(
                handle_of(entries->directory), nullptr, nullptr, nullptr, &io, entries->found,
                sizeof entries->found, kFileDirectoryInformation, 0, nullptr,
                entries->is_begun ? 0 : 1);
            entries->is_begun = true;
            if (!NT_SUCCESS(status)) {
                if (status != kNoMoreFiles) {
                    static_cast<void>(failed(status));
                }
                return nullptr;
            }
            entries->at = 0;
            entries->is_more = true;
        }
        // FILE_DIRECTORY_INFORMATION: at 0 where the next one is, at 60 the bytes of the name, at
        // 64 the name.
        const unsigned char* info = entries->found + entries->at;
        ULONG next = 0;
        ULONG bytes = 0;
        std::memcpy(&next, info, sizeof next);
        std::memcpy(&bytes, info + 60, sizeof bytes);
        entries->at += next;
        entries->is_more = next != 0;
        const int used =
            WideCharToMultiByte(CP_UTF8, 0, reinterpret_cast<const wchar_t*>(info + 64),
                                static_cast<int>(bytes / sizeof(wchar_t)), entries->entry.d_name,
                                sizeof entries->entry.d_name - 1, nullptr, nullptr);
        if (used > 0) {
            entries->entry.d_name[used] = '\0';
            return &entries->entry;
        }
    }
}

int closedir(DIR* entries) {
    const int result = close(entries->directory);
    std::free(entries);
    return result;
}

// ---- locks
//
// Byte b of a lock is the two bytes at kLockBase + 2 b, where no file has any. A look whether
// another one has it (F_GETLK) is a shared lock of the first of the two, given back at once: it is
// granted over our own exclusive lock and refused by anybody else's, and as its range is another one
// it cannot be mistaken for the lock when it is given back. Looks do not disturb each other. Whoever
// wants the lock while somebody looks would be refused, so it asks a few times; where that was not
// enough, the row is left to the next one, or the next second, as after any lost race.

namespace {
constexpr std::uint64_t kLockBase = std::uint64_t{1} << 62;
constexpr int kLockAttempts = 4;

OVERLAPPED place_of(off_t byte) {
    const std::uint64_t place = kLockBase + 2 * static_cast<std::uint64_t>(byte);
    OVERLAPPED at{};
    at.Offset = static_cast<DWORD>(place);
    at.OffsetHigh = static_cast<DWORD>(place >> 32);
    return at;
}
}  // namespace

int fcntl(int fd, int command, struct flock* range) {
    HANDLE handle = handle_of(fd);
    OVERLAPPED at = place_of(range->l_start);
    if (command == os::kGetLock) {
        if (LockFileEx(handle, LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at) == 0) {
            return GetLastError() == ERROR_LOCK_VIOLATION ? 0 : failed(GetLastError());
        }
        UnlockFileEx(handle, 0, 1, 0, &at);
        range->l_type = F_UNLCK;
        return 0;
    }
    if (range->l_type == F_UNLCK) {
        return UnlockFileEx(handle, 0, 2, 0, &at) != 0 ? 0 : failed(GetLastError());
    }
    const DWORD flags = range->l_type == F_WRLCK
                            ? LOCKFILE_FAIL_IMMEDIATELY | LOCKFILE_EXCLUSIVE_LOCK
                            : LOCKFILE_FAIL_IMMEDIATELY;
    for (int attempt = 1;; ++attempt) {
        if (LockFileEx(handle, flags, 0, 2, 0, &at) != 0) {
            return 0;
        }
        const DWORD error = GetLastError();
        if (error != ERROR_LOCK_VIOLATION || attempt == kLockAttempts) {
            return failed(error);
        }
        SwitchToThread();
    }
}

int fcntl(int fd, int, int) {
    HANDLE copy = nullptr;
    return DuplicateHandle(GetCurrentProcess(), handle_of(fd), GetCurrentProcess(), &copy, 0, 0,
                           DUPLICATE_SAME_ACCESS) != 0
               ? fd_of(copy)
               : failed(GetLastError());
}

// ---- memory

namespace {

// What is mapped, so that a word's address says which file it is in, and where.
struct Mapping {
    Mapping* next;
    unsigned char* memory;
    std::size_t bytes;
    ino_t inode;
};
constinit SRWLOCK mappings_lock = SRWLOCK_INIT;
constinit Mapping* mappings = nullptr;

}  // namespace

void* mmap(void*, std::size_t bytes, int protection, int, int fd, off_t) {
    const bool writable = (protection & PROT_WRITE) != 0;
    struct stat info{};
    if (fstat(fd, &info) != 0) {
        return MAP_FAILED;
    }
    auto* mapping = static_cast<Mapping*>(std::malloc(sizeof(Mapping)));
    if (mapping == nullptr) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    const Owned section(CreateFileMappingW(
        handle_of(fd), nullptr, writable ? PAGE_READWRITE : PAGE_READONLY, 0, 0, nullptr));
    void* memory =
        section.get() != nullptr
            ? MapViewOfFile(section.get(),
                            writable ? FILE_MAP_READ | FILE_MAP_WRITE : FILE_MAP_READ, 0, 0, bytes)
            : nullptr;
    if (memory == nullptr) {
        static_cast<void>(failed(GetLastError()));
        std::free(mapping);
        return MAP_FAILED;
    }
    const Exclusive guard(mappings_lock);
    *mapping = {mappings, static_cast<unsigned char*>(memory), bytes, info.st_ino};
    mappings = mapping;
    return memory;
}

int munmap(void* memory, std::size_t) {
    {
        const Exclusive guard(mappings_lock);
        for (Mapping** link = &mappings; *link != nullptr; link = &(*link)->next) {
            if ((*link)->memory == memory) {
                Mapping* mapping = *link;
                *link = mapping->next;
                std::free(mapping);
                break;
            }
        }
    }
    return UnmapViewOfFile(memory) != 0 ? 0 : failed(GetLastError());
}

// ---- time and threads

int clock_gettime(clockid_t clock, timespec* out) {
    if (clock == CLOCK_REALTIME) {
        FILETIME now{};
        GetSystemTimePreciseAsFileTime(&now);
        *out = unix_time(wide(now.dwHighDateTime, now.dwLowDateTime));
        return 0;
    }
    LARGE_INTEGER ticks;
    LARGE_INTEGER rate;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&rate);  // one number for ever, read without the kernel
    out->tv_sec = static_cast<time_t>(ticks.QuadPart / rate.QuadPart);
    out->tv_nsec = static_cast<long>(ticks.QuadPart % rate.QuadPart * 1000000000 / rate.QuadPart);
    return 0;
}

int nanosleep(const timespec* pause, timespec*) {
    Sleep(static_cast<DWORD>(pause->tv_sec * 1000 + (pause->tv_nsec + 999999) / 1000000));
    return 0;
}

int sched_yield() {
    SwitchToThread();
    return 0;
}

int pthread_mutex_lock(pthread_mutex_t* mutex) {
    AcquireSRWLockExclusive(reinterpret_cast<SRWLOCK*>(&mutex->lock));
    return 0;
}
int pthread_mutex_unlock(pthread_mutex_t* mutex) {
    ReleaseSRWLockExclusive(reinterpret_cast<SRWLOCK*>(&mutex->lock));
    return 0;
}

}  // namespace framegate::impl

namespace framegate::impl::os {
namespace {

DWORD milliseconds(std::int64_t ns) {
    const std::int64_t ms = (ns + 999999) / 1000000;
    return ms < 0x7fffffff ? static_cast<DWORD>(ms) : 0x7fffffff;
}

using EventName = wchar_t[96];

// Of the sleepers on this word that saw this value; files with the same number on two volumes share
// it, which costs a wake for nothing. False if it is in nothing that we have mapped.
bool event_name(EventName& out, const void* word, std::uint32_t value) {
    const auto* at = static_cast<const unsigned char*>(word);
    bool found = false;
    AcquireSRWLockShared(&mappings_lock);
    for (const Mapping* mapping = mappings; mapping != nullptr; mapping = mapping->next) {
        if (at >= mapping->memory && at < mapping->memory + mapping->bytes) {
            // Global: of all sessions; the user may have several.
            swprintf(out, sizeof out / sizeof *out, L"Global\\framegate-%016llx-%llx-%08x",
                     static_cast<unsigned long long>(mapping->inode),
                     static_cast<unsigned long long>(at - mapping->memory), value);
            found = true;
            break;
        }
    }
    ReleaseSRWLockShared(&mappings_lock);
    return found;
}

// Made once; nullptr, and so the default, if it cannot be.
PSECURITY_DESCRIPTOR event_descriptor() {
    static constinit std::atomic<void*> known{nullptr};
    // acquire: pairs with the release below.
    void* descriptor = known.load(std::memory_order_acquire);
    if (descriptor == nullptr) {
        void* made = make_descriptor(L"D:(A;;GA;;;SY)(A;;GA;;;%ls)S:(ML;;NW;;;ME)");
        if (made != nullptr &&
            !known.compare_exchange_strong(descriptor, made, std::memory_order_acq_rel,
                                           std::memory_order_acquire)) {
            LocalFree(made);  // another thread was faster
        } else {
            descriptor = made;
        }
    }
    return descriptor;
}

}  // namespace

void sleep_in_process(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                      std::int64_t timeout_ns) {
    WaitOnAddress(const_cast<std::atomic<std::uint32_t>*>(&word), &value, sizeof value,
                  milliseconds(timeout_ns));
}

void wake_one_in_process(std::atomic<std::uint32_t>& word) { WakeByAddressSingle(&word); }

int sleep_shared(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                 std::int64_t timeout_ns) {
    EventName name;
    SECURITY_ATTRIBUTES attributes{sizeof attributes, event_descriptor(), 0};
    const Owned event(
        event_name(name, &word, value)
            ? CreateEventExW(&attributes, name, CREATE_EVENT_MANUAL_RESET, SYNCHRONIZE)
            : nullptr);
    if (event.get() == nullptr) {
        Sleep(1);  // somebody else's name, or no memory: a nap, and the caller looks again
        errno = ETIMEDOUT;
        return -1;
    }
    // seq_cst, after the event was opened: pairs with the change of the word before wake_all_shared()
    // looks for the event.
    if (word.load(std::memory_order_seq_cst) != value ||
        WaitForSingleObject(event.get(), milliseconds(timeout_ns)) == WAIT_OBJECT_0) {
        return 0;
    }
    errno = ETIMEDOUT;
    return -1;
}

void wake_all_shared(std::atomic<std::uint32_t>& word, std::uint32_t before) {
    EventName name;
    if (event_name(name, &word, before)) {
        const Owned event(OpenEventW(EVENT_MODIFY_STATE, 0, name));
        if (event.get() != nullptr) {
            SetEvent(event.get());
        }
    }
}

// By its name, as on macOS: who finds no name has no evidence.
int reopen_control_file(int, int directory, const char* stem) {
    char file[kNameUnitsMax];
    snprintf(file, sizeof file, "%.200s.ctl", stem);
    return openat(directory, file, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
}

// ---- the wake fd

namespace {

int socket_failed() { return failed(static_cast<DWORD>(WSAGetLastError())); }

void CALLBACK tick(PTP_CALLBACK_INSTANCE, void* context, PTP_TIMER) {
    auto* self = static_cast<WakeSocket*>(context);
    // release: pairs with drain_wake_set(). Before the datagram: whoever is woken finds it.
    self->ticked.store(true, std::memory_order_release);
    const char byte = 1;
    sendto(static_cast<SOCKET>(self->socket), &byte, 1, 0,
           reinterpret_cast<const sockaddr*>(&self->address), sizeof self->address);
}

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = port;
    return address;
}

}  // namespace

int open_datagram_socket() {
    WSADATA data;
    // Counted by the library; never given back.
    static constinit std::atomic<bool> is_started{false};
    if (!is_started.load(std::memory_order_acquire)) {  // acquire, release: a start comes before
        if (WSAStartup(MAKEWORD(2, 2), &data) != 0) {
            errno = ENOTSUP;
            return -1;
        }
        is_started.store(true, std::memory_order_release);
    }
    const SOCKET made = WSASocketW(AF_INET, SOCK_DGRAM, IPPROTO_UDP, nullptr, 0,
                                   WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (made == INVALID_SOCKET) {
        return socket_failed();
    }
    u_long yes = 1;
    if (ioctlsocket(made, static_cast<long>(FIONBIO), &yes) != 0) {
        const int result = socket_failed();
        closesocket(made);
        return result;
    }
    return static_cast<int>(made);
}

// The file is removed by the system when its handle is closed, by us or by our death, and nobody
// else can remove it before: it does not share deletion.
int bind_in(int socket, int directory, const char* file, mode_t mode) {
    if (refuse_group(mode) != 0) {
        return -1;
    }
    sockaddr_in address = loopback(0);
    int bytes = sizeof address;
    const BOOL yes = 1;
    if (setsockopt(static_cast<SOCKET>(socket), SOL_SOCKET, SO_EXCLUSIVEADDRUSE,
                   reinterpret_cast<const char*>(&yes), sizeof yes) != 0 ||
        bind(static_cast<SOCKET>(socket), reinterpret_cast<const sockaddr*>(&address),
             sizeof address) != 0 ||
        getsockname(static_cast<SOCKET>(socket), reinterpret_cast<sockaddr*>(&address), &bytes) !=
            0) {
        return socket_failed();
    }
    void* memory = std::malloc(sizeof(WakeSocket));
    if (memory == nullptr) {
        errno = ENOMEM;
        return -1;
    }
    NTSTATUS status = 0;
    HANDLE handle = open_in(directory, file, FILE_GENERIC_READ | FILE_GENERIC_WRITE | DELETE,
                            FILE_SHARE_READ | FILE_SHARE_WRITE, FILE_CREATE,
                            FILE_NON_DIRECTORY_FILE | FILE_DELETE_ON_CLOSE, &status);
    if (handle == nullptr) {
        std::free(memory);
        return failed(status);
    }
    DWORD written = 0;
    if (WriteFile(handle, &address.sin_port, sizeof address.sin_port, &written, nullptr) == 0) {
        const int result = failed(GetLastError());
        CloseHandle(handle);
        std::free(memory);
        return result;
    }
    auto* made = new (memory) WakeSocket;
    made->socket = socket;
    made->file = handle;
    made->address = address;
    made->timer = nullptr;
    made->ticked.store(false, std::memory_order_relaxed);  // relaxed: nobody else knows it yet
    add_wake_socket(*made);
    return 0;
}

// Is somebody bound to it? Only whether its file could be removed is asked.
int connect_in(int, int directory, const char* file) {
    NTSTATUS status = 0;
    const Owned handle(
        open_in(directory, file, DELETE, kShareAll, FILE_OPEN, FILE_NON_DIRECTORY_FILE, &status));
    if (handle.get() != nullptr) {
        errno = ECONNREFUSED;  // left behind by a machine that stopped
        return -1;
    }
    static_cast<void>(failed(status));
    return errno == EBUSY ? 0 : -1;
}

ssize_t send_in(int socket, int directory, const char* file) {
    const int fd = openat(directory, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    std::uint16_t port = 0;
    const bool is_known = pread(fd, &port, sizeof port, 0) == sizeof port;
    close(fd);
    if (!is_known) {
        errno = ECONNREFUSED;
        return -1;
    }
    const sockaddr_in address = loopback(port);
    const char byte = 1;
    return sendto(static_cast<SOCKET>(socket), &byte, 1, 0,
                  reinterpret_cast<const sockaddr*>(&address), sizeof address) == 1
               ? 1
               : socket_failed();
}

ssize_t send_connected(int socket) {
    const char byte = 1;
    return send(static_cast<SOCKET>(socket), &byte, 1, 0) == 1 ? 1 : socket_failed();
}

bool queue_was_full(int error) { return error == EAGAIN; }

int open_wake_set(int*, int* timer) {
    *timer = -1;
    return 0;
}

int fill_wake_set(int, int, int) { return 0; }

// It ticks once, as on macOS.
bool start_timer(int socket, int, std::int64_t period_ns) {
    WakeSocket* self = find_wake_socket(socket);
    if (self == nullptr) {
        return false;
    }
    if (self->timer == nullptr) {
        self->timer = CreateThreadpoolTimer(tick, self, nullptr);
    }
    if (self->timer == nullptr) {
        return false;
    }
    const std::int64_t in = -period_ns / 100;  // negative: from now
    FILETIME due;
    std::memcpy(&due, &in, sizeof due);
    SetThreadpoolTimer(self->timer, &due, 0, 0);
    return true;
}

bool drain_wake_set(int, int socket, int, bool) {
    char byte = 0;
    while (recv(static_cast<SOCKET>(socket), &byte, 1, 0) >= 0 ||
           WSAGetLastError() == WSAEMSGSIZE) {
    }
    WakeSocket* self = find_wake_socket(socket);
    // acquire: pairs with tick().
    return self != nullptr && self->ticked.exchange(false, std::memory_order_acquire);
}

bool random_bytes(void* out, std::size_t bytes) {
    return BCryptGenRandom(nullptr, static_cast<unsigned char*>(out), static_cast<ULONG>(bytes),
                           BCRYPT_USE_SYSTEM_PREFERRED_RNG) == 0;
}

// Files are not sparse: their end says what they have. A disk that is full later is no error here.
int allocate_file(int fd, std::uint64_t offset, std::uint64_t bytes) {
    struct stat info{};
    if (fstat(fd, &info) != 0) {
        return errno;
    }
    const auto end = static_cast<off_t>(offset + bytes);
    return end <= info.st_size || ftruncate(fd, end) == 0 ? 0 : errno;
}

// The user's own directory for what stays on this machine.
int default_runtime_directory(char* out, std::size_t bytes) {
    const char* parent = getenv("LOCALAPPDATA");
    parent = parent != nullptr ? parent : getenv("TEMP");
    return snprintf(out, bytes, "%s\\framegate", parent != nullptr ? parent : "");
}

}  // namespace framegate::impl::os
#endif
