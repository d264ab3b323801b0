//! Threads that answer others soon: probes, scrapes, frames, while Python computes on the same core.

#![expect(
    unsafe_code,
    reason = "two system calls that the standard library does not have"
)]

use std::mem;

/// Nanoseconds that such a thread wants at a time. The shortest that Linux takes (kernel/sched/syscalls.c, `__setscheduler_params`).
const SLICE_NS: u64 = 100_000;

/// Policies whose threads share a core by weight.
const ORDINARY: [u32; 2] = [
    libc::SCHED_OTHER.cast_unsigned(),
    libc::SCHED_BATCH.cast_unsigned(),
];

/// Tell the scheduler that this thread works in short turns, so that it runs as soon as it wakes up.
///
/// Since Linux 6.12 an ordinary thread may choose its slice (`sched_runtime`, Documentation/scheduler/sched-eevdf.rst). Its share of the
/// core stays the same, but a thread with a shorter slice has the earlier deadline and takes the core from one with a longer: without it a
/// thread that wakes beside a busy one waits for that one's slice to end. No privilege is needed. Older kernels ignore it, and wherever it
/// is refused (a seccomp filter, a real-time policy that somebody chose) everything works as before, only later: so no error is told.
pub(crate) fn short_turns() {
    // SAFETY: zeros are a valid value of this structure of integers.
    let mut wanted: libc::sched_attr = unsafe { mem::zeroed() };
    #[expect(clippy::cast_possible_truncation, reason = "48")]
    let size = size_of::<libc::sched_attr>() as u32;
    // Niceness and flags of the thread are kept.
    // SAFETY: the kernel writes at most `size` bytes into the structure.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut wanted, size, 0) };
    if read != 0 || !ORDINARY.contains(&wanted.sched_policy) {
        return;
    }
    wanted.size = size;
    wanted.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads `size` bytes of the structure.
    let _refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
}
