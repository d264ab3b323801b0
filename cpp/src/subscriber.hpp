// A subscriber: takes frames, holds leases, sleeps. Composes slots, wake and liveness.
#pragma once

#include <cstdint>

#include "cadence.hpp"
#include "framegate/shm.h"
#include "group.hpp"
#include "handle.hpp"
#include "wake.hpp"

namespace framegate::impl {

class Subscriber : public Handle {
  public:
    static fg_status open(Topic& topic, const fg_subscriber_options& options, Subscriber** out);
    fg_status take(std::int64_t timeout_ns, fg_frame* out);
    enum class Mode : std::uint32_t { kLatest, kNext, kPeek };
    fg_status try_take(Mode mode, fg_frame* out);
    fg_status arrays(const fg_frame& frame, fg_array* out, std::size_t capacity,
                     std::size_t* count);
    fg_status release(fg_frame* frame);
    fg_status nack(fg_frame* frame);
    Topic& topic() const { return *topic_; }
    fg_status wait(std::int64_t timeout_ns);
    fg_status event_fd(int* fd);
    fg_status arm(bool* ready);
    fg_status drain();
    fg_status stats(fg_subscriber_stats* out);
    fg_status send_control(std::uint32_t type, const void* data, std::uint32_t bytes,
                           std::uint32_t* reached);

  private:
    static const Kind kKind;
    static void close_event_fd(Handle& handle);
    static void destroy(Handle& handle);

    Subscriber() : Handle(kKind) {}
    struct Lease {
        std::uint64_t sequence;
        std::uint32_t count;
    };
    enum class Attempt { kOk, kGone, kBusy, kQuota, kCorrupt };

    static bool holds(void* context, std::uint32_t slot);
    static bool holds_in_seat(void* seat, std::uint32_t slot);
    void start(bool newest, std::uint64_t head);
    bool is_member() const { return policy_ == FG_POLICY_GROUP; }
    Mode mode() const;
    inline Attempt lease(std::uint64_t sequence, fg_frame* out);
    inline Attempt adopt(Seat& seat, std::uint32_t slot, std::uint64_t sequence, fg_frame* out);
    inline fg_status end_lease(fg_frame* frame);
    inline bool drop_lease(Seat& seat, std::uint32_t slot, std::uint64_t sequence);
    static Lease& lease_at(const Seat& seat, std::uint32_t slot) {
        return reinterpret_cast<Lease*>(seat.records)[slot];
    }
    static bool is_leased(const void* record) {
        return static_cast<const Lease*>(record)->count != 0;
    }
    // The seat in which this subscriber leases the frame; nullptr if it does not.
    inline Seat* seat_of(const fg_frame& frame);
    void adapt_quota();
    inline fg_status take_locked(Mode mode, bool busy_is_gone, fg_frame* out, bool* busy);
    inline fg_status take_newest(Mode mode, bool busy_is_gone, fg_frame* out, bool* busy);
    fg_status take_next(bool busy_is_gone, fg_frame* out, bool* busy);
    fg_status take_of_group(bool busy_is_gone, fg_frame* out, bool* busy);
    fg_status take_given_back(GroupTake* taken, Seat** seat);
    fg_status go_on();
    fg_status nothing_new(std::uint64_t head) const;
    fg_status over_quota() const;
    fg_status nonsense(std::uint64_t sequence) const;
    bool has_unseen(std::uint64_t head);
    void look_again();
    inline void moved_to(std::uint64_t position, std::uint64_t lost);
    inline void delivered(fg_frame* out);
    fg_status verify(Mode mode, fg_frame* out);
    fg_status unseen_locked();
    fg_status wait_until(const Deadline& deadline);
    fg_status sleep_until(const Deadline& deadline, std::uint64_t began);
    bool is_next_announced();
    fg_status look_for(std::uint64_t ns, const Deadline& deadline);

    std::uint32_t policy_ = FG_POLICY_LATEST;
    std::uint32_t spin_ns_ = 0;  // as asked for; 0: as the frames come
    std::uint32_t group_ = kNoGroup;
    std::uint32_t leases_wanted_ = 0;  // as asked for; 0: half of the slots
    // Under lock_.
    std::uint32_t leases_max_ = 1;
    std::uint32_t slots_held_ = 0;
    Cadence cadence_;
    std::uint64_t position_ = 0;  // last sequence taken or skipped
    std::uint64_t received_ = 0;
    std::uint64_t lost_ = 0;
    std::uint64_t lost_before_next_ = 0;
    std::uint64_t redeliveries_seen_ =
        0;  // of the group, when the last look at its marks found none
    std::uint64_t corrupt_ = 0;
    EventFd event_fd_;
};

}  // namespace framegate::impl
