//! Runs one test on the ring, on epoll and in the simulation.
//!
//! A test is an async closure that uses `net` only. Each run has a fresh thread or a fresh simulation; at its
//! end no task may have panicked and no page may be rented. Real runs are bounded by `REAL_TIME_MAX`,
//! simulated ones by steps.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use tollgate::net::listener::{self, Listener};
use tollgate::net::memory::{Faults, Outcome, Simulation, each_seed};
use tollgate::net::runtime::{self, Wish};
use tollgate::net::{page, stream};

/// After this a run on a kernel driver counts as hanging.
const REAL_TIME_MAX: Duration = Duration::from_secs(60);

/// Seeds of one test in the simulation; odd ones run with harmless faults.
const SEEDS: u64 = 40;

/// Runs `test` on every driver that `TOLLGATE_DRIVER` allows.
pub fn on_every_driver<F>(test: F)
where
    F: AsyncFn() + Send + Sync + 'static,
{
    on_every_driver_with_panics(0, test);
}

/// As `on_every_driver`, but without faults in the simulation: for a test of times.
pub fn calmly_on_every_driver<F>(test: F)
where
    F: AsyncFn() + Send + Sync + 'static,
{
    run_everywhere(0, |_| Faults::none(), test);
}

/// As `on_every_driver`, for a test in which so many tasks panic.
pub fn on_every_driver_with_panics<F>(panics: u64, test: F)
where
    F: AsyncFn() + Send + Sync + 'static,
{
    run_everywhere(panics, |seed| if seed % 2 == 0 { Faults::none() } else { Faults::harmless(seed) }, test);
}

fn run_everywhere<F>(panics: u64, faults: fn(u64) -> Faults, test: F)
where
    F: AsyncFn() + Send + Sync + 'static,
{
    let test = Arc::new(test);
    for (name, wish) in [("ring", Wish::Ring), ("epoll", Wish::Epoll)] {
        if is_wanted(name) {
            on_kernel_driver(name, wish, panics, Arc::clone(&test));
        }
    }
    if is_wanted("memory") {
        each_seed(0..SEEDS, |seed| {
            let outcome = Simulation::new(seed, faults(seed)).run(test());
            assert_eq!(outcome.panics, panics, "{outcome}");
            Outcome { panics: 0, ..outcome }.finished();
        });
    }
}

/// A listener of this thread's driver on a free port of loopback.
pub fn listen() -> (Listener, SocketAddr) {
    let anywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let listener = match runtime::driver() {
        Some(runtime::Driver::Memory) => Listener::in_memory(anywhere),
        _ => listener::bind(anywhere).and_then(Listener::from_bound),
    };
    let listener = listener.expect("loopback has a free port");
    let address = listener.address().expect("it has an address");
    (listener, address)
}

/// Both ends of a new connection: the one that connected, the one that was accepted.
pub async fn pair() -> (stream::Stream, stream::Stream) {
    let (listener, address) = listen();
    pair_by(&listener, address).await
}

/// Both ends of a new connection through a listener that is there.
pub async fn pair_by(listener: &Listener, address: SocketAddr) -> (stream::Stream, stream::Stream) {
    let client = stream::connect(address).await.expect("the listener is there");
    let server = listener.accept().await.expect("the connection is there").stream;
    (client, server)
}

fn is_wanted(driver: &str) -> bool {
    match std::env::var("TOLLGATE_DRIVER") {
        Err(_) => true,
        Ok(wanted) => match wanted.as_str() {
            "ring" | "epoll" | "memory" => wanted == driver,
            other => panic!("TOLLGATE_DRIVER={other}: ring, epoll or memory is allowed"),
        },
    }
}

fn on_kernel_driver<F>(name: &'static str, wish: Wish, panics: u64, test: Arc<F>)
where
    F: AsyncFn() + Send + Sync + 'static,
{
    let (done, ended) = channel();
    let run = move || {
        let ran = runtime::run(wish, |_| {}, || async move { test().await });
        if let Err(error) = ran {
            eprintln!("skipped on {name}: {error}");
            return;
        }
        assert_eq!(runtime::panics(), panics, "tasks panicked on {name}");
        assert_eq!(page::rented_pages(), 0, "pages are still rented on {name}");
        let _ = done.send(());
    };
    let thread = std::thread::Builder::new().name(format!("test on {name}")).spawn(run).expect("a thread");
    if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(REAL_TIME_MAX) {
        panic!("the test hangs on {name}: not ended after {REAL_TIME_MAX:?}");
    }
    if let Err(panic) = thread.join() {
        eprintln!("the test fails on {name}: run it there alone with TOLLGATE_DRIVER={name}");
        resume_unwind(panic);
    }
}
