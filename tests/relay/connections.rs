//! A client's connection: keep-alive, pipelining, versions, bodies and their bounds, early errors.

use crate::relay::gateway::{
    Gateway, KEY, LAST, STREAM_HEAD, Setup, answer, ask, ask_to_the_end, call, chat, chunk, get, json, post,
    send,
};
use crate::relay::http::{End, Pace, Reader};
use crate::sim::driver::{calmly_on_every_driver, listen, on_every_driver};
use crate::sim::peer::{Script, serve};
use std::time::Duration;
use tollgate::base::clock;
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::listener::Listener;
use tollgate::net::runtime;

const BODY: &str = r#"{"model":"m","messages":[]}"#;
const MS: Duration = Duration::from_millis(1);

/// A gateway before one upstream, which plays one script a connection.
fn gateway(scripts: Vec<Script>, edit: impl FnOnce(&mut Setup)) -> Gateway {
    let (listener, address) = listen();
    serve(listener, scripts);
    Gateway::start(&Setup::one(OpenAi, address).with(edit))
}

/// A gateway whose upstream is never asked.
fn alone(edit: impl FnOnce(&mut Setup)) -> (Gateway, Listener) {
    let (listener, address) = listen();
    (Gateway::start(&Setup::one(OpenAi, address).with(edit)), listener)
}

/// One exchange of an upstream that keeps its connection.
fn exchange(script: Script, body: &str) -> Script {
    script.expect_until("\r\n\r\n").expect(BODY).send(json(body))
}

#[test]
fn requests_follow_each_other_on_one_connection_each_way() {
    on_every_driver(async || {
        let script = exchange(exchange(exchange(Script::new(), "{}"), "[1]"), "[2]").expect_end();
        let gateway = gateway(vec![script], |_| {});
        let conn = call(gateway.address).await;
        let mut reader = Reader::new(&conn, Pace::default());
        for body in ["{}", "[1]", "[2]"] {
            send(&conn, chat(BODY).as_bytes()).await;
            let answer = reader.answer(false).await.expect("an answer");
            assert_eq!((answer.status(), answer.text(), answer.whole), (200, body, true));
            assert_eq!(answer.field("connection"), None);
            assert!(answer.field("x-request-id").is_some());
        }
        drop(conn);
        assert_eq!(gateway.counters().connections_total.value(), 1);
        assert_eq!(
            (gateway.counters().upstream.opened.value(), gateway.counters().upstream.reused.value()),
            (1, 2)
        );
        assert_eq!(gateway.end().await.len(), 3);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_every_driver(async || {
        let script = exchange(exchange(Script::new(), "[1]"), "[2]").expect_end();
        let gateway = gateway(vec![script], |_| {});
        let conn = call(gateway.address).await;
        let all = [chat(BODY), get("GET", "/v1/models"), chat(BODY), get("GET", "/none")].concat();
        send(&conn, all.as_bytes()).await;
        let mut reader = Reader::new(&conn, Pace::default());
        let mut heard = Vec::new();
        for _ in 0..4 {
            let answer = reader.answer(false).await.expect("an answer");
            heard.push((answer.status(), answer.body.len()));
        }
        assert_eq!(heard.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 200, 404]);
        assert_eq!((heard[0].1, heard[2].1), (3, 3));
        drop(conn);
        gateway.end().await;
    });
}

#[test]
fn a_head_request_has_the_head_of_its_answer_and_no_body() {
    on_every_driver(async || {
        let script = Script::new().expect("HEAD /v1/files HTTP/1.1\r\n").expect_until("\r\n\r\n");
        let script = script.send("HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n").expect_end();
        let gateway = gateway(vec![script], |setup| *setup = setup.clone().passthrough("/p/", 0));
        let conn = call(gateway.address).await;
        let mut reader = Reader::new(&conn, Pace::default());
        send(&conn, get("HEAD", "/p/v1/files").as_bytes()).await;
        let answer = reader.answer(true).await.expect("an answer");
        assert_eq!((answer.status(), answer.field("content-length")), (200, Some("17")));
        send(&conn, get("HEAD", "/v1/chat/completions").as_bytes()).await;
        let answer = reader.answer(true).await.expect("an answer");
        assert_eq!((answer.status(), answer.field("allow")), (405, Some("POST")));
        for path in ["/v1/models", "/v1/models/none"] {
            send(&conn, get("GET", path).as_bytes()).await;
            let whole = reader.answer(false).await.expect("an answer");
            send(&conn, get("HEAD", path).as_bytes()).await;
            let head = reader.answer(true).await.expect("an answer");
            for name in ["content-type", "content-length"] {
                assert_eq!((head.status(), head.field(name)), (whole.status(), whole.field(name)), "{path}");
            }
        }
        send(&conn, get("GET", "/v1/models").as_bytes()).await;
        assert_eq!(reader.answer(false).await.expect("an answer").status(), 200);
        drop(conn);
        gateway.end().await;
    });
}

#[test]
fn http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection() {
    on_every_driver(async || {
        let whole = [STREAM_HEAD, &chunk("data: 1\n\n"), &chunk("data: 2\n\n"), LAST].concat();
        let script = Script::new().expect_until("\r\n\r\n").expect(BODY).send(whole).expect_end();
        let gateway = gateway(vec![script], |_| {});
        let (answer, end) = ask_to_the_end(gateway.address, chat(BODY).replace("HTTP/1.1", "HTTP/1.0")).await;
        assert_eq!((answer.text(), answer.whole, end), ("data: 1\n\ndata: 2\n\n", true, End::Finished));
        assert_eq!((answer.field("transfer-encoding"), answer.field("connection")), (None, Some("close")));
        gateway.end().await;
    });
}

#[test]
fn http_1_0_sees_a_cut_stream_as_a_reset() {
    calmly_on_every_driver(async || {
        let cut = [STREAM_HEAD, &chunk("data: 1\n\n"), "9\r\ndat"].concat();
        let script = Script::new().expect_until("\r\n\r\n").expect(BODY).send(cut).close();
        let gateway = gateway(vec![script], |_| {});
        let (answer, end) = ask_to_the_end(gateway.address, chat(BODY).replace("HTTP/1.1", "HTTP/1.0")).await;
        assert_eq!((answer.whole, end), (false, End::Reset));
        gateway.end().await;
    });
}

#[test]
fn http_1_0_keeps_its_connection_where_it_asks_and_the_length_is_known() {
    on_every_driver(async || {
        let (gateway, _upstream) = alone(|_| {});
        let request = get("GET", "/v1/models").replace("HTTP/1.1", "HTTP/1.0");
        let (answer, end) = ask_to_the_end(gateway.address, &request).await;
        assert_eq!((answer.field("connection"), end), (Some("close"), End::Finished));
        let answer = ask(gateway.address, request.replace("host:", "connection: keep-alive\r\nhost:")).await;
        assert_eq!((answer.field("connection"), answer.end), (Some("keep-alive"), End::Open));
        gateway.end().await;
    });
}

#[test]
fn connection_close_is_answered_and_kept() {
    on_every_driver(async || {
        let (gateway, _upstream) = alone(|setup| setup.base.limits.requests_per_connection_max = 2);
        let request = get("GET", "/v1/models");
        let (answer, end) =
            ask_to_the_end(gateway.address, request.replace("host:", "connection: close\r\nhost:")).await;
        assert_eq!((answer.field("connection"), end), (Some("close"), End::Finished));
        let conn = call(gateway.address).await;
        let mut reader = Reader::new(&conn, Pace::default());
        send(&conn, request.repeat(2).as_bytes()).await;
        assert_eq!(reader.answer(false).await.expect("the first").field("connection"), None);
        assert_eq!(reader.answer(false).await.expect("the last").field("connection"), Some("close"));
        assert_eq!(reader.ending().await, End::Finished);
        gateway.end().await;
    });
}

#[test]
fn a_client_that_expects_100_gets_it_before_its_body_and_one_that_is_refused_does_not() {
    on_every_driver(async || {
        let gateway = gateway(vec![exchange(Script::new(), "{}").expect_end()], |_| {});
        let request = chat(BODY).replace("host:", "expect: 100-continue\r\nhost:");
        let (head, body) = request.split_at(request.len() - BODY.len());
        let script = Script::new().send(head).expect("HTTP/1.1 100 Continue\r\n\r\n");
        script
            .send(body)
            .expect("HTTP/1.1 200 OK\r\n")
            .expect_until("\r\n\r\n{}")
            .connect(gateway.address)
            .await;
        let unknown = head.replace(KEY, "tg-unknown");
        let refused = Script::new().send(unknown).expect("HTTP/1.1 401 ").expect_until("\r\n\r\n");
        refused.expect_until("request_id").expect_until("}").expect_end().connect(gateway.address).await;
        gateway.end().await;
    });
}

#[test]
fn an_early_error_reaches_a_client_that_still_sends_and_the_connection_ends() {
    calmly_on_every_driver(async || {
        let (gateway, _upstream) = alone(|_| {});
        let head = post("/v1/chat/completions", "").replace("content-length: 0", "content-length: 200000");
        let request = head.replace(KEY, "tg-unknown") + &"x".repeat(200_000);
        let (answer, end) = ask_to_the_end(gateway.address, request).await;
        assert_eq!((answer.status(), answer.whole, answer.field("connection")), (401, true, Some("close")));
        assert_eq!((answer.json()["error"]["code"].as_str(), end), (Some("invalid_api_key"), End::Finished));
        gateway.end().await;
    });
}

#[test]
fn an_upload_in_chunks_is_sent_on_with_its_length() {
    on_every_driver(async || {
        let script = Script::new().expect_until("\r\n\r\n").check(|head| {
            let head = String::from_utf8_lossy(head).to_lowercase();
            assert!(head.contains(&format!("content-length: {}\r\n", BODY.len())), "{head}");
            assert!(!head.contains("transfer-encoding"), "{head}");
        });
        let gateway = gateway(vec![script.expect(BODY).send(json("{}")).expect_end()], |_| {});
        let (one, two) = BODY.split_at(9);
        let body =
            [&chunk(one).replace("9\r\n", "9;ext=1\r\n"), &chunk(two), "0\r\ntrailer: x\r\n\r\n"].concat();
        let length = "content-length: 0\r\n\r\n";
        let request =
            post("/v1/chat/completions", "").replace(length, "transfer-encoding: chunked\r\n\r\n") + &body;
        let script =
            Script::new().send_pieces(request, 7).expect("HTTP/1.1 200 OK\r\n").expect_until("\r\n\r\n{}");
        script.connect(gateway.address).await;
        let records = gateway.end().await;
        assert_eq!(records[0]["bytes_in"], BODY.len());
    });
}

/// A request whose body has exactly `len` bytes.
fn padded(len: usize) -> String {
    let empty = r#"{"model":"m","x":""}"#;
    chat(&empty.replace(r#""""#, &format!("\"{}\"", "a".repeat(len - empty.len()))))
}

#[test]
fn a_body_at_the_bound_is_taken_and_one_byte_more_is_not() {
    on_every_driver(async || {
        let script = Script::new().expect_until("\r\n\r\n").expect_bytes(5000).send(json("{}")).expect_end();
        let gateway = gateway(vec![script], |setup| setup.base.limits.body_bytes_max = 5000);
        assert_eq!(ask(gateway.address, padded(5000)).await.status(), 200);
        let (answer, end) = ask_to_the_end(gateway.address, padded(5001)).await;
        assert_eq!((answer.status(), end), (413, End::Finished));
        assert!(answer.text().contains("5000 bytes"), "{}", answer.text());
        // Without a length it is found while it comes.
        let head =
            post("/v1/chat/completions", "").replace("content-length: 0", "transfer-encoding: chunked");
        let (answer, end) = ask_to_the_end(gateway.address, head + &chunk(&"x".repeat(5001)) + LAST).await;
        assert_eq!((answer.status(), end), (413, End::Finished));
        gateway.end().await;
    });
}

#[test]
fn bodies_of_one_worker_share_a_bound_and_one_beyond_it_is_told_to_come_again() {
    calmly_on_every_driver(async || {
        let (listener, address) = listen();
        let script =
            Script::new().expect_until("\r\n\r\n").expect_bytes(150_000).wait(400 * MS).send(json("{}"));
        let script = script.expect_until("\r\n\r\n").expect_bytes(150_000).send(json("{}"));
        serve(listener, vec![script.expect_end()]);
        let setup = Setup::one(OpenAi, address).with(|setup| setup.base.limits.bodies_bytes_max = 200_000);
        let gateway = Gateway::start(&setup);
        let conn = call(gateway.address).await;
        send(&conn, padded(150_000).as_bytes()).await;
        while gateway.worker.bodies.left() > 50_000 {
            runtime::sleep(5 * MS).await;
        }
        let (refused, _) = ask_to_the_end(gateway.address, padded(150_000)).await;
        assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
        assert_eq!(refused.json()["error"]["code"], "gateway_overloaded");
        assert_eq!(Reader::new(&conn, Pace::default()).answer(false).await.expect("the first").status(), 200);
        drop(conn);
        while gateway.worker.bodies.left() < 200_000 {
            runtime::sleep(5 * MS).await;
        }
        assert_eq!(ask(gateway.address, padded(150_000)).await.status(), 200);
        gateway.end().await;
    });
}

#[test]
fn an_upload_that_falls_silent_is_cut_and_told() {
    calmly_on_every_driver(async || {
        let (gateway, _upstream) = alone(|setup| setup.base.timeouts.request_body = 200 * MS);
        let request = padded(5000);
        let started = clock::now();
        let (answer, end) = ask_to_the_end(gateway.address, &request[..2000]).await;
        assert_eq!(
            (answer.status(), answer.json()["error"]["code"].as_str()),
            (408, Some("request_timeout"))
        );
        assert_eq!(end, End::Finished);
        assert!(clock::now() - started >= 200 * MS);
        gateway.end().await;
    });
}

#[test]
fn an_idle_connection_is_closed_without_a_word_and_half_a_head_is_told() {
    calmly_on_every_driver(async || {
        let (gateway, _upstream) = alone(|setup| {
            setup.base.timeouts.keep_alive = 150 * MS;
            setup.base.timeouts.request_head = 250 * MS;
        });
        Script::new().expect_end().connect(gateway.address).await;
        let half = Script::new()
            .send("GET /v1/models HT")
            .expect("HTTP/1.1 408 ")
            .expect_until("request_id")
            .expect_until("}");
        half.expect_end().connect(gateway.address).await;
        let records = gateway.end().await;
        let [half] = &records[..] else { panic!("the idle one asked nothing: {records:?}") };
        assert_eq!((&half["status"], &half["error"]), (&408.into(), &"request_timeout".into()));
    });
}

#[test]
fn a_head_that_breaks_the_grammar_is_answered_and_recorded_and_never_sent_on() {
    on_every_driver(async || {
        let (gateway, _upstream) = alone(|setup| setup.base.limits.head_fields_max = 10);
        let both = "transfer-encoding: chunked\r\ncontent-length:";
        let broken = |path: &str| post(path, BODY).replace("content-length:", both);
        let fields = post("/v1/messages", BODY).replace("host:", &("a: b\r\n".repeat(9) + "host:"));
        let long = format!("GET /v1/messages?{} HTTP/1.1\r\n", "x".repeat(9000));
        let large = "too many header fields (10 at most)";
        // The request, the status, the code, the surface, whether Anthropic's dialect, what the record says.
        let rows = [
            ("GET /v1/models HTTP/1.1\n\n", 400, "bad_request", "models", false, "LF"),
            (&broken("/v1/chat/completions"), 400, "bad_request", "chat", false, "beside Content-Length"),
            (&broken("/v1/messages"), 400, "bad_request", "messages", true, "beside Content-Length"),
            (&broken("/v1/messages/batches"), 400, "bad_request", "none", true, "beside Content-Length"),
            (&fields, 431, "headers_too_large", "messages", true, large),
            (&long, 414, "uri_too_long", "messages", true, "(8192 at most)"),
            ("GET / HTTP/2.0\r\n\r\n", 505, "http_version_not_supported", "none", false, "version"),
            ("\u{16}\u{3}\u{1}", 400, "bad_request", "none", false, ""),
        ];
        for (request, status, code, _, is_anthropic, said) in rows {
            let (answer, end) = ask_to_the_end(gateway.address, request).await;
            assert_eq!((answer.status(), answer.whole, end), (status, true, End::Finished), "{request}");
            let body = answer.json();
            assert_eq!(
                (&body["error"]["code"], body["type"] == "error"),
                (&code.into(), is_anthropic),
                "{body}"
            );
            assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains(said)), "{body}");
            let record = gateway.records().pop().expect("a record");
            assert_eq!(record["id"].as_str(), answer.field("x-request-id"), "{request}");
            assert_eq!(record["trouble"], body["error"]["message"]);
        }
        assert_eq!(gateway.counters().heads_refused.value(), rows.len() as u64);
        let records = gateway.end().await;
        assert_eq!(records.len(), rows.len());
        for (record, (request, status, code, surface, ..)) in records.iter().zip(rows) {
            let found = (&record["status"], &record["error"], &record["surface"]);
            assert_eq!(found, (&status.into(), &code.into(), &surface.into()), "{request}");
            assert_eq!((&record["ended"], &record["peer"]), (&"refused".into(), &"127.0.0.1".into()));
        }
    });
}

#[test]
fn an_answer_of_unknown_length_is_sent_in_chunks_and_keeps_the_connection() {
    on_every_driver(async || {
        let until_close = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":1}";
        let script = Script::new().expect_until("\r\n\r\n").expect(BODY).send(until_close).close();
        let no_content = Script::new().expect_until("\r\n\r\n").expect(BODY);
        let no_content =
            no_content.send(answer("204 No Content", "text/plain", "").replace("content-length: 0\r\n", ""));
        let gateway = gateway(vec![script, no_content.expect_end()], |_| {});
        let conn = call(gateway.address).await;
        let mut reader = Reader::new(&conn, Pace::default());
        send(&conn, chat(BODY).repeat(2).as_bytes()).await;
        let answer = reader.answer(false).await.expect("an answer");
        assert_eq!((answer.field("transfer-encoding"), answer.text()), (Some("chunked"), "{\"a\":1}"));
        let answer = reader.answer(false).await.expect("an answer");
        assert_eq!((answer.status(), answer.field("content-length")), (204, None));
        drop(conn);
        gateway.end().await;
    });
}
