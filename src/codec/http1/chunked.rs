//! The chunked transfer coding, decoded piece by piece: data is handed out as it arrives, inside a chunk too.
//!
//! Input: body bytes in pieces of any size. Output: ranges of data within the piece. Nothing is buffered: all
//! that is kept between pieces is a state and some counters, so framing may be cut anywhere.
//!
//! ```text
//! Size -> [Extension ..] -> SizeLf -> Data -> DataCr -> DataLf -> Size
//!                              \ size 0
//!                               -> TrailerStart -> TrailerName -> TrailerValue -> TrailerLf -> TrailerStart
//!                                        \ CR -> EndLf -> Done
//! ```
//!
//! Limits: `CHUNK_LINE_BYTES_MAX`, `EXTENSION_BYTES_MAX`, `TRAILERS_MAX`, `TRAILER_BYTES_MAX`; a size has at
//! most 16 digits, leading zeros included, and is at most 2^63 - 1.
//! Extensions and trailers are checked against their grammar, bounded and dropped: a gateway that passes them
//! on lets a peer write into the other side's framing.
//! Errors: `ChunkError`; the body cannot be followed any further, every later call gives the error again.
//! Absent: trailers as values; whitespace between size and CRLF (the grammar has it only before `;`).
//! Source: RFC 9112 section 7.1, RFC 9110 section 5.6.

use super::syntax::{is_control, is_tchar};
use std::ops::Range;

/// A chunk line: size and extensions, without CRLF.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Extensions of one body together.
pub const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Trailer lines of one body.
pub const TRAILERS_MAX: usize = 32;
/// The trailer section of one body, CRLFs included.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;

const SIZE_DIGITS_MAX: usize = 16;

/// What is next in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Body data, never empty. The input is used up to the range's end; go on from there.
    Data(Range<usize>),
    /// All of the input is used up.
    NeedMore,
    /// The body has ended; bytes from `consumed` on belong to the next message.
    End { consumed: usize },
}

/// The framing is broken. Whose fault it is depends on the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkError {
    pub what: &'static str,
}

/// Decodes one body.
#[derive(Clone, Debug, Default)]
pub struct ChunkDecoder {
    state: State,
    /// Size of the chunk while its line is read, then what is left of its data.
    remaining: u64,
    /// Of the current line.
    line_bytes: usize,
    digits: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(&'static str),
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )` (RFC 9112 section 7.1.1). A part is named after what was
/// read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// Whitespace after which only `;` may come.
    Gap,
    Semicolon,
    Name,
    NameGap,
    Equals,
    Value,
    Quoted,
    Backslash,
    QuoteEnd,
}

impl ChunkDecoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// What comes next in `input`, which starts where the last answer left off.
    pub fn next(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok(Chunk::End { consumed: at }),
                State::Failed(what) => return Err(ChunkError { what }),
                State::Data if at < input.len() => {
                    let available = input.len() - at;
                    let taken = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(available);
                    self.remaining -= taken as u64;
                    if self.remaining == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Chunk::Data(at..at + taken));
                }
                _ => {}
            }
            let Some(&byte) = input.get(at) else { return Ok(Chunk::NeedMore) };
            at += 1;
            self.state = self.step(byte).unwrap_or_else(State::Failed);
        }
    }

    /// Whether the body has ended. A connection that ends before has cut the body.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Data bytes that the current chunk still owes; zero between chunks.
    pub fn chunk_remaining(&self) -> u64 {
        if self.state == State::Data { self.remaining } else { 0 }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Size, _) => self.size(byte),
            (State::Extension(part), _) => self.extension(part, byte),
            (State::SizeLf, b'\n') => Ok(self.size_line_end()),
            (State::SizeLf, _) => Err("a bare CR in a chunk line"),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::DataCr | State::DataLf, _) => Err("chunk data that is not followed by CRLF"),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerLf, b'\n') => self.count_trailer_byte(State::TrailerStart),
            (State::EndLf | State::TrailerLf, _) => Err("a bare CR in a trailer section"),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => self.trailer(byte),
            (State::Data | State::Done | State::Failed(_), _) => Ok(self.state),
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, &'static str> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if self.digits == 0 => return Err("a chunk line without a size"),
            b'\r' => return Ok(State::SizeLf),
            b';' => return self.count_extension_byte(Extension::Semicolon),
            b' ' | b'\t' => return self.count_extension_byte(Extension::Gap),
            b'\n' => return Err("a bare LF in a chunk line"),
            _ => return Err("a chunk size that is not hexadecimal"),
        };
        self.digits += 1;
        self.line_bytes += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err("a chunk size of more than 16 digits");
        }
        // Sixteen digits fill 64 bits exactly.
        self.remaining = self.remaining << 4 | u64::from(digit);
        if self.remaining > i64::MAX as u64 {
            return Err("a chunk size over 2^63 - 1");
        }
        Ok(State::Size)
    }

    fn extension(&mut self, part: Extension, byte: u8) -> Result<State, &'static str> {
        use Extension::{Backslash, Equals, Gap, Name, NameGap, QuoteEnd, Quoted, Semicolon, Value};
        let is_gap = byte == b' ' || byte == b'\t';
        let next = match (part, byte) {
            (Name | Value | QuoteEnd, b'\r') => return Ok(State::SizeLf),
            (Quoted | Backslash, b) if is_control(b) => {
                return Err("a control character in a chunk extension");
            }
            (Quoted, b'"') => QuoteEnd,
            (Quoted, b'\\') => Backslash,
            (Quoted | Backslash, _) => Quoted,
            (Gap | Name | NameGap | Value | QuoteEnd, b';') => Semicolon,
            (Name | NameGap, b'=') => Equals,
            (Equals, b'"') => Quoted,
            (Semicolon | Name, b) if is_tchar(b) => Name,
            (Equals | Value, b) if is_tchar(b) => Value,
            (Gap | Value | QuoteEnd, _) if is_gap => Gap,
            (Name | NameGap, _) if is_gap => NameGap,
            (Semicolon | Equals, _) if is_gap => part,
            (_, b'\n') => return Err("a bare LF in a chunk line"),
            _ => return Err("a malformed chunk extension"),
        };
        self.count_extension_byte(next)
    }

    fn count_extension_byte(&mut self, next: Extension) -> Result<State, &'static str> {
        self.line_bytes += 1;
        self.extension_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err("a chunk line of more than 256 bytes");
        }
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err("more than 16 KiB of chunk extensions");
        }
        Ok(State::Extension(next))
    }

    fn size_line_end(&mut self) -> State {
        self.digits = 0;
        self.line_bytes = 0;
        if self.remaining == 0 { State::TrailerStart } else { State::Data }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, &'static str> {
        let next = match (self.state, byte) {
            (State::TrailerStart, b'\r') => return Ok(State::EndLf),
            (State::TrailerStart, b) if is_tchar(b) => {
                self.trailers += 1;
                if self.trailers > TRAILERS_MAX {
                    return Err("more than 32 trailer fields");
                }
                State::TrailerName
            }
            (State::TrailerStart, b' ' | b'\t') => return Err("a folded line in a trailer section"),
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerName, b) if is_tchar(b) => State::TrailerName,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (_, b'\n') => return Err("a bare LF in a trailer section"),
            (State::TrailerValue, b) if !is_control(b) => State::TrailerValue,
            (State::TrailerValue, _) => return Err("a control character in a trailer section"),
            _ => return Err("a malformed trailer field"),
        };
        self.count_trailer_byte(next)
    }

    fn count_trailer_byte(&mut self, next: State) -> Result<State, &'static str> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err("a trailer section of more than 8 KiB");
        }
        Ok(next)
    }
}

impl std::fmt::Display for ChunkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for ChunkError {}
