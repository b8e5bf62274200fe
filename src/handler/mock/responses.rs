//! OpenAI Responses of the built-in provider. Nothing is stored: a response cannot be asked for again.

use super::{Asked, CREATED_S, Said, event};
use serde_json::{Value, json};

/// A response.
pub fn answer(asked: &Asked<'_>, is_stream: bool) -> Said {
    if is_stream { Said::Events(stream(asked)) } else { Said::Whole(response(asked, true)) }
}

fn response(asked: &Asked<'_>, is_done: bool) -> Value {
    let status = match (is_done, asked.is_cut) {
        (false, _) => "in_progress",
        (true, true) => "incomplete",
        (true, false) => "completed",
    };
    let (input, output) = (asked.input_tokens, asked.output_tokens());
    let usage = json!({ "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": output,
        "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": input + output });
    let incomplete = json!({ "reason": "max_output_tokens" });
    json!({ "id": asked.id("resp_"), "object": "response", "created_at": CREATED_S, "status": status, "error": null,
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
