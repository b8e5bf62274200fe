//! What a mock thread has sent so far. Only its own thread writes; anyone may read the sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Default)]
        pub struct Stats { $($(#[$doc])* pub $name: Counter),* }

        /// The counters of all threads at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Totals { $($(#[$doc])* pub $name: u64),* }

        impl Totals {
            pub fn of(stats: &[Arc<Stats>]) -> Self {
                Self { $($name: stats.iter().map(|one| one.$name.value()).sum()),* }
            }

            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name)),* }
            }
        }
    };
}

counters! {
    connections_accepted,
    connections_open,
    /// Requests read to their end, by dialect; `requests_other` are models, stats and unknown paths.
    requests_chat,
    requests_responses,
    requests_messages,
    requests_embeddings,
    requests_gemini,
    requests_other,
    requests_refused,
    answers_open,
    answers_finished,
    /// Answers whose reader left before the end.
    answers_cancelled,
    /// Answers spoilt on purpose.
    answers_faulty,
    events_sent,
    records_sent,
    prompt_tokens,
    /// Tokens (one per record) of finished answers, as their usage says.
    completion_tokens_finished,
    /// Tokens sent of answers that were cancelled or spoilt.
    completion_tokens_partial,
    bytes_sent,
}

impl Totals {
    /// Model calls of any dialect that were read whole.
    pub fn calls(&self) -> u64 {
        self.requests_chat
            + self.requests_responses
            + self.requests_messages
            + self.requests_embeddings
            + self.requests_gemini
    }
}

/// A counter with one writer.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        // One writer: a load and a store, without the bus lock of fetch_add.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub fn sub(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
