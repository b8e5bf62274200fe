//! The properties themselves: each runs its load and says what it saw.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Found, Plan, Trial, await_mock, found, skipped};
use crate::measure::result::RunResult;
use crate::net::process;
use crate::run::connection::CLOSED_ON_REUSE;
use crate::run::coordinate::totals;
use crate::run::target::Target;
use crate::scenario::Shape;

/// A stream's text may lie in sockets on the way, on both sides of the gateway, besides what the gateway
/// holds.
const ON_THE_WAY_BYTES_MAX: u64 = 12 << 20;
/// Memory that a gateway may gain per slow reader.
const SLOW_READER_BYTES_MAX: u64 = 1 << 20;
/// A lone event must not wait in the gateway longer than this.
const LONE_EVENT_US_MAX: f64 = 50_000.0;
/// Allocators keep a little: growth below this is no leak.
const DECAY_SLACK_BYTES: u64 = 8 << 20;

fn problems(result: &RunResult) -> String {
    result.failures.join("; ")
}

/// Every event of many concurrent streams arrives once, in order, whole, in its own stream.
pub fn integrity(plan: &Plan, _mock: &Target) -> Result<Found, String> {
    let (mut holds, mut evidence) = (true, Vec::new());
    let streams = plan.streams.div_ceil(plan.shapes.len().max(1));
    for shape in &plan.shapes {
        let rate = format!("{{ kind = 'closed', clients = {streams} }}");
        let answer = "{ events = 40, words = 64, gap_ms = 20, script = 'jitter=1' }";
        let trial = Trial { shape: *shape, rate: &rate, answer, more: "", duration_s: plan.duration_s };
        let result = trial.run(plan)?;
        let load = &result.loads[0];
        holds &= result.failures.is_empty() && load.counts.completed > 0;
        let problems = problems(&result);
        evidence.push(format!(
            "{}: {} streams at once, {} whole answers, {} events, {} faults {problems}",
            load.shape,
            streams,
            load.counts.completed,
            load.counts.events,
            load.faults.total()
        ));
    }
    Ok(found(holds, evidence.join("; ")))
}

/// Events that come alone are passed on at once: nothing is collected.
pub fn promptness(plan: &Plan, _mock: &Target) -> Result<Found, String> {
    let trial = Trial {
        shape: plan.stream_shape(),
        rate: "{ kind = 'hold', streams = 4 }",
        answer: "{ events = 1000000, gap_ms = 100 }",
        more: "",
        duration_s: plan.duration_s.max(1.0),
    };
    let result = trial.run(plan)?;
    let load = &result.loads[0];
    let per_read = load.counts.records as f64 / load.counts.reads.max(1) as f64;
    let planned = (trial.duration_s * 40.0) as u64;
    let came = load.counts.records;
    let holds = result.failures.is_empty()
        && load.one_way.p90_us < LONE_EVENT_US_MAX
        && per_read < 1.2
        && came > planned / 2;
    let evidence = format!(
        "{came} of about {planned} events, one each 100 ms, came; one way p90 {:.2} ms (allowed {:.0}), {per_read:.2} \
         per read (allowed 1.2) {}",
        load.one_way.p90_us / 1000.0,
        LONE_EVENT_US_MAX / 1000.0,
        problems(&result)
    );
    Ok(found(holds, evidence))
}

/// The provider is asked once per request, and what it counts is what the client saw.
pub fn one_call_per_request(plan: &Plan, mock: &Target) -> Result<Found, String> {
    let before = totals(mock)?;
    let trial = Trial {
        shape: plan.stream_shape(),
        rate: "{ kind = 'constant', per_s = 100 }",
        answer: "{ events = 10 }",
        more: "",
        duration_s: plan.duration_s,
    };
    let result = trial.run(plan)?;
    await_mock(mock, Duration::from_secs(2), |now| now.answers_open == before.answers_open)?;
    let spent = totals(mock)?.since(&before);
    let counts = result.loads[0].counts;
    let asked = spent.calls();
    let holds = result.failures.is_empty()
        && asked == counts.sent
        && spent.completion_tokens_finished == counts.sent * 10;
    let evidence = format!(
        "{} sent, {asked} calls upstream; {} tokens finished upstream, {} expected {}",
        counts.sent,
        spent.completion_tokens_finished,
        counts.sent * 10,
        problems(&result)
    );
    Ok(found(holds, evidence))
}

/// A client that leaves frees the upstream, which is asked once and cancelled once.
pub fn disconnect(plan: &Plan, mock: &Target) -> Result<Found, String> {
    let before = totals(mock)?;
    let trial = Trial {
        shape: plan.stream_shape(),
        rate: "{ kind = 'constant', per_s = 100 }",
        answer: "{ events = 1000000, gap_ms = 20 }",
        more: "connections = 1000\nleave_after_events = 5",
        duration_s: 0.5,
    };
    let result = trial.run(plan)?;
    let limit = Duration::from_millis(plan.cancel_within_ms);
    let took = await_mock(mock, limit, |now| now.answers_open <= before.answers_open)?;
    let spent = totals(mock)?.since(&before);
    let asked = spent.calls();
    let left = result.loads[0].counts.sent;
    let holds = took.is_some()
        && asked == left
        && spent.answers_cancelled == left
        && result.failures.iter().all(|f| f.contains("nothing came"));
    let took = took.map_or(format!("not within {} ms", limit.as_millis()), |took| {
        format!("within {} ms", took.as_millis())
    });
    let evidence = format!(
        "{left} clients left in mid-stream; {asked} calls upstream, {} cancelled, all free {took} {}",
        spent.answers_cancelled,
        problems(&result)
    );
    Ok(found(holds, evidence))
}

/// Readers that take little stop the provider instead of filling the gateway.
pub fn slow_readers(plan: &Plan, mock: &Target) -> Result<Found, String> {
    const READERS: u64 = 5;
    let idle = process::rss_bytes(&plan.base.pids);
    let before = totals(mock)?;
    let rate = format!("{{ kind = 'hold', streams = {READERS} }}");
    let trial = Trial {
        shape: plan.stream_shape(),
        rate: &rate,
        answer: "{ events = 10000000, words = 1000 }",
        more: "read_bytes_per_s = 10000",
        duration_s: plan.duration_s.max(3.0),
    };
    let result = trial.run(plan)?;
    let sent = totals(mock)?.since(&before).bytes_sent;
    let read = result.loads[0].counts.bytes_in;
    let held = sent.saturating_sub(read) / READERS;
    let most = result.process.as_ref().map_or(0, |process| process.rss_max_bytes);
    let grown = most.saturating_sub(idle) / READERS;
    let faults = result.loads[0].faults.total();
    let holds = read > 0 && held <= ON_THE_WAY_BYTES_MAX && grown <= SLOW_READER_BYTES_MAX && faults == 0;
    let memory = if plan.base.pids.is_empty() {
        "memory not measured (no --pid)".to_owned()
    } else {
        format!("memory grew {} KB a reader (allowed {})", grown / 1024, SLOW_READER_BYTES_MAX / 1024)
    };
    let evidence = format!(
        "{READERS} readers of 10 KB/s read {} KB; on the way {} KB each (allowed {}); {memory}; {faults} faults",
        read / 1024,
        held / 1024,
        ON_THE_WAY_BYTES_MAX / 1024
    );
    Ok(found(holds, evidence))
}

/// Reloads and restarts under load lose nothing: streams that are open end whole, and newcomers, each on a
/// connection of its own, are served throughout. A request that meets its connection's end may be asked again, if
/// the provider was not asked yet.
pub fn reload(plan: &Plan, mock: &Target) -> Result<Found, String> {
    let commands: Vec<(&str, &String, u32)> = [("reload", &plan.reload, 10), ("restart", &plan.restart, 2)]
        .into_iter()
        .filter_map(|(name, command, times)| Some((name, command.as_ref()?, times)))
        .collect();
    if commands.is_empty() {
        return Ok(skipped("neither --reload nor --restart was given"));
    }
    let (mut holds, mut evidence) = (true, Vec::new());
    for (name, command, times) in commands {
        let before = totals(mock)?;
        let (result, done) = beside(plan, command, times)?;
        let asked = totals(mock)?.since(&before).calls();
        let [streams, newcomers] = [&result.loads[0], &result.loads[1]];
        let reused = streams.errors.get(CLOSED_ON_REUSE).map_or(0, |error| error.count);
        let faults = streams.faults.total() + newcomers.faults.total();
        let sent = streams.counts.sent + newcomers.counts.sent;
        let is_kept = streams.counts.failed == reused && newcomers.counts.failed == 0 && faults == 0;
        let has_all = done == times && streams.counts.completed > 0 && newcomers.counts.left > 0;
        holds &= is_kept && has_all && asked + reused <= sent;
        let errors = result.loads.iter().flat_map(|load| &load.errors);
        let errors = errors.map(|(class, error)| format!(", {} {class}", error.count));
        evidence.push(format!(
            "{done} x {name} beside 200 streams: {} whole answers, {} failed, {} of {} newcomers failed{}; \
             {faults} faults; {sent} sent, {asked} calls upstream",
            streams.counts.completed,
            streams.counts.failed,
            newcomers.counts.failed,
            newcomers.counts.planned,
            errors.collect::<String>(),
        ));
    }
    Ok(found(holds, evidence.join("; ")))
}

/// Runs streams and newcomers while `command` is called so many times; gives how often it was.
fn beside(plan: &Plan, command: &str, times: u32) -> Result<(RunResult, u32), String> {
    let more = format!(
        "[[load]]\nname = 'newcomers'\nshape = '{}'\nrate = {{ kind = 'constant', per_s = 100 }}\nconnections = 1000\n\
         answer = {{ events = 1000000, gap_ms = 20 }}\nleave_after_events = 1",
        plan.stream_shape().name()
    );
    let trial = Trial {
        shape: plan.stream_shape(),
        rate: "{ kind = 'closed', clients = 200 }",
        answer: "{ events = 50, gap_ms = 20 }",
        more: &more,
        duration_s: 4.0,
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| call(command, times, &is_over));
        let result = trial.run_unmeasured(plan);
        is_over.store(true, Ordering::Relaxed);
        let done = caller.join().unwrap_or_else(|_| Err("the caller panicked".to_owned()));
        Ok((result?, done?))
    })
}

fn call(command: &str, times: u32, is_over: &AtomicBool) -> Result<u32, String> {
    let mut done = 0;
    while done < times && !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(300));
        let status = Command::new("sh").arg("-c").arg(command).status();
        let status = status.map_err(|error| format!("{command:?}: {error}"))?;
        if !status.success() {
            return Err(format!("{command:?}: ended with {status}"));
        }
        done += 1;
    }
    Ok(done)
}

/// After a load the gateway gives its memory back.
pub fn memory_decay(plan: &Plan, _mock: &Target) -> Result<Found, String> {
    if plan.base.pids.is_empty() {
        return Ok(skipped("no --pid was given"));
    }
    let idle = process::rss_bytes(&plan.base.pids);
    let rate = format!("{{ kind = 'hold', streams = {} }}", plan.streams);
    let trial = Trial {
        shape: plan.stream_shape(),
        rate: &rate,
        answer: "{ events = 1000000, words = 500, gap_ms = 50 }",
        more: "body = [{ bytes = 65536 }]",
        duration_s: plan.duration_s,
    };
    let result = trial.run(plan)?;
    let most = result.process.as_ref().map_or(0, |process| process.rss_max_bytes);
    let allowed = (idle as f64 * plan.decay_factor) as u64 + DECAY_SLACK_BYTES;
    let start = Instant::now();
    let mut now = process::rss_bytes(&plan.base.pids);
    while now > allowed && start.elapsed().as_secs_f64() < plan.decay_s {
        std::thread::sleep(Duration::from_millis(200));
        now = process::rss_bytes(&plan.base.pids);
    }
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let holds = now <= allowed && now > 0;
    let evidence = format!(
        "idle {:.1} MB, most {:.1} MB with {} streams, {:.1} MB {:.1} s after (allowed {:.1} within {} s)",
        mb(idle),
        mb(most),
        plan.streams,
        mb(now),
        start.elapsed().as_secs_f64(),
        mb(allowed),
        plan.decay_s
    );
    Ok(found(holds, evidence))
}

/// A client that takes as fast as it can does not spoil the others' latency.
pub fn runaway_client(plan: &Plan, _mock: &Target) -> Result<Found, String> {
    let modest = Trial {
        shape: Shape::Chat,
        rate: "{ kind = 'constant', per_s = 50 }",
        answer: "{ events = 2 }",
        more: "",
        duration_s: plan.duration_s,
    };
    let alone = modest.run(plan)?;
    // Both in one generator thread: two of them would measure how the kernel shares their core. 80,000 events a
    // second keep a gateway's core busy and leave the generator's own some room.
    let more = "[[load]]\nname = 'runaway'\nshape = 'chat-stream'\nrate = { kind = 'closed', clients = 4 }\n\
                answer = { events = 2000, gap_ms = 0.05 }";
    let beside = Trial { more, ..modest }.run(plan)?;
    let p99_ms = |result: &RunResult| result.loads[0].total.p99_us / 1000.0;
    let allowed = (p99_ms(&alone) * plan.runaway_factor).max(plan.runaway_p99_ms);
    let late_ms = beside.generator.lag_p99_us / 1000.0;
    if late_ms > allowed / 2.0 {
        return Ok(skipped(&format!(
            "the generator itself was {late_ms:.2} ms late at p99, allowed {allowed:.2}"
        )));
    }
    let taken = beside.loads.get(1).map_or(0.0, |load| load.events_per_s);
    let holds =
        p99_ms(&beside) <= allowed && taken > 0.0 && beside.failures.is_empty() && alone.failures.is_empty();
    let evidence = format!(
        "p99 of 50 calls a second: {:.2} ms alone, {:.2} ms beside a client that takes {taken:.0} events a second \
         (allowed {allowed:.2}; sends {late_ms:.2} ms late at p99) {} {}",
        p99_ms(&alone),
        p99_ms(&beside),
        problems(&alone),
        problems(&beside)
    );
    Ok(found(holds, evidence))
}
