//! What callers are told of a request that has ended: by `/v1/usage/ID`, and behind the end of a stream.

use crate::relay::gateway::{
    Gateway, KEY, Kept, LAST, STREAM_HEAD, Setup, answer, ask, call, chat, chunk, get, json, post, send,
};
use crate::relay::http::{Message, Pace, Reader};
use crate::relay::told::{DIALECTS, Finish, kind, path, reason_of_length, stream, told};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use serde_json::json as value;
use std::net::SocketAddr;
use std::sync::Arc;
use tollgate::llm::catalogue::{Catalogue, Unpriced};
use tollgate::llm::dialect::Dialect;
use tollgate::llm::price::Price;
use tollgate::llm::provider::ProviderKind::{Anthropic, OpenAi};
use tollgate::policy::limit::plan::{
    Alerts, AtLimit, Chain, Level, Limit, Metric, Mode, NO_CELL, Plan, Run, Window,
};

const BODY: &str = r#"{"model":"m"}"#;
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":30,"total_tokens":39,"prompt_tokens_details":{"cached_tokens":4}}}"#;
const UNKNOWN: &str = "req_00000000000000000000000000";

/// Model "m" of both at a dollar for a million tokens in and two out.
fn priced() -> Arc<Catalogue> {
    let mut catalogue = Catalogue::default();
    catalogue
        .add_own("[openai]\nm = { input = 1, output = 2 }\n[anthropic]\nm = { input = 1, output = 2 }\n")
        .expect("a catalogue");
    Arc::new(catalogue)
}

/// One limit of the key that tests use.
fn limited(metric: Metric, amount: u64, window: Window, mode: Mode) -> Plan {
    let limit = Limit {
        cell: NO_CELL,
        metric,
        level: Level::Key,
        shadow: false,
        alerts: Alerts::default(),
        amount,
        window,
        mode,
        at_limit: AtLimit::Refuse,
        owner: "tester".into(),
    };
    let keys = vec![Chain::new(&[Run { first: 0, count: 1 }], None)];
    Plan { limits: vec![limit], keys, ..Plan::default() }
}

/// A gateway with a ledger before one provider.
fn kept(address: SocketAddr, edit: impl FnOnce(&mut Setup)) -> Gateway {
    Gateway::start(&Setup::one(OpenAi, address).with(|setup| setup.ledger = Kept::Answers).with(edit))
}

/// A provider that answers so, each time on a connection of its own.
fn answering(answers: &[String]) -> SocketAddr {
    let (listener, address) = listen();
    let script = |answer: &String| {
        Script::new().expect_until("\r\n\r\n").expect(BODY).send(answer.clone()).expect_end()
    };
    serve(listener, answers.iter().map(script).collect());
    address
}

fn own_id(answer: &Message) -> String {
    answer.field("x-request-id").expect("an id").to_string()
}

fn usage(id: &str) -> String {
    get("GET", &format!("/v1/usage/{id}"))
}

#[test]
fn a_caller_is_told_what_its_request_has_used_and_nobody_else_is() {
    calmly_on_every_driver(async || {
        let gateway = kept(answering(&[json(ANSWER)]), |setup| {
            setup.base.catalogue = priced();
            // The only request that is left is the one that is asked about.
            setup.base.plan = limited(Metric::Requests, 1, Window::Minute, Mode::Full);
        });
        let id = own_id(&ask(gateway.address, chat(BODY)).await);
        let told = ask(gateway.address, usage(&id)).await;
        assert_eq!((told.status(), told.field("content-type")), (200, Some("application/json")));
        let mut body = told.json();
        let started = body["started"].take();
        let started = started.as_str().expect("a time");
        assert!(started.starts_with("20") && started.ends_with('Z'), "{started}");
        let expected = value!({
            "id": id, "key": "tester", "model": "m", "provider": "first", "model_sent": "m", "started": null,
            "status": 200, "ended": "whole", "attempts": 1, "input_tokens": 9, "output_tokens": 30,
            "cache_read_tokens": 4, "usage": "provider", "cost_usd": "0.000069", "priced": true,
        });
        assert_eq!(body, expected);
        let head = ask(gateway.address, get("HEAD", &format!("/v1/usage/{id}"))).await;
        assert_eq!((head.status(), head.field("content-length")), (200, told.field("content-length")));
        let another = usage(&id).replace(KEY, "tg-few");
        let long = format!("{id}0");
        for asked in [another, usage(UNKNOWN), usage("x"), usage(&long)] {
            let refused = ask(gateway.address, &asked).await;
            assert_eq!((refused.status(), refused.field("x-should-retry")), (404, Some("false")), "{asked}");
            let error = &refused.json()["error"];
            let text = "no request of this key with this id has ended within the last hour";
            assert_eq!((&error["code"], &error["message"]), (&"request_not_found".into(), &text.into()));
        }
        assert_eq!(ask(gateway.address, usage(&id).replace(KEY, "tg-none")).await.status(), 401);
        assert_eq!(ask(gateway.address, post(&format!("/v1/usage/{id}"), "{}")).await.status(), 405);
        assert_eq!(ask(gateway.address, chat(BODY)).await.status(), 429, "the limit holds all the same");
        assert_eq!(gateway.in_use("key:tester/requests_per_minute"), 1);
        let records = gateway.end().await;
        assert_eq!((&records[1]["surface"], &records[1]["status"]), (&"usage".into(), &200.into()));
    });
}

#[test]
fn a_request_that_is_under_way_is_not_found_and_one_that_is_just_over_is() {
    calmly_on_every_driver(async || {
        let (listener, address) = listen();
        let go_on = tollgate::net::signal::Signal::default();
        let began = format!("{STREAM_HEAD}{}", chunk("data: {\"choices\":[]}\n\n"));
        let script = Script::new().expect_until("\r\n\r\n").expect_until("}}");
        serve(listener, vec![script.send(began).until(&go_on).send(LAST).expect_end()]);
        let gateway = kept(address, |_| {});
        let waiting = call(gateway.address).await;
        let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        send(&waiting, chat(body).as_bytes()).await;
        let mut reader = Reader::new(&waiting, Pace::default());
        let heard = std::str::from_utf8(reader.hear("choices").await).expect("text").to_string();
        let id = heard.split("x-request-id: ").nth(1).and_then(|rest| rest.lines().next()).expect("an id");
        assert_eq!(ask(gateway.address, usage(id)).await.status(), 404);
        go_on.raise();
        reader.hear(LAST).await;
        assert_eq!(ask(gateway.address, usage(id)).await.status(), 200);
        drop(waiting);
        gateway.end().await;
    });
}

#[test]
fn what_has_no_price_is_told_from_what_costs_nothing() {
    // policy, cost
    let ceiling = Unpriced::Ceiling(Price::flat(2_000_000));
    for (policy, cost) in [(Unpriced::Allow, None), (ceiling, Some("0.000078"))] {
        calmly_on_every_driver(async move || {
            let gateway = kept(answering(&[json(ANSWER)]), |setup| setup.base.unpriced = policy);
            let id = own_id(&ask(gateway.address, chat(BODY)).await);
            let told = ask(gateway.address, usage(&id)).await.json();
            assert_eq!((told["cost_usd"].as_str(), &told["priced"]), (cost, &false.into()));
            gateway.end().await;
        });
    }
}

#[test]
fn a_request_that_failed_is_told_with_its_status_and_attempts() {
    calmly_on_every_driver(async || {
        let busy = answer("503 Service Unavailable", "application/json", "{}");
        let (first, second) = (answering(std::slice::from_ref(&busy)), answering(&[busy]));
        let setup = Setup::default()
            .upstream("one", OpenAi, first)
            .upstream("two", OpenAi, second)
            .model("m", &[(0, ""), (1, "")])
            .with(|setup| setup.ledger = Kept::Answers);
        let gateway = Gateway::start(&setup);
        let answered = ask(gateway.address, chat(BODY)).await;
        assert_eq!(answered.status(), 503);
        let id = answered.field("x-tollgate-request-id").expect("an id");
        let told = ask(gateway.address, usage(id)).await.json();
        assert_eq!((&told["status"], &told["attempts"]), (&503.into(), &2.into()));
        assert_eq!((&told["provider"], told.get("output_tokens")), (&"two".into(), None));
        gateway.end().await;
    });
}

#[test]
fn without_a_ledger_that_is_said_and_one_that_cannot_answer_asks_for_patience() {
    calmly_on_every_driver(async || {
        let nowhere = "127.0.0.1:9".parse().expect("an address");
        let gateway = Gateway::start(&Setup::one(Anthropic, nowhere));
        let asked = usage(UNKNOWN).replace("\r\n\r\n", "\r\nanthropic-version: 2023-06-01\r\n\r\n");
        let refused = ask(gateway.address, asked).await;
        assert_eq!((refused.status(), &refused.json()["type"]), (404, &"error".into()));
        let error = &refused.json()["error"];
        assert_eq!(error["type"], "not_found_error");
        let text = error["message"].as_str().expect("a message");
        assert!(text.contains("no ledger is kept here"), "{text}");
        gateway.end().await;
        let gateway = kept(nowhere, |_| {});
        gateway.ledger.as_ref().expect("a ledger").fall_silent();
        let refused = ask(gateway.address, usage(UNKNOWN)).await;
        assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
        assert_eq!(refused.json()["error"]["code"], "gateway_overloaded");
        gateway.end().await;
    });
}

/// A request for a stream with its usage, and the wish to be told of it.
fn wishing(dialect: Dialect, wish: &str) -> String {
    let body = r#"{"model":"m","max_tokens":400,"stream":true,"stream_options":{"include_usage":true}}"#;
    post(path(dialect), body).replace("\r\n\r\n", &format!("\r\nx-tollgate-usage: {wish}\r\n\r\n"))
}

/// A provider of this stream that must not see the wish.
fn streaming(sent: &str, piece: usize) -> SocketAddr {
    let (listener, address) = listen();
    let sent = [STREAM_HEAD, &chunk(sent), LAST].concat();
    let without =
        |head: &[u8]| assert!(!head.to_ascii_lowercase().windows(11).any(|name| name == b"x-tollgate-"));
    let script = Script::new().expect_until("\r\n\r\n").check(without).expect_until("}}");
    serve(listener, vec![script.send_pieces(sent, piece).expect_end()]);
    address
}

#[test]
fn a_stream_that_is_asked_to_tells_its_usage_behind_its_end_and_no_other_byte_changes() {
    for dialect in DIALECTS {
        for (keeps, wish) in [(true, "comment"), (false, "Comment"), (true, "header")] {
            calmly_on_every_driver(async move || {
                let sent = stream(dialect, &["one ", "two"], Finish::Apart);
                let address = streaming(&sent, 333);
                let setup = Setup::one(kind(dialect), address).with(|setup| {
                    setup.ledger = if keeps { Kept::Records } else { Kept::Nothing };
                    setup.base.catalogue = priced();
                });
                let gateway = Gateway::start(&setup);
                let answered = ask(gateway.address, wishing(dialect, wish)).await;
                assert!(answered.whole);
                let id = own_id(&answered);
                let cost = if keeps { r#""cost_usd":"0.000013","priced":true"# } else { r#""priced":false"# };
                let numbers = format!(r#""input_tokens":7,"output_tokens":3,"usage":"provider",{cost}"#);
                let comment = format!(": tollgate-usage {{\"id\":\"{id}\",{numbers}}}\n\n");
                let expected = sent.clone() + if wish == "header" { "" } else { &comment };
                assert_eq!(answered.text(), expected, "{dialect:?}");
                gateway.end().await;
            });
        }
    }
}

#[test]
fn a_stream_that_ends_at_its_budget_tells_what_is_booked() {
    for dialect in DIALECTS {
        calmly_on_every_driver(async move || {
            let words: Vec<String> = (0..200).map(|at| format!("w{at} ")).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let (listener, address) = listen();
            let sent = [STREAM_HEAD, &chunk(&stream(dialect, &words, Finish::Apart))].concat();
            let script = Script::new().expect_until("\r\n\r\n").expect_until("}}");
            serve(listener, vec![script.send(sent).expect_gone()]);
            let setup = Setup::one(kind(dialect), address).with(|setup| {
                setup.base.plan = limited(Metric::OutputTokens, 100, Window::Minute, Mode::Step(20));
            });
            let gateway = Gateway::start(&setup);
            let answered = ask(gateway.address, wishing(dialect, "comment")).await;
            let (events, comment) = answered.text().split_once(": tollgate-usage ").expect("the comment");
            assert_eq!(told(dialect, events).reason, reason_of_length(dialect));
            let numbers: serde_json::Value = serde_json::from_str(comment).expect("JSON alone");
            let booked = gateway.in_use("key:tester/output_tokens_per_minute");
            assert_eq!(
                (&numbers["output_tokens"], &numbers["usage"]),
                (&booked.into(), &"estimated".into()),
                "{dialect:?}"
            );
            let records = gateway.end().await;
            assert_eq!(records[0]["ended"], "budget");
        });
    }
}

#[test]
fn a_stream_that_breaks_off_or_ends_within_an_event_tells_nothing() {
    let event = r#"data: {"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    // what comes, how the body ends
    let rows = [
        (format!("{event}\n\n"), ""),
        (format!("{event}\n\n{event}\n"), LAST),
        (format!("{event}\n\n{event}"), LAST),
        (format!("{event}\n\ndata"), LAST),
    ];
    for (sent, end) in rows {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let script = Script::new().expect_until("\r\n\r\n").expect_until("}}");
            serve(listener, vec![script.send([STREAM_HEAD, &chunk(&sent), end].concat()).close()]);
            let gateway = Gateway::start(&Setup::one(OpenAi, address));
            let answered = ask(gateway.address, wishing(Dialect::OpenAiChat, "comment")).await;
            assert!(answered.text().starts_with(&sent), "{}", answered.text());
            assert!(!answered.text().contains("tollgate-usage"), "{}", answered.text());
            gateway.end().await;
        });
    }
}
