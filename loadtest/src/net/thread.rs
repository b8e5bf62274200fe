//! Places the calling thread on a core, sharpens its timers and raises the file limit of the process.

use std::io;
use std::num::NonZeroU64;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};

/// Pins the calling thread to `core` (0-based). A core that the machine lacks is an error from the kernel.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        let text = format!("core {core}: at most {} can be named", CpuSet::MAX_CPU - 1);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(io::Error::from)
}

/// Timers of a normal thread may fire 50 us late by default; 1 ns is the smallest value that the kernel
/// takes.
pub fn sharpen_timers() {
    // Failure only costs precision, which the run measures as its own lag.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}

/// Raises the soft limit of open files to the hard one.
pub fn raise_file_limit() {
    let most = getrlimit(Resource::Nofile).maximum;
    // Failure only lowers how many connections can be open, which then tell so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}
