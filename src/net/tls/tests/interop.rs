//! Conversations with OpenSSL's command line and Python's ssl, over loopback. A tool that is absent is said
//! and left out.

use super::authority::{Authority, NAME};
use super::network::{listen, read, read_end, send};
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::page::Page;
use crate::net::runtime::{self, Wish};
use crate::net::send::SendList;
use crate::net::stream::{self, Received};
use crate::net::tls::{self, ServerSide, server_name};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a conversation may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Serves one connection after the other with an echo until `count` are done; gives the address.
fn serve(side: ServerSide, count: usize) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let (say, hear) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let ran = runtime::run(
            Wish::Epoll,
            |_| {},
            || async move {
                let (listener, address) = listen();
                say.send(address).expect("the test waits");
                for _ in 0..count {
                    within(async {
                        let stream = listener.accept().await.expect("a connection").stream;
                        // A client may refuse: what it made of the connection is judged by its output.
                        if let Ok(conn) = tls::accept(stream, &side).await {
                            let _ = echo(&conn).await;
                            conn.shutdown().await;
                        }
                    })
                    .await;
                }
            },
        );
        ran.expect("a runtime");
    });
    (hear.recv().expect("an address"), server)
}

async fn echo(conn: &Conn) -> std::io::Result<()> {
    loop {
        let mut page = Page::rent();
        match conn.recv(&mut page).await? {
            0 => return Ok(()),
            n => {
                let mut list = SendList::new();
                list.push_slice(page.slice(0..n));
                conn.send(list).await?;
            }
        }
    }
}

/// Runs `main` against a server at `address` on a runtime of its own.
fn converse<F: Future<Output = ()>>(address: SocketAddr, main: impl FnOnce(stream::Stream) -> F) {
    let ran = runtime::run(
        Wish::Epoll,
        |_| {},
        || {
            within(async move {
                let stream = stream::connect(address).await.expect("a connection");
                main(stream).await;
            })
        },
    );
    ran.expect("a runtime");
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let deadline = Deadline::unset();
    deadline.set(LIMIT);
    deadline.bound(work).await.expect("it ends in time")
}

/// Whether `tool` can be run; says it where not.
fn has(tool: &str, argument: &str) -> bool {
    let found = Command::new(tool).arg(argument).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: {tool} is not installed");
    }
    found
}

/// What `openssl s_client` says when it is given lines, each when what follows from the one before has been seen:
/// it takes a letter for a command only where that stands alone in what it reads. A word must not stand in what it
/// says of itself ("one" is in "None"). Every word of both its outputs.
///
/// It was given them after pauses of 150 ms once, which a busy machine let run together.
fn s_client(address: SocketAddr, authority: &Authority, options: &[&str], lines: &[(&str, &str)]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", NAME, "-verify_hostname", NAME])
        .arg("-CAfile")
        .arg(authority.roots())
        .args(["-verify_return_error"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut input = child.stdin.take().expect("a pipe");
    let (out, err) = (Heard::of(child.stdout.take()), Heard::of(child.stderr.take()));
    let seen = |what: &str| out.count(what) + err.count(what);
    for (line, then) in lines {
        let before = seen(then);
        // A client that has given up takes no more lines.
        if writeln!(input, "{line}").is_err() {
            break;
        }
        let begun = Instant::now();
        while seen(then) == before && !out.reader.is_finished() && begun.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    drop(input);
    child.wait().expect("openssl ends");
    format!("{}\n{}", out.whole(), err.whole())
}

/// What a child says, gathered as it comes.
struct Heard {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Heard {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Heard {
        let mut pipe = pipe.expect("a pipe");
        let text = Arc::new(Mutex::new(String::new()));
        let gathered = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut bytes) {
                gathered.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Heard { text, reader }
    }

    fn count(&self, what: &str) -> usize {
        self.text.lock().expect("no panic").matches(what).count()
    }

    fn whole(self) -> String {
        self.reader.join().expect("no panic");
        std::mem::take(&mut *self.text.lock().expect("no panic"))
    }
}

#[test]
fn openssl_as_the_client_converses_updates_keys_and_resumes() {
    if !has("openssl", "version") {
        return;
    }
    let authority = Authority::new();
    for (version, has_updates) in [("-tls1_2", false), ("-tls1_3", true)] {
        let (address, server) = serve(authority.server_side(&["http/1.1"]), 2);
        let session = authority.file("session.pem", "");
        let session = session.to_str().expect("a path of text");
        // A line K asks for a key update of both sides, k for one of the client's.
        let update = [
            ("alpha", "alpha"),
            ("K", "KEYUPDATE"),
            ("beta", "beta"),
            ("k", "KEYUPDATE"),
            ("gamma", "gamma"),
        ];
        let lines = if has_updates {
            &update[..]
        } else {
            &[("alpha", "alpha"), ("beta", "beta"), ("gamma", "gamma")]
        };
        let said =
            s_client(address, &authority, &[version, "-alpn", "http/1.1", "-sess_out", session], lines);
        for part in ["alpha", "beta", "gamma", "Verification: OK", "ALPN protocol: http/1.1"] {
            assert!(said.contains(part), "{version}: {part} is not in:\n{said}");
        }
        assert_eq!(said.contains("KEYUPDATE"), has_updates, "{version}:\n{said}");
        let said = s_client(address, &authority, &[version, "-sess_in", session], &[("delta", "delta")]);
        assert!(said.contains("Reused, ") && said.contains("delta"), "{version}:\n{said}");
        server.join().expect("the server ends");
    }
}

#[test]
fn openssl_with_a_key_exchange_that_is_not_ours_is_asked_again() {
    if !has("openssl", "version") {
        return;
    }
    let authority = Authority::new();
    let (address, server) = serve(authority.server_side(&[]), 1);
    let said = s_client(address, &authority, &["-tls1_3", "-groups", "P-521:P-256"], &[("alpha", "alpha")]);
    assert!(said.contains("alpha") && said.contains("Server Temp Key: ECDH, prime256v1"), "{said}");
    server.join().expect("the server ends");
}

#[test]
fn openssl_is_refused_a_renegotiation() {
    if !has("openssl", "version") {
        return;
    }
    let authority = Authority::new();
    let (address, server) = serve(authority.server_side(&[]), 1);
    let said = s_client(address, &authority, &["-tls1_2"], &[("alpha", "alpha"), ("R", "no renegotiation")]);
    assert!(said.contains("alpha") && said.contains("no renegotiation"), "{said}");
    server.join().expect("the server ends");
}

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A free port of loopback, for a tool that takes a number.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

#[test]
fn openssl_as_the_server_converses_and_resumes() {
    if !has("openssl", "version") {
        return;
    }
    let authority = Authority::new();
    let leaf = authority.leaf();
    for version in ["-tls1_2", "-tls1_3"] {
        let port = free_port();
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-rev", version, "-alpn", "http/1.1", "-accept", &port.to_string()])
            .arg("-cert")
            .arg(&leaf.chain)
            .arg("-key")
            .arg(&leaf.key)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let _server = Running(server.expect("openssl runs"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_for(address);
        let client = authority.client_side(&["http/1.1"]);
        for is_resumed in [false, true] {
            converse(address, |stream| async {
                let name = server_name(NAME).expect("a name");
                let conn = tls::connect(stream, &client, &name).await.expect("a handshake");
                let agreed = conn.agreed().cloned().expect("TLS");
                assert_eq!(agreed.alpn.as_deref(), Some(&b"http/1.1"[..]));
                assert_eq!(agreed.is_resumed, is_resumed, "{version}");
                send(&conn, b"stressed\n").await.expect("sent");
                assert_eq!(read(&conn, 9).await.expect("an answer"), b"desserts\n");
                conn.shutdown().await;
                assert_eq!(read_end(&conn).await.expect("the closing alert"), Received::End);
            });
        }
    }
}

fn wait_for(address: SocketAddr) {
    for _ in 0..100 {
        // A connection to a port that nobody listens at may be given that very port and meet itself.
        let is_answered = |stream: TcpStream| stream.local_addr().is_ok_and(|local| local != address);
        if TcpStream::connect(address).is_ok_and(is_answered) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing listens at {address}");
}

/// A client that sends a megabyte in parts of drawn sizes, reads it back, and says goodbye both ways. One thread:
/// two of them broke the connection now and then, since Python before 3.13 lets both into OpenSSL at once.
const PYTHON_CLIENT: &str = r#"
import random, socket, ssl, sys
port, roots, name, version = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
context = ssl.create_default_context(cafile=roots)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
random.seed(7)
data = random.randbytes(1 << 20)
connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=name)
at, back = 0, b""
while len(back) < len(data):
    # So much finds room in the sockets, however long nobody reads.
    if at < len(data) and at - len(back) < 16384:
        n = random.choice([1, 7, 150, 4000, 16384, 16385, 50000])
        connection.sendall(data[at:at + n])
        at = min(at + n, len(data))
        continue
    part = connection.recv(random.choice([1, 100, 5000, 65536]) if len(back) > 1000 else 1)
    if not part:
        sys.exit("ended after %d bytes" % len(back))
    back += part
if back != data:
    sys.exit("other bytes came back")
plain = connection.unwrap()
print(connection.version() or version, "ok")
"#;

#[test]
fn python_as_the_client_gets_a_megabyte_back() {
    if !has("python3", "--version") {
        return;
    }
    let authority = Authority::new();
    let roots = authority.roots();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let (address, server) = serve(authority.server_side(&[]), 1);
        let output = Command::new("python3")
            .args(["-c", PYTHON_CLIENT, &address.port().to_string()])
            .arg(&roots)
            .args([NAME, version])
            .output()
            .expect("python3 runs");
        assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
        server.join().expect("the server ends");
    }
}

/// A server that answers one line with a kilobyte and ends without a closing alert, as careless servers do.
const PYTHON_SERVER: &str = r#"
import socket, ssl, sys
port, chain, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(chain, key)
listener = socket.create_server(("127.0.0.1", port))
while True:
    plain, _ = listener.accept()
    try:
        connection = context.wrap_socket(plain, server_side=True)
        if connection.recv(100) == b"politely\n":
            connection.sendall(b"x" * 1000)
            connection.unwrap()
        else:
            connection.sendall(b"x" * 1000)
        connection.close()
    except (OSError, ssl.SSLError):
        pass
"#;

#[test]
fn an_end_of_python_without_goodbye_is_told_from_one_with() {
    if !has("python3", "--version") {
        return;
    }
    let authority = Authority::new();
    let leaf = authority.leaf();
    let port = free_port();
    let server = Command::new("python3")
        .args(["-c", PYTHON_SERVER, &port.to_string()])
        .args([&leaf.chain, &leaf.key])
        .stderr(Stdio::null())
        .spawn();
    let _server = Running(server.expect("python3 runs"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(address);
    let client = authority.client_side(&[]);
    for (line, expected) in
        [("politely\n", Ok(Received::End)), ("rudely\n", Err(std::io::ErrorKind::UnexpectedEof))]
    {
        converse(address, |stream| async {
            let name = server_name(NAME).expect("a name");
            let conn = tls::connect(stream, &client, &name).await.expect("a handshake");
            send(&conn, line.as_bytes()).await.expect("sent");
            assert_eq!(read(&conn, 1000).await.expect("an answer"), vec![b'x'; 1000]);
            let end = read_end(&conn).await.map_err(|error| error.kind());
            assert_eq!(end, expected, "{line}");
            conn.shutdown().await;
        });
    }
}
