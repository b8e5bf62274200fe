//! An answer on its way: cuts that the client sees, clients that leave, timers, heartbeats.

use crate::relay::gateway::{
    Gateway, LAST, STREAM_HEAD, Setup, ask, ask_to_the_end, call, chat, chunk, json, post, send,
};
use crate::relay::http::{End, Message, Pace, Reader};
use crate::sim::driver::{calmly_on_every_driver, listen, on_every_driver};
use crate::sim::peer::{Script, serve};
use std::time::Duration;
use tollgate::base::clock;
use tollgate::llm::provider::ProviderKind::{self, Anthropic, Mock, OpenAi};
use tollgate::net::conn::Conn;
use tollgate::net::memory::{Faults, Simulation};
use tollgate::net::runtime;
use tollgate::policy::auth::{DrainCap, OnDisconnect};

const BODY: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
const WORD: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\
                    \"delta\":{\"content\":\"hi\"}}]}\n\n";
const USAGE: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\
                     \"completion_tokens\":3,\"total_tokens\":10}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const MS: Duration = Duration::from_millis(1);

/// A gateway before one upstream, which plays one script a connection.
fn gateway(scripts: Vec<Script>, edit: impl FnOnce(&mut Setup)) -> Gateway {
    let (listener, address) = listen();
    serve(listener, scripts);
    Gateway::start(&Setup::one(OpenAi, address).with(edit))
}

/// Looks at an answer.
type Check = fn(&Message);

/// An upstream that has read the request.
fn asked() -> Script {
    Script::new().expect_until("\r\n\r\n").expect(BODY)
}

#[test]
fn a_stream_that_breaks_off_between_events_ends_with_an_error_event_and_no_end() {
    let openai: Check = |answer| {
        let error = answer.text().strip_prefix(WORD).expect("the word first");
        let data = error.strip_prefix("data: ").expect("an event").trim_end();
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(data["error"]["code"], "upstream_invalid_response");
    };
    let anthropic: Check = |answer| {
        let data = answer.text().split("data: ").last().expect("an event").trim_end();
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!((&data["type"], &data["error"]["type"]), (&"error".into(), &"api_error".into()));
    };
    // Its number was 0 whatever came before, and what the API's schema asks for stood only in `error`.
    let responses: Check = |answer| {
        let event = answer.text().strip_prefix(WORD).expect("the word first");
        let data = event.strip_prefix("event: error\ndata: ").expect("an error").trim_end();
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!((&data["type"], &data["sequence_number"]), (&"error".into(), &1.into()));
        for told in [&data, &data["error"]] {
            assert_eq!(
                (&told["code"], &told["param"]),
                (&"upstream_invalid_response".into(), &serde_json::Value::Null)
            );
            assert!(told["message"].is_string(), "{told}");
        }
    };
    let rows: [(&str, ProviderKind, Check); 3] = [
        ("/v1/chat/completions", OpenAi, openai),
        ("/v1/responses", OpenAi, responses),
        ("/v1/messages", Anthropic, anthropic),
    ];
    for (path, kind, check) in rows {
        let cut = async move |script: Script| {
            let (listener, address) = listen();
            serve(listener, vec![script]);
            let gateway = Gateway::start(&Setup::one(kind, address));
            let (answer, end) = ask_to_the_end(gateway.address, post(path, BODY)).await;
            assert_eq!((answer.status(), answer.whole, end), (200, false, End::Finished));
            check(&answer);
            let record = gateway.record();
            assert_eq!(
                (&record["ended"], &record["error"]),
                (&"upstream_cut".into(), &"upstream_invalid_response".into())
            );
            gateway.end().await;
        };
        let begun = || asked().send([STREAM_HEAD, &chunk(WORD)].concat()).wait(30 * MS);
        on_every_driver(async move || cut(begun()).await);
        calmly_on_every_driver(async move || cut(begun().reset()).await);
    }
}

#[test]
fn a_stream_that_breaks_off_within_an_event_gives_what_came_and_no_end() {
    calmly_on_every_driver(async || {
        let half = &WORD[..40];
        let gateway =
            gateway(vec![asked().send([STREAM_HEAD, &chunk(WORD), &chunk(half)].concat()).close()], |_| {});
        let (answer, end) = ask_to_the_end(gateway.address, chat(BODY)).await;
        assert!(!answer.whole && end != End::Open);
        assert_eq!(answer.text(), [WORD, half].concat());
        gateway.end().await;
    });
}

#[test]
fn a_whole_answer_that_breaks_off_is_shorter_than_its_length_says() {
    calmly_on_every_driver(async || {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"a\":";
        let gateway = gateway(vec![asked().send(head).wait(10 * MS).close()], |_| {});
        let (answer, _) = ask_to_the_end(gateway.address, chat(BODY)).await;
        assert_eq!((answer.status(), answer.text(), answer.whole), (200, "{\"a\":", false));
        assert_eq!(gateway.record()["ended"], "upstream_cut");
        gateway.end().await;
    });
}

#[test]
fn an_answer_whose_framing_breaks_is_cut() {
    calmly_on_every_driver(async || {
        let gateway =
            gateway(vec![asked().send([STREAM_HEAD, &chunk(WORD), "xyz\r\n"].concat()).expect_end()], |_| {});
        let (answer, _) = ask_to_the_end(gateway.address, chat(BODY)).await;
        assert!(!answer.whole && answer.text().starts_with(WORD), "{}", answer.text());
        gateway.end().await;
    });
}

#[test]
fn an_upstream_that_closes_without_an_answer_or_answers_nonsense_is_a_502() {
    calmly_on_every_driver(async || {
        let rows = [
            asked().close(),
            asked().reset(),
            asked().send("HTTP/1.1 20").close(),
            asked().send("nonsense\r\n\r\n").wait(50 * MS),
        ];
        for script in rows {
            let gateway = gateway(vec![script], |_| {});
            let answer = ask(gateway.address, chat(BODY)).await;
            assert_eq!((answer.status(), answer.whole), (502, true));
            assert_eq!(answer.json()["error"]["code"], "upstream_invalid_response");
            gateway.end().await;
        }
    });
}

/// Waits until the client has heard `bytes`.
async fn hear(conn: &Conn, bytes: u64) {
    let pace = Pace { bytes: Some(64), stop_after: Some(bytes), ..Pace::default() };
    let answer = Reader::new(conn, pace).answer(false).await.expect("it began");
    assert_eq!(answer.end, End::Stopped);
}

/// Deadlines of the gateway and a busy machine may take so much more than 100 ms of real time.
fn soon() -> Duration {
    if runtime::driver() == Some(runtime::Driver::Memory) { 100 * MS } else { 2000 * MS }
}

#[test]
fn a_client_that_leaves_takes_its_upstream_connection_along_within_100_ms() {
    calmly_on_every_driver(async || {
        // The beginning of a next request blinded the watch: a silent provider was held for its head's time.
        for (sent, by_reset, more) in [
            (true, false, ""),
            (true, true, ""),
            (false, false, ""),
            (false, true, ""),
            (false, false, "G"),
            (true, false, "G"),
            (true, true, "G"),
        ] {
            let script = if sent { asked().send([STREAM_HEAD, &chunk(WORD)].concat()) } else { asked() };
            let (listener, address) = listen();
            runtime::spawn(async move {
                let accepted = listener.accept().await.expect("a connection");
                script.expect_end().play_stream(accepted.stream).await;
            });
            let gateway = Gateway::start(&Setup::one(OpenAi, address));
            let conn = call(gateway.address).await;
            send(&conn, chat(BODY).as_bytes()).await;
            match sent {
                true => hear(&conn, 200).await,
                false => runtime::sleep(300 * MS).await,
            }
            if !more.is_empty() {
                send(&conn, more.as_bytes()).await;
            }
            // The relay waits for events by now.
            runtime::sleep(200 * MS).await;
            if by_reset {
                conn.reset_on_close();
            }
            drop(conn);
            let left = clock::now();
            while gateway.counters().upstream.open.value() > 0
                || gateway.counters().requests_active.value() > 0
            {
                runtime::sleep(MS).await;
                assert!(
                    clock::now() - left <= soon() + 60 * MS,
                    "sent {sent}, by reset {by_reset}, {more:?}"
                );
            }
            assert_eq!(gateway.record()["ended"], "client_left");
            assert_eq!(gateway.record()["status"], if sent { 200 } else { 0 });
            gateway.end().await;
        }
    });
}

/// An answer without a date went on without one (RFC 9110 section 6.6.1).
#[test]
fn every_answer_has_one_date_and_a_providers_own_stays() {
    calmly_on_every_driver(async || {
        let dated = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 2\r\n\r\n{}";
        let upstream = asked().send(dated).expect_until("\r\n\r\n").expect(BODY).send(json("{}"));
        let stream = upstream.expect_until("\r\n\r\n").expect(BODY).send([STREAM_HEAD, LAST].concat());
        let (listener, address) = listen();
        serve(listener, vec![stream.expect_end()]);
        let setup = Setup::one(OpenAi, address).upstream("built in", Mock, address).model("mock", &[(1, "")]);
        let gateway = Gateway::start(&setup);
        let mock = BODY.replace("\"m\"", "\"mock\"");
        let own = BODY.replace("\"m\"", "7");
        let rows = [("its own", BODY, true), ("none", BODY, false), ("a stream", BODY, false)];
        let rows = rows.into_iter().chain([("built in", &*mock, false), ("refused", &*own, false)]);
        for (what, body, is_theirs) in rows {
            let answer = ask(gateway.address, chat(body)).await;
            let date = answer.field("date").expect(what);
            assert_eq!(date == "Sun, 06 Nov 1994 08:49:37 GMT", is_theirs, "{what}: {date}");
            assert!(date.len() == 29 && date.ends_with(" GMT"), "{what}: {date}");
        }
        gateway.end().await;
    });
}

#[test]
fn by_setting_an_answer_is_read_on_to_its_usage_when_the_client_has_left() {
    calmly_on_every_driver(async || {
        let rest = [&chunk(WORD), &chunk(USAGE), &chunk(DONE), LAST].concat();
        let script = asked().send([STREAM_HEAD, &chunk(WORD)].concat()).wait(600 * MS).send(rest);
        let gateway = gateway(vec![script.expect_end()], |setup| {
            setup.on_disconnect = OnDisconnect::Drain(DrainCap::default());
        });
        let conn = call(gateway.address).await;
        send(&conn, chat(BODY).as_bytes()).await;
        hear(&conn, 200).await;
        drop(conn);
        while gateway.counters().requests.value() == 0 {
            runtime::sleep(5 * MS).await;
        }
        let record = gateway.record();
        assert_eq!((&record["ended"], &record["usage"]), (&"client_left".into(), &"provider".into()));
        assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&7.into(), &3.into()));
        gateway.end().await;
    });
}

#[test]
fn reading_on_ends_at_each_of_its_caps() {
    let words = |count| chunk(&WORD.repeat(count));
    let rows = [
        ("time", DrainCap { time_max_ms: 200, ..DrainCap::default() }, words(1)),
        ("bytes", DrainCap { bytes_max: 1000, ..DrainCap::default() }, words(20)),
        ("tokens", DrainCap { tokens_max: 5, ..DrainCap::default() }, words(20)),
    ];
    for (name, cap, rest) in rows {
        calmly_on_every_driver(async move || {
            let script = asked()
                .send([STREAM_HEAD, &chunk(WORD)].concat())
                .wait(300 * MS)
                .send_unless_gone(&rest)
                .expect_gone();
            let gateway = gateway(vec![script], |setup| setup.on_disconnect = OnDisconnect::Drain(cap));
            let conn = call(gateway.address).await;
            send(&conn, chat(BODY).as_bytes()).await;
            hear(&conn, 200).await;
            drop(conn);
            let left = clock::now();
            while gateway.counters().requests.value() == 0 {
                runtime::sleep(5 * MS).await;
                assert!(clock::now() - left < 30_000 * MS, "the cap of {name} does not hold");
            }
            assert_eq!(gateway.record()["usage"], "estimated", "{name}");
            gateway.end().await;
        });
    }
}

#[test]
fn an_upstream_without_a_head_in_time_is_a_504_that_names_the_timer() {
    calmly_on_every_driver(async || {
        let gateway =
            gateway(vec![asked().expect_end()], |setup| setup.upstreams[0].timeouts.response_head = 200 * MS);
        let answer = ask(gateway.address, chat(BODY)).await;
        assert_eq!(
            (answer.status(), answer.json()["error"]["code"].as_str()),
            (504, Some("upstream_timeout"))
        );
        assert!(answer.text().contains("response_head"), "{}", answer.text());
        gateway.end().await;
    });
}

#[test]
fn the_total_time_holds_while_an_upstream_is_waited_for() {
    calmly_on_every_driver(async || {
        for at_provider in [true, false] {
            let gateway = gateway(vec![asked().expect_end()], |setup| match at_provider {
                true => setup.upstreams[0].timeouts.total = 200 * MS,
                false => setup.base.timeouts.total = 200 * MS,
            });
            let answer = ask(gateway.address, chat(BODY)).await;
            assert_eq!(answer.status(), 504);
            assert!(answer.text().contains("total"), "{}", answer.text());
            gateway.end().await;
        }
    });
}

#[test]
fn the_total_time_ends_a_stream_that_never_ends() {
    calmly_on_every_driver(async || {
        let gateway = gateway(vec![endless()], |setup| setup.upstreams[0].timeouts.total = 300 * MS);
        let (answer, _) = ask_to_the_end(gateway.address, chat(BODY)).await;
        assert!(!answer.whole && answer.text().contains("total"), "{}", answer.text());
        assert_eq!(gateway.record()["error"], "upstream_timeout");
        gateway.end().await;
    });
}

/// A word every 20 ms for a while, then the end of the connection.
fn endless() -> Script {
    let mut script = asked().send(STREAM_HEAD);
    for _ in 0..40 {
        script = script.send_unless_gone(chunk(WORD)).wait(20 * MS);
    }
    script.expect_gone()
}

#[test]
fn a_silent_upstream_is_cut_after_the_idle_time() {
    calmly_on_every_driver(async || {
        let silent = asked().send([STREAM_HEAD, &chunk(WORD)].concat()).expect_end();
        let gateway = gateway(vec![silent], |setup| setup.upstreams[0].timeouts.idle = 400 * MS);
        let (answer, _) = ask_to_the_end(gateway.address, chat(BODY)).await;
        assert!(!answer.whole && answer.text().contains("idle timeout"), "{}", answer.text());
        gateway.end().await;
    });
}

/// On the simulated clock alone: on a busy machine a slow script is a silent one now and then.
#[test]
fn a_slow_upstream_is_not_taken_for_a_silent_one() {
    let work = async {
        let mut slow = asked().send(STREAM_HEAD);
        for _ in 0..20 {
            slow = slow.send(chunk(WORD)).wait(390 * MS);
        }
        let scripts = vec![slow.send(LAST).expect_end()];
        let gateway = gateway(scripts, |setup| setup.upstreams[0].timeouts.idle = 400 * MS);
        assert!(ask(gateway.address, chat(BODY)).await.whole);
        gateway.end().await;
    };
    Simulation::new(1, Faults::none()).run(work).finished();
}

#[test]
fn a_slow_client_is_not_taken_for_a_silent_upstream() {
    calmly_on_every_driver(async || {
        let events = 60;
        let big = format!("data: {}\n\n", "x".repeat(60_000));
        let whole = [STREAM_HEAD, &chunk(&big).repeat(events), LAST].concat();
        let gateway = gateway(vec![asked().send(whole).expect_end()], |setup| {
            setup.upstreams[0].timeouts.idle = 200 * MS;
            setup.base.timeouts.write = 60_000 * MS;
        });
        let conn = call(gateway.address).await;
        send(&conn, chat(BODY).as_bytes()).await;
        // Long enough for every buffer on the way to be full.
        runtime::sleep(1500 * MS).await;
        let answer = Reader::new(&conn, Pace::default()).answer(false).await.expect("an answer");
        assert_eq!((answer.body.len(), answer.whole), (big.len() * events, true));
        drop(conn);
        gateway.end().await;
    });
}

#[test]
fn a_client_that_takes_nothing_is_given_up_after_the_write_time() {
    calmly_on_every_driver(async || {
        let big = format!("data: {}\n\n", "x".repeat(60_000));
        let whole = [STREAM_HEAD, &chunk(&big).repeat(300), LAST].concat();
        let (listener, address) = listen();
        runtime::spawn(async move {
            let accepted = listener.accept().await.expect("a connection");
            let conn = Conn::Plain(accepted.stream);
            Reader::new(&conn, Pace::default()).request().await.expect("a request");
            let mut list = tollgate::net::send::SendList::new();
            list.push_copy(whole.as_bytes());
            conn.send(list).await.expect_err("the gateway gives up");
        });
        let gateway =
            Gateway::start(&Setup::one(OpenAi, address).with(|setup| setup.base.timeouts.write = 300 * MS));
        let conn = call(gateway.address).await;
        send(&conn, chat(BODY).as_bytes()).await;
        while gateway.counters().requests.value() == 0 {
            runtime::sleep(20 * MS).await;
        }
        assert_eq!(gateway.record()["ended"], "client_left");
        drop(conn);
        gateway.end().await;
    });
}

#[test]
fn heartbeats_come_between_events_only() {
    calmly_on_every_driver(async || {
        let (first, second) = WORD.split_at(30);
        let script = asked()
            .send([STREAM_HEAD, &chunk(WORD)].concat())
            .wait(350 * MS)
            .send(chunk(first))
            .wait(350 * MS);
        let script = script.send([&chunk(second), &chunk(DONE), LAST].concat());
        let gateway = gateway(vec![script.expect_end()], |setup| setup.base.relay.heartbeat = 100 * MS);
        let answer = ask(gateway.address, chat(BODY)).await;
        let heartbeats = answer.text().matches(": heartbeat\n\n").count();
        assert!((1..=4).contains(&heartbeats), "{}", answer.text());
        assert_eq!(answer.text().replace(": heartbeat\n\n", ""), [WORD, WORD, DONE].concat());
        assert!(answer.text().contains(WORD.trim_end()) && answer.whole);
        gateway.end().await;
    });
}
