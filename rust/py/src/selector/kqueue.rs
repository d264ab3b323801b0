//! Python's descriptors in a kqueue, level-triggered: without `EV_CLEAR` an event is reported for as long as it holds.
//!
//! Compiled for macOS and not run there. What differs from epoll, and what of it can be seen:
//!
//! - Reading and writing are two filters, each added and removed alone. A descriptor that is ready for both is two events of
//!   the kernel, which are one here ([`Events::ask`]).
//! - There is no event for errors and hang-ups. They set `EV_EOF`, on the filters that they concern: whoever only reads is woken by
//!   the end of the stream, whoever only writes by a reader that is gone, and after a reset both are. Of a pipe's writing end the
//!   filter for reading tells that its reader is gone, which asyncio's transports for pipes rely on.
//! - Regular files may be watched, and to write to a pipe without a reader is refused when it is registered (`EPIPE`): as with
//!   `selectors.KqueueSelector`.
//! - A descriptor that is closed leaves the queue at once, also when there are duplicates of it.
//! - The queue itself becomes readable when it has something to report, for tokio's queue as for `select(2)`. A child does not
//!   inherit it: what has its number there is something else.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::Arc,
};

use super::{READ, WRITE};
use crate::os::Watched;

/// An instance.
pub(super) use std::os::fd::OwnedFd as Queue;

const FILTERS: [(u32, i16); 2] = [(READ, libc::EVFILT_READ), (WRITE, libc::EVFILT_WRITE)];

static NO_WAIT: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// A new kqueue.
pub(super) fn open() -> io::Result<OwnedFd> {
    // SAFETY: kqueue takes nothing; the descriptor is checked and then owned here alone. There is no way to make it with
    // FD_CLOEXEC, but a program that is executed meanwhile has forked before, and does not inherit it.
    unsafe {
        let fd = libc::kqueue();
        check(fd)?;
        let queue = OwnedFd::from_raw_fd(fd);
        check(libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
        Ok(queue)
    }
}

/// Watch a descriptor that is not watched.
pub(super) fn add(queue: &OwnedFd, fd: RawFd, events: u32) -> io::Result<()> {
    modify(queue, fd, 0, events)
}

/// Watch for other events than before. When it fails the descriptor is not watched at all.
pub(super) fn modify(queue: &OwnedFd, fd: RawFd, before: u32, events: u32) -> io::Result<()> {
    for (event, filter) in FILTERS {
        // What was wanted before is wanted anew: its descriptor may have been closed, and the number be another one's by now.
        let changed = if events & event != 0 {
            control(queue, fd, filter, libc::EV_ADD)
        } else if before & event != 0 {
            match control(queue, fd, filter, libc::EV_DELETE) {
                // Gone by itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                changed => changed,
            }
        } else {
            Ok(())
        };
        if let Err(error) = changed {
            remove(queue, fd, READ | WRITE);
            return Err(error);
        }
    }
    Ok(())
}

/// Stop watching. A descriptor that was closed has left the queue by itself.
pub(super) fn remove(queue: &OwnedFd, fd: RawFd, before: u32) {
    for (event, filter) in FILTERS {
        if before & event != 0 {
            let _gone = control(queue, fd, filter, libc::EV_DELETE);
        }
    }
}

/// One change. Without room for events `kevent` fails with what is wrong with it.
fn control(queue: &OwnedFd, fd: RawFd, filter: i16, flags: u16) -> io::Result<()> {
    let change = libc::kevent {
        ident: usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?,
        filter,
        flags,
        fflags: 0,
        data: 0,
        udata: ptr::null_mut(),
    };
    // SAFETY: the change is valid for the call, and there is no room for events; the queue is held open; the kernel checks `fd`.
    let changed = unsafe {
        libc::kevent(
            queue.as_raw_fd(),
            &raw const change,
            1,
            ptr::null_mut(),
            0,
            &raw const NO_WAIT,
        )
    };
    match check(changed) {
        // The change is made before the call looks for signals.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        changed => changed,
    }
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

/// What a queue had to report when last asked.
#[derive(Default)]
pub(super) struct Events {
    /// One per descriptor and filter.
    reported: Vec<libc::kevent>,
    /// One per descriptor.
    ready: Vec<(u64, u32)>,
}

impl Events {
    /// Ask what is ready now, for `limit` descriptors: how many are. Level-triggered: takes nothing away.
    pub(super) fn ask(&mut self, queue: &OwnedFd, limit: usize) -> io::Result<usize> {
        self.ready.clear();
        let reported = &mut self.reported;
        reported.clear();
        let room = limit.saturating_mul(FILTERS.len());
        reported.reserve(room);
        let room = i32::try_from(room).unwrap_or(i32::MAX);
        // SAFETY: the buffer has room for so many events; there are no changes; a zero timeout does not block.
        let count = unsafe {
            libc::kevent(
                queue.as_raw_fd(),
                ptr::null(),
                0,
                reported.as_mut_ptr(),
                room,
                &raw const NO_WAIT,
            )
        };
        check(count)?;
        let count = usize::try_from(count).expect("checked");
        // SAFETY: the kernel has written `count` events, no more than there was room for.
        unsafe { reported.set_len(count) };
        // Events of one descriptor side by side; the order of descriptors means nothing, all of them are handled.
        reported.sort_unstable_by_key(|event| event.ident);
        for event in &*reported {
            let (fd, is_for) = (event.ident as u64, wanted_by(event.filter));
            match self.ready.last_mut() {
                Some((last, events)) if *last == fd => *events |= is_for,
                _ => self.ready.push((fd, is_for)),
            }
        }
        Ok(self.ready.len())
    }

    /// Descriptors and what they are ready for.
    pub(super) fn ready(&self) -> impl Iterator<Item = (u64, u32)> {
        self.ready.iter().copied()
    }
}

/// Who is woken by a filter; `EV_EOF` and `EV_ERROR` come with that of whom they concern.
fn wanted_by(filter: i16) -> u32 {
    match filter {
        libc::EVFILT_WRITE => WRITE,
        _ => READ,
    }
}
