//! The skeleton of an answer: the few members that matter, filtered out of bytes that come in pieces of any
//! size.
//!
//! A document that is too long to be kept, or that arrives cut, is fed to a [`Skeleton`] as it comes. What
//! stands under the names of the dialect's [`Kept`] table is copied; objects and lists on the way there are
//! opened; everything else is looked at once, for its brackets and quotes, and forgotten. The result is a
//! small document with the same class and the same usage. Beside that it counts the bytes of the model's text
//! and notes where the text of this document stands.
//!
//! Because one machine reads all, the cuts make no difference. It is exact about strings and brackets, so a
//! `"usage"` inside a string or a nested object is never taken for the answer's own.
//!
//! Limits: `DOCUMENT_MAX` bytes are kept and `INTO_MAX` brackets opened; a document that needs more has no
//! skeleton.
//! Errors: none; a document that is no JSON or breaks off has no skeleton.
//! Absent: judging what is skipped.

use crate::codec::json::Key;
use smallvec::SmallVec;

/// Most bytes of a skeleton. Usage objects take some 500, a finished choice 40.
pub const DOCUMENT_MAX: usize = 16 * 1024;

/// Most brackets that are opened on the way to a member.
const INTO_MAX: u8 = 4;

/// Longest spelling of a key that is compared; a name of the tables has at most 17 bytes, an escape is six
/// for one.
const KEY_MAX: usize = 104;

/// Most places that are noted: an id, a time and a fingerprint, a text, a padding, and one more.
const HOLES_MAX: usize = 6;

/// Most bytes of a document that is no object (`[DONE]`).
const BARE_MAX: usize = 16;

/// Which members of a dialect's answers are told apart.
#[derive(Debug)]
pub struct Kept {
    /// Objects and lists that are opened.
    pub into: &'static [&'static str],
    /// Members that are copied, in whatever was opened.
    pub keep: &'static [&'static str],
    /// Members whose string is text of the model, in events of a stream.
    pub texts_in_event: Texts,
    /// The same in whole answers.
    pub texts_in_whole: Texts,
    /// Members of the outermost object that differ from event to event, or from stream to stream, and mean
    /// nothing here.
    pub loose: &'static [&'static str],
}

/// Members whose strings are counted as text of the model.
#[derive(Clone, Copy, Debug)]
pub struct Texts {
    pub names: &'static [&'static str],
    pub reach: Reach,
}

/// Where a member must stand to be text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In an object that is opened.
    Opened,
    /// Anywhere.
    Anywhere,
}

/// A place in the document whose content does not matter to its skeleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Offsets in the document; of a string between the quotes.
    pub start: u32,
    pub end: u32,
    pub kind: HoleKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoleKind {
    /// A string that is the model's text.
    Text,
    /// Another string.
    String,
    /// A whole number.
    Digits,
}

/// See the module's text.
#[derive(Debug)]
pub struct Skeleton {
    kept: &'static Kept,
    texts: Texts,
    /// The kept document.
    out: Vec<u8>,
    state: State,
    /// Opened brackets, the innermost in the lowest bit: 1 for an object.
    opened: u8,
    opened_len: u8,
    /// Brackets open in the value that is copied or skipped.
    nested: u32,
    /// No JSON, or beyond a limit.
    broken: bool,
    /// The string that is being read ends its piece with a backslash.
    escaped: bool,
    /// The key that was read last, or its beginning.
    key: SmallVec<[u8; 32]>,
    key_escaped: bool,
    /// Bytes that were eaten before the current piece.
    eaten: usize,
    /// Where the current hole began.
    hole_start: usize,
    holes: SmallVec<[Hole; HOLES_MAX]>,
    holes_missed: bool,
    text_bytes: u64,
    /// Where the outermost bracket closed.
    end: usize,
}

/// What is done with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Into,
    Keep,
    Text,
    Loose,
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the document.
    Start,
    /// In a document that is no object.
    Bare,
    /// In an opened object, before a key or its end.
    BeforeKey,
    InKey,
    BeforeColon,
    BeforeValue(Action),
    /// In an opened list, before an element or its end.
    BeforeElement,
    /// In a number or a word.
    Scalar(Action),
    /// In a string.
    String(Action),
    /// Between the tokens of a nested value that is skipped.
    Nested,
    /// In a string of such a value; it may turn out to be a key.
    NestedString,
    /// Behind that string.
    NestedAfterString,
    /// Behind such a key's colon, where the key is one of the texts'.
    NestedBeforeText,
    NestedText,
    /// Between the tokens of a nested value that is copied.
    CopiedNested,
    CopiedString,
    /// The outermost bracket has closed.
    Done,
}

impl Skeleton {
    /// A machine for one dialect's documents; `texts` is one of the two fields of `kept`.
    pub fn new(kept: &'static Kept, texts: Texts) -> Skeleton {
        Skeleton {
            kept,
            texts,
            out: Vec::new(),
            state: State::Start,
            opened: 0,
            opened_len: 0,
            nested: 0,
            broken: false,
            escaped: false,
            key: SmallVec::new(),
            key_escaped: false,
            eaten: 0,
            hole_start: 0,
            holes: SmallVec::new(),
            holes_missed: false,
            text_bytes: 0,
            end: 0,
        }
    }

    /// Makes ready for the next document.
    pub fn clear(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        if out.capacity() > 1024 {
            out = Vec::new();
        }
        let key = std::mem::take(&mut self.key);
        *self = Skeleton { out, key, ..Skeleton::new(self.kept, self.texts) };
    }

    /// Nothing of a document was read.
    pub fn is_fresh(&self) -> bool {
        self.eaten == 0
    }

    /// Reads on.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut at = 0;
        while let (Some(&byte), false) = (piece.get(at), self.broken) {
            at = self.step(piece, at, byte);
        }
        self.eaten += piece.len();
    }

    /// The kept document, where the one that was fed has come to its end.
    pub fn document(&self) -> Option<&[u8]> {
        (matches!(self.state, State::Done | State::Bare) && !self.broken).then_some(&self.out)
    }

    /// Bytes of the model's text, still escaped.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Where in the document the content does not matter, in order; none if there are more places than are
    /// noted.
    pub fn holes(&self) -> Option<&[Hole]> {
        (self.state == State::Done && !self.broken && !self.holes_missed).then_some(&self.holes)
    }

    /// The offset of the outermost closing bracket.
    pub fn end(&self) -> Option<usize> {
        (self.state == State::Done).then_some(self.end)
    }

    /// Reads at least one byte from `at` on, unless only the state changes; returns where to go on.
    fn step(&mut self, piece: &[u8], at: usize, byte: u8) -> usize {
        match self.state {
            State::Start => self.start(byte, at),
            State::Bare => {
                if self.out.len() < BARE_MAX {
                    self.out.push(byte);
                }
                at + 1
            }
            State::BeforeKey => self.before_key(byte, at),
            State::InKey => self.in_key(piece, at, State::BeforeColon),
            State::BeforeColon => match byte {
                b':' => self.go(State::BeforeValue(self.action()), at + 1),
                byte if is_space(byte) => at + 1,
                _ => self.give_up(at),
            },
            State::BeforeValue(_) if is_space(byte) => at + 1,
            State::BeforeValue(action) => self.value(action, byte, at),
            State::BeforeElement => self.before_element(byte, at),
            State::Scalar(action) => self.scalar(action, piece, at),
            State::String(action) => self.string(action, piece, at),
            State::Nested | State::NestedString | State::NestedAfterString => self.nested(piece, at, byte),
            State::NestedBeforeText => match byte {
                b'"' => self.begin_hole(State::NestedText, at + 1),
                byte if is_space(byte) => at + 1,
                _ => self.go(State::Nested, at),
            },
            State::NestedText => self.nested_text(piece, at),
            State::CopiedNested => self.copied_nested(piece, at),
            State::CopiedString => match self.string_end(piece, at) {
                Some(end) => self.copy(&piece[at..end], State::CopiedNested, end),
                None => self.copy(&piece[at..], State::CopiedString, piece.len()),
            },
            State::Done => piece.len(),
        }
    }

    fn go(&mut self, state: State, at: usize) -> usize {
        self.state = state;
        at
    }

    fn give_up(&mut self, at: usize) -> usize {
        self.broken = true;
        at
    }

    fn start(&mut self, byte: u8, at: usize) -> usize {
        match byte {
            b'{' => self.open(b'{', at + 1),
            byte if is_space(byte) => at + 1,
            _ => self.go(State::Bare, at),
        }
    }

    fn open(&mut self, bracket: u8, at: usize) -> usize {
        self.opened = self.opened << 1 | u8::from(bracket == b'{');
        self.opened_len += 1;
        let state = self.parent();
        self.copy(&[bracket], state, at)
    }

    fn close(&mut self, bracket: u8, at: usize) -> usize {
        self.opened >>= 1;
        self.opened_len -= 1;
        if self.opened_len == 0 {
            self.end = self.eaten + at;
        }
        let state = self.parent();
        self.copy(&[bracket], state, at + 1)
    }

    /// Where a value's end leads to.
    fn parent(&self) -> State {
        match (self.opened_len, self.opened & 1) {
            (0, _) => State::Done,
            (_, 1) => State::BeforeKey,
            _ => State::BeforeElement,
        }
    }

    fn before_key(&mut self, byte: u8, at: usize) -> usize {
        match byte {
            b'"' => {
                self.key.clear();
                self.key_escaped = false;
                self.go(State::InKey, at + 1)
            }
            b'}' => self.close(b'}', at),
            b',' => at + 1,
            byte if is_space(byte) => at + 1,
            _ => self.give_up(at),
        }
    }

    /// Reads a string that is a key, or may be one, and keeps its beginning.
    fn in_key(&mut self, piece: &[u8], at: usize, then: State) -> usize {
        let end = self.string_end(piece, at);
        let inside = &piece[at..end.map_or(piece.len(), |end| end - 1)];
        let room = (KEY_MAX + 1).saturating_sub(self.key.len());
        self.key.extend_from_slice(&inside[..inside.len().min(room)]);
        match end {
            Some(end) => {
                self.key_escaped = self.key.contains(&b'\\');
                self.go(then, end)
            }
            None => piece.len(),
        }
    }

    fn action(&self) -> Action {
        let names = [
            (self.kept.into, Action::Into),
            (self.kept.keep, Action::Keep),
            (self.texts.names, Action::Text),
            (if self.opened_len == 1 { self.kept.loose } else { &[] }, Action::Loose),
        ];
        let found = names.into_iter().find(|(names, _)| self.key_is_one_of(names));
        found.map_or(Action::Skip, |(_, action)| action)
    }

    fn key_is_one_of(&self, names: &[&str]) -> bool {
        let key = Key { raw: &self.key, start: 0, escaped: self.key_escaped };
        names.iter().any(|name| key.is(name))
    }

    fn before_element(&mut self, byte: u8, at: usize) -> usize {
        match byte {
            b']' => self.close(b']', at),
            b',' => at + 1,
            byte if is_space(byte) => at + 1,
            b'{' if self.opened_len < INTO_MAX => {
                self.comma();
                self.open(b'{', at + 1)
            }
            _ => {
                self.comma();
                self.copy(b"0", self.state, at);
                self.value(Action::Skip, byte, at)
            }
        }
    }

    fn value(&mut self, action: Action, byte: u8, at: usize) -> usize {
        if matches!(byte, b',' | b':' | b'}' | b']') {
            return self.give_up(at);
        }
        let opens = matches!(byte, b'{' | b'[');
        if action == Action::Into && opens && self.opened_len < INTO_MAX {
            self.member();
            return self.open(byte, at + 1);
        }
        if matches!(action, Action::Into | Action::Keep) {
            self.member();
            return match byte {
                b'"' => self.copy(b"\"", State::String(Action::Keep), at + 1),
                _ if opens => {
                    self.nested = 0;
                    self.go(State::CopiedNested, at)
                }
                _ => self.go(State::Scalar(Action::Keep), at),
            };
        }
        match byte {
            b'"' => self.begin_hole(State::String(action), at + 1),
            _ if opens => {
                self.nested = 0;
                self.go(State::Nested, at)
            }
            b'0'..=b'9' if action == Action::Loose => self.begin_hole(State::Scalar(action), at),
            _ => self.go(State::Scalar(Action::Skip), at),
        }
    }

    fn scalar(&mut self, action: Action, piece: &[u8], at: usize) -> usize {
        let rest = &piece[at..];
        let ends =
            |byte: &u8| matches!(byte, b',' | b'}' | b']' | b'{' | b'[' | b'"' | b':') || is_space(*byte);
        let len = rest.iter().position(ends);
        let inside = &rest[..len.unwrap_or(rest.len())];
        if action == Action::Loose && !inside.iter().all(u8::is_ascii_digit) {
            self.holes_missed = true;
        }
        if action == Action::Keep {
            self.copy(inside, self.state, at);
        }
        let Some(len) = len else { return piece.len() };
        if action == Action::Loose {
            self.end_hole(HoleKind::Digits, at + len);
        }
        self.go(self.parent(), at + len)
    }

    fn string(&mut self, action: Action, piece: &[u8], at: usize) -> usize {
        let end = self.string_end(piece, at);
        if action == Action::Keep {
            let end = end.unwrap_or(piece.len());
            self.copy(&piece[at..end], self.state, end);
        }
        let inside = end.map_or(piece.len(), |end| end - 1);
        if action == Action::Text {
            self.text_bytes += (inside - at) as u64;
        }
        let Some(end) = end else { return piece.len() };
        match action {
            Action::Text => self.end_hole(HoleKind::Text, inside),
            Action::Loose => self.end_hole(HoleKind::String, inside),
            Action::Into | Action::Keep | Action::Skip => {}
        }
        self.go(self.parent(), end)
    }

    fn nested(&mut self, piece: &[u8], at: usize, byte: u8) -> usize {
        match self.state {
            State::NestedString => return self.in_key(piece, at, State::NestedAfterString),
            State::NestedAfterString if is_space(byte) => return at + 1,
            State::NestedAfterString
                if byte == b':'
                    && self.texts.reach == Reach::Anywhere
                    && self.key_is_one_of(self.texts.names) =>
            {
                return self.go(State::NestedBeforeText, at + 1);
            }
            _ => self.state = State::Nested,
        }
        let Some(found) = next_structural(&piece[at..]) else { return piece.len() };
        let at = at + found;
        match piece[at] {
            b'"' => {
                self.key.clear();
                self.key_escaped = false;
                self.state = State::NestedString;
            }
            b'{' | b'[' => self.nested = self.nested.saturating_add(1),
            _ => {
                self.nested -= 1;
                if self.nested == 0 {
                    self.state = self.parent();
                }
            }
        }
        at + 1
    }

    fn nested_text(&mut self, piece: &[u8], at: usize) -> usize {
        let end = self.string_end(piece, at);
        let inside = end.map_or(piece.len(), |end| end - 1);
        self.text_bytes += (inside - at) as u64;
        let Some(end) = end else { return piece.len() };
        self.end_hole(HoleKind::Text, inside);
        self.go(State::Nested, end)
    }

    fn copied_nested(&mut self, piece: &[u8], at: usize) -> usize {
        let Some(found) = next_structural(&piece[at..]) else {
            return self.copy(&piece[at..], self.state, piece.len());
        };
        let end = at + found + 1;
        let then = match piece[end - 1] {
            b'"' => State::CopiedString,
            b'{' | b'[' => {
                self.nested = self.nested.saturating_add(1);
                State::CopiedNested
            }
            _ => {
                self.nested -= 1;
                if self.nested == 0 { self.parent() } else { State::CopiedNested }
            }
        };
        self.copy(&piece[at..end], then, end)
    }

    /// The offset behind the quote that ends the current string.
    fn string_end(&mut self, piece: &[u8], at: usize) -> Option<usize> {
        let mut at = at;
        if std::mem::take(&mut self.escaped) {
            at += 1;
        }
        loop {
            at += memchr::memchr2(b'"', b'\\', piece.get(at..)?)? + 1;
            if piece[at - 1] == b'"' {
                return Some(at);
            }
            if at == piece.len() {
                self.escaped = true;
                return None;
            }
            at += 1;
        }
    }

    fn begin_hole(&mut self, state: State, at: usize) -> usize {
        self.hole_start = self.eaten + at;
        self.go(state, at)
    }

    fn end_hole(&mut self, kind: HoleKind, at: usize) {
        let offsets = u32::try_from(self.hole_start).ok().zip(u32::try_from(self.eaten + at).ok());
        match offsets {
            Some((start, end)) if self.holes.len() < HOLES_MAX => self.holes.push(Hole { start, end, kind }),
            _ => self.holes_missed = true,
        }
    }

    fn comma(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    /// Writes the key that was read last, with its colon.
    fn member(&mut self) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(&self.key);
        self.out.extend_from_slice(b"\":");
    }

    fn copy(&mut self, bytes: &[u8], then: State, at: usize) -> usize {
        if self.out.len() + bytes.len() > DOCUMENT_MAX {
            return self.give_up(at);
        }
        self.out.extend_from_slice(bytes);
        self.go(then, at)
    }
}

/// The offset of the next quote or bracket.
fn next_structural(bytes: &[u8]) -> Option<usize> {
    // With this bit set, `[` and `]` are `{` and `}`.
    let is = |byte: u8| byte == b'"' || matches!(byte | 0x20, b'{' | b'}');
    let mut blocks = bytes.chunks_exact(32);
    // Without a branch per byte, so that the compiler takes vector instructions: lists of numbers are long.
    let none = |block: &[u8]| block.iter().fold(0, |found, &byte| found | u8::from(is(byte))) == 0;
    let skipped = 32 * blocks.by_ref().take_while(|block| none(block)).count();
    bytes[skipped..].iter().position(|&byte| is(byte)).map(|at| skipped + at)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests;
