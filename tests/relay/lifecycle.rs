//! Reload and drain while requests run.

use crate::relay::gateway::{Gateway, LAST, STREAM_HEAD, Setup, ask, call, chat, chunk, get, json, send};
use crate::relay::http::{End, Pace, Reader};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use std::time::Duration;
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::conn::Conn;
use tollgate::net::signal::Signal;
use tollgate::net::{runtime, stream};

const BODY: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
const EVENT: &str = "data: {\"n\":1}\n\n";
const MS: Duration = Duration::from_millis(1);

/// An upstream that begins a stream, and ends it when it is told to.
fn slow_stream(go_on: &Signal) -> Script {
    let script =
        Script::new().expect_until("\r\n\r\n").expect(BODY).send([STREAM_HEAD, &chunk(EVENT)].concat());
    script.until(go_on).send([&chunk(EVENT), LAST].concat())
}

/// Waits until the request of a stream has gone to its upstream.
async fn until_asked(gateway: &Gateway) {
    while gateway.counters().upstream.open.value() == 0 {
        runtime::sleep(5 * MS).await;
    }
}

#[test]
fn a_drain_lets_a_stream_end_and_takes_nothing_new() {
    calmly_on_every_driver(async || {
        let (listener, address) = listen();
        let go_on = Signal::default();
        serve(listener, vec![slow_stream(&go_on).expect_end()]);
        let gateway = Gateway::start(&Setup::one(OpenAi, address));
        let (streaming, idle) = (call(gateway.address).await, call(gateway.address).await);
        send(&idle, get("GET", "/v1/models").as_bytes()).await;
        let mut idle_reader = Reader::new(&idle, Pace::default());
        assert_eq!(idle_reader.answer(false).await.expect("a list").status(), 200);
        send(&streaming, chat(BODY).as_bytes()).await;
        until_asked(&gateway).await;
        gateway.begin_drain();
        assert_eq!(idle_reader.ending().await, End::Finished);
        // The task that accepts sees the drain when its turn comes.
        runtime::sleep(20 * MS).await;
        assert!(!gateway.has_ended(), "a stream runs");
        assert!(is_refused(gateway.address).await, "a new connection is taken while draining");
        go_on.raise();
        let mut reader = Reader::new(&streaming, Pace::default());
        let answer = reader.answer(false).await.expect("an answer");
        assert_eq!((answer.text(), answer.whole), (EVENT.repeat(2).as_str(), true));
        assert_eq!(reader.ending().await, End::Finished);
        gateway.end().await;
    });
}

/// Nobody answers a new connection.
async fn is_refused(address: std::net::SocketAddr) -> bool {
    let Ok(stream) = stream::connect(address).await else { return true };
    let conn = Conn::Plain(stream);
    let mut list = tollgate::net::send::SendList::new();
    list.push_copy(get("GET", "/v1/models").as_bytes());
    if conn.send(list).await.is_err() {
        return true;
    }
    Reader::new(&conn, Pace::default()).answer(false).await.is_none()
}

#[test]
fn a_stream_of_the_old_generation_ends_untouched_and_the_next_request_has_the_new_one() {
    calmly_on_every_driver(async || {
        let (old_listener, old) = listen();
        let (new_listener, new) = listen();
        let go_on = Signal::default();
        serve(old_listener, vec![slow_stream(&go_on).expect_end()]);
        serve(
            new_listener,
            vec![Script::new().expect_until("\r\n\r\n").expect(BODY).send(json("{}")).expect_end()],
        );
        let setup = Setup::one(OpenAi, old);
        let gateway = Gateway::start(&setup);
        let conn = call(gateway.address).await;
        send(&conn, chat(BODY).as_bytes()).await;
        until_asked(&gateway).await;
        let next = setup.with(|setup| {
            setup.upstreams[0].address = new;
            setup.upstreams[0].name = "renamed".to_string();
            setup.upstreams[0].timeouts.idle = MS;
        });
        gateway.publish(&next, 2);
        assert_eq!(ask(gateway.address, chat(BODY)).await.text(), "{}");
        go_on.raise();
        let answer = Reader::new(&conn, Pace::default()).answer(false).await.expect("an answer");
        assert_eq!((answer.text(), answer.whole), (EVENT.repeat(2).as_str(), true));
        drop(conn);
        let records = gateway.end().await;
        let providers: Vec<_> = records.iter().map(|record| record["provider"].as_str()).collect();
        assert_eq!(providers, [Some("renamed"), Some("first")]);
    });
}

#[test]
fn a_hundred_reloads_with_new_names_leave_no_labels_but_of_what_lives() {
    calmly_on_every_driver(async || {
        let (listener, address) = listen();
        let go_on = Signal::default();
        serve(listener, vec![slow_stream(&go_on).expect_end()]);
        let named = |name: &str| Setup::default().upstream(name, OpenAi, address).model(name, &[(0, "m")]);
        let gateway = Gateway::start(&named("m"));
        let conn = call(gateway.address).await;
        send(&conn, chat(BODY).as_bytes()).await;
        until_asked(&gateway).await;
        for number in 2..=101 {
            gateway.publish(&named(&format!("m{number}")), number);
            assert_eq!(ask(gateway.address, get("GET", "/v1/models")).await.status(), 200);
            // A model and a provider each: of this generation, of the one that it replaces, of the stream's.
            assert!(gateway.labels() <= 3 * 2, "{number}: {} labels", gateway.labels());
        }
        go_on.raise();
        let answer = Reader::new(&conn, Pace::default()).answer(false).await.expect("an answer");
        assert!(answer.whole);
        drop(conn);
        // Its counts can still be scraped until the next generation comes.
        assert_eq!(gateway.answers_2xx("m"), Some(1));
        gateway.publish(&named("last"), 102);
        assert_eq!(gateway.answers_2xx("m"), None);
        gateway.end().await;
    });
}
