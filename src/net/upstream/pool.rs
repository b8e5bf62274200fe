//! A worker's open connections, by origin: the idle ones to be used again, and a queue when all that are
//! allowed are busy.
//!
//! `Pools::checkout` gives a `Lease`: the connection that was idle last, or a new one. A lease goes back into
//! the pool by `give_back` after a complete exchange and by nothing else: dropping it closes the connection,
//! so that an answer which comes late after a cancel never meets another request.
//!
//! Stale: an idle connection on which bytes or the end have arrived is closed. That is looked for when it is
//! taken and at every sweep, without a system call: the wait for its next answer begins as it goes idle. Limits
//! (`origin::Limits`): connections of an origin per worker; idle ones in number and time; waiting exchanges
//! in number and time, served in the order in which they came. A waiter that is dropped passes its turn on.
//! Errors: `ConnectFailure`. Absent: HTTP/2, sharing between workers.

use super::connect::{self, Order};
use super::failure::{ConnectFailure, Which};
use super::origin::{Limits, Origin, OriginId};
use crate::base::clock::{self, Instant};
use crate::base::counter::Counter;
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// All pools of one worker.
pub struct Pools {
    by_origin: RefCell<BTreeMap<OriginId, Rc<Pool>>>,
    counters: Arc<Counters>,
    draining: Cell<bool>,
}

/// What a worker's pools did and hold, over all origins.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections opened.
    pub opened: Counter,
    /// Checkouts that got an idle connection, or one straight from the exchange before.
    pub reused: Counter,
    /// Attempts to open one that failed.
    pub failed: Counter,
    /// Connections closed, for any reason.
    pub closed: Counter,
    /// Of these: found ended or with unexpected bytes while idle.
    pub stale: Counter,
    /// Of these: idle for too long.
    pub expired: Counter,
    /// Checkouts that waited, that found the queue full, and whose time in it was over.
    pub queued: Counter,
    pub queue_full: Counter,
    pub queue_timeouts: Counter,
    /// Connections that are open or being opened now; of these, idle ones; and exchanges that wait.
    pub open: Counter,
    pub idle: Counter,
    pub waiting: Counter,
}

impl Pools {
    /// Pools without connections.
    pub fn new(counters: Arc<Counters>) -> Pools {
        Pools { by_origin: RefCell::default(), counters, draining: Cell::new(false) }
    }

    /// A connection to `origin` for one exchange: the one that was idle last, or a new one. May be dropped
    /// while it waits.
    pub async fn checkout(&self, origin: &Arc<Origin>) -> Result<Lease, ConnectFailure> {
        let pool = self.pool(origin);
        let (slot, idle) = match pool.take(Wanted::IdleFirst)? {
            Taken::Turn(slot, idle) => (slot, idle),
            // Boxed, as below.
            Taken::Wait(ticket) => Box::pin(wait(ticket, origin)).await?,
        };
        match pool.lease_idle(slot, idle) {
            Ok(lease) => Ok(lease),
            // Boxed: it is rare, and its states would otherwise be part of every exchange that waits.
            Err(slot) => Box::pin(open(slot, origin)).await,
        }
    }

    /// A new connection to `origin`, for the second try of a request whose reused connection had been closed:
    /// another idle one may have been closed as well. Where all are open, an idle one is closed for it.
    pub async fn checkout_new(&self, origin: &Arc<Origin>) -> Result<Lease, ConnectFailure> {
        let pool = self.pool(origin);
        let (mut slot, idle) = match pool.take(Wanted::New)? {
            Taken::Turn(slot, idle) => (slot, idle),
            Taken::Wait(ticket) => Box::pin(wait(ticket, origin)).await?,
        };
        if idle.is_some() {
            slot.disconnected();
        }
        drop(idle);
        Box::pin(open(slot, origin)).await
    }

    /// Closes what was idle for too long or went stale, and forgets pools without use. To be called about
    /// every second.
    pub fn sweep(&self) {
        let now = clock::now();
        self.by_origin.borrow_mut().retain(|_, pool| {
            pool.sweep(now);
            !pool.is_unused()
        });
    }

    /// Keeps idle connections of the origins in `named` only: those of the snapshot that serves new requests.
    pub fn keep_only(&self, named: &[OriginId]) {
        for (id, pool) in self.by_origin.borrow().iter() {
            pool.keep_idle(!self.draining.get() && named.contains(id));
        }
    }

    /// Closes every idle connection and keeps none from now on. Exchanges go on, and new ones still get
    /// connections.
    pub fn drain(&self) {
        self.draining.set(true);
        self.keep_only(&[]);
    }

    fn pool(&self, origin: &Origin) -> Rc<Pool> {
        let mut pools = self.by_origin.borrow_mut();
        let pool = pools
            .entry(origin.id)
            .or_insert_with(|| Pool::new(origin.settings.limits, !self.draining.get(), &self.counters));
        pool.set_limits(origin.settings.limits);
        Rc::clone(pool)
    }
}

/// A connection for one exchange. Dropping it closes the connection.
pub struct Lease {
    // Closed before its slot is free for another one.
    conn: Conn,
    slot: Slot,
    /// It carried exchanges before, so that its peer may have closed it just now.
    pub reused: bool,
}

impl Lease {
    /// Makes the connection available to others. Only after a complete exchange in both directions, with
    /// nothing unread.
    pub fn give_back(self) {
        let Lease { conn, slot, .. } = self;
        slot.give_back(conn, Duration::MAX);
    }

    /// As `give_back`, but it is kept idle for `kept_for` at most: what the peer said in `Keep-Alive:
    /// timeout`.
    pub fn give_back_for(self, kept_for: Duration) {
        let Lease { conn, slot, .. } = self;
        slot.give_back(conn, kept_for);
    }
}

impl Deref for Lease {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.conn
    }
}

async fn wait(ticket: Ticket, origin: &Origin) -> Result<(Slot, Option<Conn>), ConnectFailure> {
    let pool = Rc::clone(&ticket.pool);
    pool.counters.queued.add(1);
    let (timeout, deadline) = (origin.settings.limits.queue_timeout, Deadline::unset());
    deadline.set(timeout);
    deadline.bound(ticket).await.map_err(|_| {
        pool.counters.queue_timeouts.add(1);
        let message = format!("no connection came free within {} ms (queue_ms)", timeout.as_millis());
        ConnectFailure::new(Which::QueueTimeout, message)
    })
}

async fn open(mut slot: Slot, origin: &Origin) -> Result<Lease, ConnectFailure> {
    let opened = connect::open(origin, &slot.pool().order).await;
    let counters = &slot.pool().counters;
    match opened {
        Ok(conn) => {
            counters.opened.add(1);
            slot.connected = true;
            Ok(Lease { conn, slot, reused: false })
        }
        Err(failure) => {
            counters.failed.add(1);
            Err(failure)
        }
    }
}

/// The connections of one origin.
struct Pool {
    state: RefCell<State>,
    order: Order,
    counters: Arc<Counters>,
}

struct State {
    limits: Limits,
    /// Connections that are leased, idle or being opened. Above `connections_max` only after that was
    /// lowered.
    open: usize,
    /// Used last, taken first.
    idle: Vec<Idle>,
    /// Not empty only while nothing is idle and `open` has reached its limit.
    queue: VecDeque<Rc<Waiter>>,
    keeps_idle: bool,
}

struct Idle {
    conn: Conn,
    until: Instant,
}

/// What a checkout asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    IdleFirst,
    New,
}

/// What a checkout got.
enum Taken {
    /// The right to a connection, and an idle one where there is one.
    Turn(Slot, Option<Conn>),
    Wait(Ticket),
}

impl Pool {
    fn new(limits: Limits, keeps_idle: bool, counters: &Arc<Counters>) -> Rc<Pool> {
        let state = State { limits, open: 0, idle: Vec::new(), queue: VecDeque::new(), keeps_idle };
        Rc::new(Pool { state: RefCell::new(state), order: Order::default(), counters: Arc::clone(counters) })
    }

    fn take(self: &Rc<Pool>, wanted: Wanted) -> Result<Taken, ConnectFailure> {
        let has_room = {
            let state = self.state.borrow();
            state.open < state.limits.connections_max
        };
        if (wanted == Wanted::IdleFirst || !has_room)
            && let Some((slot, conn)) = self.take_idle()
        {
            return Ok(Taken::Turn(slot, Some(conn)));
        }
        let mut state = self.state.borrow_mut();
        if has_room {
            state.open += 1;
            self.counters.open.add(1);
            return Ok(Taken::Turn(Slot { pool: Some(Rc::clone(self)), connected: false }, None));
        }
        if state.queue.len() >= state.limits.queue_max {
            self.counters.queue_full.add(1);
            let message = format!(
                "all {} connections are busy and {} exchanges wait already",
                state.limits.connections_max,
                state.queue.len()
            );
            return Err(ConnectFailure::new(Which::QueueFull, message));
        }
        let waiter = Rc::new(Waiter::default());
        state.queue.push_back(Rc::clone(&waiter));
        self.counters.waiting.add(1);
        Ok(Taken::Wait(Ticket { pool: Rc::clone(self), waiter }))
    }

    /// A lease of `idle`, or of another idle connection where that one went stale; the slot where all did.
    fn lease_idle(self: &Rc<Pool>, mut slot: Slot, mut idle: Option<Conn>) -> Result<Lease, Slot> {
        // Ends: each turn closes one connection that was idle.
        while let Some(conn) = idle.take() {
            if conn.is_quiet() {
                self.counters.reused.add(1);
                return Ok(Lease { conn, slot, reused: true });
            }
            self.counters.stale.add(1);
            drop(conn);
            slot.disconnected();
            if let Some((other_slot, conn)) = self.take_idle() {
                (slot, idle) = (other_slot, Some(conn));
            }
        }
        Err(slot)
    }

    fn take_idle(self: &Rc<Pool>) -> Option<(Slot, Conn)> {
        let idle = self.state.borrow_mut().idle.pop()?;
        self.counters.idle.sub(1);
        Some((Slot { pool: Some(Rc::clone(self)), connected: true }, idle.conn))
    }

    /// Gives a connection to whoever has waited longest, or keeps it, or closes it.
    fn take_back(&self, conn: Conn, kept_for: Duration) {
        let mut state = self.state.borrow_mut();
        let within_limit = state.open <= state.limits.connections_max;
        if within_limit && let Some(waiter) = self.next_waiter(&mut state) {
            drop(state);
            return waiter.serve(Turn::Connected(conn));
        }
        if within_limit && state.keeps_idle && state.idle.len() < state.limits.idle_max {
            let until = clock::lately() + state.limits.idle_timeout.min(kept_for);
            conn.arm();
            state.idle.push(Idle { conn, until });
            self.counters.idle.add(1);
            return;
        }
        drop(state);
        drop(conn);
        self.counters.closed.add(1);
        self.release(1);
    }

    /// Counts `slots` connections as gone and lets as many waiters open their own.
    fn release(&self, slots: usize) {
        self.state.borrow_mut().open -= slots;
        self.counters.open.sub(slots as u64);
        self.promote();
    }

    /// Lets waiters open connections as far as the limit allows.
    fn promote(&self) {
        loop {
            let mut state = self.state.borrow_mut();
            if state.open >= state.limits.connections_max {
                return;
            }
            let Some(waiter) = self.next_waiter(&mut state) else { return };
            state.open += 1;
            self.counters.open.add(1);
            drop(state);
            waiter.serve(Turn::Vacant);
        }
    }

    fn next_waiter(&self, state: &mut State) -> Option<Rc<Waiter>> {
        let waiter = state.queue.pop_front()?;
        self.counters.waiting.sub(1);
        Some(waiter)
    }

    fn set_limits(&self, limits: Limits) {
        // At least one, or a waiter would wait for nothing.
        let limits = Limits { connections_max: limits.connections_max.max(1), ..limits };
        let mut state = self.state.borrow_mut();
        if state.limits == limits {
            return;
        }
        state.limits = limits;
        drop(state);
        self.promote();
    }

    fn sweep(&self, now: Instant) {
        let mut state = self.state.borrow_mut();
        let idle_max = if state.keeps_idle { state.limits.idle_max } else { 0 };
        let mut surplus = state.idle.len().saturating_sub(idle_max);
        // The oldest stand first.
        let is_gone = |idle: &mut Idle| {
            let expired = idle.until <= now || surplus > 0;
            surplus = surplus.saturating_sub(1);
            if expired {
                self.counters.expired.add(1);
                return true;
            }
            let stale = !idle.conn.is_quiet();
            self.counters.stale.add(u64::from(stale));
            stale
        };
        let gone: Vec<Idle> = state.idle.extract_if(.., is_gone).collect();
        drop(state);
        let count = gone.len();
        drop(gone);
        self.counters.idle.sub(count as u64);
        self.counters.closed.add(count as u64);
        self.release(count);
    }

    fn keep_idle(&self, keeps_idle: bool) {
        self.state.borrow_mut().keeps_idle = keeps_idle;
        if !keeps_idle {
            self.sweep(clock::now());
        }
    }

    /// Nothing open, and of no snapshot: not even its memory of addresses that failed is of use.
    fn is_unused(&self) -> bool {
        let state = self.state.borrow();
        !state.keeps_idle && state.open == 0 && state.queue.is_empty()
    }
}

/// The right to one connection. Dropping it lets another one be opened.
struct Slot {
    /// None only once it was given back.
    pool: Option<Rc<Pool>>,
    /// A connection stands behind it.
    connected: bool,
}

impl Slot {
    fn pool(&self) -> &Pool {
        self.pool.as_ref().expect("a slot has its pool until it is given back by value")
    }

    /// The connection behind it was closed.
    fn disconnected(&mut self) {
        self.connected = false;
        self.pool().counters.closed.add(1);
    }

    fn give_back(mut self, conn: Conn, kept_for: Duration) {
        if let Some(pool) = self.pool.take() {
            pool.take_back(conn, kept_for);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.counters.closed.add(u64::from(self.connected));
            pool.release(1);
        }
    }
}

/// A place in the queue, seen from the pool.
#[derive(Default)]
struct Waiter {
    turn: Cell<Turn>,
}

/// What a waiter has got. `Vacant` and `Connected` come with a right to a connection (`State::open` counts
/// it).
#[derive(Default)]
enum Turn {
    #[default]
    Waiting,
    WaitingAwake(Waker),
    Vacant,
    Connected(Conn),
}

impl Waiter {
    fn serve(&self, turn: Turn) {
        if let Turn::WaitingAwake(waker) = self.turn.replace(turn) {
            waker.wake();
        }
    }
}

/// A place in the queue, held by the one who waits.
struct Ticket {
    pool: Rc<Pool>,
    waiter: Rc<Waiter>,
}

impl Future for Ticket {
    type Output = (Slot, Option<Conn>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Slot, Option<Conn>)> {
        match self.taken() {
            Some(served) => Poll::Ready(served),
            None => {
                self.waiter.turn.set(Turn::WaitingAwake(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Ticket {
    /// What was given to this place, as a right that frees itself.
    fn taken(&self) -> Option<(Slot, Option<Conn>)> {
        let slot = |connected| Slot { pool: Some(Rc::clone(&self.pool)), connected };
        match self.waiter.turn.take() {
            Turn::Waiting | Turn::WaitingAwake(_) => None,
            Turn::Vacant => Some((slot(false), None)),
            Turn::Connected(conn) => Some((slot(true), Some(conn))),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.pool.state.borrow_mut();
        let before = state.queue.len();
        state.queue.retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        let left = before - state.queue.len();
        drop(state);
        self.pool.counters.waiting.sub(left as u64);
        // Its turn had come, but nobody is there to take it: the next one gets it.
        match self.taken() {
            Some((slot, Some(conn))) => slot.give_back(conn, Duration::MAX),
            Some((slot, None)) => drop(slot),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
