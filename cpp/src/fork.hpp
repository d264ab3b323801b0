// What fork() must not hand down: descriptors that carry locks, and mappings that a child could
// write through.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"

namespace framegate::impl {

enum Condition : std::uint32_t { kAlive = 0, kForked = 1, kPoisoned = 2 };

// A set of descriptors that the child of a fork closes at once. Register before the first
// descriptor is opened; open, map and close under a ForkGuard, so that no fork happens between the
// call and its record.
struct ForkNode {
    ForkNode* previous = nullptr;
    ForkNode* next = nullptr;
    int fds[4] = {-1, -1, -1, -1};
    std::atomic<std::uint32_t> condition{kAlive};
    int not_inherited = -1;  // index of the one that fork() itself leaves out
};

void register_fork_node(ForkNode& node);
void unregister_fork_node(ForkNode& node);  // closes what is still open
// For descriptors that somebody closed behind our back: their numbers may be other files by now, so
// they are forgotten, not closed. What is forgotten by mistake leaks; what is closed by mistake may
// be a connection of the application.
void forget_descriptors(ForkNode& node);

class ForkGuard {
  public:
    ForkGuard();
    ~ForkGuard();
    ForkGuard(const ForkGuard&) = delete;
    ForkGuard& operator=(const ForkGuard&) = delete;
};

// A file that is open, and may be locked, only as long as this lives; get() is -1 with errno set if it
// could not be opened.
class RecordedFd {
  public:
    RecordedFd(int directory, const char* file, int flags);
    ~RecordedFd();  // closes
    RecordedFd(const RecordedFd&) = delete;
    RecordedFd& operator=(const RecordedFd&) = delete;
    int get() const { return node_ != nullptr ? node_->fds[0] : -1; }

  private:
    ForkNode* node_;
};

// mmap that a forked child does not inherit. nullptr on failure, errno set.
void* map_unforked(std::size_t bytes, int protection, int fd);

}  // namespace framegate::impl
