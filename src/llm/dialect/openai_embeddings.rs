//! OpenAI Embeddings: no stream, no lanes, usage without output.

use super::lane::{Lane, Lanes};
use super::openai_chunk::{chunk_class, chunk_read, chunk_usage, error_body, stream_error};
use super::peek::{RequestFields, Streaming};
use super::skeleton::{Kept, Reach, Texts};
use super::stream::{Closes, Ending, Refusal, StreamState};
use super::{Class, Usage, Wire};
use crate::base::error::{Error, Kind as ErrorKind};
use crate::base::id::RequestId;
use crate::codec::json::Value;
use crate::codec::patch::Patches;

pub(super) struct OpenAiEmbeddings;

impl Wire for OpenAiEmbeddings {
    fn name(&self) -> &'static str {
        "openai_embeddings"
    }

    fn request(&self) -> &'static RequestFields {
        &RequestFields { streaming: Streaming::Never, output_max: ["model"; 2], cap: None, choices: None }
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

    fn read(&self, doc: Value<'_>, usage: &mut Usage) -> Class {
        chunk_read(doc, usage)
    }

    fn lanes(&self, _: Option<&[u8]>, _: Value<'_>, _: &mut Lanes) {}

    fn lanes_whole(&self, _: Value<'_>, _: &mut Lanes) {}

    fn error_body(&self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        error_body(error, id, out);
    }

    fn stream_error(&self, error: &Error, id: &RequestId, _: &StreamState, out: &mut Vec<u8>) {
        stream_error(error, id, out);
    }

    fn ending(&self, _: Ending, _: &StreamState, _: Option<&Usage>, _: &mut Vec<u8>) {}

    fn end_event(&self, _: Ending, _: Option<&[u8]>, _: Value<'_>, _: &mut Patches) {}

    fn end_whole(&self, _: Ending, _: Value<'_>, _: &mut Patches) {}

    fn cut_calls(&self, _: Value<'_>, _: &mut Patches) {}

    fn delta(&self, _: Lane, _: &[u8], _: &StreamState, _: &mut Vec<u8>) -> bool {
        false
    }

    fn closes(&self, _: Option<&[u8]>, _: Value<'_>) -> Closes {
        Closes::Nothing
    }

    fn observe(&self, _: &mut StreamState, _: Option<&[u8]>, _: Value<'_>) {}

    fn refusal(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> u16 {
        let error = Error::new(ErrorKind::Refused, refusal.text.to_string());
        error_body(&error, refusal.id, out);
        error.kind.row().status
    }

    fn refusal_stream(&self, _: &Refusal<'_>, _: &mut Vec<u8>) {}
}
