//! Field lines and the fields that decide framing, as both directions read them.
//!
//! Input: one line without its CRLF, free of control characters (`lines` saw to that). Output: name and
//! value.
//! Limits: the name's length is the caller's; a Content-Length ends at 2^63 - 1.
//! Errors: a `Fault`; the caller knows whose fault it is and which status it becomes.
//! Source: RFC 9112 section 5, RFC 9110 sections 5.1, 5.5, 8.6.

use super::simd::name_run;
use super::syntax::{CLASS, TCHAR, UNDERSCORE, trim};
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Syntax(&'static str),
    TooLarge(&'static str),
}

/// Whitespace between a name and its colon: RFC 9112 section 5.1 has a server refuse it in a request and a
/// proxy remove it from a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BeforeColon {
    Refuse,
    Remove,
}

/// A field line, taken apart: ranges within the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FieldLine {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
    /// The name has a `_`, see `is_lookalike`.
    pub(super) underscore: bool,
}

#[inline(always)]
pub(super) fn field_line(
    line: &[u8],
    name_max: usize,
    before_colon: BeforeColon,
) -> Result<FieldLine, Fault> {
    let (end, underscore) = name_end(line);
    let mut colon = end;
    if let Some(b' ' | b'\t') = line.get(end) {
        if end == 0 {
            return Err(Fault::Syntax("a folded or indented line in the head"));
        }
        if before_colon == BeforeColon::Refuse {
            return Err(Fault::Syntax("whitespace in or after a field name"));
        }
        colon += line[end..].iter().take_while(|&&b| b == b' ' || b == b'\t').count();
    }
    match line.get(colon) {
        Some(b':') if end == 0 => return Err(Fault::Syntax("an empty field name")),
        Some(b':') if end > name_max => return Err(Fault::TooLarge("a field name of too many bytes")),
        Some(b':') => {}
        Some(_) => return Err(Fault::Syntax("a field name with a character that is not allowed")),
        None => return Err(Fault::Syntax("a field line without a colon")),
    }
    let value = trim(&line[colon + 1..]);
    Ok(FieldLine { name: 0..end, value: colon + 1 + value.start..colon + 1 + value.end, underscore })
}

/// Where the token at the start of a line ends, and whether a `_` is in it.
#[inline(always)]
fn name_end(line: &[u8]) -> (usize, bool) {
    let mut end = name_run(line);
    let mut seen = 0;
    while let Some(&byte) = line.get(end) {
        let class = CLASS[usize::from(byte)] & (TCHAR | UNDERSCORE);
        if class == 0 {
            break;
        }
        seen |= class;
        end += 1;
    }
    (end, seen & UNDERSCORE != 0)
}

/// The fields that a codec must understand itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Host,
    Expect,
    Upgrade,
    Connection,
    ContentLength,
    TransferEncoding,
    Other,
}

/// `name` is a token.
#[inline(always)]
pub(super) fn known(name: &[u8]) -> Known {
    // Length and first letter tell nearly all other names apart, at a fraction of a comparison's cost.
    let (is_same, field) = match (name.len(), name.first().map(|first| first | 0x20)) {
        (4, Some(b'h')) => (is_token_spelt(name, b"host"), Known::Host),
        (6, Some(b'e')) => (is_token_spelt(name, b"expect"), Known::Expect),
        (7, Some(b'u')) => (is_token_spelt(name, b"upgrade"), Known::Upgrade),
        (10, Some(b'c')) => (is_token_spelt(name, b"connection"), Known::Connection),
        (14, Some(b'c')) => (is_token_spelt(name, b"content-length"), Known::ContentLength),
        (17, Some(b't')) => (is_token_spelt(name, b"transfer-encoding"), Known::TransferEncoding),
        _ => return Known::Other,
    };
    if is_same { field } else { Known::Other }
}

/// Comparison in any case with a lower-case spelling of letters and `-`, without a branch per byte. Setting
/// bit 5 folds case; what else it would fold onto such a spelling are controls, which no token holds.
#[inline(always)]
fn is_token_spelt<const N: usize>(token: &[u8], spelling: &[u8; N]) -> bool {
    let Ok(token) = <&[u8; N]>::try_from(token) else { return false };
    token.iter().zip(spelling).fold(0, |difference, (a, b)| difference | ((a | 0x20) ^ b)) == 0
}

/// Fields that frame, route or authenticate a message here or upstream.
static GUARDED: &[&[u8]] = &[
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"content-encoding",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"api-key",
    b"x-api-key",
    b"x-goog-api-key",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
];

/// Whether a name with `_` reads as a guarded field to a server that maps `-` and `_` to one character, as
/// every CGI and WSGI server does. Such names are refused. Other names with `_` are legal tokens and pass:
/// Codex sends
/// `session_id`, and a refusal of all of them, the usual edge setting, would lock that client out.
pub(super) fn is_lookalike(name: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a.to_ascii_lowercase() == *b || (*a == b'_' && *b == b'-');
    GUARDED.iter().any(|guarded| guarded.len() == name.len() && name.iter().zip(*guarded).all(same))
}

/// A Content-Length value: digits only, no sign, no list, at most 2^63 - 1 (RFC 9110 section 8.6).
/// Leading zeros are legal and read as decimal, up to 19 digits in all.
pub(super) fn content_length(value: &[u8]) -> Result<u64, &'static str> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err("a Content-Length that is not one decimal number");
    }
    if value.len() > 19 {
        return Err("a Content-Length of more than 19 digits");
    }
    // Nineteen digits stay below 10^19 < 2^64.
    let length = value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    if length > i64::MAX as u64 {
        return Err("a Content-Length over 2^63 - 1");
    }
    Ok(length)
}

/// How a Transfer-Encoding value is to be understood (RFC 9112 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codings {
    /// Exactly `chunked`, in any case.
    Chunked,
    /// A list that ends in `chunked`, applied once, after codings that this codec does not have.
    Others,
    /// Anything else; the length of the body cannot be known.
    Invalid,
}

pub(super) fn codings(value: &[u8]) -> Codings {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Codings::Chunked;
    }
    let Some(comma) = value.iter().rposition(|&b| b == b',') else { return Codings::Invalid };
    let (before, last) = (&value[..comma], &value[comma + 1..]);
    let is_other =
        |coding: &[u8]| super::syntax::is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked");
    if last[trim(last)].eq_ignore_ascii_case(b"chunked") && super::syntax::members(before).all(is_other) {
        return Codings::Others;
    }
    Codings::Invalid
}
