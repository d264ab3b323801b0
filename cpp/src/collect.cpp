// Every process that has a topic open holds a shared lock on byte kOpenByte of its control file, from
// before it checks that the file still has its name until it closes the topic. The collector takes
// the same byte exclusively: it gets it only if nobody has the topic open, and whoever opens it
// afterwards finds the name gone (or another topic behind it) and looks again. So no order of the
// two removes a topic under somebody.
//
// The age is that of the control file's modification time, which every attach, detach and reap sets.
#include "collect.hpp"

#include <cerrno>
#include <cstring>
#include <ctime>

#include "files.hpp"
#include "fork.hpp"
#include "liveness.hpp"
#include "names.hpp"
#include "os.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "topic.hpp"

namespace framegate::impl {
namespace {

std::int64_t age_of(const struct stat& info) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    const timespec then = os::modified(info);
    return (static_cast<std::int64_t>(now.tv_sec) - then.tv_sec) * 1000000000 +
           (now.tv_nsec - then.tv_nsec);
}

// Under the exclusive lock of `fd`: is this file, by this name, to go?
bool is_stale(int directory, const char* file, int fd, std::int64_t age_ns) {
    struct stat opened{};
    struct stat named{};
    if (fstat(fd, &opened) != 0 || fstatat(directory, file, &named, AT_SYMLINK_NOFOLLOW) != 0 ||
        opened.st_ino != named.st_ino || opened.st_dev != named.st_dev || age_of(opened) < age_ns) {
        return false;
    }
    Identity identity{};
    const bool is_ours =
        pread(fd, &identity, sizeof identity, 0) == static_cast<ssize_t>(sizeof identity) &&
        std::memcmp(identity.magic, kMagic, sizeof kMagic) == 0;
    // Another version may show its users in another way. What is not even a header is damaged.
    return !is_ours || identity.layout_version == FG_LAYOUT_VERSION;
}

}  // namespace

fg_status collect_stale_topics(std::int64_t age_ns, bool dry_run, fg_stale_topic visit,
                               void* context, std::uint32_t* orphans) {
    if (age_ns < 0) {
        return fail(FG_INVALID_ARGUMENT, "the age is negative");
    }
    std::uint32_t removed = 0;
    int raw = -1;
    const fg_status status = open_runtime_directory(false, &raw);
    if (status != FG_OK) {
        if (orphans != nullptr) {
            *orphans = 0;
        }
        return status == FG_TOPIC_NOT_FOUND ? static_cast<fg_status>(FG_OK) : status;
    }
    const Fd directory(raw);
    const int copy = openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR* entries = copy >= 0 ? fdopendir(copy) : nullptr;
    if (entries == nullptr) {
        const fg_status failed = fail_errno("cannot list the runtime directory");
        if (copy >= 0) {
            close(copy);
        }
        return failed;
    }
    while (const dirent* entry = readdir(entries)) {
        const char* file = entry->d_name;
        char name[FG_TOPIC_NAME_BYTES_MAX + 1];
        if (topic_name_from_file(file, std::strlen(file), name, sizeof name) != FG_OK) {
            continue;
        }
        // Recorded: a child that kept the lock would keep everybody from opening the topic.
        const RecordedFd fd(directory.get(), file, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        struct stat info{};
        if (fd.get() < 0 || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) ||
            !lock_byte(fd.get(), kOpenByte) || !is_stale(directory.get(), file, fd.get(), age_ns)) {
            continue;
        }
        FG_STEP(kCollectLocked);
        char stem[FG_TOPIC_FILE_NAME_BYTES_MAX];
        if (topic_file_stem(name, std::strlen(name), stem, sizeof stem) != FG_OK) {
            continue;
        }
        const std::uint64_t bytes = bytes_of_topic(directory.get(), stem);
        if (!dry_run) {
            if (unlinkat(directory.get(), file, 0) != 0) {
                continue;
            }
            FG_STEP(kCollectUnlinked);
            sweep_orphans(directory.get(), stem);
        }
        if (visit != nullptr) {
            visit(context, name, bytes);
        }
    }
    closedir(entries);
    if (!dry_run) {
        removed = sweep_orphans(directory.get());
    }
    if (orphans != nullptr) {
        *orphans = removed;
    }
    return FG_OK;
}

}  // namespace framegate::impl
