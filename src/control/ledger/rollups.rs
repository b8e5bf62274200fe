//! Roll-ups: sums by hour in SQLite, exactly those of the segments up to a mark.
//!
//! Shape: [`Store::roll_up`] adds sums of a seat's records between two marks and moves the seat's mark, in one
//! transaction, or finds that somebody else has moved it; [`Store::catch_up`] reads what is behind the mark from the
//! segments; [`Store::rebuild`] begins anew. So after any crash, and with any number of processes, each durable
//! record is counted once. Opened by several processes at a time (WAL, busy timeout).
//! Limits: [`COMBINATIONS_PER_HOUR`] new combinations of dimensions an hour of this process; what comes behind them
//! has `(other)` for its model and its tags, which clients choose. Retention: [`Store::prune`]. Errors: SQLite's.

use crate::control::ledger::sums::{DIMENSIONS, MS_IN_HOUR, Sums, VALUES, Values, dimensions_in};
use crate::usage::ledger::segments;
use crate::usage::ledger::slots::Mark;
use crate::usage::seat::SEATS;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// New combinations of dimensions in an hour.
pub const COMBINATIONS_PER_HOUR: usize = 10_000;
/// Combinations whose number is remembered.
const REMEMBERED_MAX: usize = 50_000;
/// What stands for a model and tags of which there are too many.
const OTHER: &str = "(other)";
/// The form of the tables.
const VERSION: i64 = 1;

/// Why the store could not do it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Whether another process was writing.
pub fn is_busy(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    code == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// What became of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rolled {
    Up,
    /// The seat's mark is another one: nothing was added. What is behind it is to be read from the segments.
    Moved,
}

/// See the module's text.
pub struct Store {
    connection: Connection,
    segments: PathBuf,
    combinations: Combinations,
}

/// Where the roll-ups of a state directory stand.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("usage.sqlite")
}

impl Store {
    /// The roll-ups of the state directory, made where they are not there.
    pub fn open(directory: &Path, busy_timeout: Duration) -> Result<Store, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path(directory), flags)?;
        connection.busy_timeout(busy_timeout)?;
        let mut store = Store {
            connection,
            segments: crate::usage::ledger::recovery::segments_path(directory),
            combinations: Combinations::default(),
        };
        store.prepare()?;
        Ok(store)
    }

    fn prepare(&mut self) -> Result<(), Error> {
        self.connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        // A power failure may take the last transactions, marks and sums alike: they are read again.
        self.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match transaction.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? {
            0 => transaction.execute_batch(&schema())?,
            VERSION => {}
            other => {
                return Err(format!(
                    "its tables have form {other}, this version reads {VERSION}; remove the file: it is \
                                    made anew from the segments"
                )
                .into());
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Up to where the records of `seat` are in.
    pub fn mark(&self, seat: usize) -> Result<Mark, Error> {
        Ok(mark(&self.connection, seat)?)
    }

    /// Adds `sums`, those of all records of `seat` from `from` to `to`.
    pub fn roll_up(&mut self, seat: usize, from: Mark, to: Mark, sums: &Sums) -> Result<Rolled, Error> {
        self.change(|transaction, _, combinations| {
            if mark(transaction, seat)? != from {
                return Ok(Rolled::Moved);
            }
            combinations.add(transaction, sums)?;
            set_mark(transaction, seat, to)?;
            Ok(Rolled::Up)
        })
    }

    /// Adds what the segments of `seat` hold behind its mark. The new mark, and segments that are damaged.
    pub fn catch_up(&mut self, seat: usize) -> Result<segments::Read, Error> {
        self.change(|transaction, segments, combinations| {
            let from = mark(transaction, seat)?;
            let (read, _) = combinations.read(transaction, segments, seat, from, None)?;
            if read.end != from {
                set_mark(transaction, seat, read.end)?;
            }
            Ok(read)
        })
    }

    /// Begins anew: sums of hours whose segments are gone stay, all others are read from the segments. How many
    /// records were read.
    pub fn rebuild(&mut self) -> Result<u64, Error> {
        self.change(|transaction, segments, combinations| {
            let pruned = meta(transaction, "pruned_hour")?;
            transaction.execute("DELETE FROM sums WHERE hour > ?1", [pruned.unwrap_or(-1)])?;
            transaction.execute("DELETE FROM marks", [])?;
            forget_combinations(transaction)?;
            let mut all = 0;
            for seat in 0..SEATS {
                let (read, count) =
                    combinations.read(transaction, segments, seat, Mark::default(), pruned)?;
                set_mark(transaction, seat, read.end)?;
                all += count;
            }
            Ok(all)
        })
    }

    /// Does `work` in one transaction.
    fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &Path, &mut Combinations) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Store { connection, segments, combinations } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction, segments, combinations).and_then(|done| {
            transaction.commit()?;
            Ok(done)
        });
        // Numbers of combinations that were not kept are nobody's.
        done.inspect_err(|_| combinations.known.clear())
    }

    /// Deletes sums older than `rollups_keep`, and segments that are rolled up: those older than `keep`, and the
    /// oldest ones while all have more than `bytes_max` bytes. The last segment of a seat stays. How many bytes
    /// of segments are left.
    pub fn prune(&mut self, keep: Duration, bytes_max: u64, rollups_keep: Duration) -> Result<u64, Error> {
        let now = SystemTime::now();
        let listed = segments::list(&self.segments)?;
        let mut found = Vec::new();
        for segment in &listed {
            let Ok(file) = fs::metadata(&segment.path) else { continue };
            found.push((file.modified()?, file.len(), segment));
        }
        let mut bytes: u64 = found.iter().map(|(_, len, _)| len).sum();
        found.sort();
        for (modified, len, segment) in found {
            let is_last = listed.iter().rfind(|other| other.seat == segment.seat) == Some(segment);
            let is_old = now.duration_since(modified).unwrap_or_default() > keep;
            if is_last || !(is_old || bytes > bytes_max) || segment.number >= self.mark(segment.seat)?.segment
            {
                continue;
            }
            // Before the file: what cannot be read again must not be deleted by a rebuild.
            let hour = unix_ms(modified) / MS_IN_HOUR;
            self.connection.execute(
                "INSERT INTO meta VALUES ('pruned_hour', ?1) ON CONFLICT DO UPDATE SET value = max(value, ?1)",
                [hour.cast_signed()],
            )?;
            match fs::remove_file(&segment.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => bytes -= len,
            }
        }
        let oldest = (unix_ms(now) / MS_IN_HOUR).saturating_sub(rollups_keep.as_secs() / 3600);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if transaction.execute("DELETE FROM sums WHERE hour < ?1", [oldest.cast_signed()])? > 0 {
            forget_combinations(&transaction)?;
        }
        transaction.commit()?;
        Ok(bytes)
    }

    /// The connection, for queries.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Durable records that are not rolled up yet.
    pub fn behind(&self) -> Result<u64, Error> {
        let mut count = 0;
        for seat in 0..SEATS {
            segments::read(&self.segments, seat, self.mark(seat)?, |_, _| {
                count += 1;
                Ok(())
            })?;
        }
        Ok(count)
    }
}

fn schema() -> String {
    let texts = DIMENSIONS.map(|name| format!("{name} TEXT NOT NULL")).join(", ");
    let values = VALUES.map(|name| format!("{name} INTEGER NOT NULL")).join(", ");
    format!(
        "CREATE TABLE dimensions (id INTEGER PRIMARY KEY, {texts}, UNIQUE ({}));
         CREATE TABLE sums (hour INTEGER NOT NULL, dimensions INTEGER NOT NULL, {values},
             PRIMARY KEY (hour, dimensions)) WITHOUT ROWID;
         CREATE TABLE marks (seat INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL);
         CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
         PRAGMA user_version = {VERSION};",
        DIMENSIONS.join(", ")
    )
}

fn mark(connection: &Connection, seat: usize) -> rusqlite::Result<Mark> {
    let read = |row: &rusqlite::Row<'_>| Ok(Mark { segment: row.get(0)?, offset: row.get(1)? });
    let found = connection
        .prepare("SELECT segment, offset FROM marks WHERE seat = ?1")?
        .query_row([seat], read)
        .optional()?;
    Ok(found.unwrap_or_default())
}

fn set_mark(transaction: &Transaction<'_>, seat: usize, mark: Mark) -> rusqlite::Result<()> {
    let sql = "INSERT INTO marks VALUES (?1, ?2, ?3)
               ON CONFLICT DO UPDATE SET segment = excluded.segment, offset = excluded.offset";
    transaction.execute(sql, params![seat, mark.segment, mark.offset]).map(drop)
}

fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

/// Deletes combinations without sums, and tells every process to forget the numbers that it remembers.
fn forget_combinations(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "DELETE FROM dimensions WHERE id NOT IN (SELECT dimensions FROM sums);
         INSERT INTO meta VALUES ('generation', 1) ON CONFLICT DO UPDATE SET value = value + 1;",
    )
}

/// The numbers of combinations of dimensions, as far as they are remembered.
#[derive(Default)]
struct Combinations {
    known: HashMap<Box<[u8]>, i64>,
    /// The database's, when they were remembered: another one means that some may be gone.
    generation: i64,
    hour: u64,
    new_in_hour: usize,
}

impl Combinations {
    /// Adds `sums`. Where the transaction is not committed, all is to be forgotten.
    fn add(&mut self, transaction: &Transaction<'_>, sums: &Sums) -> rusqlite::Result<()> {
        let newest = meta(transaction, "generation")?.unwrap_or(0);
        if std::mem::replace(&mut self.generation, newest) != newest || self.known.len() > REMEMBERED_MAX {
            self.known.clear();
        }
        let (marks, columns) = (vec!["?"; VALUES.len() + 2].join(", "), VALUES.join(", "));
        let added = VALUES.map(|name| format!("{name} = {name} + excluded.{name}")).join(", ");
        let mut upsert = transaction.prepare(&format!(
            "INSERT INTO sums (hour, dimensions, {columns}) VALUES ({marks}) ON CONFLICT DO UPDATE SET {added}"
        ))?;
        for (hour, dimensions, values) in sums.entries() {
            let id = match self.known.get(dimensions) {
                Some(id) => *id,
                None => {
                    let id = self.number(transaction, dimensions)?;
                    self.known.insert(dimensions.into(), id);
                    id
                }
            };
            let numbers = [hour.cast_signed(), id].into_iter().chain(signed(values));
            upsert.execute(rusqlite::params_from_iter(numbers))?;
        }
        Ok(())
    }

    /// The number of a combination, which is made where there is none.
    fn number(&mut self, transaction: &Transaction<'_>, dimensions: &[u8]) -> rusqlite::Result<i64> {
        let mut texts = dimensions_in(dimensions);
        if let Some(id) = find(transaction, &texts)? {
            return Ok(id);
        }
        let now = unix_ms(SystemTime::now()) / MS_IN_HOUR;
        if std::mem::replace(&mut self.hour, now) != now {
            self.new_in_hour = 0;
        }
        self.new_in_hour += 1;
        if self.new_in_hour > COMBINATIONS_PER_HOUR {
            for (text, name) in texts.iter_mut().zip(DIMENSIONS) {
                if matches!(name, "model" | "tags") {
                    *text = OTHER;
                }
            }
            if let Some(id) = find(transaction, &texts)? {
                return Ok(id);
            }
        }
        let (columns, marks) = (DIMENSIONS.join(", "), vec!["?"; DIMENSIONS.len()].join(", "));
        transaction
            .prepare(&format!("INSERT INTO dimensions ({columns}) VALUES ({marks})"))?
            .insert(rusqlite::params_from_iter(texts))
    }

    /// Adds what stands behind `from`, but for hours up to `pruned`. How many records that were.
    fn read(
        &mut self,
        transaction: &Transaction<'_>,
        segments: &Path,
        seat: usize,
        from: Mark,
        pruned: Option<i64>,
    ) -> Result<(segments::Read, u64), Error> {
        let (mut sums, mut count) = (Sums::default(), 0);
        let read = segments::read(segments, seat, from, |record, _| {
            let hour = (record.started_unix_ms / MS_IN_HOUR).cast_signed();
            if pruned.is_some_and(|pruned| hour <= pruned) {
                return Ok(());
            }
            count += 1;
            sums.add(record);
            if sums.len() >= REMEMBERED_MAX {
                self.add(transaction, &sums).map_err(std::io::Error::other)?;
                sums.clear();
            }
            Ok(())
        })?;
        self.add(transaction, &sums)?;
        Ok((read, count))
    }
}

fn signed(values: &Values) -> [i64; VALUES.len()] {
    values.map(|value| i64::try_from(value).unwrap_or(i64::MAX))
}

fn find(transaction: &Transaction<'_>, texts: &[&str; DIMENSIONS.len()]) -> rusqlite::Result<Option<i64>> {
    let all = DIMENSIONS.map(|name| format!("{name} = ?")).join(" AND ");
    transaction
        .prepare(&format!("SELECT id FROM dimensions WHERE {all}"))?
        .query_row(rusqlite::params_from_iter(texts), |row| row.get(0))
        .optional()
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{COMBINATIONS_PER_HOUR, OTHER, Rolled, Store};
    use crate::control::ledger::sums::{Sums, VALUES};
    use crate::usage::Usage;
    use crate::usage::ledger::recovery::segments_path;
    use crate::usage::ledger::segments::{self, Appender};
    use crate::usage::ledger::{Mark, Record};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    const HOUR_MS: u64 = 3_600_000;
    const KEEP: Duration = Duration::from_secs(400 * 24 * 3600);

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tollgate-rollups-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    fn open(directory: &Path) -> Store {
        Store::open(directory, Duration::from_secs(5)).expect("a store")
    }

    fn record(n: u64) -> Record {
        Record {
            id: format!("req_{n}"),
            key: format!("key-{}", n % 3),
            started_unix_ms: (n % 4) * HOUR_MS,
            usage: Usage { input: Some(n), ..Usage::default() },
            cost_pico: Some(n),
            status: 200,
            ..Record::default()
        }
    }

    fn append(appender: &mut Appender, numbers: std::ops::Range<u64>) {
        let mut frames = Vec::new();
        numbers.for_each(|n| segments::frame(&record(n), &mut frames));
        appender.append(&frames).expect("appended");
    }

    /// Requests and input tokens of all.
    fn totals(store: &Store) -> (i64, i64) {
        assert_eq!((VALUES[0], VALUES[3]), ("requests", "input_tokens"));
        let sql = "SELECT coalesce(sum(requests), 0), coalesce(sum(input_tokens), 0) FROM sums";
        store.connection().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("totals")
    }

    fn sum_to(n: u64) -> (i64, i64) {
        (n.cast_signed(), (n * (n - 1) / 2).cast_signed())
    }

    fn sums(numbers: std::ops::Range<u64>) -> Sums {
        let mut sums = Sums::default();
        numbers.for_each(|n| sums.add(&record(n)));
        sums
    }

    #[test]
    fn each_record_is_counted_once_whoever_rolls_it_up() {
        let path = directory("once");
        let mut appender = Appender::new(&segments_path(&path), 2, Mark::default()).expect("an appender");
        let (mut one, mut two) = (open(&path), open(&path));
        append(&mut appender, 0..5);
        let first = appender.end();
        assert_eq!(one.behind().expect("a count"), 5);
        assert_eq!(one.roll_up(2, Mark::default(), first, &sums(0..5)).expect("added"), Rolled::Up);
        // The other process has the same sums and is late.
        assert_eq!(two.roll_up(2, Mark::default(), first, &sums(0..5)).expect("refused"), Rolled::Moved);
        append(&mut appender, 5..8);
        assert_eq!(two.catch_up(2).expect("read").end, appender.end());
        assert_eq!(two.catch_up(2).expect("nothing").end, appender.end());
        assert_eq!(one.roll_up(2, first, appender.end(), &sums(5..8)).expect("refused"), Rolled::Moved);
        assert_eq!((totals(&one), one.behind().expect("a count")), (sum_to(8), 0));
        // A new process appends to a new segment.
        let mut appender = Appender::new(&segments_path(&path), 2, Mark::default()).expect("an appender");
        append(&mut appender, 8..9);
        one.catch_up(2).expect("read");
        assert_eq!(totals(&two), sum_to(9));
        std::fs::remove_dir_all(&path).expect("it is ours");
    }

    #[test]
    fn a_rebuild_gives_the_same_sums_and_the_writer_goes_on_behind_it() {
        let path = directory("rebuild");
        let mut appender = Appender::new(&segments_path(&path), 0, Mark::default()).expect("an appender");
        append(&mut appender, 0..20);
        let (mut writer, mut other) = (open(&path), open(&path));
        let mark = appender.end();
        writer.roll_up(0, Mark::default(), mark, &sums(0..20)).expect("added");
        other.connection().execute("UPDATE sums SET requests = 77", []).expect("spoiled");
        assert_eq!(other.rebuild().expect("read"), 20);
        assert_eq!(totals(&writer), sum_to(20));
        append(&mut appender, 20..22);
        assert_eq!(writer.roll_up(0, mark, appender.end(), &sums(20..22)).expect("added"), Rolled::Up);
        assert_eq!(totals(&other), sum_to(22));
        std::fs::remove_dir_all(&path).expect("it is ours");
    }

    #[test]
    fn the_oldest_segments_that_are_rolled_up_make_room_and_their_sums_outlive_a_rebuild() {
        let path = directory("prune");
        let segments = segments_path(&path);
        for n in 0..3 {
            let mut appender = Appender::new(&segments, 0, Mark::default()).expect("an appender");
            append(&mut appender, n * 4..n * 4 + 4);
        }
        let mut store = open(&path);
        let count = || segments::list(&segments).expect("a list").len();
        let all = store.prune(KEEP, 0, KEEP * 1000).expect("nothing is rolled up");
        assert_eq!(count(), 3);
        store.catch_up(0).expect("read");
        assert_eq!(store.prune(KEEP, all, KEEP * 1000).expect("at the bound"), all);
        assert_eq!(count(), 3);
        let left = store.prune(KEEP, all - 1, KEEP * 1000).expect("one past it");
        assert!(left < all && count() == 2);
        store.prune(Duration::ZERO, u64::MAX, KEEP * 1000).expect("all are old");
        assert_eq!(count(), 1, "the last one stays");
        let mut appender = Appender::new(&segments, 0, Mark::default()).expect("an appender");
        append(&mut appender, 12..13);
        store.catch_up(0).expect("read");
        // All hours of this test are before the one in which the segments were deleted.
        assert_eq!(store.rebuild().expect("read"), 0);
        assert_eq!(totals(&store), sum_to(13));
        store.prune(KEEP, u64::MAX, KEEP).expect("sums of 1970 are too old");
        assert_eq!(totals(&store), (0, 0));
        let combinations = "SELECT count(*) FROM dimensions";
        assert_eq!(
            store.connection().query_row(combinations, [], |row| row.get::<_, i64>(0)).expect("a count"),
            0
        );
        std::fs::remove_dir_all(&path).expect("it is ours");
    }

    #[test]
    fn tags_beyond_the_bound_of_an_hour_are_one_combination() {
        let path = directory("bound");
        let mut store = open(&path);
        let mut sums = Sums::default();
        let extra = 50;
        for n in 0..COMBINATIONS_PER_HOUR + extra {
            sums.add(&Record { tags: n.to_string(), ..record(0) });
        }
        store.roll_up(0, Mark::default(), Mark { segment: 1, offset: 9 }, &sums).expect("added");
        let sql =
            "SELECT count(*), sum(requests) FROM sums JOIN dimensions ON id = dimensions WHERE tags = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let other = store.connection().query_row(sql, [OTHER], row).expect("a row");
        // The hour may have turned in between, never twice.
        assert!(other == (1, extra as i64) || totals(&store).0 == (COMBINATIONS_PER_HOUR + extra) as i64);
        assert_eq!(totals(&store).0, (COMBINATIONS_PER_HOUR + extra) as i64);
        std::fs::remove_dir_all(&path).expect("it is ours");
    }
}
