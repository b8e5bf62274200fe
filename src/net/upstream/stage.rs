//! Stage for tests: runs a dialogue on the kernel's drivers, with a scripted peer on loopback.

use super::{Counters, Limits, Origin, Pools, Settings, Timeouts};
use crate::net::conn::Conn;
use crate::net::listener::{self, Listener};
use crate::net::page::Page;
use crate::net::race::{First, race};
use crate::net::resolve::Addresses;
use crate::net::runtime::{self, Wish};
use crate::net::send::SendList;
use crate::net::stream::Received;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any dialogue takes on a busy machine.
const PLAY_MAX: Duration = Duration::from_secs(20);

/// Runs `play` on the ring and on epoll. A task of it that panics fails the test.
pub fn on_kernel_drivers(play: impl AsyncFn()) {
    for wish in [Wish::Any, Wish::Epoll] {
        let panics = runtime::panics();
        runtime::run(wish, |_| {}, || in_time(play())).expect("epoll at least");
        assert_eq!(runtime::panics(), panics, "a task of the dialogue panicked ({wish:?})");
    }
}

async fn in_time(play: impl Future<Output = ()>) {
    match race(play, runtime::sleep(PLAY_MAX)).await {
        First::One(()) => {}
        First::Two(()) => panic!("the dialogue hangs"),
    }
}

/// A server whose side of the dialogue the test plays.
pub struct Peer {
    listener: Listener,
    pub address: SocketAddr,
}

impl Peer {
    /// A server on a free port.
    pub fn listen() -> Peer {
        let fd = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = rustix::net::getsockname(&fd).expect("its address").try_into().expect("an IP address");
        Peer { listener: Listener::from_bound(fd).expect("a listener"), address }
    }

    /// The next connection.
    pub async fn accept(&self) -> Conn {
        Conn::Plain(self.listener.accept().await.expect("a connection").stream)
    }

    /// An origin of this server alone.
    pub fn origin(&self, limits: Limits) -> Arc<Origin> {
        origin_at(&[self.address], limits)
    }
}

/// An origin with these addresses.
pub fn origin_at(addresses: &[SocketAddr], limits: Limits) -> Arc<Origin> {
    Arc::new(Origin::new(Settings {
        name: "peer".to_owned(),
        host: "peer.test".to_owned(),
        port: 80,
        addresses: Addresses::known(addresses),
        proxy: None,
        limits,
        timeouts: Timeouts { connect: Duration::from_millis(200), tls_handshake: Duration::from_millis(200) },
    }))
}

/// Pools and their counters.
pub fn pools() -> (Rc<Pools>, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (Rc::new(Pools::new(Arc::clone(&counters))), counters)
}

/// Sends `bytes`.
pub async fn say(conn: &Conn, bytes: &[u8]) {
    let mut list = SendList::new();
    list.push_copy(bytes);
    conn.send(list).await.expect("the other side listens");
}

/// Receives until `bytes` have come, and nothing else.
pub async fn hear(conn: &Conn, bytes: &[u8]) {
    let mut page = Page::with_room(bytes.len());
    while page.room() > 0 && conn.recv(&mut page).await.expect("no error") > 0 {}
    assert_eq!(String::from_utf8_lossy(page.bytes()), String::from_utf8_lossy(bytes));
}

/// Receives the end, and nothing before it.
pub async fn hear_end(conn: &Conn) {
    let mut page = Page::with_room(64);
    let heard = conn.recv(&mut page).await;
    assert_eq!(String::from_utf8_lossy(page.bytes()), "");
    // A connection that is closed with unread bytes ends in a reset.
    assert!(matches!(heard, Ok(0)) || heard.is_err());
}

/// Whether nothing has arrived, not even the end.
pub fn is_quiet(conn: &Conn) -> bool {
    conn.try_peek().expect("no error") == Received::Nothing
}

/// Ends when `holds` does.
pub async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        runtime::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends after a time in which what was going to happen at once has happened.
pub async fn pause() {
    runtime::sleep(Duration::from_millis(30)).await;
}
