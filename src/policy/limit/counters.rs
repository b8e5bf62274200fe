//! What one worker counts of limits, read by control.

use crate::base::counter::Counter;
use crate::policy::limit::plan::Metric;

/// Counters of one worker.
#[derive(Debug, Default)]
pub struct Counters {
    /// Steps that every limit of theirs admitted.
    pub admitted: Counter,
    /// By `plan::Metric`, of the limit that had no room.
    pub refused: [Counter; METRICS],
    /// Amounts taken though there was no room, of limits in shadow or that only warn.
    pub passed: Counter,
    /// What was used beyond a limit, since an estimate was too low: in units of the limit.
    pub overrun: Counter,
    /// Streams that were ended at their budget.
    pub ended: Counter,
    /// Requests that were sent to a cheaper model.
    pub downgraded: Counter,
    /// Requests for a model without a price where money is limited.
    pub unpriced: Counter,
    /// Answers whose provider gave numbers that were not believed, more than the model can write among them.
    pub absurd: Counter,
    /// Input tokens that were estimated, and what providers then said of the same requests.
    pub input_estimated: Counter,
    pub input_reported: Counter,
}

/// How many metrics there are.
pub const METRICS: usize = Metric::ALL.len();
