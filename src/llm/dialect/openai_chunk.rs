//! What the older OpenAI dialects share (Chat, Completions, Embeddings): how a chunk ends, fails and counts,
//! and how an error is written. Responses writes its errors likewise.

use super::cut::set;
use super::lane::index;
use super::stream::{Closes, Ending, Refusal, StreamState};
use super::usage::{Apart, Caching, Member, Members, Place, Provenance};
use super::write::{Object, event, object};
use super::{Class, Usage};
use crate::base::error::{Error, Kind as ErrorKind};
use crate::base::id::RequestId;
use crate::codec::json::{Kind, Value};
use crate::codec::patch::Patches;
use crate::codec::sse;

/// The members of a chunk that decide what it is, found in one pass; the first of a name counts.
#[derive(Default)]
struct Chunk<'a> {
    choices: Option<Value<'a>>,
    usage: Option<Value<'a>>,
    /// Groq's own object, which holds usage, too.
    x_groq: Option<Value<'a>>,
    is_error: bool,
}

impl<'a> Chunk<'a> {
    fn of(doc: Value<'a>) -> Chunk<'a> {
        let mut chunk = Chunk::default();
        for member in doc.members().map_while(Result::ok) {
            let (key, value) = (member.key, member.value);
            if key.is("choices") {
                chunk.choices = chunk.choices.or(Some(value));
            } else if key.is("usage") {
                chunk.usage = chunk.usage.or(Some(value));
            } else if key.is("error") {
                chunk.is_error |= !value.is_null();
            } else if key.is("object") {
                chunk.is_error |= value.str_raw() == Some(b"error");
            } else if key.is("x_groq") {
                chunk.x_groq = Some(value);
            }
        }
        chunk
    }

    fn choices(&self) -> impl Iterator<Item = Value<'a>> {
        self.choices.into_iter().flat_map(|choices| choices.elements().map_while(Result::ok))
    }
}

/// What a chunk of Chat or Completions is.
///
/// A failure is an `error` member (OpenAI, Groq with `event: error`, OpenRouter) or `"object":"error"` (older
/// vLLM).
pub(super) fn chunk_class(event_name: Option<&[u8]>, doc: Value<'_>) -> Class {
    class_of(event_name, &Chunk::of(doc))
}

fn class_of(event_name: Option<&[u8]>, chunk: &Chunk<'_>) -> Class {
    if chunk.is_error || event_name == Some(b"error") {
        return Class::Error;
    }
    let finish = |choice: Value<'_>| choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
    let is_extra = chunk.usage.is_some_and(is_object) && chunk.choices.is_some();
    match chunk.choices().map(finish).reduce(|one, other| one | other) {
        Some(true) => Class::Finish,
        None if is_extra => Class::Usage,
        Some(false) | None => Class::Other,
    }
}

fn is_object(value: Value<'_>) -> bool {
    value.kind == Kind::Object
}

/// Where usage stands in the older OpenAI dialects. The last three are vendors' own names for cached tokens.
const MEMBERS: &Members = &[
    ("prompt_tokens", Place::Count(Member::Input)),
    ("completion_tokens", Place::Count(Member::Output)),
    ("total_tokens", Place::Count(Member::Total)),
    ("prompt_tokens_details", Place::Details(INPUT_DETAILS)),
    ("completion_tokens_details", Place::Details(OUTPUT_DETAILS)),
    ("prompt_cache_hit_tokens", Place::Count(Member::CacheRead)), // DeepSeek
    ("num_cached_tokens", Place::Count(Member::CacheRead)),       // Mistral, before prompt_tokens_details
    ("cached_tokens", Place::Count(Member::CacheRead)),           // Moonshot
];

/// Of tokens that came in, in all dialects of OpenAI. Images: xAI, Azure.
pub(super) const INPUT_DETAILS: &[(&str, Member)] = &[
    ("cached_tokens", Member::CacheRead),
    ("cache_write_tokens", Member::CacheWrite),
    ("audio_tokens", Member::AudioInput),
    ("image_tokens", Member::ImageInput),
];

/// Of tokens that came out, in all dialects of OpenAI. Images: OpenRouter.
pub(super) const OUTPUT_DETAILS: &[(&str, Member)] = &[
    ("reasoning_tokens", Member::Reasoning),
    ("audio_tokens", Member::AudioOutput),
    ("image_tokens", Member::ImageOutput),
];

/// Reads `usage`, or where a vendor puts it elsewhere, that: `x_groq.usage` (Groq, without being asked) and a
/// choice's own `usage` (Moonshot).
pub(super) fn chunk_usage(doc: Value<'_>, usage: &mut Usage) {
    match doc.get_from_end(b"\"usage\"").filter(|value| is_object(*value)) {
        Some(found) => usage.merge(found, MEMBERS),
        None => usage_of(&Chunk::of(doc), usage),
    }
}

/// Class and usage of an event without a name, in one pass.
pub(super) fn chunk_read(doc: Value<'_>, usage: &mut Usage) -> Class {
    let chunk = Chunk::of(doc);
    usage_of(&chunk, usage);
    class_of(None, &chunk)
}

fn usage_of(chunk: &Chunk<'_>, usage: &mut Usage) {
    let own = chunk.usage.filter(|value| is_object(*value));
    let found = own.or_else(|| {
        let groq = chunk.x_groq.and_then(|x_groq| x_groq.get("usage"));
        let elsewhere = groq.into_iter().chain(chunk.choices().filter_map(|choice| choice.get("usage")));
        elsewhere.into_iter().find(|value| is_object(*value))
    });
    if let Some(object) = found {
        usage.merge(object, MEMBERS);
    }
}

/// The choices that a chunk finishes.
pub(super) fn chunk_closes(event_name: Option<&[u8]>, doc: Value<'_>) -> Closes {
    match chunk_class(event_name, doc) {
        Class::Error => Closes::All,
        Class::Finish => Closes::Choices(
            choices(doc).filter(|(_, finished)| *finished).map(|(choice, _)| choice).collect(),
        ),
        _ => Closes::Nothing,
    }
}

pub(super) fn observe_chunk(state: &mut StreamState, doc: Value<'_>) {
    let string = |name| doc.get(name).and_then(|value| value.str_raw());
    state.named(string("id"), string("model"));
    if state.created_s == 0 {
        state.created_s = doc.get("created").and_then(|created| created.as_u64()).unwrap_or_default();
    }
    choices(doc).for_each(|(choice, finished)| state.choice(choice, finished));
}

/// Index of each choice and whether it is finished.
fn choices(doc: Value<'_>) -> impl Iterator<Item = (u32, bool)> {
    let list = doc.get("choices").into_iter().flat_map(|choices| choices.elements().map_while(Result::ok));
    list.enumerate().map(|(at, choice)| {
        let finished = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
        (index(choice.get("index"), at), finished)
    })
}

/// Which dialect a chunk is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Chat,
    Completions,
}

/// What an answer used that no provider gave.
pub(super) const NOTHING_USED: Usage = Usage {
    input: Some(0),
    output: Some(0),
    cache_read: None,
    cache_write: None,
    reasoning: None,
    total_reported: None,
    apart: Apart::NONE,
    caching: Caching::Inside,
    provenance: Provenance::Counted,
    flawed: false,
};

pub(super) fn finish_reason(ending: Ending) -> &'static str {
    match ending {
        Ending::Length => "length",
        Ending::ContentFilter => "content_filter",
        Ending::Stop => "stop",
    }
}

/// Which choices of a document an early ending concerns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those that it finishes.
    Finished,
}

/// Gives choices the ending's reason.
pub(super) fn end_choices(ending: Ending, doc: Value<'_>, which: Which, out: &mut Patches) {
    let reason = format!("\"{}\"", finish_reason(ending));
    let choices = doc.get("choices").into_iter().flat_map(|choices| choices.elements().map_while(Result::ok));
    for choice in choices {
        let finishes = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
        if finishes || which == Which::All {
            set(choice, "finish_reason", reason.as_bytes(), out);
        }
    }
}

/// Calls `write` with each choice that has begun and not finished; where none has begun, with the first.
pub(super) fn each_unfinished(state: &StreamState, mut write: impl FnMut(u32)) {
    if state.choices.is_empty() {
        return write(0);
    }
    state.choices.iter().filter(|choice| !choice.finished).for_each(|choice| write(choice.index));
}

/// The members that all chunks of a stream have alike.
pub(super) fn chunk_head(form: Form, state: &StreamState, chunk: &mut Object<'_>) {
    let object = match form {
        Form::Chat => "chat.completion.chunk",
        Form::Completions => "text_completion",
    };
    chunk.escaped("id", &state.id).text("object", object);
    chunk.number("created", state.created_s).escaped("model", &state.model);
}

/// The end of a stream: the usage chunk if there is something to show, and `[DONE]`.
pub(super) fn usage_and_done(form: Form, state: &StreamState, usage: Option<&Usage>, out: &mut Vec<u8>) {
    if let Some(usage) = usage {
        event(out, None, |chunk| {
            chunk_head(form, state, chunk);
            chunk.raw("choices", b"[]").object("usage", |members| usage_members(usage, members));
        });
    }
    sse::write_event(out, None, b"[DONE]");
}

pub(super) fn usage_members(usage: &Usage, members: &mut Object<'_>) {
    let (input, output) = (usage.input_total().unwrap_or(0), usage.output_total().unwrap_or(0));
    members.number("prompt_tokens", input).number("completion_tokens", output);
    members.number("total_tokens", input.saturating_add(output));
    if let Some(cached) = usage.cache_read {
        members.object("prompt_tokens_details", |details| {
            details.number("cached_tokens", cached);
        });
    }
    if let Some(reasoning) = usage.reasoning {
        members.object("completion_tokens_details", |details| {
            details.number("reasoning_tokens", reasoning);
        });
    }
}

/// The first members of a whole answer.
pub(super) fn head(answer: &mut Object<'_>, prefix: &str, object: &str, refusal: &Refusal<'_>) {
    answer.text("id", &format!("{prefix}-{}", refusal.id)).text("object", object);
    answer.number("created", refusal.created_s).text("model", refusal.model);
}

/// The state of a stream in which the gateway alone speaks, to the first choice.
pub(super) fn refusing_state(prefix: &str, refusal: &Refusal<'_>) -> StreamState {
    let mut state = StreamState { created_s: refusal.created_s, ..StreamState::new() };
    let mut model = Vec::new();
    crate::codec::json::escape(refusal.model.as_bytes(), &mut model);
    state.named(Some(format!("{prefix}-{}", refusal.id).as_bytes()), Some(&model));
    state.choice(0, false);
    state
}

/// `{"error":{message,type,param,code},"request_id"}`: the SDKs choose their exception by the HTTP status and
/// print the rest.
pub(super) fn error_body(error: &Error, id: &RequestId, out: &mut Vec<u8>) {
    object(out, |body| error_members(error, id, body));
}

/// A chunk with an `error` member, without `[DONE]`: at it the SDKs raise.
pub(super) fn stream_error(error: &Error, id: &RequestId, out: &mut Vec<u8>) {
    event(out, None, |chunk| error_members(error, id, chunk));
}

fn error_members(error: &Error, id: &RequestId, body: &mut Object<'_>) {
    body.object("error", |members| error_object(error, members)).text("request_id", id.as_str());
}

pub(super) fn error_object(error: &Error, members: &mut Object<'_>) {
    members.text("message", &error.detail).text("type", error_type(error.kind));
    param(error, members);
    members.text("code", error.kind.row().code);
}

/// The field at fault, always there.
pub(super) fn param(error: &Error, members: &mut Object<'_>) {
    match error.param {
        Some(param) => members.text("param", param),
        None => members.null("param"),
    };
}

fn error_type(kind: ErrorKind) -> &'static str {
    match kind.row().status {
        _ if kind == ErrorKind::QuotaExceeded => "insufficient_quota",
        429 => "requests",
        status if status < 500 => "invalid_request_error",
        _ => "server_error",
    }
}
