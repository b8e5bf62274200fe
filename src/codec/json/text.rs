//! String contents: from escaped to plain and back.

use super::Defect;
use super::blocks::{escapes, to_escape};
use memchr::memchr;
use std::borrow::Cow;

pub(super) const LONE_SURROGATE: &str = "a \\u escape of half a surrogate pair; both halves are needed";
pub(super) const BAD_ESCAPE: &str = "a backslash before something that is not one of \"\\/bfnrtu";
pub(super) const BAD_HEX: &str = "\\u must be followed by four hexadecimal digits";

/// Appends what `raw` (the bytes between the quotes) means. A bad escape and half a surrogate pair are
/// refused; `out` then holds what came before. Offsets of a `Defect` count from the start of `raw`.
pub fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Defect> {
    unescape_with(raw, out, Err)
}

/// What `raw` means, borrowed where it holds no backslash. A bad escape and half a surrogate pair read as
/// U+FFFD, as a reader that must not fail has to see something: some providers cut a pair between two events.
pub fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let replaced = unescape_with(raw, &mut out, |_| Ok(char::REPLACEMENT_CHARACTER));
    debug_assert!(replaced.is_ok(), "every defect is replaced");
    Cow::Owned(out)
}

/// Whether `raw` means `name`; stops at the first difference and allocates nothing, however many keys there
/// are.
pub(super) fn means(raw: &[u8], name: &[u8]) -> bool {
    let (mut raw, mut name) = (raw, name);
    while let Some(&first) = raw.first() {
        let mut utf8 = [first, 0, 0, 0];
        let (char, taken) = if first == b'\\' {
            let (decoded, taken) = escape_sequence(raw);
            let Ok(char) = decoded else { return false };
            (char.encode_utf8(&mut utf8).as_bytes(), taken)
        } else {
            (&utf8[..1], 1)
        };
        let Some(rest) = name.strip_prefix(char) else { return false };
        (raw, name) = (&raw[taken..], rest);
    }
    name.is_empty()
}

/// As `means`, but letters count alike in either case, as in Go's encoding/json: there the long s and the
/// Kelvin sign are letters of the alphabet, too. `name` is in lower case.
pub(super) fn means_in_any_case(raw: &[u8], name: &[u8]) -> bool {
    let (mut raw, mut name) = (raw, name);
    while let Some(&first) = raw.first() {
        let (char, taken) = match raw {
            [b'\\', ..] => {
                let (decoded, taken) = escape_sequence(raw);
                let Ok(char) = decoded else { return false };
                (char, taken)
            }
            [0xc5, 0xbf, ..] => (LONG_S, 2),
            [0xe2, 0x84, 0xaa, ..] => (KELVIN, 3),
            // A byte of any other character is in no name.
            _ => (char::from(first), 1),
        };
        let folded = match char {
            LONG_S => b's',
            KELVIN => b'k',
            char if char.is_ascii() => char.to_ascii_lowercase() as u8,
            _ => return false,
        };
        let Some(rest) = name.strip_prefix(&[folded]) else { return false };
        (raw, name) = (&raw[taken..], rest);
    }
    name.is_empty()
}

const LONG_S: char = '\u{17f}';
const KELVIN: char = '\u{212a}';

/// Texts of at most this length are looked at byte by byte first.
const SHORT_BYTES: usize = 64;

/// Appends `text` as the inside of a JSON string: quote, backslash and control characters are escaped, the
/// rest is copied. What is not UTF-8 becomes U+FFFD.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    // Names mostly: the usual way has its price for each call.
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.len() <= SHORT_BYTES && text.iter().all(is_plain) {
        return out.extend_from_slice(text);
    }
    if simdutf8::basic::from_utf8(text).is_ok() {
        return escape_utf8(text, out);
    }
    for chunk in text.utf8_chunks() {
        escape_utf8(chunk.valid().as_bytes(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends `text` as a JSON string with its quotes; see [`escape`].
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

fn unescape_with(
    raw: &[u8],
    out: &mut Vec<u8>,
    on_defect: impl Fn(Defect) -> Result<char, Defect>,
) -> Result<(), Defect> {
    // Most strings hold no escape, and `memchr` knows that in a quarter of the time.
    let first = memchr(b'\\', raw).unwrap_or(raw.len());
    let mut copied = 0;
    for at in escapes(&raw[first..]).map(|at| first + at) {
        // The second half of a surrogate pair was read with the first.
        if at < copied {
            continue;
        }
        out.extend_from_slice(&raw[copied..at]);
        let (decoded, len) = escape_sequence(&raw[at..]);
        match decoded {
            Ok(char) if char.is_ascii() => out.push(char as u8),
            Ok(char) => push(char, out),
            Err(what) => push(on_defect(Defect::at(at, what))?, out),
        }
        copied = at + len;
    }
    out.extend_from_slice(&raw[copied..]);
    Ok(())
}

fn push(char: char, out: &mut Vec<u8>) {
    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Reads the escape that `bytes` begins with: its character or what is wrong, and how many bytes it takes.
fn escape_sequence(bytes: &[u8]) -> (Result<char, &'static str>, usize) {
    let plain = match bytes.get(1) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_sequence(bytes),
        _ => return (Err(BAD_ESCAPE), 1),
    };
    (Ok(plain), 2)
}

fn unicode_sequence(bytes: &[u8]) -> (Result<char, &'static str>, usize) {
    let Some(first) = code_unit(bytes) else { return (Err(BAD_HEX), 1) };
    if let Some(char) = char::from_u32(first) {
        return (Ok(char), 6);
    }
    // A surrogate: only a leading one followed by a trailing one has a meaning.
    let second = bytes.get(6..).and_then(code_unit);
    match second {
        Some(second @ 0xdc00..=0xdfff) if first < 0xdc00 => {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            (char::from_u32(code).ok_or(LONE_SURROGATE), 12)
        }
        _ => (Err(LONE_SURROGATE), 6),
    }
}

/// The number of the `\uXXXX` that `bytes` begins with.
pub(super) fn code_unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
}

fn escape_utf8(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len());
    let mut copied = 0;
    for at in to_escape(text) {
        out.extend_from_slice(&text[copied..at]);
        copied = at + 1;
        let byte = text[at];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&text[copied..]);
}
