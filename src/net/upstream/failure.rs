//! Why no connection to an origin could be had, before a byte of the request was sent.
//!
//! So every one of them leaves the request free for another target. The upstream is to blame, but for a full
//! queue and for resources of our own machine. `message` names no address and no secret: it may go to a
//! client; `address` is for the log.

use crate::base::error::{Kind, Timer};
use crate::net::tls::TlsError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// A checkout that gave no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectFailure {
    pub which: Which,
    /// What was found; for clients too.
    pub message: String,
    /// The last address that was tried; for the log.
    pub address: Option<SocketAddr>,
    /// More of the cause; for the log: it may name hosts.
    pub cause: Option<String>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The name has no known addresses.
    Dns,
    /// The host is there and does not listen, or it hung up at once.
    Refused,
    /// No way to the host.
    Unreachable,
    /// `Timer::Connect` or `Timer::TlsHandshake`.
    Timeout(Timer),
    /// The handshake failed: certificate, name, version, or no TLS at all.
    Tls,
    /// The proxy answered with this status, or with something that is no answer (0).
    Proxy(u16),
    /// All connections are busy and `queue_max` others wait already.
    QueueFull,
    /// None came free within `queue_timeout`.
    QueueTimeout,
    /// This machine has no descriptors, ports or memory left.
    Exhausted,
}

impl ConnectFailure {
    pub(super) fn new(which: Which, message: impl Into<String>) -> ConnectFailure {
        ConnectFailure { which, message: message.into(), address: None, cause: None }
    }

    pub(super) fn at(mut self, address: SocketAddr) -> ConnectFailure {
        self.address = Some(address);
        self
    }

    /// What connecting a socket failed with.
    pub(super) fn of_connect(error: &io::Error) -> ConnectFailure {
        let (which, message) = match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => (Which::Refused, "connection refused"),
            Some(libc::ETIMEDOUT) => (Which::Timeout(Timer::Connect), "the host did not answer"),
            Some(libc::EMFILE | libc::ENFILE) => (Which::Exhausted, "no file descriptors left"),
            Some(libc::EADDRNOTAVAIL) => (Which::Exhausted, "no local ports left"),
            Some(libc::ENOBUFS | libc::ENOMEM) => (Which::Exhausted, "no memory left for sockets"),
            _ if error.kind() == io::ErrorKind::ConnectionRefused => (Which::Refused, "connection refused"),
            _ => return ConnectFailure::new(Which::Unreachable, format!("unreachable: {error}")),
        };
        ConnectFailure::new(which, message)
    }

    /// What a TLS handshake failed with.
    pub(super) fn of_handshake(error: TlsError) -> ConnectFailure {
        let message = format!("the TLS handshake failed: {}", error.kind.name());
        ConnectFailure { cause: Some(error.to_string()), ..ConnectFailure::new(Which::Tls, message) }
    }

    /// What lies behind it, for an operator: the address that was tried, what was said below.
    pub fn behind(&self) -> Option<String> {
        match (self.address, &self.cause) {
            (Some(address), Some(cause)) => Some(format!("{address}: {cause}")),
            (Some(address), None) => Some(address.to_string()),
            (None, cause) => cause.clone(),
        }
    }

    /// The kind of error that it is for a client.
    pub fn kind(&self) -> Kind {
        match self.which {
            Which::Dns | Which::Refused | Which::Unreachable | Which::Tls | Which::Proxy(_) => {
                Kind::UpstreamUnreachable
            }
            Which::Timeout(timer) => Kind::UpstreamTimeout(timer),
            Which::QueueTimeout => Kind::UpstreamTimeout(Timer::Queue),
            Which::QueueFull | Which::Exhausted => Kind::Overloaded,
        }
    }

    /// Whether another address of the same host may do better.
    pub(super) fn is_of_address(&self) -> bool {
        matches!(self.which, Which::Refused | Which::Unreachable | Which::Timeout(Timer::Connect))
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConnectFailure {}
