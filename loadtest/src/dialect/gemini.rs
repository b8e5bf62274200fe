//! Gemini `generateContent` and `streamGenerateContent` (server-sent events).
//!
//! A stream has no end mark of its own: its last event carries a finish reason.
//! Source: Gemini API reference, "Generating content", seen 2026-11.

use super::{EventText, Facts, Frame, string_at};

pub fn request(prompt: &str, image: Option<&str>) -> String {
    let image = image.map_or(String::new(), |data| {
        format!(r#",{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}"#)
    });
    format!(
        r#"{{"contents":[{{"role":"user","parts":[{{"text":"{prompt}"}}{image}]}}],"generationConfig":{{"maxOutputTokens":512}}}}"#
    )
}

fn answer(facts: &Facts, text: &str, finish: &str) -> String {
    let Facts { id, model, prompt_tokens, completion_tokens, .. } = facts;
    let total = prompt_tokens + completion_tokens;
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}}{finish},"index":0}}],"usageMetadata":{{"promptTokenCount":{prompt_tokens},"candidatesTokenCount":{completion_tokens},"totalTokenCount":{total}}},"modelVersion":"{model}","responseId":"{id}"}}"#
    )
}

pub fn frame(facts: &Facts) -> Frame {
    const MARK: &str = "\u{1}";
    let event = format!("data: {}\r\n\r\n", answer(facts, MARK, ""));
    let (prefix, suffix) = event.split_once(MARK).unwrap_or(("", ""));
    Frame { prefix: prefix.to_owned(), suffix: suffix.to_owned(), ..Frame::default() }
}

pub fn closing(facts: &Facts) -> Vec<String> {
    vec![format!("data: {}\r\n\r\n", answer(facts, "", r#","finishReason":"STOP""#))]
}

pub fn whole(facts: &Facts, text: &str) -> String {
    answer(facts, text, r#","finishReason":"STOP""#)
}

pub fn error(status: u16, message: &str) -> String {
    let name = match status {
        401 => "UNAUTHENTICATED",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    format!(r#"{{"error":{{"code":{status},"message":"{message}","status":"{name}"}}}}"#)
}

pub fn read_event(event: &[u8]) -> EventText<'_> {
    let is_last = string_at(event, b"\"finishReason\"").is_some();
    match (string_at(event, b"\"text\""), is_last) {
        (Some(text), true) if !text.is_empty() => EventText::TextAndEnd(text),
        (_, true) => EventText::End,
        (Some(text), false) if !text.is_empty() => EventText::Text(text),
        _ if memchr::memmem::find(event, b"\"error\"").is_some() => EventText::Error,
        _ => EventText::Other,
    }
}
