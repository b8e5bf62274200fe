//! What is recorded of a request that no answer was metered of: it may be billed all the same, once the provider
//! has it.

use crate::relay::gateway::{Gateway, Setup, answer, ask, call, chat, post, send};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use serde_json::Value;
use std::time::Duration;
use tollgate::llm::provider::ProviderKind::{Anthropic, OpenAi};
use tollgate::net::runtime;

const MS: Duration = Duration::from_millis(1);
/// 40 bytes: ten tokens.
const BODY: &str = r#"{"model":"m","messages":["0123456789a"]}"#;

/// Input, output and how they are known.
fn usage(record: &Value) -> [&Value; 3] {
    [&record["input_tokens"], &record["output_tokens"], &record["usage"]]
}

fn estimate() -> [Value; 3] {
    [10.into(), 0.into(), "estimated".into()]
}

const NONE: [&Value; 3] = [&Value::Null, &Value::Null, &Value::Null];

/// Sends `request` and leaves after 300 ms without an answer.
async fn ask_and_leave(gateway: &Gateway, request: String) {
    let ended = gateway.counters().requests.value() + 1;
    let conn = call(gateway.address).await;
    send(&conn, request.as_bytes()).await;
    runtime::sleep(300 * MS).await;
    drop(conn);
    while gateway.counters().requests.value() < ended {
        runtime::sleep(MS).await;
    }
}

/// The client's record said `client_left` and nothing of tokens; a provider bills what it was sent.
#[test]
fn a_client_that_leaves_before_the_answer_began_leaves_an_estimate() {
    calmly_on_every_driver(async || {
        let path = "/p/v1/chat/completions";
        for request in [chat(BODY), post(path, BODY), post("/v1/responses", BODY)] {
            let (listener, address) = listen();
            serve(listener, vec![Script::new().expect_until("\r\n\r\n").expect(BODY).expect_end()]);
            let gateway = Gateway::start(&Setup::one(OpenAi, address).passthrough("/p/", 0));
            ask_and_leave(&gateway, request.clone()).await;
            let record = gateway.record();
            assert_eq!(record["ended"], "client_left");
            assert_eq!(usage(&record), estimate().each_ref(), "{request}");
            if record["surface"] != "passthrough" {
                assert_eq!(gateway.tokens_by_target(), [10, 0]);
            }
            gateway.end().await;
        }
    });
}

#[test]
fn a_provider_that_does_not_answer_in_time_or_breaks_off_leaves_an_estimate() {
    calmly_on_every_driver(async || {
        let took = || Script::new().expect_until("\r\n\r\n").expect(BODY);
        for (script, status) in [(took().expect_end(), 504), (took().send("HTTP/1.1 20").close(), 502)] {
            let (listener, address) = listen();
            serve(listener, vec![script]);
            let gateway = Gateway::start(
                &Setup::one(OpenAi, address)
                    .with(|setup| setup.upstreams[0].timeouts.response_head = 50 * MS),
            );
            assert_eq!(ask(gateway.address, chat(BODY)).await.status(), status);
            assert_eq!(usage(&gateway.record()), estimate().each_ref(), "{status}");
            gateway.end().await;
        }
    });
}

#[test]
fn what_was_not_sent_whole_or_costs_nothing_or_failed_leaves_none() {
    calmly_on_every_driver(async || {
        // Nobody listens there.
        let (gone, nowhere) = listen();
        drop(gone);
        let (listener, address) = listen();
        let took = || Script::new().expect_until("\r\n\r\n").expect(BODY);
        let failed =
            answer("500 Oh", "text/plain", "no").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let counts = Script::new().expect_until("\r\n\r\n").expect_bytes(BODY.len()).expect_end();
        serve(listener, vec![took().send(&failed), took().send(&failed), counts]);
        let setup = Setup::one(OpenAi, address)
            .upstream("nowhere", OpenAi, nowhere)
            .upstream("counts", Anthropic, address)
            .model("m", &[(0, "")])
            .model("n", &[(1, "")])
            .model("c", &[(2, "")])
            .model("both", &[(0, "m"), (1, "")]);
        let gateway = Gateway::start(&setup);
        let named = |name: &str| chat(&BODY.replace(":\"m\"", &format!(":\"{name}\"")));
        assert_eq!(ask(gateway.address, named("m")).await.status(), 500);
        assert_eq!(ask(gateway.address, named("n")).await.status(), 502);
        // The first target failed, the second was not reached.
        let both = post("/v1/chat/completions", &BODY.replace(":\"m\"", ":\"both\""));
        assert_eq!(ask(gateway.address, both).await.status(), 502);
        let count = post("/v1/messages/count_tokens", &BODY.replace(":\"m\"", ":\"c\""));
        ask_and_leave(&gateway, count).await;
        for record in gateway.end().await {
            assert_eq!(usage(&record), NONE, "{record}");
        }
    });
}
