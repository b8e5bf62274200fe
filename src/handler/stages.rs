//! Runs the event stages of one answer, in order, on whole events.
//!
//! Each stage sees the texts as the stages before left them. What no stage changed goes on byte for byte;
//! what one did is spliced into the event's data and everything else of it stays. Text that a stage gives
//! back passes the stages behind it. It goes into the event at hand where that has a text of its lane (the
//! last word and the finish reason in one chunk), else it becomes an event of the dialect before it.
//! Texts that a dialect repeats (`Part::Again`: the closing events of Responses) come out as they did piece
//! by piece; one that no piece announced is shown to the stages as if it were new. Limits: `SAID_BYTES_MAX`
//! of text in `LANES_MAX` lanes are remembered for repeats; beyond, repeats are empty, since the
//! provider says there may have been edited.
//! A whole answer that is dropped keeps its form and loses its texts and tool calls.

use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::codec::json;
use crate::codec::patch::Patches;
use crate::codec::sse::{self, Event};
use crate::llm::dialect::{
    Class, Closes, Dialect, Ending, Lane, LaneText, Lanes, Part, StreamState, Usage, is_done,
};
use crate::policy::stage::{EventStage, EventVerdict, EventView, LaneView, Released};
use std::borrow::Cow;
use std::time::Duration;

/// Text that is remembered for repeats, all lanes together.
const SAID_BYTES_MAX: usize = 8 << 20;

/// Lanes of which text is remembered.
const LANES_MAX: usize = 4096;

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Staged {
    /// It goes on as it is, behind what was written.
    Pass,
    /// What goes on instead, perhaps nothing, was written.
    Replaced,
    /// What goes on was written; the stream ends so.
    Ended(Ending),
}

/// The stages of one answer.
pub struct StageRunner {
    dialect: Dialect,
    stages: Vec<Box<dyn EventStage>>,
    state: StreamState,
    said: Vec<Said>,
    said_bytes: usize,
    /// More was said than is remembered.
    said_more: bool,
    hold_until: Instant,
    joined: Vec<u8>,
}

/// What is known of a lane.
struct Said {
    lane: Lane,
    /// The provider has given a piece of it.
    has_come: bool,
    /// What went on of it.
    text: String,
}

/// A whole answer as it goes on.
pub struct Whole {
    pub body: Vec<u8>,
    pub ended: Option<Ending>,
}

impl StageRunner {
    /// A runner for an answer in `dialect`; none without a stage.
    pub fn new(dialect: Dialect, stages: Vec<Box<dyn EventStage>>) -> Option<Box<StageRunner>> {
        let runner = StageRunner {
            dialect,
            stages,
            state: StreamState::new(),
            said: Vec::new(),
            said_bytes: 0,
            said_more: false,
            hold_until: Instant::NEVER,
            joined: Vec::new(),
        };
        (!runner.stages.is_empty()).then(|| Box::new(runner))
    }

    /// When held text must be asked for at the latest.
    pub fn hold_until(&self) -> Instant {
        self.hold_until
    }

    /// Runs the stages on one event of a stream.
    pub fn event(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Staged {
        let mut joined = std::mem::take(&mut self.joined);
        let event = Event::parse(raw, &mut joined);
        let staged = if event.data.is_absent() { Staged::Pass } else { self.staged(raw, &event, out) };
        self.joined = joined;
        staged
    }

    /// Runs the stages on a whole answer.
    pub fn whole(&mut self, body: Vec<u8>) -> Whole {
        let mut lanes = Lanes::new();
        self.dialect.lanes_whole(&body, &mut lanes);
        let edited = self.decide(&body, &lanes, &Closes::All, None);
        let mut patches = edited.patches;
        if edited.dropped {
            patches = Patches::new();
            match edited.ending {
                Some(ending) => self.dialect.end_whole(ending, &body, &mut patches),
                None => self.dialect.cut_calls(&body, &mut patches),
            }
            for text in lanes {
                // What stands in a call is gone with it.
                let _ = patches.replace(text.range, b"");
            }
        }
        let ended = edited.ending;
        if patches.is_empty() {
            return Whole { body, ended };
        }
        let mut out = Vec::new();
        patches.apply(&body, &mut out);
        Whole { body: out, ended }
    }

    /// The stream has ended, perhaps within an event: `rest`. Held text goes out. A rest that no reader could
    /// make sense of does not: no stage could either.
    pub fn end(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<Ending> {
        let mut joined = Vec::new();
        let is_readable = {
            let data = Event::parse(rest, &mut joined).data;
            data.is_absent() || is_done(data.bytes()) || json::root(data.bytes()).is_ok()
        };
        if is_readable {
            match self.event(rest, out) {
                Staged::Pass => out.extend_from_slice(rest),
                Staged::Replaced => {}
                Staged::Ended(ending) => return Some(ending),
            }
        }
        self.release(out)
    }

    /// The time of a hold is over.
    pub fn release_all(&mut self, out: &mut Vec<u8>) -> Option<Ending> {
        self.hold_until = Instant::NEVER;
        self.release(out)
    }

    /// Writes the dialect's own early end. `usage` where the client asked for it.
    pub fn write_ending(&mut self, ending: Ending, usage: Option<&Usage>, out: &mut Vec<u8>) {
        self.release(out);
        self.dialect.ending(ending, &self.state, usage, out);
    }

    /// Writes the events that tell of an error, behind what is held.
    pub fn write_error(&mut self, error: &Error, id: &RequestId, out: &mut Vec<u8>) {
        self.release(out);
        self.dialect.stream_error(error, id, &self.state, out);
    }

    fn staged(&mut self, raw: &[u8], event: &Event<'_>, out: &mut Vec<u8>) -> Staged {
        let data = event.data.bytes();
        let closes = self.dialect.closes(event.name, data);
        let mut lanes = Lanes::new();
        self.dialect.lanes(event.name, data, &mut lanes);
        for text in &mut lanes {
            let is_known = self.said.iter().any(|said| said.lane == text.lane && said.has_come);
            if text.part == Part::Again && !is_known && !self.said_more {
                text.part = Part::Next;
            }
        }
        let mut edited = self.decide(data, &lanes, &closes, Some(out));
        match edited.ending {
            // The dialect's own end must not come twice.
            Some(ending) if edited.dropped || self.dialect.class(event.name, data) == Class::End => {
                return Staged::Ended(ending);
            }
            Some(ending) => self.dialect.end_event(ending, event.name, data, &mut edited.patches),
            None if edited.dropped => return Staged::Replaced,
            None if edited.patches.is_empty() => {
                self.dialect.observe(&mut self.state, raw);
                return Staged::Pass;
            }
            None => {}
        }
        let from = out.len();
        match event.data.range() {
            _ if edited.patches.is_empty() => out.extend_from_slice(raw),
            Some(range) => {
                out.extend_from_slice(&raw[..range.start]);
                edited.patches.apply(data, out);
                out.extend_from_slice(&raw[range.end..]);
            }
            // Data of several lines has no one place: the event is written anew.
            None => {
                let mut patched = Vec::new();
                edited.patches.apply(data, &mut patched);
                sse::write_event(out, event.name.and_then(|name| std::str::from_utf8(name).ok()), &patched);
            }
        }
        self.dialect.observe(&mut self.state, &out[from..]);
        edited.ending.map_or(Staged::Replaced, Staged::Ended)
    }

    /// Asks every stage about one event and gathers what they changed. `out` takes what comes before the
    /// event; none for a whole answer.
    fn decide(
        &mut self,
        data: &[u8],
        lanes: &Lanes,
        closes: &Closes,
        mut out: Option<&mut Vec<u8>>,
    ) -> Edited {
        let views = lanes.iter().filter(|text| text.part == Part::Next);
        let mut view = EventView {
            data,
            lanes: views.filter_map(|text| Some(LaneView::new(text.lane, text_of(data, text)?))).collect(),
            patches: Patches::new(),
            is_whole: out.is_none(),
        };
        self.note_lanes(&view);
        let mut edited = Edited::default();
        for at in 0..self.stages.len() {
            let verdict = self.stages[at].event(&mut view);
            view.lanes.iter_mut().for_each(LaneView::settle);
            match verdict {
                EventVerdict::Pass => {}
                EventVerdict::Drop => return Edited { dropped: true, ..edited },
                EventVerdict::Hold(at_most) => self.hold(at_most),
                EventVerdict::End(ending) => edited.ending = edited.ending.or(Some(ending)),
            }
            if *closes == Closes::Nothing {
                continue;
            }
            let mut released = Vec::new();
            self.stages[at].release(closes, &mut released);
            for Released { lane, text } in released {
                match (view.lanes.iter_mut().rfind(|view| view.lane == lane), &mut out) {
                    (Some(view), _) => view.text.to_mut().push_str(&text),
                    (None, Some(out)) => {
                        if let Some(ending) = self.pass_on(at + 1, lane, text, out) {
                            // The event at hand comes behind that end.
                            return Edited { dropped: true, ending: Some(ending), ..edited };
                        }
                    }
                    (None, None) => {}
                }
            }
        }
        self.remember(&view);
        edited.patches = std::mem::take(&mut view.patches);
        if view.is_whole
            && let Some(ending) = edited.ending
        {
            self.dialect.end_whole(ending, data, &mut edited.patches);
        }
        self.splice(data, lanes, &view, &mut edited.patches);
        edited
    }

    /// Puts the texts of `view` into their places, where one differs from what stands there.
    fn splice(&self, data: &[u8], lanes: &Lanes, view: &EventView<'_>, patches: &mut Patches) {
        let mut shown = view.lanes.iter();
        let mut last: Option<&str> = None;
        for text in lanes {
            let Some(old) = text_of(data, text) else { continue };
            let new = match text.part {
                Part::Next => shown.next().map(|lane| &*lane.text),
                Part::Echo => last,
                Part::Again => Some(self.said(text.lane)),
            };
            last = new;
            if let Some(new) = new
                && new != old
            {
                let mut escaped = Vec::with_capacity(new.len());
                json::escape(new.as_bytes(), &mut escaped);
                // A stage that patched the place of a text by hand has been heard already, and what stands in
                // a call that was cut is gone.
                let _ = patches.replace(text.range.clone(), &escaped);
            }
        }
    }

    /// What went on of a lane.
    fn said(&self, lane: Lane) -> &str {
        let said = self.said.iter().find(|said| said.lane == lane && !self.said_more);
        said.map_or("", |said| &said.text)
    }

    /// Notes which lanes the provider has given text of, whatever becomes of it.
    fn note_lanes(&mut self, view: &EventView<'_>) {
        for text in &view.lanes {
            let has_come = !text.text.is_empty();
            match self.said.iter().position(|said| said.lane == text.lane) {
                Some(at) => self.said[at].has_come |= has_come,
                None if self.said.len() == LANES_MAX => self.said_more = true,
                None => self.said.push(Said { lane: text.lane, has_come, text: String::new() }),
            }
        }
    }

    fn remember(&mut self, view: &EventView<'_>) {
        for text in &view.lanes {
            self.said_bytes += text.text.len();
            self.said_more |= self.said_bytes > SAID_BYTES_MAX;
            if self.said_more {
                self.said.iter_mut().for_each(|said| said.text = String::new());
            } else if let Some(said) = self.said.iter_mut().find(|said| said.lane == text.lane) {
                said.text.push_str(&text.text);
            }
        }
    }

    fn hold(&mut self, at_most: Duration) {
        self.hold_until = self.hold_until.min(clock::now() + at_most);
    }

    /// Asks the stages for all that they hold, and writes it as events. What a stage decided to end with.
    fn release(&mut self, out: &mut Vec<u8>) -> Option<Ending> {
        let mut ending = None;
        for at in 0..self.stages.len() {
            let mut released = Vec::new();
            self.stages[at].release(&Closes::All, &mut released);
            for Released { lane, text } in released {
                ending = ending.or(self.pass_on(at + 1, lane, text, out));
            }
        }
        ending
    }

    /// Text that a stage gave back passes the stages from `from` on.
    fn pass_on(&mut self, from: usize, lane: Lane, text: String, out: &mut Vec<u8>) -> Option<Ending> {
        let lanes = vec![LaneView::new(lane, Cow::Owned(text))];
        let mut view = EventView { data: &[], lanes, patches: Patches::new(), is_whole: false };
        let mut ending = None;
        for at in from..self.stages.len() {
            let verdict = self.stages[at].event(&mut view);
            view.lanes.iter_mut().for_each(LaneView::settle);
            match verdict {
                EventVerdict::Pass => {}
                EventVerdict::Drop => return ending,
                EventVerdict::Hold(at_most) => self.hold(at_most),
                EventVerdict::End(with) => ending = ending.or(Some(with)),
            }
        }
        self.remember(&view);
        for lane in view.lanes.iter().filter(|lane| !lane.text.is_empty()) {
            self.dialect.delta(lane.lane, &lane.text, &mut self.state, out);
        }
        ending
    }
}

/// What the stages made of an event.
#[derive(Default)]
struct Edited {
    patches: Patches,
    dropped: bool,
    ending: Option<Ending>,
}

/// A text without its escapes; none where it is not text (half a character, cut by the provider).
fn text_of<'d>(data: &'d [u8], text: &LaneText) -> Option<Cow<'d, str>> {
    match json::unescaped(data.get(text.range.clone())?) {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}
