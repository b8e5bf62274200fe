//! Proof that a body byte is copied nowhere in user space between the read from the upstream and the write to
//! the client on plain connections: the address it was received at is the address it is sent from.
//!
//! A whole worker stands between two scripted peers on this thread. `net::moved` notes every receive and
//! every piece of a send; each marker of the body must have moved four times (the upstream's send, the
//! gateway's receive, its send, the client's receive), and the second and third time in one place.

use super::connection;
use crate::handler::facts::{Counters, Facts, LOG_RING_BYTES};
use crate::handler::snapshot::Snapshot;
use crate::handler::worker::{Published, Worker};
use crate::llm::provider::{BaseUrl, Provider, ProviderKind};
use crate::net::conn::Conn;
use crate::net::moved::{self, Moved, Way};
use crate::net::page::PAGE_BYTES;
use crate::net::runtime;
use crate::net::stream;
use crate::net::upstream::Limits;
use crate::net::upstream::stage::{Peer, join, on_each_driver, say};
use crate::policy::auth::{self, Key, Keys};
use crate::policy::pattern::Pattern;
use crate::policy::route::{RouteSpec, Routes, Target, TargetModel};
use crate::usage::bank::Bank;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const MARKERS: usize = 40;
const MARKER_LEN: usize = 9;

fn marker(number: usize) -> String {
    format!("<mark-{number:02}>")
}

/// What the upstream sends: head, then body pieces, each a send.
struct Answer {
    what: &'static str,
    head: String,
    pieces: Vec<String>,
    /// What the client hears after its head ends with this.
    last: &'static str,
}

fn answers() -> Vec<Answer> {
    let event = |number: usize| {
        let text = format!("{}{}", marker(number), "x".repeat(number * 37 % 300));
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let chunk = |data: &str| format!("{:x}\r\n{data}\r\n", data.len());
    let events: Vec<String> = (0..MARKERS).map(event).collect();
    let body = events.concat();
    let head =
        |kind: &str, framing: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n");
    let (stream, json, chunked) = ("text/event-stream", "application/json", "transfer-encoding: chunked");
    let long = format!("[\"{}\"]", (0..MARKERS).map(|at| marker(at) + &"y".repeat(1500)).collect::<String>());
    let length = |body: &str| format!("content-length: {}", body.len());
    vec![
        Answer {
            what: "a stream in chunks, one event a send",
            head: head(stream, chunked),
            pieces: events.iter().map(|event| chunk(event)).chain(["0\r\n\r\n".into()]).collect(),
            last: "0\r\n\r\n",
        },
        Answer {
            what: "a stream in chunks, many events a send",
            head: head(stream, chunked),
            pieces: vec![events.iter().map(|event| chunk(event)).collect::<String>() + "0\r\n\r\n"],
            last: "0\r\n\r\n",
        },
        Answer {
            what: "a stream with a length, cut within events",
            head: head(stream, &length(&body)),
            pieces: body.as_bytes().chunks(301).map(|part| String::from_utf8_lossy(part).into()).collect(),
            last: "0\r\n\r\n",
        },
        Answer {
            what: "a whole answer of several pages",
            head: head(json, &length(&long)),
            pieces: vec![long.clone()],
            last: "\"]",
        },
    ]
}

fn worker(peer: &Peer) -> Rc<Worker> {
    let base = BaseUrl::new(&format!("http://{}/v1", peer.address)).expect("a URL");
    let mut provider = Provider::new("first", ProviderKind::OpenAi, Some(base));
    provider.origin = Some(0);
    let route = RouteSpec {
        name: "m".into(),
        pattern: Pattern::new("m").expect("a pattern"),
        targets: vec![Target { provider: 0, model: TargetModel::Same, weight: 1 }],
        fallback: Vec::new(),
    };
    let snapshot = Snapshot {
        generation: 1,
        origins: vec![peer.origin(Limits::default())],
        providers: vec![provider],
        keys: Keys::new([(Key::new("tester"), vec![auth::hash(b"tg-test")])]).expect("one hash"),
        routes: Routes::new(vec![route]).expect("a route"),
        ..Snapshot::default()
    };
    let facts = Facts::new(0, Arc::new(Counters::default()), rtrb::RingBuffer::new(LOG_RING_BYTES).0);
    let bank = Arc::new(Bank::in_memory(1).expect("memory"));
    Rc::new(Worker::new(0, Arc::new(Published::new(snapshot)), facts, bank.column(0), None))
}

/// The client asks for usage itself: nothing has to be hidden from it.
fn request() -> String {
    let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-test\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// One exchange; what moved meanwhile.
async fn moved(answer: &Answer) -> Vec<Moved> {
    let (upstream, front) = (Peer::listen(), Peer::listen());
    let worker = worker(&upstream);
    let client = Conn::Plain(stream::connect(front.address).await.expect("it listens"));
    let accepted = front.accept().await;
    let peer = "127.0.0.1:9".parse().expect("an address");
    let serving = Rc::clone(&worker);
    runtime::spawn(async move {
        let downstream = connection::begin(&serving.snapshot(), accepted, peer, 0);
        connection::serve(&serving, downstream).await;
    });
    moved::begin();
    let provide = async {
        let conn = upstream.accept().await;
        let mut page = crate::net::page::Page::rent();
        while !page.bytes().ends_with(b"}}") {
            assert!(conn.recv(&mut page).await.expect("no error") > 0);
        }
        say(&conn, answer.head.as_bytes()).await;
        for piece in &answer.pieces {
            say(&conn, piece.as_bytes()).await;
            runtime::sleep(Duration::from_millis(1)).await;
        }
        conn
    };
    let ask = async {
        say(&client, request().as_bytes()).await;
        let mut heard = Vec::new();
        while !heard.ends_with(answer.last.as_bytes()) {
            let mut page = crate::net::page::Page::rent();
            let n = client.recv(&mut page).await.expect("no error");
            assert!(n > 0, "{}: cut after {}", answer.what, String::from_utf8_lossy(&heard));
            heard.extend_from_slice(page.bytes());
        }
        heard
    };
    let (heard, conn) = join(ask, provide).await;
    let moved = moved::end();
    for number in 0..MARKERS {
        assert!(find(&heard, marker(number).as_bytes()).is_some(), "{}: {number}", answer.what);
    }
    drop((conn, client));
    moved
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, part)
}

/// Checks each marker that no read or send cut in two; how many these were.
fn check(answer: &Answer, moved: &[Moved]) -> usize {
    let mut checked = 0;
    for number in 0..MARKERS {
        let marker = marker(number);
        assert_eq!(marker.len(), MARKER_LEN);
        let places = moved.iter().filter_map(|moved| {
            let at = find(&moved.bytes, marker.as_bytes())?;
            Some((moved.way, moved.at + at))
        });
        let places: Vec<(Way, usize)> = places.collect();
        let [(Way::Sent, _), (Way::Received, came), (Way::Sent, went), (Way::Received, _)] = places[..]
        else {
            continue;
        };
        assert_eq!(came, went, "{}: the gateway copied {marker}", answer.what);
        checked += 1;
    }
    checked
}

#[test]
fn a_body_byte_is_sent_from_where_it_was_received() {
    on_each_driver(async || {
        for answer in answers() {
            let checked = check(&answer, &moved(&answer).await);
            // Pages and the upstream's own cuts fall into a few markers.
            let bytes: usize = answer.pieces.iter().map(String::len).sum();
            let cuts = bytes / PAGE_BYTES + 4;
            assert!(checked + cuts >= MARKERS, "{}: {checked} of {MARKERS}", answer.what);
        }
    });
}
