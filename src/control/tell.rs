//! Lines for the operator on stderr while the gateway serves: never blocks, never fails.
//!
//! stderr is often a pipe to a collector that may be stuck or gone, and control must go on all the same. A
//! line is written only where poll says that stderr takes it, in pieces of `PIECE_BYTES`, which a pipe that
//! polls writable has room for. What cannot be written is counted, and the next line that can be is preceded
//! by the count. Absent: a queue of lines.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::io::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// POSIX' PIPE_BUF on Linux.
const PIECE_BYTES: usize = 4096;

static UNTOLD: AtomicU64 = AtomicU64::new(0);

/// Tells one line.
pub fn tell(line: impl fmt::Display) {
    let untold = UNTOLD.swap(0, Relaxed);
    let text = match untold {
        0 => format!("{line}\n"),
        _ => format!("tollgate: {untold} lines could not be written to stderr before this one\n{line}\n"),
    };
    if !text.as_bytes().chunks(PIECE_BYTES).all(is_written) {
        UNTOLD.fetch_add(untold + 1, Relaxed);
    }
}

fn is_written(piece: &[u8]) -> bool {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let polled = poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && ready[0].revents().contains(PollFlags::OUT) && (&stderr).write_all(piece).is_ok()
}
