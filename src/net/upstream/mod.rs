//! The way to the providers: origins, pooled connections, one exchange at a time on each.
//!
//! `Pools::checkout(&origin)` → `Lease`. A worker has one `Pools`, without locks; nothing is shared between
//! workers.
//!
//! | file | holds |
//! |---|---|
//! | `origin` | where connections go and how: compiled by control |
//! | `pool` | idle connections, limits, the queue |
//! | `connect` | opening one: addresses, proxy, TLS |
//! | `failure` | why there is none |
//!
//! Absent: HTTP/2 upstream, name resolution (`net::resolve` is read only).

mod connect;
mod failure;
mod origin;
mod pool;

#[cfg(test)]
mod stage;

pub use connect::{ATTEMPTS_MAX, AVOIDED_FOR};
pub use failure::{ConnectFailure, Which};
pub use origin::{Limits, Origin, OriginId, Proxy, Settings, Timeouts};
pub use pool::{Counters, Lease, Pools};
