//! Other paths of a provider, under a prefix of the config: streamed in both directions, unseen by surfaces
//! and policy.
//!
//! The body is never collected: one piece at a time goes on, and a slow provider slows its client. An answer
//! that begins before the request has ended is relayed; the rest of the request is not read then. Once a byte
//! of the body has gone out nothing is repeated. Paths are compared as sent. What could mean another path to
//! the provider than to us (dot segments, an encoded slash or backslash) is refused, so that allowed prefixes
//! hold. Metered where the path's end names a dialect and the answer has usage. Limits of tokens reserve what the
//! body's length tells, and book what the answer says; a price it has none, since the model is not looked at.

use crate::base::error::{Error, Kind};
use crate::codec::http1::{BodyFraming, CHUNK_END, LAST_CHUNK, ResponseFraming, write_chunk_head};
use crate::codec::patch::Patches;
use crate::handler::account::PlannedCall;
use crate::handler::answer::{self, Upcoming};
use crate::handler::attempt::{self, Answered, Attempted, Outgoing};
use crate::handler::llm::{Answering, Call, Stop, admit};
use crate::handler::request;
use crate::handler::snapshot::Passthrough;
use crate::handler::source::Source;
use crate::handler::usage;
use crate::handler::watch::ClientWatch;
use crate::llm::dialect::Dialect;
use crate::llm::provider::Provider;
use crate::net::deadline::Deadline;
use crate::net::downstream::{BodyError, Downstream};
use crate::net::page::Slice;
use crate::net::race::{First, race};
use crate::net::send::SendList;
use crate::net::upstream::{self, Sent, UpstreamError};
use crate::policy::exchange::{Served, Step};
use std::pin::Pin;

/// Serves a path that is no surface's.
pub async fn serve(call: &mut Call<'_>, downstream: &mut Downstream, path: &str) -> Result<Answering, Stop> {
    let Some((route, rest)) = call.snapshot.passthrough(path) else {
        return Err(Error::new(Kind::PathUnknown, "nothing is served under this path").into());
    };
    call.exchange.surface = "passthrough";
    let dialect = dialect_of(rest);
    call.exchange.dialect = dialect;
    let key = request::authenticate(call)?;
    if !key.passthrough {
        return Err(Error::new(Kind::ModelForbidden, "this API key may not use pass-through paths").into());
    }
    check(route, &call.head.method, rest)?;
    let provider = attempt::provider(call, route.provider)?;
    call.exchange.served = Some(Served { route: None, provider: provider.index, model: "".into() });
    let target = attempt::with_query(provider.passthrough_path(rest), call.head.uri.query());
    let metered = dialect.is_some();
    admit(call, key, downstream)?;
    let costs = metered && call.head.method == http::Method::POST;
    let outgoing = Outgoing { target, body: None, patches: Patches::new(), metered, costs };
    enter(call, provider, costs)?;
    let total = attempt::total_timer(call, provider);
    let attempting = async {
        match call.head.framing {
            BodyFraming::None => {
                let mut watch = ClientWatch::new(downstream.conn());
                attempt::once(call, provider, &outgoing, Pin::new(&mut watch)).await
            }
            framing => upload(call, downstream, provider, &outgoing, framing).await,
        }
    };
    let attempted = total.bound(attempting).await.map_err(|_| attempt::total_passed(provider))??;
    let tells_usage = metered && usage::is_wished(&call.head.headers);
    let expected =
        answer::Expected { dialect, tells_usage, is_metered: costs, ..answer::Expected::default() };
    let watch = ClientWatch::new(downstream.conn());
    let (head, upcoming) = Upcoming::new(call, attempted, expected, key, watch);
    Ok(Answering::Relay(head, upcoming))
}

/// Reserves what can be told from the length of the body, and writes the call into the ledger. What the answer takes
/// beyond that is booked as it is known.
fn enter(call: &mut Call<'_>, provider: &Provider, costs: bool) -> Result<(), Error> {
    let Some(account) = &mut call.account else { return Ok(()) };
    let bytes = match call.head.framing {
        BodyFraming::Length(length) => length,
        BodyFraming::None | BodyFraming::Chunked => 0,
    };
    let is_stream = false;
    let planned = PlannedCall {
        provider,
        route: None,
        model: "",
        bytes,
        output_max: None,
        choices: 1,
        writes: false,
        costs,
        is_stream,
    };
    account.reserve(&planned).map_err(|refused| {
        account.void();
        refused.error
    })?;
    attempt::enter(call, &planned)
}

/// Sends the request with its body piece by piece, and reads the answer's head.
async fn upload(
    call: &mut Call<'_>,
    downstream: &mut Downstream,
    provider: &Provider,
    outgoing: &Outgoing,
    framing: BodyFraming,
) -> Result<Attempted, Stop> {
    let bytes_max = match call.snapshot.limits.upload_bytes_max {
        0 => u64::MAX,
        most => most,
    };
    if let BodyFraming::Length(length) = framing
        && length > bytes_max
    {
        return Err(request::body_error(BodyError::TooLarge, bytes_max));
    }
    let mut exchange = attempt::open(call, provider).await?;
    let head = attempt::head(&call.head, provider, outgoing, ResponseFraming::from(framing))?;
    let timer = Deadline::unset();
    attempt::set(&timer, provider.timeouts.write);
    let told = |error: UpstreamError| Stop::from(attempt::call_error(provider, error));
    let mut sent = exchange.send(head, &timer).await.map_err(told)?;
    if call.head.expect_continue && sent == Sent::Whole {
        downstream.send_continue().await.map_err(|error| request::body_error(error, bytes_max))?;
    }
    while sent == Sent::Whole {
        let Some(piece) = next_piece(downstream, &mut exchange).await.map_err(|stop| match stop {
            Stopped::Client(error) => request::body_error(error, bytes_max),
            Stopped::Upstream(error) => told(error),
        })?
        else {
            break;
        };
        let Upload::Piece(piece) = piece else { break };
        call.exchange.bytes_in += piece.len() as u64;
        if call.exchange.bytes_in > bytes_max {
            return Err(request::body_error(BodyError::TooLarge, bytes_max));
        }
        attempt::set(&timer, provider.timeouts.write);
        sent = exchange.send(framed(piece, framing), &timer).await.map_err(told)?;
    }
    if downstream.is_body_read() && sent == Sent::Whole && framing == BodyFraming::Chunked {
        let mut end = SendList::new();
        end.push_static(LAST_CHUNK);
        exchange.send(end, &timer).await.map_err(told)?;
    }
    call.exchange.unmetered = outgoing.costs && downstream.is_body_read() && sent == Sent::Whole;
    call.exchange.clock.mark(Step::Sent);
    attempt::set(&timer, provider.timeouts.response_head);
    // Nobody reads from the client any more, so that its end must be watched for.
    let left = ClientWatch::new(downstream.conn());
    let answer = match race(exchange.read_head(&timer), left).await {
        First::One(answer) => answer.map_err(told)?,
        First::Two(()) => return Err(Stop::ClientLeft),
    };
    call.exchange.clock.mark(Step::Head);
    let (head, source) = (Answered::Upstream(answer), Source::Upstream(exchange));
    Ok(Attempted {
        head,
        source,
        idle_timeout: provider.timeouts.idle,
        total_timeout: provider.timeouts.total,
    })
}

enum Upload {
    Piece(Slice),
    /// The answer has begun: the rest of the request is of no use.
    Answered,
}

enum Stopped {
    Client(BodyError),
    Upstream(UpstreamError),
}

/// The next piece of the body, or the news that the provider has answered.
async fn next_piece(
    downstream: &mut Downstream,
    exchange: &mut upstream::Http1Upstream,
) -> Result<Option<Upload>, Stopped> {
    match race(downstream.body_piece(), exchange.early_answer()).await {
        First::One(piece) => Ok(piece.map_err(Stopped::Client)?.map(Upload::Piece)),
        First::Two(answered) => answered.map(|()| Some(Upload::Answered)).map_err(Stopped::Upstream),
    }
}

fn framed(piece: Slice, framing: BodyFraming) -> SendList {
    let mut list = SendList::new();
    if framing == BodyFraming::Chunked {
        list.push_with(|out| write_chunk_head(out, piece.len()));
        list.push_slice(piece);
        list.push_static(CHUNK_END);
    } else {
        list.push_slice(piece);
    }
    list
}

fn check(route: &Passthrough, method: &http::Method, rest: &str) -> Result<(), Error> {
    if is_ambiguous(rest) {
        return Err(Error::new(
            Kind::BadRequest,
            "dot segments and encoded slashes are not taken in this path",
        ));
    }
    route.permit(method, rest).map_err(|kind| match kind {
        Kind::MethodNotAllowed => {
            let allowed: Vec<&str> = route.allowed().map(http::Method::as_str).collect();
            let allowed = allowed.join(", ");
            let detail = format!("{method} is not allowed under {}, only {allowed}", route.path);
            Error::new(kind, detail).allow(allowed)
        }
        kind => Error::new(kind, format!("this path is not allowed under {}", route.path)),
    })
}

/// Whether a provider may read the path as another one than it looks.
fn is_ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = lower.contains("%2f") || lower.contains("%5c") || lower.contains('\\');
    encoded || lower.replace("%2e", ".").split('/').any(|segment| matches!(segment, "." | ".."))
}

/// The dialect of a path that ends like one of the surfaces.
fn dialect_of(rest: &str) -> Option<Dialect> {
    let ends = [
        ("/chat/completions", Dialect::OpenAiChat),
        ("/completions", Dialect::OpenAiCompletions),
        ("/embeddings", Dialect::OpenAiEmbeddings),
        ("/responses", Dialect::OpenAiResponses),
        ("/messages", Dialect::Anthropic),
    ];
    ends.into_iter().find(|(end, _)| rest.ends_with(end)).map(|(_, dialect)| dialect)
}

#[cfg(test)]
mod tests {
    use super::is_ambiguous;

    #[test]
    fn paths_that_may_mean_another_one_are_found() {
        let rows = [
            ("/v1/files", false),
            ("/v1/files/a.b/..c", false),
            ("/v1/files/../admin", true),
            ("/v1/files/%2e%2E/admin", true),
            ("/v1/./files", true),
            ("/v1%2ffiles", true),
            ("/v1\\files", true),
            ("/v1%5Cfiles", true),
        ];
        for (path, ambiguous) in rows {
            assert_eq!(is_ambiguous(path), ambiguous, "{path}");
        }
    }
}
