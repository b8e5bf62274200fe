//! A flag within one thread that tasks wait for: drain, cancel, a place in a queue.
//!
//! Once raised it stays raised until `lower`; all who wait are woken in the order in which they came. A wait
//! that is dropped leaves nothing behind: a worker's drain signal outlives millions of connections that wait
//! for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A shared flag. Cloning gives another hold on the same flag.
#[derive(Clone, Default)]
pub struct Signal(Rc<Inner>);

impl Signal {
    /// Raises the flag and wakes all who wait.
    pub fn raise(&self) {
        self.0.raised.set(true);
        for waker in self.0.waiting.take().into_values() {
            waker.wake();
        }
    }

    /// Lowers the flag.
    pub fn lower(&self) {
        self.0.raised.set(false);
    }

    /// Whether the flag is up.
    pub fn is_raised(&self) -> bool {
        self.0.raised.get()
    }

    /// Ends when the flag is up. May be dropped while it waits.
    pub fn raised(&self) -> impl Future<Output = ()> {
        Raised { signal: self, number: None }
    }
}

#[derive(Default)]
struct Inner {
    raised: Cell<bool>,
    /// Who waits, by the number of the wait: in the order in which they came.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    waits: Cell<u64>,
}

/// A wait for the flag.
struct Raised<'a> {
    signal: &'a Signal,
    /// Its place among those who wait, once it does.
    number: Option<u64>,
}

impl Future for Raised<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Inner { raised, waiting, waits } = &*self.signal.0;
        if raised.get() {
            return Poll::Ready(());
        }
        let number = self.number.unwrap_or_else(|| waits.replace(waits.get() + 1));
        let before = waiting.borrow_mut().insert(number, cx.waker().clone());
        drop(before);
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.signal.0.waiting.borrow_mut().remove(&number);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Signal;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_wait_that_is_dropped_or_ended_leaves_nothing_behind() {
        let signal = Signal::default();
        let mut cx = Context::from_waker(Waker::noop());
        {
            let mut dropped = pin!(signal.raised());
            assert_eq!(dropped.as_mut().poll(&mut cx), Poll::Pending);
            assert_eq!(dropped.as_mut().poll(&mut cx), Poll::Pending);
            assert_eq!(signal.0.waiting.borrow().len(), 1);
        }
        assert_eq!(signal.0.waiting.borrow().len(), 0);
        let mut ended = pin!(signal.raised());
        assert_eq!(ended.as_mut().poll(&mut cx), Poll::Pending);
        signal.raise();
        assert_eq!(ended.as_mut().poll(&mut cx), Poll::Ready(()));
        assert_eq!(signal.0.waiting.borrow().len(), 0);
    }

    #[test]
    fn a_flag_that_was_lowered_again_before_the_wait_was_polled_is_waited_for_anew() {
        let signal = Signal::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut wait = pin!(signal.raised());
        assert_eq!(wait.as_mut().poll(&mut cx), Poll::Pending);
        signal.raise();
        signal.lower();
        assert_eq!(wait.as_mut().poll(&mut cx), Poll::Pending);
        signal.raise();
        assert_eq!(wait.as_mut().poll(&mut cx), Poll::Ready(()));
    }
}
