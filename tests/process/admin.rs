//! The admin listener with TLS: who presents a certificate of the operators' authority may read, others only
//! whether the process lives.

use crate::cli::{Directory, tollgate};
use crate::process::gateway::{Gateway, soon, status};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
struct Leaf {
    cert: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Authority {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    fn leaf(&self) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(["localhost".to_string()]).unwrap();
        Leaf { cert: parameters.signed_by(&key, &self.0).unwrap(), key }
    }
}

/// Status and body of a page, asked for with `leaf`; none where no answer comes.
fn page(
    admin: SocketAddr,
    server: &Authority,
    leaf: Option<&Leaf>,
    path: &str,
    more: &str,
) -> Option<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(server.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match leaf {
        None => builder.with_no_client_auth(),
        Some(Leaf { cert, key }) => {
            let secret = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert.der().clone()], secret).unwrap()
        }
    };
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(admin).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // The server ends without a farewell at times; what counts is what came.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((status(head), body.to_string()))
}

#[test]
fn pages_are_for_those_with_a_certificate_and_health_is_for_all() {
    let (server, operators, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let directory = Directory::new();
    let Leaf { cert, key } = server.leaf();
    directory.file("cert.pem", &cert.pem());
    directory.file("key.pem", &key.serialize_pem());
    directory.file("operators.pem", &operators.0.pem());
    let config = |token: &str| {
        format!(
            "[server]\nworkers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n[admin]\n\
             address = \"127.0.0.1:0\"\n{token}tls = {{ cert = \"cert.pem\", key = \"key.pem\", \
             client_ca = \"operators.pem\" }}\n"
        )
    };
    let gateway = Gateway::start_by(tollgate(), directory, &config(""), Stdio::null());
    let (operator, stranger) = (operators.leaf(), strangers.leaf());
    let ask = |leaf, path, more| page(gateway.admin, &server, leaf, path, more).map(|(status, _)| status);
    // who, certificate, path, status
    let rows = [
        ("operator", Some(&operator), "/metrics", Some(200)),
        ("operator", Some(&operator), "/admin/v1/config", Some(200)),
        ("operator", Some(&operator), "/healthz", Some(200)),
        ("nobody", None, "/metrics", Some(403)),
        ("nobody", None, "/admin/v1/config", Some(403)),
        ("nobody", None, "/other", Some(403)),
        ("nobody", None, "/healthz", Some(200)),
        ("nobody", None, "/readyz", Some(200)),
        ("stranger", Some(&stranger), "/metrics", None),
        ("stranger", Some(&stranger), "/healthz", None),
    ];
    for (who, leaf, path, expected) in rows {
        assert_eq!(ask(leaf, path, ""), expected, "{who} {path}");
    }
    let (_, shown) = page(gateway.admin, &server, Some(&operator), "/admin/v1/config", "").unwrap();
    assert!(shown.contains("operators.pem"), "{shown}");

    // A token beside it is wanted, too.
    gateway.directory.file("token", "0123456789abcdef");
    gateway.directory.file("c.toml", &config("token = { file = \"token\" }\n"));
    gateway.signal(Signal::HUP);
    assert!(soon(|| ask(Some(&operator), "/metrics", "") == Some(401)), "{:?}", gateway.told());
    let bearer = "authorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(ask(Some(&operator), "/metrics", bearer), Some(200));
    assert_eq!(ask(None, "/metrics", bearer), Some(403));

    // Another authority: the old certificates are of no use any more.
    gateway.directory.file("operators.pem", &strangers.0.pem());
    gateway.signal(Signal::HUP);
    assert!(soon(|| ask(Some(&stranger), "/metrics", bearer) == Some(200)), "{:?}", gateway.told());
    assert_eq!(ask(Some(&operator), "/metrics", bearer), None);
}
