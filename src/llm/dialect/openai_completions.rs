//! OpenAI Completions, the older text dialect: `choices[].text`, in streams and in whole answers.
//!
//! Its chunks end, fail and count like those of Chat: `openai_chunk`. Absent: log probabilities.

use super::lane::{Lane, LaneKind, Lanes, Part, index};
use super::openai_chunk::{
    Form, NOTHING_USED, Which, chunk_class, chunk_closes, chunk_head, chunk_read, chunk_usage,
    each_unfinished, end_choices, error_body, finish_reason, head, observe_chunk, refusing_state,
    stream_error, usage_and_done, usage_members,
};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::stream::{Closes, Ending, Refusal, ShowUsage, StreamState};
use super::write::{event, object};
use super::{Class, Usage, Wire};
use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::codec::json::{self, Value};
use crate::codec::patch::Patches;

pub(super) struct OpenAiCompletions;

impl Wire for OpenAiCompletions {
    fn name(&self) -> &'static str {
        "openai_completions"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields {
            streaming: Streaming::UsageOnDemand,
            output_max: ["max_tokens", "max_completion_tokens"],
            cap: Some("max_tokens"),
            choices: Some("n"),
        }
    }

    fn kept(&self) -> &'static Kept {
        const TEXTS: Texts = Texts { names: &["text"], reach: Reach::Opened };
        &Kept {
            into: &["choices", "x_groq"],
            keep: &["usage", "error", "object", "finish_reason"],
            texts_in_event: TEXTS,
            texts_in_whole: TEXTS,
            loose: &["id", "created", "system_fingerprint", "obfuscation"],
        }
    }

    fn class(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Class {
        chunk_class(event_name, doc)
    }

    fn usage(&self, doc: Value<'_>, usage: &mut Usage) {
        chunk_usage(doc, usage);
    }

    fn read(&self, doc: Value<'_>, usage: &mut Usage) -> Class {
        chunk_read(doc, usage)
    }

    fn lanes(&self, _: Option<&[u8]>, doc: Value<'_>, out: &mut Lanes) {
        let Some(choices) = doc.get("choices") else { return };
        for (at, choice) in choices.elements().map_while(Result::ok).enumerate() {
            let lane = Lane::new(index(choice.get("index"), at), 0, LaneKind::Text);
            lane.text(Part::Next, choice.get("text"), out);
        }
    }

    fn lanes_whole(&self, doc: Value<'_>, out: &mut Lanes) {
        self.lanes(None, doc, out);
    }

    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        error_body(error, id, out);
    }

    fn stream_error(&self, error: &Error, id: &RequestId, _: &StreamState, out: &mut Vec<u8>) {
        stream_error(error, id, out);
    }

    fn ending(&self, ending: Ending, state: &StreamState, usage: Option<&Usage>, out: &mut Vec<u8>) {
        each_unfinished(state, |index| chunk(state, index, b"", Some(finish_reason(ending)), out));
        usage_and_done(Form::Completions, state, usage, out);
    }

    fn end_event(&self, ending: Ending, _: Option<&[u8]>, doc: Value<'_>, out: &mut Patches) {
        end_choices(ending, doc, Which::Finished, out);
    }

    fn end_whole(&self, ending: Ending, doc: Value<'_>, out: &mut Patches) {
        end_choices(ending, doc, Which::All, out);
    }

    fn cut_calls(&self, _: Value<'_>, _: &mut Patches) {}

    fn delta(&self, lane: Lane, text: &[u8], state: &StreamState, out: &mut Vec<u8>) -> bool {
        let finished = state.choices.iter().any(|choice| choice.index == lane.choice && choice.finished);
        if finished || lane.kind != LaneKind::Text {
            return false;
        }
        chunk(state, lane.choice, text, None, out);
        true
    }

    fn closes(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Closes {
        chunk_closes(event_name, doc)
    }

    fn observe(&self, state: &mut StreamState, _: Option<&[u8]>, doc: Value<'_>) {
        observe_chunk(state, doc);
    }

    /// The dialect has no field for a refusal: it is the text, with the reason `content_filter`.
    fn refusal(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> u16 {
        object(out, |answer| {
            head(answer, "cmpl", "text_completion", refusal);
            answer.list_of_one("choices", |choice| {
                choice.text("text", refusal.text).number("index", 0);
                choice.null("logprobs").text("finish_reason", "content_filter");
            });
            answer.object("usage", |usage| usage_members(&NOTHING_USED, usage));
        });
        200
    }

    fn refusal_stream(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        let state = refusing_state("cmpl", refusal);
        let mut text = Vec::new();
        json::escape(refusal.text.as_bytes(), &mut text);
        chunk(&state, 0, &text, None, out);
        let used = (refusal.usage == ShowUsage::Asked).then_some(&NOTHING_USED);
        self.ending(Ending::ContentFilter, &state, used, out);
    }
}

/// One chunk of one choice; `text` is escaped.
fn chunk(state: &StreamState, choice: u32, text: &[u8], reason: Option<&str>, out: &mut Vec<u8>) {
    event(out, None, |chunk| {
        chunk_head(Form::Completions, state, chunk);
        chunk.list_of_one("choices", |member| {
            member.escaped("text", text).number("index", choice.into()).null("logprobs");
            match reason {
                Some(reason) => member.text("finish_reason", reason),
                None => member.null("finish_reason"),
            };
        });
    });
}
