//! What all requests of one worker share: config, connection pools, counters, the amount of collected bodies,
//! the drain signal.
//!
//! Config arrives as a generation: `Published` is written by control and read here, between requests, by one
//! atomic load; an exchange that runs keeps the generation it started with. Nothing else crosses but the
//! rings of `facts`.

use crate::handler::facts::Facts;
use crate::handler::snapshot::Snapshot;
use crate::net::allowance::Allowance;
use crate::net::signal::Signal;
use crate::net::upstream::Pools;
use crate::policy::limit::address::Addresses;
use crate::usage::bank::Column;
use crate::usage::estimate::Estimator;
use crate::usage::ledger::Book;
use arc_swap::ArcSwap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, OnceLock};

/// The newest generation, published by control.
pub struct Published {
    generation: AtomicU64,
    snapshot: ArcSwap<Snapshot>,
    /// Client addresses that are counted; made with the first.
    addresses: OnceLock<Addresses>,
}

impl Published {
    /// The first generation.
    pub fn new(snapshot: Snapshot) -> Published {
        let generation = AtomicU64::new(snapshot.generation);
        Published { generation, snapshot: ArcSwap::from_pointee(snapshot), addresses: OnceLock::new() }
    }

    /// Replaces the generation; requests that start from now on use it.
    pub fn publish(&self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        self.snapshot.store(Arc::new(snapshot));
        self.generation.store(generation, Release);
    }

    /// The newest generation.
    pub fn newest(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}

/// The context of a worker's requests. One thread.
pub struct Worker {
    pub index: usize,
    pub pools: Pools,
    pub facts: Facts,
    /// Raised once when the worker is to take no further request.
    pub drain: Signal,
    /// Bytes of collected bodies that are left.
    pub bodies: Allowance,
    /// Its part of the node's bank.
    pub column: Column,
    pub estimator: Estimator,
    /// Its part of the ledger; none where none is kept.
    pub book: Option<Book>,
    published: Arc<Published>,
    /// Counted twice, so that a request adds to a count of this worker alone and not to one that all share.
    #[expect(clippy::redundant_allocation, reason = "the inner count is shared by all workers")]
    current: RefCell<Rc<Arc<Snapshot>>>,
}

impl Worker {
    /// A worker that starts with the newest generation.
    pub fn new(
        index: usize,
        published: Arc<Published>,
        facts: Facts,
        column: Column,
        book: Option<Book>,
    ) -> Worker {
        let snapshot = published.newest();
        let pools = Pools::new(facts.upstream_counters());
        Worker {
            index,
            pools,
            facts,
            drain: Signal::default(),
            bodies: Allowance::new(snapshot.limits.bodies_bytes_max as u64),
            column,
            estimator: Estimator::default(),
            book,
            published,
            current: RefCell::new(Rc::new(snapshot)),
        }
    }

    /// Client addresses that are counted, for all workers.
    pub fn addresses(&self) -> &Addresses {
        self.published.addresses.get_or_init(Addresses::default)
    }

    /// The generation for a request that starts now.
    pub fn snapshot(&self) -> Rc<Arc<Snapshot>> {
        let mut current = self.current.borrow_mut();
        if current.generation != self.published.generation.load(Acquire) {
            let newest = self.published.newest();
            let named: Vec<_> = newest.origins.iter().map(|origin| origin.id).collect();
            self.pools.keep_only(&named);
            *current = Rc::new(newest);
        }
        Rc::clone(&current)
    }
}
