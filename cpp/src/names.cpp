// One grammar for all languages (types of characters are ASCII, whatever the locale says). A
// topic's files lie in one flat directory, so the '/' between segments becomes "%2F"; '%' cannot
// occur in a name, so the inverse is unique.
//
// The runtime directory is the trust boundary: whoever can open a control file for writing can
// break delivery on that topic. Hence 0700 and ours; a directory shared with a group must be named
// explicitly and carry the setgid bit.
#include "names.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "os.hpp"
#include "status.hpp"

namespace framegate::impl {
namespace {

bool is_first(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}
bool is_rest(char c) { return is_first(c) || c == '.' || c == '-'; }

// What is wrong with the name, or nullptr.
const char* complaint(const char* name, std::size_t bytes) {
    if (bytes == 0) {
        return "it is empty";
    }
    if (bytes > FG_TOPIC_NAME_BYTES_MAX) {
        return "it is longer than 128 bytes";
    }
    int segments = 1;
    bool at_start = true;
    for (std::size_t i = 0; i < bytes; ++i) {
        const char c = name[i];
        if (c == '/') {
            if (at_start) {
                return "a segment is empty";
            }
            at_start = true;
            if (++segments > FG_TOPIC_SEGMENTS_MAX) {
                return "it has more than 8 segments";
            }
            continue;
        }
        if (at_start ? !is_first(c) : !is_rest(c)) {
            return at_start ? "a segment begins with a character other than A-Z a-z 0-9 _"
                            : "it contains a character other than A-Z a-z 0-9 _ . - and /";
        }
        if (c == '.' && name[i - 1] == '.') {
            return "it contains '..'";
        }
        at_start = false;
    }
    return at_start ? "a segment is empty" : nullptr;
}

}  // namespace

fg_status check_topic_name(const char* name, std::size_t bytes) {
    const char* problem = complaint(name, bytes);
    if (problem == nullptr) {
        return FG_OK;
    }
    char shown[FG_TOPIC_NAME_BYTES_MAX + 1];
    const std::size_t shown_bytes = bytes < sizeof shown - 1 ? bytes : sizeof shown - 1;
    for (std::size_t i = 0; i < shown_bytes; ++i) {
        shown[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
    }
    shown[shown_bytes] = '\0';
    return fail(FG_BAD_TOPIC_NAME, "bad topic name \"%s\": %s", shown, problem);
}

fg_status topic_file_stem(const char* name, std::size_t bytes, char* out, std::size_t out_bytes) {
    if (const fg_status status = check_topic_name(name, bytes); status != FG_OK) {
        return status;
    }
    std::size_t used = 0;
    for (std::size_t i = 0; i < bytes; ++i) {
        const std::size_t wanted = name[i] == '/' ? 3 : 1;
        if (used + wanted + 1 > out_bytes) {
            return fail(FG_INVALID_ARGUMENT, "a topic file name needs %d bytes, %zu were given",
                        FG_TOPIC_FILE_NAME_BYTES_MAX, out_bytes);
        }
        if (name[i] == '/') {
            std::memcpy(out + used, "%2F", 3);
        } else {
            out[used] = name[i];
        }
        used += wanted;
    }
    out[used] = '\0';
    return FG_OK;
}

fg_status topic_name_from_file(const char* file, std::size_t bytes, char* out,
                               std::size_t out_bytes) {
    static constexpr char kSuffix[] = ".ctl";
    constexpr std::size_t kSuffixBytes = sizeof kSuffix - 1;
    char name[FG_TOPIC_NAME_BYTES_MAX + 1];
    std::size_t used = 0;
    bool good = bytes > kSuffixBytes &&
                std::memcmp(file + bytes - kSuffixBytes, kSuffix, kSuffixBytes) == 0;
    for (std::size_t i = 0; good && i < bytes - kSuffixBytes; ++i) {
        char c = file[i];
        if (c == '%') {
            good = i + 2 < bytes - kSuffixBytes && file[i + 1] == '2' && file[i + 2] == 'F';
            c = '/';
            i += 2;
        } else if (c == '/') {
            good = false;
        }
        good = good && used < FG_TOPIC_NAME_BYTES_MAX;
        if (good) {
            name[used++] = c;
        }
    }
    if (!good || complaint(name, used) != nullptr) {
        return fail(FG_BAD_TOPIC_NAME, "the file is not the control file of a topic");
    }
    if (used + 1 > out_bytes) {
        return fail(FG_INVALID_ARGUMENT, "the topic name needs %zu bytes, %zu were given", used + 1,
                    out_bytes);
    }
    std::memcpy(out, name, used);
    out[used] = '\0';
    return FG_OK;
}

namespace {
const char* explicit_directory() {
    const char* path = getenv("FRAMEGATE_RUNTIME_DIR");
    return path != nullptr && path[0] != '\0' ? path : nullptr;
}
}  // namespace

fg_status runtime_directory_path(char* out, std::size_t out_bytes) {
    const char* path = explicit_directory();
    const int used = path != nullptr ? snprintf(out, out_bytes, "%s", path)
                                     : os::default_runtime_directory(out, out_bytes);
    if (used < 0 || static_cast<std::size_t>(used) >= out_bytes) {
        return fail(FG_INVALID_ARGUMENT,
                    "the path of the runtime directory does not fit into %zu bytes", out_bytes);
    }
    return FG_OK;
}

fg_status open_runtime_directory(bool create, int* out) {
    char path[kPathBytesMax];
    if (const fg_status status = runtime_directory_path(path, sizeof path); status != FG_OK) {
        return fail(FG_RUNTIME_DIRECTORY,
                    "the path of the runtime directory is longer than %zu bytes", sizeof path);
    }
    if (create && mkdir(path, 0700) != 0 && errno != EEXIST) {
        const fg_status status = fail_errno("cannot create the runtime directory %s", path);
        return status == FG_SYSTEM ? static_cast<fg_status>(FG_RUNTIME_DIRECTORY) : status;
    }
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        const int error = errno;
        if (error == ENOENT) {
            return fail(FG_TOPIC_NOT_FOUND,
                        "there is no runtime directory %s, so there is no topic", path);
        }
        if (error == ELOOP || error == ENOTDIR) {
            return fail(FG_RUNTIME_DIRECTORY,
                        "the runtime directory %s is not a directory (or a symbolic link)", path);
        }
        errno = error;
        return fail_errno("cannot open the runtime directory %s", path);
    }
    struct stat info{};
    if (fstat(fd, &info) != 0) {
        const fg_status status = fail_errno("cannot stat the runtime directory %s", path);
        close(fd);
        return status;
    }
    const bool ours = info.st_uid == geteuid();
    const bool is_private = (info.st_mode & 0077) == 0;
    // Shared with a group on purpose: named by the variable, setgid, nothing for others.
    const bool is_group = explicit_directory() != nullptr && (info.st_mode & S_ISGID) != 0 &&
                          (info.st_mode & 0007) == 0 &&
                          (ours || info.st_uid == 0 || (info.st_mode & 0070) == 0070);
    if (!(ours && is_private) && !is_group) {
        close(fd);
        return fail(FG_RUNTIME_DIRECTORY,
                    "the runtime directory %s is not safe: owner %u, mode %04o; it must belong to "
                    "user %u with mode "
                    "0700 (or, named by FRAMEGATE_RUNTIME_DIR, be a group's with mode 2770)",
                    path, info.st_uid, static_cast<unsigned>(info.st_mode & 07777), geteuid());
    }
    *out = fd;
    return FG_OK;
}

}  // namespace framegate::impl
