// An OFD lock belongs to the open description, which a forked child shares: as long as the child
// keeps the descriptor, its dead parent looks alive. So the child closes all of them before it does
// anything else. A MAP_SHARED mapping would let the child write into a loan that the reaper already
// gave to somebody else; MADV_DONTFORK leaves a hole there, and an inherited view faults instead of
// racing. clone() without the handlers of the C library stays a gap.
//
// The list below is the library's one piece of process-wide state, because fork() is process-wide.
// Two copies of the library in one process have a list each, which is harmless.
#include "fork.hpp"

#include <cerrno>
#include <cstdlib>
#include <new>

#include "os.hpp"

namespace framegate::impl {
namespace {

constinit pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
constinit pthread_once_t install_once = PTHREAD_ONCE_INIT;
constinit ForkNode* list_head = nullptr;

void before_fork() { pthread_mutex_lock(&list_mutex); }
void after_fork_in_parent() { pthread_mutex_unlock(&list_mutex); }

void after_fork_in_child() {
    for (ForkNode* node = list_head; node != nullptr; node = node->next) {
        for (int i = 0; i < 4; ++i) {
            if (node->fds[i] >= 0 && i != node->not_inherited) {
                close(node->fds[i]);
            }
            node->fds[i] = -1;
        }
        node->condition.store(kForked,
                              std::memory_order_relaxed);  // relaxed: the child has one thread
    }
    pthread_mutex_unlock(&list_mutex);
}

void install() { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

}  // namespace

ForkGuard::ForkGuard() { pthread_mutex_lock(&list_mutex); }
ForkGuard::~ForkGuard() { pthread_mutex_unlock(&list_mutex); }

void register_fork_node(ForkNode& node) {
    pthread_once(&install_once, install);
    const ForkGuard guard;
    node.previous = nullptr;
    node.next = list_head;
    if (list_head != nullptr) {
        list_head->previous = &node;
    }
    list_head = &node;
}

void unregister_fork_node(ForkNode& node) {
    const ForkGuard guard;
    for (int& fd : node.fds) {
        if (fd >= 0) {
            close(fd);
            fd = -1;
        }
    }
    if (node.previous != nullptr) {
        node.previous->next = node.next;
    } else {
        list_head = node.next;
    }
    if (node.next != nullptr) {
        node.next->previous = node.previous;
    }
}

void forget_descriptors(ForkNode& node) {
    const ForkGuard guard;
    for (int& fd : node.fds) {
        fd = -1;
    }
}

// On the heap, because the child of another thread keeps the node in its list and reuses the stack of
// this one.
RecordedFd::RecordedFd(int directory, const char* file, int flags) : node_(nullptr) {
    void* memory = std::malloc(sizeof(ForkNode));
    if (memory == nullptr) {
        return;
    }
    node_ = new (memory) ForkNode;
    register_fork_node(*node_);
    const ForkGuard guard;
    node_->fds[0] = openat(directory, file, flags);
}

RecordedFd::~RecordedFd() {
    if (node_ != nullptr) {
        unregister_fork_node(*node_);
        node_->~ForkNode();
        std::free(node_);
    }
}

void* map_unforked(std::size_t bytes, int protection, int fd) {
    const ForkGuard guard;
    void* memory = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        return nullptr;
    }
    if (os::hide_from_children(memory, bytes) != 0) {
        const int error = errno;
        munmap(memory, bytes);
        errno = error;
        return nullptr;
    }
    return memory;
}

}  // namespace framegate::impl
