//! The process: workers on their cores, from bound listeners to the last drained connection.
//!
//! Shape: `bind` the listeners (so that a busy port is a start-up error), `start` the workers, let them
//! `Workers::listen`, `Workers::join` them. What runs is told through `Shared`: control publishes generations
//! and moves the phase; workers read both. A process that takes another one's addresses over shares them
//! (SO_REUSEPORT) and listens last, when nothing else can fail: what the kernel gives it is served. Errors:
//! `StartError` names the address, the core or the driver.

pub mod connection;
pub mod worker;

#[cfg(test)]
mod zero_copy;

use crate::handler::facts::{Counters, Facts, LOG_RING_BYTES};
use crate::handler::worker::{Published, Worker};
use crate::net::listener::{self, Listener};
use crate::net::runtime::{self, Choice, Wish};
use crate::usage::bank::Bank;
use crate::usage::ledger::Book;
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
    /// How much of every limit has been given out.
    pub bank: Arc<Bank>,
}

/// Where control reads the workers' access log: one ring per worker.
pub type LogRings = Vec<rtrb::Consumer<u8>>;

/// What becomes of an address where another process listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupied {
    /// It is an error.
    Refused,
    /// This process listens beside the other one, which is about to end.
    TakenOver,
}

/// Bound sockets of all workers.
pub struct Bound {
    per_worker: Vec<Vec<OwnedFd>>,
    /// What they are bound to; port 0 has become another.
    pub addresses: Vec<SocketAddr>,
    /// Those of `addresses` where another process listens.
    pub shared: Vec<SocketAddr>,
}

/// Running workers.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Where each worker waits for its sockets.
    sockets: Vec<mpsc::Sender<Vec<OwnedFd>>>,
    /// The driver that each worker was granted, and what was refused before it.
    pub choices: Vec<Choice>,
    pub logs: LogRings,
}

/// Why the process could not start.
#[derive(Debug)]
pub enum StartError {
    Bind {
        address: SocketAddr,
        error: io::Error,
    },
    /// Another process listens there and does not share it.
    Share {
        address: SocketAddr,
        error: io::Error,
    },
    Worker {
        index: usize,
        error: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            StartError::Share { address, error } => {
                let whose = "what listens there is another user's or no tollgate";
                write!(f, "cannot take {address} over: {whose}: {error}")
            }
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

/// Binds every address once per worker, and listens, unless an address is to be taken over.
pub fn bind(addresses: &[SocketAddr], workers: usize, occupied: Occupied) -> Result<Bound, StartError> {
    let per_worker = (0..workers).map(|_| Vec::new()).collect();
    let mut bound = Bound { per_worker, addresses: Vec::new(), shared: Vec::new() };
    for &address in addresses {
        let failed = |error| StartError::Bind { address, error };
        let is_shared = match occupied {
            Occupied::Refused => wait_for_address(address).map(|()| false),
            Occupied::TakenOver => is_in_use(address),
        };
        let is_shared = is_shared.map_err(failed)?;
        let mut actual = address;
        for sockets in &mut bound.per_worker {
            let socket = match occupied {
                Occupied::Refused => listener::bind(actual),
                Occupied::TakenOver => listener::reserve(actual),
            };
            let socket = socket.map_err(|error| match is_shared {
                true => StartError::Share { address, error },
                false => failed(error),
            })?;
            // Port 0 asks for any: the first worker's is everybody's.
            actual = listener::local_address(&socket).map_err(failed)?;
            sockets.push(socket);
        }
        bound.addresses.push(actual);
        if is_shared {
            bound.shared.push(actual);
        }
    }
    Ok(bound)
}

fn is_in_use(address: SocketAddr) -> io::Result<bool> {
    match listener::probe(address) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(true),
        Err(error) => Err(error),
    }
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

/// Starts workers, pinned to the process's cores in turn. They wait for their sockets. `books`: one for each, or
/// none.
pub fn start(
    shared: &Arc<Shared>,
    count: usize,
    wish: Wish,
    books: Vec<Book>,
) -> Result<Workers, StartError> {
    let mut books = books.into_iter();
    let cores = cores();
    let mut workers =
        Workers { threads: Vec::new(), sockets: Vec::new(), choices: Vec::new(), logs: Vec::new() };
    for index in 0..count {
        let failed = |error| StartError::Worker { index, error };
        let (tell, told) = mpsc::channel();
        let (give, sockets) = mpsc::channel();
        let core = cores[index % cores.len()];
        let shared = Arc::clone(shared);
        let (log, read_log) = rtrb::RingBuffer::new(LOG_RING_BYTES);
        workers.logs.push(read_log);
        workers.sockets.push(give);
        let start = Start { index, core, sockets, wish, log, book: books.next() };
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
    /// Listens everywhere and gives each worker its sockets.
    pub fn listen(&mut self, bound: Bound) -> Result<(), StartError> {
        for (at, &address) in bound.addresses.iter().enumerate() {
            let mut sockets = bound.per_worker.iter().filter_map(|sockets| sockets.get(at));
            sockets.try_for_each(listener::listen).map_err(|error| StartError::Bind { address, error })?;
        }
        for (give, sockets) in self.sockets.drain(..).zip(bound.per_worker) {
            // A worker that has panicked has said so.
            let _ = give.send(sockets);
        }
        Ok(())
    }

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
    sockets: mpsc::Receiver<Vec<OwnedFd>>,
    wish: Wish,
    log: rtrb::Producer<u8>,
    book: Option<Book>,
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
        // Blocks the thread: nothing else runs on it yet. Without sockets the process could not start.
        let Ok(sockets) = start.sockets.recv() else { return };
        let listeners = sockets.into_iter().filter_map(|fd| Listener::from_bound(fd).ok()).collect();
        let facts = Facts::new(start.index, Arc::clone(&shared.counters[start.index]), start.log);
        let column = shared.bank.column(start.index);
        let worker = Worker::new(start.index, Arc::clone(&shared.published), facts, column, start.book);
        let worker = Rc::new(worker);
        runtime::spawn(worker::follow(Rc::clone(&worker), Arc::clone(shared)));
        worker::run(worker, listeners).await;
    });
    if let Err(error) = ran {
        let _ = tell.send(Err(error));
    }
}
