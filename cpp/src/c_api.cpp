#include "framegate/shm.h"

extern "C" uint32_t fg_layout_version(void) { return 1; }
