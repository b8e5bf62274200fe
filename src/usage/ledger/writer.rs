//! The writer: takes finished slots, makes their records durable, gives the slots back.
//!
//! Shape: `gather` reads slots into one batch, `commit` appends it and only then gives the slots back and moves
//! the region's mark behind it. Between a failed `commit` and the next one nothing is lost: the batch stays, and
//! so do the slots, which survive the process. Limits: `BATCH_BYTES` a batch; what does not fit waits in its slot.
//! Absent: the thread, its clock and what it tells (`control/ledger`).

use crate::usage::ledger::book::Tray;
use crate::usage::ledger::record::Record;
use crate::usage::ledger::segments::{self, Appender};
use crate::usage::ledger::slots::{Mark, Region};
use std::io;
use std::sync::Arc;

/// A batch is closed when it has so many bytes: some 3,000 records.
const BATCH_BYTES: usize = 1 << 20;

/// See the module's text.
#[derive(Debug)]
pub struct Writer {
    region: Arc<Region>,
    trays: Vec<Tray>,
    appender: Appender,
    /// Frames that are not known to be durable, and whose they are.
    batch: Vec<u8>,
    taken: Vec<Taken>,
    record: Record,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    tray: usize,
    slot: u32,
}

impl Writer {
    /// A writer of what comes from `trays`, the trays of all workers of `region`.
    pub fn new(region: Arc<Region>, trays: Vec<Tray>, appender: Appender) -> Writer {
        let (batch, taken) = (Vec::with_capacity(BATCH_BYTES), Vec::new());
        region.set_mark(appender.end());
        Writer { region, trays, appender, batch, taken, record: Record::default() }
    }

    /// Reads finished slots into the batch as far as there is room, and shows each record to `sink`, once.
    pub fn gather(&mut self, mut sink: impl FnMut(&Record)) {
        for (at, tray) in self.trays.iter_mut().enumerate() {
            while self.batch.len() < BATCH_BYTES {
                let Ok(slot) = tray.finished.pop() else { break };
                let read =
                    self.region.slot(tray.worker, slot).is_some_and(|slot| slot.read(&mut self.record));
                if !read {
                    continue;
                }
                segments::frame(&self.record, &mut self.batch);
                self.taken.push(Taken { tray: at, slot });
                sink(&self.record);
            }
        }
    }

    /// Makes the batch durable and gives its slots back. How many records there were. On an error all stays as it
    /// is, to be tried again.
    pub fn commit(&mut self) -> io::Result<usize> {
        if self.taken.is_empty() {
            return Ok(0);
        }
        self.appender.append(&self.batch)?;
        for &Taken { tray, slot } in &self.taken {
            if let Some(tray) = self.trays.get_mut(tray) {
                tray.give_back(&self.region, slot);
            }
        }
        // After the slots: recovery looks for what is still in one behind the mark.
        self.region.set_mark(self.appender.end());
        self.batch.clear();
        let count = self.taken.len();
        self.taken.clear();
        Ok(count)
    }

    /// Whether a batch waits to be tried again.
    pub fn has_batch(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Whether the batch has room.
    pub fn has_room(&self) -> bool {
        self.batch.len() < BATCH_BYTES
    }

    /// Records that are final and not durable.
    pub fn waiting(&self) -> usize {
        self.taken.len() + self.trays.iter().map(|tray| tray.finished.slots()).sum::<usize>()
    }

    /// Behind the last durable record.
    pub fn end(&self) -> Mark {
        self.appender.end()
    }
}

#[cfg(test)]
mod tests {
    use super::Writer;
    use crate::usage::ledger::book::{Book, Counters, OnFailure, State};
    use crate::usage::ledger::record::{Final, Intent, Record};
    use crate::usage::ledger::segments::{self, Appender};
    use crate::usage::ledger::slots::{Mark, Region};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tollgate-writer-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    fn open(directory: &Path, slots: usize) -> (Arc<Counters>, Book, Writer) {
        let region = Arc::new(Region::anonymous(1, slots).expect("a region"));
        let counters = Arc::<Counters>::default();
        let state = Arc::<State>::default();
        let (book, tray) = Book::new(Arc::clone(&region), 0, OnFailure::Open, state, Arc::clone(&counters));
        let appender = Appender::new(directory, 0, Mark::default()).expect("an appender");
        (counters, book, Writer::new(region, vec![tray], appender))
    }

    fn ask(book: &Book, id: &str) -> bool {
        let Some(entry) = book.begin(&Intent { id: id.as_bytes(), ..Intent::default() }) else {
            return false;
        };
        book.finish(entry, &Final::default());
        true
    }

    fn ids(directory: &Path) -> Vec<String> {
        let mut ids = Vec::new();
        let sink = |record: &Record, _| {
            ids.push(record.id.clone());
            Ok(())
        };
        segments::read(directory, 0, Mark::default(), sink).expect("it can be read");
        ids
    }

    #[test]
    fn slots_come_back_once_their_records_are_durable_and_not_before() {
        let directory = directory("durable");
        let (_, book, mut writer) = open(&directory, 2);
        assert!(ask(&book, "a") && ask(&book, "b") && !ask(&book, "c"));
        let mut seen = Vec::new();
        writer.gather(|record| seen.push(record.id.clone()));
        assert_eq!((seen, writer.waiting()), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert!(!ask(&book, "c") && ids(&directory).is_empty());
        assert_eq!(writer.commit().expect("a disk"), 2);
        assert_eq!((ids(&directory), writer.waiting()), (vec!["a".to_owned(), "b".to_owned()], 0));
        assert!(ask(&book, "c"));
        writer.gather(|_| {});
        writer.commit().expect("a disk");
        assert_eq!(ids(&directory), ["a", "b", "c"]);
        assert_eq!(writer.commit().expect("nothing to do"), 0);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn a_failing_disk_holds_records_to_the_bound_and_each_past_it_is_counted_as_lost() {
        let directory = directory("failing");
        let (counters, book, mut writer) = open(&directory, 3);
        assert!(ask(&book, "a"));
        writer.gather(|_| {});
        writer.commit().expect("a disk");
        writer.appender.break_file();
        assert!(ask(&book, "b") && ask(&book, "c"));
        let mut seen = 0;
        for _ in 0..3 {
            writer.gather(|_| seen += 1);
            writer.commit().expect_err("it is read only");
        }
        assert!(ask(&book, "d") && !ask(&book, "e") && !ask(&book, "f"));
        assert_eq!((counters.lost.value(), writer.waiting()), (2, 3));
        writer.appender.mend_file();
        writer.gather(|_| seen += 1);
        assert_eq!(writer.commit().expect("a disk"), 3);
        assert_eq!((ids(&directory), seen), (["a", "b", "c", "d"].map(str::to_owned).to_vec(), 3));
        assert!(ask(&book, "g"));
        assert_eq!(counters.lost.value(), 2);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn what_does_not_fit_a_batch_waits_in_its_slot() {
        let directory = directory("room");
        let (_, book, mut writer) = open(&directory, 9_000);
        let long = "m".repeat(255);
        for _ in 0..9_000 {
            let intent = Intent { id: b"req", model: &long, tags: &long, ..Intent::default() };
            let entry = book.begin(&intent).expect("a slot");
            book.finish(entry, &Final::default());
        }
        let mut batches = 0;
        while writer.waiting() > 0 {
            writer.gather(|_| {});
            assert!(
                writer.batch.len() < super::BATCH_BYTES + crate::usage::ledger::encoding::RECORD_BYTES_MAX
            );
            writer.commit().expect("a disk");
            batches += 1;
        }
        assert!(batches > 1);
        assert_eq!(ids(&directory).len(), 9_000);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }
}
