//! Line ends of a head: CRLF only, found in one pass however the bytes trickle in.
//!
//! Input: all bytes of the head so far. Output: ranges of whole lines without their CRLF.
//! Errors: a bare CR or LF, NUL, or any control character but HTAB inside a line. RFC 9112 section 2.2 lets a
//! recipient accept a bare LF; two parsers that differ there see different messages, so it is refused.

use super::syntax::find_control;
use std::ops::Range;

/// Where the search stands. Bytes before `checked` are never looked at again.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    start: usize,
    checked: usize,
}

impl Lines {
    /// Offset of the line that is being read.
    pub(super) fn line_start(&self) -> usize {
        self.start
    }

    /// The next whole line, or `None` until more bytes are there. `bytes` only ever grows at its end.
    // Always: left to itself, the release build calls this and `field_line` once a line, a fifth of a scan.
    #[inline(always)]
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Option<Range<usize>>, &'static str> {
        let Some(unseen) = bytes.get(self.checked..) else { return Ok(None) };
        let at = self.checked + find_control(unseen);
        self.checked = at;
        match bytes.get(at..) {
            None | Some([]) | Some([b'\r']) => Ok(None),
            Some([b'\r', b'\n', ..]) => {
                let line = self.start..at;
                self.start = at + 2;
                self.checked = self.start;
                Ok(Some(line))
            }
            Some(&[byte, ..]) => Err(refusal(byte)),
        }
    }
}

/// Why the line cannot go on with this control character.
#[cold]
fn refusal(byte: u8) -> &'static str {
    match byte {
        b'\r' => "a bare CR in the head; lines end with CRLF",
        b'\n' => "a bare LF in the head; lines end with CRLF",
        0 => "NUL in the head",
        _ => "a control character in the head",
    }
}
