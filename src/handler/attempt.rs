//! Calls to targets until one answers: build the request, send it, read the head; or the next target.
//!
//! The body is the caller's buffer and an ordered list of patches; each attempt splices its own model name
//! and sends the pieces without joining them, so it can be sent again. Another target is tried when one was
//! not reached, and when 429 or 5xx comes before the commit point (`answer::commit`); the last target's
//! answer goes to the client whatever it is. A call that timed out is not repeated: the provider has taken
//! it and will bill it. A pooled connection that its peer closed just as the request went out gets one more
//! try on a fresh one. Cancel: dropping the future drops the connection; nothing of an attempt is ever
//! pooled unless its answer was read whole.

use crate::base::clock::{self, Instant};
use crate::base::error::{Error, Kind, Timer};
use crate::base::rng;
use crate::codec::http1::{self, HeadWriter, RequestHead, ResponseFraming};
use crate::codec::patch::Patches;
use crate::handler::account::{self, PlannedCall, Reserved};
use crate::handler::answer;
use crate::handler::fields::request_field_goes_on;
use crate::handler::llm::{Call, Stop};
use crate::handler::mock;
use crate::handler::request::{Asked, overlap};
use crate::handler::source::Source;
use crate::handler::surface::Surface;
use crate::llm::dialect::Dialect;
use crate::llm::provider::{Provider, ProviderKind};
use crate::net::deadline::Deadline;
use crate::net::page::Slice;
use crate::net::race::{First, race};
use crate::net::send::SendList;
use crate::net::upstream::{self, Sent, UpstreamError};
use crate::policy::exchange::{Served, Step};
use crate::policy::route::{ModelSent, Route};
use http::Method;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// A target has answered; its body follows from `source`.
pub struct Attempted {
    pub head: Answered,
    pub source: Source,
    /// Of the provider: silence within the body, and the whole exchange; zero for none.
    pub idle_timeout: Duration,
    pub total_timeout: Duration,
}

/// The head of an answer.
pub enum Answered {
    /// As an upstream sent it.
    Upstream(upstream::Answer),
    /// Of the built-in provider.
    Mock(mock::Head),
}

impl Answered {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Answered::Upstream(head) => head.status,
            Answered::Mock(head) => head.status,
        }
    }
}

/// Why an attempt gave no answer.
enum Failed {
    /// Nothing of the request was taken by the target: another one may be asked.
    Unreached(Error),
    /// The target may be working on it: told to the client.
    Final(Error),
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Stop {
        let (Failed::Unreached(error) | Failed::Final(error)) = failed;
        error.into()
    }
}

/// What is sent to one provider, ready to be sent again.
pub struct Outgoing {
    /// Path and query at the provider.
    pub target: String,
    pub body: Option<Slice>,
    pub patches: Patches,
    /// The answer is read, so that no content coding is asked for.
    pub metered: bool,
    /// Sent whole, it may be billed whether its answer comes or not.
    pub costs: bool,
}

/// Asks targets in their order until one answers for good. `only`: the one provider that can answer. A target for
/// which a limit has no room is passed over like one that is not reached; where none is left, the model that the
/// limit's owner names instead is asked for, once.
pub async fn until_answered(
    call: &mut Call<'_>,
    surface: Surface<'_>,
    asked: &Asked,
    route: &Route,
    only: Option<u32>,
    mut watch: Pin<&mut impl Future<Output = ()>>,
) -> Result<Attempted, Stop> {
    let mut last = Last::default();
    let as_asked = Asking { surface, asked, route, name: Rc::clone(&asked.model), is_downgrade: false, only };
    if let Some(attempted) = along(call, &as_asked, &mut last, watch.as_mut()).await? {
        return Ok(attempted);
    }
    if let Some((name, route)) =
        last.downgrade.and_then(|name| Some((name, call.snapshot.routes.resolve(name)?)))
    {
        call.worker.facts.counters().limits.downgraded.add(1);
        call.exchange.note(format_args!("asked for {name} instead, as a budget says"));
        let instead = Asking { route, name: name.into(), is_downgrade: true, ..as_asked };
        if let Some(attempted) = along(call, &instead, &mut last, watch).await? {
            return Ok(attempted);
        }
    }
    if let (Some(account), true) = (&mut call.account, last.is_limit) {
        account.void();
    }
    // None was tried: the model is not served where the stored response is.
    let elsewhere =
        || Error::new(Kind::ResponseUnknown, "this model is not served where the previous response is");
    Err(last.error.unwrap_or_else(elsewhere).into())
}

/// What is asked for along one route.
struct Asking<'r> {
    surface: Surface<'r>,
    asked: &'r Asked,
    route: &'r Route,
    /// The model as the client said it, or as a limit's owner says instead.
    name: Rc<str>,
    is_downgrade: bool,
    only: Option<u32>,
}

/// Why no target has answered yet.
#[derive(Default)]
struct Last<'a> {
    error: Option<Error>,
    /// It was a limit.
    is_limit: bool,
    downgrade: Option<&'a str>,
}

/// The targets of one route. None: no one answered, and `last` says why.
async fn along<'a>(
    call: &mut Call<'a>,
    asking: &Asking<'_>,
    last: &mut Last<'a>,
    mut watch: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<Attempted>, Stop> {
    let snapshot = call.snapshot;
    let can_answer = |provider: u32| asking.only.is_none_or(|only| only == provider);
    let mut candidates = snapshot
        .routes
        .pick(asking.route, &asking.name, rng::bits())
        .filter(|candidate| can_answer(candidate.target.provider));
    let mut next = candidates.next();
    while let Some(candidate) = next.take() {
        next = candidates.next();
        let provider = provider(call, candidate.target.provider)?;
        if !speaks(provider, asking.surface) {
            *last = Last { error: Some(wrong_dialect(provider, asking.surface)), ..Last::default() };
            continue;
        }
        let model = candidate.model.name(&asking.name);
        let planned = planned(call, asking, provider, candidate.route.index, &model);
        let reserved = match reserve(call, &planned) {
            Ok(reserved) => reserved,
            Err(refused) => {
                *last = Last { error: Some(refused.error), is_limit: true, downgrade: refused.downgrade };
                continue;
            }
        };
        let is_other = asking.is_downgrade || candidate.model != ModelSent::Same;
        let outgoing = outgoing(call, provider, asking, is_other.then_some(&*model), reserved)?;
        enter(call, &planned)?;
        let started = clock::lately();
        call.exchange.served = Some(Served {
            route: Some(candidate.route.index),
            provider: provider.index,
            model: Rc::clone(&model),
        });
        let result = {
            let total = total_timer(call, provider);
            let work = call_provider(call, provider, &outgoing);
            match total.bound(race(work, watch.as_mut())).await {
                Ok(First::One(result)) => result,
                Ok(First::Two(())) => return Err(Stop::ClientLeft),
                Err(_) => return Err(total_passed(provider)),
            }
        };
        match result {
            Ok(attempted) if next.is_some() && is_passed_over(attempted.head.status()) => {
                let status = attempted.head.status();
                call.exchange.note(format_args!("provider {} answered {status}", provider.name));
                call.worker.facts.passed_over(&call.exchange, snapshot, Some(status));
                record_attempt(call, &planned, status, "", started);
                call.exchange.unmetered = false;
            }
            Ok(attempted) => return Ok(Some(attempted)),
            Err(Failed::Final(error)) => return Err(error.into()),
            Err(Failed::Unreached(error)) => {
                if next.is_some() {
                    call.exchange.note_error(&error);
                    call.worker.facts.passed_over(&call.exchange, snapshot, None);
                    record_attempt(call, &planned, 0, error.kind.row().code, started);
                }
                *last = Last { error: Some(error), ..Last::default() };
            }
        }
    }
    Ok(None)
}

fn planned<'w>(
    call: &Call<'_>,
    asking: &Asking<'_>,
    provider: &'w Provider,
    route: u32,
    model: &'w str,
) -> PlannedCall<'w> {
    let costs = asking.surface != Surface::CountTokens;
    PlannedCall {
        provider,
        route: Some(route),
        model,
        bytes: call.exchange.bytes_in,
        output_max: asking.asked.peek.output_max,
        choices: asking.asked.peek.choices,
        writes: costs && asking.surface != Surface::Embeddings,
        costs,
        is_stream: call.exchange.stream,
    }
}

fn reserve<'a>(call: &mut Call<'a>, planned: &PlannedCall<'_>) -> Result<Reserved, account::Refused<'a>> {
    call.account.as_mut().map_or(Ok(Reserved { cap: None }), |account| account.reserve(planned))
}

/// Writes into the ledger what is about to be asked.
pub fn enter(call: &mut Call<'_>, planned: &PlannedCall<'_>) -> Result<(), Error> {
    let Some(account) = &mut call.account else { return Ok(()) };
    let tags = call.head.headers.get(account::TAGS).and_then(|tags| tags.to_str().ok()).unwrap_or("");
    account.enter(&call.exchange, planned, account::Asked { tags, client: call.peer.ip() })
}

fn record_attempt(
    call: &mut Call<'_>,
    planned: &PlannedCall<'_>,
    status: u16,
    error: &str,
    started: Instant,
) {
    if let Some(account) = &mut call.account {
        account.passed_over(&call.exchange, planned, status, error, clock::now() - started);
    }
}

/// One call to one provider, for requests without a model.
pub async fn once(
    call: &mut Call<'_>,
    provider: &Provider,
    outgoing: &Outgoing,
    watch: Pin<&mut impl Future<Output = ()>>,
) -> Result<Attempted, Stop> {
    let work = call_provider(call, provider, outgoing);
    match race(work, watch).await {
        First::One(attempted) => attempted.map_err(Stop::from),
        First::Two(()) => Err(Stop::ClientLeft),
    }
}

/// The provider at a place of the snapshot. A place outside it is a defect of the compiled config.
pub fn provider<'a>(call: &Call<'a>, index: u32) -> Result<&'a Provider, Error> {
    let provider = call.snapshot.providers.get(index as usize);
    provider.ok_or_else(|| Error::new(Kind::Internal, "the route names a provider that is not there"))
}

/// Sends the request and waits for the answer's head.
async fn call_provider(
    call: &mut Call<'_>,
    provider: &Provider,
    outgoing: &Outgoing,
) -> Result<Attempted, Failed> {
    call.exchange.attempts += 1;
    let (head, source) = if provider.kind == ProviderKind::Mock {
        let mut body = Vec::new();
        outgoing.patches.apply(outgoing.body.as_deref().unwrap_or_default(), &mut body);
        let (head, answer) = mock::answer(&call.head.method, &outgoing.target, &body);
        (Answered::Mock(head), Source::Mock(Box::new(answer)))
    } else {
        call_upstream(call, provider, outgoing).await?
    };
    call.exchange.clock.mark(Step::Head);
    let timeouts = &provider.timeouts;
    Ok(Attempted { head, source, idle_timeout: timeouts.idle, total_timeout: timeouts.total })
}

async fn call_upstream(
    call: &mut Call<'_>,
    provider: &Provider,
    outgoing: &Outgoing,
) -> Result<(Answered, Source), Failed> {
    let mut wanted = Wanted::Any;
    loop {
        let mut exchange = checkout(call, provider, wanted).await?;
        let list = build(&call.head, provider, outgoing).map_err(Failed::Final)?;
        let timer = Deadline::unset();
        set(&timer, provider.timeouts.write);
        let answered = match exchange.send(list, &timer).await {
            Ok(sent) => {
                call.exchange.unmetered = outgoing.costs && sent == Sent::Whole;
                set(&timer, provider.timeouts.response_head);
                exchange.read_head(&timer).await
            }
            Err(error) => Err(error),
        };
        match answered {
            Ok(answer) => return Ok((Answered::Upstream(answer), Source::Upstream(exchange))),
            // Its peer closed it as the request went out: a new one is asked, once, since that is not reused.
            // Another idle one could repeat the request for each that lies there.
            Err(UpstreamError::NoAnswer) if exchange.is_reused() => {
                call.exchange.unmetered = false;
                wanted = Wanted::New;
            }
            Err(error) => return Err(Failed::Final(call_error(provider, error))),
        }
    }
}

/// A connection to the provider, for a request whose body is streamed.
pub async fn open(call: &mut Call<'_>, provider: &Provider) -> Result<Box<upstream::Http1Upstream>, Stop> {
    call.exchange.attempts += 1;
    checkout(call, provider, Wanted::Any).await.map_err(Stop::from)
}

/// Which connection will do.
#[derive(Clone, Copy)]
enum Wanted {
    Any,
    /// One that carried nothing before.
    New,
}

async fn checkout(
    call: &mut Call<'_>,
    provider: &Provider,
    wanted: Wanted,
) -> Result<Box<upstream::Http1Upstream>, Failed> {
    let origin = provider.origin.and_then(|at| call.snapshot.origins.get(at as usize));
    let origin =
        origin.ok_or_else(|| Failed::Final(Error::new(Kind::Internal, "the provider has no origin")))?;
    let lease = match wanted {
        Wanted::Any => call.worker.pools.checkout(origin).await,
        Wanted::New => call.worker.pools.checkout_new(origin).await,
    };
    let lease = lease.map_err(|failure| {
        let detail = format!("provider {}: {}", provider.name, failure.message);
        Failed::Unreached(Error::new(failure.kind(), detail).cause(failure.behind()))
    })?;
    call.exchange.clock.mark_at(Step::Connect, clock::lately());
    Ok(Box::new(upstream::Http1Upstream::new(lease, asked_for(&call.head))))
}

/// A timer of the whole exchange, where `provider` serves it.
pub fn total_timer(call: &Call<'_>, provider: &Provider) -> Deadline {
    let timer = Deadline::unset();
    timer.set_at(answer::total_deadline(call, provider.timeouts.total));
    timer
}

/// What the client is told when that timer has passed before an answer began.
pub fn total_passed(provider: &Provider) -> Stop {
    call_error(provider, UpstreamError::Timeout(Timer::Total)).into()
}

/// Sets `timer`; zero is no limit.
pub fn set(timer: &Deadline, timeout: Duration) {
    match timeout.is_zero() {
        true => timer.set_at(Instant::NEVER),
        false => timer.set(timeout),
    }
}

/// The request for `provider` as pieces: a head of ours, then the caller's body with its patches, not joined.
fn build(from: &RequestHead, provider: &Provider, outgoing: &Outgoing) -> Result<SendList, Error> {
    let framing = match &outgoing.body {
        Some(body) => ResponseFraming::Length(outgoing.patches.len_after(body.len()) as u64),
        // Servers that expect a body answer 411 where its absence is not told (RFC 9110 section 8.6).
        None if [Method::POST, Method::PUT, Method::PATCH].contains(&from.method) => {
            ResponseFraming::Length(0)
        }
        None => ResponseFraming::None,
    };
    let mut list = head(from, provider, outgoing, framing)?;
    if let Some(body) = &outgoing.body {
        push_patched(body, &outgoing.patches, &mut list);
    }
    Ok(list)
}

/// The head of the request for `provider`.
pub fn head(
    from: &RequestHead,
    provider: &Provider,
    outgoing: &Outgoing,
    framing: ResponseFraming,
) -> Result<SendList, Error> {
    let mut list = SendList::new();
    let mut written = Ok(());
    list.push_with(|out| {
        let mut head = HeadWriter::request(out, from.method.as_str(), &outgoing.target);
        head.field(b"host", provider.host_header.as_bytes());
        for (name, value) in &from.headers {
            let replaced = provider.headers.iter().any(|own| *own.name == *name.as_str());
            if !replaced && request_field_goes_on(name.as_str(), &from.connection) {
                head.typed_field(name, value);
            }
        }
        for own in provider.credential.iter().chain(&provider.headers) {
            head.field(own.name.as_bytes(), own.value.expose_secret());
        }
        if outgoing.metered {
            head.field(b"accept-encoding", b"identity");
        }
        head.framing(framing);
        written = head.finish();
    });
    written.map_err(|fault| Error::new(Kind::BadRequest, format!("the request holds {}", fault.what)))?;
    Ok(list)
}

/// A body up to this length is copied to stand behind its head.
const COPIED_BYTES_MAX: usize = 2048;

/// Pieces of the body without a copy, replacements copied. A small body is copied behind its head: a send of one
/// piece costs the kernel more time less than the copy takes.
fn push_patched(body: &Slice, patches: &Patches, list: &mut SendList) {
    if body.len() <= COPIED_BYTES_MAX {
        return patches.pieces(body).for_each(|piece| list.push_copy(piece));
    }
    let start = body.as_ptr() as usize;
    for piece in patches.pieces(body) {
        match (piece.as_ptr() as usize).checked_sub(start) {
            Some(at) if at + piece.len() <= body.len() => list.push_slice(body.slice(at..at + piece.len())),
            _ => list.push_copy(piece),
        }
    }
}

fn outgoing(
    call: &Call<'_>,
    provider: &Provider,
    asking: &Asking<'_>,
    model: Option<&str>,
    reserved: Reserved,
) -> Result<Outgoing, Error> {
    let mut patches = call.exchange.patches.clone();
    let peek = &asking.asked.peek;
    if let Some(model) = model {
        peek.set_model(&mut patches, model).map_err(|_| overlap())?;
    }
    if let Some(tokens) = reserved.cap {
        peek.cap_output(&mut patches, tokens).map_err(|_| overlap())?;
    }
    let target = with_query(provider.path_for(call.head.uri.path()), call.head.uri.query());
    let costs = asking.surface != Surface::CountTokens;
    Ok(Outgoing { target, body: call.exchange.body.clone(), patches, metered: true, costs })
}

/// A path and the client's query, which goes on as it is.
pub fn with_query(mut path: String, query: Option<&str>) -> String {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    path
}

/// The answer makes way for another target: overload and failures of the provider, not faults of the request.
fn is_passed_over(status: u16) -> bool {
    status == 429 || status >= 500
}

fn speaks(provider: &Provider, surface: Surface<'_>) -> bool {
    match surface.dialect() {
        Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings => {
            provider.dialects.chat
        }
        Dialect::OpenAiResponses => provider.dialects.responses,
        Dialect::Anthropic => provider.dialects.messages,
    }
}

fn wrong_dialect(provider: &Provider, surface: Surface<'_>) -> Error {
    let detail =
        format!("this model is served by {}, which does not speak {}", provider.name, surface.name());
    Error::new(Kind::ModelUnknown, detail).param("model")
}

fn asked_for(head: &RequestHead) -> http1::Asked {
    if head.method == http::Method::HEAD { http1::Asked::Head } else { http1::Asked::Body }
}

/// What the client is told of a call that broke.
pub fn call_error(provider: &Provider, error: UpstreamError) -> Error {
    let name = &provider.name;
    match error {
        UpstreamError::Timeout(timer) => {
            let detail = format!("provider {name} did not answer in time ({}_ms)", timer.name());
            Error::new(Kind::UpstreamTimeout(timer), detail)
        }
        error => Error::new(Kind::UpstreamBroken, format!("provider {name}: {error}")),
    }
}
