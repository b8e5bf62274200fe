//! Dialects: the one place that knows a provider's wire format.
//!
//! A [`Dialect`] answers, from bytes alone: what a request asks for ([`Dialect::peek`]), where the texts of
//! an answer stand ([`Dialect::lanes`]), what an event is ([`Dialect::class`]), what it says of usage
//! ([`Dialect::usage`]), and how an error, a refusal, an ending and a heartbeat are written. Guards, limits,
//! stages and the meter speak of these only, so a new dialect is one file that implements `Wire` and one line
//! in [`Dialect::wire`].
//!
//! Input: the `data` of one server-sent event, or a whole body. What a client sent is checked strictly here;
//! what an upstream sent is not, and is read as far as it can be: unknown members are passed over, null
//! stands for absent, of a document that breaks off nothing is said.
//! Errors: only requests are refused; the caller's fault.
//! Absent: SSE framing (`codec::sse`), money, vendors that merely deviate (a quirk that changes a number is
//! named where it is read), audio, and log probabilities, which repeat a text token by token and are no lane.
//! Source: `../shared/wire/WIRE_FACTS.md`; OpenAI specification 2.3.0, Anthropic SDK types 2.11.0.

mod anthropic;
mod cut;
mod lane;
mod openai_chat;
mod openai_chunk;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;
mod openai_responses_write;
mod peek;
mod skeleton;
mod stream;
mod usage;
mod write;

pub use lane::{Lane, LaneKind, LaneText, Lanes, Part};
pub use peek::{MODEL_LEN_MAX, Peek, UsageInStream};
pub use skeleton::{DOCUMENT_MAX, Hole, HoleKind, Kept, Reach, Skeleton, Texts};
pub use stream::{Closes, Ending, Refusal, ShowUsage, StreamState, TEXTS_MAX};
pub use usage::{Apart, Caching, Provenance, TOKENS_MAX, Usage};

use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::codec::json::{self, Value};
use crate::codec::patch::Patches;
use crate::codec::sse::{self, Framer};

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/v1/chat/completions`
    OpenAiChat,
    /// `/v1/completions`
    OpenAiCompletions,
    /// `/v1/embeddings`
    OpenAiEmbeddings,
    /// `/v1/responses`
    OpenAiResponses,
    /// `/v1/messages`
    Anthropic,
}

/// What an event is. Where several hold, the later in this list wins, but `Content` is the weakest of those
/// that say something: a chunk that carries the last word and the finish reason is `Finish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing of the following.
    Other,
    /// A sign of life.
    Ping,
    /// Carries text of a lane that is not empty.
    Content,
    /// Says that a choice, or the answer, has come to its end, and why.
    Finish,
    /// Carries usage and no choice (`choices: []`): the extra chunk that a client gets who asked for it.
    Usage,
    /// The last event of a complete answer.
    End,
    /// Says that the answer has failed.
    Error,
}

impl Dialect {
    pub const ALL: [Dialect; 5] = [
        Dialect::OpenAiChat,
        Dialect::OpenAiCompletions,
        Dialect::OpenAiEmbeddings,
        Dialect::OpenAiResponses,
        Dialect::Anthropic,
    ];

    fn wire(self) -> &'static dyn Wire {
        match self {
            Dialect::OpenAiChat => &openai_chat::OpenAiChat,
            Dialect::OpenAiCompletions => &openai_completions::OpenAiCompletions,
            Dialect::OpenAiEmbeddings => &openai_embeddings::OpenAiEmbeddings,
            Dialect::OpenAiResponses => &openai_responses::OpenAiResponses,
            Dialect::Anthropic => &anthropic::Anthropic,
        }
    }

    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        self.wire().name()
    }

    /// What the gateway must know of a request. It checks the whole body strictly on the way
    /// (`codec::json::check_fields`); nothing else has to.
    ///
    /// Refused beside what is not JSON, with the field's name: a repeat of a field that is read here or a
    /// spelling of it in another case (to providers written in Go it is the field), a model that is missing,
    /// no string or longer than [`MODEL_LEN_MAX`], a `stream` that is no boolean, a `stream_options` that is
    /// no object.
    pub fn peek(self, body: &[u8]) -> Result<Peek, Error> {
        peek::peek(self.wire().request(), body)
    }

    /// What the event is. `event_name` is the event's type if it names one.
    pub fn class(self, event_name: Option<&[u8]>, data: &[u8]) -> Class {
        if is_done(data) {
            return Class::End;
        }
        let Ok(doc) = json::root(data) else { return Class::Other };
        match self.wire().class(event_name, doc) {
            Class::Other => {
                let mut lanes = Lanes::new();
                self.wire().lanes(event_name, doc, &mut lanes);
                let speaks = lanes.iter().any(|text| text.part == Part::Next && !text.range.is_empty());
                if speaks { Class::Content } else { Class::Other }
            }
            class => class,
        }
    }

    /// Merges what `data` says of usage into `usage`: the last number seen for each member counts.
    pub fn usage(self, data: &[u8], usage: &mut Usage) {
        if let Ok(doc) = json::root(data) {
            self.wire().usage(doc, usage);
        }
    }

    /// Appends the texts of one stream event, in their order.
    pub fn lanes(self, event_name: Option<&[u8]>, data: &[u8], out: &mut Lanes) {
        if let Ok(doc) = json::root(data) {
            self.wire().lanes(event_name, doc, out);
        }
    }

    /// Appends the texts of a whole answer, in their order.
    pub fn lanes_whole(self, body: &[u8], out: &mut Lanes) {
        if let Ok(doc) = json::root(body) {
            self.wire().lanes_whole(doc, out);
        }
    }

    /// [`Dialect::class`] and [`Dialect::usage`] of a document's skeleton; never `Class::Content`, as a
    /// skeleton has no texts.
    pub fn read_skeleton(self, document: &[u8], usage: &mut Usage) -> Class {
        if is_done(document) {
            return Class::End;
        }
        let Ok(doc) = json::root(document) else { return Class::Other };
        self.wire().read(doc, usage)
    }

    /// Which members an answer's skeleton keeps: all that [`Dialect::class`] and [`Dialect::usage`] read.
    pub fn kept(self) -> &'static Kept {
        self.wire().kept()
    }

    /// Appends the HTTP body of an error, in the form from which the dialect's SDKs make their exceptions.
    /// The status is `error.kind.row().status`.
    pub fn error_body(self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        self.wire().error_body(error, id, out);
    }

    /// Appends the events that tell of an error in a stream that has begun, so that the SDKs raise. The
    /// connection is closed after it. A `StreamState` that has observed nothing will do: the error stands for
    /// itself then, numbered as [`StreamState::after`] says.
    pub fn stream_error(self, error: &Error, id: &RequestId, state: &StreamState, out: &mut Vec<u8>) {
        self.wire().stream_error(error, id, state, out);
    }

    /// Appends the events that end a stream before the provider does, so that the SDKs end normally: what is
    /// open is closed, the reason given, the dialect's own end written.
    ///
    /// `usage`: what to show. None leaves it out where the client did not ask for it; Anthropic always shows
    /// a number of tokens, 0 then. Responses repeats all texts at its end; where they were more than
    /// [`TEXTS_MAX`], the repeats are left out. A stream whose first event was not observed has no id here.
    pub fn ending(self, ending: Ending, state: &StreamState, usage: Option<&Usage>, out: &mut Vec<u8>) {
        self.wire().ending(ending, state, usage, out);
    }

    /// Patches an event that a stream is to end with before the provider wants it: where it tells the
    /// provider's reason, it tells the ending's. [`Dialect::ending`] follows it.
    pub fn end_event(self, ending: Ending, event_name: Option<&[u8]>, data: &[u8], out: &mut Patches) {
        if let Ok(doc) = json::root(data) {
            self.wire().end_event(ending, event_name, doc, out);
        }
    }

    /// Patches a whole answer that is to end before the provider ended it: the reason of every choice is the
    /// ending's, tool calls are taken out.
    pub fn end_whole(self, ending: Ending, body: &[u8], out: &mut Patches) {
        if let Ok(doc) = json::root(body) {
            self.wire().end_whole(ending, doc, out);
            self.wire().cut_calls(doc, out);
        }
    }

    /// Patches a whole answer: tool calls are taken out.
    pub fn cut_calls(self, body: &[u8], out: &mut Patches) {
        if let Ok(doc) = json::root(body) {
            self.wire().cut_calls(doc, out);
        }
    }

    /// Appends the event that carries `text` on a lane, and observes it. False, and nothing is appended,
    /// where the lane's item is not open: held text has to be given out before what [`Dialect::closes`] it.
    pub fn delta(self, lane: Lane, text: &str, state: &mut StreamState, out: &mut Vec<u8>) -> bool {
        let mut escaped = Vec::with_capacity(text.len());
        json::escape(text.as_bytes(), &mut escaped);
        let from = out.len();
        let written = self.wire().delta(lane, &escaped, state, out);
        self.observe(state, &out[from..]);
        written
    }

    /// Which lanes the event ends.
    pub fn closes(self, event_name: Option<&[u8]>, data: &[u8]) -> Closes {
        if is_done(data) {
            return Closes::All;
        }
        json::root(data).map_or(Closes::Nothing, |doc| self.wire().closes(event_name, doc))
    }

    /// Appends a whole answer that refuses by policy; returns its HTTP status. Embeddings cannot refuse:
    /// there it is an error.
    pub fn refusal(self, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> u16 {
        self.wire().refusal(refusal, out)
    }

    /// Appends a whole stream that refuses by policy. Nothing for embeddings, which have no streams.
    pub fn refusal_stream(self, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        self.wire().refusal_stream(refusal, out);
    }

    /// Appends a sign of life that no SDK reports to its user. It may stand between events only.
    pub fn heartbeat(self, out: &mut Vec<u8>) {
        self.wire().heartbeat(out);
    }

    /// Learns from whole events, as the client gets them.
    pub fn observe(self, state: &mut StreamState, events: &[u8]) {
        self.wire().observe_all(state, events);
    }
}

/// Whether `data` is the line that ends the streams of OpenAI's older dialects.
pub fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

/// What a dialect's file says. `doc` is the outermost value of an event's data or of a body, not yet walked.
trait Wire: Sync {
    fn name(&self) -> &'static str;
    fn request(&self) -> &'static peek::RequestFields;
    fn kept(&self) -> &'static Kept;
    /// Never `Content`, and the same for a document and its skeleton.
    fn class(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Class;
    fn usage(&self, doc: Value<'_>, usage: &mut Usage);
    /// Both, of an event without a name.
    fn read(&self, doc: Value<'_>, usage: &mut Usage) -> Class {
        self.usage(doc, usage);
        self.class(None, doc)
    }
    fn lanes(&self, event_name: Option<&[u8]>, doc: Value<'_>, out: &mut Lanes);
    fn lanes_whole(&self, doc: Value<'_>, out: &mut Lanes);
    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>);
    fn stream_error(&self, error: &Error, id: &RequestId, state: &StreamState, out: &mut Vec<u8>);
    fn ending(&self, ending: Ending, state: &StreamState, usage: Option<&Usage>, out: &mut Vec<u8>);
    fn end_event(&self, ending: Ending, event_name: Option<&[u8]>, doc: Value<'_>, out: &mut Patches);
    fn end_whole(&self, ending: Ending, doc: Value<'_>, out: &mut Patches);
    fn cut_calls(&self, doc: Value<'_>, out: &mut Patches);
    /// `text` is escaped.
    fn delta(&self, lane: Lane, text: &[u8], state: &StreamState, out: &mut Vec<u8>) -> bool;
    fn closes(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Closes;
    fn observe(&self, state: &mut StreamState, event_name: Option<&[u8]>, doc: Value<'_>);
    fn refusal(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> u16;
    fn refusal_stream(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>);

    fn observe_all(&self, state: &mut StreamState, events: &[u8]) {
        let (mut framer, mut joined, mut rest) = (Framer::new(), Vec::new(), events);
        while let Some(end) = framer.end_of_event(rest) {
            let event = sse::Event::parse(&rest[..end], &mut joined);
            if let Ok(doc) = json::root(event.data.bytes()) {
                self.observe(state, event.name, doc);
            }
            rest = &rest[end..];
        }
    }

    fn heartbeat(&self, out: &mut Vec<u8>) {
        sse::write_comment(out, b"heartbeat");
    }
}

#[cfg(test)]
mod tests;
