//! Exchanges with a scripted peer: what is an answer, where it ends, and whether its connection is used
//! again.

use super::super::allocations;
use super::super::stage::{
    Peer, hear, hear_end, join, on_each_driver, on_each_link, on_kernel_drivers, pause, pools, say, try_say,
    until,
};
use super::{Http1Upstream, Piece, Sent, UpstreamError, WATCHED_FROM, kept_for};
use crate::base::error::Timer;
use crate::codec::http1::Asked;
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::memory::{Faults, Simulation};
use crate::net::page::{self, Page};
use crate::net::runtime::{self, Driver};
use crate::net::send::SendList;
use crate::net::upstream::Limits;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const REQUEST: &[u8] =
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: peer.test\r\nContent-Length: 2\r\n\r\n{}";

/// How the peer goes on after its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Stay,
    Close,
    Reset,
}
use Then::{Close, Reset, Stay};

/// What an exchange gave: status and body; and whether the connection was given back.
type Outcome = Result<(u16, String, Next), UpstreamError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Reuses,
    Opens,
}
use Next::{Opens, Reuses};

fn patient() -> Deadline {
    let deadline = Deadline::unset();
    // A link of the simulation may be slow.
    deadline.set(Duration::from_secs(if runtime::driver() == Some(Driver::Memory) { 1800 } else { 10 }));
    deadline
}

fn list(bytes: &[u8]) -> SendList {
    let mut list = SendList::new();
    list.push_copy(bytes);
    list
}

async fn body(upstream: &mut Http1Upstream) -> Result<String, UpstreamError> {
    let mut body = Vec::new();
    while let Piece::Data(slice) = upstream.next().await? {
        assert!(!slice.is_empty());
        body.extend_from_slice(&slice);
    }
    Ok(String::from_utf8(body).expect("the script's text"))
}

/// Sends `REQUEST`, lets the peer answer, and reads that.
async fn exchange(asked: Asked, answer: &[u8], then: Then) -> Outcome {
    let (peer, (pools, counters)) = (Peer::listen(), pools());
    let lease = pools.checkout(&peer.origin(Limits::default())).await.expect("a connection");
    let mut upstream = Http1Upstream::new(lease, asked);
    let client = async {
        assert_eq!(upstream.send(list(REQUEST), &patient()).await, Ok(Sent::Whole));
        let outcome = read_answer(&mut upstream).await;
        upstream.finish();
        // What was behind the answer has arrived by then.
        pause().await;
        pools.sweep();
        outcome
    };
    let server = async {
        let end = peer.accept().await;
        hear(&end, REQUEST).await;
        // A client that has found a fault has gone.
        let _ = try_say(&end, answer).await;
        if then == Reset {
            // What was said has arrived by then, so the reset cannot overtake it.
            pause().await;
            end.reset_on_close();
        }
        (then == Stay).then_some(end)
    };
    let (outcome, _end) = join(client, server).await;
    assert_eq!(counters.open.value(), counters.idle.value());
    assert_eq!(page::rented_pages(), 0, "pages left");
    let next = if counters.idle.value() == 1 { Reuses } else { Opens };
    if outcome.is_err() {
        assert_eq!(next, Opens, "a broken connection was given back");
    }
    outcome.map(|(status, body)| (status, body, next))
}

async fn read_answer(upstream: &mut Http1Upstream) -> Result<(u16, String), UpstreamError> {
    let status = upstream.read_head(&patient()).await?.status;
    Ok((status, body(upstream).await?))
}

fn answers(rows: &[(&str, Asked, &str, Then, Outcome)]) {
    on_each_driver(async || {
        for (name, asked, answer, then, expected) in rows {
            assert_eq!(&exchange(*asked, answer.as_bytes(), *then).await, expected, "{name}");
        }
    });
    on_each_link(async || {
        // On a slow link a reset may overtake what was said before.
        for (name, asked, answer, then, expected) in rows.iter().filter(|row| row.3 != Reset) {
            assert_eq!(&exchange(*asked, answer.as_bytes(), *then).await, expected, "{name}");
        }
    });
}

fn ok(status: u16, body: &str, next: Next) -> Outcome {
    Ok((status, body.to_owned(), next))
}

#[test]
fn an_answer_ends_where_its_framing_says_and_its_connection_is_used_again_only_if_that_is_sure() {
    use Asked::{Body, Head};
    answers(&[
        ("length", Body, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Stay, ok(200, "hello", Reuses)),
        ("length zero", Body, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Stay, ok(200, "", Reuses)),
        (
            "chunks",
            Body,
            &chunked("2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: v\r\n\r\n"),
            Stay,
            ok(200, "abc", Reuses),
        ),
        ("empty chunked", Body, &chunked("0\r\n\r\n"), Stay, ok(200, "", Reuses)),
        ("until close", Body, "HTTP/1.1 200 OK\r\n\r\nhello", Close, ok(200, "hello", Opens)),
        ("until close, empty", Body, "HTTP/1.1 200 OK\r\n\r\n", Close, ok(200, "", Opens)),
        (
            "close",
            Body,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
            Stay,
            ok(200, "a", Opens),
        ),
        ("1.0", Body, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", Stay, ok(200, "a", Opens)),
        (
            "1.0 kept",
            Body,
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
            Stay,
            ok(200, "a", Reuses),
        ),
        ("204", Body, "HTTP/1.1 204 No Content\r\n\r\n", Stay, ok(204, "", Reuses)),
        (
            "204 with a body",
            Body,
            "HTTP/1.1 204 No\r\nContent-Length: 8\r\n\r\npoisoned",
            Stay,
            ok(204, "", Opens),
        ),
        ("304", Body, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Stay, ok(304, "", Reuses)),
        ("HEAD", Head, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Stay, ok(200, "", Reuses)),
        ("HEAD chunked", Head, &chunked(""), Stay, ok(200, "", Reuses)),
        (
            "interim",
            Body,
            "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 200\r\nContent-Length: 1\r\n\r\na",
            Stay,
            ok(200, "a", Reuses),
        ),
        (
            "about to close",
            Body,
            "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=9\r\nContent-Length: 1\r\n\r\na",
            Stay,
            ok(200, "a", Opens),
        ),
        (
            "error status",
            Body,
            "HTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\n{}",
            Stay,
            ok(429, "{}", Reuses),
        ),
    ]);
}

#[test]
fn bytes_behind_the_answer_keep_its_connection_from_being_used_again() {
    use Asked::{Body, Head};
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";
    answers(&[
        (
            "length",
            Body,
            &format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}{second}"),
            Stay,
            ok(200, "{}", Opens),
        ),
        ("one byte", Body, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\n", Stay, ok(200, "{}", Opens)),
        ("chunked", Body, &chunked(&format!("1\r\na\r\n0\r\n\r\n{second}")), Stay, ok(200, "a", Opens)),
        ("HEAD", Head, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stay, ok(200, "", Opens)),
        ("304", Body, "HTTP/1.1 304 No\r\n\r\nx", Stay, ok(304, "", Opens)),
    ]);
}

#[test]
fn a_cut_is_never_taken_for_an_end() {
    use Asked::Body;
    let cut = Err(UpstreamError::BodyCut);
    answers(&[
        ("nothing", Body, "", Close, Err(UpstreamError::NoAnswer)),
        ("nothing, reset", Body, "", Reset, Err(UpstreamError::NoAnswer)),
        ("head", Body, "HTTP/1.1 200 OK\r\nX-A: b", Close, Err(UpstreamError::HeadCut)),
        ("head, reset", Body, "HTTP/1.1 200 OK\r\nX-A: b", Reset, Err(UpstreamError::HeadCut)),
        ("interim only", Body, "HTTP/1.1 103 Early\r\n\r\n", Close, Err(UpstreamError::HeadCut)),
        ("length", Body, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", Close, cut.clone()),
        ("length, reset", Body, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", Reset, cut.clone()),
        ("inside a chunk", Body, &chunked("6\r\nhello"), Close, cut.clone()),
        ("after a chunk", Body, &chunked("5\r\nhello\r\n"), Close, cut.clone()),
        ("inside the last chunk", Body, &chunked("5\r\nhello\r\n0\r\n"), Close, cut.clone()),
        ("until close, reset", Body, "HTTP/1.1 200 OK\r\n\r\nhello", Reset, cut),
    ]);
}

#[test]
fn what_is_no_answer_is_refused() {
    use Asked::{Body, Upgrade};
    let head = |what| Err(UpstreamError::HeadInvalid(what));
    let chunk = |what| Err(UpstreamError::BodyInvalid(what));
    let interim_17 = "HTTP/1.1 103 Early\r\n\r\n".repeat(17);
    let unasked = "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
    let endless = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(33 * 1024));
    answers(&[
        ("garbage", Body, "HELLO WORLD\r\n\r\n", Stay, head("no status line")),
        ("101 unasked", Body, unasked, Stay, head("101 without being asked to switch protocols")),
        (
            "101 without upgrade",
            Upgrade,
            "HTTP/1.1 101 S\r\n\r\n",
            Stay,
            head("101 without being asked to switch protocols"),
        ),
        ("interim flood", Body, &interim_17, Stay, head("more than 16 interim responses")),
        ("long head", Body, &endless, Stay, head("a response head over the limit")),
        ("chunk size", Body, &chunked("5\r\nhello\r\nzz\r\n"), Stay, chunk("a chunk line without a size")),
        (
            "chunk end",
            Body,
            &chunked("5\r\nhelloXX0\r\n\r\n"),
            Stay,
            chunk("chunk data that is not followed by CRLF"),
        ),
    ]);
}

#[test]
fn a_head_longer_than_a_page_is_read_whole() {
    on_each_driver(async || {
        for long in [page::PAGE_BYTES, 32 * 1024 - 80] {
            let answer =
                format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 5\r\n\r\nhello", "a".repeat(long));
            let interim = format!("HTTP/1.1 103 Early\r\n\r\n{answer}");
            for answer in [answer, interim] {
                let outcome = exchange(Asked::Body, answer.as_bytes(), Stay).await;
                assert_eq!(outcome, ok(200, "hello", Reuses));
            }
        }
    });
}

/// The peer writes byte after byte, so that the reader sees many different cuts.
#[test]
fn the_answer_does_not_depend_on_how_it_is_cut() {
    on_each_driver(async || {
        let answer =
            format!("HTTP/1.1 103 E\r\n\r\n{}", chunked("2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: v\r\n\r\n"));
        let (peer, (pools, _counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits::default());
        let lease = pools.checkout(&origin).await.expect("a connection");
        let end = peer.accept().await;
        let mut upstream = Http1Upstream::new(lease, Asked::Body);
        upstream.send(list(REQUEST), &patient()).await.expect("sent");
        runtime::spawn(async move {
            for byte in answer.as_bytes() {
                say(&end, &[*byte]).await;
            }
            hear(&end, REQUEST).await;
            hear_end(&end).await;
        });
        assert_eq!(read_answer(&mut upstream).await, Ok((200, "abc".to_owned())));
        assert!(upstream.is_reusable());
    });
}

#[test]
fn several_chunks_of_one_lot_come_as_slices_without_another_wait() {
    on_each_driver(async || {
        let (peer, (pools, _)) = (Peer::listen(), pools());
        let (mut upstream, end) = asked(&peer, &pools, Asked::Body).await;
        say(&end, chunked("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").as_bytes()).await;
        upstream.read_head(&patient()).await.expect("a head");
        let mut pieces = Vec::new();
        while let Some(piece) = upstream.next_ready().expect("good framing") {
            let Piece::Data(slice) = piece else { break };
            pieces.push(slice);
        }
        let pieces: Vec<&[u8]> = pieces.iter().map(|slice| &**slice).collect();
        assert_eq!(pieces, [&b"ab"[..], b"c"]);
        assert!(upstream.is_reusable());
    });
}

/// An exchange whose request was sent and heard.
async fn asked(peer: &Peer, pools: &super::super::Pools, asked: Asked) -> (Http1Upstream, Conn) {
    let lease = pools.checkout(&peer.origin(Limits::default())).await.expect("a connection");
    let end = peer.accept().await;
    let mut upstream = Http1Upstream::new(lease, asked);
    assert_eq!(upstream.send(list(REQUEST), &patient()).await, Ok(Sent::Whole));
    hear(&end, REQUEST).await;
    (upstream, end)
}

#[test]
fn a_wait_for_the_body_that_is_dropped_loses_nothing_and_holds_no_page() {
    on_each_driver(async || {
        let (peer, (pools, _)) = (Peer::listen(), pools());
        let (mut upstream, end) = asked(&peer, &pools, Asked::Body).await;
        say(&end, chunked("").as_bytes()).await;
        drop(upstream.read_head(&patient()).await.expect("a head"));
        let short = Deadline::unset();
        let (mut got, mut waits) = (Vec::new(), 0);
        for n in 0..40_u8 {
            if n % 2 == 0 {
                say(&end, format!("1\r\n{}\r\n", char::from(b'a' + n / 2)).as_bytes()).await;
            }
            short.set(Duration::from_millis(2));
            match short.bound(upstream.next()).await {
                Ok(Ok(Piece::Data(slice))) => got.extend_from_slice(&slice),
                Ok(_) => panic!("no data"),
                Err(_) => {
                    waits += 1;
                    assert_eq!(page::rented_pages(), 0, "a page was held while waiting");
                }
            }
        }
        assert!(waits >= 20);
        say(&end, b"0\r\n\r\n").await;
        while let Piece::Data(slice) = upstream.next().await.expect("good framing") {
            got.extend_from_slice(&slice);
        }
        assert_eq!(got, b"abcdefghijklmnopqrst");
        assert!(upstream.is_reusable());
    });
}

#[test]
fn a_dropped_exchange_closes_its_connection_at_every_stage() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        for stage in ["sent", "head", "body", "body end not read"] {
            let (mut upstream, end) = asked(&peer, &pools, Asked::Body).await;
            if stage != "sent" {
                say(&end, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
                upstream.read_head(&patient()).await.expect("a head");
            }
            if stage.starts_with("body") {
                say(&end, if stage == "body" { b"hell" } else { b"hello" }).await;
                assert!(matches!(upstream.next().await, Ok(Piece::Data(_))));
            }
            drop(upstream);
            hear_end(&end).await;
            assert_eq!((counters.open.value(), counters.idle.value()), (0, 0), "{stage}");
        }
    });
}

#[test]
fn finishing_before_the_end_of_the_body_closes_the_connection() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        for (answer, whole) in
            [("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", false), (CONTENT_5, true)]
        {
            let (mut upstream, end) = asked(&peer, &pools, Asked::Body).await;
            assert!(!upstream.is_reusable());
            say(&end, answer.as_bytes()).await;
            upstream.read_head(&patient()).await.expect("a head");
            assert!(!upstream.is_reusable());
            assert!(matches!(upstream.next().await, Ok(Piece::Data(_))));
            assert_eq!(upstream.is_reusable(), whole);
            upstream.finish();
            assert_eq!(counters.idle.value(), u64::from(whole));
        }
    });
}

const CONTENT_5: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_head_that_does_not_come_is_a_timeout() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        for begun in ["", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2"] {
            let (mut upstream, end) = asked(&peer, &pools, Asked::Body).await;
            say(&end, begun.as_bytes()).await;
            let soon = Deadline::unset();
            soon.set(Duration::from_millis(30));
            let error = upstream.read_head(&soon).await.err();
            assert_eq!(error, Some(UpstreamError::Timeout(Timer::ResponseHead)));
            upstream.finish();
            hear_end(&end).await;
        }
        assert_eq!((counters.open.value(), page::rented_pages()), (0, 0));
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_and_missed_is_reported_as_reused() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let (mut upstream, end) = asked(&peer, &pools, Asked::Body).await;
        assert!(!upstream.is_reused());
        say(&end, CONTENT_5.as_bytes()).await;
        assert_eq!(read_answer(&mut upstream).await, Ok((200, "hello".to_owned())));
        upstream.finish();
        assert_eq!(counters.idle.value(), 1);
        let lease = pools.checkout(&peer.origin(Limits::default())).await.expect("the idle one");
        // The peer closes as the request is on its way.
        let mut upstream = Http1Upstream::new(lease, Asked::Body);
        assert_eq!(upstream.send(list(REQUEST), &patient()).await, Ok(Sent::Whole));
        drop(end);
        assert_eq!(upstream.read_head(&patient()).await.err(), Some(UpstreamError::NoAnswer));
        assert!(upstream.is_reused());
    });
}

#[test]
fn a_tunnel_takes_the_connection_over_with_the_bytes_behind_the_head() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let (mut upstream, end) = asked(&peer, &pools, Asked::Upgrade).await;
        let switched = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nframes";
        say(&end, switched).await;
        assert_eq!(upstream.read_head(&patient()).await.expect("a head").status, 101);
        assert!(!upstream.is_reusable());
        let (lease, unread) = upstream.into_tunnel();
        assert_eq!(unread.as_deref(), Some(&b"frames"[..]));
        say(&lease, b"up").await;
        hear(&end, b"up").await;
        drop(lease);
        assert_eq!(counters.open.value(), 0);
    });
}

/// More than any socket buffer on loopback takes, so that the send cannot end before the peer reads.
const LARGE: usize = 16 * 1024 * 1024;

fn large_request() -> SendList {
    let mut list = list(format!("POST / HTTP/1.1\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes());
    let mut page = Page::with_room(LARGE);
    page.append(&vec![b'x'; LARGE]);
    list.push_slice(page.slice(0..LARGE));
    list
}

#[test]
fn an_early_refusal_stops_the_request_and_its_connection_is_not_used_again() {
    on_each_driver(async || {
        for (interim, then) in [("", Stay), ("HTTP/1.1 102 Wait\r\n\r\n", Stay), ("", Reset)] {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let lease = pools.checkout(&peer.origin(Limits::default())).await.expect("a connection");
            let end = peer.accept().await;
            let mut upstream = Http1Upstream::new(lease, Asked::Body);
            say(&end, interim.as_bytes()).await;
            say(&end, b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}").await;
            let end = (then == Stay).then_some(end);
            assert_eq!(upstream.send(large_request(), &patient()).await, Ok(Sent::Answered));
            assert_eq!(read_answer(&mut upstream).await, Ok((413, "{}".to_owned())));
            assert!(!upstream.is_reusable());
            upstream.finish();
            assert_eq!((counters.open.value(), counters.idle.value()), (0, 0));
            drop(end);
        }
    });
}

#[test]
fn a_success_that_begins_early_gets_the_rest_of_the_request() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let lease = pools.checkout(&peer.origin(Limits::default())).await.expect("a connection");
        let end = peer.accept().await;
        let mut upstream = Http1Upstream::new(lease, Asked::Body);
        say(&end, CONTENT_5.as_bytes()).await;
        let heard = Rc::new(Cell::new(0));
        let total = Rc::clone(&heard);
        runtime::spawn(async move {
            loop {
                let mut page = Page::rent();
                match end.recv(&mut page).await {
                    Ok(n) if n > 0 => total.set(total.get() + n),
                    _ => break,
                }
            }
        });
        let whole = large_request().len();
        assert_eq!(upstream.send(large_request(), &patient()).await, Ok(Sent::Whole));
        assert_eq!(read_answer(&mut upstream).await, Ok((200, "hello".to_owned())));
        assert!(!upstream.is_reusable());
        until(|| heard.get() == whole).await;
        upstream.finish();
        assert_eq!(counters.idle.value(), 0);
    });
}

#[test]
fn a_peer_that_reads_nothing_is_a_write_timeout_or_its_early_answer_counts() {
    on_each_driver(async || {
        for (answer, expected) in
            [("", Err(UpstreamError::Timeout(Timer::Write))), (CONTENT_5, Ok(Sent::Answered))]
        {
            let (peer, (pools, _)) = (Peer::listen(), pools());
            let lease = pools.checkout(&peer.origin(Limits::default())).await.expect("a connection");
            let end = peer.accept().await;
            let mut upstream = Http1Upstream::new(lease, Asked::Body);
            say(&end, answer.as_bytes()).await;
            let (request, soon) = (large_request(), Deadline::unset());
            soon.set(Duration::from_millis(60));
            assert_eq!(upstream.send(request, &soon).await, expected);
            if expected.is_ok() {
                assert_eq!(read_answer(&mut upstream).await, Ok((200, "hello".to_owned())));
            }
            assert!(!upstream.is_reusable());
        }
    });
}

#[test]
fn an_answer_between_two_parts_of_the_request_is_noticed() {
    on_each_driver(async || {
        let (peer, (pools, _)) = (Peer::listen(), pools());
        let lease = pools.checkout(&peer.origin(Limits::default())).await.expect("a connection");
        let end = peer.accept().await;
        let mut upstream = Http1Upstream::new(lease, Asked::Body);
        let begun = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(upstream.send(list(begun), &patient()).await, Ok(Sent::Whole));
        hear(&end, begun).await;
        say(&end, b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}").await;
        assert_eq!(upstream.early_answer().await, Ok(()));
        assert_eq!(read_answer(&mut upstream).await, Ok((401, "{}".to_owned())));
        assert!(!upstream.is_reusable());
    });
}

#[test]
fn a_send_of_the_watched_size_and_one_byte_less_arrive_whole() {
    on_each_driver(async || {
        for size in [WATCHED_FROM, WATCHED_FROM + 1] {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let lease = pools.checkout(&peer.origin(Limits::default())).await.expect("a connection");
            let end = peer.accept().await;
            let request = vec![b'x'; size];
            let mut upstream = Http1Upstream::new(lease, Asked::Body);
            assert_eq!(upstream.send(list(&request), &patient()).await, Ok(Sent::Whole));
            hear(&end, &request).await;
            say(&end, CONTENT_5.as_bytes()).await;
            assert_eq!(read_answer(&mut upstream).await, Ok((200, "hello".to_owned())));
            upstream.finish();
            assert_eq!(counters.idle.value(), 1);
        }
    });
}

#[test]
fn the_peers_keep_alive_time_bounds_how_long_its_connection_is_kept() {
    for (value, seconds) in [
        ("timeout=5, max=1000", Some(4)),
        ("max=9,Timeout=60", Some(59)),
        ("timeout=1", Some(0)),
        ("timeout=0", Some(0)),
        ("max=5", None),
        ("timeout=-1", None),
        ("timeout=99999999999", None),
        ("", None),
    ] {
        let expected = seconds.map_or(Duration::MAX, Duration::from_secs);
        assert_eq!(kept_for(value.as_bytes()), expected, "{value}");
    }
}

fn chunked(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

/// Every stream that waits pays for the state of these futures, whichever it waits in.
/// An open stream may have 4 KB in all. What waits for its events for hours, the exchange and `next`, gets a
/// sixteenth each. The others are over by then, but their states share the memory of the task that waits, whose
/// size is the largest of them: an eighth. Not closer to what they are today: a size says what was compiled
/// (profile, compiler, futures of the runtime), and one that is well below its bound costs nothing.
#[test]
fn the_futures_of_an_exchange_stay_small() {
    let sizes = Simulation::new(1, Faults::none()).run(async {
        let (peer, (pools, _)) = (Peer::listen(), pools());
        let (mut upstream, _end) = asked(&peer, &pools, Asked::Body).await;
        let (deadline, origin) = (patient(), peer.origin(Limits::default()));
        let next = size_of_val(&upstream.next());
        let read_head = size_of_val(&upstream.read_head(&deadline));
        let send = size_of_val(&upstream.send(SendList::new(), &deadline));
        let checkout = size_of_val(&pools.checkout(&origin));
        [
            ("Http1Upstream", size_of_val(&upstream), 256),
            ("next", next, 256),
            ("read_head", read_head, 512),
            ("send", send, 512),
            ("checkout", checkout, 512),
        ]
    });
    for (name, size, most) in sizes.finished() {
        eprintln!("{name}: {size} bytes");
        assert!(size <= most, "{name}: {size} bytes, at most {most}");
    }
}

#[test]
fn an_event_is_received_without_an_allocation() {
    on_kernel_drivers(async || {
        let (peer, (pools, _)) = (Peer::listen(), pools());
        let (mut upstream, end) = asked(&peer, &pools, Asked::Body).await;
        say(&end, chunked("").as_bytes()).await;
        drop(upstream.read_head(&patient()).await.expect("a head"));
        let event = b"21\r\ndata: {\"choices\":[{\"index\":0}]}\n\n\r\n";
        let mut before = 0;
        for n in 0..200 {
            // The first ones fill the thread's pools.
            if n == 20 {
                before = allocations::count();
            }
            say(&end, event).await;
            let Ok(Piece::Data(slice)) = upstream.next().await else { panic!("no event") };
            assert_eq!(slice.len(), 0x21);
        }
        assert!(before > 0, "nothing is counted");
        assert_eq!(allocations::count() - before, 0, "allocations in 180 events");
    });
}
