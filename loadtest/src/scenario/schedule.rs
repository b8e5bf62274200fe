//! Planned sends: when each request of a load shall leave, in nanoseconds from the start of the run.
//!
//! Open loop: the plan does not look at answers. `n` threads share a load: each takes every n-th send.
//! A `hold` or closed load has a first plan for each place, and the owner plans the next send when one ends.

use std::path::Path;

use serde::Deserialize;

use crate::net::clock::{NS_PER_MS, NS_PER_S};
use crate::scenario::Rate;

/// One thread's share of a load's plan.
pub enum Schedule {
    /// The next send and how to get to the one after it.
    Rate { next_ns: u64, number: u64, step: u64, pace: Pace },
    /// Fixed times, ascending; `at` is the next.
    Times { times: Vec<u64>, at: usize, step: usize },
}

pub enum Pace {
    Constant {
        gap_ns: f64,
    },
    /// Gaps are drawn from an exponential distribution.
    Poisson {
        gap_ns: f64,
        random: fastrand::Rng,
    },
    Ramp {
        from_per_s: f64,
        to_per_s: f64,
        over_s: f64,
    },
    Step {
        per_s: Vec<f64>,
        each_s: f64,
    },
}

impl Schedule {
    /// Thread `place` of `threads`. `over_s` is the run's whole length, for ramps.
    pub fn new(rate: &Rate, place: usize, threads: usize, over_s: f64) -> Result<Self, String> {
        let (place_ns, step) = (place as u64, threads as u64);
        let paced = |pace: Pace| {
            let mut schedule = Self::Rate { next_ns: 0, number: 0, step, pace };
            schedule.skip(place_ns);
            schedule
        };
        Ok(match rate {
            Rate::Constant { per_s } => paced(Pace::Constant { gap_ns: NS_PER_S as f64 / per_s }),
            Rate::Poisson { per_s } => {
                // Independent streams of arrivals add up to one, so each thread draws its own.
                let gap_ns = NS_PER_S as f64 / per_s * threads as f64;
                let random = fastrand::Rng::with_seed(place_ns + 1);
                let pace = Pace::Poisson { gap_ns, random };
                let mut schedule = Self::Rate { next_ns: 0, number: 0, step: 1, pace };
                schedule.skip(1);
                schedule
            }
            Rate::Ramp { from_per_s, to_per_s } => {
                paced(Pace::Ramp { from_per_s: *from_per_s, to_per_s: *to_per_s, over_s })
            }
            Rate::Step { per_s, each_s } => paced(Pace::Step { per_s: per_s.clone(), each_s: *each_s }),
            Rate::Trace { file } => {
                let times = read_trace(file)?.into_iter().map(|line| line.at_ns()).collect();
                Self::Times { times, at: place, step: threads }
            }
            Rate::Hold { streams, ramp_s } => {
                let gap_ns = ramp_s * NS_PER_S as f64 / *streams as f64;
                let times = (0..*streams).map(|number| (number as f64 * gap_ns) as u64).collect();
                Self::Times { times, at: place, step: threads }
            }
            Rate::Closed { clients } => Self::Times { times: vec![0; *clients], at: place, step: threads },
        })
    }

    /// When the next send is planned; `None` when the plan is at its end.
    pub fn peek_ns(&self) -> Option<u64> {
        match self {
            Self::Rate { next_ns, .. } => Some(*next_ns),
            Self::Times { times, at, .. } => times.get(*at).copied(),
        }
    }

    /// Takes the next send; gives its number within the load.
    pub fn take(&mut self) -> usize {
        match self {
            Self::Rate { step, number, .. } => {
                let (taken, step) = (*number as usize, *step);
                self.skip(step);
                taken
            }
            Self::Times { at, step, .. } => {
                *at += *step;
                *at - *step
            }
        }
    }

    fn skip(&mut self, count: u64) {
        let Self::Rate { next_ns, number, pace, .. } = self else { return };
        *number += count;
        *next_ns = match pace {
            Pace::Constant { gap_ns } => (*number as f64 * *gap_ns) as u64,
            Pace::Poisson { gap_ns, random } => {
                let gap: f64 = (0..count).map(|_| -(1.0 - random.f64()).ln() * *gap_ns).sum();
                *next_ns + gap as u64
            }
            Pace::Ramp { from_per_s, to_per_s, over_s } => {
                ramp_ns(*number as f64, *from_per_s, *to_per_s, *over_s)
            }
            Pace::Step { per_s, each_s } => step_ns(*number as f64, per_s, *each_s),
        };
    }
}

/// When send `number` is due if the rate grows linearly: the number sent by time t is the rate's integral.
fn ramp_ns(number: f64, from: f64, to: f64, over_s: f64) -> u64 {
    let slope = (to - from) / over_s;
    let seconds = if slope.abs() < 1e-9 {
        number / to.max(1e-9)
    } else {
        let root = from * from + 2.0 * slope * number;
        // A falling ramp sends a last time where its rate would reach zero.
        if root < 0.0 { over_s * 1e6 } else { (root.sqrt() - from) / slope }
    };
    (seconds * NS_PER_S as f64) as u64
}

fn step_ns(number: f64, per_s: &[f64], each_s: f64) -> u64 {
    let (mut rest, mut start_s) = (number, 0.0);
    for (place, rate) in per_s.iter().enumerate() {
        // The last rate goes on to the end of the run.
        if rest < rate * each_s || place + 1 == per_s.len() {
            return ((start_s + rest / rate) * NS_PER_S as f64) as u64;
        }
        rest -= rate * each_s;
        start_s += each_s;
    }
    u64::MAX
}

/// One line of a trace file (JSON lines).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceLine {
    pub t_ms: f64,
    #[serde(default)]
    pub method: Option<String>,
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Sent as it is; without it the load's shape makes one.
    #[serde(default)]
    pub body: Option<serde_json::Value>,
    #[serde(default)]
    pub shape: Option<super::Shape>,
    /// Size of the body that the shape makes.
    #[serde(default)]
    pub bytes: Option<usize>,
}

impl TraceLine {
    pub fn at_ns(&self) -> u64 {
        (self.t_ms.max(0.0) * NS_PER_MS as f64) as u64
    }
}

/// Reads a trace; its lines must be in order of time.
pub fn read_trace(path: &Path) -> Result<Vec<TraceLine>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut lines: Vec<TraceLine> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{}:{}", path.display(), number + 1);
        let line: TraceLine = serde_json::from_str(line).map_err(|error| format!("{place}: {error}"))?;
        if lines.last().is_some_and(|last| last.t_ms > line.t_ms) {
            return Err(format!("{place}: t_ms = {} is before the line above", line.t_ms));
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return Err(format!("{}: a trace without lines", path.display()));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use crate::net::clock::NS_PER_S;
    use crate::scenario::Rate;

    fn times(rate: &Rate, threads: usize, until_s: f64) -> Vec<u64> {
        let mut all = Vec::new();
        for place in 0..threads {
            let mut schedule = Schedule::new(rate, place, threads, 10.0).expect("a plan");
            while let Some(next) =
                schedule.peek_ns().filter(|next| *next < (until_s * NS_PER_S as f64) as u64)
            {
                all.push(next);
                schedule.take();
            }
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn threads_share_a_constant_rate_evenly() {
        let rate = Rate::Constant { per_s: 1000.0 };
        let one = times(&rate, 1, 1.0);
        assert_eq!((one.len(), one[1]), (1000, 1_000_000));
        assert_eq!(times(&rate, 3, 1.0), one);
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_spread() {
        for threads in [1, 3] {
            let all = times(&Rate::Poisson { per_s: 1000.0 }, threads, 10.0);
            assert!((9_600..10_400).contains(&all.len()), "{}", all.len());
            let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let deviation =
                (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
            assert!((0.95..1.05).contains(&(deviation / mean)), "{deviation} {mean}");
        }
    }

    #[test]
    fn a_ramp_sends_its_integral_and_a_step_its_sums() {
        let ramp = times(&Rate::Ramp { from_per_s: 0.0, to_per_s: 1000.0 }, 2, 10.0);
        assert!((4990..=5001).contains(&ramp.len()), "{}", ramp.len());
        let half = ramp.partition_point(|at| *at < 5 * NS_PER_S);
        assert!((1240..=1260).contains(&half), "{half}");
        let falling = times(&Rate::Ramp { from_per_s: 1000.0, to_per_s: 1.0 }, 1, 10.0);
        assert!((4990..=5010).contains(&falling.len()), "{}", falling.len());
        let step = times(&Rate::Step { per_s: vec![100.0, 300.0], each_s: 1.0 }, 2, 3.0);
        assert_eq!(step.partition_point(|at| *at < NS_PER_S), 100);
        assert_eq!(step.len(), 700);
    }

    #[test]
    fn a_hold_opens_each_place_once_over_its_ramp() {
        let all = times(&Rate::Hold { streams: 10, ramp_s: 1.0 }, 3, 5.0);
        assert_eq!((all.len(), all[0], all[9]), (10, 0, 900_000_000));
    }
}
