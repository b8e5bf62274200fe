//! Connections over the simulated network and over both kernel drivers, both sides ours.

use super::authority::Authority;
use super::network::{
    connected, on_kernel_drivers, read, read_end, send, shake, simulated, streams, together,
};
use crate::base::rng;
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::memory::{Faults, Flow, Link, Simulation, each_seed};
use crate::net::page::{Page, rented_pages};
use crate::net::race::{First, race};
use crate::net::runtime;
use crate::net::send::SendList;
use crate::net::stream::Received;
use crate::net::tls::{self, AcceptError, ClientSide, Kind, ServerSide, TlsError};
use std::time::Duration;

fn some_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 251) as u8).collect()
}

/// The server sends back what it gets, in parts of its own choosing, until the client has said goodbye.
async fn echo(conn: Conn) {
    loop {
        let mut page = Page::with_room(1 + rng::below(20_000) as usize);
        match conn.recv(&mut page).await.expect("bytes or the end") {
            0 => break,
            n => {
                let mut list = SendList::new();
                let cut = rng::below(n as u64) as usize;
                list.push_copy(&page.bytes()[..cut]);
                list.push_slice(page.slice(cut..n));
                conn.send(list).await.expect("sent");
            }
        }
    }
    conn.shutdown().await;
}

async fn converse(client: ClientSide, server: ServerSide, sizes: &[u64]) {
    let (client, server) = shake(client, server).await;
    let (client, server) = (client.expect("a connection"), server.ok().expect("a connection"));
    runtime::spawn(echo(server));
    for size in sizes {
        let bytes = some_bytes(1 + rng::below(*size) as usize);
        // The answer must be read while the question is sent: both may be larger than what the network holds.
        let (sent, back) = join(send(&client, &bytes), read(&client, bytes.len())).await;
        sent.expect("sent");
        assert!(back.expect("an answer") == bytes, "{} bytes", bytes.len());
    }
    client.shutdown().await;
    assert_eq!(read_end(&client).await.expect("the closing alert"), Received::End);
}

/// Both outputs, in one task.
async fn join<A: Future, B: Future>(one: A, two: B) -> (A::Output, B::Output) {
    use std::task::Poll;
    let (mut one, mut two) = (std::pin::pin!(one), std::pin::pin!(two));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = two.as_mut().poll(cx)
        {
            second = Some(output);
        }
        if first.is_some() && second.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (first.expect("ready"), second.expect("ready"))
}

#[test]
fn a_conversation_survives_every_delay_and_cut() {
    let authority = Authority::new();
    let (client, server) = (authority.client_side(&[]), authority.server_side(&[]));
    each_seed(0..60, |seed| {
        let conversation = converse(client.clone(), server.clone(), &[1, 150, 3_000]);
        Simulation::new(seed, Faults::harmless(seed)).run(conversation).finished();
    });
}

#[test]
fn a_conversation_runs_on_the_drivers_of_the_kernel() {
    let authority = Authority::new();
    on_kernel_drivers(|| async {
        for _ in 0..5 {
            converse(authority.client_side(&[]), authority.server_side(&[]), &[1, 150, 16_384, 200_000])
                .await;
        }
        assert_eq!(rented_pages(), 0);
    });
}

#[test]
fn an_end_is_reported_only_where_everything_came() {
    let authority = Authority::new();
    let (client, server) = (authority.client_side(&[]), authority.server_side(&[]));
    let (mut ended, mut failed) = (0, 0);
    each_seed(0..120, |seed| {
        let (client, server) = (client.clone(), server.clone());
        let outcome = Simulation::new(seed, Faults::random(seed)).run(async move {
            let deadline = Deadline::unset();
            deadline.set(Duration::from_secs(60));
            deadline.bound(one_answer(client, server)).await
        });
        match outcome.finished() {
            Ok(true) => ended += 1,
            Ok(false) | Err(_) => failed += 1,
        }
    });
    assert!(ended > 20 && failed > 10, "{ended} ended, {failed} failed: the faults are not what they were");
}

/// Whether the client saw the end of an answer; what it read must then be all of it, and else a part.
async fn one_answer(client: ClientSide, server: ServerSide) -> bool {
    use crate::net::stream;
    let answer = some_bytes(1 + rng::below(60_000) as usize);
    let sent = answer.clone();
    let (listener, address) = super::network::listen();
    runtime::spawn(async move {
        let Ok(accepted) = listener.accept().await else { return };
        let Ok(conn) = tls::accept(accepted.stream, &server).await else { return };
        if send(&conn, &sent).await.is_ok() {
            conn.shutdown().await;
            // Not closed before the client has read it: a close with unread bytes is a reset.
            let _ = read_end(&conn).await;
        }
    });
    let Ok(stream) = stream::connect(address).await else { return false };
    let name = tls::server_name(super::authority::NAME).expect("a name");
    let Ok(conn) = tls::connect(stream, &client, &name).await else { return false };
    let mut received = Vec::new();
    loop {
        let mut page = Page::rent();
        match conn.recv(&mut page).await {
            Ok(0) => {
                assert!(received == answer, "an end after {} of {} bytes", received.len(), answer.len());
                conn.shutdown().await;
                return true;
            }
            Ok(_) => {
                received.extend_from_slice(page.bytes());
                assert!(answer.starts_with(&received));
            }
            Err(_) => return false,
        }
    }
}

#[test]
fn a_stream_that_ends_without_the_closing_alert_is_an_error() {
    let authority = Authority::new();
    simulated(async {
        let (client, server) = connected(&authority).await;
        send(&server, b"half an ans").await.expect("sent");
        drop(server);
        assert_eq!(read(&client, 11).await.expect("what was sent"), b"half an ans");
        for _ in 0..2 {
            let error = read_end(&client).await.expect_err("no end");
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
            assert_eq!(TlsError::in_io(&error).map(|error| error.kind), Some(Kind::Truncated));
        }
    });
}

#[test]
fn after_the_closing_alert_the_other_direction_goes_on() {
    let authority = Authority::new();
    simulated(async {
        let (client, server) = connected(&authority).await;
        client.shutdown().await;
        assert_eq!(read_end(&server).await.expect("the closing alert"), Received::End);
        assert_eq!(server.try_peek().expect("still the end"), Received::End);
        send(&server, b"late answer").await.expect("sent");
        assert_eq!(read(&client, 11).await.expect("the answer"), b"late answer");
        let error = send(&client, b"more").await.expect_err("said goodbye");
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_wait_that_is_dropped_loses_nothing() {
    let authority = Authority::new();
    let (client, server) = (authority.client_side(&[]), authority.server_side(&[]));
    each_seed(0..20, |seed| {
        let (client, server) = (client.clone(), server.clone());
        let main = async move {
            let (client, server) = shake(client, server).await;
            let (client, server) = (client.expect("a connection"), server.ok().expect("a connection"));
            let bytes = some_bytes(5_000);
            let sent = bytes.clone();
            runtime::spawn(async move {
                for part in sent.chunks(197) {
                    send(&server, part).await.expect("sent");
                    runtime::sleep(Duration::from_micros(rng::below(3_000))).await;
                }
                server.shutdown().await;
            });
            let mut received = Vec::new();
            loop {
                let wait = Duration::from_micros(rng::below(2_000));
                if let First::Two(()) = race(client.readable(), runtime::sleep(wait)).await {
                    continue;
                }
                let mut page = Page::with_room(1 + rng::below(3_000) as usize);
                match client.try_recv(&mut page).expect("bytes or the end") {
                    Received::Bytes(_) => received.extend_from_slice(page.bytes()),
                    Received::Nothing => {}
                    Received::End => break,
                }
            }
            assert!(received == bytes);
        };
        Simulation::new(seed, Faults::harmless(seed)).run(main).finished();
    });
}

#[test]
fn a_wait_ends_at_once_where_plaintext_is_at_hand() {
    let authority = Authority::new();
    simulated(async {
        let (client, server) = connected(&authority).await;
        send(&server, b"abcdef").await.expect("sent");
        let mut small = Page::with_room(2);
        client.readable().await.expect("readable");
        assert_eq!(client.try_recv(&mut small).expect("bytes"), Received::Bytes(2));
        // Nothing more is in the socket: only what was decrypted before.
        client.readable().await.expect("readable");
        assert_eq!(client.try_peek().expect("bytes"), Received::Bytes(4));
        assert_eq!(read(&client, 4).await.expect("bytes"), b"cdef");
        assert_eq!(client.try_peek().expect("open"), Received::Nothing);
    });
}

#[test]
fn an_idle_connection_holds_no_page_and_a_small_rest_no_pooled_one() {
    let authority = Authority::new();
    simulated(async {
        let (client, server) = connected(&authority).await;
        for size in [150, 20_000, 100_000] {
            let bytes = some_bytes(size);
            let (sent, got) = join(send(&client, &bytes), read(&server, size)).await;
            sent.expect("sent");
            assert!(got.expect("bytes") == bytes);
            assert_eq!(rented_pages(), 0, "after {size} bytes");
        }
        send(&client, b"unread").await.expect("sent");
        server.readable().await.expect("readable");
        assert_eq!(server.try_peek().expect("bytes"), Received::Bytes(6));
        assert_eq!(rented_pages(), 0);
        drop(client);
    });
}

#[test]
fn a_handshake_comes_byte_by_byte() {
    let authority = Authority::new();
    let (client, server) = (authority.client_side(&[]), authority.server_side(&[]));
    let slow = || Flow { read_max: Some(1), write_max: Some(1), ..Flow::default() };
    let faults =
        Faults::none().links(move |_| Link { to_server: slow(), to_client: slow(), ..Link::default() });
    Simulation::new(7, faults).run(converse(client, server, &[1, 150])).finished();
}

#[test]
fn a_client_that_stalls_in_its_handshake_costs_no_page_and_can_be_dropped() {
    let authority = Authority::new();
    let server = authority.server_side(&[]);
    simulated(async {
        let (near, far) = streams().await;
        let mut list = SendList::new();
        list.push_copy(&[22, 3, 1, 2, 0, 1, 0]);
        near.send(list).await.expect("sent");
        let deadline = Deadline::unset();
        deadline.set(Duration::from_secs(10));
        assert!(deadline.bound(tls::accept(far, &server)).await.is_err(), "it waits");
        assert_eq!(rented_pages(), 0);
    });
}

#[test]
fn http_without_tls_is_recognised_and_can_be_answered() {
    let authority = Authority::new();
    let server = authority.server_side(&[]);
    simulated(async {
        let (near, far) = streams().await;
        let asked = async move {
            let near = Conn::Plain(near);
            send(&near, b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
            read(&near, 12).await.expect("an answer")
        };
        let (answered, answer) = together(
            async move {
                match tls::accept(far, &server).await {
                    Err(AcceptError::PlainHttp(conn)) => send(&conn, b"HTTP/1.1 400").await.is_ok(),
                    _ => false,
                }
            },
            asked,
        )
        .await;
        assert!(answered);
        assert_eq!(answer, b"HTTP/1.1 400");
    });
}

#[test]
fn futures_of_a_connection_stay_small() {
    let authority = Authority::new();
    let (client_side, server_side) = (authority.client_side(&[]), authority.server_side(&[]));
    simulated(async {
        let (client, _server) = connected(&authority).await;
        let (near, far) = streams().await;
        let name = tls::server_name(super::authority::NAME).expect("a name");
        let mut page = Page::with_room(1);
        // A task holds them for as long as its connection lives.
        for (name, size, most) in [
            ("send", size_of_val(&client.send(SendList::new())), 400),
            ("recv", size_of_val(&client.recv(&mut page)), 400),
            ("readable", size_of_val(&client.readable()), 400),
            ("shutdown", size_of_val(&client.shutdown()), 400),
            ("accept", size_of_val(&tls::accept(near, &server_side)), 1280),
            ("connect", size_of_val(&tls::connect(far, &client_side, &name)), 1280),
        ] {
            assert!(size <= most, "{name}: {size} bytes");
        }
    });
}
