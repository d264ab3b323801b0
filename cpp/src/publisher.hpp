// A publisher: loans, fills, publishes. Composes slots, wake and liveness.
#pragma once

#include <cstdint>

#include "framegate/shm.h"
#include "handle.hpp"

namespace framegate::impl {

class Publisher : public Handle {
  public:
    static fg_status open(Topic& topic, const fg_publisher_options& options, Publisher** out);
    fg_status loan(std::uint64_t bytes, std::int64_t timeout_ns, fg_loan* out);
    fg_status publish(fg_loan* loan, const fg_publish_info& info, std::uint64_t* sequence);
    fg_status abandon(fg_loan* loan);
    Topic& topic() const { return *topic_; }
    fg_status send(const void* data, const fg_publish_info& info, std::int64_t timeout_ns,
                   std::uint64_t* sequence);

  private:
    static const Kind kKind;
    static void destroy(Handle& handle);

    Publisher() : Handle(kKind) {}
    fg_status try_loan_once(fg_loan* out);
    fg_status wait_for_loan(std::int64_t timeout_ns, fg_loan* out);
    fg_status check_info(const fg_publish_info& info) const;
    std::uint64_t payload_checksum(const fg_loan& loan, const fg_publish_info& info) const;
    fg_status publish_locked(fg_loan* loan, const fg_publish_info& info, std::uint64_t checksum,
                             std::uint64_t* sequence);
    void write_header(std::uint32_t slot, const fg_publish_info& info);
    bool owns(const fg_loan& loan) const;
    void forget(fg_loan* loan);

    std::uint64_t* tickets_ =
        nullptr;  // per slot: the CLAIM word of the loan, 0: none. Under lock_
    std::uint64_t published_ = 0;
};

}  // namespace framegate::impl
