//! What a request is answered before an upstream is asked, what an upstream is sent, and which one it is.

use crate::relay::gateway::{
    Gateway, KEY, LAST, STREAM_HEAD, Setup, answer, ask, call, chat, chunk, get, json, post, send,
};
use crate::relay::http::{Pace, Reader, find};
use crate::sim::driver::{calmly_on_every_driver, listen, on_every_driver};
use crate::sim::peer::{Script, serve};
use std::sync::Arc;
use tollgate::base::error::{Error, Kind};
use tollgate::llm::provider::ProviderKind::{Anthropic, OpenAi};
use tollgate::policy::exchange::Exchange;
use tollgate::policy::stage::{Deciding, RequestStage, Verdict};

const BODY: &str = r#"{"model":"m","messages":[]}"#;

/// `content-length: 0` of a cancel was dropped; some servers answer 411 then.
#[test]
fn a_request_without_a_body_says_so_where_its_method_expects_one() {
    calmly_on_every_driver(async || {
        let rows = [
            (get("POST", "/v1/responses/resp_1/cancel"), true),
            (post("/v1/responses/resp_1/cancel", ""), true),
            (get("POST", "/p/x"), true),
            (post("/p/x", ""), true),
            (get("PUT", "/p/x"), true),
            (get("PATCH", "/p/x"), true),
            (get("DELETE", "/v1/responses/resp_1"), false),
            (get("GET", "/v1/responses/resp_1"), false),
            (get("GET", "/p/x"), false),
        ];
        let script = |(request, says): &(String, bool)| {
            let (request, says) = (request.clone(), *says);
            let told = json("{}").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
            let script = Script::new().expect_until("\r\n\r\n").check(move |head| {
                let head = String::from_utf8_lossy(head);
                assert_eq!(
                    head.matches("content-length: 0\r\n").count(),
                    usize::from(says),
                    "{request}: {head}"
                );
            });
            script.send(told)
        };
        let (listener, address) = listen();
        serve(listener, rows.iter().map(script).collect());
        let gateway = Gateway::start(&Setup::one(OpenAi, address).passthrough("/p/", 0));
        for (request, _) in &rows {
            assert_eq!(ask(gateway.address, request).await.status(), 200, "{request}");
        }
        gateway.end().await;
    });
}

#[test]
fn errors_speak_the_dialect_of_the_path() {
    on_every_driver(async || {
        let (_upstream, address) = listen();
        let setup = Setup::default().upstream("a", OpenAi, address).model("m", &[(0, "")]);
        let gateway = Gateway::start(&setup.passthrough("/p/", 0));
        let versioned = |request: String| request.replace("host:", "anthropic-version: 2023-06-01\r\nhost:");
        let no_key = |request: String| request.replace(&format!("authorization: Bearer {KEY}\r\n"), "");
        let other_key = |request: String, key: &str| request.replace(KEY, key);
        let rows = [
            (no_key(chat(BODY)), 401, "missing_api_key", false),
            (other_key(chat(BODY), "tg-none"), 401, "invalid_api_key", false),
            (other_key(chat(BODY), "tg-off"), 401, "disabled_api_key", false),
            (other_key(chat(BODY), "tg-old"), 401, "expired_api_key", false),
            (other_key(chat(BODY), "tg-few"), 403, "model_not_allowed", false),
            (no_key(post("/v1/messages", BODY)), 401, "authentication_error", true),
            (post("/v1/messages", r#"{"model":"none","messages":[]}"#), 404, "not_found_error", true),
            (post("/v1/messages", BODY), 404, "not_found_error", true),
            (chat(r#"{"model":"none","messages":[]}"#), 404, "model_not_found", false),
            (chat("{\"model\":\"m\""), 400, "invalid_json", false),
            (chat("\u{feff}{}"), 415, "unsupported_media_type", false),
            (chat(r#"{"messages":[]}"#), 400, "invalid_field", false),
            (chat(BODY).replace("application/json", "text/plain"), 415, "unsupported_media_type", false),
            (
                chat(BODY).replace("host:", "content-encoding: gzip\r\nhost:"),
                415,
                "unsupported_media_type",
                false,
            ),
            (get("GET", "/v1/chat/completions"), 405, "method_not_allowed", false),
            (get("GET", "/v1/none"), 404, "unknown_path", false),
            (get("GET", "/v1/models/none"), 404, "model_not_found", false),
            (versioned(get("GET", "/v1/chat/completions")), 405, "method_not_allowed", false),
            (get("GET", "/v1/messages"), 405, "invalid_request_error", true),
            (versioned(get("GET", "/v1/messages")), 405, "invalid_request_error", true),
            (post("/v1/messages/batches", BODY), 404, "not_found_error", true),
            (versioned(get("GET", "/v1/files")), 404, "not_found_error", true),
            (versioned(get("GET", "/v1/models/none")), 404, "not_found_error", true),
            (
                versioned(get("GET", "/p/v1/files")).replace("GET", "TRACE"),
                405,
                "invalid_request_error",
                true,
            ),
            (get("GET", "/p/v1/files").replace(KEY, "tg-none"), 401, "invalid_api_key", false),
        ];
        for (request, status, code, is_anthropic) in &rows {
            let answer = ask(gateway.address, request).await;
            assert_eq!(answer.status(), *status, "{request}: {}", answer.text());
            let body = answer.json();
            let found = if *is_anthropic { &body["error"]["type"] } else { &body["error"]["code"] };
            assert_eq!(found, code, "{request}: {body}");
            assert_eq!(body["type"] == "error", *is_anthropic, "{body}");
            assert_eq!(body["request_id"].as_str(), answer.field("x-request-id"), "{body}");
            let allowed = match request.starts_with("TRACE") {
                true => "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
                false => "POST",
            };
            assert_eq!(answer.field("allow"), (*status == 405).then_some(allowed), "{request}");
        }
        let records = gateway.end().await;
        assert_eq!(records.len(), rows.len());
        assert!(records.iter().all(|record| record["ended"] == "refused" && record["attempts"] == 0));
    });
}

#[test]
fn the_record_of_a_refused_request_names_its_surface_and_the_key_that_was_shown() {
    on_every_driver(async || {
        let (_upstream, address) = listen();
        let gateway = Gateway::start(&Setup::one(OpenAi, address).passthrough("/p/", 0));
        let keyed = |request: String, key: &str| request.replace(KEY, key);
        // The request, its surface and key in the record.
        let rows = [
            (get("GET", "/v1/none"), "none", None),
            (get("GET", "/p/v1/files").replace("GET", "TRACE"), "passthrough", Some("tester")),
            (get("GET", "/v1/chat/completions"), "chat", None),
            (get("POST", "/v1/models/a"), "model", None),
            (get("PATCH", "/v1/responses/r"), "response", None),
            (keyed(chat(BODY), "tg-none"), "chat", None),
            (keyed(chat(BODY), "tg-off"), "chat", Some("off")),
            (keyed(chat(BODY), "tg-old"), "chat", Some("old")),
            (keyed(get("GET", "/p/v1/files"), "tg-old"), "passthrough", Some("old")),
        ];
        for (request, ..) in &rows {
            assert!(ask(gateway.address, request).await.status() >= 400, "{request}");
        }
        for (record, (request, surface, key)) in gateway.end().await.iter().zip(&rows) {
            assert_eq!((&record["surface"], record["key"].as_str()), (&(*surface).into(), *key), "{request}");
        }
    });
}

#[test]
fn one_model_is_found_by_its_name_as_it_is_and_percent_encoded() {
    on_every_driver(async || {
        let (_upstream, address) = listen();
        let named = |setup: Setup, name| setup.model(name, &[(0, "")]);
        let setup = Setup::default().upstream("a", OpenAi, address);
        let gateway = Gateway::start(&["eu/big", "a b", "50%", "größe"].into_iter().fold(setup, named));
        // The segment as it is sent, the status, the model that is shown or quoted.
        let rows = [
            ("eu%2Fbig", 200, "eu/big"),
            ("eu%2fbig", 200, "eu/big"),
            ("eu/big", 200, "eu/big"),
            ("a%20b", 200, "a b"),
            ("%61%20b", 200, "a b"),
            ("50%25", 200, "50%"),
            ("gr%C3%B6%C3%9Fe", 200, "größe"),
            ("a+b", 404, "\"a+b\""),
            ("50%", 404, "\"50%\""),
            ("50%2", 404, "\"50%2\""),
            ("50%2G", 404, "\"50%2G\""),
            ("50%+5", 404, "\"50%+5\""),
            ("50%2525", 404, "\"50%25\""),
            ("gr%F6%DFe", 404, "\"gr%F6%DFe\""),
            ("x%0D%0Ay%00%1B%7f", 404, "\"xy\""),
            ("x%C2%85y", 404, "\"xy\""),
        ];
        for (segment, status, shown) in rows {
            let answer = ask(gateway.address, get("GET", &format!("/v1/models/{segment}"))).await;
            assert_eq!(answer.status(), status, "{segment}: {}", answer.text());
            match status {
                200 => assert_eq!(answer.json()["id"], shown, "{segment}"),
                _ => assert!(
                    answer.json()["error"]["message"].as_str().is_some_and(|text| text.contains(shown)),
                    "{segment}: {}",
                    answer.text()
                ),
            }
        }
        gateway.end().await;
    });
}

#[test]
fn the_model_is_spliced_and_every_other_byte_goes_on_as_it_came() {
    on_every_driver(async || {
        let body = "{ \"x\" : [1.0,2e5] ,\"model\":\"public\", \"\\u0061\":\"\\/\" ,\"messages\":[ ]}\n";
        let expected = body.replace("\"public\"", "\"a/secret-1\"");
        let (listener, address) = listen();
        let length = format!("content-length: {}\r\n", expected.len());
        let script = Script::new()
            .expect("POST /v1/chat/completions?api-version=3 HTTP/1.1\r\n")
            .expect_until("\r\n\r\n");
        let script = script.check(move |head| {
            let head = String::from_utf8_lossy(head).to_ascii_lowercase();
            for present in [
                &length,
                "authorization: bearer sk-a\r\n",
                "x-beta: yes\r\n",
                "accept-encoding: identity\r\n",
            ] {
                assert!(head.contains(present), "{present} is not in {head}");
            }
            for absent in [KEY, "x-forwarded-for", "cookie", "x-hop", "gzip", "connection"] {
                assert!(!head.contains(absent), "{absent} is in {head}");
            }
        });
        serve(listener, vec![script.expect(expected).send(json("{}")).expect_end()]);
        let setup = Setup::default().upstream("a", OpenAi, address).model("public", &[(0, "a/secret-1")]);
        let gateway = Gateway::start(&setup);
        let more = "x-beta: yes\r\nx-forwarded-for: 1.2.3.4\r\ncookie: a=b\r\nx-hop: 1\r\nconnection: x-hop\r\n\
                    accept-encoding: gzip\r\nhost:";
        let request = post("/v1/chat/completions?api-version=3", body).replace("host:", more);
        assert_eq!(ask(gateway.address, request).await.status(), 200);
        let record = gateway.record();
        assert_eq!((&record["model"], &record["model_sent"]), (&"public".into(), &"a/secret-1".into()));
        gateway.end().await;
    });
}

const USAGE: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\
                     \"completion_tokens\":3,\"total_tokens\":10}}\n\n";
const WORD: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\
                    \"delta\":{\"content\":\"hi\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn usage_is_asked_for_and_its_chunk_is_hidden_from_who_did_not_ask() {
    on_every_driver(async || {
        let shown = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        for (body, is_hidden) in [(r#"{"model":"m","stream":true}"#, true), (shown, false)] {
            for piece in [usize::MAX, 1, 50] {
                let (listener, address) = listen();
                let script = Script::new().expect_until("\r\n\r\n").expect_until("\"include_usage\":true}");
                let stream = [WORD, USAGE, DONE].concat();
                let chunks: String = stream
                    .as_bytes()
                    .chunks(piece.min(stream.len()))
                    .map(|part| chunk(std::str::from_utf8(part).expect("ASCII")))
                    .collect();
                let whole = [STREAM_HEAD, &chunks, LAST].concat();
                serve(listener, vec![script.expect_until("}").send_pieces(whole, 100).expect_end()]);
                let gateway = Gateway::start(&Setup::one(OpenAi, address));
                let answer = ask(gateway.address, chat(body)).await;
                let expected = if is_hidden { [WORD, DONE].concat() } else { stream };
                assert_eq!((answer.text(), answer.whole), (expected.as_str(), true), "pieces of {piece}");
                let record = gateway.record();
                assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&7.into(), &3.into()));
                assert_eq!((&record["usage"], &record["events"]), (&"provider".into(), &3.into()));
                gateway.end().await;
            }
        }
    });
}

#[test]
fn the_next_target_is_asked_where_the_first_fails_before_it_answers() {
    calmly_on_every_driver(async || {
        let refusing = || async {
            let (listener, address) = listen();
            drop(listener);
            address
        };
        let rows: [(&str, u16, u64); 6] = [
            ("", 200, 2),
            ("429 Too Many Requests", 200, 2),
            ("500 Internal Server Error", 200, 2),
            ("503 Service Unavailable", 200, 2),
            ("400 Bad Request", 400, 1),
            ("404 Not Found", 404, 1),
        ];
        for (status, expected, attempts) in rows {
            let first = if status.is_empty() {
                refusing().await
            } else {
                let (listener, address) = listen();
                let script = Script::new().expect_until("\r\n\r\n").expect_until("\"one\"").expect_until("}");
                serve(
                    listener,
                    vec![script.send(answer(status, "application/json", "{\"from\":1}")).expect_end()],
                );
                address
            };
            let (listener, second) = listen();
            let script = Script::new().expect_until("\r\n\r\n").expect_until("\"two\"").expect_until("}");
            serve(listener, vec![script.send(json("{\"from\":2}")).expect_end()]);
            let setup = Setup::default().upstream("first", OpenAi, first).upstream("second", OpenAi, second);
            let gateway = Gateway::start(&setup.model("m", &[(0, "one"), (1, "two")]));
            let answer = ask(gateway.address, chat(BODY)).await;
            assert_eq!(answer.status(), expected, "{status}");
            assert_eq!(answer.json()["from"], if attempts == 2 { 2 } else { 1 }, "{status}");
            let record = gateway.record();
            assert_eq!(record["attempts"], attempts, "{status}");
            assert_eq!(record["provider"], if attempts == 2 { "second" } else { "first" }, "{status}");
            gateway.end().await;
        }
    });
}

#[test]
fn the_last_targets_own_error_reaches_the_client_with_its_fields() {
    on_every_driver(async || {
        let (listener, address) = listen();
        let body = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#;
        let told = answer("429 Too Many Requests", "application/json", body);
        let told = told.replace(
            "content-type",
            "retry-after: 7\r\nrequest-id: req_up\r\nset-cookie: a=b\r\ncontent-type",
        );
        serve(listener, vec![Script::new().expect_until("\r\n\r\n").expect(BODY).send(told).expect_end()]);
        let gateway = Gateway::start(&Setup::one(Anthropic, address));
        let answer = ask(gateway.address, post("/v1/messages", BODY)).await;
        assert_eq!((answer.status(), answer.text()), (429, body));
        assert_eq!((answer.field("retry-after"), answer.field("request-id")), (Some("7"), Some("req_up")));
        assert_eq!(answer.field("set-cookie"), None);
        gateway.end().await;
    });
}

#[test]
fn an_upstream_that_cannot_be_reached_is_a_502_that_names_it() {
    on_every_driver(async || {
        let (listener, address) = listen();
        drop(listener);
        let gateway = Gateway::start(&Setup::one(OpenAi, address));
        let answer = ask(gateway.address, chat(BODY)).await;
        assert_eq!((answer.status(), answer.field("x-should-retry")), (502, Some("true")));
        let body = answer.json();
        assert_eq!(body["error"]["code"], "upstream_unreachable");
        assert!(find(&answer.body, b"provider first").is_some(), "{body}");
        gateway.end().await;
    });
}

#[test]
fn a_reused_connection_that_went_stale_is_tried_once_more_on_a_fresh_one() {
    calmly_on_every_driver(async || {
        let (listener, address) = listen();
        let exchange = |script: Script| script.expect_until("\r\n\r\n").expect(BODY).send(json("{}"));
        // It takes the second request and closes without a word: the request reached nobody.
        let stale = exchange(Script::new()).expect_until("\r\n\r\n").expect(BODY).close();
        let fresh_too = Script::new().expect_until("\r\n\r\n").expect(BODY).close();
        serve(listener, vec![stale, exchange(Script::new()).close(), fresh_too]);
        let gateway = Gateway::start(&Setup::one(OpenAi, address));
        let conn = call(gateway.address).await;
        let mut reader = Reader::new(&conn, Pace::default());
        let mut statuses = Vec::new();
        for _ in 0..3 {
            send(&conn, chat(BODY).as_bytes()).await;
            let answer = reader.answer(false).await.expect("an answer");
            statuses.push(answer.status());
            // Lets the end of the connection arrive.
            tollgate::net::runtime::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(statuses, [200, 200, 502]);
        drop(conn);
        gateway.end().await;
    });
}

/// A stage that decides by the model's name.
struct ByName;

impl RequestStage for ByName {
    fn decide<'e>(&'e self, exchange: &'e mut Exchange) -> Deciding<'e> {
        Box::pin(async move {
            tollgate::net::runtime::sleep(std::time::Duration::from_millis(2)).await;
            match exchange.model.as_deref() {
                Some("refuse") => Verdict::Refuse(Error::new(Kind::Refused, "not today")),
                Some("answer") => Verdict::Answer(b"{\"by\":\"a stage\"}".to_vec()),
                Some("panic") => panic!("a stage panics, as this test wants"),
                _ => Verdict::Pass,
            }
        })
    }
}

#[test]
fn a_stage_passes_refuses_or_answers() {
    on_every_driver(async || {
        let (listener, address) = listen();
        serve(
            listener,
            vec![Script::new().expect_until("\r\n\r\n").expect(BODY).send(json("{}")).expect_end()],
        );
        let gateway = Gateway::start(
            &Setup::one(OpenAi, address).with(|setup| setup.base.stages.request.push(Arc::new(ByName))),
        );
        assert_eq!(ask(gateway.address, chat(BODY)).await.text(), "{}");
        let refused = ask(gateway.address, chat(r#"{"model":"refuse"}"#)).await;
        assert_eq!(
            (refused.status(), refused.json()["error"]["code"].as_str()),
            (403, Some("refused_by_policy"))
        );
        let answered = ask(gateway.address, chat(r#"{"model":"answer"}"#)).await;
        assert_eq!((answered.status(), answered.text()), (200, "{\"by\":\"a stage\"}"));
        gateway.end().await;
    });
}

#[test]
fn a_panic_ends_its_own_connection_and_is_counted_and_recorded() {
    crate::sim::driver::on_every_driver_with_panics(1, async || {
        let (listener, address) = listen();
        serve(
            listener,
            vec![Script::new().expect_until("\r\n\r\n").expect(BODY).send(json("{}")).expect_end()],
        );
        let gateway = Gateway::start(
            &Setup::one(OpenAi, address).with(|setup| setup.base.stages.request.push(Arc::new(ByName))),
        );
        let (one, other) = (call(gateway.address).await, call(gateway.address).await);
        send(&one, chat(r#"{"model":"panic"}"#).as_bytes()).await;
        assert!(Reader::new(&one, Pace::default()).answer(false).await.is_none());
        send(&other, chat(BODY).as_bytes()).await;
        assert_eq!(
            Reader::new(&other, Pace::default()).answer(false).await.expect("an answer").status(),
            200
        );
        drop((one, other));
        let counters = gateway.counters();
        assert_eq!((counters.unfinished.value(), counters.requests.value()), (1, 2));
        assert_eq!(gateway.records()[0]["ended"], "unfinished");
        gateway.begin_drain();
        while !gateway.has_ended() {
            tollgate::net::runtime::sleep(std::time::Duration::from_millis(5)).await;
        }
        gateway.check_ended(1);
    });
}
