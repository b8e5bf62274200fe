//! What an answer used: reading it out of the provider's bytes.

pub mod inflate;
mod memo;
pub mod meter;

pub use crate::llm::dialect::{Provenance, Usage};
