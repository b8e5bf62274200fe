//! A worker: one thread on one core, with its listeners, its connections and its pools.
//!
//! It accepts while fewer than `connections_max` connections are open and, without a file descriptor left,
//! waits a moment instead of turning round and round. A connection runs in a task of its own: a panic ends
//! that task alone. Drain: accept what waits already, for closing the listener would reset it; let requests
//! end, also those that clients send before they can know; the worker ends when the last connection has.

use crate::handler::worker::Worker;
use crate::net::conn::Conn;
use crate::net::deadline::{Deadline, Expired};
use crate::net::listener::{Accepted, BACKLOG, Listener};
use crate::net::page;
use crate::net::race::{First, race};
use crate::net::runtime::{self, Timer};
use crate::net::signal::Signal;
use crate::net::stream::Stream;
use crate::net::tls::{self, AcceptError, ServerSide};
use crate::server::{Shared, connection};
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

/// Runs until the worker has drained.
pub async fn run(worker: Rc<Worker>, listeners: Vec<Listener>) {
    let open = Rc::new(Open::default());
    for (at, listener) in listeners.into_iter().enumerate() {
        open.listeners.set(open.listeners.get() + 1);
        let listening = Listening(Rc::clone(&open));
        let worker = Rc::clone(&worker);
        runtime::spawn(async move {
            accept(&worker, &listener, at, &listening.0).await;
            // Last: so that what could not be taken is reset before the worker ends.
            drop((listener, listening));
        });
    }
    worker.drain.raised().await;
    worker.pools.drain();
    while open.listeners.get() + open.connections.get() > 0 {
        open.fewer.lower();
        open.fewer.raised().await;
    }
}

/// What of this worker is open.
#[derive(Default)]
struct Open {
    listeners: Cell<usize>,
    connections: Cell<usize>,
    fewer: Signal,
}

/// Counts one listener while its task lives.
struct Listening(Rc<Open>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listeners.set(self.0.listeners.get() - 1);
        self.0.fewer.raise();
    }
}

/// Counts one connection while it lives, whichever way its task ends.
struct Counted(Rc<Open>, Rc<Worker>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.fewer.raise();
        self.1.facts.counters().connections_open.sub(1);
    }
}

/// Accepts on one listener until the drain; `at` is its place in the snapshot.
async fn accept(worker: &Rc<Worker>, listener: &Listener, at: usize, open: &Rc<Open>) {
    // Asked each time: `race` prefers a connection that is there, and under load one always is.
    while !worker.drain.is_raised() {
        let connections_max = worker.snapshot().limits.connections_max;
        if open.connections.get() >= connections_max {
            worker.facts.counters().accepts_paused.add(1);
            open.fewer.lower();
            race(open.fewer.raised(), worker.drain.raised()).await;
            continue;
        }
        match race(listener.accept(), worker.drain.raised()).await {
            First::Two(()) => break,
            First::One(Ok(accepted)) => start(worker, accepted, at, open),
            First::One(Err(_)) => {
                // No descriptor or no memory left: what is open goes on, and one of it will end.
                worker.facts.counters().accepts_failed.add(1);
                runtime::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    take_waiting(worker, listener, at, open);
}

/// Accepts the connections that wait already: no more than the queue can hold, or than may be open. What is
/// left is reset as the listener closes.
fn take_waiting(worker: &Rc<Worker>, listener: &Listener, at: usize, open: &Rc<Open>) {
    let connections_max = worker.snapshot().limits.connections_max;
    for _ in 0..BACKLOG {
        if open.connections.get() >= connections_max {
            return;
        }
        match listener.try_accept() {
            Ok(Some(accepted)) => start(worker, accepted, at, open),
            Ok(None) => return,
            Err(_) => return worker.facts.counters().accepts_failed.add(1),
        }
    }
}

fn start(worker: &Rc<Worker>, accepted: Accepted, at: usize, open: &Rc<Open>) {
    open.connections.set(open.connections.get() + 1);
    let counters = worker.facts.counters();
    counters.connections_open.add(1);
    counters.connections_total.add(1);
    let counted = Counted(Rc::clone(open), Rc::clone(worker));
    let worker = Rc::clone(worker);
    let snapshot = worker.snapshot();
    let Accepted { stream, peer } = accepted;
    let side = snapshot.listeners.get(at).and_then(|listener| listener.tls.clone());
    match side {
        None => {
            let downstream = connection::begin(&snapshot, Conn::Plain(stream), peer, at);
            runtime::spawn(async move {
                let _counted = counted;
                connection::serve(&worker, downstream).await;
            });
        }
        Some(side) => {
            let handshake = handshake(stream, side, snapshot.timeouts.tls_handshake);
            runtime::spawn(async move {
                let _counted = counted;
                match handshake.await {
                    Ok(Ok(conn)) => {
                        let downstream = connection::begin(&worker.snapshot(), conn, peer, at);
                        connection::serve(&worker, downstream).await;
                    }
                    Ok(Err(AcceptError::PlainHttp(conn))) => {
                        let downstream = connection::begin(&worker.snapshot(), conn, peer, at);
                        connection::refuse_plain(&worker, downstream).await;
                    }
                    Ok(Err(AcceptError::Failed(_))) | Err(_) => {
                        worker.facts.counters().handshakes_failed.add(1);
                    }
                }
            });
        }
    }
}

/// A TLS handshake within its timeout. Boxed: its states are gone when the connection begins, and would
/// otherwise be part of it.
fn handshake(
    stream: Stream,
    side: ServerSide,
    timeout: Duration,
) -> Pin<Box<impl Future<Output = Result<Result<Conn, AcceptError>, Expired>>>> {
    Box::pin(async move {
        let timer = Deadline::unset();
        if !timeout.is_zero() {
            timer.set(timeout);
        }
        timer.bound(tls::accept(stream, &side)).await
    })
}

/// Follows what control says: new generations, the drain.
pub async fn follow(worker: Rc<Worker>, shared: Arc<Shared>) {
    let (mut timer, mut ticks) = (Timer::default(), 0_u64);
    while !shared.draining.load(Acquire) {
        timer.wait(FOLLOW_EVERY).await;
        // A worker without requests lets go of the old generation, too.
        drop(worker.snapshot());
        ticks += 1;
        if ticks.is_multiple_of(TICKS_PER_S) {
            worker.pools.sweep();
            let panics = &worker.facts.counters().panics;
            panics.add(runtime::panics() - panics.value());
        }
        if ticks.is_multiple_of(TICKS_PER_S * TRIM_EVERY_S) {
            page::trim_pool();
            page::give_back();
        }
    }
    worker.drain.raise();
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
const TICKS_PER_S: u64 = 10;
const TRIM_EVERY_S: u64 = 5;
