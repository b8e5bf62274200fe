//! Dialects: how each surface asks, answers, and where an answer's text lies.
//!
//! Used by both sides: the mock writes answers, the generator writes requests and finds the text in answers.
//! A dialect is data and four small functions in a file of its own: `request`, `opening`/`delta`/`closing` of
//! a stream,
//! `whole` answer. Text is found without a JSON parser: a record never needs escaping (`record`), so its
//! string ends at the next quote. Spacing is free, since a gateway may write JSON anew.
//! Absent: tools, reasoning, several choices: the suite measures text streams.

mod chat;
mod embeddings;
mod gemini;
mod messages;
mod responses;

use memchr::memmem;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    Chat,
    Responses,
    Messages,
    Embeddings,
    Gemini,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Whole,
    Stream,
}

/// Does a streamed chat request ask for its usage? One that does not leaves that to the gateway, which hides
/// the extra event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    #[default]
    Asked,
    LeftOut,
}

/// What an answer says about itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Eight letters, the stream's name.
    pub id: String,
    pub model: String,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// The caller asked for a usage chunk (chat only).
    pub include_usage: bool,
}

/// How the events that carry text look: `prefix`, text, `suffix`; with `numbered` a running number before the
/// end.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    prefix: String,
    suffix: String,
    /// Written after `suffix` and the event's number; empty where events are not numbered.
    numbered: &'static str,
    first_number: u32,
}

impl Frame {
    /// Appends the event of record `sequence`; `text` appends the text itself.
    pub fn write(&self, sequence: u32, out: &mut Vec<u8>, text: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(self.prefix.as_bytes());
        text(out);
        out.extend_from_slice(self.suffix.as_bytes());
        if !self.numbered.is_empty() {
            out.extend_from_slice((sequence + self.first_number).to_string().as_bytes());
            out.extend_from_slice(self.numbered.as_bytes());
        }
    }
}

impl Dialect {
    pub const ALL: [Self; 5] = [Self::Chat, Self::Responses, Self::Messages, Self::Embeddings, Self::Gemini];

    /// The dialect spoken under `path`, whatever stands before the known end of it.
    pub fn of_path(path: &str) -> Option<(Self, Option<Mode>)> {
        let path = path.split('?').next().unwrap_or(path);
        match () {
            () if path.ends_with("/chat/completions") => Some((Self::Chat, None)),
            () if path.ends_with("/responses") => Some((Self::Responses, None)),
            () if path.ends_with("/messages") => Some((Self::Messages, None)),
            () if path.ends_with("/embeddings") => Some((Self::Embeddings, Some(Mode::Whole))),
            () if path.ends_with(":generateContent") => Some((Self::Gemini, Some(Mode::Whole))),
            () if path.ends_with(":streamGenerateContent") => Some((Self::Gemini, Some(Mode::Stream))),
            () => None,
        }
    }

    /// The path that the vendor's SDK uses, behind the origin.
    pub fn path(self, model: &str, mode: Mode) -> String {
        match (self, mode) {
            (Self::Chat, _) => "/v1/chat/completions".to_owned(),
            (Self::Responses, _) => "/v1/responses".to_owned(),
            (Self::Messages, _) => "/v1/messages".to_owned(),
            (Self::Embeddings, _) => "/v1/embeddings".to_owned(),
            (Self::Gemini, Mode::Whole) => format!("/v1beta/models/{model}:generateContent"),
            (Self::Gemini, Mode::Stream) => format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
        }
    }

    /// The fields by which the vendor's SDK sends its key.
    pub fn key_fields(self, key: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::Messages => {
                vec![("x-api-key", key.to_owned()), ("anthropic-version", "2023-06-01".to_owned())]
            }
            Self::Gemini => vec![("x-goog-api-key", key.to_owned())],
            _ => vec![("authorization", format!("Bearer {key}"))],
        }
    }

    /// A request body. `prompt` and `image` must need no JSON escaping. Only chat has a say about `usage`.
    pub fn request(self, model: &str, mode: Mode, usage: Usage, prompt: &str, image: Option<&str>) -> String {
        match self {
            Self::Chat => chat::request(model, mode, usage, prompt, image),
            Self::Responses => responses::request(model, mode, prompt, image),
            Self::Messages => messages::request(model, mode, prompt, image),
            Self::Embeddings => embeddings::request(model, prompt),
            Self::Gemini => gemini::request(prompt, image),
        }
    }

    /// The events before the first text.
    pub fn opening(self, facts: &Facts) -> Vec<String> {
        match self {
            Self::Chat => chat::opening(facts),
            Self::Responses => responses::opening(facts),
            Self::Messages => messages::opening(facts),
            Self::Embeddings | Self::Gemini => Vec::new(),
        }
    }

    pub fn frame(self, facts: &Facts) -> Frame {
        match self {
            Self::Chat => chat::frame(facts),
            Self::Responses => responses::frame(facts),
            Self::Messages => messages::frame(),
            Self::Embeddings => Frame::default(),
            Self::Gemini => gemini::frame(facts),
        }
    }

    /// The events after the last text; `text` is the whole of it where `repeats_text`.
    pub fn closing(self, facts: &Facts, text: &str, events: u32) -> Vec<String> {
        match self {
            Self::Chat => chat::closing(facts),
            Self::Responses => responses::closing(facts, text, events),
            Self::Messages => messages::closing(facts),
            Self::Embeddings => Vec::new(),
            Self::Gemini => gemini::closing(facts),
        }
    }

    /// Does a stream's closing hold the whole text again?
    pub fn repeats_text(self) -> bool {
        self == Self::Responses
    }

    /// An answer in one piece.
    pub fn whole(self, facts: &Facts, text: &str) -> String {
        match self {
            Self::Chat => chat::whole(facts, text),
            Self::Responses => responses::whole(facts, text),
            Self::Messages => messages::whole(facts, text),
            Self::Embeddings => embeddings::whole(facts),
            Self::Gemini => gemini::whole(facts, text),
        }
    }

    /// An error in the vendor's shape.
    pub fn error(self, status: u16, message: &str) -> String {
        match self {
            Self::Messages => messages::error(status, message),
            Self::Gemini => gemini::error(status, message),
            _ => chat::error(status, message),
        }
    }

    /// Reads one event of a stream.
    pub fn read_event<'a>(self, event: &'a [u8]) -> EventText<'a> {
        match self {
            Self::Chat => chat::read_event(event),
            Self::Responses => responses::read_event(event),
            Self::Messages => messages::read_event(event),
            Self::Embeddings => EventText::Other,
            Self::Gemini => gemini::read_event(event),
        }
    }

    /// The text of an answer in one piece; for embeddings its first vector, unparsed.
    pub fn read_whole(self, body: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Chat => string_at(body, b"\"content\""),
            Self::Responses | Self::Messages | Self::Gemini => string_at(body, b"\"text\""),
            Self::Embeddings => embeddings::vector_at(body),
        }
    }

    /// Is `vector` what the mock answers to `id`? Only for embeddings.
    pub fn is_vector_of(vector: &[u8], id: &str) -> bool {
        embeddings::is_vector_of(vector, id)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum EventText<'a> {
    /// Text as it stands between the quotes, escapes included.
    Text(&'a [u8]),
    /// The dialect's last event.
    End,
    /// Text and the end in one (Gemini).
    TextAndEnd(&'a [u8]),
    /// An error inside the stream.
    Error,
    /// Anything else: roles, usage, pings.
    Other,
}

/// The string value behind `key` (given with its quotes) where it first stands as a key.
pub fn string_at<'a>(json: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    for at in memmem::find_iter(json, key) {
        let rest = json[at + key.len()..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b":") else { continue };
        let Some(rest) = rest.trim_ascii_start().strip_prefix(b"\"") else { continue };
        return string_end(rest).map(|end| &rest[..end]);
    }
    None
}

/// Where a JSON string ends that starts at the front of `text`.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', &text[from..])?;
        if text[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
        if from > text.len() {
            return None;
        }
    }
}

/// The value of a boolean key somewhere in `json`; false where it is absent.
pub fn is_true_at(json: &[u8], key: &[u8]) -> bool {
    memmem::find_iter(json, key).any(|at| {
        let rest = json[at + key.len()..].trim_ascii_start();
        rest.strip_prefix(b":").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"true"))
    })
}

#[cfg(test)]
mod tests;
