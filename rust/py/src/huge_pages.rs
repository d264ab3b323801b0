//! The heap in huge pages.
//!
//! A framework walks over thousands of small objects for each request, spread over tens of megabytes. With pages of 4 KiB the
//! processor's table of addresses holds a part of them only, and under a hypervisor each miss walks two sets of tables. After
//! startup, when the application's modules are loaded and the heap has its shape, it is moved into pages of 2 MiB
//! (`MADV_COLLAPSE`, Linux 6.1).
//!
//! Memory: a huge page is whole. So only those 2 MiB are moved of which nine tenths are in use already, and the process
//! grows by a tenth of its heap at most. Files, shared memory and thread stacks are left alone.
//!
//! Nothing is done where the system says `never` (`/sys/kernel/mm/transparent_hugepage/enabled`), and nothing fails: whatever
//! the kernel does not want stays as it is. Systems other than Linux do not say anything: nothing is done there.

use std::fs;

use pyo3::prelude::*;

use crate::{gil, os};

const HUGE_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4096;
const PAGES: usize = HUGE_BYTES / PAGE_BYTES;
/// Pages of 2 MiB that have to be in use.
const PAGES_USED_MIN: usize = PAGES * 9 / 10;

/// Move the heap of this process into huge pages.
///
/// Returns:
///     Bytes that are in huge pages now.
#[pyfunction]
pub(crate) fn collapse_heap(py: Python<'_>) -> usize {
    gil::detached(py, || {
        let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        if setting.is_err() || setting.is_ok_and(|text| text.contains("[never]")) {
            return 0;
        }
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let windows = maps
            .lines()
            .filter_map(private_memory)
            .flat_map(|(start, end)| {
                let first = start.next_multiple_of(HUGE_BYTES);
                (first..end)
                    .step_by(HUGE_BYTES)
                    .filter(move |window| window + HUGE_BYTES <= end)
            });
        windows
            .filter(|&window| is_in_use(window) && os::collapse(window, HUGE_BYTES))
            .count()
            * HUGE_BYTES
    })
}

/// The bounds of a mapping that is private, writable and of no file. A line is `start-end rw-p offset device inode name`.
fn private_memory(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_private = fields.next() == Some("rw-p");
    let name = fields.nth(3);
    if !is_private || !matches!(name, None | Some("[heap]")) {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}

/// True when nearly all of the 2 MiB at `window` are in memory.
fn is_in_use(window: usize) -> bool {
    let mut pages = [0_u8; PAGES];
    os::resident_pages(window, HUGE_BYTES, &mut pages)
        && pages.iter().filter(|&&page| page & 1 != 0).count() >= PAGES_USED_MIN
}
