#include "framegate/shm.h"

extern "C" unsigned fg_layout_version(void) { return 1; }
