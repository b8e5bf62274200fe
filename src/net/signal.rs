//! A flag within one thread that tasks wait for: drain, cancel, a place in a queue.
//!
//! Once raised it stays raised until `lower`; all who wait are woken in the order in which they came.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A shared flag. Cloning gives another hold on the same flag.
#[derive(Clone, Default)]
pub struct Signal(Rc<Inner>);

impl Signal {
    /// Raises the flag and wakes all who wait.
    pub fn raise(&self) {
        self.0.raised.set(true);
        for waker in self.0.waiting.take() {
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
        poll_fn(move |cx| {
            if self.0.raised.get() {
                return Poll::Ready(());
            }
            let mut waiting = self.0.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

#[derive(Default)]
struct Inner {
    raised: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}
