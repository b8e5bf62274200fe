//! The thread with real files: from a worker's book to the roll-ups, over restarts and faults.

use super::query::Query;
use super::{Ledger, rollups};
use crate::usage::ledger::recovery::{segments_path, slots_path};
use crate::usage::ledger::{Book, Final, Intent, OnFailure, Record, Settings, Settle, Target};
use crate::usage::seat::{Directory, Seat};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Counts what it is to give back.
struct Released(Arc<AtomicU64>);

impl Settle for Released {
    fn price(&mut self, record: &mut Record) {
        record.cost_pico = Some(1000);
    }
    fn release(&mut self, _: &Directory, _: &Record) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tollgate-ledger-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn start(path: &Path, released: &Arc<AtomicU64>) -> (Seat, Ledger, Book) {
    let settings = Settings {
        directory: path.to_owned(),
        commit_interval: Duration::from_millis(5),
        on_failure: OnFailure::Open,
        slots: 8,
        segments_keep: Duration::from_secs(3600),
        segments_bytes_max: u64::MAX,
        rollups_keep: Duration::from_secs(400 * 24 * 3600),
    };
    let directory = Directory::enter(path).expect("a directory");
    let seat = directory.sit().expect("a seat");
    let settle = Box::new(Released(Arc::clone(released)));
    let (ledger, mut books) = Ledger::start(&settings, &directory, &seat, 1, settle).expect("a ledger");
    (seat, ledger, books.remove(0))
}

fn ask(book: &Book, id: &str) {
    let now = crate::base::clock::unix_ms();
    let target = Target { provider: "mock", ..Target::default() };
    let intent = Intent { id: id.as_bytes(), key: "ci", started_unix_ms: now, target, ..Intent::default() };
    let entry = until(|| book.begin(&intent));
    book.finish(entry, &Final { status: 200, attempts: 1, ..Final::default() });
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Requests, crashed ones, and durable records that are not rolled up.
fn counts(path: &Path) -> (u64, u64, u64) {
    let answer = Query::default().ask(path).expect("an answer");
    let row = answer.rows.first().map_or([0; 10], |row| row.counts);
    (row[0], row[2], answer.behind)
}

#[test]
fn what_ends_is_durable_and_rolled_up_and_a_crash_is_recovered_by_the_next_start() {
    let (path, released) = (directory("life"), Arc::<AtomicU64>::default());
    let (seat, ledger, book) = start(&path, &released);
    // More than there are slots: they come back.
    (0..20).for_each(|n| ask(&book, &format!("req_{n}")));
    until(|| (ledger.standing().written == 20).then_some(()));
    until(|| (counts(&path) == (20, 0, 0)).then_some(()));
    ask(&book, "last");
    assert!(ledger.end(Duration::from_secs(30)));
    assert_eq!(counts(&path), (21, 0, 0));
    drop((seat, book));

    let (seat, ledger, book) = start(&path, &released);
    // Of now: sums of long ago are not kept.
    let started_unix_ms = crate::base::clock::unix_ms();
    let open = book.begin(&Intent { id: b"open", started_unix_ms, ..Intent::default() }).expect("a slot");
    ask(&book, "second life");
    assert!(ledger.end(Duration::from_secs(30)));
    std::mem::forget(open);
    drop((seat, book));
    assert_eq!(released.load(Relaxed), 0);

    let (_seat, ledger, _book) = start(&path, &released);
    assert_eq!((released.load(Relaxed), ledger.standing().recovered_crashes), (1, 1));
    until(|| (counts(&path) == (23, 1, 0)).then_some(()));
    assert!(ledger.end(Duration::from_secs(30)));
    std::fs::remove_dir_all(&path).expect("it is ours");
}

#[test]
fn a_process_that_dies_while_another_lives_is_recovered_by_that_one() {
    let (path, released) = (directory("beside"), Arc::<AtomicU64>::default());
    let older = start(&path, &released);
    let (_seat, younger, book) = start(&path, &released);
    let started_unix_ms = crate::base::clock::unix_ms();
    let intent = Intent { id: b"open", started_unix_ms, ..Intent::default() };
    let open = older.2.begin(&intent).expect("a slot");
    ask(&book, "younger");
    let (seat, ledger, older) = older;
    // As the kernel does it: the thread is gone and so is the lock.
    assert!(ledger.end(Duration::from_secs(30)));
    std::mem::forget(open);
    drop((older, seat));
    until(|| (released.load(Relaxed) == 1).then_some(()));
    until(|| (counts(&path) == (2, 1, 0)).then_some(()));
    assert!(!slots_path(&path, 0).exists());
    assert!(younger.end(Duration::from_secs(30)));
    std::fs::remove_dir_all(&path).expect("it is ours");
}

#[test]
fn without_roll_ups_records_are_durable_and_without_segments_they_wait_and_are_counted_when_lost() {
    let (path, released) = (directory("faults"), Arc::<AtomicU64>::default());
    std::fs::create_dir_all(rollups::path(&path)).expect("a directory where the file should be");
    let (seat, ledger, book) = start(&path, &released);
    ask(&book, "a");
    until(|| (ledger.standing().written == 1 && ledger.standing().rollups_failed > 0).then_some(()));
    assert!(ledger.end(Duration::from_secs(30)));
    drop((seat, book));
    std::fs::remove_dir(rollups::path(&path)).expect("it was in the way");
    // Segments cannot be made where a file stands.
    let (segments, aside) = (segments_path(&path), path.join("aside"));
    let (seat, ledger, book) = start(&path, &released);
    until(|| (counts(&path) == (1, 0, 0)).then_some(()));
    std::fs::rename(&segments, &aside).expect("moved");
    std::fs::write(&segments, "in the way").expect("written");
    (0..8).for_each(|n| ask(&book, &format!("b{n}")));
    until(|| book.is_failing().then_some(()));
    assert!(book.begin(&Intent::default()).is_none());
    let standing = ledger.standing();
    assert_eq!((standing.lost, standing.waiting, standing.failing), (1, 8, true));
    assert!(standing.commits_failed > 0);
    std::fs::remove_file(&segments).expect("it was in the way");
    std::fs::rename(&aside, &segments).expect("moved back");
    until(|| (!book.is_failing()).then_some(()));
    ask(&book, "c");
    assert!(ledger.end(Duration::from_secs(30)));
    assert_eq!((ledger.standing().lost, ledger.standing().waiting), (1, 0));
    assert_eq!(counts(&path), (10, 0, 0));
    drop((seat, book));
    std::fs::remove_dir_all(&path).expect("it is ours");
}
