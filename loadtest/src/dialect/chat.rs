//! OpenAI Chat Completions.
//!
//! Source: OpenAI API reference, "Create chat completion" and "The chat completion chunk object", seen
//! 2026-11.

use super::{EventText, Facts, Frame, Mode, Usage, string_at};

const CREATED: u64 = 1_760_000_000;

pub fn request(model: &str, mode: Mode, usage: Usage, prompt: &str, image: Option<&str>) -> String {
    let content = match image {
        None => format!("\"{prompt}\""),
        Some(data) => format!(
            r#"[{{"type":"text","text":"{prompt}"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]"#
        ),
    };
    let stream = match (mode, usage) {
        (Mode::Whole, _) => "",
        (Mode::Stream, Usage::Asked) => r#","stream":true,"stream_options":{"include_usage":true}"#,
        (Mode::Stream, Usage::LeftOut) => r#","stream":true"#,
    };
    format!(
        r#"{{"model":"{model}","messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":{content}}}],"max_completion_tokens":512,"temperature":0.7{stream}}}"#
    )
}

fn chunk(facts: &Facts, delta: &str, finish: &str) -> String {
    let Facts { id, model, .. } = facts;
    format!(
        "data: {{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion.chunk\",\"created\":{CREATED},\
         \"model\":\"{model}\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

pub fn opening(facts: &Facts) -> Vec<String> {
    vec![chunk(facts, r#"{"role":"assistant","content":"","refusal":null}"#, "null")]
}

pub fn frame(facts: &Facts) -> Frame {
    const MARK: &str = "\u{1}";
    let event = chunk(facts, &format!("{{\"content\":\"{MARK}\"}}"), "null");
    let (prefix, suffix) = event.split_once(MARK).unwrap_or(("", ""));
    Frame { prefix: prefix.to_owned(), suffix: suffix.to_owned(), ..Frame::default() }
}

pub fn closing(facts: &Facts) -> Vec<String> {
    let mut events = vec![chunk(facts, "{}", "\"stop\"")];
    if facts.include_usage {
        let Facts { id, model, .. } = facts;
        events.push(format!(
            "data: {{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion.chunk\",\"created\":{CREATED},\
             \"model\":\"{model}\",\"choices\":[],\"usage\":{}}}\n\n",
            usage(facts)
        ));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

pub fn whole(facts: &Facts, text: &str) -> String {
    let Facts { id, model, .. } = facts;
    format!(
        r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":{CREATED},"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"finish_reason":"stop"}}],"usage":{}}}"#,
        usage(facts)
    )
}

fn usage(facts: &Facts) -> String {
    let Facts { prompt_tokens, completion_tokens, .. } = facts;
    let total = prompt_tokens + completion_tokens;
    format!(
        r#"{{"prompt_tokens":{prompt_tokens},"completion_tokens":{completion_tokens},"total_tokens":{total}}}"#
    )
}

pub fn error(status: u16, message: &str) -> String {
    let kind = match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    format!(r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":null}}}}"#)
}

pub fn read_event(event: &[u8]) -> EventText<'_> {
    match string_at(event, b"\"content\"") {
        Some([]) => EventText::Other,
        Some(text) => EventText::Text(text),
        None if event.trim_ascii_end().ends_with(b"[DONE]") => EventText::End,
        None if memchr::memmem::find(event, b"\"error\"").is_some() => EventText::Error,
        None => EventText::Other,
    }
}
