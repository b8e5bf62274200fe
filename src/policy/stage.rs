//! The two kinds of policy step and what they may decide: on a request before it is sent, on an answer event
//! by event.
//!
//! A request stage is an async function over the `Exchange`; it may wait (for control, under a deadline of
//! its own). An event stage borrows one event with its lanes and decides at once. Both lists are fixed per
//! snapshot and route (`Stages`). With an empty list of event stages no event is looked at twice and nothing
//! is copied. A whole (non-streamed) answer is one event with the same lanes; `is_whole` tells, and then
//! nothing may be held. A new policy is one type that implements one of the traits; neither relay nor
//! dialects change for it.

use crate::base::error::Error;
use crate::codec::patch::Patches;
use crate::llm::dialect::{Closes, Ending, Lane};
use crate::policy::exchange::Exchange;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The ordered stages of a snapshot.
#[derive(Clone, Default)]
pub struct Stages {
    pub request: Vec<Arc<dyn RequestStage>>,
    /// Each makes its stage for one answer.
    pub event: Vec<Arc<dyn MakeEventStage>>,
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} request stages, {} event stages", self.request.len(), self.event.len())
    }
}

/// What a request stage decided.
#[derive(Debug)]
pub enum Verdict {
    /// Go on; the exchange may have been edited (`Exchange::patches`).
    Pass,
    /// Do not ask an upstream: this is the answer's body, in the caller's dialect.
    Answer(Vec<u8>),
    /// Do not go on.
    Refuse(Error),
}

/// The future of a request stage.
pub type Deciding<'e> = Pin<Box<dyn Future<Output = Verdict> + 'e>>;

/// A step that looks at a request before it is sent.
pub trait RequestStage: Send + Sync {
    /// Decides on the request.
    fn decide<'e>(&'e self, exchange: &'e mut Exchange) -> Deciding<'e>;
}

/// One text of an event.
#[derive(Debug)]
pub struct LaneView<'e> {
    pub lane: Lane,
    /// The text without JSON's escapes, as the stages before left it.
    pub text: Cow<'e, str>,
    /// What replaces it.
    replacement: Option<String>,
}

impl<'e> LaneView<'e> {
    /// A text of an event.
    pub fn new(lane: Lane, text: Cow<'e, str>) -> LaneView<'e> {
        LaneView { lane, text, replacement: None }
    }

    /// Replaces the text; nothing else of the event changes.
    pub fn replace(&mut self, text: String) {
        self.replacement = Some(text);
    }

    /// Makes the replacement the text.
    pub fn settle(&mut self) {
        if let Some(text) = self.replacement.take() {
            self.text = Cow::Owned(text);
        }
    }
}

/// One event as a stage sees it.
#[derive(Debug)]
pub struct EventView<'e> {
    /// The event's data as the provider sent it; empty for text that a stage before released.
    pub data: &'e [u8],
    /// Its texts; empty for events without any.
    pub lanes: Vec<LaneView<'e>>,
    /// Replacements of ranges of `data` that are no lane's text.
    pub patches: Patches,
    /// This is a whole answer: nothing follows.
    pub is_whole: bool,
}

/// What an event stage decided about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventVerdict {
    /// It goes on, with what was replaced in it.
    Pass,
    /// It does not go on. A whole answer does, without texts and tool calls.
    Drop,
    /// It goes on with what was replaced; some text was kept back and is asked for with `release` at the
    /// latest then.
    Hold(Duration),
    /// It goes on with what was replaced, then the stream ends. A whole answer tells this as the reason of
    /// every choice and loses its tool calls, as nobody can tell whether they stand before the end; texts
    /// behind the end are the stage's to take out.
    End(Ending),
}

/// Text that a stage gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    pub lane: Lane,
    pub text: String,
}

/// A step that looks at every event of an answer.
pub trait EventStage {
    /// Decides on one event.
    fn event(&mut self, event: &mut EventView<'_>) -> EventVerdict;

    /// Gives what is kept back of the lanes that `closes` covers: they end, or the time of the hold is over.
    /// Asked behind the event that ends them.
    fn release(&mut self, closes: &Closes, released: &mut Vec<Released>);
}

/// Makes an event stage for one answer.
pub trait MakeEventStage: Send + Sync {
    /// The stage for the answer of `exchange`; none where it does not concern it.
    fn make(&self, exchange: &Exchange) -> Option<Box<dyn EventStage>>;
}
