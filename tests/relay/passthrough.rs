//! Pass-through paths: streamed both ways, bounded, early answers, what is not let through.

use crate::relay::gateway::{
    Gateway, KEY, LAST, Setup, ask, ask_to_the_end, call, chunk, get, json, post, send,
};
use crate::relay::http::{End, Pace, Reader};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use std::time::Duration;
use tollgate::base::clock;
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::runtime;

const MS: Duration = Duration::from_millis(1);

fn gateway(scripts: Vec<Script>, edit: impl FnOnce(&mut Setup)) -> Gateway {
    let (listener, address) = listen();
    serve(listener, scripts);
    Gateway::start(&Setup::one(OpenAi, address).passthrough("/p/", 0).with(edit))
}

#[test]
fn a_body_goes_on_while_it_comes_and_so_does_the_answer() {
    calmly_on_every_driver(async || {
        let script = Script::new().expect("PUT /v1/files?a=b%20c HTTP/1.1\r\n").expect_until("\r\n\r\n");
        // Each half arrives while the other one has not been sent.
        let script =
            script.expect("5\r\nhello\r\n").expect_nothing(20 * MS).expect("6\r\n world\r\n0\r\n\r\n");
        let script =
            script.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").wait(100 * MS).send("done");
        let gateway = gateway(vec![script.expect_end()], |_| {});
        let head = get("PUT", "/p/v1/files?a=b%20c").replace("host:", "transfer-encoding: chunked\r\nhost:");
        let client =
            Script::new().send(head).send(chunk("hello")).wait(100 * MS).send(chunk(" world")).send(LAST);
        let client =
            client.expect("HTTP/1.1 200 OK\r\n").expect_until("\r\n\r\nhalf").expect_nothing(20 * MS);
        client.expect("done").connect(gateway.address).await;
        let record = gateway.record();
        assert_eq!((&record["bytes_in"], &record["surface"]), (&11.into(), &"passthrough".into()));
        gateway.end().await;
    });
}

#[test]
fn an_answer_that_comes_early_is_relayed_and_the_rest_is_not_read() {
    calmly_on_every_driver(async || {
        let script = Script::new()
            .expect_until("\r\n\r\n")
            .send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno");
        let gateway = gateway(vec![script.wait(500 * MS)], |_| {});
        let head = post("/p/v1/files", "").replace("content-length: 0", "content-length: 100000");
        let conn = call(gateway.address).await;
        send(&conn, head.as_bytes()).await;
        let mut reader = Reader::new(&conn, Pace::default());
        let answer = reader.answer(false).await.expect("an answer");
        assert_eq!((answer.status(), answer.text(), answer.field("connection")), (413, "no", Some("close")));
        assert_eq!(reader.ending().await, End::Finished);
        drop(conn);
        gateway.end().await;
    });
}

#[test]
fn an_upload_at_its_bound_goes_through_and_one_past_it_does_not() {
    calmly_on_every_driver(async || {
        let script = Script::new().expect_until("\r\n\r\n").expect_bytes(1000).send(json("{}"));
        // The upload without a length comes on the same connection and is broken off.
        let gateway = gateway(vec![script.expect_until("\r\n\r\n").wait(300 * MS)], |setup| {
            setup.base.limits.upload_bytes_max = 1000
        });
        assert_eq!(ask(gateway.address, post("/p/v1/files", &"x".repeat(1000))).await.status(), 200);
        let (answer, _) = ask_to_the_end(gateway.address, post("/p/v1/files", &"x".repeat(1001))).await;
        assert_eq!(answer.status(), 413);
        let head = get("POST", "/p/v1/files").replace("host:", "transfer-encoding: chunked\r\nhost:");
        let body = [chunk(&"x".repeat(600)), chunk(&"x".repeat(401)), LAST.to_string()].concat();
        let (answer, _) = ask_to_the_end(gateway.address, head + &body).await;
        assert_eq!(answer.status(), 413);
        gateway.end().await;
    });
}

#[test]
fn what_the_route_does_not_allow_never_reaches_the_provider() {
    calmly_on_every_driver(async || {
        let (_upstream, address) = listen();
        let gateway = Gateway::start(&Setup::one(OpenAi, address).passthrough("/p/", 0).with(|setup| {
            let route = &mut setup.base.passthroughs[0];
            route.methods = vec![http::Method::GET];
            route.prefixes = vec!["/v1/files".into()];
        }));
        let rows = [
            (get("POST", "/p/v1/files"), 405),
            (get("GET", "/p/v1/models"), 404),
            (get("GET", "/p/v1/filesystem"), 404),
            (get("GET", "/p/v1/files/../models"), 400),
            (get("GET", "/p/v1/files/%2e%2E/models"), 400),
            (get("GET", "/p/v1/files/..%2fmodels"), 400),
            (get("GET", "/p/v1/files").replace(KEY, "tg-few"), 403),
            (get("GET", "/p/v1/files").replace(KEY, "tg-none"), 401),
            (get("GET", "/q/v1/files"), 404),
        ];
        for (request, status) in rows {
            let answer = ask(gateway.address, &request).await;
            assert_eq!(answer.status(), status, "{request}");
            // RFC 9110 section 15.5.6.
            assert_eq!(answer.field("allow"), (status == 405).then_some("GET"), "{request}");
        }
        gateway.end().await;
    });
}

/// A provider's server that knows TRACE repeats the request in its answer: with the credential that the gateway
/// had put in. A route without `methods` passed every method on.
#[test]
fn only_the_seven_methods_are_passed_where_the_route_names_none_and_trace_never() {
    calmly_on_every_driver(async || {
        let repeated =
            "HTTP/1.1 200 OK\r\nconnection: close\r\nx-repeated: sk-first\r\ncontent-length: 0\r\n\r\n";
        let scripts = |count| -> Vec<Script> {
            let script = || Script::new().expect_until("\r\n\r\n").send(repeated);
            (0..count).map(|_| script()).collect()
        };
        let named = |setup: &mut Setup| setup.base.passthroughs[0].methods = vec![http::Method::TRACE];
        let all = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
        for (edit, allowed) in [(|_: &mut Setup| {}) as fn(&mut Setup), named].into_iter().zip([all, ""]) {
            let gateway = gateway(scripts(3), edit);
            for method in ["TRACE", "FOO", "trace"] {
                let answer = ask(gateway.address, get(method, "/p/v1/x")).await;
                assert_eq!((answer.status(), answer.field("x-repeated")), (405, None), "{method}");
                assert_eq!(answer.field("allow"), Some(allowed), "{method}");
            }
            gateway.end().await;
        }
        let passed = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let gateway = gateway(scripts(passed.len()), |_| {});
        for method in passed {
            assert_eq!(ask(gateway.address, get(method, "/p/v1/x")).await.status(), 200, "{method}");
        }
        gateway.end().await;
    });
}

#[test]
fn a_client_that_leaves_after_its_upload_takes_the_upstream_connection_along() {
    calmly_on_every_driver(async || {
        let gateway =
            gateway(vec![Script::new().expect_until("\r\n\r\n").expect("abc").expect_end()], |_| {});
        let conn = call(gateway.address).await;
        send(&conn, post("/p/v1/files", "abc").as_bytes()).await;
        runtime::sleep(300 * MS).await;
        drop(conn);
        let left = clock::now();
        while gateway.counters().requests.value() == 0 {
            runtime::sleep(MS).await;
            assert!(clock::now() - left < 2000 * MS, "it waits for an answer that nobody reads");
        }
        assert_eq!(gateway.record()["ended"], "client_left");
        gateway.end().await;
    });
}

#[test]
fn a_client_that_breaks_off_its_upload_breaks_off_the_providers_request() {
    calmly_on_every_driver(async || {
        let gateway =
            gateway(vec![Script::new().expect_until("\r\n\r\n").expect("abc").expect_end()], |_| {});
        let conn = call(gateway.address).await;
        send(&conn, post("/p/v1/files", "abc").replace("length: 3", "length: 30").as_bytes()).await;
        runtime::sleep(50 * MS).await;
        drop(conn);
        while gateway.counters().requests.value() == 0 {
            runtime::sleep(MS).await;
        }
        assert_eq!(gateway.record()["ended"], "client_left");
        gateway.end().await;
    });
}

#[test]
fn usage_is_metered_where_the_path_has_a_dialect() {
    calmly_on_every_driver(async || {
        let body = r#"{"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
        let script = Script::new().expect_until("\r\n\r\n").expect("{}").send(json(body)).expect_end();
        let gateway = gateway(vec![script], |_| {});
        assert_eq!(ask(gateway.address, post("/p/v1/chat/completions", "{}")).await.text(), body);
        let record = gateway.record();
        assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&7.into(), &3.into()));
        gateway.end().await;
    });
}
