//! Coarse deadlines: setting one is a store, so that every wait of every stream can have one.
//!
//! Each worker has one table and one task that looks through it every `TICK`; a deadline fires at most one
//! tick late and never early. The table costs about 40 bytes for a deadline that somebody waits for; the task
//! sleeps while there is none.
//! Real timers (monoio's wheel) are for what must be punctual.

use crate::base::clock::{self, Instant};
use crate::net::runtime::Timer;
use crate::net::signal::Signal;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How late a deadline may fire.
pub const TICK: Duration = Duration::from_millis(20);

/// One deadline, unset at first. Its owner sets it anew as often as it likes.
///
/// It enters the table only when somebody waits for it, and from then on the table is told only of an earlier
/// time: a relay that puts its idle timeout off with every event writes nothing but this struct. An entry that
/// comes due too early wakes its task for nothing, once, and is entered again.
pub struct Deadline {
    at: Cell<Instant>,
    place: Cell<Option<usize>>,
    /// What the table knows: the time of the entry, and whom it wakes. `NOBODY`: it does not wake anybody.
    entered: Cell<Instant>,
    waiter: Cell<*const ()>,
}

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

impl Deadline {
    /// A deadline that is not set.
    pub const fn unset() -> Deadline {
        Deadline {
            at: Cell::new(Instant::NEVER),
            place: Cell::new(None),
            entered: Cell::new(Instant::NEVER),
            waiter: Cell::new(NOBODY),
        }
    }

    /// Lets it pass `after` from now.
    pub fn set(&self, after: Duration) {
        self.set_at(clock::lately() + after);
    }

    /// Lets it pass at `at`; `Instant::NEVER` unsets it.
    pub fn set_at(&self, at: Instant) {
        self.at.set(at);
        if at < self.entered.get()
            && let Some(place) = self.place.get()
        {
            self.entered.set(at);
            TABLE.with_borrow_mut(|table| {
                if let Some(entry) = table.entries.get_mut(place) {
                    entry.at = at;
                }
            });
        }
    }

    /// When it passes.
    pub fn at(&self) -> Instant {
        self.at.get()
    }

    /// Ends when the deadline has passed, at most `TICK` late. May be dropped while it waits.
    pub fn passed(&self) -> impl Future<Output = Expired> + Unpin + '_ {
        poll_fn(|cx| self.poll_passed(cx))
    }

    /// `work`, or `Expired` where the deadline passes first.
    pub fn bound<F: Future>(&self, work: F) -> Bound<'_, F> {
        Bound { deadline: self, work }
    }

    /// As the future of `passed`, for futures written by hand.
    pub fn poll_passed(&self, cx: &Context<'_>) -> Poll<Expired> {
        // What has come due was woken by a tick: between two of them nothing changes, and no clock is read.
        let last_tick = LAST_TICK.get();
        if self.at.get() <= last_tick {
            return Poll::Ready(Expired);
        }
        let is_entered = self.waiter.get() == cx.waker().data() && self.entered.get() > last_tick;
        if !is_entered {
            self.enter(cx.waker());
        }
        Poll::Pending
    }

    #[cold]
    fn enter(&self, waker: &Waker) {
        let entry = Entry { at: self.at.get(), waker: Some(waker.clone()) };
        TABLE.with_borrow_mut(|table| {
            match self.place.get().and_then(|place| table.entries.get_mut(place)) {
                Some(place) => *place = entry,
                None => {
                    table.filled.raise();
                    self.place.set(Some(table.entries.insert(entry)));
                }
            }
        });
        self.entered.set(self.at.get());
        // The entry's waker keeps its task alive, so that no other task comes to have the same address.
        self.waiter.set(waker.data());
    }
}

pin_project_lite::pin_project! {
    /// Work with a deadline. No async fn: that would keep `work` twice, as an argument and as a local.
    pub struct Bound<'a, F> {
        deadline: &'a Deadline,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Bound<'_, F> {
    type Output = Result<F::Output, Expired>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.work.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => this.deadline.poll_passed(cx).map(Err),
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(place) = self.place.get() {
            // A thread that is ending may have lost its table already.
            let _ = TABLE.try_with(|table| table.borrow_mut().entries.try_remove(place));
        }
    }
}

/// The worker's task that wakes whoever waits for a deadline that has passed. Runs for ever.
pub(in crate::net) async fn watch() {
    let filled = TABLE.with_borrow(|table| table.filled.clone());
    let mut timer = Timer::default();
    loop {
        filled.raised().await;
        timer.wait(TICK).await;
        wake_expired(clock::now());
    }
}

/// The time, at most a tick ago wherever somebody waits for a deadline: a reading without cost.
pub fn last_tick() -> Instant {
    LAST_TICK.get()
}

/// When the first deadline passes that somebody waits for. The simulation asks instead of running `watch`, so
/// that it can tell "nothing will ever happen" from "nothing has happened yet".
pub(in crate::net) fn next_awaited() -> Option<Instant> {
    TABLE.with_borrow(|table| {
        let awaited = table.entries.iter().filter(|(_, entry)| entry.waker.is_some());
        awaited.map(|(_, entry)| entry.at).min().filter(|at| *at != Instant::NEVER)
    })
}

/// Begins with a clock that stands at `now`: a simulation's may stand before that of the one before.
pub(in crate::net) fn begin(now: Instant) {
    LAST_TICK.set(now);
}

/// Wakes whoever waits for a deadline that has passed by `now`.
pub(in crate::net) fn wake_expired(now: Instant) {
    LAST_TICK.set(now);
    TABLE.with_borrow_mut(|table| {
        if table.entries.is_empty() {
            table.filled.lower();
        }
        for (_, entry) in &mut table.entries {
            if entry.at <= now
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
        }
    });
}

struct Table {
    entries: slab::Slab<Entry>,
    filled: Signal,
}

struct Entry {
    /// At or before the deadline.
    at: Instant,
    waker: Option<Waker>,
}

const NOBODY: *const () = std::ptr::null();

thread_local! {
    /// The time of the last tick: whatever was entered and due by then was woken.
    static LAST_TICK: Cell<Instant> = const { Cell::new(Instant(0)) };
    static TABLE: RefCell<Table> = RefCell::new(Table { entries: slab::Slab::new(), filled: Signal::default() });
}
