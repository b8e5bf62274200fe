//! Sums of records by hour and by what they are of, on their way to the roll-ups.
//!
//! Input: records, each once. Output: per hour (of the request's start, UTC) and combination of [`DIMENSIONS`] the
//! [`VALUES`]. Tokens are totals as `Usage` computes them, whatever way a provider counts its cache. An attempt
//! that was passed over adds to attempts, tokens and cost, and is no request. Absent: durability, bounds; the
//! owner empties it every second.

use crate::usage::ledger::{Kind, Record};
use std::collections::HashMap;

/// What records are told apart by, beside the hour.
pub const DIMENSIONS: [&str; 10] =
    ["key", "team", "organisation", "model", "model_sent", "provider", "dialect", "status", "ended", "tags"];

/// What is summed. The cost is in two parts, since SQLite's integers end at nine million dollars in pico-dollars:
/// whole micro-dollars, and pico-dollars beside them.
pub const VALUES: [&str; 12] = [
    "requests",
    "attempts",
    "crashed",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_micro",
    "cost_pico",
    "estimated",
    "unpriced",
];

/// By [`VALUES`].
pub type Values = [u64; VALUES.len()];

pub const PICO_IN_MICRO: u64 = 1_000_000;
pub const MS_IN_HOUR: u64 = 3_600_000;

/// Behind each text of a key: no text has it.
const END: u8 = 0xff;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Sums {
    entries: HashMap<Vec<u8>, Values>,
    key: Vec<u8>,
}

impl Sums {
    /// Adds one record.
    pub fn add(&mut self, record: &Record) {
        self.key.clear();
        self.key.extend_from_slice(&(record.started_unix_ms / MS_IN_HOUR).to_le_bytes());
        let texts = [
            &*record.key,
            &*record.team,
            &*record.organisation,
            &*record.model,
            &*record.model_sent,
            &*record.provider,
            &*record.dialect,
            class(record.status),
            &*record.ended,
            &*record.tags,
        ];
        for text in texts {
            self.key.extend_from_slice(text.as_bytes());
            self.key.push(END);
        }
        let values = values_of(record);
        match self.entries.get_mut(self.key.as_slice()) {
            Some(sums) => {
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.saturating_add(value))
            }
            None => drop(self.entries.insert(self.key.clone(), values)),
        }
    }

    /// How many combinations there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Every combination: the hour, the dimensions (as [`dimensions_in`] reads them), the values.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &[u8], &Values)> {
        self.entries.iter().filter_map(|(key, values)| {
            let (hour, dimensions) = key.split_first_chunk()?;
            Some((u64::from_le_bytes(*hour), dimensions, values))
        })
    }
}

/// The texts of a key, by [`DIMENSIONS`].
pub fn dimensions_in(key: &[u8]) -> [&str; DIMENSIONS.len()] {
    let mut texts = key.split(|&byte| byte == END).map(|text| std::str::from_utf8(text).unwrap_or_default());
    std::array::from_fn(|_| texts.next().unwrap_or_default())
}

fn values_of(record: &Record) -> Values {
    let is_attempt = record.kind == Kind::Attempt;
    let is_crash = record.kind == Kind::Crash;
    let usage = &record.usage;
    let cost = record.cost_pico.unwrap_or(0);
    [
        u64::from(!is_attempt),
        u64::from(is_attempt || is_crash || record.attempts > 0),
        u64::from(is_crash),
        usage.input_total().unwrap_or(0),
        usage.output_total().unwrap_or(0),
        usage.cache_read.unwrap_or(0),
        usage.cache_write.unwrap_or(0),
        usage.reasoning.unwrap_or(0),
        cost / PICO_IN_MICRO,
        cost % PICO_IN_MICRO,
        u64::from(record.is_estimated()),
        u64::from(record.is_unpriced),
    ]
}

fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::{Sums, dimensions_in};
    use crate::usage::Usage;
    use crate::usage::ledger::{Kind, Record};

    #[test]
    fn records_are_summed_by_hour_and_dimensions_and_attempts_are_no_requests() {
        let request = Record {
            key: "ci".to_owned(),
            started_unix_ms: 7_200_001,
            status: 200,
            attempts: 2,
            usage: Usage { input: Some(5), output: Some(2), ..Usage::default() },
            cost_pico: Some(3_000_007),
            ..Record::default()
        };
        let attempt = Record { kind: Kind::Attempt, attempts: 1, cost_pico: None, ..request.clone() };
        let crash = Record { kind: Kind::Crash, status: 0, attempts: 0, ..request.clone() };
        let refused = Record { status: 429, attempts: 0, started_unix_ms: 0, ..Record::default() };
        let mut sums = Sums::default();
        [&request, &request, &attempt, &crash, &refused].into_iter().for_each(|record| sums.add(record));
        let mut rows: Vec<_> = sums
            .entries()
            .map(|(hour, key, values)| (hour, dimensions_in(key)[0], dimensions_in(key)[7], *values))
            .collect();
        rows.sort();
        let expected = [
            (0, "", "4xx", [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (2, "ci", "2xx", [2, 3, 0, 15, 6, 0, 0, 0, 6, 14, 0, 0]),
            (2, "ci", "none", [1, 1, 1, 5, 2, 0, 0, 0, 3, 7, 1, 0]),
        ];
        assert_eq!(rows, expected);
        sums.clear();
        assert!(sums.is_empty());
    }
}
