//! The ledger: one durable record of every request that went to a provider, and of every attempt that was
//! passed over.
//!
//! A worker writes an intent into a slot of a shared mapping before it calls, the tokens so far as it relays,
//! and the final numbers at the end ([`Book`]). No lock, no system call, no wait, no allocation. The mapping
//! outlives the process, so what is written there survives its death at any instruction. A [`Writer`] on a thread
//! of its own makes final records durable in append-only [`segments`], the truth of the ledger, and gives the slots
//! back. What a dead process has left is taken care of by [`recovery`].

pub mod book;
pub mod encoding;
pub mod record;
pub mod recovery;
pub mod segments;
pub mod slots;
pub mod writer;

pub use book::{Book, Counters, Entry, OnFailure, State, Tray};
pub use record::{AttemptOutcome, Final, Hold, Intent, Kind, Record, Target};
pub use recovery::{Recovered, Settle, recover};
pub use slots::{Mark, Region};
pub use writer::Writer;
