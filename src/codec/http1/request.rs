//! Request heads: a strict scan that decides framing, then monoio-http's decoder for the `http` types.
//!
//! Input: the bytes of a connection from the first byte of a message on, as often as more of them arrive.
//! Output: the head's length, then a `RequestHead` with `BodyFraming`.
//!
//! ```text
//!   Start --request line--> Fields --blank line--> Done(head length) --decode--> Start
//!     \______any refusal_____/        (kept: asking again gives the same refusal)
//! ```
//!
//! The scan looks at each byte once however the head trickles in, and its verdict does not depend on where
//! the reads were cut. The decoder sees only what passed the scan, as one buffer: none of the holes that
//! monoio-http 0.3.12 has (bare LF, a panic for a long name, framing by the first of several fields) can be
//! reached. Its errors are dropped at once: cloning most of them recurses without end.
//!
//! Limits: `HeadLimits`, `EMPTY_LINES_MAX`, `METHOD_BYTES_MAX`.
//! Errors: `Refusal`, always the client's fault, with the status to answer before closing.
//! Refused although RFC 9112 lets a server accept it: bare LF, obs-fold, a repeated Content-Length even if
//! equal (section 6.3), Transfer-Encoding beside Content-Length or in HTTP/1.0 (section 6.1), dot segments in
//! the path.
//! Absent: CONNECT and `*` (not a forward proxy), user information in targets, other transfer codings (501).
//! Source: RFC 9112 sections 2, 3, 5, 6, 9; RFC 9110 sections 7.2, 7.8, 10.1.1.

use super::HeadLimits;
use super::fields::{
    BeforeColon, Codings, Fault, FieldLine, Known, codings, content_length, field_line, is_lookalike, known,
};
use super::hop::ConnectionOptions;
use super::lines::Lines;
use super::syntax::{CLASS, DOT, HOST, TARGET, is_class, is_tchar};
use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::RequestHeadDecoder;
use std::fmt;
use std::num::NonZeroU32;

/// Empty lines skipped before a request line (RFC 9112 section 2.2 asks for at least one).
pub const EMPTY_LINES_MAX: usize = 8;
/// Longest method name; the longest in IANA's registry has 17 bytes.
pub const METHOD_BYTES_MAX: usize = 24;

/// Why a request is not taken, and the status to answer with. The connection closes after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub what: &'static str,
    /// The bound that was passed, where there is one that the config or `HeadLimits` sets.
    pub limit: Option<NonZeroU32>,
}

/// How long the request's body is (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    None,
    /// Zero where the client said so.
    Length(u64),
    Chunked,
}

/// A request head that passed every check.
pub struct RequestHead {
    pub method: Method,
    /// Origin-form or absolute-form; see `authority` and `path_and_query`.
    pub uri: Uri,
    pub version: Version,
    /// As received, hop-by-hop fields included (`is_hop_by_hop`).
    pub headers: HeaderMap,
    pub framing: BodyFraming,
    /// Whether the client lets the connection stay open after this exchange.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body. False where there is no body to wait
    /// for.
    pub expect_continue: bool,
    pub connection: ConnectionOptions,
    /// The protocols of `Upgrade`, where `Connection` names it too and the version is 1.1 (RFC 9110 section
    /// 7.8). A wish: bytes are a tunnel's only after a 101.
    pub upgrade: Option<HeaderValue>,
}

impl fmt::Debug for RequestHead {
    /// Names of fields only: their values, and a query, may hold the caller's key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        write!(f, "RequestHead({} {} {:?}, fields {names:?})", self.method, self.uri.path(), self.framing)
    }
}

impl RequestHead {
    /// Host and port that the request is for: the target's in absolute-form, which overrides Host
    /// (RFC 9112 section 3.2.2), else Host's. `None` for HTTP/1.0 without Host.
    pub fn authority(&self) -> Option<&str> {
        if let Some(authority) = self.uri.authority() {
            return Some(authority.as_str());
        }
        self.headers.get(http::header::HOST).and_then(|host| host.to_str().ok())
    }

    /// The target in origin-form, at least `/`.
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |target| target.as_str())
    }
}

/// Scans one head at a time; after `decode` it is ready for the next message.
#[derive(Clone, Debug, Default)]
pub struct RequestScan {
    lines: Lines,
    stage: Stage,
    facts: Facts,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Start,
    Fields,
    Done {
        head_len: usize,
    },
    Refused(Refusal),
}

/// What the scan has learnt of the message so far.
#[derive(Clone, Debug, Default)]
struct Facts {
    empty_lines: usize,
    /// Where the request line starts, behind the empty lines.
    start: usize,
    is_http10: bool,
    fields: usize,
    has_host: bool,
    content_length: Option<u64>,
    chunked: bool,
    expect_continue: bool,
    connection: ConnectionOptions,
}

impl RequestScan {
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the bytes that are new since the last call. `bytes_so_far` starts at the first byte of the
    /// message and only grows. Returns the length of the head, blank line and skipped empty lines included,
    /// once it is whole.
    pub fn advance(&mut self, bytes_so_far: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        let advanced = self.scan(bytes_so_far, &limits.capped());
        if let Err(refusal) = advanced {
            self.stage = Stage::Refused(refusal);
        }
        advanced
    }

    /// Decodes the head that `advance` found whole, from the same bytes, and starts over for the next
    /// message.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<RequestHead, Refusal> {
        let Stage::Done { head_len } = self.stage else {
            return Err(bad("the request head is not complete"));
        };
        let facts = std::mem::take(self).facts;
        let head = bytes.get(facts.start..head_len).ok_or(bad("the request head is not complete"))?;
        let mut buffer = BytesMut::from(head);
        // Not `?` on the decoder's error: it is dropped here and never cloned.
        let Ok(Decoded::Some(parts)) = RequestHeadDecoder.decode(&mut buffer) else {
            return Err(bad("a request head that cannot be decoded"));
        };
        Ok(facts.into_head(parts))
    }

    fn scan(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        // The verdict must not depend on how much has arrived, so nothing beyond the limit is looked at.
        let view = &bytes[..bytes.len().min(limits.head_bytes_max)];
        loop {
            match self.stage {
                Stage::Refused(refusal) => return Err(refusal),
                Stage::Done { head_len } => return Ok(Some(head_len)),
                Stage::Start => {
                    let line_max = METHOD_BYTES_MAX + limits.target_bytes_max + " HTTP/1.1 ".len() + 2;
                    let start = self.lines.line_start();
                    let window = &view[..view.len().min(start + line_max)];
                    let Some(line) = self.lines.next(window).map_err(bad)? else {
                        if window.len() == start + line_max {
                            return Err(overlong_line(&window[start..], limits.target_bytes_max));
                        }
                        break;
                    };
                    self.start_line(start, &view[line], limits)?;
                }
                Stage::Fields => {
                    let Some(line) = self.lines.next(view).map_err(bad)? else { break };
                    if line.is_empty() {
                        self.facts.check()?;
                        self.stage = Stage::Done { head_len: self.lines.line_start() };
                    } else {
                        self.facts.field(&view[line], limits)?;
                    }
                }
            }
        }
        if view.len() == limits.head_bytes_max {
            return Err(over(431, "a request head of too many bytes", limits.head_bytes_max));
        }
        Ok(None)
    }

    fn start_line(&mut self, start: usize, line: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
        if line.is_empty() {
            self.facts.empty_lines += 1;
            if self.facts.empty_lines > EMPTY_LINES_MAX {
                return Err(bad("more than 8 empty lines before the request line"));
            }
            return Ok(());
        }
        self.facts.start = start;
        self.facts.is_http10 = request_line(line, limits)?;
        self.stage = Stage::Fields;
        Ok(())
    }
}

/// The path of a head that was refused, as far as it came; empty where the request line does not tell.
/// For naming what was asked only: nothing of it has been checked but its characters.
pub fn path_of_refused(head: &[u8]) -> &str {
    let line = head.trim_ascii_start();
    let method = line.iter().take(METHOD_BYTES_MAX + 1).take_while(|&&byte| is_tchar(byte)).count();
    let Some([b' ', target @ ..]) = line.get(method..) else { return "" };
    let end = target.iter().position(|&byte| byte == b'?' || !is_class(byte, TARGET));
    let target = &target[..end.unwrap_or(target.len())];
    let path = if target.starts_with(b"/") { Some(target) } else { after_authority(target) };
    path.and_then(|path| std::str::from_utf8(path).ok()).unwrap_or_default()
}

/// Scans a whole head with the default limits and decodes it. For callers that have all of it at once.
pub fn decode_request(head: &[u8]) -> Result<RequestHead, Refusal> {
    let mut scan = RequestScan::new();
    scan.advance(head, &HeadLimits::DEFAULT)?;
    scan.decode(head)
}

impl Facts {
    fn field(&mut self, line: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > limits.fields_max {
            return Err(over(431, "too many header fields", limits.fields_max));
        }
        let read = field_line(line, limits.name_bytes_max, BeforeColon::Refuse);
        let FieldLine { name, value, underscore } = read.map_err(|fault| match fault {
            Fault::Syntax(what) => bad(what),
            Fault::TooLarge(what) => over(431, what, limits.name_bytes_max),
        })?;
        let (name, value) = (&line[name], &line[value]);
        if underscore && is_lookalike(name) {
            return Err(bad("a field name with an underscore that looks like a standard one"));
        }
        match known(name) {
            Known::Host => self.host(value),
            Known::Expect => self.expect(value),
            Known::Connection => self.connection.add(value).map_err(bad),
            Known::ContentLength => self.content_length(value),
            Known::TransferEncoding => self.transfer_encoding(value),
            Known::Upgrade | Known::Other => Ok(()),
        }
    }

    /// RFC 9112 section 3.2: more than one Host, or an invalid one, is a 400.
    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.has_host {
            return Err(bad("more than one Host"));
        }
        self.has_host = true;
        if is_host(value) { Ok(()) } else { Err(bad("a Host that is not host or host:port")) }
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(refusal(417, "an expectation other than 100-continue"));
        }
        self.expect_continue = true;
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some() {
            return Err(bad("more than one Content-Length"));
        }
        self.content_length = Some(content_length(value).map_err(bad)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(bad("more than one Transfer-Encoding"));
        }
        match codings(value) {
            Codings::Chunked => self.chunked = true,
            Codings::Others => {
                return Err(refusal(501, "a transfer coding other than chunked"));
            }
            Codings::Invalid => return Err(bad("a Transfer-Encoding that does not end in one chunked")),
        }
        Ok(())
    }

    /// What can only be said of the whole head.
    fn check(&self) -> Result<(), Refusal> {
        if !self.has_host && !self.is_http10 {
            return Err(bad("HTTP/1.1 without Host"));
        }
        if self.chunked && self.content_length.is_some() {
            return Err(bad("Transfer-Encoding beside Content-Length"));
        }
        if self.chunked && self.is_http10 {
            return Err(bad("Transfer-Encoding in HTTP/1.0"));
        }
        Ok(())
    }

    fn into_head(self, parts: http::request::Parts) -> RequestHead {
        let version = if self.is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        let framing = match self.content_length {
            _ if self.chunked => BodyFraming::Chunked,
            Some(length) => BodyFraming::Length(length),
            None => BodyFraming::None,
        };
        let has_body = !matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        let upgrades = self.connection.upgrade && !self.is_http10;
        RequestHead {
            upgrade: if upgrades { parts.headers.get(http::header::UPGRADE).cloned() } else { None },
            method: parts.method,
            uri: parts.uri,
            version,
            headers: parts.headers,
            framing,
            keep_alive: self.connection.keeps_alive(version),
            // RFC 9110 section 10.1.1: ignored in HTTP/1.0.
            expect_continue: self.expect_continue && has_body && !self.is_http10,
            connection: self.connection,
        }
    }
}

/// Checks `method SP target SP version`; true for HTTP/1.0 (RFC 9112 section 3).
fn request_line(line: &[u8], limits: &HeadLimits) -> Result<bool, Refusal> {
    let method_len = line.iter().position(|&b| !is_tchar(b)).unwrap_or(line.len());
    if method_len > METHOD_BYTES_MAX {
        return Err(refusal(501, "a method of more than 24 bytes"));
    }
    let (method, rest) = line.split_at(method_len);
    let [b' ', rest @ ..] = rest else {
        return Err(bad("a request line that is not method, target, version"));
    };
    if method.is_empty() {
        return Err(bad("an empty method"));
    }
    let target_len = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
    if target_len > limits.target_bytes_max {
        return Err(over(414, TARGET_TOO_LONG, limits.target_bytes_max));
    }
    let (target, rest) = rest.split_at(target_len);
    let [b' ', version @ ..] = rest else { return Err(bad("a request line without a version")) };
    let is_http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(refusal(505, "an HTTP version other than 1.0 and 1.1"));
        }
        _ => return Err(bad("an HTTP version that is not HTTP/1.0 or HTTP/1.1")),
    };
    check_target(method, target)?;
    Ok(is_http10)
}

/// Origin-form, or absolute-form with http or https (RFC 9112 section 3.2).
fn check_target(method: &[u8], target: &[u8]) -> Result<(), Refusal> {
    if method == b"CONNECT" {
        return Err(refusal(501, "CONNECT; this is not a forward proxy"));
    }
    let (mut every, mut any) = (TARGET, 0);
    for &byte in target {
        let class = CLASS[usize::from(byte)];
        (every, any) = (every & class, any | class);
    }
    if every == 0 {
        return Err(bad("a request target with a character that is not allowed"));
    }
    let origin = match target {
        [b'/', ..] => target,
        _ => after_authority(target).ok_or(bad("a request target that is neither a path nor an http URI"))?,
    };
    if origin.is_empty() && method == b"OPTIONS" {
        // RFC 9112 section 3.2.4: a proxy would send this on as `OPTIONS *`.
        return Err(bad("OPTIONS for the server as a whole"));
    }
    if any & DOT != 0 && has_dot_segment(origin) {
        return Err(bad("a dot segment in the path"));
    }
    Ok(())
}

/// What follows the authority of an absolute-form target: empty or a path. `None`: not such a target. A query
/// right behind the authority is refused: legal, sent by nobody, and `http::Uri` keeps it without the `/` it
/// needs.
fn after_authority(target: &[u8]) -> Option<&[u8]> {
    let is_scheme =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme));
    let rest = [&b"http://"[..], b"https://"].iter().find(|s| is_scheme(s)).map(|s| &target[s.len()..])?;
    let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
    is_host(&rest[..end]).then(|| &rest[end..])
}

/// `host` or `host ":" port` (RFC 9110 section 7.2), without user information, list or zone.
fn is_host(value: &[u8]) -> bool {
    let (is_valid, port) = match value {
        [b'[', rest @ ..] => {
            let Some(close) = memchr::memchr(b']', rest) else { return false };
            let literal = std::str::from_utf8(&rest[..close]).unwrap_or("");
            (literal.parse::<std::net::Ipv6Addr>().is_ok(), &rest[close + 1..])
        }
        _ => {
            let end = value.iter().position(|&b| !is_class(b, HOST)).unwrap_or(value.len());
            (end > 0, &value[end..])
        }
    };
    is_valid && is_port(port)
}

/// Nothing, or a colon with up to five digits of at most 65535.
fn is_port(port: &[u8]) -> bool {
    let [b':', digits @ ..] = port else { return port.is_empty() };
    let number =
        digits.iter().fold(0u64, |sum, digit| sum.wrapping_mul(10).wrapping_add(u64::from(digit & 15)));
    digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && number <= 65535
}

/// A `.` or `..` segment, percent-encoded or behind an encoded slash too. A client removes them before it
/// sends (RFC 3986 section 5.2.4); here they would let a path escape the prefix that a route allows.
fn has_dot_segment(origin: &[u8]) -> bool {
    let path = &origin[..memchr::memchr(b'?', origin).unwrap_or(origin.len())];
    let mut rest = path;
    // The current segment: how many dots, and nothing else.
    let mut dots = Some(0u8);
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'%', b'2', b'e' | b'E', after @ ..] => (b'.', after),
            [b'%', b'2', b'f' | b'F', after @ ..] | [b'%', b'5', b'c' | b'C', after @ ..] => (b'/', after),
            _ => (byte, after),
        };
        rest = after;
        match byte {
            b'/' if matches!(dots, Some(1 | 2)) => return true,
            b'/' => dots = Some(0),
            b'.' => dots = dots.map(|count| count.saturating_add(1)),
            _ => dots = None,
        }
    }
    matches!(dots, Some(1 | 2))
}

/// The request line did not end within the longest one allowed: which part of it is to blame.
fn overlong_line(start: &[u8], target_bytes_max: usize) -> Refusal {
    if start.iter().take(METHOD_BYTES_MAX + 1).all(|&b| is_tchar(b)) {
        return refusal(501, "a method of more than 24 bytes");
    }
    over(414, TARGET_TOO_LONG, target_bytes_max)
}

const TARGET_TOO_LONG: &str = "a request target of too many bytes";

fn bad(what: &'static str) -> Refusal {
    refusal(400, what)
}

fn refusal(status: u16, what: &'static str) -> Refusal {
    Refusal { status, what, limit: None }
}

fn over(status: u16, what: &'static str, limit: usize) -> Refusal {
    Refusal { status, what, limit: u32::try_from(limit).ok().and_then(NonZeroU32::new) }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.limit {
            Some(limit) => write!(f, "{} ({limit} at most)", self.what),
            None => f.write_str(self.what),
        }
    }
}

impl std::error::Error for Refusal {}
