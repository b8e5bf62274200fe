//! One counter of a node and the leases that workers hold of it: who may take how much, without a shared write
//! on the common path.
//!
//! A cell has one word in the bank, `taken`: how much of this window has been given out, to requests or as
//! leases; and one word per worker, its lease: how much of what was given out nobody has used yet. A word is a
//! window's tag (16 bits) and an amount (48 bits), changed by compare-and-swap only, so the two never disagree.
//!
//! A worker takes from its own lease; nobody else writes there unless the bank has run out. Without enough
//! there it takes from the bank, and a lease of a 64th of the limit on top (`LEASE_PARTS`; a limit below 64 has
//! no leases and lives in the shared word alone). Where the bank has not enough either, the worker calls the
//! others' leases back, itself and at once: it takes them out of their words. Only what is then still too little
//! is refused. So a limit of n gives out n, never more, and refuses only where the node has no room. A worker
//! that moves a lease holds the cell's lock, so that two who look for the rest do not each see the half of it.
//!
//! Windows are fixed, not a bucket that fills drop by drop: "at most n in each window" is then exact, can be
//! told to the caller (`x-ratelimit-reset`), and a settled difference goes back to the window it came from. The
//! price is the one of a bucket with n in it: twice n around an edge. A window only goes forward: a clock that
//! jumps back refills nothing. What was given out in a window that has passed is forgotten with it.
//!
//! Generic over the word, so that loom runs this very code (`tests/long/lease`). Limits: amounts below 2^48;
//! tags are compared as serial numbers, so windows further apart than 2^15 look as if time had gone back.

use std::hint;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::thread;
use std::time::Duration;

/// Largest amount of a cell.
pub const AMOUNT_MAX: u64 = (1 << 48) - 1;

/// A lease is this part of the limit; limits below it have none.
pub const LEASE_PARTS: u64 = 64;

/// An atomic word.
pub trait Word {
    fn load(&self) -> u64;
    /// Replaces `old` by `new`; or gives what stands there.
    fn replace(&self, old: u64, new: u64) -> Result<(), u64>;
    /// Lets others run while a lock is waited for; `turn` counts from 0.
    fn pause(turn: u32);
}

impl Word for AtomicU64 {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Acquire)
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(old, new, AcqRel, Acquire).map(drop)
    }

    fn pause(turn: u32) {
        // The holder may be a thread that the system has put aside on this very core.
        if turn < SPINS { hint::spin_loop() } else { thread::sleep(PAUSE) }
    }
}

/// The leases of a cell.
pub trait Leases<W> {
    /// Hands the lease word of every worker of the node to `each`.
    fn each(&self, each: &mut dyn FnMut(&W));
}

/// A window's tag and an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub tag: u16,
    pub amount: u64,
}

impl Tally {
    /// What a word holds.
    pub fn of(word: u64) -> Tally {
        Tally { tag: (word >> 48) as u16, amount: word & AMOUNT_MAX }
    }

    /// The word.
    pub fn word(self) -> u64 {
        u64::from(self.tag) << 48 | self.amount.min(AMOUNT_MAX)
    }
}

/// Whether the window of `tag` is later than the one of `than`.
pub fn is_later(tag: u16, than: u16) -> bool {
    let ahead = tag.wrapping_sub(than);
    ahead != 0 && ahead < 1 << 15
}

/// A limit's amount could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// What is left for a smaller one.
    pub left: u64,
}

/// A cell as one worker sees it.
pub struct Cell<'c, W, L> {
    /// What of the window has been given out, leases included.
    pub taken: &'c W,
    /// 1 while a worker moves leases.
    pub lock: &'c W,
    /// The worker's own lease.
    pub own: &'c W,
    /// How much a lease holds, of this limit; 0: there are none.
    pub lease: u64,
    /// Those of every worker, its own among them or not.
    pub leases: L,
}

impl<W: Word, L: Leases<W>> Cell<'_, W, L> {
    /// Takes `amount` of `limit` in the window of `tag`, or in the bank's where that is later. Returns the tag
    /// of the window that it was taken of.
    pub fn take(&self, tag: u16, limit: u64, amount: u64) -> Result<u16, NoRoom> {
        if self.take_of_lease(tag, amount) { Ok(tag) } else { self.take_of_bank(tag, limit, amount) }
    }

    /// Takes `amount` of the own lease, where it is of the window of `tag` and has enough.
    pub fn take_of_lease(&self, tag: u16, amount: u64) -> bool {
        let mut own = self.own.load();
        loop {
            let lease = Tally::of(own);
            if lease.tag != tag || lease.amount < amount {
                return false;
            }
            let less = Tally { amount: lease.amount - amount, ..lease };
            match self.own.replace(own, less.word()) {
                Ok(()) => return true,
                Err(now) => own = now,
            }
        }
    }

    /// Takes `amount` whether there is room or not. Returns the tag of the window that it was taken of, and how
    /// much of it was beyond `limit`.
    pub fn force(&self, tag: u16, limit: u64, amount: u64) -> (u16, u64) {
        if let Ok(tag) = self.take(tag, limit, amount) {
            return (tag, 0);
        }
        let (tag, before) = self.change(tag, |taken| Some(taken.saturating_add(amount)));
        (tag, before.saturating_add(amount).saturating_sub(limit).min(amount))
    }

    /// Gives back what was taken of the window of `tag`. Where that has passed it is of no use any more.
    pub fn give(&self, tag: u16, amount: u64) {
        if amount == 0 {
            return;
        }
        let mut own = self.own.load();
        loop {
            let lease = Tally::of(own);
            let keeps = lease.tag == tag && lease.amount + amount <= 2 * self.lease;
            if !keeps {
                break;
            }
            let more = Tally { amount: lease.amount + amount, ..lease };
            match self.own.replace(own, more.word()) {
                Ok(()) => return,
                Err(now) => own = now,
            }
        }
        self.return_to_bank(tag, amount);
    }

    /// Gives the lease in `lease` back to the bank, whoever held it.
    pub fn call_back(&self, lease: &W) {
        let _locked = Locked::new(self.lock);
        let got = empty(lease);
        self.return_to_bank(got.tag, got.amount);
    }

    /// As `take`, where the own lease has not enough.
    pub fn take_of_bank(&self, tag: u16, limit: u64, amount: u64) -> Result<u16, NoRoom> {
        if self.lease == 0 {
            let (tag, before) =
                self.change(tag, |taken| taken.checked_add(amount).filter(|sum| *sum <= limit));
            // What was leased while the limit was a larger one is called back below.
            if before.saturating_add(amount) <= limit {
                return Ok(tag);
            }
        }
        let _locked = Locked::new(self.lock);
        self.take_locked(tag, limit, amount)
    }

    /// As `take`, by the holder of the lock: no lease moves but by our hand.
    fn take_locked(&self, tag: u16, limit: u64, amount: u64) -> Result<u16, NoRoom> {
        // The own lease is part of what there is; what is left of it goes back in the end.
        let (tag, _) = self.change(tag, Some);
        let mut have = self.collect(self.own, tag);
        while have < amount {
            let need = amount - have;
            let mut more = 0;
            self.change(tag, |taken| {
                let room = limit.saturating_sub(taken);
                more = if room >= need { need + self.lease.min(room - need) } else { 0 };
                Some(taken + more)
            });
            have += more;
            if more > 0 {
                break;
            }
            // Not enough there: the leases of others go back to the bank. Those who hold them may take from
            // them and give back meanwhile; where nothing more comes, there is no room.
            let mut called = self.collect(self.own, tag);
            self.leases.each(&mut |other| called += self.collect(other, tag));
            self.return_to_bank(tag, called);
            if called == 0 {
                let left = have.saturating_add(limit.saturating_sub(Tally::of(self.taken.load()).amount));
                self.return_to_bank(tag, have);
                return Err(NoRoom { left });
            }
        }
        self.deposit(tag, have - amount);
        Ok(tag)
    }

    /// Empties a lease and says how much of the window of `tag` it held.
    fn collect(&self, lease: &W, tag: u16) -> u64 {
        let got = empty(lease);
        if got.tag == tag { got.amount } else { 0 }
    }

    fn deposit(&self, tag: u16, amount: u64) {
        let mut own = self.own.load();
        loop {
            let lease = Tally::of(own);
            let more = match lease.tag == tag {
                true => lease.amount + amount,
                false => amount,
            };
            match self.own.replace(own, Tally { tag, amount: more }.word()) {
                Ok(()) => return,
                Err(now) => own = now,
            }
        }
    }

    fn return_to_bank(&self, tag: u16, amount: u64) {
        if amount == 0 {
            return;
        }
        let mut word = self.taken.load();
        loop {
            let now = Tally::of(word);
            if now.tag != tag {
                return;
            }
            let less = Tally { amount: now.amount.saturating_sub(amount), ..now };
            match self.taken.replace(word, less.word()) {
                Ok(()) => return,
                Err(other) => word = other,
            }
        }
    }

    /// Changes what is taken in the window of `tag`, which begins where the bank's is an earlier one. Returns
    /// the bank's window and what was taken before; nothing is changed where `to` gives none.
    fn change(&self, tag: u16, mut to: impl FnMut(u64) -> Option<u64>) -> (u16, u64) {
        let mut word = self.taken.load();
        loop {
            let found = Tally::of(word);
            let now = if is_later(tag, found.tag) { Tally { tag, amount: 0 } } else { found };
            let Some(amount) = to(now.amount) else { return (now.tag, now.amount) };
            let new = Tally { amount, ..now }.word();
            if new == word {
                return (now.tag, now.amount);
            }
            match self.taken.replace(word, new) {
                Ok(()) => return (now.tag, now.amount),
                Err(other) => word = other,
            }
        }
    }
}

/// Empties a lease; the window stays.
fn empty<W: Word>(lease: &W) -> Tally {
    let mut word = lease.load();
    loop {
        let held = Tally::of(word);
        if held.amount == 0 {
            return held;
        }
        match lease.replace(word, Tally { amount: 0, ..held }.word()) {
            Ok(()) => return held,
            Err(now) => word = now,
        }
    }
}

/// The lock of a cell, held. It is waited for `TURNS_MAX` times at most: the holder may be a process that was
/// killed, whose lock is taken over then.
struct Locked<'l, W: Word>(&'l W);

/// Turns that cost nothing but time, some microseconds: a holder has some hundred nanoseconds of work.
const SPINS: u32 = 100;
/// As the system rounds it up, 60 to 100 us.
const PAUSE: Duration = Duration::from_micros(1);
/// All in all some 2 ms.
const TURNS_MAX: u32 = SPINS + 25;

impl<'l, W: Word> Locked<'l, W> {
    fn new(lock: &'l W) -> Locked<'l, W> {
        let mut turn = 0;
        while lock.replace(0, 1).is_err() && turn < TURNS_MAX {
            W::pause(turn);
            turn += 1;
        }
        Locked(lock)
    }
}

impl<W: Word> Drop for Locked<'_, W> {
    fn drop(&mut self) {
        // Fails where another one took it over: then it is theirs to give up, or given up already.
        let _ = self.0.replace(1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{AMOUNT_MAX, Cell, LEASE_PARTS, Leases, NoRoom, Tally, is_later};
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    /// A cell and its workers.
    struct Node {
        taken: AtomicU64,
        lock: AtomicU64,
        leases: Vec<AtomicU64>,
    }

    impl Leases<AtomicU64> for &Node {
        fn each(&self, each: &mut dyn FnMut(&AtomicU64)) {
            self.leases.iter().for_each(each);
        }
    }

    impl Node {
        fn new(workers: usize) -> Node {
            let leases = (0..workers).map(|_| AtomicU64::new(0)).collect();
            Node { taken: AtomicU64::new(0), lock: AtomicU64::new(0), leases }
        }

        fn at(&self, worker: usize, limit: u64) -> Cell<'_, AtomicU64, &Node> {
            Cell {
                taken: &self.taken,
                lock: &self.lock,
                own: &self.leases[worker],
                lease: limit / LEASE_PARTS,
                leases: self,
            }
        }

        fn take(&self, worker: usize, tag: u16, limit: u64, amount: u64) -> Result<u16, NoRoom> {
            self.at(worker, limit).take(tag, limit, amount)
        }

        fn force(&self, worker: usize, tag: u16, limit: u64, amount: u64) -> u64 {
            self.at(worker, limit).force(tag, limit, amount).1
        }

        fn give(&self, worker: usize, tag: u16, limit: u64, amount: u64) {
            self.at(worker, limit).give(tag, amount);
        }

        fn leased(&self) -> u64 {
            self.leases.iter().map(|lease| Tally::of(lease.load(Relaxed)).amount).sum()
        }
    }

    #[test]
    fn a_limit_of_n_gives_out_n_wherever_its_requests_come() {
        for limit in [1, 3, 10, 63, 64, 65, 600, 10_000] {
            for workers in [1, 2, 8] {
                // all on one worker, one after another, in lots
                for step in [0, 1, 7] {
                    let node = Node::new(workers);
                    let given = (0..2 * limit as usize)
                        .filter(|at| node.take(at / 5 * step % workers, 1, limit, 1).is_ok())
                        .count();
                    assert_eq!(given as u64, limit, "{limit} on {workers} workers, step {step}");
                    assert_eq!(node.leased(), 0);
                }
            }
        }
    }

    #[test]
    fn what_lies_in_leases_of_others_is_called_back_before_anyone_is_refused() {
        let node = Node::new(4);
        for worker in 0..4 {
            node.take(worker, 1, 640, 1).expect("room");
        }
        assert_eq!(node.leased(), 40);
        // The bank alone has 596.
        assert_eq!(node.take(2, 1, 640, 630), Ok(1));
        assert_eq!(node.take(0, 1, 640, 7), Err(NoRoom { left: 6 }));
        assert_eq!(node.take(0, 1, 640, 6), Ok(1));
        assert_eq!(node.take(3, 1, 640, 1), Err(NoRoom { left: 0 }));
    }

    #[test]
    fn what_is_given_back_can_be_taken_by_every_worker() {
        for limit in [2, 100, 6_400] {
            let node = Node::new(2);
            node.take(0, 1, limit, limit).expect("room");
            node.give(0, 1, limit, limit / 2);
            node.take(1, 1, limit, limit / 2).expect("given back");
            assert!(node.take(1, 1, limit, 1).is_err());
        }
    }

    #[test]
    fn a_window_begins_full_and_a_clock_that_goes_back_refills_nothing() {
        let node = Node::new(2);
        node.take(0, 7, 100, 100).expect("room");
        assert!(node.take(1, 7, 100, 1).is_err());
        assert_eq!(node.take(1, 8, 100, 60), Ok(8));
        // Worker 0 still reads the old window: it takes of the new one.
        assert_eq!(node.take(0, 7, 100, 40), Ok(8));
        assert!(node.take(0, 7, 100, 1).is_err());
        assert!(node.take(0, 6, 100, 1).is_err());
        // What came of the old window is of no use in the new one.
        node.give(0, 7, 100, 100);
        assert!(node.take(1, 8, 100, 1).is_err());
    }

    #[test]
    fn a_lease_of_a_window_that_has_passed_is_worth_nothing() {
        let node = Node::new(2);
        node.take(0, 1, 6_400, 1).expect("room");
        assert_eq!(node.take(1, 2, 6_400, 6_400), Ok(2));
        assert!(node.take(0, 2, 6_400, 1).is_err());
    }

    #[test]
    fn what_is_forced_is_counted_and_said_where_it_was_too_much() {
        let node = Node::new(2);
        node.take(0, 1, 100, 90).expect("room");
        assert_eq!(node.force(1, 1, 100, 10), 0);
        assert_eq!(node.force(1, 1, 100, 30), 30);
        assert!(node.take(0, 1, 100, 1).is_err());
        node.give(1, 1, 100, 30);
        assert!(node.take(0, 1, 100, 1).is_err());
        assert_eq!(node.take(0, 1, 101, 1), Ok(1));
    }

    #[test]
    fn tags_go_forward_over_their_end_and_amounts_stay_below_theirs() {
        assert!(is_later(1, 0) && is_later(0, u16::MAX) && is_later(0x7fff, 0));
        assert!(!is_later(0, 1) && !is_later(5, 5) && !is_later(0x8000, 0));
        let most = Tally { tag: 9, amount: u64::MAX };
        assert_eq!(Tally::of(most.word()), Tally { tag: 9, amount: AMOUNT_MAX });
        assert_eq!(LEASE_PARTS, 64);
    }

    #[test]
    fn threads_that_take_and_give_at_once_never_have_more_than_the_limit_and_leave_nothing_behind() {
        for limit in [5, 640] {
            let node = Node::new(4);
            let held = AtomicU64::new(0);
            let (node, held) = (&node, &held);
            std::thread::scope(|scope| {
                for worker in 0..4 {
                    scope.spawn(move || {
                        for turn in 0..20_000_u64 {
                            let amount = 1 + (turn * 7 + worker as u64) % 3;
                            if node.take(worker, 1, limit, amount).is_ok() {
                                let now = held.fetch_add(amount, Relaxed) + amount;
                                assert!(now <= limit, "{now} of {limit}");
                                held.fetch_sub(amount, Relaxed);
                                node.give(worker, 1, limit, amount);
                            }
                        }
                    });
                }
            });
            for worker in 0..4 {
                node.at(0, limit).call_back(&node.leases[worker]);
            }
            assert_eq!(Tally::of(node.taken.load(Relaxed)).amount, 0);
        }
    }
}
