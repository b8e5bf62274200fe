//! The built-in provider against the readers of the dialects: what it says is what they find.

use super::answer;
use crate::llm::dialect::{Dialect, Lanes, Part};
use crate::usage::meter::{Known, Meter, Shape};
use serde_json::{Value, json};

const SURFACES: [(&str, Dialect); 4] = [
    ("/v1/chat/completions", Dialect::OpenAiChat),
    ("/v1/completions", Dialect::OpenAiCompletions),
    ("/v1/responses", Dialect::OpenAiResponses),
    ("/v1/messages", Dialect::Anthropic),
];

fn body(path: &str, request: &Value) -> Vec<u8> {
    let (head, said) = answer(path, request.to_string().as_bytes());
    assert_eq!(head.status, 200, "{path}");
    said.parts.into_iter().flat_map(|part| part.bytes).collect()
}

fn request(extra: &Value) -> Value {
    let mut request =
        json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 1000 });
    for (name, value) in extra.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    request
}

#[test]
fn stream_and_whole_answer_say_the_same_text_and_usage() {
    for (path, dialect) in SURFACES {
        let whole = body(path, &request(&json!({})));
        let mut lanes = Lanes::new();
        dialect.lanes_whole(&whole, &mut lanes);
        let text: Vec<u8> = lanes.iter().flat_map(|text| whole[text.range.clone()].to_vec()).collect();
        let extra = json!({ "stream": true, "stream_options": { "include_usage": true } });
        let stream = body(path, &request(&extra));
        let mut streamed = Vec::new();
        let mut rest = &stream[..];
        let mut meter = Meter::new(dialect, Shape::Stream);
        while let Some(end) = crate::codec::sse::Framer::new().end_of_event(rest) {
            let (raw, after) = rest.split_at(end);
            rest = after;
            meter.event(raw);
            let mut joined = Vec::new();
            let event = crate::codec::sse::Event::parse(raw, &mut joined);
            let data = event.data.bytes();
            let mut lanes = Lanes::new();
            dialect.lanes(event.name, data, &mut lanes);
            let next = lanes.iter().filter(|text| text.part == Part::Next);
            streamed.extend(next.flat_map(|text| data[text.range.clone()].to_vec()));
        }
        assert_eq!(String::from_utf8_lossy(&streamed), String::from_utf8_lossy(&text), "{path}");
        assert!(meter.is_complete(), "{path}");
        let usage = meter.finish(Known::default());
        assert!(
            usage.input.is_some_and(|tokens| tokens > 1) && usage.output.is_some_and(|tokens| tokens > 1),
            "{path}"
        );
    }
}

#[test]
fn the_first_tool_is_called_with_what_its_schema_requires_and_not_again_after_its_result() {
    let parameters =
        json!({ "type": "object", "required": ["city"], "properties": { "city": { "type": "string" } } });
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": parameters } }]);
    let asked = request(&json!({ "tools": tools }));
    let said: Value = serde_json::from_slice(&body("/v1/chat/completions", &asked)).expect("JSON");
    let call = &said["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(
        (call["name"].as_str(), call["arguments"].as_str()),
        (Some("weather"), Some(r#"{"city":"example"}"#))
    );
    let messages = json!([{ "role": "user", "content": "hi" }, { "role": "tool", "content": "rain" }]);
    let asked = request(&json!({ "tools": tools, "messages": messages }));
    let said: Value = serde_json::from_slice(&body("/v1/chat/completions", &asked)).expect("JSON");
    assert_eq!(said["choices"][0]["finish_reason"], "stop");
}

#[test]
fn an_output_limit_cuts_the_text_and_says_so() {
    for (limit, finish) in [(3, "length"), (1000, "stop")] {
        let asked = request(&json!({ "max_tokens": limit }));
        let said: Value = serde_json::from_slice(&body("/v1/chat/completions", &asked)).expect("JSON");
        assert_eq!(said["choices"][0]["finish_reason"], finish, "{limit}");
    }
}

#[test]
fn an_unknown_path_is_refused() {
    assert_eq!(answer("/v1/other", b"{}").0.status, 404);
}
