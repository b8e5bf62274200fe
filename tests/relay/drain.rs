//! What a drain must not lose: who waits to be accepted, what clients send before they can know, the tail of
//! an answer.

use crate::relay::gateway::{Gateway, LAST, STREAM_HEAD, Setup, call, chat, chunk, get, send};
use crate::relay::http::{End, Pace, Reader};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use std::time::Duration;
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::conn::Conn;
use tollgate::net::runtime;
use tollgate::net::signal::Signal;

const BODY: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
const EVENT: &str = "data: {\"n\":1}\n\n";
const MS: Duration = Duration::from_millis(1);

/// A gateway whose provider nobody needs.
fn without_provider() -> Gateway {
    Gateway::start(&Setup::one(OpenAi, "127.0.0.1:9".parse().unwrap()))
}

/// Asks for the models and expects the last answer of the connection.
async fn ask_last(conn: &Conn) {
    send(conn, get("GET", "/v1/models").as_bytes()).await;
    let mut reader = Reader::new(conn, Pace::default());
    let answer = reader.answer(false).await.expect("an answer");
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    assert_eq!(reader.ending().await, End::Finished);
}

#[test]
fn who_has_connected_as_a_drain_begins_is_served_accepted_or_not() {
    calmly_on_every_driver(async || {
        let gateway = without_provider();
        let mut callers = Vec::new();
        for _ in 0..5 {
            callers.push(call(gateway.address).await);
        }
        gateway.drain_now();
        for conn in &callers {
            ask_last(conn).await;
        }
        drop(callers);
        assert_eq!(gateway.end().await.len(), 5);
    });
}

#[test]
fn who_waits_for_a_place_of_a_full_worker_is_reset_as_a_drain_begins() {
    calmly_on_every_driver(async || {
        let (listener, address) = listen();
        let go_on = Signal::default();
        let script =
            Script::new().expect_until("\r\n\r\n").expect(BODY).send([STREAM_HEAD, &chunk(EVENT)].concat());
        serve(listener, vec![script.until(&go_on).send([&chunk(EVENT), LAST].concat()).expect_end()]);
        let setup = Setup::one(OpenAi, address).with(|setup| setup.base.limits.connections_max = 1);
        let gateway = Gateway::start(&setup);
        let streaming = call(gateway.address).await;
        send(&streaming, chat(BODY).as_bytes()).await;
        let mut reader = Reader::new(&streaming, Pace::default());
        while gateway.counters().upstream.open.value() == 0 {
            runtime::sleep(5 * MS).await;
        }
        let waiting = call(gateway.address).await;
        gateway.drain_now();
        assert_eq!(Reader::new(&waiting, Pace::default()).ending().await, End::Reset);
        go_on.raise();
        let answer = reader.answer(false).await.expect("an answer");
        assert_eq!((answer.text(), answer.whole), (EVENT.repeat(2).as_str(), true));
        assert_eq!(reader.ending().await, End::Finished);
        gateway.end().await;
    });
}

#[test]
fn a_client_that_asks_again_behind_its_stream_is_answered_while_draining() {
    calmly_on_every_driver(async || {
        let gateway = without_provider();
        let conn = call(gateway.address).await;
        send(&conn, get("GET", "/v1/models").as_bytes()).await;
        let answer = Reader::new(&conn, Pace::default()).answer(false).await.expect("an answer");
        assert_eq!((answer.status(), answer.field("connection")), (200, None));
        gateway.drain_now();
        runtime::sleep(500 * MS).await;
        ask_last(&conn).await;
        drop(conn);
        gateway.end().await;
    });
}

#[test]
fn a_request_that_crosses_the_end_of_an_idle_connection_meets_its_end_and_no_reset() {
    calmly_on_every_driver(async || {
        let gateway = without_provider();
        let conn = call(gateway.address).await;
        send(&conn, get("GET", "/v1/models").as_bytes()).await;
        let mut reader = Reader::new(&conn, Pace::default());
        assert_eq!(reader.answer(false).await.expect("an answer").status(), 200);
        gateway.drain_now();
        // Longer than the wait for a last request.
        runtime::sleep(1_200 * MS).await;
        send(&conn, get("GET", "/v1/models").as_bytes()).await;
        runtime::sleep(100 * MS).await;
        // Behind a reset this would be refused.
        send(&conn, b"more").await;
        assert_eq!(reader.ending().await, End::Finished);
        drop(conn);
        assert_eq!(gateway.end().await.len(), 1, "the second request was not served");
    });
}
