//! The walker: where a value ends, and iterators over members and elements.
//!
//! One forward pass with a `u128` of bracket kinds as its stack; inside strings `memchr` looks for the next quote
//! or backslash, so a base64 image costs no more than that.

use super::{DEPTH_MAX, Defect, Key, Kind, Member, Value};
use memchr::memchr2;

/// Brackets below an outermost one: `Members` and `Elements` stand inside the first already.
const DEPTH_INSIDE_MAX: u32 = DEPTH_MAX as u32 - 1;

const CUT_OFF: &str = "the document ends inside a value";
const TRAILING: &str = "bytes after the document's end; only white space may follow";

pub(super) fn root(bytes: &[u8]) -> Result<Value<'_>, Defect> {
    let start = after_space(bytes, 0);
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    let Some(&first) = bytes.get(start) else { return Err(Defect::at(start, CUT_OFF)) };
    let raw = &bytes[start..end];
    let (kind, closing) = match first {
        b'{' => (Kind::Object, b'}'),
        b'[' => (Kind::Array, b']'),
        _ => {
            let (kind, found) = value_end(bytes, start)?;
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
        Items { raw: value.raw, start: value.start, at: 1, state, closing }
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
            State::WrongKind if self.closing == b'}' => return Err(self.defect("this is not an object")),
            State::WrongKind => return Err(self.defect("this is not an array")),
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
        let (quote, escaped) = string_end(self.raw, from).ok_or_else(|| self.cut_off())?;
        self.at = after_space(self.raw, quote + 1);
        if self.peek()? != b':' {
            return Err(self.defect("a colon must follow the key"));
        }
        self.at = after_space(self.raw, self.at + 1);
        Ok(Key { raw: &self.raw[from..quote], start: self.start + from, escaped })
    }

    fn value(&mut self) -> Result<Value<'a>, Defect> {
        let (kind, end) = value_end(self.raw, self.at)
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
fn value_end(bytes: &[u8], at: usize) -> Result<(Kind, usize), Defect> {
    let cut_off = || Defect::at(bytes.len(), CUT_OFF);
    let literal = |word: &[u8], kind| match bytes[at..].starts_with(word) {
        true => Ok((kind, at + word.len())),
        false => Err(Defect::at(at, "a word that is neither true, false nor null")),
    };
    match bytes.get(at).ok_or_else(cut_off)? {
        b'"' => string_end(bytes, at + 1).map(|(quote, _)| (Kind::String, quote + 1)).ok_or_else(cut_off),
        b'{' => Ok((Kind::Object, bracket_end(bytes, at)?)),
        b'[' => Ok((Kind::Array, bracket_end(bytes, at)?)),
        b'-' | b'0'..=b'9' => Ok((Kind::Number, number_end(bytes, at))),
        b't' => literal(b"true", Kind::True),
        b'f' => literal(b"false", Kind::False),
        b'n' => literal(b"null", Kind::Null),
        _ => Err(Defect::at(at, "a value must stand here")),
    }
}

/// The offset behind the bracket that closes the one at `at`.
fn bracket_end(bytes: &[u8], at: usize) -> Result<usize, Defect> {
    // The open brackets, the innermost in the lowest bit: 1 for `{`, 0 for `[`.
    let mut open: u128 = 0;
    let mut depth: u32 = 0;
    let mut at = at;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => match string_end(bytes, at) {
                Some((quote, _)) => at = quote + 1,
                None => break,
            },
            b'{' | b'[' if depth == DEPTH_INSIDE_MAX => {
                return Err(Defect::at(at - 1, "more than 128 brackets are open"));
            }
            b'{' | b'[' => {
                open = open << 1 | u128::from(byte == b'{');
                depth += 1;
            }
            b'}' | b']' => {
                if (open & 1 == 1) != (byte == b'}') {
                    return Err(Defect::at(at - 1, "a closing bracket of the other kind"));
                }
                open >>= 1;
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
            _ => {}
        }
    }
    Err(Defect::at(bytes.len(), CUT_OFF))
}

/// The offset of the quote that ends the string whose inside begins at `from`, and whether a backslash stands before
/// it.
fn string_end(bytes: &[u8], from: usize) -> Option<(usize, bool)> {
    let mut at = from;
    let mut escaped = false;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some((at, escaped));
        }
        escaped = true;
        at += 2;
    }
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    at + bytes[at..].iter().take_while(|byte| is_part(byte)).count()
}

fn after_space(bytes: &[u8], at: usize) -> usize {
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
