//! Timers of a simulation: a sleep to be woken, or a change of the network that is due.

use crate::base::clock::{self, Instant};
use crate::net::memory::world::World;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// What happens when a timer is due.
pub enum Action {
    Wake(Waker),
    Run(Box<dyn FnOnce()>),
}

/// When a timer is due, and its number among all timers: those of one instant act in the order they were set.
pub type Key = (Instant, u64);

/// All timers that are set.
#[derive(Default)]
pub struct Timers {
    set: RefCell<BTreeMap<Key, Action>>,
    count: Cell<u64>,
}

impl Timers {
    /// Sets a timer.
    pub fn add(&self, at: Instant, action: Action) -> Key {
        let key = (at, self.count.replace(self.count.get() + 1));
        self.set.borrow_mut().insert(key, action);
        key
    }

    /// Replaces the action of a timer that is still set.
    pub fn replace(&self, key: Key, action: Action) {
        if let Some(place) = self.set.borrow_mut().get_mut(&key) {
            *place = action;
        }
    }

    /// Unsets a timer.
    pub fn remove(&self, key: Key) {
        let removed = self.set.borrow_mut().remove(&key);
        drop(removed);
    }

    /// When the next timer is due.
    pub fn next(&self) -> Option<Instant> {
        self.set.borrow().first_key_value().map(|(key, _)| key.0)
    }

    /// Takes a timer that is due at `now`.
    pub fn take_due(&self, now: Instant) -> Option<Action> {
        let mut set = self.set.borrow_mut();
        let first = set.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Unsets all.
    pub fn clear(&self) {
        let all = self.set.take();
        drop(all);
    }
}

/// Ends `after` later in virtual time, or late by what `Faults::timer_late_max` allows. May be dropped while
/// it waits.
pub async fn sleep(after: Duration) {
    let Some(world) = World::current() else { return };
    let due = clock::now() + after + world.lateness();
    let mut pending = SetTimer { world, key: None };
    poll_fn(|cx| {
        if clock::now() >= due {
            return Poll::Ready(());
        }
        let action = Action::Wake(cx.waker().clone());
        match pending.key {
            Some(key) => pending.world.timers.replace(key, action),
            None => pending.key = Some(pending.world.timers.add(due, action)),
        }
        Poll::Pending
    })
    .await;
}

/// A timer that is unset when its future is dropped.
struct SetTimer {
    world: Rc<World>,
    key: Option<Key>,
}

impl Drop for SetTimer {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.world.timers.remove(key);
        }
    }
}
