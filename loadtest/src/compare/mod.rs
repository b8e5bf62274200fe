//! Compare: the same scenario against several targets in turn, round after round, so that a noisy machine
//! cancels out.
//!
//! Each round runs every target once, starting with another one each time. Figures are compared within a
//! round, as ratios to the first target; a verdict is given only where all rounds agree on its sign
//! (`ratio`).
//! Targets that are named by an adapter are started before the first round and stopped after the last.

pub mod adapter;
pub mod added;
pub mod change;
pub mod ratio;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::measure::result::{FORMAT, RunResult};
use crate::mock;
use crate::mock::script::Script;
use crate::net::clock::{unix_s, utc};
use crate::net::process;
use crate::net::stream::Address;
use crate::run::target::{Target, Trust};
use crate::run::{Options, run};
use crate::scenario::Scenario;
use adapter::{Adapter, Gateway, Place};

/// One target of a compare, as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Participant {
    /// The mock itself, without a gateway.
    Direct,
    Adapter(String),
    /// Something that already runs: `NAME=URL` or `NAME=URL@PID+PID`.
    Running {
        name: String,
        url: String,
        pids: Vec<u32>,
    },
}

impl std::str::FromStr for Participant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, url)) = text.split_once('=') else {
            return Ok(if text == DIRECT { Self::Direct } else { Self::Adapter(text.to_owned()) });
        };
        let (url, pids) = url.split_once('@').unwrap_or((url, ""));
        let wrong = |_| format!("{text:?}: need NAME=URL@PID+PID, the process ids as numbers");
        let pids = pids.split('+').filter(|pid| !pid.is_empty()).map(str::parse);
        let pids = pids.collect::<Result<_, _>>().map_err(wrong)?;
        Ok(Self::Running { name: name.to_owned(), url: url.to_owned(), pids })
    }
}

impl Participant {
    pub fn name(&self) -> &str {
        match self {
            Self::Direct => DIRECT,
            Self::Adapter(name) | Self::Running { name, .. } => name,
        }
    }
}

pub struct Plan {
    pub participants: Vec<Participant>,
    pub scenario: Scenario,
    pub rounds: usize,
    pub adapters: PathBuf,
    /// Core of the gateways; `None`: not pinned.
    pub gateway_core: Option<usize>,
    pub mock_cores: Vec<usize>,
    /// Port of the mock; 0: any.
    pub mock_port: u16,
    pub tls: Tls,
    /// Cores, keys and progress of each run; its target and processes are set per participant.
    pub base: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Off,
    /// TLS 1.3 between client and gateway and between gateway and mock.
    BothSides,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CompareResult {
    pub format: u32,
    pub kind: String,
    pub scenario: String,
    pub started_at: String,
    pub command: String,
    pub participants: Vec<String>,
    /// Per round, one result per participant, in their order.
    pub rounds: Vec<Vec<RunResult>>,
}

pub const KIND: &str = "compare";
/// The name of the mock among the participants.
pub const DIRECT: &str = "direct";

/// Runs all rounds. The error is a line for the user.
pub fn compare(plan: &Plan) -> Result<CompareResult, String> {
    if plan.participants.len() < 2 {
        return Err("compare: need at least two targets".to_owned());
    }
    let state = std::env::temp_dir().join(format!("tollgate-load-{}", std::process::id()));
    std::fs::create_dir_all(&state).map_err(|error| format!("{}: {error}", state.display()))?;
    let outcome = compare_in(plan, &state);
    // Logs are kept where something went wrong.
    if outcome.is_ok() {
        let _ = std::fs::remove_dir_all(&state);
    }
    outcome
}

fn compare_in(plan: &Plan, state: &std::path::Path) -> Result<CompareResult, String> {
    let tls = match plan.tls {
        Tls::Off => None,
        Tls::BothSides => Some(adapter::certificate(state)?),
    };
    let config = mock::Config {
        listen: vec![Address::Ip(([127, 0, 0, 1], plan.mock_port).into())],
        cores: plan.mock_cores.clone(),
        script: Script::default(),
        faults: Vec::new(),
        key: None,
        tls: tls.as_ref().map(|files| files.server()).transpose()?.map(Arc::new),
    };
    let mock = mock::start(&config)?;
    let mut gateways = Vec::new();
    let mut targets = Vec::new();
    for participant in &plan.participants {
        targets.push(options(plan, participant, &mock, state, tls.as_ref(), &mut gateways)?);
    }
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        rounds.push(one_round(&plan.scenario, &targets, round, plan.rounds)?);
    }
    for gateway in gateways {
        gateway.stop()?;
    }
    mock.stop();
    Ok(CompareResult {
        format: FORMAT,
        kind: KIND.to_owned(),
        scenario: plan.scenario.name.clone(),
        started_at: utc(unix_s()),
        command: plan.base.command.clone(),
        participants: plan.participants.iter().map(|one| one.name().to_owned()).collect(),
        rounds,
    })
}

/// Runs the target and the mock behind it in turn, so that what the target adds can be told.
pub fn with_mock(scenario: &Scenario, options: &Options, rounds: usize) -> Result<CompareResult, String> {
    let mock = options.mock.clone().ok_or("--added: --mock URL is needed: it is asked directly in turn")?;
    let label = "target".to_owned();
    let rss_idle_bytes = Some(process::rss_bytes(&options.pids));
    let target = Options { label: label.clone(), rss_idle_bytes, ..options.clone() };
    let direct = Options { target: mock, pids: Vec::new(), label: DIRECT.to_owned(), ..options.clone() };
    let targets = [(direct, String::new()), (target, String::new())];
    let started_at = utc(unix_s());
    let rounds =
        (0..rounds).map(|round| one_round(scenario, &targets, round, rounds)).collect::<Result<_, _>>()?;
    Ok(CompareResult {
        format: FORMAT,
        kind: KIND.to_owned(),
        scenario: scenario.name.clone(),
        started_at,
        command: options.command.clone(),
        participants: vec![DIRECT.to_owned(), label],
        rounds,
    })
}

/// Every target once; round `n` starts with the n-th, so that none always runs on a machine warmed up by
/// another.
fn one_round(
    scenario: &Scenario,
    targets: &[(Options, String)],
    round: usize,
    rounds: usize,
) -> Result<Vec<RunResult>, String> {
    let mut results: Vec<Option<RunResult>> = targets.iter().map(|_| None).collect();
    for turn in 0..targets.len() {
        let place = (turn + round) % targets.len();
        let (options, model) = &targets[place];
        let mut scenario = scenario.clone();
        for load in &mut scenario.load {
            if !model.is_empty() {
                load.model.clone_from(model);
            }
        }
        if options.shows_progress {
            eprintln!("round {}/{rounds}: {}", round + 1, options.label);
        }
        let result = run(&scenario, options).map_err(|error| format!("{}: {error}", options.label))?;
        results[place] = Some(result);
    }
    Ok(results.into_iter().flatten().collect())
}

/// How one participant is run: its options, and the model that it knows (empty: the scenario's).
fn options(
    plan: &Plan,
    participant: &Participant,
    mock: &mock::Mock,
    state: &std::path::Path,
    tls: Option<&adapter::Certificate>,
    gateways: &mut Vec<Gateway>,
) -> Result<(Options, String), String> {
    let mut options = plan.base.clone();
    options.label = participant.name().to_owned();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mock_url = match &mock.addresses[0] {
        Address::Ip(ip) => format!("{scheme}://{ip}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    let parse = |url: &str| Target::parse(url, Trust::DangerAnyCertificate);
    let mut model = String::new();
    match participant {
        Participant::Direct => options.target = parse(&mock_url)?,
        Participant::Running { url, pids, .. } => {
            options.target = parse(url)?;
            options.pids.clone_from(pids);
        }
        Participant::Adapter(name) => {
            let adapter = Adapter::find(&plan.adapters, name)?;
            let Address::Ip(upstream) = &mock.addresses[0] else {
                return Err("an adapter needs the mock on a port".to_owned());
            };
            let place = Place {
                state: state.join(name),
                upstream_port: upstream.port(),
                core: plan.gateway_core,
                certificate: tls.cloned(),
                http: plan.scenario.http,
            };
            let gateway = adapter.start(&place)?;
            options.target = parse(&gateway.url)?;
            options.pids.clone_from(&gateway.pids);
            if let Some(key) = &gateway.key {
                options.keys = vec![key.clone()];
            }
            options.fields.extend(gateway.fields.iter().cloned());
            model = gateway.model.clone().unwrap_or_default();
            gateways.push(gateway);
        }
    }
    options.rss_idle_bytes = Some(process::rss_bytes(&options.pids));
    Ok((options, model))
}

#[cfg(test)]
mod tests {
    use super::Participant;

    #[test]
    fn targets_are_named_in_three_ways() {
        let running = |name: &str, url: &str, pids: &[u32]| Participant::Running {
            name: name.to_owned(),
            url: url.to_owned(),
            pids: pids.to_vec(),
        };
        assert_eq!("direct".parse(), Ok(Participant::Direct));
        assert_eq!("nginx".parse(), Ok(Participant::Adapter("nginx".to_owned())));
        assert_eq!("a=http://127.0.0.1:1".parse(), Ok(running("a", "http://127.0.0.1:1", &[])));
        assert_eq!("a=http://127.0.0.1:1@7+8".parse(), Ok(running("a", "http://127.0.0.1:1", &[7, 8])));
        assert!("a=http://127.0.0.1:1@x".parse::<Participant>().is_err());
    }
}
