//! The built-in provider against the readers of the dialects: what it says is what they find.

use super::answer;
use crate::llm::dialect::{Dialect, Lanes, Part};
use crate::usage::meter::{Known, Meter, Shape};
use http::Method;
use serde_json::{Value, json};

const SURFACES: [(&str, Dialect); 4] = [
    ("/v1/chat/completions", Dialect::OpenAiChat),
    ("/v1/completions", Dialect::OpenAiCompletions),
    ("/v1/responses", Dialect::OpenAiResponses),
    ("/v1/messages", Dialect::Anthropic),
];

fn body(path: &str, request: &Value) -> Vec<u8> {
    let (head, said) = answer(&Method::POST, path, request.to_string().as_bytes());
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
    assert_eq!(answer(&Method::POST, "/v1/other", b"{}").0.status, 404);
}

/// Status and body of what is answered for `path`.
fn asked(method: &Method, path: &str) -> (u16, Value) {
    let (head, said) = answer(method, path, b"");
    let bytes: Vec<u8> = said.parts.into_iter().flat_map(|part| part.bytes).collect();
    (head.status, serde_json::from_slice(&bytes).expect("JSON"))
}

#[test]
fn a_response_is_given_again_by_its_id_alone() {
    let tools = json!([{ "type": "function", "name": "weather", "parameters": { "type": "object" } }]);
    let rows = [
        json!({ "input": "hi" }),
        json!({ "input": "hi", "max_tokens": null, "max_output_tokens": 3 }),
        json!({ "input": "hi", "tools": tools }),
        json!({ "input": "hi", "model": "gr\u{f6}\u{df}e \"x\"" }),
        json!({ "input": "hi", "stream": true }),
    ];
    for row in &rows {
        let said = body("/v1/responses", &request(row));
        let made: Value = match row["stream"].as_bool() {
            None => serde_json::from_slice(&said).expect("JSON"),
            Some(_) => {
                let text = String::from_utf8(said).expect("text");
                let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
                serde_json::from_str::<Value>(last.expect("an event")).expect("JSON")["response"].take()
            }
        };
        let id = made["id"].as_str().expect("an id");
        assert!(id.len() <= 21 + 2 * 256, "{id}");
        let path = format!("/v1/responses/{id}");
        assert_eq!(asked(&Method::GET, &format!("{path}?include=x")), (200, made.clone()), "{row}");
        assert_eq!(asked(&Method::POST, &format!("{path}/cancel")), (200, made.clone()), "{row}");
        let deleted = json!({ "id": id, "object": "response", "deleted": true });
        assert_eq!(asked(&Method::DELETE, &path), (200, deleted), "{row}");
        assert_eq!(asked(&Method::GET, &format!("{path}/input_items")).0, 404);
    }
}

#[test]
fn an_id_that_was_not_made_here_or_carries_nothing_is_not_found() {
    let id = |extra: &Value| {
        let made: Value = serde_json::from_slice(&body("/v1/responses", &request(extra))).expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    };
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let forged = |carried: &str| format!("resp_{:016x}{}", 1, hex(carried));
    // `[1,1000,"",null]` and the name are 256 bytes together.
    let named = |len: usize| id(&json!({ "model": "m".repeat(len), "input": null, "messages": null }));
    assert_eq!(asked(&Method::GET, &format!("/v1/responses/{}", named(240))).0, 200);
    assert_eq!(asked(&Method::GET, &format!("/v1/responses/{}", forged("[1,null,\"m\",null]"))).0, 200);
    let rows = [
        named(241),
        id(&json!({ "store": false })),
        forged("[1, null,\"m\",null]"),
        forged("[1,null,\"m\"]"),
        forged("[1,null,\"m\",[1,2]]"),
        forged("[-1,null,\"m\",null]"),
        forged("[1,null,\"m\",null").to_string(),
        forged("[1,null,\"m\",null]") + "0",
        forged("[1,null,\"m\",null]").to_uppercase().replace("RESP_", "resp_"),
        forged(&format!("[{},null,\"m\",null]", u64::MAX)).replace("resp_0", "resp_+"),
        "resp_".into(),
        "resp_0000000000000001".into(),
        "resp_\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}0".into(),
        "resp_abc".into(),
        String::new(),
    ];
    for id in rows {
        let (status, said) = asked(&Method::GET, &format!("/v1/responses/{id}"));
        assert_eq!((status, &said["error"]["code"]), (404, &json!("response_not_found")), "{id}");
    }
    let most = forged(&format!("[{},null,\"m\",null]", u64::MAX));
    assert_eq!(asked(&Method::GET, &format!("/v1/responses/{most}")).0, 200);
}
