//! Figures of a run: what a thread records, and what becomes of it.

pub mod merge;
pub mod result;
pub mod recorder;
