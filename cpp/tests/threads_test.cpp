// Threads with every policy at once, through the whole API, over one mapping: ThreadSanitizer sees
// each pairing, on the payload bytes as well. (Subscribers map the data file read-only and elsewhere,
// where it would not connect their reads with a publisher's writes, so they get the publishers'
// mapping here.)
#include <atomic>
#include <thread>

#include "support.hpp"

namespace {

constexpr std::uint64_t kWords = 128;
constexpr std::uint64_t kBytes = kWords * 8;
constexpr std::uint64_t kFrames = FG_TEST_TSAN ? 20000 : 100000;
constexpr std::uint64_t kReads = FG_TEST_TSAN ? 5000 : 10000;

struct Shared {
    test::RuntimeDirectory directory;
    test::Topic topic = test::create("t", test::options(24, kBytes));
    std::atomic<std::uint64_t> published{0};
    std::atomic<std::uint64_t> received{0};
    std::atomic<std::uint64_t> torn{0};
    std::atomic<std::uint64_t> failed{0};
    std::atomic<bool> is_over{false};

    framegate::impl::Topic& internals() const {
        return *reinterpret_cast<framegate::impl::Topic*>(topic.get());
    }
};

test::Subscriber subscriber(const Shared& shared, std::uint32_t policy) {
    fg_subscriber_options options;
    fg_subscriber_options_init(&options);
    options.policy = policy;
    options.leases_max = 3;
    if (policy == FG_POLICY_GROUP) {
        options.group = "workers";
        options.group_bytes = 7;
    }
    fg_subscriber* handle = nullptr;
    REQUIRE_MESSAGE(fg_subscriber_open(shared.topic.get(), &options, &handle) == FG_OK,
                    fg_last_error());
    return test::Subscriber(handle);
}

// While it lives, subscribers read through the mapping that publishers write to.
class OneMapping {
  public:
    explicit OneMapping(Shared& shared) : topic_(shared.internals()) {
        // Both mappings are made by the first handle of each kind.
        const test::Publisher publisher = test::publisher(shared.topic);
        const test::Subscriber reader = subscriber(shared, FG_POLICY_LATEST);
        own_ = topic_.first_.data_read_;
        REQUIRE(own_ != nullptr);
        topic_.first_.data_read_ = topic_.first_.data_write_;
    }
    ~OneMapping() { topic_.first_.data_read_ = own_; }
    OneMapping(const OneMapping&) = delete;
    OneMapping& operator=(const OneMapping&) = delete;

  private:
    framegate::impl::Topic& topic_;
    unsigned char* own_ = nullptr;
};

void publish(Shared& shared, fg_publisher* publisher, std::uint64_t number) {
    const fg_publish_info info = test::bytes_info(kBytes);
    const auto enough = [&] {
        return shared.published.load() >= kFrames && shared.received.load() >= kReads;
    };
    for (std::uint64_t n = 0; !enough() && shared.failed.load() == 0; ++n) {
        fg_loan loan{};
        if (fg_publisher_loan(publisher, kBytes, test::kPatienceNs, &loan) != FG_OK) {
            shared.failed.fetch_add(1);
            return;
        }
        auto* words = static_cast<std::uint64_t*>(loan.data);
        std::fill(words, words + kWords, n << 8 | number);
        if (n % 7 == 6) {
            shared.failed.fetch_add(fg_publisher_abandon(publisher, &loan) != FG_OK ? 1 : 0);
        } else if (fg_publisher_publish(publisher, &loan, &info, nullptr) == FG_OK) {
            shared.published.fetch_add(1);
        } else {
            shared.failed.fetch_add(1);
        }
    }
}

void check(Shared& shared, fg_subscriber* subscriber, fg_frame* frame) {
    const auto* words = static_cast<const std::uint64_t*>(frame->data);
    const bool good =
        frame->bytes == kBytes &&
        std::all_of(words, words + kWords, [&](std::uint64_t word) { return word == words[0]; });
    shared.torn.fetch_add(good ? 0 : 1);
    shared.received.fetch_add(1);
    shared.failed.fetch_add(fg_subscriber_release(subscriber, frame) != FG_OK ? 1 : 0);
}

// Blocking; two threads may share the handle.
void subscribe(Shared& shared, fg_subscriber* subscriber) {
    while (!shared.is_over.load()) {
        fg_frame frame{};
        const fg_status status = fg_subscriber_take(subscriber, 5000000, &frame);
        if (status == FG_OK) {
            check(shared, subscriber, &frame);
        } else if (status != FG_TIMEOUT) {
            shared.failed.fetch_add(1);
            return;
        }
    }
}

void loop(Shared& shared, fg_subscriber* subscriber) {
    int fd = -1;
    shared.failed.fetch_add(fg_subscriber_event_fd(subscriber, &fd) != FG_OK ? 1 : 0);
    while (!shared.is_over.load() && shared.failed.load() == 0) {
        fg_frame frame{};
        int ready = 0;
        while (fg_subscriber_take(subscriber, 0, &frame) == FG_OK) {
            check(shared, subscriber, &frame);
        }
        shared.failed.fetch_add(fg_subscriber_arm(subscriber, &ready) != FG_OK ? 1 : 0);
        pollfd entry{fd, POLLIN, 0};
        poll(&entry, 1, ready != 0 ? 0 : 5);
        shared.failed.fetch_add(fg_subscriber_drain(subscriber) != FG_OK ? 1 : 0);
    }
}

// Comes and goes with every policy, looks and sweeps.
void churn(Shared& shared, const std::vector<std::uint32_t>& policies) {
    const test::Inspector inspector = test::inspector("t");
    for (std::size_t n = 0; !shared.is_over.load(); ++n) {
        const test::Subscriber visitor = subscriber(shared, policies[n % policies.size()]);
        fg_frame frame{};
        if (fg_subscriber_take(visitor.get(), 1000000, &frame) == FG_OK) {
            check(shared, visitor.get(), &frame);
        }
        fg_topic_sweep(shared.topic.get(), nullptr);
        fg_topic_stats stats{};
        stats.struct_bytes = sizeof stats;
        shared.failed.fetch_add(fg_inspector_stats(inspector.get(), &stats) != FG_OK ? 1 : 0);
    }
}

}  // namespace

TEST_CASE("threads of every policy over one mapping neither race nor tear") {
    Shared shared;
    const OneMapping one_mapping(shared);
    const std::vector<std::uint32_t> policies = {FG_POLICY_LATEST, FG_POLICY_QUEUE,
                                                 FG_POLICY_RELIABLE, FG_POLICY_GROUP};
    {
        const test::Publisher both = test::publisher(shared.topic);
        const test::Publisher alone = test::publisher(shared.topic);
        std::vector<test::Subscriber> subscribers;
        for (const std::uint32_t policy : policies) {
            subscribers.push_back(subscriber(shared, policy));
            subscribers.push_back(subscriber(shared, policy));
        }
        std::vector<std::thread> readers;
        for (std::size_t i = 0; i < subscribers.size(); i += 2) {
            // Two threads on one handle, an event loop on the other.
            readers.emplace_back(subscribe, std::ref(shared), subscribers[i].get());
            readers.emplace_back(subscribe, std::ref(shared), subscribers[i].get());
            readers.emplace_back(loop, std::ref(shared), subscribers[i + 1].get());
        }
        readers.emplace_back(churn, std::ref(shared), std::cref(policies));
        std::vector<std::thread> writers;
        writers.emplace_back(publish, std::ref(shared), both.get(), 1);
        writers.emplace_back(publish, std::ref(shared), both.get(), 2);
        writers.emplace_back(publish, std::ref(shared), alone.get(), 3);
        for (std::thread& writer : writers) {
            writer.join();
        }
        shared.is_over = true;
        for (std::thread& reader : readers) {
            reader.join();
        }
    }
    CHECK(shared.torn.load() == 0);
    CHECK(shared.failed.load() == 0);
    CHECK(shared.published.load() >= kFrames);
    const fg_topic_stats left = test::stats("t");
    CHECK(left.slots_loaned == 0);
    CHECK(left.slots_leased == 0);
    CHECK(left.publishers + left.subscribers + left.dead == 0);
}
