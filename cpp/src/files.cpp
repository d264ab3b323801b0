// A creator (or resizer) holds a lock on byte 0 of its data file from the file's first moment until
// a control file leads to it. So a file whose lock is free and to which nothing leads will never be
// needed: its creator died, or its topic was unlinked by somebody who died half way. The chain that
// leads to a generation begins in "<stem>.ctl" and goes on in SharedWords.next_generation.
#include "files.hpp"

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "fork.hpp"
#include "generation.hpp"
#include "liveness.hpp"
#include "os.hpp"

namespace framegate::impl {
namespace {

// What a control file says. Only a name that is not there, or a file that was read and is not ours,
// leads nowhere; one that could not be opened or read (no descriptor, no memory) may lead anywhere.
enum class Peek { kRead, kNowhere, kUnknown };

// Id of the generation that this control file describes, and of the one after it. The file is not
// judged, only recognised; a damaged one leads nowhere.
Peek peek_generation(int directory, const char* file, std::uint64_t* id, std::uint64_t* next) {
    Identity identity{};
    const Fd fd(openat(directory, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    if (fd.get() < 0) {
        return errno == ENOENT ? Peek::kNowhere : Peek::kUnknown;
    }
    ssize_t got = pread(fd.get(), &identity, sizeof identity, 0);
    if (got != static_cast<ssize_t>(sizeof identity) ||
        std::memcmp(identity.magic, kMagic, sizeof kMagic) != 0 ||
        identity.shared_offset > identity.control_bytes) {
        return got >= 0 ? Peek::kNowhere : Peek::kUnknown;
    }
    *id = identity.id[0];
    const std::uint64_t at = identity.shared_offset + offsetof(SharedWords, next_generation);
    got = pread(fd.get(), next, sizeof *next, static_cast<off_t>(at));
    if (got == static_cast<ssize_t>(sizeof *next)) {
        return Peek::kRead;
    }
    return got >= 0 ? Peek::kNowhere : Peek::kUnknown;
}

// Splits "<stem>.<16 hex digits><suffix>".
bool split_file_name(const char* file, const char* suffix, char (&stem)[kFileBytesMax],
                     std::uint64_t* id) {
    const std::size_t bytes = std::strlen(file);
    const std::size_t tail = 1 + 16 + std::strlen(suffix);
    if (bytes <= tail || bytes >= kFileBytesMax ||
        std::strcmp(file + bytes - std::strlen(suffix), suffix) != 0 || file[bytes - tail] != '.') {
        return false;
    }
    std::uint64_t value = 0;
    for (const char* digit = file + bytes - tail + 1; digit < file + bytes - std::strlen(suffix);
         ++digit) {
        const char c = *digit;
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        value = value << 4 | static_cast<std::uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    std::memcpy(stem, file, bytes - tail);
    stem[bytes - tail] = '\0';
    *id = value;
    return true;
}

// Does a living creator stand behind the data file? Answers no only while holding its lock (closed
// with the fd, which is recorded: a child that kept the lock would look like that creator).
bool creator_is_gone(int data_fd) { return data_fd >= 0 && lock_byte(data_fd, 0); }

// Does the control file lead to generation `id`?
enum class Led { kYes, kNo, kUnknown };
Led leads_to(int directory, const char* stem, std::uint64_t id) {
    char file[kFileBytesMax];
    control_file_name(file, stem);
    for (int step = 0; step < kGenerationStepsMax; ++step) {
        std::uint64_t found = 0;
        std::uint64_t next = 0;
        const Peek peek = peek_generation(directory, file, &found, &next);
        if (peek != Peek::kRead) {
            // Without a control file there is nothing to lead; a later link can have been taken out
            // of the chain under our eyes.
            return step == 0 && peek == Peek::kNowhere ? Led::kNo : Led::kUnknown;
        }
        if (found == id) {
            return Led::kYes;
        }
        if (next == 0) {
            return Led::kNo;
        }
        generation_file_name(file, stem, next);
    }
    return Led::kUnknown;
}

// `file` is the data file or the control file of generation `id`.
bool sweep_generation_file(int directory, const char* file, const char* stem, std::uint64_t id) {
    char data[kFileBytesMax];
    data_file_name(data, stem, id);
    const RecordedFd fd(directory, data, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    const bool data_is_gone = fd.get() < 0 && errno == ENOENT;
    // The chain is read only now, under the lock: the creator linked the file or never will.
    return (data_is_gone || creator_is_gone(fd.get())) &&
           leads_to(directory, stem, id) == Led::kNo && unlinkat(directory, file, 0) == 0;
}

bool sweep_temporary_file(int directory, const char* file, const char* stem, std::uint64_t id) {
    char data[kFileBytesMax];
    data_file_name(data, stem, id);
    const RecordedFd fd(directory, data, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    // If it was linked, it lives on under its real name.
    return ((fd.get() < 0 && errno == ENOENT) || creator_is_gone(fd.get())) &&
           unlinkat(directory, file, 0) == 0;
}

bool sweep_socket(int directory, const char* file) {
    // Nobody bound to it any more: ECONNREFUSED.
    const Fd fd(os::open_datagram_socket());
    return fd.get() >= 0 && os::connect_in(fd.get(), directory, file) != 0 &&
           errno == ECONNREFUSED && unlinkat(directory, file, 0) == 0;
}

// The entries of a directory that stays open, by a descriptor of their own; nullptr on failure.
DIR* open_entries(int directory) {
    const int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR* entries = copy >= 0 ? fdopendir(copy) : nullptr;
    if (entries == nullptr && copy >= 0) {
        close(copy);
    }
    return entries;
}

}  // namespace

void data_file_name(char (&out)[kFileBytesMax], const char* stem, std::uint64_t id) {
    snprintf(out, sizeof out, "%.200s.%016" PRIx64 ".data", stem, id);
}
void generation_file_name(char (&out)[kFileBytesMax], const char* stem, std::uint64_t id) {
    snprintf(out, sizeof out, "%.200s.%016" PRIx64 ".gen", stem, id);
}
void temporary_file_name(char (&out)[kFileBytesMax], const char* stem, std::uint64_t id) {
    snprintf(out, sizeof out, "%.200s.%016" PRIx64 ".tmp", stem, id);
}
void control_file_name(char (&out)[kFileBytesMax], const char* stem) {
    snprintf(out, sizeof out, "%.200s.ctl", stem);
}

std::uint64_t bytes_of_topic(int directory, const char* stem) {
    DIR* entries = open_entries(directory);
    if (entries == nullptr) {
        return 0;
    }
    char control[kFileBytesMax];
    control_file_name(control, stem);
    std::uint64_t bytes = 0;
    while (const dirent* entry = readdir(entries)) {
        char found[kFileBytesMax];
        std::uint64_t id = 0;
        struct stat info{};
        const bool is_later = (split_file_name(entry->d_name, ".data", found, &id) ||
                               split_file_name(entry->d_name, ".gen", found, &id)) &&
                              std::strcmp(found, stem) == 0;
        if ((is_later || std::strcmp(entry->d_name, control) == 0) &&
            fstatat(directory, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
            bytes += static_cast<std::uint64_t>(info.st_size);
        }
    }
    closedir(entries);
    return bytes;
}

std::uint32_t sweep_orphans(int directory, const char* only_stem) {
    DIR* entries = open_entries(directory);
    if (entries == nullptr) {
        return 0;
    }
    std::uint32_t removed = 0;
    while (const dirent* entry = readdir(entries)) {
        char stem[kFileBytesMax];
        std::uint64_t id = 0;
        const char* file = entry->d_name;
        const std::size_t bytes = std::strlen(file);
        const auto is_ours = [&](const char* suffix) {
            return split_file_name(file, suffix, stem, &id) &&
                   (only_stem == nullptr || std::strcmp(stem, only_stem) == 0);
        };
        bool gone = false;
        if (is_ours(".data") || is_ours(".gen")) {
            gone = sweep_generation_file(directory, file, stem, id);
        } else if (is_ours(".tmp")) {
            gone = sweep_temporary_file(directory, file, stem, id);
        } else if (only_stem == nullptr && bytes > 5 &&
                   std::strcmp(file + bytes - 5, ".sock") == 0) {
            gone = sweep_socket(directory, file);
        }
        removed += gone ? 1 : 0;
    }
    closedir(entries);
    return removed;
}

}  // namespace framegate::impl
