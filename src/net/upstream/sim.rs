//! The whole of `net::upstream` in the simulation: drawn clients against drawn servers over drawn links.
//!
//! Clients cancel at any moment, links stall and reset, servers lie, settings change under way. Whatever
//! happens: nobody reads another one's answer, no connection carries two exchanges at a time, no more are
//! open than allowed, every wait ends, and no slot, place, page or connection is left behind.

use super::stage::{Peer, pools};
use super::{Answer, Counters, Http1Upstream, Limits, Origin, Piece, Pools, Sent, Settings, stage};
use crate::codec::http1::{Asked, ResponseFraming};
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::memory::{Faults, Simulation, each_seed};
use crate::net::page::Page;
use crate::net::race::{First, race};
use crate::net::resolve::Addresses;
use crate::net::runtime;
use crate::net::send::SendList;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn nothing_is_mixed_up_or_left_behind() {
    let mut seen = Seen::default();
    each_seed(0..200, |seed| {
        let outcome = Simulation::new(seed, Faults::random(seed)).run(world(seed));
        seen.add(&outcome.finished());
    });
    // The draws reach what they are there for.
    if std::env::var_os("TOLLGATE_SEED").is_none() {
        seen.check();
    }
}

/// What happened over all runs.
#[derive(Debug, Default)]
struct Seen {
    answers: u64,
    cancels: u64,
    errors: u64,
    reused: u64,
    queued: u64,
    stale: u64,
}

impl Seen {
    fn add(&mut self, run: &Run) {
        self.answers += run.answers.get();
        self.cancels += run.cancels.get();
        self.errors += run.errors.get();
        self.reused += run.counters.reused.value();
        self.queued += run.counters.queued.value();
        self.stale += run.counters.stale.value();
    }

    fn check(&self) {
        for count in [self.answers, self.cancels, self.errors, self.reused, self.queued, self.stale] {
            assert!(count > 100, "too few of a kind: {self:?}");
        }
    }
}

/// One run, as its clients and servers share it.
struct Run {
    pools: Rc<Pools>,
    counters: Arc<Counters>,
    addresses: Addresses,
    connections_max: Cell<usize>,
    clients_left: Cell<usize>,
    servers_left: Cell<usize>,
    answers: Cell<u64>,
    cancels: Cell<u64>,
    errors: Cell<u64>,
    poisoned: Cell<bool>,
}

async fn world(seed: u64) -> Rc<Run> {
    let mut draw = fastrand::Rng::with_seed(seed);
    let peers: Vec<Peer> = (0..draw.usize(1..3)).map(|_| Peer::listen()).collect();
    let (pools, counters) = pools();
    let addresses: Vec<_> = peers.iter().map(|peer| peer.address).collect();
    let run = Rc::new(Run {
        pools,
        counters,
        addresses: Addresses::known(addresses),
        connections_max: Cell::new(draw.usize(1..6)),
        clients_left: Cell::new(draw.usize(1..25)),
        servers_left: Cell::new(0),
        answers: Cell::new(0),
        cancels: Cell::new(0),
        errors: Cell::new(0),
        poisoned: Cell::new(false),
    });
    for peer in peers {
        runtime::spawn(accept_for_ever(peer, Rc::clone(&run), draw.fork()));
    }
    runtime::spawn(sweep_for_ever(Rc::clone(&run), draw.fork()));
    for client in 0..run.clients_left.get() {
        let (run, draw) = (Rc::clone(&run), draw.fork());
        runtime::spawn(async move {
            exchanges(&run, client, draw).await;
            run.clients_left.set(run.clients_left.get() - 1);
        });
    }
    while run.clients_left.get() > 0 {
        runtime::sleep(Duration::from_secs(1)).await;
    }
    let Counters { open, idle, waiting, .. } = &*run.counters;
    assert_eq!(
        (open.value() - idle.value(), waiting.value()),
        (0, 0),
        "leased and waiting after the last client"
    );
    run.pools.drain();
    assert_eq!((open.value(), idle.value()), (0, 0), "open and idle after the drain");
    assert_eq!(run.counters.opened.value(), run.counters.closed.value());
    while run.servers_left.get() > 0 {
        runtime::sleep(Duration::from_secs(1)).await;
    }
    run
}

impl Run {
    /// The origin as the newest settings have it.
    fn origin(&self, draw: &mut fastrand::Rng) -> Arc<Origin> {
        let limits = Limits {
            connections_max: self.connections_max.get(),
            idle_max: draw.usize(0..4),
            idle_timeout: Duration::from_millis(draw.u64(1..20_000)),
            queue_max: draw.usize(0..20),
            queue_timeout: Duration::from_millis(draw.u64(1..10_000)),
        };
        let addresses = self.addresses.clone();
        stage::origin_with(|settings| Settings { addresses, limits, ..settings })
    }
}

async fn sweep_for_ever(run: Rc<Run>, mut draw: fastrand::Rng) {
    loop {
        runtime::sleep(Duration::from_secs(1)).await;
        run.pools.sweep();
        match draw.u32(..20) {
            // Only upwards: what is open already may not be more than is allowed.
            0 => run.connections_max.set(run.connections_max.get() + 1),
            1 => run.pools.keep_only(&[]),
            2 => run.pools.keep_only(&[run.origin(&mut draw).id]),
            _ => {}
        }
    }
}

/// One client's exchanges, one after the other, each of which may be cancelled at any moment.
async fn exchanges(run: &Run, client: usize, mut draw: fastrand::Rng) {
    for n in 0..draw.usize(1..6) {
        let tag = format!("{client}.{n}");
        let patience = match draw.u32(..4) {
            0 => Duration::from_micros(1 << draw.u32(..22)),
            _ => Duration::from_secs(300),
        };
        let (work, limit) = (Box::pin(exchange(run, &tag, draw.fork())), runtime::sleep(patience));
        // Asked first, the limit cancels even what is ready: a place in the queue whose turn has come.
        let ended = match draw.bool() {
            true => race(work, limit).await,
            false => match race(limit, work).await {
                First::One(()) => First::Two(()),
                First::Two(result) => First::One(result),
            },
        };
        match ended {
            First::One(Ok(())) => run.answers.set(run.answers.get() + 1),
            First::One(Err(_)) => run.errors.set(run.errors.get() + 1),
            First::Two(()) => {
                assert!(patience < Duration::from_secs(300), "{tag} hangs");
                run.cancels.set(run.cancels.get() + 1);
            }
        }
        if draw.bool() {
            runtime::sleep(Duration::from_micros(1 << draw.u32(..23))).await;
        }
    }
}

async fn exchange(run: &Run, tag: &str, mut draw: fastrand::Rng) -> Result<(), Box<dyn std::error::Error>> {
    let deadline = Deadline::unset();
    let origin = run.origin(&mut draw);
    let lease = match draw.u32(..6) {
        0 => run.pools.checkout_new(&origin).await?,
        _ => run.pools.checkout(&origin).await?,
    };
    assert!(run.counters.open.value() <= run.connections_max.get() as u64, "more open than allowed");
    let mut upstream = Http1Upstream::new(lease, Asked::Body);
    let size = if draw.u32(..16) == 0 { draw.usize(..80_000) } else { draw.usize(..200) };
    let mut request = SendList::new();
    request.push_copy(format!("POST /{tag} HTTP/1.1\r\nContent-Length: {size}\r\n\r\n").as_bytes());
    request.push_copy(&vec![b'x'; size]);
    deadline.set(Duration::from_secs(60));
    let sent = upstream.send(request, &deadline).await?;
    deadline.set(Duration::from_secs(60));
    let answer = upstream.read_head(&deadline).await?;
    assert!(sent == Sent::Whole || !upstream.is_reusable());
    let expected = expected_body(run, tag, &answer).unwrap_or_default();
    let cut_is_hidden = answer.framing == ResponseFraming::UntilClose;
    drop(answer);
    let mut got = Vec::new();
    loop {
        deadline.set(Duration::from_secs(60));
        match deadline.bound(upstream.next()).await.map_err(|_| "idle for too long")?? {
            Piece::Data(slice) => got.extend_from_slice(&slice),
            Piece::End => break,
        }
    }
    let is_whole = got == expected || (cut_is_hidden && expected.starts_with(&got));
    assert!(is_whole, "{tag} got another body than its own");
    upstream.finish();
    Ok(())
}

/// Checks whose answer it is. A server that says more than it was asked for can poison one later exchange:
/// its bytes may arrive after the connection was looked at. Such an answer has no body here. What the server
/// cannot do is have another one's answer handed out.
fn expected_body(run: &Run, tag: &str, answer: &Answer) -> Option<Vec<u8>> {
    let whose = answer.field("x-tag").unwrap_or_default();
    if whose == b"poison" && run.poisoned.get() {
        return None;
    }
    assert_eq!(String::from_utf8_lossy(whose), tag, "got another one's answer");
    Some(body_of(tag, answer.field("x-size").and_then(number).unwrap_or_default()))
}

fn body_of(tag: &str, size: usize) -> Vec<u8> {
    tag.bytes().cycle().take(size).collect()
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

async fn accept_for_ever(peer: Peer, run: Rc<Run>, mut draw: fastrand::Rng) {
    loop {
        let conn = peer.accept().await;
        let (run, draw) = (Rc::clone(&run), draw.fork());
        run.servers_left.set(run.servers_left.get() + 1);
        runtime::spawn(async move {
            // A link that stalls for ever keeps the end of the connection to itself.
            let _ = race(Box::pin(serve(&conn, &run, draw)), runtime::sleep(Duration::from_secs(1200))).await;
            run.servers_left.set(run.servers_left.get() - 1);
        });
    }
}

/// Answers request after request, not always well. None: the connection is of no more use.
async fn serve(conn: &Conn, run: &Run, mut draw: fastrand::Rng) -> Option<()> {
    loop {
        let (tag, mut missing) = read_head(conn).await?;
        let lies = draw.u32(..12);
        if lies == 0 {
            // Refused before the body was read: the rest of the request is of no use.
            let refusal = format!("HTTP/1.1 413 Large\r\nX-Tag: {tag}\r\nContent-Length: 0\r\n\r\n");
            stage::try_say(conn, refusal.as_bytes()).await.ok()?;
            if draw.bool() {
                return None;
            }
        }
        while missing > 0 {
            let mut page = Page::with_room(missing.min(4096));
            missing -= conn.recv(&mut page).await.ok().filter(|n| *n > 0)?;
        }
        if lies == 0 {
            continue;
        }
        assert!(stage::is_quiet_or_ended(conn), "a second request came before {tag} was answered");
        if draw.bool() {
            runtime::sleep(Duration::from_micros(1 << draw.u32(..24))).await;
        }
        let is_until_close = draw.u32(..6) == 0;
        let whole = answer(&tag, is_until_close, &mut draw);
        let cut = if lies == 1 { draw.usize(..whole.len()) } else { whole.len() };
        stage::try_say(conn, &whole[..cut]).await.ok()?;
        if cut < whole.len() || is_until_close || lies == 2 {
            return None;
        }
        if lies == 3 {
            run.poisoned.set(true);
            let poison = b"HTTP/1.1 200 OK\r\nX-Tag: poison\r\nContent-Length: 0\r\n\r\n";
            stage::try_say(conn, poison).await.ok()?;
            // If it went on, all later answers would be shifted by one, and no client could tell.
            return None;
        }
    }
}

/// Tag and body length of the next request, which has nothing behind its head but its body.
async fn read_head(conn: &Conn) -> Option<(String, usize)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut page = Page::with_room(1);
        conn.recv(&mut page).await.ok().filter(|n| *n > 0)?;
        head.extend_from_slice(page.bytes());
    }
    let head = String::from_utf8(head).expect("the client's text");
    let (tag, rest) = head.strip_prefix("POST /").expect("a request").split_once(' ').expect("a target");
    let size = rest.trim_start_matches("HTTP/1.1\r\nContent-Length: ").trim();
    Some((tag.to_owned(), size.parse().expect("a length")))
}

/// An answer that shows whose it is, framed in a drawn way.
fn answer(tag: &str, is_until_close: bool, draw: &mut fastrand::Rng) -> Vec<u8> {
    let magnitude = draw.u32(..14);
    let size = draw.usize(..1 << magnitude);
    let body = body_of(tag, size);
    let mut answer = Vec::new();
    if draw.u32(..4) == 0 {
        answer.extend_from_slice(b"HTTP/1.1 103 Early\r\nX-Tag: none\r\n\r\n");
    }
    answer.extend_from_slice(format!("HTTP/1.1 200 OK\r\nX-Tag: {tag}\r\nX-Size: {size}\r\n").as_bytes());
    if is_until_close {
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(&body);
        return answer;
    }
    if draw.bool() {
        answer.extend_from_slice(format!("Content-Length: {size}\r\n\r\n").as_bytes());
        answer.extend_from_slice(&body);
        return answer;
    }
    answer.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + draw.usize(..rest.len()));
        answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
        rest = after;
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer
}
