//! The bank's files: how cells and columns lie in words, and how a process that is alone makes them anew.
//!
//! `bank`: a header (form, capacity, epoch, places used, boot), then `capacity` cells of a cache line each. A
//! cell: 128 bits of its name's SHA-256, its kind, `taken`, the lock, and `base`, what was spent before the
//! columns were made. `leases-N`: a header (epoch, workers), then for each worker `capacity` pairs of lease and
//! spent. Columns of another epoch than the bank's are leftovers and say nothing, so a rebuild is one rename.
//! Errors: of files; a bank of another form is refused and not overwritten.

use crate::base::words::{WORD_BYTES, Words};
use crate::usage::bank::cell::{Tally, is_later};
use crate::usage::bank::{Hold, Kind};
use crate::usage::seat::{Directory, SEATS, Seat};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Words before the first cell, and before the first pair of a column file.
pub const HEADER_WORDS: usize = 64;
/// Words of a cell.
pub const CELL_WORDS: usize = 8;

// In the header of `bank`.
const FORM: usize = 0;
const CAPACITY: usize = 1;
const EPOCH: usize = 2;
pub const USED: usize = 3;
/// Two words: the kernel's id of this boot.
const BOOT: usize = 4;

// In the header of `leases-N`; `FORM` and `EPOCH` as there.
const WORKERS: usize = 1;

// In a cell.
pub const NAME: usize = 0;
pub const KIND: usize = 2;
pub const TAKEN: usize = 3;
pub const LOCK: usize = 4;
pub const BASE: usize = 5;

// In a pair.
pub const LEASE: usize = 0;
pub const SPENT: usize = 1;

/// "tgbank" and the form's number.
const FORM_1: u64 = u64::from_le_bytes(*b"tgbank\x00\x01");

/// Places of the smallest bank.
const CAPACITY_MIN: usize = 1 << 12;

/// The bank as a process found or made it.
pub struct Opened {
    pub cells: Words,
    pub capacity: usize,
    pub mine: Words,
    pub epoch: u64,
    /// No other process uses it.
    pub is_alone: bool,
}

/// Opens the bank in a directory.
pub fn open(directory: &Directory, seat: &Seat, workers: usize, needed: usize) -> io::Result<Opened> {
    let path = directory.path().join("bank");
    let mut is_alone = true;
    for other in (0..SEATS).filter(|other| *other != seat.index) {
        is_alone &= !directory.is_taken(other)?;
    }
    let (cells, capacity) = match (is_alone, header(&path)?) {
        (true, found) => rebuild(directory, &path, found, needed)?,
        (false, Some(capacity)) => (Words::open(&path, words(capacity))?, capacity),
        (false, None) => {
            let message = format!("{}: missing, though another process uses the directory", path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
    };
    let epoch = cells[EPOCH].load(Relaxed);
    let mine_path = leases_path(directory.path(), seat.index);
    if leases_header(&mine_path)?.is_none_or(|(found, _)| found != epoch) {
        remove(&mine_path)?;
    }
    let before = leases_header(&mine_path)?.map_or(0, |(_, workers)| workers);
    let workers = workers.max(before);
    let mine = Words::open(&mine_path, column_words(workers, capacity))?;
    mine[EPOCH].store(epoch, Relaxed);
    mine[WORKERS].store(workers as u64, Relaxed);
    mine[FORM].store(FORM_1, Relaxed);
    Ok(Opened { cells, capacity, mine, epoch, is_alone })
}

/// What processes that died have left in the bank of a directory: what their requests hold.
#[derive(Debug)]
pub struct Estate {
    cells: Words,
    capacity: usize,
}

impl Estate {
    /// The bank as it lies in the directory; none where there is none. Nobody makes it anew meanwhile: the caller
    /// holds the directory.
    pub fn open(directory: &Directory) -> io::Result<Option<Estate>> {
        let path = directory.path().join("bank");
        let Some(capacity) = header(&path)? else { return Ok(None) };
        Ok(Some(Estate { cells: Words::open(&path, words(capacity))?, capacity }))
    }

    /// Settles what one request held: books what it used and gives the rest back. `used` says how much it used of
    /// what a limit counts, by the limit's unit.
    pub fn settle(&self, holds: &[Hold], used: &dyn Fn(u8) -> u64) {
        for (at, first) in holds.iter().enumerate() {
            if holds[..at].iter().any(|before| before.cell == first.cell)
                || first.cell as usize >= self.capacity
            {
                continue;
            }
            let words = &self.cells[HEADER_WORDS + first.cell as usize * CELL_WORDS..][..CELL_WORDS];
            let kind = words[KIND].load(Relaxed);
            let mut left = if Kind::of(kind) == Kind::Gauge { 0 } else { used(unit_of(kind)) };
            let of_cell = holds[at..].iter().filter(|hold| hold.cell == first.cell);
            let count = of_cell.clone().count();
            for (place, hold) in of_cell.enumerate() {
                // What is more than was held was used, too, as far as it is a number.
                let is_last = place + 1 == count && left != u64::MAX;
                let spent = if is_last { left } else { left.min(hold.amount) };
                left = left.saturating_sub(spent);
                change(&words[TAKEN], |taken| {
                    let sum = (taken.amount + spent).saturating_sub(hold.amount);
                    (taken.tag == hold.tag).then_some(Tally { amount: sum, ..taken })
                });
                change(&words[BASE], |base| match base.tag == hold.tag {
                    true => Some(Tally { amount: base.amount + spent, ..base }),
                    false => is_later(hold.tag, base.tag).then_some(Tally { tag: hold.tag, amount: spent }),
                });
            }
        }
    }
}

/// Changes a word that others may change, too; nothing is changed where `to` gives none.
fn change(word: &AtomicU64, to: impl Fn(Tally) -> Option<Tally>) {
    let changed = |now| to(Tally::of(now)).map(Tally::word);
    // Where it gives none all is as it should be.
    let _ = word.fetch_update(AcqRel, Acquire, changed);
}

/// The kind and the unit of a cell, as its word holds them.
pub fn kind_word(kind: Kind, unit: u8) -> u64 {
    kind as u64 | u64::from(unit) << 8
}

fn unit_of(word: u64) -> u8 {
    (word >> 8) as u8
}

/// The columns of the process in `seat`; none where it has not made them yet.
pub fn leases_of(directory: &Path, seat: usize, epoch: u64, capacity: usize) -> io::Result<Option<Words>> {
    let path = leases_path(directory, seat);
    match leases_header(&path)? {
        Some((found, workers)) if found == epoch => {
            Words::open(&path, column_words(workers, capacity)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Words of a column file.
pub fn column_words(workers: usize, capacity: usize) -> usize {
    HEADER_WORDS + workers * capacity * 2
}

/// Workers in a column file's words.
pub fn workers_of(words: &Words, capacity: usize) -> usize {
    (words.len() - HEADER_WORDS) / (capacity * 2)
}

/// Where the pair of a cell lies in a column file.
pub fn column_at(worker: usize, capacity: usize, cell: usize) -> usize {
    HEADER_WORDS + (worker * capacity + cell.min(capacity - 1)) * 2
}

/// 128 bits of a name's SHA-256.
pub fn hash(name: &str) -> [u64; 2] {
    let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let word = |from: usize| u64::from_le_bytes(std::array::from_fn(|at| hash[from + at]));
    [word(0), word(8)]
}

/// A cell that goes on.
struct Kept {
    name: [u64; 2],
    kind: u64,
    spent: Tally,
}

/// Makes the bank anew, for the one process that uses it: budgets with what was spent of them, rates of this
/// boot with what was given out, nothing of what was held.
fn rebuild(
    directory: &Directory,
    path: &Path,
    found: Option<usize>,
    needed: usize,
) -> io::Result<(Words, usize)> {
    let kept = found.map_or_else(|| Ok(Vec::new()), |capacity| kept(directory.path(), path, capacity))?;
    let capacity = (2 * (needed + kept.len())).next_power_of_two().max(CAPACITY_MIN);
    let new_path = directory.path().join("bank.new");
    remove(&new_path)?;
    let cells = Words::open(&new_path, words(capacity))?;
    for (at, cell) in kept.iter().enumerate() {
        let words = &cells[HEADER_WORDS + at * CELL_WORDS..];
        words[NAME].store(cell.name[0], Relaxed);
        words[NAME + 1].store(cell.name[1], Relaxed);
        words[KIND].store(cell.kind, Relaxed);
        words[TAKEN].store(cell.spent.word(), Relaxed);
        words[BASE].store(cell.spent.word(), Relaxed);
    }
    let mut epoch = [0; 8];
    getrandom::fill(&mut epoch).map_err(|error| io::Error::other(error.to_string()))?;
    cells[CAPACITY].store(capacity as u64, Relaxed);
    cells[EPOCH].store(u64::from_le_bytes(epoch), Relaxed);
    cells[USED].store(kept.len() as u64, Relaxed);
    let boot = boot();
    cells[BOOT].store(boot[0], Relaxed);
    cells[BOOT + 1].store(boot[1], Relaxed);
    cells[FORM].store(FORM_1, Relaxed);
    fs::File::open(&new_path)?.sync_all()?;
    fs::rename(&new_path, path)?;
    fs::File::open(directory.path())?.sync_all()?;
    for seat in 0..SEATS {
        remove(&leases_path(directory.path(), seat))?;
    }
    Ok((cells, capacity))
}

/// What goes on of an old bank.
fn kept(directory: &Path, path: &Path, capacity: usize) -> io::Result<Vec<Kept>> {
    let cells = Words::open(path, words(capacity))?;
    let epoch = cells[EPOCH].load(Relaxed);
    let same_boot = [cells[BOOT].load(Relaxed), cells[BOOT + 1].load(Relaxed)] == boot();
    let mut columns = Vec::new();
    for seat in 0..SEATS {
        columns.extend(leases_of(directory, seat, epoch, capacity)?);
    }
    let used = (cells[USED].load(Relaxed) as usize).min(capacity);
    let mut kept = Vec::new();
    for at in 0..used {
        let words = &cells[HEADER_WORDS + at * CELL_WORDS..][..CELL_WORDS];
        let kind = words[KIND].load(Relaxed);
        if Kind::of(kind) == Kind::Gauge || Kind::of(kind) == Kind::Rate && !same_boot {
            continue;
        }
        let taken = Tally::of(words[TAKEN].load(Relaxed));
        let mut spent = Tally { tag: taken.tag, amount: 0 };
        let in_columns = columns.iter().flat_map(|words| {
            let workers = 0..workers_of(words, capacity);
            workers.map(move |worker| Tally::of(words[column_at(worker, capacity, at) + SPENT].load(Relaxed)))
        });
        for tally in in_columns.chain([Tally::of(words[BASE].load(Relaxed))]) {
            // What was forced is spent in a window that the bank may not have heard of.
            if is_later(tally.tag, spent.tag) {
                spent = tally;
            } else if tally.tag == spent.tag {
                spent.amount += tally.amount;
            }
        }
        if spent.amount > 0 {
            kept.push(Kept { name: [words[NAME].load(Relaxed), words[NAME + 1].load(Relaxed)], kind, spent });
        }
    }
    Ok(kept)
}

/// The capacity of the bank at `path`; none where there is none.
fn header(path: &Path) -> io::Result<Option<usize>> {
    let Some(len) = len(path)? else { return Ok(None) };
    let refused = |what: String| {
        let message = format!("{}: {what}; move it away to begin with an empty one", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    };
    if len < HEADER_WORDS * WORD_BYTES {
        return refused("not a bank of Tollgate".to_string());
    }
    let head = Words::open(path, HEADER_WORDS)?;
    let capacity = head[CAPACITY].load(Relaxed) as usize;
    if head[FORM].load(Relaxed) != FORM_1 {
        return refused("not a bank of Tollgate, or of another version".to_string());
    }
    if capacity == 0 || capacity.checked_mul(CELL_WORDS * WORD_BYTES).is_none_or(|bytes| bytes > len) {
        return refused(format!("says that it holds {capacity} limits, in {len} bytes"));
    }
    Ok(Some(capacity))
}

/// Epoch and workers of a column file; none where there is none, or a half one.
fn leases_header(path: &Path) -> io::Result<Option<(u64, usize)>> {
    if len(path)?.is_none_or(|len| len < HEADER_WORDS * WORD_BYTES) {
        return Ok(None);
    }
    let head = Words::open(path, HEADER_WORDS)?;
    let workers = head[WORKERS].load(Relaxed) as usize;
    let is_whole = head[FORM].load(Relaxed) == FORM_1 && (1..=WORKERS_MAX).contains(&workers);
    Ok(is_whole.then(|| (head[EPOCH].load(Relaxed), workers)))
}

fn len(path: &Path) -> io::Result<Option<usize>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len() as usize)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn words(capacity: usize) -> usize {
    HEADER_WORDS + capacity * CELL_WORDS
}

fn leases_path(directory: &Path, seat: usize) -> PathBuf {
    directory.join(format!("leases-{seat}"))
}

/// The kernel's id of this boot: rates are counted in minutes since then.
fn boot() -> [u64; 2] {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    hash(id.trim())
}

/// Of a config.
const WORKERS_MAX: usize = 1024;
