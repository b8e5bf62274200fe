//! Who may do what and how much of it: keys, limits, and which target a model name leads to.
//!
//! Each file defines the compiled, immutable form of its config section and the question that a request asks
//! of it. No I/O, no clock of its own: time and random numbers come in as values.

pub mod auth;
pub mod limit;
pub mod route;
pub mod pattern;
pub mod exchange;
pub mod stage;
