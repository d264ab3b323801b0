// Publishing from C++: RAII over shm.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "framegate/types.hpp"

namespace framegate {

/// shm.h's publish info with its defaults.
struct FrameInfo : fg_publish_info {
    explicit FrameInfo(std::uint64_t bytes_filled = 0) : fg_publish_info{} {
        fg_publish_info_init(this);
        bytes = bytes_filled;
    }
};

/// The exclusive right to fill one slot; abandoned by the destructor unless published. Move-only.
/// It keeps the participant attached.
class Loan {
  public:
    Loan(Loan&& other) noexcept
        : publisher_(std::move(other.publisher_)), raw_(std::exchange(other.raw_, fg_loan{})) {}
    Loan& operator=(Loan&& other) noexcept {
        if (this != &other) {
            abandon();
            publisher_ = std::move(other.publisher_);
            raw_ = std::exchange(other.raw_, fg_loan{});
        }
        return *this;
    }
    ~Loan() { abandon(); }

    /// The slot's memory, writable until published.
    std::span<std::byte> bytes() const {
        return {static_cast<std::byte*>(raw_.data), raw_.capacity};
    }

    /// Publishes and returns the sequence. On a refusal that leaves the loan good, `bytes()` stays
    /// usable.
    Result<std::uint64_t> publish(const FrameInfo& info) {
        std::uint64_t sequence = 0;
        const fg_status status = fg_publisher_publish(publisher_.get(), &raw_, &info, &sequence);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return sequence;
    }

    void abandon() {
        if (raw_.data != nullptr) {
            fg_publisher_abandon(publisher_.get(), &raw_);
        }
    }

  private:
    friend class Publisher;
    Loan(std::shared_ptr<fg_publisher> publisher, const fg_loan& raw)
        : publisher_(std::move(publisher)), raw_(raw) {}
    std::shared_ptr<fg_publisher> publisher_;
    fg_loan raw_;
};

/// One participant that publishes. Move-only; usable from several threads.
class Publisher {
  public:
    static Result<Publisher> open(const Topic& topic, std::string_view name = {}) {
        fg_publisher_options options;
        fg_publisher_options_init(&options);
        options.name = name.data();
        options.name_bytes = static_cast<std::uint32_t>(name.size());
        fg_publisher* raw = nullptr;
        if (const fg_status status = fg_publisher_open(topic.get(), &options, &raw);
            status != FG_OK) {
            return Error::last(status);
        }
        return Publisher(raw);
    }
    Publisher(Publisher&&) noexcept = default;
    Publisher& operator=(Publisher&&) noexcept = default;
    Publisher(const Publisher&) = delete;
    Publisher& operator=(const Publisher&) = delete;

    /// Loans a slot for `bytes`; waits up to the time-out for one.
    Result<Loan> loan(std::uint64_t bytes, Timeout timeout = Timeout::zero()) {
        fg_loan raw{};
        const fg_status status = fg_publisher_loan(raw_.get(), bytes, timeout.count(), &raw);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return Loan(raw_, raw);
    }

    /// Loan, copy, publish.
    Result<std::uint64_t> send(std::span<const std::byte> bytes,
                               Timeout timeout = Timeout::zero()) {
        const FrameInfo info(bytes.size());
        std::uint64_t sequence = 0;
        const fg_status status =
            fg_publisher_send(raw_.get(), bytes.data(), &info, timeout.count(), &sequence);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return sequence;
    }

    /// Wakes sleeping subscribers for a frame that follows within some ten microseconds; `send` does
    /// it for large ones.
    Result<void> announce() { return Result<void>::from(fg_publisher_announce(raw_.get())); }

    /// Takes the control messages that came since the last time, oldest first; never waits.
    Result<std::vector<fg_control>> controls() {
        std::vector<fg_control> messages(FG_MAILBOX_BYTES_MAX / sizeof(fg_control));
        std::size_t count = 0;
        const fg_status status =
            fg_publisher_controls(raw_.get(), messages.data(), messages.size(), &count);
        if (status != FG_OK) {
            return Error::last(status);
        }
        messages.resize(count);
        return messages;
    }

  private:
    explicit Publisher(fg_publisher* raw) : raw_(raw, fg_publisher_close) {}
    std::shared_ptr<fg_publisher> raw_;
};

}  // namespace framegate
