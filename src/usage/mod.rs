//! What requests use: read out of the provider's bytes, limited, and accounted for.

pub mod bank;
pub mod estimate;
pub mod inflate;
pub mod ledger;
mod memo;
pub mod meter;
pub mod seat;
pub mod window;

pub use crate::llm::dialect::{Apart, Provenance, Usage};
pub use crate::llm::price;
