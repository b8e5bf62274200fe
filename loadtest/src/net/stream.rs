//! Non-blocking byte streams: TCP (both IP versions) or unix sockets, plain or under TLS.
//!
//! Input and output: slices of the caller. `read` gives 0 at the end of the stream; both directions give the
//! error kind WouldBlock when the kernel has to be waited for.
//! Under TLS the handshake runs inside `read` and `write`, and what rustls has ready to send goes out with
//! `flush`.
//! Absent: name resolution (an address is given), certificates from the system store (a CA file is given or
//! nothing is verified: this is a measuring tool on loopback), client certificates.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
    sockopt,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Connections that may wait in a listener's queue; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 16_384;
/// TLS records that rustls may hold for a socket that does not take them, per connection.
const TLS_BUFFER_MAX: usize = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        text.parse().map(Self::Ip).map_err(|_| {
            format!("address {text:?}: need IP:PORT, [IPv6]:PORT or unix:PATH, e.g. 127.0.0.1:8080")
        })
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn new(descriptor: OwnedFd, address: &Address) -> Self {
        match address {
            Address::Ip(_) => Self::Tcp(TcpStream::from(descriptor)),
            Address::Unix(_) => Self::Unix(UnixStream::from(descriptor)),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(bytes),
            Self::Unix(socket) => socket.read(bytes),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    tls: Option<Box<rustls::Connection>>,
}

impl Stream {
    /// Starts to connect; the socket becomes writable when it is done, and the first write tells of a
    /// failure.
    pub fn connect(address: &Address, tls: Option<rustls::ClientConnection>) -> io::Result<Self> {
        let descriptor = open(address)?;
        let outcome = match address {
            Address::Ip(ip) => connect(&descriptor, ip),
            Address::Unix(path) => connect(&descriptor, &SocketAddrUnix::new(path)?),
        };
        match outcome {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self::new(Socket::new(descriptor, address), tls.map(rustls::Connection::Client)))
    }

    fn new(socket: Socket, tls: Option<rustls::Connection>) -> Self {
        let tls = tls.map(|mut tls| {
            tls.set_buffer_limit(Some(TLS_BUFFER_MAX));
            Box::new(tls)
        });
        Self { socket, tls }
    }

    /// The protocol that TLS agreed on; none before the handshake is over, and on plain connections.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.alpn_protocol()
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(bytes) };
        loop {
            match tls.reader().read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            if tls.read_tls(&mut self.socket)? == 0 {
                // The peer closed without close_notify: an end like any other for a measuring tool.
                return Ok(0);
            }
            let state = tls.process_new_packets();
            // An alert about a bad record must leave as well, hence before the error is returned.
            flush_tls(tls, &mut self.socket)?;
            state.map_err(io::Error::other)?;
        }
    }

    /// Takes as many bytes as the kernel, or TLS within its bound, has room for.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.write(bytes) };
        let taken = tls.writer().write(bytes)?;
        match flush_tls(tls, &mut self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    /// Sends what TLS still holds. Call when the socket becomes writable.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => flush_tls(tls, &mut self.socket),
            None => Ok(()),
        }
    }

    /// Makes the coming close a reset (RST) instead of an orderly end.
    pub fn reset_on_close(&self) -> io::Result<()> {
        sockopt::set_socket_linger(self.as_fd(), Some(std::time::Duration::ZERO)).map_err(io::Error::from)
    }

    /// Bounds what the kernel receives ahead of the reader; the kernel doubles the value. For slow readers.
    pub fn bound_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        sockopt::set_socket_recv_buffer_size(self.as_fd(), bytes).map_err(io::Error::from)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

fn flush_tls(tls: &mut rustls::Connection, socket: &mut Socket) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(address: &Address) -> io::Result<OwnedFd> {
    let family = match address {
        Address::Ip(SocketAddr::V4(_)) => AddressFamily::INET,
        Address::Ip(SocketAddr::V6(_)) => AddressFamily::INET6,
        Address::Unix(_) => AddressFamily::UNIX,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let descriptor = socket_with(family, SocketType::STREAM, flags, None)?;
    if let Address::Ip(_) = address {
        sockopt::set_tcp_nodelay(&descriptor, true)?;
    }
    Ok(descriptor)
}

#[derive(Debug)]
pub struct Listener {
    descriptor: OwnedFd,
    address: Address,
}

impl Listener {
    /// Listens on `address`; several listeners of one address share its connections (SO_REUSEPORT).
    /// A unix socket's file is replaced, and cannot be shared.
    pub fn bind(address: &Address) -> io::Result<Self> {
        let descriptor = open(address)?;
        match address {
            Address::Ip(ip) => {
                sockopt::set_socket_reuseaddr(&descriptor, true)?;
                sockopt::set_socket_reuseport(&descriptor, true)?;
                bind(&descriptor, ip)?;
            }
            Address::Unix(path) => {
                let _ = std::fs::remove_file(path);
                bind(&descriptor, &SocketAddrUnix::new(path)?)?;
            }
        }
        listen(&descriptor, BACKLOG)?;
        Ok(Self { descriptor, address: address.clone() })
    }

    /// Whether nobody listens on `address`: with SO_REUSEPORT alone a second process would take part of the first
    /// one's connections unnoticed.
    pub fn probe(address: &Address) -> io::Result<()> {
        let Address::Ip(ip) = address else { return Ok(()) };
        let descriptor = open(address)?;
        sockopt::set_socket_reuseaddr(&descriptor, true)?;
        bind(&descriptor, ip)?;
        listen(&descriptor, 1).map_err(io::Error::from)
    }

    /// The address in use, which names the port that the kernel chose for port 0.
    pub fn address(&self) -> io::Result<Address> {
        match &self.address {
            Address::Unix(_) => Ok(self.address.clone()),
            Address::Ip(_) => {
                let any = rustix::net::getsockname(&self.descriptor)?;
                SocketAddr::try_from(any).map(Address::Ip).map_err(io::Error::from)
            }
        }
    }

    /// Takes one waiting connection.
    pub fn accept(&self, tls: Option<&Arc<rustls::ServerConfig>>) -> io::Result<Stream> {
        let descriptor = accept_with(&self.descriptor, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        if let Address::Ip(_) = self.address {
            sockopt::set_tcp_nodelay(&descriptor, true)?;
        }
        let tls = match tls {
            Some(config) => {
                let connection = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Some(rustls::Connection::Server(connection))
            }
            None => None,
        };
        Ok(Stream::new(Socket::new(descriptor, &self.address), tls))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Reads the certificates of a PEM file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let told = |error| format!("{}: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(told)?.collect::<Result<Vec<_>, _>>();
    match found.map_err(told)? {
        list if list.is_empty() => Err(format!("{}: no certificate in it", path.display())),
        list => Ok(list),
    }
}

/// What a server shows: the PEM files of its certificate chain and its key. It agrees to both versions of HTTP.
pub fn server_tls(chain: &Path, key: &Path) -> Result<rustls::ServerConfig, String> {
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates(chain)?, secret)
        .map_err(|error| format!("{}: {error}", chain.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
