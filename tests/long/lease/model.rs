//! Every interleaving of small dialogues with one cell, on the gateway's own code of it (loom).
//!
//! Workers take, give back and look for the rest at once; in each order that the memory model allows nobody has
//! more than the limit together, one who is refused was refused for lack of room, and nothing is lost. Two or
//! three workers with a few steps each: loom's state space is all that bounds them.

#![cfg(test)]

#[allow(dead_code)]
#[path = "../../../src/usage/bank/cell.rs"]
mod cell;

use cell::{Cell, Leases, NoRoom, Tally, Word};
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{AcqRel, Acquire};
use loom::thread;

struct Shared(AtomicU64);

impl Word for Shared {
    fn load(&self) -> u64 {
        self.0.load(Acquire)
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.compare_exchange(old, new, AcqRel, Acquire).map(drop)
    }

    fn pause(_turn: u32) {
        thread::yield_now();
    }
}

struct Node {
    taken: Shared,
    lock: Shared,
    leases: Vec<Shared>,
    lease: u64,
}

impl Leases<Shared> for &Node {
    fn each(&self, each: &mut dyn FnMut(&Shared)) {
        self.leases.iter().for_each(each);
    }
}

impl Node {
    fn new(workers: usize, lease: u64) -> Arc<Node> {
        let word = || Shared(AtomicU64::new(0));
        Arc::new(Node { taken: word(), lock: word(), leases: (0..workers).map(|_| word()).collect(), lease })
    }

    fn at(&self, worker: usize) -> Cell<'_, Shared, &Node> {
        Cell {
            taken: &self.taken,
            lock: &self.lock,
            own: &self.leases[worker],
            lease: self.lease,
            leases: self,
        }
    }

    fn take(&self, worker: usize, limit: u64, amount: u64) -> Result<u16, NoRoom> {
        self.at(worker).take(1, limit, amount)
    }

    /// What is given out and not in a lease.
    fn held(&self) -> u64 {
        let leased: u64 = self.leases.iter().map(|lease| Tally::of(lease.load()).amount).sum();
        Tally::of(self.taken.load()).amount - leased
    }
}

/// Runs each worker's part at once in every order, then asks `end` with what each returned.
fn all_orders(
    workers: usize,
    lease: u64,
    before: fn(&Node),
    part: fn(&Node, usize) -> u64,
    end: fn(&Node, &[u64]),
) {
    loom::model(move || {
        let node = Node::new(workers, lease);
        before(&node);
        let others: Vec<_> = (1..workers)
            .map(|worker| {
                let node = Arc::clone(&node);
                thread::spawn(move || part(&node, worker))
            })
            .collect();
        let mut got = vec![part(&node, 0)];
        got.extend(others.into_iter().map(|other| other.join().expect("a worker")));
        end(&node, &got);
    });
}

#[test]
fn two_that_ask_for_the_last_ones_get_them_all_and_no_more() {
    for lease in [0, 1, 2] {
        all_orders(
            2,
            lease,
            |_| {},
            |node, worker| (0..2).map(|_| u64::from(node.take(worker, 3, 1).is_ok())).sum(),
            |node, got| {
                assert_eq!(got.iter().sum::<u64>(), 3);
                assert_eq!(node.held(), 3);
            },
        );
    }
}

#[test]
fn of_two_that_each_want_all_one_gets_it() {
    for lease in [0, 1] {
        all_orders(
            2,
            lease,
            |node| {
                // Half of the room lies in the leases of both.
                if node.lease > 0 {
                    node.at(0).take(1, 4, 1).expect("room");
                    node.at(1).take(1, 4, 1).expect("room");
                }
            },
            |node, worker| {
                let all = if node.lease > 0 { 2 } else { 4 };
                u64::from(node.take(worker, 4, all).is_ok())
            },
            |node, got| {
                assert_eq!(got.iter().sum::<u64>(), 1);
                assert_eq!(node.held(), 4);
            },
        );
    }
}

#[test]
fn what_is_given_back_meanwhile_is_not_lost() {
    for lease in [0, 2] {
        all_orders(
            2,
            lease,
            |node| {
                node.take(1, 2, 2).expect("room");
            },
            |node, worker| match worker {
                0 => u64::from(node.take(0, 2, 1).is_ok()),
                _ => {
                    node.at(1).give(1, 2);
                    0
                }
            },
            |node, got| {
                assert_eq!(node.held(), got[0]);
                assert!(node.take(0, 2, 2 - got[0]).is_ok());
            },
        );
    }
}

#[test]
fn a_window_that_begins_while_another_takes_of_the_old_one_begins_full_once() {
    all_orders(
        2,
        1,
        |node| {
            node.take(0, 3, 3).expect("room");
        },
        |node, worker| {
            let tag = if worker == 0 { 2 } else { 1 };
            (0..2).map(|_| u64::from(node.at(worker).take(tag, 3, 1).is_ok())).sum()
        },
        |node, got| {
            // The one whose clock is behind takes of the new window once it has begun, and of nothing before.
            let sum: u64 = got.iter().sum();
            assert!(sum <= 3 && got[0] >= 1, "{got:?}");
            assert_eq!(Tally::of(node.taken.load()).tag, 2);
            assert_eq!(node.held(), sum);
        },
    );
}

#[test]
fn a_lease_that_is_called_back_while_its_holder_takes_of_it_goes_to_one_of_the_two() {
    all_orders(
        2,
        2,
        |node| {
            node.take(1, 3, 1).expect("room");
        },
        |node, worker| match worker {
            0 => {
                node.at(0).call_back(&node.leases[1]);
                0
            }
            _ => u64::from(node.take(1, 3, 2).is_ok()),
        },
        |node, got| {
            assert_eq!(got[1], 1);
            assert_eq!(node.held(), 3);
        },
    );
}
