//! The tap: sees the provider's own bytes before every stage and changes nothing. Metering is its user.
//!
//! An answer in a content coding (never asked for where an answer is read; some upstreams send one all the
//! same) is metered by decompressing a copy, within the bounds of `usage/inflate`. In a coding that is not
//! known here nothing can be read: its usage is an estimate from its length.

use crate::llm::dialect::{Dialect, Usage};
use crate::usage::inflate::{Coding, Inflate};
use crate::usage::meter::{Known, Meter, Seen, Shape};

/// The tap of one answer.
pub struct Tap {
    reader: Reader,
    known: Known,
}

#[expect(clippy::large_enum_variant, reason = "the usual one is in place: no allocation a request")]
enum Reader {
    /// Nothing is read.
    Closed,
    Plain(Meter),
    Coded(Box<Inflate>),
    Unreadable(Box<Meter>),
}

impl Tap {
    /// A tap that reads nothing: errors, answers without a dialect.
    pub fn closed() -> Tap {
        Tap { reader: Reader::Closed, known: Known::default() }
    }

    /// A tap that meters an answer. `coding`: its `content-encoding`, where it has one.
    pub fn metering(dialect: Dialect, shape: Shape, coding: Option<&[u8]>, known: Known) -> Tap {
        let meter = Meter::new(dialect, shape);
        let reader = match coding.map(Coding::of) {
            None => Reader::Plain(meter),
            Some(Some(coding)) => Reader::Coded(Box::new(Inflate::new(coding, meter, shape))),
            Some(None) => Reader::Unreadable(Box::new(meter)),
        };
        Tap { reader, known }
    }

    /// A whole event.
    pub fn event(&mut self, raw: &[u8]) -> Seen {
        if let Reader::Plain(meter) = &mut self.reader {
            return meter.event(raw);
        }
        self.piece(raw);
        Seen::Plain
    }

    /// A part of an event or of a body.
    pub fn piece(&mut self, bytes: &[u8]) {
        match &mut self.reader {
            Reader::Closed => {}
            Reader::Plain(meter) => meter.piece(bytes),
            Reader::Coded(inflate) => inflate.piece(bytes),
            Reader::Unreadable(meter) => meter.unread(bytes.len()),
        }
    }

    /// The event or body whose parts came has ended.
    pub fn end(&mut self) {
        match &mut self.reader {
            Reader::Plain(meter) => drop(meter.end()),
            Reader::Coded(inflate) => inflate.end(),
            Reader::Closed | Reader::Unreadable(_) => {}
        }
    }

    /// Output tokens so far, estimated.
    pub fn output_so_far(&self) -> u64 {
        self.meter().map_or(0, |meter| meter.text_bytes() / BYTES_PER_TOKEN)
    }

    /// What was used, as far as it is known.
    pub fn usage(&self) -> Usage {
        self.meter().map_or_else(Usage::default, |meter| meter.finish(self.known))
    }

    fn meter(&self) -> Option<&Meter> {
        match &self.reader {
            Reader::Closed => None,
            Reader::Plain(meter) => Some(meter),
            Reader::Coded(inflate) => Some(inflate.meter()),
            Reader::Unreadable(meter) => Some(meter),
        }
    }
}

const BYTES_PER_TOKEN: u64 = 4;
