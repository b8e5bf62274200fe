//! Anthropic Messages of the built-in provider.

use super::{Asked, Said, event};
use serde_json::{Value, json};

/// A message.
pub fn answer(asked: &Asked<'_>, is_stream: bool) -> Said {
    if is_stream {
        Said::Events(stream(asked))
    } else {
        Said::Whole(message(asked, &[block(asked)], Some(stop(asked))))
    }
}

fn block(asked: &Asked<'_>) -> Value {
    match &asked.tool {
        None => json!({ "type": "text", "text": asked.text() }),
        Some((name, arguments)) => {
            json!({ "type": "tool_use", "id": asked.id("toolu_"), "name": name, "input": arguments })
        }
    }
}

fn message(asked: &Asked<'_>, content: &[Value], stop: Option<&str>) -> Value {
    let output = if stop.is_some() { asked.output_tokens() } else { 1 };
    json!({ "id": asked.id("msg_"), "type": "message", "role": "assistant", "model": asked.model, "content": content,
        "stop_reason": stop, "stop_sequence": null, "usage": { "input_tokens": asked.input_tokens,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": output } })
}

fn stream(asked: &Asked<'_>) -> Vec<Vec<u8>> {
    let named = |data: Value| {
        let name = data["type"].as_str().unwrap_or_default().to_owned();
        event(Some(&name), &data)
    };
    let delta = |delta: Value| named(json!({ "type": "content_block_delta", "index": 0, "delta": delta }));
    let mut opened = block(asked);
    for name in ["text", "input"] {
        if !opened[name].is_null() {
            opened[name] = if name == "text" { json!("") } else { json!({}) };
        }
    }
    let mut events = vec![
        named(json!({ "type": "message_start", "message": message(asked, &[], None) })),
        named(json!({ "type": "content_block_start", "index": 0, "content_block": opened })),
        named(json!({ "type": "ping" })),
    ];
    match &asked.tool {
        None => {
            let words = asked.words.iter();
            events.extend(words.map(|word| delta(json!({ "type": "text_delta", "text": word }))));
        }
        Some((_, arguments)) => {
            let arguments = arguments.to_string();
            let (first, second) = arguments.split_at(arguments.floor_char_boundary(arguments.len() / 2));
            for piece in ["", first, second] {
                events.push(delta(json!({ "type": "input_json_delta", "partial_json": piece })));
            }
        }
    }
    events.push(named(json!({ "type": "content_block_stop", "index": 0 })));
    events.push(named(json!({ "type": "message_delta",
        "delta": { "stop_reason": stop(asked), "stop_sequence": null },
        "usage": { "output_tokens": asked.output_tokens() } })));
    events.push(named(json!({ "type": "message_stop" })));
    events
}

fn stop(asked: &Asked<'_>) -> &'static str {
    match (&asked.tool, asked.is_cut) {
        (Some(_), _) => "tool_use",
        (None, true) => "max_tokens",
        (None, false) => "end_turn",
    }
}
