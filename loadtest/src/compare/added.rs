//! What a target adds to the mock alone: differences to `direct`, taken within a round.
//!
//! Input: rounds in which one participant is the mock itself. Output: per time and target the median and
//! the range of the differences in microseconds. A difference of percentiles is not the percentile of the
//! differences, which nobody can measure from outside; it may be negative where noise is larger.

use super::ratio::{METRICS, Metric, Spread};
use crate::measure::result::RunResult;

/// One time of one target.
pub struct Row {
    pub metric: &'static Metric,
    pub participant: usize,
    pub spread: Spread,
}

/// Rows of every time that target and mock both have; `direct` is the mock's place.
pub fn rows(rounds: &[Vec<RunResult>], direct: usize) -> Vec<Row> {
    let participants = rounds.first().map_or(0, Vec::len);
    let mut rows = Vec::new();
    for metric in METRICS.iter().filter(|metric| metric.is_time) {
        for participant in (0..participants).filter(|participant| *participant != direct) {
            let added = |round: &Vec<RunResult>| {
                Some((metric.of)(round.get(participant)?)? - (metric.of)(round.get(direct)?)?)
            };
            if let Some(spread) = Spread::of(rounds.iter().filter_map(added).collect()) {
                rows.push(Row { metric, participant, spread });
            }
        }
    }
    rows
}

/// The place of the mock among the participants.
pub fn direct(participants: &[String]) -> Option<usize> {
    participants.iter().position(|name| name == super::DIRECT)
}
