//! The commands: arguments to options, outcome to exit code.

use std::path::Path;
use std::sync::Arc;

use super::{
    CompareArgs, EXIT_FAILED, EXIT_SATURATED, LoadArgs, MergeArgs, MockArgs, OutputArgs, ReportArgs, RunArgs,
    VerifyArgs,
};
use crate::compare::change::{self, Results};
use crate::compare::{self, Tls};
use crate::measure::merge as merge_results;
use crate::measure::result::{CPU_SHARE_MAX, LAG_P99_US_MAX, RunResult};
use crate::mock;
use crate::mock::script::Script;
use crate::net::stream::server_tls;
use crate::net::thread;
use crate::report::{csv, html, table};
use crate::run::target::{Target, Trust};
use crate::run::{Options, run as run_scenario};
use crate::scenario::{Rate, Scenario, Shape};
use crate::verify as verifier;

pub fn mock(args: &MockArgs) -> Result<u8, String> {
    thread::raise_file_limit();
    let listen = args.listen.iter().map(|address| address.parse()).collect::<Result<Vec<_>, _>>()?;
    let mut script = Script::default();
    script.apply(&args.script)?;
    let mut faults = Vec::new();
    for pair in &args.fault {
        let (fault, probability) = pair.split_once('=').unwrap_or((pair, "1"));
        let probability = probability.parse().ok().filter(|value| (0.0..=1.0).contains(value));
        let probability =
            probability.ok_or_else(|| format!("--fault {pair}: need a probability from 0 to 1"))?;
        faults.push((fault.parse()?, probability));
    }
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => Some(Arc::new(server_tls(chain, key)?)),
        _ => None,
    };
    let cores = args.cores.clone();
    let mock = mock::start(&mock::Config { listen, cores, script, faults, key: args.key.clone(), tls })?;
    for address in &mock.addresses {
        println!("mock listens on {address}");
    }
    mock.join();
    Ok(EXIT_FAILED)
}

pub fn run(args: &RunArgs) -> Result<u8, String> {
    thread::raise_file_limit();
    let mut scenario = Scenario::read(&args.scenario)?;
    adjust(&mut scenario, &args.load)?;
    let options = options(&args.load, &args.target, &args.pid)?;
    if let Some(rounds) = args.added {
        check_rounds("--added", rounds)?;
        let result = compare::with_mock(&scenario, &options, rounds)?;
        print!("{}", table::of_compare(&result));
        write(&args.load.output, &result, &result.rounds)?;
        return Ok(compare_exit_code(&result));
    }
    let result = run_scenario(&scenario, &options)?;
    print!("{}", table::of_run(&result));
    let code = exit_code(&result);
    write(&args.load.output, &result, &[vec![result.clone()]])?;
    Ok(code)
}

fn write(args: &OutputArgs, result: &impl serde::Serialize, rounds: &[Vec<RunResult>]) -> Result<(), String> {
    let save = |path: &Option<std::path::PathBuf>, text: String| match path {
        Some(path) => std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display())),
        None => Ok(()),
    };
    save(&args.json, serde_json::to_string(result).map_err(|error| error.to_string())?)?;
    save(&args.csv, csv::of(rounds))?;
    save(&args.html, html::of(rounds)?)
}

pub fn report(args: &ReportArgs) -> Result<u8, String> {
    match Results::read(&args.result)? {
        Results::Run(run) => {
            print!("{}", table::of_run(&run));
            write(&args.output, &run, &[vec![(*run).clone()]])?;
        }
        Results::Compare(compare) => {
            print!("{}", table::of_compare(&compare));
            write(&args.output, &compare, &compare.rounds)?;
        }
    }
    Ok(0)
}

pub fn merge(args: &MergeArgs) -> Result<u8, String> {
    let mut runs = Vec::new();
    for path in &args.results {
        match Results::read(path)? {
            Results::Run(run) => runs.push(*run),
            Results::Compare(_) => {
                return Err(format!("{}: a compare; only runs can be merged", path.display()));
            }
        }
    }
    let result = merge_results::merge(runs)?;
    print!("{}", table::of_run(&result));
    let code = exit_code(&result);
    write(&args.output, &result, &[vec![result.clone()]])?;
    Ok(code)
}

/// Is NEW worse than OLD?
fn compare_files(old: &Path, new: &Path, tolerance: f64) -> Result<u8, String> {
    let changes = change::changes(&Results::read(old)?, &Results::read(new)?, tolerance)?;
    print!("{}", table::of_changes(&changes));
    Ok(if changes.iter().any(|change| change.is_worse) { EXIT_FAILED } else { 0 })
}

pub fn compare(args: &CompareArgs) -> Result<u8, String> {
    if let [old, new] = args.targets.as_slice()
        && old.ends_with(".json")
        && new.ends_with(".json")
    {
        return compare_files(Path::new(old), Path::new(new), args.tolerance);
    }
    thread::raise_file_limit();
    let mut scenario = Scenario::read(&args.scenario)?;
    adjust(&mut scenario, &args.load)?;
    check_rounds("--rounds", args.rounds)?;
    let plan = compare::Plan {
        participants: args.targets.iter().map(|target| target.parse()).collect::<Result<_, _>>()?,
        scenario,
        rounds: args.rounds,
        adapters: args.adapters.clone(),
        gateway_core: args.gateway_core,
        mock_cores: args.mock_cores.clone(),
        mock_port: args.mock_port,
        tls: if args.tls { Tls::BothSides } else { Tls::Off },
        // The target is set per participant; this one is never asked.
        base: options(&args.load, "http://127.0.0.1:1", &[])?,
    };
    let result = compare::compare(&plan)?;
    print!("{}", table::of_compare(&result));
    write(&args.load.output, &result, &result.rounds)?;
    Ok(compare_exit_code(&result))
}

fn check_rounds(key: &str, rounds: usize) -> Result<(), String> {
    if (1..=1000).contains(&rounds) { Ok(()) } else { Err(format!("{key} {rounds}: need 1 to 1000")) }
}

fn compare_exit_code(result: &compare::CompareResult) -> u8 {
    let mut code = 0;
    for (number, round) in result.rounds.iter().enumerate() {
        for run in round {
            for failure in &run.failures {
                eprintln!("FAILED round {} {}: {failure}", number + 1, run.label);
                code = EXIT_FAILED;
            }
        }
    }
    let runs = || result.rounds.iter().flatten();
    let saturated = runs().filter(|run| run.generator.is_saturated).count();
    if saturated > 0 {
        eprintln!(
            "generator saturated in {saturated} of {} runs: latencies there are its own",
            runs().count()
        );
        if code == 0 {
            code = EXIT_SATURATED;
        }
    }
    code
}

/// What the command line changes of a scenario.
fn adjust(scenario: &mut Scenario, args: &LoadArgs) -> Result<(), String> {
    scenario.duration_s = args.duration.unwrap_or(scenario.duration_s);
    scenario.warmup_s = args.warmup.unwrap_or(scenario.warmup_s);
    scenario.http = args.http.unwrap_or(scenario.http);
    scenario.streams_per_connection = args.streams_per_connection.unwrap_or(scenario.streams_per_connection);
    let (mut rated, mut held) = (0, 0);
    for load in &mut scenario.load {
        if let Some(model) = &args.model {
            load.model.clone_from(model);
        }
        load.connections = args.connections.unwrap_or(load.connections);
        if let Some(clients) = args.closed_loop {
            load.rate = Rate::Closed { clients };
        }
        match &mut load.rate {
            Rate::Constant { per_s } | Rate::Poisson { per_s } => {
                rated += 1;
                *per_s = args.rate.unwrap_or(*per_s);
            }
            Rate::Hold { streams: count, .. } | Rate::Closed { clients: count } => {
                held += 1;
                *count = args.streams.unwrap_or(*count);
            }
            _ => {}
        }
    }
    if args.rate.is_some() && rated == 0 {
        return Err("--rate: the scenario has no constant or Poisson rate".to_owned());
    }
    if args.streams.is_some() && held == 0 {
        return Err("--streams: the scenario has no held or closed load".to_owned());
    }
    scenario.check()
}

fn options(args: &LoadArgs, target: &str, pids: &[u32]) -> Result<Options, String> {
    let trust = args.ca.as_deref().map_or(Trust::DangerAnyCertificate, Trust::Roots);
    let parse = |url: &str| Target::parse(url, trust);
    let mut fields = Vec::new();
    for field in &args.header {
        let (name, value) =
            field.split_once(':').ok_or_else(|| format!("--header {field:?}: need NAME: VALUE"))?;
        fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Options {
        target: parse(target)?,
        keys: args.key.clone(),
        fields,
        pids: pids.to_vec(),
        rss_idle_bytes: None,
        cores: args.cores.clone(),
        mock: args.mock.as_deref().map(parse).transpose()?,
        decay_s: args.decay,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        label: String::new(),
        shows_progress: true,
    })
}

/// Failures of the target before the generator's own: a broken target is reported as such in any case.
fn exit_code(result: &RunResult) -> u8 {
    for failure in &result.failures {
        eprintln!("FAILED {failure}");
    }
    if !result.failures.is_empty() {
        return EXIT_FAILED;
    }
    if result.generator.is_saturated {
        eprintln!(
            "generator saturated: {:.0} % of its core (limit {:.0} %), sends {:.2} ms late at p99 (limit {:.0} ms); \
             the figures are its limit, not the target's",
            result.generator.cpu_share * 100.0,
            CPU_SHARE_MAX * 100.0,
            result.generator.lag_p99_us / 1000.0,
            LAG_P99_US_MAX / 1000.0
        );
        return EXIT_SATURATED;
    }
    0
}

pub fn verify(args: &VerifyArgs) -> Result<u8, String> {
    thread::raise_file_limit();
    let parse = |url: &str| Target::parse(url, Trust::DangerAnyCertificate);
    let shape = |name: &String| {
        serde_json::from_value::<Shape>(serde_json::Value::from(name.as_str()))
            .map_err(|error| format!("--shapes {name}: {error}"))
    };
    let plan = verifier::Plan {
        base: Options {
            target: parse(&args.target)?,
            keys: args.key.clone(),
            fields: Vec::new(),
            pids: args.pid.clone(),
            rss_idle_bytes: None,
            cores: args.cores.clone(),
            mock: Some(parse(&args.mock)?),
            decay_s: 0.0,
            command: String::new(),
            label: String::new(),
            shows_progress: false,
        },
        model: args.model.clone(),
        shapes: args.shapes.iter().map(shape).collect::<Result<_, _>>()?,
        http: args.http,
        streams: args.streams,
        duration_s: args.duration,
        cancel_within_ms: args.cancel_within,
        decay_factor: args.decay_factor,
        decay_s: args.decay,
        runaway_factor: args.runaway_factor,
        runaway_p99_ms: args.runaway_p99,
        reload: args.reload.clone(),
        restart: args.restart.clone(),
        only: args.only.clone(),
    };
    let findings = verifier::verify(&plan, |finding| {
        let status = match finding.status {
            verifier::Status::Pass => "pass",
            verifier::Status::Fail => "FAIL",
            verifier::Status::Skip => "skip",
        };
        println!("{status}  {}: {}", finding.property, finding.evidence);
    })?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string(&findings).map_err(|error| error.to_string())?;
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let has_failed = findings.iter().any(|finding| finding.status == verifier::Status::Fail);
    Ok(if has_failed { EXIT_FAILED } else { 0 })
}
