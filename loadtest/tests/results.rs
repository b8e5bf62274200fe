//! Result files: written, read, merged, compared, drawn.

use tollgate_load::compare::added;
use tollgate_load::compare::change::{Results, changes};
use tollgate_load::compare::ratio::Spread;
use tollgate_load::compare::{CompareResult, KIND};
use tollgate_load::measure::merge::merge;
use tollgate_load::measure::recorder::{Recorder, Window, record};
use tollgate_load::measure::result::{FORMAT, Generator, LoadResult, Machine, ProcessResult, RunResult};
use tollgate_load::report::{csv, html, table};

/// A run of 100 answers that took `ms` each; the target spent `cpu_us` on each.
fn run(label: &str, ms: u64, cpu_us: Option<f64>) -> RunResult {
    let mut recorder = Recorder::new(Window { start_ns: 0, end_ns: 2_000_000_000 });
    for number in 0..100 {
        let planned = number * 10_000_000;
        recorder.completed(planned + ms * 1_000_000, planned);
        record(&mut recorder.ttft, ms * 1_000_000);
    }
    recorder.failed(5, "status 500", "<oops & co>");
    recorder.close();
    let process = cpu_us.map(|cpu| ProcessResult {
        cpu_us_per_request: Some(cpu),
        rss_timeline: vec![(-10, 1 << 20), (0, 2 << 20)],
        ..ProcessResult::default()
    });
    RunResult {
        format: FORMAT,
        scenario: "s".to_owned(),
        question: "q".to_owned(),
        passes_when: "p".to_owned(),
        target: "http://127.0.0.1:1".to_owned(),
        label: label.to_owned(),
        started_at: String::new(),
        machine: Machine::default(),
        command: String::new(),
        duration_s: 2.0,
        loads: vec![LoadResult::of("a", "chat", true, &recorder, 2.0)],
        generator: Generator::default(),
        process,
        mock: None,
        failures: vec!["a: 1 of 101 failed".to_owned()],
    }
}

fn compare(factors: &[f64]) -> Results {
    let round = |factor: &f64| vec![run("base", 5, Some(10.0)), run("other", 5, Some(10.0 * factor))];
    Results::Compare(Box::new(CompareResult {
        format: FORMAT,
        kind: KIND.to_owned(),
        scenario: "s".to_owned(),
        started_at: String::new(),
        command: String::new(),
        participants: vec!["base".to_owned(), "other".to_owned()],
        rounds: factors.iter().map(round).collect(),
    }))
}

#[test]
fn a_merge_adds_counts_rates_and_histograms() {
    let merged = merge(vec![run("", 5, Some(10.0)), run("", 20, None)]).expect("the same scenario");
    let load = &merged.loads[0];
    assert_eq!((load.counts.completed, load.counts.failed, load.total.count), (200, 2, 200));
    assert!((load.requests_per_s - 100.0).abs() < 1e-9 && load.errors["status 500"].count == 2);
    assert!(load.total.p50_us < 5100.0 && load.total.p90_us > 19_900.0);
    let mut other = run("", 5, None);
    other.scenario = "t".to_owned();
    assert!(merge(vec![run("", 5, None), other]).is_err());
    assert!(merge(vec![run("", 5, Some(1.0)), run("", 5, Some(1.0))]).is_err());
}

#[test]
fn a_figure_is_worse_only_when_its_ranges_part_by_more_than_the_tolerance() {
    let old = compare(&[0.70, 0.75, 0.80]);
    let rows = [
        ("the same", vec![0.70, 0.75, 0.80], false),
        ("overlaps", vec![0.78, 0.90, 0.95], false),
        ("within the tolerance", vec![0.805, 0.81, 0.82], true),
        ("parted", vec![0.95, 1.0, 1.1], true),
        ("better", vec![0.3, 0.4, 0.5], false),
    ];
    for (name, factors, is_worse) in rows {
        let all = changes(&old, &compare(&factors), 0.05).expect("figures in common");
        let cpu = all.iter().find(|change| change.figure == "CPU per request").expect("measured");
        assert_eq!(cpu.is_worse, is_worse, "{name}: {cpu:?}");
    }
    let all = changes(&old, &compare(&[0.805, 0.81, 0.82]), 0.10).expect("figures in common");
    assert!(all.iter().all(|change| !change.is_worse));
    assert!(changes(&old, &Results::Run(Box::new(run("", 5, None))), 0.05).is_err());
}

#[test]
fn reports_hold_every_figure_and_escape_what_a_target_said() {
    let rounds = vec![vec![run("base", 5, Some(10.0)), run("o<ther", 7, Some(7.0))]; 3];
    let page = html::of(&rounds).expect("a page");
    let parts =
        ["<!doctype html>", "CPU per request", "0.700", "better", "o&lt;ther", "1 of 101 failed", "<svg"];
    for part in parts.iter().chain(&["3 × status 500: &lt;oops &amp; co&gt;", "<td>300</td>"]) {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("o<ther") && !page.contains("http://www") && !page.contains("<script"));
    let lines = csv::of(&rounds);
    assert!(
        lines.contains("s,base,1,,CPU per request,us,10\n") && lines.contains("s,o<ther,3,a,total p99,us,")
    );
    assert!(lines.contains("s,base,1,a,error: status 500,,1\n"), "{lines}");
    assert!(table::of_run(&rounds[0][0]).contains("status 500: <oops & co>"));
}

#[test]
fn what_a_target_adds_is_a_difference_to_the_mock_within_each_round() {
    let rounds: Vec<_> = [(5, 7), (6, 10), (9, 10)]
        .map(|(alone, through)| vec![run("direct", alone, None), run("t", through, None)])
        .into();
    let names = ["direct".to_owned(), "t".to_owned()];
    assert_eq!((added::direct(&names), added::direct(&names[1..])), (Some(0), None));
    let rows = added::rows(&rounds, 0);
    let total = rows.iter().find(|row| row.metric.name == "total p50").expect("both have it");
    let near = |value: f64, wanted_us: f64| (value - wanted_us).abs() < 20.0;
    let Spread { min, median, max } = total.spread;
    assert!(total.participant == 1 && near(min, 1000.0) && near(median, 2000.0) && near(max, 4000.0));
    assert!(rows.iter().all(|row| row.metric.unit == "us" && !row.metric.name.starts_with("CPU")));
    assert!(html::of(&rounds).expect("a page").contains("Added to the mock alone"));
}

#[test]
fn a_result_survives_its_file() {
    let path = std::env::temp_dir().join(format!("tollgate-load-result-{}.json", std::process::id()));
    let written = run("x", 5, Some(10.0));
    std::fs::write(&path, serde_json::to_string(&written).expect("JSON")).expect("a file");
    let Ok(Results::Run(read)) = Results::read(&path) else { panic!("a run") };
    assert_eq!(serde_json::to_value(&*read).expect("JSON"), serde_json::to_value(&written).expect("JSON"));
    std::fs::write(&path, "<html>").expect("a file");
    let error = Results::read(&path).map(|_| ()).expect_err("not a result");
    assert!(error.contains("not a result of tollgate-load"), "{error}");
    let _ = std::fs::remove_file(path);
}
