//! A whole worker of the gateway on the test's own thread and driver: config in code, scripted peers around
//! it.
//!
//! `Setup` is a config that can be changed and published again; `Gateway::start` listens and serves; `ask`
//! is one request on a connection of its own; `end` drains and then checks what must hold after every test:
//! each exchange finished once and recorded once, nothing active, no connection open on either side, every
//! byte of the body allowance given back.

use crate::relay::http::{End, Message, Pace, Reader};
use crate::relay::ledger::Ledger;
use crate::sim::driver::listen;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Release;
use tollgate::base::counter::Counter;
use tollgate::handler::facts::{Counters, Facts, LOG_RING_BYTES};
use tollgate::handler::series::{Registry, Set};
use tollgate::handler::snapshot::{Passthrough, Snapshot};
use tollgate::handler::worker::{Published, Worker};
use tollgate::llm::provider::{AuthStyle, BaseUrl, Provider, ProviderKind, StaticHeader, UpstreamTimeouts};
use tollgate::net::conn::Conn;
use tollgate::net::resolve::Addresses;
use tollgate::net::send::SendList;
use tollgate::net::signal::Signal;
use tollgate::net::upstream::{Limits, Origin, Settings, Timeouts};
use tollgate::net::{runtime, stream};
use tollgate::policy::auth::{self, Key, Keys, OnDisconnect};
use tollgate::policy::limit::plan::Window;
use tollgate::policy::pattern::Pattern;
use tollgate::policy::route::{RouteSpec, Routes, Target, TargetModel};
use tollgate::server::{Shared, worker};
use tollgate::usage::bank::Bank;
use tollgate::usage::ledger::{OnFailure, book};

/// The key that every setup knows.
pub const KEY: &str = "tg-test";

/// A provider of a setup.
#[derive(Clone)]
pub struct Upstream {
    pub name: String,
    pub kind: ProviderKind,
    pub address: SocketAddr,
    pub timeouts: UpstreamTimeouts,
    pub connecting: Timeouts,
    pub limits: Limits,
}

/// Whether a ledger is kept, in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kept {
    #[default]
    Nothing,
    /// Records, for the test to read in the end.
    Records,
    /// Also for callers: it looks each millisecond whether one asks.
    Answers,
}

/// A config in code.
#[derive(Clone, Default)]
pub struct Setup {
    pub upstreams: Vec<Upstream>,
    routes: Vec<RouteSpec>,
    pub on_disconnect: OnDisconnect,
    pub ledger: Kept,
    /// Limits, timeouts, relay and pass-through are taken from here.
    pub base: Snapshot,
}

impl Setup {
    /// One provider of `kind` at `address` for every model.
    pub fn one(kind: ProviderKind, address: SocketAddr) -> Setup {
        Setup::default().upstream("first", kind, address).model("*", &[(0, "")])
    }

    /// With a provider more. Its timeouts are the defaults.
    pub fn upstream(mut self, name: &str, kind: ProviderKind, address: SocketAddr) -> Setup {
        self.upstreams.push(Upstream {
            name: name.to_string(),
            kind,
            address,
            timeouts: UpstreamTimeouts::default(),
            connecting: Timeouts::default(),
            limits: Limits::default(),
        });
        self
    }

    /// With a model: provider and model name of each target, tried in this order; an empty name is the client's.
    pub fn model(mut self, name: &str, targets: &[(u32, &str)]) -> Setup {
        let target = |(at, (provider, model)): (usize, &(u32, &str))| Target {
            provider: *provider,
            model: if model.is_empty() { TargetModel::Same } else { TargetModel::Named((*model).into()) },
            weight: u32::from(at == 0),
        };
        self.routes.push(RouteSpec {
            name: name.into(),
            pattern: Pattern::new(name).expect("a pattern"),
            targets: targets.iter().enumerate().map(target).collect(),
            fallback: Vec::new(),
        });
        self
    }

    /// With a pass-through path to a provider.
    pub fn passthrough(mut self, path: &str, provider: u32) -> Setup {
        let route = Passthrough { path: path.into(), provider, methods: Vec::new(), prefixes: Vec::new() };
        self.base.passthroughs.push(route);
        self
    }

    /// Changed by `edit`.
    pub fn with(mut self, edit: impl FnOnce(&mut Setup)) -> Setup {
        edit(&mut self);
        self
    }

    /// The snapshot of a generation.
    pub fn snapshot(&self, generation: u64) -> Snapshot {
        let key = |name: &str| Key { on_disconnect: self.on_disconnect, ..Key::new(name) };
        let limited = Pattern::new("only-*").expect("a pattern");
        let keys = [
            (key("tester"), vec![auth::hash(KEY.as_bytes())]),
            (Key { disabled: true, ..key("off") }, vec![auth::hash(b"tg-off")]),
            (Key { expires_unix_ms: Some(1), ..key("old") }, vec![auth::hash(b"tg-old")]),
            (
                Key { models: Some([limited].into()), passthrough: false, ..key("few") },
                vec![auth::hash(b"tg-few")],
            ),
        ];
        Snapshot {
            generation,
            origins: self.upstreams.iter().map(|upstream| Arc::new(upstream.origin())).collect(),
            providers: self.upstreams.iter().zip(0..).map(|(upstream, at)| upstream.provider(at)).collect(),
            keys: Keys::new(keys).expect("hashes differ"),
            routes: Routes::new(self.routes.clone()).expect("routes"),
            ..self.base.clone()
        }
    }
}

impl Upstream {
    fn provider(&self, index: u32) -> Provider {
        let base = match self.kind {
            ProviderKind::Anthropic => format!("http://{}", self.address),
            _ => format!("http://{}/v1", self.address),
        };
        let auth = self.kind.auth();
        let secret = tollgate::base::secret::Secret::new(format!("sk-{}", self.name));
        let base = BaseUrl::new(&base).expect("a URL");
        let mut provider = Provider::new(&self.name, self.kind, Some(base));
        provider.index = index;
        provider.origin = Some(index);
        provider.credential =
            Some(StaticHeader { name: AuthStyle::header(auth).into(), value: auth.value(&secret) });
        provider.timeouts = self.timeouts;
        provider
    }

    fn origin(&self) -> Origin {
        Origin::new(Settings {
            name: self.name.clone(),
            host: self.address.ip().to_string(),
            port: self.address.port(),
            addresses: Addresses::known([self.address]),
            proxy: None,
            tls: None,
            limits: self.limits,
            timeouts: self.connecting,
        })
    }
}

/// A running worker.
pub struct Gateway {
    pub address: SocketAddr,
    pub worker: Rc<Worker>,
    pub published: Arc<Published>,
    pub shared: Arc<Shared>,
    /// None where none is kept.
    pub ledger: Option<Rc<Ledger>>,
    log: RefCell<rtrb::Consumer<u8>>,
    records: RefCell<Vec<Value>>,
    registry: RefCell<Registry>,
    tokens_forgotten: Cell<[u64; 2]>,
    bodies_before: u64,
    ended: Signal,
}

impl Gateway {
    /// Listens and serves on this thread.
    pub fn start(setup: &Setup) -> Gateway {
        let (listener, address) = listen();
        let mut registry = Registry::default();
        let bank = Arc::new(Bank::in_memory(1).expect("memory"));
        let published = Arc::new(Published::new(counted(setup.snapshot(1), &mut registry, &bank)));
        let counters = Arc::new(Counters::default());
        let (writer, log) = rtrb::RingBuffer::new(LOG_RING_BYTES);
        let facts = Facts::new(0, Arc::clone(&counters), writer);
        let kept = (setup.ledger != Kept::Nothing).then(|| Ledger::new(LEDGER_SLOTS, OnFailure::Open));
        let (ledger, book) = kept.unzip();
        let worker = Worker::new(0, Arc::clone(&published), facts, bank.column(0), book);
        let worker = Rc::new(worker);
        let shared = Arc::new(Shared {
            published: Arc::clone(&published),
            draining: AtomicBool::new(false),
            counters: vec![counters],
            bank,
        });
        let ended = Signal::default();
        if let (Some(ledger), Kept::Answers) = (&ledger, setup.ledger) {
            runtime::spawn(Rc::clone(ledger).answer(ended.clone()));
        }
        runtime::spawn(worker::follow(Rc::clone(&worker), Arc::clone(&shared)));
        let (serving, over) = (Rc::clone(&worker), ended.clone());
        runtime::spawn(async move {
            worker::run(serving, vec![listener]).await;
            over.raise();
        });
        let bodies_before = worker.bodies.left();
        let (log, records, registry) = (RefCell::new(log), RefCell::default(), RefCell::new(registry));
        let tokens_forgotten = Cell::default();
        Gateway {
            address,
            worker,
            published,
            shared,
            ledger,
            log,
            records,
            registry,
            tokens_forgotten,
            bodies_before,
            ended,
        }
    }

    /// Publishes a further generation.
    pub fn publish(&self, setup: &Setup, generation: u64) {
        let mut registry = self.registry.borrow_mut();
        let before = tokens(&registry);
        let snapshot = counted(setup.snapshot(generation), &mut registry, &self.shared.bank);
        // Nothing runs meanwhile: what is less has been forgotten.
        let after = tokens(&registry);
        let [input, output] = self.tokens_forgotten.get();
        self.tokens_forgotten.set([input + before[0] - after[0], output + before[1] - after[1]]);
        self.published.publish(snapshot);
    }

    /// Input and output tokens that were counted of all targets together, those that are forgotten included.
    pub fn tokens_by_target(&self) -> [u64; 2] {
        let ([input, output], forgotten) = (tokens(&self.registry.borrow()), self.tokens_forgotten.get());
        [input + forgotten[0], output + forgotten[1]]
    }

    /// Answers of a model's targets with a status from 200 to 399; none where it is not counted.
    pub fn answers_2xx(&self, model: &str) -> Option<u64> {
        let registry = self.registry.borrow();
        let (_, sets) = registry.all().find(|(labels, _)| *labels.model == *model)?;
        Some(sets.iter().map(|set| set.answers_2xx.value()).sum())
    }

    /// Labels under which targets are counted.
    pub fn labels(&self) -> usize {
        self.registry.borrow().all().count()
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        self.worker.facts.counters()
    }

    /// Tells the worker to drain, as SIGTERM does.
    pub fn begin_drain(&self) {
        self.shared.draining.store(true, Release);
    }

    /// As `begin_drain`, without the moment until the worker looks.
    pub fn drain_now(&self) {
        self.worker.drain.raise();
    }

    /// Whether the worker has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.is_raised()
    }

    /// Ends when the worker has ended.
    pub async fn ended(&self) {
        self.ended.raised().await;
    }

    /// Places of requests and streams that are held, of all limits together.
    fn places_taken(&self) -> u64 {
        let snapshot = self.published.newest();
        let gauges = snapshot.plan.limits.iter().filter(|limit| matches!(limit.window, Window::None));
        gauges.map(|limit| self.shared.bank.in_use(limit.cell).amount).sum()
    }

    /// What requests hold or have used of a limit, by its name in the bank.
    pub fn in_use(&self, name: &str) -> u64 {
        let snapshot = self.published.newest();
        let limit = snapshot.plan.limits.iter().find(|limit| limit.name() == name).expect("a limit");
        self.shared.bank.in_use(limit.cell).amount
    }

    /// The access log so far, one value a request.
    pub fn records(&self) -> Vec<Value> {
        let mut log = self.log.borrow_mut();
        let lines: Vec<u8> = std::iter::from_fn(|| log.pop().ok()).collect();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut records = self.records.borrow_mut();
        records.extend(lines.map(|line| serde_json::from_slice::<Value>(line).expect("a record is JSON")));
        records.clone()
    }

    /// The record of the only request.
    pub fn record(&self) -> Value {
        let records = self.records();
        assert_eq!(records.len(), 1, "{records:?}");
        records[0].clone()
    }

    /// Drains, waits for the end and checks what must hold then. The access log.
    pub async fn end(self) -> Vec<Value> {
        self.begin_drain();
        self.ended.raised().await;
        self.check_ended(0);
        // Lets the scripts of the other side see the end, too.
        runtime::sleep(std::time::Duration::from_millis(30)).await;
        self.records()
    }

    /// What must hold once the worker has ended. `unfinished`: exchanges that a panic ended.
    pub fn check_ended(&self, unfinished: u64) {
        let counters = self.counters();
        let records = self.records().len() as u64;
        let rows = [
            ("requests without a record", counters.requests.value() - records),
            ("records dropped", counters.records_dropped.value()),
            ("requests active", counters.requests_active.value()),
            ("connections open", counters.connections_open.value()),
            ("exchanges unfinished", counters.unfinished.value() - unfinished),
            ("upstream connections open", counters.upstream.open.value()),
            ("of these idle", counters.upstream.idle.value()),
            ("exchanges in a queue", counters.upstream.waiting.value()),
            ("opened and not closed", counters.upstream.opened.value() - counters.upstream.closed.value()),
            ("places that are still taken", self.places_taken()),
            ("entries of the ledger dropped", book::dropped()),
            ("bytes of bodies not given back", self.bodies_before - self.worker.bodies.left()),
        ];
        let wrong: Vec<_> = rows.into_iter().filter(|(_, value)| *value != 0).collect();
        assert!(wrong.is_empty(), "after the drain: {wrong:?}");
        let ended: u64 = counters.ended.iter().map(|counter| counter.value()).sum();
        assert_eq!(ended, counters.requests.value(), "each request ended once");
        assert_eq!(counters.statuses.iter().map(|counter| counter.value()).sum::<u64>(), ended);
    }
}

fn tokens(registry: &Registry) -> [u64; 2] {
    let sets: Vec<_> = registry.all().flat_map(|(_, sets)| sets).collect();
    let sum = |read: fn(&Set) -> &Counter| sets.iter().map(|set| read(set).value()).sum();
    [sum(|set| &set.input_tokens), sum(|set| &set.output_tokens)]
}

/// The snapshot with counters of its targets and places of its limits, as control gives them.
fn counted(mut snapshot: Snapshot, registry: &mut Registry, bank: &Bank) -> Snapshot {
    snapshot.plan.attach(bank).expect("room");
    snapshot.series = registry.series(1, &snapshot.routes, &snapshot.providers);
    snapshot
}

/// One request on a connection of its own, read to the end of its answer.
pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Message {
    let conn = call(address).await;
    send(&conn, request.as_ref()).await;
    let to_head = request.as_ref().starts_with(b"HEAD");
    Reader::new(&conn, Pace::default()).answer(to_head).await.expect("an answer")
}

/// As `ask`; the connection must end behind the answer, so.
pub async fn ask_to_the_end(address: SocketAddr, request: impl AsRef<[u8]>) -> (Message, End) {
    let conn = call(address).await;
    send(&conn, request.as_ref()).await;
    let mut reader = Reader::new(&conn, Pace::default());
    let answer = reader.answer(false).await.expect("an answer");
    let end = if answer.end == End::Open { reader.ending().await } else { answer.end };
    (answer, end)
}

/// A connection.
pub async fn call(address: SocketAddr) -> Conn {
    Conn::Plain(stream::connect(address).await.expect("the gateway listens"))
}

/// Sends `bytes`.
pub async fn send(conn: &Conn, bytes: &[u8]) {
    let mut list = SendList::new();
    list.push_copy(bytes);
    conn.send(list).await.expect("the peer takes it");
}

/// A request with a JSON body and the key.
pub fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A request for chat with the key.
pub fn chat(body: &str) -> String {
    post("/v1/chat/completions", body)
}

/// A request without a body, with the key.
pub fn get(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n\r\n")
}

/// A whole answer.
pub fn answer(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A whole answer of JSON with status 200.
pub fn json(body: &str) -> String {
    answer("200 OK", "application/json", body)
}

/// The head of a stream of events in chunks.
pub const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// One chunk.
pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// More than a test has requests and attempts.
const LEDGER_SLOTS: usize = 128;

/// The last chunk.
pub const LAST: &str = "0\r\n\r\n";
