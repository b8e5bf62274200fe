//! The generator against the mock: every shape arrives whole, every fault is told, the counts of both sides
//! agree.

use tollgate_load::measure::result::RunResult;
use tollgate_load::mock::script::Script;
use tollgate_load::mock::stats::Totals;
use tollgate_load::mock::{self, Config, Mock};
use tollgate_load::net::stream::Address;
use tollgate_load::run::target::{Target, Trust};
use tollgate_load::run::{Options, run};
use tollgate_load::scenario::Scenario;

pub fn start(addresses: &[&str], faults: &[(&str, f64)]) -> Mock {
    let faults = faults.iter().map(|(name, p)| (name.parse().expect("a fault"), *p)).collect();
    let listen = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    let config =
        Config { listen, cores: Vec::new(), script: Script::default(), faults, key: None, tls: None };
    mock::start(&config).expect("loopback can be listened on")
}

fn target(address: &Address) -> Target {
    let url = match address {
        Address::Ip(ip) => format!("http://{ip}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    Target::parse(&url, Trust::DangerAnyCertificate).expect("a valid URL")
}

pub fn options(address: &Address) -> Options {
    Options {
        target: target(address),
        keys: vec!["k".to_owned()],
        fields: Vec::new(),
        pids: Vec::new(),
        rss_idle_bytes: None,
        cores: Vec::new(),
        mock: None,
        decay_s: 0.0,
        command: String::new(),
        label: String::new(),
        shows_progress: false,
    }
}

/// One load for half a second, of which everything counts.
pub fn scenario(shape: &str, rate: &str, answer: &str) -> Scenario {
    let text = format!(
        "question = 'q'\npasses_when = 'p'\nwarmup_s = 0\nduration_s = 0.5\ndrain_s = 0.5\ntimeout_s = 2\n[[load]]\nname = 'a'\n\
         shape = '{shape}'\nrate = {rate}\nanswer = {answer}\nconnections = 8\n"
    );
    Scenario::parse(&text).expect("a valid scenario")
}

pub fn errors(result: &RunResult) -> Vec<String> {
    result.loads[0].errors.keys().cloned().collect()
}

#[test]
fn every_shape_arrives_whole_over_ipv4_ipv6_and_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("tollgate-load-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let mock = start(&["127.0.0.1:0", "[::1]:0", &unix], &[]);
    let shapes = ["chat", "chat-stream", "responses", "responses-stream", "messages", "messages-stream"];
    let more = ["embeddings", "gemini", "gemini-stream"];
    for (number, shape) in shapes.iter().chain(&more).enumerate() {
        let mut scenario = scenario(shape, "{ kind = 'constant', per_s = 40 }", "{ events = 5, gap_ms = 1 }");
        scenario.drain_s = 5.0;
        let address = &mock.addresses[number % 3];
        let result = run(&scenario, &options(address)).expect("the mock is there");
        assert_eq!(result.failures, [""; 0], "{shape}");
        let load = &result.loads[0];
        // A busy machine may miss planned sends of so short a run; what was sent is answered.
        let sent = load.counts.sent;
        assert!(sent > 0 && load.total.count == sent, "{shape}: {:?}", load.counts);
    }
    mock.stop();
    let _ = std::fs::remove_file(path);
}

#[test]
fn the_counts_of_generator_and_mock_agree() {
    let mock = start(&["127.0.0.1:0"], &[]);
    let scenario = scenario("messages-stream", "{ kind = 'constant', per_s = 100 }", "{ events = 7 }");
    let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
    let totals = Totals::of(&mock.stats);
    let load = &result.loads[0];
    assert_eq!((load.counts.sent, load.counts.unfinished), (50, 0));
    assert_eq!((totals.requests_messages, totals.answers_finished, totals.answers_open), (50, 50, 0));
    assert_eq!(totals.records_sent, 350);
    // Opening (3) and closing (3) events come beside the text.
    assert_eq!(totals.events_sent, 50 * 13);
    assert!(load.counts.records <= 350 && load.counts.records > 300);
    mock.stop();
}

#[test]
fn each_fault_of_the_provider_is_a_failure_of_its_own_class() {
    let rows = [
        ("status-429", "chat", "status 429"),
        ("status-529", "messages-stream", "status 529"),
        ("reset-before-head", "chat", "broken"),
        ("reset-after-head", "chat-stream", "broken"),
        ("reset-mid-event", "chat-stream", "broken"),
        ("cut-mid-event", "chat-stream", "closed by the target"),
        ("cut-mid-event", "chat", "closed by the target"),
        ("garbage", "chat", "not an HTTP/1.1 answer"),
        ("length-too-long", "chat", "closed by the target"),
        ("length-too-short", "chat", "answer without text"),
        ("silent", "chat", "timeout"),
        ("trickle", "chat", "timeout"),
        ("endless-head", "chat", "timeout"),
    ];
    for (fault, shape, class) in rows {
        let mock = start(&["127.0.0.1:0"], &[(fault, 1.0)]);
        let mut scenario = scenario(shape, "{ kind = 'constant', per_s = 20 }", "{ events = 5 }");
        // Slow faults must fall into the window to be counted.
        (scenario.timeout_s, scenario.duration_s) = (0.3, 1.0);
        let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
        let seen = errors(&result);
        assert!(seen.iter().any(|one| one.starts_with(class)), "{fault} {shape}: {seen:?}");
        assert_eq!(result.loads[0].counts.completed, 0, "{fault} {shape}");
        assert!(!result.failures.is_empty(), "{fault} {shape}");
        mock.stop();
    }
}

#[test]
fn held_streams_stay_open_and_are_left_at_the_end() {
    let mock = start(&["127.0.0.1:0"], &[]);
    let rate = "{ kind = 'hold', streams = 20 }";
    let scenario = scenario("chat-stream", rate, "{ events = 1000000, gap_ms = 10 }");
    let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
    assert_eq!(result.failures, [""; 0]);
    let load = &result.loads[0];
    assert!(load.counts.records > 20 * 30, "{:?}", load.counts);
    let is_gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        Totals::of(&mock.stats).answers_cancelled == 20
    });
    assert!(is_gone, "{:?}", Totals::of(&mock.stats));
    mock.stop();
}

#[test]
fn a_closed_loop_keeps_its_clients_busy() {
    let mock = start(&["127.0.0.1:0"], &[]);
    let scenario = scenario("chat", "{ kind = 'closed', clients = 4 }", "{ events = 1, ttft_ms = 5 }");
    let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
    assert_eq!(result.failures, [""; 0]);
    let load = &result.loads[0];
    // Four clients, an answer each 5 ms and a bit; fewer where the machine is busy, but each asks again.
    assert!((9..=400).contains(&load.counts.completed), "{:?}", load.counts);
    assert!(load.total.p50_us >= 5000.0 && !load.is_open_loop);
    mock.stop();
}

#[test]
fn a_slow_target_makes_planned_sends_wait_and_the_wait_counts() {
    let mock = start(&["127.0.0.1:0"], &[]);
    // 8 connections and 50 ms an answer carry 160 a second of the 400 planned.
    let scenario = scenario("chat", "{ kind = 'constant', per_s = 400 }", "{ events = 1, ttft_ms = 50 }");
    let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
    let load = &result.loads[0];
    assert!(load.total.max_us > 200_000.0, "{}", load.total.max_us);
    assert!(load.counts.unfinished > 50, "{:?}", load.counts);
    mock.stop();
}

#[test]
fn an_unreachable_target_is_one_line() {
    let closed = start(&["127.0.0.1:0"], &[]);
    let address = closed.addresses[0].clone();
    closed.stop();
    let scenario = scenario("chat", "{ kind = 'constant', per_s = 10 }", "{ events = 1 }");
    let error = run(&scenario, &options(&address)).map(|_| ()).expect_err("nobody listens");
    assert!(error.contains("cannot connect") && !error.contains('\n'), "{error}");
}

#[test]
fn what_cannot_work_is_told_before_the_run() {
    let mock = start(&["127.0.0.1:0"], &[]);
    let address = mock.addresses[0].clone();
    let config = Config {
        listen: vec![address.clone()],
        cores: Vec::new(),
        script: Script::default(),
        faults: Vec::new(),
        key: None,
        tls: None,
    };
    let error = mock::start(&config).map(|_| ()).expect_err("the address is in use");
    assert!(error.contains("cannot listen on 127.0.0.1"), "{error}");
    let mut scenario = scenario("chat", "{ kind = 'constant', per_s = 10 }", "{ events = 1 }");
    scenario.duration_s = 3600.0;
    let rows = [
        (Options { pids: vec![u32::MAX - 1], ..options(&address) }, "--pid: process 4294967294: "),
        (Options { cores: vec![1023], ..options(&address) }, "--cores: cannot pin to core 1023: "),
    ];
    for (options, told) in rows {
        let error = run(&scenario, &options).map(|_| ()).expect_err("must be refused");
        assert!(error.starts_with(told) && !error.contains('\n'), "{error}");
    }
    mock.stop();
}

#[test]
fn compressed_answers_are_read_event_by_event() {
    let mock = start(&["127.0.0.1:0"], &[]);
    for shape in ["chat", "chat-stream"] {
        let answer = "{ events = 6, gap_ms = 10, script = 'gzip=1' }";
        let scenario = scenario(shape, "{ kind = 'constant', per_s = 20 }", answer);
        let fields = vec![("accept-encoding".to_owned(), "gzip".to_owned())];
        let packed =
            run(&scenario, &Options { fields, ..options(&mock.addresses[0]) }).expect("the mock is there");
        let plain = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
        assert_eq!((packed.failures.len(), plain.failures.len()), (0, 0), "{:?}", packed.failures);
        let (packed, plain) = (&packed.loads[0], &plain.loads[0]);
        assert!(packed.counts.completed >= 8 && packed.counts.bytes_in * 10 < plain.counts.bytes_in * 9);
        // Each event is flushed: had the packer kept them, gaps of 10 ms would be gone.
        assert!(shape == "chat" || packed.gap.p50_us > 5000.0, "{}", packed.gap.p50_us);
    }
    mock.stop();
}

#[test]
fn tls_carries_streams_and_a_foreign_certificate_is_refused() {
    let folder = std::env::temp_dir().join(format!("tollgate-load-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let made = tollgate_load::compare::adapter::certificate(&folder).expect("openssl is installed");
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        cores: Vec::new(),
        script: Script::default(),
        faults: Vec::new(),
        key: None,
        tls: Some(std::sync::Arc::new(made.server().expect("a certificate"))),
    };
    let mock = mock::start(&config).expect("loopback can be listened on");
    let url = mock.addresses[0].to_string();
    let scenario = scenario("chat-stream", "{ kind = 'constant', per_s = 40 }", "{ events = 5, gap_ms = 1 }");
    let ask = |roots: &std::path::Path| {
        let target = Target::parse(&format!("https://{url}"), Trust::Roots(roots)).expect("a valid URL");
        run(&scenario, &Options { target, ..options(&mock.addresses[0]) }).expect("the mock is there")
    };
    let trusted = ask(&made.authority);
    assert_eq!(trusted.failures, [""; 0]);
    assert!(trusted.loads[0].total.count > 0);
    let other = folder.join("other");
    std::fs::create_dir_all(&other).expect("a folder");
    let foreign = tollgate_load::compare::adapter::certificate(&other).expect("openssl is installed");
    let refused = ask(&foreign.authority);
    assert_eq!(refused.loads[0].counts.completed, 0);
    assert!(
        format!("{:?}", refused.loads[0].errors).contains("certificate"),
        "{:?}",
        refused.loads[0].errors
    );
    mock.stop();
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn a_trace_is_replayed_at_its_times_with_its_bodies() {
    let path = std::env::temp_dir().join(format!("tollgate-load-{}.jsonl", std::process::id()));
    let own = r#"{"t_ms":200,"path":"/v1/chat/completions","body":{"model":"m","messages":[]}}"#;
    let made = r#"{"t_ms":100,"shape":"messages","bytes":4096,"headers":[["x-trace","1"]]}"#;
    std::fs::write(&path, format!("{made}\n{own}\n")).expect("a file");
    let mock = start(&["127.0.0.1:0"], &[]);
    let rate = format!("{{ kind = 'trace', file = '{}' }}", path.display());
    let result =
        run(&scenario("chat", &rate, "{ events = 2 }"), &options(&mock.addresses[0])).expect("there");
    assert_eq!(result.failures, [""; 0]);
    let totals = Totals::of(&mock.stats);
    assert_eq!((totals.requests_messages, totals.requests_chat), (1, 1));
    assert_eq!((result.loads[0].counts.completed, result.loads[0].counts.planned), (2, 2));
    mock.stop();
    let _ = std::fs::remove_file(path);
}
