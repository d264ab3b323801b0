// framegate._shm: the C++ frame transport for Python. Thin on purpose: what a call means is decided
// by the library behind shm.h; this module turns buffers and arrays into bytes, bytes into views,
// and statuses into exceptions. What need not be fast (opening, listing, asyncio) is Python, in
// framegate/shm.py.
#include <nanobind/nanobind.h>

#include "errors.hpp"
#include "fork.hpp"
#include "framegate/shm.h"
#include "mail.hpp"
#include "publisher.hpp"
#include "region.hpp"
#include "subscriber.hpp"
#include "topic.hpp"

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

NB_MODULE(_shm_of_main_interpreter, m) {
    namespace py = framegate::py;
    // Views that live until the interpreter ends are normal here, not a leak.
    nanobind::set_leak_warnings(false);
    py::install_fork_handler();
    m.doc() = "Shared-memory frame transport of framegate (C++).";
    m.attr("VERSION") = FRAMEGATE_VERSION;
    m.attr("COMPILER") = COMPILER;
    m.attr("LAYOUT_VERSION") = fg_layout_version();
    py::bind_errors(m);
    py::bind_region(m);
    py::bind_topic(m);
    py::bind_publisher(m);
    py::bind_subscriber(m);
    py::bind_mail(m);
}

// Types, the module's own state and the fork handler are one per process, and a view may outlive the
// interpreter that made it. Refused before nanobind's own start, which would take the types away
// from the main interpreter. (Python 3.12 and newer refuse isolated subinterpreters themselves; the
// older kind, as of mod_wsgi, comes here.)
extern "C" NB_EXPORT PyObject* PyInit__shm() {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError,
                        "framegate.shm does not work in a subinterpreter; use a process, or a "
                        "thread of the main interpreter");
        return nullptr;
    }
    return PyInit__shm_of_main_interpreter();
}
