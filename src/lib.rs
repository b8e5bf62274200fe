//! Tollgate: an AI gateway between applications and model providers.
//!
//! The modules stand in order, top to bottom: a module uses only modules below it (`tests/tidy.rs` checks
//! this). To learn what the gateway does, read `handler/llm.rs` first: the life of a request is one function
//! there.

#![deny(unsafe_code)]

pub mod cli;
pub mod server;
pub mod control;
pub mod handler;
pub mod policy;
pub mod usage;
pub mod llm;
pub mod net;
pub mod codec;
pub mod base;
