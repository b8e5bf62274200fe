//! One self-contained HTML page: what was asked, the figures, the charts. No script, no file beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::compare::added;
use crate::compare::ratio::{Spread, Verdict, digits, rows};
use crate::measure::recorder::{Counts, Times, times};
use crate::measure::result::{LoadResult, RunResult, Summary};
use crate::record::Faults;
use crate::report::chart::{Chart, Scale, Series, escape};

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:15px/1.5 system-ui,sans-serif;max-width:1360px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .7rem;border-bottom:1px solid var(--line);text-align:right}
td:first-child,th:first-child,.name{text-align:left}tr.first td{border-top:2px solid var(--line)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(520px,1fr));gap:1rem}
svg{width:100%;max-width:700px;background:var(--soft);border-radius:6px}svg text{font-size:11px;fill:currentColor}
svg .title{font-size:14px;font-weight:600}svg .grid{stroke:var(--line)}
.better{color:#2e8b57;font-weight:600}.worse{color:#d1495b;font-weight:600}.soft{opacity:.7}
.failed{border-left:4px solid #d1495b;padding-left:1rem}code{overflow-wrap:anywhere}
.scroll{overflow-x:auto}.alone :is(td,th):nth-child(n+5){display:none}";

/// `rounds` of results, each round one result per target in the same order; a single run is one round of one.
pub fn of(rounds: &[Vec<RunResult>]) -> Result<String, String> {
    let first = rounds.first().and_then(|round| round.first()).ok_or("a result without runs")?;
    let names: Vec<String> = rounds[0].iter().map(name).collect();
    let mut out = head(first, rounds.len(), &names);
    failures(rounds, &mut out);
    ratios(rounds, &names, &mut out);
    if let Some(direct) = added::direct(&names) {
        added_times(rounds, &names, direct, &mut out);
    }
    for place in 0..first.loads.len() {
        charts(rounds, &names, place, &mut out)?;
    }
    memory_chart(rounds, &names, &mut out);
    percentiles(rounds, &names, &mut out)?;
    outcomes(rounds, &names, &mut out);
    let _ = write!(
        out,
        "<h2>How it was run</h2>\n<p><code>{}</code></p>\n<p class=\"soft\">Figures are defined in the README of \
         tollgate-load. CPU is the run time of all threads of the measured processes; a ratio compares figures of the \
         same round; a verdict is given only where all rounds (three at least) lie on one side of 1. Of several \
         loads the worst one's times stand in the first table; each load's own are in the tables at the end.</p>\n</html>\n",
        escape(&first.command)
    );
    Ok(out)
}

fn name(result: &RunResult) -> String {
    if result.label.is_empty() { result.target.clone() } else { result.label.clone() }
}

fn head(first: &RunResult, rounds: usize, names: &[String]) -> String {
    let RunResult { scenario, question, passes_when, machine, started_at, duration_s, .. } = first;
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{0}: {1}</title><style>{STYLE}</style>\n\
         <h1>{0}</h1>\n<p class=\"soft\">{1}</p>\n<p><b>Question.</b> {2}<br><b>Good when.</b> {3}</p>\n\
         <p class=\"soft\">{started_at} · {4} · {5} cores · kernel {6} · {7} · load {8:.1} at the start · \
         {rounds} round(s) of {duration_s} s</p>\n",
        escape(scenario),
        escape(&names.join(", ")),
        escape(question),
        escape(passes_when),
        escape(&machine.cpu),
        machine.cores,
        escape(&machine.kernel),
        escape(&machine.scheduling),
        machine.load_average,
    )
}

fn failures(rounds: &[Vec<RunResult>], out: &mut String) {
    let mut lines = String::new();
    for (number, round) in rounds.iter().enumerate() {
        for result in round {
            let at = format!("round {}, {}", number + 1, escape(&name(result)));
            for failure in &result.failures {
                let _ = writeln!(lines, "<li>{at}: {}</li>", escape(failure));
            }
        }
    }
    saturated(rounds, &mut lines);
    if lines.is_empty() {
        out.push_str("<p class=\"better\">No failure, no integrity fault.</p>\n");
    } else {
        let _ = write!(out, "<div class=\"failed\"><b>Did not hold</b><ul>\n{lines}</ul></div>\n");
    }
}

/// One line for all runs in which the generator was at its own limit.
fn saturated(rounds: &[Vec<RunResult>], lines: &mut String) {
    let runs = || rounds.iter().flatten();
    let late = runs().map(|run| &run.generator).filter(|generator| generator.is_saturated);
    let (lags, shares): (Vec<_>, Vec<_>) =
        late.map(|one| (one.lag_p99_us / 1000.0, one.cpu_share * 100.0)).unzip();
    let count = lags.len();
    if let (Some(lag), Some(share)) = (Spread::of(lags), Spread::of(shares)) {
        let _ = writeln!(
            lines,
            "<li>generator saturated in {count} of {} runs (its core {:.0} to {:.0} % busy, sends {:.1} to {:.1} ms late \
             at p99): latencies there are not the target's</li>",
            runs().count(),
            share.min,
            share.max,
            lag.min,
            lag.max
        );
    }
}

fn ratios(rounds: &[Vec<RunResult>], names: &[String], out: &mut String) {
    let _ = write!(
        out,
        "<h2>Figures</h2>\n<div class=\"scroll\"><table{}><tr><th>figure</th><th>unit</th><th class=\"name\">target</th>\
         <th>median</th><th>min to max</th><th>ratio to {}</th><th>min to max</th><th>verdict</th></tr>\n",
        if rounds.len() == 1 && names.len() == 1 { " class=\"alone\"" } else { "" },
        escape(&names[0])
    );
    for row in rows(rounds) {
        let (figure, unit) = if row.is_first { (row.metric.name, row.metric.unit) } else { ("", "") };
        let class = if row.is_first { " class=\"first\"" } else { "" };
        let own = row.own;
        let _ = write!(
            out,
            "<tr{class}><td>{figure}</td><td>{unit}</td><td class=\"name\">{}</td><td>{}</td>\
             <td>{} to {}</td>",
            escape(&names[row.participant]),
            digits(own.median),
            digits(own.min),
            digits(own.max)
        );
        match row.ratio {
            Some((ratio, verdict)) => {
                let class = match verdict {
                    Verdict::Better => "better",
                    Verdict::Worse => "worse",
                    Verdict::NotShown => "soft",
                };
                let _ = writeln!(
                    out,
                    "<td>{:.3}</td><td>{:.3} to {:.3}</td><td class=\"{class}\">{}</td></tr>",
                    ratio.median,
                    ratio.min,
                    ratio.max,
                    verdict.name()
                );
            }
            None => out.push_str("<td></td><td></td><td></td></tr>\n"),
        }
    }
    out.push_str("</table></div>\n");
}

fn added_times(rounds: &[Vec<RunResult>], names: &[String], direct: usize, out: &mut String) {
    out.push_str(
        "<h2>Added to the mock alone, microseconds</h2>\n<p class=\"soft\">Differences to the mock asked directly, \
         within each round.</p>\n<div class=\"scroll\"><table><tr><th>time</th><th class=\"name\">target</th>\
         <th>median</th><th>min to max</th></tr>\n",
    );
    let mut last = "";
    for added::Row { metric, participant, spread } in added::rows(rounds, direct) {
        let is_first = metric.name != last;
        last = metric.name;
        let (time, class) = if is_first { (metric.name, " class=\"first\"") } else { ("", "") };
        let name = escape(&names[participant]);
        let Spread { min, median, max } = spread;
        let (min, median, max) = (digits(min), digits(median), digits(max));
        let _ = writeln!(
            out,
            "<tr{class}><td>{time}</td><td class=\"name\">{name}</td><td>{median}</td>\
             <td>{min} to {max}</td></tr>"
        );
    }
    out.push_str("</table></div>\n");
}

type Pick = fn(&LoadResult) -> &Summary;

const TIMES: [(&str, Pick); 4] = [
    ("Total: planned send to end of the answer", |load| &load.total),
    ("TTFT: planned send to first text", |load| &load.ttft),
    ("Gap between text events", |load| &load.gap),
    ("One way: mock's send to client's read, per event", |load| &load.one_way),
];

fn charts(rounds: &[Vec<RunResult>], names: &[String], place: usize, out: &mut String) -> Result<(), String> {
    let load = &rounds[0][0].loads[place];
    let mut drawn = String::new();
    for (title, pick) in TIMES {
        let mut series = Vec::new();
        for (participant, name) in names.iter().enumerate() {
            let points = quantiles(&together(rounds, participant, place, pick)?);
            if !points.is_empty() {
                series.push(Series { name: name.clone(), points });
            }
        }
        if !series.is_empty() {
            let (x, y) = (Scale::Quantile, Scale::Logarithmic);
            drawn.push_str(&Chart { title, x_label: "percentile", y_label: "us", x, y, series }.svg());
        }
    }
    over_time(rounds, names, place, &mut drawn);
    // A load of which nothing came has no charts: what became of it stands in the last table.
    if !drawn.is_empty() {
        let (name, shape) = (escape(&load.name), escape(&load.shape));
        let _ = write!(out, "<h2>{name} ({shape})</h2>\n<div class=\"charts\">\n{drawn}</div>\n");
    }
    Ok(())
}

/// One target's histogram over all rounds.
fn together(
    rounds: &[Vec<RunResult>],
    participant: usize,
    place: usize,
    pick: Pick,
) -> Result<Times, String> {
    let mut sum = times();
    for round in rounds {
        let load = round
            .get(participant)
            .and_then(|result| result.loads.get(place))
            .ok_or("rounds of unequal shape")?;
        let one = pick(load).times()?;
        sum.add(&one).map_err(|error| format!("histograms of unequal bounds: {error}"))?;
    }
    Ok(sum)
}

fn quantiles(all: &Times) -> Vec<(f64, f64)> {
    if all.is_empty() {
        return Vec::new();
    }
    let most = (all.len() as f64).log10().min(5.0);
    let steps = (most * 20.0) as usize;
    let quantile = |step: usize| 1.0 - 10f64.powf(-(step as f64) / 20.0);
    // From the tenth percentile: the smallest value of many is chance.
    (1..=steps).map(quantile).map(|q| (q, all.value_at_quantile(q) as f64 / 1000.0)).collect()
}

/// Seconds of the rounds stand one behind the other.
fn over_time(rounds: &[Vec<RunResult>], names: &[String], place: usize, out: &mut String) {
    type Figure = fn(&crate::measure::recorder::Second) -> f64;
    let figures: [(&str, &str, Figure); 3] = [
        ("Latency p99 by second", "us", |second| second.p99_us),
        ("Answers by second", "1/s", |second| second.completed as f64),
        ("Events by second", "1/s", |second| second.events as f64),
    ];
    for (title, y_label, figure) in figures {
        let mut series = Vec::new();
        for (participant, name) in names.iter().enumerate() {
            let seconds = rounds.iter().filter_map(|round| round[participant].loads.get(place));
            let seconds = seconds.flat_map(|load| load.seconds.iter());
            let points: Vec<_> =
                seconds.enumerate().map(|(at, second)| (at as f64, figure(second))).collect();
            series.push(Series { name: name.clone(), points });
        }
        let has_any = series.iter().any(|one| one.points.iter().any(|point| point.1 > 0.0));
        if has_any {
            let x_label = if rounds.len() > 1 { "second, rounds one behind the other" } else { "second" };
            out.push_str(
                &Chart { title, x_label, y_label, x: Scale::Linear, y: Scale::Linear, series }.svg(),
            );
        }
    }
}

/// Memory of the last round, on the run's own clock.
fn memory_chart(rounds: &[Vec<RunResult>], names: &[String], out: &mut String) {
    let Some(last) = rounds.last() else { return };
    let mut series = Vec::new();
    for (result, name) in last.iter().zip(names) {
        let Some(process) = &result.process else { continue };
        let start = process.rss_timeline.first().map_or(0, |(at, _)| *at);
        let point =
            |(at, bytes): &(i64, u64)| ((at - start) as f64 / 1000.0, *bytes as f64 / (1024.0 * 1024.0));
        series.push(Series { name: name.clone(), points: process.rss_timeline.iter().map(point).collect() });
    }
    if !series.is_empty() {
        out.push_str("<h2>Memory</h2>\n<div class=\"charts\">\n");
        let (title, x_label) = ("Resident memory, last round, warm-up included", "second");
        let (x, y) = (Scale::Linear, Scale::Linear);
        out.push_str(&Chart { title, x_label, y_label: "MB", x, y, series }.svg());
        out.push_str("</div>\n");
    }
}

fn percentiles(rounds: &[Vec<RunResult>], names: &[String], out: &mut String) -> Result<(), String> {
    out.push_str(
        "<h2>Latencies of all rounds, microseconds</h2>\n<div class=\"scroll\"><table><tr><th>load</th><th>time</th>\
         <th class=\"name\">target</th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>\n",
    );
    for (place, load) in rounds[0][0].loads.iter().enumerate() {
        for (title, pick) in TIMES {
            for (participant, name) in names.iter().enumerate() {
                let summary = Summary::of(&together(rounds, participant, place, pick)?);
                if summary.count == 0 {
                    continue;
                }
                let Summary { count, p50_us, p90_us, p99_us, p999_us, max_us, .. } = summary;
                let _ = writeln!(
                    out,
                    "<tr><td>{}</td><td class=\"name\">{}</td><td class=\"name\">{}</td><td>{count}</td>\
                     <td>{p50_us:.1}</td><td>{p90_us:.1}</td><td>{p99_us:.1}</td><td>{p999_us:.1}</td>\
                     <td>{max_us:.1}</td></tr>",
                    escape(&load.name),
                    title.split(':').next().unwrap_or(title),
                    escape(name)
                );
            }
        }
    }
    out.push_str("</table></div>\n");
    Ok(())
}

/// What became of the requests of each load and target, over all rounds.
fn outcomes(rounds: &[Vec<RunResult>], names: &[String], out: &mut String) {
    out.push_str(
        "<h2>Answers of all rounds</h2>\n<div class=\"scroll\"><table><tr><th>load</th><th class=\"name\">target</th>\
         <th>completed</th><th>within the SLO</th><th>failed</th><th>unfinished</th><th>integrity faults</th>\
         <th class=\"name\">errors</th></tr>\n",
    );
    for (place, load) in rounds[0][0].loads.iter().enumerate() {
        for (participant, name) in names.iter().enumerate() {
            let (mut counts, mut faults) = (Counts::default(), Faults::default());
            let mut errors: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
            for load in rounds.iter().filter_map(|round| round.get(participant)?.loads.get(place)) {
                counts.add(&load.counts);
                faults.add(&load.faults);
                for (class, error) in &load.errors {
                    errors.entry(class).or_insert((0, &error.example)).0 += error.count;
                }
            }
            let error = |(class, (count, example)): (&&str, &(u64, &str))| {
                format!("{count} × {}: {}", escape(class), escape(example))
            };
            let errors: Vec<_> = errors.iter().map(error).collect();
            let Counts { completed, good, failed, unfinished, .. } = counts;
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td class=\"name\">{}</td><td>{completed}</td><td>{good}</td><td>{failed}</td>\
                 <td>{unfinished}</td><td>{}</td><td class=\"name\">{}</td></tr>",
                escape(&load.name),
                escape(name),
                faults.total(),
                errors.join("<br>")
            );
        }
    }
    out.push_str("</table></div>\n");
}
