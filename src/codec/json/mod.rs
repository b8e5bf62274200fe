//! JSON without a tree: byte ranges of the few fields that the gateway reads, and a strict check of a whole
//! document.
//!
//! [`check`] decides whether a document is JSON; [`check_fields`] finds members of a request on the way.
//! [`root`] and [`Value`] find members and elements as ranges of the caller's bytes, so that a body can be
//! patched and sent on otherwise untouched. Nothing here allocates but [`unescape`] and its kin, into a
//! buffer of the caller.
//!
//! The walker works on bytes that nobody checked, also on documents cut off in the middle: it reports a
//! [`Defect`] and never panics. It is exact about what it hands out (a key, a colon, a value, a comma) and
//! does not judge what it skips, beyond where strings end and that brackets pair up. So a request is checked
//! before it is walked; an upstream's event need not be.
//!
//! Limits: [`DEPTH_MAX`] open brackets. Time is linear in the length; the slowest bytes that we found, a body
//! of nothing but short escaped keys, are checked at 136 MB/s on a busy core.
//! Errors: all are of whoever wrote the document.
//! Absent: numbers other than unsigned integers, a tree, an encoder of structures.
//! Source: RFC 8259.

mod blocks;
mod strict;
mod text;
mod walk;

pub use strict::{check, check_fields};
pub use text::{escape, unescape, unescaped, write_string};
pub use walk::{Elements, Members};

/// Most brackets that may be open at once, the outermost counted.
pub const DEPTH_MAX: usize = 128;

/// Why bytes are not the JSON that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defect {
    /// Where in the document, if known.
    pub offset: Option<usize>,
    /// What was found and what is allowed.
    pub what: &'static str,
}

impl Defect {
    pub(crate) fn at(offset: usize, what: &'static str) -> Defect {
        Defect { offset: Some(offset), what }
    }
}

impl std::fmt::Display for Defect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "at byte {offset}: {}", self.what),
            None => f.write_str(self.what),
        }
    }
}

impl std::error::Error for Defect {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// One value and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    pub kind: Kind,
    /// Its bytes, without white space around; a string with its quotes.
    pub raw: &'a [u8],
    /// Offset of `raw` in the document that was given to [`root`].
    pub start: usize,
}

/// One member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    pub key: Key<'a>,
    pub value: Value<'a>,
}

/// The name of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The bytes between the quotes, still escaped.
    pub raw: &'a [u8],
    /// Offset of `raw` in the document.
    pub start: usize,
    /// Whether a backslash occurs in `raw`.
    pub escaped: bool,
}

/// The document's only value, white space around it cut off.
///
/// Looks at both ends only: what is wrong inside an object or array shows when it is walked (`members`,
/// `elements`).
pub fn root(bytes: &[u8]) -> Result<Value<'_>, Defect> {
    walk::root(bytes)
}

/// The members of `object` that bear one of `names`, in the order of `names`; one pass. A name may stand in
/// `names` twice.
///
/// A name that occurs twice is refused, in whatever spelling (`"model"`, `"mod\u0065l"`): readers disagree on
/// which of the two counts, so a policy decided on one could be undone by the other. So is a key that is a
/// name but for its case (`"Model"`): readers in Go take it for the name. Other keys may repeat.
pub fn fields<'a, const N: usize>(
    object: Value<'a>,
    names: [&str; N],
) -> Result<[Option<Value<'a>>; N], Defect> {
    let mut found = [None; N];
    for member in object.members() {
        note_field(member?, &names, &mut found)?;
    }
    Ok(found)
}

/// A function of its own: inlined, it takes registers from the scan of everything else.
#[inline(never)]
fn note_field<'a, const N: usize>(
    member: Member<'a>,
    names: &[&str; N],
    found: &mut [Option<Value<'a>>; N],
) -> Result<(), Defect> {
    let key = member.key;
    if key.escaped || !key.raw.is_ascii() {
        return note_odd_field(member, names, found);
    }
    for (name, found) in names.iter().zip(found) {
        // Most keys have another length.
        if key.raw.len() != name.len() {
            continue;
        }
        if key.raw == name.as_bytes() {
            note(member, found)?;
        } else if key.raw.eq_ignore_ascii_case(name.as_bytes()) {
            return Err(other_case(key));
        }
    }
    Ok(())
}

/// A key whose bytes are not what it means, or mean letters of other alphabets.
#[cold]
fn note_odd_field<'a>(
    member: Member<'a>,
    names: &[&str],
    found: &mut [Option<Value<'a>>],
) -> Result<(), Defect> {
    for (name, found) in names.iter().zip(found) {
        if member.key.is(name) {
            note(member, found)?;
        } else if member.key.resembles(name) {
            return Err(other_case(member.key));
        }
    }
    Ok(())
}

fn note<'a>(member: Member<'a>, found: &mut Option<Value<'a>>) -> Result<(), Defect> {
    if found.replace(member.value).is_some() {
        return Err(Defect::at(member.key.start, "a key that must be unique occurs a second time"));
    }
    Ok(())
}

#[cold]
fn other_case(key: Key<'_>) -> Defect {
    Defect::at(key.start, "a key that is read without regard to case by some; spell it exactly")
}

impl<'a> Value<'a> {
    /// The range of `raw` in the document.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.raw.len()
    }

    /// The members of an object in their order. Anything but an object yields one `Defect`.
    pub fn members(&self) -> Members<'a> {
        Members::new(*self)
    }

    /// The elements of an array in their order. Anything but an array yields one `Defect`.
    pub fn elements(&self) -> Elements<'a> {
        Elements::new(*self)
    }

    /// The value of the first member of that name; none too where this is no object or breaks off before the
    /// name.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.members().map_while(Result::ok).find(|member| member.key.is(name)).map(|member| member.value)
    }

    /// As `get`, but looks from the end: for a member that is among the last of a large object, whose others need not
    /// be walked. `quoted` is its name in double quotes. None too where the name stands in an inner object behind it,
    /// or the object does not end well; the last of several counts.
    pub fn get_from_end(&self, quoted: &[u8]) -> Option<Value<'a>> {
        let at = memchr::memmem::rfind(self.raw, quoted).filter(|_| self.kind == Kind::Object)?;
        // Without a backslash before it this is a string's first quote. Where members follow from here to the bracket
        // that closes the object, the name is that of one of its own.
        if at.checked_sub(1).and_then(|before| self.raw.get(before)) == Some(&b'\\') {
            return None;
        }
        let mut members = Members::behind(*self, at);
        let found = members.next()?.ok()?;
        members.all(|member| member.is_ok()).then_some(found.value)
    }

    /// [`Value::get`] again and again: `path(&["usage", "prompt_tokens"])`.
    pub fn path(&self, names: &[&str]) -> Option<Value<'a>> {
        names.iter().try_fold(*self, |value, name| value.get(name))
    }

    /// A string's bytes between the quotes, still escaped.
    pub fn str_raw(&self) -> Option<&'a [u8]> {
        match self.kind {
            Kind::String => self.raw.get(1..self.raw.len().saturating_sub(1)),
            _ => None,
        }
    }

    /// A number that is written as a whole one: digits, with an exponent of zero or more at most (`1e3`).
    /// None for a sign, a fraction, and above `u64::MAX`.
    pub fn as_u64(&self) -> Option<u64> {
        match self.kind {
            Kind::Number => walk::whole_number(self.raw),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.kind {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }
}

impl Key<'_> {
    /// Whether the key means `name`, whatever its spelling.
    pub fn is(&self, name: &str) -> bool {
        if self.escaped { text::means(self.raw, name.as_bytes()) } else { self.raw == name.as_bytes() }
    }

    /// Whether a reader without regard to case takes the key for `name`, which is in lower case.
    pub fn resembles(&self, name: &str) -> bool {
        text::means_in_any_case(self.raw, name.as_bytes())
    }
}

#[cfg(test)]
pub(in crate::codec) mod tests;
