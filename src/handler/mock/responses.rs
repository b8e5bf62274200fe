//! OpenAI Responses of the built-in provider.
//!
//! Nothing is stored: an id carries what makes the response again, in hexadecimal digits behind the request's
//! fingerprint. So each worker and each later process gives the same one, and deleting says so and forgets
//! nothing. Limits: `CARRIED_BYTES_MAX`; beyond it (a tool with long arguments), and with `store: false`, the
//! id carries nothing and is not found. Absent: the input of a response, running ones that could be
//! cancelled: what is cancelled had ended.

use super::{Asked, CREATED_S, Said, event};
use http::Method;
use serde_json::{Value, json};
use std::fmt::Write;

/// Bytes of JSON that an id carries; an id is at most twice as long and 21.
const CARRIED_BYTES_MAX: usize = 256;
const PREFIX: &str = "resp_";
const FINGERPRINT_DIGITS: usize = 16;

/// A response.
pub fn answer(asked: &Asked<'_>, is_stream: bool) -> Said {
    if is_stream { Said::Events(stream(asked)) } else { Said::Whole(response(asked, true)) }
}

/// What is answered for a response that was made before; `rest` is its id and what follows. None: no such one.
pub fn stored(method: &Method, rest: &str) -> Option<Value> {
    let (id, action) = rest.split_once('/').unwrap_or((rest, ""));
    let (fingerprint, carried) = read(id)?;
    let [input_tokens, words_max, model, tool] = carried.as_array()?.as_slice() else { return None };
    let asked = Asked::again(model.as_str()?, input_tokens.as_u64()?, words_max.as_u64(), fingerprint);
    let tool = tool.as_array().map(Vec::as_slice);
    let tool = match tool {
        Some([name, arguments]) => Some((name.as_str()?.to_owned(), arguments.clone())),
        _ => None,
    };
    let asked = Asked { tool, ..asked };
    // An id that was not made here may carry the same in other words.
    if made_id(&asked) != id {
        return None;
    }
    match (method, action) {
        (&Method::GET, "") | (&Method::POST, "cancel") => Some(response(&asked, true)),
        (&Method::DELETE, "") => Some(json!({ "id": id, "object": "response", "deleted": true })),
        _ => None,
    }
}

fn made_id(asked: &Asked<'_>) -> String {
    let mut id = asked.id(PREFIX);
    let carried = json!([asked.input_tokens, asked.words_max, asked.model, asked.tool]).to_string();
    if carried.len() <= CARRIED_BYTES_MAX && asked.request["store"] != json!(false) {
        for byte in carried.bytes() {
            // Writing to a string cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
    }
    id
}

/// Fingerprint and what is carried.
fn read(id: &str) -> Option<(u64, Value)> {
    let (fingerprint, digits) = id.strip_prefix(PREFIX)?.split_at_checked(FINGERPRINT_DIGITS)?;
    if digits.len() > 2 * CARRIED_BYTES_MAX || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let carried: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    let carried = serde_json::from_slice(&carried?).ok()?;
    Some((u64::from_str_radix(fingerprint, 16).ok()?, carried))
}

fn response(asked: &Asked<'_>, is_done: bool) -> Value {
    let status = match (is_done, asked.is_cut) {
        (false, _) => "in_progress",
        (true, true) => "incomplete",
        (true, false) => "completed",
    };
    let (input, output) = (asked.input_tokens, asked.output_tokens());
    let usage = json!({ "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": output,
        "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": input.saturating_add(output) });
    let incomplete = json!({ "reason": "max_output_tokens" });
    json!({ "id": made_id(asked), "object": "response", "created_at": CREATED_S, "status": status, "error": null,
        "incomplete_details": if status == "incomplete" { incomplete } else { Value::Null }, "instructions": null,
        "metadata": {}, "model": asked.model, "output": if is_done { json!([item(asked, true)]) } else { json!([]) },
        "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "usage": if is_done { usage } else { Value::Null } })
}

/// The one output item, whole or as it begins.
fn item(asked: &Asked<'_>, is_done: bool) -> Value {
    let status = if is_done { "completed" } else { "in_progress" };
    match &asked.tool {
        Some((name, arguments)) => {
            let arguments = if is_done { arguments.to_string() } else { String::new() };
            json!({ "id": asked.id("fc_"), "type": "function_call", "status": status, "arguments": arguments,
                "call_id": asked.id("call_"), "name": name })
        }
        None => {
            let content = if is_done { json!([part(&asked.text())]) } else { json!([]) };
            json!({ "id": asked.id("msg_"), "type": "message", "status": status, "role": "assistant",
                "content": content })
        }
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "annotations": [], "logprobs": [], "text": text })
}

fn stream(asked: &Asked<'_>) -> Vec<Vec<u8>> {
    let mut events = Events { list: Vec::new() };
    events.push(json!({ "type": "response.created", "response": response(asked, false) }));
    events.push(json!({ "type": "response.in_progress", "response": response(asked, false) }));
    events
        .push(json!({ "type": "response.output_item.added", "output_index": 0, "item": item(asked, false) }));
    match &asked.tool {
        None => text(asked, &mut events),
        Some((_, arguments)) => {
            let (id, arguments) = (asked.id("fc_"), arguments.to_string());
            let (first, second) = arguments.split_at(arguments.floor_char_boundary(arguments.len() / 2));
            for piece in [first, second] {
                events.push(json!({ "type": "response.function_call_arguments.delta", "item_id": id,
                    "output_index": 0, "delta": piece }));
            }
            events.push(
                json!({ "type": "response.function_call_arguments.done", "item_id": id, "output_index": 0,
                "arguments": arguments }),
            );
        }
    }
    events.push(json!({ "type": "response.output_item.done", "output_index": 0, "item": item(asked, true) }));
    let last = if asked.is_cut { "response.incomplete" } else { "response.completed" };
    events.push(json!({ "type": last, "response": response(asked, true) }));
    events.list
}

fn text(asked: &Asked<'_>, events: &mut Events) {
    let place = |mut event: Value| {
        event["item_id"] = json!(asked.id("msg_"));
        event["output_index"] = json!(0);
        event["content_index"] = json!(0);
        event
    };
    events.push(place(json!({ "type": "response.content_part.added", "part": part("") })));
    for word in &asked.words {
        events.push(place(json!({ "type": "response.output_text.delta", "delta": word, "logprobs": [] })));
    }
    let whole = asked.text();
    events.push(place(json!({ "type": "response.output_text.done", "text": whole, "logprobs": [] })));
    events.push(place(json!({ "type": "response.content_part.done", "part": part(&whole) })));
}

/// Numbers the events.
struct Events {
    list: Vec<Vec<u8>>,
}

impl Events {
    fn push(&mut self, mut data: Value) {
        data["sequence_number"] = json!(self.list.len());
        let name = data["type"].as_str().unwrap_or_default().to_owned();
        self.list.push(event(Some(&name), &data));
    }
}
