//! An origin: one host that connections are opened to, with everything that decides how.
//!
//! Control compiles it from a provider's settings; workers share it by `Arc`. Its `OriginId` is a hash of
//! what makes one of its connections different from another's: name, host, port, TLS, proxy. So the pools of
//! a worker survive a reload that did not touch them, and limits and timeouts change under the open
//! connections. Addresses are published separately (`net::resolve`).

use crate::base::secret::Secret;
use crate::net::resolve::Addresses;
use crate::net::tls::{ClientSide, PeerName};
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::Duration;

/// A host with the way to it.
#[derive(Debug)]
pub struct Origin {
    pub id: OriginId,
    pub settings: Settings,
}

/// What control fills in.
#[derive(Debug)]
pub struct Settings {
    /// The name of the provider in the configuration: providers share no connections and no limits, even of
    /// one host.
    pub name: String,
    /// A name or an address, the latter without brackets.
    pub host: String,
    pub port: u16,
    /// The host's addresses; not used with a proxy, which resolves the name itself.
    pub addresses: Addresses,
    pub proxy: Option<Proxy>,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

/// How TLS is spoken with the origin.
#[derive(Debug)]
pub struct Tls {
    pub side: ClientSide,
    /// Whom the certificate must be for: the host, unless it is reached by another name (`tls::server_name`).
    pub name: PeerName<'static>,
    /// Tells the settings behind `side` from others, across reloads: its authorities, its lowest version.
    pub settings_digest: [u8; 32],
}

/// An HTTP proxy that opens a tunnel to the origin (CONNECT).
#[derive(Debug)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    pub addresses: Addresses,
    /// `user:password` for Basic authentication.
    pub credential: Option<Secret>,
}

/// Bounds of a worker's connections to one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, each of which carries one exchange. Default 8,192; at least 1.
    pub connections_max: usize,
    /// Idle connections that are kept. Default 256.
    pub idle_max: usize,
    /// How long an idle connection is kept. Default 30 s: most servers close at 60 s or 75 s.
    pub idle_timeout: Duration,
    /// Exchanges that may wait for a connection when all are busy. Default 1,024; 0: none waits.
    pub queue_max: usize,
    /// How long one waits. Default 5 s.
    pub queue_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 8192,
            idle_max: 256,
            idle_timeout: Duration::from_secs(30),
            queue_max: 1024,
            queue_timeout: Duration::from_secs(5),
        }
    }
}

/// Deadlines of opening a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For each address that is tried, and once more for the proxy's answer. Default 5 s.
    pub connect: Duration,
    /// Default 10 s.
    pub tls_handshake: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { connect: Duration::from_secs(5), tls_handshake: Duration::from_secs(10) }
    }
}

/// Which origin it is, across reloads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginId(u128);

impl Origin {
    /// An origin with its id.
    pub fn new(settings: Settings) -> Origin {
        Origin { id: OriginId::of(&settings), settings }
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        authority(&self.settings.host, self.settings.port)
    }
}

impl OriginId {
    fn of(settings: &Settings) -> OriginId {
        let mut hash = Sha256::new();
        // Each part is led by its length, so that no two lists of parts read the same.
        let mut part = |bytes: &[u8]| {
            hash.update(bytes.len().to_be_bytes());
            hash.update(bytes);
        };
        part(settings.name.as_bytes());
        part(settings.host.as_bytes());
        part(&settings.port.to_be_bytes());
        if let Some(tls) = &settings.tls {
            part(b"tls");
            part(tls.name.to_str().as_bytes());
            part(&tls.settings_digest);
        }
        if let Some(proxy) = &settings.proxy {
            part(b"proxy");
            part(proxy.host.as_bytes());
            part(&proxy.port.to_be_bytes());
            part(proxy.credential.as_ref().map_or(b"", |credential| credential.expose_secret()));
        }
        let digest = hash.finalize();
        OriginId(digest.iter().take(16).fold(0, |id, byte| (id << 8) | u128::from(*byte)))
    }
}

impl fmt::Debug for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Origin, Proxy, Settings, Timeouts, Tls};
    use crate::base::secret::Secret;
    use crate::net::resolve::Addresses;
    use crate::net::tls::server_name;
    use crate::net::tls::tests::authority::Authority;
    use std::time::Duration;

    fn settings() -> Settings {
        Settings {
            name: "openai".to_owned(),
            host: "api.example.com".to_owned(),
            port: 443,
            addresses: Addresses::pending(),
            proxy: None,
            tls: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }

    fn proxy(credential: Option<&str>) -> Option<Proxy> {
        Some(Proxy {
            host: "proxy".to_owned(),
            port: 3128,
            addresses: Addresses::pending(),
            credential: credential.map(Secret::new),
        })
    }

    fn tls(name: &str, digest: u8) -> Option<Tls> {
        // The same settings read again make another `ClientSide`.
        let side = Authority::new().client_side(&[]);
        let name = server_name(name).expect("a name");
        Some(Tls { side, name, settings_digest: [digest; 32] })
    }

    #[test]
    fn the_id_changes_with_what_makes_a_connection_another_one_and_with_nothing_else() {
        let base = Origin::new(settings()).id;
        let slow = Timeouts { connect: Duration::from_secs(9), ..Timeouts::default() };
        let few = Limits { connections_max: 1, ..Limits::default() };
        for (what, changed, same) in [
            ("nothing", settings(), true),
            ("timeouts", Settings { timeouts: slow, ..settings() }, true),
            ("limits", Settings { limits: few, ..settings() }, true),
            ("addresses", Settings { addresses: Addresses::known([]), ..settings() }, true),
            ("name", Settings { name: "openai-eu".to_owned(), ..settings() }, false),
            ("host", Settings { host: "api.example.org".to_owned(), ..settings() }, false),
            ("port", Settings { port: 80, ..settings() }, false),
            ("proxy", Settings { proxy: proxy(None), ..settings() }, false),
            ("tls", Settings { tls: tls("api.example.com", 0), ..settings() }, false),
        ] {
            assert_eq!(Origin::new(changed).id == base, same, "{what}");
        }
        let with = |name, digest| Origin::new(Settings { tls: tls(name, digest), ..settings() }).id;
        assert_eq!(with("api.example.com", 0), with("api.example.com", 0));
        assert_ne!(with("api.example.com", 0), with("api.example.org", 0));
        assert_ne!(with("api.example.com", 0), with("api.example.com", 1));
        let with = |credential| Origin::new(Settings { proxy: proxy(credential), ..settings() }).id;
        assert_ne!(with(None), with(Some("user:one")));
        assert_ne!(with(Some("user:two")), with(Some("user:one")));
    }

    #[test]
    fn an_ipv6_authority_has_brackets() {
        let at = |host: &str| Origin::new(Settings { host: host.to_owned(), ..settings() }).authority();
        assert_eq!((at("::1"), at("192.0.2.1")), ("[::1]:443".to_owned(), "192.0.2.1:443".to_owned()));
    }
}
