//! Facts that leave a worker: counters that control sums at a scrape, and one access-log record per request.
//!
//! Nothing here waits. Records go through a bounded ring of bytes with one writer and one reader (`rtrb`);
//! one that does not fit is dropped whole and counted.

use crate::base::counter::{Counter, Histogram};
use crate::handler::record;
use crate::handler::series::Set;
use crate::handler::snapshot::{AccessLog, Snapshot};
use crate::net::upstream;
use crate::policy::exchange::{Ended, Exchange, StageClock, Step};
use crate::policy::limit;
use crate::usage::Provenance;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

/// Bytes of access log that a worker may have ahead of control: 20 ms of 100,000 requests a second.
pub const LOG_RING_BYTES: usize = 1 << 20;

/// Counters of one worker, read by control.
#[derive(Debug, Default)]
pub struct Counters {
    pub upstream: Arc<upstream::Counters>,
    pub limits: limit::counters::Counters,
    pub requests: Counter,
    pub requests_active: Counter,
    pub connections_open: Counter,
    pub connections_total: Counter,
    /// Heads that broke the grammar.
    pub heads_refused: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    pub accepts_paused: Counter,
    pub accepts_failed: Counter,
    pub panics: Counter,
    /// Exchanges that were dropped without an end: a defect; reads 0.
    pub unfinished: Counter,
    pub records_dropped: Counter,
    /// Requests by the first digit of the status, 1 to 5; 0: none was given.
    pub statuses: [Counter; 6],
    /// By `Ended`.
    pub ended: [Counter; Ended::ALL.len()],
    /// By `Step`: microseconds from the start of the request.
    pub steps: [Histogram; StageClock::STEPS],
}

/// A worker's end of what leaves it.
pub struct Facts {
    index: usize,
    counters: Arc<Counters>,
    log: RefCell<Log>,
}

struct Log {
    ring: rtrb::Producer<u8>,
    line: Vec<u8>,
}

impl Facts {
    /// Facts of worker `index`, counted in `counters`; records go to `ring`.
    pub fn new(index: usize, counters: Arc<Counters>, ring: rtrb::Producer<u8>) -> Facts {
        Facts { index, counters, log: RefCell::new(Log { ring, line: Vec::with_capacity(1024) }) }
    }

    /// The worker's counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
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
    pub fn finish(&self, exchange: &Exchange, snapshot: &Snapshot, peer: SocketAddr) {
        self.counters.requests_active.sub(1);
        self.counters.requests.add(1);
        self.counters.statuses[usize::from(exchange.status / 100).min(5)].add(1);
        self.counters.ended[exchange.ended as usize].add(1);
        for step in Step::ALL {
            if let Some(micros) = exchange.clock.at(step) {
                self.counters.steps[step as usize].record(u64::from(micros));
            }
        }
        self.count_target(exchange, snapshot);
        if snapshot.log.access != AccessLog::Off {
            self.record(exchange, snapshot, peer);
        }
    }

    /// The target that `exchange` names now made way for another one: with this status, or without an answer.
    pub fn passed_over(&self, exchange: &Exchange, snapshot: &Snapshot, status: Option<u16>) {
        if let Some(set) = self.set(exchange, snapshot) {
            count_answer(set, status);
        }
    }

    fn set<'s>(&self, exchange: &Exchange, snapshot: &'s Snapshot) -> Option<&'s Set> {
        let served = exchange.served.as_ref()?;
        let series = snapshot.series.get(self.index)?;
        series.set(served.route, served.provider).map(|set| &**set)
    }

    fn count_target(&self, exchange: &Exchange, snapshot: &Snapshot) {
        let Some(set) = self.set(exchange, snapshot) else { return };
        count_answer(set, Some(exchange.status).filter(|_| exchange.ended != Ended::Refused));
        match exchange.ended {
            Ended::UpstreamCut => set.cut.add(1),
            Ended::ClientLeft => set.client_left.add(1),
            _ => {}
        }
        set.events.add(exchange.events);
        let usage = &exchange.usage;
        set.input_tokens.add(usage.input_total().unwrap_or(0));
        set.output_tokens.add(usage.output_total().unwrap_or(0));
        set.cache_read_tokens.add(usage.cache_read.unwrap_or(0));
        set.cache_write_tokens.add(usage.cache_write.unwrap_or(0));
        set.reasoning_tokens.add(usage.reasoning.unwrap_or(0));
        if usage.output.is_some() && usage.provenance != Provenance::Provider {
            set.usage_estimated.add(1);
        }
        if let Some(micros) = exchange.clock.at(Step::Done) {
            set.duration.record(u64::from(micros));
        }
        if let Some(micros) = exchange.clock.at(Step::FirstContent) {
            set.first_token.record(u64::from(micros));
        }
    }

    fn record(&self, exchange: &Exchange, snapshot: &Snapshot, peer: SocketAddr) {
        let mut log = self.log.borrow_mut();
        let Log { ring, line } = &mut *log;
        line.clear();
        record::write(exchange, snapshot, peer, line);
        if ring.push_entire_slice(line).is_err() {
            self.counters.records_dropped.add(1);
        }
    }
}

/// Counts how a target answered; none: it did not.
fn count_answer(set: &Set, status: Option<u16>) {
    match status {
        None => set.unanswered.add(1),
        Some(200..400) => set.answers_2xx.add(1),
        Some(400..500) => set.answers_4xx.add(1),
        Some(500..) => set.answers_5xx.add(1),
        Some(_) => {}
    }
}
