//! Runs a plan: starts the threads, watches the clock, samples the measured process, adds up.

use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::{Dialect, Mode};
use crate::measure::recorder::{Recorder, Window, times};
use crate::measure::result::{
    CPU_SHARE_MAX, FORMAT, Generator, LAG_P99_US_MAX, LoadResult, Machine, ProcessResult, RunResult,
};
use crate::mock::stats::Totals;
use crate::net::clock::{NS_PER_MS, NS_PER_S, now_ns, unix_s, utc};
use crate::net::process::{self, Sample};
use crate::net::stream::Address;
use crate::net::thread;
use crate::run::target::Target;
use crate::run::worker::{Done, Live, Plan, Worker};
use crate::scenario::schedule::{TraceLine, read_trace};
use crate::scenario::shape::{Template, template, templates};
use crate::scenario::{Body, Load, Rate, Scenario};

/// Threads need a moment to start before the first planned send.
const START_NS: u64 = 50 * NS_PER_MS;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub struct Options {
    pub target: Target,
    pub keys: Vec<String>,
    /// Further header fields of every request.
    pub fields: Vec<(String, String)>,
    /// Processes to be measured.
    pub pids: Vec<u32>,
    /// Their memory before the first round, for some keep what they once took; `None`: as it is when the run starts.
    pub rss_idle_bytes: Option<u64>,
    /// One thread per core named; empty: one thread, not pinned.
    pub cores: Vec<usize>,
    /// The mock behind the target, to be asked what it sent.
    pub mock: Option<Target>,
    /// How long to watch memory after the load.
    pub decay_s: f64,
    pub command: String,
    pub label: String,
    pub shows_progress: bool,
}

/// Runs `scenario` once. The error is a line for the user; failures of the target are in the result.
pub fn run(scenario: &Scenario, options: &Options) -> Result<RunResult, String> {
    scenario.check()?;
    probe(&options.target)?;
    Sample::take(&options.pids).map_err(|error| format!("--pid: {error}"))?;
    check_cores(&options.cores)?;
    let started_at = utc(unix_s());
    let sent_before = options.mock.as_ref().map(totals).transpose()?;
    let idle = options.rss_idle_bytes.unwrap_or_else(|| process::rss_bytes(&options.pids));
    let plan = plan(scenario, options)?;
    let mut threads = Vec::new();
    for place in 0..plan.threads {
        let (plan, core) = (plan.clone(), options.cores.get(place).copied());
        let body = move || work(plan, place, core);
        let spawned = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(body);
        threads.push(spawned.map_err(|error| format!("cannot start a thread: {error}"))?);
    }
    let watched = watch(&plan, options);
    let mut done = Vec::new();
    for thread in threads {
        done.push(thread.join().map_err(|_| "a generator thread panicked".to_owned())??);
    }
    let watched = watched?;
    let mock = match (&options.mock, sent_before) {
        (Some(mock), Some(before)) => Some(totals(mock)?.since(&before)),
        _ => None,
    };
    let mut result = RunResult {
        format: FORMAT,
        scenario: scenario.name.clone(),
        question: scenario.question.clone(),
        passes_when: scenario.passes_when.clone(),
        target: options.target.url.clone(),
        label: options.label.clone(),
        started_at,
        machine: Machine::this(),
        command: options.command.clone(),
        duration_s: scenario.duration_s,
        loads: Vec::new(),
        generator: Generator::default(),
        process: None,
        mock,
        failures: Vec::new(),
    };
    add_up(&mut result, scenario, done);
    if !options.pids.is_empty() {
        let decayed = decay(options);
        result.process = Some(measured(&result, options, &watched, idle, decayed));
    }
    result.failures = judge(&result, scenario);
    Ok(result)
}

fn plan(scenario: &Scenario, options: &Options) -> Result<Arc<Plan>, String> {
    let mut all = Vec::new();
    for load in &scenario.load {
        all.push(match &load.rate {
            Rate::Trace { file } => {
                let lines = read_trace(file)?;
                lines.iter().enumerate().map(|(n, line)| traced(load, n, line, &options.keys)).collect()
            }
            _ => templates(load, &options.keys),
        });
    }
    for template in all.iter_mut().flat_map(|templates: &mut Vec<Template>| templates.iter_mut()) {
        template.fields.extend(options.fields.iter().cloned());
    }
    let threads = options.cores.len().max(1);
    let begin_ns = now_ns() + START_NS;
    let start_ns = begin_ns + (scenario.warmup_s * NS_PER_S as f64) as u64;
    let end_ns = start_ns + (scenario.duration_s * NS_PER_S as f64) as u64;
    Ok(Arc::new(Plan {
        scenario: scenario.clone(),
        target: options.target.clone().speaking(scenario.http),
        templates: all,
        threads,
        begin_ns,
        window: Window { start_ns, end_ns },
        live: (0..threads).map(|_| Live::default()).collect(),
    }))
}

/// The request of a trace's line: its own body, or one that the shape makes.
fn traced(load: &Load, number: usize, line: &TraceLine, keys: &[String]) -> Template {
    let shape = line.shape.unwrap_or(load.shape);
    let body = Body { bytes: line.bytes.unwrap_or(load.body[0].bytes), ..load.body[0] };
    let mut made = template(load, shape, &body, number, &keys[number % keys.len()]);
    if let Some(method) = &line.method {
        made.method.clone_from(method);
    }
    if let Some(path) = &line.path {
        made.path.clone_from(path);
        if let Some((dialect, mode)) = Dialect::of_path(path) {
            made.dialect = dialect;
            made.mode = mode.unwrap_or(made.mode);
        }
    }
    for (name, value) in &line.headers {
        made.fields.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        made.fields.push((name.clone(), value.clone()));
    }
    if let Some(body) = &line.body {
        made.body = serde_json::to_vec(body).unwrap_or_default();
        let is_stream = body.get("stream").and_then(serde_json::Value::as_bool) == Some(true);
        made.mode = if is_stream { Mode::Stream } else { Mode::Whole };
        (made.name_at, made.records) = (None, None);
    }
    made
}

/// Can every core be pinned to? Asked before the run, by threads that end at once.
fn check_cores(cores: &[usize]) -> Result<(), String> {
    for core in cores.iter().copied() {
        let pinned = std::thread::spawn(move || thread::pin(core)).join();
        let pinned = pinned.map_err(|_| "a thread panicked".to_owned())?;
        pinned.map_err(|error| format!("--cores: cannot pin to core {core}: {error}"))?;
    }
    Ok(())
}

fn work(plan: Arc<Plan>, place: usize, core: Option<usize>) -> Result<Done, String> {
    thread::sharpen_timers();
    if let Some(core) = core {
        thread::pin(core).map_err(|error| format!("cannot pin to core {core}: {error}"))?;
    }
    Worker::new(plan, place)?.run()
}

/// What the calling thread saw while the others worked.
struct Watched {
    start: Sample,
    end: Sample,
    open_streams: u64,
    rss_timeline: Vec<(i64, u64)>,
}

fn watch(plan: &Plan, options: &Options) -> Result<Watched, String> {
    let told = |error: std::io::Error| format!("--pid: {error}");
    let take = |pids: &[u32]| Sample::take(pids).map_err(told);
    let mut rss_timeline = Vec::new();
    let Window { start_ns, end_ns } = plan.window;
    let mut note = |now: u64| {
        if !options.pids.is_empty() {
            let at_ms = (now as i64 - start_ns as i64) / NS_PER_MS as i64;
            rss_timeline.push((at_ms, process::rss_bytes(&options.pids)));
        }
    };
    let mut progress = Progress::new(options.shows_progress);
    let mut until = |edge_ns: u64| {
        loop {
            let now = now_ns();
            note(now);
            progress.show(plan, now);
            if now >= edge_ns {
                return;
            }
            std::thread::sleep(SAMPLE_EVERY.min(Duration::from_nanos(edge_ns - now)));
        }
    };
    until(start_ns);
    let start = take(&options.pids)?;
    until(end_ns.saturating_sub(20 * NS_PER_MS));
    let open_streams = plan.live.iter().map(|live| live.open.value()).sum();
    let loaded = process::rss_bytes(&options.pids);
    until(end_ns);
    let mut end = take(&options.pids)?;
    end.rss_bytes = loaded;
    progress.clear();
    Ok(Watched { start, end, open_streams, rss_timeline })
}

/// One line on a terminal, rewritten in place.
struct Progress {
    is_shown: bool,
}

impl Progress {
    fn new(is_wanted: bool) -> Self {
        Self { is_shown: is_wanted && std::io::stderr().is_terminal() }
    }

    fn show(&mut self, plan: &Plan, now: u64) {
        if !self.is_shown {
            return;
        }
        let sum = |value: fn(&Live) -> u64| plan.live.iter().map(value).sum::<u64>();
        let Window { start_ns, end_ns } = plan.window;
        let whole = (end_ns - plan.begin_ns) as f64;
        let share = (now.saturating_sub(plan.begin_ns) as f64 / whole).min(1.0);
        let bar: String =
            (0..30).map(|place| if f64::from(place) < share * 30.0 { '#' } else { '.' }).collect();
        let phase = if now < start_ns { "warm-up" } else { "measure" };
        let (completed, events) = (sum(|live| live.completed.value()), sum(|live| live.events.value()));
        let (failed, open) = (sum(|live| live.failed.value()), sum(|live| live.open.value()));
        let line = format!("[{bar}] {phase} {completed} answers {events} events {failed} failed {open} open");
        eprint!("\r\x1b[2K{line}");
        let _ = std::io::stderr().flush();
    }

    fn clear(&self) {
        if self.is_shown {
            eprint!("\r\x1b[2K");
        }
    }
}

fn add_up(result: &mut RunResult, scenario: &Scenario, done: Vec<Done>) {
    let duration_ns = scenario.duration_s * NS_PER_S as f64;
    let threads = done.len();
    let cpu_ns: u64 = done.iter().map(|one| one.cpu_ns).sum();
    let busiest = done.iter().map(|one| one.cpu_ns).max().unwrap_or(0) as f64;
    let waited = done.iter().map(|one| one.wait_ns).max().unwrap_or(0) as f64;
    let mut sums: Vec<Option<Recorder>> = scenario.load.iter().map(|_| None).collect();
    for one in done {
        for (sum, recorder) in sums.iter_mut().zip(one.recorders) {
            match sum {
                Some(sum) => sum.add(recorder),
                None => *sum = Some(recorder),
            }
        }
    }
    let mut lag = times();
    let (mut requests, mut events) = (0, 0);
    for (load, mut recorder) in scenario.load.iter().zip(sums.into_iter().flatten()) {
        recorder.close();
        let is_open_loop = !matches!(load.rate, Rate::Closed { .. });
        lag.add(&recorder.lag).expect("histograms of equal bounds can be added");
        requests += recorder.counts.completed;
        events += recorder.counts.events;
        let one =
            LoadResult::of(&load.name, &load.shape.name(), is_open_loop, &recorder, scenario.duration_s);
        result.loads.push(one);
    }
    let lag_p99_us = lag.value_at_quantile(0.99) as f64 / 1000.0;
    let cpu_share = busiest / duration_ns;
    // A closed or held load asks again when it can: there is no plan to be late for, and its own CPU may be
    // full.
    let is_planned =
        scenario.load.iter().any(|load| !matches!(load.rate, Rate::Closed { .. } | Rate::Hold { .. }));
    let per = |count: u64| (count > 0).then(|| cpu_ns as f64 / 1000.0 / count as f64);
    result.generator = Generator {
        threads,
        cpu_share,
        cpu_us_per_request: per(requests),
        cpu_us_per_event: per(events),
        wait_share: waited / duration_ns,
        lag_p99_us,
        is_saturated: is_planned && (cpu_share > CPU_SHARE_MAX || lag_p99_us > LAG_P99_US_MAX),
    };
}

fn measured(
    result: &RunResult,
    options: &Options,
    watched: &Watched,
    rss_idle_bytes: u64,
    rss_decayed_bytes: Option<u64>,
) -> ProcessResult {
    let spent = watched.end.since(&watched.start);
    let sum = |value: fn(&LoadResult) -> u64| result.loads.iter().map(value).sum::<u64>();
    let (requests, events) = (sum(|load| load.counts.completed), sum(|load| load.counts.events));
    let per = |amount: f64, count: u64| (count > 0).then(|| amount / count as f64);
    let cpu_us = spent.cpu_ns as f64 / 1000.0;
    let switches = (spent.switches_voluntary + spent.switches_forced) as f64;
    let grown = watched.end.rss_bytes.saturating_sub(rss_idle_bytes) as f64 / 1024.0;
    let user_share = spent.user_share();
    ProcessResult {
        pids: options.pids.clone(),
        spent,
        cpu_share: spent.cpu_ns as f64 / spent.at_ns.max(1) as f64,
        cpu_us_per_request: per(cpu_us, requests),
        cpu_us_per_event: per(cpu_us, events),
        events_per_cpu_s: per(events as f64 * 1e6, cpu_us as u64),
        user_share,
        user_ns_per_event: user_share.and_then(|share| per(share * spent.cpu_ns as f64, events)),
        switches_per_request: per(switches, requests),
        switches_per_event: per(switches, events),
        rss_idle_bytes,
        rss_loaded_bytes: watched.end.rss_bytes,
        rss_max_bytes: watched.rss_timeline.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0),
        rss_decayed_bytes,
        rss_kb_per_stream: per(grown, watched.open_streams),
        open_streams: watched.open_streams,
        rss_timeline: watched.rss_timeline.clone(),
    }
}

fn decay(options: &Options) -> Option<u64> {
    if options.decay_s <= 0.0 {
        return None;
    }
    std::thread::sleep(Duration::from_secs_f64(options.decay_s));
    Some(process::rss_bytes(&options.pids))
}

/// What did not hold, a line each.
fn judge(result: &RunResult, scenario: &Scenario) -> Vec<String> {
    let mut failures = Vec::new();
    let pass = &scenario.pass;
    for load in &result.loads {
        let name = &load.name;
        let faults = load.faults;
        if faults.total() > 0 {
            failures.push(format!(
                "{name}: integrity: {} lost, {} repeated, {} corrupted, {} foreign, {} cut",
                faults.lost, faults.repeated, faults.corrupted, faults.foreign, faults.cut
            ));
        }
        let counts = load.counts;
        let asked = (counts.completed + counts.failed).max(1);
        let share = counts.failed as f64 / asked as f64;
        if share > pass.errors_share_max {
            let most = load.errors.iter().max_by_key(|(_, error)| error.count);
            let (class, example) =
                most.map_or(("", ""), |(class, error)| (class.as_str(), error.example.as_str()));
            failures.push(format!(
                "{name}: {} of {asked} failed (allowed share {}); most: {class} {example}",
                counts.failed, pass.errors_share_max
            ));
        }
        // Answers of planned requests count even if they came behind the window.
        if counts.completed + counts.events + counts.left + counts.failed + load.total.count == 0 {
            failures.push(match counts.sent {
                0 => format!("{name}: nothing was sent within the window"),
                _ => format!("{name}: nothing came back from {}", result.target),
            });
        }
        let limits = [
            ("ttft p99", load.ttft.p99_us, pass.ttft_p99_ms_max),
            ("total p99", load.total.p99_us, pass.total_p99_ms_max),
        ];
        for (what, us, most_ms) in limits {
            if let Some(most_ms) = most_ms.filter(|most_ms| us / 1000.0 > *most_ms) {
                failures.push(format!("{name}: {what} {:.3} ms, allowed {most_ms} ms", us / 1000.0));
            }
        }
    }
    let kb = result.process.as_ref().and_then(|process| process.rss_kb_per_stream);
    if let (Some(kb), Some(most)) = (kb, pass.rss_kb_per_stream_max)
        && kb > most
    {
        failures.push(format!("memory: {kb:.2} KB per open stream, allowed {most} KB"));
    }
    failures
}

/// Is anyone there? Otherwise a whole run would say the same many times.
fn probe(target: &Target) -> Result<(), String> {
    let told = |error| format!("target {}: cannot connect to {}: {error}", target.url, target.address);
    dial(target).map(drop).map_err(told)
}

/// What the mock at `target` has sent so far.
pub fn totals(target: &Target) -> Result<Totals, String> {
    let told = |text: String| format!("mock {}: {text}", target.url);
    let body = get(target, "/mock/stats").map_err(told)?;
    serde_json::from_slice(&body).map_err(|error| told(format!("not the counters of a mock: {error}")))
}

/// A small GET outside of the load, blocking.
fn get(target: &Target, path: &str) -> Result<Vec<u8>, String> {
    let told = |error: io::Error| error.to_string();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", target.host);
    let mut socket = dial(target).map_err(told)?;
    let mut answer = Vec::new();
    socket.write_all(request.as_bytes()).map_err(told)?;
    socket.read_to_end(&mut answer).map_err(told)?;
    let head = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or("no HTTP answer")?;
    Ok(answer.split_off(head + 4))
}

trait Socket: Read + Write {}
impl<S: Read + Write> Socket for S {}

/// A blocking connection, without TLS.
fn dial(target: &Target) -> io::Result<Box<dyn Socket>> {
    const LIMIT: Duration = Duration::from_secs(5);
    match &target.address {
        Address::Ip(ip) => {
            let socket = TcpStream::connect_timeout(ip, LIMIT)?;
            socket.set_read_timeout(Some(LIMIT))?;
            Ok(Box::new(socket))
        }
        Address::Unix(path) => {
            let socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(LIMIT))?;
            Ok(Box::new(socket))
        }
    }
}
