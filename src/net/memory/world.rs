//! One run's state: tasks, timers, listeners, draws and trace, found by the thread's sockets and sleeps.

use crate::base::clock::{self, Instant};
use crate::net::memory::faults::{Dial, Faults};
use crate::net::memory::link::Link;
use crate::net::memory::listener::Listeners;
use crate::net::memory::tasks::{Taken, Tasks};
use crate::net::memory::timers::{Action, Timers};
use crate::net::memory::trace::{Note, Trace};
use crate::net::{deadline, runtime};
use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::Location;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Waits that end at once elsewhere may take a turn here: one in so many.
const TURN_ONE_IN: u64 = 4;

/// Everything that the tasks of one run share.
pub struct World {
    pub tasks: Tasks,
    pub timers: Timers,
    pub listeners: Listeners,
    /// Sockets that are open.
    pub sockets: Cell<usize>,
    /// Connections asked for.
    pub dials: Cell<u64>,
    seed: u64,
    draws: RefCell<fastrand::Rng>,
    trace: Trace,
    faults: RefCell<Faults>,
    dials_to: RefCell<std::collections::BTreeMap<SocketAddr, u64>>,
    ticks: Ticks,
}

/// When the deadlines of the thread are looked through: every `deadline::TICK`, at a phase drawn per run.
struct Ticks {
    phase_us: u64,
    /// The last one that has been.
    last: Cell<u64>,
}

impl World {
    pub fn new(seed: u64, faults: Faults, tasks: Tasks) -> World {
        let mut draws = fastrand::Rng::with_seed(seed);
        let phase_us = draws.u64(..TICK_US);
        World {
            tasks,
            timers: Timers::default(),
            listeners: Listeners::default(),
            sockets: Cell::new(0),
            dials: Cell::new(0),
            seed,
            draws: RefCell::new(draws),
            trace: Trace::new(),
            faults: RefCell::new(faults),
            dials_to: RefCell::default(),
            ticks: Ticks { phase_us, last: Cell::new(0) },
        }
    }

    /// The world of this thread, inside a run.
    pub fn current() -> Option<Rc<World>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Makes `world` this thread's; none takes it away.
    pub fn enter(world: Option<Rc<World>>) {
        runtime::enter_memory(world.is_some());
        let before = CURRENT.replace(world);
        drop(before);
    }

    /// A number from 0 to `bound` - 1; 0 where `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draws.borrow_mut().u64(..bound) }
    }

    /// A number from 1 to `most`; `most` is at least 1.
    pub fn one_to(&self, most: usize) -> usize {
        1 + self.draws.borrow_mut().usize(..most.max(1))
    }

    /// True in so many of 1,000 cases, 900 at most.
    pub fn chance(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille.min(900))
    }

    /// A time from nothing to `most`.
    pub fn up_to(&self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(if micros == 0 { 0 } else { self.below(micros + 1) })
    }

    /// How late a sleep ends.
    pub fn lateness(&self) -> Duration {
        let most = self.faults.borrow().timer_late_max;
        self.up_to(most)
    }

    /// The link for a new connection to `address`, and the connection's number.
    pub fn dial(&self, address: SocketAddr) -> (u64, Link) {
        let number = self.dials.replace(self.dials.get() + 1);
        let mut dials_to = self.dials_to.borrow_mut();
        let count_to = dials_to.entry(address).or_default();
        let number_to = *count_to;
        *count_to += 1;
        drop(dials_to);
        let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.note(Note::Dial { connection: number });
        let dial = Dial { number, number_to, to: address, at: clock::now(), seed };
        (number, (self.faults.borrow_mut().links)(&dial))
    }

    /// Lets `action` happen at `at`.
    pub fn at(&self, at: Instant, action: impl FnOnce() + 'static) {
        self.timers.add(at, Action::Run(Box::new(action)));
    }

    /// Adds to the trace.
    pub fn note(&self, note: Note) {
        self.trace.add(clock::now(), note);
    }

    /// The hash of what happened so far.
    pub fn trace(&self) -> u64 {
        self.trace.hash()
    }

    /// Sometimes true: other tasks are to run first, as with a kernel that answers a little later.
    pub fn takes_turn(&self) -> bool {
        self.below(TURN_ONE_IN) == 0
    }

    /// Sometimes lets other tasks run first.
    pub async fn maybe_turn(&self) {
        let mut turn = self.takes_turn();
        poll_fn(|cx| {
            if std::mem::take(&mut turn) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// A ready task; sometimes one that has no reason to be, where any is.
    pub fn take_ready(&self) -> Option<Taken> {
        let draw = |bound: usize| usize::try_from(self.below(bound as u64)).unwrap_or(0);
        let taken = self.tasks.take(draw)?;
        let spurious = self.faults.borrow().spurious_wakes_per_mille;
        if self.chance(spurious) {
            self.tasks.wake_any(draw);
        }
        Some(taken)
    }

    /// Moves the clock by what a poll takes.
    pub fn spend(&self) {
        let most = self.faults.borrow().poll_takes_max;
        if !most.is_zero() {
            clock::set_virtual(clock::now() + self.up_to(most));
        }
    }

    /// When something is due next, if ever.
    pub fn next_due(&self) -> Option<Instant> {
        let timer = self.timers.next();
        let tick = deadline::next_awaited().map(|at| self.ticks.first_from(at));
        match (timer, tick) {
            (Some(timer), Some(tick)) => Some(timer.min(tick)),
            (one, other) => one.or(other),
        }
    }

    /// Lets everything happen that is due.
    pub fn fire_due(&self) {
        let now = clock::now();
        if self.ticks.passed(now) {
            deadline::wake_expired(now);
        }
        while let Some(action) = self.timers.take_due(now) {
            match action {
                Action::Wake(waker) => waker.wake(),
                Action::Run(run) => run(),
            }
        }
    }
}

/// Starts a task of the simulation. Outside of one it is dropped.
#[track_caller]
pub fn spawn<F: Future<Output = ()> + 'static>(task: F) {
    match World::current() {
        Some(world) => {
            world.tasks.add(Box::pin(task), type_name::<F>(), Location::caller());
        }
        None => drop(task),
    }
}

impl Ticks {
    /// The first tick at or after `at` that has not been yet.
    fn first_from(&self, at: Instant) -> Instant {
        let number = at.0.saturating_sub(self.phase_us).div_ceil(TICK_US).max(self.last.get() + 1);
        Instant(self.phase_us.saturating_add(number.saturating_mul(TICK_US)))
    }

    /// Whether a tick has come by `now` since this was asked last.
    fn passed(&self, now: Instant) -> bool {
        let number = now.0.saturating_sub(self.phase_us) / TICK_US;
        self.last.replace(number) != number
    }
}

const TICK_US: u64 = deadline::TICK.as_micros() as u64;

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}
