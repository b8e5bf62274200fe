//! What a provider of each dialect streams or answers, and strict readers of what a client then gets.
//!
//! `stream` and `whole` are the provider; `told` takes a stream apart and fails where it is no valid one of
//! its dialect (a block that is not open, a second reason, no end), `told_whole` a body. Written apart from
//! `llm/dialect`, which is under test.

use serde_json::{Value, json};
use tollgate::llm::dialect::Dialect::{self, Anthropic, OpenAiChat, OpenAiCompletions, OpenAiResponses};
use tollgate::llm::provider::ProviderKind;

pub const DIALECTS: [Dialect; 4] = [OpenAiChat, OpenAiCompletions, OpenAiResponses, Anthropic];

/// What a stage made of the answer, as a client reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    pub reason: &'static str,
}

pub fn kind(dialect: Dialect) -> ProviderKind {
    if dialect == Anthropic { ProviderKind::Anthropic } else { ProviderKind::OpenAi }
}

pub fn path(dialect: Dialect) -> &'static str {
    match dialect {
        OpenAiChat => "/v1/chat/completions",
        OpenAiCompletions => "/v1/completions",
        OpenAiResponses => "/v1/responses",
        _ => "/v1/messages",
    }
}

/// How a dialect says that the model finished, or that the gateway ended its answer.
pub fn reason(dialect: Dialect, ends: bool) -> &'static str {
    match (dialect, ends) {
        (OpenAiChat | OpenAiCompletions, false) => "stop",
        (OpenAiChat | OpenAiCompletions, true) => "content_filter",
        (OpenAiResponses, false) => "completed",
        (OpenAiResponses, true) => "incomplete",
        (_, false) => "end_turn",
        (_, true) => "refusal",
    }
}

/// Where a provider tells that it has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Apart,
    /// In the chunk of the last text, where the dialect can.
    WithLastText,
}

pub fn finishes(dialect: Dialect) -> impl Iterator<Item = Finish> {
    let apart_only = matches!(dialect, OpenAiResponses | Anthropic);
    [Finish::Apart, Finish::WithLastText].into_iter().take(if apart_only { 1 } else { 2 })
}

pub fn event(name: Option<&str>, data: &str) -> String {
    name.map_or_else(String::new, |name| format!("event: {name}\n")) + &format!("data: {data}\n\n")
}

/// What a provider streams; `pieces` are escaped.
pub fn stream(dialect: Dialect, pieces: &[&str], finish: Finish) -> String {
    match dialect {
        OpenAiChat => chunks(pieces, finish, "chat.completion.chunk", |piece| match piece {
            Some(piece) => format!("\"delta\":{{\"content\":\"{piece}\"}}"),
            None => "\"delta\":{}".to_string(),
        }),
        OpenAiCompletions => chunks(pieces, finish, "text_completion", |piece| {
            format!("\"text\":\"{}\"", piece.unwrap_or_default())
        }),
        OpenAiResponses => responses(pieces),
        _ => messages(pieces),
    }
}

fn chunks(pieces: &[&str], finish: Finish, object: &str, part: impl Fn(Option<&str>) -> String) -> String {
    let head = format!("\"id\":\"c1\",\"object\":\"{object}\",\"created\":1700000001,\"model\":\"m\"");
    let chunk = |part: String, reason: &str| {
        event(None, &format!("{{{head},\"choices\":[{{\"index\":0,{part},\"finish_reason\":{reason}}}]}}"))
    };
    let mut out = String::from(": first\n\n");
    for (at, piece) in pieces.iter().enumerate() {
        let is_last = at + 1 == pieces.len() && finish == Finish::WithLastText;
        out += &chunk(part(Some(piece)), if is_last { "\"stop\"" } else { "null" });
    }
    if finish == Finish::Apart {
        out += &chunk(part(None), "\"stop\"");
    }
    let usage = "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}";
    out += &event(None, &format!("{{{head},\"choices\":[],{usage}}}"));
    out + &event(None, "[DONE]")
}

fn messages(pieces: &[&str]) -> String {
    let typed = |name: &str, rest: &str| event(Some(name), &format!("{{\"type\":\"{name}\"{rest}}}"));
    let usage = "\"usage\":{\"input_tokens\":7,\"output_tokens\":1}";
    let mut out = typed(
        "message_start",
        &format!(
            ",\"message\":{{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\
             \"content\":[],\"model\":\"m\",\"stop_reason\":null,{usage}}}"
        ),
    );
    out += &typed("content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}");
    for piece in pieces {
        let delta = format!(",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{piece}\"}}");
        out += &typed("content_block_delta", &delta);
    }
    out += &typed("content_block_stop", ",\"index\":0");
    out += &typed(
        "message_delta",
        ",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":3}",
    );
    out + &typed("message_stop", "")
}

fn responses(pieces: &[&str]) -> String {
    let (mut out, mut number) = (String::new(), 0);
    let mut typed = |name: &str, rest: &str| {
        out += &event(Some(name), &format!("{{\"type\":\"{name}\",\"sequence_number\":{number},{rest}}}"));
        number += 1;
    };
    let text = pieces.concat();
    let part = |text: &str| format!("{{\"type\":\"output_text\",\"text\":\"{text}\",\"annotations\":[]}}");
    let item = |status: &str, content: &str| {
        format!(
            "{{\"id\":\"msg_1\",\"type\":\"message\",\"status\":\"{status}\",\
             \"role\":\"assistant\",\"content\":[{content}]}}"
        )
    };
    let response = |status: &str, output: &str, usage: &str| {
        format!(
            "\"response\":{{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"{status}\",\
             \"output\":[{output}],\"usage\":{usage}}}"
        )
    };
    let place = "\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0";
    typed("response.created", &response("in_progress", "", "null"));
    typed("response.output_item.added", &format!("\"output_index\":0,\"item\":{}", item("in_progress", "")));
    typed("response.content_part.added", &format!("{place},\"part\":{}", part("")));
    for piece in pieces {
        typed("response.output_text.delta", &format!("{place},\"delta\":\"{piece}\""));
    }
    typed("response.output_text.done", &format!("{place},\"text\":\"{text}\""));
    typed("response.content_part.done", &format!("{place},\"part\":{}", part(&text)));
    let done = item("completed", &part(&text));
    typed("response.output_item.done", &format!("\"output_index\":0,\"item\":{done}"));
    let usage = "{\"input_tokens\":7,\"output_tokens\":3,\"total_tokens\":10}";
    typed("response.completed", &response("completed", &done, usage));
    out
}

pub fn datas(stream: &str) -> Vec<Value> {
    let lines = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    let json = lines.filter(|data| *data != "[DONE]");
    json.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))).collect()
}

/// Reads a stream as a strict client would.
pub fn told(dialect: Dialect, stream: &str) -> Told {
    assert!(stream.ends_with("\n\n"), "{stream}");
    let datas = datas(stream);
    match dialect {
        OpenAiChat | OpenAiCompletions => told_chunks(stream, &datas),
        OpenAiResponses => told_responses(&datas),
        _ => told_messages(&datas),
    }
}

fn told_chunks(stream: &str, datas: &[Value]) -> Told {
    assert!(stream.ends_with("data: [DONE]\n\n") && stream.matches("[DONE]").count() == 1, "{stream}");
    let (mut text, mut reason) = (String::new(), None);
    for choice in datas.iter().filter_map(|data| data["choices"].get(0)) {
        let piece = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
            assert!(reason.is_none(), "text behind the finish reason");
            text += piece;
        }
        if let Some(told) = choice["finish_reason"].as_str() {
            assert!(reason.replace(known(told)).is_none(), "a second finish reason");
        }
    }
    Told { text, reason: reason.expect("a finish reason") }
}

fn told_messages(datas: &[Value]) -> Told {
    let (mut text, mut reason, mut open) = (String::new(), None, Vec::new());
    assert_eq!(datas[0]["type"], "message_start");
    assert_eq!(datas.last().expect("events")["type"], "message_stop");
    for data in &datas[1..datas.len() - 1] {
        let index = data["index"].as_u64();
        match data["type"].as_str().expect("a type") {
            "content_block_start" => open.push(index),
            "content_block_delta" => {
                assert!(open.contains(&index), "a delta of a block that is not open");
                text += data["delta"]["text"].as_str().expect("text");
            }
            "content_block_stop" => {
                assert!(open.contains(&index), "{data}");
                open.retain(|at| *at != index);
            }
            "message_delta" => {
                assert!(open.is_empty() && data["usage"]["output_tokens"].is_u64());
                let told = known(data["delta"]["stop_reason"].as_str().expect("a reason"));
                assert!(reason.replace(told).is_none(), "a second stop reason");
            }
            other => panic!("{other} within a message"),
        }
    }
    Told { text, reason: reason.expect("a stop reason") }
}

fn told_responses(datas: &[Value]) -> Told {
    let (mut text, mut dones) = (String::new(), 0);
    for data in datas {
        match data["type"].as_str().expect("a type") {
            "response.output_text.delta" => text += data["delta"].as_str().expect("text"),
            "response.output_text.done" => {
                assert_eq!(data["text"], text.as_str());
                dones += 1;
            }
            "response.content_part.done" => assert_eq!(data["part"]["text"], text.as_str()),
            "response.output_item.done" => assert_eq!(data["item"]["content"][0]["text"], text.as_str()),
            _ => {}
        }
    }
    assert_eq!(dones, 1);
    let (last, calls) = told_whole(OpenAiResponses, &datas.last().expect("events")["response"]);
    let kind = datas.last().expect("events")["type"].as_str().expect("a type");
    assert_eq!(kind, format!("response.{}", last.reason));
    assert_eq!((&last.text, calls), (&text, false));
    last
}

/// How a dialect says that its answer reached a limit of its length.
pub fn reason_of_length(dialect: Dialect) -> &'static str {
    match dialect {
        OpenAiChat | OpenAiCompletions => "length",
        OpenAiResponses => "incomplete",
        _ => "max_tokens",
    }
}

fn known(told: &str) -> &'static str {
    let of =
        |dialect: &Dialect| [reason(*dialect, false), reason(*dialect, true), reason_of_length(*dialect)];
    let mut reasons = DIALECTS.iter().flat_map(of);
    reasons.find(|known| *known == told).unwrap_or_else(|| panic!("the reason {told}"))
}

/// A whole answer, with a tool call where the dialect has them. `text` is escaped.
pub fn whole(dialect: Dialect, text: &str) -> String {
    let (head, rest) = match dialect {
        OpenAiChat => (
            r#"{ "id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":""#,
            concat!(
                r#"","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{}"}}]},"#,
                r#""finish_reason":"stop"}], "usage":{"prompt_tokens":7,"completion_tokens":3}}"#
            ),
        ),
        OpenAiCompletions => (
            r#"{ "id":"c1","choices":[{"index":0,"text":""#,
            r#"","finish_reason":"stop"}], "usage":{"prompt_tokens":7,"completion_tokens":3}}"#,
        ),
        OpenAiResponses => (
            concat!(
                r#"{ "id":"r1","status":"completed","incomplete_details":null,"output":[{"type":"message","#,
                r#""status":"completed","content":[{"type":"output_text","text":""#
            ),
            concat!(
                r#""}]}, {"type":"function_call","arguments":"{}"}],"#,
                r#""usage":{"input_tokens":7,"output_tokens":3}}"#
            ),
        ),
        _ => (
            r#"{ "id":"m1","type":"message","content":[{"type":"text","text":""#,
            concat!(
                r#""}, {"type":"tool_use","id":"t1","name":"f","input":{"a":1}}],"stop_reason":"end_turn","#,
                r#""stop_sequence":null,"usage":{"input_tokens":7,"output_tokens":3}}"#
            ),
        ),
    };
    [head, text, rest].concat()
}

/// What a whole answer says, and whether it asks for a call of a tool. Completions knows none: true there
/// where the text is whole.
pub fn told_whole(dialect: Dialect, body: &Value) -> (Told, bool) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (text, reason, calls) = match dialect {
        OpenAiChat => {
            let choice = &body["choices"][0];
            let calls = choice["message"].get("tool_calls").is_some();
            (choice["message"]["content"].clone(), &choice["finish_reason"], calls)
        }
        OpenAiCompletions => {
            let choice = &body["choices"][0];
            (
                choice["text"].clone(),
                &choice["finish_reason"],
                choice["text"].as_str().is_some_and(|text| text.len() > 40),
            )
        }
        OpenAiResponses => {
            let items = list(&body["output"]);
            assert_eq!(items[0]["status"], body["status"]);
            let reason = body["incomplete_details"].get("reason").cloned().unwrap_or_default();
            let known = match body["status"] == "incomplete" {
                true => [json!("content_filter"), json!("max_output_tokens")].contains(&reason),
                false => reason.is_null(),
            };
            assert!(known, "{body}");
            (items[0]["content"][0]["text"].clone(), &body["status"], items.len() > 1)
        }
        _ => {
            let blocks = list(&body["content"]);
            (blocks[0]["text"].clone(), &body["stop_reason"], blocks.len() > 1)
        }
    };
    let text = text.as_str().expect("text").to_string();
    (Told { text, reason: known(reason.as_str().expect("a reason")) }, calls)
}
