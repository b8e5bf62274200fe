//! The built-in provider (kind `mock`): answers every surface without a network, the same for the same
//! request.
//!
//! For trying the gateway out, for examples and tests. It says a fixed text about the request, calls the
//! first tool where tools are offered and none has answered yet, counts tokens as a quarter of the bytes, and
//! streams word by word at the pace of a real model. It keeps nothing: what it needs to give a response again
//! stands in the response's id (`responses`). Limits: the request's own output limit. Errors: an unknown path
//! is 404 in the dialect of OpenAI. Absent: understanding anything.

mod chat;
mod embeddings;
mod messages;
mod responses;
mod tools;

use crate::net::page::{Page, Slice};
use crate::net::runtime;
use http::Method;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// From the request to the first event, between events, and before a whole answer.
const FIRST_AFTER: Duration = Duration::from_millis(120);
const WORD_EVERY: Duration = Duration::from_millis(25);
const WHOLE_AFTER: Duration = Duration::from_millis(200);

/// The head of an answer.
pub struct Head {
    pub status: u16,
    pub content_type: &'static str,
    /// Length of the body; none for a stream.
    pub len: Option<u64>,
}

/// The body of an answer, as it comes.
pub struct Answer {
    parts: VecDeque<Part>,
}

struct Part {
    after: Duration,
    bytes: Vec<u8>,
}

/// Answers a request for `target` (path and query).
pub fn answer(method: &Method, target: &str, body: &[u8]) -> (Head, Answer) {
    let path = target.split('?').next().unwrap_or_default();
    if let Some(rest) = path.strip_prefix("/v1/responses/") {
        return responses::stored(method, rest).map_or_else(
            || refused("response_not_found", "the built-in provider has no such response"),
            |body| whole(200, &body),
        );
    }
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_stream = request["stream"].as_bool().unwrap_or(false);
    let asked = Asked::of(&request);
    let said = match path {
        "/v1/chat/completions" => chat::answer(&asked, is_stream),
        "/v1/completions" => chat::completion(&asked, is_stream),
        "/v1/responses" => responses::answer(&asked, is_stream),
        "/v1/messages" => messages::answer(&asked, is_stream),
        "/v1/messages/count_tokens" => Said::Whole(serde_json::json!({ "input_tokens": asked.input_tokens })),
        "/v1/embeddings" => Said::Whole(embeddings::answer(&asked)),
        _ => return refused("unknown_path", &format!("the built-in provider has nothing under {path}")),
    };
    match said {
        Said::Whole(body) => whole(200, &body),
        Said::Events(events) => {
            let parts = events
                .into_iter()
                .enumerate()
                .map(|(at, bytes)| Part { after: if at == 0 { FIRST_AFTER } else { WORD_EVERY }, bytes });
            let head = Head { status: 200, content_type: "text/event-stream; charset=utf-8", len: None };
            (head, Answer { parts: parts.collect() })
        }
    }
}

impl Answer {
    /// The next part; none at the end. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Slice> {
        let after = self.parts.front()?.after;
        runtime::sleep(after).await;
        let part = self.parts.pop_front()?;
        let mut page = Page::with_room(part.bytes.len());
        page.append(&part.bytes);
        Some(page.slice(0..part.bytes.len()))
    }
}

/// What a dialect made of the request.
enum Said {
    Whole(Value),
    Events(Vec<Vec<u8>>),
}

/// What is read of a request, whichever dialect it is in.
struct Asked<'r> {
    request: &'r Value,
    model: &'r str,
    input_tokens: u64,
    /// The most words to say.
    words_max: Option<u64>,
    /// The text to say, word by word, each with the space before it.
    words: Vec<String>,
    /// The output limit cut the text.
    is_cut: bool,
    /// A tool to call instead: name and arguments.
    tool: Option<(String, Value)>,
    /// The same number for the same request.
    fingerprint: u64,
}

impl<'r> Asked<'r> {
    fn of(request: &'r Value) -> Asked<'r> {
        let model = request["model"].as_str().unwrap_or("mock");
        let parts = ["system", "instructions", "messages", "input", "prompt", "tools"];
        let input_bytes: usize =
            parts.iter().filter_map(|name| request.get(name)).map(|part| part.to_string().len()).sum();
        let input_tokens = (input_bytes as u64 / 4).max(1);
        let limits = ["max_completion_tokens", "max_output_tokens", "max_tokens"];
        let limit = limits.iter().find_map(|name| request[name].as_u64());
        let asked = Asked::again(model, input_tokens, limit, fingerprint(request));
        Asked { request, tool: tools::to_call(request), ..asked }
    }

    /// What was asked, from what decides the answer; no tool.
    fn again(model: &'r str, input_tokens: u64, words_max: Option<u64>, fingerprint: u64) -> Asked<'r> {
        let text = format!(
            "This is the provider that is built into Tollgate. It was asked for the model {model} and received about \
             {input_tokens} tokens. It understands nothing, but it streams like a real one."
        );
        let spoken = text.split_whitespace().enumerate();
        let mut words: Vec<String> =
            spoken.map(|(at, word)| if at == 0 { word.to_owned() } else { format!(" {word}") }).collect();
        let most = usize::try_from(words_max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let is_cut = words.len() > most;
        words.truncate(most);
        Asked {
            request: &Value::Null,
            model,
            input_tokens,
            words_max,
            words,
            is_cut,
            tool: None,
            fingerprint,
        }
    }

    fn text(&self) -> String {
        self.words.concat()
    }

    fn output_tokens(&self) -> u64 {
        match &self.tool {
            Some((name, arguments)) => (name.len() + arguments.to_string().len()) as u64 / 4 + 1,
            None => self.words.len() as u64,
        }
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}", self.fingerprint)
    }
}

fn fingerprint(request: &Value) -> u64 {
    request
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn refused(code: &str, message: &str) -> (Head, Answer) {
    let error = serde_json::json!({ "message": message, "type": "invalid_request_error", "code": code });
    whole(404, &serde_json::json!({ "error": error }))
}

fn whole(status: u16, body: &Value) -> (Head, Answer) {
    let bytes = body.to_string().into_bytes();
    let head = Head { status, content_type: "application/json", len: Some(bytes.len() as u64) };
    (head, Answer { parts: VecDeque::from([Part { after: WHOLE_AFTER, bytes }]) })
}

/// One event with a JSON document.
fn event(name: Option<&str>, data: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    crate::codec::sse::write_event(&mut out, name, data.to_string().as_bytes());
    out
}

/// The time that answers carry: fixed, so that they are the same each time.
const CREATED_S: u64 = 1_767_225_600;

#[cfg(test)]
mod tests;
