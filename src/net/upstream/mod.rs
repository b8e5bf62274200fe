//! The way to the providers: origins, pooled connections, one exchange at a time on each.
//!
//! `Pools::checkout(&origin)` → `Lease`. A worker has one `Pools`, without locks; nothing is shared between
//! workers.
//!
//! | file | holds |
//! |---|---|
//! | `origin` | where connections go and how: compiled by control |
//! | `pool` | idle connections, limits, the queue |
//! | `connect`, `proxy` | opening one: addresses, the proxy's tunnel, TLS |
//! | `failure` | why there is none |
//! | `http1` | one exchange: request out, answer in, body pieces without copies |
//! | `head` | the answer's head, interim ones skipped |
//!
//! Absent: HTTP/2 upstream, name resolution (`net::resolve` is read only).

mod connect;
mod failure;
mod head;
mod http1;
mod origin;
mod pool;
mod proxy;

#[cfg(test)]
mod allocations;
#[cfg(test)]
mod sim;
#[cfg(test)]
pub mod stage;

pub use connect::{ATTEMPTS_MAX, AVOIDED_FOR};
pub use failure::{ConnectFailure, Which};
pub use head::Answer;
pub use http1::{Http1Upstream, Piece, Sent, UpstreamError, WATCHED_FROM};
pub use origin::{Limits, Origin, OriginId, Proxy, Settings, Timeouts, Tls};
pub use pool::{Counters, Lease, Pools};
