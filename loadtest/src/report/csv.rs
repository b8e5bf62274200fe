//! The figures as CSV: one line per target, round, load and figure, so that any tool can pivot them.
//!
//! Columns: scenario, target, round, load, figure, unit, value. Process figures have an empty load.

use std::fmt::Write as _;

use crate::compare::ratio::METRICS;
use crate::measure::result::{RunResult, Summary};

const HEAD: &str = "scenario,target,round,load,figure,unit,value\n";

/// `rounds` of results; a single run is one round of one.
pub fn of(rounds: &[Vec<RunResult>]) -> String {
    let mut out = HEAD.to_owned();
    for (number, round) in rounds.iter().enumerate() {
        for result in round {
            let target = if result.label.is_empty() { &result.target } else { &result.label };
            let start = format!("{},{},{}", field(&result.scenario), field(target), number + 1);
            of_run(result, &start, &mut out);
        }
    }
    out
}

fn of_run(result: &RunResult, start: &str, out: &mut String) {
    for metric in METRICS {
        if let Some(value) = (metric.of)(result) {
            let _ = writeln!(out, "{start},,{},{},{value}", field(metric.name), field(metric.unit));
        }
    }
    for load in &result.loads {
        let name = field(&load.name);
        let counts = load.counts;
        let rows = [
            ("completed", counts.completed),
            ("failed", counts.failed),
            ("unfinished", counts.unfinished),
            ("good", counts.good),
            ("events", counts.events),
            ("records", counts.records),
            ("integrity faults", load.faults.total()),
        ];
        for (figure, value) in rows {
            let _ = writeln!(out, "{start},{name},{figure},,{value}");
        }
        for (class, error) in &load.errors {
            let _ = writeln!(out, "{start},{name},{},,{}", field(&format!("error: {class}")), error.count);
        }
        let times =
            [("total", &load.total), ("ttft", &load.ttft), ("gap", &load.gap), ("one way", &load.one_way)];
        for (figure, summary) in times.iter().filter(|(_, summary)| summary.count > 0) {
            let Summary { p50_us, p90_us, p99_us, p999_us, max_us, .. } = summary;
            let rows =
                [("p50", p50_us), ("p90", p90_us), ("p99", p99_us), ("p99.9", p999_us), ("max", max_us)];
            for (quantile, value) in rows {
                let _ = writeln!(out, "{start},{name},{figure} {quantile},us,{value}");
            }
        }
    }
}

/// A value as CSV wants it (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_with_a_comma_or_a_quote_is_quoted() {
        assert_eq!(field("a b"), "a b");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
