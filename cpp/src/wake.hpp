// Sleeping and waking: futexes for threads, datagrams for event loops.
#pragma once

#include <cstdint>

#include "fork.hpp"
#include "layout.hpp"
#include "os.hpp"
#include "slots.hpp"
#include "stamp.hpp"
#include "topic.hpp"

namespace framegate::impl {

enum class SleepResult { kWoken, kTimeout, kInterrupted };
// Sleeps while the word has this value, at most `timeout_ns`.
SleepResult futex_sleep(const HalfWord& word, std::uint32_t value, std::int64_t timeout_ns);

// The system calls; call the functions below instead, which look for sleepers first.
void wake_sleepers_now(Topic& topic);
void wake_fds_up_to(Topic& topic, std::uint64_t sequence);
void wake_space_now(Topic& topic);

// The threads that sleep on the futex.
inline void wake_sleepers(Topic& topic) {
    if (any_mark(topic.view_, Mark::kWaiter)) {
        wake_sleepers_now(topic);
    }
}
// Before a publication that follows within microseconds: sleeping threads wake and look for it.
void announce_now(Topic& topic, std::uint64_t sequence);
inline void announce(Topic& topic, std::uint64_t sequence) {
    if (any_mark(topic.view_, Mark::kWaiter)) {
        announce_now(topic, sequence);
    }
}
inline bool is_announced(const SharedWords& shared, std::uint64_t sequence) {
    // relaxed: a hint; the bump of the futex word came after it.
    return shared.announced.load(std::memory_order_relaxed) == static_cast<std::uint32_t>(sequence);
}
// After a publication: sleeping subscribers, then armed event loops.
inline void wake_subscribers(Topic& topic, std::uint64_t sequence) {
    wake_sleepers(topic);
    if (any_mark(topic.view_, Mark::kFd)) {
        wake_fds_up_to(topic, sequence);
    }
}
// After anything that may have made a slot claimable.
inline void wake_space(Topic& topic) {
    if (any_mark(topic.view_, Mark::kSpaceWaiter)) {
        wake_space_now(topic);
    }
}
// After a letter was posted: the owner of the mailbox.
void ring_mailbox(Topic& topic, std::uint32_t index);
// Removes the socket file that a dead participant left.
void remove_wake_socket(Topic& topic, std::uint32_t index);
// After a death or a detach: everybody, whatever they wait for.
void kick(Topic& topic);

// The wake fd of one participant: an epoll fd (a kqueue; on Windows the socket alone) over a datagram socket
// and a timer that ticks while armed.
class EventFd {
  public:
    fg_status open(Topic& topic, const Self& self);
    // `is_healthy`: the row and our descriptors are still ours. Else neither the socket's path nor
    // a number is touched.
    void close(Topic& topic, const Self& self, bool is_healthy);
    bool is_open() const { return node_.fds[kSet] >= 0; }
    int fd() const { return node_.fds[kSet]; }
    // Starts the tick unless it runs.
    void start_tick();
    // Empties the socket and the timer. True if the timer had ticked.
    bool drain();

  private:
    static constexpr int kSocket = 1;
    static constexpr int kSet = os::kWakeSetIsTheSocket ? kSocket : 0;
    static constexpr int kTimer = 2;
    ForkNode node_;
    bool ticking_ = false;
    std::uint64_t tick_due_ns_ = 0;  // not before it
};

}  // namespace framegate::impl
