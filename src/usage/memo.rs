//! Remembered shapes of events: most events of all streams of a provider differ in a few places only, and one
//! that is equal elsewhere needs no second reading.
//!
//! Shape: `remember` takes an event that was read and the places (gaps) where others may differ; `recognise`
//! gives the bytes of text in an event whose shape is known. The shapes belong to the thread and not to a
//! stream: what thousands of open streams look at with every event stays in the cache. What stood in the gaps
//! is not kept. Limits: `MEMOS_MAX` shapes a dialect, of at most `MEMO_MAX` bytes; the one used least lately
//! makes way. Errors: none; what is not recognised has to be read.

use crate::llm::dialect::{Dialect, HoleKind};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::ops::Range;

/// Longest event that is remembered. 99 % of the recorded events of OpenAI Chat have at most 493 bytes, of
/// Anthropic 642, of OpenRouter 741.
pub const MEMO_MAX: usize = 768;

/// Shapes of a dialect that are remembered: providers, and kinds of events with text, in use at one time.
const MEMOS_MAX: usize = 8;

/// A place where events of one shape differ.
#[derive(Debug)]
pub struct Gap {
    /// Offsets in the event.
    pub range: Range<usize>,
    pub filling: Filling,
}

/// What may stand in a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// The inside of a string; `Text` is counted.
    Text,
    String,
    Digits,
    Spaces,
}

/// The bytes of text in `raw`, where an event of its shape was remembered.
pub fn recognise(dialect: Dialect, raw: &[u8]) -> Option<u64> {
    if raw.len() > MEMO_MAX {
        return None;
    }
    MEMOS.with_borrow_mut(|memos| {
        let memos = &mut memos[dialect as usize];
        let (at, text_bytes) =
            memos.iter().enumerate().find_map(|(at, memo)| Some((at, memo.matches(raw)?)))?;
        if at > 0 {
            memos.swap(at, at - 1);
        }
        Some(text_bytes)
    })
}

/// Remembers an event, with its gaps in order and apart from each other.
pub fn remember(dialect: Dialect, raw: &[u8], gaps: impl Iterator<Item = Gap>) {
    if raw.len() > MEMO_MAX {
        return;
    }
    let mut memo = Memo::default();
    let mut equal_from = 0;
    for gap in gaps {
        memo.equal.extend_from_slice(raw.get(equal_from..gap.range.start).unwrap_or_default());
        memo.gaps.push((memo.equal.len(), gap.filling));
        equal_from = gap.range.end;
    }
    memo.equal.extend_from_slice(raw.get(equal_from..).unwrap_or_default());
    MEMOS.with_borrow_mut(|memos| {
        let memos = &mut memos[dialect as usize];
        memos.truncate(MEMOS_MAX - 1);
        memos.insert(0, memo);
    });
}

/// One shape.
#[derive(Default)]
struct Memo {
    /// What stands outside the gaps, joined.
    equal: Vec<u8>,
    /// Where in `equal` each gap is.
    gaps: SmallVec<[(usize, Filling); 8]>,
}

impl Memo {
    /// The bytes of text in `raw`, if it is of the same shape.
    fn matches(&self, raw: &[u8]) -> Option<u64> {
        let (mut rest, mut equal_from, mut text_bytes) = (raw, 0, 0);
        for (end, filling) in &self.gaps {
            rest = rest.strip_prefix(self.equal.get(equal_from..*end)?)?;
            let len = filling.len(rest)?;
            if *filling == Filling::Text {
                text_bytes += len as u64;
            }
            rest = rest.get(len..)?;
            equal_from = *end;
        }
        (rest == self.equal.get(equal_from..)?).then_some(text_bytes)
    }
}

impl Filling {
    /// How far the filling reaches that `bytes` begin with.
    fn len(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Filling::Text | Filling::String => string_len(bytes),
            Filling::Digits => {
                Some(bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()).filter(|&len| len > 0)
            }
            Filling::Spaces => Some(bytes.iter().take_while(|&&byte| byte == b' ').count()),
        }
    }
}

impl From<HoleKind> for Filling {
    fn from(kind: HoleKind) -> Filling {
        match kind {
            HoleKind::Text => Filling::Text,
            HoleKind::String => Filling::String,
            HoleKind::Digits => Filling::Digits,
        }
    }
}

/// Length of the string's inside that `bytes` begin with. None where it does not end here, or holds a control
/// character: a line end would end the data, too. Byte by byte, as most have fewer than ten.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' if *bytes.get(at + 1)? >= b' ' => at += 2,
            b' '..=b'[' | b']'..=b'\xff' => at += 1,
            _ => return None,
        }
    }
}

thread_local! {
    /// By dialect, the one used last mostly first.
    static MEMOS: RefCell<[Vec<Memo>; Dialect::ALL.len()]> =
        const { RefCell::new([const { Vec::new() }; Dialect::ALL.len()]) };
}

#[cfg(test)]
mod tests {
    use super::{Filling, Gap, MEMOS_MAX, recognise, remember};
    use crate::llm::dialect::Dialect::{Anthropic, OpenAiChat};

    fn event(kind: usize, text: &str) -> String {
        format!("data: {{\"kind\":\"{kind:02}\",\"text\":\"{text}\"}}\n\n")
    }

    fn remember_kind(kind: usize) {
        let raw = event(kind, "");
        let at = raw.len() - "\"}\n\n".len();
        remember(OpenAiChat, raw.as_bytes(), [Gap { range: at..at, filling: Filling::Text }].into_iter());
    }

    #[test]
    fn a_shape_is_known_to_its_dialect_until_newer_ones_need_its_place() {
        assert_eq!(recognise(OpenAiChat, event(0, "abc").as_bytes()), None);
        remember_kind(0);
        assert_eq!(recognise(OpenAiChat, event(0, "abc").as_bytes()), Some(3));
        assert_eq!(recognise(Anthropic, event(0, "abc").as_bytes()), None);
        (1..MEMOS_MAX).for_each(remember_kind);
        for kind in 0..MEMOS_MAX {
            assert_eq!(recognise(OpenAiChat, event(kind, "ab\\\"").as_bytes()), Some(4), "kind {kind}");
        }
        remember_kind(99);
        let known =
            (0..MEMOS_MAX).filter(|kind| recognise(OpenAiChat, event(*kind, "").as_bytes()).is_some());
        assert_eq!(known.count(), MEMOS_MAX - 1);
    }
}
