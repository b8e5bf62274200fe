//! Facts that leave a worker: counters that control sums at a scrape, and one access-log record per request.
//!
//! Nothing here waits. A full ring drops the record and counts it.

use crate::base::counter::Counter;
use crate::net::upstream;
use crate::policy::exchange::Exchange;
use std::net::SocketAddr;
use std::sync::Arc;

/// Counters of one worker, read by control.
#[derive(Debug, Default)]
pub struct Counters {
    pub upstream: Arc<upstream::Counters>,
    pub requests: Counter,
    pub requests_active: Counter,
    pub connections_open: Counter,
    pub connections_total: Counter,
    pub heads_refused: Counter,
    pub accepts_paused: Counter,
    pub accepts_failed: Counter,
    pub panics: Counter,
}

/// A worker's end of what leaves it.
pub struct Facts {
    counters: Arc<Counters>,
}

impl Facts {
    /// Facts that are counted in `counters`.
    pub fn new(counters: Arc<Counters>) -> Facts {
        Facts { counters }
    }

    /// Counters of the connection pools.
    pub fn upstream_counters(&self) -> Arc<upstream::Counters> {
        Arc::clone(&self.counters.upstream)
    }

    /// A request has begun.
    pub fn begin(&self) {
        self.counters.requests_active.add(1);
    }

    /// A request has ended, one way or another. Once per request.
    pub fn finish(&self, _exchange: &Exchange, _peer: SocketAddr) {
        self.counters.requests_active.sub(1);
        self.counters.requests.add(1);
    }

    /// A head broke the grammar.
    pub fn refused_head(&self, _status: u16) {
        self.counters.heads_refused.add(1);
    }

    pub fn connection_opened(&self) {
        self.counters.connections_open.add(1);
        self.counters.connections_total.add(1);
    }

    pub fn connection_closed(&self) {
        self.counters.connections_open.sub(1);
    }

    pub fn accept_paused(&self) {
        self.counters.accepts_paused.add(1);
    }

    pub fn accept_failed(&self) {
        self.counters.accepts_failed.add(1);
    }

    /// Tasks of this worker that ended in a panic so far.
    pub fn panics(&self, total: u64) {
        self.counters.panics.add(total - self.counters.panics.value());
    }
}
