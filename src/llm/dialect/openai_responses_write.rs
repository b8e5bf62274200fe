//! Writing into a Responses stream: deltas, errors, endings and refusals.
//!
//! Every item that is open is closed by its own events, with its text repeated, and the last event repeats
//! the whole response, so the stream's state keeps both (`StreamState`, at most `TEXTS_MAX` bytes). Where
//! they were too long, the closing events are left out and the last event's output is empty: an SDK that read
//! the deltas has the text. Events that are inserted take the next sequence number, so the provider's later
//! ones repeat a number; the SDKs do not look at it.

use super::cut::{set, type_of};
use super::lane::{Lane, LaneKind, Lanes, Part, index};
use super::openai_chunk::{NOTHING_USED, error_object, param};
use super::openai_responses::{REASONING_CONTENT, event_type};
use super::stream::{Ending, Item, ItemText, Refusal, StreamState};
use super::write::{Object, event, object};
use super::{Usage, Wire};
use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::codec::json::{self, Value};
use crate::codec::patch::Patches;

/// An event under way: its type, and the sequence number that it takes.
fn numbered(out: &mut Vec<u8>, name: &str, sequence: &mut u64, fill: impl FnOnce(&mut Object<'_>)) {
    event(out, Some(name), |body| {
        body.text("type", name).number("sequence_number", *sequence);
        fill(body);
    });
    *sequence += 1;
}

/// `event: error`, then `response.failed` for those who wait for it, where the response is known. The error stands
/// twice: flat as the API's schema has it (`ResponseErrorEvent`), and in the `error` member that the API sends and
/// at which the SDKs raise.
pub(super) fn stream_error(error: &Error, id: &RequestId, state: &StreamState, out: &mut Vec<u8>) {
    let mut sequence = state.sequence;
    numbered(out, "error", &mut sequence, |body| {
        body.text("code", error.kind.row().code).text("message", &error.detail);
        param(error, body);
        body.object("error", |members| error_object(error, members)).text("request_id", id.as_str());
    });
    if state.response.is_empty() {
        return;
    }
    let mut told = Vec::new();
    object(&mut told, |members| {
        members.text("code", error.kind.row().code).text("message", &error.detail);
    });
    let changed: [(&str, &[u8]); 2] = [("status", b"\"failed\""), ("error", &told)];
    numbered(out, "response.failed", &mut sequence, |body| {
        body.raw("response", &with(&state.response, &changed));
    });
}

pub(super) fn ending(ending: Ending, state: &StreamState, usage: Option<&Usage>, out: &mut Vec<u8>) {
    let (name, status, details) = told(ending);
    let mut sequence = state.sequence;
    let mut output: Vec<(u32, Vec<u8>)> = Vec::new();
    if !state.lossy {
        for item in &state.items {
            let whole =
                if item.done { item.raw.clone() } else { close_item(item, status, &mut sequence, out) };
            output.push((item.index, whole));
        }
    }
    output.sort_by_key(|(index, _)| *index);
    let (mut items, mut used) = (vec![b'['], Vec::new());
    for (at, (_, item)) in output.iter().enumerate() {
        items.extend_from_slice(if at > 0 { b"," } else { b"" });
        items.extend_from_slice(item);
    }
    items.push(b']');
    match usage {
        Some(usage) => object(&mut used, |members| usage_members(usage, members)),
        None => used.extend_from_slice(b"null"),
    }
    let changed: [(&str, &[u8]); 4] =
        [("status", status), ("incomplete_details", details), ("output", &items), ("usage", &used)];
    let response = if state.response.is_empty() { b"{}" } else { &state.response[..] };
    numbered(out, name, &mut sequence, |body| {
        body.raw("response", &with(response, &changed));
    });
}

/// The last event's name, the status and `incomplete_details`.
fn told(ending: Ending) -> (&'static str, &'static [u8], &'static [u8]) {
    match ending {
        Ending::Stop => ("response.completed", b"\"completed\"", b"null"),
        Ending::Length => ("response.incomplete", b"\"incomplete\"", b"{\"reason\":\"max_output_tokens\"}"),
        Ending::ContentFilter => {
            ("response.incomplete", b"\"incomplete\"", b"{\"reason\":\"content_filter\"}")
        }
    }
}

/// Gives a whole response the status of an ending, its messages too.
pub(super) fn end_whole(ending: Ending, doc: Value<'_>, out: &mut Patches) {
    let (_, status, details) = told(ending);
    set(doc, "status", status, out);
    set(doc, "incomplete_details", details, out);
    let items = doc.get("output").into_iter().flat_map(|items| items.elements().map_while(Result::ok));
    items.filter(|item| type_of(*item) == b"message").for_each(|item| set(item, "status", status, out));
}

/// Writes the events that close an item and its texts; returns the item as the last of them gives it.
fn close_item(item: &Item, status: &[u8], sequence: &mut u64, out: &mut Vec<u8>) -> Vec<u8> {
    let raw = json::root(&item.raw).ok();
    // Arguments that were cut off must not look like a call that can be made.
    let is_call = item.texts.iter().any(|text| text.kind == LaneKind::ToolArguments && !text.done);
    let status: &[u8] = if is_call { b"\"incomplete\"" } else { status };
    let id = raw.and_then(|raw| raw.get("id")?.str_raw()).unwrap_or_default();
    let place = |body: &mut Object<'_>| {
        body.escaped("item_id", id).number("output_index", item.index.into());
    };
    let (mut content, mut summary, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for text in &item.texts {
        let form = Form::of(text, raw);
        if !text.done {
            numbered(out, &format!("response.{}.done", form.subject), sequence, |body| {
                place(body);
                form.part(body, text.part);
                if form.subject == "output_text" {
                    body.raw("logprobs", b"[]");
                }
                body.escaped(form.name, &text.text);
            });
        }
        let Some(part_event) = form.part_event else {
            let mut value = Vec::new();
            quoted(&text.text, &mut value);
            changed.push((form.name, value));
            continue;
        };
        let part = form.part_object(&text.text);
        if !text.done {
            numbered(out, &format!("response.{part_event}.done"), sequence, |body| {
                place(body);
                form.part(body, text.part);
                body.raw("part", &part);
            });
        }
        if form.index_name == "summary_index" { summary.push(part) } else { content.push(part) }
    }
    changed.push(("status", status.to_vec()));
    changed.extend(
        [("content", content), ("summary", summary)]
            .into_iter()
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(name, parts)| (name, [b"[".as_slice(), &parts.join(&b","[..]), b"]"].concat())),
    );
    let changed: Vec<(&str, &[u8])> = changed.iter().map(|(name, value)| (*name, &value[..])).collect();
    let whole = with(&item.raw, &changed);
    numbered(out, "response.output_item.done", sequence, |body| {
        body.number("output_index", item.index.into()).raw("item", &whole);
    });
    whole
}

/// How the events of one kind of text are spelled.
struct Form {
    /// `response.SUBJECT.delta`, `response.SUBJECT.done`
    subject: &'static str,
    /// Member of the `.done` event, and of the part, that holds the text.
    name: &'static str,
    /// `response.PART_EVENT.done`, if the text is a part of its item.
    part_event: Option<&'static str>,
    /// Member that says which part; empty for none.
    index_name: &'static str,
    /// Type of the part.
    part_type: &'static str,
}

impl Form {
    fn of(text: &ItemText, item: Option<Value<'_>>) -> Form {
        let kind = item.and_then(|item| item.get("type")?.str_raw()).unwrap_or_default();
        Form::new(text.kind, text.part, kind)
    }

    fn new(kind: LaneKind, part: u32, item_type: &[u8]) -> Form {
        let form = |subject, name, part_event, index_name, part_type| Form {
            subject,
            name,
            part_event,
            index_name,
            part_type,
        };
        let content = Some("content_part");
        match kind {
            LaneKind::Text => form("output_text", "text", content, "content_index", "output_text"),
            LaneKind::Refusal => form("refusal", "refusal", content, "content_index", "refusal"),
            LaneKind::Reasoning if part & REASONING_CONTENT != 0 => {
                form("reasoning_text", "text", content, "content_index", "reasoning_text")
            }
            LaneKind::Reasoning => {
                let event = Some("reasoning_summary_part");
                form("reasoning_summary_text", "text", event, "summary_index", "summary_text")
            }
            LaneKind::ToolArguments => match item_type {
                b"custom_tool_call" => form("custom_tool_call_input", "input", None, "", ""),
                b"mcp_call" => form("mcp_call_arguments", "arguments", None, "", ""),
                b"code_interpreter_call" => form("code_interpreter_call_code", "code", None, "", ""),
                _ => form("function_call_arguments", "arguments", None, "", ""),
            },
        }
    }

    /// Says which part of the item, where there are parts.
    fn part(&self, body: &mut Object<'_>, part: u32) {
        if !self.index_name.is_empty() {
            body.number(self.index_name, (part & !REASONING_CONTENT).into());
        }
    }

    fn part_object(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 64);
        object(&mut out, |part| {
            part.text("type", self.part_type);
            if self.part_type == "output_text" {
                part.raw("annotations", b"[]").raw("logprobs", b"[]");
            }
            part.escaped(self.name, text);
        });
        out
    }
}

pub(super) fn delta(lane: Lane, text: &[u8], state: &StreamState, out: &mut Vec<u8>) -> bool {
    let Some(item) = state.items.iter().find(|item| item.index == lane.item && !item.done) else {
        return false;
    };
    let raw = json::root(&item.raw).ok();
    let string = |name| raw.and_then(|raw| raw.get(name)?.str_raw()).unwrap_or_default();
    let form = Form::new(lane.kind, lane.part, string("type"));
    let mut sequence = state.sequence;
    numbered(out, &format!("response.{}.delta", form.subject), &mut sequence, |body| {
        body.escaped("item_id", string("id")).number("output_index", lane.item.into());
        form.part(body, lane.part);
        body.escaped("delta", text);
        if form.subject == "output_text" {
            body.raw("logprobs", b"[]");
        }
    });
    true
}

/// Learns from one event; `lanes` are its texts.
pub(super) fn observe(state: &mut StreamState, event_name: Option<&[u8]>, doc: Value<'_>, lanes: &Lanes) {
    if let Some(sequence) = doc.get("sequence_number").and_then(|number| number.as_u64()) {
        state.sequence = state.sequence.max(sequence.saturating_add(1));
    }
    if let Some(response) = doc.get("response") {
        let string = |name| response.get(name).and_then(|value| value.str_raw());
        state.named(string("id"), string("model"));
        state.started = true;
        if state.response.is_empty() && response.raw.len() <= super::stream::TEXTS_MAX {
            state.response = response.raw.to_vec();
        }
        return;
    }
    let (at, kind) = (index(doc.get("output_index"), 0), event_type(event_name, doc));
    if let Some(value) = doc.get("item") {
        let done = kind == b"response.output_item.done";
        if let Some(item) = state.item(at, value.raw.len()) {
            item.raw = value.raw.to_vec();
            item.done |= done;
        }
    }
    for text in lanes {
        let more = if text.part == Part::Next { text.range.len() } else { 0 };
        let Some(item) = state.item(text.lane.item, more) else { continue };
        let at = item.texts.iter().position(|at| (at.part, at.kind) == (text.lane.part, text.lane.kind));
        let at = at.unwrap_or_else(|| {
            let Lane { part, kind, .. } = text.lane;
            item.texts.push(ItemText { part, kind, text: Vec::new(), done: false });
            item.texts.len() - 1
        });
        match text.part {
            Part::Next => item.texts[at].text.extend_from_slice(doc_bytes(doc, &text.range)),
            Part::Again | Part::Echo => item.texts[at].done = true,
        }
    }
}

/// The bytes of `range`, which counts from where `doc`'s document begins.
fn doc_bytes<'a>(doc: Value<'a>, range: &std::ops::Range<usize>) -> &'a [u8] {
    let from = range.start.saturating_sub(doc.start);
    doc.raw.get(from..from + range.len()).unwrap_or_default()
}

/// The object `raw` with some members' values changed; those that it lacks come last.
fn with(raw: &[u8], changed: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 64);
    let members = json::root(raw).ok().into_iter().flat_map(|raw| raw.members().map_while(Result::ok));
    object(&mut out, |object| {
        let mut left: Vec<_> = changed.to_vec();
        for member in members {
            match left.iter().position(|(name, _)| member.key.is(name)) {
                Some(at) => {
                    let (name, value) = left.remove(at);
                    object.raw(name, value);
                }
                None => {
                    object.member(member.key.raw, member.value.raw);
                }
            }
        }
        for (name, value) in left {
            object.raw(name, value);
        }
    });
    out
}

fn quoted(escaped: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(escaped);
    out.push(b'"');
}

fn usage_members(usage: &Usage, members: &mut Object<'_>) {
    let (input, output) = (usage.input_total().unwrap_or(0), usage.output_total().unwrap_or(0));
    members.number("input_tokens", input);
    members.object("input_tokens_details", |details| {
        details.number("cached_tokens", usage.cache_read.unwrap_or(0));
    });
    members.number("output_tokens", output);
    members.object("output_tokens_details", |details| {
        details.number("reasoning_tokens", usage.reasoning.unwrap_or(0));
    });
    members.number("total_tokens", input.saturating_add(output));
}

/// A whole response of one refusal.
pub(super) fn refusal(refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    let mut item = Vec::new();
    object(&mut item, |item| {
        item.text("id", &format!("msg_{}", refusal.id)).text("type", "message").text("status", "completed");
        item.text("role", "assistant").list_of_one("content", |part| {
            part.text("type", "refusal").text("refusal", refusal.text);
        });
    });
    let mut used = Vec::new();
    object(&mut used, |members| usage_members(&NOTHING_USED, members));
    let output = [b"[", &item[..], b"]"].concat();
    out.extend(with(
        &response(refusal),
        &[("status", b"\"completed\""), ("output", &output), ("usage", &used)],
    ));
}

/// The same, told event by event.
pub(super) fn refusal_stream(wire: &dyn Wire, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    let (mut state, mut sequence) = (StreamState::new(), 0);
    let response = response(refusal);
    let mut told = Vec::new();
    for name in ["response.created", "response.in_progress"] {
        numbered(&mut told, name, &mut sequence, |body| {
            body.raw("response", &response);
        });
    }
    let id = format!("msg_{}", refusal.id);
    numbered(&mut told, "response.output_item.added", &mut sequence, |body| {
        body.number("output_index", 0).object("item", |item| {
            item.text("id", &id).text("type", "message").text("status", "in_progress");
            item.text("role", "assistant").raw("content", b"[]");
        });
    });
    numbered(&mut told, "response.content_part.added", &mut sequence, |body| {
        body.text("item_id", &id).number("output_index", 0).number("content_index", 0);
        body.object("part", |part| {
            part.text("type", "refusal").text("refusal", "");
        });
    });
    wire.observe_all(&mut state, &told);
    let mut text = Vec::new();
    json::escape(refusal.text.as_bytes(), &mut text);
    let from = told.len();
    delta(Lane::new(0, 0, LaneKind::Refusal), &text, &state, &mut told);
    wire.observe_all(&mut state, &told[from..]);
    ending(Ending::Stop, &state, Some(&NOTHING_USED), &mut told);
    out.extend(told);
}

/// A response that has just begun.
fn response(refusal: &Refusal<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, |members| {
        members.text("id", &format!("resp_{}", refusal.id)).text("object", "response");
        members.number("created_at", refusal.created_s).text("status", "in_progress");
        members.null("error").null("incomplete_details").null("instructions").raw("metadata", b"{}");
        members.text("model", refusal.model).raw("output", b"[]").raw("parallel_tool_calls", b"true");
        members.null("temperature").text("tool_choice", "auto").raw("tools", b"[]").null("top_p");
        members.null("usage");
    });
    out
}
