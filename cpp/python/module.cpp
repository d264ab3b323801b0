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

NB_MODULE(_shm, m) {
    namespace py = framegate::py;
    // Views that live until the interpreter ends are normal here, not a leak.
    nanobind::set_leak_warnings(false);
    py::install_fork_handler();
    m.doc() = "Shared-memory frame transport of framegate (C++).";
    m.attr("VERSION") = FRAMEGATE_VERSION;
    m.attr("LAYOUT_VERSION") = fg_layout_version();
    py::bind_errors(m);
    py::bind_region(m);
    py::bind_topic(m);
    py::bind_publisher(m);
    py::bind_subscriber(m);
    py::bind_mail(m);
}
