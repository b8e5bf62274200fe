//! A restart that loses nothing: a second process listens beside the first, takes the admin address over, and
//! the first one drains.

use crate::cli::{Directory, ended};
use crate::process::gateway::{Gateway, KEY, ask_models, config, soon, status};
use crate::process::scaled;
use crate::process::streams::{Callers, Plan, provider, run};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

const LOG_OFF: &str = "[log]\naccess = \"off\"\n";

/// Callers that ask until they are told to stop or are not answered: how often which status came; 0 is no answer.
struct Asking {
    enough: Arc<AtomicBool>,
    threads: Vec<JoinHandle<BTreeMap<u16, u64>>>,
}

impl Asking {
    /// Two that come anew for each call, and two that keep their connection until they are told that it ends.
    fn start(address: SocketAddr) -> Asking {
        let enough = Arc::new(AtomicBool::new(false));
        let ways = [ask_models, ask_models, ask_on_one_connection, ask_on_one_connection];
        let threads = ways.map(|ask| {
            let enough = Arc::clone(&enough);
            std::thread::spawn(move || {
                let mut came = BTreeMap::new();
                while !enough.load(Relaxed) {
                    let status = ask(address);
                    *came.entry(status).or_default() += 1;
                    if status != 200 {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                came
            })
        });
        Asking { enough, threads: threads.into() }
    }

    /// Every one must have been answered.
    fn check(mut self) {
        self.enough.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let came = thread.join().unwrap();
            assert!(came.len() == 1 && came[&200] > 0, "statuses and how often they came: {came:?}");
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.enough.store(true, Relaxed);
    }
}

/// Asks on one connection, with a pause between, until the gateway says that it ends: the worst status. A
/// request that is not answered counts, too: what the gateway lets idle for so short must not end.
fn ask_on_one_connection(address: SocketAddr) -> u16 {
    let ask = || -> std::io::Result<u16> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        for _ in 0..20 {
            let request =
                format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"]}") {
                let mut piece = [0; 4096];
                match stream.read(&mut piece)? {
                    0 => return Ok(0),
                    n => answer.extend_from_slice(&piece[..n]),
                }
            }
            let answer = String::from_utf8_lossy(&answer).to_lowercase();
            if status(&answer) != 200 || answer.contains("connection: close") {
                return Ok(status(&answer));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(200)
    };
    ask().unwrap_or(0)
}

#[test]
fn a_takeover_cuts_no_stream_and_refuses_nobody() {
    let (streams, rounds) = scaled((20, 2), (500, 10));
    run(async {
        let upstream = provider().await;
        let mut old = Gateway::start(&config(upstream, LOG_OFF).replace("workers = 1", "workers = 2"));
        let asking = Asking::start(old.address);
        for _ in 0..rounds {
            let text = config(upstream, LOG_OFF).replace("workers = 1", "workers = 2");
            let text = text.replacen("127.0.0.1:0", &old.address.to_string(), 1);
            let text = text.replacen("127.0.0.1:0", &old.admin.to_string(), 1);
            let callers = Callers::default();
            let plan = |number| Plan { number, events: 60, gap: Duration::from_millis(20) };
            let work: Vec<_> = (0..streams).map(|number| callers.spawn(old.address, plan(number))).collect();
            callers.have_begun(streams as usize).await;
            let new = Gateway::take_over(&text);
            assert_eq!((new.address, new.admin), (old.address, old.admin));
            new.wait_told(&format!("another process listens on {}", old.address), 1);
            old.signal(Signal::TERM);
            old.wait_told("draining", 1);
            // The old one drains for as long as its streams run: none of its admin pages may be met then.
            assert!(soon(|| (0..20).all(|_| new.page("/readyz").0 == 200)));
            assert!(old.has_ended().is_none(), "streams run");
            assert!(soon(|| new.metrics()["tollgate_requests_total"] > 0.0), "nobody is served by the new");
            for caller in work {
                caller.await.unwrap().expect("the whole stream");
            }
            assert_eq!(old.exit(), Some(0), "{:#?}", old.told());
            old = new;
        }
        asking.check();
    });
}

#[test]
fn an_admin_socket_is_taken_over_and_outlives_the_old_process() {
    let (directory, upstream) = (Directory::new(), SocketAddr::from(([127, 0, 0, 1], 9)));
    let path = directory.path("admin.sock");
    let text = |address: &str| {
        let (own, socket) =
            ("[admin]\naddress = \"127.0.0.1:0\"", format!("[admin]\naddress = \"unix:{path}\""));
        config(upstream, LOG_OFF).replace(own, &socket).replace("127.0.0.1:0", address)
    };
    let mut old = Gateway::start(&text("127.0.0.1:0"));
    assert_eq!(ready_by(&path), 200);
    let fixed = text(&old.address.to_string());
    let came = ended(&["run", &directory.file("plain.toml", &fixed)]);
    assert_eq!(came.status, Some(1), "without the flag: {}", came.stderr);
    let mut new = Gateway::take_over(&fixed);
    old.signal(Signal::TERM);
    assert_eq!(ready_by(&path), 200);
    assert_eq!(old.exit(), Some(0));
    assert_eq!((ready_by(&path), ask_models(new.address)), (200, 200));
    new.signal(Signal::TERM);
    assert_eq!(new.exit(), Some(0));
    assert!(!std::path::Path::new(&path).exists(), "the last one removes it");
}

/// The status of /readyz at a socket file.
fn ready_by(path: &str) -> u16 {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    status(&answer)
}

#[test]
fn a_takeover_that_fails_is_one_line_and_no_client_sees_it() {
    let gateway = Gateway::start(&config(SocketAddr::from(([127, 0, 0, 1], 9)), LOG_OFF));
    let asking = Asking::start(gateway.address);
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = foreign.local_addr().unwrap().to_string();
    let listener = format!("[[listener]]\naddress = \"{}\"\n", gateway.address);
    let directory = Directory::new();
    directory.file("plain", "");
    // What is wrong, config, what the line says.
    let rows = [
        (
            "a program that does not share its port",
            format!("[[listener]]\naddress = \"{busy}\"\n"),
            ["cannot take", &*busy],
        ),
        ("its admin address", format!("{listener}[admin]\naddress = \"{busy}\"\n"), ["(admin)", &*busy]),
        (
            "a file where the socket should be",
            format!("{listener}[admin]\naddress = \"unix:{}\"\n", directory.path("plain")),
            ["(admin)", "no socket"],
        ),
        (
            "a log that cannot be opened",
            format!("{listener}[log]\naccess = {{ file = \"{}/\" }}\n", directory.path(".")),
            ["access log", "directory"],
        ),
    ];
    for (what, text, said) in rows {
        let came = ended(&["run", "--takeover", &directory.file("c.toml", &text)]);
        assert_eq!(came.status, Some(1), "{what}: {}", came.stderr);
        let told: Vec<&str> = came.stderr.lines().filter(|line| !line.contains("warning: ")).collect();
        assert!(told.len() == 1 && said.iter().all(|word| told[0].contains(word)), "{what}: {told:?}");
    }
    asking.check();
}

#[test]
fn with_nobody_to_take_over_it_just_starts() {
    let gateway = Gateway::take_over(&config(SocketAddr::from(([127, 0, 0, 1], 9)), LOG_OFF));
    assert_eq!(ask_models(gateway.address), 200);
    assert!(gateway.told().iter().all(|line| !line.contains("another process")), "{:?}", gateway.told());
}
