//! The order of addresses, and TLS to a scripted peer, through a proxy too.

use super::super::stage::{Peer, hear, join, on_each_driver, origin_with, pause, pools, say};
use super::{ATTEMPTS_MAX, AVOIDED_FOR, AVOIDED_MAX, Order};
use crate::base::clock::Instant;
use crate::base::error::Timer;
use crate::codec::http1::Asked;
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::resolve::Addresses;
use crate::net::send::SendList;
use crate::net::tls::tests::authority::{Authority, NAME};
use crate::net::tls::{self, ClientSide, ServerSide, server_name};
use crate::net::upstream::{Http1Upstream, Piece, Proxy, Sent, Settings, Tls, UpstreamError, Which};
use std::net::SocketAddr;

fn addresses(count: u16) -> Vec<SocketAddr> {
    (1..=count).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect()
}

fn ports(attempts: impl IntoIterator<Item = SocketAddr>) -> Vec<u16> {
    attempts.into_iter().map(|address| address.port()).collect()
}

#[test]
fn connections_take_the_addresses_in_turn() {
    let (order, list) = (Order::default(), addresses(3));
    let firsts: Vec<u16> = (0..4).map(|_| ports(order.attempts(&list, Instant(0)))[0]).collect();
    assert_eq!(firsts, [1, 2, 3, 1]);
    assert!(order.attempts(&[], Instant(0)).is_empty());
}

#[test]
fn an_address_that_failed_comes_last_until_its_time_is_over_or_it_works() {
    let (order, list) = (Order::default(), addresses(2));
    order.failed(list[0], Instant(0));
    let over = Instant(0) + AVOIDED_FOR;
    for _ in 0..2 {
        assert_eq!(ports(order.attempts(&list, Instant(over.0 - 1))), [2, 1]);
    }
    assert_eq!(ports(order.attempts(&list, over)), [1, 2]);
    order.failed(list[1], over);
    order.worked(list[1]);
    assert_eq!(ports(order.attempts(&list, over)), [2, 1]);
}

#[test]
fn no_more_than_the_stated_number_of_addresses_is_tried_or_remembered() {
    let (order, list) = (Order::default(), addresses(40));
    assert_eq!(order.attempts(&list, Instant(0)).len(), ATTEMPTS_MAX);
    for address in &list {
        order.failed(*address, Instant(0));
    }
    assert_eq!(order.avoided.borrow().len(), AVOIDED_MAX);
}

/// The settings of an origin at `peer` that speaks TLS with `side`.
fn over_tls(peer: &Peer, side: ClientSide) -> impl FnOnce(Settings) -> Settings {
    let addresses = Addresses::known([peer.address]);
    let tls = Some(Tls { side, name: server_name(NAME).expect("a name"), settings_digest: [0; 32] });
    |settings| Settings { host: NAME.to_owned(), addresses, tls, ..settings }
}

async fn accept(peer: &Peer, side: &ServerSide) -> Option<Conn> {
    let Conn::Plain(stream) = peer.accept().await else { return None };
    tls::accept(stream, side).await.ok()
}

#[test]
fn a_tls_connection_carries_exchanges_and_is_used_again_until_the_peer_says_goodbye() {
    let authority = Authority::new();
    let (server_side, client_side) = (authority.server_side(&[]), authority.client_side(&[]));
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = origin_with(over_tls(&peer, client_side.clone()));
        let (lease, end) = join(pools.checkout(&origin), accept(&peer, &server_side)).await;
        let (mut lease, end) = (lease.expect("a connection"), end.expect("a handshake"));
        for n in 0..3 {
            assert_eq!(lease.reused, n > 0);
            let mut upstream = Http1Upstream::new(lease, Asked::Body);
            let deadline = Deadline::unset();
            let mut request = SendList::new();
            request.push_static(b"GET / HTTP/1.1\r\n\r\n");
            assert_eq!(upstream.send(request, &deadline).await, Ok(Sent::Whole));
            hear(&end, b"GET / HTTP/1.1\r\n\r\n").await;
            say(&end, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
            upstream.read_head(&deadline).await.expect("a head");
            let Ok(Piece::Data(body)) = upstream.next().await else { panic!("no body") };
            assert_eq!(&*body, b"hello");
            // Tickets and the like that arrive on an idle connection are no unasked answer.
            upstream.finish();
            assert_eq!(counters.idle.value(), 1);
            pause().await;
            lease = pools.checkout(&origin).await.expect("the idle one");
        }
        lease.give_back();
        end.shutdown().await;
        pause().await;
        pools.sweep();
        assert_eq!((counters.stale.value(), counters.open.value(), counters.opened.value()), (1, 0, 1));
    });
}

#[test]
fn a_body_that_ends_with_the_connection_is_whole_only_after_a_goodbye() {
    let authority = Authority::new();
    let (server_side, client_side) = (authority.server_side(&[]), authority.client_side(&[]));
    on_each_driver(async || {
        for says_goodbye in [true, false] {
            let (peer, (pools, _)) = (Peer::listen(), pools());
            let origin = origin_with(over_tls(&peer, client_side.clone()));
            let (lease, end) = join(pools.checkout(&origin), accept(&peer, &server_side)).await;
            let (lease, end) = (lease.expect("a connection"), end.expect("a handshake"));
            let mut upstream = Http1Upstream::new(lease, Asked::Body);
            say(&end, b"HTTP/1.1 200 OK\r\n\r\nhello").await;
            if says_goodbye {
                end.shutdown().await;
            }
            drop(end);
            upstream.read_head(&Deadline::unset()).await.expect("a head");
            assert!(matches!(upstream.next().await, Ok(Piece::Data(_))));
            match upstream.next().await {
                Ok(Piece::End) => assert!(says_goodbye, "a cut was taken for an end"),
                Ok(Piece::Data(_)) => panic!("more data"),
                Err(error) => assert_eq!((error, says_goodbye), (UpstreamError::BodyCut, false)),
            }
            assert!(!upstream.is_reusable());
        }
    });
}

#[test]
fn a_certificate_that_is_not_trusted_or_for_another_name_is_a_tls_failure() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server_side = authority.server_side(&[]);
    let other_name = tls::server_name("other.test").expect("a name");
    on_each_driver(async || {
        for (side, name, message) in [
            (stranger.client_side(&[]), None, "the TLS handshake failed: unknown_issuer"),
            (authority.client_side(&[]), Some(&other_name), "the TLS handshake failed: name_mismatch"),
        ] {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let origin = origin_with(|settings| {
                let mut settings = over_tls(&peer, side)(settings);
                if let (Some(name), Some(tls)) = (name, &mut settings.tls) {
                    tls.name = name.clone();
                }
                settings
            });
            let (lease, end) = join(pools.checkout(&origin), accept(&peer, &server_side)).await;
            let failure = lease.err().expect("no connection");
            assert_eq!((failure.which, &*failure.message), (Which::Tls, message));
            assert_eq!(failure.address, Some(peer.address));
            assert!(failure.cause.is_some());
            assert!(end.is_none());
            assert_eq!((counters.open.value(), counters.failed.value()), (0, 1));
        }
    });
}

#[test]
fn a_handshake_that_does_not_come_is_a_timeout_of_its_own() {
    let client_side = Authority::new().client_side(&[]);
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = origin_with(over_tls(&peer, client_side.clone()));
        let (lease, _silent) = join(pools.checkout(&origin), peer.accept()).await;
        let failure = lease.err().expect("no connection");
        assert_eq!(failure.which, Which::Timeout(Timer::TlsHandshake));
        assert_eq!(failure.message, "no TLS handshake within 200 ms (tls_handshake_ms)");
        assert_eq!(counters.open.value(), 0);
    });
}

#[test]
fn tls_goes_through_a_proxys_tunnel() {
    let authority = Authority::new();
    let (server_side, client_side) = (authority.server_side(&[]), authority.client_side(&[]));
    on_each_driver(async || {
        let (peer, (pools, _)) = (Peer::listen(), pools());
        let proxy = Proxy {
            host: "proxy.test".to_owned(),
            port: 3128,
            addresses: Addresses::known([peer.address]),
            credential: None,
        };
        let side = client_side.clone();
        let origin = origin_with(|settings| {
            let settings = over_tls(&peer, side)(settings);
            Settings { port: 443, addresses: Addresses::pending(), proxy: Some(proxy), ..settings }
        });
        let server = async {
            let end = peer.accept().await;
            hear(&end, b"CONNECT upstream.test:443 HTTP/1.1\r\nhost: upstream.test:443\r\n\r\n").await;
            say(&end, b"HTTP/1.1 200 OK\r\n\r\n").await;
            let Conn::Plain(stream) = end else { return None };
            tls::accept(stream, &server_side).await.ok()
        };
        let (lease, end) = join(pools.checkout(&origin), server).await;
        let (lease, end) = (lease.expect("a connection"), end.expect("a handshake"));
        say(&lease, b"ping").await;
        hear(&end, b"ping").await;
    });
}
