//! The process: workers on their cores, from bound listeners to the last drained connection.
//!
//! Shape: `bind` the listeners (so that a busy port is a start-up error), `start` the workers,
//! `Workers::join` them. What runs is told through `Shared`: control publishes generations and moves the
//! phase; workers read both. Errors: `StartError` names the address, the core or the driver.

pub mod connection;
pub mod worker;

#[cfg(test)]
mod zero_copy;

use crate::handler::facts::{Counters, Facts, LOG_RING_BYTES};
use crate::handler::worker::{Published, Worker};
use crate::net::listener::{self, Listener};
use crate::net::runtime::{self, Choice, Wish};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What control and workers share.
pub struct Shared {
    pub published: Arc<Published>,
    /// Raised once: take no further request, end when the last one has.
    pub draining: AtomicBool,
    /// One per worker, in order.
    pub counters: Vec<Arc<Counters>>,
}

/// Where control reads the workers' access log: one ring per worker.
pub type LogRings = Vec<rtrb::Consumer<u8>>;

/// Listening sockets of all workers.
pub struct Bound {
    per_worker: Vec<Vec<OwnedFd>>,
}

/// Running workers.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// The driver that each worker was granted, and what was refused before it.
    pub choices: Vec<Choice>,
    pub logs: LogRings,
}

/// Why the process could not start.
#[derive(Debug)]
pub enum StartError {
    Bind { address: SocketAddr, error: io::Error },
    Worker { index: usize, error: io::Error },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            StartError::Worker { index, error } => write!(f, "worker {index} cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Cores that this process may run on.
pub fn cores() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => vec![0],
    }
}

/// Binds every address once per worker, and says which ones those are (port 0 asks for any). Refused where
/// another process listens there, whatever its options are.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> Result<(Bound, Vec<SocketAddr>), StartError> {
    let refused = |address: &SocketAddr| {
        let address = *address;
        move |error| StartError::Bind { address, error }
    };
    let mut bound = Bound { per_worker: (0..workers).map(|_| Vec::new()).collect() };
    let mut addresses_bound = Vec::new();
    for address in addresses {
        wait_for_address(*address).map_err(refused(address))?;
        let mut actual = *address;
        for sockets in &mut bound.per_worker {
            let socket = listener::bind(actual).map_err(refused(address))?;
            // Port 0 asks for any: the first worker's is everybody's.
            actual = listener::local_address(&socket).map_err(refused(address))?;
            sockets.push(socket);
        }
        addresses_bound.push(actual);
    }
    Ok((bound, addresses_bound))
}

/// Waits until `address` is free, for `ADDRESS_WAIT_MAX` at most.
fn wait_for_address(address: SocketAddr) -> io::Result<()> {
    let started = Instant::now();
    loop {
        match listener::probe(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < ADDRESS_WAIT_MAX =>
            {
                std::thread::sleep(ADDRESS_WAIT_STEP);
            }
            probed => return probed,
        }
    }
}

/// A process that was killed holds its listening sockets until the kernel has taken its rings down, some
/// milliseconds after it was reaped. Whoever starts the next one should not have to try again.
const ADDRESS_WAIT_MAX: Duration = Duration::from_secs(2);
const ADDRESS_WAIT_STEP: Duration = Duration::from_millis(5);

/// Starts one worker per set of sockets, pinned to the process's cores in turn.
pub fn start(shared: &Arc<Shared>, bound: Bound, wish: Wish) -> Result<Workers, StartError> {
    let cores = cores();
    let mut workers = Workers { threads: Vec::new(), choices: Vec::new(), logs: Vec::new() };
    for (index, sockets) in bound.per_worker.into_iter().enumerate() {
        let failed = |error| StartError::Worker { index, error };
        let (tell, told) = mpsc::channel();
        let core = cores[index % cores.len()];
        let shared = Arc::clone(shared);
        let (log, read_log) = rtrb::RingBuffer::new(LOG_RING_BYTES);
        workers.logs.push(read_log);
        let start = Start { index, core, sockets, wish, log };
        let body = move || run_worker(&shared, start, &tell);
        let thread =
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(body).map_err(failed)?;
        let choice = told.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")));
        workers.choices.push(choice.map_err(failed)?);
        workers.threads.push(thread);
    }
    Ok(workers)
}

impl Workers {
    /// Every worker has drained.
    pub fn have_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every worker has drained.
    pub fn join(self) {
        for thread in self.threads {
            // A worker that panicked outside its tasks has said so through the panic hook.
            let _ = thread.join();
        }
    }
}

/// What a worker's thread takes over.
struct Start {
    index: usize,
    core: usize,
    sockets: Vec<OwnedFd>,
    wish: Wish,
    log: rtrb::Producer<u8>,
}

fn run_worker(shared: &Arc<Shared>, start: Start, tell: &mpsc::Sender<io::Result<Choice>>) {
    let mut set = CpuSet::new();
    set.set(start.core);
    // Where pinning is forbidden the scheduler places the thread; nothing else depends on it.
    let _ = sched_setaffinity(None, &set);
    let chosen = |choice: Choice| {
        let _ = tell.send(Ok(choice));
    };
    let ran = runtime::run(start.wish, chosen, || async move {
        let listeners = start.sockets.into_iter().filter_map(|fd| Listener::from_bound(fd).ok()).collect();
        let facts = Facts::new(start.index, Arc::clone(&shared.counters[start.index]), start.log);
        let worker = Rc::new(Worker::new(start.index, Arc::clone(&shared.published), facts));
        runtime::spawn(worker::follow(Rc::clone(&worker), Arc::clone(shared)));
        worker::run(worker, listeners).await;
    });
    if let Err(error) = ran {
        let _ = tell.send(Err(error));
    }
}
