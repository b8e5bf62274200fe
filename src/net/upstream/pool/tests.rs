//! The pool against a scripted peer.

use super::super::stage::{
    self, Peer, hear, hear_end, join, on_each_driver, on_kernel_drivers, origin_at, pause, pools, say, until,
};
use super::{Counters, Lease, Pools};
use crate::base::error::Timer;
use crate::net::conn::Conn;
use crate::net::resolve::Addresses;
use crate::net::runtime;
use crate::net::upstream::{ConnectFailure, Limits, Origin, Settings, Which};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A connection and the peer's end of it.
async fn pair(pools: &Pools, origin: &Arc<Origin>, peer: &Peer) -> (Lease, Conn) {
    let lease = pools.checkout(origin).await.expect("a connection");
    (lease, peer.accept().await)
}

/// Which peer's end a lease leads to: sends a word and sees where it comes out.
async fn leads_to(lease: &Lease, peer_end: &Conn) {
    say(lease, b"ping").await;
    hear(peer_end, b"ping").await;
}

fn failed(result: Result<Lease, ConnectFailure>) -> ConnectFailure {
    result.err().expect("no connection")
}

/// Starts a checkout that writes `name` to `served` when it gets its connection, and gives that back.
fn queue_up(
    pools: &Rc<Pools>,
    origin: &Arc<Origin>,
    name: &'static str,
    served: &Rc<RefCell<Vec<&'static str>>>,
) {
    let (pools, origin, served) = (Rc::clone(pools), Arc::clone(origin), Rc::clone(served));
    runtime::spawn(async move {
        let lease = pools.checkout(&origin).await.expect("a connection in its turn");
        served.borrow_mut().push(name);
        lease.give_back();
    });
}

fn nothing_is_left_open(counters: &Counters) {
    assert_eq!(counters.open.value(), 0, "open");
    assert_eq!(counters.waiting.value(), 0, "waiting");
    assert_eq!(counters.idle.value(), 0, "idle");
    assert_eq!(counters.opened.value(), counters.closed.value(), "opened and closed");
}

#[test]
fn the_connection_that_was_used_last_is_used_next() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits::default());
        let (one, _one_end) = pair(&pools, &origin, &peer).await;
        let (two, two_end) = pair(&pools, &origin, &peer).await;
        assert!(!one.reused && !two.reused);
        one.give_back();
        two.give_back();
        let again = pools.checkout(&origin).await.expect("an idle one");
        assert!(again.reused);
        leads_to(&again, &two_end).await;
        assert_eq!((counters.opened.value(), counters.reused.value(), counters.idle.value()), (2, 1, 1));
    });
}

#[test]
fn a_dropped_lease_closes_its_connection() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits::default());
        let (lease, end) = pair(&pools, &origin, &peer).await;
        drop(lease);
        hear_end(&end).await;
        nothing_is_left_open(&counters);
        let (next, next_end) = pair(&pools, &origin, &peer).await;
        // The answer to the dropped exchange comes late, on its own connection.
        let _ = end;
        assert!(!next.reused);
        leads_to(&next, &next_end).await;
    });
}

#[test]
fn an_idle_connection_that_ended_or_spoke_is_not_used_again() {
    on_each_driver(async || {
        for last_words in [None, Some(b"HTTP/1.1 200 OK\r\n")] {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let origin = peer.origin(Limits::default());
            let (good, good_end) = pair(&pools, &origin, &peer).await;
            let (stale, stale_end) = pair(&pools, &origin, &peer).await;
            good.give_back();
            stale.give_back();
            match last_words {
                Some(words) => say(&stale_end, words).await,
                None => drop(stale_end),
            }
            pause().await;
            let lease = pools.checkout(&origin).await.expect("the good one");
            assert!(lease.reused);
            leads_to(&lease, &good_end).await;
            assert_eq!((counters.stale.value(), counters.open.value(), counters.idle.value()), (1, 1, 0));
        }
    });
}

#[test]
fn where_every_idle_connection_is_stale_a_new_one_is_opened() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits { connections_max: 2, ..Limits::default() });
        let (one, one_end) = pair(&pools, &origin, &peer).await;
        let (two, two_end) = pair(&pools, &origin, &peer).await;
        one.give_back();
        two.give_back();
        drop((one_end, two_end));
        pause().await;
        let (fresh, end) = pair(&pools, &origin, &peer).await;
        assert!(!fresh.reused);
        leads_to(&fresh, &end).await;
        assert_eq!((counters.stale.value(), counters.open.value()), (2, 1));
    });
}

#[test]
fn a_new_connection_is_opened_beside_idle_ones_and_in_the_place_of_one_where_there_is_no_room() {
    on_each_driver(async || {
        for connections_max in [2, 1] {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let origin = peer.origin(Limits { connections_max, ..Limits::default() });
            let (lease, _idle_end) = pair(&pools, &origin, &peer).await;
            lease.give_back();
            let fresh = pools.checkout_new(&origin).await.expect("a new one");
            assert!(!fresh.reused);
            leads_to(&fresh, &peer.accept().await).await;
            assert_eq!(counters.open.value(), connections_max as u64);
            assert_eq!((counters.opened.value(), counters.reused.value()), (2, 0));
            // In the queue, what comes back is closed for it too.
            let other = pools.checkout(&origin).await;
            let waiting = pools.checkout_new(&origin);
            let (waiting, ()) = join(waiting, async { fresh.give_back() }).await;
            assert!(!waiting.expect("another new one").reused);
            assert_eq!((counters.opened.value(), counters.reused.value()), (3, connections_max as u64 - 1));
            drop(other);
        }
    });
}

#[test]
fn who_waits_is_served_in_order_and_one_more_than_may_wait_is_refused() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits { connections_max: 1, queue_max: 3, ..Limits::default() });
        let (lease, _end) = pair(&pools, &origin, &peer).await;
        let served = Rc::default();
        for (n, name) in ["first", "second", "third"].into_iter().enumerate() {
            queue_up(&pools, &origin, name, &served);
            until(|| counters.waiting.value() == n as u64 + 1).await;
        }
        let refused = failed(pools.checkout(&origin).await);
        assert_eq!(refused.which, Which::QueueFull);
        assert_eq!(refused.message, "all 1 connections are busy and 3 exchanges wait already");
        lease.give_back();
        until(|| served.borrow().len() == 3).await;
        assert_eq!(*served.borrow(), ["first", "second", "third"]);
        assert_eq!((counters.opened.value(), counters.open.value(), counters.idle.value()), (1, 1, 1));
        assert_eq!(
            (counters.queued.value(), counters.queue_full.value(), counters.waiting.value()),
            (3, 1, 0)
        );
    });
}

#[test]
fn a_waiter_opens_its_own_connection_where_the_one_before_it_was_closed() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits { connections_max: 1, ..Limits::default() });
        let (lease, _end) = pair(&pools, &origin, &peer).await;
        let served = Rc::default();
        queue_up(&pools, &origin, "waiter", &served);
        until(|| counters.waiting.value() == 1).await;
        drop(lease);
        until(|| served.borrow().len() == 1).await;
        assert_eq!((counters.opened.value(), counters.open.value(), counters.closed.value()), (2, 1, 1));
    });
}

#[test]
fn a_waiter_whose_connection_turned_out_stale_opens_another_in_its_place() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits { connections_max: 1, queue_max: 1, ..Limits::default() });
        let (lease, end) = pair(&pools, &origin, &peer).await;
        let served = Rc::default();
        queue_up(&pools, &origin, "waiter", &served);
        until(|| counters.waiting.value() == 1).await;
        drop(end);
        pause().await;
        lease.give_back();
        until(|| served.borrow().len() == 1).await;
        assert_eq!((counters.stale.value(), counters.opened.value(), counters.open.value()), (1, 2, 1));
    });
}

#[test]
fn waiting_ends_after_its_time() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let queue_timeout = Duration::from_millis(40);
        let origin = peer.origin(Limits { connections_max: 1, queue_timeout, ..Limits::default() });
        let (lease, _end) = pair(&pools, &origin, &peer).await;
        let late = failed(pools.checkout(&origin).await);
        assert_eq!(
            (late.which, &*late.message),
            (Which::QueueTimeout, "no connection came free within 40 ms (queue_ms)")
        );
        assert_eq!((counters.queue_timeouts.value(), counters.waiting.value()), (1, 0));
        lease.give_back();
        assert_eq!((counters.open.value(), counters.idle.value()), (1, 1));
    });
}

/// The waiter in front is dropped before its turn, in its turn with a connection, in its turn with a right to
/// open one.
#[test]
fn a_waiter_that_is_dropped_passes_its_turn_on() {
    on_each_driver(async || {
        for moment in ["before", "with a connection", "with a right"] {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let origin = peer.origin(Limits { connections_max: 1, ..Limits::default() });
            let (lease, _end) = pair(&pools, &origin, &peer).await;
            let mut leaving = Box::pin(pools.checkout(&origin));
            assert!(poll_once(leaving.as_mut()).await.is_none());
            let served = Rc::default();
            queue_up(&pools, &origin, "next", &served);
            until(|| counters.waiting.value() == 2).await;
            match moment {
                "before" => {
                    drop(leaving);
                    lease.give_back();
                }
                "with a connection" => {
                    lease.give_back();
                    drop(leaving);
                }
                _ => {
                    drop(lease);
                    drop(leaving);
                }
            }
            until(|| served.borrow().len() == 1).await;
            assert_eq!((counters.open.value(), counters.waiting.value()), (1, 0), "{moment}");
        }
    });
}

#[test]
fn a_waiter_that_is_dropped_while_it_connects_frees_its_place() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits { connections_max: 1, ..Limits::default() });
        let mut connecting = Box::pin(pools.checkout(&origin));
        // In memory it may be connected at once.
        let connected = poll_once(connecting.as_mut()).await;
        assert_eq!(counters.open.value(), 1);
        drop((connecting, connected));
        nothing_is_left_open(&counters);
        let (_lease, _abandoned) = pair(&pools, &origin, &peer).await;
    });
}

#[test]
fn a_raised_limit_lets_waiters_go_at_once_and_a_lowered_one_closes_what_comes_back() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let with = |connections_max| peer.origin(Limits { connections_max, ..Limits::default() });
        let (lease, _end) = pair(&pools, &with(1), &peer).await;
        let served = Rc::default();
        queue_up(&pools, &with(1), "waiter", &served);
        until(|| counters.waiting.value() == 1).await;
        let (third, _third_end) = (pools.checkout(&with(3)).await.expect("room"), ());
        until(|| served.borrow().len() == 1).await;
        assert_eq!(counters.open.value(), 3);
        // Two are leased and one is idle; the limit falls to one.
        let idle = pools.checkout(&with(1)).await.expect("the idle one");
        idle.give_back();
        third.give_back();
        assert_eq!((counters.open.value(), counters.idle.value()), (1, 0));
        lease.give_back();
        assert_eq!((counters.open.value(), counters.idle.value()), (1, 1));
    });
}

#[test]
fn as_many_idle_connections_as_allowed_are_kept_and_one_more_is_closed() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits { idle_max: 2, ..Limits::default() });
        let mut leases = Vec::new();
        for _ in 0..3 {
            leases.push(pair(&pools, &origin, &peer).await);
        }
        let mut ends = Vec::new();
        for (lease, end) in leases {
            lease.give_back();
            ends.push(end);
        }
        assert_eq!((counters.open.value(), counters.idle.value(), counters.closed.value()), (2, 2, 1));
        hear_end(&ends[2]).await;
        assert!(stage::is_quiet(&ends[0]) && stage::is_quiet(&ends[1]));
    });
}

#[test]
fn a_sweep_closes_what_was_idle_for_too_long_or_ended() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits { idle_timeout: Duration::from_secs(600), ..Limits::default() });
        let (kept, kept_end) = pair(&pools, &origin, &peer).await;
        let (old, old_end) = pair(&pools, &origin, &peer).await;
        let (ended, ended_end) = pair(&pools, &origin, &peer).await;
        kept.give_back();
        old.give_back_for(Duration::from_millis(5));
        ended.give_back();
        drop(ended_end);
        pause().await;
        pools.sweep();
        hear_end(&old_end).await;
        assert!(stage::is_quiet(&kept_end));
        assert_eq!((counters.expired.value(), counters.stale.value(), counters.idle.value()), (1, 1, 1));
        assert_eq!((counters.open.value(), counters.closed.value()), (1, 2));
    });
}

#[test]
fn an_origin_that_no_snapshot_names_keeps_nothing_idle_and_still_serves() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits::default());
        let (idle, idle_end) = pair(&pools, &origin, &peer).await;
        let (busy, busy_end) = pair(&pools, &origin, &peer).await;
        idle.give_back();
        pools.keep_only(&[origin.id]);
        assert_eq!(counters.idle.value(), 1);
        pools.keep_only(&[]);
        hear_end(&idle_end).await;
        leads_to(&busy, &busy_end).await;
        let (other, other_end) = pair(&pools, &origin, &peer).await;
        busy.give_back();
        other.give_back();
        hear_end(&busy_end).await;
        hear_end(&other_end).await;
        nothing_is_left_open(&counters);
        pools.sweep();
        assert!(pools.by_origin.borrow().is_empty());
    });
}

#[test]
fn draining_closes_idle_connections_and_those_that_come_back() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let origin = peer.origin(Limits::default());
        let (idle, idle_end) = pair(&pools, &origin, &peer).await;
        let (busy, busy_end) = pair(&pools, &origin, &peer).await;
        idle.give_back();
        pools.drain();
        hear_end(&idle_end).await;
        // A reload that comes during the drain changes nothing.
        pools.keep_only(&[origin.id]);
        leads_to(&busy, &busy_end).await;
        busy.give_back();
        hear_end(&busy_end).await;
        let (_late, _) = pair(&pools, &origin, &peer).await;
        assert_eq!(counters.open.value(), 1);
    });
}

#[test]
fn a_refused_connection_is_reported_and_its_place_goes_to_the_next() {
    on_each_driver(async || {
        let (pools, counters) = pools();
        // A port that was free a moment ago.
        let address = Peer::listen().address;
        let origin = origin_at(&[address], Limits { connections_max: 1, ..Limits::default() });
        for _ in 0..3 {
            let failure = failed(pools.checkout(&origin).await);
            assert_eq!((failure.which, failure.address), (Which::Refused, Some(address)));
            assert!(!failure.to_string().contains("127.0.0.1"), "{failure}");
        }
        assert_eq!(counters.failed.value(), 3);
        nothing_is_left_open(&counters);
    });
}

#[test]
fn the_next_address_is_tried_where_one_refuses() {
    on_each_driver(async || {
        let (peer, (pools, counters)) = (Peer::listen(), pools());
        let refusing = Peer::listen().address;
        let origin = origin_at(&[refusing, peer.address], Limits::default());
        for _ in 0..4 {
            let (_lease, _end) = pair(&pools, &origin, &peer).await;
        }
        assert_eq!((counters.opened.value(), counters.failed.value()), (4, 0));
    });
}

#[test]
fn a_name_without_addresses_is_a_dns_failure() {
    on_each_driver(async || {
        let (pools, counters) = pools();
        let origin = |addresses| stage::origin_with(|settings| Settings { addresses, ..settings });
        let gone = Addresses::pending();
        gone.publish_failure("no such name");
        for (addresses, message) in [
            (gone, "the name cannot be resolved: no such name"),
            (Addresses::pending(), "the name is not resolved yet"),
        ] {
            let failure = failed(pools.checkout(&origin(addresses)).await);
            assert_eq!((failure.which, &*failure.message), (Which::Dns, message));
        }
        // Resolved while a request waits for it.
        let (peer, addresses) = (Peer::listen(), Addresses::pending());
        let origin = origin(addresses.clone());
        let mut waiting = Box::pin(pools.checkout(&origin));
        assert!(poll_once(waiting.as_mut()).await.is_none());
        addresses.publish([peer.address]);
        let _lease = waiting.await.expect("a connection");
        assert_eq!(counters.open.value(), 1);
    });
}

#[test]
fn a_host_that_does_not_answer_is_a_connect_timeout() {
    on_kernel_drivers(async || {
        let (pools, counters) = pools();
        let silent = SilentHost::new();
        let origin = origin_at(&[silent.address], Limits::default());
        let failure = failed(pools.checkout(&origin).await);
        assert_eq!(failure.which, Which::Timeout(Timer::Connect));
        assert_eq!(failure.message, "no connection within 200 ms (connect_ms)");
        nothing_is_left_open(&counters);
    });
}

/// A listening socket whose backlog is full: the kernel drops what else wants to connect.
struct SilentHost {
    address: std::net::SocketAddr,
    _sockets: Vec<std::os::fd::OwnedFd>,
}

impl SilentHost {
    fn new() -> SilentHost {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let socket = || {
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)
                .expect("a socket")
        };
        let listening = socket();
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        rustix::net::bind(&listening, &any).expect("a free port");
        rustix::net::listen(&listening, 0).expect("to listen");
        let address: std::net::SocketAddr =
            rustix::net::getsockname(&listening).expect("its address").try_into().expect("an IP address");
        let mut sockets = vec![listening];
        for _ in 0..8 {
            let filling = socket();
            let _ = rustix::net::connect(&filling, &address);
            sockets.push(filling);
        }
        SilentHost { address, _sockets: sockets }
    }
}

/// Polls once: the result, or none where it waits.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
