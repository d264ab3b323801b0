// Giving up the GIL around waits and large copies.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

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

}  // namespace framegate::py
