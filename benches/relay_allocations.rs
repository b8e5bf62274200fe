//! Counts what a worker allocates per relayed event on the plain path: none.
//!
//! A worker with one provider relays two streams of different length, every event its own write; what both have in
//! common (connection, head, record) falls out of the difference. Events carry text, and usage is metered and its chunk
//! hidden. Fails above `ALLOWED` allocations an event; time must not count, or a slow machine fails: the worker's own
//! tasks, and the loop that measures, wait with a `Timer`.
//! Run: `cargo bench --bench relay_allocations`. Absent: TLS, event stages (they may allocate), time.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tollgate::handler::facts::{Counters, Facts, LOG_RING_BYTES};
use tollgate::handler::snapshot::Snapshot;
use tollgate::handler::worker::{Published, Worker};
use tollgate::llm::provider::{BaseUrl, Provider, ProviderKind};
use tollgate::net::listener::{self, Listener};
use tollgate::net::resolve::Addresses;
use tollgate::net::runtime::{self, Timer, Wish};
use tollgate::net::upstream::{Limits, Origin, Settings, Timeouts};
use tollgate::policy::auth::{self, Key, Keys};
use tollgate::policy::pattern::Pattern;
use tollgate::policy::route::{RouteSpec, Routes, Target, TargetModel};
use tollgate::server::worker;
use tollgate::usage::bank::Bank;

/// Allocations an event.
const ALLOWED: f64 = 0.001;
const SHORT: usize = 1_000;
const LONG: usize = 21_000;
const EVENT: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\
                     \"delta\":{\"content\":\"word\"}}]}\n\n";

fn main() {
    for (name, wish) in [("ring", Wish::Ring), ("epoll", Wish::Epoll)] {
        let measured = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&measured);
        if let Err(error) = runtime::run(wish, |_| {}, || measure(told)) {
            println!("{name}: skipped, {error}");
            continue;
        }
        let counts = measured.borrow();
        let (short, long) = (counts[1], counts[2]);
        let per_event = (long as f64 - short as f64) / (LONG - SHORT) as f64;
        println!(
            "{name}: {short} allocations for {SHORT} events, {long} for {LONG}: {per_event:.4} an event"
        );
        assert!(
            per_event < ALLOWED,
            "{per_event} allocations an event on {name}, at most {ALLOWED} are allowed"
        );
    }
}

/// Allocations of this thread during each of three streams; the first one warms up.
async fn measure(told: Rc<RefCell<Vec<u64>>>) {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = upstream.local_addr().expect("an address");
    let bound = listener::bind(([127, 0, 0, 1], 0).into()).expect("loopback");
    let listener = Listener::from_bound(bound).expect("a listener");
    let gateway = listener.address().expect("an address");
    let counters = Arc::new(Counters::default());
    let (writer, _log) = rtrb::RingBuffer::new(LOG_RING_BYTES);
    let published = Arc::new(Published::new(snapshot(address)));
    let facts = Facts::new(0, Arc::clone(&counters), writer);
    let bank = Arc::new(Bank::in_memory(1).expect("memory"));
    let worker = Rc::new(Worker::new(0, published, facts, bank.column(0), None));
    let serving = Rc::clone(&worker);
    runtime::spawn(async move { worker::run(serving, vec![listener]).await });
    let lengths = [SHORT, SHORT, LONG];
    let peers =
        [thread::spawn(move || serve(&upstream, lengths)), thread::spawn(move || ask(gateway, lengths))];
    let mut timer = Timer::default();
    for done in 1..=lengths.len() as u64 {
        let before = COUNT.get();
        while counters.requests.value() < done {
            timer.wait(Duration::from_millis(20)).await;
        }
        told.borrow_mut().push(COUNT.get() - before);
    }
    worker.drain.raise();
    for peer in peers {
        peer.join().expect("a peer ends");
    }
}

/// Each stream on a connection of its own.
fn serve(listener: &TcpListener, lengths: [usize; 3]) {
    for length in lengths {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).expect("a request");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("a head");
        let chunk = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
        for _ in 0..length {
            stream.write_all(chunk.as_bytes()).expect("an event");
            thread::sleep(Duration::from_micros(30));
        }
        stream.write_all(b"0\r\n\r\n").expect("an end");
    }
}

fn ask(gateway: SocketAddr, lengths: [usize; 3]) {
    let body = "{\"model\":\"m\",\"stream\":true}";
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer k\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    for length in lengths {
        // Lets the worker take the count of the stream before.
        thread::sleep(Duration::from_millis(100));
        let mut stream = TcpStream::connect(gateway).expect("the gateway listens");
        stream.write_all(request.as_bytes()).expect("a request is taken");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let events = String::from_utf8_lossy(&answer).matches("\"word\"").count();
        assert_eq!(events, length, "{}", String::from_utf8_lossy(&answer[..answer.len().min(300)]));
    }
}

fn snapshot(address: SocketAddr) -> Snapshot {
    let mut provider = Provider::new(
        "p",
        ProviderKind::OpenAi,
        Some(BaseUrl::new(&format!("http://{address}/v1")).expect("a URL")),
    );
    provider.origin = Some(0);
    let origin = Origin::new(Settings {
        name: "p".to_string(),
        host: address.ip().to_string(),
        port: address.port(),
        addresses: Addresses::known([address]),
        proxy: None,
        tls: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
    });
    let route = RouteSpec {
        name: "*".into(),
        pattern: Pattern::new("*").expect("a pattern"),
        targets: vec![Target { provider: 0, model: TargetModel::Same, weight: 1 }],
        fallback: Vec::new(),
    };
    Snapshot {
        generation: 1,
        origins: vec![Arc::new(origin)],
        providers: vec![provider],
        keys: Keys::new([(Key::new("k"), vec![auth::hash(b"k")])]).expect("one key"),
        routes: Routes::new(vec![route]).expect("one route"),
        ..Snapshot::default()
    }
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn add_one() {
    // A thread that is ending has no counter any more.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add_one();
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add_one();
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}
