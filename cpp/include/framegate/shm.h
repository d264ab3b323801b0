#pragma once
#ifdef __cplusplus
extern "C" {
#endif
/* Version of the segment layout that this library reads and writes. */
unsigned fg_layout_version(void);
#ifdef __cplusplus
}
#endif
