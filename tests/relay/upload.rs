//! The minimum rate of an upload, on the simulated clock: who is refused, when, and who is not.
//!
//! A client must have brought `upload_bytes_per_s_min` on average over the time in which it was waited for,
//! but for a grace of 5 s. At a part `p` of the rate it is therefore refused after 5 s / (1 - p).

use crate::relay::gateway::{Gateway, KEY, Setup, call, json};
use crate::relay::http::{End, Message, Pace, Reader};
use crate::sim::driver::listen;
use crate::sim::peer::{Script, serve};
use std::time::Duration;
use tollgate::base::clock;
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::downstream::UPLOAD_GRACE;
use tollgate::net::memory::{Faults, Simulation};
use tollgate::net::runtime;
use tollgate::net::send::SendList;

const RATE: u32 = 1000;
const S: Duration = Duration::from_secs(1);
/// Timers pass at most a tick late.
const LATE: Duration = Duration::from_millis(20);

/// A body that is collected before it goes on, or one that streams through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Collected,
    Through,
}

/// Sends a body of `len` bytes, `step` of them every second, until all are out or an answer has come. The
/// answer and when it came.
async fn upload(way: Way, len: usize, step: usize, scripts: Vec<Script>) -> (Message, Duration) {
    let (listener, address) = listen();
    serve(listener, scripts);
    let gateway = Gateway::start(&Setup::one(OpenAi, address).passthrough("/p/", 0).with(|setup| {
        setup.base.timeouts.upload_bytes_per_s_min = RATE;
        setup.base.timeouts.request_body = 600 * S;
    }));
    let path = if way == Way::Collected { "/v1/chat/completions" } else { "/p/v1/files" };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-type: \
         application/json\r\ncontent-length: {len}\r\n\r\n"
    );
    let body = format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(len));
    let body = [&body[..len - 2], "\"}"].concat();
    let conn = call(gateway.address).await;
    let started = clock::now();
    let mut rest = body.as_bytes();
    let mut next = head.as_bytes();
    while conn.try_peek().is_ok_and(|found| found == tollgate::net::stream::Received::Nothing) {
        let mut list = SendList::new();
        list.push_copy(next);
        if conn.send(list).await.is_err() {
            break;
        }
        if rest.is_empty() {
            break;
        }
        (next, rest) = rest.split_at(step.min(rest.len()));
        // One wait a step, and it ends with an answer.
        tollgate::net::race::race(conn.readable(), runtime::sleep(S)).await;
    }
    let mut reader = Reader::new(&conn, Pace::default());
    let answer = reader.answer(false).await.expect("an answer");
    let took = clock::now() - started;
    if answer.status() == 408 {
        let end = if answer.end == End::Open { reader.ending().await } else { answer.end };
        assert_eq!(end, End::Finished, "a connection with a body half read carries no other request");
    }
    drop(conn);
    gateway.end().await;
    (answer, took)
}

fn simulated<T>(work: impl Future<Output = T>) -> T {
    Simulation::new(1, Faults::none()).run(work).finished()
}

#[test]
fn a_body_below_the_rate_is_refused_when_its_grace_is_used_up() {
    // The grace by one over the part of the rate that is missing. Bytes come once a second, so that a client
    // may be behind by one second more when it is looked at.
    let (grace, one) = (UPLOAD_GRACE, S);
    let rows = [
        ("silent", 0, grace, grace),
        ("a tenth of the rate", 100, (grace - one) * 10 / 9, grace * 10 / 9),
        ("half the rate", 500, (grace - one) * 2, grace * 2),
        ("four fifths of the rate", 800, (grace - one) * 5, grace * 5),
    ];
    for way in [Way::Collected, Way::Through] {
        for (what, step, earliest, latest) in rows {
            // Nothing of a collected body reaches the provider; a streamed one breaks off there.
            let scripts = match way {
                Way::Collected => Vec::new(),
                Way::Through if step == 0 => vec![Script::new().expect_until("\r\n\r\n").expect_end()],
                Way::Through => vec![Script::new().expect_until("\r\n\r\n").expect_until("x").wait(60 * S)],
            };
            let (answer, took) = simulated(upload(way, 100_000, step, scripts));
            assert_eq!(
                (answer.status(), answer.json()["error"]["code"].as_str()),
                (408, Some("request_timeout"))
            );
            assert!(took >= earliest && took <= latest + LATE, "{way:?} {what}: {took:?}");
        }
    }
}

#[test]
fn a_body_at_the_rate_goes_through_however_long_it_takes() {
    for way in [Way::Collected, Way::Through] {
        for step in [RATE as usize, 2 * RATE as usize] {
            let len = 60_000;
            let script =
                Script::new().expect_until("\r\n\r\n").expect_bytes(len).send(json("{}")).expect_end();
            let (answer, took) = simulated(upload(way, len, step, vec![script]));
            assert_eq!((answer.status(), answer.text()), (200, "{}"), "{way:?} {step}");
            assert!(took >= S * (len / step) as u32 - S, "{took:?}");
        }
    }
}

#[test]
fn a_provider_that_takes_nothing_is_no_fault_of_the_client() {
    // Far more than links and sockets keep: the client is held back for a minute and has earned nothing more.
    let len = 4_000_000;
    let script = Script::new().expect_until("\r\n\r\n").wait(20 * S).expect_bytes(len).send(json("{}"));
    let (answer, took) = simulated(upload(Way::Through, len, len, vec![script.expect_end()]));
    assert_eq!((answer.status(), answer.text()), (200, "{}"));
    assert!(took >= 20 * S, "{took:?}");
}
