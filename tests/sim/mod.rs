//! Tests over `net`: the harness that runs a test on every driver, scripted peers, and the contract of `net`
//! itself.
//!
//! Switches: `TOLLGATE_DRIVER=ring|epoll|memory` (default: all), `TOLLGATE_SEED=n` (one seed),
//! `TOLLGATE_SEEDS=n` (so many), `TOLLGATE_TRACE=1` (prints what happens in a simulation).

pub mod driver;
pub mod peer;

mod accounts;
mod contract;
mod gateway;
mod plan;
