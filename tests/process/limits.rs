//! Limits hold exactly, on the built binary: any number of workers, however the requests come, across reloads.
//!
//! A provider of the test's own answers at once, with the usage that the gateway reserves for these requests, so
//! a budget of n requests takes n. Rates are counted in minutes of the boot clock: what a window's edge has
//! fallen into is done again with a new gateway.

use crate::cli::Directory;
use crate::process::gateway::{Gateway, config};
use crate::process::streams::run;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// 3 bytes a token before anything is known, and so few are not learned from: 10 tokens in, 5 out.
const BODY: &str = r#"{"model":"m","max_tokens":5}"#;
const TOKENS: u64 = 15;

/// What is answered at once, or when it is let go.
#[derive(Clone, Default)]
struct Provider {
    is_holding: Rc<Cell<bool>>,
    held: Rc<Cell<usize>>,
    go: Rc<Notify>,
}

impl Provider {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let provider = self.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let provider = provider.clone();
                // The gateway ends its connections as it likes.
                tokio::task::spawn_local(async move { drop(provider.serve(stream).await) });
            }
        });
        address
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{usage}",
            usage.len()
        );
        let mut unread = Vec::new();
        while read_message(&mut stream, &mut unread).await.is_some() {
            if self.is_holding.get() {
                self.held.set(self.held.get() + 1);
                self.go.notified().await;
                self.held.set(self.held.get() - 1);
            }
            stream.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }

    fn let_go(&self) {
        self.is_holding.set(false);
        self.go.notify_waiters();
    }
}

/// The head of the next message, whose body is taken off, too.
async fn read_message(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<String> {
    let head_len = loop {
        if let Some(at) = memchr::memmem::find(unread, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&unread[..head_len]).to_lowercase();
    let length: usize =
        field(&head, "content-length").and_then(|value| value.parse().ok()).expect("a length");
    while unread.len() < head_len + length {
        if stream.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    }
    unread.drain(..head_len + length);
    Some(head)
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// A connection of a client.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    async fn new(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("the gateway listens");
        stream.set_nodelay(true).expect("a socket");
        Client { stream, unread: Vec::new() }
    }

    /// The head of the answer to one request of a key.
    async fn ask(&mut self, key: &str, body: &str) -> String {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer tg-{key}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.expect("the gateway reads");
        let head = read_message(&mut self.stream, &mut self.unread).await.expect("an answer");
        assert_eq!(field(&head, "connection"), None, "it goes on, whatever was answered: {head}");
        head
    }
}

/// How requests come.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// On one connection, so on one worker.
    One,
    /// On many at once.
    Spread,
    /// On one at a time, each of them for a while.
    Moving,
}

const WAYS: [Way; 3] = [Way::One, Way::Spread, Way::Moving];
const CONNECTIONS: usize = 12;

/// What came of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Came {
    answered: usize,
    refused: usize,
    /// What is wrong with an answer.
    wrong: Option<String>,
}

impl Came {
    fn note(&mut self, head: &str, limit: Option<usize>) {
        let told = |name: &str| field(head, name).and_then(|value| value.parse::<usize>().ok());
        if head.starts_with("http/1.1 200") {
            self.answered += 1;
        } else if head.starts_with("http/1.1 429") {
            self.refused += 1;
            let is_usable = told("retry-after").is_some_and(|seconds| (1..=60).contains(&seconds));
            let is_told = limit.is_none_or(|limit| {
                told("x-ratelimit-limit-requests") == Some(limit)
                    && told("x-ratelimit-remaining-requests") == Some(0)
                    && field(head, "x-ratelimit-reset-requests").is_some_and(|reset| reset.ends_with('s'))
            });
            if !is_usable || !is_told {
                self.wrong = Some(head.to_owned());
            }
        } else {
            self.wrong = Some(head.to_owned());
        }
    }
}

/// Sends so many requests of a key. `limit`: its requests a minute, which answers tell.
async fn send(address: SocketAddr, way: Way, key: &str, count: usize, limit: Option<usize>) -> Came {
    let mut came = Came::default();
    match way {
        Way::One | Way::Moving => {
            let connections = if matches!(way, Way::One) { 1 } else { CONNECTIONS };
            for requests in shares(count, connections) {
                let mut client = Client::new(address).await;
                for _ in 0..requests {
                    came.note(&client.ask(key, BODY).await, limit);
                }
            }
        }
        Way::Spread => {
            let clients: Vec<JoinHandle<Vec<String>>> = shares(count, CONNECTIONS)
                .map(|requests| {
                    let key = key.to_owned();
                    tokio::task::spawn_local(async move {
                        let (mut client, mut heads) = (Client::new(address).await, Vec::new());
                        for _ in 0..requests {
                            heads.push(client.ask(&key, BODY).await);
                        }
                        heads
                    })
                })
                .collect();
            for client in clients {
                client.await.expect("it ends").iter().for_each(|head| came.note(head, limit));
            }
        }
    }
    came
}

/// `count` in so many parts, the first ones larger by one; those of nothing left out.
fn shares(count: usize, parts: usize) -> impl Iterator<Item = usize> {
    (0..parts).map(move |part| count / parts + usize::from(part < count % parts)).filter(|share| *share > 0)
}

/// A `[[key]]` section of the key `tg-NAME`.
fn key(name: &str, more: &str) -> String {
    let hash = Sha256::digest(format!("tg-{name}"));
    let hash = hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    format!("[[key]]\nname = \"{name}\"\nhash = \"sha256:{hash}\"\n{more}\n\n")
}

fn with_workers(text: &str, workers: usize) -> String {
    text.replace("workers = 1", &format!("workers = {workers}"))
}

fn minute() -> i64 {
    clock_gettime(ClockId::Monotonic).tv_sec / 60
}

/// What `test` gives where no minute has ended meanwhile.
async fn within_a_minute<T>(mut test: impl AsyncFnMut() -> T) -> T {
    for _ in 0..5 {
        let (before, came) = (minute(), test().await);
        if minute() == before {
            return came;
        }
    }
    panic!("it takes so long that a minute ends each time");
}

#[test]
fn n_requests_a_minute_are_n_on_any_number_of_workers_however_they_come() {
    let limits = [1_usize, 3, 10, 600];
    for workers in [1, 2, 8] {
        run(async {
            let upstream = Provider::default().start().await;
            let name = |way: Way, limit: usize| format!("{way:?}-{limit}").to_lowercase();
            let rows = || WAYS.into_iter().flat_map(|way| limits.map(|limit| (way, limit)));
            let keys: String = rows()
                .map(|(way, limit)| {
                    key(&name(way, limit), &format!("limits = {{ requests_per_minute = {limit} }}"))
                })
                .collect();
            let text = with_workers(&config(upstream, &keys), workers);
            let came = within_a_minute(async || {
                let gateway = Gateway::start(&text);
                let mut came = Vec::new();
                for (way, limit) in rows() {
                    let key = name(way, limit);
                    came.push(send(gateway.address, way, &key, limit + limit / 4 + 4, Some(limit)).await);
                }
                came
            })
            .await;
            for ((way, limit), came) in rows().zip(came) {
                let expected = Came { answered: limit, refused: limit / 4 + 4, wrong: None };
                assert_eq!(came, expected, "{limit} a minute, {way:?}, {workers} workers");
            }
        });
    }
}

#[test]
fn n_of_a_team_a_model_or_a_provider_are_n_over_all_its_keys() {
    let team = "[[team]]\nname = \"t\"\nlimits = { requests_per_minute = 100 }\n\n";
    let target = "targets = [{ provider = \"up\" }]";
    let provider = "kind = \"openai\"";
    let limit = "limits = { requests_per_minute = 100 }";
    let tokens = format!("budget = {{ tokens = {}, window = \"total\" }}", 100 * TOKENS);
    // whose, text that is there, what stands there instead, of each key
    let rows = [
        ("a team's", "", team.to_owned(), "team = \"t\""),
        ("a model's", target, format!("{target}\n{limit}"), ""),
        ("a provider's", provider, format!("{provider}\n{limit}"), ""),
        ("a provider's budget", provider, format!("{provider}\n{tokens}"), ""),
    ];
    for (whose, old, new, of_key) in rows {
        run(async {
            let upstream = Provider::default().start().await;
            let keys = [key("a", of_key), key("b", of_key), key("c", of_key)].concat();
            let text = if old.is_empty() {
                config(upstream, &format!("{new}{keys}"))
            } else {
                config(upstream, &keys).replace(old, &new)
            };
            let text = with_workers(&text, 2);
            let came = within_a_minute(async || {
                // A budget in total outlives its process: each try has a state of its own.
                let state = Directory::new();
                let ledger = format!("\n[ledger]\ndirectory = \"{}\"\n", state.path("state"));
                let gateway = Gateway::start(&(text.clone() + &ledger));
                let mut sum = Came::default();
                for key in ["a", "b", "c", "a"] {
                    let came = send(gateway.address, Way::Spread, key, 40, None).await;
                    sum.answered += came.answered;
                    sum.refused += came.refused;
                    // A total budget names no time to come back.
                    sum.wrong = sum.wrong.or(came.wrong.filter(|_| !whose.ends_with("budget")));
                }
                sum
            })
            .await;
            assert_eq!(came, Came { answered: 100, refused: 60, wrong: None }, "{whose}");
        });
    }
}

#[test]
fn a_reload_refills_nothing_and_a_changed_limit_counts_what_was_used() {
    // at first, later, how many are answered in all
    for (limit, later, answered) in [(300, 300, 300), (300, 360, 360), (300, 150, 200)] {
        run(async {
            let upstream = Provider::default().start().await;
            let text = |limit: usize, number: u32| {
                let key = key("k", &format!("limits = {{ requests_per_minute = {limit} }}"));
                let more = format!("[timeout]\nkeep_alive_ms = {}\n\n{key}", 60_000 + number);
                with_workers(&config(upstream, &more), 2)
            };
            let came = within_a_minute(async || {
                let gateway = Gateway::start(&text(limit, 0));
                let mut client = Client::new(gateway.address).await;
                client.ask("k", BODY).await;
                let mut came = send(gateway.address, Way::Spread, "k", 199, None).await;
                gateway.directory.file("c.toml", &text(later, 1));
                gateway.signal(Signal::HUP);
                gateway.wait_told("generation 2 serves", 1);
                for _ in 0..10 {
                    came.note(&client.ask("k", BODY).await, None);
                }
                let after = send(gateway.address, Way::Moving, "k", 200, None).await;
                (came.answered + after.answered + 1, came.wrong.or(after.wrong))
            })
            .await;
            assert_eq!(came, (answered, None), "{limit}, then {later}");
        });
    }
}

#[test]
fn n_at_a_time_are_n_and_each_that_ends_makes_room() {
    for (workers, limit) in [(1, 1), (2, 3), (2, 10), (8, 100)] {
        run(async {
            let provider = Provider::default();
            let keys = key("k", &format!("limits = {{ concurrent = {limit} }}"));
            let text = with_workers(&config(provider.start().await, &keys), workers);
            let gateway = Gateway::start(&text);
            for round in 0..2 {
                provider.is_holding.set(true);
                let work: Vec<JoinHandle<String>> = (0..limit + 7)
                    .map(|_| {
                        let address = gateway.address;
                        tokio::task::spawn_local(
                            async move { Client::new(address).await.ask("k", BODY).await },
                        )
                    })
                    .collect();
                let refused = || work.iter().filter(|work| work.is_finished()).count();
                for waited in 0.. {
                    if provider.held.get() + refused() == limit + 7 {
                        break;
                    }
                    assert!(waited < 3_000, "{} are held, {} refused", provider.held.get(), refused());
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                let (held, refused) = (provider.held.get(), refused());
                provider.let_go();
                let mut came = Came::default();
                for work in work {
                    came.note(&work.await.expect("it ends"), None);
                }
                let expected = Came { answered: limit, refused: 7, wrong: None };
                assert_eq!((held, refused, came), (limit, 7, expected), "{workers} workers, round {round}");
            }
        });
    }
}
