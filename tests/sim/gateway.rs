//! Seeds of a whole worker: random clients, upstreams, links, limits, reloads and a drain, and what must hold
//! after each.
//!
//! A request carries the number of its `Plan` in a field; from it upstream and client know alike what is
//! true: body, framing, how the upstream misbehaves. Checked: what a client got is a prefix of the truth,
//! heartbeats stand between events only, and all of the truth is there where the framing says whole; nothing
//! is lost where nothing went wrong; every exchange is finished and recorded once, in the way that the client
//! saw, with the provider's tokens, and these are counted once per target; a provider is asked as often as
//! the plan and the record say; a stream that reaches its budget ends as a chat does; what limits hold and what
//! the ledger has is as `accounts` says; a provider sees within `CANCEL_MAX` that a client left; all of
//! `Gateway::check_ended`; no task, socket or page is left; nothing runs longer than its timeouts allow. A
//! third of the seeds has links without faults, a third with harmless ones, a third with every kind.
//! `TOLLGATE_SEEDS=n` runs n seeds, `TOLLGATE_SEED=n` one.

use crate::relay::gateway::{Gateway, KEY, Kept, Setup};
use crate::relay::http::{End, Message, Pace, Reader};
use crate::sim::accounts::{self, PROVIDERS, REFUSALS, TOLD};
use crate::sim::driver::listen;
use crate::sim::plan::{Fault, Framing, Plan};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tollgate::base::clock::{self, Instant};
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::conn::Conn;
use tollgate::net::memory::{Faults, Simulation, each_seed};
use tollgate::net::page::Page;
use tollgate::net::race::{First, race};
use tollgate::net::runtime;
use tollgate::net::send::SendList;
use tollgate::net::signal::Signal;
use tollgate::net::stream;
use tollgate::policy::auth::{DrainCap, OnDisconnect};
use tollgate::policy::limit;

const SEEDS: u64 = 1_000;
const MS: Duration = Duration::from_millis(1);
/// Of every step of an upstream and a client. Harmless links stall for 3 s at most.
const TIMEOUT: Duration = Duration::from_secs(20);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(300);
/// Longer than any of the gateway's timers together.
const GIVEN_UP: Duration = Duration::from_secs(400);

/// Of an upstream within one answer: one that sends byte by byte would else take longer than `GIVEN_UP`.
const PAUSES_MAX: u32 = 100;

/// From a client's leaving to the end of its upstream's connection, without faults.
const CANCEL_MAX: Duration = Duration::from_millis(100);

/// How much goes wrong between the processes of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    Calm,
    Harmless,
    Random,
}

#[test]
fn whatever_happens_every_exchange_ends_once_and_every_byte_is_true() {
    let mut told = BTreeMap::new();
    let started = std::time::Instant::now();
    let mut seeds = 0;
    each_seed(0..SEEDS, |seed| {
        let (links, faults) = match seed % 3 {
            0 => (Links::Calm, Faults::none()),
            1 => (Links::Harmless, Faults::harmless(seed)),
            _ => (Links::Random, Faults::random(seed)),
        };
        let outcome = Simulation::new(seed, faults).run(run(seed, links));
        let left = (outcome.tasks_left.len(), outcome.sockets_open);
        assert_eq!(left, (0, 0), "tasks and sockets are left: {outcome}");
        for (what, count) in outcome.finished() {
            *told.entry(what).or_insert(0) += count;
        }
        seeds += 1;
    });
    eprintln!("{seeds} seeds in {:?}: {told:?}", started.elapsed());
    if seeds >= 1000 {
        let often = [
            "whole",
            "refused",
            "client_left",
            "upstream_cut",
            "reloads",
            "heartbeats",
            "counted",
            "budget",
            "limited",
            "told",
        ];
        for (what, least) in often.map(|what| (what, 50)).into_iter().chain([("cancels", 10)]) {
            assert!(
                told.get(what).is_some_and(|count| *count > least),
                "{what} is hardly ever met: {told:?}"
            );
        }
    }
}

/// What all peers of a seed share.
struct Shared {
    links: Links,
    /// The key has limits, and those of a provider may lead past it.
    is_limited: bool,
    may_skip: bool,
    draining: Cell<bool>,
    /// Tells upstreams to accept no more.
    over: Signal,
    peers: Cell<usize>,
    fewer: Signal,
    /// What clients saw, by request id.
    seen: RefCell<BTreeMap<String, Heard>>,
    /// Which provider has seen which plan.
    reached: RefCell<BTreeSet<(u64, usize)>>,
    /// How often providers were asked, by plan.
    asked: RefCell<BTreeMap<u64, u64>>,
    /// When clients left before their answer had ended, by plan.
    left: RefCell<BTreeMap<u64, Instant>>,
    /// Whether the leaving of a client cancels its upstream.
    cancels: Cell<bool>,
    /// How often what was met.
    told: RefCell<BTreeMap<String, u64>>,
}

/// What a client got.
struct Heard {
    plan: Plan,
    answer: Message,
    /// It ended at its budget.
    is_early: bool,
    /// What the stream told of its usage.
    told: Option<String>,
}

impl Shared {
    fn new(links: Links, limited: Option<&limit::plan::Plan>) -> Shared {
        Shared {
            links,
            is_limited: limited.is_some(),
            may_skip: limited.is_some_and(accounts::may_skip),
            draining: Cell::new(false),
            over: Signal::default(),
            peers: Cell::new(0),
            fewer: Signal::default(),
            seen: RefCell::default(),
            asked: RefCell::default(),
            reached: RefCell::default(),
            left: RefCell::default(),
            cancels: Cell::new(false),
            told: RefCell::default(),
        }
    }

    fn tell(&self, what: &str, count: u64) {
        *self.told.borrow_mut().entry(what.to_string()).or_default() += count;
    }
}

/// Counts a peer while it lives.
struct Peer(Rc<Shared>);

impl Peer {
    fn spawn(shared: &Rc<Shared>, work: impl Future<Output = ()> + 'static) {
        shared.peers.set(shared.peers.get() + 1);
        let peer = Peer(Rc::clone(shared));
        runtime::spawn(async move {
            let _peer = peer;
            work.await;
        });
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.peers.set(self.0.peers.get() - 1);
        self.0.fewer.raise();
    }
}

/// One seed. How often what was met.
async fn run(seed: u64, links: Links) -> BTreeMap<String, u64> {
    let mut draw = fastrand::Rng::with_seed(seed);
    let limited = (draw.u32(..8) > 0).then(|| accounts::plan(&mut draw));
    let shared = Rc::new(Shared::new(links, limited.as_ref()));
    let mut setup = Setup::default();
    for name in PROVIDERS {
        let (listener, address) = listen();
        setup = setup.upstream(name, OpenAi, address);
        let is_first = name == "first";
        let serving = Rc::clone(&shared);
        Peer::spawn(&shared, async move {
            while let First::One(Ok(accepted)) = race(listener.accept(), serving.over.raised()).await {
                let upstream = upstream(Conn::Plain(accepted.stream), is_first, Rc::clone(&serving));
                Peer::spawn(&serving, async move {
                    let _ = race(upstream, runtime::sleep(GIVEN_UP)).await;
                });
            }
        });
    }
    let setup = setup
        .model("m", &[(0, "up"), (1, "up")])
        .passthrough("/p/", 0)
        .with(|setup| settings(setup, &mut draw))
        .with(|setup| {
            let Some(plan) = limited else { return };
            setup.ledger = Kept::Records;
            setup.base.plan = plan;
            (setup.base.catalogue, setup.base.unpriced) = accounts::prices(&mut draw);
        });
    shared.cancels.set(setup.on_disconnect == OnDisconnect::Cancel);
    let gateway = Gateway::start(&setup);
    // One hold a client.
    let clients = Rc::new(());
    for _ in 0..draw.usize(1..=5) {
        let (address, seed) = (gateway.address, draw.u64(..));
        let (shared_by, counted) = (Rc::clone(&shared), Rc::clone(&clients));
        Peer::spawn(&shared, async move {
            let mut draw = fastrand::Rng::with_seed(seed);
            runtime::sleep(draw.u32(..2000) * MS).await;
            let work = client(Rc::clone(&shared_by), address, draw);
            let in_time = matches!(race(work, runtime::sleep(3 * GIVEN_UP)).await, First::One(()));
            assert!(in_time || shared_by.links == Links::Random, "a client was never answered");
            drop(counted);
        });
    }
    let reloads = reload(&gateway, &setup, &mut draw).await;
    if draw.u32(..3) > 0 {
        wait_for(&shared, || Rc::strong_count(&clients) == 1).await;
    }
    shared.draining.set(true);
    gateway.begin_drain();
    gateway.ended().await;
    shared.over.raise();
    wait_for(&shared, || shared.peers.get() == 0).await;
    // The task that accepts sees the drain when its turn comes.
    runtime::sleep(10 * MS).await;
    gateway.check_ended(0);
    // A connection that nobody will accept any more is on its way for so long (links: up to 50 ms).
    runtime::sleep(100 * MS).await;
    check_records(&gateway, &shared);
    if shared.is_limited {
        let plan = &setup.base.plan;
        let widest = if reloads > 0 { accounts::wider(plan) } else { plan.clone() };
        accounts::check(&gateway, &widest, &shared.reached.borrow());
    }
    shared.tell("reloads", reloads);
    shared.told.take()
}

async fn wait_for(shared: &Shared, is_so: impl Fn() -> bool) {
    while !is_so() {
        shared.fewer.lower();
        shared.fewer.raised().await;
    }
}

fn settings(setup: &mut Setup, draw: &mut fastrand::Rng) {
    for upstream in &mut setup.upstreams {
        let timeouts = &mut upstream.timeouts;
        (timeouts.response_head, timeouts.idle, timeouts.write) = (TIMEOUT, TIMEOUT, TIMEOUT);
        timeouts.total = if draw.bool() { TOTAL_TIMEOUT } else { Duration::ZERO };
        if draw.u32(..4) == 0 {
            upstream.limits.connections_max = draw.usize(1..3);
            upstream.limits.queue_timeout = TOTAL_TIMEOUT;
        }
    }
    let timeouts = &mut setup.base.timeouts;
    (timeouts.request_head, timeouts.request_body, timeouts.write) = (TIMEOUT, TIMEOUT, TIMEOUT);
    // A slow reader may take longer than that between two requests.
    timeouts.keep_alive = GIVEN_UP;
    timeouts.upload_bytes_per_s_min = 0;
    setup.base.limits.body_bytes_max = 300_000;
    setup.base.relay.heartbeat = if draw.u32(..4) == 0 { draw.u32(1..3000) * MS } else { Duration::ZERO };
    if draw.u32(..4) == 0 {
        setup.on_disconnect = OnDisconnect::Drain(DrainCap { time_max_ms: 10_000, ..DrainCap::default() });
    }
}

/// Publishes some generations while requests run: other timeouts, other names (and so other pools).
async fn reload(gateway: &Gateway, setup: &Setup, draw: &mut fastrand::Rng) -> u64 {
    let count = if draw.bool() { draw.u64(..4) } else { 0 };
    for generation in 0..count {
        runtime::sleep(draw.u32(..1500) * MS).await;
        let mut next = setup.clone();
        if draw.bool() {
            next.upstreams[0].name = format!("first-{generation}");
        }
        next.upstreams[1].timeouts.idle = TIMEOUT * 2;
        if draw.bool() {
            next.base.plan = accounts::wider(&next.base.plan);
        }
        gateway.publish(&next, generation + 2);
    }
    count
}

/// One connection of an upstream.
async fn upstream(conn: Conn, is_first: bool, shared: Rc<Shared>) {
    let mut reader = Reader::new(&conn, Pace::default());
    while let Some(request) = reader.request().await {
        if !request.whole {
            // A client or the gateway broke it off.
            return;
        }
        let number = request.field("x-plan").expect("every request has its plan").parse().expect("a number");
        let plan = Plan::of(number);
        check_request(&plan, &request);
        *shared.asked.borrow_mut().entry(number).or_default() += 1;
        shared.reached.borrow_mut().insert((number, usize::from(!is_first)));
        let mut draw = fastrand::Rng::with_seed(number ^ u64::from(is_first));
        if draw.bool() && !pause(&conn, draw.u32(..1500) * MS, &plan, &shared).await {
            return;
        }
        if !answer(&conn, &plan, plan.fault_at(is_first), &mut draw, &shared).await {
            return;
        }
        // Closed without a word: the gateway finds it when it wants to use it again.
        if draw.u32(..8) == 0 && shared.links != Links::Calm {
            return;
        }
    }
}

fn check_request(plan: &Plan, request: &Message) {
    let host = request.field("host").expect("a host");
    assert!(host.starts_with("127.0.0.1:"), "{host}");
    assert_eq!(request.field("authorization").map(|value| value.starts_with("Bearer sk-")), Some(true));
    let of_ours = request.fields.iter().find(|(name, _)| name.starts_with("x-tollgate-"));
    assert_eq!(of_ours, None);
    let own = plan.body();
    if plan.is_passthrough {
        assert_eq!(request.text(), own);
        return;
    }
    let own = own.replace("\"model\":\"m\"", "\"model\":\"up\"");
    // A limit that needs a bound asks for one.
    let own = match request.text().strip_prefix("{\"max_tokens\":").and_then(|rest| rest.split_once(',')) {
        Some((most, _)) if plan.max_tokens.is_none() => {
            own.replacen('{', &format!("{{\"max_tokens\":{most},"), 1)
        }
        _ => own,
    };
    if plan.is_stream && !plan.usage_asked {
        let body: Value = request.json();
        assert_eq!(body["stream_options"]["include_usage"], true);
        assert_eq!((&body["model"], body["x"].as_str().map(str::len)), (&"up".into(), Some(plan.padding)));
        return;
    }
    assert_eq!(request.text(), own);
}

/// Whether the connection goes on.
async fn answer(conn: &Conn, plan: &Plan, fault: Fault, draw: &mut fastrand::Rng, shared: &Shared) -> bool {
    if fault == Fault::Silent {
        if draw.bool() {
            conn.reset_on_close();
        }
        return false;
    }
    if let Fault::Status(status) = fault {
        let body = plan.error(status);
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} Error\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        return put(conn, [head, body].concat().as_bytes()).await;
    }
    let kind = if plan.is_stream { "text/event-stream" } else { "application/json" };
    let framing = match plan.framing {
        Framing::Length => format!("content-length: {}\r\n", plan.sent.len()),
        Framing::Chunked => "transfer-encoding: chunked\r\n".to_string(),
        Framing::UntilClose => String::new(),
    };
    if !put(conn, format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{framing}\r\n").as_bytes()).await {
        return false;
    }
    let end = match fault {
        Fault::Cut(at) | Fault::Stall(at) => at,
        _ => plan.sent.len(),
    };
    let (most, mut pauses_left) = (draw.usize(1..5_000), PAUSES_MAX);
    let mut rest = &plan.sent[..end];
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(draw.usize(1..=most).min(rest.len()));
        rest = behind;
        let sent = match plan.framing {
            Framing::Chunked => {
                put(conn, &[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await
            }
            _ => put(conn, piece).await,
        };
        if !sent {
            return false;
        }
        let pauses = draw.u32(..4) == 0 && !rest.is_empty() && pauses_left > 0;
        pauses_left -= u32::from(pauses);
        if pauses && !pause(conn, draw.u32(..300) * MS, plan, shared).await {
            return false;
        }
    }
    match fault {
        Fault::Stall(_) => {
            // Whatever comes later must not look like an end.
            conn.reset_on_close();
            let is_held = pause(conn, GIVEN_UP, plan, shared).await;
            assert!(!is_held || shared.links == Links::Random, "never given up: {plan:?}");
            false
        }
        Fault::Cut(_) => {
            if plan.framing == Framing::UntilClose || draw.bool() {
                conn.reset_on_close();
            }
            false
        }
        _ if plan.framing == Framing::Chunked => put(conn, b"0\r\n\r\n").await,
        _ => plan.framing == Framing::Length,
    }
}

/// Sends nothing for so long. Whether the connection is still there: the gateway gives it up soon after its
/// client left.
async fn pause(conn: &Conn, time: Duration, plan: &Plan, shared: &Shared) -> bool {
    let (mut page, began) = (Page::with_room(1), clock::now());
    match race(conn.recv(&mut page), runtime::sleep(time)).await {
        First::Two(()) => return true,
        First::One(Ok(1..)) => panic!("another request comes before the answer to {plan:?}"),
        First::One(_) => {}
    }
    if let Some(left) = shared.left.borrow().get(&plan.number).copied()
        && shared.links == Links::Calm
        && shared.cancels.get()
    {
        let took = clock::now() - left.max(began);
        assert!(took <= CANCEL_MAX, "cancelled {took:?} after the client left: {plan:?}");
        shared.tell("cancels", 1);
    }
    false
}

async fn put(conn: &Conn, bytes: &[u8]) -> bool {
    let mut list = SendList::new();
    list.push_copy(bytes);
    conn.send(list).await.is_ok()
}

/// One client: some requests on one connection.
async fn client(shared: Rc<Shared>, address: std::net::SocketAddr, mut draw: fastrand::Rng) {
    let Ok(stream) = stream::connect(address).await else {
        assert!(shared.draining.get() || shared.links == Links::Random, "the gateway does not listen");
        return;
    };
    let conn = Conn::Plain(stream);
    let requests = draw.u32(1..=3);
    let leaves = draw.u32(..4) == 0;
    let pace = Pace {
        bytes: (draw.u32(..3) == 0).then(|| draw.usize(64..4096)),
        wait: if draw.u32(..4) == 0 { draw.u32(..10) * MS } else { Duration::ZERO },
        stop_after: leaves.then(|| draw.u64(..5_000)),
    };
    let mut reader = Reader::new(&conn, pace);
    for _ in 0..requests {
        let plan = Plan::of(draw.u64(..));
        let is_http10 = draw.u32(..8) == 0;
        let request = request(&plan, is_http10, &mut draw);
        let is_cut = leaves && draw.u32(..4) == 0;
        let end = if is_cut { draw.usize(..request.len()) } else { request.len() };
        if !put(&conn, &request[..end]).await || is_cut {
            break;
        }
        // Impatient: it leaves while nothing, or not everything, has come.
        let patience = if leaves && draw.bool() { draw.u32(..3000) * MS } else { 2 * GIVEN_UP };
        let heard = match race(reader.answer(false), runtime::sleep(patience)).await {
            First::One(heard) => heard,
            First::Two(()) => {
                assert!(leaves || shared.links == Links::Random, "no answer to {plan:?}");
                shared.left.borrow_mut().insert(plan.number, clock::now());
                break;
            }
        };
        let Some(answer) = heard else {
            // A cut is told to HTTP/1.0 by a reset, which may overtake all that was sent before.
            let excused = leaves || shared.draining.get() || is_http10 && !plan.succeeds();
            assert!(excused || shared.links == Links::Random, "not one byte came for {plan:?}");
            break;
        };
        if answer.end == End::Stopped {
            shared.left.borrow_mut().insert(plan.number, clock::now());
        }
        let (is_early, told) = check_answer(&plan, &answer, is_http10, &shared);
        let goes_on = answer.whole && answer.end == End::Open && answer.field("connection") != Some("close");
        if let Some(id) = own_id(&answer) {
            shared.seen.borrow_mut().insert(id, Heard { plan, answer, is_early, told });
        }
        if !goes_on {
            break;
        }
    }
    if draw.u32(..3) == 0 {
        conn.reset_on_close();
    }
}

fn own_id(answer: &Message) -> Option<String> {
    answer.field("x-tollgate-request-id").or(answer.field("x-request-id")).map(str::to_string)
}

fn request(plan: &Plan, is_http10: bool, draw: &mut fastrand::Rng) -> Vec<u8> {
    let (body, number) = (plan.body(), plan.number);
    let path = if plan.is_passthrough { "/p/v1/chat/completions" } else { "/v1/chat/completions" };
    let version = if is_http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let wish = if plan.wishes { "x-tollgate-usage: comment\r\n" } else { "" };
    let head = format!(
        "POST {path} {version}\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\ncontent-type: \
         application/json\r\nx-plan: {number}\r\nx-tollgate-tags: {number}\r\n{wish}"
    );
    if is_http10 || draw.bool() {
        return format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes();
    }
    let mut all = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(draw.usize(1..=10_000).min(rest.len()));
        all += &format!("{:x}\r\n{piece}\r\n", piece.len());
        rest = behind;
    }
    (all + "0\r\n\r\n").into_bytes()
}

/// What a client got against what is true. Whether it ended at its budget, and what it told of its usage.
fn check_answer(plan: &Plan, answer: &Message, is_http10: bool, shared: &Shared) -> (bool, Option<String>) {
    let (status, links) = (answer.status(), shared.links);
    let context =
        || format!("{} of {plan:?}, http/1.0 {is_http10}: {:?} {}", answer.start, answer.end, answer.whole);
    if is_refused(answer) {
        let code = answer.whole.then(|| answer.json()["error"]["code"].as_str().unwrap_or("").to_string());
        assert!(shared.is_limited && code.is_none_or(|code| REFUSALS.contains(&&*code)), "{}", context());
        shared.tell("limited", 1);
        return (false, None);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let (body, heartbeats) = if status == 200 { without_heartbeats(&text) } else { (String::new(), 0) };
    shared.tell("heartbeats", heartbeats);
    let is_told = plan.wishes && plan.is_stream && answer.whole;
    let (body, told) = if is_told { accounts::without_told(&body) } else { (&*body, None) };
    let shown = String::from_utf8_lossy(&plan.shown);
    let is_early = status == 200 && answer.whole && *body != *shown;
    // A streamed upload cannot be repeated where its pooled connection turns out to be closed.
    // The reset that cuts an answer may overtake all of it.
    let is_stale = links != Links::Calm && (plan.is_passthrough || !plan.succeeds()) && status == 502;
    let is_disturbed =
        links == Links::Random || is_http10 && !plan.succeeds() || is_stale || shared.may_skip || is_early;
    if answer.end != End::Stopped && !is_disturbed {
        assert_eq!(status, plan.status(), "{} {}", context(), answer.body.escape_ascii());
        assert_eq!(answer.whole, plan.succeeds() || status != 200, "{}", context());
    }
    match status {
        200 if answer.whole => {
            let end = end_of(body, &shown);
            let is_true = !is_early || shared.is_limited && accounts::is_ending(end, plan.usage_asked);
            assert!(is_true, "whole, but not all or not the truth: {}\n{end}", context());
            assert_eq!(told.is_some(), is_told, "{}", context());
        }
        200 => {
            // A cut may be told by an error event of ours, itself perhaps cut, behind whole events.
            let end = end_of(body, &shown);
            let is_of_ours = ["data: {\"error\"", ": heartbeat\n", TOLD, ENDING].iter().any(|ours| {
                let len = end.len().min(ours.len());
                end.as_bytes()[..len] == ours.as_bytes()[..len]
            });
            assert!(shown.starts_with(body) || is_of_ours, "no prefix of the truth: {}\n{end}", context());
        }
        502 | 504 | 503 | 408 => {
            assert!(!answer.whole || answer.json()["error"]["code"].is_string(), "{}", context());
        }
        0 => assert!(!answer.whole, "{}", context()),
        _ => {
            assert!(plan.fault == Fault::Status(status), "{}", context());
            assert!(plan.error(status).starts_with(answer.text()), "{}", context());
        }
    }
    (is_early, told.map(str::to_string))
}

/// Whether a limit of ours has refused it; a provider's 429 has no such field.
fn is_refused(answer: &Message) -> bool {
    answer.status() == 429 && answer.field("x-should-retry").is_some()
}

/// What stands behind the last event that `body` has in common with the truth.
fn end_of<'b>(body: &'b str, shown: &str) -> &'b str {
    let same = body.bytes().zip(shown.bytes()).take_while(|(a, b)| a == b).count();
    let event = body.as_bytes()[..same].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // Of a CRLF that ends an event the CR may be all that came; it ends the event alone.
    body.get(event..).unwrap_or_default().trim_start_matches('\r')
}

/// How the end of a stream at its budget begins.
const ENDING: &str = "data: {\"id\"";

/// The body without the heartbeats that stand between events, and how many there were. One within an event
/// stays and is then no truth.
fn without_heartbeats(body: &str) -> (String, u64) {
    let (mut rest, mut kept, mut count) = (body, String::new(), 0);
    while let Some(at) = rest.find(HEARTBEAT) {
        kept += &rest[..at];
        // Of a CRLF that ends an event the LF may come behind the heartbeat.
        let is_between =
            kept.is_empty() || ["\n\n", "\r\n\r\n", "\r\n\r"].iter().any(|end| kept.ends_with(end));
        if !is_between {
            kept += HEARTBEAT;
        }
        count += u64::from(is_between);
        rest = &rest[at + HEARTBEAT.len()..];
    }
    (kept + rest, count)
}

const HEARTBEAT: &str = ": heartbeat\n\n";

/// What the access log says against what clients saw and providers were asked.
fn check_records(gateway: &Gateway, shared: &Shared) {
    let mut seen = shared.seen.take();
    let mut tokens = [0, 0];
    for record in gateway.records() {
        let ended = record["ended"].as_str().expect("a word");
        shared.tell(ended, 1);
        let total = record["total_us"].as_u64().expect("a time");
        assert!(total < GIVEN_UP.as_micros() as u64, "{record}");
        if record["provider"].is_string() {
            tokens[0] += record["input_tokens"].as_u64().unwrap_or(0);
            tokens[1] += record["output_tokens"].as_u64().unwrap_or(0);
        }
        let Some(heard) = seen.remove(record["id"].as_str().expect("an id")) else { continue };
        check_record(&record, &heard, shared);
        if let (Some(told), true) = (&heard.told, shared.is_limited) {
            accounts::check_told(gateway, told);
            shared.tell("told", 1);
        }
    }
    // A head that came too slowly is answered before there is an exchange.
    seen.retain(|_, heard| heard.answer.status() != 408);
    assert!(seen.is_empty(), "answers without a record: {:?}", seen.keys());
    assert_eq!(gateway.tokens_by_target(), tokens, "tokens of all targets and of all records");
}

fn check_record(record: &Value, heard: &Heard, shared: &Shared) {
    let Heard { plan, answer, is_early, .. } = heard;
    assert_eq!(record["status"], answer.status(), "{record}");
    let asked = shared.asked.borrow().get(&plan.number).copied().unwrap_or(0);
    let attempts = record["attempts"].as_u64().expect("a number");
    if shared.links == Links::Calm && answer.end != End::Stopped {
        let is_right = match plan.asked() {
            Some(_) if is_refused(answer) || shared.may_skip => asked == attempts,
            Some(expected) => asked == expected && attempts == expected,
            None => (attempts..=2 * attempts).contains(&asked),
        };
        assert!(is_right, "asked {asked} times: {record} {plan:?}");
        shared.tell("counted", 1);
    }
    if !answer.whole {
        return;
    }
    let ended = record["ended"].as_str();
    if *is_early {
        assert_eq!(ended, Some("budget"), "{record}");
        return;
    }
    assert!(matches!(ended, Some("whole" | "refused")), "the client has it whole: {record}");
    if ended == Some("whole") && answer.status() == 200 {
        assert!(
            record["bytes_out"].as_u64().is_some_and(|count| count >= plan.shown.len() as u64),
            "{record}"
        );
        let told = (&record["usage"], &record["input_tokens"], &record["output_tokens"]);
        assert_eq!(told, (&"provider".into(), &5.into(), &plan.output_tokens.into()), "{record}");
    }
}
