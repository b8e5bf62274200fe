//! HTTP/2 between generator and mock: the same proofs as over HTTP/1.1, plain and under TLS.

use tollgate_load::mock::script::Script;
use tollgate_load::mock::stats::Totals;
use tollgate_load::mock::{self, Config};
use tollgate_load::run::target::{Target, Trust};
use tollgate_load::run::{Options, run};
use tollgate_load::scenario::{Http, Scenario};

use crate::loopback::{errors, options, scenario, start};

fn two(shape: &str, rate: &str, answer: &str) -> Scenario {
    let (http, streams_per_connection, drain_s) = (Http::Two, 3, 5.0);
    Scenario { http, streams_per_connection, drain_s, ..scenario(shape, rate, answer) }
}

#[test]
fn every_shape_arrives_whole_over_http2_on_few_connections() {
    let path = std::env::temp_dir().join(format!("tollgate-load-h2-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let mock = start(&["127.0.0.1:0", "[::1]:0", &unix], &[]);
    let shapes = ["chat", "chat-stream", "responses", "responses-stream", "messages", "messages-stream"];
    let more = ["embeddings", "gemini", "gemini-stream"];
    for (number, shape) in shapes.iter().chain(&more).enumerate() {
        let answer = "{ events = 5, gap_ms = 1, ttft_ms = 40 }";
        let scenario = two(shape, "{ kind = 'constant', per_s = 100 }", answer);
        let before = Totals::of(&mock.stats);
        let result = run(&scenario, &options(&mock.addresses[number % 3])).expect("the mock is there");
        assert_eq!(result.failures, [""; 0], "{shape}");
        let load = &result.loads[0];
        // A busy machine may miss planned sends of so short a run; what was sent is answered.
        let sent = load.counts.sent;
        assert!(sent > 0 && load.total.count == sent, "{shape}: {:?}", load.counts);
        let spent = Totals::of(&mock.stats).since(&before);
        assert_eq!((spent.answers_finished, spent.answers_cancelled), (sent, 0), "{shape}");
        // Eight streams at once, three on a connection; the probe is one more.
        assert!(spent.connections_accepted <= 4, "{shape}: {}", spent.connections_accepted);
    }
    mock.stop();
    let _ = std::fs::remove_file(path);
}

#[test]
fn large_bodies_pass_the_windows_in_both_directions() {
    let mock = start(&["127.0.0.1:0"], &[]);
    let mut scenario =
        two("chat-stream", "{ kind = 'closed', clients = 6 }", "{ events = 3000, words = 200 }");
    scenario.load[0].body[0].bytes = 3 << 20;
    scenario.drain_s = 5.0;
    let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
    assert_eq!(result.failures, [""; 0]);
    assert!(result.loads[0].total.count >= 6, "{:?}", result.loads[0].counts);
    mock.stop();
}

#[test]
fn a_slow_reader_holds_its_window_back_and_goes_on() {
    const STREAMS: u64 = 6;
    let mock = start(&["127.0.0.1:0"], &[]);
    let rate = format!("{{ kind = 'hold', streams = {STREAMS} }}");
    let mut scenario = two("chat-stream", &rate, "{ events = 10000000, words = 1000 }");
    (scenario.load[0].read_bytes_per_s, scenario.duration_s) = (20_000, 2.0);
    let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
    assert_eq!(result.failures, [""; 0]);
    // Ten sweeps of 4,000 bytes and the first one, with one window and one event of the mock ahead of them.
    let sent = Totals::of(&mock.stats).bytes_sent / STREAMS;
    let read = result.loads[0].counts.bytes_in / STREAMS;
    assert!((12_000..50_000).contains(&read) && sent < 60_000, "read {read}, sent {sent} a stream");
    mock.stop();
}

#[test]
fn each_fault_of_the_provider_is_seen_over_http2() {
    let rows = [
        ("status-429", "chat", "status 429"),
        ("reset-before-head", "chat", "HTTP/2 stream reset"),
        ("reset-after-head", "chat-stream", "HTTP/2 stream reset"),
        ("reset-mid-event", "chat-stream", "HTTP/2 stream reset"),
        ("garbage", "chat", "HTTP/2 stream reset"),
        ("cut-mid-event", "chat-stream", "stream ended without its dialect's end"),
        ("length-too-long", "chat", "HTTP/2 stream reset"),
        ("silent", "chat", "timeout"),
        ("trickle", "chat", "timeout"),
    ];
    for (fault, shape, class) in rows {
        let mock = start(&["127.0.0.1:0"], &[(fault, 1.0)]);
        let mut scenario = two(shape, "{ kind = 'constant', per_s = 20 }", "{ events = 5 }");
        (scenario.timeout_s, scenario.duration_s) = (0.3, 1.0);
        let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
        let seen = errors(&result);
        assert!(seen.iter().any(|one| one.starts_with(class)), "{fault} {shape}: {seen:?}");
        assert_eq!(result.loads[0].counts.completed, 0, "{fault} {shape}");
        assert_eq!(Totals::of(&mock.stats).answers_finished, 0, "{fault} {shape}");
        mock.stop();
    }
}

#[test]
fn a_client_that_leaves_one_stream_frees_it_and_keeps_the_others() {
    let mock = start(&["127.0.0.1:0"], &[]);
    let mut scenario =
        two("chat-stream", "{ kind = 'closed', clients = 3 }", "{ events = 1000000, gap_ms = 5 }");
    scenario.load[0].leave_after_events = 4;
    let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
    assert_eq!(result.failures, [""; 0]);
    let totals = Totals::of(&mock.stats);
    assert!(result.loads[0].counts.left > 20 && totals.answers_cancelled > 20, "{totals:?}");
    assert_eq!((totals.answers_finished, totals.connections_accepted), (0, 2));
    mock.stop();
}

#[test]
fn held_streams_share_connections_and_are_left_at_the_end() {
    let mock = start(&["127.0.0.1:0"], &[]);
    let answer = "{ events = 1000000, gap_ms = 10 }";
    let scenario = two("chat-stream", "{ kind = 'hold', streams = 20 }", answer);
    let result = run(&scenario, &options(&mock.addresses[0])).expect("the mock is there");
    assert_eq!(result.failures, [""; 0]);
    assert!(result.loads[0].counts.records > 20 * 30, "{:?}", result.loads[0].counts);
    let is_gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        Totals::of(&mock.stats).answers_cancelled == 20
    });
    let totals = Totals::of(&mock.stats);
    assert!(is_gone && totals.connections_accepted == 8, "{totals:?}");
    mock.stop();
}

#[test]
fn tls_agrees_on_http2_and_a_target_that_does_not_is_told() {
    let folder = std::env::temp_dir().join(format!("tollgate-load-h2tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let made = tollgate_load::compare::adapter::certificate(&folder).expect("openssl is installed");
    for (offered, agrees) in [(vec![b"h2".to_vec(), b"http/1.1".to_vec()], true), (Vec::new(), false)] {
        let mut tls = made.server().expect("a certificate");
        tls.alpn_protocols = offered;
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().expect("an address")],
            cores: Vec::new(),
            script: Script::default(),
            faults: Vec::new(),
            key: None,
            tls: Some(std::sync::Arc::new(tls)),
        };
        let mock = mock::start(&config).expect("loopback can be listened on");
        let url = format!("https://{}", mock.addresses[0]);
        let target = Target::parse(&url, Trust::Roots(&made.authority)).expect("a valid URL");
        let scenario = two("chat-stream", "{ kind = 'constant', per_s = 40 }", "{ events = 5, gap_ms = 1 }");
        let result = run(&scenario, &Options { target, ..options(&mock.addresses[0]) }).expect("there");
        if agrees {
            assert_eq!(result.failures, [""; 0]);
            assert!(result.loads[0].total.count > 0);
        } else {
            let seen = format!("{:?}", result.loads[0].errors);
            assert!(seen.contains("chose nothing") && result.loads[0].counts.completed == 0, "{seen}");
        }
        mock.stop();
    }
    let _ = std::fs::remove_dir_all(folder);
}
