//! Descriptors that must not be there when a sandbox is entered.
//!
//! Exec closes all that a command is not meant to have. What leads into a sandbox comes before: a WORKDIR or a program below `/proc/self/fd` would find the
//! host's directories (as in CVE-2024-21626), and a process that joins a container is seen by what runs there. So every process that is going
//! to be a command's, and the zygote, which gets whatever rbuild was started with, keeps only what it has a use for.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Closes all but standard input, output, error and `kept`. For a process that has just been forked: nobody else may hold what is closed.
pub(super) fn close_all_but(kept: &[BorrowedFd]) {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: the caller has no use for these descriptors, and forgets what held them.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}
