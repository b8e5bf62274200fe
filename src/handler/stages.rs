//! Runs the event stages of one answer, in order, on whole events.
//!
//! Each stage sees the texts as the stages before left them. What no stage changed goes on byte for byte;
//! what one did is spliced into the event's data and everything else of it stays. Text that a stage released
//! passes the stages behind it and becomes an event of the dialect, before the event that closes its lane.
//! Texts that a dialect repeats (`Part::Again`: the closing events of Responses) come out as they did piece
//! by piece. Limit: `SAID_BYTES_MAX` of text is remembered for such repeats.

use crate::base::clock::{self, Instant};
use crate::codec::json;
use crate::codec::patch::Patches;
use crate::codec::sse::{self, Event};
use crate::llm::dialect::{Closes, Dialect, Ending, Lane, LaneText, Lanes, Part, StreamState, Usage};
use crate::policy::stage::{EventStage, EventVerdict, EventView, LaneView, Released};
use std::borrow::Cow;

/// Text that is remembered for repeats, all lanes together.
const SAID_BYTES_MAX: usize = 8 << 20;

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
    /// Texts that went on, by lane.
    said: Vec<(Lane, String)>,
    said_bytes: usize,
    hold_until: Instant,
    joined: Vec<u8>,
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

    /// Runs the stages on a whole answer: the body that goes on, where one changed it.
    pub fn whole(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let mut lanes = Lanes::new();
        self.dialect.lanes_whole(body, &mut lanes);
        let edited = self.decide(body, &lanes, true);
        let mut out = Vec::new();
        edited.changed.then(|| {
            edited.patches.apply(body, &mut out);
            out
        })
    }

    /// The stream has ended: what is held goes out, then the rest, which is no whole event.
    pub fn end(&mut self, rest: &[u8], out: &mut Vec<u8>) {
        self.release(&Closes::All, out);
        out.extend_from_slice(rest);
    }

    /// The time of a hold is over.
    pub fn release_all(&mut self, out: &mut Vec<u8>) {
        self.hold_until = Instant::NEVER;
        self.release(&Closes::All, out);
    }

    /// Writes the dialect's own early end. `usage` where the client asked for it.
    pub fn write_ending(&mut self, ending: Ending, usage: Option<&Usage>, out: &mut Vec<u8>) {
        self.release(&Closes::All, out);
        self.dialect.ending(ending, &self.state, usage, out);
    }

    fn staged(&mut self, raw: &[u8], event: &Event<'_>, out: &mut Vec<u8>) -> Staged {
        let data = event.data.bytes();
        let closes = self.dialect.closes(event.name, data);
        if closes != Closes::Nothing {
            self.release(&closes, out);
        }
        let mut lanes = Lanes::new();
        self.dialect.lanes(event.name, data, &mut lanes);
        let edited = self.decide(data, &lanes, false);
        if edited.dropped {
            return Staged::Replaced;
        }
        if !edited.changed && edited.ending.is_none() {
            self.dialect.observe(&mut self.state, raw);
            return Staged::Pass;
        }
        let from = out.len();
        match event.data.range() {
            _ if !edited.changed => out.extend_from_slice(raw),
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

    /// Asks every stage about one event and gathers what they changed.
    fn decide(&mut self, data: &[u8], lanes: &Lanes, is_whole: bool) -> Edited {
        let views = lanes.iter().filter(|text| text.part == Part::Next);
        let mut view = EventView {
            data,
            lanes: views.filter_map(|text| Some(LaneView::new(text.lane, text_of(data, text)?))).collect(),
            patches: Patches::new(),
            is_whole,
        };
        let mut edited = Edited::default();
        for stage in &mut self.stages {
            let verdict = stage.event(&mut view);
            for lane in &mut view.lanes {
                edited.changed |= lane.settle();
            }
            match verdict {
                EventVerdict::Pass => {}
                EventVerdict::Drop => return Edited { dropped: true, ..Edited::default() },
                EventVerdict::Hold(at_most) => {
                    self.hold_until = self.hold_until.min(clock::now() + at_most);
                }
                EventVerdict::End(ending) => edited.ending = edited.ending.or(Some(ending)),
            }
        }
        edited.changed |= !view.patches.is_empty();
        self.remember(&view);
        edited.patches = std::mem::take(&mut view.patches);
        edited.changed |= self.splice(data, lanes, &view, &mut edited.patches);
        edited
    }

    /// Puts the texts of `view` into their places; true where one differs from what stands there.
    fn splice(&self, data: &[u8], lanes: &Lanes, view: &EventView<'_>, patches: &mut Patches) -> bool {
        let mut shown = view.lanes.iter();
        let mut changed = false;
        let mut last: Option<&str> = None;
        for text in lanes {
            let Some(old) = text_of(data, text) else { continue };
            let new = match text.part {
                Part::Next => shown.next().map(|lane| &*lane.text),
                Part::Echo => last,
                Part::Again => {
                    self.said.iter().find(|(lane, _)| *lane == text.lane).map(|(_, said)| said.as_str())
                }
            };
            last = new;
            if let Some(new) = new
                && new != old
            {
                let mut escaped = Vec::with_capacity(new.len());
                json::escape(new.as_bytes(), &mut escaped);
                // A stage that patched the place of a text by hand has been heard already.
                changed |= patches.replace(text.range.clone(), &escaped).is_ok();
            }
        }
        changed
    }

    fn remember(&mut self, view: &EventView<'_>) {
        for lane in &view.lanes {
            if self.said_bytes + lane.text.len() > SAID_BYTES_MAX {
                return;
            }
            self.said_bytes += lane.text.len();
            match self.said.iter_mut().find(|(known, _)| *known == lane.lane) {
                Some((_, said)) => said.push_str(&lane.text),
                None => self.said.push((lane.lane, lane.text.clone().into_owned())),
            }
        }
    }

    /// Asks the stages for what they hold of the lanes that `closes` covers, and writes it as events.
    fn release(&mut self, closes: &Closes, out: &mut Vec<u8>) {
        for at in 0..self.stages.len() {
            let mut released = Vec::new();
            self.stages[at].release(closes, &mut released);
            for Released { lane, text } in released {
                self.pass_on(at + 1, lane, text, out);
            }
        }
    }

    /// Released text passes the stages from `from` on.
    fn pass_on(&mut self, from: usize, lane: Lane, text: String, out: &mut Vec<u8>) {
        let lanes = vec![LaneView::new(lane, Cow::Owned(text))];
        let mut view = EventView { data: &[], lanes, patches: Patches::new(), is_whole: false };
        for stage in &mut self.stages[from..] {
            let verdict = stage.event(&mut view);
            for lane in &mut view.lanes {
                lane.settle();
            }
            match verdict {
                EventVerdict::Drop => return,
                EventVerdict::Hold(at_most) => {
                    self.hold_until = self.hold_until.min(clock::now() + at_most);
                }
                EventVerdict::Pass | EventVerdict::End(_) => {}
            }
        }
        self.remember(&view);
        for lane in view.lanes.iter().filter(|lane| !lane.text.is_empty()) {
            self.dialect.delta(lane.lane, &lane.text, &mut self.state, out);
        }
    }
}

/// What the stages made of an event.
#[derive(Default)]
struct Edited {
    patches: Patches,
    changed: bool,
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
