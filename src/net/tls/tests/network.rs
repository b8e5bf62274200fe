//! Two of our connections, joined by the simulated network or by a kernel's loopback.

use super::authority::{Authority, NAME};
use crate::net::conn::Conn;
use crate::net::listener::Listener;
use crate::net::memory::{Faults, Simulation};
use crate::net::page::Page;
use crate::net::runtime::{self, Wish};
use crate::net::send::SendList;
use crate::net::signal::Signal;
use crate::net::stream::{self, Received, Stream};
use crate::net::tls::{self, AcceptError, ClientSide, ServerSide, TlsError, server_name};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;

pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 443);

/// A listener and its address: simulated, or of the kernel where the thread runs on one of its drivers.
pub fn listen() -> (Listener, SocketAddr) {
    if runtime::is_memory() {
        return (Listener::in_memory(ADDRESS).expect("a free address"), ADDRESS);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.set_nonblocking(true).expect("non-blocking");
    let address = listener.local_addr().expect("an address");
    (Listener::from_bound(OwnedFd::from(listener)).expect("a listener"), address)
}

/// Two plain streams: of the side that connects and of the side that accepts.
pub async fn streams() -> (Stream, Stream) {
    let (listener, address) = listen();
    let client = together(stream::connect(address), async move { listener.accept().await });
    let (client, accepted) = client.await;
    (client.expect("a connection"), accepted.expect("a connection").stream)
}

/// Both futures' outputs.
pub async fn together<A: Future, B: Future + 'static>(one: A, two: B) -> (A::Output, B::Output)
where
    B::Output: 'static,
{
    let (slot, filled) = (Rc::new(RefCell::new(None)), Signal::default());
    let (other_slot, other_filled) = (Rc::clone(&slot), filled.clone());
    runtime::spawn(async move {
        let output = two.await;
        *other_slot.borrow_mut() = Some(output);
        other_filled.raise();
    });
    let first = one.await;
    filled.raised().await;
    let second = slot.borrow_mut().take().expect("the flag is raised when it is filled");
    (first, second)
}

/// A handshake between two of our sides.
pub async fn shake(
    client: ClientSide,
    server: ServerSide,
) -> (Result<Conn, TlsError>, Result<Conn, AcceptError>) {
    let (near, far) = streams().await;
    let name = server_name(NAME).expect("a name");
    together(async move { tls::connect(near, &client, &name).await }, async move {
        tls::accept(far, &server).await
    })
    .await
}

/// A pair of connections after a handshake: the client's and the server's.
pub async fn connected(authority: &Authority) -> (Conn, Conn) {
    let (client, server) = shake(authority.client_side(&[]), authority.server_side(&[])).await;
    (client.expect("a connection"), server.ok().expect("a connection"))
}

/// Runs `main` in the simulation without faults.
pub fn simulated<T>(main: impl Future<Output = T>) -> T {
    Simulation::new(1, Faults::none()).run(main).finished()
}

/// Runs `main` on both drivers of the kernel. A ring that the kernel refuses is left out, with a message.
pub fn on_kernel_drivers<F: Future<Output = ()>>(main: impl Fn() -> F) {
    for wish in [Wish::Epoll, Wish::Ring] {
        let ran = runtime::run(wish, |_| {}, &main);
        if let Err(error) = ran {
            eprintln!("skipped on {wish:?}: {error}");
        }
        assert_eq!(runtime::panics(), 0, "{wish:?}");
    }
}

pub async fn send(conn: &Conn, bytes: &[u8]) -> io::Result<()> {
    let mut list = SendList::new();
    list.push_copy(bytes);
    conn.send(list).await
}

/// Reads `len` bytes, or fewer where the connection ends before.
pub async fn read(conn: &Conn, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let mut page = Page::with_room((len - bytes.len()).min(16_384));
        match conn.recv(&mut page).await? {
            0 => break,
            _ => bytes.extend_from_slice(page.bytes()),
        }
    }
    Ok(bytes)
}

/// Waits until there is something that is not data: the end, or an error.
pub async fn read_end(conn: &Conn) -> io::Result<Received> {
    loop {
        conn.readable().await?;
        match conn.try_recv(&mut Page::rent())? {
            Received::Nothing => {}
            received => return Ok(received),
        }
    }
}
