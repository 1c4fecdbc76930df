//! How a node agent of its own treats memory: what it does not need goes back to the kernel.
//!
//! It rests most of the time, beside pods that need the memory more, and what a burst of pods or its own start took would
//! stay with it (`docs/performance.md` has the figures):
//!
//! - The allocator waits before it gives back a page that is free, in the hope of using it again, and looks only when it
//!   is called next. That pays in a server that is never at rest; here pages go back at once.
//! - Pages of the executable that were touched once stay mapped for ever, with fifteen neighbours each, and count as in
//!   use where the kernel looks for some to reclaim. They are let go of once a minute; the few that an idle agent needs
//!   come back with a fault of a microsecond each, out of the page cache.

use std::{convert::Infallible, ffi::c_void, ops::Range, pin::pin, ptr::NonNull, time::Duration};

use futures_util::future::{Either, select};
use nix::sys::mman::{MmapAdvise, madvise};

/// `mi_option_purge_delay`, for which the binding has no name: its place among mimalloc's options (version 2).
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How often the executable's pages are let go of.
const LET_GO_EVERY: Duration = Duration::from_secs(60);

/// Runs what is a node agent and nothing else, with no more memory than it needs.
pub(crate) async fn sparing<T>(agent: impl Future<Output = T>) -> T {
    give_back_at_once();
    match select(pin!(agent), pin!(let_go_of_files())).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right((never, _)) => match never {},
    }
}

/// Has the allocator give back pages as soon as they are free; without effect where the program's allocator is another.
#[expect(
    unsafe_code,
    reason = "sets one number, which the allocator reads atomically; there is no other way to it"
)]
fn give_back_at_once() {
    // SAFETY: the call takes two plain numbers, may be made at any time from any thread, and checks the first one's range.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
}

async fn let_go_of_files() -> Infallible {
    loop {
        tokio::time::sleep(LET_GO_EVERY).await;
        match std::fs::read_to_string("/proc/self/maps") {
            Ok(maps) => maps.lines().filter_map(as_in_its_file).for_each(let_go_of),
            Err(error) => tracing::debug!("cannot read what is mapped: {error}"),
        }
    }
}

#[expect(unsafe_code, reason = "the kernel is told of addresses of this process")]
fn let_go_of(range: Range<usize>) {
    let Some(start) = NonNull::new(range.start as *mut c_void) else { return };
    // SAFETY: mapped from a file without leave to write, and never written to: its pages hold what the file holds, and the
    // next access brings them back. A range that is no longer mapped is an error.
    let told = unsafe { madvise(start, range.len(), MmapAdvise::MADV_DONTNEED) };
    if let Err(error) = told {
        tracing::debug!("the kernel keeps pages of a file: {error}");
    }
}

/// Where a line of `/proc/self/maps` (proc_pid_maps(5)) maps what is as the file has it: code, or what stands at a program's
/// head, its constants. What was relocated before it became read-only stands behind these, and is left alone: it would
/// be lost.
fn as_in_its_file(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (addresses, leave, offset) = (words.next()?, words.next()?, words.next()?);
    let file = words.nth(2)?;
    let is_head = offset.bytes().all(|digit| digit == b'0');
    if !(leave == "r-xp" || leave == "r--p" && is_head) || !file.starts_with('/') {
        return None;
    }
    let (start, end) = addresses.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "reads the number back")]
    fn the_option_is_the_one_that_delays() {
        // Mimalloc's own default, ten milliseconds, tells that the place is right: its neighbours have others.
        // SAFETY: as above.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(get(), 10);
        give_back_at_once();
        assert_eq!(get(), 0);
    }

    #[test]
    fn only_what_is_as_in_its_file_is_let_go_of() {
        assert_eq!(
            as_in_its_file("55d0-55f8 r-xp 00028000 08:02 135522    /usr/bin/minik8s (deleted)"),
            Some(0x55d0..0x55f8)
        );
        assert_eq!(
            as_in_its_file("55d0-55f8 r--p 00000000 08:02 135522    /usr/bin/minik8s"),
            Some(0x55d0..0x55f8)
        );
        for other in [
            "55d0-55f8 r--p 00028000 08:02 135522    /usr/bin/minik8s",
            "55d0-55f8 rw-p 00000000 08:02 135522    /usr/bin/minik8s",
            "55d0-55f8 rwxp 00000000 00:00 0 ",
            "55d0-55f8 r-xp 00000000 00:00 0         [vdso]",
            "",
        ] {
            assert_eq!(as_in_its_file(other), None, "{other}");
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let here = only_what_is_as_in_its_file_is_let_go_of as *const () as usize;
        let ours = maps.lines().filter_map(as_in_its_file).find(|range| range.contains(&here));
        let_go_of(ours.expect("this very function is mapped from a file"));
        assert_eq!(as_in_its_file(""), None, "and still runs");
    }
}
