//! The tap: sees the provider's own bytes before every stage and changes nothing. Metering is its user.
//!

use crate::llm::dialect::{Dialect, Usage};
use crate::usage::meter::{Known, Meter, Seen, Shape};

/// The tap of one answer.
pub struct Tap {
    meter: Option<Meter>,
    known: Known,
}

impl Tap {
    /// A tap that reads nothing: errors, answers without a dialect.
    pub fn closed() -> Tap {
        Tap { meter: None, known: Known::default() }
    }

    /// A tap that meters an answer. A coded one (`content-encoding`) is not read: its usage is estimated.
    pub fn metering(dialect: Dialect, shape: Shape, is_plain: bool, known: Known) -> Tap {
        Tap { meter: is_plain.then(|| Meter::new(dialect, shape)), known }
    }

    /// A whole event.
    pub fn event(&mut self, raw: &[u8]) -> Seen {
        self.meter.as_mut().map_or(Seen::Plain, |meter| meter.event(raw))
    }

    /// A part of an event or of a body.
    pub fn piece(&mut self, bytes: &[u8]) {
        if let Some(meter) = &mut self.meter {
            meter.piece(bytes);
        }
    }

    /// The event or body whose parts came has ended.
    pub fn end(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.end();
        }
    }

    /// Output tokens so far, estimated.
    pub fn output_so_far(&self) -> u64 {
        self.meter.as_ref().map_or(0, |meter| meter.text_bytes() / BYTES_PER_TOKEN)
    }

    /// What was used, as far as it is known.
    pub fn usage(&self) -> Usage {
        self.meter.as_ref().map_or_else(Usage::default, |meter| meter.finish(self.known))
    }
}

const BYTES_PER_TOKEN: u64 = 4;
