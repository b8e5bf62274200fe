//! Tasks of a simulation and those of them that are ready.
//!
//! A waker holds a number, never the task: waking or dropping it runs no code of a task. It is `Send` and
//! `Sync` as wakers must be; the lock is never contended because one thread runs everything.

use std::cell::RefCell;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// A task by its place and its number, which is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    place: usize,
    pub number: u64,
}

pub type Work = Pin<Box<dyn Future<Output = ()>>>;

/// All tasks of a run but its main future, which the run itself holds; for that one there is a waker only.
pub struct Tasks {
    slots: RefCell<Slots>,
    ready: Arc<Ready>,
}

struct Slots {
    slab: slab::Slab<Slot>,
    spawned: u64,
}

struct Slot {
    /// Away while it is polled.
    work: Option<Work>,
    alarm: Arc<Alarm>,
    name: &'static str,
    spawned_at: &'static Location<'static>,
}

/// The place of the main future.
const MAIN: Id = Id { place: usize::MAX, number: 0 };

/// What `Tasks::take` hands out.
pub enum Taken {
    Main,
    Task(Id, Work, Waker),
}

impl Tasks {
    /// No tasks but the main future, which is ready; its waker.
    pub fn new() -> (Tasks, Waker) {
        let tasks = Tasks {
            slots: RefCell::new(Slots { slab: slab::Slab::new(), spawned: 0 }),
            ready: Arc::default(),
        };
        let main = Waker::from(tasks.alarm(MAIN));
        main.wake_by_ref();
        (tasks, main)
    }

    /// Adds a task, which is ready.
    pub fn add(&self, work: Work, name: &'static str, spawned_at: &'static Location<'static>) -> Id {
        let mut slots = self.slots.borrow_mut();
        slots.spawned += 1;
        let id = Id { place: slots.slab.vacant_key(), number: slots.spawned };
        let alarm = self.alarm(id);
        Arc::clone(&alarm).wake();
        slots.slab.insert(Slot { work: Some(work), alarm, name, spawned_at });
        id
    }

    /// Takes a ready task out to be polled; `draw` chooses which (a number below its argument).
    pub fn take(&self, draw: impl Fn(usize) -> usize) -> Option<Taken> {
        loop {
            let alarm = {
                let mut queue = self.ready.lock();
                if queue.is_empty() {
                    return None;
                }
                let chosen = draw(queue.len());
                queue.swap_remove(chosen)
            };
            alarm.rung.swap(false, Ordering::AcqRel);
            // A finished task may still be woken by wakers that outlived it; then there is nothing to take.
            if let Some(taken) = self.take_task(alarm.id) {
                return Some(taken);
            }
        }
    }

    /// Puts a task that still waits back.
    pub fn put_back(&self, id: Id, work: Work) {
        if let Some(slot) = self.slots.borrow_mut().slab.get_mut(id.place) {
            slot.work = Some(work);
        }
    }

    /// Forgets a task that ended.
    pub fn remove(&self, id: Id) {
        self.slots.borrow_mut().slab.try_remove(id.place);
    }

    /// Wakes the task that `draw` chooses, ready or not.
    pub fn wake_any(&self, draw: impl Fn(usize) -> usize) {
        let slots = self.slots.borrow();
        if slots.slab.is_empty() {
            return;
        }
        let chosen = draw(slots.slab.len());
        if let Some((_, slot)) = slots.slab.iter().nth(chosen) {
            Arc::clone(&slot.alarm).wake();
        }
    }

    /// The tasks that are alive: number, future's type, place of the spawn.
    pub fn names(&self) -> Vec<String> {
        let slots = self.slots.borrow();
        let name = |(_, slot): (usize, &Slot)| {
            format!("task {}: {} spawned at {}", slot.alarm.id.number, slot.name, slot.spawned_at)
        };
        slots.slab.iter().map(name).collect()
    }

    /// Takes one task out for good, so that a run can drop them all.
    pub fn take_last(&self) -> Option<Work> {
        self.ready.lock().clear();
        let mut slots = self.slots.borrow_mut();
        let place = slots.slab.iter().next_back()?.0;
        slots.slab.remove(place).work
    }

    fn take_task(&self, id: Id) -> Option<Taken> {
        if id == MAIN {
            return Some(Taken::Main);
        }
        let mut slots = self.slots.borrow_mut();
        let slot = slots.slab.get_mut(id.place).filter(|slot| slot.alarm.id == id)?;
        let waker = Waker::from(Arc::clone(&slot.alarm));
        Some(Taken::Task(id, slot.work.take()?, waker))
    }

    fn alarm(&self, id: Id) -> Arc<Alarm> {
        Arc::new(Alarm { id, rung: AtomicBool::new(false), ready: Arc::clone(&self.ready) })
    }
}

/// Makes its task ready.
struct Alarm {
    id: Id,
    /// Whether it stands in the queue.
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let ready = Arc::clone(&self.ready);
            ready.lock().push(self);
        }
    }
}

#[derive(Default)]
struct Ready {
    queue: Mutex<Vec<Arc<Alarm>>>,
}

impl Ready {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Alarm>>> {
        // Nothing panics while it holds the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
