//! Certificates for tests, made on the spot, and the two sides that use them.

use crate::net::tls::{ClientSide, MinVersion, Roots, ServerSide};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The name in the certificates.
pub const NAME: &str = "upstream.test";

/// A certificate authority with a directory for its files, which goes with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// Files of a certificate and its key.
pub struct Leaf {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Authority {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("tollgate-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for test files");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, format!("test CA {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a CA certificate");
        Authority { issuer, directory }
    }

    /// A certificate for `NAME`.
    pub fn leaf(&self) -> Leaf {
        self.leaf_with("leaf", |_| {})
    }

    /// A certificate that `adjust` changes before it is signed.
    pub fn leaf_with(&self, file: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![NAME.to_string()]).expect("parameters");
        adjust(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let chain = self.file(&format!("{file}.pem"), &certificate.pem());
        Leaf { chain, key: self.file(&format!("{file}.key"), &key.serialize_pem()) }
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// The CA's certificate as a file.
    pub fn roots(&self) -> PathBuf {
        self.file("ca.pem", &self.issuer.pem())
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).expect("a test file");
        path
    }

    pub fn server_side(&self, alpn: &[&str]) -> ServerSide {
        self.server_side_with(&self.leaf(), alpn)
    }

    pub fn server_side_with(&self, leaf: &Leaf, alpn: &[&str]) -> ServerSide {
        ServerSide::from_files(&leaf.chain, &leaf.key, MinVersion::Tls12, alpn).expect("a server side")
    }

    pub fn client_side(&self, alpn: &[&str]) -> ClientSide {
        let roots = self.roots();
        ClientSide::new(Roots::File(&roots), MinVersion::Tls12, alpn).expect("a client side")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
