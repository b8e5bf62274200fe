//! After a 101 both connections are handed over with the bytes that were read behind the heads: a dummy
//! switches protocols and then only carries bytes, on every driver.
//!
//! What each side says right behind its head arrives first and once, wherever the reads cut it.

use crate::relay::gateway::{call, send};
use crate::sim::driver::{calmly_on_every_driver, listen, on_every_driver};
use crate::sim::peer::{Script, serve};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tollgate::codec::http1::{Asked, HeadLimits};
use tollgate::net::conn::Conn;
use tollgate::net::deadline::Deadline;
use tollgate::net::downstream::{Bounds, Downstream, HeadRead};
use tollgate::net::listener::Listener;
use tollgate::net::page::{Page, Slice};
use tollgate::net::race::{First, race};
use tollgate::net::resolve::Addresses;
use tollgate::net::runtime;
use tollgate::net::send::SendList;
use tollgate::net::signal::Signal;
use tollgate::net::upstream::{Counters, Http1Upstream, Limits, Origin, Pools, Settings, Timeouts};

const ASKS: &str = "GET /realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: dummy\r\n\r\n";
const SWITCHES: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: dummy\r\n\r\n";

fn bounds() -> Bounds {
    let patient = Duration::from_secs(30);
    Bounds {
        head: HeadLimits::DEFAULT,
        head_timeout: patient,
        idle_timeout: patient,
        body_timeout: patient,
        upload_bytes_per_second_min: 0,
        write_timeout: patient,
    }
}

fn origin(address: SocketAddr) -> Arc<Origin> {
    Arc::new(Origin::new(Settings {
        name: "dummy".to_string(),
        host: "dummy.test".to_string(),
        port: address.port(),
        addresses: Addresses::known([address]),
        proxy: None,
        tls: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
    }))
}

/// Takes one client, asks the upstream to switch, and carries bytes until both have ended. As a handler does
/// it, the client's side is lent. How many bytes came behind each head.
async fn dummy(listener: Listener, upstream: SocketAddr) -> (usize, usize) {
    let accepted = listener.accept().await.expect("a client");
    let mut downstream = Downstream::new(Conn::Plain(accepted.stream), accepted.peer, bounds().into(), None);
    let HeadRead::Head(head) = downstream.read_head(&Signal::default()).await else { panic!("a head") };
    assert_eq!(head.uri.path(), "/realtime");
    let pools = Pools::new(Arc::new(Counters::default()));
    let lease = pools.checkout(&origin(upstream)).await.expect("the upstream listens");
    let mut exchange = Http1Upstream::new(lease, Asked::Upgrade);
    let timer = Deadline::unset();
    let mut list = SendList::new();
    list.push_copy(ASKS.as_bytes());
    exchange.send(list, &timer).await.expect("it reads");
    assert_eq!(exchange.read_head(&timer).await.expect("a head").status, 101);
    let (upstream, from_upstream) = exchange.into_tunnel();
    let (client, from_client) = downstream.tunnel();
    assert!(!downstream.has_unread());
    let unread = |slice: &Option<Slice>| slice.as_ref().map_or(0, |slice| slice.len());
    let behind = (unread(&from_client), unread(&from_upstream));
    send(&client, SWITCHES.as_bytes()).await;
    let mut up = Box::pin(carry(&client, &upstream, from_client));
    let mut down = Box::pin(carry(&upstream, &client, from_upstream));
    match race(up.as_mut(), down.as_mut()).await {
        First::One(()) => down.await,
        First::Two(()) => up.await,
    }
    behind
}

/// Carries bytes one way, what was read already first, and then the end.
async fn carry(from: &Conn, to: &Conn, unread: Option<Slice>) {
    if let Some(unread) = unread {
        let mut list = SendList::new();
        list.push_slice(unread);
        to.send(list).await.expect("it reads");
    }
    loop {
        let mut page = Page::rent();
        if from.recv(&mut page).await.expect("no error") == 0 {
            return to.shutdown().await;
        }
        let mut list = SendList::new();
        list.push_slice(page.slice(0..page.bytes().len()));
        to.send(list).await.expect("it reads");
    }
}

/// `ahead`: so many of the 5 bytes `first` come with the heads, the rest behind.
async fn tunnel(ahead: usize) -> (usize, usize) {
    let ((listener, address), (origin, upstream)) = (listen(), listen());
    let (up, down) = ("early".split_at(ahead), "EARLY".split_at(ahead));
    let script = Script::new().expect(ASKS).send([SWITCHES, down.0].concat()).wait(Duration::from_millis(20));
    let script = script.send(down.1).expect("early").send("pong").expect("ping").finish().expect_end();
    serve(origin, vec![script]);
    let ended = Rc::new(std::cell::Cell::new(None));
    let told = Rc::clone(&ended);
    runtime::spawn(async move { told.set(Some(dummy(listener, upstream).await)) });
    let script = Script::new().send([ASKS, up.0].concat()).wait(Duration::from_millis(20)).send(up.1);
    let script = script.expect([SWITCHES, "EARLY", "pong"].concat()).send("ping").expect_end();
    script.play(call(address).await).await;
    loop {
        if let Some(behind) = ended.take() {
            return behind;
        }
        runtime::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn bytes_behind_the_heads_go_through_the_tunnel_first_and_once() {
    for ahead in 0..=5 {
        on_every_driver(async move || {
            tunnel(ahead).await;
        });
        // Without faults a head and what is sent with it come in one read.
        calmly_on_every_driver(async move || assert_eq!(tunnel(ahead).await, (ahead, ahead)));
    }
}
