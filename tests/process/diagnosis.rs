//! What an operator sees when a provider is set up wrongly or is down: each is told from the others by one
//! line of the access log, and the client gets 502, or 504 with the timer that ran out.

use crate::process::gateway::{Gateway, KEY, exchange, soon, status};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// How a provider behaves.
#[derive(Clone)]
enum Behaviour {
    /// Reads the request, sends this, then stays silent or closes.
    Sends(&'static str, Then),
    /// Takes the connection and says nothing.
    Deaf,
    Tls(Arc<ServerConfig>),
}

#[derive(Clone, Copy)]
enum Then {
    Silence,
    Close,
}

/// Serves in threads that end with the process.
fn provider(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let behaviour = behaviour.clone();
            std::thread::spawn(move || behave(stream, behaviour));
        }
    });
    address
}

fn behave(mut stream: TcpStream, behaviour: Behaviour) {
    let mut page = [0; 4096];
    match behaviour {
        Behaviour::Sends(bytes, then) => {
            let _ = stream.read(&mut page);
            let _ = stream.write_all(bytes.as_bytes());
            if matches!(then, Then::Silence) {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        Behaviour::Deaf => std::thread::sleep(Duration::from_secs(60)),
        Behaviour::Tls(config) => {
            let session = ServerConnection::new(config).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream);
            // A client that refuses the certificate goes away here.
            if stream.read(&mut page).is_ok_and(|len| len > 0) {
                let _ = stream.write_all(OK.as_bytes());
                let _ = stream.flush();
            }
        }
    }
}

/// A server with a certificate for `name` that ends in `year`, and the certificate.
fn server(name: &str, year: i32) -> (Behaviour, String) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new([name.to_string()]).unwrap();
    (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
    let cert = parameters.self_signed(&key).unwrap();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![cert.der().clone()], secret).unwrap();
    (Behaviour::Tls(Arc::new(config)), cert.pem())
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {}\n\n";
const CUT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}";
const FULL: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}";
const NO_PATH: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 22\r\n\r\n{\"detail\":\"Not Found\"}";
const INVALID_URL: &str = "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n\
    {\"error\":{\"message\":\"Invalid URL (POST /v1/chat/completions)\",\"code\":null}}";

/// A mistake: its name, where the provider is, more keys of it, the status, what the log's line says.
type Row = (&'static str, String, String, u16, &'static [&'static str]);

fn rows(directory: &crate::cli::Directory) -> Vec<Row> {
    let http = |behaviour| format!("http://{}/v1", provider(behaviour));
    let https = |behaviour| format!("https://localhost:{}/v1", provider(behaviour).port());
    let ca = |name: &str, pem: &str| {
        directory.file(name, pem);
        format!("tls = {{ ca = \"{name}\" }}")
    };
    let none = String::new;
    let sends = |bytes, then| http(Behaviour::Sends(bytes, then));
    let ((good, _), (old, old_pem), (other, other_pem)) =
        (server("localhost", 2100), server("localhost", 2021), server("example.com", 2100));
    vec![
        ("down", "http://127.0.0.1:9/v1".to_string(), none(), 502, &["connection refused", "127.0.0.1:9"]),
        (
            "no-name",
            "http://no-such-host.invalid/v1".to_string(),
            none(),
            502,
            &["resolve", "no-such-host.invalid"],
        ),
        ("silent", sends("", Then::Silence), none(), 504, &["response_head_ms"]),
        ("closes", sends("", Then::Close), none(), 502, &["closed the connection without an answer"]),
        ("not-http", sends("SSH-2.0-x\r\n\r\n", Then::Close), none(), 502, &["invalid head"]),
        ("stalls", sends(STREAM, Then::Silence), none(), 200, &["idle_ms"]),
        ("cut", sends(CUT, Then::Close), none(), 200, &["before its answer ended"]),
        ("no-path", sends(NO_PATH, Then::Close), none(), 404, &["/v1/chat/completions", "base_url"]),
        ("invalid-url", sends(INVALID_URL, Then::Close), none(), 404, &["/v1/chat/completions", "base_url"]),
        ("deaf-tls", https(Behaviour::Deaf), none(), 504, &["tls_handshake_ms"]),
        (
            "not-tls",
            https(Behaviour::Sends("HTTP/1.1 400 x\r\n\r\n", Then::Close)),
            none(),
            502,
            &["not_tls"],
        ),
        ("unknown-ca", https(good), none(), 502, &["unknown_issuer"]),
        ("expired", https(old), ca("old.pem", &old_pem), 502, &["expired", "1609459200"]),
        ("other-name", https(other), ca("other.pem", &other_pem), 502, &["name_mismatch", "example.com"]),
    ]
}

#[test]
fn each_mistake_with_a_provider_is_told_from_the_others_by_one_line_of_the_log() {
    let directory = crate::cli::Directory::new();
    let mut text = "[server]\nworkers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
        [log]\naccess = { file = \"access.log\" }\n[timeout]\nconnect_ms = 400\ntls_handshake_ms = 400\n\
        response_head_ms = 400\nidle_ms = 400\n[[key]]\nname = \"blue\"\nhash = \
        \"sha256:da0c916dc50a298a6f3e26826c119601701640c14d1013c544afbce1ececa0fc\"\n"
        .to_string();
    let mut rows = rows(&directory);
    let full = provider(Behaviour::Sends(FULL, Then::Silence));
    let good = provider(Behaviour::Sends(OK, Then::Close));
    for (name, address) in [("full", full), ("good", good)] {
        write!(
            text,
            "[[provider]]\nname = \"{name}\"\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\n"
        )
        .unwrap();
    }
    for (name, url, more, ..) in &rows {
        write!(
            text,
            "[[provider]]\nname = \"{name}\"\nkind = \"openai\"\nbase_url = \"{url}\"\n{more}\n\
             [[model]]\nname = \"{name}\"\ntargets = [{{ provider = \"{name}\" }}]\n"
        )
        .unwrap();
    }
    text += "[[model]]\nname = \"falls-over\"\ntargets = [{ provider = \"down\" }, { provider = \"full\", weight = 0 }, \
        { provider = \"good\", weight = 0 }]\n";
    rows.push((
        "falls-over",
        String::new(),
        String::new(),
        200,
        &["connection refused", "provider full answered 503"],
    ));
    let command = crate::cli::tollgate();
    let gateway = Gateway::start_by(command, directory, &text, std::process::Stdio::null());
    for (at, (name, _, _, expected, words)) in rows.iter().enumerate() {
        let body = format!("{{\"model\":\"{name}\",\"stream\":true}}");
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(gateway.address, &request).unwrap_or_default();
        assert_eq!(status(&answer), *expected, "{name}: {answer}");
        assert!(soon(|| gateway.directory.read("access.log").lines().count() == at + 1), "{name}: no record");
        let log = gateway.directory.read("access.log");
        let line = log.lines().last().unwrap();
        let record: Value = serde_json::from_str(line).unwrap();
        let trouble = record["trouble"].as_str().unwrap_or_else(|| panic!("{name}: {line}"));
        eprintln!("{name}: {trouble}");
        assert!(words.iter().all(|word| trouble.contains(word)), "{name}: {trouble}");
        assert!(!answer.contains("127.0.0.1"), "{name}: the client is told an address: {answer}");
        if *expected == 504 {
            assert!(answer.contains(words[0]), "{name}: the client is not told which timer: {answer}");
        }
    }
    let metrics = gateway.metrics();
    let answers = |provider: &str, class: &str| {
        let labels = format!(
            "gen_ai_request_model=\"falls-over\",gen_ai_provider_name=\"{provider}\",class=\"{class}\""
        );
        metrics[&format!("tollgate_answers_total{{{labels}}}")]
    };
    assert_eq!([answers("down", "none"), answers("full", "5xx"), answers("good", "2xx")], [1.0; 3]);
    gateway.wait_told("the name no-such-host.invalid cannot be resolved", 1);
}
