//! Anthropic Messages: an answer is a list of content blocks.
//!
//! Stream: `message_start`, per block `content_block_start`, `_delta`, `_stop`, then `message_delta` with the
//! stop reason and the final usage, `message_stop`; `ping` anywhere. A second `message_start` in mid-stream
//! (a proxy's retry) begins the answer anew.
//! Lanes: one per block; what a block begins with is its first piece. A tool's arguments are `partial_json`
//! in a stream and an object in a whole answer: there they are no lane, as an object is no text that an
//! editor could cut.
//! Absent: signatures, redacted thinking, citations, what tools that the provider runs give back.

use super::lane::{Lane, LaneKind, Lanes, Part, index};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::usage::{Caching, Member, Members};
use super::{Class, Usage, Wire};
use crate::base::error::{Error, Kind as ErrorKind};
use crate::base::id::RequestId;
use crate::codec::json::{self, Kind, Value};

pub(super) struct Anthropic;

impl Wire for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields { streaming: Streaming::UsageAlways, output_max: ["max_tokens"; 2], choices: None }
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
        for found in [doc.path(&["message", "usage"]), doc.get("usage")].into_iter().flatten() {
            if found.kind == Kind::Object {
                usage.merge(found, MEMBERS);
            }
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
        out.extend_from_slice(b"{\"type\":\"error\",\"error\":{\"type\":");
        json::write_string(error_type(error.kind).as_bytes(), out);
        out.extend_from_slice(b",\"message\":");
        json::write_string(error.detail.as_bytes(), out);
        out.extend_from_slice(b",\"code\":");
        json::write_string(error.kind.row().code.as_bytes(), out);
        out.extend_from_slice(b"},\"request_id\":");
        json::write_string(id.as_bytes(), out);
        out.push(b'}');
    }
}

const MEMBERS: &Members = &[
    ("input_tokens", None, Member::Input),
    ("output_tokens", None, Member::Output),
    ("cache_read_input_tokens", None, Member::CacheRead),
    ("cache_creation_input_tokens", None, Member::CacheWrite),
    ("output_tokens_details", Some("thinking_tokens"), Member::Reasoning),
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
