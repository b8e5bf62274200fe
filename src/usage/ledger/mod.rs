//! The ledger: one durable record of every request that went to a provider, and of every attempt that was
//! passed over.
//!
//! A worker writes an intent into a slot of a shared mapping before it calls, the tokens so far as it relays,
//! and the final numbers at the end ([`Book`]). No lock, no system call, no wait, no allocation. The mapping
//! outlives the process, so what is written there survives its death at any instruction. A [`Writer`] on a thread
//! of its own makes final records durable in append-only [`segments`], the truth of the ledger, and gives the slots
//! back. What a dead process has left is taken care of by [`recovery`].

pub mod ask;
pub mod book;
pub mod encoding;
pub mod recents;
pub mod record;
pub mod recovery;
pub mod segments;
pub mod slots;
pub mod writer;

pub use ask::Busy;
pub use book::{Book, Counters, Entry, OnFailure, State, Tray};
pub use recents::Recent;
pub use record::{AttemptOutcome, Final, Hold, Intent, Kind, Record, Target};
pub use recovery::{Recovered, Settle, recover};
pub use slots::{Mark, Region};
pub use writer::Writer;

use std::path::PathBuf;
use std::time::Duration;

/// How the ledger is kept: the section `[ledger]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The state directory.
    pub directory: PathBuf,
    /// How long a final record may wait to be durable: what a power failure may take.
    pub commit_interval: Duration,
    pub on_failure: OnFailure,
    /// Slots of each worker: requests under way, and records that wait to be durable.
    pub slots: usize,
    pub segments_keep: Duration,
    pub segments_bytes_max: u64,
    pub rollups_keep: Duration,
}
