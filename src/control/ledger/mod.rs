//! The ledger's thread: makes records durable, rolls them up, tidies up, answers workers.
//!
//! Shape: every `commit_interval` what is final becomes durable; every `ROLL_EVERY` it is rolled up; every
//! `TIDY_EVERY` seats of processes that have died meanwhile are recovered; every `PRUNE_EVERY` retention is kept.
//! Nobody waits for the thread but who asks it. Errors: a write that fails is told once until one succeeds again and
//! tried again after a pause that doubles up to `RETRY_MAX`; meanwhile records wait in their slots
//! (`usage/ledger/book` says what happens when those run out). Roll-ups that fail are caught up on from the
//! segments. Absent: prices and reservations; who knows them gives a `Settle`.

pub mod baseline;
pub mod query;
pub mod rollups;
pub mod settle;
pub mod sums;

use crate::control::tell::tell;
use crate::usage::ledger::ask::{self, Asker, Order};
use crate::usage::ledger::book::{self, Book, Counters, State};
use crate::usage::ledger::recents::Recents;
use crate::usage::ledger::recovery::{self, Recovered, Settle};
use crate::usage::ledger::segments::{self, Appender};
use crate::usage::ledger::slots::{Mark, Region};
use crate::usage::ledger::{Settings, Writer};
use crate::usage::seat::{Directory, SEATS, Seat};
use baseline::{Baselines, Deviation};
use rollups::{Rolled, Store};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use sums::Sums;

const ROLL_EVERY: Duration = Duration::from_secs(1);
const TIDY_EVERY: Duration = Duration::from_secs(10);
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A roll-up waits for another process's for so long; the next one tries again. Commits wait with it.
const STORE_BUSY: Duration = Duration::from_millis(20);
/// How often the last roll-up is tried.
const LAST_ROLLS_MAX: usize = 10;
/// Combinations of dimensions that wait for a store that fails. What is more is read from the segments later.
const COMBINATIONS_MAX: usize = 50_000;

/// What the thread says of itself.
#[derive(Debug, Default)]
pub struct Figures {
    /// Records that are final and not durable.
    pub waiting: AtomicU64,
    /// Since when there are such, in milliseconds.
    pub lag_ms: AtomicU64,
    pub written: AtomicU64,
    pub commits_failed: AtomicU64,
    pub rollups_failed: AtomicU64,
    /// Combinations that wait to be rolled up.
    pub unrolled: AtomicU64,
    pub segments_bytes: AtomicU64,
    pub recovered_crashes: AtomicU64,
    pub recovered_finals: AtomicU64,
}

/// The thread, seen from control.
pub struct Ledger {
    orders: SyncSender<Order>,
    ended: Receiver<()>,
    figures: Arc<Figures>,
    state: Arc<State>,
    counters: Vec<Arc<Counters>>,
    deviations: Receiver<Deviation>,
}

/// Sums over all workers and the thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub intents: u64,
    pub handed_on: u64,
    pub lost: u64,
    pub refused: u64,
    pub dropped: u64,
    pub waiting: u64,
    pub lag_ms: u64,
    pub written: u64,
    pub commits_failed: u64,
    pub rollups_failed: u64,
    pub unrolled: u64,
    pub segments_bytes: u64,
    pub recovered_crashes: u64,
    pub recovered_finals: u64,
    pub failing: bool,
}

impl Ledger {
    /// Recovers what dead processes have left in `directory`, then starts the thread for `workers` workers of the
    /// process that sits on `seat`. A book for each of them. `directory` is held meanwhile and let go after.
    pub fn start(
        settings: &Settings,
        directory: &Directory,
        seat: &Seat,
        workers: usize,
        mut settle: Box<dyn Settle + Send>,
    ) -> io::Result<(Ledger, Vec<Book>)> {
        let recovered = recovery::recover(directory, Some(seat), &mut *settle)?;
        let region =
            Region::create(&recovery::slots_path(directory.path(), seat.index), workers, settings.slots)?;
        let region = Arc::new(region);
        let state = Arc::<State>::default();
        let counters: Vec<_> = (0..workers).map(|_| Arc::<Counters>::default()).collect();
        let (orders, taken) = ask::orders();
        let (mut books, mut trays) = (Vec::new(), Vec::new());
        for (worker, counters) in counters.iter().enumerate() {
            let (book, tray) = Book::new(
                Arc::clone(&region),
                worker,
                settings.on_failure,
                Arc::clone(&state),
                Arc::clone(counters),
            );
            books.push(book.with_asker(Asker::new(orders.clone())));
            trays.push(tray);
        }
        let rolled = Store::open(directory.path(), STORE_BUSY).and_then(|store| store.mark(seat.index));
        let segments = recovery::segments_path(directory.path());
        let appender = Appender::new(&segments, seat.index, rolled.unwrap_or_default())?;
        let figures = Arc::<Figures>::default();
        let (baselines, deviations, read) = Baselines::open(directory.path());
        if let Err(error) = read {
            tell(format_args!("tollgate: what keys usually do is learned anew: {error}"));
        }
        let mut thread = Thread {
            baselines,
            writer: Writer::new(region, trays, appender),
            directory: directory.path().to_owned(),
            seat: seat.index,
            settings: settings.clone(),
            state: Arc::clone(&state),
            figures: Arc::clone(&figures),
            settle,
            recents: Recents::default(),
            store: None,
            sums: Sums::default(),
            rolled: None,
            waiting_since: None,
            retry: None,
            is_store_failing: false,
        };
        thread.tell_recovered(&recovered);
        let (end, ended) = sync_channel(1);
        std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            thread.follow(&taken);
            let _ = end.send(());
        })?;
        Ok((Ledger { orders, ended, figures, state, counters, deviations }, books))
    }

    /// Makes durable what is final, for `time_max` at most. False: not all could be; it waits in its slots for the
    /// next start. The workers must have ended.
    pub fn end(&self, time_max: Duration) -> bool {
        let until = Instant::now() + time_max;
        // Full of questions, which the thread is answering.
        while self.orders.try_send(Order::End).is_err() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ended.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
    }

    /// What keys have done unlike themselves, the oldest first.
    pub fn deviations(&self) -> impl Iterator<Item = Deviation> {
        self.deviations.try_iter()
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let sum = |read: fn(&Counters) -> u64| self.counters.iter().map(|counters| read(counters)).sum();
        let figures = &self.figures;
        Standing {
            intents: sum(|counters| counters.begun.value()),
            handed_on: sum(|counters| counters.handed_on.value()),
            lost: sum(|counters| counters.lost.value()),
            refused: sum(|counters| counters.refused.value()),
            dropped: book::dropped(),
            waiting: figures.waiting.load(Relaxed),
            lag_ms: figures.lag_ms.load(Relaxed),
            written: figures.written.load(Relaxed),
            commits_failed: figures.commits_failed.load(Relaxed),
            rollups_failed: figures.rollups_failed.load(Relaxed),
            unrolled: figures.unrolled.load(Relaxed),
            segments_bytes: figures.segments_bytes.load(Relaxed),
            recovered_crashes: figures.recovered_crashes.load(Relaxed),
            recovered_finals: figures.recovered_finals.load(Relaxed),
            failing: self.state.is_failing(),
        }
    }
}

struct Thread {
    writer: Writer,
    directory: PathBuf,
    seat: usize,
    settings: Settings,
    state: Arc<State>,
    figures: Arc<Figures>,
    settle: Box<dyn Settle + Send>,
    recents: Recents,
    baselines: Baselines,
    /// None: it could not be opened.
    store: Option<Store>,
    /// Of what was written since `rolled`, and of the batch.
    sums: Sums,
    /// The seat's mark in the store, to which `sums` are to be added. None: to be read from the segments.
    rolled: Option<Mark>,
    waiting_since: Option<Instant>,
    /// When a write that failed is tried again, and the pause after that.
    retry: Option<(Instant, Duration)>,
    is_store_failing: bool,
}

impl Thread {
    fn follow(&mut self, orders: &Receiver<Order>) {
        let start = Instant::now();
        let (mut write, mut roll, mut tidy, mut prune) = (start, start, start + TIDY_EVERY, start);
        self.catch_up_on_the_dead();
        loop {
            match orders.recv_timeout(write.saturating_duration_since(Instant::now())) {
                Ok(Order::Ask(question)) => {
                    self.gather();
                    let recent = self.recents.find(&question.id, Instant::now());
                    question.answer(recent);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            let now = Instant::now();
            if now >= write {
                self.write(now);
                write = now + self.settings.commit_interval;
            }
            if now >= roll {
                self.roll_up();
                roll = now + ROLL_EVERY;
            }
            if now >= tidy {
                self.tidy();
                tidy = now + TIDY_EVERY;
            }
            if now >= prune {
                self.prune();
                tell_unsaved(self.baselines.save_if_due());
                prune = now + PRUNE_EVERY;
            }
        }
    }

    /// Reads what is final.
    fn gather(&mut self) {
        let Thread { writer, sums, recents, baselines, .. } = self;
        let now = Instant::now();
        writer.gather(|record| {
            sums.add(record);
            recents.add(record, now);
            baselines.add(record);
        });
    }

    /// Makes durable what is final.
    fn write(&mut self, now: Instant) {
        if self.retry.is_none_or(|(at, _)| now >= at) {
            loop {
                self.gather();
                let was_full = !self.writer.has_room();
                if !self.commit(now) || !was_full {
                    break;
                }
            }
        }
        let waiting = self.writer.waiting();
        self.waiting_since = (waiting > 0).then(|| self.waiting_since.unwrap_or(now));
        let lag = self.waiting_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        self.figures.waiting.store(waiting as u64, Relaxed);
        self.figures.lag_ms.store(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Relaxed);
        self.figures.unrolled.store(self.sums.len() as u64, Relaxed);
    }

    /// False: it failed, and is tried again later.
    fn commit(&mut self, now: Instant) -> bool {
        match self.writer.commit() {
            Ok(count) => {
                self.figures.written.fetch_add(count as u64, Relaxed);
                if self.retry.take().is_some() {
                    self.state.set_failing(false);
                    tell("tollgate: the ledger can be written again");
                }
                true
            }
            Err(error) => {
                self.figures.commits_failed.fetch_add(1, Relaxed);
                self.state.set_failing(true);
                if self.retry.is_none() {
                    tell(format_args!(
                        "tollgate: the ledger cannot be written: {error}; records wait, {} for each worker at most",
                        self.settings.slots
                    ));
                }
                let pause = self.retry.map_or(RETRY_MIN, |(_, pause)| (pause * 2).min(RETRY_MAX));
                self.retry = Some((now + pause, pause));
                false
            }
        }
    }

    /// False: what is durable is not all in it yet.
    fn roll_up(&mut self) -> bool {
        if self.sums.len() > COMBINATIONS_MAX {
            self.rolled = None;
            self.sums.clear();
        }
        // What a failed batch holds is not durable.
        if self.writer.has_batch() {
            return false;
        }
        if self.sums.is_empty() && self.rolled.is_some() {
            return true;
        }
        let rolled = self.try_roll_up();
        if let Err(error) = &rolled {
            // Another process is at it.
            if rollups::is_busy(&**error) {
                return false;
            }
            self.figures.rollups_failed.fetch_add(1, Relaxed);
            if !self.is_store_failing {
                let path = rollups::path(&self.directory);
                tell(format_args!(
                    "tollgate: {}: {error}; nothing is lost, usage is rolled up when that works again",
                    path.display()
                ));
            }
        } else if self.is_store_failing {
            tell("tollgate: usage is rolled up again");
        }
        self.is_store_failing = rolled.is_err();
        rolled.is_ok()
    }

    fn try_roll_up(&mut self) -> Result<(), rollups::Error> {
        let (end, seat) = (self.writer.end(), self.seat);
        let store = match &mut self.store {
            Some(store) => store,
            None => self.store.insert(Store::open(&self.directory, STORE_BUSY)?),
        };
        if let Some(from) = self.rolled {
            match store.roll_up(seat, from, end, &self.sums) {
                Ok(Rolled::Up) => {
                    self.rolled = Some(end);
                    self.sums.clear();
                    return Ok(());
                }
                // A rebuild, by the command line.
                Ok(Rolled::Moved) => self.rolled = None,
                Err(error) => return Err(error),
            }
        }
        let read = store.catch_up(seat)?;
        self.rolled = Some(read.end);
        self.sums.clear();
        tell_damage(&read);
        Ok(())
    }

    /// Rolls up what processes have left that were gone when this one started.
    fn catch_up_on_the_dead(&mut self) {
        for seat in (0..SEATS).filter(|&seat| seat != self.seat) {
            let is_dead = !recovery::slots_path(&self.directory, seat).exists();
            let caught_up = match Store::open(&self.directory, STORE_BUSY) {
                Ok(mut store) if is_dead => store.catch_up(seat),
                _ => continue,
            };
            match caught_up {
                Ok(read) => tell_damage(&read),
                Err(error) => tell(format_args!(
                    "tollgate: what another process has recorded is not rolled up yet: {error}"
                )),
            }
        }
    }

    /// Recovers processes that have died meanwhile.
    fn tidy(&mut self) {
        let others = (0..SEATS).filter(|&seat| seat != self.seat);
        let has_others = |seat: usize| recovery::slots_path(&self.directory, seat).exists();
        if !others.clone().any(has_others) {
            return;
        }
        let recovered = Directory::enter(&self.directory)
            .and_then(|directory| recovery::recover(&directory, None, &mut *self.settle));
        match recovered {
            Ok(recovered) => {
                self.tell_recovered(&recovered);
                self.catch_up_on_the_dead();
            }
            Err(error) => {
                tell(format_args!("tollgate: what a dead process has left cannot be recovered: {error}"))
            }
        }
    }

    fn tell_recovered(&self, recovered: &Recovered) {
        self.figures.recovered_crashes.fetch_add(recovered.crashed, Relaxed);
        self.figures.recovered_finals.fetch_add(recovered.finished, Relaxed);
        if recovered.crashed + recovered.finished > 0 {
            tell(format_args!(
                "tollgate: a process has died: {} requests were under way and are recorded as crashed, {} records were \
                 not durable and are",
                recovered.crashed, recovered.finished
            ));
        }
        for path in &recovered.set_aside {
            tell(format_args!(
                "tollgate: {} was left by another version, which can read it; its records are not counted",
                path.display()
            ));
        }
    }

    fn prune(&mut self) {
        let Some(store) = &mut self.store else { return };
        let Settings { segments_keep, segments_bytes_max, rollups_keep, .. } = self.settings;
        match store.prune(segments_keep, segments_bytes_max, rollups_keep) {
            Ok(bytes) => self.figures.segments_bytes.store(bytes, Relaxed),
            Err(error) if rollups::is_busy(&*error) => {}
            Err(error) => {
                tell(format_args!("tollgate: old records of the ledger cannot be deleted: {error}"))
            }
        }
    }

    /// Until all is durable, however long that takes: who waits gives up, and the slots outlive the process.
    fn end(&mut self) {
        loop {
            self.write(Instant::now());
            if self.writer.waiting() == 0 {
                break;
            }
            std::thread::sleep(RETRY_MIN);
        }
        tell_unsaved(self.baselines.save());
        // What another process's transaction holds up is rolled up by whoever starts next.
        for _ in 0..LAST_ROLLS_MAX {
            if self.roll_up() {
                return;
            }
            std::thread::sleep(RETRY_MIN);
        }
    }
}

fn tell_unsaved(saved: io::Result<()>) {
    if let Err(error) = saved {
        tell(format_args!("tollgate: what keys usually do cannot be written down: {error}"));
    }
}

fn tell_damage(read: &segments::Read) {
    for (path, at) in &read.damaged {
        tell(format_args!(
            "tollgate: {} is damaged from byte {at} on; what follows there is not counted",
            path.display()
        ));
    }
}

#[cfg(test)]
mod tests;
