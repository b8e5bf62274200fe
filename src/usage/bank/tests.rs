//! The bank as its processes see it, one after another and beside each other.

use super::{Bank, Estate, Full, Hold, Kind};
use crate::usage::seat::{Directory, Seat};
use std::path::PathBuf;
use std::sync::Arc;

/// A state directory that ends with its test.
struct State(PathBuf);

impl State {
    fn new(name: &str) -> State {
        let path = std::env::temp_dir().join(format!("tollgate-bank-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        State(path)
    }

    /// A process that starts.
    fn start(&self, workers: usize) -> (Arc<Bank>, Seat) {
        let directory = Directory::enter(&self.0).expect("a directory");
        let seat = directory.sit().expect("a seat");
        let bank = Bank::open(&directory, &seat, workers, 10).expect("a bank");
        (Arc::new(bank), seat)
    }

    /// What control of `bank` does each second.
    fn look(&self, bank: &Bank) {
        let directory = Directory::enter(&self.0).expect("a directory");
        bank.look_for_others(&directory).expect("a look");
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const LIMIT: u64 = 640;

#[test]
fn a_restart_refills_no_budget_and_forgets_what_was_only_held() {
    let state = State::new("restart");
    let (bank, seat) = state.start(2);
    let budget = bank.place("key:a/budget", Kind::Budget, 0).expect("room");
    let slots = bank.place("key:a/concurrent", Kind::Gauge, 0).expect("room");
    let [one, two] = [bank.column(0), bank.column(1)];
    let spent = one.take(budget, 3, LIMIT, 100).expect("room");
    one.settle(spent, 60, LIMIT);
    let spent = two.take(budget, 3, LIMIT, 50).expect("room");
    two.settle(spent, 50, LIMIT);
    // Killed with this open, and with leases out.
    two.take(budget, 3, LIMIT, 200).expect("room");
    two.take(slots, 0, 1, 1).expect("room");
    drop((one, two, bank, seat));

    for restart in 0..2 {
        let (bank, _seat) = state.start(1);
        let budget = bank.place("key:a/budget", Kind::Budget, 0).expect("room");
        let slots = bank.place("key:a/concurrent", Kind::Gauge, 0).expect("room");
        let column = bank.column(0);
        assert_eq!(bank.given_out(budget).amount, 110, "restart {restart}");
        assert_eq!(bank.spent(budget).amount, 110);
        assert!(column.take(budget, 3, LIMIT, LIMIT - 109).is_err());
        column.take(slots, 0, 1, 1).expect("nobody holds it");
    }
    let (bank, _seat) = state.start(1);
    let budget = bank.place("key:a/budget", Kind::Budget, 0).expect("room");
    bank.column(0).take(budget, 4, LIMIT, LIMIT).expect("a new window");
}

#[test]
fn two_processes_share_every_limit_and_each_calls_the_others_leases_back() {
    let state = State::new("two");
    let (old, old_seat) = state.start(2);
    let cell = old.place("key:a/requests_per_minute", Kind::Rate, 0).expect("room");
    let held = old.column(1).take(cell, 1, LIMIT, 1).expect("room");
    let (new, _new_seat) = state.start(1);
    assert_eq!(new.place("key:a/requests_per_minute", Kind::Rate, 0), Ok(cell));
    let other = new.place("key:b/requests_per_minute", Kind::Rate, 0).expect("room");
    assert_eq!(old.place("key:b/requests_per_minute", Kind::Rate, 0), Ok(other));
    // The old one leased ten: the new one finds them.
    assert_eq!(new.column(0).take(cell, 1, LIMIT, LIMIT - 1), Ok(Hold { cell, tag: 1, amount: LIMIT - 1 }));
    assert!(new.column(0).take(cell, 1, LIMIT, 1).is_err());
    assert!(old.column(0).take(cell, 1, LIMIT, 1).is_err());
    old.column(1).give(held, LIMIT);
    assert!(new.column(0).take(cell, 1, LIMIT, 1).is_ok());
    // And the other way round, once control has looked.
    state.look(&old);
    new.begin_to_lease();
    new.column(0).take(cell, 2, LIMIT, 1).expect("a new window");
    assert_eq!(old.column(0).take(cell, 2, LIMIT, LIMIT - 1).map(|hold| hold.amount), Ok(LIMIT - 1));
    assert!(new.column(0).take(cell, 2, LIMIT, 1).is_err());

    // Leases of one that died come back as the other looks.
    new.column(0).take(cell, 3, LIMIT, 1).expect("a new window");
    let dead = old.column(0).take(cell, 3, LIMIT, 1).expect("room");
    assert_eq!(new.given_out(cell).amount, 22);
    drop((old, old_seat));
    state.look(&new);
    assert_eq!(new.given_out(cell).amount, 12);
    let directory = Directory::enter(&state.0).expect("a directory");
    let estate = Estate::open(&directory).expect("files").expect("a bank");
    estate.settle(&[dead], &|_| 0);
    assert_eq!(new.given_out(cell).amount, 11);
}

#[test]
fn an_idle_lease_goes_back_and_one_that_is_used_stays() {
    let bank = Arc::new(Bank::in_memory(2).expect("memory"));
    let cell = bank.place("a", Kind::Rate, 0).expect("room");
    let [idle, busy] = [bank.column(0), bank.column(1)];
    idle.take(cell, 1, LIMIT, 1).expect("room");
    busy.take(cell, 1, LIMIT, 1).expect("room");
    assert_eq!(bank.given_out(cell).amount, 22);
    bank.sweep();
    busy.take(cell, 1, LIMIT, 1).expect("room");
    bank.sweep();
    assert_eq!(
        bank.given_out(cell).amount,
        12,
        "one lease of ten and three requests, one of them of that lease"
    );
    assert_eq!(idle.left(cell, 1, LIMIT), LIMIT - 3);
}

#[test]
fn what_was_spent_is_known_and_the_rest_goes_back() {
    let bank = Arc::new(Bank::in_memory(2).expect("memory"));
    let cell = bank.place("a", Kind::Budget, 0).expect("room");
    let [one, two] = [bank.column(0), bank.column(1)];
    one.settle(one.take(cell, 1, 63, 60).expect("room"), 20, 63);
    two.settle(two.take(cell, 1, 63, 40).expect("room"), 99, 63);
    assert_eq!(bank.spent(cell).amount, 60);
    assert_eq!(bank.given_out(cell).amount, 60);
    let (hold, over) = one.force(cell, 1, 63, 10);
    one.settle(hold, 10, 63);
    assert_eq!((over, bank.spent(cell).amount), (7, 70));
    two.settle(two.take(cell, 2, 63, 5).expect("a new window"), 5, 63);
    assert_eq!(bank.spent(cell).amount, 5);
}

#[test]
fn a_bank_that_is_full_says_so_and_a_file_that_is_none_is_not_overwritten() {
    let state = State::new("full");
    let (bank, seat) = state.start(1);
    let full = (0..).find_map(|at| bank.place(&format!("limit {at}"), Kind::Rate, 0).err());
    assert_eq!(full, Some(Full { capacity: 4096 }));
    drop((bank, seat));
    let (bank, seat) = state.start(1);
    assert!(bank.place("limit 0", Kind::Rate, 0).is_ok(), "what nobody used makes way");
    drop((bank, seat));
    let path = state.0.join("bank");
    for text in [&b"short"[..], &[7; 4096]] {
        std::fs::write(&path, text).expect("a file");
        let directory = Directory::enter(&state.0).expect("a directory");
        let seat = directory.sit().expect("a seat");
        let error = Bank::open(&directory, &seat, 1, 10).expect_err("not a bank").to_string();
        assert!(error.contains("move it away"), "{error}");
        assert_eq!(std::fs::read(&path).expect("still there"), text);
    }
}

#[test]
fn what_the_requests_of_a_killed_process_used_is_booked_and_survives_the_next_start() {
    let state = State::new("killed");
    let (bank, seat) = state.start(1);
    let tokens = bank.place("key:a/budget_tokens", Kind::Budget, 3).expect("room");
    let requests = bank.place("key:a/requests", Kind::Rate, 0).expect("room");
    let places = bank.place("key:a/concurrent", Kind::Gauge, 5).expect("room");
    let column = bank.column(0);
    column.settle(column.take(tokens, 3, LIMIT, 100).expect("room"), 60, LIMIT);
    let holds: Vec<Hold> = [(tokens, 2, 50), (tokens, 3, 200), (requests, 7, 1), (places, 0, 1)]
        .map(|(cell, tag, amount)| Hold { cell, tag, amount })
        .into();
    column.take(tokens, 3, LIMIT, 200).expect("room");
    column.take(requests, 7, LIMIT, 1).expect("room");
    drop((column, bank, seat));
    let directory = Directory::enter(&state.0).expect("a directory");
    let estate = Estate::open(&directory).expect("files").expect("a bank");
    // 120 tokens: 50 of the window before, 70 of this one.
    estate.settle(&holds, &|unit| if unit == 3 { 120 } else { u64::MAX });
    drop((estate, directory));
    for _ in 0..2 {
        let (bank, _seat) = state.start(1);
        let tokens = bank.place("key:a/budget_tokens", Kind::Budget, 3).expect("room");
        let requests = bank.place("key:a/requests", Kind::Rate, 0).expect("room");
        let places = bank.place("key:a/concurrent", Kind::Gauge, 5).expect("room");
        assert_eq!([tokens, requests, places].map(|cell| bank.given_out(cell).amount), [130, 1, 0]);
    }
}
