//! What happened in a run, as a hash, so that two runs of one seed can be compared; on demand as text.

use crate::base::clock::Instant;
use std::cell::Cell;

/// Something that happened. The numbers name tasks, connections (with the side, 0 = client) and bytes.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    Poll { task: u64 },
    End { task: u64 },
    Dial { connection: u64 },
    Made { connection: u64 },
    Refused { connection: u64 },
    Accept { connection: u64 },
    Send { connection: u64, side: usize, bytes: usize },
    Arrive { connection: u64, at_side: usize, bytes: usize },
    Read { connection: u64, side: usize, bytes: usize },
    Finish { connection: u64, side: usize },
    Close { connection: u64, side: usize },
    ResetSent { connection: u64, side: usize },
    ResetSeen { connection: u64, side: usize },
    Stall { connection: u64, at_side: usize },
}

/// The hash of all notes so far.
pub struct Trace {
    hash: Cell<u64>,
    printed: bool,
}

impl Trace {
    /// An empty trace, printed to stderr as it grows where `TOLLGATE_TRACE` is set.
    pub fn new() -> Trace {
        Trace {
            hash: Cell::new(0xcbf2_9ce4_8422_2325),
            printed: std::env::var_os("TOLLGATE_TRACE").is_some(),
        }
    }

    /// Adds `note` at `now`.
    pub fn add(&self, now: Instant, note: Note) {
        if self.printed {
            eprintln!("{:>12} us  {note:?}", now.0);
        }
        let (kind, a, b) = note.numbers();
        for value in [now.0, kind, a, b] {
            self.hash.set((self.hash.get() ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23));
        }
    }

    /// The hash.
    pub fn hash(&self) -> u64 {
        self.hash.get()
    }
}

impl Note {
    fn numbers(self) -> (u64, u64, u64) {
        let end = |connection: u64, side: usize| connection * 2 + side as u64;
        match self {
            Note::Poll { task } => (0, task, 0),
            Note::End { task } => (1, task, 0),
            Note::Dial { connection } => (2, connection, 0),
            Note::Made { connection } => (3, connection, 0),
            Note::Refused { connection } => (4, connection, 0),
            Note::Accept { connection } => (5, connection, 0),
            Note::Send { connection, side, bytes } => (6, end(connection, side), bytes as u64),
            Note::Arrive { connection, at_side, bytes } => (7, end(connection, at_side), bytes as u64),
            Note::Read { connection, side, bytes } => (8, end(connection, side), bytes as u64),
            Note::Finish { connection, side } => (9, end(connection, side), 0),
            Note::Close { connection, side } => (10, end(connection, side), 0),
            Note::ResetSent { connection, side } => (11, end(connection, side), 0),
            Note::ResetSeen { connection, side } => (12, end(connection, side), 0),
            Note::Stall { connection, at_side } => (13, end(connection, at_side), 0),
        }
    }
}
