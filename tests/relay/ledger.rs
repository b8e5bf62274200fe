//! A ledger in memory beside a worker: what the thread of control does, as a task of the test's own driver.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tollgate::net::race::{First, race};
use tollgate::net::runtime;
use tollgate::net::signal::Signal;
use tollgate::usage::ledger::ask::{Asker, Order, orders};
use tollgate::usage::ledger::recents::Recents;
use tollgate::usage::ledger::record::Record;
use tollgate::usage::ledger::{Book, Counters, OnFailure, Region, State, Tray};

/// See the file's text.
pub struct Ledger {
    region: Arc<Region>,
    tray: RefCell<Tray>,
    recents: RefCell<Recents>,
    records: RefCell<Vec<Record>>,
    pub counters: Arc<Counters>,
    /// None: nobody listens to them any more.
    orders: RefCell<Option<Receiver<Order>>>,
}

impl Ledger {
    /// A ledger for one worker with so many slots, and its book.
    pub fn new(slots: usize, on_failure: OnFailure) -> (Rc<Ledger>, Book) {
        let region = Arc::new(Region::anonymous(1, slots).expect("memory"));
        let (state, counters) = (Arc::<State>::default(), Arc::<Counters>::default());
        let (book, tray) = Book::new(Arc::clone(&region), 0, on_failure, state, Arc::clone(&counters));
        let (give, orders) = orders();
        let ledger = Ledger {
            region,
            tray: RefCell::new(tray),
            recents: RefCell::default(),
            records: RefCell::default(),
            counters,
            orders: RefCell::new(Some(orders)),
        };
        (Rc::new(ledger), book.with_asker(Asker::new(give)))
    }

    /// What is final so far, in the order in which it ended.
    pub fn records(&self) -> Vec<Record> {
        self.gather();
        self.records.borrow().clone()
    }

    /// Answers what the worker asks until `over`.
    pub async fn answer(self: Rc<Self>, over: Signal) {
        while let First::One(()) = race(runtime::sleep(Duration::from_millis(1)), over.raised()).await {
            while let Some(Ok(Order::Ask(question))) = self.orders.borrow().as_ref().map(Receiver::try_recv) {
                self.gather();
                let recent = self.recents.borrow_mut().find(&question.id, Instant::now());
                question.answer(recent);
            }
        }
    }

    /// Answers nothing from now on.
    pub fn fall_silent(&self) {
        self.orders.take();
    }

    fn gather(&self) {
        let mut tray = self.tray.borrow_mut();
        while let Ok(at) = tray.finished.pop() {
            let mut record = Record::default();
            assert!(self.region.slot(0, at).is_some_and(|slot| slot.read(&mut record)), "a final record");
            self.recents.borrow_mut().add(&record, Instant::now());
            self.records.borrow_mut().push(record);
            tray.give_back(&self.region, at);
        }
    }
}
