//! The strict check: simd-json's tape over a private copy, because its parser writes into what it reads.

use super::{DEPTH_MAX, Defect};
use simd_json::{Buffers, Error, ErrorType, INPUT_PADDING, Tape};

/// A document up to this long leaves its buffers for the next; a longer one gives them back.
const KEPT_BODY_MAX: usize = 256 * 1024;

/// A tape up to this many nodes (24 bytes each) is kept.
const KEPT_NODES_MAX: usize = 32 * 1024;

/// Buffers of [`check`], reused from document to document: no allocation once they are warm.
///
/// Keeps at most about 2 MB: what a document of more than `KEPT_BODY_MAX` needed is given back after it.
pub struct Scratch {
    input: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { input: Vec::new(), buffers: Buffers::with_max_depth(0, DEPTH_MAX), tape: Tape(Vec::new()) }
    }
}

/// Whether `body` is one JSON document and nothing else, in UTF-8 without a byte-order mark.
///
/// Refused beyond the grammar: half a surrogate pair, numbers beyond an `f64`, more than [`DEPTH_MAX`] open brackets.
/// Repeated keys pass: [`fields`](super::fields) refuses those that matter.
pub fn check(body: &[u8], scratch: &mut Scratch) -> Result<(), Defect> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(Defect::at(0, "a byte-order mark; JSON begins without one"));
    }
    scratch.input.clear();
    scratch.input.reserve(body.len() + INPUT_PADDING);
    scratch.input.extend_from_slice(body);
    scratch.input.resize(body.len() + INPUT_PADDING, b' ');
    let mut tape = std::mem::replace(&mut scratch.tape, Tape(Vec::new())).reset();
    let filled = simd_json::fill_tape_padded(&mut scratch.input, body.len(), &mut scratch.buffers, &mut tape);
    scratch.tape = tape.reset();
    if body.len() > KEPT_BODY_MAX || scratch.tape.0.capacity() > KEPT_NODES_MAX {
        *scratch = Scratch::default();
    }
    filled.map_err(|error| defect(body, &error))
}

fn defect(body: &[u8], error: &Error) -> Defect {
    if let Err(error) = std::str::from_utf8(body) {
        return Defect::at(error.valid_up_to(), "a byte that is not UTF-8");
    }
    let what = match error.error() {
        ErrorType::DepthLimitExceeded => "more than 128 brackets are open",
        ErrorType::InputTooLarge => "a document of more than 4 GB",
        ErrorType::Eof | ErrorType::UnterminatedString => "the document ends inside a value",
        ErrorType::InvalidEscape => "a backslash before something that is not one of \"\\/bfnrtu",
        ErrorType::InvalidUnicodeEscape | ErrorType::InvalidUnicodeCodepoint => {
            "a \\u escape that is no character (four hexadecimal digits, surrogates in pairs)"
        }
        ErrorType::InvalidNumber | ErrorType::InvalidExponent => {
            "not a JSON number, or one beyond a 64-bit float"
        }
        ErrorType::TrailingData => "bytes after the document's end; only white space may follow",
        _ => "not JSON",
    };
    let offset = Some(error.index()).filter(|&index| index > 0 && index <= body.len());
    Defect { offset, what }
}
