// Giving up the GIL around waits and large copies.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include "framegate/shm.h"

namespace framegate::py {

// Like nanobind's gil_scoped_release, but safe in a daemon thread that is still waiting when the
// interpreter ends: before Python 3.14 taking the GIL back would end the thread by unwinding, which
// C++ frames answer with abort().
class WithoutGil {
  public:
    WithoutGil() : state_(PyEval_SaveThread()) {}
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;
    ~WithoutGil() {
        while (is_finalizing()) {
            pause();  // the process ends in a moment
        }
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            // The interpreter began to end while this thread waited for the GIL, and ends the thread
            // by unwinding it. Held here, its frames are never left.
            for (;;) {
                pause();
            }
        }
    }

  private:
    static bool is_finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
        return Py_IsFinalizing() != 0;
#else
        return _Py_IsFinalizing() != 0;
#endif
    }

    PyThreadState* state_;
};

// One more reference to a handle, for a call in which Python may run: a signal handler, or another
// thread, may close the opener's.
template <typename Handle, void (*retain)(Handle*), void (*release)(Handle*)>
class Kept {
  public:
    explicit Kept(Handle* handle) : handle_(handle) { retain(handle_); }
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;
    ~Kept() { release(handle_); }

  private:
    Handle* handle_;
};

using KeptTopic = Kept<fg_topic, fg_topic_retain, fg_topic_close>;
using KeptPublisher = Kept<fg_publisher, fg_publisher_retain, fg_publisher_release_handle>;
using KeptSubscriber = Kept<fg_subscriber, fg_subscriber_retain, fg_subscriber_release_handle>;
using KeptCaller = Kept<fg_caller, fg_caller_retain, fg_caller_release_handle>;
using KeptResponder = Kept<fg_responder, fg_responder_retain, fg_responder_release_handle>;

}  // namespace framegate::py
