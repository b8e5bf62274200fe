//! The walker: where a value ends, and iterators over members and elements.
//!
//! One forward pass over [`Cursor`]'s masks, from quote to bracket to quote; a `u128` of bracket kinds is the
//! stack.

use super::blocks::{BRACKETS, Cursor, Inside};
use super::{DEPTH_MAX, Defect, Key, Kind, Member, Value};
use std::convert::Infallible;

pub(super) const CUT_OFF: &str = "the document ends inside a value";
pub(super) const TRAILING: &str = "bytes after the document's end; only white space may follow";

pub(super) fn root(bytes: &[u8]) -> Result<Value<'_>, Defect> {
    let start = after_space(bytes, 0);
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    let Some(&first) = bytes.get(start) else { return Err(Defect::at(start, CUT_OFF)) };
    let raw = &bytes[start..end];
    let (kind, closing) = match first {
        b'{' => (Kind::Object, b'}'),
        b'[' => (Kind::Array, b']'),
        _ => {
            let (kind, found) = value_end(&mut Cursor::new(bytes), bytes, start)?;
            return if found == end {
                Ok(Value { kind, raw, start })
            } else {
                Err(Defect::at(found, TRAILING))
            };
        }
    };
    if raw.len() < 2 || raw[raw.len() - 1] != closing {
        return Err(Defect::at(end, "the document does not end with the bracket that closes its first"));
    }
    Ok(Value { kind, raw, start })
}

/// Members of one object in their order; ends after the first `Defect`.
#[derive(Debug, Clone)]
pub struct Members<'a>(Items<'a>);

/// Elements of one array in their order; ends after the first `Defect`.
#[derive(Debug, Clone)]
pub struct Elements<'a>(Items<'a>);

/// What both iterators share: a position between two items of one bracket.
#[derive(Debug, Clone)]
struct Items<'a> {
    /// The bytes from the opening bracket to the closing one.
    raw: &'a [u8],
    /// Offset of `raw` in the document.
    start: usize,
    at: usize,
    cursor: Cursor<'a, BRACKETS>,
    state: State,
    closing: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing read yet.
    First,
    /// An item was read: a comma or the closing bracket follows.
    Later,
    WrongKind,
    Ended,
}

impl<'a> Members<'a> {
    pub(super) fn new(value: Value<'a>) -> Members<'a> {
        Members(Items::new(value, Kind::Object, b'}'))
    }

    /// The members of an object from offset `at` (not 0) of its raw bytes on, where one begins.
    pub(super) fn behind(value: Value<'a>, at: usize) -> Members<'a> {
        // The byte before stands for the opening bracket, which is not looked at again.
        let skipped = at.saturating_sub(1);
        let raw = &value.raw[skipped..];
        Members::new(Value { raw, start: value.start + skipped, ..value })
    }
}

impl<'a> Elements<'a> {
    pub(super) fn new(value: Value<'a>) -> Elements<'a> {
        Elements(Items::new(value, Kind::Array, b']'))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, Defect>;

    fn next(&mut self) -> Option<Self::Item> {
        let items = &mut self.0;
        items.next_with(|items| {
            let key = items.key()?;
            Ok(Member { key, value: items.value()? })
        })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Value<'a>, Defect>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_with(Items::value)
    }
}

impl<'a> Items<'a> {
    fn new(value: Value<'a>, kind: Kind, closing: u8) -> Items<'a> {
        let state = if value.kind == kind { State::First } else { State::WrongKind };
        Items { raw: value.raw, start: value.start, at: 1, cursor: Cursor::new(value.raw), state, closing }
    }

    fn next_with<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Defect>,
    ) -> Option<Result<T, Defect>> {
        let item = match self.advance() {
            Ok(true) => read(self),
            Ok(false) => return None,
            Err(defect) => Err(defect),
        };
        if item.is_err() {
            self.state = State::Ended;
        }
        Some(item)
    }

    /// Moves to the next item: `false` behind the last.
    fn advance(&mut self) -> Result<bool, Defect> {
        match self.state {
            State::Ended => return Ok(false),
            State::WrongKind if self.closing == b'}' => {
                return Err(Defect::at(self.start, "this is not an object"));
            }
            State::WrongKind => return Err(Defect::at(self.start, "this is not an array")),
            State::First | State::Later => {}
        }
        self.at = after_space(self.raw, self.at);
        let found = self.peek()?;
        if found == self.closing {
            self.state = State::Ended;
            // Only the outermost value, whose inside nobody walked before, can close early.
            return if self.at + 1 == self.raw.len() { Ok(false) } else { Err(self.defect(TRAILING)) };
        }
        if self.state == State::First {
            self.state = State::Later;
            return Ok(true);
        }
        if found != b',' {
            return Err(self.defect("a comma or the closing bracket must follow here"));
        }
        self.at = after_space(self.raw, self.at + 1);
        Ok(true)
    }

    fn key(&mut self) -> Result<Key<'a>, Defect> {
        if self.peek()? != b'"' {
            return Err(self.defect("a key in double quotes must follow here"));
        }
        let from = self.at + 1;
        let (quote, escaped) = string_end(&mut self.cursor, from).ok_or_else(|| self.cut_off())?;
        self.at = after_space(self.raw, quote + 1);
        if self.peek()? != b':' {
            return Err(self.defect("a colon must follow the key"));
        }
        self.at = after_space(self.raw, self.at + 1);
        Ok(Key { raw: &self.raw[from..quote], start: self.start + from, escaped })
    }

    fn value(&mut self) -> Result<Value<'a>, Defect> {
        let (kind, end) = value_end(&mut self.cursor, self.raw, self.at)
            .map_err(|defect| Defect { offset: defect.offset.map(|offset| offset + self.start), ..defect })?;
        let value = Value { kind, raw: &self.raw[self.at..end], start: self.start + self.at };
        self.at = end;
        Ok(value)
    }

    fn peek(&self) -> Result<u8, Defect> {
        self.raw.get(self.at).copied().ok_or_else(|| self.cut_off())
    }

    fn defect(&self, what: &'static str) -> Defect {
        Defect::at(self.start + self.at, what)
    }

    fn cut_off(&self) -> Defect {
        Defect::at(self.start + self.raw.len(), CUT_OFF)
    }
}

/// Kind of the value that begins at `at`, and the offset behind it.
fn value_end(cursor: &mut Cursor<'_, BRACKETS>, bytes: &[u8], at: usize) -> Result<(Kind, usize), Defect> {
    let cut_off = || Defect::at(bytes.len(), CUT_OFF);
    match bytes.get(at).ok_or_else(cut_off)? {
        b'"' => string_end(cursor, at + 1).map(|(quote, _)| (Kind::String, quote + 1)).ok_or_else(cut_off),
        b'{' => Ok((Kind::Object, bracket_end(cursor, bytes, at)?)),
        b'[' => Ok((Kind::Array, bracket_end(cursor, bytes, at)?)),
        b'-' | b'0'..=b'9' => Ok((Kind::Number, number_end(bytes, at))),
        _ => literal(bytes, at),
    }
}

/// The word `true`, `false` or `null` at `at`.
pub(super) fn literal(bytes: &[u8], at: usize) -> Result<(Kind, usize), Defect> {
    let words: [(&[u8], Kind); 3] = [(b"true", Kind::True), (b"false", Kind::False), (b"null", Kind::Null)];
    let rest = bytes.get(at..).unwrap_or_default();
    let word = words.iter().find(|(word, _)| rest.starts_with(word));
    let (word, kind) = word.ok_or(Defect::at(at, "a value must stand here"))?;
    Ok((*kind, at + word.len()))
}

/// The offset behind the bracket that closes the one at `at`.
fn bracket_end(cursor: &mut Cursor<'_, BRACKETS>, bytes: &[u8], at: usize) -> Result<usize, Defect> {
    let mut open = Brackets::inside_one();
    let mut at = at;
    while let Some(found) = cursor.quote_or_bracket(at) {
        at = found + 1;
        match bytes[found] {
            b'"' => match string_end(cursor, at) {
                Some((quote, _)) => at = quote + 1,
                None => break,
            },
            bracket @ (b'{' | b'[') => open.push(bracket, found)?,
            bracket => {
                open.pop(bracket, found)?;
                if open.depth == 1 {
                    return Ok(at);
                }
            }
        }
    }
    Err(Defect::at(bytes.len(), CUT_OFF))
}

/// The brackets that are open.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Brackets {
    /// The innermost in the lowest bit: 1 for `{`, 0 for `[`.
    kinds: u128,
    pub depth: u32,
}

impl Brackets {
    /// Inside the bracket that the walker itself stands in, of whichever kind.
    fn inside_one() -> Brackets {
        Brackets { kinds: 0, depth: 1 }
    }

    pub fn push(&mut self, bracket: u8, at: usize) -> Result<(), Defect> {
        if self.depth == DEPTH_MAX as u32 {
            return Err(Defect::at(at, "more than 128 brackets are open"));
        }
        self.kinds = self.kinds << 1 | u128::from(bracket == b'{');
        self.depth += 1;
        Ok(())
    }

    /// Whether the innermost is a brace.
    pub fn in_object(&self) -> bool {
        self.kinds & 1 == 1
    }

    pub fn pop(&mut self, bracket: u8, at: usize) -> Result<(), Defect> {
        if self.depth == 0 || self.in_object() != (bracket == b'}') {
            return Err(Defect::at(at, "a closing bracket of the other kind"));
        }
        self.kinds >>= 1;
        self.depth -= 1;
        Ok(())
    }
}

/// The quote that ends the string whose inside begins at `from`, and whether a backslash stands before it.
fn string_end(cursor: &mut Cursor<'_, BRACKETS>, from: usize) -> Option<(usize, bool)> {
    let mut escaped = false;
    let end = cursor.string_end(from, |inside| {
        if let Inside::Block { escapes, .. } = inside {
            escaped |= escapes != 0;
        }
        Ok::<(), Infallible>(())
    });
    match end {
        Ok(end) => end.map(|quote| (quote, escaped)),
    }
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    at + bytes[at..].iter().take_while(|byte| is_part(byte)).count()
}

pub(super) fn after_space(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while bytes.get(at).is_some_and(|&byte| is_space(byte)) {
        at += 1;
    }
    at
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// See `Value::as_u64`.
pub(super) fn whole_number(raw: &[u8]) -> Option<u64> {
    let digits_end = raw.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(raw.len());
    let (digits, exponent) = raw.split_at(digits_end);
    if digits.is_empty() || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    let value = decimal(digits)?;
    let exponent = match exponent {
        [] => return Some(value),
        [b'e' | b'E', b'+', rest @ ..] | [b'e' | b'E', rest @ ..] => rest,
        _ => return None,
    };
    if exponent.is_empty() {
        return None;
    }
    let exponent = decimal(exponent)?;
    match value {
        0 => Some(0),
        _ => value.checked_mul(10u64.checked_pow(u32::try_from(exponent).ok()?)?),
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
