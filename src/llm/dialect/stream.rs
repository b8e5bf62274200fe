//! What the gateway must know of a stream to write into it: ids, what is open, what has ended.
//!
//! [`StreamState::observe`] learns it from the events as the client gets them, so what the gateway inserted
//! itself is observed, too. It is run only where a stage may need to write.
//!
//! Limits: `NAME_MAX` bytes of an id or a model's name, `OPEN_MAX` choices or blocks; `TEXTS_MAX` bytes of
//! what Responses wants repeated at the end. What is beyond is not known: see `Dialect::ending`.

use super::lane::{Lane, LaneKind};
use crate::base::id::RequestId;
use smallvec::SmallVec;

/// Longest id or name that is kept.
const NAME_MAX: usize = 512;

/// Most choices, blocks or items that are kept apart.
const OPEN_MAX: usize = 256;

/// Most bytes of texts and objects that are kept of one Responses stream.
pub const TEXTS_MAX: usize = 1024 * 1024;

/// How the gateway ends a stream before the provider does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As if the output limit had been reached.
    Length,
    /// As if the provider's own filter had stopped it.
    ContentFilter,
    /// As if the model had finished.
    Stop,
}

/// An answer by which the gateway, and no model, refuses.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// What the user is told.
    pub text: &'a str,
    pub id: &'a RequestId,
    /// The model's name as the client said it.
    pub model: &'a str,
    /// Now, in seconds since 1970.
    pub created_s: u64,
    pub usage: ShowUsage,
}

/// Whether a stream that has usage on demand shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShowUsage {
    Asked,
    NotAsked,
}

/// Which lanes an event ends: what is held of them must be given out before it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Closes {
    #[default]
    Nothing,
    Choices(SmallVec<[u32; 1]>),
    Item(u32),
    All,
}

impl Closes {
    pub fn covers(&self, lane: Lane) -> bool {
        match self {
            Closes::Nothing => false,
            Closes::Choices(choices) => choices.contains(&lane.choice),
            Closes::Item(item) => lane.item == *item,
            Closes::All => true,
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct StreamState {
    /// Id, model and time of the answer as the provider gave them, still escaped.
    pub(super) id: Vec<u8>,
    pub(super) model: Vec<u8>,
    pub(super) created_s: u64,
    /// The answer's first event has been seen.
    pub(super) started: bool,
    /// Alternative answers (Chat, Completions).
    pub(super) choices: SmallVec<[Choice; 1]>,
    /// The provider's name for reasoning (Chat).
    pub(super) reasoning_name: Option<&'static str>,
    /// Content blocks that are open (Anthropic).
    pub(super) blocks: SmallVec<[u32; 2]>,
    /// The reason why the answer stopped has been told (Anthropic).
    pub(super) stopped: bool,
    /// Index of the next block (Anthropic).
    pub(super) block_next: u32,
    /// Number of the next event (Responses).
    pub(super) sequence: u64,
    /// The response object as its first event gave it (Responses).
    pub(super) response: Vec<u8>,
    pub(super) items: Vec<Item>,
    /// Bytes in `response` and `items`.
    pub(super) texts_len: usize,
    /// Something was beyond a limit.
    pub(super) lossy: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub index: u32,
    pub finished: bool,
}

/// An output item of Responses.
#[derive(Debug)]
pub(super) struct Item {
    pub index: u32,
    /// The object as the last event gave it.
    pub raw: Vec<u8>,
    pub done: bool,
    pub texts: Vec<ItemText>,
}

#[derive(Debug)]
pub(super) struct ItemText {
    pub part: u32,
    pub kind: LaneKind,
    /// Still escaped.
    pub text: Vec<u8>,
    pub done: bool,
}

impl StreamState {
    pub fn new() -> StreamState {
        StreamState::default()
    }

    /// Of a stream of which nothing is known but how many events it had.
    pub fn after(events: u64) -> StreamState {
        StreamState { sequence: events, ..StreamState::default() }
    }

    /// Remembers the first id and name that are not empty.
    pub(super) fn named(&mut self, id: Option<&[u8]>, model: Option<&[u8]>) {
        for (place, said) in [(&mut self.id, id), (&mut self.model, model)] {
            if let Some(said) = said.filter(|said| place.is_empty() && said.len() <= NAME_MAX) {
                place.extend_from_slice(said);
            }
        }
    }

    pub(super) fn choice(&mut self, index: u32, finished: bool) {
        match self.choices.iter().position(|choice| choice.index == index) {
            Some(at) => self.choices[at].finished |= finished,
            None if self.choices.len() < OPEN_MAX => self.choices.push(Choice { index, finished }),
            None => self.lossy = true,
        }
    }

    pub(super) fn open_block(&mut self, index: u32) {
        self.block_next = self.block_next.max(index.saturating_add(1));
        if self.blocks.len() < OPEN_MAX {
            self.blocks.push(index);
        }
    }

    /// The item of that index, where there is room for it and `more` bytes.
    pub(super) fn item(&mut self, index: u32, more: usize) -> Option<&mut Item> {
        let at = self.items.iter().position(|item| item.index == index);
        if self.texts_len + more > TEXTS_MAX || (at.is_none() && self.items.len() == OPEN_MAX) {
            self.lossy = true;
            return None;
        }
        self.texts_len += more;
        let at = at.unwrap_or_else(|| {
            self.items.push(Item { index, raw: Vec::new(), done: false, texts: Vec::new() });
            self.items.len() - 1
        });
        self.items.get_mut(at)
    }
}
