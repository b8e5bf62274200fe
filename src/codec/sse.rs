//! Server-sent events: where an event ends in a byte stream, and what one event says.
//!
//! [`Framer`] finds the ends over chunks of any size and looks at no byte twice; it keeps one byte of state
//! and no data. [`Event::parse`] reads one event, borrowed; only several `data` lines are joined, in a buffer
//! of the caller. [`write_event`] and [`write_comment`] write.
//!
//! An event ends with a blank line; lines end with LF, CRLF or CR, mixed as the sender likes. When a chunk
//! ends with the CR of the blank line, the event ends there at once, whatever comes: an LF that begins the
//! next chunk is handed out first, alone, as an event that says nothing. So nothing is withheld, and an event
//! is passed on whole.
//!
//! Limits: none; the caller bounds what it collects. Errors: none, every byte sequence is a stream of events.
//! Absent: JSON, `id` and `retry` (the bytes pass, nobody here reads them), reconnecting.
//! Stated difference: a byte-order mark is skipped before any event, not only before a stream's first.
//! Source: WHATWG HTML, "Server-sent events", parsing rules.

use memchr::memchr2;
use std::ops::Range;

/// Finds the ends of events in bytes that arrive in pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Framer(State);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Nothing of an event read yet.
    #[default]
    EventStart,
    /// As `EventStart`, behind the CR of a blank line: an LF here is the rest of that line end.
    EventStartAfterCr,
    /// At the start of a further line: a line end here is the blank line.
    LineStart,
    /// As `LineStart`, behind a CR: an LF here is the rest of that line end.
    LineStartAfterCr,
    InLine,
}

impl Framer {
    pub const fn new() -> Framer {
        Framer(State::EventStart)
    }

    /// Reads on from where the last call stopped: the offset behind the blank line that ends the current
    /// event (the rest of `bytes` is then to be given again), or none while the event goes on behind `bytes`.
    pub fn end_of_event(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.0 == State::InLine {
                at += memchr2(b'\n', b'\r', &bytes[at..])? + 1;
                self.0 = if bytes[at - 1] == b'\n' { State::LineStart } else { State::LineStartAfterCr };
            }
            let first = *bytes.get(at)?;
            at += 1;
            match (self.0, first) {
                (State::LineStartAfterCr, b'\n') => self.0 = State::LineStart,
                (_, b'\n') => {
                    self.0 = State::EventStart;
                    return Some(at);
                }
                (_, b'\r') => {
                    let (state, end) = match bytes.get(at) {
                        Some(b'\n') => (State::EventStart, at + 1),
                        Some(_) => (State::EventStart, at),
                        None => (State::EventStartAfterCr, at),
                    };
                    self.0 = state;
                    return Some(end);
                }
                _ => self.0 = State::InLine,
            }
        }
    }

    /// Whether no event is under way: a stream that ends here was not cut.
    pub fn is_between_events(&self) -> bool {
        matches!(self.0, State::EventStart | State::EventStartAfterCr)
    }
}

/// Whether `bytes`, the first of a body, begin as a stream of events does: with a comment or a field, which may be
/// cut off. What is JSON never does.
pub fn begins_as_events(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Some(start) = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) else { return false };
    let line = &bytes[start..];
    let begins = |field: &[u8]| line.starts_with(field) || field.starts_with(line);
    line[0] == b':' || [&b"data:"[..], b"event:", b"id:", b"retry:"].into_iter().any(begins)
}

/// One event, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// All of its bytes, with the blank line.
    pub raw: &'a [u8],
    /// Its type, if it names one that is not empty.
    pub name: Option<&'a [u8]>,
    pub data: Data<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// No `data` line: comments, a lone line end or other fields only. A client sees no event.
    Absent,
    /// One line, as it stands in `raw` from `start` on.
    Line { bytes: &'a [u8], start: usize },
    /// Several lines, joined by LF.
    Joined(&'a [u8]),
}

impl<'a> Event<'a> {
    /// Reads the event that `raw` holds. `joined` is used, and overwritten, where the data stands on several
    /// lines. A `raw` that the stream's end cut off is read as far as it goes.
    pub fn parse(raw: &'a [u8], joined: &'a mut Vec<u8>) -> Event<'a> {
        let mut name = None;
        let mut data = Data::Absent;
        let mut is_joined = false;
        let mut next = Some(raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw));
        while let Some(text) = next {
            // The blank line behind every event is not worth a search.
            if let [] | [b'\n'] | [b'\r', b'\n'] = text {
                break;
            }
            let (line, rest) = line_and_rest(text);
            next = rest;
            if let Some(bytes) = value_of(line, b"data") {
                if let Data::Line { bytes: first, .. } = data {
                    if !is_joined {
                        joined.clear();
                        joined.extend_from_slice(first);
                        is_joined = true;
                    }
                    joined.push(b'\n');
                    joined.extend_from_slice(bytes);
                }
                data = Data::Line { bytes, start: raw.len() - text.len() + line.len() - bytes.len() };
            } else if let Some(value) = value_of(line, b"event") {
                name = Some(value).filter(|value| !value.is_empty());
            }
        }
        if is_joined {
            data = Data::Joined(joined);
        }
        Event { raw, name, data }
    }
}

impl<'a> Data<'a> {
    /// The data, empty where there is none.
    pub fn bytes(&self) -> &'a [u8] {
        match *self {
            Data::Absent => b"",
            Data::Line { bytes, .. } | Data::Joined(bytes) => bytes,
        }
    }

    /// Where the data stands in the event's `raw`, if it stands there in one piece.
    pub fn range(&self) -> Option<Range<usize>> {
        match *self {
            Data::Line { bytes, start } => Some(start..start + bytes.len()),
            Data::Absent | Data::Joined(_) => None,
        }
    }

    pub fn is_absent(&self) -> bool {
        *self == Data::Absent
    }
}

/// Appends one event: `data` on as many lines as it has, `name` up to its first line end.
pub fn write_event(out: &mut Vec<u8>, name: Option<&str>, data: &[u8]) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(line_and_rest(name.as_bytes()).0);
        out.push(b'\n');
    }
    write_lines(out, b"data: ", data);
    out.push(b'\n');
}

/// Appends a comment, which no client reports: a heartbeat.
pub fn write_comment(out: &mut Vec<u8>, text: &[u8]) {
    write_lines(out, b": ", text);
    out.push(b'\n');
}

fn write_lines(out: &mut Vec<u8>, prefix: &[u8], text: &[u8]) {
    let mut next = Some(text);
    while let Some(text) = next {
        let (line, rest) = line_and_rest(text);
        out.extend_from_slice(prefix);
        out.extend_from_slice(line);
        out.push(b'\n');
        next = rest;
    }
}

/// The value of the field `name`, if that is the line's field.
#[inline]
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [b':', b' ', value @ ..] | [b':', value @ ..] | value @ [] => Some(value),
        _ => None,
    }
}

/// The first line without its end, and what follows the line end if there is one.
#[inline]
fn line_and_rest(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let Some(end) = memchr2(b'\n', b'\r', text) else { return (text, None) };
    let rest = &text[end + 1..];
    let rest = if text[end] == b'\r' { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest };
    (&text[..end], Some(rest))
}

#[cfg(test)]
mod tests;
