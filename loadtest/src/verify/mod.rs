//! Properties of a gateway that no speed makes up for, each with its evidence: `tollgate-load verify`.
//!
//! The gateway's provider must be a mock of this suite, whose counters are the other half of the truth. A
//! property that needs something which was not given (a process id, a reload command) is skipped, and says
//! so.

pub mod properties;

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::measure::result::RunResult;
use crate::mock::stats::Totals;
use crate::run::coordinate::totals;
use crate::run::target::Target;
use crate::run::{Options, run};
use crate::scenario::{Http, Scenario, Shape};

pub struct Plan {
    /// Target, keys, cores, mock (needed) and process ids.
    pub base: Options,
    pub model: Option<String>,
    /// Streaming shapes that the gateway shall carry.
    pub shapes: Vec<Shape>,
    /// What its clients speak.
    pub http: Http,
    /// Streams at once of the integrity check.
    pub streams: usize,
    pub duration_s: f64,
    /// An upstream must be freed so soon after its client left.
    pub cancel_within_ms: u64,
    /// Memory must be back at this multiple of idle, after `decay_s`.
    pub decay_factor: f64,
    pub decay_s: f64,
    /// The p99 of a modest load may grow by this factor beside a runaway client, or to `runaway_p99_ms`.
    pub runaway_factor: f64,
    pub runaway_p99_ms: f64,
    /// Shell commands that make the gateway reload, and restart without loss.
    pub reload: Option<String>,
    pub restart: Option<String>,
    /// Only properties whose name contains this.
    pub only: String,
}

impl Plan {
    /// The shape of properties that need one stream shape.
    fn stream_shape(&self) -> Shape {
        self.shapes.first().copied().unwrap_or(Shape::ChatStream)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Pass,
    Fail,
    Skip,
}

/// What was found about one property.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub property: &'static str,
    pub status: Status,
    pub evidence: String,
}

/// What was found, and why.
type Found = (Status, String);
type Check = fn(&Plan, &Target) -> Result<Found, String>;

const CHECKS: [(&str, Check); 8] = [
    ("integrity of events", properties::integrity),
    ("events are not held back", properties::promptness),
    ("one call upstream per request", properties::one_call_per_request),
    ("a client that leaves frees the upstream", properties::disconnect),
    ("slow readers do not grow memory", properties::slow_readers),
    ("memory decays after load", properties::memory_decay),
    ("a runaway client does not hurt others", properties::runaway_client),
    // Last: it may replace the processes that the others measure.
    ("reload and restart under load lose nothing", properties::reload),
];

fn found(holds: bool, evidence: String) -> Found {
    (if holds { Status::Pass } else { Status::Fail }, evidence)
}

fn skipped(reason: &str) -> Found {
    (Status::Skip, reason.to_owned())
}

/// Checks every property in order; `on_found` is told each as it is known.
pub fn verify(plan: &Plan, mut on_found: impl FnMut(&Finding)) -> Result<Vec<Finding>, String> {
    let mock = plan
        .base
        .mock
        .clone()
        .ok_or("verify: --mock URL is needed: its counters are half of the evidence")?;
    totals(&mock)?;
    let mut findings = Vec::new();
    for (name, check) in CHECKS.iter().filter(|(name, _)| name.contains(&plan.only)) {
        let (status, evidence) = check(plan, &mock)?;
        let finding = Finding { property: name, status, evidence };
        on_found(&finding);
        findings.push(finding);
    }
    if findings.is_empty() {
        let names: Vec<_> = CHECKS.iter().map(|(name, _)| *name).collect();
        return Err(format!("verify: no property is called {:?}: there are {}", plan.only, names.join("; ")));
    }
    Ok(findings)
}

/// One load of a verify run.
struct Trial<'a> {
    shape: Shape,
    rate: &'a str,
    answer: &'a str,
    more: &'a str,
    duration_s: f64,
}

impl Trial<'_> {
    /// The scenario as a file would state it; everything counts from the first send.
    fn scenario(&self, plan: &Plan) -> Result<Scenario, String> {
        let Self { rate, answer, more, duration_s, .. } = self;
        let shape = self.shape.name();
        let text = format!(
            "question = 'verify'\npasses_when = ''\nwarmup_s = 0\nduration_s = {duration_s}\ntimeout_s = 30\n\
             drain_s = 30\n[[load]]\nname = 'verify'\nshape = '{shape}'\nrate = {rate}\nanswer = {answer}\n{more}\n"
        );
        let mut scenario = Scenario::parse(&text)?;
        scenario.http = plan.http;
        if let Some(model) = &plan.model {
            scenario.load.iter_mut().for_each(|load| load.model.clone_from(model));
        }
        Ok(scenario)
    }

    /// For loads beside which the gateway's processes may change.
    fn run_unmeasured(&self, plan: &Plan) -> Result<RunResult, String> {
        run(&self.scenario(plan)?, &Options { mock: None, pids: Vec::new(), ..plan.base.clone() })
    }

    fn run(&self, plan: &Plan) -> Result<RunResult, String> {
        run(&self.scenario(plan)?, &Options { mock: None, ..plan.base.clone() })
    }
}

/// Polls the mock until `holds`; gives the time it took.
fn await_mock(
    mock: &Target,
    limit: Duration,
    holds: impl Fn(&Totals) -> bool,
) -> Result<Option<Duration>, String> {
    let start = Instant::now();
    loop {
        if holds(&totals(mock)?) {
            return Ok(Some(start.elapsed()));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
