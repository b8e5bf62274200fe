//! OpenAI Embeddings: no stream, no lanes, usage without output.

use super::lane::Lanes;
use super::openai_completions::{chunk_class, chunk_usage};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::{Class, Usage, Wire, openai_chat};
use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::codec::json::Value;

pub(super) struct OpenAiEmbeddings;

impl Wire for OpenAiEmbeddings {
    fn name(&self) -> &'static str {
        "openai_embeddings"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields { streaming: Streaming::Never, output_max: ["model"; 2], choices: None }
    }

    fn kept(&self) -> &'static Kept {
        const NONE: Texts = Texts { names: &[], reach: Reach::Opened };
        &Kept {
            into: &[],
            keep: &["usage", "error", "object"],
            texts_in_event: NONE,
            texts_in_whole: NONE,
            loose: &[],
        }
    }

    fn class(&self, event_name: Option<&[u8]>, doc: Value<'_>) -> Class {
        chunk_class(event_name, doc)
    }

    fn usage(&self, doc: Value<'_>, usage: &mut Usage) {
        chunk_usage(doc, usage);
    }

    fn lanes(&self, _: Option<&[u8]>, _: Value<'_>, _: &mut Lanes) {}

    fn lanes_whole(&self, _: Value<'_>, _: &mut Lanes) {}

    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        openai_chat::error_body(error, id, out);
    }
}
