// Publisher and Loan: the writing side.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gil.hpp"
#include "region.hpp"
#include "topic.hpp"

namespace framegate::py {

// The timestamp, metadata and content type of a frame, as given by the user and as the library
// wants them.
class PublishDetails {
  public:
    PublishDetails(std::optional<double> timestamp, nb::handle metadata,
                   std::optional<std::string> content_type);
    // Valid as long as this object.
    [[nodiscard]] fg_publish_info info(std::size_t bytes,
                                       const std::vector<fg_array>& arrays) const;

  private:
    double timestamp_;
    std::string metadata_;  // encoded
    std::string content_type_;
};

// A loan that nobody fills any more goes back: owns it from the library's call on. What it points
// to stays alive with it, also when the Publisher is closed on another thread meanwhile.
class OwnedLoan {
  public:
    OwnedLoan(fg_publisher* handle, const fg_loan& loan) : handle_(handle), loan_(loan) {}
    OwnedLoan(OwnedLoan&& other) noexcept : handle_(other.handle_), loan_(other.loan_) {
        other.loan_.data = nullptr;
    }
    OwnedLoan(const OwnedLoan&) = delete;
    OwnedLoan& operator=(const OwnedLoan&) = delete;
    OwnedLoan& operator=(OwnedLoan&&) = delete;
    ~OwnedLoan() { abandon(); }

    [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(loan_.data); }
    // On FG_OK, and on some failures, the loan is gone and data() is null.
    fg_status publish(const fg_publish_info& info, std::uint64_t& sequence) {
        return fg_publisher_publish(handle_, &loan_, &info, &sequence);
    }
    void abandon() noexcept {
        if (loan_.data != nullptr) {
            (void)fg_publisher_abandon(handle_, &loan_);
        }
        loan_.data = nullptr;
    }
    // In a forked child: the loan is the parent's.
    void forget() noexcept { loan_.data = nullptr; }
    [[nodiscard]] fg_publisher* handle() const { return handle_; }
    // For calls that post it.
    [[nodiscard]] fg_loan* get() { return &loan_; }

  private:
    fg_publisher* handle_;
    fg_loan loan_;
};

// A loan with a frame or message in it.
struct FilledLoan {
    OwnedLoan loan;
    std::size_t bytes;
    std::vector<fg_array> arrays;  // empty: raw bytes, or just the topic's schema
};

// Not attached to a topic at first: framegate.Publisher creates its topic when the first array
// shows what to hold.
class Publisher {
  public:
    explicit Publisher(std::string topic_name) : topic(std::move(topic_name)) {}
    Publisher(const Publisher&) = delete;
    Publisher& operator=(const Publisher&) = delete;
    ~Publisher() { close(); }

    void attach(const Topic& topic, const std::string& name);
    void close() noexcept;
    [[nodiscard]] bool is_attached() const { return handle_ != nullptr; }
    [[nodiscard]] bool is_closed() const { return closed_; }
    // Payload bytes of a slot now; they change when the topic is resized.
    [[nodiscard]] std::size_t slot_bytes() const;
    // Raises ClosedError unless attached.
    [[nodiscard]] fg_publisher* handle() const;
    // For fg_publisher_announce; messages of callers and responders are nothing that subscribers wait
    // for.
    [[nodiscard]] fg_publisher* announcer() const { return is_borrowed_ ? nullptr : handle_; }

    // Whether that many bytes, taken as they are, make a frame of the topic.
    [[nodiscard]] bool takes_octets(std::size_t bytes) const {
        return schema->is_raw() ||
               (schema->is_fixed && schema->fields.size() == 1 && schema->payload_bytes == bytes);
    }

    // The loans of a caller or responder, which owns `handle`: messages of any shape.
    void borrow(fg_publisher* handle);
    // Copies bytes, an array or a mapping of arrays into a loan.
    FilledLoan fill(nb::handle data, std::optional<double> timeout);

    // A loan of `bytes`, waiting up to the time-out for a slot; raises TopicFull.
    OwnedLoan loan(std::size_t bytes, std::optional<double> timeout);

    // Shared with the loans, which may be published after the Publisher object is gone.
    struct Counters {
        Shared<std::uint64_t> published = 0;
        Shared<std::uint64_t> sequence = 0;
    };
    std::shared_ptr<Counters> counters = std::make_shared<Counters>();

    std::string topic;
    SchemaPtr schema;

  private:
    fg_publisher* handle_ = nullptr;
    bool closed_ = false;
    bool is_borrowed_ = false;
};

class Loan final : public Region {
  public:
    // Takes over `loan`; `layout` says how its bytes divide, `is_schema` that this is the topic's
    // own schema.
    Loan(const Publisher& publisher, OwnedLoan loan, std::size_t size, SchemaPtr layout,
         bool is_schema);
    ~Loan() override;

    const Schema& schema() override { return *layout_; }
    std::uint64_t publish(const PublishDetails& details, std::optional<std::size_t> size);
    void abandon() noexcept;

    // Remembers an array handed out, to make it read-only when the loan ends.
    void remember(nb::handle array);

  private:
    void end(const char* how) noexcept;

    OwnedLoan loan_;
    KeptPublisher kept_;  // and with it the memory, for views that outlive the loan
    std::shared_ptr<Publisher::Counters> counters_;
    SchemaPtr layout_;
    bool is_schema_;
    std::vector<nb::object> handed_out_;  // weak references
};

void bind_publisher(nb::module_& module);

}  // namespace framegate::py
