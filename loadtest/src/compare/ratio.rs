//! Ratios between targets, round by round, and what may be said of them.
//!
//! A ratio compares two figures of the same round. All rounds on one side of 1 give a verdict; anything else
//! is "not shown", however far the median lies from 1. Fewer than three rounds never give one.

use crate::measure::result::{LoadResult, ProcessResult, RunResult, Summary};

pub const ROUNDS_MIN: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
    /// A time that callers see, of which a target adds a part.
    pub is_time: bool,
    pub of: fn(&RunResult) -> Option<f64>,
}

const fn lower(name: &'static str, unit: &'static str, of: fn(&RunResult) -> Option<f64>) -> Metric {
    Metric { name, unit, better: Better::Lower, is_time: false, of }
}

const fn higher(name: &'static str, unit: &'static str, of: fn(&RunResult) -> Option<f64>) -> Metric {
    Metric { name, unit, better: Better::Higher, is_time: false, of }
}

const fn seen(name: &'static str, of: fn(&RunResult) -> Option<f64>) -> Metric {
    Metric { name, unit: "us", better: Better::Lower, is_time: true, of }
}

/// Every figure that is compared; one that a scenario does not give is left out of its report.
pub const METRICS: &[Metric] = &[
    lower("CPU per request", "us", |r| r.process.as_ref()?.cpu_us_per_request),
    lower("CPU per event", "us", |r| streaming(r)?.cpu_us_per_event),
    lower("user CPU per event", "ns", |r| streaming(r)?.user_ns_per_event),
    higher("events per CPU-second", "1/s", |r| streaming(r)?.events_per_cpu_s),
    lower("memory per open stream", "KB", |r| streaming(r)?.rss_kb_per_stream),
    lower("memory idle", "MB", |r| {
        Some(r.process.as_ref()?.rss_idle_bytes as f64 / MB).filter(|mb| *mb > 0.0)
    }),
    lower("memory loaded", "MB", |r| Some(r.process.as_ref()?.rss_loaded_bytes as f64 / MB)),
    lower("memory after decay", "MB", |r| Some(r.process.as_ref()?.rss_decayed_bytes? as f64 / MB)),
    lower("switches per request", "", |r| r.process.as_ref()?.switches_per_request),
    higher("answers per second", "1/s", |r| Some(sum(r, |l| l.requests_per_s)).filter(|rate| *rate > 0.0)),
    higher("goodput", "1/s", |r| Some(sum(r, |l| l.good_per_s)).filter(|rate| *rate > 0.0)),
    higher("events per second", "1/s", |r| is_streaming(r).then(|| sum(r, |l| l.events_per_s))),
    higher("tokens per second", "1/s", |r| Some(sum(r, |l| l.tokens_per_s)).filter(|rate| *rate > 0.0)),
    seen("total p50", |r| time(r, |l| &l.total, |s| s.p50_us)),
    seen("total p99", |r| time(r, |l| &l.total, |s| s.p99_us)),
    seen("total p99.9", |r| time(r, |l| &l.total, |s| s.p999_us)),
    seen("TTFT p50", |r| time(r, |l| &l.ttft, |s| s.p50_us)),
    seen("TTFT p99", |r| time(r, |l| &l.ttft, |s| s.p99_us)),
    seen("event one way p50", |r| time(r, |l| &l.one_way, |s| s.p50_us)),
    seen("event one way p99", |r| time(r, |l| &l.one_way, |s| s.p99_us)),
    // Far above 1: events arrive in clumps, and figures per event are not those of lone events.
    lower("text events per read", "", |r| {
        let of = |l: &LoadResult| (l.counts.records, l.counts.reads);
        let (records, reads) = r
            .loads
            .iter()
            .filter(|load| streams(load))
            .map(of)
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (reads > 0).then(|| records as f64 / reads as f64)
    }),
    seen("gap p50", |r| time(r, |l| &l.gap, |s| s.p50_us)),
    seen("gap p99", |r| time(r, |l| &l.gap, |s| s.p99_us)),
];

const MB: f64 = 1024.0 * 1024.0;

fn is_streaming(result: &RunResult) -> bool {
    result.loads.iter().any(streams)
}

/// The measured process of a run with streams.
fn streaming(result: &RunResult) -> Option<&ProcessResult> {
    result.process.as_ref().filter(|_| is_streaming(result))
}

fn streams(load: &LoadResult) -> bool {
    load.shape.ends_with("-stream")
}

fn sum(result: &RunResult, of: fn(&LoadResult) -> f64) -> f64 {
    result.loads.iter().map(of).sum()
}

/// Of several loads the worst.
fn time(result: &RunResult, of: fn(&LoadResult) -> &Summary, at: fn(&Summary) -> f64) -> Option<f64> {
    let all = result.loads.iter().map(of).filter(|summary| summary.count > 0).map(at);
    all.reduce(f64::max)
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { min, median, max })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Better,
    Worse,
    NotShown,
}

impl Verdict {
    pub fn of(ratios: &Spread, rounds: usize, better: Better) -> Self {
        let is_lower = ratios.max < 1.0;
        let is_higher = ratios.min > 1.0;
        match (rounds >= ROUNDS_MIN, is_lower, is_higher) {
            (true, true, _) => {
                if better == Better::Lower {
                    Self::Better
                } else {
                    Self::Worse
                }
            }
            (true, _, true) => {
                if better == Better::Higher {
                    Self::Better
                } else {
                    Self::Worse
                }
            }
            _ => Self::NotShown,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NotShown => "not shown",
        }
    }
}

/// A figure with as many digits as say something.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One metric of one target against the baseline.
pub struct Row {
    pub metric: &'static Metric,
    pub participant: usize,
    /// The first row of its metric: names it.
    pub is_first: bool,
    pub own: Spread,
    /// `None` for the baseline itself, and where it lacks the figure.
    pub ratio: Option<(Spread, Verdict)>,
}

/// A metric of a participant by that of the base, for each round that has both.
pub fn ratios(rounds: &[Vec<RunResult>], metric: &Metric, participant: usize) -> Vec<f64> {
    let ratio = |round: &Vec<RunResult>| {
        let (base, value) = ((metric.of)(round.first()?)?, (metric.of)(round.get(participant)?)?);
        (base > 0.0).then(|| value / base)
    };
    rounds.iter().filter_map(ratio).collect()
}

/// Rows of every metric that the rounds have, participants in order.
pub fn rows(rounds: &[Vec<RunResult>]) -> Vec<Row> {
    let participants = rounds.first().map_or(0, Vec::len);
    let mut rows = Vec::new();
    for metric in METRICS {
        let mut is_first = true;
        for participant in 0..participants {
            let own: Vec<f64> = rounds.iter().filter_map(|round| (metric.of)(&round[participant])).collect();
            let Some(own) = Spread::of(own) else { continue };
            let ratios = ratios(rounds, metric, participant);
            let count = ratios.len();
            let ratio = Spread::of(ratios).filter(|_| participant > 0);
            let ratio = ratio.map(|ratios| (ratios, Verdict::of(&ratios, count, metric.better)));
            rows.push(Row { metric, participant, is_first, own, ratio });
            is_first = false;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::{Better, Spread, Verdict};

    #[test]
    fn a_verdict_needs_three_rounds_that_agree() {
        let spread = |values: &[f64]| Spread::of(values.to_vec()).expect("values");
        let rows: [(&[f64], Better, Verdict); 6] = [
            (&[0.8, 0.9, 0.99], Better::Lower, Verdict::Better),
            (&[0.8, 0.9, 0.99], Better::Higher, Verdict::Worse),
            (&[0.8, 0.9, 1.01], Better::Lower, Verdict::NotShown),
            (&[0.1, 0.1, 1.0], Better::Lower, Verdict::NotShown),
            (&[1.1, 1.2, 1.3], Better::Lower, Verdict::Worse),
            (&[0.5, 0.5], Better::Lower, Verdict::NotShown),
        ];
        for (values, better, verdict) in rows {
            assert_eq!(Verdict::of(&spread(values), values.len(), better), verdict, "{values:?}");
        }
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).expect("values");
        assert_eq!(spread, Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
