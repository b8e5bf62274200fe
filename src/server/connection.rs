//! The life of one client connection: request after request until one side ends it.
//!
//! Every way out closes in the way that the client can read: politely after a whole answer and after one
//! that broke off where its framing shows that; by a reset where only the connection's end would tell, so
//! that a cut cannot be taken for an end; silently where nothing was asked. A head that breaks the grammar
//! is answered, recorded like any request, and the connection closed: where its message ends is not known
//! (RFC 9112 section 9.6).

use crate::base::clock;
use crate::base::error::{Error, Kind};
use crate::codec::http1::{HeadLimits, Refusal};
use crate::handler::llm::{self, After};
use crate::handler::ratelimit::Fields;
use crate::handler::reply;
use crate::handler::sink::{Client, Http1Sink, Sink};
use crate::handler::snapshot::Snapshot;
use crate::handler::surface::Surface;
use crate::handler::worker::Worker;
use crate::llm::dialect::Dialect;
use crate::net::conn::Conn;
use crate::net::downstream::{Bounds, Downstream, HeadRead};
use crate::policy::exchange::{Exchange, Step};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A connection that begins under the bounds of `snapshot`. Boxed, as everything large of a connection that
/// is not needed with every event: its task stays small.
pub fn begin(snapshot: &Snapshot, conn: Conn, peer: SocketAddr, listener: usize) -> Box<Downstream> {
    let bounds = snapshot.bounds.get_or_init(|| Arc::new(bounds(snapshot)));
    Box::new(Downstream::new(conn, peer, Arc::clone(bounds), None).at_listener(listener))
}

/// Serves a connection to its end.
pub async fn serve(worker: &Worker, mut downstream: Box<Downstream>) {
    let mut requests_left = match worker.snapshot().limits.requests_per_connection_max {
        0 => u32::MAX,
        most => most,
    };
    loop {
        let head = match downstream.read_head(&worker.drain).await {
            HeadRead::Head(head) => head,
            HeadRead::Over => return,
            HeadRead::Drained => return Box::pin(downstream.linger()).await,
            HeadRead::Refused(refusal) => return Box::pin(refuse(worker, downstream, refusal)).await,
        };
        requests_left -= 1;
        let after = llm::serve(worker, &mut downstream, head, requests_left > 0).await;
        match after {
            After::KeepAlive => {}
            After::Close => return Box::pin(downstream.linger()).await,
            After::Abort => return downstream.conn().reset_on_close(),
            After::Tunnelled => return,
        }
    }
}

/// Answers a client that speaks plain HTTP to a TLS port.
pub async fn refuse_plain(worker: &Worker, downstream: Box<Downstream>) {
    let what = "this port speaks TLS: use https";
    Box::pin(refuse(worker, downstream, Refusal { status: 400, what, limit: None })).await;
}

/// Answers a head that breaks a rule, in the dialect of its path where that can be read, and records it.
async fn refuse(worker: &Worker, downstream: Box<Downstream>, refusal: Refusal) {
    worker.facts.counters().heads_refused.add(1);
    let error = Error::new(Kind::Grammar(refusal.status), refusal.to_string());
    let mut exchange = Exchange::begin(clock::now());
    exchange.refuse(&error);
    // The client's fault, which is not kept otherwise; but here nothing else says what it asked.
    exchange.note(format_args!("{refusal}"));
    let path = downstream.refused_path();
    let dialect = Surface::dialect_at(path).unwrap_or(Dialect::OpenAiChat);
    if let Some((surface, _)) = Surface::at(path) {
        exchange.surface = surface.name();
    }
    let client = Client { is_http10: false, is_head: false, keep_alive: false };
    let mut sink = Sink::Http1(Http1Sink::new(&downstream, client));
    let sent = reply::error(&mut sink, dialect, &error, &exchange.id, &Fields::default()).await;
    exchange.clock.mark(Step::Done);
    worker.facts.begin();
    worker.facts.finish(&exchange, &worker.snapshot(), downstream.peer());
    drop(sink);
    if sent.is_ok() {
        downstream.linger().await;
    }
}

fn bounds(snapshot: &Snapshot) -> Bounds {
    let (limits, timeouts) = (&snapshot.limits, &snapshot.timeouts);
    let head = HeadLimits {
        head_bytes_max: limits.head_bytes_max,
        fields_max: limits.head_fields_max,
        ..HeadLimits::DEFAULT
    };
    Bounds {
        head,
        head_timeout: or_forever(timeouts.request_head),
        idle_timeout: or_forever(timeouts.keep_alive),
        body_timeout: or_forever(timeouts.request_body),
        upload_bytes_per_second_min: u64::from(timeouts.upload_bytes_per_s_min),
        write_timeout: or_forever(timeouts.write),
    }
}

/// Zero means no limit in the config.
fn or_forever(timeout: Duration) -> Duration {
    if timeout.is_zero() { Duration::from_secs(u64::from(u32::MAX)) } else { timeout }
}
