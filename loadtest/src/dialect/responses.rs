//! OpenAI Responses.
//!
//! Source: OpenAI API reference, "Responses" and "Streaming events", seen 2026-11.

use super::{EventText, Facts, Frame, Mode, string_at};

const CREATED: u64 = 1_760_000_000;
/// Events before the first delta: created, in_progress, output_item.added, content_part.added.
const OPENING_EVENTS: u32 = 4;

pub fn request(model: &str, mode: Mode, prompt: &str, image: Option<&str>) -> String {
    let image = image.map_or(String::new(), |data| {
        format!(r#",{{"type":"input_image","image_url":"data:image/png;base64,{data}"}}"#)
    });
    let stream = if mode == Mode::Stream { r#","stream":true"# } else { "" };
    format!(
        r#"{{"model":"{model}","instructions":"You are a helpful assistant.","input":[{{"role":"user","content":[{{"type":"input_text","text":"{prompt}"}}{image}]}}],"max_output_tokens":512{stream}}}"#
    )
}

fn response(facts: &Facts, status: &str, output: &str, usage: &str) -> String {
    let Facts { id, model, .. } = facts;
    format!(
        r#"{{"id":"resp_{id}","object":"response","created_at":{CREATED},"status":"{status}","error":null,"incomplete_details":null,"model":"{model}","output":[{output}],"parallel_tool_calls":true,"store":false,"usage":{usage}}}"#
    )
}

fn message(facts: &Facts, text: &str) -> String {
    let id = &facts.id;
    format!(
        r#"{{"id":"msg_{id}","type":"message","status":"completed","role":"assistant","content":[{{"type":"output_text","annotations":[],"text":"{text}"}}]}}"#
    )
}

fn usage(facts: &Facts) -> String {
    let Facts { prompt_tokens, completion_tokens, .. } = facts;
    let total = prompt_tokens + completion_tokens;
    format!(
        r#"{{"input_tokens":{prompt_tokens},"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{completion_tokens},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
    )
}

fn event(name: &str, number: u32, fields: &str) -> String {
    format!(
        "event: response.{name}\ndata: {{\"type\":\"response.{name}\",\"sequence_number\":{number},{fields}}}\n\n"
    )
}

pub fn opening(facts: &Facts) -> Vec<String> {
    let id = &facts.id;
    let open = format!("\"response\":{}", response(facts, "in_progress", "", "null"));
    let item = format!(
        r#""output_index":0,"item":{{"id":"msg_{id}","type":"message","status":"in_progress","role":"assistant","content":[]}}"#
    );
    let part = format!(
        r#""item_id":"msg_{id}","output_index":0,"content_index":0,"part":{{"type":"output_text","annotations":[],"text":""}}"#
    );
    vec![
        event("created", 0, &open),
        event("in_progress", 1, &open),
        event("output_item.added", 2, &item),
        event("content_part.added", 3, &part),
    ]
}

pub fn frame(facts: &Facts) -> Frame {
    let id = &facts.id;
    Frame {
        prefix: format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\
             \"item_id\":\"msg_{id}\",\"output_index\":0,\"content_index\":0,\"delta\":\""
        ),
        suffix: "\",\"sequence_number\":".to_owned(),
        numbered: "}\n\n",
        first_number: OPENING_EVENTS,
    }
}

pub fn closing(facts: &Facts, text: &str, events: u32) -> Vec<String> {
    let id = &facts.id;
    let number = OPENING_EVENTS + events;
    let place = format!(r#""item_id":"msg_{id}","output_index":0,"content_index":0"#);
    let part = format!(r#"{place},"part":{{"type":"output_text","annotations":[],"text":"{text}"}}"#);
    let item = format!(r#""output_index":0,"item":{}"#, message(facts, text));
    let whole = response(facts, "completed", &message(facts, text), &usage(facts));
    vec![
        event("output_text.done", number, &format!(r#"{place},"text":"{text}""#)),
        event("content_part.done", number + 1, &part),
        event("output_item.done", number + 2, &item),
        event("completed", number + 3, &format!("\"response\":{whole}")),
    ]
}

pub fn whole(facts: &Facts, text: &str) -> String {
    response(facts, "completed", &message(facts, text), &usage(facts))
}

pub fn read_event(event: &[u8]) -> EventText<'_> {
    // Written by an SDK-like writer the event's own type comes first; a writer that sorts keys puts others
    // before it.
    let kind = match string_at(event, b"\"type\"") {
        Some(kind) if kind.starts_with(b"response.") || kind == b"error" => kind,
        _ if has(event, b"\"response.completed\"") => b"response.completed",
        _ if has(event, b"\"response.failed\"") => b"response.failed",
        _ => return EventText::Other,
    };
    match kind {
        b"response.output_text.delta" => match string_at(event, b"\"delta\"") {
            Some(text) if !text.is_empty() => EventText::Text(text),
            _ => EventText::Other,
        },
        b"response.completed" => EventText::End,
        b"error" | b"response.failed" => EventText::Error,
        _ => EventText::Other,
    }
}

fn has(event: &[u8], value: &[u8]) -> bool {
    memchr::memmem::find(event, value).is_some()
}
