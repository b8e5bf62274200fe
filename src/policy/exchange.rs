//! One request and its answer, with everything that is known of it.
//!
//! `handler` makes one when a head has been read and ends it by one explicit call on every way out; stages of
//! `policy` read and change it. It holds facts only, no connection and no buffer but the request's body,
//! which is let go at the commit point.

use crate::base::clock::{self, Instant};
use crate::base::error::{Error, Fault};
use crate::base::id::RequestId;
use crate::codec::patch::Patches;
use crate::llm::dialect::Dialect;
use crate::net::page::Slice;
use crate::usage::Usage;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// Who ended an exchange, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ended {
    /// The answer reached the client whole.
    #[default]
    Whole,
    /// Answered by the gateway with an error.
    Refused,
    /// The client left before the end.
    ClientLeft,
    /// The upstream broke off, fell silent or broke the protocol after the commit point.
    UpstreamCut,
    /// A stage ended the stream early with the dialect's own ending.
    Stage,
    /// A budget ended the stream early with the dialect's own ending.
    Budget,
    /// Dropped on its way, as by a panic: a defect of ours.
    Unfinished,
}

impl Ended {
    /// Every way, in order.
    pub const ALL: [Ended; 7] = [
        Ended::Whole,
        Ended::Refused,
        Ended::ClientLeft,
        Ended::UpstreamCut,
        Ended::Stage,
        Ended::Budget,
        Ended::Unfinished,
    ];

    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Ended::Whole => "whole",
            Ended::Refused => "refused",
            Ended::ClientLeft => "client_left",
            Ended::UpstreamCut => "upstream_cut",
            Ended::Stage => "stage",
            Ended::Budget => "budget",
            Ended::Unfinished => "unfinished",
        }
    }
}

/// Steps of a request whose time is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The body has been read.
    Body,
    /// Body checked and parsed, policy asked.
    Policy,
    /// A connection to the target is there.
    Connect,
    /// The request has been sent.
    Sent,
    /// The upstream's head has come.
    Head,
    /// The first content has come.
    FirstContent,
    /// The last byte has been given to the client.
    Done,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Step; StageClock::STEPS] =
        [Step::Body, Step::Policy, Step::Connect, Step::Sent, Step::Head, Step::FirstContent, Step::Done];

    /// The word in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Step::Body => "body",
            Step::Policy => "policy",
            Step::Connect => "connect",
            Step::Sent => "sent",
            Step::Head => "head",
            Step::FirstContent => "first_content",
            Step::Done => "done",
        }
    }
}

/// Microseconds from the start of the request to the end of each step; the last attempt counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageClock {
    start: Instant,
    micros: [u32; StageClock::STEPS],
}

impl StageClock {
    /// How many steps there are.
    pub const STEPS: usize = Step::Done as usize + 1;

    /// A clock that starts at `start`.
    pub fn starting(start: Instant) -> StageClock {
        StageClock { start, micros: [0; StageClock::STEPS] }
    }

    /// When the request began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Says that `step` ended now.
    pub fn mark(&mut self, step: Step) {
        self.mark_at(step, clock::now());
    }

    /// Says that `step` ended at `now`.
    pub fn mark_at(&mut self, step: Step, now: Instant) {
        self.micros[step as usize] = u32::try_from(now.micros_since(self.start)).unwrap_or(u32::MAX).max(1);
    }

    /// When `step` ended; the start where it was not reached.
    pub fn when(&self, step: Step) -> Instant {
        self.start + Duration::from_micros(u64::from(self.micros[step as usize]))
    }

    /// Microseconds from the start to the end of `step`; none where it was not reached.
    pub fn at(&self, step: Step) -> Option<u32> {
        Some(self.micros[step as usize]).filter(|micros| *micros > 0)
    }
}

/// The target that an answer came from.
#[derive(Clone, Debug)]
pub struct Served {
    /// Place of the route in the snapshot; none for pass-through.
    pub route: Option<u32>,
    /// Place of the provider in the snapshot.
    pub provider: u32,
    /// The model's name as it was sent on.
    pub model: Rc<str>,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    pub id: RequestId,
    /// Name of the surface, for logs and metrics.
    pub surface: &'static str,
    /// The dialect that the client speaks, where the path has one.
    pub dialect: Option<Dialect>,
    /// Place of the caller's key in the snapshot.
    pub key: Option<u32>,
    /// The model's name as the client said it.
    pub model: Option<Rc<str>>,
    /// The client asked for a stream.
    pub stream: bool,
    pub served: Option<Served>,
    /// The caller's body, and what is replaced in it for every target alike.
    pub body: Option<Slice>,
    pub patches: Patches,
    pub clock: StageClock,
    pub usage: Usage,
    /// What it cost, in pico-dollars; none where nobody knows, or nothing was counted.
    pub cost_pico: Option<u64>,
    /// A request that costs tokens has been sent whole, and no answer to it has been metered.
    pub unmetered: bool,
    /// HTTP status that the client was given; 0 before.
    pub status: u16,
    /// The stable code of the error, where the gateway answered one.
    pub error: Option<&'static str>,
    /// What went wrong at targets, for the operator: those that were passed over, then the one that was told.
    pub trouble: Option<Box<str>>,
    pub ended: Ended,
    pub attempts: u32,
    /// Events relayed, held ones included.
    pub events: u64,
    /// Body bytes from and to the client.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Exchange {
    /// An exchange that begins at `start`.
    pub fn begin(start: Instant) -> Exchange {
        Exchange {
            id: RequestId::new(),
            surface: "none",
            dialect: None,
            key: None,
            model: None,
            stream: false,
            served: None,
            body: None,
            patches: Patches::new(),
            clock: StageClock::starting(start),
            usage: Usage::default(),
            cost_pico: None,
            unmetered: false,
            status: 0,
            error: None,
            trouble: None,
            ended: Ended::Whole,
            attempts: 0,
            events: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Says that the gateway answers `error`.
    pub fn refuse(&mut self, error: &Error) {
        let row = error.kind.row();
        self.status = row.status;
        self.error = Some(row.code);
        self.ended = Ended::Refused;
        self.note_error(error);
    }

    /// Keeps what went wrong, where the client is not to blame for it.
    pub fn note_error(&mut self, error: &Error) {
        if error.kind.row().fault == Fault::Downstream {
            return;
        }
        match &error.cause {
            Some(cause) => self.note(format_args!("{} ({cause})", error.detail)),
            None => self.note(format_args!("{}", error.detail)),
        }
    }

    /// Keeps a further thing that went wrong.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        let all = match self.trouble.take() {
            Some(before) => format!("{before}; {what}"),
            None => what.to_string(),
        };
        self.trouble = Some(all.into_boxed_str());
    }
}
