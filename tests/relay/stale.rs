//! Regression: a request must not be repeated once for every idle connection.
//!
//! Symptom: one request with a body reached a provider as often as there were idle connections to it, and was
//! billed each time. Interleaving: several answers had left idle connections; the provider (a server that
//! restarts, a proxy that lets each connection carry so many requests) took the next request on one of them
//! and closed it without an answer; nothing had been answered, so the request was asked again, and the pool
//! gave the next idle connection, which did the same. Cause: the second try went by the same checkout as the
//! first, which prefers idle connections, and only a connection that carried nothing before ended the loop.
//! Now the second try asks a new connection, and there is no third.

use crate::relay::gateway::{Gateway, Setup, call, chat, json, send};
use crate::relay::http::{Message, Pace, Reader};
use crate::sim::driver::{calmly_on_every_driver, listen};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::conn::Conn;
use tollgate::net::listener::Listener;
use tollgate::net::runtime;

const BODY: &str = r#"{"model":"m"}"#;
const MS: Duration = Duration::from_millis(1);
const IDLE: usize = 3;

/// Each of the first `IDLE` connections answers one request, takes a second one and closes without a word; what
/// comes later answers all. `asked` counts the requests.
async fn provider(listener: Listener, asked: Rc<Cell<usize>>) {
    for number in 0.. {
        let Ok(accepted) = listener.accept().await else { return };
        let asked = Rc::clone(&asked);
        runtime::spawn(async move {
            let conn = Conn::Plain(accepted.stream);
            let mut reader = Reader::new(&conn, Pace::default());
            let mut answered = false;
            while reader.request().await.is_some() {
                asked.set(asked.get() + 1);
                if number < IDLE && answered {
                    return;
                }
                // All of the first ones are asked before one of them is idle.
                runtime::sleep(50 * MS).await;
                send(&conn, json(if number < IDLE { "{}" } else { "{\"fresh\":true}" }).as_bytes()).await;
                answered = true;
            }
        });
    }
}

async fn answer(conn: &Conn) -> Message {
    Reader::new(conn, Pace::default()).answer(false).await.expect("an answer")
}

#[test]
fn a_request_whose_connection_had_gone_stale_is_asked_on_one_new_connection() {
    for connections_max in [IDLE, 100] {
        calmly_on_every_driver(async move || {
            let (listener, address) = listen();
            let asked = Rc::new(Cell::new(0));
            runtime::spawn(provider(listener, Rc::clone(&asked)));
            let gateway = Gateway::start(&Setup::one(OpenAi, address).with(|setup| {
                setup.upstreams[0].limits.connections_max = connections_max;
            }));
            let mut conns = Vec::new();
            for _ in 0..IDLE {
                let conn = call(gateway.address).await;
                send(&conn, chat(BODY).as_bytes()).await;
                conns.push(conn);
            }
            for conn in &conns {
                assert_eq!(answer(conn).await.text(), "{}");
            }
            while gateway.counters().upstream.idle.value() < IDLE as u64 {
                runtime::sleep(MS).await;
            }
            send(&conns[0], chat(BODY).as_bytes()).await;
            let answer = answer(&conns[0]).await;
            assert_eq!((answer.status(), answer.text()), (200, "{\"fresh\":true}"));
            // Those that made them idle, one on an idle connection, one on the new one.
            assert_eq!(asked.get(), IDLE + 2);
            let upstream = &gateway.counters().upstream;
            assert_eq!((upstream.opened.value(), upstream.idle.value()), (IDLE as u64 + 1, IDLE as u64));
            drop(conns);
            gateway.end().await;
        });
    }
}
