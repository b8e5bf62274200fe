//! The bank of a node: how much of every limit has been given out, shared by its workers and processes.
//!
//! Shape: control finds a `place` for each limit's name; a worker has a `Column` of the bank, in which it takes,
//! gives back and books what was spent (`cell` has the rules). In memory alone, or in files of a state directory:
//! `bank` holds the cells, `leases-N` the columns of the process in seat N. Those outlive the process, so a
//! restart refills nothing, and two processes share them while the older one drains.
//!
//! What was given out and not spent is lost with a process that dies; the next one that finds itself alone
//! (`store::rebuild`) counts anew from what was spent. While others live, a dead process's leases go back to the
//! bank and what its requests held is settled by the ledger's recovery.
//! Limits: places are given out for good until the next lonely start; `Full` tells when none is left. Errors: of
//! files. Power failure: the files are as the kernel wrote them last, up to half a minute old.

pub mod cell;
mod store;

pub use store::Estate;

use crate::base::counter::Counter;
use crate::base::words::Words;
use crate::usage::seat::{Directory, SEATS, Seat};
use arc_swap::ArcSwap;
use cell::{AMOUNT_MAX, Cell, LEASE_PARTS, Leases, NoRoom, Tally, Word, is_later};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use store::{BASE, CELL_WORDS, HEADER_WORDS, KIND, LEASE, LOCK, NAME, SPENT, TAKEN, USED};

/// What a request has taken of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hold {
    pub cell: u32,
    pub tag: u16,
    pub amount: u64,
}

/// What becomes of a cell's amount as time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something that is given back in the end, as a place among concurrent requests: nothing of it outlives its
    /// processes.
    Gauge,
    /// So much in each minute of the node's boot clock.
    Rate,
    /// So much in each window of a calendar.
    Budget,
}

/// No place is left for another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    pub capacity: usize,
}

/// The bank as one process has it.
#[derive(Debug)]
pub struct Bank {
    cells: Words,
    capacity: usize,
    /// This process's leases, by worker.
    mine: Arc<Words>,
    workers: usize,
    /// The leases of every process that is known here, this one first.
    columns: ArcSwap<Vec<Arc<Words>>>,
    /// Others may not know our leases yet: then we have none.
    may_lease: AtomicBool,
    names: Mutex<HashMap<[u64; 2], u32>>,
    files: Option<Files>,
    sweep: Mutex<Sweep>,
    /// Places that stand in `names`.
    known: AtomicUsize,
    /// By worker.
    takes: Box<[Takes]>,
}

/// Where a worker found what it took. On cache lines of its own: one thread writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Takes {
    lease: Counter,
    bank: Counter,
    shared: Counter,
}

/// Where workers found what they took, or looked last where there was no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenFrom {
    /// The worker's own lease had it.
    pub lease: u64,
    /// The lease had not enough.
    pub bank: u64,
    /// The limit is too small for leases.
    pub shared: u64,
}

#[derive(Debug)]
struct Files {
    directory: PathBuf,
    seat: usize,
    epoch: u64,
    /// Seats whose leases are among `columns`.
    others: Mutex<[Option<Arc<Words>>; SEATS]>,
}

/// What control saw of leases as it looked last.
#[derive(Debug, Default)]
struct Sweep {
    seen: Vec<u64>,
    at: usize,
}

impl Bank {
    /// A bank that ends with this process.
    pub fn in_memory(workers: usize) -> io::Result<Bank> {
        let capacity = MEMORY_CAPACITY;
        let cells = Words::anonymous(HEADER_WORDS + capacity * CELL_WORDS)?;
        let mine = Arc::new(Words::anonymous(store::column_words(workers, capacity))?);
        Ok(Bank::of(cells, capacity, mine, workers, None))
    }

    /// The bank of a state directory, with room for `needed` places and as many again. A process that is alone
    /// there makes it anew from what was spent.
    pub fn open(directory: &Directory, seat: &Seat, workers: usize, needed: usize) -> io::Result<Bank> {
        let store::Opened { cells, capacity, mine, epoch, is_alone } =
            store::open(directory, seat, workers, needed)?;
        let files = Files {
            directory: directory.path().to_owned(),
            seat: seat.index,
            epoch,
            others: Mutex::default(),
        };
        let bank = Bank::of(cells, capacity, Arc::new(mine), workers, Some(files));
        bank.may_lease.store(is_alone, Relaxed);
        bank.look_for_others(directory)?;
        Ok(bank)
    }

    fn of(cells: Words, capacity: usize, mine: Arc<Words>, workers: usize, files: Option<Files>) -> Bank {
        Bank {
            cells,
            capacity,
            columns: ArcSwap::from_pointee(vec![Arc::clone(&mine)]),
            mine,
            workers,
            may_lease: AtomicBool::new(true),
            names: Mutex::default(),
            files,
            sweep: Mutex::default(),
            known: AtomicUsize::new(0),
            takes: (0..workers.max(1)).map(|_| Takes::default()).collect(),
        }
    }

    /// The place of the limit of this name, the same for as long as the bank lives. `unit` says what it counts, to
    /// whoever settles for the dead. Control alone asks.
    pub fn place(&self, name: &str, kind: Kind, unit: u8) -> Result<u32, Full> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        self.learn(&mut names);
        let hash = store::hash(name);
        if let Some(&place) = names.get(&hash) {
            return Ok(place);
        }
        let at = names.len();
        if at >= self.capacity {
            return Err(Full { capacity: self.capacity });
        }
        let cell = self.cell_words(at);
        cell[NAME].store(hash[0], Relaxed);
        cell[NAME + 1].store(hash[1], Relaxed);
        cell[KIND].store(store::kind_word(kind, unit), Relaxed);
        self.cells[USED].store(at as u64 + 1, Release);
        names.insert(hash, at as u32);
        self.known.store(at + 1, Relaxed);
        Ok(at as u32)
    }

    /// Takes in the places that other processes gave out.
    fn learn(&self, names: &mut HashMap<[u64; 2], u32>) {
        let used = (self.cells[USED].load(Acquire) as usize).min(self.capacity);
        for at in names.len()..used {
            let cell = self.cell_words(at);
            names.insert([cell[NAME].load(Relaxed), cell[NAME + 1].load(Relaxed)], at as u32);
        }
        self.known.store(used, Relaxed);
    }

    /// The column of a worker of this process. One thread alone takes and spends in it.
    pub fn column(self: &Arc<Bank>, worker: usize) -> Column {
        Column { bank: Arc::clone(self), worker: worker.min(self.workers.saturating_sub(1)) }
    }

    /// What of a cell's window has been given out, with its window. Leases and open requests count as given out.
    pub fn given_out(&self, cell: u32) -> Tally {
        Tally::of(self.cell_words(cell as usize)[TAKEN].load(Acquire))
    }

    /// What of a cell's window requests hold or have spent: what has been given out, without leases.
    pub fn in_use(&self, cell: u32) -> Tally {
        let Tally { tag, mut amount } = self.given_out(cell);
        self.each_column(cell, |words| {
            let lease = Tally::of(words[LEASE].load(Acquire));
            amount = amount.saturating_sub(if lease.tag == tag { lease.amount } else { 0 });
        });
        Tally { tag, amount }
    }

    /// What of a cell's window has been spent for good, with the window that is given out of now.
    pub fn spent(&self, cell: u32) -> Tally {
        let tag = self.given_out(cell).tag;
        let base = Tally::of(self.cell_words(cell as usize)[BASE].load(Acquire));
        let mut amount = if base.tag == tag { base.amount } else { 0 };
        self.each_column(cell, |words| {
            let spent = Tally::of(words[SPENT].load(Acquire));
            amount += if spent.tag == tag { spent.amount } else { 0 };
        });
        Tally { tag, amount }
    }

    /// Where all workers of this process found what they took.
    pub fn taken_from(&self) -> TakenFrom {
        let sum = |read: fn(&Takes) -> &Counter| self.takes.iter().map(|takes| read(takes).value()).sum();
        TakenFrom { lease: sum(|t| &t.lease), bank: sum(|t| &t.bank), shared: sum(|t| &t.shared) }
    }

    /// Gives leases back that nobody has used since the last time it looked there. Control calls it each second;
    /// a sixteenth of the cells is looked at.
    pub fn sweep(&self) {
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let used = self.known.load(Relaxed);
        sweep.seen.resize(used * self.workers, 0);
        let from = if sweep.at >= used { 0 } else { sweep.at };
        let to = used.min(from + used / 16 + 1);
        for at in from..to {
            for worker in 0..self.workers {
                let lease = &self.mine[store::column_at(worker, self.capacity, at) + LEASE];
                let (now, seen) = (lease.load(Acquire), &mut sweep.seen[at * self.workers + worker]);
                if now == *seen && Tally::of(now).amount > 0 {
                    self.cell(at as u32, worker, 0).call_back(lease);
                }
                *seen = lease.load(Acquire);
            }
        }
        sweep.at = to;
    }

    /// Gives all leases of this process back.
    pub fn call_leases_back(&self) {
        for at in 0..self.known.load(Relaxed) {
            for worker in 0..self.workers {
                let lease = &self.mine[store::column_at(worker, self.capacity, at) + LEASE];
                if Tally::of(lease.load(Acquire)).amount > 0 {
                    self.cell(at as u32, worker, 0).call_back(lease);
                }
            }
        }
    }

    /// Maps the leases of processes that came, and gives those back of processes that died. Control calls it each
    /// second. Whoever has just come has no leases before every other has looked.
    pub fn look_for_others(&self, directory: &Directory) -> io::Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        let mut others = files.others.lock().unwrap_or_else(PoisonError::into_inner);
        let mut have_changed = false;
        for (seat, other) in others.iter_mut().enumerate().filter(|(seat, _)| *seat != files.seat) {
            let is_alive = directory.is_taken(seat)?;
            if is_alive && other.is_none() {
                *other = store::leases_of(&files.directory, seat, files.epoch, self.capacity)?.map(Arc::new);
                have_changed |= other.is_some();
            }
            if let (false, Some(leases)) = (is_alive, &*other) {
                self.take_leases_of_dead(leases);
            }
        }
        if have_changed {
            let known = others.iter().flatten().cloned();
            self.columns.store(Arc::new(std::iter::once(Arc::clone(&self.mine)).chain(known).collect()));
        }
        Ok(())
    }

    /// Says that the others of the directory have had the time to look.
    pub fn begin_to_lease(&self) {
        self.may_lease.store(true, Relaxed);
    }

    fn take_leases_of_dead(&self, leases: &Words) {
        for at in 0..self.known.load(Relaxed) {
            for worker in 0..store::workers_of(leases, self.capacity) {
                let lease = &leases[store::column_at(worker, self.capacity, at) + LEASE];
                if Tally::of(lease.load(Acquire)).amount > 0 {
                    self.cell(at as u32, 0, 0).call_back(lease);
                }
            }
        }
    }

    fn cell_words(&self, at: usize) -> &[AtomicU64] {
        let from = HEADER_WORDS + at.min(self.capacity - 1) * CELL_WORDS;
        &self.cells[from..from + CELL_WORDS]
    }

    fn cell(&self, cell: u32, worker: usize, limit: u64) -> Cell<'_, AtomicU64, Everyones<'_>> {
        let words = self.cell_words(cell as usize);
        Cell {
            taken: &words[TAKEN],
            lock: &words[LOCK],
            own: &self.mine[store::column_at(worker, self.capacity, cell as usize) + LEASE],
            lease: if self.may_lease.load(Relaxed) { limit / LEASE_PARTS } else { 0 },
            leases: Everyones { bank: self, cell },
        }
    }

    /// The words of a cell in every column that is known.
    fn each_column(&self, cell: u32, mut each: impl FnMut(&[AtomicU64])) {
        for words in self.columns.load().iter() {
            for worker in 0..store::workers_of(words, self.capacity) {
                let at = store::column_at(worker, self.capacity, cell as usize);
                each(&words[at..at + 2]);
            }
        }
    }
}

/// The leases of one cell in all columns.
struct Everyones<'b> {
    bank: &'b Bank,
    cell: u32,
}

impl Leases<AtomicU64> for Everyones<'_> {
    fn each(&self, each: &mut dyn FnMut(&AtomicU64)) {
        self.bank.each_column(self.cell, |words| each(&words[LEASE]));
    }
}

/// The bank as one worker has it.
#[derive(Debug)]
pub struct Column {
    bank: Arc<Bank>,
    worker: usize,
}

impl Column {
    /// Takes `amount` of a limit of `limit` in the window of `tag`. What is taken has to be settled.
    pub fn take(&self, cell: u32, tag: u16, limit: u64, amount: u64) -> Result<Hold, NoRoom> {
        let limit = limit.min(AMOUNT_MAX);
        if amount > limit {
            return Err(NoRoom { left: limit.saturating_sub(self.bank.given_out(cell).amount) });
        }
        let found = self.bank.cell(cell, self.worker, limit);
        let takes = &self.bank.takes[self.worker];
        let tag = if found.take_of_lease(tag, amount) {
            takes.lease.add(1);
            tag
        } else {
            let counter = if limit < LEASE_PARTS { &takes.shared } else { &takes.bank };
            counter.add(1);
            found.take_of_bank(tag, limit, amount)?
        };
        Ok(Hold { cell, tag, amount })
    }

    /// Takes `amount` whether there is room or not; returns how much of it was beyond `limit`, too.
    pub fn force(&self, cell: u32, tag: u16, limit: u64, amount: u64) -> (Hold, u64) {
        let (limit, amount) = (limit.min(AMOUNT_MAX), amount.min(AMOUNT_MAX));
        let (tag, over) = self.bank.cell(cell, self.worker, limit).force(tag, limit, amount);
        (Hold { cell, tag, amount }, over)
    }

    /// Gives back all that was taken: nothing of it was used.
    pub fn give(&self, hold: Hold, limit: u64) {
        self.bank.cell(hold.cell, self.worker, limit).give(hold.tag, hold.amount);
    }

    /// Books `spent` of what was taken, at most all of it, and gives the rest back.
    pub fn settle(&self, hold: Hold, spent: u64, limit: u64) {
        let spent = spent.min(hold.amount);
        // First what was spent: whoever is killed in between has booked too much and never too little.
        self.spend(hold, spent);
        self.give(Hold { amount: hold.amount - spent, ..hold }, limit);
    }

    /// What of a cell's window has been given out.
    pub fn given_out(&self, cell: u32) -> Tally {
        self.bank.given_out(cell)
    }

    /// What is left of a limit in the window of `tag`, for all workers. Of many of them the leases are not looked up:
    /// then it is what this worker can have at once.
    pub fn left(&self, cell: u32, tag: u16, limit: u64) -> u64 {
        let bank = self.bank.given_out(cell);
        if is_later(tag, bank.tag) {
            return limit;
        }
        if self.bank.workers <= LEFT_WORKERS_MAX {
            return limit.saturating_sub(self.bank.in_use(cell).amount);
        }
        let own = &self.bank.mine[store::column_at(self.worker, self.bank.capacity, cell as usize) + LEASE];
        let own = Tally::of(own.load(Relaxed));
        limit.saturating_sub(bank.amount) + if own.tag == bank.tag { own.amount } else { 0 }
    }

    fn spend(&self, hold: Hold, amount: u64) {
        let place = store::column_at(self.worker, self.bank.capacity, hold.cell as usize) + SPENT;
        let word = &self.bank.mine[place];
        let spent = Tally::of(Word::load(word));
        if amount == 0 || is_later(spent.tag, hold.tag) {
            return;
        }
        let before = if spent.tag == hold.tag { spent.amount } else { 0 };
        word.store(Tally { tag: hold.tag, amount: before + amount }.word(), Release);
    }
}

/// Workers whose leases are counted for each answer that tells what is left.
const LEFT_WORKERS_MAX: usize = 16;

/// Places in a bank without files. What is not used takes no memory.
const MEMORY_CAPACITY: usize = 1 << 22;

impl Kind {
    fn of(word: u64) -> Kind {
        match word & 0xff {
            0 => Kind::Gauge,
            1 => Kind::Rate,
            _ => Kind::Budget,
        }
    }
}

#[cfg(test)]
mod tests;
