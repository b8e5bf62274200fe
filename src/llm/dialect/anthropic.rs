//! Anthropic Messages: an answer is a list of content blocks.
//!
//! Stream: `message_start`, per block `content_block_start`, `_delta`, `_stop`, then `message_delta` with the
//! stop reason and the final usage, `message_stop`; `ping` anywhere. A second `message_start` in mid-stream
//! (a proxy's retry) begins the answer anew.
//! Lanes: one per block; what a block begins with is its first piece. A tool's arguments are `partial_json`
//! in a stream and an object in a whole answer: there they are no lane, as an object is no text that an
//! editor could cut.
//! Absent: signatures, redacted thinking, citations, what tools that the provider runs give back.

use super::cut::{cut_elements, set, type_of};
use super::lane::{Lane, LaneKind, Lanes, Part, index};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::stream::{Closes, Ending, Refusal, StreamState};
use super::usage::{Caching, Member, Members, Place};
use super::write::{Object, event, object};
use super::{Class, Usage, Wire};
use crate::base::error::{Error, Kind as ErrorKind};
use crate::base::id::RequestId;
use crate::codec::json::{self, Kind, Value};
use crate::codec::patch::Patches;

pub(super) struct Anthropic;

impl Wire for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields {
            streaming: Streaming::UsageAlways,
            output_max: ["max_tokens"; 2],
            cap: Some("max_tokens"),
            choices: None,
        }
    }

    fn kept(&self) -> &'static Kept {
        const TEXTS: &[&str] = &["text", "thinking", "partial_json"];
        &Kept {
            into: &["message", "delta", "content_block"],
            keep: &["type", "usage", "error", "stop_reason"],
            texts_in_event: Texts { names: TEXTS, reach: Reach::Opened },
            // Results of the provider's own tools are counted with it: this serves estimates only.
            texts_in_whole: Texts { names: TEXTS, reach: Reach::Anywhere },
            loose: &[],
        }
    }

    fn class(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Class {
        match event_type(event_name, doc) {
            b"message_stop" => Class::End,
            b"error" => Class::Error,
            b"ping" => Class::Ping,
            b"message_delta" => {
                let reason = doc.path(&["delta", "stop_reason"]);
                if reason.is_some_and(|reason| !reason.is_null()) { Class::Finish } else { Class::Other }
            }
            _ => Class::Other,
        }
    }

    fn usage(&self, doc: Value<'_>, usage: &mut Usage) {
        usage.caching = Caching::Beside;
        let object = |value: &Value<'_>| value.kind == Kind::Object;
        let of_body = doc.get_from_end(b"\"usage\"");
        let elsewhere =
            || [doc.path(&["message", "usage"]), doc.get("usage")].into_iter().flatten().find(object);
        if let Some(found) = of_body.filter(object).or_else(elsewhere) {
            usage.merge(found, MEMBERS);
        }
    }

    fn lanes(&self, event_name: Option<&[u8]>, doc: Value<'_>, out: &mut Lanes) {
        let item = index(doc.get("index"), 0);
        match event_type(event_name, doc) {
            b"content_block_delta" => {
                doc.get("delta").into_iter().for_each(|delta| texts(item, delta, out));
            }
            b"content_block_start" => {
                doc.get("content_block").into_iter().for_each(|block| block_lanes(item, block, out));
            }
            _ => {}
        }
    }

    fn lanes_whole(&self, doc: Value<'_>, out: &mut Lanes) {
        let Some(content) = doc.get("content") else { return };
        for (at, block) in content.elements().map_while(Result::ok).enumerate() {
            block_lanes(index(None, at), block, out);
        }
    }

    /// `{"type":"error","error":{type,message,code},"request_id"}`; `code` is ours, the SDKs pass it on.
    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        object(out, |body| error_members(error, id, body));
    }

    fn stream_error(&self, error: &Error, id: &RequestId, _: &StreamState, out: &mut Vec<u8>) {
        event(out, Some("error"), |body| error_members(error, id, body));
    }

    fn ending(&self, ending: Ending, state: &StreamState, usage: Option<&Usage>, out: &mut Vec<u8>) {
        if !state.started {
            message_start(&state.id, &state.model, out);
        }
        for index in &state.blocks {
            typed(out, "content_block_stop", |body| {
                body.number("index", (*index).into());
            });
        }
        if !state.stopped {
            typed(out, "message_delta", |body| {
                body.object("delta", |delta| {
                    delta.text("stop_reason", stop_reason(ending)).null("stop_sequence");
                });
                let written = usage.and_then(Usage::output_total).unwrap_or(0);
                body.object("usage", |members| {
                    members.number("output_tokens", written);
                });
            });
        }
        typed(out, "message_stop", |_| {});
    }

    fn end_event(&self, ending: Ending, event_name: Option<&[u8]>, doc: Value<'_>, out: &mut Patches) {
        if self.class(event_name, doc) == Class::Finish {
            doc.get("delta").into_iter().for_each(|delta| self.end_whole(ending, delta, out));
        }
    }

    fn end_whole(&self, ending: Ending, doc: Value<'_>, out: &mut Patches) {
        set(doc, "stop_reason", format!("\"{}\"", stop_reason(ending)).as_bytes(), out);
        set(doc, "stop_sequence", b"null", out);
    }

    fn cut_calls(&self, doc: Value<'_>, out: &mut Patches) {
        let content = doc.get("content");
        content.into_iter().for_each(|blocks| {
            cut_elements(blocks, |block| type_of(block) == b"tool_use", out);
        });
    }

    fn delta(&self, lane: Lane, text: &[u8], state: &StreamState, out: &mut Vec<u8>) -> bool {
        if !state.blocks.contains(&lane.item) {
            return false;
        }
        let (kind, name) = match lane.kind {
            LaneKind::Text | LaneKind::Refusal => ("text_delta", "text"),
            LaneKind::Reasoning => ("thinking_delta", "thinking"),
            LaneKind::ToolArguments => ("input_json_delta", "partial_json"),
        };
        typed(out, "content_block_delta", |body| {
            body.number("index", lane.item.into());
            body.object("delta", |delta| {
                delta.text("type", kind).escaped(name, text);
            });
        });
        true
    }

    fn closes(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Closes {
        match event_type(event_name, doc) {
            b"content_block_stop" => Closes::Item(index(doc.get("index"), 0)),
            b"message_delta" | b"message_stop" | b"error" => Closes::All,
            _ => Closes::Nothing,
        }
    }

    fn observe(&self, state: &mut StreamState, event_name: Option<&[u8]>, doc: Value<'_>) {
        let block = index(doc.get("index"), 0);
        match event_type(event_name, doc) {
            b"message_start" => {
                *state = StreamState { started: true, ..StreamState::new() };
                let string = |name| doc.path(&["message", name]).and_then(|value| value.str_raw());
                state.named(string("id"), string("model"));
            }
            b"content_block_start" => state.open_block(block),
            b"message_delta" => state.stopped |= self.class(event_name, doc) == Class::Finish,
            b"content_block_stop" => state.blocks.retain(|open| *open != block),
            _ => {}
        }
    }

    fn refusal(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> u16 {
        object(out, |answer| {
            answer
                .text("id", &format!("msg_{}", refusal.id))
                .text("type", "message")
                .text("role", "assistant");
            answer.text("model", refusal.model);
            answer.list_of_one("content", |block| {
                block.text("type", "text").text("text", refusal.text);
            });
            answer.text("stop_reason", "refusal").null("stop_sequence").raw("usage", NOTHING_USED);
        });
        200
    }

    fn refusal_stream(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        let (mut model, mut text) = (Vec::new(), Vec::new());
        json::escape(refusal.model.as_bytes(), &mut model);
        json::escape(refusal.text.as_bytes(), &mut text);
        message_start(format!("msg_{}", refusal.id).as_bytes(), &model, out);
        typed(out, "content_block_start", |body| {
            body.number("index", 0);
            body.object("content_block", |block| {
                block.text("type", "text").text("text", "");
            });
        });
        let mut state = StreamState { started: true, ..StreamState::new() };
        state.open_block(0);
        self.delta(Lane::new(0, 0, LaneKind::Text), &text, &state, out);
        self.ending(Ending::ContentFilter, &state, None, out);
    }

    fn heartbeat(&self, out: &mut Vec<u8>) {
        typed(out, "ping", |_| {});
    }
}

fn stop_reason(ending: Ending) -> &'static str {
    match ending {
        Ending::Length => "max_tokens",
        Ending::ContentFilter => "refusal",
        Ending::Stop => "end_turn",
    }
}

const NOTHING_USED: &[u8] = br#"{"input_tokens":0,"output_tokens":0}"#;

/// An event whose name its data repeats.
fn typed(out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
    event(out, Some(name), |body| {
        body.text("type", name);
        fill(body);
    });
}

/// The first event; id and model are escaped.
fn message_start(id: &[u8], model: &[u8], out: &mut Vec<u8>) {
    typed(out, "message_start", |body| {
        body.object("message", |message| {
            message.escaped("id", id).text("type", "message").text("role", "assistant");
            message.escaped("model", model).raw("content", b"[]");
            message.null("stop_reason").null("stop_sequence").raw("usage", NOTHING_USED);
        });
    });
}

fn error_members(error: &Error, id: &RequestId, body: &mut Object<'_>) {
    body.text("type", "error");
    body.object("error", |members| {
        members.text("type", error_type(error.kind)).text("message", &error.detail);
        members.text("code", error.kind.row().code);
    });
    body.text("request_id", id.as_str());
}

const MEMBERS: &Members = &[
    ("input_tokens", Place::Count(Member::Input)),
    ("output_tokens", Place::Count(Member::Output)),
    ("cache_read_input_tokens", Place::Count(Member::CacheRead)),
    ("cache_creation_input_tokens", Place::Count(Member::CacheWrite)),
    ("cache_creation", Place::Details(&[("ephemeral_1h_input_tokens", Member::CacheWriteLong)])),
    ("output_tokens_details", Place::Details(&[("thinking_tokens", Member::Reasoning)])),
];

/// The event's type: the data's own, else its SSE name; empty where both are missing.
fn event_type<'a>(event_name: Option<&'a [u8]>, doc: Value<'a>) -> &'a [u8] {
    doc.get("type").and_then(|kind| kind.str_raw()).or(event_name).unwrap_or_default()
}

/// Only a block of the model's own words: a result of a tool has texts, too.
fn block_lanes(item: u32, block: Value<'_>, out: &mut Lanes) {
    if matches!(block.get("type").and_then(|kind| kind.str_raw()), Some(b"text" | b"thinking")) {
        texts(item, block, out);
    }
}

fn texts(item: u32, value: Value<'_>, out: &mut Lanes) {
    for (name, kind) in [
        ("text", LaneKind::Text),
        ("thinking", LaneKind::Reasoning),
        ("partial_json", LaneKind::ToolArguments),
    ] {
        Lane::new(0, item, kind).text(Part::Next, value.get(name), out);
    }
}

/// The vendor's word for a status, from which its SDKs and their users tell what happened.
fn error_type(kind: ErrorKind) -> &'static str {
    match kind.row().status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        503 => "overloaded_error",
        status if status < 500 => "invalid_request_error",
        _ => "api_error",
    }
}
