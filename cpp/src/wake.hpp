// Sleeping and waking: futexes for threads, datagrams for event loops.
#pragma once

#include <cstdint>

#include "fork.hpp"
#include "layout.hpp"
#include "slots.hpp"
#include "topic.hpp"

namespace framegate::impl {

std::uint64_t monotonic_ns();

enum class SleepResult { kWoken, kTimeout, kInterrupted };
// Sleeps while the word has this value, at most `timeout_ns`.
SleepResult futex_sleep(HalfWord& word, std::uint32_t value, std::int64_t timeout_ns);

// After a publication: sleeping subscribers, then armed event loops. No system call if there is none.
void wake_subscribers(Topic& topic, std::uint64_t sequence);
// Only the threads that sleep on the futex.
void wake_sleepers(Topic& topic);
// After anything that may have made a slot claimable.
void wake_space(Topic& topic);
// Removes the socket file that a dead participant left.
void remove_wake_socket(Topic& topic, std::uint32_t index);
// After a death or a detach: everybody, whatever they wait for.
void kick(Topic& topic);

// The wake fd of one subscriber: an epoll fd over a datagram socket and a timer that ticks while armed.
class EventFd {
  public:
    fg_status open(Topic& topic, const Self& self);
    // `owns_row`: the row, and with it the socket's path, is still ours.
    void close(Topic& topic, const Self& self, bool owns_row);
    bool is_open() const { return node_.fds[kEpoll] >= 0; }
    int fd() const { return node_.fds[kEpoll]; }
    // Starts the tick unless it runs.
    void start_tick();
    // Empties the socket and the timer. True if the timer had ticked.
    bool drain();

  private:
    static constexpr int kEpoll = 0;
    static constexpr int kSocket = 1;
    static constexpr int kTimer = 2;
    ForkNode node_;
    bool ticking_ = false;
};

}  // namespace framegate::impl
