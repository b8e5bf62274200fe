//! What a listener and an upstream need for TLS, compiled once by control and shared by the workers.
//!
//! Shape: PEM files in, `ServerSide` and `ClientSide` out; both are cheap to clone. ring's ciphers, TLS 1.2
//! and 1.3. Early data is off: it can be replayed. Sessions can be resumed: a server by tickets whose keys
//! rotate every six hours (valid for twelve), a client from a cache of its worker (`sessions`). The ticket
//! keys are the one thing that workers share: each handshake takes their lock for reading. Errors:
//! `SetupError` names the file and what is wrong with it. There is no switch to leave out the check of a
//! certificate. Client certificates are asked for where control listens (`with_clients_of`). Absent: those of
//! workers' listeners and of upstreams, several certificates by name, OCSP.

use crate::base::clock;
use crate::net::tls::sessions::WorkerSessions;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The lowest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    #[default]
    Tls12,
    Tls13,
}

/// The TLS of a listener.
#[derive(Clone)]
pub struct ServerSide {
    pub(in crate::net::tls) config: Arc<ServerConfig>,
}

/// The TLS of an upstream.
#[derive(Clone)]
pub struct ClientSide {
    pub(in crate::net::tls) config: Arc<ClientConfig>,
}

/// Which certificate authorities an upstream's certificate may come from.
#[derive(Clone, Copy, Debug)]
pub enum Roots<'a> {
    /// Those that the system trusts.
    System,
    /// Those in this PEM file only.
    File(&'a Path),
    /// Those in this PEM text only.
    Pem(Pem<'a>),
}

/// The text of a PEM file that was read already.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// Named in errors.
    pub path: &'a Path,
    pub text: &'a [u8],
}

impl fmt::Debug for Pem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({})", self.path.display())
    }
}

/// A setting that cannot work.
#[derive(Debug)]
pub struct SetupError {
    /// The file at fault; none where it is the system's store.
    pub file: Option<PathBuf>,
    what: String,
}

impl ServerSide {
    /// A certificate chain (its own first) and its private key, from PEM files. `alpn` lists protocols, the
    /// preferred first; a client that offers none of them is refused, one that offers no list at all is not.
    pub fn from_files(
        chain: &Path,
        key: &Path,
        min_version: MinVersion,
        alpn: &[&str],
    ) -> Result<ServerSide, SetupError> {
        let (chain_text, key_text) = (read(chain)?, read(key)?);
        let chain = Pem { path: chain, text: &chain_text };
        ServerSide::from_pem(chain, Pem { path: key, text: &key_text }, min_version, alpn)
    }

    /// As `from_files`, of texts that were read already.
    pub fn from_pem(
        chain: Pem<'_>,
        key: Pem<'_>,
        min_version: MinVersion,
        alpn: &[&str],
    ) -> Result<ServerSide, SetupError> {
        ServerSide::with_verifier(chain, key, min_version, alpn, WebPkiClientVerifier::no_client_auth())
    }

    /// As `from_pem`; clients may present a certificate of the authorities in `client_ca`. One that is not theirs
    /// ends the handshake; whether one was presented, the caller asks the connection.
    pub fn with_clients_of(
        client_ca: Pem<'_>,
        chain: Pem<'_>,
        key: Pem<'_>,
        min_version: MinVersion,
        alpn: &[&str],
    ) -> Result<ServerSide, SetupError> {
        let roots = Arc::new(roots_in(client_ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).allow_unauthenticated();
        let verifier =
            verifier.build().map_err(|error| SetupError::new(Some(client_ca.path), error.to_string()))?;
        ServerSide::with_verifier(chain, key, min_version, alpn, verifier)
    }

    /// For connections that control makes itself.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    fn with_verifier(
        chain: Pem<'_>,
        key: Pem<'_>,
        min_version: MinVersion,
        alpn: &[&str],
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Result<ServerSide, SetupError> {
        let certificates = certificates_in(chain)?;
        let private_key = private_key_in(key)?;
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(BaseClock))
            .with_protocol_versions(versions(min_version))
            .map_err(|error| SetupError::new(None, error.to_string()))?
            .with_client_cert_verifier(verifier);
        let mut config =
            builder.with_single_cert(certificates, private_key).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => SetupError::new(
                    Some(key.path),
                    format!("the key does not belong to the certificate in {}", chain.path.display()),
                ),
                error @ rustls::Error::InvalidCertificate(_) => {
                    SetupError::new(Some(chain.path), error.to_string())
                }
                error => SetupError::new(Some(key.path), error.to_string()),
            })?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.ticketer = ring::Ticketer::new().map_err(|error| SetupError::new(None, error.to_string()))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.enable_secret_extraction = true;
        Ok(ServerSide { config: Arc::new(config) })
    }
}

impl fmt::Debug for ServerSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSide")
    }
}

impl fmt::Debug for ClientSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSide")
    }
}

impl ClientSide {
    /// `alpn` lists the protocols to offer; empty offers no list.
    pub fn new(roots: Roots<'_>, min_version: MinVersion, alpn: &[&str]) -> Result<ClientSide, SetupError> {
        let roots = match roots {
            Roots::System => system_roots()?,
            Roots::File(path) => roots_in(Pem { path, text: &read(path)? })?,
            Roots::Pem(pem) => roots_in(pem)?,
        };
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(BaseClock))
            .with_protocol_versions(versions(min_version))
            .map_err(|error| SetupError::new(None, error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::store(Arc::new(WorkerSessions::default()));
        config.enable_secret_extraction = true;
        Ok(ClientSide { config: Arc::new(config) })
    }

    /// For a TLS stack that is not this module's: that of control's webhook.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// The name that an upstream's certificate must be for, sent to it as SNI: a DNS name, or an IP address
/// (which is not sent).
pub fn server_name(host: &str) -> Result<ServerName<'static>, SetupError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned())
        .map_err(|_| SetupError::new(None, format!("{host:?} is no DNS name and no IP address")))
}

impl SetupError {
    fn new(file: Option<&Path>, what: impl Into<String>) -> SetupError {
        SetupError { file: file.map(Path::to_owned), what: what.into() }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}: {}", file.display(), self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for SetupError {}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match min {
        MinVersion::Tls12 => &ALL,
        MinVersion::Tls13 => &ALL[..1],
    }
}

/// Certificates are judged by the clock that everything else reads.
#[derive(Debug)]
struct BaseClock;

impl TimeProvider for BaseClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(clock::unix_ms())))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(file).map_err(|error| SetupError::new(Some(file), error.to_string()))
}

fn certificates_in(pem: Pem<'_>) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(SetupError::new(
            Some(pem.path),
            "no certificate in it: a PEM section BEGIN CERTIFICATE is needed",
        )),
        Err(error) => Err(SetupError::new(Some(pem.path), pem_error(&error))),
    }
}

fn private_key_in(pem: Pem<'_>) -> Result<PrivateKeyDer<'static>, SetupError> {
    let is_encrypted = memchr::memmem::find(pem.text, b"BEGIN ENCRYPTED PRIVATE KEY").is_some()
        || memchr::memmem::find(pem.text, b"Proc-Type: 4,ENCRYPTED").is_some();
    if is_encrypted {
        return Err(SetupError::new(
            Some(pem.path),
            "the private key is encrypted: one without a passphrase is needed",
        ));
    }
    PrivateKeyDer::from_pem_slice(pem.text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            SetupError::new(Some(pem.path), "no private key in it: a PEM section BEGIN PRIVATE KEY is needed")
        }
        error => SetupError::new(Some(pem.path), pem_error(&error)),
    })
}

/// What is wrong with a PEM text, without its content: it may hold a key.
fn pem_error(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "not PEM: a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "not PEM: a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "not PEM: a section is not base64",
        _ => "not PEM",
    }
}

fn roots_in(pem: Pem<'_>) -> Result<RootCertStore, SetupError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| {
            SetupError::new(Some(pem.path), format!("not usable as a CA certificate: {error}"))
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, SetupError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold old certificates that cannot be read; the others count.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let reason = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        let what = format!(
            "the system's store holds no CA certificate{reason}: install ca-certificates or give a CA file"
        );
        return Err(SetupError::new(None, what));
    }
    Ok(roots)
}
