//! The system below the suite: clock, readiness, timers, sockets, affinity, figures of a process.
//!
//! Everything here is non-blocking and belongs to one thread.

pub mod process;
pub mod stream;
pub mod http2;
pub mod timers;
pub mod reactor;
pub mod thread;
pub mod clock;
