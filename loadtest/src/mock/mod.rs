//! Mock provider: answers every dialect with checked, deterministic text at a scripted pace, and counts what
//! it sent.
//!
//! A request may script its answer (`script`): in its prompt (`[[mock gap_ms=30 events=100]]`, which passes
//! any gateway) or in the header `x-mock`. One thread per core, each with its own listener (SO_REUSEPORT) and
//! counters.
//! `GET /mock/stats` gives the sum of all counters as JSON.
//! Limits: a request body of `BODY_BYTES_MAX`; pipelined requests wait until the answer before them is out.

pub mod server;
pub mod http2;
pub mod desk;
pub mod answer;
pub mod fault;
pub mod script;
pub mod stats;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::net::stream::{Address, Listener};
use crate::net::thread;
use script::Script;
use stats::Stats;

pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Clone)]
pub struct Config {
    pub listen: Vec<Address>,
    /// Cores to pin one thread each to; empty: one unpinned thread.
    pub cores: Vec<usize>,
    /// What a request that scripts nothing gets.
    pub script: Script,
    /// Faults of any request, by probability, tried in order.
    pub faults: Vec<(fault::Fault, f64)>,
    /// The only key that is accepted; `None`: any.
    pub key: Option<String>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// A running mock; `stop` ends it.
pub struct Mock {
    pub addresses: Vec<Address>,
    pub stats: Vec<Arc<Stats>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Binds every address and starts the threads.
pub fn start(config: &Config) -> Result<Mock, String> {
    let count = config.cores.len().max(1);
    let stats: Vec<_> = (0..count).map(|_| Arc::new(Stats::default())).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let mut mock =
        Mock { addresses: Vec::new(), stats: stats.clone(), stop: stop.clone(), threads: Vec::new() };
    for place in 0..count {
        let mut listeners = Vec::new();
        for (number, address) in config.listen.iter().enumerate() {
            // The other threads share the port that the first one got.
            let address = mock.addresses.get(number).unwrap_or(address).clone();
            if place > 0 && matches!(address, Address::Unix(_)) {
                continue;
            }
            let told = |error: io::Error| format!("mock: cannot listen on {address}: {error}");
            if place == 0 {
                Listener::probe(&address).map_err(told)?;
            }
            let listener = Listener::bind(&address).map_err(told)?;
            if place == 0 {
                mock.addresses.push(listener.address().map_err(told)?);
            }
            listeners.push(listener);
        }
        let core = config.cores.get(place).copied();
        let (config, stats, stop) = (config.clone(), stats.clone(), stop.clone());
        mock.threads.push(std::thread::spawn(move || {
            thread::sharpen_timers();
            if let Some(core) = core
                && let Err(error) = thread::pin(core)
            {
                eprintln!("mock: cannot pin to core {core}: {error}");
            }
            if let Err(error) = run(config, listeners, place, stats, &stop) {
                eprintln!("mock: {error}");
            }
        }));
    }
    Ok(mock)
}

fn run(
    config: Config,
    listeners: Vec<Listener>,
    place: usize,
    stats: Vec<Arc<Stats>>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut server = server::Server::new(config, listeners, place, stats)?;
    while !stop.load(Ordering::Relaxed) {
        server.turn()?;
    }
    Ok(())
}

impl Mock {
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
    }

    /// Waits for the threads, which end only by `stop` or an error.
    pub fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}
