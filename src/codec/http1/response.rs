//! Response heads from an upstream that may lie: status, field ranges and body framing, without a header map.
//!
//! Input: the bytes of a connection after a request was sent, as often as more of them arrive. Output: one
//! `ResponseHead` after another: interim ones (1xx), then the final one. Ranges count from the head's first
//! byte.
//!
//! Limits: `HeadLimits`; `INTERIM_HEADS_MAX` interim heads before the final one.
//! Errors: `BadResponse`, always the upstream's fault: a 502 and a closed upstream connection.
//!
//! Where RFC 9112 leaves a choice:
//! - Transfer-Encoding beside Content-Length is refused. Section 6.3 lets the former win but says that it
//!   "ought to be handled as an error"; an upstream that sends both may have been desynchronised already.
//! - Content-Length repeated, as lines or as a list, with one and the same value counts once (RFC 9110
//!   section 8.6): every reading of it gives that number, and layered servers do send it twice. Different
//!   values are refused.
//! - Transfer-Encoding must be `chunked`, once. Section 6.3 would read another coding until close, which
//!   hands out bytes that nobody can decode. In HTTP/1.0 it is refused (section 6.1: faulty framing).
//! - Whitespace before a colon is removed (section 5.1, a MUST for proxies), obs-fold is refused (section
//!   5.2).
//! - A status line without the space before an empty reason is taken; many servers send it.
//!
//! Absent: HTTP/0.9 answers, ICY, empty lines before the status line.
//! Source: RFC 9112 sections 4 to 6 and 9; RFC 9110 sections 7.8, 8.6, 15.

use super::HeadLimits;
use super::fields::{
    BeforeColon, Codings, Fault, FieldLine, Known, codings, content_length, field_line, is_lookalike, known,
};
use super::hop::ConnectionOptions;
use super::lines::Lines;
use super::syntax::members;
use http::Version;
use smallvec::SmallVec;
use std::ops::Range;

/// Interim responses before the final one. Servers send one or two (100, 103).
pub const INTERIM_HEADS_MAX: usize = 16;

/// What is wrong with an upstream's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse {
    pub what: &'static str,
}

/// What the request was, as far as the answer's framing depends on it (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Any request whose answer may have a body.
    Body,
    /// HEAD: the answer never has a body.
    Head,
    /// With `Upgrade`: only then may a 101 come.
    Upgrade,
    /// CONNECT to a proxy on the way: a 2xx opens a tunnel and has no body.
    Connect,
}

/// How long the response's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    None,
    Length(u64),
    Chunked,
    /// The end of the connection is the end of the body, and cannot be told from a cut.
    UntilClose,
}

/// Name and value of a field line, as ranges from the head's first byte; the value is trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Range<u32>,
    pub value: Range<u32>,
}

/// A response head that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Bytes of the head with its blank line; the body, or the next head, starts there.
    pub len: usize,
    pub version: Version,
    /// 100 to 999. RFC 9110 section 15 has a client treat 600 and above as a server error.
    pub status: u16,
    pub reason: Range<u32>,
    pub fields: SmallVec<[Field; 32]>,
    pub framing: ResponseFraming,
    /// As sent. Differs from `framing` for HEAD and 304, where it tells the length of a body that does not
    /// come.
    pub content_length: Option<u64>,
    /// Whether the connection can carry another exchange once this body has ended.
    pub keep_alive: bool,
    pub connection: ConnectionOptions,
    /// The protocol of a 101.
    pub upgrade: Option<Range<u32>>,
}

impl ResponseHead {
    /// 100 to 199 but 101: another head follows.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Value of the first field of that name, in any case. `bytes` are those that were scanned.
    pub fn field<'a>(&self, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.fields(bytes)
            .find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Names and values in order.
    pub fn fields<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter().map(|field| (slice(bytes, &field.name), slice(bytes, &field.value)))
    }
}

/// Scans the heads of one exchange; a new exchange needs a new scan.
#[derive(Clone, Debug)]
pub struct ResponseScan {
    asked: Asked,
    interim_heads: usize,
    lines: Lines,
    stage: Stage,
    head: Partial,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Start,
    Fields,
    Refused(BadResponse),
}

/// The head as far as it is known.
#[derive(Clone, Debug, Default)]
struct Partial {
    is_http10: bool,
    status: u16,
    reason: Range<u32>,
    fields: SmallVec<[Field; 32]>,
    content_length: Option<u64>,
    chunked: bool,
    connection: ConnectionOptions,
    upgrade: Option<Range<u32>>,
}

impl ResponseScan {
    pub fn new(asked: Asked) -> Self {
        Self {
            asked,
            interim_heads: 0,
            lines: Lines::default(),
            stage: Stage::Start,
            head: Partial::default(),
        }
    }

    /// Looks at the bytes that are new since the last call. `bytes_so_far` starts at the head's first byte
    /// and only grows; after an interim head the next one starts `ResponseHead::len` bytes further.
    pub fn advance(
        &mut self,
        bytes_so_far: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<ResponseHead>, BadResponse> {
        let advanced = self.scan(bytes_so_far, &limits.capped());
        if let Err(bad) = advanced {
            self.stage = Stage::Refused(bad);
        }
        advanced
    }

    fn scan(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<ResponseHead>, BadResponse> {
        // As for requests: the verdict must not depend on how much has arrived.
        let view = &bytes[..bytes.len().min(limits.head_bytes_max)];
        if let Stage::Refused(bad) = self.stage {
            return Err(bad);
        }
        // What is no status line is refused at once, not when its line ends.
        if matches!(self.stage, Stage::Start) && !b"HTTP/1.".starts_with(&view[..view.len().min(7)]) {
            return Err(bad("no status line"));
        }
        while let Some(line) = self.lines.next(view).map_err(bad)? {
            match self.stage {
                Stage::Start => {
                    self.head.status_line(&view[line])?;
                    self.stage = Stage::Fields;
                }
                Stage::Fields if !line.is_empty() => self.head.field(view, line, limits)?,
                _ => return self.finish().map(Some),
            }
        }
        if view.len() == limits.head_bytes_max {
            return Err(bad("a response head over the limit"));
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<ResponseHead, BadResponse> {
        let len = self.lines.line_start();
        let head = std::mem::take(&mut self.head);
        self.lines = Lines::default();
        self.stage = Stage::Start;
        if (100..200).contains(&head.status) {
            self.interim_heads += 1;
            if self.interim_heads > INTERIM_HEADS_MAX {
                return Err(bad("more than 16 interim responses"));
            }
        }
        head.finish(len, self.asked)
    }
}

impl Partial {
    /// `HTTP-version SP 3DIGIT [SP reason]` (RFC 9112 section 4).
    fn status_line(&mut self, line: &[u8]) -> Result<(), BadResponse> {
        let (version, rest) = line.split_at_checked(8).ok_or(bad("no status line"))?;
        self.is_http10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(bad("a status line that does not start with HTTP/1.1 or HTTP/1.0")),
        };
        let [b' ', a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..] = rest else {
            return Err(bad("a status that is not three digits"));
        };
        if !matches!(reason, [] | [b' ', ..]) {
            return Err(bad("a status that is not three digits"));
        }
        self.status = [a, b, c].iter().fold(0, |status, &&digit| status * 10 + u16::from(digit - b'0'));
        if self.status < 100 {
            return Err(bad("a status below 100"));
        }
        let reason_start = line.len() - reason.len() + usize::from(!reason.is_empty());
        self.reason = range(0, reason_start..line.len());
        Ok(())
    }

    fn field(&mut self, view: &[u8], line: Range<usize>, limits: &HeadLimits) -> Result<(), BadResponse> {
        if self.fields.len() >= limits.fields_max {
            return Err(bad("too many header fields"));
        }
        let start = line.start;
        let line = &view[line];
        let FieldLine { name, value, underscore } =
            field_line(line, limits.name_bytes_max, BeforeColon::Remove)?;
        self.fields.push(Field { name: range(start, name.clone()), value: range(start, value.clone()) });
        let (name, text) = (&line[name], &line[value.clone()]);
        if underscore && is_lookalike(name) {
            return Err(bad("a field name with an underscore that looks like a standard one"));
        }
        match known(name) {
            Known::ContentLength => self.content_length(text),
            Known::TransferEncoding => self.transfer_encoding(text),
            Known::Connection => self.connection.add(text).map_err(bad),
            Known::Upgrade => {
                self.upgrade = Some(range(start, value));
                Ok(())
            }
            Known::Host | Known::Expect | Known::Other => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), BadResponse> {
        for member in members(value) {
            let length = content_length(member).map_err(bad)?;
            if self.content_length.is_some_and(|earlier| earlier != length) {
                return Err(bad("different Content-Lengths"));
            }
            self.content_length = Some(length);
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), BadResponse> {
        if self.chunked {
            return Err(bad("more than one Transfer-Encoding"));
        }
        if codings(value) != Codings::Chunked {
            return Err(bad("a transfer coding other than chunked"));
        }
        self.chunked = true;
        Ok(())
    }

    /// Decides the framing (RFC 9112 section 6.3) and whether the connection survives it (section 9.3).
    fn finish(self, len: usize, asked: Asked) -> Result<ResponseHead, BadResponse> {
        if self.chunked && self.content_length.is_some() {
            return Err(bad("Transfer-Encoding beside Content-Length"));
        }
        if self.chunked && self.is_http10 {
            return Err(bad("Transfer-Encoding in HTTP/1.0"));
        }
        let announces_body = self.chunked || self.content_length.is_some_and(|length| length > 0);
        let has_no_body = match self.status {
            101 => {
                if asked != Asked::Upgrade || self.upgrade.is_none() || !self.connection.upgrade {
                    return Err(bad("101 without being asked to switch protocols"));
                }
                true
            }
            100..=199 if announces_body => return Err(bad("an interim response with a body")),
            100..=199 | 204 | 304 => true,
            200..=299 => matches!(asked, Asked::Head | Asked::Connect),
            _ => asked == Asked::Head,
        };
        let framing = match self.content_length {
            _ if has_no_body => ResponseFraming::None,
            _ if self.chunked => ResponseFraming::Chunked,
            Some(length) => ResponseFraming::Length(length),
            None => ResponseFraming::UntilClose,
        };
        let version = if self.is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        // A 204 that announces a body may well send it, and those bytes would start the next answer.
        let is_reusable = framing != ResponseFraming::UntilClose && !(self.status == 204 && announces_body);
        Ok(ResponseHead {
            len,
            version,
            status: self.status,
            reason: self.reason,
            fields: self.fields,
            framing,
            content_length: self.content_length,
            keep_alive: is_reusable && self.connection.keeps_alive(version),
            upgrade: self.upgrade.filter(|_| self.status == 101),
            connection: self.connection,
        })
    }
}

/// A range within a line that starts at `start`, counted from the head's first byte. `capped` limits keep it
/// in `u32`.
fn range(start: usize, within: Range<usize>) -> Range<u32> {
    (start + within.start) as u32..(start + within.end) as u32
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
}

fn bad(what: &'static str) -> BadResponse {
    BadResponse { what }
}

impl From<Fault> for BadResponse {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Syntax(what) | Fault::TooLarge(what) => bad(what),
        }
    }
}

impl std::fmt::Display for BadResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for BadResponse {}
