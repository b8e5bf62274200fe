//! Sockets, buffers, time: the only code that touches monoio or the kernel's network.
//!
//! One interface, three implementations, chosen per thread when its runtime starts: the ring (io_uring),
//! epoll (both in `kernel`, through monoio) and memory (`memory`: seeded, virtual clock, faults). What a
//! caller may rely on, on each of them:
//!
//! - Waiting never loses data: `Conn::readable` may be dropped at any moment, and `try_recv` does not wait.
//! - A send owns its bytes (`SendList`). A connection whose send was dropped half-way must be dropped too.
//! - Nothing yields by waking itself: monoio 0.2.4 then starves all I/O of the thread (STACK, section 8).
//! - A panic of a spawned task ends that task alone and is counted.
//!
//! Absent: name resolution on a worker (control does it and publishes addresses, `resolve`).

pub mod allowance;
pub mod conn;
pub mod deadline;
pub mod downstream;
pub mod inbox;
pub mod listener;
pub mod page;
pub mod race;
pub mod resolve;
pub mod runtime;
pub mod send;
pub mod signal;
pub mod stream;
pub mod tls;
pub mod upstream;

pub mod memory;

#[cfg(test)]
pub mod moved;

mod kernel;
