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
    fg_status slot_bytes(std::uint64_t* out);
    fg_status publish(fg_loan* loan, const fg_publish_info& info, std::uint64_t* sequence);
    fg_status abandon(fg_loan* loan);
    Topic& topic() const { return *topic_; }
    fg_status send(const void* data, const fg_publish_info& info, std::int64_t timeout_ns,
                   std::uint64_t* sequence);

    fg_status controls(fg_control* out, std::size_t capacity, std::size_t* count);

  protected:
    // What is kept per slot: the CLAIM word of a loan; or, of callers and responders, the HANDED word
    // of a message. 0: none.
    static constexpr std::size_t kRecordBytes = 2 * sizeof(std::uint64_t);
    static std::uint64_t& ticket(const Seat& seat, std::uint32_t slot) {
        return reinterpret_cast<std::uint64_t*>(seat.records)[2 * std::size_t{slot}];
    }
    static std::uint64_t& message(const Seat& seat, std::uint32_t slot) {
        return reinterpret_cast<std::uint64_t*>(seat.records)[2 * std::size_t{slot} + 1];
    }
    static bool is_loaned(const void* record) {
        const auto* words = static_cast<const std::uint64_t*>(record);
        return (words[0] | words[1]) != 0;
    }

    explicit Publisher(const Kind& kind) : Handle(kind) {}
    // Attaches, with a mailbox if the topic has room for one. On failure the handle's memory is
    // freed.
    fg_status join(Topic& topic, std::uint32_t role, const char* name, std::uint32_t name_bytes);
    enum class Schema { kTopic, kFree };  // a frame's arrays are the topic's, a letter's are free
    fg_status check_info(const fg_publish_info& info, Schema schema) const;
    void write_header(std::uint32_t slot, const fg_publish_info& info, Schema schema);
    // The seat that the loan is of, if it is a loan of this publisher; else nullptr.
    Seat* seat_of(const fg_loan& loan);
    void forget(fg_loan* loan, Seat* seat);
    // The same for a loan that is to be published or posted (`verb`); else the loan is over, and
    // the status says why.
    fg_status claim_seat(fg_loan* loan, const char* verb, Seat** seat);
    fg_status carry_over(fg_loan* loan, std::uint64_t bytes);
    // Goes on to the newest generation.
    fg_status catch_up();

    std::uint64_t epoch_ = 0;  // of the own mailbox; 0: none
    // Not null: loans only while another slot remains claimable, and calls this first if none does.
    void (*make_room_)(Publisher& self) = nullptr;
    bool owes_ = false;  // closed, but still loans: there are requests to answer

  private:
    static const Kind kKind;
    static void destroy(Handle& handle);

    fg_status try_loan_once(std::uint64_t bytes, fg_loan* out);
    fg_status wait_for_loan(std::uint64_t bytes, std::int64_t timeout_ns, fg_loan* out);
    std::uint64_t payload_checksum(const fg_loan& loan, const fg_publish_info& info);
    fg_status publish_locked(fg_loan* loan, const fg_publish_info& info, std::uint64_t checksum,
                             std::uint64_t* sequence);
    fg_status publish_once(fg_loan* loan, const fg_publish_info& info, std::uint64_t checksum,
                           std::uint64_t* sequence);
    fg_status loan_locked(fg_loan* out);
    fg_status check_bytes(std::uint64_t bytes) const;

    std::uint64_t published_ = 0;  // under lock_
};

}  // namespace framegate::impl
