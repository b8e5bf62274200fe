//! What a request holds of limits, from its admission to its settling.
//!
//! Shape: `admit` takes a place and a request of every limit of a chain; `reserve` takes the tokens and the money
//! that a call can cost at most (or its first step), `extend` more as a stream goes on; `settle` books what was
//! used and gives the rest back, once, whichever way the request ends. All limits of a step admit or none: what
//! was taken of the inner ones goes back when an outer one refuses. Limits in shadow and those that only warn are
//! taken without asking and counted.
//! The tokens that are reserved are an upper estimate; what turns out dearer is booked all the same, beyond the
//! limit if it must be, and counted as such.
//! Limits: `STEPS_MAX` windows of one limit that a stream reaches into are kept apart; more count as the last.
//! Errors: `Refused`. Absent: I/O and waiting; the bank answers at once.

use crate::base::clock;
use crate::llm::price::{Price, units};
use crate::policy::limit::counters::Counters;
use crate::policy::limit::plan::{AtLimit, Chain, Level, Limit, Metric, Mode, Plan, Window};
use crate::usage::Usage;
use crate::usage::bank::{Column, Hold};
use crate::usage::window;
use smallvec::SmallVec;

/// The limits of a snapshot, the worker's column of the bank, and what time it is.
#[derive(Clone, Copy)]
pub struct Desk<'d> {
    pub plan: &'d Plan,
    pub column: &'d Column,
    pub counters: &'d Counters,
    pub time: Time,
}

/// A reading of both clocks that windows are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since the node's boot.
    pub node_s: u64,
    pub unix_s: i64,
}

impl Time {
    /// Now.
    pub fn now() -> Time {
        Time { node_s: clock::node_s(), unix_s: i64::try_from(clock::unix_ms() / 1000).unwrap_or(i64::MAX) }
    }

    /// The tag of a limit's window.
    pub fn tag(&self, limit: &Limit) -> u16 {
        match &limit.window {
            Window::Minute => (self.node_s / 60) as u16,
            Window::Calendar(calendar) => calendar.now(self.unix_s).index as u16,
            Window::None => 0,
        }
    }

    /// Seconds until the window of a limit ends. None: it does not, or places come free at any time.
    pub fn resets_in_s(&self, limit: &Limit) -> Option<u64> {
        match &limit.window {
            Window::Minute => Some(60 - self.node_s % 60),
            Window::Calendar(calendar) => {
                let window::Window { end_unix_s, .. } = calendar.now(self.unix_s);
                let left = end_unix_s.saturating_sub(self.unix_s);
                (end_unix_s != i64::MAX).then(|| u64::try_from(left).unwrap_or(0).max(1))
            }
            Window::None => None,
        }
    }
}

/// What a call may cost at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// None: it costs nothing, or nobody knows.
    pub price: Option<&'a Price>,
    pub is_stream: bool,
}

/// A limit that had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place in `Plan::limits`.
    pub limit: u32,
    /// What was asked of it, and what was left.
    pub asked: u64,
    pub left: u64,
    /// Seconds until its window ends; none where that is not what helps.
    pub resets_in_s: Option<u64>,
}

/// How far a stream may go before it has to ask for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Output tokens from the beginning of the answer; `u64::MAX`: no limit is reserved in steps.
    pub output_tokens: u64,
}

/// What a request holds.
#[derive(Debug, Default)]
pub struct Reservation {
    held: SmallVec<[Held; 6]>,
    /// Output tokens that are reserved by limits in steps.
    reserved_output: u64,
    reserved_input: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    limit: u32,
    hold: Hold,
}

/// Windows of one limit that are kept apart.
const STEPS_MAX: usize = 4;

impl Reservation {
    /// Takes one request and one place of every limit of `chains` that counts them.
    pub fn admit(&mut self, desk: &Desk<'_>, chains: &[Chain]) -> Result<(), Refused> {
        self.take_all(desk, chains, |limit| match limit.metric {
            Metric::Requests | Metric::Concurrent => 1,
            _ => 0,
        })
    }

    /// Takes what a call can cost at most of every limit of `chains`, and the place of its stream.
    pub fn reserve(&mut self, desk: &Desk<'_>, chains: &[Chain], ask: &Ask<'_>) -> Result<(), Refused> {
        let mut first_step = u64::MAX;
        let taken = self.take_all(desk, chains, |limit| {
            let output = match limit.mode {
                Mode::Step(tokens) if ask.is_stream => {
                    first_step = first_step.min(u64::from(tokens));
                    ask.output_tokens.min(u64::from(tokens))
                }
                // An answer that comes whole cannot be ended on its way.
                Mode::Full | Mode::Step(_) => ask.output_tokens,
            };
            match limit.metric {
                Metric::Streams => u64::from(ask.is_stream),
                // Of a key they were taken as it was admitted.
                Metric::Requests | Metric::Concurrent => u64::from(is_of_target(limit)),
                metric => amount(metric, ask.input_tokens, output, ask.price),
            }
        });
        self.reserved_input = ask.input_tokens;
        self.reserved_output = first_step;
        taken
    }

    /// How far the stream may go.
    pub fn allowance(&self) -> Allowance {
        Allowance { output_tokens: self.reserved_output }
    }

    /// Takes a further step of every limit that is reserved in steps, so that `output_tokens` are covered.
    /// Where one has no room nothing is taken and the stream is to end.
    pub fn extend(
        &mut self,
        desk: &Desk<'_>,
        chains: &[Chain],
        output_tokens: u64,
        price: Option<&Price>,
    ) -> Result<(), Refused> {
        let steps =
            chains.iter().flat_map(|chain| desk.plan.of(chain)).filter_map(|(_, limit)| match limit.mode {
                Mode::Step(tokens) => Some(u64::from(tokens)),
                Mode::Full => None,
            });
        let Some(step) = steps.min() else { return Ok(()) };
        let to = output_tokens.max(self.reserved_output).saturating_add(step);
        let (input, from) = (self.reserved_input, self.reserved_output);
        self.take_all(desk, chains, |limit| match limit.mode {
            Mode::Step(_) => {
                let until_now = amount(limit.metric, input, from, price);
                amount(limit.metric, input, to, price).saturating_sub(until_now)
            }
            Mode::Full => 0,
        })?;
        self.reserved_output = to;
        Ok(())
    }

    /// Gives back what `reserve` and `extend` took, but for the request itself of a target that was called, which is
    /// booked whatever follows: another call, or a refusal by a limit.
    pub fn release_call(&mut self, desk: &Desk<'_>, was_made: bool) {
        self.held.retain(|held| {
            let Some(limit) = desk.plan.limits.get(held.limit as usize) else { return true };
            match limit.metric {
                Metric::Requests | Metric::Concurrent if !is_of_target(limit) => return true,
                Metric::Requests if was_made => desk.column.settle(held.hold, held.hold.amount, limit.amount),
                _ => desk.column.give(held.hold, limit.amount),
            }
            false
        });
        (self.reserved_input, self.reserved_output) = (0, 0);
    }

    /// Gives everything back: the request was refused by a limit and counts nowhere.
    pub fn release(&mut self, desk: &Desk<'_>) {
        for held in self.held.drain(..) {
            if let Some(limit) = desk.plan.limits.get(held.limit as usize) {
                desk.column.give(held.hold, limit.amount);
            }
        }
    }

    /// Books what was used and gives the rest back. `cost_pico`: of all of it.
    pub fn settle(&mut self, desk: &Desk<'_>, usage: &Usage, cost_pico: u64) {
        let held = std::mem::take(&mut self.held);
        for (at, first) in held.iter().enumerate() {
            if held[..at].iter().any(|before| before.limit == first.limit) {
                continue;
            }
            let Some(limit) = desk.plan.limits.get(first.limit as usize) else { continue };
            let of_limit = held[at..].iter().filter(|held| held.limit == first.limit);
            let mut left = match limit.metric {
                Metric::Requests => of_limit.clone().map(|held| held.hold.amount).sum(),
                metric => used(metric, usage, cost_pico),
            };
            for held in of_limit {
                let spent = left.min(held.hold.amount);
                left -= spent;
                desk.column.settle(held.hold, spent, limit.amount);
            }
            if left > 0 {
                let (hold, over) = desk.column.force(limit.cell, desk.tag(limit), limit.amount, left);
                desk.column.settle(hold, left, limit.amount);
                desk.counters.overrun.add(over);
            }
        }
    }

    /// What it holds, for the ledger: a process that dies leaves it to be given back.
    pub fn holds(&self) -> SmallVec<[Hold; 6]> {
        self.held.iter().map(|held| held.hold).collect()
    }

    /// Takes `amount` of each limit of `chains`, or of none.
    fn take_all(
        &mut self,
        desk: &Desk<'_>,
        chains: &[Chain],
        mut amount: impl FnMut(&Limit) -> u64,
    ) -> Result<(), Refused> {
        let before = self.held.len();
        let mut merged: SmallVec<[(usize, u64); 6]> = SmallVec::new();
        for (place, limit) in chains.iter().flat_map(|chain| desk.plan.of(chain)) {
            let asked = amount(limit);
            if asked == 0 {
                continue;
            }
            let tag = desk.tag(limit);
            let hold = match desk.column.take(limit.cell, tag, limit.amount, asked) {
                Ok(hold) => hold,
                Err(_) if !desk.enforces(limit) => {
                    desk.counters.passed.add(1);
                    desk.column.force(limit.cell, tag, limit.amount, asked).0
                }
                Err(no_room) => {
                    self.undo(desk, before, &merged);
                    desk.counters.refused[limit.metric as usize].add(1);
                    let left = no_room.left.min(limit.amount);
                    let resets_in_s = desk.resets_in_s(limit);
                    return Err(Refused { limit: place, asked, left, resets_in_s });
                }
            };
            let same_limit = || self.held[..before].iter().filter(|held| held.limit == place);
            let is_many = same_limit().count() >= STEPS_MAX;
            let same = self.held[..before]
                .iter()
                .rposition(|held| held.limit == place && (held.hold.tag == hold.tag || is_many));
            match same {
                Some(at) => {
                    self.held[at].hold.amount += hold.amount;
                    merged.push((at, hold.amount));
                }
                None => self.held.push(Held { limit: place, hold }),
            }
        }
        desk.counters.admitted.add(1);
        Ok(())
    }

    /// Gives back what was taken since there were `before` holds.
    fn undo(&mut self, desk: &Desk<'_>, before: usize, merged: &[(usize, u64)]) {
        let limit_of =
            |held: &Held| desk.plan.limits.get(held.limit as usize).map_or(0, |limit| limit.amount);
        for held in self.held.drain(before..) {
            desk.column.give(held.hold, limit_of(&held));
        }
        for (at, amount) in merged {
            let held = &mut self.held[*at];
            held.hold.amount -= amount;
            desk.column.give(Hold { amount: *amount, ..held.hold }, limit_of(held));
        }
    }
}

impl Desk<'_> {
    /// The tag of a limit's window now.
    pub fn tag(&self, limit: &Limit) -> u16 {
        self.time.tag(limit)
    }

    /// Seconds until the window of a limit ends. None: it does not, or places come free at any time.
    pub fn resets_in_s(&self, limit: &Limit) -> Option<u64> {
        self.time.resets_in_s(limit)
    }

    /// What is left of a limit, as far as this worker can have it at once.
    pub fn left(&self, limit: &Limit) -> u64 {
        self.column.left(limit.cell, self.tag(limit), limit.amount)
    }

    fn enforces(&self, limit: &Limit) -> bool {
        !limit.shadow && limit.at_limit != AtLimit::Warn
    }
}

/// Whether it is the limit of a model or a provider.
fn is_of_target(limit: &Limit) -> bool {
    matches!(limit.level, Level::Model | Level::Provider)
}

/// What a limit counts of a call with so many tokens.
fn amount(metric: Metric, input: u64, output: u64, price: Option<&Price>) -> u64 {
    match metric {
        Metric::InputTokens => input,
        Metric::OutputTokens => output,
        Metric::Tokens => input.saturating_add(output),
        Metric::Money => price.map_or(0, |price| units(price.bound(input, output))),
        Metric::Requests | Metric::Concurrent | Metric::Streams => 0,
    }
}

/// What a limit counts of what was used.
fn used(metric: Metric, usage: &Usage, cost_pico: u64) -> u64 {
    match metric {
        Metric::InputTokens => usage.input_total().unwrap_or(0),
        Metric::OutputTokens => usage.output_total().unwrap_or(0),
        Metric::Tokens => usage.total().unwrap_or(0),
        Metric::Money => units(cost_pico),
        // The request itself is counted by what is held of it; places are given back with its end.
        Metric::Requests | Metric::Concurrent | Metric::Streams => 0,
    }
}

#[cfg(test)]
mod tests;
