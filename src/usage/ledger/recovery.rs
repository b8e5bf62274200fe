//! What dead processes have left: their records are made durable, their reservations given back.
//!
//! Runs at start, while `seat::Directory` is held: no other process starts, so nobody takes a dead seat over.
//! Every final record that is not durable is appended to its seat's segments; an intent becomes a record of a
//! crash with the best numbers that were known. Each id is there once, whatever moment the process died at, and
//! also if recovery dies: slots are freed one by one after the append, and what a slot holds is looked for in the
//! segments first: from the region's mark on, or, where the machine has booted since (a power failure may have
//! kept older pages), in all segments of the last `SUSPECT` hour of writing.
//! Limits: the slots of one seat stand in memory. Errors: those of the system; nothing is lost by one, the
//! next start tries again. Slots of a layout that this version cannot read are set aside and told.

use crate::usage::Provenance;
use crate::usage::ledger::record::{Kind, Record};
use crate::usage::ledger::segments::{self, Appender};
use crate::usage::ledger::slots::{Mark, Region};
use crate::usage::seat::{Directory, SEATS, Seat};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the owner of prices and reservations does for records of crashes.
pub trait Settle {
    /// Says what the usage costs, and whether that has no price. Called before the record is made durable.
    fn price(&mut self, record: &mut Record);
    /// Settles what `record.holds` reserve. Called when the record is durable, once: only a kill right behind it can
    /// repeat it for this one record.
    fn release(&mut self, directory: &Directory, record: &Record);
}

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Requests that were under way.
    pub crashed: u64,
    /// Final records that were not durable.
    pub finished: u64,
    /// Records that were durable though their slot was not free.
    pub known: u64,
    /// Bytes of torn tails that were cut off.
    pub torn_bytes: u64,
    /// Slots of another version, now under this name.
    pub set_aside: Vec<PathBuf>,
}

/// How long before the last write a record may have been made durable whose slot a power failure shows as
/// used: the kernel writes pages back within a minute or so.
const SUSPECT: Duration = Duration::from_secs(3600);

/// Where the slots of a seat stand.
pub fn slots_path(directory: &Path, seat: usize) -> PathBuf {
    directory.join(format!("slots-{seat}"))
}

/// Where the segments stand.
pub fn segments_path(directory: &Path) -> PathBuf {
    directory.join("segments")
}

/// Recovers every seat that nobody sits on, and that of `mine`, whose slots are not made yet.
pub fn recover(directory: &Directory, mine: Option<&Seat>, settle: &mut dyn Settle) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    for seat in 0..SEATS {
        let path = slots_path(directory.path(), seat);
        let is_mine = mine.is_some_and(|mine| mine.index == seat);
        if !path.try_exists()? || (!is_mine && directory.is_taken(seat)?) {
            continue;
        }
        match Region::open(&path) {
            Ok(Some(region)) => {
                recover_seat(&region, directory, seat, settle, &mut recovered)?;
            }
            // Its process died as it made it.
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = path.with_extension(format!("other-{}", crate::base::clock::unix_ms()));
                fs::rename(&path, &aside)?;
                recovered.set_aside.push(aside);
                continue;
            }
            Err(error) => return Err(error),
        }
        fs::remove_file(&path)?;
    }
    Ok(recovered)
}

/// A slot that is not free, and what it holds.
struct Left {
    worker: usize,
    slot: u32,
    record: Record,
}

fn recover_seat(
    region: &Region,
    directory: &Directory,
    seat: usize,
    settle: &mut dyn Settle,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let segments = &segments_path(directory.path());
    let mut left = left_in(region);
    let from = if region.is_of_this_boot() { region.mark() } else { suspect_from(segments, seat)? };
    let mut durable: HashMap<(String, u16), Option<Kind>> =
        left.iter().map(|left| ((left.record.id.clone(), left.record.number), None)).collect();
    let found = segments::read(segments, seat, from, |record, _| {
        if let Some(kind) = durable.get_mut(&(record.id.clone(), record.number)) {
            *kind = Some(record.kind);
        }
        Ok(())
    })?;
    recovered.torn_bytes += segments::cut_tail(segments, seat, found.end)?;
    let as_durable = |record: &Record| durable.get(&(record.id.clone(), record.number)).copied().flatten();
    let mut frames = Vec::new();
    for Left { record, .. } in &mut left {
        if as_durable(record).is_some() {
            recovered.known += 1;
            continue;
        }
        if record.kind == Kind::Crash {
            estimate(record);
            settle.price(record);
            recovered.crashed += 1;
        } else {
            recovered.finished += 1;
        }
        segments::frame(record, &mut frames);
    }
    if !frames.is_empty() {
        Appender::new(segments, seat, found.end)?.append(&frames)?;
    }
    for Left { worker, slot, record } in &left {
        // Durable as a request: it was settled before, and a power failure has kept an older page of its slot.
        if record.kind == Kind::Crash && matches!(as_durable(record), None | Some(Kind::Crash)) {
            settle.release(directory, record);
        }
        if let Some(slot) = region.slot(*worker, *slot) {
            slot.free();
        }
    }
    Ok(())
}

fn left_in(region: &Region) -> Vec<Left> {
    let mut left = Vec::new();
    for worker in 0..region.workers() {
        for slot in 0..region.slots() as u32 {
            let mut record = Record::default();
            // A slot without an id was written by nobody.
            if region.slot(worker, slot).is_some_and(|slot| slot.read(&mut record)) && !record.id.is_empty() {
                left.push(Left { worker, slot, record });
            }
        }
    }
    left
}

/// The beginning of the first segment that was written to within the last hour of writing.
fn suspect_from(segments: &Path, seat: usize) -> io::Result<Mark> {
    let mut written = Vec::new();
    for segment in segments::list(segments)?.into_iter().filter(|segment| segment.seat == seat) {
        written.push((segment.number, fs::metadata(&segment.path)?.modified()?));
    }
    let Some(last) = written.iter().map(|&(_, modified)| modified).max() else { return Ok(Mark::default()) };
    let first =
        written.iter().find(|(_, modified)| last.duration_since(*modified).unwrap_or_default() <= SUSPECT);
    Ok(Mark { segment: first.map_or(0, |&(number, _)| number), offset: 0 })
}

/// What a request has used of which too little is known.
fn estimate(record: &mut Record) {
    if record.usage.input.is_none() {
        record.usage.input = Some(record.input_estimate);
        record.usage.provenance = Provenance::Estimated;
    }
}

#[cfg(test)]
mod tests {
    use super::{Recovered, Settle, recover, segments_path, slots_path};
    use crate::usage::ledger::book::{Book, Counters, OnFailure, State};
    use crate::usage::ledger::record::{Final, Hold, Intent, Kind, Record, Target};
    use crate::usage::ledger::segments::{self, Appender};
    use crate::usage::ledger::slots::{Mark, Region};
    use crate::usage::ledger::writer::Writer;
    use crate::usage::seat::Directory;
    use crate::usage::{Provenance, Usage};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    const HOLD: Hold = Hold { cell: 3, tag: 4, amount: 5 };

    #[derive(Default)]
    struct Settled(Vec<(String, Vec<Hold>)>);

    impl Settle for Settled {
        fn price(&mut self, record: &mut Record) {
            record.cost_pico = record.usage.input.map(|input| input * 1000);
        }
        fn release(&mut self, _: &Directory, record: &Record) {
            self.0.push((record.id.clone(), record.holds.clone()));
        }
    }

    struct Process {
        region: Arc<Region>,
        book: Book,
        writer: Writer,
    }

    /// A process that will be killed: it takes no seat, as a dead one has none.
    fn process(path: &Path) -> Process {
        let region = Arc::new(Region::create(&slots_path(path, 0), 1, 64).expect("a region"));
        let state = Arc::<State>::default();
        let (book, tray) =
            Book::new(Arc::clone(&region), 0, OnFailure::Open, state, Arc::<Counters>::default());
        let appender = Appender::new(&segments_path(path), 0, Mark::default()).expect("an appender");
        let writer = Writer::new(Arc::clone(&region), vec![tray], appender);
        Process { region, book, writer }
    }

    fn intent(id: &str) -> Intent<'_> {
        let target = Target { provider: "openai", holds: &[HOLD], ..Target::default() };
        Intent { id: id.as_bytes(), input_estimate: 9, target, ..Intent::default() }
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tollgate-recovery-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    fn records(path: &Path) -> Vec<Record> {
        let mut records = Vec::new();
        let sink = |record: &Record, _| {
            records.push(record.clone());
            Ok(())
        };
        segments::read(&segments_path(path), 0, Mark::default(), sink).expect("it can be read");
        records.sort_by(|a, b| a.id.cmp(&b.id));
        records
    }

    fn go(path: &Path) -> (Recovered, Settled) {
        let mut settled = Settled::default();
        let directory = Directory::enter(path).expect("a directory");
        (recover(&directory, None, &mut settled).expect("recovered"), settled)
    }

    #[test]
    fn intents_become_crashes_and_finals_what_they_are_and_nothing_is_there_twice() {
        let path = directory("all");
        let Process { region, book, mut writer } = process(&path);
        let finish = |id: &str| {
            let entry = book.begin(&intent(id)).expect("a slot");
            book.finish(entry, &Final { status: 200, ..Final::default() });
        };
        finish("1-durable");
        writer.gather(|_| {});
        writer.commit().expect("a disk");
        finish("2-durable");
        writer.gather(|_| {});
        writer.commit().expect("a disk");
        finish("3-final");
        let silent = book.begin(&intent("4-intent")).expect("a slot");
        let known = book.begin(&intent("5-intent")).expect("a slot");
        book.progress(&known, &Usage { input: Some(7), output: Some(2), ..Usage::default() });
        std::mem::forget((silent, known));
        drop((region, book, writer));
        let (recovered, settled) = go(&path);
        assert_eq!(recovered, Recovered { crashed: 2, finished: 1, ..Recovered::default() });
        let held = |id: &str| (id.to_owned(), vec![HOLD]);
        let mut released = settled.0;
        released.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(released, [held("4-intent"), held("5-intent")]);
        let found = records(&path);
        let rows: Vec<_> = found.iter().map(|r| (&*r.id, r.kind, r.usage.input, r.cost_pico)).collect();
        let expected = [
            ("1-durable", Kind::Request, None, None),
            ("2-durable", Kind::Request, None, None),
            ("3-final", Kind::Request, None, None),
            ("4-intent", Kind::Crash, Some(9), Some(9_000)),
            ("5-intent", Kind::Crash, Some(7), Some(7_000)),
        ];
        assert_eq!(rows, expected);
        assert_eq!(found[3].usage.provenance, Provenance::Estimated);
        assert!(!slots_path(&path, 0).exists());
        assert_eq!(go(&path).0, Recovered::default());
        std::fs::remove_dir_all(&path).expect("it is ours");
    }

    /// The process died after the append and before the slots were given back; also with a part of them given
    /// back, with a torn tail behind, and in an earlier boot, when the mark may be newer than the slots.
    #[test]
    fn a_record_whose_slot_was_not_freed_is_not_doubled() {
        for (name, is_of_this_boot) in [("same-boot", true), ("other-boot", false)] {
            let path = directory(name);
            let Process { region, book, mut writer } = process(&path);
            for id in ["a", "b"] {
                let entry = book.begin(&intent(id)).expect("a slot");
                book.finish(entry, &Final::default());
            }
            let open = book.begin(&intent("c")).expect("a slot");
            let image = std::fs::read(slots_path(&path, 0)).expect("its bytes");
            let mark = region.mark();
            writer.gather(|_| {});
            writer.commit().expect("a disk");
            assert!(region.mark() > mark);
            std::mem::forget(open);
            drop((region, book, writer));
            if is_of_this_boot {
                std::fs::write(slots_path(&path, 0), image).expect("as before the commit");
            } else {
                let newest = std::fs::read(slots_path(&path, 0)).expect("its bytes");
                // The head's page is the newest, the slots are old; the boot's name is another one.
                let head = super::super::slots::HEAD_BYTES;
                let mut mixed = [&newest[..head], &image[head..]].concat();
                mixed[32] ^= 1;
                std::fs::write(slots_path(&path, 0), mixed).expect("a mixture");
            }
            let segment = segments::list(&segments_path(&path)).expect("a list").remove(0).path;
            let mut bytes = std::fs::read(&segment).expect("its bytes");
            bytes.extend([9; 11]);
            std::fs::write(&segment, bytes).expect("a torn tail");
            let (recovered, settled) = go(&path);
            let expected = Recovered { crashed: 1, known: 2, torn_bytes: 11, ..Recovered::default() };
            assert_eq!(recovered, expected, "{name}");
            assert_eq!(settled.0, [("c".to_owned(), vec![HOLD])]);
            assert_eq!(records(&path).iter().map(|record| &*record.id).collect::<Vec<_>>(), ["a", "b", "c"]);
            std::fs::remove_dir_all(&path).expect("it is ours");
        }
    }

    #[test]
    fn a_recovery_that_died_behind_its_append_releases_what_is_left_and_doubles_nothing() {
        let path = directory("twice");
        let Process { region, book, writer } = process(&path);
        let open = [book.begin(&intent("a")).expect("a slot"), book.begin(&intent("b")).expect("another")];
        std::mem::forget(open);
        let image = std::fs::read(slots_path(&path, 0)).expect("its bytes");
        drop((region, book, writer));
        assert_eq!(go(&path).1.0.len(), 2);
        std::fs::write(slots_path(&path, 0), image).expect("as it was before the slots were freed");
        let region = Region::open(&slots_path(&path, 0)).expect("a file").expect("a region");
        // The first one had been released and freed.
        region.slot(0, 0).expect("a slot").free();
        drop(region);
        let (recovered, settled) = go(&path);
        assert_eq!(recovered, Recovered { known: 1, ..Recovered::default() });
        assert_eq!(settled.0, [("b".to_owned(), vec![HOLD])]);
        assert_eq!(records(&path).len(), 2);
        std::fs::remove_dir_all(&path).expect("it is ours");
    }

    #[test]
    fn the_living_are_left_alone_and_slots_of_another_version_are_set_aside() {
        let path = directory("living");
        let entered = Directory::enter(&path).expect("a directory");
        let seat = entered.sit().expect("a seat");
        drop(entered);
        let process = process(&path);
        let entry = process.book.begin(&intent("a")).expect("a slot");
        assert_eq!(go(&path).0, Recovered::default());
        assert!(slots_path(&path, seat.index).exists());
        std::mem::forget(entry);
        let entered = Directory::enter(&path).expect("a directory");
        let mut settled = Settled::default();
        let mine = recover(&entered, Some(&seat), &mut settled).expect("what another one left on this seat");
        assert_eq!((mine.crashed, settled.0.len()), (1, 1));
        drop(entered);
        std::fs::write(slots_path(&path, 1), [7; 4096]).expect("something else");
        let (recovered, _) = go(&path);
        assert_eq!(recovered.set_aside.len(), 1);
        assert!(recovered.set_aside[0].exists() && !slots_path(&path, 1).exists());
        std::fs::remove_dir_all(&path).expect("it is ours");
    }
}
