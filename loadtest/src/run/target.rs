//! Where requests go: scheme, address, host name and TLS of a target URL.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::net::stream::{Address, Stream, certificates};
use crate::scenario::Http;

#[derive(Clone)]
pub struct Target {
    pub url: String,
    pub address: Address,
    /// Value of the host field.
    pub host: String,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

/// How the target's certificate is judged.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Certificates of this PEM file.
    Roots(&'a Path),
    /// Nothing is verified: loopback rigs with certificates of their own.
    DangerAnyCertificate,
}

impl Target {
    /// Reads `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
    pub fn parse(url: &str, trust: Trust<'_>) -> Result<Self, String> {
        let need = "need http://HOST:PORT, https://HOST:PORT or unix:PATH";
        if let Some(path) = url.strip_prefix("unix:") {
            let address = Address::Unix(path.into());
            return Ok(Self { url: url.to_owned(), address, host: "localhost".to_owned(), tls: None });
        }
        let (rest, is_tls) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return Err(format!("target {url:?}: {need}")),
        };
        let host = rest.trim_end_matches('/');
        if host.is_empty() || host.contains('/') {
            return Err(format!("target {url:?}: {need}, without a path"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let default_port = if is_tls { 443 } else { 80 };
        let with_port = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
        let found = with_port.to_socket_addrs().map_err(|error| format!("target {url:?}: {error}"))?.next();
        let address = Address::Ip(found.ok_or_else(|| format!("target {url:?}: the name has no address"))?);
        let tls = is_tls.then(|| tls(url, host, trust)).transpose()?;
        Ok(Self { url: url.to_owned(), address, host: host.to_owned(), tls })
    }

    pub fn connect(&self) -> std::io::Result<Stream> {
        let tls = match &self.tls {
            Some((config, name)) => {
                let made = rustls::ClientConnection::new(config.clone(), name.clone());
                Some(made.map_err(std::io::Error::other)?)
            }
            None => None,
        };
        Stream::connect(&self.address, tls)
    }

    /// The same target, offering this version in TLS.
    pub fn speaking(mut self, http: Http) -> Self {
        if let Some((config, _)) = &mut self.tls {
            let mut changed = (**config).clone();
            changed.alpn_protocols = match http {
                Http::One => vec![b"http/1.1".to_vec()],
                Http::Two => vec![b"h2".to_vec()],
            };
            *config = Arc::new(changed);
        }
        self
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

type Tls = (Arc<rustls::ClientConfig>, ServerName<'static>);

fn tls(url: &str, host: &str, trust: Trust<'_>) -> Result<Tls, String> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let name = ServerName::try_from(name.to_owned()).map_err(|error| format!("target {url:?}: {error}"))?;
    let builder = rustls::ClientConfig::builder();
    let mut config = match trust {
        Trust::Roots(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::DangerAnyCertificate => {
            let verifier = Arc::new(danger::AnyCertificate);
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), name))
}

mod danger {
    //! Accepts any certificate; signatures of the handshake are still checked.

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::ring::default_provider;
    use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct AnyCertificate;

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _certificate: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = default_provider().signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signed, &algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = default_provider().signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signed, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, Trust};
    use crate::net::stream::Address;

    #[test]
    fn urls_are_read_and_wrong_ones_told_what_is_needed() {
        let parse = |url: &str| Target::parse(url, Trust::DangerAnyCertificate);
        let address = |url: &str| parse(url).map(|target| target.address);
        let ip = |text: &str| Ok(Address::Ip(text.parse().expect("an address")));
        assert_eq!(address("http://127.0.0.1:81"), ip("127.0.0.1:81"));
        assert_eq!(address("http://[::1]:81/"), ip("[::1]:81"));
        assert_eq!(address("https://127.0.0.1"), ip("127.0.0.1:443"));
        assert_eq!(address("unix:/a/b"), Ok(Address::Unix("/a/b".into())));
        for wrong in ["127.0.0.1:80", "ftp://x", "http://", "http://127.0.0.1:80/v1"] {
            let error = parse(wrong).map(|_| ()).expect_err("must be refused");
            assert!(error.contains("need http://HOST:PORT"), "{error}");
        }
    }
}
