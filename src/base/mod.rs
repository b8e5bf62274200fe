//! What every layer may use: clock, random numbers, ids, secrets, errors, counters, shared words. Imports nothing
//! of ours.

pub mod clock;
pub mod counter;
pub mod error;
pub mod id;
pub mod rng;
pub mod secret;
pub mod words;
