//! Questions about usage: what the command line and the admin API ask, and how answers look.
//!
//! Input: `by` (names of [`HOURS`] and [`DIMENSIONS`], separated by commas), `since` and `until` (a time ago such
//! as `24h` or `7d`, a date, or RFC 3339). Output: rows of sums, as a table, CSV or JSON. Times are UTC; roll-ups know
//! hours, so `since` goes back to the full hour and `until` on to the next. The cost is exact, in dollars with up to
//! twelve places.
//! Errors: a sentence for who asked.

use crate::control::ledger::rollups::{self, Store};
use crate::control::ledger::sums::{DIMENSIONS, MS_IN_HOUR, PICO_IN_MICRO, VALUES};
use crate::usage::Provenance;
use crate::usage::ledger::record::STEPS;
use crate::usage::ledger::recovery::segments_path;
use crate::usage::ledger::slots::Mark;
use crate::usage::ledger::{Record, segments};
use crate::usage::seat::SEATS;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What sums can be told apart by, beside [`DIMENSIONS`].
pub const HOURS: [&str; 2] = ["hour", "day"];
/// Rows of an answer at most.
pub const ROWS_MAX: usize = 100_000;
/// How long a rebuild or a roll-up of another process is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// The numbers of a row, in order, but for the cost.
const COUNTS: [(&str, usize); 10] = [
    ("requests", 0),
    ("attempts", 1),
    ("crashed", 2),
    ("input_tokens", 3),
    ("output_tokens", 4),
    ("cache_read_tokens", 5),
    ("cache_write_tokens", 6),
    ("reasoning_tokens", 7),
    ("estimated", 10),
    ("unpriced", 11),
];
const COST: &str = "cost_usd";

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Query {
    /// Of [`HOURS`] and [`DIMENSIONS`].
    pub by: Vec<&'static str>,
    /// Milliseconds since 1970, a full hour.
    pub since_ms: Option<u64>,
    pub until_ms: Option<u64>,
}

/// A form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Table,
    Csv,
    Json,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub query: Query,
    pub rows: Vec<Row>,
    /// Durable records that are not in it yet.
    pub behind: u64,
}

/// Sums of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// By `Query::by`.
    pub group: Vec<String>,
    /// By `COUNTS`.
    pub counts: [u64; COUNTS.len()],
    pub cost_pico: u128,
}

impl Query {
    /// Reads a question; `now_ms` is the time.
    pub fn parse(by: &str, since: Option<&str>, until: Option<&str>, now_ms: u64) -> Result<Query, String> {
        let by = by.split(',').map(str::trim).filter(|name| !name.is_empty()).map(|name| {
            HOURS.iter().chain(&DIMENSIONS).copied().find(|known| *known == name).ok_or_else(|| {
                let all: Vec<&str> = HOURS.iter().chain(&DIMENSIONS).copied().collect();
                format!(
                    "\"{}\" is nothing that usage is summed by; allowed: {}",
                    name.escape_default(),
                    all.join(", ")
                )
            })
        });
        let by = by.collect::<Result<Vec<_>, String>>()?;
        let (since, until) = (time("since", since, now_ms)?, time("until", until, now_ms)?);
        Ok(Query {
            by,
            since_ms: since.map(|ms| ms / MS_IN_HOUR * MS_IN_HOUR),
            until_ms: until.map(|ms| ms.div_ceil(MS_IN_HOUR).saturating_mul(MS_IN_HOUR)),
        })
    }

    /// Reads the query part of a URL: `by=key,model&since=24h`.
    pub fn from_url(text: &str, now_ms: u64) -> Result<Query, String> {
        let (mut by, mut since, mut until) = (String::new(), None, None);
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            match name {
                "by" => by = value,
                "since" => since = Some(value),
                "until" => until = Some(value),
                _ => {
                    return Err(format!(
                        "\"{}\" is not known here; allowed: by, since, until",
                        name.escape_default()
                    ));
                }
            }
        }
        Query::parse(&by, since.as_deref(), until.as_deref(), now_ms)
    }

    /// Asks the roll-ups of a state directory. Errors: there are none, or SQLite's.
    pub fn ask(&self, directory: &Path) -> Result<Answer, rollups::Error> {
        let store = open(directory)?;
        let groups: Vec<String> = self.by.iter().map(|name| column(name)).collect();
        let sums = VALUES.map(|name| format!("sum({name})")).join(", ");
        let columns: String = groups.iter().map(|group| format!("{group}, ")).collect();
        let mut sql = format!(
            "SELECT {columns}{sums} FROM sums JOIN dimensions ON dimensions.id = sums.dimensions
             WHERE hour >= ?1 AND hour < ?2"
        );
        if !groups.is_empty() {
            let _ = write!(sql, " GROUP BY {0} ORDER BY {0}", groups.join(", "));
        }
        let _ = write!(sql, " LIMIT {}", ROWS_MAX + 1);
        let hour = |ms: u64| (ms / MS_IN_HOUR).cast_signed();
        let (since, until) = (self.since_ms.map_or(0, hour), self.until_ms.map_or(i64::MAX, hour));
        let mut statement = store.connection().prepare(&sql)?;
        let mut found = statement.query([since, until])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            if rows.len() == ROWS_MAX {
                return Err(format!(
                    "the answer has more than {ROWS_MAX} rows; ask for less time or by less"
                )
                .into());
            }
            // Without groups there is a row of nothing where nothing was summed.
            if let Some(row) = self.row(row)? {
                rows.push(row);
            }
        }
        Ok(Answer { query: self.clone(), rows, behind: store.behind()? })
    }

    fn row(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Row>> {
        let mut group = Vec::with_capacity(self.by.len());
        for (at, name) in self.by.iter().enumerate() {
            group.push(match *name {
                "hour" => shown(row.get::<_, u64>(at)?.saturating_mul(MS_IN_HOUR)),
                "day" => shown(row.get::<_, u64>(at)?.saturating_mul(24 * MS_IN_HOUR))[..10].to_owned(),
                _ => row.get(at)?,
            });
        }
        let value = |index: usize| row.get::<_, Option<u64>>(self.by.len() + index);
        if value(0)?.is_none() {
            return Ok(None);
        }
        let mut counts = [0; COUNTS.len()];
        for (count, (_, index)) in counts.iter_mut().zip(COUNTS) {
            *count = value(index)?.unwrap_or(0);
        }
        let (micro, pico) = (value(8)?.unwrap_or(0), value(9)?.unwrap_or(0));
        let cost_pico = u128::from(micro) * u128::from(PICO_IN_MICRO) + u128::from(pico);
        Ok(Some(Row { group, counts, cost_pico }))
    }

    /// Gives each record whose request began in the asked time, in the order of the segments: its JSON, one line.
    /// Reads what is durable, rolled up or not.
    pub fn records(&self, directory: &Path, mut sink: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        for seat in 0..SEATS {
            segments::read(&segments_path(directory), seat, Mark::default(), |record, _| {
                let started = record.started_unix_ms;
                let is_asked = self.since_ms.is_none_or(|since| started >= since)
                    && self.until_ms.is_none_or(|until| started < until);
                if is_asked { sink(&format!("{}\n", record_json(record))) } else { Ok(()) }
            })?;
        }
        Ok(())
    }
}

/// The roll-ups of a state directory that is there.
pub fn open(directory: &Path) -> Result<Store, rollups::Error> {
    if !rollups::path(directory).exists() {
        return Err(format!("{} holds no ledger", directory.display()).into());
    }
    Store::open(directory, BUSY)
}

impl Answer {
    pub fn shown(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::Csv => self.csv(),
            Format::Json => format!("{:#}\n", self.json()),
        }
    }

    /// As the admin API gives it.
    pub fn json(&self) -> Value {
        let Query { by, since_ms, until_ms } = &self.query;
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let groups = by.iter().zip(&row.group).map(|(name, text)| ((*name).to_owned(), json!(text)));
                let counts = COUNTS
                    .iter()
                    .zip(row.counts)
                    .map(|((name, _), count)| ((*name).to_owned(), json!(count)));
                let cost = (COST.to_owned(), json!(usd(row.cost_pico)));
                Value::Object(groups.chain(counts).chain([cost]).collect::<Map<_, _>>())
            })
            .collect();
        json!({
            "by": by,
            "since": since_ms.map(shown),
            "until": until_ms.map(shown),
            "not_rolled_up": self.behind,
            "rows": rows,
        })
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let names = COUNTS.iter().map(|(name, _)| (*name).to_owned()).chain([COST.to_owned()]);
        let head = self.query.by.iter().map(|name| (*name).to_owned()).chain(names).collect();
        let row = |row: &Row| {
            let counts = row.counts.iter().map(u64::to_string);
            row.group.iter().cloned().chain(counts).chain([usd(row.cost_pico)]).collect()
        };
        std::iter::once(head).chain(self.rows.iter().map(row)).collect()
    }

    /// Columns that hold only zeros are left out, but for requests and cost; numbers stand to the right.
    fn table(&self) -> String {
        let cells = self.cells();
        let groups = self.query.by.len();
        let is_shown = |at: usize| {
            let name = &cells[0][at];
            at < groups || name == "requests" || name == COST || cells[1..].iter().any(|row| row[at] != "0")
        };
        let columns: Vec<usize> = (0..cells[0].len()).filter(|&at| is_shown(at)).collect();
        let width = |at: usize| cells.iter().map(|row| clean(&row[at]).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = columns.iter().map(|&at| width(at)).collect();
        let mut out = String::new();
        for (line, row) in cells.iter().enumerate() {
            let mut text = String::new();
            for (&at, &width) in columns.iter().zip(&widths) {
                let cell = if line == 0 { row[at].to_uppercase() } else { clean(&row[at]) };
                let _ = match at < groups {
                    true => write!(text, "{cell:width$}  "),
                    false => write!(text, "{cell:>width$}  "),
                };
            }
            let _ = writeln!(out, "{}", text.trim_end());
        }
        out
    }

    /// RFC 4180. A text that a spreadsheet would take for a formula is told apart by an apostrophe.
    fn csv(&self) -> String {
        let groups = self.query.by.len();
        let mut out = String::new();
        for row in self.cells() {
            let cells = row
                .iter()
                .enumerate()
                .map(|(at, cell)| if at < groups { csv_cell(cell) } else { cell.clone() });
            out.push_str(&cells.collect::<Vec<_>>().join(","));
            out.push_str("\r\n");
        }
        out
    }
}

/// A name that a client chose may hold anything.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn csv_cell(text: &str) -> String {
    let text =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    match text.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// Pico-dollars in dollars, without zeros at the end.
pub fn usd(pico: u128) -> String {
    const PICO: u128 = 1_000_000_000_000;
    let text = format!("{}.{:012}", pico / PICO, pico % PICO);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A record as a line of JSON; what is unknown is left out.
pub fn record_json(record: &Record) -> Value {
    let usage = &record.usage;
    let provenance = match usage.provenance {
        Provenance::Provider => "provider",
        Provenance::Counted => "counted",
        Provenance::Estimated => "estimated",
    };
    let text = |text: &str| Some(json!(text)).filter(|_| !text.is_empty());
    let number = |number: Option<u64>| number.map(|number| json!(number));
    let members = [
        ("record", text(record.kind.name())),
        ("id", text(&record.id)),
        ("attempt", number(Some(u64::from(record.number)).filter(|&number| number > 0))),
        ("time", text(&shown(record.started_unix_ms))),
        ("key", text(&record.key)),
        ("team", text(&record.team)),
        ("organisation", text(&record.organisation)),
        ("model", text(&record.model)),
        ("provider", text(&record.provider)),
        ("model_sent", text(&record.model_sent)),
        ("surface", text(&record.surface)),
        ("dialect", text(&record.dialect)),
        ("tags", text(&record.tags)),
        ("client", record.client.map(|client| json!(client.to_string()))),
        ("stream", Some(json!(record.is_stream))),
        ("input_estimate", number(Some(record.input_estimate))),
        ("input_tokens", number(usage.input_total())),
        ("output_tokens", number(usage.output_total())),
        ("cache_read_tokens", number(usage.cache_read)),
        ("cache_write_tokens", number(usage.cache_write)),
        ("reasoning_tokens", number(usage.reasoning)),
        ("usage", text(provenance).filter(|_| !usage.is_unknown())),
        ("usage_flawed", Some(json!(true)).filter(|_| usage.flawed)),
        (COST, record.cost_pico.map(|pico| json!(usd(u128::from(pico))))),
        ("unpriced", Some(json!(true)).filter(|_| record.is_unpriced)),
        ("status", number(Some(u64::from(record.status)).filter(|&status| status > 0))),
        ("ended", text(&record.ended)),
        ("error", text(&record.error)),
        ("attempts", number(Some(u64::from(record.attempts)))),
        ("events", number(Some(record.events))),
        ("bytes_in", number(Some(record.bytes_in))),
        ("bytes_out", number(Some(record.bytes_out))),
    ];
    let known = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let steps = STEPS.iter().zip(record.steps_us).filter(|(_, micros)| *micros > 0);
    let steps = steps.map(|(name, micros)| (format!("{name}_us"), json!(micros)));
    Value::Object(known.chain(steps).collect())
}

fn column(name: &str) -> String {
    match name {
        "day" => "hour / 24".to_owned(),
        _ => name.to_owned(),
    }
}

/// A time as somebody wrote it, in milliseconds since 1970.
fn time(name: &str, text: Option<&str>, now_ms: u64) -> Result<Option<u64>, String> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let read = ago(text, now_ms).or_else(|| {
        let date = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
        let time = text.parse::<Timestamp>().ok().or_else(date)?;
        u64::try_from(time.as_millisecond()).ok()
    });
    read.map(Some).ok_or_else(|| {
        format!(
            "{name} is \"{}\"; allowed: a time ago (90m, 24h, 7d), a date (2026-11-01) or a time \
             (2026-11-01T10:00:00Z)",
            text.escape_default()
        )
    })
}

/// `24h` and the like.
fn ago(text: &str, now_ms: u64) -> Option<u64> {
    let unit_ms = match text.chars().next_back()? {
        'm' => 60_000,
        'h' => MS_IN_HOUR,
        'd' => 24 * MS_IN_HOUR,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    Some(now_ms.saturating_sub(count.checked_mul(unit_ms)?))
}

fn shown(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(Timestamp::MAX).to_string()
}

/// Percent-encoding undone.
pub(in crate::control) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|&digit| (digit as char).to_digit(16));
        rest = after;
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
