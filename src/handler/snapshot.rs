//! The compiled, immutable config of one generation: all that a worker knows.
//!
//! `control` builds and publishes it; a worker replaces its snapshot between requests, and an exchange that runs keeps the one it
//! started with. Sections whose rules live elsewhere are compiled there (`policy::auth`, `policy::route`, `llm::provider`); the
//! plain ones are here. `Snapshot::default` has every default and empty lists: tests fill in what they need.
//! Fields say their unit, default and the meaning of zero. Durations of zero mean: no limit.

use crate::base::secret::Secret;
use crate::llm::provider::{Provider, Scheme};
use crate::net::runtime::Wish;
use crate::policy::auth::Keys;
use crate::policy::route::Routes;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything, for one generation.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts up from 1 with each published config; 0 was never published.
    pub generation: u64,
    pub server: Server,
    /// Bound at start; a reload that changes addresses is refused with a message.
    pub listeners: Vec<Listener>,
    pub admin: Option<Admin>,
    pub limits: Limits,
    pub timeouts: DownstreamTimeouts,
    pub relay: Relay,
    pub log: Log,
    /// Where providers are reached; `Provider::origin` is an index into it. Providers with equal settings share one.
    pub origins: Vec<Origin>,
    /// `Target::provider` and `Passthrough::provider` are indices into it.
    pub providers: Vec<Provider>,
    pub keys: Keys,
    pub routes: Routes,
    /// The longest path first.
    pub passthroughs: Vec<Passthrough>,
}

/// The process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Server {
    pub workers: Workers,
    /// Which I/O driver may be used. Default: the best that the kernel grants.
    pub driver: Wish,
    /// How long a shutdown waits for open streams. Default zero: until they end.
    pub drain_timeout: Duration,
}

/// How many workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Workers {
    /// One per core that this process may run on.
    #[default]
    Auto,
    Count(u16),
}

/// A place where clients connect.
#[derive(Clone, Debug)]
pub struct Listener {
    pub address: SocketAddr,
    /// Certificate and key; none: plain HTTP.
    pub tls: Option<ServerTls>,
}

/// A server's certificate as read from its files.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Certificate chain, PEM.
    pub cert_pem: Vec<u8>,
    /// Private key, PEM.
    pub key_pem: Secret,
    /// Certificates that clients must chain to, PEM; none: clients need no certificate.
    pub client_ca_pem: Option<Vec<u8>>,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    pub address: AdminAddress,
    /// What callers must present as bearer; none: loopback, unix socket or client certificates protect it.
    pub token: Option<Secret>,
    pub tls: Option<ServerTls>,
}

/// Where the admin listener stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// How much of everything one worker accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head. Default 32 KiB.
    pub head_bytes_max: usize,
    /// Header fields of a request. Default 96.
    pub head_fields_max: usize,
    /// Bytes of one body that is collected (JSON surfaces). Default 32 MiB.
    pub body_bytes_max: usize,
    /// Bytes of all collected bodies of a worker together; beyond it 503. Default 256 MiB.
    pub bodies_bytes_max: usize,
    /// Bytes of a body that is streamed (pass-through). Default 512 MiB; 0: no limit.
    pub upload_bytes_max: u64,
    /// Bytes of one event where a stage needs it whole. Default 8 MiB.
    pub event_bytes_max: usize,
    /// Open client connections of a worker; beyond it the worker stops accepting. Default 16,384.
    pub connections_max: usize,
    /// Requests on one client connection before it is closed. Default 0: no limit.
    pub requests_per_connection_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes_max: 32 << 10,
            head_fields_max: 96,
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 256 << 20,
            upload_bytes_max: 512 << 20,
            event_bytes_max: 8 << 20,
            connections_max: 16_384,
            requests_per_connection_max: 0,
        }
    }
}

/// How long a client may take, step by step. Zero: no limit. Those towards providers: `Provider::timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownstreamTimeouts {
    /// TLS handshake with a client. Default 10 s.
    pub tls_handshake: Duration,
    /// From the first byte of a request head to its end. Default 10 s.
    pub request_head: Duration,
    /// From the end of the head to the end of a collected body. Default 120 s.
    pub request_body: Duration,
    /// Between two requests on one connection. Default 75 s.
    pub keep_alive: Duration,
    /// While the client takes no byte of the answer. Default 60 s.
    pub write: Duration,
    /// The whole exchange. Default: none.
    pub total: Duration,
    /// Bytes per second that a body must arrive with, counted after the first 5 s. Default 512; 0: no minimum.
    pub upload_bytes_per_s_min: u32,
}

impl Default for DownstreamTimeouts {
    fn default() -> DownstreamTimeouts {
        DownstreamTimeouts {
            tls_handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            request_body: Duration::from_secs(120),
            keep_alive: Duration::from_secs(75),
            write: Duration::from_secs(60),
            total: Duration::ZERO,
            upload_bytes_per_s_min: 512,
        }
    }
}

/// How answers are relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Relay {
    /// A comment is sent into a stream that was silent for so long. Default zero: none is sent.
    pub heartbeat: Duration,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Log {
    pub access: AccessLog,
}

/// The access log: one JSON line per request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum AccessLog {
    #[default]
    Stdout,
    /// Appended to; opened anew on SIGUSR1.
    File(PathBuf),
    Off,
}

/// A place where one or more providers are reached; each worker keeps a pool of connections to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub scheme: Scheme,
    /// Name or address; IPv6 without brackets. Also the name that its certificate must have.
    pub host: Box<str>,
    pub port: u16,
    /// Certificates to trust instead of the system's, PEM; none: the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// HTTP proxy that is asked to CONNECT; none: direct.
    pub proxy: Option<Proxy>,
    /// Open connections of a worker. Default 1,024; 0: no limit.
    pub connections_max: u32,
    /// Idle connections that a worker keeps. Default 64; 0: none is kept.
    pub idle_connections_max: u32,
    /// How long a connection may lie idle before it is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Exchanges of a worker that may wait for a connection; beyond it 503. Default 1,024.
    pub queue_max: u32,
}

/// An HTTP proxy on the way to an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub host: Box<str>,
    pub port: u16,
    /// Value of `proxy-authorization`.
    pub authorization: Option<Secret>,
}

impl Origin {
    /// An origin with all defaults.
    pub fn new(scheme: Scheme, host: &str, port: u16) -> Origin {
        Origin {
            scheme,
            host: host.into(),
            port,
            ca_pem: None,
            proxy: None,
            connections_max: 1_024,
            idle_connections_max: 64,
            idle_timeout: Duration::from_secs(60),
            queue_max: 1_024,
        }
    }
}

/// A path of ours under which a provider's own paths are reached, unseen by surfaces.
#[derive(Clone, Debug)]
pub struct Passthrough {
    /// Starts and ends with `/`.
    pub path: Box<str>,
    pub provider: u32,
    /// Empty: every method.
    pub methods: Vec<http::Method>,
    /// What the rest of the path (it starts with `/`) must start with; empty: anything.
    pub prefixes: Vec<Box<str>>,
}

impl Snapshot {
    /// The pass-through route for `path` and what comes after its prefix, starting with `/`.
    pub fn passthrough<'a>(&self, path: &'a str) -> Option<(&Passthrough, &'a str)> {
        let found = self.passthroughs.iter().find(|route| path.starts_with(&*route.path))?;
        Some((found, path.get(found.path.len() - 1..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::{Passthrough, Snapshot};

    #[test]
    fn a_passthrough_leaves_the_rest_with_its_slash() {
        let route = |path: &str| Passthrough {
            path: path.into(),
            provider: 0,
            methods: Vec::new(),
            prefixes: Vec::new(),
        };
        let snapshot =
            Snapshot { passthroughs: vec![route("/openai/eu/"), route("/openai/")], ..Snapshot::default() };
        let rest = |path| snapshot.passthrough(path).map(|(route, rest)| (&*route.path, rest));
        assert_eq!(rest("/openai/v1/files"), Some(("/openai/", "/v1/files")));
        assert_eq!(rest("/openai/eu/v1/files"), Some(("/openai/eu/", "/v1/files")));
        assert_eq!(rest("/openai/"), Some(("/openai/", "/")));
        assert_eq!(rest("/openai"), None);
        assert_eq!(rest("/v1/files"), None);
    }
}
