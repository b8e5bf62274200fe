//! What the ledger knows of a request: as the worker says it, and as it is read back.
//!
//! The borrowed forms ([`Intent`], [`AttemptOutcome`], [`Final`]) are a worker's; [`Record`] is the owned one of
//! the writer, of recovery and of queries. Money is in pico-dollars (1e-12 USD), times in microseconds from the
//! start of the request.

use crate::usage::{Provenance, Usage};
use std::net::IpAddr;

pub use crate::usage::bank::Hold;

/// Most holds of a reservation. More are not kept.
pub const HOLDS_MAX: usize = 16;

/// Steps whose time is kept, in order; 0: not reached.
pub const STEPS: [&str; 7] = ["body", "policy", "connect", "sent", "head", "first_content", "done"];

/// Who is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target<'a> {
    pub provider: &'a str,
    /// The model's name as it is sent on.
    pub model: &'a str,
    /// What is reserved for it: all of it, not what was added for this target.
    pub holds: &'a [Hold],
}

/// What is known before the call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Intent<'a> {
    /// The request id's text.
    pub id: &'a [u8],
    pub key: &'a str,
    pub team: &'a str,
    pub organisation: &'a str,
    /// As the client asked for it.
    pub model: &'a str,
    pub surface: &'a str,
    /// The dialect that the client speaks.
    pub dialect: &'a str,
    /// The chargeback header's text.
    pub tags: &'a str,
    pub client: Option<IpAddr>,
    pub is_stream: bool,
    /// Wall time of the request's start.
    pub started_unix_ms: u64,
    /// Input tokens, estimated.
    pub input_estimate: u64,
    pub target: Target<'a>,
}

/// An attempt that failed or was passed over. Its record goes out at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttemptOutcome<'a> {
    /// 1 for the first attempt of the request.
    pub number: u16,
    pub provider: &'a str,
    pub model: &'a str,
    /// 0: no answer.
    pub status: u16,
    /// The stable code of what went wrong; empty where an answer was passed over for its status.
    pub error: &'a str,
    pub usage: Usage,
    pub cost_pico: Option<u64>,
    pub is_unpriced: bool,
    /// How long it took.
    pub micros: u32,
}

/// What is known in the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Final<'a> {
    pub usage: Usage,
    /// None: nothing was computed.
    pub cost_pico: Option<u64>,
    /// The model has no price, or the price was a ceiling.
    pub is_unpriced: bool,
    pub status: u16,
    /// Who ended it: the word of the access log.
    pub ended: &'a str,
    /// The stable code of the error that the gateway answered; empty: none.
    pub error: &'a str,
    pub attempts: u32,
    pub events: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// By [`STEPS`].
    pub steps_us: [u32; STEPS.len()],
}

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// A request that has ended.
    #[default]
    Request,
    /// An attempt of a request that another one followed, or that failed.
    Attempt,
    /// A request that was under way when its process died: the numbers are the best that were known.
    Crash,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Request, Kind::Attempt, Kind::Crash];

    /// The word in records.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Request => "request",
            Kind::Attempt => "attempt",
            Kind::Crash => "crash",
        }
    }
}

/// A record, read back.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Record {
    pub kind: Kind,
    pub id: String,
    /// Number of the attempt; 0 for the request itself.
    pub number: u16,
    pub started_unix_ms: u64,
    pub key: String,
    pub team: String,
    pub organisation: String,
    pub model: String,
    pub provider: String,
    pub model_sent: String,
    pub surface: String,
    pub dialect: String,
    pub tags: String,
    pub client: Option<IpAddr>,
    pub is_stream: bool,
    pub input_estimate: u64,
    /// Of a crash only: what is to be given back.
    pub holds: Vec<Hold>,
    pub usage: Usage,
    pub cost_pico: Option<u64>,
    pub is_unpriced: bool,
    pub status: u16,
    pub ended: String,
    pub error: String,
    pub attempts: u32,
    pub events: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub steps_us: [u32; STEPS.len()],
}

impl Record {
    /// Whether numbers of tokens are not the provider's own.
    pub fn is_estimated(&self) -> bool {
        !self.usage.is_unknown() && self.usage.provenance != Provenance::Provider || self.kind == Kind::Crash
    }
}

/// The beginning of `text` that has at most `bytes_max` bytes and ends where a character does.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_text_is_cut_where_a_character_ends() {
        for (text, max, cut_to) in
            [("aé", 3, "aé"), ("aé", 2, "a"), ("é", 1, ""), ("", 0, ""), ("ab", 1, "a")]
        {
            assert_eq!(cut(text, max), cut_to, "{text} {max}");
        }
    }
}
