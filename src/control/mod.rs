//! The control thread.

pub mod config;
