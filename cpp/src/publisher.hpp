// A publisher: loans, fills, publishes; and reads the control messages posted to it. Composes slots,
// mailbox, wake and liveness. Callers and responders (mail.hpp) are publishers that post what they
// fill instead.
#pragma once

#include <cstddef>
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
    fg_status controls(fg_control* out, std::size_t capacity, std::size_t* count);

  protected:
    explicit Publisher(const Kind& kind) : Handle(kind) {}
    // Attaches, with a mailbox if the topic has room for one.
    fg_status join(Topic& topic, std::uint32_t role, const char* name, std::uint32_t name_bytes);
    void free_tables();
    enum class Schema { kTopic, kFree };  // a frame's arrays are the topic's, a letter's are free
    fg_status check_info(const fg_publish_info& info, Schema schema) const;
    void write_header(std::uint32_t slot, const fg_publish_info& info, Schema schema);
    bool owns(const fg_loan& loan) const;
    void forget(fg_loan* loan);

    std::uint64_t epoch_ = 0;  // of the own mailbox; 0: none
    // Not null: loans only while another slot remains claimable, and calls this first if none does.
    void (*make_room_)(Publisher& self) = nullptr;
    bool owes_ = false;  // closed, but still loans: there are requests to answer

  private:
    static const Kind kKind;
    static void destroy(Handle& handle);

    fg_status try_loan_once(fg_loan* out);
    fg_status wait_for_loan(std::int64_t timeout_ns, fg_loan* out);
    std::uint64_t payload_checksum(const fg_loan& loan, const fg_publish_info& info) const;
    fg_status publish_locked(fg_loan* loan, const fg_publish_info& info, std::uint64_t checksum,
                             std::uint64_t* sequence);

    std::uint64_t* tickets_ =
        nullptr;  // per slot: the CLAIM word of the loan, 0: none. Under lock_
    std::uint64_t published_ = 0;
};

}  // namespace framegate::impl
