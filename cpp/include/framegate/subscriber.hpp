// Subscribing from C++: RAII over shm.h.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "framegate/types.hpp"
#include "framegate/values.hpp"

namespace framegate {

/// shm.h's options with their defaults.
struct SubscriberOptions : fg_subscriber_options {
    SubscriberOptions() : fg_subscriber_options{} { fg_subscriber_options_init(this); }

    /// A member of the work-queue group of that name; the text must live until open().
    static SubscriberOptions member_of(std::string_view name) {
        SubscriberOptions options;
        options.policy = FG_POLICY_GROUP;
        options.group = name.data();
        options.group_bytes = static_cast<std::uint32_t>(name.size());
        return options;
    }
};

/// A leased frame: read-only, valid and unchanged until destroyed. Move-only; keeps the participant
/// attached.
class Frame {
  public:
    Frame(Frame&& other) noexcept
        : subscriber_(std::move(other.subscriber_)), raw_(std::exchange(other.raw_, fg_frame{})) {}
    Frame& operator=(Frame&& other) noexcept {
        if (this != &other) {
            release();
            subscriber_ = std::move(other.subscriber_);
            raw_ = std::exchange(other.raw_, fg_frame{});
        }
        return *this;
    }
    ~Frame() { release(); }

    std::span<const std::byte> bytes() const {
        return {static_cast<const std::byte*>(raw_.data), raw_.bytes};
    }
    std::uint64_t sequence() const { return raw_.sequence; }
    std::uint64_t published_ns() const { return raw_.published_ns; }
    std::uint64_t lost() const { return raw_.lost; }
    /// Whether another member of the group had it before and did not finish it.
    bool redelivered() const { return raw_.redelivered != 0; }
    std::optional<double> timestamp_s() const {
        return std::isnan(raw_.timestamp_s) ? std::nullopt : std::optional(raw_.timestamp_s);
    }
    std::string_view content_type() const { return {raw_.content_type, raw_.content_type_bytes}; }
    std::span<const std::byte> user_metadata() const {
        return {static_cast<const std::byte*>(raw_.user_metadata), raw_.user_metadata_bytes};
    }

    /// The user metadata as the map that it should be; points into the frame.
    Result<ValuesView> metadata() const { return ValuesView::decode(user_metadata()); }

    /// Validated copies of the array descriptors; empty: raw bytes.
    Result<std::vector<fg_array>> arrays() const {
        std::vector<fg_array> arrays(raw_.array_count);
        const fg_status status =
            fg_subscriber_arrays(subscriber_.get(), &raw_, arrays.data(), arrays.size(), nullptr);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return arrays;
    }

    /// Gives it back to its group unfinished; releasing says that it is done.
    Result<void> nack() { return Result<void>::from(fg_subscriber_nack(subscriber_.get(), &raw_)); }

    void release() {
        if (raw_.data != nullptr) {
            fg_subscriber_release(subscriber_.get(), &raw_);
        }
    }

  private:
    friend class Subscriber;
    Frame(std::shared_ptr<fg_subscriber> subscriber, const fg_frame& raw)
        : subscriber_(std::move(subscriber)), raw_(raw) {}
    std::shared_ptr<fg_subscriber> subscriber_;
    fg_frame raw_;
};

/// One participant that reads. Move-only; usable from several threads.
class Subscriber {
  public:
    static Result<Subscriber> open(const Topic& topic, const SubscriberOptions& options = {}) {
        fg_subscriber* raw = nullptr;
        if (const fg_status status = fg_subscriber_open(topic.get(), &options, &raw);
            status != FG_OK) {
            return Error::last(status);
        }
        return Subscriber(raw);
    }
    Subscriber(Subscriber&&) noexcept = default;
    Subscriber& operator=(Subscriber&&) noexcept = default;
    Subscriber(const Subscriber&) = delete;
    Subscriber& operator=(const Subscriber&) = delete;

    /// Takes a frame by the policy; no value: there was none within the time-out.
    Result<std::optional<Frame>> take(Timeout timeout = Timeout::zero()) {
        fg_frame raw{};
        const fg_status status = fg_subscriber_take(raw_.get(), timeout.count(), &raw);
        if (status == FG_EMPTY || status == FG_TIMEOUT) {
            return std::optional<Frame>();
        }
        if (status != FG_OK) {
            return Error::last(status);
        }
        return std::optional<Frame>(Frame(raw_, raw));
    }

    /// Sends a small message to every publisher; how many got it.
    Result<std::uint32_t> send_control(std::uint32_t type, std::span<const std::byte> data) {
        std::uint32_t reached = 0;
        const fg_status status =
            fg_subscriber_send_control(raw_.get(), type, data.data(),
                                       data.size() > FG_LETTER_BYTES_MAX  // too long stays too long
                                           ? UINT32_MAX
                                           : static_cast<std::uint32_t>(data.size()),
                                       &reached);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return reached;
    }

    /// The fd for event loops and its cycle: see fg_subscriber_event_fd.
    Result<int> event_fd() {
        int fd = -1;
        const fg_status status = fg_subscriber_event_fd(raw_.get(), &fd);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return fd;
    }
    Result<bool> arm() {
        int ready = 0;
        const fg_status status = fg_subscriber_arm(raw_.get(), &ready);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return ready != 0;
    }
    Result<void> drain() { return Result<void>::from(fg_subscriber_drain(raw_.get())); }

    Result<fg_subscriber_stats> stats() const {
        fg_subscriber_stats stats{};
        stats.struct_bytes = sizeof stats;
        const fg_status status = fg_subscriber_get_stats(raw_.get(), &stats);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return stats;
    }

  private:
    explicit Subscriber(fg_subscriber* raw) : raw_(raw, fg_subscriber_close) {}
    std::shared_ptr<fg_subscriber> raw_;
};

}  // namespace framegate
