//! Coarse deadlines: setting one is a store, so that every wait of every stream can have one.
//!
//! Each worker has one table and one task that looks through it every `TICK`; a deadline fires at most one
//! tick late and never early. The table costs about 40 bytes a deadline; the task sleeps while there is none.
//! Real timers (monoio's wheel) are for what must be punctual.

use crate::base::clock::{self, Instant};
use crate::net::runtime;
use crate::net::signal::Signal;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How late a deadline may fire.
pub const TICK: Duration = Duration::from_millis(20);

/// One deadline, unset at first. Its owner sets it anew as often as it likes.
pub struct Deadline {
    place: usize,
}

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

impl Deadline {
    /// A deadline that is not set.
    pub fn unset() -> Deadline {
        TABLE.with_borrow_mut(|table| {
            table.filled.raise();
            Deadline { place: table.entries.insert(Entry { at: Instant::NEVER, waker: None }) }
        })
    }

    /// Lets it pass `after` from now.
    pub fn set(&self, after: Duration) {
        self.set_at(clock::now() + after);
    }

    /// Lets it pass at `at`; `Instant::NEVER` unsets it.
    pub fn set_at(&self, at: Instant) {
        TABLE.with_borrow_mut(|table| {
            if let Some(entry) = table.entries.get_mut(self.place) {
                entry.at = at;
            }
        });
    }

    /// When it passes.
    pub fn at(&self) -> Instant {
        TABLE.with_borrow(|table| table.entries.get(self.place).map_or(Instant::NEVER, |entry| entry.at))
    }

    /// Ends when the deadline has passed, at most `TICK` late. May be dropped while it waits.
    pub fn passed(&self) -> impl Future<Output = Expired> + Unpin + '_ {
        poll_fn(|cx| self.poll_passed(cx))
    }

    /// `work`, or `Expired` where the deadline passes first.
    pub fn bound<F: Future>(&self, work: F) -> Bound<'_, F> {
        Bound { deadline: self, work }
    }

    fn poll_passed(&self, cx: &Context<'_>) -> Poll<Expired> {
        TABLE.with_borrow_mut(|table| {
            let Some(entry) = table.entries.get_mut(self.place) else { return Poll::Ready(Expired) };
            if entry.at != Instant::NEVER && clock::now() >= entry.at {
                return Poll::Ready(Expired);
            }
            match &mut entry.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                place => *place = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
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
        // A thread that is ending may have lost its table already.
        let _ = TABLE.try_with(|table| table.borrow_mut().entries.try_remove(self.place));
    }
}

/// The worker's task that wakes whoever waits for a deadline that has passed. Runs for ever.
pub(in crate::net) async fn watch() {
    let filled = TABLE.with_borrow(|table| table.filled.clone());
    loop {
        filled.raised().await;
        runtime::sleep(TICK).await;
        wake_expired(clock::now());
    }
}

/// When the first deadline passes that somebody waits for. The simulation asks instead of running `watch`, so
/// that it can tell "nothing will ever happen" from "nothing has happened yet".
pub(in crate::net) fn next_awaited() -> Option<Instant> {
    TABLE.with_borrow(|table| {
        let awaited = table.entries.iter().filter(|(_, entry)| entry.waker.is_some());
        awaited.map(|(_, entry)| entry.at).min().filter(|at| *at != Instant::NEVER)
    })
}

/// Wakes whoever waits for a deadline that has passed by `now`.
pub(in crate::net) fn wake_expired(now: Instant) {
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
    at: Instant,
    waker: Option<Waker>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::new(Table { entries: slab::Slab::new(), filled: Signal::default() });
}
