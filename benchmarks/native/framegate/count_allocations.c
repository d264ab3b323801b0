/* Counts the allocations of a process, for LD_PRELOAD: each way to get memory from malloc adds one.
 * glibc only: its own functions have second names, so nothing has to be looked up. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static atomic_ulong count;

uint64_t framegate_bench_allocations(void) {
    return atomic_load_explicit(&count, memory_order_relaxed);
}

static void add(void) { atomic_fetch_add_explicit(&count, 1, memory_order_relaxed); }

void* malloc(size_t bytes) {
    add();
    return __libc_malloc(bytes);
}

void* calloc(size_t number, size_t bytes) {
    add();
    return __libc_calloc(number, bytes);
}

void* realloc(void* old, size_t bytes) {
    add();
    return __libc_realloc(old, bytes);
}

void* aligned_alloc(size_t alignment, size_t bytes) {
    add();
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void** out, size_t alignment, size_t bytes) {
    add();
    *out = __libc_memalign(alignment, bytes);
    return *out == NULL ? 12 /* ENOMEM */ : 0;
}
