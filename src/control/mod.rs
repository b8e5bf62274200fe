//! The control thread.

pub mod run;
pub mod config;
pub mod ledger;
pub mod admin;
pub mod alerts;
pub mod limits;
pub mod metrics;
pub mod log;
pub mod names;
pub mod watch;
pub mod tell;
