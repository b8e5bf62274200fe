//! OpenAI Completions, the older text dialect: `choices[].text`, in streams and in whole answers.
//!
//! Its chunks end, fail and count like those of Chat, so what both share is here: [`chunk_class`] and
//! [`chunk_usage`].

use super::lane::{Lane, LaneKind, Lanes, Part, index};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::usage::{Member, Members};
use super::{Class, Usage, Wire, openai_chat};
use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::codec::json::{Kind, Value};

pub(super) struct OpenAiCompletions;

impl Wire for OpenAiCompletions {
    fn name(&self) -> &'static str {
        "openai_completions"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields {
            streaming: Streaming::UsageOnDemand,
            output_max: ["max_tokens", "max_completion_tokens"],
            choices: Some("n"),
        }
    }

    fn kept(&self) -> &'static Kept {
        const TEXTS: Texts = Texts { names: &["text"], reach: Reach::Opened };
        &Kept {
            into: &["choices", "x_groq"],
            keep: &["usage", "error", "object", "finish_reason"],
            texts_in_event: TEXTS,
            texts_in_whole: TEXTS,
            loose: &["obfuscation"],
        }
    }

    fn class(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Class {
        chunk_class(event_name, doc)
    }

    fn usage(&self, doc: Value<'_>, usage: &mut Usage) {
        chunk_usage(doc, usage);
    }

    fn lanes(&self, _: Option<&[u8]>, doc: Value<'_>, out: &mut Lanes) {
        let Some(choices) = doc.get("choices") else { return };
        for (at, choice) in choices.elements().map_while(Result::ok).enumerate() {
            let lane = Lane::new(index(choice.get("index"), at), 0, LaneKind::Text);
            lane.text(Part::Next, choice.get("text"), out);
        }
    }

    fn lanes_whole(&self, doc: Value<'_>, out: &mut Lanes) {
        self.lanes(None, doc, out);
    }

    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        openai_chat::error_body(error, id, out);
    }
}

/// What a chunk of Chat or Completions is.
///
/// A failure is an `error` member (OpenAI, Groq with `event: error`, OpenRouter) or `"object":"error"` (older
/// vLLM).
pub(super) fn chunk_class(event_name: Option<&[u8]>, doc: Value<'_>) -> Class {
    let is_error = doc.get("error").is_some_and(|error| !error.is_null())
        || doc.get("object").and_then(|object| object.str_raw()) == Some(b"error")
        || event_name == Some(b"error");
    if is_error {
        return Class::Error;
    }
    let Some(choices) = doc.get("choices") else { return Class::Other };
    let mut choices = choices.elements().map_while(Result::ok).peekable();
    if choices.peek().is_none() {
        let counts = doc.get("usage").is_some_and(|usage| usage.kind == Kind::Object);
        return if counts { Class::Usage } else { Class::Other };
    }
    let finish = |choice: Value<'_>| choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
    if choices.any(finish) { Class::Finish } else { Class::Other }
}

/// Where usage stands in the older OpenAI dialects. The last three are vendors' own names for cached tokens.
const MEMBERS: &Members = &[
    ("prompt_tokens", None, Member::Input),
    ("completion_tokens", None, Member::Output),
    ("total_tokens", None, Member::Total),
    ("prompt_tokens_details", Some("cached_tokens"), Member::CacheRead),
    ("prompt_tokens_details", Some("cache_write_tokens"), Member::CacheWrite),
    ("completion_tokens_details", Some("reasoning_tokens"), Member::Reasoning),
    ("prompt_cache_hit_tokens", None, Member::CacheRead), // DeepSeek
    ("num_cached_tokens", None, Member::CacheRead),       // Mistral, before prompt_tokens_details
    ("cached_tokens", None, Member::CacheRead),           // Moonshot
];

/// Reads `usage`, or where a vendor puts it elsewhere, that: `x_groq.usage` (Groq, without being asked) and a
/// choice's own `usage` (Moonshot).
pub(super) fn chunk_usage(doc: Value<'_>, usage: &mut Usage) {
    let is_object = |value: &Value<'_>| value.kind == Kind::Object;
    let of_choice = || {
        let choices = doc.get("choices")?.elements().map_while(Result::ok);
        choices.filter_map(|choice| choice.get("usage")).find(is_object)
    };
    let own = doc.get("usage").filter(is_object);
    let found = own.or_else(|| doc.path(&["x_groq", "usage"]).filter(is_object)).or_else(of_choice);
    if let Some(object) = found {
        usage.merge(object, MEMBERS);
    }
}
