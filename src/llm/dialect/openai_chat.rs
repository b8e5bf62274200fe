//! OpenAI Chat Completions, as OpenAI and some forty other vendors speak it.
//!
//! Stream: chunks with `choices[].delta`, an extra chunk with usage and no choices if asked for, `[DONE]`.
//! Reasoning has no field of OpenAI's own; read are `reasoning_content` (DeepSeek, xAI, llama.cpp),
//! `reasoning` (Groq, Ollama, vLLM), OpenRouter's `reasoning_details`, which repeat `reasoning`, and
//! Mistral's content lists.
//! Absent: audio, log probabilities, the ids and names of tool calls. A server that gives all parallel calls
//! the index 0 (older vLLM) has them in one lane.

use super::lane::{Lane, LaneKind, Lanes, Part, index};
use super::openai_completions::{chunk_class, chunk_usage};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::{Class, Usage, Wire};
use crate::base::error::{Error, Kind as ErrorKind};
use crate::base::id::RequestId;
use crate::codec::json::{self, Kind, Value};

pub(super) struct OpenAiChat;

impl Wire for OpenAiChat {
    fn name(&self) -> &'static str {
        "openai_chat"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields {
            streaming: Streaming::UsageOnDemand,
            output_max: ["max_completion_tokens", "max_tokens"],
            choices: Some("n"),
        }
    }

    fn kept(&self) -> &'static Kept {
        // "text" is for Mistral's content lists; OpenRouter's reasoning_details are counted twice by it.
        const TEXTS: Texts = Texts {
            names: &["content", "reasoning_content", "reasoning", "refusal", "arguments", "text"],
            reach: Reach::Anywhere,
        };
        &Kept {
            into: &["choices", "x_groq"],
            keep: &["usage", "error", "object", "finish_reason"],
            texts_in_event: TEXTS,
            texts_in_whole: TEXTS,
            loose: &["obfuscation", "p"],
        }
    }

    fn class(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Class {
        chunk_class(event_name, doc)
    }

    fn usage(&self, doc: Value<'_>, usage: &mut Usage) {
        chunk_usage(doc, usage);
    }

    fn lanes(&self, _: Option<&[u8]>, doc: Value<'_>, out: &mut Lanes) {
        choices(doc, "delta", out);
    }

    fn lanes_whole(&self, doc: Value<'_>, out: &mut Lanes) {
        choices(doc, "message", out);
    }

    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        error_body(error, id, out);
    }
}

fn choices(doc: Value<'_>, message: &str, out: &mut Lanes) {
    let Some(choices) = doc.get("choices") else { return };
    for (at, choice) in choices.elements().map_while(Result::ok).enumerate() {
        let choice_index = index(choice.get("index"), at);
        if let Some(message) = choice.get(message) {
            message_lanes(choice_index, message, out);
        }
    }
}

fn message_lanes(choice: u32, message: Value<'_>, out: &mut Lanes) {
    let lane = |kind| Lane::new(choice, 0, kind);
    let mut reasoning = Part::Next;
    for member in message.members().map_while(Result::ok) {
        let value = Some(member.value);
        let is = |name| member.key.is(name);
        if is("content") {
            match member.value.kind {
                Kind::Array => content_list(choice, member.value, out),
                _ => lane(LaneKind::Text).text(Part::Next, value, out),
            }
        } else if is("refusal") {
            lane(LaneKind::Refusal).text(Part::Next, value, out);
        } else if is("reasoning_content") || is("reasoning") {
            // Some servers say both, for old clients and new.
            let before = out.len();
            lane(LaneKind::Reasoning).text(reasoning, value, out);
            if out.len() > before {
                reasoning = Part::Echo;
            }
        } else if is("reasoning_details") {
            for detail in member.value.elements().map_while(Result::ok) {
                let texts = [detail.get("text"), detail.get("summary")];
                texts.into_iter().for_each(|text| lane(LaneKind::Reasoning).text(reasoning, text, out));
            }
        } else if is("tool_calls") {
            for (at, call) in member.value.elements().map_while(Result::ok).enumerate() {
                let item = index(call.get("index"), at);
                let arguments = call.path(&["function", "arguments"]);
                Lane::new(choice, item, LaneKind::ToolArguments).text(Part::Next, arguments, out);
            }
        } else if is("function_call") {
            let arguments = member.value.get("arguments");
            lane(LaneKind::ToolArguments).text(Part::Next, arguments, out);
        }
    }
}

/// Mistral: `[{"type":"thinking","thinking":[{"type":"text","text":"…"}]},{"type":"text","text":"…"}]`.
fn content_list(choice: u32, list: Value<'_>, out: &mut Lanes) {
    for part in list.elements().map_while(Result::ok) {
        Lane::new(choice, 0, LaneKind::Text).text(Part::Next, part.get("text"), out);
        let Some(thinking) = part.get("thinking") else { continue };
        let lane = Lane::new(choice, 0, LaneKind::Reasoning);
        lane.text(Part::Next, Some(thinking), out);
        if thinking.kind == Kind::Array {
            let pieces = thinking.elements().map_while(Result::ok);
            pieces.for_each(|piece| lane.text(Part::Next, piece.get("text"), out));
        }
    }
}

/// `{"error":{message,type,param,code},"request_id"}`: the SDKs choose their exception by the HTTP status and
/// print the rest.
pub(super) fn error_body(error: &Error, id: &RequestId, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"error\":");
    error_object(error, out);
    out.extend_from_slice(b",\"request_id\":");
    json::write_string(id.as_bytes(), out);
    out.push(b'}');
}

/// `{message,type,param,code}`.
pub(super) fn error_object(error: &Error, out: &mut Vec<u8>) {
    let row = error.kind.row();
    out.extend_from_slice(b"{\"message\":");
    json::write_string(error.detail.as_bytes(), out);
    out.extend_from_slice(b",\"type\":");
    json::write_string(error_type(error.kind).as_bytes(), out);
    out.extend_from_slice(b",\"param\":");
    match error.param {
        Some(param) => json::write_string(param.as_bytes(), out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"code\":");
    json::write_string(row.code.as_bytes(), out);
    out.push(b'}');
}

fn error_type(kind: ErrorKind) -> &'static str {
    match kind.row().status {
        429 => "requests",
        status if status < 500 => "invalid_request_error",
        _ => "server_error",
    }
}
