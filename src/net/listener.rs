//! Listening sockets: one per worker and address, `SO_REUSEPORT`, so that the kernel spreads connections over
//! workers.
//!
//! TCP_NODELAY is set on the listening socket and inherited by what it accepts, which saves a call per
//! connection. Errors: an address that is in use or not ours, named with the address.

use crate::net::stream::Stream;
use crate::net::{kernel, memory, runtime};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// Connections that may wait to be accepted (the kernel caps it at net.core.somaxconn).
pub const BACKLOG: u16 = 4096;

/// Whether `address` is free: with `SO_REUSEPORT` alone a second process of the same user would share it
/// unnoticed.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let fd = rustix::net::socket_with(family(address), SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &address)?;
    Ok(rustix::net::listen(&fd, 1)?)
}

/// Binds and listens on a kernel socket; done before the workers start, so that a busy port is a start-up
/// error.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = reserve(address)?;
    listen(&fd)?;
    Ok(fd)
}

/// Binds a kernel socket that does not listen yet: the kernel gives it no connection.
pub fn reserve(address: SocketAddr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family(address), SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    rustix::net::bind(&fd, &address)?;
    Ok(fd)
}

/// Listens on a bound socket; one that listens already goes on.
pub fn listen(socket: &impl AsFd) -> io::Result<()> {
    Ok(rustix::net::listen(socket, BACKLOG.into())?)
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// Where a bound socket listens: what was asked for, with the port that port 0 became.
pub fn local_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    rustix::net::getsockname(socket)?.try_into().map_err(|_| io::Error::other("not an IP socket"))
}

/// A listener of this worker.
pub enum Listener {
    Kernel(kernel::Listener),
    Memory(memory::Listener),
}

/// A connection that has just been accepted.
pub struct Accepted {
    pub stream: Stream,
    pub peer: SocketAddr,
}

impl Listener {
    /// Takes over a socket that `bind` made.
    pub fn from_bound(fd: OwnedFd) -> io::Result<Listener> {
        kernel::Listener::new(fd).map(Listener::Kernel)
    }

    /// Listens in the simulation.
    pub fn in_memory(address: SocketAddr) -> io::Result<Listener> {
        debug_assert!(runtime::is_memory());
        memory::listen(address).map(Listener::Memory)
    }

    /// Where it listens: what was asked for, with the port that port 0 became.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Kernel(listener) => listener.address(),
            Listener::Memory(listener) => Ok(listener.address()),
        }
    }

    /// The next connection. May be dropped while it waits; no connection is lost or leaked by it.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Kernel(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok(Accepted { stream: Stream::Kernel(socket), peer })
            }
            Listener::Memory(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok(Accepted { stream: Stream::Memory(socket), peer })
            }
        }
    }

    /// A connection that waits already. Closing the listener resets those.
    pub fn try_accept(&self) -> io::Result<Option<Accepted>> {
        Ok(match self {
            Listener::Kernel(listener) => {
                listener.try_accept()?.map(|(socket, peer)| Accepted { stream: Stream::Kernel(socket), peer })
            }
            Listener::Memory(listener) => {
                listener.try_accept().map(|(socket, peer)| Accepted { stream: Stream::Memory(socket), peer })
            }
        })
    }
}
