//! The result as a table on the terminal.

use std::fmt::Write as _;

use crate::compare::CompareResult;
use crate::compare::added;
use crate::compare::change::Change;
use crate::compare::ratio::{digits, rows};
use crate::measure::result::{LoadResult, ProcessResult, RunResult, Summary};

pub fn of_run(result: &RunResult) -> String {
    let mut out = String::new();
    let RunResult { scenario, target, question, duration_s, .. } = result;
    let _ = writeln!(out, "{scenario} against {target}, {duration_s} s measured\n{question}\n");
    for load in &result.loads {
        of_load(load, &mut out);
    }
    if let Some(process) = &result.process {
        of_process(process, &mut out);
    }
    let generator = &result.generator;
    let _ = writeln!(
        out,
        "generator   {} thread(s), {:.1} % of the busiest core, waited {:.1} %, lag p99 {:.0} us{}{}",
        generator.threads,
        generator.cpu_share * 100.0,
        generator.wait_share * 100.0,
        generator.lag_p99_us,
        optional(", us/request", generator.cpu_us_per_request),
        optional(", us/event", generator.cpu_us_per_event),
    );
    if let Some(mock) = &result.mock {
        let _ = writeln!(
            out,
            "mock        {} events, {} records sent; {} answers finished, {} cancelled, {} open",
            mock.events_sent,
            mock.records_sent,
            mock.answers_finished,
            mock.answers_cancelled,
            mock.answers_open
        );
    }
    out
}

pub fn of_compare(result: &CompareResult) -> String {
    let mut out = String::new();
    let CompareResult { scenario, participants, rounds, .. } = result;
    let _ = writeln!(out, "{scenario}: {} rounds, base {}", rounds.len(), participants[0]);
    if let Some(first) = rounds.first().and_then(|round| round.first()) {
        let _ = writeln!(out, "{}", first.question);
    }
    let _ = writeln!(
        out,
        "\n{:26} {:12} {:>10} {:>24}  {:>7} {:>17}  verdict",
        "", "", "median", "min to max", "ratio", "min to max"
    );
    for row in rows(rounds) {
        let name = if row.is_first { row.metric.name } else { "" };
        let unit = if row.is_first { row.metric.unit } else { "" };
        let own = row.own;
        let range = format!("{} to {}", digits(own.min), digits(own.max));
        let participant = &participants[row.participant];
        let _ = write!(out, "{name:22} {unit:>3} {participant:12} {:>10} {range:>24}", digits(own.median));
        if let Some((ratio, verdict)) = row.ratio {
            let range = format!("{:.3} to {:.3}", ratio.min, ratio.max);
            let _ = write!(out, "  {:>7.3} {range:>17}  {}", ratio.median, verdict.name());
        }
        out.push('\n');
    }
    if let Some(direct) = added::direct(participants) {
        of_added(result, direct, &mut out);
    }
    out
}

fn of_added(result: &CompareResult, direct: usize, out: &mut String) {
    let _ = writeln!(out, "\nadded to the mock alone, us (a difference within each round)");
    let mut last = "";
    for added::Row { metric, participant, spread } in added::rows(&result.rounds, direct) {
        let name = if metric.name == last { "" } else { metric.name };
        last = metric.name;
        let range = format!("{} to {}", digits(spread.min), digits(spread.max));
        let participant = &result.participants[participant];
        let _ = writeln!(out, "{name:26} {participant:12} {:>10} {range:>24}", digits(spread.median));
    }
}

pub fn of_changes(changes: &[Change]) -> String {
    let mut out = format!("{:16} {:24} {:>12} {:>12} {:>8}\n", "target", "figure", "old", "new", "new/old");
    for change in changes {
        let Change { target, figure, old, new, factor, is_worse } = change;
        let (old, new) = (old.median, new.median);
        let verdict = if *is_worse { "WORSE" } else { "" };
        let _ = writeln!(out, "{target:16} {figure:24} {old:>12.3} {new:>12.3} {factor:>8.3}  {verdict}");
    }
    out
}

fn of_load(load: &LoadResult, out: &mut String) {
    let counts = load.counts;
    let LoadResult { name, shape, requests_per_s, events_per_s, good_per_s, tokens_per_s, .. } = load;
    let loop_kind = if load.is_open_loop { "open loop" } else { "CLOSED LOOP" };
    let _ = writeln!(out, "{name} ({shape}, {loop_kind})");
    let _ = writeln!(
        out,
        "  answers     {} completed, {} failed, {} unfinished; {requests_per_s:.1}/s, {good_per_s:.1}/s within the SLO",
        counts.completed, counts.failed, counts.unfinished
    );
    let per_read = if counts.reads > 0 { counts.records as f64 / counts.reads as f64 } else { 0.0 };
    let _ = writeln!(
        out,
        "  events      {} ({events_per_s:.0}/s), {tokens_per_s:.0} tokens/s, {per_read:.2} text events per read",
        counts.events
    );
    let faults = load.faults;
    let _ = writeln!(
        out,
        "  integrity   {} lost, {} repeated, {} corrupted, {} foreign, {} cut",
        faults.lost, faults.repeated, faults.corrupted, faults.foreign, faults.cut
    );
    let _ = writeln!(
        out,
        "  {:10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "us", "count", "p50", "p90", "p99", "p99.9", "max"
    );
    let rows = [("total", &load.total), ("ttft", &load.ttft), ("gap", &load.gap), ("one way", &load.one_way)];
    for (what, summary) in rows.iter().filter(|(_, summary)| summary.count > 0) {
        let Summary { count, p50_us, p90_us, p99_us, p999_us, max_us, .. } = summary;
        let _ = writeln!(
            out,
            "  {what:10} {count:>10} {p50_us:>10.1} {p90_us:>10.1} {p99_us:>10.1} {p999_us:>10.1} {max_us:>10.1}"
        );
    }
    for (class, error) in &load.errors {
        let _ = writeln!(out, "  error       {} x {class}: {}", error.count, error.example);
    }
    out.push('\n');
}

fn of_process(process: &ProcessResult, out: &mut String) {
    let mb = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    let _ = writeln!(
        out,
        "process     {:.1} % of a core{}{}{}{}{}",
        process.cpu_share * 100.0,
        optional(", us/request", process.cpu_us_per_request),
        optional(", us/event", process.cpu_us_per_event),
        optional(", events/CPU-s", process.events_per_cpu_s.map(f64::round)),
        optional(", user share", process.user_share),
        optional(", user ns/event", process.user_ns_per_event.map(f64::round)),
    );
    let _ = writeln!(
        out,
        "memory      idle {:.1} MB, loaded {:.1} MB, most {:.1} MB{}{} at {} open",
        mb(process.rss_idle_bytes),
        mb(process.rss_loaded_bytes),
        mb(process.rss_max_bytes),
        optional(", after decay MB", process.rss_decayed_bytes.map(mb)),
        optional(", KB/stream", process.rss_kb_per_stream),
        process.open_streams,
    );
    let _ = writeln!(
        out,
        "switches    {} gave the core up, {} lost it{}{}; {} calls of read and write",
        process.spent.switches_voluntary,
        process.spent.switches_forced,
        optional(", per request", process.switches_per_request),
        optional(", per event", process.switches_per_event),
        process.spent.read_write_calls,
    );
}

fn optional(name: &str, value: Option<f64>) -> String {
    match value {
        Some(value) if value.fract() == 0.0 => format!("{name} {value:.0}"),
        Some(value) => format!("{name} {value:.3}"),
        None => String::new(),
    }
}
