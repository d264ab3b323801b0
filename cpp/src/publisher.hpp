// A publisher: loans, fills, publishes. Composes slots, wake and liveness. Its record per slot is the
// CLAIM word of the loan, 0 without one.
#pragma once

#include <cstdint>

#include "framegate/shm.h"
#include "handle.hpp"

namespace framegate::impl {

class Publisher : public Handle {
  public:
    static fg_status open(Topic& topic, const fg_publisher_options& options, Publisher** out);
    fg_status loan(std::uint64_t bytes, std::int64_t timeout_ns, fg_loan* out);
    fg_status slot_bytes(std::uint64_t* out);
    fg_status publish(fg_loan* loan, const fg_publish_info& info, std::uint64_t* sequence);
    fg_status abandon(fg_loan* loan);
    Topic& topic() const { return *topic_; }
    fg_status send(const void* data, const fg_publish_info& info, std::int64_t timeout_ns,
                   std::uint64_t* sequence);

  private:
    static const Kind kKind;
    static void destroy(Handle& handle);

    Publisher() : Handle(kKind) {}
    fg_status try_loan_once(std::uint64_t bytes, fg_loan* out);
    fg_status wait_for_loan(std::uint64_t bytes, std::int64_t timeout_ns, fg_loan* out);
    fg_status check_info(const fg_publish_info& info) const;
    std::uint64_t payload_checksum(const fg_loan& loan, const fg_publish_info& info);
    fg_status publish_locked(fg_loan* loan, const fg_publish_info& info, std::uint64_t checksum,
                             std::uint64_t* sequence);
    fg_status publish_once(fg_loan* loan, const fg_publish_info& info, std::uint64_t checksum,
                           std::uint64_t* sequence);
    fg_status loan_locked(fg_loan* out);
    fg_status carry_over(fg_loan* loan, std::uint64_t bytes);
    fg_status check_bytes(std::uint64_t bytes) const;
    void write_header(std::uint32_t slot, const fg_publish_info& info);
    // The seat that the loan is of, if it is a loan of this publisher; else nullptr.
    Seat* seat_of(const fg_loan& loan);
    static std::uint64_t& ticket(const Seat& seat, std::uint32_t slot) {
        return reinterpret_cast<std::uint64_t*>(seat.records)[slot];
    }
    static bool is_loaned(const void* record) {
        return *static_cast<const std::uint64_t*>(record) != 0;
    }
    void forget(fg_loan* loan, Seat* seat);

    std::uint64_t published_ = 0;  // under lock_
};

}  // namespace framegate::impl
