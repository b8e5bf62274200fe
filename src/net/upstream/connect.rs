//! Opens one connection to an origin: address after address, then the proxy's tunnel, then TLS, each under
//! its own deadline.
//!
//! Addresses are taken in turn, so that new connections spread over them; one that failed within
//! `AVOIDED_FOR` comes last. Limits: `ATTEMPTS_MAX` addresses a connection. A name that control has not
//! resolved yet is waited for within the connect deadline. Errors: the last address's; all of them are the
//! upstream's but `Exhausted`. Absent: racing IPv6 against IPv4 (RFC 8305): a dead family costs one connect
//! deadline, then its addresses are avoided.

use super::failure::{ConnectFailure, Which};
use super::origin::{Origin, Settings};
use super::proxy;
use crate::base::clock::{self, Instant};
use crate::base::error::Timer;
use crate::net::conn::Conn;
use crate::net::deadline::{Deadline, TICK};
use crate::net::resolve::{Addresses, Published};
use crate::net::stream::{self, Stream};
use crate::net::{runtime, tls};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses that are tried for one connection.
pub const ATTEMPTS_MAX: usize = 4;

/// How long an address that failed is tried after all others.
pub const AVOIDED_FOR: Duration = Duration::from_secs(30);

/// Opens a connection, ready to carry requests.
pub(super) async fn open(origin: &Origin, order: &Order) -> Result<Conn, ConnectFailure> {
    let settings = &origin.settings;
    let addresses = match &settings.proxy {
        Some(proxy) => &proxy.addresses,
        None => &settings.addresses,
    };
    let deadline = Deadline::unset();
    let connected = connect(addresses, order, settings.timeouts.connect, &deadline).await;
    let (stream, address) = connected.map_err(|failure| match &settings.proxy {
        _ if failure.which != Which::Dns => failure,
        Some(_) => ConnectFailure { cause: Some("the name of the proxy".to_owned()), ..failure },
        None => ConnectFailure { cause: Some(settings.host.clone()), ..failure },
    })?;
    let conn = prepare(stream, settings, &deadline).await;
    conn.map_err(|failure| failure.at(address))
}

/// Turns a stream to the origin, or to the proxy, into a connection that carries requests.
async fn prepare(stream: Stream, settings: &Settings, deadline: &Deadline) -> Result<Conn, ConnectFailure> {
    let conn = Conn::Plain(stream);
    if let Some(proxy) = &settings.proxy {
        let timeout = settings.timeouts.connect;
        deadline.set(timeout);
        let tunnel = proxy::tunnel(&conn, proxy, &settings.host, settings.port);
        deadline.bound(tunnel).await.unwrap_or_else(|_| {
            let message = format!("no tunnel from the proxy within {} ms (connect_ms)", timeout.as_millis());
            Err(ConnectFailure::new(Which::Timeout(Timer::Connect), message))
        })?;
    }
    let Some(tls) = &settings.tls else { return Ok(conn) };
    let Conn::Plain(stream) = conn else { return Ok(conn) };
    let timeout = settings.timeouts.tls_handshake;
    deadline.set(timeout);
    match deadline.bound(tls::connect(stream, &tls.side, &tls.name)).await {
        Ok(conn) => conn.map_err(ConnectFailure::of_handshake),
        Err(_) => {
            let message = format!("no TLS handshake within {} ms (tls_handshake_ms)", timeout.as_millis());
            Err(ConnectFailure::new(Which::Timeout(Timer::TlsHandshake), message))
        }
    }
}

async fn connect(
    addresses: &Addresses,
    order: &Order,
    timeout: Duration,
    deadline: &Deadline,
) -> Result<(Stream, SocketAddr), ConnectFailure> {
    deadline.set(timeout);
    let attempts = match deadline.bound(resolved(addresses)).await {
        Ok(Published::Known(list)) => order.attempts(&list, clock::now()),
        Ok(Published::Failed(reason)) => {
            return Err(ConnectFailure::new(Which::Dns, format!("the name cannot be resolved: {reason}")));
        }
        Ok(Published::Pending) | Err(_) => {
            return Err(ConnectFailure::new(Which::Dns, "the name is not resolved yet"));
        }
    };
    let mut last = ConnectFailure::new(Which::Dns, "the name has no addresses");
    for address in attempts {
        deadline.set(timeout);
        let failure = match deadline.bound(stream::connect(address)).await {
            Ok(Ok(stream)) => {
                order.worked(address);
                return Ok((stream, address));
            }
            Ok(Err(error)) => ConnectFailure::of_connect(&error),
            Err(_) => {
                let message = format!("no connection within {} ms (connect_ms)", timeout.as_millis());
                ConnectFailure::new(Which::Timeout(Timer::Connect), message)
            }
        };
        last = failure.at(address);
        if !last.is_of_address() {
            break;
        }
        order.failed(address, clock::now());
    }
    Err(last)
}

/// What control published, as soon as it did. Looked up again by a timer: control never wakes a worker.
async fn resolved(addresses: &Addresses) -> Published {
    loop {
        let current = addresses.current();
        if *current != Published::Pending {
            return Published::clone(&current);
        }
        runtime::sleep(TICK).await;
    }
}

/// In which order the addresses of an origin are tried; what one connection learns serves the next.
#[derive(Default)]
pub(super) struct Order {
    next: Cell<usize>,
    /// At most `AVOIDED_MAX`, the oldest first.
    avoided: RefCell<SmallVec<[(SocketAddr, Instant); 2]>>,
}

const AVOIDED_MAX: usize = 16;

impl Order {
    /// The addresses for one connection, best first.
    fn attempts(&self, list: &[SocketAddr], now: Instant) -> SmallVec<[SocketAddr; ATTEMPTS_MAX]> {
        let first = self.next.get();
        self.next.set(first.wrapping_add(1));
        let mut avoided = self.avoided.borrow_mut();
        avoided.retain(|(_, since)| now < *since + AVOIDED_FOR);
        let in_turn = (0..list.len()).map(|n| list[first.wrapping_add(n) % list.len()]);
        let is_avoided = |address: &SocketAddr| avoided.iter().any(|(other, _)| other == address);
        let good = in_turn.clone().filter(|address| !is_avoided(address));
        let bad = in_turn.filter(is_avoided);
        good.chain(bad).take(ATTEMPTS_MAX).collect()
    }

    fn failed(&self, address: SocketAddr, now: Instant) {
        self.worked(address);
        let mut avoided = self.avoided.borrow_mut();
        if avoided.len() == AVOIDED_MAX {
            avoided.remove(0);
        }
        avoided.push((address, now));
    }

    fn worked(&self, address: SocketAddr) {
        self.avoided.borrow_mut().retain(|(other, _)| *other != address);
    }
}

#[cfg(test)]
mod tests;
