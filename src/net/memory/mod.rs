//! The simulated network: what runs above `net` runs here unchanged, with drawn scheduling, virtual time and
//! faults.
//!
//! Shape: `Simulation::new(seed, faults).run(main)` gives an `Outcome`. Inside it `runtime::spawn`,
//! `runtime::sleep`, `stream::connect`, `Listener::in_memory`, deadlines, the clock and `base::rng` are those
//! of the simulation. One thread, one task at a time; which ready task runs next is drawn from the seed. The
//! clock stands while any task is ready and then jumps to the next timer; with neither, the run ends as a
//! deadlock that names the tasks. A connection is two bounded pipes with TCP's rules, as Linux has them
//! (`socket`); its faults are a `Link` (`faults`).
//!
//! Limits: steps and virtual time of a run (`Simulation::steps_max`, `time_max`), connections that wait to be
//! accepted. Same seed, same program: same trace; `Outcome::trace` is its hash. `TOLLGATE_TRACE=1` prints the
//! events. What breaks that: the order of std's `HashMap`, addresses of memory, other threads, the real
//! clock. Absent: other threads (a wake from one may come too late), name resolution, packet loss (TCP hides
//! it as latency).

mod faults;
mod link;
mod listener;
mod pipe;
mod seeds;
mod simulation;
mod socket;
mod tasks;
mod timers;
mod trace;
mod world;

pub use faults::{Dial, Faults};
pub use link::{Connecting, Flow, Link, Stall, Unread};
pub use listener::{Listener, connect, listen};
pub use seeds::each_seed;
pub use simulation::{Failure, Outcome, Simulation};
pub use socket::Socket;
pub use timers::sleep;
pub use world::spawn;

#[cfg(test)]
mod tests;
