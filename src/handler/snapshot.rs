//! The compiled, immutable config of one generation: all that a worker knows.
//!
//! `control` builds and publishes it; a worker replaces its snapshot between requests, and an exchange that
//! runs keeps the one it started with. Sections whose rules live elsewhere are compiled there
//! (`policy::auth`, `policy::route`, `llm::provider`); the plain ones are here. `Snapshot::default` has every
//! default and empty lists: tests fill in what they need. Fields say their unit, default and the meaning of
//! zero. Durations of zero mean: no limit.

use crate::base::error::Kind;
use crate::base::secret::Secret;
use crate::handler::series::Series;
use crate::llm::catalogue::{Catalogue, Unpriced};
use crate::llm::provider::Provider;
use crate::net::downstream::Bounds;
use crate::net::resolve::Addresses;
use crate::net::runtime::Wish;
use crate::net::tls::{ClientSide, ServerSide};
use crate::net::upstream::Origin;
use crate::policy::auth::Keys;
use crate::policy::limit::plan::Plan;
use crate::policy::route::Routes;
use crate::policy::stage::Stages;
use crate::usage::ledger::Settings;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
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
    /// What both come to for a connection; all that begin in this generation share it. Set with the first.
    pub bounds: OnceLock<Arc<Bounds>>,
    pub relay: Relay,
    pub log: Log,
    /// What becomes of what is unlike a key.
    pub baseline: Baseline,
    /// Who is told of alerts; none: stderr and the metrics alone.
    pub webhook: Option<Webhook>,
    /// None: no ledger is kept.
    pub ledger: Option<Settings>,
    /// Where providers are reached, one for each that is called over the network; `Provider::origin` is an
    /// index into it.
    pub origins: Vec<Arc<Origin>>,
    /// `Target::provider` and `Passthrough::provider` are indices into it.
    pub providers: Vec<Provider>,
    pub keys: Keys,
    pub routes: Routes,
    /// What keys, teams, organisations, models, providers and listeners may use and spend.
    pub plan: Plan,
    /// What models cost, read and write.
    pub catalogue: Arc<Catalogue>,
    /// What becomes of models without a price where money is limited. Default: allowed, and counted.
    pub unpriced: Unpriced,
    /// Counters of the targets, by worker.
    pub series: Vec<Series>,
    /// Policy on requests and answers, in order.
    pub stages: Stages,
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
    pub tls: Option<ServerSide>,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    pub address: AdminAddress,
    /// What callers must present as bearer; none: a client certificate, loopback or a unix socket protects
    /// it.
    pub token: Option<Secret>,
    pub tls: Option<AdminTls>,
}

/// The TLS of the admin listener.
#[derive(Clone, Debug)]
pub struct AdminTls {
    pub side: ServerSide,
    /// Callers must have presented a certificate that `side` takes.
    pub wants_certificate: bool,
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
    /// Bytes per second that a body must arrive with, counted after the first 5 s. Default 512; 0: no
    /// minimum.
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

/// What becomes of a request that is unlike its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Baseline {
    Off,
    /// It is counted.
    #[default]
    Shadow,
    /// It is an alert.
    Alert,
}

/// Who is told of alerts, by a POST.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub host: Box<str>,
    /// Host and port, as written.
    pub authority: Box<str>,
    /// Path and query; may be what protects it.
    pub target: Secret,
    pub addresses: Addresses,
    /// Sent as bearer.
    pub token: Option<Secret>,
    /// How TLS is spoken, and whom the certificate must be for; none: plain HTTP.
    pub tls: Option<(ClientSide, ServerName<'static>)>,
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

/// A path of ours under which a provider's own paths are reached, unseen by surfaces.
#[derive(Clone, Debug)]
pub struct Passthrough {
    /// Starts and ends with `/`.
    pub path: Box<str>,
    pub provider: u32,
    /// Empty: all of `METHODS_PASSED`. Others are never passed, named here or not.
    pub methods: Vec<http::Method>,
    /// What the rest of the path must be or lie under; each starts with `/` and does not end with it. Empty:
    /// anything.
    pub prefixes: Vec<Box<str>>,
}

impl Passthrough {
    /// Whether `method` may go to `rest`, the part of the path that follows ours, starting with `/`.
    /// Errors: `MethodNotAllowed`; `PathUnknown` outside of the prefixes, and for a path with `..` (also as
    /// `%2e`), which a provider could read as a way out of them.
    pub fn permit(&self, method: &http::Method, rest: &str) -> Result<(), Kind> {
        let under = |prefix: &str| {
            rest.strip_prefix(prefix).is_some_and(|after| after.is_empty() || after.starts_with('/'))
        };
        if has_dot_segment(rest.as_bytes())
            || !(self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| under(prefix)))
        {
            return Err(Kind::PathUnknown);
        }
        if self.allowed().any(|allowed| allowed == method) { Ok(()) } else { Err(Kind::MethodNotAllowed) }
    }

    /// The methods that may go on.
    pub fn allowed(&self) -> impl Iterator<Item = &http::Method> {
        METHODS_PASSED.iter().filter(|method| self.methods.is_empty() || self.methods.contains(method))
    }
}

/// What a pass-through may pass. TRACE is not among them: its answer repeats the request, with our credential
/// in it (RFC 9110 section 9.3.8). Nor are methods that are unknown here: what they would do is, too.
const METHODS_PASSED: [http::Method; 7] = [
    http::Method::GET,
    http::Method::HEAD,
    http::Method::POST,
    http::Method::PUT,
    http::Method::PATCH,
    http::Method::DELETE,
    http::Method::OPTIONS,
];

/// Whether `path` has a part that is `.` or `..`, with dots and slashes also percent-encoded or as
/// backslashes.
fn has_dot_segment(path: &[u8]) -> bool {
    let (mut dots, mut others) = (0_usize, false);
    let mut at = 0;
    loop {
        let byte = match path.get(at..) {
            None | Some([]) => return dots > 0 && dots <= 2 && !others,
            Some([b'%', high, low, ..]) => {
                at += 2;
                match (high, low.to_ascii_lowercase()) {
                    (b'2', b'e') => b'.',
                    (b'2', b'f') | (b'5', b'c') => b'/',
                    _ => b'%',
                }
            }
            Some([byte, ..]) => *byte,
        };
        at += 1;
        match byte {
            b'/' | b'\\' if dots > 0 && dots <= 2 && !others => return true,
            b'/' | b'\\' => (dots, others) = (0, false),
            b'.' => dots += 1,
            _ => others = true,
        }
    }
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
    use crate::base::error::Kind;
    use http::Method;

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

    #[test]
    fn a_passthrough_permits_what_it_names_and_nothing_around_it() {
        let route = Passthrough {
            path: "/openai/".into(),
            provider: 0,
            methods: vec![Method::GET],
            prefixes: vec!["/v1/files".into(), "/v1/batches".into()],
        };
        let outside = Err(Kind::PathUnknown);
        // method, rest of the path, verdict
        let rows = [
            (Method::GET, "/v1/files", Ok(())),
            (Method::GET, "/v1/files/", Ok(())),
            (Method::GET, "/v1/batches/b_1", Ok(())),
            (Method::GET, "/v1/files/a..b/c.txt", Ok(())),
            (Method::GET, "/v1/files/...", Ok(())),
            (Method::POST, "/v1/files", Err(Kind::MethodNotAllowed)),
            (Method::GET, "/v1/filesystem", outside),
            (Method::GET, "/v1", outside),
            (Method::GET, "/v1/files/../chat/completions", outside),
            (Method::GET, "/v1/files/..", outside),
            (Method::GET, "/v1/files/./x", outside),
            (Method::GET, "/v1/files/%2E%2e/x", outside),
            (Method::GET, "/v1/files/.%2e%2Fchat", outside),
            (Method::GET, "/v1/files/..\\chat", outside),
            (Method::GET, "/v1/files/..%5cchat", outside),
        ];
        for (method, rest, verdict) in rows {
            assert_eq!(route.permit(&method, rest), verdict, "{method} {rest}");
        }
    }
}
