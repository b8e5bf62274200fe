//! A worker's side of the ledger: slots that are taken, written and handed to the writer.
//!
//! Shape: `begin` takes a slot and gives an [`Entry`], `retarget` and `progress` keep it true, `finish` hands it on.
//! A slot comes back when its record is durable. Both ways are rings with one writer and one reader that can
//! hold every slot, so they are never full. The slots that were given back last are used first, so that few
//! lines of memory stay warm.
//! Limits: as many requests as the worker has slots are under way or wait to be durable; with none left `begin`
//! gives none, and it is counted by the policy whether a record is lost (open) or a request refused (closed).
//! Absent: any wait. An entry that is dropped without `finish` leaves its intent, as a crash does, and is counted
//! (`dropped`): a defect, which reads 0.

use crate::base::counter::Counter;
use crate::usage::Usage;
use crate::usage::ledger::ask::{Asker, Busy};
use crate::usage::ledger::recents::Recent;
use crate::usage::ledger::record::{AttemptOutcome, Final, Intent, Target};
use crate::usage::ledger::slots::{Region, Slot};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// What becomes of a request for which no slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It is served; its record is lost and counted.
    #[default]
    Open,
    /// It is refused.
    Closed,
}

/// What the writer tells the workers.
#[derive(Debug, Default)]
pub struct State {
    failing: AtomicBool,
}

impl State {
    /// Whether the last write has failed: records wait in their slots.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Relaxed);
    }
}

/// Counters of one worker, read by control.
#[derive(Debug, Default)]
pub struct Counters {
    /// Intents.
    pub begun: Counter,
    /// Requests and attempts handed to the writer.
    pub handed_on: Counter,
    /// Records that found no slot, while the policy is open; reads 0.
    pub lost: Counter,
    /// Requests that found no slot, while the policy is closed.
    pub refused: Counter,
}

/// The slot of a request that is under way.
#[derive(Debug)]
#[must_use = "an entry ends with Book::finish"]
pub struct Entry {
    slot: u32,
}

impl Drop for Entry {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
    }
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Entries that this process has dropped without an end: a defect; reads 0.
pub fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// A worker's slots. One thread at a time.
pub struct Book {
    region: Arc<Region>,
    worker: usize,
    on_failure: OnFailure,
    state: Arc<State>,
    counters: Arc<Counters>,
    /// None where no thread answers.
    asker: Option<Asker>,
    slots: RefCell<Slots>,
}

struct Slots {
    free: Vec<u32>,
    returned: rtrb::Consumer<u32>,
    finished: rtrb::Producer<u32>,
}

/// The writer's ends of a worker's rings.
#[derive(Debug)]
pub struct Tray {
    pub worker: usize,
    /// Slots that hold a final record.
    pub finished: rtrb::Consumer<u32>,
    /// Slots whose record is durable.
    pub returned: rtrb::Producer<u32>,
}

impl Book {
    /// The book of `worker` of a new region, all of whose slots are free.
    pub fn new(
        region: Arc<Region>,
        worker: usize,
        on_failure: OnFailure,
        state: Arc<State>,
        counters: Arc<Counters>,
    ) -> (Book, Tray) {
        let slots = region.slots();
        let (give_back, returned) = rtrb::RingBuffer::new(slots);
        let (hand_on, finished) = rtrb::RingBuffer::new(slots);
        // The first slot is taken first.
        let free = (0..slots as u32).rev().collect();
        let slots = RefCell::new(Slots { free, returned, finished: hand_on });
        let book = Book { region, worker, on_failure, state, counters, asker: None, slots };
        (book, Tray { worker, finished, returned: give_back })
    }

    /// The same book, whose worker asks the ledger's thread by `asker`.
    pub fn with_asker(self, asker: Asker) -> Book {
        Book { asker: Some(asker), ..self }
    }

    /// What the request with this id has used; none: it has not ended, or long ago, or there was none. The
    /// caller must compare the key. Off the path of requests: it waits for the ledger's thread.
    pub async fn ask(&self, id: &str) -> Result<Option<Recent>, Busy> {
        match &self.asker {
            Some(asker) => asker.ask(id).await,
            None => Err(Busy),
        }
    }

    /// Writes down what is about to be asked. None: no slot is free.
    pub fn begin(&self, intent: &Intent<'_>) -> Option<Entry> {
        let Some((at, slot)) = self.slots.borrow_mut().take(self) else {
            match self.on_failure {
                OnFailure::Open => self.counters.lost.add(1),
                OnFailure::Closed => self.counters.refused.add(1),
            }
            return None;
        };
        slot.begin(intent);
        self.counters.begun.add(1);
        Some(Entry { slot: at })
    }

    /// Another target is tried, or more is reserved: who it is, and all that is reserved now.
    pub fn retarget(&self, entry: &Entry, target: &Target<'_>) {
        if let Some(slot) = self.slot(entry.slot) {
            slot.retarget(target);
        }
    }

    /// What has been used so far. Before each flush to the client, so that a record of a crash has what the client
    /// has got.
    pub fn progress(&self, entry: &Entry, usage: &Usage) {
        if let Some(slot) = self.slot(entry.slot) {
            slot.progress(usage);
        }
    }

    /// An attempt was passed over or has failed, and another one may follow: a record of its own. Its usage is not
    /// the request's any more.
    pub fn attempt(&self, entry: &Entry, outcome: &AttemptOutcome<'_>) {
        let Some(of) = self.slot(entry.slot) else { return };
        let taken = self.slots.borrow_mut().take(self);
        let Some((at, slot)) = taken else { return self.counters.lost.add(1) };
        slot.attempt(of, outcome);
        self.hand_on(at);
        // What it used is in its own record now.
        of.progress(&Usage::default());
    }

    /// The request has ended. What was reserved must have been settled: a final record gives nothing back.
    pub fn finish(&self, entry: Entry, last: &Final<'_>) {
        let at = entry.slot;
        std::mem::forget(entry);
        if let Some(slot) = self.slot(at) {
            slot.finish(last);
            self.hand_on(at);
        }
    }

    /// Whether records wait since they cannot be written.
    pub fn is_failing(&self) -> bool {
        self.state.is_failing()
    }

    /// What becomes of requests for which no slot is free.
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    fn slot(&self, at: u32) -> Option<Slot<'_>> {
        self.region.slot(self.worker, at)
    }

    fn hand_on(&self, at: u32) {
        // It can hold every slot, so there is room.
        if self.slots.borrow_mut().finished.push(at).is_ok() {
            self.counters.handed_on.add(1);
        }
    }
}

impl Slots {
    /// A free slot.
    fn take<'b>(&mut self, book: &'b Book) -> Option<(u32, Slot<'b>)> {
        // Two for the one that is taken: so those that came back gather on the stack, and its top is taken,
        // also when many came at once.
        for _ in 0..2 {
            let Ok(at) = self.returned.pop() else { break };
            self.free.push(at);
        }
        let at = self.free.pop()?;
        Some((at, book.slot(at)?))
    }
}

impl Tray {
    /// Gives a slot back to its worker. Its record is durable.
    pub fn give_back(&mut self, region: &Region, at: u32) {
        if let Some(slot) = region.slot(self.worker, at) {
            slot.free();
            // It can hold every slot, so there is room.
            let _ = self.returned.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Book, Counters, OnFailure, State, Tray, dropped};
    use crate::usage::Usage;
    use crate::usage::ledger::record::{AttemptOutcome, Final, Intent, Kind, Record};
    use crate::usage::ledger::slots::{Region, Stage};
    use std::sync::Arc;

    fn open(slots: usize, on_failure: OnFailure) -> (Arc<Region>, Arc<Counters>, Book, Tray) {
        let region = Arc::new(Region::anonymous(1, slots).expect("a region"));
        let counters = Arc::<Counters>::default();
        let (book, tray) =
            Book::new(Arc::clone(&region), 0, on_failure, Arc::<State>::default(), Arc::clone(&counters));
        (region, counters, book, tray)
    }

    #[test]
    fn as_many_requests_as_slots_are_under_way_and_one_more_is_lost_or_refused_by_policy() {
        for (policy, lost, refused) in [(OnFailure::Open, 1, 0), (OnFailure::Closed, 0, 1)] {
            let (region, counters, book, mut tray) = open(2, policy);
            let one = book.begin(&Intent::default()).expect("the first");
            let two = book.begin(&Intent::default()).expect("the second");
            assert!(book.begin(&Intent::default()).is_none());
            assert_eq!((counters.lost.value(), counters.refused.value()), (lost, refused));
            book.finish(one, &Final::default());
            // It is the writer's until it is durable.
            assert!(book.begin(&Intent::default()).is_none());
            let at = tray.finished.pop().expect("a final record");
            tray.give_back(&region, at);
            let three = book.begin(&Intent::default()).expect("the slot that came back");
            book.finish(two, &Final::default());
            book.finish(three, &Final::default());
            assert_eq!((counters.begun.value(), counters.handed_on.value()), (3, 3));
        }
    }

    #[test]
    fn an_attempt_is_a_record_of_its_own_and_is_lost_where_no_slot_is_free() {
        let (region, counters, book, mut tray) = open(2, OnFailure::Closed);
        let entry = book.begin(&Intent { id: b"req_1", key: "blue", ..Intent::default() }).expect("a slot");
        let usage = Usage { input: Some(3), ..Usage::default() };
        book.progress(&entry, &usage);
        let outcome =
            AttemptOutcome { number: 1, provider: "one", status: 503, usage, ..AttemptOutcome::default() };
        book.attempt(&entry, &outcome);
        book.attempt(&entry, &AttemptOutcome { number: 2, ..outcome });
        assert_eq!(counters.lost.value(), 1);
        let mut open = Record::default();
        assert!(region.slot(0, entry.slot).is_some_and(|slot| slot.read(&mut open)));
        assert!(open.usage.is_unknown(), "it would be counted twice");
        book.finish(entry, &Final { status: 200, ..Final::default() });
        let mut read = || {
            let mut record = Record::default();
            let slot = region.slot(0, tray.finished.pop().expect("a record")).expect("its slot");
            assert!(slot.read(&mut record));
            record
        };
        let (first, second) = (read(), read());
        assert_eq!((first.kind, first.number, first.status), (Kind::Attempt, 1, 503));
        assert_eq!((&*first.id, &*first.key, &*first.provider), ("req_1", "blue", "one"));
        assert_eq!(
            (second.kind, second.number, second.status, &*second.id),
            (Kind::Request, 0, 200, "req_1")
        );
    }

    #[test]
    fn the_slot_that_came_back_last_is_used_first_also_after_many_were_open() {
        let (region, _, book, mut tray) = open(64, OnFailure::Open);
        let entries: Vec<_> = (0..64).map(|_| book.begin(&Intent::default()).expect("a slot")).collect();
        entries.into_iter().for_each(|entry| book.finish(entry, &Final::default()));
        let mut used = std::collections::BTreeSet::new();
        for round in 0..200 {
            while let Ok(at) = tray.finished.pop() {
                tray.give_back(&region, at);
            }
            let entry = book.begin(&Intent::default()).expect("a slot");
            if round >= 100 {
                used.insert(entry.slot);
            }
            book.finish(entry, &Final::default());
        }
        assert!(used.len() <= 2, "{used:?}");
    }

    #[test]
    fn an_entry_that_is_dropped_leaves_its_intent_and_is_counted() {
        let (region, _, book, _tray) = open(1, OnFailure::Open);
        let entry = book.begin(&Intent::default()).expect("a slot");
        book.progress(&entry, &Usage { output: Some(3), ..Usage::default() });
        let before = dropped();
        drop(entry);
        assert_eq!(dropped(), before + 1);
        let slot = region.slot(0, 0).expect("the slot");
        assert_eq!(slot.stage(), Stage::Intent);
        let mut record = Record::default();
        assert!(slot.read(&mut record));
        assert_eq!((record.kind, record.usage.output), (Kind::Crash, Some(3)));
    }
}
