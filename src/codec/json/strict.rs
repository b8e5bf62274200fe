//! The strict check: the whole grammar in one forward pass over the caller's bytes, without a copy, without
//! memory of its own but a `u128` of open brackets; on the way it notes the members of the outermost object.
//!
//! UTF-8 is checked before, by `simdutf8`.
//! Refused beyond the grammar: a byte-order mark, half a surrogate pair, more than `DEPTH_MAX` open brackets.
//! Accepted: numbers of any size; what does not fit is for the one who reads the number.
//! Source: RFC 8259. Tests hold it against serde_json and simd-json.
//!
//! Why not simd-json's tape: its parser writes into what it reads, so it wants a copy of every body, and it
//! finds no members; copy, tape in reused buffers and a second pass for the members took 1.9 times as long
//! for bodies of 0.5 to 16 KB and 4.6 times for a 1 MB image (`benches/json_peek.rs`, 2026-11-21).

use super::blocks::{CONTROLS, Cursor, Inside};
use super::text::{BAD_ESCAPE, BAD_HEX, LONE_SURROGATE, code_unit};
use super::walk::{Brackets, CUT_OFF, TRAILING, after_space, literal};
use super::{Defect, Key, Kind, Member, Value};

const CONTROL: &str = "a control character inside a string; it must be escaped";

/// Whether `body` is one JSON document and nothing else, in UTF-8 without a byte-order mark.
///
/// Refused too: half a surrogate pair and more than [`DEPTH_MAX`](super::DEPTH_MAX) open brackets. Repeated
/// keys pass: [`check_fields`] refuses those that matter.
pub fn check(body: &[u8]) -> Result<(), Defect> {
    check_text(body)?;
    scan(body, |_| Ok(())).map(|_| ())
}

/// [`check`] and [`fields`](super::fields) in one pass: `body` must be an object.
pub fn check_fields<'a, const N: usize>(
    body: &'a [u8],
    names: [&str; N],
) -> Result<[Option<Value<'a>>; N], Defect> {
    check_text(body)?;
    let mut found = [None; N];
    match scan(body, |member| super::note_field(member, &names, &mut found))? {
        Kind::Object => Ok(found),
        _ => Err(Defect::at(after_space(body, 0), "the document must be an object")),
    }
}

fn check_text(body: &[u8]) -> Result<(), Defect> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(Defect::at(0, "a byte-order mark; JSON begins without one"));
    }
    if simdutf8::basic::from_utf8(body).is_ok() {
        return Ok(());
    }
    let valid = std::str::from_utf8(body).map_or_else(|error| error.valid_up_to(), str::len);
    Err(Defect::at(valid, "a byte that is not UTF-8"))
}

/// Scans `bytes` and gives every member of the outermost object to `on_member`; returns the document's kind.
#[inline]
fn scan<'a>(
    bytes: &'a [u8],
    mut on_member: impl FnMut(Member<'a>) -> Result<(), Defect>,
) -> Result<Kind, Defect> {
    let mut scanner = Scanner::new(bytes);
    let kind = kind_of(scanner.peek()?);
    let mut open = Brackets::default();
    // The outermost object's member under way, and where its value begins.
    let mut member = None;
    'document: loop {
        // Here begins a value.
        match scanner.peek()? {
            bracket @ (b'{' | b'[') => {
                open.push(bracket, scanner.at)?;
                scanner.step();
                // An empty one goes on to where every bracket is closed; `{` and `}`, `[` and `]` are two
                // apart.
                if scanner.peek()? != bracket + 2 {
                    scanner.item(&open, &mut member)?;
                    continue;
                }
            }
            _ => scanner.scalar()?,
        }
        // Here has ended a value, and with it perhaps some around it.
        loop {
            if let (1, Some((key, start))) = (open.depth, member) {
                let raw = &bytes[start..scanner.at];
                on_member(Member { key, value: Value { kind: kind_of(bytes[start]), raw, start } })?;
                member = None;
            }
            if open.depth == 0 {
                break 'document;
            }
            scanner.skip_space();
            match scanner.peek()? {
                b',' => break,
                closing @ (b'}' | b']') => open.pop(closing, scanner.at)?,
                _ => return Err(scanner.defect("a comma or the closing bracket must follow here")),
            }
            scanner.at += 1;
        }
        scanner.step();
        scanner.item(&open, &mut member)?;
    }
    scanner.skip_space();
    if scanner.at < bytes.len() { Err(scanner.defect(TRAILING)) } else { Ok(kind) }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    cursor: Cursor<'a, CONTROLS>,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8]) -> Scanner<'a> {
        Scanner { bytes, at: after_space(bytes, 0), cursor: Cursor::new(bytes) }
    }

    /// Goes to where an item's value begins: in an object behind a key and a colon.
    #[inline]
    fn item(&mut self, open: &Brackets, member: &mut Option<(Key<'a>, usize)>) -> Result<(), Defect> {
        if !open.in_object() {
            return Ok(());
        }
        if self.peek()? != b'"' {
            return Err(self.defect("a key in double quotes must follow here"));
        }
        let from = self.at + 1;
        let escaped = self.string()?;
        let key = Key { raw: &self.bytes[from..self.at - 1], start: from, escaped };
        self.skip_space();
        if self.peek()? != b':' {
            return Err(self.defect("a colon must follow the key"));
        }
        self.step();
        if open.depth == 1 {
            *member = Some((key, self.at));
        }
        Ok(())
    }

    #[inline]
    fn scalar(&mut self) -> Result<(), Defect> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                self.at = literal(self.bytes, self.at)?.1;
                Ok(())
            }
        }
    }

    /// Reads a string, quotes and all, and says whether it holds an escape.
    #[inline]
    fn string(&mut self) -> Result<bool, Defect> {
        let bytes = self.bytes;
        let mut escaped = false;
        let mut second_half_at = None;
        let end = self.cursor.string_end(self.at + 1, |inside| match inside {
            Inside::Block { start, escapes, others: controls } => {
                if controls != 0 {
                    return Err(Defect::at(start + controls.trailing_zeros() as usize, CONTROL));
                }
                if escapes == 0 {
                    return Ok(());
                }
                escaped = true;
                check_escapes(bytes, start, escapes, &mut second_half_at)
            }
            Inside::Run(run, start) => check_run(run, start),
        })?;
        self.at = end.ok_or(Defect::at(bytes.len(), CUT_OFF))? + 1;
        Ok(escaped)
    }

    fn number(&mut self) -> Result<(), Defect> {
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        let begin = self.at;
        let digits = self.digits()?;
        if digits > 1 && self.bytes[begin] == b'0' {
            return Err(Defect::at(begin, "a number that begins with a superfluous zero"));
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Passes at least one digit and says how many there were.
    fn digits(&mut self) -> Result<usize, Defect> {
        let count = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.peek().err().unwrap_or(self.defect("a number needs a digit here")));
        }
        self.at += count;
        Ok(count)
    }

    /// Passes one byte and the white space behind it.
    #[inline]
    fn step(&mut self) {
        self.at += 1;
        self.skip_space();
    }

    #[inline]
    fn skip_space(&mut self) {
        self.at = after_space(self.bytes, self.at);
    }

    #[inline]
    fn peek(&self) -> Result<u8, Defect> {
        self.bytes.get(self.at).copied().ok_or(Defect::at(self.bytes.len(), CUT_OFF))
    }

    fn defect(&self, what: &'static str) -> Defect {
        Defect::at(self.at, what)
    }
}

/// Bytes that make an escape together with a backslash alone.
const PLAIN_ESCAPES: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest: &[u8] = b"\"\\/bfnrt";
    while let [byte, after @ ..] = rest {
        table[*byte as usize] = true;
        rest = after;
    }
    table
};

/// Checks the escapes that begin at the bits of `escapes`. `second_half_at`: where the second half of a
/// surrogate pair must begin, its first half having been read.
#[inline]
fn check_escapes(
    bytes: &[u8],
    start: usize,
    escapes: u64,
    second_half_at: &mut Option<usize>,
) -> Result<(), Defect> {
    let mut left = escapes;
    while left != 0 {
        let at = start + left.trailing_zeros() as usize;
        left &= left - 1;
        let byte = *bytes.get(at + 1).ok_or(Defect::at(bytes.len(), CUT_OFF))?;
        if !PLAIN_ESCAPES[usize::from(byte)] {
            check_unicode_escape(bytes, at, second_half_at)?;
        }
    }
    Ok(())
}

fn check_unicode_escape(bytes: &[u8], at: usize, second_half_at: &mut Option<usize>) -> Result<(), Defect> {
    if bytes.get(at + 1) != Some(&b'u') {
        return Err(Defect::at(at, BAD_ESCAPE));
    }
    let is_expected = second_half_at.take() == Some(at);
    let unit = code_unit(&bytes[at..]).ok_or(Defect::at(at, BAD_HEX))?;
    match unit {
        0xd800..=0xdbff if matches!(code_unit(&bytes[at + 6..]), Some(0xdc00..=0xdfff)) => {
            *second_half_at = Some(at + 6);
        }
        0xd800..=0xdbff => return Err(Defect::at(at, LONE_SURROGATE)),
        0xdc00..=0xdfff if !is_expected => return Err(Defect::at(at, LONE_SURROGATE)),
        _ => {}
    }
    Ok(())
}

fn check_run(run: &[u8], start: usize) -> Result<(), Defect> {
    // The least byte, without branches: the compiler makes vectors of it.
    if run.iter().fold(u8::MAX, |least, &byte| least.min(byte)) >= b' ' {
        return Ok(());
    }
    let control = run.iter().position(|&byte| byte < b' ').unwrap_or(0);
    Err(Defect::at(start + control, CONTROL))
}

fn kind_of(first: u8) -> Kind {
    match first {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::String,
        b't' => Kind::True,
        b'f' => Kind::False,
        b'n' => Kind::Null,
        _ => Kind::Number,
    }
}
