//! Old against new: did a change make anything worse? For CI, with an exit status.
//!
//! Two compares: ratios to their base are compared, so the machine cancels out, and a figure is worse when
//! the ranges of its ratios do not overlap and the medians differ by more than the tolerance.
//! Two runs: figures themselves, which only the tolerance guards; use compares where the machine is not
//! quiet.

use serde::Deserialize;

use super::ratio::{Better, METRICS, Spread, ratios};
use super::{CompareResult, KIND};
use crate::measure::result::{FORMAT, RunResult};

/// A result file of either kind.
pub enum Results {
    Run(Box<RunResult>),
    Compare(Box<CompareResult>),
}

impl Results {
    pub fn read(path: &std::path::Path) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Kind {
            format: u32,
            #[serde(default)]
            kind: String,
        }
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
        let kind: Kind = serde_json::from_str(&text)
            .map_err(|error| told(&format!("not a result of tollgate-load: {error}")))?;
        if kind.format != FORMAT {
            return Err(told(&format!("format {}: this build reads {FORMAT}", kind.format)));
        }
        if kind.kind == KIND {
            return serde_json::from_str(&text).map(Self::Compare).map_err(|error| told(&error));
        }
        serde_json::from_str(&text).map(Self::Run).map_err(|error| told(&error))
    }
}

/// One figure that both results have.
#[derive(Debug, PartialEq)]
pub struct Change {
    pub target: String,
    pub figure: &'static str,
    pub old: Spread,
    pub new: Spread,
    /// New median by old median.
    pub factor: f64,
    pub is_worse: bool,
}

/// `tolerance` 0.05 lets the median be 5 % worse.
pub fn changes(old: &Results, new: &Results, tolerance: f64) -> Result<Vec<Change>, String> {
    let (old, new) = match (old, new) {
        (Results::Run(old), Results::Run(new)) => {
            let figures = |run: &RunResult| one_run(run);
            (figures(old), figures(new))
        }
        (Results::Compare(old), Results::Compare(new)) => {
            if old.participants[0] != new.participants[0] {
                let (old, new) = (&old.participants[0], &new.participants[0]);
                return Err(format!("the old compare has base {old:?}, the new one {new:?}: need the same"));
            }
            (all_ratios(old), all_ratios(new))
        }
        _ => return Err("a run and a compare: need two of the same kind".to_owned()),
    };
    let mut changes = Vec::new();
    for (target, place, new) in new {
        let Some((_, _, old)) = old.iter().find(|(t, p, _)| *t == target && *p == place) else { continue };
        let metric = &METRICS[place];
        let factor = new.median / old.median;
        let is_worse = match metric.better {
            Better::Lower => factor > 1.0 + tolerance && new.min > old.max,
            Better::Higher => factor < 1.0 - tolerance && new.max < old.min,
        };
        changes.push(Change { target, figure: metric.name, old: *old, new, factor, is_worse });
    }
    if changes.is_empty() {
        return Err("the two results have no target and figure in common".to_owned());
    }
    Ok(changes)
}

type Figures = Vec<(String, usize, Spread)>;

fn one_run(run: &RunResult) -> Figures {
    let value = |(place, metric): (usize, &super::ratio::Metric)| {
        let value = (metric.of)(run).filter(|value| *value > 0.0)?;
        Some((run.scenario.clone(), place, Spread { min: value, median: value, max: value }))
    };
    METRICS.iter().enumerate().filter_map(value).collect()
}

fn all_ratios(compare: &CompareResult) -> Figures {
    let mut figures = Vec::new();
    for (participant, name) in compare.participants.iter().enumerate().skip(1) {
        for (place, metric) in METRICS.iter().enumerate() {
            let ratios =
                ratios(&compare.rounds, metric, participant).into_iter().filter(|ratio| *ratio > 0.0);
            if let Some(spread) = Spread::of(ratios.collect()) {
                figures.push((name.clone(), place, spread));
            }
        }
    }
    figures
}
