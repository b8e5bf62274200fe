//! A whole worker of the gateway between scripted clients and scripted upstreams, on every driver.
//!
//! `gateway` is the harness, `ledger` a part of it, `http` a plain reader; the rest are dialogues, whose names say
//! what is so. Random mixes of all of it are in `sim/gateway.rs`. Switches: those of `sim`.

pub mod gateway;
pub mod http;
pub mod ledger;

mod answers;
mod compressed;
mod connections;
mod drain;
mod limits;
mod lifecycle;
mod mislabelled;
mod passthrough;
mod requests;
mod stages;
mod stored;
mod stale;
mod told;
mod tunnel;
mod unanswered;
mod upload;
mod usage;
mod wire;
