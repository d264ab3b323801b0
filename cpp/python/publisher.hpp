// Publisher and Loan: the writing side.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "region.hpp"
#include "topic.hpp"

namespace framegate::py {

// The time, metadata and content type of a frame, as given by the user and as the library wants
// them.
class PublishDetails {
  public:
    PublishDetails(std::optional<double> time, nb::handle metadata,
                   std::optional<std::string> content_type);
    // Valid as long as this object.
    [[nodiscard]] fg_publish_info info(std::size_t bytes,
                                       const std::vector<fg_array>& arrays) const;

  private:
    double time_;
    std::string metadata_;  // JSON
    std::string content_type_;
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
    // Raises ClosedError unless attached.
    [[nodiscard]] fg_publisher* handle() const;

    // A loan of `bytes`, waiting up to the time-out for a slot; raises TopicFull.
    fg_loan loan(std::size_t bytes, std::optional<double> timeout);

    // Shared with the loans, which may be published after the Publisher object is gone.
    struct Counters {
        std::uint64_t published = 0;
        std::uint64_t sequence = 0;
    };
    std::shared_ptr<Counters> counters = std::make_shared<Counters>();

    std::string topic;
    SchemaPtr schema;
    std::size_t slot_bytes = 0;
    std::uint32_t slots = 0;

  private:
    fg_publisher* handle_ = nullptr;
    bool closed_ = false;
};

class Loan final : public Region {
  public:
    // Takes over `loan`; `layout` says how its bytes divide, `is_schema` that this is the topic's
    // own schema.
    Loan(const Publisher& publisher, const fg_loan& loan, std::size_t size, SchemaPtr layout,
         bool is_schema);
    ~Loan() override { abandon(); }

    const Schema& schema() override { return *layout_; }
    std::uint64_t publish(const PublishDetails& details, std::optional<std::size_t> size);
    void abandon() noexcept;

    // Remembers an array handed out, to make it read-only when the loan ends.
    void remember(nb::handle array);

  private:
    void end(const char* how) noexcept;

    fg_publisher* handle_;  // kept alive by the loan itself
    fg_loan loan_;
    std::shared_ptr<Publisher::Counters> counters_;
    SchemaPtr layout_;
    bool is_schema_;
    std::vector<nb::object> handed_out_;  // weak references
};

void bind_publisher(nb::module_& module);

}  // namespace framegate::py
