// The lock of one handle. Uncontended it costs one read-modify-write, and none in a process that
// has a single thread; it lives in private memory, so it is no part of the protocol between
// processes.
#pragma once

#include <atomic>
#include <cstdint>

#include "os.hpp"

namespace framegate::impl {

class Lock {
  public:
    void lock() {
        if (os::single_threaded()) {
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
            os::wake_one_in_process(word_);
        }
    }

  private:
    static constexpr std::int64_t kNapNs = 1000000;

    [[gnu::noinline]] void lock_slow() {
        sleepers_.fetch_add(1, std::memory_order_relaxed);  // relaxed: see unlock()
        for (;;) {
            std::uint32_t expected = 0;
            if (word_.compare_exchange_strong(expected, 1, std::memory_order_acquire,
                                              std::memory_order_relaxed)) {
                break;
            }
            os::sleep_in_process(word_, 1, kNapNs);
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
