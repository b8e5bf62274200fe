//! Relays an answer from its source to its sink: the loop that the gateway exists for.
//!
//! Shape: wait for the source, the client's end or a timer, whichever is first; look at what came (event
//! ends, meter, stages); send it in one gathered send; again. One read is in flight at a time, so a slow
//! client holds its upstream back and at most one page of bytes waits. The slices that the source read are
//! the slices that the client is sent.
//!
//! Events: the framer finds their ends. Where nothing needs an event whole, its pieces go on as they come,
//! however long. Where something does (a usage chunk that may have to be hidden, a stage), an event that
//! straddles reads is carried, up to a bound; an event within one read is never copied. Ends: whole, client
//! left (the upstream is dropped, or drained to its usage, by the key's setting), upstream cut (the client
//! sees an error of its dialect, where events allow one, and a connection that breaks off), ended by a stage.
//! Limits: `Limits`. Cancel: dropping the future drops source and sink; the exchange is finished by the
//! caller.

use crate::base::clock::{self, Instant};
use crate::codec::sse::Framer;
use crate::handler::account::{Account, Bill};
use crate::handler::answer::Expected;
use crate::handler::sink::{Gone, Sink};
use crate::handler::source::{Next, Source, SourceError};
use crate::handler::stages::{StageRunner, Staged};
use crate::handler::tap::Tap;
use crate::handler::usage;
use crate::llm::dialect::{Dialect, Ending, StreamState};
use crate::net::deadline::{self, Deadline, Expired};
use crate::net::page::Slice;
use crate::net::race::{First, race};
use crate::policy::auth::{DrainCap, OnDisconnect};
use crate::policy::exchange::{Ended, Exchange, Step};
use crate::usage::meter::Seen;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Bounds of one relay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Silence of the upstream between two reads.
    pub idle_timeout: Duration,
    /// From the start of the request to the last byte; none: no bound.
    pub total_deadline: Instant,
    /// A comment to the client after so long a silence; zero: none.
    pub heartbeat: Duration,
    /// An event that a stage needs whole.
    pub event_bytes_max: usize,
    pub on_disconnect: OnDisconnect,
}

/// What the bytes of an answer are to the relay.
pub enum Body {
    /// Events of a stream.
    Events(Events),
    /// Anything else: bytes that go on as they come, seen by the meter.
    Bytes,
}

/// The state of an event stream.
pub struct Events {
    dialect: Dialect,
    framer: Framer,
    /// The beginning of an event that straddles reads and is needed whole.
    carry: Vec<u8>,
    /// A part of the current event has gone on already.
    in_pieces: bool,
    /// The usage chunk was asked for by the gateway and is hidden from the client.
    hide_usage: bool,
    /// The client asked for usage: an early ending gives it.
    usage_asked: bool,
    /// Behind its end it tells what it has used.
    tells_usage: bool,
    /// The last event ended with the last read, and with a CR whose LF may be still to come.
    cut_end: Option<CutEnd>,
    stages: Option<Box<StageRunner>>,
    /// What a stream that a budget may end has shown so far, where no stage keeps it.
    observed: Option<Box<StreamState>>,
}

/// Whether the event whose end was cut went on to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutEnd {
    Shown,
    Hidden,
}

impl Events {
    /// An event stream that begins.
    pub fn new(dialect: Dialect, expected: Expected, stages: Option<Box<StageRunner>>) -> Events {
        Events {
            dialect,
            framer: Framer::new(),
            carry: Vec::new(),
            in_pieces: false,
            hide_usage: expected.hide_usage,
            usage_asked: expected.usage_asked,
            tells_usage: expected.tells_usage,
            cut_end: None,
            stages,
            observed: None,
        }
    }

    /// The same, which a budget may end: what its end needs is kept.
    pub fn that_may_end(mut self) -> Events {
        self.observed = self.stages.is_none().then(|| Box::new(StreamState::new()));
        self
    }

    fn hide_cut_end(&mut self) {
        self.cut_end = self.cut_end.map(|_| CutEnd::Hidden);
    }

    /// Writes the end that a stage has asked for, with what `tap` has counted where the client asked for usage.
    fn write_ending(&mut self, ending: Ending, tap: &Tap, out: &mut Vec<u8>) {
        let usage = self.usage_asked.then(|| tap.usage());
        match (&mut self.stages, &self.observed) {
            (Some(stages), _) => stages.write_ending(ending, usage.as_ref(), out),
            (None, Some(state)) => self.dialect.ending(ending, state, usage.as_ref(), out),
            (None, None) => {}
        }
    }
}

/// Longer than any usage chunk: a longer event is none and need not be carried to find out.
const USAGE_EVENT_BYTES_MAX: usize = 16 * 1024;

/// One answer on its way.
pub struct Relay<'r, 'c, 'a> {
    pub exchange: &'r mut Exchange,
    pub source: &'r mut Source,
    pub sink: &'r mut Sink<'c>,
    pub tap: &'r mut Tap,
    pub body: Body,
    pub limits: &'r Limits,
    pub account: Option<&'r mut Account<'a>>,
}

/// How the relay goes on after what came has been looked at.
enum Progress {
    GoOn,
    /// As `GoOn`, when the tap has read all of what came.
    TapBehind,
    SourceEnded,
    StageEnded,
    /// Nothing more could be reserved for the stream.
    BudgetEnded,
    Cut(SourceError),
}

impl Relay<'_, '_, '_> {
    /// Relays until the end and says how it ended. The head has been given to the sink already and goes out
    /// with what came with it. `left` ends when the client has left.
    pub async fn run(&mut self, mut left: Pin<&mut impl Future<Output = ()>>) -> Ended {
        let timer = Deadline::unset();
        let mut now = clock::lately();
        let mut last_read = now;
        let (mut last_write, mut has_read) = (last_read, true);
        let mut progress = match self.source.ready() {
            Some(next) => self.take_all(next, last_read),
            None => Progress::GoOn,
        };
        loop {
            self.note_so_far();
            let sent = match progress {
                Progress::GoOn => self.sink.flush(now).await,
                Progress::TapBehind => Box::pin(self.flush_and_catch_up(now)).await,
                Progress::SourceEnded => return self.end(Ended::Whole).await,
                Progress::StageEnded => return self.end(Ended::Stage).await,
                Progress::BudgetEnded => return self.end(Ended::Budget).await,
                Progress::Cut(error) => return Box::pin(self.cut(error)).await,
            };
            if sent.is_err() {
                return Box::pin(self.client_left(&timer)).await;
            }
            if has_read {
                // A client that takes its time is no silence of the upstream.
                last_read = now.max(deadline::last_tick());
            }
            let due = self.due(last_read, last_write);
            timer.set_at(due.first());
            let woken = race(race(self.source.next(), left.as_mut()), timer.passed()).await;
            now = clock::now();
            last_write = now;
            has_read = matches!(woken, First::One(First::One(_)));
            progress = match woken {
                // An upstream that always has something ready would never let the timer be asked.
                First::One(First::One(_)) if now >= due.total => Progress::Cut(SourceError::TotalTimeout),
                First::One(First::One(next)) => self.take_all(next, now),
                First::One(First::Two(())) => return Box::pin(self.client_left(&timer)).await,
                First::Two(Expired) => self.timer_passed(now, &due),
            };
        }
    }

    /// What is used so far goes into the ledger before the client gets what it was used for: a record of a crash
    /// says no less than the client knows.
    fn note_so_far(&mut self) {
        if let Some(account) = &self.account
            && account.is_recorded()
        {
            account.so_far(&self.tap.usage());
        }
    }

    /// Everything that is at hand: one read may hold many pieces.
    fn take_all(&mut self, first: Result<Next, SourceError>, now: Instant) -> Progress {
        let mut next = Some(first);
        while let Some(item) = next {
            let progress = match item {
                Ok(Next::Data(slice)) => self.take(slice, now),
                Ok(Next::End) => return self.source_ended(),
                Err(error) => return Progress::Cut(error),
            };
            if !matches!(progress, Progress::GoOn) || self.sink.is_full() {
                return progress;
            }
            next = self.source.ready();
        }
        Progress::GoOn
    }

    fn take(&mut self, slice: Slice, now: Instant) -> Progress {
        match &self.body {
            Body::Events(_) => self.take_events(slice, now),
            Body::Bytes => {
                self.first_content(now);
                self.tap.piece(&slice);
                self.sink.data(slice);
                if self.tap.is_behind() { Progress::TapBehind } else { Progress::GoOn }
            }
        }
    }

    /// The client first: what it gets does not depend on what the tap reads.
    async fn flush_and_catch_up(&mut self, now: Instant) -> Result<(), Gone> {
        let sent = self.sink.flush(now).await;
        self.tap.catch_up().await;
        sent
    }

    /// Events that end in `slice`, and the beginning of one that does not. Neighbours that go on unchanged go
    /// as one piece.
    fn take_events(&mut self, slice: Slice, now: Instant) -> Progress {
        let Body::Events(events) = &mut self.body else { return Progress::GoOn };
        let (mut at, mut run) = (0, 0);
        while let Some(len) = events.framer.end_of_event(&slice[at..]) {
            let piece = at..at + len;
            at = piece.end;
            // The line feed of a CRLF that was cut in two: the end of the event before.
            if let Some(end) = events.cut_end.take()
                && slice[piece.clone()] == *b"\n"
            {
                run = if end == CutEnd::Hidden { at } else { run };
                continue;
            }
            let ends_with_cr = at == slice.len() && slice.ends_with(b"\r");
            events.cut_end = ends_with_cr.then_some(CutEnd::Shown);
            self.exchange.events += 1;
            if !events.carry.is_empty() {
                events.carry.extend_from_slice(&slice[piece]);
                run = at;
                let carried = std::mem::take(&mut events.carry);
                match look(events, self.tap, self.sink, &carried) {
                    Look::Pass => self.sink.copy(&carried),
                    Look::Gone => events.hide_cut_end(),
                    Look::End => return Progress::StageEnded,
                }
                events.carry = carried;
                events.carry.clear();
                if !may_go_on(events, self.tap, self.account.as_deref_mut(), self.exchange) {
                    return self.end_at_budget();
                }
                continue;
            }
            if events.in_pieces {
                events.in_pieces = false;
                self.tap.piece(&slice[piece]);
                self.tap.end();
                continue;
            }
            // What was passed so far must reach the sink before anything that a stage writes.
            if events.stages.is_some() && run < piece.start {
                self.sink.data(slice.slice(run..piece.start));
                run = piece.start;
            }
            match look(events, self.tap, self.sink, &slice[piece.clone()]) {
                Look::Pass => {}
                Look::Gone => {
                    self.sink.data(slice.slice(run..piece.start));
                    run = at;
                    events.hide_cut_end();
                }
                Look::End => return Progress::StageEnded,
            }
            if !may_go_on(events, self.tap, self.account.as_deref_mut(), self.exchange) {
                self.sink.data(slice.slice(run..at));
                return self.end_at_budget();
            }
        }
        self.sink.data(slice.slice(run..at));
        self.first_content(now);
        self.keep_beginning(slice.slice(at..slice.len()))
    }

    /// Ends the stream as its dialect does, since nothing more could be reserved for it.
    fn end_at_budget(&mut self) -> Progress {
        let Body::Events(events) = &mut self.body else { return Progress::GoOn };
        let mut out = Vec::new();
        events.write_ending(Ending::Length, self.tap, &mut out);
        self.sink.copy(&out);
        Progress::BudgetEnded
    }

    /// The beginning of an event whose end has not come yet.
    fn keep_beginning(&mut self, beginning: Slice) -> Progress {
        let Body::Events(events) = &mut self.body else { return Progress::GoOn };
        if beginning.is_empty() {
            return Progress::GoOn;
        }
        let needs_whole = events.hide_usage || events.stages.is_some() || events.observed.is_some();
        if !needs_whole || events.in_pieces {
            events.in_pieces = true;
            self.tap.piece(&beginning);
            self.sink.data(beginning);
            return Progress::GoOn;
        }
        events.carry.extend_from_slice(&beginning);
        let carried = events.carry.len();
        if events.stages.is_some() || events.observed.is_some() {
            let too_large = carried > self.limits.event_bytes_max;
            return if too_large { Progress::Cut(SourceError::EventTooLarge) } else { Progress::GoOn };
        }
        if carried > USAGE_EVENT_BYTES_MAX {
            events.in_pieces = true;
            self.tap.piece(&events.carry);
            self.sink.copy(&events.carry);
            events.carry = Vec::new();
        }
        Progress::GoOn
    }

    /// The source has ended as its framing says. What is left of an event goes on as it is.
    fn source_ended(&mut self) -> Progress {
        if let Body::Events(events) = &mut self.body {
            let rest = std::mem::take(&mut events.carry);
            self.tap.piece(&rest);
            self.tap.end();
            if let Some(stages) = &mut events.stages {
                let mut out = Vec::new();
                let ending = stages.end(&rest, &mut out);
                if let Some(ending) = ending {
                    events.write_ending(ending, self.tap, &mut out);
                }
                self.sink.copy(&out);
                if ending.is_some() {
                    return Progress::StageEnded;
                }
            } else {
                self.sink.copy(&rest);
            }
        } else {
            self.tap.end();
        }
        Progress::SourceEnded
    }

    fn first_content(&mut self, now: Instant) {
        if self.exchange.clock.at(Step::FirstContent).is_none() && self.sink.body_bytes() > 0 {
            self.exchange.clock.mark_at(Step::FirstContent, now);
        }
    }

    async fn end(&mut self, ended: Ended) -> Ended {
        if let (Body::Events(Events { tells_usage: true, framer, .. }), Ended::Whole | Ended::Budget) =
            (&self.body, ended)
            // Within an event it would be part of it.
            && framer.is_between_events()
        {
            self.tell_usage(ended);
        }
        match self.sink.end().await {
            Ok(()) => ended,
            Err(Gone) => Ended::ClientLeft,
        }
    }

    fn tell_usage(&mut self, ended: Ended) {
        let metered = self.tap.usage();
        let unaccounted = Bill { usage: metered, cost_pico: None, is_unpriced: true };
        let bill = self.account.as_ref().map_or(unaccounted, |account| account.bill(metered, ended));
        let mut out = Vec::new();
        usage::write_comment(&self.exchange.id, &bill, &mut out);
        self.sink.copy(&out);
    }

    /// The upstream broke off. The client is told in the stream where events allow it, and sees its
    /// connection break in any case.
    async fn cut(&mut self, error: SourceError) -> Ended {
        if let Body::Events(events) = &mut self.body
            && !events.in_pieces
        {
            let (mut out, error, id) = (Vec::new(), error.for_client(), &self.exchange.id);
            match &mut events.stages {
                Some(stages) => stages.write_error(&error, id, &mut out),
                // Nothing is observed where no stage may have to write.
                None => {
                    let state = StreamState::after(self.exchange.events);
                    events.dialect.stream_error(&error, id, &state, &mut out);
                }
            }
            self.sink.copy(&out);
        }
        // What came before the cut still goes out. That the client may be gone already changes nothing.
        let _ = self.sink.flush(clock::now()).await;
        let error = error.for_client();
        self.exchange.error = Some(error.kind.row().code);
        self.exchange.note_error(&error);
        Ended::UpstreamCut
    }

    /// Nobody reads any more: the source is dropped by the caller, or read on to its usage where the key says
    /// so.
    async fn client_left(&mut self, timer: &Deadline) -> Ended {
        if let OnDisconnect::Drain(cap) = self.limits.on_disconnect {
            timer.set_at(clock::now() + Duration::from_millis(cap.time_max_ms));
            // The time being over is the cap's purpose.
            let _ = timer.bound(self.drain(cap)).await;
        }
        Ended::ClientLeft
    }

    async fn drain(&mut self, cap: DrainCap) {
        let mut bytes = 0_u64;
        while bytes < cap.bytes_max
            && self.tap.output_so_far() < cap.tokens_max
            && let Ok(Next::Data(slice)) = self.source.next().await
        {
            bytes += slice.len() as u64;
            self.meter_only(&slice);
            if self.tap.is_behind() {
                Box::pin(self.tap.catch_up()).await;
            }
        }
    }

    /// The meter's part of `take`, without a client.
    fn meter_only(&mut self, slice: &[u8]) {
        let Body::Events(events) = &mut self.body else { return self.tap.piece(slice) };
        let mut at = 0;
        while let Some(len) = events.framer.end_of_event(&slice[at..]) {
            self.tap.piece(&slice[at..at + len]);
            self.tap.end();
            at += len;
        }
        self.tap.piece(&slice[at..]);
    }

    fn due(&self, last_read: Instant, last_write: Instant) -> Due {
        let is_events = matches!(self.body, Body::Events(_));
        let heartbeat = match self.limits.heartbeat {
            Duration::ZERO => Instant::NEVER,
            silence if is_events => last_write + silence,
            _ => Instant::NEVER,
        };
        let hold = match &self.body {
            Body::Events(Events { stages: Some(stages), .. }) => stages.hold_until(),
            _ => Instant::NEVER,
        };
        Due { idle: last_read + self.limits.idle_timeout, total: self.limits.total_deadline, heartbeat, hold }
    }

    fn timer_passed(&mut self, now: Instant, due: &Due) -> Progress {
        if now >= due.total {
            return Progress::Cut(SourceError::TotalTimeout);
        }
        if now >= due.idle {
            return Progress::Cut(SourceError::IdleTimeout);
        }
        let Body::Events(events) = &mut self.body else { return Progress::GoOn };
        let mut out = Vec::new();
        if now >= due.hold
            && let Some(stages) = &mut events.stages
            && let Some(ending) = stages.release_all(&mut out)
        {
            events.write_ending(ending, self.tap, &mut out);
            self.sink.copy(&out);
            return Progress::StageEnded;
        }
        // Between events only: a heartbeat within one would become part of it.
        if now >= due.heartbeat && !events.in_pieces {
            events.dialect.heartbeat(&mut out);
        }
        self.sink.copy(&out);
        Progress::GoOn
    }
}

/// When the timers of a relay pass.
struct Due {
    idle: Instant,
    total: Instant,
    heartbeat: Instant,
    hold: Instant,
}

impl Due {
    fn first(&self) -> Instant {
        self.idle.min(self.total).min(self.heartbeat).min(self.hold)
    }
}

/// What becomes of an event.
enum Look {
    /// It goes on as it is.
    Pass,
    /// It does not go on, or what goes on instead has been given to the sink.
    Gone,
    /// The stream ends here; the ending has been given to the sink.
    End,
}

/// Whether the stream may go on behind the event that was looked at.
fn may_go_on(events: &Events, tap: &Tap, account: Option<&mut Account<'_>>, exchange: &Exchange) -> bool {
    let Some(account) = account.filter(|account| account.is_in_steps()) else { return true };
    // Behind its end there is nothing to save.
    (events.observed.is_none() && events.stages.is_none())
        || tap.is_complete()
        || account.may_go_on(exchange.served.as_ref(), tap.text_bytes(), tap.content_events())
}

/// Meters one whole event and asks the stages about it.
fn look(events: &mut Events, tap: &mut Tap, sink: &mut Sink<'_>, event: &[u8]) -> Look {
    let seen = tap.event(event);
    if events.hide_usage && seen == Seen::UsageOnly {
        return Look::Gone;
    }
    if let Some(state) = &mut events.observed {
        events.dialect.observe(state, event);
    }
    let Some(stages) = &mut events.stages else { return Look::Pass };
    let mut out = Vec::new();
    let staged = stages.event(event, &mut out);
    if let Staged::Ended(ending) = staged {
        events.write_ending(ending, tap, &mut out);
    }
    sink.copy(&out);
    match staged {
        Staged::Pass => Look::Pass,
        Staged::Replaced => Look::Gone,
        Staged::Ended(_) => Look::End,
    }
}
