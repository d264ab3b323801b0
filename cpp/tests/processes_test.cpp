// Two processes wake each other in turn. Nobody looks by himself (mutation NoRecheck), so a wake that
// does not cross from one process to the other is a wait that runs into its patience.
#include <string>

#include "steps.hpp"
#include "support.hpp"

namespace {

constexpr std::uint64_t kRounds = FG_TEST_TSAN ? 200 : 2000;
constexpr std::int64_t kLimitNs = 20'000'000'000;
constexpr std::uint64_t kInThread = 0;  // else: an event loop

class Side {
  public:
    Side(const std::string& in, const std::string& out, std::uint64_t how)
        : in_(test::open(in)),
          out_(test::open(out)),
          subscriber_(test::subscriber(in_)),
          publisher_(test::publisher(out_)) {
        framegate_test_mutations = framegate::impl::kMutateNoRecheck;
        if (how != kInThread) {
            REQUIRE(fg_subscriber_event_fd(subscriber_.get(), &fd_) == FG_OK);
        }
    }
    ~Side() { framegate_test_mutations = 0; }
    Side(const Side&) = delete;
    Side& operator=(const Side&) = delete;

    bool send(const std::string& text) { return test::send(publisher_, text, kLimitNs) == FG_OK; }
    // Empty: nothing came.
    std::string receive() {
        fg_frame frame{};
        fg_status status = fg_subscriber_take(subscriber_.get(), fd_ < 0 ? kLimitNs : 0, &frame);
        while (status == FG_EMPTY) {
            int ready = 0;
            pollfd entry{fd_, POLLIN, 0};
            if (fg_subscriber_arm(subscriber_.get(), &ready) != FG_OK ||
                (ready == 0 && poll(&entry, 1, kLimitNs / 1000000) != 1) ||
                fg_subscriber_drain(subscriber_.get()) != FG_OK) {
                return "";
            }
            status = fg_subscriber_take(subscriber_.get(), 0, &frame);
        }
        if (status != FG_OK) {
            return "";
        }
        std::string text = test::text_of(frame);
        fg_subscriber_release(subscriber_.get(), &frame);
        return text;
    }

  private:
    test::Topic in_;
    test::Topic out_;
    test::Subscriber subscriber_;
    test::Publisher publisher_;
    int fd_ = -1;
};

int send_back(std::uint64_t how, std::uint64_t) {
    Side side("there", "back", how);
    if (!side.send("ready")) {
        return 1;
    }
    for (std::uint64_t round = 0; round < kRounds; ++round) {
        const std::string text = side.receive();
        if (text.empty() || !side.send(text)) {
            return 1;
        }
    }
    return 0;
}

}  // namespace

TEST_CASE("wakes cross from one process to the other, each of them") {
    for (const std::uint64_t how : {kInThread, kInThread + 1}) {
        CAPTURE(how);
        const test::RuntimeDirectory directory;
        const test::Topic there = test::create("there", test::options(4, 64));
        const test::Topic back = test::create("back", test::options(4, 64));
        Side side("back", "there", how);
        const pid_t child = test::start(send_back, how);
        REQUIRE(side.receive() == "ready");
        for (std::uint64_t round = 0; round < kRounds; ++round) {
            const std::string text = std::to_string(round);
            REQUIRE(side.send(text));
            REQUIRE(side.receive() == text);
        }
        CHECK(test::wait_for(child) == 0);
    }
}
