//! Memory of the Rust code.
//!
//! Small pieces are mimalloc's, which keeps pieces of one size together. What a connection needs only while it is busy (8 KiB of
//! read buffer, a parser) then shares no page with what it keeps while it waits, and its pages go back to the
//! kernel when many connections have fallen silent; glibc would keep them, because small pieces lie between them. Large pieces
//! are the system's, which maps and grows them without a copy.
//!
//! `FRAMEGATE_ALLOCATOR=system` has everything be the system's, for tools that watch `malloc`.

#![expect(unsafe_code, reason = "an allocator has no safe form")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU8, Ordering},
};

use libmimalloc_sys as mi;

/// Pieces of this size and more are the system's.
const LARGE_BYTES_MIN: usize = 64 << 10;

#[global_allocator]
static ALLOCATOR: BySize = BySize;

struct BySize;

const UNKNOWN: u8 = 0;
const BOTH: u8 = 1;
const SYSTEM_ONLY: u8 = 2;

/// Read from the environment by the first allocation, and never again: who made a piece has to take it back.
static CHOICE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The piece is, or is to be, mimalloc's.
#[inline]
fn is_small(size: usize) -> bool {
    // Relaxed: every thread that finds nothing reads the same environment, and nothing else depends on the order.
    let choice = match CHOICE.load(Ordering::Relaxed) {
        UNKNOWN => choose(),
        known => known,
    };
    size < LARGE_BYTES_MIN && choice == BOTH
}

#[cold]
fn choose() -> u8 {
    // SAFETY: both are strings that end in zero. `std::env` would allocate.
    let choice = unsafe {
        let value = libc::getenv(c"FRAMEGATE_ALLOCATOR".as_ptr());
        if !value.is_null() && libc::strcmp(value, c"system".as_ptr()) == 0 {
            SYSTEM_ONLY
        } else {
            BOTH
        }
    };
    CHOICE.store(choice, Ordering::Relaxed);
    choice
}

// SAFETY: a piece goes back to whom it came from: that is decided by its size, which the caller tells each time, and by a choice
// that never changes. Both allocators keep the contract.
unsafe impl GlobalAlloc for BySize {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller's.
        unsafe {
            if is_small(layout.size()) {
                mi::mi_malloc_aligned(layout.size(), layout.align()).cast()
            } else {
                System.alloc(layout)
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller's.
        unsafe {
            if is_small(layout.size()) {
                mi::mi_zalloc_aligned(layout.size(), layout.align()).cast()
            } else {
                System.alloc_zeroed(layout)
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: as the caller's; the piece came from the one it goes to.
        unsafe {
            if is_small(layout.size()) {
                mi::mi_free(piece.cast());
            } else {
                System.dealloc(piece, layout);
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as the caller's; the piece stays with the one it came from, or is copied into one that the other made.
        unsafe {
            match (is_small(layout.size()), is_small(new_size)) {
                (true, true) => {
                    mi::mi_realloc_aligned(piece.cast(), new_size, layout.align()).cast()
                }
                (false, false) => System.realloc(piece, layout, new_size),
                _ => {
                    let moved =
                        self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
                    if !moved.is_null() {
                        piece.copy_to_nonoverlapping(moved, layout.size().min(new_size));
                        self.dealloc(piece, layout);
                    }
                    moved
                }
            }
        }
    }
}

/// Gives pages of this thread that nothing lies in back to the kernel.
pub(crate) fn give_back() {
    // SAFETY: may be called at any time.
    unsafe { mi::mi_collect(true) };
}
