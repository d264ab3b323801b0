#include "fork.hpp"

#include <pthread.h>

#include <atomic>

namespace framegate::py {
namespace {

// The one mutable global of the module: written only in a forked child, before any other thread
// exists there.
std::atomic<unsigned> generation{0};

void in_child() {
    generation.fetch_add(1, std::memory_order_relaxed);
}  // the child is single-threaded here

}  // namespace

unsigned fork_generation() noexcept {
    return generation.load(
        std::memory_order_relaxed);  // changes only at fork, which orders everything
}

void install_fork_handler() {
    static const int installed = pthread_atfork(nullptr, nullptr, in_child);
    (void)installed;
}

}  // namespace framegate::py
