//! OpenAI Responses: an answer is a list of output items, a stream says how they grow.
//!
//! Stream: events with a `type` and a running `sequence_number`; the last is `response.completed`,
//! `.incomplete` or `.failed` and holds the whole response with its usage. There is no `[DONE]`.
//! Lanes: the `.delta` events and what an `.added` event begins with are the text; the `.done` events and the
//! last event repeat it whole and are `Part::Again`, so that an editor changes all and a reader counts once.
//! The text of an item that no delta announced (a server that sends `.done` only) is therefore seen by
//! editors, and by readers of whole answers. A reasoning item has two lists of texts, summary and content;
//! both are lanes of kind `Reasoning`.
//! Absent: audio, what tools that the provider runs give back, partial images.

use super::cut::{cut_elements, type_of};
use super::lane::{Lane, LaneKind, Lanes, Part, index};
use super::openai_chunk::{INPUT_DETAILS, OUTPUT_DETAILS, error_body};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::stream::{Closes, Ending, Refusal, StreamState};
use super::usage::{Member, Members, Place};
use super::{Class, Usage, Wire, openai_responses_write as write};
use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::codec::json::{Kind, Value};
use crate::codec::patch::Patches;

pub(super) struct OpenAiResponses;

/// Added to the index of a reasoning item's content part: its summary parts are counted from 0, too.
pub(super) const REASONING_CONTENT: u32 = 1 << 31;

impl Wire for OpenAiResponses {
    fn name(&self) -> &'static str {
        "openai_responses"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields {
            streaming: Streaming::UsageAlways,
            output_max: ["max_output_tokens"; 2],
            cap: Some("max_output_tokens"),
            choices: None,
        }
    }

    fn kept(&self) -> &'static Kept {
        &Kept {
            into: &["response"],
            keep: &["type", "usage", "error", "status"],
            texts_in_event: Texts { names: &["delta"], reach: Reach::Opened },
            texts_in_whole: Texts {
                names: &["text", "arguments", "refusal", "input"],
                reach: Reach::Anywhere,
            },
            loose: &["item_id", "obfuscation", "sequence_number"],
        }
    }

    fn class(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Class {
        match event_type(event_name, doc) {
            b"response.completed" | b"response.incomplete" | b"response.cancelled" => Class::End,
            b"response.failed" | b"error" => Class::Error,
            b"keepalive" => Class::Ping,
            b"" if doc.get("error").is_some_and(|error| !error.is_null()) => Class::Error,
            _ => Class::Other,
        }
    }

    fn usage(&self, doc: Value<'_>, usage: &mut Usage) {
        let object = |value: &Value<'_>| value.kind == Kind::Object;
        let of_body = doc.get_from_end(b"\"usage\"");
        let elsewhere =
            || [doc.path(&["response", "usage"]), doc.get("usage")].into_iter().flatten().find(object);
        if let Some(found) = of_body.filter(object).or_else(elsewhere) {
            usage.merge(found, MEMBERS);
        }
    }

    fn lanes(&self, event_name: Option<&[u8]>, doc: Value<'_>, out: &mut Lanes) {
        let Some(kind) = event_type(event_name, doc).strip_prefix(b"response.") else { return };
        let Some(dot) = memchr::memrchr(b'.', kind) else {
            if matches!(kind, b"completed" | b"incomplete" | b"failed") {
                let items = doc.path(&["response", "output"]);
                items.into_iter().for_each(|items| output(items, Part::Again, out));
            }
            return;
        };
        let (subject, step) = (&kind[..dot], &kind[dot + 1..]);
        let (part, text) = match step {
            b"delta" => (Part::Next, "delta"),
            b"added" => (Part::Next, ""),
            b"done" => (Part::Again, ""),
            _ => return,
        };
        let item = index(doc.get("output_index"), 0);
        if subject == b"output_item" {
            doc.get("item").into_iter().for_each(|value| item_lanes(item, value, part, out));
            return;
        }
        let content = index(doc.get("content_index"), 0);
        if subject == b"content_part" {
            doc.get("part").into_iter().for_each(|value| part_lanes(item, content, value, part, out));
            return;
        }
        let summary = index(doc.get("summary_index"), 0);
        let lane = |part, kind| Lane { choice: 0, item, part, kind };
        let (lane, whole) = match subject {
            b"output_text" => (lane(content, LaneKind::Text), "text"),
            b"refusal" => (lane(content, LaneKind::Refusal), "refusal"),
            b"reasoning_text" => (lane(content | REASONING_CONTENT, LaneKind::Reasoning), "text"),
            b"reasoning_summary_text" => (lane(summary, LaneKind::Reasoning), "text"),
            b"reasoning_summary_part" => {
                let value = doc.path(&["part", "text"]);
                return lane(summary, LaneKind::Reasoning).text(part, value, out);
            }
            b"function_call_arguments" | b"mcp_call_arguments" => {
                (lane(0, LaneKind::ToolArguments), "arguments")
            }
            b"custom_tool_call_input" => (lane(0, LaneKind::ToolArguments), "input"),
            b"code_interpreter_call_code" => (lane(0, LaneKind::ToolArguments), "code"),
            _ => return,
        };
        lane.text(part, doc.get(if text.is_empty() { whole } else { text }), out);
    }

    fn lanes_whole(&self, doc: Value<'_>, out: &mut Lanes) {
        doc.get("output").into_iter().for_each(|items| output(items, Part::Next, out));
    }

    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        error_body(error, id, out);
    }

    fn stream_error(&self, error: &Error, id: &RequestId, state: &StreamState, out: &mut Vec<u8>) {
        write::stream_error(error, id, state, out);
    }

    fn ending(&self, ending: Ending, state: &StreamState, usage: Option<&Usage>, out: &mut Vec<u8>) {
        write::ending(ending, state, usage, out);
    }

    /// The reason stands in the last event alone, in whose place the ending is written.
    fn end_event(&self, _: Ending, _: Option<&[u8]>, _: Value<'_>, _: &mut Patches) {}

    fn end_whole(&self, ending: Ending, doc: Value<'_>, out: &mut Patches) {
        write::end_whole(ending, doc, out);
    }

    fn cut_calls(&self, doc: Value<'_>, out: &mut Patches) {
        let output = doc.get("output");
        output.into_iter().for_each(|items| {
            cut_elements(items, |item| CALLS.contains(&type_of(item)), out);
        });
    }

    fn delta(&self, lane: Lane, text: &[u8], state: &StreamState, out: &mut Vec<u8>) -> bool {
        write::delta(lane, text, state, out)
    }

    fn closes(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Closes {
        if matches!(self.class(event_name, doc), Class::End | Class::Error) {
            return Closes::All;
        }
        match event_type(event_name, doc).ends_with(b".done") {
            true => Closes::Item(index(doc.get("output_index"), 0)),
            false => Closes::Nothing,
        }
    }

    fn observe(&self, state: &mut StreamState, event_name: Option<&[u8]>, doc: Value<'_>) {
        let mut lanes = Lanes::new();
        self.lanes(event_name, doc, &mut lanes);
        write::observe(state, event_name, doc, &lanes);
    }

    fn refusal(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> u16 {
        write::refusal(refusal, out);
        200
    }

    fn refusal_stream(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        write::refusal_stream(self, refusal, out);
    }
}

/// Items that ask the client to do something; those that the provider has done itself are no such.
const CALLS: [&[u8]; 6] = [
    b"function_call",
    b"custom_tool_call",
    b"computer_call",
    b"local_shell_call",
    b"shell_call",
    b"apply_patch_call",
];

const MEMBERS: &Members = &[
    ("input_tokens", Place::Count(Member::Input)),
    ("output_tokens", Place::Count(Member::Output)),
    ("total_tokens", Place::Count(Member::Total)),
    ("input_tokens_details", Place::Details(INPUT_DETAILS)),
    ("output_tokens_details", Place::Details(OUTPUT_DETAILS)),
];

/// The event's type: the data's own, else its SSE name; empty where both are missing.
pub(super) fn event_type<'a>(event_name: Option<&'a [u8]>, doc: Value<'a>) -> &'a [u8] {
    doc.get("type").and_then(|kind| kind.str_raw()).or(event_name).unwrap_or_default()
}

fn output(items: Value<'_>, part: Part, out: &mut Lanes) {
    for (at, item) in items.elements().map_while(Result::ok).enumerate() {
        item_lanes(index(None, at), item, part, out);
    }
}

fn item_lanes(item: u32, value: Value<'_>, part: Part, out: &mut Lanes) {
    for member in value.members().map_while(Result::ok) {
        let is = |name| member.key.is(name);
        if is("content") {
            for (at, content) in member.value.elements().map_while(Result::ok).enumerate() {
                part_lanes(item, index(None, at), content, part, out);
            }
        } else if is("summary") {
            for (at, summary) in member.value.elements().map_while(Result::ok).enumerate() {
                let lane = Lane { choice: 0, item, part: index(None, at), kind: LaneKind::Reasoning };
                lane.text(part, summary.get("text"), out);
            }
        } else if is("arguments") || is("input") || is("code") {
            Lane::new(0, item, LaneKind::ToolArguments).text(part, Some(member.value), out);
        }
    }
}

fn part_lanes(item: u32, at: u32, value: Value<'_>, part: Part, out: &mut Lanes) {
    let lane = |part, kind| Lane { choice: 0, item, part, kind };
    match value.get("type").and_then(|kind| kind.str_raw()) {
        Some(b"output_text") => lane(at, LaneKind::Text).text(part, value.get("text"), out),
        Some(b"refusal") => lane(at, LaneKind::Refusal).text(part, value.get("refusal"), out),
        Some(b"reasoning_text") => {
            lane(at | REASONING_CONTENT, LaneKind::Reasoning).text(part, value.get("text"), out);
        }
        _ => {}
    }
}
