//! Limits and budgets, as clients meet them: who is admitted, what they are told, how a stream ends at its budget,
//! and that nothing stays taken, whichever way a request ends.

use crate::relay::gateway::{
    Gateway, LAST, STREAM_HEAD, Setup, answer, ask, call, chat, chunk, get, json, post, send,
};
use crate::relay::http::{Pace, Reader};
use crate::relay::told::{DIALECTS, Finish, Told, kind, path, reason_of_length, stream, told};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tollgate::llm::catalogue::{Catalogue, Unpriced};
use tollgate::llm::dialect::Dialect::{self, OpenAiChat};
use tollgate::llm::provider::ProviderKind::{Anthropic, OpenAi};
use tollgate::net::runtime;
use tollgate::policy::limit::plan::{
    AddressLimits, Alerts, AtLimit, Chain, Level, Limit, Metric, Mode, NO_CELL, Plan, Run, Window,
};
use tollgate::usage::window::{Calendar, Period, Weekday};

const BODY: &str = r#"{"model":"m","max_tokens":50}"#;
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":30,"total_tokens":39}}"#;

fn limit(metric: Metric, amount: u64) -> Limit {
    let window = match metric {
        Metric::Concurrent | Metric::Streams => Window::None,
        _ => Window::Minute,
    };
    Limit {
        cell: NO_CELL,
        metric,
        level: Level::Key,
        shadow: false,
        alerts: Alerts::default(),
        amount,
        window,
        mode: Mode::Full,
        at_limit: AtLimit::Refuse,
        owner: "tester".into(),
    }
}

fn budget(metric: Metric, amount: u64) -> Limit {
    let month = Calendar::new(Period::Month, "UTC", 0, Weekday::Monday).expect("a calendar");
    Limit { window: Window::Calendar(Arc::new(month)), ..limit(metric, amount) }
}

/// The limits of the key that tests use.
fn plan(limits: Vec<Limit>) -> Plan {
    let runs = [Run { first: 0, count: limits.len() as u32 }];
    Plan { limits, keys: vec![Chain::new(&runs, None)], ..Plan::default() }
}

/// A gateway before one provider, under limits.
fn limited(address: SocketAddr, limits: Vec<Limit>) -> Gateway {
    Gateway::start(&Setup::one(OpenAi, address).with(|setup| setup.base.plan = plan(limits)))
}

/// A provider that answers so many requests, each on a connection of its own.
fn answering(count: usize) -> SocketAddr {
    let (listener, address) = listen();
    let script = || Script::new().expect_until("\r\n\r\n").expect(BODY).send(json(ANSWER)).expect_end();
    serve(listener, (0..count).map(|_| script()).collect());
    address
}

#[test]
fn a_request_beyond_its_limit_is_told_what_when_and_whether_to_try_again() {
    // the limit, in each dialect: status, code, seconds, retry, text
    let rows = [
        (
            limit(Metric::Requests, 1),
            "rate_limit_exceeded",
            Some(60),
            "true",
            "key tester is limited to 1 requests a minute; the next window begins in ",
        ),
        (
            limit(Metric::Tokens, 100),
            "rate_limit_exceeded",
            Some(60),
            "true",
            "key tester is limited to 100 tokens a minute: 61 are left and this request may need 63; the next",
        ),
        (
            limit(Metric::OutputTokens, 49),
            "request_exceeds_limit",
            None,
            "false",
            "is limited to 49 output tokens a minute, and this request may need 50 output tokens: it never fits",
        ),
        (
            budget(Metric::Tokens, 100),
            "insufficient_quota",
            Some(31 * 86_400),
            "false",
            "key tester is limited to 100 tokens a month: 61 tokens are left and this request may need 63 tokens",
        ),
    ];
    for (limit, code, seconds_max, retry, text) in rows {
        calmly_on_every_driver(async move || {
            let never = seconds_max.is_none();
            let gateway = limited(answering(usize::from(!never)), vec![limit.clone()]);
            if !never {
                assert_eq!(ask(gateway.address, chat(BODY)).await.status(), 200);
            }
            let long = BODY.replace("50", "59");
            let refused = ask(gateway.address, chat(if never { BODY } else { &long })).await;
            assert_eq!((refused.status(), refused.field("x-should-retry")), (429, Some(retry)));
            assert_eq!(refused.json()["error"]["code"], code);
            let told = refused.json()["error"]["message"].as_str().expect("a message").to_string();
            let text = text.replace("61 are", "61 tokens are").replace("need 63;", "need 69 tokens;");
            let text = text.replace("need 63 tokens", "need 69 tokens");
            assert!(told.contains(&text), "{told}\n{text}");
            let after = refused.field("retry-after").map(|text| text.parse::<u64>().expect("seconds"));
            assert_eq!(after.is_some(), seconds_max.is_some());
            assert!(after.is_none_or(|after| (1..=seconds_max.unwrap()).contains(&after)), "{after:?}");
            gateway.end().await;
        });
    }
}

#[test]
fn the_callers_dialect_tells_of_a_limit() {
    calmly_on_every_driver(async move || {
        let setup = Setup::one(Anthropic, "127.0.0.1:9".parse().unwrap());
        let gateway = Gateway::start(&setup.with(|setup| {
            setup.base.plan = plan(vec![budget(Metric::OutputTokens, 49)]);
        }));
        let refused = ask(gateway.address, post("/v1/messages", BODY)).await;
        assert_eq!(
            (refused.status(), refused.json()["error"]["type"].as_str()),
            (429, Some("rate_limit_error"))
        );
        gateway.end().await;
    });
}

#[test]
fn an_answer_tells_what_is_left_of_the_callers_limits_and_not_of_the_gateways_own() {
    for (dialect, fields) in [
        (
            OpenAiChat,
            vec![
                ("x-ratelimit-limit-requests", "9"),
                ("x-ratelimit-remaining-requests", "8"),
                ("x-ratelimit-limit-tokens", "1000"),
                ("x-ratelimit-remaining-tokens", "940"),
            ],
        ),
        (
            Dialect::Anthropic,
            vec![
                ("anthropic-ratelimit-requests-limit", "9"),
                ("anthropic-ratelimit-requests-remaining", "8"),
                ("anthropic-ratelimit-tokens-limit", "1000"),
                ("anthropic-ratelimit-output-tokens-remaining", "1950"),
            ],
        ),
    ] {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let theirs =
                "x-ratelimit-remaining-requests: 77\r\nAnthropic-RateLimit-Tokens-Limit: 5\r\ncontent-length";
            let answer = json(ANSWER).replace("content-length", theirs);
            serve(
                listener,
                vec![Script::new().expect_until("\r\n\r\n").expect(BODY).send(answer).expect_end()],
            );
            let limits = vec![
                limit(Metric::Requests, 9),
                limit(Metric::Tokens, 1_000),
                limit(Metric::OutputTokens, 2_000),
            ];
            let setup =
                Setup::one(kind(dialect), address).with(|setup| setup.base.plan = plan(limits.clone()));
            let gateway = Gateway::start(&setup);
            let answer = ask(gateway.address, post(path(dialect), BODY)).await;
            assert_eq!(answer.status(), 200);
            for (name, value) in &fields {
                assert_eq!(answer.field(name), Some(*value), "{name}");
            }
            let reset = ["x-ratelimit-reset-requests", "anthropic-ratelimit-requests-reset"];
            let reset = reset.iter().find_map(|name| answer.field(name)).expect("a reset");
            assert!(reset.ends_with(['s', 'Z']), "{reset}");
            gateway.end().await;
        });
    }
}

#[test]
fn a_refused_request_counts_nowhere_and_a_served_one_as_what_it_used() {
    calmly_on_every_driver(async move || {
        let limits =
            vec![limit(Metric::Requests, 9), budget(Metric::Tokens, 100), limit(Metric::Concurrent, 1)];
        let gateway = limited(answering(1), limits);
        assert_eq!(ask(gateway.address, chat(BODY)).await.status(), 200);
        let refused = ask(gateway.address, chat(r#"{"model":"m","max_tokens":90}"#)).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(gateway.in_use("key:tester/requests_per_minute"), 1);
        assert_eq!(gateway.in_use("key:tester/budget_tokens_month"), 39);
        gateway.end().await;
    });
}

#[test]
fn only_so_many_requests_are_under_way_at_a_time() {
    calmly_on_every_driver(async move || {
        let (listener, address) = listen();
        let go_on = tollgate::net::signal::Signal::default();
        let first = Script::new().expect_until("\r\n\r\n").expect(BODY).until(&go_on).send(json(ANSWER));
        let second = first.expect_until("\r\n\r\n").expect(BODY).send(json(ANSWER));
        serve(listener, vec![second.expect_end()]);
        let gateway = limited(address, vec![limit(Metric::Concurrent, 1)]);
        let waiting = call(gateway.address).await;
        send(&waiting, chat(BODY).as_bytes()).await;
        while gateway.counters().upstream.open.value() == 0 {
            runtime::sleep(Duration::from_millis(5)).await;
        }
        let refused = ask(gateway.address, chat(BODY)).await;
        assert_eq!((refused.status(), refused.field("retry-after")), (429, Some("1")));
        go_on.raise();
        let answer = Reader::new(&waiting, Pace::default()).answer(false).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(ask(gateway.address, chat(BODY)).await.status(), 200);
        drop(waiting);
        gateway.end().await;
    });
}

#[test]
fn each_client_address_has_its_own_limits_and_a_request_gives_its_place_back() {
    // limits, what the second of two requests at a time and the third request are told
    let rows = [(Some(2), None, 200, 429), (None, Some(1), 429, 200), (Some(9), Some(9), 200, 200)];
    for (requests_per_minute, concurrent, second, third) in rows {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let go_on = tollgate::net::signal::Signal::default();
            // A connection for each request.
            let closing = json(ANSWER).replace("content-type", "connection: close\r\ncontent-type");
            let script = || Script::new().expect_until("\r\n\r\n").expect(BODY);
            let mut scripts = vec![script().until(&go_on).send(&closing).expect_end()];
            let served = [second, third].iter().filter(|status| **status == 200).count();
            scripts.extend((0..served).map(|_| script().send(&closing).expect_end()));
            serve(listener, scripts);
            let setup = Setup::one(OpenAi, address).with(|setup| {
                setup.base.plan.address =
                    vec![AddressLimits { requests_per_minute, concurrent, shadow: false }];
            });
            let gateway = Gateway::start(&setup);
            let waiting = call(gateway.address).await;
            send(&waiting, chat(BODY).as_bytes()).await;
            while gateway.counters().upstream.open.value() == 0 {
                runtime::sleep(Duration::from_millis(5)).await;
            }
            let told = ask(gateway.address, chat(BODY)).await;
            assert_eq!(told.status(), second, "{}", told.text());
            go_on.raise();
            assert_eq!(
                Reader::new(&waiting, Pace::default()).answer(false).await.expect("an answer").status(),
                200
            );
            let told = ask(gateway.address, chat(BODY)).await;
            assert_eq!(told.status(), third, "{}", told.text());
            drop(waiting);
            gateway.end().await;
        });
    }
}

#[test]
fn a_client_that_leaves_pays_for_what_came_and_its_place_comes_free() {
    calmly_on_every_driver(async move || {
        let (listener, address) = listen();
        let piece = r#"data: {"choices":[{"index":0,"delta":{"content":"word word word"}}]}"#;
        let events = chunk(&format!("{piece}\n\n")).repeat(20);
        let script = Script::new().expect_until("\r\n\r\n").expect_until("}");
        serve(listener, vec![script.expect_until("}").send([STREAM_HEAD, &events].concat()).expect_gone()]);
        let limits = vec![limit(Metric::Streams, 1), budget(Metric::OutputTokens, 1_000)];
        let gateway = limited(address, limits);
        let leaving = call(gateway.address).await;
        let body = r#"{"model":"m","stream":true,"max_tokens":800,"stream_options":{"include_usage":true}}"#;
        send(&leaving, chat(body).as_bytes()).await;
        Reader::new(&leaving, Pace::default()).hear("word").await;
        assert_eq!(gateway.in_use("key:tester/budget_output_tokens_month"), 800);
        assert_eq!(gateway.in_use("key:tester/streams"), 1);
        drop(leaving);
        while gateway.counters().requests_active.value() > 0 {
            runtime::sleep(Duration::from_millis(5)).await;
        }
        // 20 pieces of 14 bytes are 70 tokens; ten more may have been on their way.
        assert_eq!(gateway.in_use("key:tester/budget_output_tokens_month"), 80);
        assert_eq!(gateway.in_use("key:tester/streams"), 0);
        let records = gateway.end().await;
        assert_eq!(records[0]["ended"], "client_left");
    });
}

/// What a provider of each dialect streams, in many events of one token each.
fn long_stream(dialect: Dialect) -> (String, String) {
    let pieces: Vec<String> = (0..200).map(|at| format!("w{at} ")).collect();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    (stream(dialect, &pieces, Finish::Apart), pieces.concat())
}

#[test]
fn a_stream_ends_at_its_budget_with_its_dialects_own_ending() {
    for dialect in DIALECTS {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let (sent, text) = long_stream(dialect);
            let script = Script::new().expect_until("\r\n\r\n").expect_until("}");
            // All at once, and it never ends by itself.
            let answer = [STREAM_HEAD, &chunk(&sent)].concat();
            serve(listener, vec![script.send(answer).expect_gone()]);
            let steps = Limit { mode: Mode::Step(20), ..budget(Metric::OutputTokens, 100) };
            let setup = Setup::one(kind(dialect), address).with(|setup| setup.base.plan = plan(vec![steps]));
            let gateway = Gateway::start(&setup);
            let body = r#"{"model":"m","stream":true}"#;
            let answer = ask(gateway.address, post(path(dialect), body)).await;
            assert!(answer.whole, "{dialect:?}");
            let Told { text: got, reason } = told(dialect, answer.text());
            assert_eq!(reason, reason_of_length(dialect), "{dialect:?}");
            assert!(text.starts_with(&got) && !got.is_empty(), "{dialect:?}: {got}");
            let words = got.split_whitespace().count();
            assert!((60..=100).contains(&words), "{dialect:?}: {words} words");
            let used = gateway.in_use("key:tester/budget_output_tokens_month");
            assert!(used <= 100 && used >= words as u64, "{dialect:?}: {used} for {words}");
            let records = gateway.end().await;
            assert_eq!(records[0]["ended"], "budget", "{dialect:?}");
        });
    }
}

#[test]
fn a_stream_within_its_budget_passes_byte_for_byte() {
    for dialect in DIALECTS {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let (sent, _) = long_stream(dialect);
            let script = Script::new().expect_until("\r\n\r\n").expect_until("}}");
            let answer = [STREAM_HEAD, &chunk(&sent), LAST].concat();
            serve(listener, vec![script.send_pieces(answer, 777).expect_end()]);
            let steps = Limit { mode: Mode::Step(20), ..budget(Metric::OutputTokens, 1_000) };
            let setup = Setup::one(kind(dialect), address).with(|setup| setup.base.plan = plan(vec![steps]));
            let gateway = Gateway::start(&setup);
            let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
            let answer = ask(gateway.address, post(path(dialect), body)).await;
            assert_eq!(answer.text(), sent, "{dialect:?}");
            // As the provider says.
            assert_eq!(gateway.in_use("key:tester/budget_output_tokens_month"), 3, "{dialect:?}");
            gateway.end().await;
        });
    }
}

#[test]
fn where_nothing_bounds_the_output_and_a_budget_needs_a_bound_one_is_asked_for() {
    // body, as it goes on
    let rows = [
        (r#"{"model":"m"}"#, r#"{"max_tokens":4096,"model":"m"}"#),
        (r#"{"model":"m","max_tokens":null}"#, r#"{"model":"m","max_tokens":4096}"#),
        (r#"{"model":"m","n":2}"#, r#"{"max_tokens":2048,"model":"m","n":2}"#),
        (r#"{"model":"m","max_completion_tokens":7}"#, r#"{"model":"m","max_completion_tokens":7}"#),
    ];
    for (body, goes_on) in rows {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let script = Script::new().expect_until("\r\n\r\n").expect(goes_on).send(json(ANSWER));
            serve(listener, vec![script.expect_end()]);
            let gateway = limited(address, vec![budget(Metric::Tokens, 1_000_000)]);
            assert_eq!(ask(gateway.address, chat(body)).await.status(), 200);
            gateway.end().await;
        });
    }
}

/// Models "dear" at a dollar and "cheap" at ten cents for a thousand tokens.
fn priced() -> Arc<Catalogue> {
    let mut catalogue = Catalogue::default();
    let own = "[openai]\ndear = { input = 1000, output = 1000 }\ncheap = { input = 100, output = 100 }\n";
    catalogue.add_own(own).expect("a catalogue");
    Arc::new(catalogue)
}

/// Units of 100 nano-dollars.
const USD: u64 = 10_000_000;

#[test]
fn what_does_not_fit_its_budget_goes_to_the_cheaper_model_that_its_owner_names() {
    calmly_on_every_driver(async move || {
        let (listener, address) = listen();
        let goes_on = r#"{"model":"cheap","max_tokens":500}"#;
        serve(
            listener,
            vec![Script::new().expect_until("\r\n\r\n").expect(goes_on).send(json(ANSWER)).expect_end()],
        );
        let small = Limit { at_limit: AtLimit::Downgrade("cheap".into()), ..budget(Metric::Money, USD / 10) };
        let setup = Setup::one(OpenAi, address).with(|setup| {
            setup.base.plan = plan(vec![small]);
            setup.base.catalogue = priced();
        });
        let gateway = Gateway::start(&setup);
        let answer = ask(gateway.address, chat(r#"{"model":"dear","max_tokens":500}"#)).await;
        assert_eq!(answer.status(), 200);
        // 39 tokens at ten cents for a thousand.
        assert_eq!(gateway.in_use("key:tester/budget_usd_month"), 39 * USD / 10_000);
        assert_eq!(gateway.records()[0]["cost_usd"], 0.0039);
        assert_eq!(gateway.counters().limits.downgraded.value(), 1);
        let refused = ask(gateway.address, chat(r#"{"model":"dear","max_tokens":5000}"#)).await;
        assert_eq!(refused.status(), 429);
        gateway.end().await;
    });
}

#[test]
fn a_dearer_fallback_is_reserved_for_before_it_is_tried_or_skipped() {
    for (budget_usd, status) in [(USD, 200), (USD / 10, 503)] {
        calmly_on_every_driver(async move || {
            let (first, first_address) = listen();
            let (second, second_address) = listen();
            let busy = answer("503 Service Unavailable", "application/json", "{}");
            let asked = |model: &str| format!("{{\"model\":\"{model}\",\"max_tokens\":500}}");
            let script = |body: &str| Script::new().expect_until("\r\n\r\n").expect(asked(body));
            serve(first, vec![script("cheap").send(busy).expect_end()]);
            if status == 200 {
                serve(second, vec![script("dear").send(json(ANSWER)).expect_end()]);
            }
            let setup = Setup::default()
                .upstream("one", OpenAi, first_address)
                .upstream("two", OpenAi, second_address)
                .model("m", &[(0, "cheap"), (1, "dear")])
                .with(|setup| {
                    setup.base.plan = plan(vec![budget(Metric::Money, budget_usd)]);
                    setup.base.catalogue = priced();
                });
            let gateway = Gateway::start(&setup);
            let told = ask(gateway.address, chat(r#"{"model":"m","max_tokens":500}"#)).await;
            let expected = if status == 200 { 200 } else { 429 };
            assert_eq!(told.status(), expected, "{}", told.text());
            let used = if status == 200 { 39 * USD / 1_000 } else { 0 };
            assert_eq!(gateway.in_use("key:tester/budget_usd_month"), used);
            gateway.end().await;
        });
    }
}

#[test]
fn a_model_without_a_price_is_refused_charged_or_let_through_as_the_policy_says() {
    let ceiling = Unpriced::Ceiling(tollgate::llm::price::Price::flat(1_000_000_000));
    for (policy, status, used) in [
        (Unpriced::Refuse, 403, 0),
        (Unpriced::Allow, 200, 0),
        // 39 tokens at a tenth of a cent.
        (ceiling, 200, 39 * USD / 1_000),
    ] {
        calmly_on_every_driver(async move || {
            let setup = Setup::one(OpenAi, answering(usize::from(status == 200))).with(|setup| {
                setup.base.plan = plan(vec![budget(Metric::Money, USD)]);
                setup.base.unpriced = policy;
            });
            let gateway = Gateway::start(&setup);
            let told = ask(gateway.address, chat(BODY)).await;
            assert_eq!(told.status(), status, "{policy:?}: {}", told.text());
            assert_eq!(gateway.in_use("key:tester/budget_usd_month"), used, "{policy:?}");
            assert_eq!(gateway.counters().limits.unpriced.value(), 1);
            gateway.end().await;
        });
    }
}

#[test]
fn what_is_passed_through_is_no_way_around_a_budget() {
    // policy, what is left of the key's tokens, status
    let rows = [
        (Unpriced::Allow, budget(Metric::Money, USD), 200),
        (Unpriced::Refuse, budget(Metric::Money, USD), 403),
        (Unpriced::Allow, budget(Metric::Tokens, 5), 429),
        (Unpriced::Allow, budget(Metric::Tokens, 1_000), 200),
    ];
    for (unpriced, limit, status) in rows {
        calmly_on_every_driver(async move || {
            let setup = Setup::one(OpenAi, answering(usize::from(status == 200)))
                .passthrough("/openai/", 0)
                .with(|setup| {
                    setup.base.plan = plan(vec![limit.clone()]);
                    setup.base.unpriced = unpriced;
                });
            let gateway = Gateway::start(&setup);
            let told = ask(gateway.address, post("/openai/v1/chat/completions", BODY)).await;
            assert_eq!(told.status(), status, "{unpriced:?}: {}", told.text());
            if limit.metric == Metric::Tokens && status == 200 {
                assert_eq!(gateway.in_use("key:tester/budget_tokens_month"), 39);
            }
            gateway.end().await;
        });
    }
}

#[test]
fn what_is_passed_through_with_a_body_of_unknown_length_is_booked_and_refused_as_well() {
    let word = chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word word word\"}}]}\n\n");
    // what comes, output tokens that are booked
    let rows = [
        (json(ANSWER), 30),
        // 14 bytes of text are 4 tokens; eight more may have been on their way.
        ([STREAM_HEAD, &word].concat(), 12),
    ];
    for (sent, booked) in rows {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let script = Script::new().expect_until("\r\n\r\n").expect_until(LAST);
            serve(listener, vec![script.send(&sent).close()]);
            let setup = Setup::one(OpenAi, address)
                .passthrough("/openai/", 0)
                .with(|setup| setup.base.plan = plan(vec![budget(Metric::OutputTokens, booked)]));
            let gateway = Gateway::start(&setup);
            let head = post("/openai/v1/chat/completions", "");
            let head = head.replace("content-length: 0", "transfer-encoding: chunked");
            let request = [&head, &chunk(BODY), LAST].concat();
            ask(gateway.address, &request).await;
            while gateway.counters().requests_active.value() > 0 {
                runtime::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(gateway.in_use("key:tester/budget_output_tokens_month"), booked);
            assert_eq!(ask(gateway.address, &request).await.status(), 429);
            let records = gateway.end().await;
            assert_eq!(records[0]["output_tokens"], booked);
        });
    }
}

#[test]
fn what_is_only_looked_up_through_a_pass_through_path_is_not_counted_as_used() {
    calmly_on_every_driver(async move || {
        let (listener, address) = listen();
        let script = Script::new().expect_until("\r\n\r\n").send(json(ANSWER)).expect_end();
        serve(listener, vec![script]);
        let setup = Setup::one(OpenAi, address)
            .passthrough("/openai/", 0)
            .with(|setup| setup.base.plan = plan(vec![budget(Metric::Tokens, 100)]));
        let gateway = Gateway::start(&setup);
        let asked = get("GET", "/openai/v1/chat/completions");
        assert_eq!(ask(gateway.address, asked).await.status(), 200);
        assert_eq!(gateway.in_use("key:tester/budget_tokens_month"), 0);
        let records = gateway.end().await;
        assert_eq!(records[0].get("output_tokens"), None, "{}", records[0]);
    });
}

const ABSURD: &str = r#"{"model":"gpt-4o","max_tokens":50}"#;

#[test]
fn absurd_usage_is_never_billed() {
    // usage, output tokens that are billed
    let rows = [
        (r#"{"prompt_tokens":9,"completion_tokens":-3}"#, 1),
        (r#"{"prompt_tokens":9,"completion_tokens":99999999999999}"#, 1),
        (r#"{"prompt_tokens":9,"completion_tokens":30,"completion_tokens":30}"#, 30),
        // gpt-4o writes 16,384 tokens at most.
        (r#"{"prompt_tokens":9,"completion_tokens":900000}"#, 16_384),
    ];
    for (usage, billed) in rows {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let body = format!(r#"{{"choices":[{{"message":{{"content":"abc"}}}}],"usage":{usage}}}"#);
            serve(
                listener,
                vec![Script::new().expect_until("\r\n\r\n").expect(ABSURD).send(json(&body)).expect_end()],
            );
            let gateway = limited(address, vec![budget(Metric::OutputTokens, 100_000)]);
            assert_eq!(ask(gateway.address, chat(ABSURD)).await.status(), 200);
            assert_eq!(gateway.in_use("key:tester/budget_output_tokens_month"), billed, "{usage}");
            gateway.end().await;
        });
    }
}
