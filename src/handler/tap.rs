//! The tap: sees the provider's own bytes before every stage and changes nothing. Metering is its user.
//!
//! An answer in a content coding (never asked for where an answer is read; some upstreams send one all the
//! same) is metered by decompressing a copy, within the bounds of `usage/inflate`. In a coding that is not
//! known here nothing can be read: its usage is an estimate from its length. Of an error that the operator may
//! have to be told about the beginning is kept.

use crate::llm::dialect::{Dialect, Usage};
use crate::net::runtime;
use crate::usage::inflate::{Coding, Inflate};
use crate::usage::meter::{Known, Meter, Seen, Shape};
use std::time::Duration;

/// The tap of one answer.
pub struct Tap {
    reader: Reader,
    known: Known,
}

enum Reader {
    /// Nothing is read.
    Closed,
    Plain(Meter),
    Coded(Box<Inflate>),
    Unreadable(Box<Meter>),
    /// The beginning of the body of an error, kept for who explains it.
    Kept(Vec<u8>),
}

impl Tap {
    /// A tap that reads nothing: errors, answers without a dialect.
    pub fn closed() -> Tap {
        Tap { reader: Reader::Closed, known: Known::default() }
    }

    /// A tap that keeps the first `KEPT_BYTES_MAX` bytes of a body.
    pub fn keeping() -> Tap {
        Tap { reader: Reader::Kept(Vec::new()), known: Known::default() }
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
            Reader::Kept(kept) => {
                let len = bytes.len().min(KEPT_BYTES_MAX - kept.len());
                kept.extend_from_slice(&bytes[..len]);
            }
        }
    }

    /// What came holds more than has been read of it: `catch_up` before the next piece.
    pub fn is_behind(&self) -> bool {
        matches!(&self.reader, Reader::Coded(inflate) if inflate.is_behind())
    }

    /// Reads on until it is behind no more. Others run between its steps.
    pub async fn catch_up(&mut self) {
        while let Reader::Coded(inflate) = &mut self.reader
            && inflate.is_behind()
        {
            runtime::sleep(PAUSE).await;
            inflate.catch_up();
        }
    }

    /// The event or body whose parts came has ended.
    pub fn end(&mut self) {
        match &mut self.reader {
            Reader::Plain(meter) => drop(meter.end()),
            Reader::Coded(inflate) => inflate.end(),
            Reader::Closed | Reader::Unreadable(_) | Reader::Kept(_) => {}
        }
    }

    /// Output tokens so far, estimated.
    pub fn output_so_far(&self) -> u64 {
        self.meter().map_or(0, |meter| meter.text_bytes() / BYTES_PER_TOKEN)
    }

    /// Bytes of text so far, as they stand in JSON strings.
    pub fn text_bytes(&self) -> u64 {
        self.meter().map_or(0, Meter::text_bytes)
    }

    /// Events with text so far.
    pub fn content_events(&self) -> u64 {
        self.meter().map_or(0, Meter::content_events)
    }

    /// The provider has said that the answer is complete.
    pub fn is_complete(&self) -> bool {
        self.meter().is_some_and(Meter::is_complete)
    }

    /// What was used, as far as it is known.
    pub fn usage(&self) -> Usage {
        self.meter().map_or_else(Usage::default, |meter| meter.finish(self.known))
    }

    /// What was kept of the body; none where the tap was not to keep any.
    pub fn kept(&self) -> Option<&[u8]> {
        match &self.reader {
            Reader::Kept(kept) => Some(kept),
            _ => None,
        }
    }

    fn meter(&self) -> Option<&Meter> {
        match &self.reader {
            Reader::Closed | Reader::Kept(_) => None,
            Reader::Plain(meter) => Some(meter),
            Reader::Coded(inflate) => Some(inflate.meter()),
            Reader::Unreadable(meter) => Some(meter),
        }
    }
}

const BYTES_PER_TOKEN: u64 = 4;
/// Between two steps of a piece that holds much. Not none at all: a task that is ready again at once comes before
/// all others, and before the sockets.
const PAUSE: Duration = Duration::from_millis(1);
/// Errors of an API are shorter; of a page no more is needed.
const KEPT_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::Tap;
    use crate::llm::dialect::Dialect;
    use crate::net::memory::{Faults, Simulation};
    use crate::net::runtime;
    use crate::usage::inflate::STEP_MAX;
    use crate::usage::meter::{Known, Shape};
    use flate2::{Compression, write::GzEncoder};
    use std::cell::Cell;
    use std::io::Write;
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn a_worker_is_given_back_between_the_steps_of_a_piece_that_holds_much() {
        let steps = 16;
        let mut bomb = GzEncoder::new(Vec::new(), Compression::default());
        bomb.write_all(&vec![b' '; steps * STEP_MAX]).expect("memory");
        let bomb = bomb.finish().expect("memory");
        assert!(bomb.len() <= crate::net::page::PAGE_BYTES, "one read holds it: {}", bomb.len());
        let mut tap = Tap::metering(Dialect::OpenAiChat, Shape::Whole, Some(b"gzip"), Known::default());
        tap.piece(&bomb);
        assert!(tap.is_behind());
        let ticks = Rc::new(Cell::new(0));
        let counted = Rc::clone(&ticks);
        let work = async move {
            runtime::spawn(async move {
                while counted.get() < steps {
                    runtime::sleep(Duration::from_millis(1)).await;
                    counted.set(counted.get() + 1);
                }
            });
            tap.catch_up().await;
            assert!(!tap.is_behind());
        };
        Simulation::new(1, Faults::none()).run(work).finished();
        assert!(ticks.get() >= steps - 3, "{} turns of another task", ticks.get());
    }
}
