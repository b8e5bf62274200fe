//! The life of a request, top to bottom, once. Read this file first.
//!
//! `serve` is called by the connection with a head that passed the grammar; it answers on the same connection
//! and says whether another request may follow. `answer` is the list of stages; each is a leaf that gives a
//! value or the error that ends the request; all branching is here. Whatever happens, `serve` finishes the
//! exchange by one call.

use crate::base::clock;
use crate::base::error::{Error, Kind};
use crate::codec::http1::RequestHead;
use crate::handler::account::Account;
use crate::handler::answer::Upcoming;
use crate::handler::attempt::{self, Answered};
use crate::handler::request;
use crate::handler::sink::{Client, Gone, Http1Sink, Sink};
use crate::handler::snapshot::Snapshot;
use crate::handler::surface::{Surface, WrongMethod};
use crate::handler::watch::ClientWatch;
use crate::handler::worker::Worker;
use crate::handler::{answer, models, passthrough, reply, responses, usage};
use crate::llm::dialect::Dialect;
use crate::net::downstream::Downstream;
use crate::policy::auth::Key;
use crate::policy::exchange::{Ended, Exchange, Step};
use crate::policy::stage::Verdict;
use crate::usage::meter::{Known, Meter, Shape};
use http::{HeaderMap, Uri};
use std::net::SocketAddr;
use std::pin::Pin;

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Another request may follow.
    KeepAlive,
    /// The answer is out; close politely.
    Close,
    /// The answer broke off or nobody takes it: close so that it shows.
    Abort,
    /// Bytes are a tunnel's from now on; it has ended.
    Tunnelled,
}

/// Why a request ends without a relayed answer.
pub enum Stop {
    /// The client is told. Boxed: its room would be part of every request.
    Error(Box<Error>),
    /// The client has left.
    ClientLeft,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(Box::new(error))
    }
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Stop {
        Stop::ClientLeft
    }
}

/// What became of a request.
pub enum Answering {
    /// It was answered.
    Done(After),
    /// A target answers it, with this head: to be relayed.
    Relay(Answered, Box<Upcoming>),
}

/// One request on its way.
pub struct Call<'a> {
    pub worker: &'a Worker,
    pub snapshot: &'a Snapshot,
    pub head: Box<RequestHead>,
    pub exchange: Exchange,
    /// None where nothing is limited or recorded, or before the key is known.
    pub account: Option<Box<Account<'a>>>,
    pub peer: SocketAddr,
    finished: bool,
}

impl Call<'_> {
    /// Ends the exchange. Every way out of `serve` comes by here.
    fn finish(mut self) {
        self.settle();
    }

    fn settle(&mut self) {
        self.finished = true;
        self.exchange.clock.mark(Step::Done);
        if self.exchange.unmetered
            && let Some(dialect) = self.exchange.dialect
        {
            let known = Known { request_bytes: self.exchange.bytes_in, output_max: None };
            self.exchange.usage = Meter::new(dialect, Shape::Whole).finish(known);
        }
        if let Some(account) = self.account.take() {
            account.close(&mut self.exchange);
        }
        self.worker.facts.finish(&self.exchange, self.snapshot, self.peer);
    }
}

impl Drop for Call<'_> {
    /// The net below `finish`: a request whose task panicked or was dropped is counted and recorded, too.
    fn drop(&mut self) {
        if !self.finished {
            self.exchange.ended = Ended::Unfinished;
            self.worker.facts.counters().unfinished.add(1);
            self.settle();
        }
    }
}

/// Serves one request. `may_follow`: the connection may carry another one.
pub async fn serve(
    worker: &Worker,
    downstream: &mut Downstream,
    mut head: Box<RequestHead>,
    may_follow: bool,
) -> After {
    head.keep_alive &= may_follow;
    let snapshot = worker.snapshot();
    let exchange = Exchange::begin(clock::now());
    worker.facts.begin();
    let peer = downstream.peer();
    let mut call = Call { worker, snapshot: &snapshot, head, exchange, account: None, peer, finished: false };
    // Relayed from here and not from the depths of `answer`: each of its levels would be walked through with
    // every event, and a stream that waits would keep their room.
    let answering = Box::pin(answer(&mut call, downstream)).await;
    let answered = match answering {
        Ok(Answering::Relay(head, mut upcoming)) => {
            answer::relay(&mut call, downstream, head, &mut upcoming).await
        }
        Ok(Answering::Done(after)) => Ok(after),
        Err(stop) => Err(stop),
    };
    let after = match answered {
        Ok(after) => after,
        Err(Stop::ClientLeft) => {
            call.exchange.ended = Ended::ClientLeft;
            After::Abort
        }
        Err(Stop::Error(error)) => Box::pin(refuse(&mut call, downstream, &error)).await,
    };
    call.finish();
    after
}

/// The one status that may mean that a provider was asked under a wrong path.
pub const NOT_FOUND: u16 = 404;

/// A limit refuses.
const TOO_MANY: u16 = 429;

/// The way of a request.
async fn answer(call: &mut Call<'_>, downstream: &mut Downstream) -> Result<Answering, Stop> {
    let path = call.head.uri.path().to_owned();
    let surface = match Surface::of(call.head.method.as_str(), &path) {
        Some(Ok(surface)) => surface,
        Some(Err(WrongMethod { surface, allowed })) => {
            call.exchange.surface = surface.name();
            call.exchange.dialect = Some(request::dialect(surface, &call.head));
            let detail = format!("{} is not allowed here, only {allowed}", call.head.method);
            return Err(Error::new(Kind::MethodNotAllowed, detail).allow(allowed).into());
        }
        // Boxed, as below: rarer than a call of a model, and its states would be part of each.
        None => return Box::pin(passthrough::serve(call, downstream, &path)).await,
    };
    call.exchange.surface = surface.name();
    call.exchange.dialect = Some(request::dialect(surface, &call.head));
    let key = request::authenticate(call)?;
    match surface {
        Surface::Models | Surface::Model(_) => {
            Box::pin(list_models(call, downstream, key, surface)).await.map(Answering::Done)
        }
        Surface::Usage(id) => Box::pin(tell_usage(call, downstream, key, id)).await.map(Answering::Done),
        Surface::Response { id, action } => {
            Box::pin(responses::serve(call, downstream, key, id, action)).await
        }
        _ => ask(call, downstream, key, surface).await,
    }
}

/// A request with a JSON body for a model.
async fn ask(
    call: &mut Call<'_>,
    downstream: &mut Downstream,
    key: &Key,
    surface: Surface<'_>,
) -> Result<Answering, Stop> {
    request::check_media(&call.head)?;
    admit(call, key, downstream)?;
    let permit = request::collect_body(call, downstream).await?;
    let asked = request::read(call, surface)?;
    let route = request::route(call, key, &asked)?;
    let made_by = match surface {
        Surface::Responses => responses::open_previous(call)?,
        _ => None,
    };
    if let Some(answered) = decide(call, downstream).await? {
        return Ok(Answering::Done(answered));
    }
    call.exchange.clock.mark(Step::Policy);
    let mut watch = ClientWatch::new(downstream.conn());
    let watched = Pin::new(&mut watch);
    let attempted = attempt::until_answered(call, surface, &asked, route, made_by, watched).await?;
    let tells_usage = asked.peek.stream && usage::is_wished(&call.head.headers);
    // What the caller sent was for attempts; an answer may take hours.
    call.exchange.body = None;
    call.head.headers = HeaderMap::new();
    if attempted.head.status() != NOT_FOUND {
        call.head.uri = Uri::default();
    }
    drop(permit);
    let expected = answer::Expected {
        dialect: Some(surface.dialect()),
        hide_usage: asked.hide_usage,
        usage_asked: !asked.hide_usage,
        tells_usage,
        seals: surface == Surface::Responses && responses::are_sealed(call.snapshot),
        is_metered: surface != Surface::CountTokens,
        output_max: asked.peek.output_max,
    };
    let (head, upcoming) = Upcoming::new(call, attempted, expected, key, watch);
    Ok(Answering::Relay(head, upcoming))
}

/// Opens the account of a request that may cost something, and takes its place.
pub fn admit(call: &mut Call<'_>, key: &Key, downstream: &Downstream) -> Result<(), Error> {
    let client = (downstream.listener(), call.peer.ip());
    call.account = Account::open(call.worker, call.snapshot, key, client);
    call.account.as_mut().map_or(Ok(()), |account| account.admit())
}

/// Asks the request stages, in order. An answer of theirs is sent here.
async fn decide(call: &mut Call<'_>, downstream: &mut Downstream) -> Result<Option<After>, Stop> {
    for stage in &call.snapshot.stages.request {
        match stage.decide(&mut call.exchange).await {
            Verdict::Pass => {}
            Verdict::Refuse(error) => return Err(error.into()),
            Verdict::Answer(body) => return answer_whole(call, downstream, &body).await.map(Some),
        }
    }
    Ok(None)
}

async fn list_models(
    call: &mut Call<'_>,
    downstream: &mut Downstream,
    key: &Key,
    surface: Surface<'_>,
) -> Result<After, Stop> {
    let dialect = call.exchange.dialect.unwrap_or(Dialect::OpenAiChat);
    let body = match surface {
        Surface::Model(path) => {
            let name = models::name_in(path);
            let found = name.as_deref().and_then(|name| models::one(call.snapshot, key, dialect, name));
            found.ok_or_else(|| {
                let asked = reply::quoted(name.as_deref().unwrap_or(path));
                Error::new(Kind::ModelUnknown, format!("no model \"{asked}\" for this key"))
            })?
        }
        _ => models::list(call.snapshot, key, dialect),
    };
    answer_whole(call, downstream, &body).await
}

/// Costs nothing, so that it counts against no limit.
async fn tell_usage(
    call: &mut Call<'_>,
    downstream: &mut Downstream,
    key: &Key,
    id: &str,
) -> Result<After, Stop> {
    let body = usage::of_request(call.worker, key, id).await?;
    answer_whole(call, downstream, &body).await
}

/// Answers 200 with a JSON body of ours.
async fn answer_whole(call: &mut Call<'_>, downstream: &mut Downstream, body: &[u8]) -> Result<After, Stop> {
    let mut sink = Sink::Http1(Http1Sink::new(downstream, client(call, downstream)));
    call.exchange.status = 200;
    reply::whole(&mut sink, 200, reply::JSON, &[], &call.exchange.id, body).await?;
    call.exchange.bytes_out = sink.body_bytes();
    Ok(if sink.is_reusable() { After::KeepAlive } else { After::Close })
}

/// Answers with an error.
async fn refuse(call: &mut Call<'_>, downstream: &mut Downstream, error: &Error) -> After {
    call.exchange.refuse(error);
    if error.kind.row().status == TOO_MANY {
        // It comes again soon, and not on a new connection if that can be helped.
        downstream.forget_body();
    }
    let dialect = request::error_dialect(call);
    let mut sink = Sink::Http1(Http1Sink::new(downstream, client(call, downstream)));
    let limits = answer::told_limits(call);
    match reply::error(&mut sink, dialect, error, &call.exchange.id, &limits).await {
        Ok(()) if sink.is_reusable() => After::KeepAlive,
        Ok(()) => After::Close,
        Err(Gone) => After::Abort,
    }
}

/// How to answer: the connection is used again only where the request was read whole.
pub fn client(call: &Call<'_>, downstream: &Downstream) -> Client {
    let keep_alive = call.head.keep_alive && downstream.is_body_read() && !call.worker.drain.is_raised();
    Client {
        is_http10: call.head.version == http::Version::HTTP_10,
        is_head: call.head.method == http::Method::HEAD,
        keep_alive,
    }
}
