//! One run: a scenario against one target, measured.
//!
//! Worker threads (one per core) send and record; the calling thread watches the clock, samples the measured
//! process at the edges of the window, and adds everything up.

pub mod coordinate;
pub mod worker;
pub mod connection;
pub mod http2;
pub mod exchange;
pub mod target;

pub use coordinate::{Options, run};
