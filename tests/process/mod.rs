//! The process as an operator meets it: the real binary under reloads, signals, kills, full pipes and many
//! streams.
//!
//! `gateway` runs the binary, `streams` are a provider and callers that know every byte of an answer. Each
//! test runs small here; `tests/long/process` runs the same with `TOLLGATE_LONG=1` and on an optimised build.

mod admin;
mod alerts;
mod canary;
mod diagnosis;
mod gateway;
mod ledger;
mod limits;
mod log;
mod many;
mod reconcile;
mod reload;
mod shutdown;
mod start;
mod streams;
mod takeover;

/// The size of a test: small, or long with `TOLLGATE_LONG=1`.
fn scaled<T>(small: T, long: T) -> T {
    if std::env::var_os("TOLLGATE_LONG").is_some_and(|value| value == "1") { long } else { small }
}
