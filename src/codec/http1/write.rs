//! Heads and chunk framing as bytes to send, appended to a buffer of the caller.
//!
//! Input: method, target, status, fields, framing. Output: bytes. A head is written whole or not at all:
//! `HeadWriter::finish` takes everything back when any part of it could not be written.
//! What `Content-Length` and `Transfer-Encoding` say comes from `framing` only, so that a field copied from
//! the other side can never contradict it.
//!
//! Errors: `Unwritable`, the caller's: it let a name, value, target or reason through that would break the
//! head.
//! Absent: `Date`; the caller owns the clock and writes it as any other field.
//! Source: RFC 9112 sections 3, 4, 5, 7.1; RFC 9110 section 8.6.

use super::fields::{Known, known};
use super::request::BodyFraming;
use super::response::ResponseFraming;
use super::syntax::{find_control, is_token};
use http::header::{self, HeaderName, HeaderValue};

/// After the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Ends a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Tells a client that waits with its body to send it.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Which part of a head could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable {
    pub what: &'static str,
}

/// Writes one head: start line, fields, framing, `finish`.
#[derive(Debug)]
#[must_use = "a head is complete only after finish"]
pub struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    fault: Option<Unwritable>,
    is_framed: bool,
}

impl<'a> HeadWriter<'a> {
    /// `method SP target SP HTTP/1.1`. The target is in origin-form, or any other form a proxy on the way
    /// needs.
    pub fn request(out: &'a mut Vec<u8>, method: &str, target: &str) -> Self {
        let mut writer = Self::new(out);
        writer.require(is_token(method.as_bytes()), "a method that is not a token");
        let is_target = !target.is_empty() && target.bytes().all(|b| b.is_ascii_graphic());
        writer.require(is_target, "a request target with a character that is not allowed");
        writer.put(&[method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"]);
        writer
    }

    /// `HTTP/1.1 SP status SP reason`. The reason may be empty; `reason_phrase` has the usual ones.
    pub fn response(out: &'a mut Vec<u8>, status: u16, reason: &[u8]) -> Self {
        let mut writer = Self::new(out);
        writer.require((100..1000).contains(&status), "a status outside 100 to 999");
        writer.require(is_clean(reason), "a reason with a control character");
        let mut digits = itoa::Buffer::new();
        writer.put(&[b"HTTP/1.1 ", digits.format(status).as_bytes(), b" ", reason, b"\r\n"]);
        writer
    }

    /// Any field but those of the framing.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        let is_framing = matches!(known(name), Known::ContentLength | Known::TransferEncoding);
        self.require(!is_framing, "a framing field that is not written through framing");
        self.put_field(name, value)
    }

    /// As `field`, for what its types vouch for: it is not looked at again.
    pub fn typed_field(&mut self, name: &HeaderName, value: &HeaderValue) -> &mut Self {
        let is_framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name);
        self.require(!is_framing, "a framing field that is not written through framing");
        self.put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        self
    }

    /// The body's framing, once. `None` and `UntilClose` write nothing; for the latter the caller also says
    /// `Connection: close`. An answer to HEAD may announce a `Length` that no body follows.
    pub fn framing(&mut self, framing: ResponseFraming) -> &mut Self {
        self.require(!self.is_framed, "the framing a second time");
        self.is_framed = true;
        match framing {
            ResponseFraming::Length(length) => {
                self.put_field(b"content-length", itoa::Buffer::new().format(length).as_bytes())
            }
            ResponseFraming::Chunked => self.put_field(b"transfer-encoding", b"chunked"),
            ResponseFraming::None | ResponseFraming::UntilClose => self,
        }
    }

    /// The blank line. On a fault the buffer is as long as before the start line.
    pub fn finish(mut self) -> Result<(), Unwritable> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.put(&[b"\r\n"]);
        self.start = self.out.len();
        Ok(())
    }

    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { start: out.len(), out, fault: None, is_framed: false }
    }

    fn put_field(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        self.require(is_token(name), "a field name that is not a token");
        self.require(is_clean(value), "a field value with a control character");
        self.put(&[name, b": ", value, b"\r\n"]);
        self
    }

    fn require(&mut self, holds: bool, what: &'static str) {
        if !holds && self.fault.is_none() {
            self.fault = Some(Unwritable { what });
        }
    }

    fn put(&mut self, parts: &[&[u8]]) {
        if self.fault.is_none() {
            for part in parts {
                self.out.extend_from_slice(part);
            }
        }
    }
}

impl Drop for HeadWriter<'_> {
    /// What was not finished is taken back, so that no half head stands in the buffer; `finish` moved `start`
    /// behind a whole one.
    fn drop(&mut self) {
        self.out.truncate(self.start);
    }
}

/// The line before a chunk's data, for gathered writes.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkHead {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

/// Size in hex without leading zeros, then CRLF. `None` for zero: that line would end the body.
pub fn chunk_head(data_len: usize) -> Option<ChunkHead> {
    if data_len == 0 {
        return None;
    }
    let mut bytes = *b"0000000000000000\r\n";
    let mut start = 16;
    let mut rest = data_len as u64;
    while rest > 0 {
        start -= 1;
        bytes[start] = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
    Some(ChunkHead { bytes, start: start as u8 })
}

/// Appends the line before `data_len` bytes of chunk data; nothing for zero.
pub fn write_chunk_head(out: &mut Vec<u8>, data_len: usize) {
    if let Some(head) = chunk_head(data_len) {
        out.extend_from_slice(head.as_bytes());
    }
}

/// The registered reason phrase of a status, empty where there is none.
pub fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("")
}

impl From<BodyFraming> for ResponseFraming {
    fn from(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None => Self::None,
            BodyFraming::Length(length) => Self::Length(length),
            BodyFraming::Chunked => Self::Chunked,
        }
    }
}

/// May stand in a field value or a reason (RFC 9110 section 5.5): no CR, LF, NUL or other control but HTAB.
fn is_clean(value: &[u8]) -> bool {
    find_control(value) == value.len()
}

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for Unwritable {}
