//! OpenAI Chat Completions, as OpenAI and some forty other vendors speak it.
//!
//! Stream: chunks with `choices[].delta`, an extra chunk with usage and no choices if asked for, `[DONE]`.
//! Reasoning has no field of OpenAI's own; read are `reasoning_content` (DeepSeek, xAI, llama.cpp),
//! `reasoning` (Groq, Ollama, vLLM), OpenRouter's `reasoning_details`, which repeat `reasoning`, and
//! Mistral's content lists.
//! Absent: audio, log probabilities, the ids and names of tool calls. A server that gives all parallel calls
//! the index 0 (older vLLM) has them in one lane.

use super::cut::cut_members;
use super::lane::{Lane, LaneKind, Lanes, Part, index};
use super::openai_chunk::{
    Form, NOTHING_USED, Which, chunk_class, chunk_closes, chunk_head, chunk_read, chunk_usage,
    each_unfinished, end_choices, error_body, finish_reason, head, observe_chunk, refusing_state,
    stream_error, usage_and_done, usage_members,
};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::stream::{Closes, Ending, Refusal, ShowUsage, StreamState};
use super::write::{Object, event, object};
use super::{Class, Usage, Wire};
use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::codec::json::{Kind, Value};
use crate::codec::patch::Patches;

pub(super) struct OpenAiChat;

impl Wire for OpenAiChat {
    fn name(&self) -> &'static str {
        "openai_chat"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields {
            streaming: Streaming::UsageOnDemand,
            output_max: ["max_completion_tokens", "max_tokens"],
            cap: Some("max_tokens"),
            choices: Some("n"),
        }
    }

    fn kept(&self) -> &'static Kept {
        // "text" is for Mistral's content lists; OpenRouter's reasoning_details are counted twice by it.
        const TEXTS: Texts = Texts {
            names: &["content", "reasoning_content", "reasoning", "refusal", "arguments", "text"],
            reach: Reach::Anywhere,
        };
        &Kept {
            into: &["choices", "x_groq"],
            keep: &["usage", "error", "object", "finish_reason"],
            texts_in_event: TEXTS,
            texts_in_whole: TEXTS,
            loose: &["id", "created", "system_fingerprint", "obfuscation", "p"],
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
        choices(doc, "delta", out);
    }

    fn lanes_whole(&self, doc: Value<'_>, out: &mut Lanes) {
        choices(doc, "message", out);
    }

    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        error_body(error, id, out);
    }

    fn stream_error(&self, error: &Error, id: &RequestId, _: &StreamState, out: &mut Vec<u8>) {
        stream_error(error, id, out);
    }

    fn ending(&self, ending: Ending, state: &StreamState, usage: Option<&Usage>, out: &mut Vec<u8>) {
        let reason = finish_reason(ending);
        each_unfinished(state, |index| {
            chunk(state, index, Some(reason), out, |delta| {
                if state.choices.is_empty() {
                    delta.text("role", "assistant").text("content", "");
                }
            });
        });
        usage_and_done(Form::Chat, state, usage, out);
    }

    fn end_event(&self, ending: Ending, _: Option<&[u8]>, doc: Value<'_>, out: &mut Patches) {
        end_choices(ending, doc, Which::Finished, out);
    }

    fn end_whole(&self, ending: Ending, doc: Value<'_>, out: &mut Patches) {
        end_choices(ending, doc, Which::All, out);
    }

    fn cut_calls(&self, doc: Value<'_>, out: &mut Patches) {
        let choices =
            doc.get("choices").into_iter().flat_map(|choices| choices.elements().map_while(Result::ok));
        for message in choices.filter_map(|choice| choice.get("message")) {
            cut_members(message, &["tool_calls", "function_call"], out);
        }
    }

    fn delta(&self, lane: Lane, text: &[u8], state: &StreamState, out: &mut Vec<u8>) -> bool {
        let choice = state.choices.iter().find(|choice| choice.index == lane.choice);
        if choice.is_some_and(|choice| choice.finished) {
            return false;
        }
        chunk(state, lane.choice, None, out, |delta| {
            if choice.is_none() {
                delta.text("role", "assistant");
            }
            match lane.kind {
                LaneKind::Text => delta.escaped("content", text),
                LaneKind::Reasoning => {
                    delta.escaped(state.reasoning_name.unwrap_or("reasoning_content"), text)
                }
                LaneKind::Refusal => delta.escaped("refusal", text),
                LaneKind::ToolArguments => delta.list_of_one("tool_calls", |call| {
                    call.number("index", lane.item.into());
                    call.object("function", |function| {
                        function.escaped("arguments", text);
                    });
                }),
            };
        });
        true
    }

    fn closes(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Closes {
        chunk_closes(event_name, doc)
    }

    fn observe(&self, state: &mut StreamState, _: Option<&[u8]>, doc: Value<'_>) {
        observe_chunk(state, doc);
        let choices =
            doc.get("choices").into_iter().flat_map(|choices| choices.elements().map_while(Result::ok));
        for delta in choices.filter_map(|choice| choice.get("delta")) {
            for name in ["reasoning_content", "reasoning"] {
                if state.reasoning_name.is_none()
                    && delta.get(name).is_some_and(|text| text.kind == Kind::String)
                {
                    state.reasoning_name = Some(name);
                }
            }
        }
    }

    fn refusal(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> u16 {
        object(out, |answer| {
            head(answer, "chatcmpl", "chat.completion", refusal);
            answer.list_of_one("choices", |choice| {
                choice.number("index", 0);
                choice.object("message", |message| {
                    message.text("role", "assistant").null("content").text("refusal", refusal.text);
                });
                choice.null("logprobs").text("finish_reason", "stop");
            });
            answer.object("usage", |usage| usage_members(&NOTHING_USED, usage));
        });
        200
    }

    fn refusal_stream(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        let state = refusing_state("chatcmpl", refusal);
        chunk(&state, 0, None, out, |delta| {
            delta.text("role", "assistant").null("content").text("refusal", "");
        });
        chunk(&state, 0, None, out, |delta| {
            delta.text("refusal", refusal.text);
        });
        let used = (refusal.usage == ShowUsage::Asked).then_some(&NOTHING_USED);
        self.ending(Ending::Stop, &state, used, out);
    }
}

fn choices(doc: Value<'_>, message: &str, out: &mut Lanes) {
    let Some(choices) = doc.get("choices") else { return };
    for (at, choice) in choices.elements().map_while(Result::ok).enumerate() {
        let choice_index = index(choice.get("index"), at);
        if let Some(message) = choice.get(message) {
            message_lanes(choice_index, message, out);
        }
    }
}

fn message_lanes(choice: u32, message: Value<'_>, out: &mut Lanes) {
    let lane = |kind| Lane::new(choice, 0, kind);
    let mut reasoning = Part::Next;
    for member in message.members().map_while(Result::ok) {
        let value = Some(member.value);
        let is = |name| member.key.is(name);
        if is("content") {
            match member.value.kind {
                Kind::Array => content_list(choice, member.value, out),
                _ => lane(LaneKind::Text).text(Part::Next, value, out),
            }
        } else if is("refusal") {
            lane(LaneKind::Refusal).text(Part::Next, value, out);
        } else if is("reasoning_content") || is("reasoning") {
            // Some servers say both, for old clients and new.
            let before = out.len();
            lane(LaneKind::Reasoning).text(reasoning, value, out);
            if out.len() > before {
                reasoning = Part::Echo;
            }
        } else if is("reasoning_details") {
            for detail in member.value.elements().map_while(Result::ok) {
                let texts = [detail.get("text"), detail.get("summary")];
                texts.into_iter().for_each(|text| lane(LaneKind::Reasoning).text(reasoning, text, out));
            }
        } else if is("tool_calls") {
            for (at, call) in member.value.elements().map_while(Result::ok).enumerate() {
                let item = index(call.get("index"), at);
                let arguments = call.path(&["function", "arguments"]);
                Lane::new(choice, item, LaneKind::ToolArguments).text(Part::Next, arguments, out);
            }
        } else if is("function_call") {
            let arguments = member.value.get("arguments");
            lane(LaneKind::ToolArguments).text(Part::Next, arguments, out);
        }
    }
}

/// Mistral: `[{"type":"thinking","thinking":[{"type":"text","text":"…"}]},{"type":"text","text":"…"}]`.
fn content_list(choice: u32, list: Value<'_>, out: &mut Lanes) {
    for part in list.elements().map_while(Result::ok) {
        Lane::new(choice, 0, LaneKind::Text).text(Part::Next, part.get("text"), out);
        let Some(thinking) = part.get("thinking") else { continue };
        let lane = Lane::new(choice, 0, LaneKind::Reasoning);
        lane.text(Part::Next, Some(thinking), out);
        if thinking.kind == Kind::Array {
            let pieces = thinking.elements().map_while(Result::ok);
            pieces.for_each(|piece| lane.text(Part::Next, piece.get("text"), out));
        }
    }
}

/// One chunk of one choice.
fn chunk(
    state: &StreamState,
    choice: u32,
    reason: Option<&str>,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Object<'_>),
) {
    event(out, None, |chunk| {
        chunk_head(Form::Chat, state, chunk);
        chunk.list_of_one("choices", |member| {
            member.number("index", choice.into()).object("delta", fill).null("logprobs");
            match reason {
                Some(reason) => member.text("finish_reason", reason),
                None => member.null("finish_reason"),
            };
        });
    });
}
