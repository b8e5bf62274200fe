//! Stage for tests: runs a dialogue with a scripted peer on the drivers of `net`.

use super::{Counters, Limits, Origin, Pools, Settings, Timeouts};
use crate::net::conn::Conn;
use crate::net::listener::{self, Listener};
use crate::net::memory::{Faults, Simulation, each_seed};
use crate::net::page::Page;
use crate::net::race::{First, race};
use crate::net::resolve::Addresses;
use crate::net::runtime::{self, Driver, Wish};
use crate::net::send::SendList;
use crate::net::stream::Received;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any dialogue takes on a busy machine.
const PLAY_MAX: Duration = Duration::from_secs(60);

/// Runs `play` on the ring and on epoll. A task of it that panics fails the test.
pub fn on_kernel_drivers(play: impl AsyncFn()) {
    for wish in [Wish::Any, Wish::Epoll] {
        let panics = runtime::panics();
        runtime::run(wish, |_| {}, || in_time(play())).expect("epoll at least");
        assert_eq!(runtime::panics(), panics, "a task of the dialogue panicked ({wish:?})");
    }
}

/// Runs `play` on the kernel's drivers and, with drawn scheduling, in memory.
pub fn on_each_driver(play: impl AsyncFn()) {
    on_kernel_drivers(&play);
    each_seed(0..40, |seed| Simulation::new(seed, Faults::none()).run(play()).finished());
}

/// Runs `play` in memory, on drawn links, which delay and cut and lose nothing.
pub fn on_each_link(play: impl AsyncFn()) {
    each_seed(0..60, |seed| Simulation::new(seed, Faults::harmless(seed)).run(play()).finished());
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
    /// A server on an address of its own.
    pub fn listen() -> Peer {
        if runtime::driver() == Some(Driver::Memory) {
            let port = NEXT_PORT.replace(NEXT_PORT.get().wrapping_add(1).max(1024));
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            return Peer { listener: Listener::in_memory(address).expect("a simulation"), address };
        }
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

thread_local! {
    static NEXT_PORT: Cell<u16> = const { Cell::new(1024) };
}

/// An origin with these addresses.
pub fn origin_at(addresses: &[SocketAddr], limits: Limits) -> Arc<Origin> {
    let addresses = Addresses::known(addresses);
    origin_with(|settings| Settings { addresses, limits, ..settings })
}

/// An origin with what `change` makes of settings without addresses.
pub fn origin_with(change: impl FnOnce(Settings) -> Settings) -> Arc<Origin> {
    let patience = Duration::from_millis(200);
    Arc::new(Origin::new(change(Settings {
        name: "peer".to_owned(),
        host: "peer.test".to_owned(),
        port: 80,
        addresses: Addresses::pending(),
        proxy: None,
        tls: None,
        limits: Limits::default(),
        timeouts: Timeouts { connect: patience, tls_handshake: patience },
    })))
}

/// Pools and their counters.
pub fn pools() -> (Rc<Pools>, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (Rc::new(Pools::new(Arc::clone(&counters))), counters)
}

/// Sends `bytes`.
pub async fn say(conn: &Conn, bytes: &[u8]) {
    try_say(conn, bytes).await.expect("the other side listens");
}

/// Sends `bytes` to a side that may have gone.
pub async fn try_say(conn: &Conn, bytes: &[u8]) -> io::Result<()> {
    let mut list = SendList::new();
    list.push_copy(bytes);
    conn.send(list).await
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

/// Whether no bytes have arrived; the end may have.
pub fn is_quiet_or_ended(conn: &Conn) -> bool {
    !matches!(conn.try_peek(), Ok(Received::Bytes(_)))
}

/// Ends when `holds` does.
pub async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        runtime::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends after a time in which what was going to happen has happened.
pub async fn pause() {
    let in_memory = runtime::driver() == Some(Driver::Memory);
    runtime::sleep(Duration::from_millis(if in_memory { 4_000 } else { 30 })).await;
}

/// Both results, from futures that run side by side.
pub async fn join<A: Future, B: Future>(one: A, two: B) -> (A::Output, B::Output) {
    let (mut one, mut two) = (pin!(one), pin!(two));
    match race(one.as_mut(), two.as_mut()).await {
        First::One(first) => (first, two.await),
        First::Two(second) => (one.await, second),
    }
}
