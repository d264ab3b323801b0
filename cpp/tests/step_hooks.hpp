// What tests do at a labelled step of the library (steps.hpp): die there, or let something happen.
#pragma once

#ifdef _WIN32
#include "windows.hpp"
#else
#include <unistd.h>
#endif

#include <csignal>
#include <cstdint>
#include <functional>
#include <utility>

#include "steps.hpp"

namespace test {

namespace impl {
// The hook is a plain function, so what it needs is global.
inline framegate::impl::Step fatal_step = framegate::impl::Step::kCount;    // NOLINT
inline std::uint64_t passes_left = 0;                                       // NOLINT
inline framegate::impl::Step awaited_step = framegate::impl::Step::kCount;  // NOLINT
inline std::function<void()> awaited_action;                                // NOLINT
inline bool each_time = false;                                              // NOLINT
}  // namespace impl

// kill -9 of this process (a child) at the step, after it passed it so many times.
inline void die_at(framegate::impl::Step step, std::uint64_t passes) {
    impl::fatal_step = step;
    impl::passes_left = passes;
    framegate_test_step = [](std::uint32_t reached) {
        if (reached == static_cast<std::uint32_t>(impl::fatal_step) && impl::passes_left-- == 0) {
            kill(getpid(), SIGKILL);
        }
    };
}

// What one test wants to happen at one step while this lives: once, or each time.
class At {
  public:
    At(framegate::impl::Step step, std::function<void()> action, bool each_time = false) {
        impl::awaited_step = step;
        impl::awaited_action = std::move(action);
        impl::each_time = each_time;
        framegate_test_step = [](std::uint32_t reached) {
            if (reached == static_cast<std::uint32_t>(impl::awaited_step)) {
                if (!impl::each_time) {
                    impl::awaited_step = framegate::impl::Step::kCount;
                }
                impl::awaited_action();
            }
        };
    }
    ~At() {
        framegate_test_step = nullptr;
        framegate_test_mutations = 0;
    }
    At(const At&) = delete;
    At& operator=(const At&) = delete;
};

}  // namespace test
