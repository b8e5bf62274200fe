//! Lanes: the independent texts within one answer, and where a piece of one stands.

use crate::codec::json::{Kind, Value};
use smallvec::SmallVec;
use std::ops::Range;

/// One independent text of an answer. Pieces with equal lanes belong together, in the order of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// Which of the alternative answers; 0 where the dialect has one only.
    pub choice: u32,
    /// Which of the answer's items: index of the tool call (OpenAI Chat), of the content block (Anthropic),
    /// of the output item (Responses); 0 for other texts of OpenAI Chat.
    pub item: u32,
    /// Which part of the item; only Responses has several.
    pub part: u32,
    pub kind: LaneKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneKind {
    Text,
    Reasoning,
    Refusal,
    /// Written by the model for a tool: JSON in most cases, cut into pieces at any place.
    ToolArguments,
}

/// A piece of a lane's text within an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneText {
    pub lane: Lane,
    pub part: Part,
    /// Where it stands in the event's data, or in the body: the bytes between the quotes, still escaped.
    pub range: Range<usize>,
}

/// How a piece relates to the lane's text so far. A reader takes `Next` only; an editor has to treat all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It goes on from here.
    Next,
    /// All of the lane's text once more, from its beginning (`.done` events and the last event of Responses).
    /// An edit must come out as it did piece by piece.
    Again,
    /// The piece just before it in this event once more, under another name (`reasoning_details`).
    Echo,
}

/// The texts of one event; four fit without an allocation.
pub type Lanes = SmallVec<[LaneText; 4]>;

impl Lane {
    pub fn new(choice: u32, item: u32, kind: LaneKind) -> Lane {
        Lane { choice, item, part: 0, kind }
    }

    /// Appends `value`, where it is a string.
    pub(super) fn text(self, part: Part, value: Option<Value<'_>>, out: &mut Lanes) {
        if let Some(value) = value.filter(|value| value.kind == Kind::String) {
            let range = value.range();
            out.push(LaneText { lane: self, part, range: range.start + 1..range.end - 1 });
        }
    }
}

/// An index that stands in a document; absent, or beyond 32 bits, it is `otherwise`.
pub(super) fn index(value: Option<Value<'_>>, otherwise: usize) -> u32 {
    let said = value.and_then(|value| value.as_u64()).and_then(|index| u32::try_from(index).ok());
    said.unwrap_or_else(|| u32::try_from(otherwise).unwrap_or(u32::MAX))
}
