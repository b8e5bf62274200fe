//! The ledger under kills: every request that a provider saw is recorded once, and whoever received an answer
//! whole finds its exact usage there, also by `/v1/usage/ID`.

use crate::cli::{Directory, ended};
use crate::process::gateway::{Gateway, KEY, config, exchange, soon, status};
use crate::process::scaled;
use crate::process::streams::{Callers, Plan, provider, run};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

fn plan(number: u64, events: u32) -> Plan {
    Plan { number, events, gap: Duration::from_millis(5) }
}

fn with_ledger(directory: &str) -> String {
    format!("[log]\naccess = \"off\"\n\n[ledger]\ndirectory = \"{directory}\"\n")
}

/// All records, by id: one that stands there twice is a fault.
fn records(directory: &str) -> BTreeMap<String, Value> {
    let listed = ended(&["usage", "--directory", directory, "--records"]);
    assert_eq!((listed.status, &*listed.stderr), (Some(0), ""));
    let mut records = BTreeMap::new();
    for line in listed.stdout.lines() {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let id = record["id"].as_str().expect("an id").to_owned();
        assert!(records.insert(id, record).is_none(), "twice: {line}");
    }
    records
}

/// Requests and output tokens by `usage --format json`, all of them rolled up.
fn sums(directory: &str) -> (u64, u64, u64) {
    let arguments = ["usage", "--directory", directory, "--by", "key", "--format", "json"];
    let json = || serde_json::from_str::<Value>(&ended(&arguments).stdout).expect("JSON");
    assert!(soon(|| json()["not_rolled_up"] == 0), "{}", json());
    let json = json();
    let row = &json["rows"][0];
    let number = |name: &str| row[name].as_u64().unwrap_or(0);
    (number("requests"), number("crashed"), number("output_tokens"))
}

#[test]
fn a_drain_ends_when_every_record_is_durable_and_rolled_up() {
    let streams = scaled(20, 500);
    run(async {
        let state = Directory::new();
        let directory = state.path("state");
        let mut gateway = Gateway::start(&config(provider().await, &with_ledger(&directory)));
        let callers = Callers::default();
        let work: Vec<_> =
            (0..streams).map(|number| callers.spawn(gateway.address, plan(number, 20))).collect();
        callers.have_begun(streams as usize).await;
        gateway.signal(Signal::TERM);
        for caller in work {
            caller.await.unwrap().expect("the whole stream");
        }
        assert_eq!(gateway.exit(), Some(0), "{:#?}", gateway.told());
        let records = records(&directory);
        assert_eq!(records.len() as u64, streams);
        for record in records.values() {
            assert_eq!((&record["record"], &record["ended"]), (&"request".into(), &"whole".into()));
            assert_eq!((&record["key"], &record["model"]), (&"blue".into(), &"m".into()));
            assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&7.into(), &20.into()));
            assert_eq!(record["usage"], "provider");
        }
        assert_eq!(sums(&directory), (streams, 0, 20 * streams));
    });
}

#[test]
fn a_caller_finds_at_once_what_its_request_has_used_whichever_worker_it_asks() {
    let state = Directory::new();
    let directory = state.path("state");
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let text = config(nowhere, &with_ledger(&directory));
    let text = text.replace("kind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"", "kind = \"mock\"");
    let text = text.replace("workers = 1", "workers = 2");
    let gateway =
        Gateway::start(&format!("{text}\n[catalogue]\nunpriced = {{ usd_per_million_tokens = 3 }}\n"));
    let ask = |request: &str, body: &str| {
        let length = body.len();
        let fields = format!("host: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {length}");
        let head = format!("{request} HTTP/1.1\r\n{fields}\r\nconnection: close\r\n\r\n");
        exchange(gateway.address, &(head + body)).expect("an answer")
    };
    let parsed = |answer: &str| -> Value {
        serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
    };
    for _ in 0..20 {
        let answered = ask("POST /v1/chat/completions", "{\"model\":\"m\"}");
        let id = answered.split("x-request-id: ").nth(1).and_then(|rest| rest.lines().next()).expect("an id");
        let told = ask(&format!("GET /v1/usage/{id}"), "");
        assert_eq!(status(&told), 200, "{told}");
        let (answered, told) = (parsed(&answered), parsed(&told));
        let usage = &answered["usage"];
        assert_eq!(told["input_tokens"], usage["prompt_tokens"]);
        assert_eq!(told["output_tokens"], usage["completion_tokens"]);
        let micros = 3 * usage["total_tokens"].as_u64().expect("a number");
        let cost = told["cost_usd"].as_str().and_then(|text| text.parse::<f64>().ok()).expect("a number");
        assert!((cost * 1e6 - micros as f64).abs() < 1e-6, "{cost} for {usage}");
        assert_eq!((&told["priced"], &told["ended"]), (&false.into(), &"whole".into()));
    }
    assert_eq!(status(&ask("GET /v1/usage/req_00000000000000000000000000", "")), 404);
}

#[test]
fn after_kill_9_every_request_is_recorded_once_and_whole_answers_exactly() {
    let (streams, rounds) = scaled((20, 3), (500, 20));
    run(async {
        let upstream = provider().await;
        let state = Directory::new();
        let directory = state.path("state");
        let (mut whole, mut cut) = (0, 0);
        // By the number of tokens, which tells the streams of a round apart.
        let mut whole_of = BTreeMap::<u64, usize>::new();
        for round in 0..rounds {
            let mut gateway = Gateway::start(&config(upstream, &with_ledger(&directory)));
            let callers = Callers::default();
            // Some end about when the process is killed.
            let work: Vec<_> = (0..streams)
                .map(|number| callers.spawn(gateway.address, plan(number, 1 + number as u32 * 3)))
                .collect();
            callers.have_begun(streams as usize).await;
            tokio::time::sleep(Duration::from_millis(20 + 13 * round)).await;
            gateway.signal(Signal::KILL);
            assert_eq!(gateway.exit(), None);
            for (number, caller) in (0..).zip(work) {
                match caller.await.unwrap() {
                    Ok(()) => {
                        whole += 1;
                        *whole_of.entry(1 + number * 3).or_default() += 1;
                    }
                    Err(_) => cut += 1,
                }
            }
        }
        assert!(whole > 0 && cut > 0, "{whole} whole, {cut} cut");
        let mut last = Gateway::start(&config(upstream, &with_ledger(&directory)));
        last.wait_told("a process has died", 1);
        let metrics = last.metrics();
        assert_eq!(
            (metrics["tollgate_ledger_records_lost_total"], metrics["tollgate_ledger_failing"]),
            (0.0, 0.0)
        );
        let (status, page) = last.page("/admin/v1/usage?by=key&since=1h");
        assert_eq!((status, page.contains("\"rows\"")), (200, true), "{page}");
        last.signal(Signal::TERM);
        assert_eq!(last.exit(), Some(0));
        let records = records(&directory);
        assert_eq!(records.len(), whole + cut, "each request once");
        for (tokens, whole) in whole_of {
            let is_exact =
                |record: &&Value| record["usage"] == "provider" && record["output_tokens"] == tokens;
            let exact = records.values().filter(is_exact).count();
            assert!(exact >= whole, "{exact} of {whole} whole answers of {tokens} tokens are exact");
        }
        let crashed = records.values().filter(|record| record["record"] == "crash").count();
        assert!(crashed > 0, "{cut} were cut");
        eprintln!("{whole} whole, {cut} cut, {crashed} recorded as crashed");
        let requests = (whole + cut) as u64;
        let (counted, crashes, _) = sums(&directory);
        assert_eq!((counted, crashes), (requests, crashed as u64));
        let rebuilt = ended(&["usage", "--directory", &directory, "--by", "key", "--rebuild"]);
        assert_eq!(rebuilt.stderr, format!("{requests} records were summed anew\n"));
        assert_eq!(sums(&directory).0, requests);
    });
}

#[test]
fn two_processes_share_a_ledger_and_one_that_is_killed_is_recovered_by_the_other() {
    run(async {
        let upstream = provider().await;
        let state = Directory::new();
        let directory = state.path("state");
        let mut older = Gateway::start(&config(upstream, &with_ledger(&directory)));
        let younger = Gateway::start(&config(upstream, &with_ledger(&directory)));
        let callers = Callers::default();
        let cut = callers.spawn(older.address, plan(1, 100_000));
        let whole = callers.spawn(younger.address, plan(2, 3));
        callers.have_begun(2).await;
        whole.await.unwrap().expect("the whole stream");
        older.signal(Signal::KILL);
        assert_eq!(older.exit(), None);
        assert!(cut.await.unwrap().is_err());
        younger.wait_told("a process has died: 1 requests", 1);
        let records = records(&directory);
        let kinds: Vec<_> = records.values().map(|record| record["record"].as_str().unwrap()).collect();
        assert!(kinds.contains(&"request") && kinds.contains(&"crash") && kinds.len() == 2, "{kinds:?}");
        assert_eq!((sums(&directory).0, sums(&directory).1), (2, 1));
    });
}
