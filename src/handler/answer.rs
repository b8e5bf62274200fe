//! From a target's answer to the client: the head with its rule, then the relay; the commit point is here.
//!
//! An event stream is relayed by events, everything else as bytes; where its label leaves that open, its first
//! payload decides, before the head goes out. With event stages a whole answer is
//! collected and looked at as one event before its head goes out, since its length may change. Compressed
//! answers are never asked for where an answer is read. One that comes all the same goes on as it is and is
//! metered; where a stage has to see its text it is refused, as is a whole answer that is no JSON: nothing
//! passes a stage unseen.

use crate::base::clock::{self, Instant};
use crate::base::error::{Error, Kind as ErrorKind};
use crate::codec::http1::ResponseFraming;
use crate::codec::{json, sse};
use crate::handler::attempt::{Answered, Attempted};
use crate::handler::date::{self, DATE};
use crate::handler::fields::answer_field_goes_on;
use crate::handler::llm::{After, Call, NOT_FOUND, Stop, client};
use crate::handler::ratelimit::{self, Fields};
use crate::handler::relay::{Body, Events, Limits, Relay};
use crate::handler::reply::{REQUEST_ID, quoted};
use crate::handler::responses::Seal;
use crate::handler::sink::{BodyLen, Http1Sink, Sink};
use crate::handler::source::{Next, Source, SourceError};
use crate::handler::stages::{StageRunner, Whole};
use crate::handler::tap::Tap;
use crate::handler::watch::ClientWatch;
use crate::llm::dialect::Dialect;
use crate::net::deadline::Deadline;
use crate::net::downstream::Downstream;
use crate::net::race::{First, race};
use crate::net::upstream::Answer;
use crate::policy::auth::Key;
use crate::policy::exchange::{Ended, Step};
use crate::policy::stage::EventStage;
use crate::usage::meter::{Known, Shape};
use memchr::memmem;
use std::cell::Cell;
use std::pin::Pin;
use std::time::Duration;

/// What is known of an answer before it comes.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// None: nothing is read from the answer.
    pub dialect: Option<Dialect>,
    /// The usage chunk was asked for by us and is hidden from the client.
    pub hide_usage: bool,
    /// The client asked for usage in the stream, or the dialect always gives it.
    pub usage_asked: bool,
    /// Behind its end the stream tells what it has used: the client wishes it.
    pub tells_usage: bool,
    /// Ids of responses get their origin sealed in.
    pub seals: bool,
    /// Its usage is counted.
    pub is_metered: bool,
    /// Most tokens that the request allows.
    pub output_max: Option<u64>,
}

impl Default for Expected {
    fn default() -> Expected {
        Expected {
            dialect: None,
            hide_usage: false,
            usage_asked: false,
            tells_usage: false,
            seals: false,
            is_metered: true,
            output_max: None,
        }
    }
}

/// A target's answer that is to be relayed.
pub struct Upcoming {
    source: Source,
    expected: Expected,
    /// None: its first payload tells.
    shape: Option<Shape>,
    limits: Limits,
    watch: ClientWatch,
}

impl Upcoming {
    /// The answer of `attempted`, its head apart, to the caller with `key`, whom `watch` watches.
    pub fn new(
        call: &Call<'_>,
        attempted: Attempted,
        expected: Expected,
        key: &Key,
        watch: ClientWatch,
    ) -> (Answered, Box<Upcoming>) {
        let Attempted { head, source, idle_timeout, total_timeout } = attempted;
        let limits = Limits {
            idle_timeout: if idle_timeout.is_zero() { FOREVER } else { idle_timeout },
            total_deadline: total_deadline(call, total_timeout),
            heartbeat: call.snapshot.relay.heartbeat,
            event_bytes_max: call.snapshot.limits.event_bytes_max,
            on_disconnect: key.on_disconnect,
        };
        let shape = labelled(&head, expected, call);
        (head, Box::new(Upcoming { source, expected, shape, limits, watch }))
    }
}

/// Relays an answer to its end.
pub async fn relay(
    call: &mut Call<'_>,
    downstream: &Downstream,
    head: Answered,
    upcoming: &mut Upcoming,
) -> Result<After, Stop> {
    let mut sink = Sink::Http1(Http1Sink::new(downstream, client(call, downstream)));
    let shape = match upcoming.shape {
        Some(shape) => shape,
        None => Box::pin(shape_of_first(upcoming)).await?,
    };
    let (body, mut tap) = match begin(call, &mut sink, head, shape, upcoming.expected)? {
        Begun::Relay(body, tap) => (body, tap),
        Begun::Staged(stages, tap, head) => {
            return Box::pin(relay_staged(call, sink, stages, tap, head, upcoming)).await;
        }
    };
    let Upcoming { source, limits, watch, .. } = upcoming;
    let (exchange, account) = (&mut call.exchange, call.account.as_deref_mut());
    let mut relay = Relay { exchange, source, sink: &mut sink, tap: &mut tap, body, limits, account };
    let ended = relay.run(Pin::new(watch)).await;
    if ended == Ended::Whole {
        upcoming.source.take().release();
    }
    Ok(conclude(call, &sink, &tap, ended))
}

/// How the relay of an answer begins.
enum Begun {
    /// Its head has been given to the sink.
    Relay(Body, Tap),
    /// Stages look at it first.
    Staged(Box<StageRunner>, Tap, Answered),
}

/// Apart from `relay`: what it decides by would be kept for as long as the answer takes.
fn begin(
    call: &mut Call<'_>,
    sink: &mut Sink<'_>,
    head: Answered,
    shape: Shape,
    expected: Expected,
) -> Result<Begun, Error> {
    let (kind, tap) = kind_of(&head, shape, expected, call)?;
    let may_end = call.account.as_ref().is_some_and(|account| account.is_in_steps());
    let body = match kind {
        Kind::Events(events) if may_end => Body::Events(events.that_may_end()),
        Kind::Events(events) => Body::Events(events),
        Kind::Bytes => Body::Bytes,
        Kind::Staged(stages) => return Ok(Begun::Staged(stages, tap, head)),
    };
    // Of a stream of known length events may be hidden or added (heartbeat, error): its length says nothing.
    let is_open = matches!((&body, &head), (Body::Events(_), Answered::Upstream(answer))
        if matches!(answer.framing, ResponseFraming::Length(_)));
    commit(call, sink, head, is_open.then_some(BodyLen::Open));
    Ok(Begun::Relay(body, tap))
}

/// Relays a whole answer that stages look at.
async fn relay_staged(
    call: &mut Call<'_>,
    mut sink: Sink<'_>,
    mut stages: Box<StageRunner>,
    mut tap: Tap,
    head: Answered,
    upcoming: &mut Upcoming,
) -> Result<After, Stop> {
    let bytes_max = call.snapshot.limits.body_bytes_max;
    let Upcoming { source, limits, watch, .. } = &mut *upcoming;
    let whole = collect(source, &mut tap, bytes_max, limits, Pin::new(watch)).await?;
    if !whole.is_empty() && json::root(&whole).is_err() {
        return Err(unseen("an answer that is no JSON").into());
    }
    let Whole { body, ended } = stages.whole(whole);
    commit(call, &mut sink, head, Some(BodyLen::Known(body.len() as u64)));
    sink.copy(&body);
    if let Some(account) = &call.account {
        account.so_far(&tap.usage());
    }
    sink.end().await?;
    let ended = ended.map_or(Ended::Whole, |_| Ended::Stage);
    upcoming.source.take().release();
    Ok(conclude(call, &sink, &tap, ended))
}

/// Notes how the answer ended.
fn conclude(call: &mut Call<'_>, sink: &Sink<'_>, tap: &Tap, ended: Ended) -> After {
    call.exchange.ended = ended;
    call.exchange.usage = tap.usage();
    call.exchange.unmetered = false;
    if let Some(account) = &call.account {
        account.learn(call.exchange.bytes_in, &call.exchange.usage, tap.text_bytes());
    }
    call.exchange.bytes_out = sink.body_bytes();
    if let Some(body) = tap.kept() {
        note_wrong_path(call, body);
    }
    after(sink, ended)
}

/// Tells the operator of a 404 that is of the provider's server and not of its API: its base URL is wrong, most
/// likely. A model that is not there is the caller's affair.
fn note_wrong_path(call: &mut Call<'_>, body: &[u8]) {
    let served = call.exchange.served.as_ref();
    let Some(provider) = served.and_then(|served| call.snapshot.providers.get(served.provider as usize))
    else {
        return;
    };
    let path = provider.path_for(call.head.uri.path());
    if is_of_server(body, &path) {
        call.exchange.note(format_args!(
            "provider {} does not know the path {path} (404): is its base_url right?",
            provider.name
        ));
    }
}

/// Whether a 404, of whose body this is the beginning, is about the path: it is no error as APIs write it
/// (`{"error":…`, `{"type":"error",…`, `{"object":"error",…`, also in a list), or it is one that names the path.
fn is_of_server(body: &[u8], path: &str) -> bool {
    let is_json = matches!(body.trim_ascii_start(), [b'{' | b'[', ..]);
    let is_of_api = is_json && memmem::find(body, b"\"error\"").is_some();
    !is_of_api || memmem::find(body, path.as_bytes()).is_some()
}

/// A whole answer that stages look at before its head goes out, since they may change its length.
async fn collect(
    source: &mut Source,
    tap: &mut Tap,
    bytes_max: usize,
    limits: &Limits,
    mut watch: Pin<&mut impl Future<Output = ()>>,
) -> Result<Vec<u8>, Stop> {
    let mut whole = Vec::new();
    let timer = Deadline::unset();
    loop {
        match next_within(source, limits, &timer, watch.as_mut()).await? {
            Next::End => break,
            Next::Data(slice) if whole.len() + slice.len() > bytes_max => {
                drop(slice);
                return Err(SourceError::EventTooLarge.for_client().into());
            }
            Next::Data(slice) => {
                tap.piece(&slice);
                whole.extend_from_slice(&slice);
            }
        }
    }
    tap.end();
    Ok(whole)
}

/// The next payload before the commit point: what goes wrong until then is told as an error.
async fn next_within(
    source: &mut Source,
    limits: &Limits,
    timer: &Deadline,
    watch: Pin<&mut impl Future<Output = ()>>,
) -> Result<Next, Stop> {
    timer.set_at((clock::now() + limits.idle_timeout).min(limits.total_deadline));
    let next = match race(timer.bound(source.next()), watch).await {
        First::Two(()) => return Err(Stop::ClientLeft),
        First::One(Err(_)) if clock::now() >= limits.total_deadline => Err(SourceError::TotalTimeout),
        First::One(Err(_)) => Err(SourceError::IdleTimeout),
        First::One(Ok(next)) => next,
    };
    next.map_err(|error| Stop::from(error.for_client()))
}

/// What the first payload shows the answer to be.
async fn shape_of_first(upcoming: &mut Upcoming) -> Result<Shape, Stop> {
    let Upcoming { source, limits, watch, .. } = upcoming;
    let next = next_within(source, limits, &Deadline::unset(), Pin::new(watch)).await?;
    let Next::Data(first) = next else { return Ok(Shape::Whole) };
    let shape = if sse::begins_as_events(&first) { Shape::Stream } else { Shape::Whole };
    source.put_back(first);
    Ok(shape)
}

/// What becomes of the client's connection after an answer.
pub fn after(sink: &Sink<'_>, ended: Ended) -> After {
    match ended {
        Ended::Whole | Ended::Stage | Ended::Budget | Ended::Refused if sink.is_reusable() => {
            After::KeepAlive
        }
        Ended::Whole | Ended::Stage | Ended::Budget | Ended::Refused => After::Close,
        // A reset could overtake what was sent last: the error event.
        Ended::UpstreamCut if sink.shows_a_cut() => After::Close,
        Ended::ClientLeft | Ended::UpstreamCut | Ended::Unfinished => After::Abort,
    }
}

/// The commit point: from here on the client has a status, and no other attempt can replace this one.
/// `len` where the body that goes out is not the one that came.
pub fn commit(call: &mut Call<'_>, sink: &mut Sink<'_>, head: Answered, len: Option<BodyLen>) {
    call.exchange.status = head.status();
    let id = call.exchange.id;
    let date = date::at(call.exchange.clock.when(Step::Head));
    let ours: [(&[u8], &[u8]); 2] = [(TOLLGATE_ID, id.as_bytes()), (REQUEST_ID, id.as_bytes())];
    let limits = told_limits(call);
    match &head {
        Answered::Upstream(answer) => {
            let has_id = answer.field("x-request-id").is_some();
            let has_date = Cell::new(false);
            let theirs = answer.fields().filter(|(name, _)| {
                has_date.set(has_date.get() || name.eq_ignore_ascii_case(DATE));
                answer_field_goes_on(name, &answer.connection)
                    && (limits.is_empty() || !ratelimit::is_about_limits(name))
            });
            // Asked for behind their fields.
            let dated = std::iter::once((DATE, &date[..])).filter(|_| !has_date.get());
            let ours = ours.iter().copied().take(if has_id { 1 } else { 2 });
            let reason = answer.reason.start as usize..answer.reason.end as usize;
            let reason = answer.bytes.get(reason).unwrap_or_default();
            let len = len.unwrap_or_else(|| len_of(answer));
            sink.head(answer.status, reason, theirs.chain(ours).chain(limits.iter()).chain(dated), len);
        }
        Answered::Mock(answer) => {
            let fields: [(&[u8], &[u8]); 2] =
                [(b"content-type", answer.content_type.as_bytes()), (DATE, &date)];
            let len = len.unwrap_or_else(|| answer.len.map_or(BodyLen::Open, BodyLen::Known));
            sink.head(answer.status, b"OK", fields.into_iter().chain(ours).chain(limits.iter()), len);
        }
    }
}

/// What the caller is told of its limits.
pub fn told_limits(call: &Call<'_>) -> Fields {
    let account = call.account.as_ref().zip(call.exchange.dialect);
    account.map_or_else(Fields::default, |(account, dialect)| account.told(dialect))
}

/// What an answer is to the gateway.
enum Kind {
    Events(Events),
    Bytes,
    /// One event with all the text, looked at by stages.
    Staged(Box<StageRunner>),
}

/// What an answer's fields say that it is. None: an event stream may come under this label. Providers send them as
/// plain text, without a type, or as JSON where a stream was asked for.
fn labelled(head: &Answered, expected: Expected, call: &Call<'_>) -> Option<Shape> {
    let content_type = content_type(head);
    if is_event_stream(content_type) {
        return Some(Shape::Stream);
    }
    let Answered::Upstream(answer) = head else { return Some(Shape::Whole) };
    let is_json = media_type(content_type).eq_ignore_ascii_case(b"application/json");
    if is_json && !call.exchange.stream {
        return Some(Shape::Whole);
    }
    let is_read = expected.dialect.is_some()
        && (200..300).contains(&answer.status)
        && answer.framing != ResponseFraming::None
        && content_coding(head).is_none();
    (!is_read).then_some(Shape::Whole)
}

fn content_type(head: &Answered) -> &[u8] {
    match head {
        Answered::Upstream(answer) => answer.field("content-type").unwrap_or_default(),
        Answered::Mock(answer) => answer.content_type.as_bytes(),
    }
}

fn content_coding(head: &Answered) -> Option<&[u8]> {
    let Answered::Upstream(answer) = head else { return None };
    answer.field("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// What an answer of this shape is, and the tap that reads it.
fn kind_of(head: &Answered, shape: Shape, expected: Expected, call: &Call<'_>) -> Result<(Kind, Tap), Error> {
    let Some(dialect) = expected.dialect.filter(|_| (200..300).contains(&head.status())) else {
        let asked_for_model = call.exchange.served.as_ref().is_some_and(|served| served.route.is_some());
        let may_be_wrong_path = head.status() == NOT_FOUND && asked_for_model;
        return Ok((Kind::Bytes, if may_be_wrong_path { Tap::keeping() } else { Tap::closed() }));
    };
    let known = Known { request_bytes: call.exchange.bytes_in, output_max: expected.output_max };
    let coding = content_coding(head);
    let tap = match expected.is_metered {
        true => Tap::metering(dialect, shape, coding, known),
        false => Tap::closed(),
    };
    let stages = StageRunner::new(dialect, stages(expected, call));
    if let Some(coding) = coding {
        let coding = quoted(&String::from_utf8_lossy(coding));
        return match stages {
            None => Ok((Kind::Bytes, tap)),
            Some(_) => Err(unseen(&format!("content-encoding \"{coding}\", which was not asked for"))),
        };
    }
    let kind = match (shape, stages) {
        (Shape::Stream, stages) => Kind::Events(Events::new(dialect, expected, stages)),
        (Shape::Whole, Some(stages)) => Kind::Staged(stages),
        (Shape::Whole, None) => Kind::Bytes,
    };
    Ok((kind, tap))
}

/// An answer that stages would have to look at and cannot.
fn unseen(what: &str) -> Error {
    Error::new(ErrorKind::UpstreamBroken, format!("the provider sent {what}; policies here must read it"))
}

/// The stages of this answer, in order: the provider's ids are sealed before any policy sees them.
fn stages(expected: Expected, call: &Call<'_>) -> Vec<Box<dyn EventStage>> {
    let mut stages: Vec<Box<dyn EventStage>> = Vec::new();
    let served = call.exchange.served.as_ref();
    let provider = served.and_then(|served| call.snapshot.providers.get(served.provider as usize));
    if expected.seals
        && let Some(provider) = provider
    {
        stages.push(Box::new(Seal::new(provider)));
    }
    stages.extend(call.snapshot.stages.event.iter().filter_map(|stage| stage.make(&call.exchange)));
    stages
}

/// When the exchange must have ended: by the client's total timeout and the provider's, zero for none.
pub fn total_deadline(call: &Call<'_>, of_provider: Duration) -> Instant {
    let start = call.exchange.clock.start();
    let totals = [call.snapshot.timeouts.total, of_provider];
    totals.iter().filter(|total| !total.is_zero()).map(|total| start + *total).min().unwrap_or(Instant::NEVER)
}

fn len_of(answer: &Answer) -> BodyLen {
    match answer.framing {
        ResponseFraming::Length(length) => BodyLen::Known(length),
        ResponseFraming::None => match answer.status {
            // Neither has a body; a length there would be the one of another answer (RFC 9110 section 8.6).
            204 | 304 => BodyLen::None,
            _ => BodyLen::Known(answer.content_length.unwrap_or(0)),
        },
        ResponseFraming::Chunked | ResponseFraming::UntilClose => BodyLen::Open,
    }
}

fn is_event_stream(content_type: &[u8]) -> bool {
    media_type(content_type).eq_ignore_ascii_case(b"text/event-stream")
}

fn media_type(content_type: &[u8]) -> &[u8] {
    content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Our id, beside a provider's own `x-request-id`.
const TOLLGATE_ID: &[u8] = b"x-tollgate-request-id";
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::is_of_server;

    #[test]
    fn a_404_about_the_path_is_told_from_one_about_the_model() {
        // who, body, about the path
        let rows = [
            ("a server's page", "<html><h1>404 Not Found</h1></html>", true),
            ("nothing at all", "", true),
            ("FastAPI", r#"{"detail":"Not Found"}"#, true),
            ("another gateway", r#"{"message":"no Route matched with those values"}"#, true),
            ("Spring", r#"{"status":404,"error":"Not Found","path":"/v1/embeddings"}"#, true),
            (
                "OpenAI, path",
                r#"{"error":{"message":"Invalid URL (POST /v1/embeddings)","code":null}}"#,
                true,
            ),
            ("OpenAI, model", r#"{"error":{"message":"no model `m`","code":"model_not_found"}}"#, false),
            ("Anthropic", r#" {"type":"error","error":{"type":"not_found_error"}}"#, false),
            ("Mistral", r#"{"object":"error","message":"Invalid model: m"}"#, false),
            ("Gemini", "[{\n  \"error\": {\n    \"code\": 404", false),
            ("Ollama", r#"{"error":"model 'm' not found"}"#, false),
        ];
        for (who, body, expected) in rows {
            assert_eq!(is_of_server(body.as_bytes(), "/v1/embeddings"), expected, "{who}");
        }
    }
}
