// The lock of one handle. Uncontended it costs one read-modify-write, and none in a process that
// has a single thread; it lives in private memory, so it is no part of the protocol between
// processes.
#pragma once

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <ctime>

// glibc's own hint (2.32 and newer); weak, so that an older or another libc links and always takes
// the atomic way.
extern "C" char __libc_single_threaded __attribute__((weak));

namespace framegate::impl {

class Lock {
  public:
    void lock() {
        if (single_threaded()) {
            word_.store(1, std::memory_order_relaxed);  // relaxed: nobody else is there
            return;
        }
        std::uint32_t expected = 0;
        // acquire: pairs with the release in unlock().
        if (!word_.compare_exchange_strong(expected, 1, std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
            lock_slow();
        }
    }

    // Touches nothing after the store that gives the lock away: the next owner may free the handle.
    // Reading the sleepers before it can miss one that is just going to sleep, so sleepers sleep
    // for a millisecond at most.
    void unlock() {
        const bool wake = sleepers_.load(std::memory_order_relaxed) != 0;
        word_.store(0, std::memory_order_release);  // release: pairs with lock()
        if (wake) {
            syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
        }
    }

  private:
    static bool single_threaded() {
        return &__libc_single_threaded != nullptr && __libc_single_threaded != 0;
    }

    [[gnu::noinline]] void lock_slow() {
        const timespec nap{0, 1000000};
        sleepers_.fetch_add(1, std::memory_order_relaxed);  // relaxed: see unlock()
        for (;;) {
            std::uint32_t expected = 0;
            if (word_.compare_exchange_strong(expected, 1, std::memory_order_acquire,
                                              std::memory_order_relaxed)) {
                break;
            }
            syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, 1, &nap, nullptr, 0);
        }
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }

    std::atomic<std::uint32_t> word_{0};
    std::atomic<std::uint32_t> sleepers_{0};
};

class Locked {
  public:
    explicit Locked(Lock& lock) : lock_(lock) { lock_.lock(); }
    ~Locked() { lock_.unlock(); }
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;

  private:
    Lock& lock_;
};

// The same for what is locked too seldom to be spared a system call: a topic's own mutex.
class MutexGuard {
  public:
    explicit MutexGuard(pthread_mutex_t& mutex) : mutex_(mutex) { pthread_mutex_lock(&mutex_); }
    ~MutexGuard() { pthread_mutex_unlock(&mutex_); }
    MutexGuard(const MutexGuard&) = delete;
    MutexGuard& operator=(const MutexGuard&) = delete;

  private:
    pthread_mutex_t& mutex_;
};

}  // namespace framegate::impl
