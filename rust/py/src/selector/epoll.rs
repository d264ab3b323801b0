//! Python's descriptors in an epoll instance, level-triggered.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use super::{READ, WRITE};
use crate::os::Watched;

/// An instance.
pub(super) use std::os::fd::OwnedFd as Queue;

/// A new epoll instance.
pub(super) fn open() -> io::Result<OwnedFd> {
    // SAFETY: epoll_create1 takes no pointers; the descriptor is checked and then owned here alone.
    unsafe {
        let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Watch a descriptor that is not watched.
pub(super) fn add(queue: &OwnedFd, fd: RawFd, events: u32) -> io::Result<()> {
    control(queue, libc::EPOLL_CTL_ADD, fd, events)
}

/// Watch for other events than before.
pub(super) fn modify(queue: &OwnedFd, fd: RawFd, _before: u32, events: u32) -> io::Result<()> {
    control(queue, libc::EPOLL_CTL_MOD, fd, events)
}

/// Stop watching. A descriptor that was closed has left the epoll instance by itself.
pub(super) fn remove(queue: &OwnedFd, fd: RawFd, _before: u32) {
    let _gone = control(queue, libc::EPOLL_CTL_DEL, fd, 0);
}

fn control(queue: &OwnedFd, operation: i32, fd: RawFd, events: u32) -> io::Result<()> {
    let mut mask = 0;
    if events & READ != 0 {
        mask |= libc::EPOLLIN;
    }
    if events & WRITE != 0 {
        mask |= libc::EPOLLOUT;
    }
    let mut event = libc::epoll_event {
        events: mask.cast_unsigned(),
        u64: u64::from(fd.cast_unsigned()),
    };
    // SAFETY: `event` is valid for the call; the epoll descriptor is held open; the kernel checks `fd`.
    check(unsafe { libc::epoll_ctl(queue.as_raw_fd(), operation, fd, &raw mut event) })
}

/// The instance, watched for something to report.
pub(super) type Watch = Watched<Arc<Queue>>;

/// Has the runtime that runs watch an instance.
pub(super) fn watch(queue: Arc<Queue>) -> io::Result<Watch> {
    // SAFETY: what watches shares ownership of the descriptor, and nobody else closes an OwnedFd.
    unsafe { Watched::new(queue) }
}

/// The number of the instance.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there is none")]
pub(super) fn descriptor(queue: &Queue) -> io::Result<RawFd> {
    Ok(queue.as_raw_fd())
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// What an instance had to report when last asked.
#[derive(Default)]
pub(super) struct Events(Vec<libc::epoll_event>);

impl Events {
    /// Ask what is ready now, for at most `limit` descriptors: how many are. Level-triggered: takes nothing away.
    pub(super) fn ask(&mut self, queue: &OwnedFd, limit: usize) -> io::Result<usize> {
        let events = &mut self.0;
        events.clear();
        events.reserve(limit);
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        // SAFETY: the buffer has room for `limit` events; a zero timeout does not block.
        let count = unsafe { libc::epoll_wait(queue.as_raw_fd(), events.as_mut_ptr(), limit, 0) };
        check(count)?;
        let count = usize::try_from(count).expect("checked");
        // SAFETY: the kernel has written `count` events, no more than there was room for.
        unsafe { events.set_len(count) };
        Ok(count)
    }

    /// Descriptors and what they are ready for.
    pub(super) fn ready(&self) -> impl Iterator<Item = (u64, u32)> {
        self.0.iter().map(|event| {
            let (fd, mask) = (event.u64, event.events.cast_signed());
            // Errors and hang-ups wake readers and writers, as in the standard library.
            let mut events = 0;
            if mask & !libc::EPOLLIN != 0 {
                events |= WRITE;
            }
            if mask & !libc::EPOLLOUT != 0 {
                events |= READ;
            }
            (fd, events)
        })
    }
}
