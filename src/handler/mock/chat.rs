//! Chat completions and completions of the built-in provider.

use super::{Asked, CREATED_S, Said, event};
use serde_json::{Value, json};

/// A chat completion.
pub fn answer(asked: &Asked<'_>, is_stream: bool) -> Said {
    if is_stream { Said::Events(stream(asked)) } else { Said::Whole(whole(asked)) }
}

/// A completion (the older surface): text only.
pub fn completion(asked: &Asked<'_>, is_stream: bool) -> Said {
    let object = |text: &str, finish: Option<&str>, usage: Option<Value>| {
        let choice = json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": finish });
        let mut object = json!({ "id": asked.id("cmpl-"), "object": "text_completion", "created": CREATED_S,
            "model": asked.model, "choices": [choice] });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    };
    if !is_stream {
        return Said::Whole(object(&asked.text(), Some(finish(asked)), Some(usage(asked))));
    }
    let mut events: Vec<Vec<u8>> =
        asked.words.iter().map(|word| event(None, &object(word, None, None))).collect();
    events.push(event(None, &object("", Some(finish(asked)), None)));
    end(asked, &object("", None, None), events)
}

fn whole(asked: &Asked<'_>) -> Value {
    let message = match &asked.tool {
        None => json!({ "role": "assistant", "content": asked.text(), "refusal": null }),
        Some((name, arguments)) => {
            let function = json!({ "name": name, "arguments": arguments.to_string() });
            let call = json!({ "id": asked.id("call_"), "type": "function", "function": function });
            json!({ "role": "assistant", "content": null, "refusal": null, "tool_calls": [call] })
        }
    };
    let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": finish(asked) });
    json!({ "id": asked.id("chatcmpl-"), "object": "chat.completion", "created": CREATED_S, "model": asked.model,
        "choices": [choice], "usage": usage(asked) })
}

fn stream(asked: &Asked<'_>) -> Vec<Vec<u8>> {
    let chunk = |delta: Value, finish: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
        json!({ "id": asked.id("chatcmpl-"), "object": "chat.completion.chunk", "created": CREATED_S,
            "model": asked.model, "choices": [choice] })
    };
    let mut events = vec![event(None, &chunk(json!({ "role": "assistant", "content": "" }), None))];
    match &asked.tool {
        None => events
            .extend(asked.words.iter().map(|word| event(None, &chunk(json!({ "content": word }), None)))),
        Some((name, arguments)) => {
            let call = |function: Value, id: Option<String>| {
                let mut call = json!({ "index": 0, "function": function });
                if let Some(id) = id {
                    call["id"] = json!(id);
                    call["type"] = json!("function");
                }
                json!({ "tool_calls": [call] })
            };
            let opening = call(json!({ "name": name, "arguments": "" }), Some(asked.id("call_")));
            events.push(event(None, &chunk(opening, None)));
            let arguments = arguments.to_string();
            let (first, second) = arguments.split_at(arguments.floor_char_boundary(arguments.len() / 2));
            for piece in [first, second] {
                events.push(event(None, &chunk(call(json!({ "arguments": piece }), None), None)));
            }
        }
    }
    events.push(event(None, &chunk(json!({}), Some(finish(asked)))));
    match end(asked, &chunk(json!({}), None), events) {
        Said::Events(events) => events,
        Said::Whole(_) => Vec::new(),
    }
}

/// The usage chunk where it was asked for, then the end.
fn end(asked: &Asked<'_>, like: &Value, mut events: Vec<Vec<u8>>) -> Said {
    if asked.request["stream_options"]["include_usage"] == true {
        let mut chunk = like.clone();
        chunk["choices"] = json!([]);
        chunk["usage"] = usage(asked);
        events.push(event(None, &chunk));
    }
    events.push(b"data: [DONE]\n\n".to_vec());
    Said::Events(events)
}

fn finish(asked: &Asked<'_>) -> &'static str {
    match (&asked.tool, asked.is_cut) {
        (Some(_), _) => "tool_calls",
        (None, true) => "length",
        (None, false) => "stop",
    }
}

fn usage(asked: &Asked<'_>) -> Value {
    let (input, output) = (asked.input_tokens, asked.output_tokens());
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        "prompt_tokens_details": { "cached_tokens": 0 }, "completion_tokens_details": { "reasoning_tokens": 0 } })
}
