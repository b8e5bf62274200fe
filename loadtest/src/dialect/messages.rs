//! Anthropic Messages.
//!
//! Source: Anthropic API reference, "Messages" and "Streaming messages", seen 2026-11.

use super::{EventText, Facts, Frame, Mode, string_at};

pub fn request(model: &str, mode: Mode, prompt: &str, image: Option<&str>) -> String {
    let content = match image {
        None => format!("\"{prompt}\""),
        Some(data) => format!(
            r#"[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{data}"}}}},{{"type":"text","text":"{prompt}"}}]"#
        ),
    };
    let stream = if mode == Mode::Stream { r#","stream":true"# } else { "" };
    format!(
        r#"{{"model":"{model}","max_tokens":512,"system":"You are a helpful assistant.","messages":[{{"role":"user","content":{content}}}]{stream}}}"#
    )
}

pub fn opening(facts: &Facts) -> Vec<String> {
    let Facts { id, model, prompt_tokens, .. } = facts;
    vec![
        format!(
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_{id}\",\
             \"type\":\"message\",\"role\":\"assistant\",\"model\":\"{model}\",\"content\":[],\"stop_reason\":null,\
             \"stop_sequence\":null,\"usage\":{{\"input_tokens\":{prompt_tokens},\"output_tokens\":1}}}}}}\n\n"
        ),
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
         \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
            .to_owned(),
        "event: ping\ndata: {\"type\": \"ping\"}\n\n".to_owned(),
    ]
}

pub fn frame() -> Frame {
    Frame {
        prefix: "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
                 \"delta\":{\"type\":\"text_delta\",\"text\":\""
            .to_owned(),
        suffix: "\"}}\n\n".to_owned(),
        ..Frame::default()
    }
}

pub fn closing(facts: &Facts) -> Vec<String> {
    let Facts { completion_tokens, .. } = facts;
    vec![
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n".to_owned(),
        format!(
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\",\
             \"stop_sequence\":null}},\"usage\":{{\"output_tokens\":{completion_tokens}}}}}\n\n"
        ),
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_owned(),
    ]
}

pub fn whole(facts: &Facts, text: &str) -> String {
    let Facts { id, model, prompt_tokens, completion_tokens, .. } = facts;
    format!(
        r#"{{"id":"msg_{id}","type":"message","role":"assistant","model":"{model}","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":{prompt_tokens},"output_tokens":{completion_tokens}}}}}"#
    )
}

pub fn error(status: u16, message: &str) -> String {
    let kind = match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}"#)
}

pub fn read_event(event: &[u8]) -> EventText<'_> {
    match string_at(event, b"\"text\"") {
        Some([]) => return EventText::Other,
        Some(text) => return EventText::Text(text),
        None => {}
    }
    match string_at(event, b"\"type\"") {
        Some(b"message_stop") => EventText::End,
        Some(b"error") => EventText::Error,
        _ => EventText::Other,
    }
}
