// A publisher: loans, fills, publishes; and reads the control messages posted to it. Composes slots,
// mailbox, wake and liveness. Callers and responders (mail.hpp) are publishers that post what they
// fill instead.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"
#include "handle.hpp"
#include "stamp.hpp"

namespace framegate::impl {

class Publisher : public Handle {
  public:
    static fg_status open(Topic& topic, const fg_publisher_options& options, Publisher** out);
    fg_status loan(std::uint64_t bytes, std::int64_t timeout_ns, fg_loan* out);
    fg_status slot_bytes(std::uint64_t* out);
    fg_status publish(fg_loan* loan, const fg_publish_info& info, std::uint64_t* sequence);
    fg_status announce();
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
    fg_status check_info(const fg_publish_info& info, Schema schema) const {
        const bool is_plain = (info.array_count | info.content_type_bytes |
                               info.user_metadata_bytes | topic_->identity_.schema_count) == 0;
        return is_plain ? static_cast<fg_status>(FG_OK) : check_all_info(info, schema);
    }
    void write_header(std::uint32_t slot, const fg_publish_info& info, Schema schema) {
        write_numbers(view().slots[slot], info, schema);
        if ((info.array_count | info.content_type_bytes | info.user_metadata_bytes) != 0) {
            write_header_page(slot, info);  // plain bytes do not touch it
        }
    }
    // The seat that the loan is of, if it is a loan of this publisher; else nullptr.
    Seat* seat_of(const fg_loan& loan) {
        Seat* seat = loan.generation == geometry().generation
                         ? &seat_
                         : older_seat_of_generation(loan.generation);
        const bool is_ours = seat != nullptr && seat->records != nullptr && loan.data != nullptr &&
                             loan.slot < seat->generation->view_.slot_count && loan.ticket != 0 &&
                             ticket(*seat, loan.slot) == loan.ticket;
        return is_ours ? seat : nullptr;
    }
    void forget(fg_loan* loan, Seat* seat) {
        ticket(*seat, loan->slot) = 0;
        loan->data = nullptr;
        --live_;
        if (seat != &seat_) {
            let_go_of_one(seat);
        }
    }
    // The same for a loan that is to be published or posted (`verb`); else the loan is over, and
    // the status says why.
    fg_status claim_seat(fg_loan* loan, const char* verb, Seat** seat) {
        *seat = seat_of(*loan);
        if (*seat == nullptr) [[unlikely]] {
            return say_not_loaned(loan, verb);
        }
        const fg_status status = check_usable(*topic_);
        if (status != FG_OK) [[unlikely]] {
            forget(loan, *seat);
        }
        return status;
    }
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
    inline fg_status publish_locked(fg_loan* loan, const fg_publish_info& info,
                                    std::uint64_t checksum, std::uint64_t* sequence);
    inline fg_status publish_once(fg_loan* loan, const fg_publish_info& info,
                                  std::uint64_t checksum, std::uint64_t* sequence);
    fg_status publish_later(fg_loan* loan, const fg_publish_info& info, std::uint64_t checksum,
                            std::uint64_t* sequence);
    fg_status loan_locked(std::uint64_t bytes, fg_loan* out);
    fg_status check_bytes(std::uint64_t bytes) const;
    [[gnu::cold]] fg_status say_not_loaned(fg_loan* loan, const char* verb);
    fg_status check_all_info(const fg_publish_info& info, Schema schema) const;
    void write_numbers(SlotRecord& slot, const fg_publish_info& info, Schema schema) {
        constexpr auto kRelaxed = std::memory_order_relaxed;
        const std::uint32_t schema_count = topic_->identity_.schema_count;
        const bool by_schema =
            schema == Schema::kTopic && info.array_count == 0 && schema_count != 0;
        // relaxed: COMMIT releases them.
        slot.bytes.store(info.bytes, kRelaxed);
        slot.published_ns.store(stamp_.now_ns(), kRelaxed);
        slot.timestamp_s.store(info.timestamp_s, kRelaxed);
        slot.array_count.store(by_schema ? schema_count : info.array_count, kRelaxed);
        slot.flags.store(by_schema ? kFrameArraysFromSchema : 0, kRelaxed);
        slot.content_type_bytes.store(info.content_type_bytes, kRelaxed);
        slot.user_metadata_bytes.store(info.user_metadata_bytes, kRelaxed);
    }
    void write_header_page(std::uint32_t slot, const fg_publish_info& info);

    // Under lock_.
    std::uint64_t published_ = 0;
    Stamp stamp_;
};

}  // namespace framegate::impl
