//! The two kinds of policy step and what they may decide: on a request before it is sent, on an answer event by event.
//!
//! A request stage is an async function over the `Exchange`; it may wait (for control, under a deadline of its own).
//! An event stage borrows one event with its lanes and decides at once. Both lists are fixed when a request is routed: per snapshot
//! and route. With an empty list of event stages no event is looked at twice and nothing is copied.
//! A whole (non-streamed) answer is one event with the same lanes; `is_whole` tells, and then nothing may be held.
//! A new policy is one type that implements one of the traits; neither relay nor dialects change for it.

use crate::base::error::Error;
use crate::llm::dialect::Lane;
use crate::policy::exchange::Exchange;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

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
pub trait RequestStage {
    /// Decides on the request.
    fn decide<'e>(&'e self, exchange: &'e mut Exchange) -> Deciding<'e>;
}

/// One text of an event.
#[derive(Debug)]
pub struct LaneView<'e> {
    pub lane: Lane,
    /// The text without JSON's escapes.
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

    /// What replaces the text, where something does.
    pub fn replacement(&self) -> Option<&str> {
        self.replacement.as_deref()
    }
}

/// One event as a stage sees it.
#[derive(Debug)]
pub struct EventView<'e> {
    /// Its texts; empty for events without any.
    pub lanes: Vec<LaneView<'e>>,
    /// This is a whole answer: nothing follows.
    pub is_whole: bool,
}

/// The way in which a stream is closed early so that its SDK ends normally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As if the output limit had been reached.
    Length,
    /// As if the provider's own filter had stopped it.
    ContentFilter,
    /// As if the model had finished.
    Stop,
}

/// What an event stage decided about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventVerdict {
    /// It goes on, with the texts that were replaced.
    Pass,
    /// It does not go on.
    Drop,
    /// It goes on with the texts that were replaced; some text was kept back and is asked for with `release` at the latest then.
    Hold(Duration),
    /// It goes on with the texts that were replaced, then the stream ends.
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

    /// Gives what is kept back: the lane ends (or all do, for none), or the time of the hold is over.
    fn release(&mut self, lane: Option<Lane>, released: &mut Vec<Released>);
}
