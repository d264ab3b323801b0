// Sleeping and waking.
//
// A publisher never enters the kernel unless somebody sleeps: it reads the waiter bits after its
// head CAS (seq_cst pair with the sleeper, see slots.cpp). Threads sleep on a futex word that is
// bumped only to wake.
//
// Waking takes tens of microseconds, as long as copying hundreds of kilobytes. So the publisher of a
// large frame announces it while the last part of it is being copied: it wakes the threads then, and
// they look for that frame for a bounded time before they sleep again. An announcement is a hint and
// promises nothing: whoever announced may die, be late or publish nothing.
//
// Event loops cannot sleep on a futex. Their fd bit means "has a wake socket" and stays set until
// detach, because a publisher that cleared and set it could hide a newer arming. `armed` is the
// sequence that the consumer waits for. A publisher sends first and disarms (CAS from the value it
// saw) afterwards: death in between costs a second datagram, the other order would cost a wake.
// EAGAIN counts as sent: the queue is full of wakes already. The tick of the consumer's timer
// covers publishers that died before sending.
//
// Who may send is checked by the kernel: the socket is born with the topic's mode and lies in its
// directory, so only who may open the topic can reach it. Datagrams carry no information, so one that
// such a process forges is a spurious wake, which is legal at any time.
#include "wake.hpp"

#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "mailbox.hpp"
#include "names.hpp"
#include "os.hpp"
#include "status.hpp"
#include "steps.hpp"

namespace framegate::impl {
namespace {

void socket_file(char (&out)[64], const Topic& topic, std::uint32_t index) {
    // Short and independent of the topic's name: a socket path has 107 bytes.
    snprintf(out, sizeof out, "%016" PRIx64 "-%u.sock", topic.identity_.id[0], index);
}

int socket_of(Topic& topic, int which) {
    // acquire: pairs with the release below; the socket exists before its number is seen.
    int fd = __atomic_load_n(&topic.fds_.fds[which], __ATOMIC_ACQUIRE);
    if (fd < 0) {
        const ForkGuard guard;
        fd = topic.fds_.fds[which];
        if (fd < 0) {
            fd = os::open_datagram_socket();
            __atomic_store_n(&topic.fds_.fds[which], fd, __ATOMIC_RELEASE);
        }
    }
    return fd;
}

bool was_sent(ssize_t sent) { return sent == 1 || os::queue_was_full(errno); }

// Whom a wake goes to; look at `armed` afterwards.
Topic::Wakened wakened(const Topic& topic, std::uint32_t index) {
    // acquire: pairs with the store of who takes the row. `armed` of an earlier owner is not seen
    // after it, so who is armed is this one or a later one, and its socket is there.
    return {index,
            1ULL + topic.view_.participants[index].incarnation.load(std::memory_order_acquire)};
}

// To one that is woken again and again, without the look-up of its path. False: send it the other
// way.
bool send_again(Topic& topic, const Topic::Wakened& to) {
    std::uint32_t free = 0;
    // acquire: pairs with the release below. Nobody waits for it: the other way is always open.
    if (!topic.connecting_.compare_exchange_strong(free, 1, std::memory_order_acquire,
                                                   std::memory_order_relaxed)) {
        return false;
    }
    bool sent = false;
    if (to == topic.connected_ || to == topic.woken_last_) {
        const int fd = socket_of(topic, kConnectedFd);
        bool is_connected = to == topic.connected_;
        if (fd >= 0 && !is_connected) {
            char file[64];
            socket_file(file, topic, to.index);
            is_connected = os::connect_in(fd, topic.directory_fd(), file) == 0;
        }
        sent = fd >= 0 && is_connected && was_sent(os::send_connected(fd));
        topic.connected_ = sent ? to : Topic::Wakened{};
    }
    topic.woken_last_ = to;
    topic.connecting_.store(0, std::memory_order_release);  // release: pairs with the CAS above
    return sent;
}

// True if the consumer has a datagram to read.
bool send_wake(Topic& topic, const Topic::Wakened& to) {
    if (os::kConnectsToWake && send_again(topic, to)) {
        return true;
    }
    const int fd = socket_of(topic, kSendFd);
    if (fd < 0) {
        return false;
    }
    char file[64];
    socket_file(file, topic, to.index);
    return was_sent(os::send_in(fd, topic.directory_fd(), file));
}

template <typename Wanted>
void wake_fds(Topic& topic, Wanted wanted) {
    for (std::uint32_t i = 0; i < topic.view_.participant_words; ++i) {
        std::uint64_t bits = mark_word(topic.view_, Mark::kFd, i);
        while (bits != 0) {
            const auto index = i * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bits));
            bits &= bits - 1;
            if (index >= topic.view_.participants_max) {
                break;
            }
            const Topic::Wakened to = wakened(topic, index);
            Word& armed = topic.view_.participants[index].armed;
            // seq_cst: our head CAS came before; pairs with the armed store and head re-read of
            // arm().
            std::uint64_t value = armed.load(std::memory_order_seq_cst);
            if (value == 0 || !wanted(value) || !send_wake(topic, to)) {
                continue;
            }
            FG_STEP(kWakeSent);
            // Only this arming: a newer one is another value and stays.
            armed.compare_exchange_strong(value, 0, std::memory_order_seq_cst,
                                          std::memory_order_relaxed);
        }
    }
}

}  // namespace

SleepResult futex_sleep(const HalfWord& word, std::uint32_t value, std::int64_t timeout_ns) {
    if (timeout_ns <= 0) {
        return SleepResult::kTimeout;
    }
    if (os::sleep_shared(word, value, timeout_ns) == 0) {
        return SleepResult::kWoken;
    }
    return errno == EINTR ? SleepResult::kInterrupted : SleepResult::kTimeout;
}

void wake_sleepers_now(Topic& topic) {
    const std::uint32_t before = topic.view_.shared->wake.fetch_add(
        1, std::memory_order_seq_cst);  // a sleeper that read the old value returns
    FG_STEP(kWakeBumped);
    os::wake_all_shared(topic.view_.shared->wake, before);
}

void announce_now(Topic& topic, std::uint64_t sequence) {
    topic.view_.shared->announced.store(static_cast<std::uint32_t>(sequence),
                                        std::memory_order_relaxed);  // relaxed: a hint
    wake_sleepers_now(topic);
}

void wake_fds_up_to(Topic& topic, std::uint64_t sequence) {
    wake_fds(topic, [sequence](std::uint64_t armed) { return armed <= sequence; });
}

void wake_space_now(Topic& topic) {
    const std::uint32_t before =
        topic.view_.shared->space.fetch_add(1, std::memory_order_seq_cst);  // as above
    os::wake_all_shared(topic.view_.shared->space, before);
}

void ring_mailbox(Topic& topic, std::uint32_t index) {
    if (!has_mailbox(topic.view_, index)) {
        return;
    }
    MailboxHeader& header = mailbox_header(topic.view_, index);
    // seq_cst, after the READY CAS; pairs with the owner's store and its look at the cells.
    if (header.sleepers.load(std::memory_order_seq_cst) != 0) {
        const std::uint32_t before = header.bell.fetch_add(1, std::memory_order_seq_cst);
        FG_STEP(kMailRung);
        os::wake_all_shared(header.bell, before);
    }
    const Topic::Wakened to = wakened(topic, index);
    std::uint64_t armed = header.armed.load(std::memory_order_seq_cst);  // as above
    if (armed != 0 && send_wake(topic, to)) {
        FG_STEP(kMailSent);
        // Only this arming: a newer one is another value and stays.
        header.armed.compare_exchange_strong(armed, 0, std::memory_order_seq_cst,
                                             std::memory_order_relaxed);
    }
}

void kick(Topic& topic) {
    std::uint32_t before = topic.view_.shared->wake.fetch_add(1, std::memory_order_seq_cst);
    os::wake_all_shared(topic.view_.shared->wake, before);
    before = topic.view_.shared->space.fetch_add(1, std::memory_order_seq_cst);
    os::wake_all_shared(topic.view_.shared->space, before);
    wake_fds(topic, [](std::uint64_t) { return true; });
    for (std::uint32_t i = 0; i < topic.view_.participants_max; ++i) {
        ring_mailbox(topic, i);  // callers of the dead learn it by its closed mailbox
    }
}

void remove_wake_socket(Topic& topic, std::uint32_t index) {
    char file[64];
    socket_file(file, topic, index);
    unlinkat(topic.directory_fd(), file, 0);
}

fg_status EventFd::open(Topic& topic, const Self& self) {
    register_fork_node(node_);
    int error = 0;
    {
        const ForkGuard guard;
        node_.fds[kSocket] = os::open_datagram_socket();
        error = node_.fds[kSocket] < 0 ? errno : error;
        node_.not_inherited = os::kWakeSetIsInherited ? -1 : kSet;
        error = os::open_wake_set(&node_.fds[kSet], &node_.fds[kTimer]) != 0 ? errno : error;
    }
    // The row's byte is ours, so whatever lies at our path was left by a dead owner of the row.
    remove_wake_socket(topic, self.index);
    char file[64];
    socket_file(file, topic, self.index);
    const auto mode = static_cast<mode_t>(topic.identity_.mode);
    // The mode twice: in bind_in() so that the file never has a wider one, whatever the umask lets
    // through, and after it because the umask may have taken the group's bits.
    if (error == 0 &&
        (os::bind_in(node_.fds[kSocket], topic.directory_fd(), file, mode) != 0 ||
         fchmodat(topic.directory_fd(), file, mode, 0) != 0 ||
         os::fill_wake_set(node_.fds[kSet], node_.fds[kSocket], node_.fds[kTimer]) != 0)) {
        error = errno;
    }
    if (error != 0) {
        unregister_fork_node(node_);
        remove_wake_socket(topic, self.index);
        errno = error;
        return fail_errno("topic \"%s\": cannot make the wake fd", topic.name_);
    }
    return FG_OK;
}

void EventFd::close(Topic& topic, const Self& self, bool is_healthy) {
    if (!is_open()) {
        return;
    }
    if (is_healthy) {
        remove_wake_socket(topic, self.index);  // the mark goes with the row's scrub
    } else {
        forget_descriptors(node_);
    }
    unregister_fork_node(node_);
}

void EventFd::start_tick() {
    if (ticking_ || FG_MUTATED(kMutateNoRecheck)) {
        return;
    }
    tick_due_ns_ =
        monotonic_ns() + static_cast<std::uint64_t>(kSweepIntervalNs);  // the timer's clock
    ticking_ = os::start_timer(node_.fds[kSet], node_.fds[kTimer], kSweepIntervalNs);
}

bool EventFd::drain() {
    const bool is_due = ticking_ && monotonic_ns() >= tick_due_ns_;
    const bool ticked =
        os::drain_wake_set(node_.fds[kSet], node_.fds[kSocket], node_.fds[kTimer], is_due);
    // Arming again starts it again: an event loop that stopped looking is not woken every second.
    ticking_ = ticking_ && !ticked;
    return ticked;
}

}  // namespace framegate::impl
