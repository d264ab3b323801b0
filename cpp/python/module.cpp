#include <nanobind/nanobind.h>

#include "framegate/shm.h"

NB_MODULE(_shm, m) {
    m.doc() = "Shared-memory frame transport of framegate (C++).";
    m.attr("VERSION") = FRAMEGATE_VERSION;
    m.attr("LAYOUT_VERSION") = fg_layout_version();
}
