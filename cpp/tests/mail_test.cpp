// Calls and control messages: what each party sees, every limit on both sides, the order of single
// steps, and threads over one mapping.
#include <atomic>
#include <thread>

#include "mail_support.hpp"
#include "step_hooks.hpp"
#include "wake.hpp"

using namespace framegate::impl;

namespace {

constexpr std::uint32_t kSmallMailbox = 4096;
constexpr std::uint32_t kSmallCells = (kSmallMailbox - 256) / 256;

fg_topic_options small(std::uint32_t slots) {
    fg_topic_options options = test::options(slots, 4096);
    options.mailbox_bytes = kSmallMailbox;
    return options;
}

void check_empty(const test::Topic& topic) {
    CHECK(test::letters_everywhere(topic) == 0);
    CHECK(test::busy_slots(topic) == 0);
}

}  // namespace

TEST_CASE("a call is answered, and no subscriber sees it") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Subscriber subscriber = test::subscriber(topic);
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "hello", &number) == FG_OK);
    fg_frame frame{};
    CHECK(fg_caller_wait(caller.get(), number, 0, &frame) == FG_EMPTY);
    REQUIRE(test::serve_one(responder, 0) == FG_OK);
    std::string text;
    REQUIRE(test::answer(caller, number, &text) == FG_OK);
    CHECK(text == "olleh");
    CHECK(fg_subscriber_take(subscriber.get(), 0, &frame) == FG_EMPTY);
    CHECK(fg_caller_wait(caller.get(), number, 0, &frame) == FG_INVALID_ARGUMENT);  // over
    check_empty(topic);
}

TEST_CASE("requests and replies need not follow the schema of the topic") {
    const test::RuntimeDirectory directory;
    fg_array array{};
    array.dtype = FG_DTYPE_FLOAT64;
    array.dimension_count = 1;
    array.shape[0] = 8;
    fg_topic_options options = test::options(4, 64);
    options.schema = &array;
    options.schema_count = 1;
    const test::Topic topic = test::create("t", options);
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "bytes", &number) == FG_OK);
    fg_request request{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    CHECK(request.frame.array_count == 0);
    fg_loan loan{};
    fg_publisher* loans = fg_responder_loans(responder.get());
    REQUIRE(fg_publisher_loan(loans, 4, 0, &loan) == FG_OK);
    array.dtype = FG_DTYPE_UINT8;
    array.shape[0] = 4;
    std::uint64_t bytes = 0;
    REQUIRE(fg_arrays_lay_out(&array, 1, &bytes) == FG_OK);
    fg_publish_info info = test::bytes_info(bytes);
    info.arrays = &array;
    info.array_count = 1;
    REQUIRE(fg_responder_reply(responder.get(), &request, &loan, &info) == FG_OK);
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    fg_frame reply{};
    REQUIRE(fg_caller_wait(caller.get(), number, 0, &reply) == FG_OK);
    fg_array got{};
    std::size_t count = 0;
    REQUIRE(fg_caller_arrays(caller.get(), &reply, &got, 1, &count) == FG_OK);
    CHECK(count == 1);
    CHECK(got.dtype == FG_DTYPE_UINT8);
    CHECK(fg_caller_release(caller.get(), &reply) == FG_OK);
    CHECK(fg_caller_arrays(caller.get(), &reply, &got, 1, &count) == FG_LEASE_LOST);
    check_empty(topic);
}

TEST_CASE("nobody there is an error at once, and the loan stays good") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const test::Publisher publisher = test::publisher(topic);  // has a mailbox, too
    fg_loan loan{};
    fg_publisher* loans = fg_caller_loans(caller.get());
    REQUIRE(fg_publisher_loan(loans, 1, 0, &loan) == FG_OK);
    const fg_publish_info info = test::bytes_info(1);
    std::uint64_t number = 0;
    CHECK(fg_caller_call(caller.get(), &loan, &info, -1, &number) == FG_NO_RESPONDER);
    REQUIRE(loan.data != nullptr);
    const test::Responder responder = test::responder(topic);
    CHECK(fg_caller_call(caller.get(), &loan, &info, -1, &number) == FG_OK);
    CHECK(loan.data == nullptr);
}

TEST_CASE("full mailbox is an error to the caller, a second responder takes the overflow") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", small(64));
    const test::Caller caller = test::caller(topic);
    const test::Caller other = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    for (std::uint32_t i = 0; i < kSmallCells; ++i) {
        REQUIRE(test::call(caller, "x", &number) == FG_OK);
    }
    CHECK(test::call(other, "x", &number) == FG_MAILBOX_FULL);
    CHECK(test::call(caller, "x", &number) == FG_CALLS_EXHAUSTED);
    const test::Responder second = test::responder(topic);
    CHECK(test::call(other, "x", &number) == FG_OK);
    CHECK(test::serve_one(second, 0) == FG_OK);
    std::string text;
    CHECK(test::answer(other, number, &text) == FG_OK);
}

TEST_CASE("calls in flight are limited") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Caller caller = test::caller(topic, 2);
    const test::Responder responder = test::responder(topic);
    std::uint64_t first = 0;
    std::uint64_t second = 0;
    std::uint64_t third = 0;
    REQUIRE(test::call(caller, "a", &first) == FG_OK);
    REQUIRE(test::call(caller, "b", &second) == FG_OK);
    CHECK(test::call(caller, "c", &third) == FG_CALLS_EXHAUSTED);
    REQUIRE(test::serve_one(responder) == FG_OK);
    std::string text;
    REQUIRE(test::answer(caller, first, &text) == FG_OK);
    CHECK(test::call(caller, "c", &third) == FG_OK);
    fg_caller_options options;
    fg_caller_options_init(&options);
    options.calls_max = test::view_of(topic).mailbox_cells + 1;
    fg_caller* handle = nullptr;
    CHECK(fg_caller_open(topic.get(), &options, &handle) == FG_INVALID_ARGUMENT);
}

TEST_CASE("requests to answer are limited") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic, 1);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "a", &number) == FG_OK);
    REQUIRE(test::call(caller, "b", &number) == FG_OK);
    fg_request request{};
    fg_request refused{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    CHECK(fg_responder_take(responder.get(), 0, &refused) == FG_LEASE_QUOTA);
    REQUIRE(test::reply(responder, &request, "done") == FG_OK);
    CHECK(fg_responder_take(responder.get(), 0, &refused) == FG_OK);
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    fg_responder_drop(responder.get(), &refused);
    CHECK(fg_responder_release(responder.get(), &refused.frame) == FG_OK);
    fg_responder_options options;
    fg_responder_options_init(&options);
    options.requests_max = FG_REQUESTS_MAX + 1;
    fg_responder* handle = nullptr;
    CHECK(fg_responder_open(topic.get(), &options, &handle) == FG_INVALID_ARGUMENT);
}

TEST_CASE("request that nobody took is withdrawn at the deadline") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    fg_frame reply{};
    REQUIRE(test::call(caller, "x", &number, 1000000) == FG_OK);
    CHECK(fg_caller_wait(caller.get(), number, test::kPatienceNs, &reply) == FG_TIMEOUT);
    check_empty(topic);
    fg_request request{};
    CHECK(fg_responder_take(responder.get(), 0, &request) == FG_EMPTY);
}

TEST_CASE("late answer is thrown away on arrival, and counted until then") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic, 1);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "late", &number, 20000000) == FG_OK);
    fg_request request{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    CHECK(request.deadline_ns != 0);
    fg_frame reply{};
    CHECK(fg_caller_wait(caller.get(), number, test::kPatienceNs, &reply) == FG_TIMEOUT);
    CHECK(test::call(caller, "next", &number) == FG_CALLS_EXHAUSTED);
    CHECK(test::reply(responder, &request, "at last") == FG_OK);
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    REQUIRE(test::call(caller, "next", &number) == FG_OK);
    REQUIRE(test::serve_one(responder) == FG_OK);
    std::string text;
    REQUIRE(test::answer(caller, number, &text) == FG_OK);
    CHECK(text == "txen");
    check_empty(topic);
}

TEST_CASE("responder skips requests that are late or whose caller is gone") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    test::Caller gone = test::caller(topic);
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    REQUIRE(test::call(gone, "gone", &number) == FG_OK);
    REQUIRE(test::call(caller, "late", &number, 0) == FG_OK);
    REQUIRE(test::call(caller, "good", &number) == FG_OK);
    gone.reset();
    fg_request request{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    CHECK(test::text_of(request.frame) == "good");
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    fg_responder_drop(responder.get(), &request);
}

TEST_CASE("cancelled call leaves nothing") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t untaken = 0;
    std::uint64_t taken = 0;
    std::uint64_t answered = 0;
    REQUIRE(test::call(caller, "answered", &answered) == FG_OK);
    REQUIRE(test::serve_one(responder) == FG_OK);
    REQUIRE(test::call(caller, "taken", &taken) == FG_OK);
    fg_request request{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    REQUIRE(test::call(caller, "untaken", &untaken) == FG_OK);
    for (const std::uint64_t number : {untaken, taken, answered}) {
        CHECK(fg_caller_cancel(caller.get(), number) == FG_OK);
        CHECK(fg_caller_cancel(caller.get(), number) == FG_OK);  // harmless
    }
    CHECK(test::reply(responder, &request, "late") == FG_OK);
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    std::string text;
    REQUIRE(test::call(caller, "x", &taken) == FG_OK);
    REQUIRE(test::serve_one(responder) == FG_OK);
    REQUIRE(test::answer(caller, taken, &text) == FG_OK);  // reads the mail
    check_empty(topic);
}

TEST_CASE("failure carries its text, cut between characters") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::string longest;
    while (longest.size() < 2 * FG_LETTER_BYTES_MAX) {
        longest += "x\xc3\xa4";  // three bytes, two characters
    }
    longest = longest.substr(0, FG_LETTER_BYTES_MAX - 1) + "\xc3\xa4";
    for (const std::string& said : {std::string("no such thing"), longest}) {
        std::uint64_t number = 0;
        REQUIRE(test::call(caller, "x", &number) == FG_OK);
        fg_request request{};
        REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
        REQUIRE(fg_responder_fail(responder.get(), &request, said.data(), said.size()) == FG_OK);
        CHECK(fg_responder_fail(responder.get(), &request, "x", 1) == FG_INVALID_ARGUMENT);
        CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
        std::string text;
        CHECK(test::answer(caller, number, &text) == FG_CALL_FAILED);
        CHECK(std::string(fg_last_error()) ==
              said.substr(0, std::min<std::size_t>(said.size(), FG_LETTER_BYTES_MAX - 1)));
    }
    check_empty(topic);
}

TEST_CASE("dropped request fails the call") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "x", &number) == FG_OK);
    fg_request request{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    fg_responder_drop(responder.get(), &request);
    fg_responder_drop(responder.get(), &request);  // harmless
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    std::string text;
    CHECK(test::answer(caller, number, &text) == FG_CALL_FAILED);
    CHECK(std::string(fg_last_error()).find("without an answer") != std::string::npos);
}

TEST_CASE("responder that closes fails what it did not take and may answer what it did") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Caller caller = test::caller(topic);
    test::Responder responder = test::responder(topic);
    fg_responder* raw = responder.get();
    std::uint64_t taken = 0;
    std::uint64_t held = 0;
    std::uint64_t queued = 0;
    REQUIRE(test::call(caller, "taken", &taken) == FG_OK);
    REQUIRE(test::call(caller, "held", &held) == FG_OK);
    REQUIRE(test::call(caller, "queued", &queued) == FG_OK);
    fg_request request{};
    fg_request unanswered{};
    REQUIRE(fg_responder_take(raw, 0, &request) == FG_OK);
    REQUIRE(fg_responder_take(raw, 0, &unanswered) == FG_OK);
    fg_responder_retain(raw);
    responder.reset();
    std::string text;
    CHECK(test::answer(caller, queued, &text) == FG_CALL_FAILED);
    std::uint64_t number = 0;
    CHECK(test::call(caller, "new", &number) == FG_NO_RESPONDER);
    CHECK(fg_responder_take(raw, 0, &request) == FG_CLOSED);
    REQUIRE(fg_responder_fail(raw, &request, "said", 4) == FG_OK);
    CHECK(test::answer(caller, taken, &text) == FG_CALL_FAILED);
    CHECK(std::string(fg_last_error()) == "said");
    CHECK(fg_responder_release(raw, &request.frame) == FG_OK);
    CHECK(fg_responder_release(raw, &unanswered.frame) == FG_OK);
    fg_publisher* loans = fg_responder_loans(raw);
    fg_loan loan{};
    REQUIRE(fg_publisher_loan(loans, 1, 0, &loan) == FG_OK);
    const fg_publish_info info = test::bytes_info(1);
    CHECK(fg_responder_reply(raw, &unanswered, &loan, &info) == FG_OK);
    CHECK(fg_publisher_loan(loans, 1, 0, &loan) == FG_CLOSED);  // nothing left to answer
    fg_responder_release_handle(raw);
    CHECK(test::answer(caller, held, &text) == FG_OK);
    check_empty(topic);
}

TEST_CASE("caller that closes takes its requests back, answers find nobody") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "taken", &number) == FG_OK);
    fg_request request{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    REQUIRE(test::call(caller, "queued", &number) == FG_OK);
    caller.reset();
    CHECK(test::letters_everywhere(topic) == 0);
    CHECK(test::reply(responder, &request, "x") == FG_CALLER_GONE);
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    check_empty(topic);
}

TEST_CASE("responders share the calls") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(16, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder one = test::responder(topic);
    const test::Responder two = test::responder(topic);
    std::uint64_t number = 0;
    for (int i = 0; i < 8; ++i) {
        REQUIRE(test::call(caller, "x", &number) == FG_OK);
    }
    for (int i = 0; i < 4; ++i) {
        CHECK(test::serve_one(one, 0) == FG_OK);
        CHECK(test::serve_one(two, 0) == FG_OK);
    }
    CHECK(test::serve_one(one, 0) == FG_EMPTY);
    CHECK(test::serve_one(two, 0) == FG_EMPTY);
}

TEST_CASE("requests leave a slot to the replies") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(3, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t first = 0;
    std::uint64_t second = 0;
    std::uint64_t third = 0;
    REQUIRE(test::call(caller, "first", &first) == FG_OK);
    REQUIRE(test::call(caller, "second", &second) == FG_OK);
    CHECK(test::call(caller, "third", &third) == FG_TOPIC_FULL);
    std::string text;
    for (const std::uint64_t number : {first, second}) {
        REQUIRE(test::serve_one(responder) == FG_OK);
        REQUIRE(test::answer(caller, number, &text) == FG_OK);
    }
    check_empty(topic);
}

TEST_CASE("late answers make room when the caller needs a slot") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(3, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    for (int i = 0; i < 2; ++i) {
        std::uint64_t number = 0;
        REQUIRE(test::call(caller, "x", &number) == FG_OK);
        fg_request request{};
        REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
        REQUIRE(fg_caller_cancel(caller.get(), number) == FG_OK);
        REQUIRE(test::reply(responder, &request, "late") == FG_OK);
        REQUIRE(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    }
    CHECK(test::busy_slots(topic) != 0);
    std::uint64_t number = 0;
    CHECK(test::call(caller, "x", &number) == FG_OK);
    CHECK(test::letters_everywhere(topic) == 1);
}

TEST_CASE("calls go on after a resize, and what is held stays good") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(6, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t before = 0;
    std::uint64_t queued = 0;
    REQUIRE(test::call(caller, "before", &before) == FG_OK);
    fg_request request{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    REQUIRE(test::call(caller, "queued", &queued) == FG_OK);
    fg_resize_options larger;
    fg_resize_options_init(&larger);
    larger.slot_bytes = 4096;
    REQUIRE(fg_topic_resize(topic.get(), &larger) == FG_OK);

    const std::string large(4096, 'x');
    std::uint64_t after = 0;
    REQUIRE(test::call(caller, large, &after) == FG_OK);
    REQUIRE(test::reply(responder, &request, large) == FG_OK);  // moves the responder on
    CHECK(test::text_of(request.frame) == "before");            // still leased where it was
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    std::string text;
    REQUIRE(test::answer(caller, before, &text) == FG_OK);
    CHECK(text == large);
    REQUIRE(test::serve_one(responder) == FG_OK);  // of the old generation
    REQUIRE(test::answer(caller, queued, &text) == FG_OK);
    CHECK(text == "deueuq");
    REQUIRE(test::serve_one(responder) == FG_OK);
    REQUIRE(test::answer(caller, after, &text) == FG_OK);
    CHECK(text == large);
    CHECK(test::letters_everywhere(topic) == 0);
}

// The caller makes room in its mailbox, meets a letter from behind the resize, and goes on.
TEST_CASE("loan is refused if the caller goes on to smaller slots while it makes room") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(3, 4096));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    fg_request requests[2] = {};
    for (fg_request& request : requests) {
        std::uint64_t number = 0;
        REQUIRE(test::call(caller, "x", &number) == FG_OK);
        REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
        REQUIRE(fg_caller_cancel(caller.get(), number) == FG_OK);
    }
    REQUIRE(test::reply(responder, &requests[0], "late") == FG_OK);
    REQUIRE(fg_responder_release(responder.get(), &requests[0].frame) == FG_OK);
    const test::At resized(Step::kMailLooked, [&] {
        fg_resize_options smaller;
        fg_resize_options_init(&smaller);
        smaller.slot_bytes = 64;
        CHECK(fg_topic_resize(topic.get(), &smaller) == FG_OK);
        CHECK(test::reply(responder, &requests[1], "later") == FG_OK);
    });
    fg_loan loan{};
    CHECK(fg_publisher_loan(fg_caller_loans(caller.get()), 4096, 0, &loan) == FG_FRAME_TOO_LARGE);
    REQUIRE(fg_publisher_loan(fg_caller_loans(caller.get()), 64, 0, &loan) == FG_OK);
    CHECK(loan.capacity == 64);
    CHECK(fg_publisher_abandon(fg_caller_loans(caller.get()), &loan) == FG_OK);
    CHECK(fg_responder_release(responder.get(), &requests[1].frame) == FG_OK);
}

// For ThreadSanitizer: both threads use the same caller.
TEST_CASE("thread waits for an answer while another one goes on behind resizes") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "x", &number) == FG_OK);
    std::thread waiter([&] {
        std::string text;
        CHECK(test::answer(caller, number, &text) == FG_OK);
    });
    fg_resize_options wanted;
    fg_resize_options_init(&wanted);
    for (std::uint32_t i = 0; i < 20; ++i) {
        wanted.slots = 5 + i % 2;
        REQUIRE(fg_topic_resize(topic.get(), &wanted) == FG_OK);
        fg_loan loan{};
        REQUIRE(fg_publisher_loan(fg_caller_loans(caller.get()), 1, 0, &loan) == FG_OK);
        REQUIRE(fg_publisher_abandon(fg_caller_loans(caller.get()), &loan) == FG_OK);
    }
    REQUIRE(test::serve_one(responder) == FG_OK);
    waiter.join();
}

namespace {

void resize(const test::Topic& topic, std::uint32_t slots) {
    fg_resize_options options;
    fg_resize_options_init(&options);
    options.slots = slots;
    REQUIRE_MESSAGE(fg_topic_resize(topic.get(), &options) == FG_OK, fg_last_error());
}

std::size_t data_files(const test::RuntimeDirectory& directory) {
    std::size_t count = 0;
    for (const std::string& file : directory.files()) {
        count += file.find(".data") != std::string::npos ? 1 : 0;
    }
    return count;
}

}  // namespace

// Each resize of these is followed by a frame and a sweep: what could be retired is.
TEST_CASE("call in flight is completed across any number of resizes") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(6, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Caller caller = test::caller(topic);
    const test::Topic far = test::open("t");  // maps generations itself
    const test::Responder responder = test::responder(far);
    const auto go_on = [&](std::uint32_t slots) {
        resize(topic, slots);
        REQUIRE(test::send(publisher, "frame") == FG_OK);
        REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    };
    std::uint64_t numbers[3] = {};
    REQUIRE(test::call(caller, "first", &numbers[0]) == FG_OK);
    go_on(7);
    REQUIRE(test::call(caller, "second", &numbers[1]) == FG_OK);
    go_on(8);
    REQUIRE(test::call(caller, "third", &numbers[2]) == FG_OK);
    go_on(9);
    std::string text;
    REQUIRE(test::serve_one(responder) == FG_OK);
    go_on(10);
    fg_request request{};
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    CHECK(test::text_of(request.frame) == "second");
    go_on(11);
    REQUIRE(test::answer(caller, numbers[0], &text) == FG_OK);
    CHECK(text == "tsrif");
    go_on(12);
    REQUIRE(test::reply(responder, &request, "reply") == FG_OK);
    go_on(13);
    fg_frame reply{};
    REQUIRE(fg_caller_wait(caller.get(), numbers[1], 0, &reply) == FG_OK);
    REQUIRE(fg_caller_cancel(caller.get(), numbers[2]) == FG_OK);
    go_on(14);
    CHECK(test::text_of(reply) == "reply");
    CHECK(test::text_of(request.frame) == "second");
    CHECK(data_files(directory) > 2);
    CHECK(fg_caller_release(caller.get(), &reply) == FG_OK);
    CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    CHECK(fg_responder_take(responder.get(), 0, &request) == FG_EMPTY);  // "third" was taken back
    // Nothing holds the old generations: whoever works next goes on, and they are gone.
    std::uint64_t last = 0;
    REQUIRE(test::call(caller, "last", &last) == FG_OK);
    REQUIRE(test::serve_one(responder) == FG_OK);
    REQUIRE(test::answer(caller, last, &text) == FG_OK);
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(data_files(directory) == 1);
    CHECK(test::letters_everywhere(topic) == 0);
}

TEST_CASE("call that ends in any other way lets the generation go") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(6, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Caller caller = test::caller(topic);
    test::Responder responder = test::responder(topic);
    std::uint64_t cancelled = 0;
    std::uint64_t late = 0;
    std::uint64_t failed = 0;
    std::uint64_t orphan = 0;
    fg_request request{};
    REQUIRE(test::call(caller, "failed", &failed) == FG_OK);
    REQUIRE(test::call(caller, "cancelled", &cancelled) == FG_OK);
    REQUIRE(test::call(caller, "late", &late, 1) == FG_OK);
    REQUIRE(test::call(caller, "orphan", &orphan) == FG_OK);
    resize(topic, 7);
    REQUIRE(test::send(publisher, "frame") == FG_OK);
    REQUIRE(fg_responder_take(responder.get(), 0, &request) == FG_OK);
    REQUIRE(fg_responder_fail(responder.get(), &request, "no", 2) == FG_OK);
    REQUIRE(fg_responder_release(responder.get(), &request.frame) == FG_OK);
    std::string text;
    CHECK(test::answer(caller, failed, &text) == FG_CALL_FAILED);
    REQUIRE(fg_caller_cancel(caller.get(), cancelled) == FG_OK);
    CHECK(test::answer(caller, late, &text) == FG_TIMEOUT);
    std::uint64_t next = 0;
    REQUIRE(test::call(caller, "next", &next) == FG_OK);  // the caller has gone on
    CHECK(data_files(directory) == 2);
    responder.reset();
    CHECK(test::answer(caller, orphan, &text) == FG_CALL_FAILED);  // it said so while it closed
    CHECK(test::answer(caller, next, &text) == FG_CALL_FAILED);
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    CHECK(data_files(directory) == 1);
}

// Several resizes while each call is under way; none may end otherwise than with its reply.
TEST_CASE("storm of resizes breaks no call") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(16, 64));
    constexpr int kCalls = FG_TEST_TSAN ? 100 : 1000;
    std::atomic<bool> stop{false};
    std::atomic<std::uint32_t> done{0};
    std::vector<std::thread> threads;
    threads.emplace_back([&] {
        const test::Topic own = test::open("t");
        const test::Publisher publisher = test::publisher(own);
        for (std::uint32_t n = 0; !stop.load(); ++n) {
            while (n > 3 * done.load() && !stop.load()) {
                std::this_thread::yield();
            }
            resize(own, 16 + n % 3);
            REQUIRE_MESSAGE(test::send(publisher, "frame") == FG_OK, fg_last_error());
        }
    });
    for (int i = 0; i < 2; ++i) {
        threads.emplace_back([&] {
            const test::Responder responder = test::responder(test::open("t"));
            while (!stop.load()) {
                const fg_status status = test::serve_one(responder, 20000000);
                REQUIRE_MESSAGE((status == FG_OK || status == FG_TIMEOUT), fg_last_error());
            }
        });
    }
    const test::Caller caller = test::caller(test::open("t"));
    for (int n = 0; n < kCalls; ++n) {
        std::uint64_t number = 0;
        std::string text;
        const std::string sent = std::to_string(n);
        fg_status status = FG_NO_RESPONDER;
        while (status == FG_NO_RESPONDER) {  // until they have joined
            status = test::call(caller, sent, &number);
        }
        REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
        REQUIRE_MESSAGE(test::answer(caller, number, &text) == FG_OK, fg_last_error());
        CHECK(text == std::string(sent.rbegin(), sent.rend()));
        done.fetch_add(1);
    }
    stop.store(true);
    for (std::thread& thread : threads) {
        thread.join();
    }
}

TEST_CASE("event fd of both sides") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    int asked_fd = -1;
    int answered_fd = -1;
    int ready = -1;
    CHECK(fg_responder_arm(responder.get(), &ready) == FG_INVALID_ARGUMENT);
    REQUIRE(fg_responder_event_fd(responder.get(), &asked_fd) == FG_OK);
    REQUIRE(fg_caller_event_fd(caller.get(), &answered_fd) == FG_OK);
    REQUIRE(fg_responder_arm(responder.get(), &ready) == FG_OK);
    CHECK(ready == 0);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "x", &number) == FG_OK);
    pollfd entry{asked_fd, POLLIN, 0};
    REQUIRE(poll(&entry, 1, 60000) == 1);
    REQUIRE(fg_responder_drain(responder.get()) == FG_OK);
    REQUIRE(fg_responder_arm(responder.get(), &ready) == FG_OK);
    CHECK(ready == 1);
    REQUIRE(fg_caller_arm(caller.get(), &ready) == FG_OK);
    CHECK(ready == 0);
    REQUIRE(test::serve_one(responder, 0) == FG_OK);
    entry.fd = answered_fd;
    REQUIRE(poll(&entry, 1, 60000) == 1);
    REQUIRE(fg_caller_drain(caller.get()) == FG_OK);
    std::string text;
    CHECK(test::answer(caller, number, &text, 0) == FG_OK);
}

// The wake of a caller that is woken again and again goes through a socket that is connected to it; in
// its row may be another one by the next time.
TEST_CASE("who is woken again and again is woken, whoever has its row") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Topic elsewhere = test::open("t");
    const test::Responder responder = test::responder(elsewhere);
    const auto& waker = *reinterpret_cast<framegate::impl::Topic*>(elsewhere.get());
    const auto is_woken = [&](const test::Caller& caller, int fd) {
        int ready = -1;
        REQUIRE(fg_caller_arm(caller.get(), &ready) == FG_OK);
        REQUIRE(ready == 0);
        std::uint64_t number = 0;
        REQUIRE(test::call(caller, "x", &number) == FG_OK);
        REQUIRE(test::serve_one(responder, 0) == FG_OK);
        pollfd entry{fd, POLLIN, 0};
        CHECK(poll(&entry, 1, 0) == 1);
        REQUIRE(fg_caller_drain(caller.get()) == FG_OK);
        CHECK(poll(&entry, 1, 0) == 0);
        std::string text;
        CHECK(test::answer(caller, number, &text, 0) == FG_OK);
    };
    std::uint64_t first = 0;
    for (int owner = 0; owner < 3; ++owner) {
        const test::Caller caller = test::caller(topic);
        const test::Caller other = test::caller(topic);
        int fd = -1;
        int other_fd = -1;
        REQUIRE(fg_caller_event_fd(caller.get(), &fd) == FG_OK);
        REQUIRE(fg_caller_event_fd(other.get(), &other_fd) == FG_OK);
        for (int turn = 0; turn < 3; ++turn) {
            is_woken(caller, fd);
        }
        if (os::kConnectsToWake) {
            CHECK(waker.connected_ == waker.woken_last_);
            CHECK(waker.connected_.incarnation > first);  // of the same row, whose owner is new
            first = waker.connected_.incarnation;
        }
        for (int turn = 0; turn < 3; ++turn) {
            is_woken(other, other_fd);
            is_woken(caller, fd);
            is_woken(caller, fd);
        }
    }
}

// Its socket is gone, its row is not: the connection is found closed, and so is the path.
TEST_CASE("wake of one that has closed its socket is no wake") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Responder responder = test::responder(topic);
    test::Caller caller = test::caller(topic);
    auto& waker = *reinterpret_cast<framegate::impl::Topic*>(topic.get());
    int fd = -1;
    int ready = -1;
    REQUIRE(fg_caller_event_fd(caller.get(), &fd) == FG_OK);
    MailboxHeader& header = mailbox_header(test::view_of(topic), 1);
    for (int turn = 0; turn < 3; ++turn) {
        REQUIRE(fg_caller_arm(caller.get(), &ready) == FG_OK);
        REQUIRE(header.armed.load() != 0);
        ring_mailbox(waker, 1);
        CHECK(header.armed.load() == 0);
    }
    caller.reset();
    header.armed.store(1);
    ring_mailbox(waker, 1);
    CHECK(header.armed.load() == 1);  // nobody has been sent anything
    header.armed.store(0);
}

#ifndef _WIN32  // fork
TEST_CASE("wait of a forked child says so, whoever held the lock of the caller") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const test::Responder responder = test::responder(topic);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "x", &number) == FG_OK);
    int status = -1;
    fg_frame reply{};
    {
        const test::At forked(Step::kMailLooked, [&] {
            status = test::wait_for(test::in_child([&] {
                alarm(5);
                std::thread([] {}).join();  // locks are spared only before the first thread
                return fg_caller_wait(caller.get(), number, 1, &reply) == FG_FORKED ? 0 : 1;
            }));
        });
        CHECK(fg_caller_wait(caller.get(), number, 0, &reply) == FG_EMPTY);
    }
    CHECK(status == 0);
}
#endif

TEST_CASE("close ends the waits of other threads") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const MailboxHeader* header = nullptr;
    SUBCASE("take") {
        test::Responder responder = test::responder(topic);
        fg_responder* raw = responder.get();
        fg_responder_retain(raw);
        header = &mailbox_header(test::view_of(topic), 0);
        std::thread waiter([raw] {
            fg_request request{};
            CHECK(fg_responder_take(raw, test::kPatienceNs, &request) == FG_CLOSED);
            fg_responder_release_handle(raw);
        });
        while (header->sleepers.load() == 0) {
            std::this_thread::yield();
        }
        responder.reset();
        waiter.join();
    }
    SUBCASE("wait") {
        const test::Responder responder = test::responder(topic);
        test::Caller caller = test::caller(topic);
        fg_caller* raw = caller.get();
        fg_caller_retain(raw);
        header = &mailbox_header(test::view_of(topic), 1);
        std::uint64_t number = 0;
        REQUIRE(test::call(caller, "x", &number) == FG_OK);
        std::thread waiter([raw, number] {
            fg_frame reply{};
            CHECK(fg_caller_wait(raw, number, test::kPatienceNs, &reply) == FG_CLOSED);
            fg_caller_release_handle(raw);
        });
        while (header->sleepers.load() == 0) {
            std::this_thread::yield();
        }
        caller.reset();
        waiter.join();
    }
    check_empty(topic);
}

// ---- control messages

TEST_CASE("control messages reach every publisher, in order") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", small(4));
    const test::Subscriber subscriber = test::subscriber(topic);
    std::uint32_t reached = 9;
    CHECK(fg_subscriber_send_control(subscriber.get(), 1, "x", 1, &reached) == FG_OK);
    CHECK(reached == 0);
    const test::Publisher one = test::publisher(topic);
    const test::Publisher two = test::publisher(topic);
    const test::Responder bystander = test::responder(topic);
    const std::string longest(FG_LETTER_BYTES_MAX, 'z');
    REQUIRE(fg_subscriber_send_control(subscriber.get(), 7, "abc", 3, &reached) == FG_OK);
    CHECK(reached == 2);
    REQUIRE(fg_subscriber_send_control(subscriber.get(), 8, nullptr, 0, nullptr) == FG_OK);
    REQUIRE(fg_subscriber_send_control(subscriber.get(), 9, longest.data(), FG_LETTER_BYTES_MAX,
                                       nullptr) == FG_OK);
    CHECK(fg_subscriber_send_control(subscriber.get(), 9, longest.data(), FG_LETTER_BYTES_MAX + 1,
                                     nullptr) == FG_INVALID_ARGUMENT);
    for (const test::Publisher* publisher : {&one, &two}) {
        fg_control controls[2];
        std::size_t count = 0;
        REQUIRE(fg_publisher_controls(publisher->get(), controls, 2, &count) == FG_OK);
        REQUIRE(count == 2);
        CHECK(controls[0].sender == 0);
        CHECK(controls[0].type == 7);
        CHECK(std::memcmp(controls[0].data, "abc", 3) == 0);
        CHECK(controls[0].bytes == 3);
        CHECK(controls[1].type == 8);
        CHECK(controls[1].bytes == 0);
        REQUIRE(fg_publisher_controls(publisher->get(), controls, 2, &count) == FG_OK);
        REQUIRE(count == 1);
        CHECK(controls[0].bytes == FG_LETTER_BYTES_MAX);
        CHECK(std::memcmp(controls[0].data, longest.data(), longest.size()) == 0);
    }
    CHECK(test::letters_everywhere(topic) == 0);
}

TEST_CASE("publisher that does not listen is an error to the sender, others still get it") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", small(4));
    const test::Subscriber subscriber = test::subscriber(topic);
    const test::Publisher deaf = test::publisher(topic);
    for (std::uint32_t i = 0; i < kSmallCells; ++i) {
        REQUIRE(fg_subscriber_send_control(subscriber.get(), i, nullptr, 0, nullptr) == FG_OK);
    }
    const test::Publisher other = test::publisher(topic);
    std::uint32_t reached = 0;
    CHECK(fg_subscriber_send_control(subscriber.get(), 5, nullptr, 0, &reached) == FG_MAILBOX_FULL);
    CHECK(reached == 1);
}

TEST_CASE("topic without mailboxes says so") {
    const test::RuntimeDirectory directory;
    fg_topic_options options = test::options(4, 64);
    options.mailbox_bytes = 0;
    const test::Topic topic = test::create("t", options);
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    fg_caller* caller = nullptr;
    fg_responder* responder = nullptr;
    std::size_t count = 0;
    CHECK(fg_caller_open(topic.get(), nullptr, &caller) == FG_UNSUPPORTED);
    CHECK(fg_responder_open(topic.get(), nullptr, &responder) == FG_UNSUPPORTED);
    CHECK(fg_subscriber_send_control(subscriber.get(), 1, nullptr, 0, nullptr) == FG_UNSUPPORTED);
    CHECK(fg_publisher_controls(publisher.get(), nullptr, 0, &count) == FG_UNSUPPORTED);
    CHECK(test::send(publisher, "still works") == FG_OK);
}

#ifndef _WIN32  // files are not sparse there
TEST_CASE("memory of a mailbox is taken when it is opened") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const auto allocated = [&] {
        struct stat info{};
        REQUIRE(stat((directory.path() + "/t.ctl").c_str(), &info) == 0);
        return static_cast<std::uint64_t>(info.st_blocks) * 512;
    };
    const auto reported = [&] {
        fg_topic_info info{};
        info.struct_bytes = sizeof info;
        REQUIRE(fg_inspector_get_info(test::inspector("t").get(), &info) == FG_OK);
        return info.control_bytes;
    };
    const std::uint64_t before = allocated();
    CHECK(before < 100000);
    CHECK(reported() == before);
    const test::Subscriber subscriber = test::subscriber(topic);
    CHECK(allocated() == before);
    {
        const test::Publisher publisher = test::publisher(topic);
    }
    CHECK(allocated() == before + 16384);
    CHECK(reported() == before);
    const test::Publisher again = test::publisher(topic);  // the same row
    CHECK(allocated() == before + 16384);
}
#endif

// ---- the order of single steps

namespace {

// Two participants on plain memory, the second with an open mailbox.
struct Pair {
    test::HeapSegment segment{small(4)};
    const SegmentView& view = segment.view();
    Self poster = segment.join(0);
    Self owner = segment.join(1);
    MailAddress to{1, mail_epoch(1)};
    LoanAttempt loan = try_loan(view, poster);
    Letter letter;

    Pair() {
        open_mailbox(view, owner, to.epoch);
        letter.kind = LetterKind::kRequest;
        letter.slot = loan.slot;
        letter.from = {0, mail_epoch(1)};
    }
    Posted post() { return post_letter(view, poster, to, letter, loan.word); }
    std::uint64_t word() const { return view.slots[loan.slot].word.load(); }
    // The owner dies, whatever it did.
    void bury_owner() {
        scrub_row(view, 1);
        free_row(view, 1);
    }
};

}  // namespace

TEST_CASE("owner that goes while it is posted to leaves the loan with the poster") {
    for (const Step step : {Step::kMailClaimed, Step::kMailWritten, Step::kMailHanded}) {
        Pair pair;
        const test::At set(step, [&] { pair.bury_owner(); });
        const PostResult result = pair.post().result;
        // After HANDED the reaper of the owner may have freed the slot with the owner's others.
        CHECK(result == (step == Step::kMailHanded ? PostResult::kLost : PostResult::kGone));
        CHECK(word_state(pair.word()) ==
              (step == Step::kMailHanded ? SlotState::kFree : SlotState::kClaim));
        CHECK(letters_in(pair.view, 1) == 0);
    }
}

TEST_CASE("without the second look at the mailbox a letter stays behind") {
    Pair pair;
    const test::At set(Step::kMailWritten, [&] { pair.bury_owner(); });
    framegate_test_mutations = kMutateNoOpenRecheck;
    pair.post();
    CHECK(letters_in(pair.view, 1) == 1);  // the rule is needed
    CHECK(word_state(pair.word()) == SlotState::kHanded);
}

TEST_CASE("letter for a former owner is dropped by the next one") {
    Pair pair;
    const test::At set(Step::kMailWritten, [&] {
        pair.bury_owner();
        const Self next = pair.segment.join(1);
        open_mailbox(pair.view, next, mail_epoch(2));
    });
    framegate_test_mutations = kMutateNoOpenRecheck;  // as if the poster died before it
    pair.post();
    Letter letter;
    bool space = false;
    CHECK_FALSE(take_letter(pair.view, self_of(1, 2), mail_epoch(2), &letter, &space));
    CHECK(space);
    CHECK(word_state(pair.word()) == SlotState::kFree);
    CHECK(letters_in(pair.view, 1) == 0);
}

TEST_CASE("letter for a former owner goes with its poster, if nobody ever reads it") {
    Pair pair;
    const test::At set(Step::kMailWritten, [&] {
        pair.bury_owner();
        open_mailbox(pair.view, pair.segment.join(1), mail_epoch(2));
    });
    framegate_test_mutations = kMutateNoOpenRecheck;  // as if the poster died before it
    pair.letter.kind = LetterKind::kReply;
    pair.post();
    CHECK(letters_in(pair.view, 1) == 1);
    scrub_row(pair.view, 0);
    CHECK(letters_in(pair.view, 1) == 0);
    CHECK(word_state(pair.word()) == SlotState::kFree);
}

TEST_CASE("poster that stops half way holds up nobody") {
    Pair pair;
    const Self other = pair.segment.join(2);
    Letter letter;
    bool space = false;
    int received = 0;
    const test::At set(Step::kMailHanded, [&] {
        for (std::uint32_t i = 0; i < 3 * kSmallCells; ++i) {
            Letter control;
            control.type = i;
            REQUIRE(post_letter(pair.view, other, pair.to, control, 0).result == PostResult::kOk);
            REQUIRE(take_letter(pair.view, pair.owner, pair.to.epoch, &letter, &space));
            CHECK(letter.type == i);
            ++received;
        }
    });
    CHECK(pair.post().result == PostResult::kOk);
    CHECK(received == 3 * kSmallCells);
    REQUIRE(take_letter(pair.view, pair.owner, pair.to.epoch, &letter, &space));
    CHECK(letter.kind == LetterKind::kRequest);
    CHECK(pair.word() == handed_word(letter.ticket, pair.owner.owner));
}

TEST_CASE("letters of one poster are read in its order, whenever they come") {
    for (const bool mutated : {false, true}) {
        CAPTURE(mutated);
        bool in_order = true;
        // They come after so many looks of the owner at a cell, into cells behind and ahead of it.
        for (std::uint32_t after = 0; after < kSmallCells; ++after) {
            for (std::uint32_t first = 0; first < kSmallCells; ++first) {
                Pair pair;
                Letter letter;
                bool space = false;
                for (std::uint32_t i = 0; i < first; ++i) {
                    REQUIRE(post_letter(pair.view, pair.poster, pair.to, letter, 0).result ==
                            PostResult::kOk);
                    REQUIRE(take_letter(pair.view, pair.owner, pair.to.epoch, &letter, &space));
                }
                int posts = 0;
                std::uint32_t looks = 0;
                const auto look = [&] {
                    if (looks++ == after) {
                        for (std::uint32_t i = 1; i <= 2; ++i) {
                            Letter control;
                            control.type = i;
                            posts +=
                                post_letter(pair.view, pair.poster, pair.to, control, 0).result ==
                                        PostResult::kOk
                                    ? 1
                                    : 0;
                        }
                    }
                };
                const test::At set(Step::kMailLooked, look, true);
                if (mutated) {
                    framegate_test_mutations = kMutateNoSecondRound;
                }
                std::uint32_t expected = 1;
                while (expected <= 2) {
                    if (take_letter(pair.view, pair.owner, pair.to.epoch, &letter, &space)) {
                        in_order = in_order && letter.type == expected;
                        ++expected;
                    }
                }
                CHECK(posts == 2);
            }
        }
        CHECK(in_order != mutated);
    }
}

TEST_CASE("without the scrub of half-written letters their slot is lost") {
    for (const bool mutated : {false, true}) {
        Pair pair;
        const test::At set(Step::kMailHanded, [&] {
            framegate_test_mutations = mutated ? std::uint32_t{kMutateNoMailScrub} : 0;
            scrub_row(pair.view, 0);  // the poster died here
        });
        CHECK(pair.post().result == (mutated ? PostResult::kOk : PostResult::kLost));
        if (!mutated) {
            CHECK(word_state(pair.word()) == SlotState::kFree);
            CHECK(letters_in(pair.view, 1) == 0);
        }
    }
}

TEST_CASE("withdrawing and taking exclude each other") {
    Pair pair;
    const Posted posted = pair.post();
    REQUIRE(posted.result == PostResult::kOk);
    Letter letter;
    bool space = false;
    const std::uint64_t free_word = slot_word(0, 0, SlotState::kFree);
    SUBCASE("withdrawn first") {
        const test::At set(Step::kMailRetracting, [&] {
            CHECK_FALSE(take_letter(pair.view, pair.owner, pair.to.epoch, &letter, &space));
        });
        CHECK(withdraw_letter(pair.view, pair.poster, pair.to, posted, pair.loan.slot, free_word) ==
              Withdrawal::kDone);
        CHECK(word_state(pair.word()) == SlotState::kFree);
    }
    SUBCASE("taken first") {
        const test::At set(Step::kMailPicked, [&] {
            CHECK(withdraw_letter(pair.view, pair.poster, pair.to, posted, pair.loan.slot,
                                  free_word) == Withdrawal::kRead);
        });
        CHECK(take_letter(pair.view, pair.owner, pair.to.epoch, &letter, &space));
        CHECK(word_state(pair.word()) == SlotState::kHanded);
    }
    CHECK(letters_in(pair.view, 1) == 0);
}

TEST_CASE("mailboxes full of nonsense are survived") {
    Pair pair;
    std::uint64_t random = 88172645463325252U;
    auto* words = reinterpret_cast<Word*>(pair.view.mailboxes + pair.view.mailbox_stride);
    for (int round = 0; round < 200; ++round) {
        for (std::uint64_t i = 0; i < kSmallMailbox / 8; ++i) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            words[i].store(i % 32 == 0 && i >= 32 ? (random & ~0xfULL) | random % 3 : random);
        }
        mailbox_header(pair.view, 1).epoch.store(pair.to.epoch);
        Letter letter;
        bool space = false;
        for (int i = 0; i < 4 && take_letter(pair.view, pair.owner, pair.to.epoch, &letter, &space);
             ++i) {
            CHECK(letter.bytes <= FG_LETTER_BYTES_MAX);
            CHECK((letter.slot == kNoSlot || letter.slot < pair.view.slot_count));
        }
        pair.post();
        scrub_row(pair.view, round % 4 == 0 ? 1 : 0);
    }
}

// ---- threads over one mapping

TEST_CASE("calls of many threads come back whole") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", small(8));
    const test::Caller shared = test::caller(topic);
    const test::Caller own = test::caller(topic);
    constexpr int kCalls = FG_TEST_TSAN ? 300 : 2000;
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    const test::Responder responders[] = {test::responder(topic), test::responder(topic)};
    for (const test::Responder& responder : responders) {
        threads.emplace_back([&] {
            while (!stop.load()) {
                test::serve_one(responder, 20000000);
            }
        });
    }
    std::vector<std::thread> callers;
    for (int id = 0; id < 3; ++id) {
        callers.emplace_back([&, id] {
            const test::Caller& caller = id == 0 ? own : shared;
            for (int i = 0; i < kCalls;) {
                const std::string sent(static_cast<std::size_t>(100 + i % 3000),
                                       static_cast<char>('a' + (i + id) % 26));
                std::uint64_t number = 0;
                const fg_status status = test::call(caller, sent, &number);
                if (status == FG_TOPIC_FULL || status == FG_MAILBOX_FULL) {
                    std::this_thread::yield();
                    continue;
                }
                std::string text;
                if (status != FG_OK || test::answer(caller, number, &text) != FG_OK ||
                    text != sent) {
                    ++wrong;
                }
                ++i;
            }
        });
    }
    for (std::thread& thread : callers) {
        thread.join();
    }
    stop.store(true);
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(wrong.load() == 0);
    check_empty(topic);
}
