// kill -9 at every step of a call, on either side of it. Afterwards nothing may be left: no letter,
// no slot, no row; and the next call works.
#include <algorithm>
#include <thread>

#include "mail_support.hpp"

using framegate::impl::is_of_mail;
using framegate::impl::Step;

namespace {

constexpr std::uint64_t kBytes = 2048;
constexpr std::uint32_t kSlots = 6;
constexpr int kRounds = FG_TEST_TSAN ? 2 : 6;

enum class Role { kCaller, kResponder, kReaper };

// Somebody who sleeps, or an armed event loop, for the steps that need one.
bool is_awaited(const framegate::impl::SegmentView& view, Step step, std::uint32_t role) {
    for (std::uint32_t i = 0; i < view.participants_max; ++i) {
        if (framegate::impl::has_mailbox(view, i) && view.participants[i].role.load() == role) {
            const auto& header = framegate::impl::mailbox_header(view, i);
            if (step == Step::kMailRung ? header.sleepers.load() != 0 : header.armed.load() != 0) {
                return true;
            }
        }
    }
    return false;
}

bool needs_waiter(Step step) { return step == Step::kMailRung || step == Step::kMailSent; }

void call_for_ever(const test::Topic& topic, Step step) {
    for (;;) {
        const test::Caller caller = test::caller(topic);
        int fd = -1;
        int ready = 0;
        fg_caller_event_fd(caller.get(), &fd);
        for (int n = 0; n < 8; ++n) {
            while (needs_waiter(step) &&
                   !is_awaited(test::view_of(topic), step, FG_ROLE_RESPONDER)) {
                std::this_thread::yield();
            }
            std::uint64_t number = 0;
            const std::int64_t timeout_ns = n % 3 == 2 ? 0 : 20000000;
            if (test::call(caller, std::string(kBytes, static_cast<char>('a' + n)), &number,
                           timeout_ns) != FG_OK) {
                continue;
            }
            std::string text;
            if (n % 5 == 4) {
                fg_caller_cancel(caller.get(), number);
            } else {
                test::answer(caller, number, &text);
            }
            fg_caller_arm(caller.get(), &ready);
            fg_caller_drain(caller.get());
        }
    }
}

void respond_for_ever(const test::Topic& topic, Step step) {
    for (;;) {
        const test::Responder responder = test::responder(topic);
        int fd = -1;
        int ready = 0;
        fg_responder_event_fd(responder.get(), &fd);
        for (int n = 0; n < 8; ++n) {
            fg_request request{};
            fg_responder_arm(responder.get(), &ready);
            fg_responder_drain(responder.get());
            if (fg_responder_take(responder.get(), 20000000, &request) != FG_OK) {
                continue;
            }
            for (int i = 0; needs_waiter(step) && i < 10000 &&
                            !is_awaited(test::view_of(topic), step, FG_ROLE_CALLER);
                 ++i) {
                std::this_thread::yield();
            }
            if (n % 4 == 3) {
                fg_responder_fail(responder.get(), &request, "no", 2);
            } else {
                test::reply(responder, &request, test::text_of(request.frame));
            }
            fg_responder_release(responder.get(), &request.frame);
            fg_responder_drop(responder.get(), &request);
        }
    }
}

int die_in_a_call(std::uint64_t, std::uint64_t) {
    framegate_test_step = nullptr;
    const test::Topic own = test::open("crash");
    const test::Responder responder = test::responder(own);
    const test::Caller caller = test::caller(own);
    std::uint64_t number = 0;
    test::call(caller, "1", &number);
    test::call(caller, "2", &number);
    fg_request request{};
    fg_responder_take(responder.get(), 0, &request);
    kill(getpid(), SIGKILL);
    return 1;
}

// Makes a dead responder with a request in its hands and one in its mailbox, and a dead caller,
// then reaps them.
void reap_for_ever(const test::Topic& topic) {
    for (;;) {
        test::wait_for(test::start(die_in_a_call));
        fg_topic_sweep(topic.get(), nullptr);
    }
}

// The role, and the step with how often it is passed: step << 32 | passes.
int die_in_role(std::uint64_t role, std::uint64_t when) {
    const auto step = static_cast<Step>(when >> 32);
    test::die_at(step, when & 0xffffffff);
    const test::Topic topic = test::open("crash");
    switch (static_cast<Role>(role)) {
        case Role::kCaller:
            call_for_ever(topic, step);
            break;
        case Role::kResponder:
            respond_for_ever(topic, step);
            break;
        case Role::kReaper:
            reap_for_ever(topic);
    }
    return 1;
}

struct Survivors {
    test::Topic topic = test::create("crash", test::options(kSlots, kBytes));
    test::Caller caller = test::caller(topic);
    test::Responder responder = test::responder(topic);
    int caller_fd = -1;
    int responder_fd = -1;
    std::uint32_t resizes = 0;

    Survivors() {
        REQUIRE(fg_caller_event_fd(caller.get(), &caller_fd) == FG_OK);
        REQUIRE(fg_responder_event_fd(responder.get(), &responder_fd) == FG_OK);
    }

    void serve(std::int64_t timeout_ns) {
        fg_request request{};
        const fg_status status = fg_responder_take(responder.get(), timeout_ns, &request);
        if (status == FG_EMPTY || status == FG_TIMEOUT) {
            return;
        }
        REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
        const std::string text = test::text_of(request.frame);
        REQUIRE(std::all_of(text.begin(), text.end(), [&](char c) { return c == text[0]; }));
        const fg_status answered = test::reply(responder, &request, text);
        CHECK((answered == FG_OK || answered == FG_CALLER_GONE || answered == FG_MAILBOX_FULL));
        CHECK(fg_responder_release(responder.get(), &request.frame) == FG_OK);
        fg_responder_drop(responder.get(), &request);
    }

    // One call to whoever answers; our own responder does not, in these rounds.
    void ask(bool by_fd) {
        std::uint64_t number = 0;
        const std::string sent(kBytes, 'q');
        fg_status status = test::call(caller, sent, &number, 50000000);
        if (status != FG_OK) {
            CHECK((status == FG_NO_RESPONDER || status == FG_TOPIC_FULL ||
                   status == FG_MAILBOX_FULL || status == FG_CALLS_EXHAUSTED ||
                   status == FG_RESPONDER_DIED));
            std::this_thread::yield();
            return;
        }
        if (by_fd) {
            int ready = 0;
            REQUIRE(fg_caller_drain(caller.get()) == FG_OK);
            REQUIRE(fg_caller_arm(caller.get(), &ready) == FG_OK);
            pollfd entry{caller_fd, POLLIN, 0};
            poll(&entry, 1, ready != 0 ? 0 : 50);
        }
        std::string text;
        status = test::answer(caller, number, &text);
        CHECK((status == FG_OK || status == FG_RESPONDER_DIED || status == FG_CALL_FAILED ||
               status == FG_TIMEOUT));
        CHECK((status != FG_OK || text == sent));
    }

    void work(Role role, Step step, int turn) {
        if (role == Role::kResponder) {
            ask(step == Step::kMailSent);
        } else if (step == Step::kMailRung) {
            serve(100000000);
        } else if (step == Step::kMailSent) {
            int ready = 0;
            REQUIRE(fg_responder_drain(responder.get()) == FG_OK);
            serve(0);
            REQUIRE(fg_responder_arm(responder.get(), &ready) == FG_OK);
            pollfd entry{responder_fd, POLLIN, 0};
            poll(&entry, 1, ready != 0 ? 0 : 100);
        } else {
            serve(turn % 2 == 0 ? 1000000 : 0);
        }
    }

    void resize() {
        fg_resize_options options;
        fg_resize_options_init(&options);
        options.slots = kSlots + resizes++ % 3;
        REQUIRE_MESSAGE(fg_topic_resize(topic.get(), &options) == FG_OK, fg_last_error());
    }

    // Of the newest generation.
    static std::uint32_t busy_slots() { return test::stats("crash").slots_loaned; }

    void check_nothing_is_left() {
        REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
        while (test::letters_everywhere(topic) != 0) {  // whole letters of the dead
            serve(0);
            std::uint64_t number = 0;
            REQUIRE(test::call(caller, "x", &number) == FG_OK);  // reads our own mail
            CHECK(fg_caller_cancel(caller.get(), number) == FG_OK);
        }
        CHECK(busy_slots() == 0);
        std::uint64_t number = 0;
        REQUIRE_MESSAGE(test::call(caller, "alive", &number) == FG_OK, fg_last_error());
        REQUIRE(test::serve_one(responder) == FG_OK);
        std::string text;
        REQUIRE(test::answer(caller, number, &text) == FG_OK);
        CHECK(text == "evila");
        CHECK(test::letters_everywhere(topic) == 0);
        CHECK(busy_slots() == 0);
        CHECK(test::stats("crash").dead == 0);
    }
};

void run(Role role, Step step, bool resizing = false) {
    const std::uint32_t step_number = static_cast<std::uint32_t>(step);
    CAPTURE(step_number);
    const test::RuntimeDirectory directory;
    Survivors survivors;
    for (int round = 0; round < (resizing ? kRounds / 2 : kRounds); ++round) {
        CAPTURE(round);
        // For a responder to be asked, ours must not be there.
        if (role == Role::kResponder) {
            survivors.responder.reset();
        }
        const pid_t child = test::start(
            die_in_role, static_cast<std::uint64_t>(role),
            static_cast<std::uint64_t>(step) << 32 | static_cast<std::uint64_t>(round * 2));
        int status = 0;
        for (int turn = 0;; ++turn) {
            const pid_t ended = waitpid(child, &status, WNOHANG);
            REQUIRE(ended >= 0);
            if (ended == child) {
                break;
            }
            if (resizing && turn % 4 == 0) {
                survivors.resize();
            }
            survivors.work(role, step, turn);
        }
        CHECK(WIFSIGNALED(status));
        CHECK(WTERMSIG(status) == SIGKILL);  // SIGALRM: the step was never reached
        if (role == Role::kResponder) {
            survivors.responder = test::responder(survivors.topic);
            REQUIRE(fg_responder_event_fd(survivors.responder.get(), &survivors.responder_fd) ==
                    FG_OK);
        }
        survivors.check_nothing_is_left();
    }
}

}  // namespace

TEST_CASE("death of a caller at any step leaves nothing") {
    for (Step step = Step::kMailClaimed; is_of_mail(step) && step < Step::kReapMailClosed;
         step = static_cast<Step>(static_cast<std::uint32_t>(step) + 1)) {
        run(Role::kCaller, step);
    }
}

TEST_CASE("death of a responder at any step leaves nothing") {
    for (Step step = Step::kMailClaimed; is_of_mail(step) && step < Step::kReapMailClosed;
         step = static_cast<Step>(static_cast<std::uint32_t>(step) + 1)) {
        if (step != Step::kMailRetracting && step != Step::kMailRetracted) {  // the caller's
            run(Role::kResponder, step);
        }
    }
}

TEST_CASE("death of a reaper of either leaves nothing") {
    for (Step step = Step::kReapMailClosed; is_of_mail(step);
         step = static_cast<Step>(static_cast<std::uint32_t>(step) + 1)) {
        run(Role::kReaper, step);
    }
}

TEST_CASE("death of a caller or responder at any step while the topic is resized leaves nothing") {
    for (Step step = Step::kMailClaimed; is_of_mail(step) && step < Step::kReapMailClosed;
         step = static_cast<Step>(static_cast<std::uint32_t>(step) + 1)) {
        if (needs_waiter(step)) {
            continue;  // those wait for a survivor that sleeps, and this one resizes
        }
        run(Role::kCaller, step, true);
        if (step != Step::kMailRetracting && step != Step::kMailRetracted) {  // the caller's
            run(Role::kResponder, step, true);
        }
    }
}

#ifndef _WIN32  // SIGSTOP
// The caller sleeps; only its bounded re-check can find out.
TEST_CASE("death of a responder that holds the request ends the call within about a second") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const pid_t child = test::in_child([] {
        const test::Responder responder = test::responder(test::open("t"));
        raise(SIGSTOP);
        fg_request request{};
        fg_responder_take(responder.get(), test::kPatienceNs, &request);
        kill(getpid(), SIGKILL);
        return 1;
    });
    int status = 0;
    REQUIRE(waitpid(child, &status, WUNTRACED) == child);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "x", &number) == FG_OK);
    std::string text;
    // Stopped is not dead: the call goes on.
    CHECK(test::answer(caller, number, &text, 1500000000) == FG_EMPTY);
    kill(child, SIGCONT);
    CHECK(test::answer(caller, number, &text) == FG_RESPONDER_DIED);
    test::wait_for(child);
    CHECK(test::letters_everywhere(topic) == 0);
    CHECK(test::busy_slots(topic) == 0);
}

TEST_CASE("reply that was posted before a death arrives") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Caller caller = test::caller(topic);
    const pid_t child = test::in_child([] {
        const test::Responder responder = test::responder(test::open("t"));
        raise(SIGSTOP);
        test::die_at(Step::kMailReady, 0);
        test::serve_one(responder);
        return 1;
    });
    int status = 0;
    REQUIRE(waitpid(child, &status, WUNTRACED) == child);
    std::uint64_t number = 0;
    REQUIRE(test::call(caller, "last words", &number) == FG_OK);
    kill(child, SIGCONT);
    test::wait_for(child);
    REQUIRE(fg_topic_sweep(topic.get(), nullptr) == FG_OK);
    std::string text;
    CHECK(test::answer(caller, number, &text) == FG_OK);
    CHECK(text == "sdrow tsal");
}
#endif
