//! The account of one request: what it holds of limits, what it may cost, what the ledger knows of it.
//!
//! `open` and `admit` come after the key is known, `reserve` and `enter` before each call, `so_far` before what
//! has come is given to the client, `may_go_on` as a stream reaches the end of what was reserved for it, `close`
//! once on every way out. Where a generation has no limits and the node no ledger there is no account, and nothing of
//! this is paid for.
//! Errors: `Refused`, in the words that the client is told: which limit, of whom, what is left, when it begins
//! anew. Absent: waiting and I/O.

use crate::base::clock;
use crate::base::error::{Error, Kind};
use crate::handler::ratelimit::Fields;
use crate::handler::reply::quoted;
use crate::handler::snapshot::Snapshot;
use crate::handler::worker::Worker;
use crate::llm::catalogue::Unpriced;
use crate::llm::dialect::Dialect;
use crate::llm::price::{self, Price};
use crate::llm::provider::Provider;
use crate::policy::auth::Key;
use crate::policy::exchange::{Ended, Exchange, Served, Step};
use crate::policy::limit::address::{self, Place};
use crate::policy::limit::plan::{
    AddressLimits, AtLimit, Chain, Limit, Metric, Mode, OUTPUT_TOKENS_ASSUMED, Window,
};
use crate::policy::limit::reservation::{self, Ask, Desk, Reservation, Time};
use crate::usage::estimate::{ModelId, tokens};
use crate::usage::ledger::{AttemptOutcome, Entry, Final, Intent, OnFailure, Target};
use crate::usage::{Provenance, Usage};
use std::net::IpAddr;
use std::time::Duration;

/// One request's account.
pub struct Account<'a> {
    worker: &'a Worker,
    snapshot: &'a Snapshot,
    reservation: Reservation,
    entry: Option<Entry>,
    client: Client<'a>,
    /// The key's with its team's and organisation's, the listener's; the model's and the provider's, once known.
    chains: [Chain; 4],
    /// What a token of the target costs; none: nothing, or nobody knows.
    price: Option<Price>,
    is_unpriced: bool,
    model: ModelId,
    input_estimate: u64,
    /// Most tokens that the target can write.
    output_max: u64,
    /// Most tokens that the model can write, whatever was asked for.
    model_max: u64,
    /// Bytes of text that may come before more has to be reserved.
    text_bytes_max: u64,
    /// A call that something was reserved for has been made.
    has_called: bool,
    /// It was refused by a limit or by the ledger: nothing of it counts.
    is_void: bool,
}

/// The client's address, what it may have, and its place.
struct Client<'a> {
    address: IpAddr,
    listener: usize,
    limits: Option<&'a AddressLimits>,
    place: Option<Place>,
}

/// What a call to a target would be.
pub struct PlannedCall<'w> {
    pub provider: &'w Provider,
    /// Place of the route that has the target; none for pass-through.
    pub route: Option<u32>,
    /// The model's name as it is sent on.
    pub model: &'w str,
    /// The length of the body.
    pub bytes: u64,
    /// What the request says, for all choices together.
    pub output_max: Option<u64>,
    /// Alternative answers that are asked for; at least 1.
    pub choices: u64,
    /// It writes tokens.
    pub writes: bool,
    /// It costs tokens at all.
    pub costs: bool,
    pub is_stream: bool,
}

/// What is known of a call before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The output has to be capped to so many tokens: nothing else bounds it, and a limit needs a bound.
    pub cap: Option<u64>,
}

/// A limit stands in the way.
pub struct Refused<'a> {
    pub error: Error,
    /// The model that is asked for instead, by the limit's owner.
    pub downgrade: Option<&'a str>,
}

/// What was used, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bill {
    pub usage: Usage,
    /// None: nobody knows.
    pub cost_pico: Option<u64>,
    /// The model has no price, or a ceiling took its place.
    pub is_unpriced: bool,
}

/// The fields of a request that concern its account. They end here.
pub const TAGS: &str = "x-tollgate-tags";

impl<'a> Account<'a> {
    /// The account of a request of `key` from a client's address at a listener; none where nothing is counted.
    pub fn open(
        worker: &'a Worker,
        snapshot: &'a Snapshot,
        key: &Key,
        (listener, address): (usize, IpAddr),
    ) -> Option<Box<Self>> {
        let plan = &snapshot.plan;
        let client = Client { address, listener, limits: plan.address(listener), place: None };
        if plan.limits.is_empty() && worker.book.is_none() && client.limits.is_none() {
            return None;
        }
        let chains = [plan.key(key.index), plan.listener(listener), Chain::default(), Chain::default()];
        Some(Box::new(Account {
            worker,
            snapshot,
            reservation: Reservation::default(),
            entry: None,
            client,
            chains,
            price: None,
            is_unpriced: false,
            model: ModelId::new(0, ""),
            input_estimate: 0,
            output_max: u64::MAX,
            model_max: u64::MAX,
            text_bytes_max: u64::MAX,
            has_called: false,
            is_void: false,
        }))
    }

    /// Takes one request and its place.
    pub fn admit(&mut self) -> Result<(), Error> {
        let desk = desk(self.worker, self.snapshot);
        let Client { address, listener, limits, .. } = self.client;
        if let Some(limits) = limits {
            let taken = self.worker.addresses().take(listener, address, limits, desk.time.node_s);
            self.client.place = Some(taken.map_err(|full| told_address(&desk, full))?);
        }
        let admitted = self.reservation.admit(&desk, &self.chains[..2]);
        admitted.map_err(|refused| {
            self.is_void = true;
            told(&desk, &refused)
        })
    }

    /// Takes what a call can cost at most, in the place of what was taken for the one before.
    pub fn reserve(&mut self, planned: &PlannedCall<'_>) -> Result<Reserved, Refused<'a>> {
        let (worker, snapshot) = (self.worker, self.snapshot);
        let desk = desk(worker, snapshot);
        self.reservation.release_call(&desk, std::mem::take(&mut self.has_called));
        self.chains[2] = planned.route.map_or_else(Chain::default, |route| snapshot.plan.model(route));
        self.chains[3] = snapshot.plan.provider(planned.provider.index);
        self.model = ModelId::new(planned.provider.index, planned.model);
        self.input_estimate =
            if planned.costs { worker.estimator.input_tokens(self.model, planned.bytes).max(1) } else { 0 };
        let known = snapshot.catalogue.model(planned.provider.kind, planned.model);
        self.set_price(known.price, planned).map_err(|error| Refused { error, downgrade: None })?;
        let of_model = known.output_max.map(|each| each.saturating_mul(planned.choices));
        let bound = [planned.output_max, of_model].into_iter().flatten().min();
        let (output_max, cap) = match planned.output_max {
            // Passed through: nobody has looked at how much it writes, only that there is room.
            _ if planned.route.is_none() => (u64::from(planned.costs), None),
            _ if !planned.writes => (0, None),
            Some(asked) => (bound.unwrap_or(asked), None),
            None => self.unasked_output(of_model, planned.is_stream),
        };
        self.output_max = cap.or(bound).unwrap_or(u64::MAX);
        self.model_max = of_model.filter(|_| planned.writes).unwrap_or(u64::MAX);
        let ask = Ask {
            input_tokens: self.input_estimate,
            output_tokens: output_max,
            price: self.price.as_ref().filter(|_| planned.costs),
            is_stream: planned.is_stream,
        };
        if let Err(refused) = self.reservation.reserve(&desk, &self.chains, &ask) {
            let limit = &snapshot.plan.limits[refused.limit as usize];
            let downgrade = match &limit.at_limit {
                AtLimit::Downgrade(model) => Some(&**model),
                AtLimit::Refuse | AtLimit::Warn => None,
            };
            return Err(Refused { error: told(&desk, &refused), downgrade });
        }
        self.set_text_bytes_max();
        Ok(Reserved { cap })
    }

    /// Writes down what is about to be asked. Errors: the ledger keeps no more, and the policy is to refuse then.
    pub fn enter(
        &mut self,
        exchange: &Exchange,
        planned: &PlannedCall<'_>,
        asked: Asked<'_>,
    ) -> Result<(), Error> {
        self.has_called = true;
        let Some(book) = &self.worker.book else { return Ok(()) };
        let holds = self.reservation.holds();
        let target = Target { provider: &planned.provider.name, model: planned.model, holds: &holds };
        if let Some(entry) = &self.entry {
            book.retarget(entry, &target);
            return Ok(());
        }
        let key = exchange.key.and_then(|at| self.snapshot.keys.all().get(at as usize));
        let team = exchange.key.and_then(|at| self.snapshot.plan.team(at));
        let since = clock::now().micros_since(exchange.clock.start()) / 1000;
        self.entry = book.begin(&Intent {
            id: exchange.id.as_bytes(),
            key: key.map_or("", |key| &key.name),
            team: team.map_or("", |team| &team.name),
            organisation: team.and_then(|team| team.organisation.as_deref()).unwrap_or(""),
            model: exchange.model.as_deref().unwrap_or(""),
            surface: exchange.surface,
            dialect: exchange.dialect.map_or("", |dialect| dialect.name()),
            tags: asked.tags,
            client: Some(asked.client),
            is_stream: planned.is_stream,
            started_unix_ms: clock::unix_ms().saturating_sub(since),
            input_estimate: self.input_estimate,
            target,
        });
        match book.on_failure() {
            OnFailure::Closed if self.entry.is_none() => {
                self.is_void = true;
                let detail = "no record of this request could be kept; try again";
                Err(Error::new(Kind::Overloaded, detail).retry_after_s(1))
            }
            _ => Ok(()),
        }
    }

    /// A target was passed over or has failed, and another one may follow.
    pub fn passed_over(
        &mut self,
        exchange: &Exchange,
        planned: &PlannedCall<'_>,
        status: u16,
        error: &str,
        took: Duration,
    ) {
        let (Some(book), Some(entry)) = (&self.worker.book, &self.entry) else { return };
        book.attempt(
            entry,
            &AttemptOutcome {
                number: u16::try_from(exchange.attempts).unwrap_or(u16::MAX),
                provider: &planned.provider.name,
                model: planned.model,
                status,
                error,
                micros: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
                ..AttemptOutcome::default()
            },
        );
    }

    /// Nothing of the request counts: a limit refused it.
    pub fn void(&mut self) {
        self.is_void = true;
    }

    /// What the head of an answer tells of its limits.
    pub fn told(&self, dialect: Dialect) -> Fields {
        Fields::new(&desk(self.worker, self.snapshot), &self.chains, dialect)
    }

    /// What has been used so far, as the ledger would have it if this process died now.
    pub fn so_far(&self, usage: &Usage) {
        if let (Some(book), Some(entry)) = (&self.worker.book, &self.entry) {
            book.progress(entry, usage);
        }
    }

    /// Whether a ledger is kept of this request.
    pub fn is_recorded(&self) -> bool {
        self.entry.is_some()
    }

    /// Whether it may have to end a stream before the provider does.
    pub fn is_in_steps(&self) -> bool {
        self.text_bytes_max != u64::MAX
    }

    /// Whether a stream of which so much text has come may go on: more is reserved where that is needed.
    pub fn may_go_on(&mut self, served: Option<&Served>, text_bytes: u64, content_events: u64) -> bool {
        if text_bytes < self.text_bytes_max && content_events < self.reservation.allowance().output_tokens {
            return true;
        }
        let ratio = self.worker.estimator.output_ratio(self.model);
        let written = tokens(text_bytes, ratio).max(content_events);
        let desk = desk(self.worker, self.snapshot);
        let extended = self.reservation.extend(&desk, &self.chains, written, self.price.as_ref());
        if let (Ok(()), Some(book), Some(entry)) = (extended, &self.worker.book, &self.entry)
            && let Some(served) = served
            && let Some(provider) = self.snapshot.providers.get(served.provider as usize)
        {
            let holds = self.reservation.holds();
            book.retarget(entry, &Target { provider: &provider.name, model: &served.model, holds: &holds });
        }
        self.set_text_bytes_max();
        if extended.is_err() && written >= self.reservation.allowance().output_tokens {
            desk.counters.ended.add(1);
            return false;
        }
        true
    }

    /// Learns from an answer whose provider gave its numbers.
    pub fn learn(&self, bytes_in: u64, usage: &Usage, text_bytes: u64) {
        if usage.provenance != Provenance::Provider || usage.flawed {
            return;
        }
        let (input, output) = (usage.input_total().unwrap_or(0), usage.output_total().unwrap_or(0));
        self.worker.estimator.learn(self.model, (bytes_in, input), (text_bytes, output));
        let counters = &self.worker.facts.counters().limits;
        counters.input_estimated.add(self.input_estimate);
        counters.input_reported.add(input);
    }

    /// What an answer that ended so has cost, with what was metered of it. Numbers that no model could have made are
    /// cut to what this one can make; an answer that broke off may have had tokens on their way that never came.
    pub fn bill(&self, metered: Usage, ended: Ended) -> Bill {
        let mut usage = metered;
        let is_cut = matches!(ended, Ended::ClientLeft | Ended::UpstreamCut | Ended::Budget);
        if usage.output_total().is_some_and(|output| output > self.model_max) {
            (usage.output, usage.flawed) = (Some(self.model_max), true);
            let reasoning = usage.reasoning.map(|some| some.min(self.model_max));
            (usage.reasoning, usage.total_reported) = (reasoning, None);
        }
        if let Some(output) = usage.output.filter(|_| usage.provenance == Provenance::Estimated) {
            let on_their_way = if is_cut && output > 0 { UNSEEN_MIN + output / UNSEEN_PART } else { 0 };
            usage.output = Some((output + on_their_way).min(self.output_max));
        }
        let price = self.price.as_ref().filter(|_| !usage.is_unknown());
        Bill { usage, cost_pico: price.map(|price| price.cost(&usage)), is_unpriced: self.is_unpriced }
    }

    /// Settles with what was used, and hands the record on. Once, on every way out.
    pub fn close(mut self: Box<Self>, exchange: &mut Exchange) {
        let desk = desk(self.worker, self.snapshot);
        if let Some(place) = self.client.place.take() {
            self.worker.addresses().give(place);
        }
        if self.is_void {
            self.reservation.release(&desk);
        }
        let Bill { usage, cost_pico, is_unpriced } = self.bill(exchange.usage, exchange.ended);
        desk.counters.absurd.add(u64::from(usage.flawed));
        (exchange.usage, exchange.cost_pico) = (usage, cost_pico);
        self.reservation.settle(&desk, &usage, cost_pico.unwrap_or(0));
        let (Some(book), Some(entry)) = (&self.worker.book, self.entry.take()) else { return };
        book.finish(
            entry,
            &Final {
                usage,
                cost_pico,
                is_unpriced,
                status: exchange.status,
                ended: exchange.ended.name(),
                error: exchange.error.unwrap_or(""),
                attempts: exchange.attempts,
                events: exchange.events,
                bytes_in: exchange.bytes_in,
                bytes_out: exchange.bytes_out,
                steps_us: Step::ALL.map(|step| exchange.clock.at(step).unwrap_or(0)),
            },
        );
    }

    fn set_price(&mut self, known: Option<Price>, planned: &PlannedCall<'_>) -> Result<(), Error> {
        (self.price, self.is_unpriced) = (known, false);
        if known.is_some() || !planned.costs {
            return Ok(());
        }
        self.is_unpriced = true;
        self.worker.facts.counters().limits.unpriced.add(1);
        match &self.snapshot.unpriced {
            Unpriced::Allow => {}
            Unpriced::Ceiling(price) => self.price = Some(*price),
            Unpriced::Refuse if self.limits().any(|limit| limit.metric == Metric::Money) => {
                let what = match planned.model {
                    // Pass-through does not look at it.
                    "" => "what is passed through".to_string(),
                    model => format!("the model \"{}\"", quoted(model)),
                };
                let detail = format!("{what} has no price here and may not be used under a budget");
                return Err(Error::new(Kind::ModelForbidden, detail).param("model"));
            }
            Unpriced::Refuse => {}
        }
        Ok(())
    }

    /// Whether a limit reserves the whole output of the call.
    fn needs_a_bound(&self, is_stream: bool) -> bool {
        self.limits().any(|limit| {
            let counts_output = matches!(limit.metric, Metric::OutputTokens | Metric::Tokens | Metric::Money);
            counts_output && !limit.shadow && (limit.mode == Mode::Full || !is_stream)
        })
    }

    /// What is reserved for the output of a request that does not bound it, and the bound that it gets: what the
    /// limits' owner says, else what the model can write, else `OUTPUT_TOKENS_ASSUMED`.
    fn unasked_output(&self, of_model: Option<u64>, is_stream: bool) -> (u64, Option<u64>) {
        let of_owner = self.chains.iter().find_map(|chain| chain.output_tokens_assumed);
        let assumed = match (of_owner, of_model) {
            (None, Some(of_model)) => return (of_model, None),
            (of_owner, of_model) => {
                let assumed = u64::from(of_owner.unwrap_or(OUTPUT_TOKENS_ASSUMED).get());
                of_model.map_or(assumed, |of_model| of_model.min(assumed))
            }
        };
        (assumed, self.needs_a_bound(is_stream).then_some(assumed))
    }

    fn limits(&self) -> impl Iterator<Item = &'a Limit> {
        let plan = &self.snapshot.plan;
        self.chains
            .into_iter()
            .flat_map(move |chain| chain.places().filter_map(|at| plan.limits.get(at as usize)))
    }

    fn set_text_bytes_max(&mut self) {
        let tokens = self.reservation.allowance().output_tokens;
        let ratio = u64::from(self.worker.estimator.output_ratio(self.model));
        self.text_bytes_max = if tokens == u64::MAX { u64::MAX } else { tokens.saturating_mul(ratio) >> 8 };
    }
}

/// What the ledger keeps of a request beside its target.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    pub tags: &'r str,
    pub client: IpAddr,
}

/// Tokens that a provider may have made of an answer that broke off, beyond those that came: so many and a part of
/// what came.
const UNSEEN_MIN: u64 = 8;
const UNSEEN_PART: u64 = 32;

/// The limits of a generation as this worker asks them now.
pub fn desk<'d>(worker: &'d Worker, snapshot: &'d Snapshot) -> Desk<'d> {
    let counters = &worker.facts.counters().limits;
    Desk { plan: &snapshot.plan, column: &worker.column, counters, time: Time::now() }
}

/// A refusal in the client's words.
fn told(desk: &Desk<'_>, refused: &reservation::Refused) -> Error {
    let limit = &desk.plan.limits[refused.limit as usize];
    let owner = format!("{} {}", limit.level.word(), limit.owner);
    let shown = |amount: u64| match limit.metric {
        Metric::Money => format!("${}", price::usd(u128::from(amount) * u128::from(price::PICO_PER_UNIT))),
        Metric::Requests => format!("{amount} requests"),
        Metric::InputTokens => format!("{amount} input tokens"),
        Metric::OutputTokens => format!("{amount} output tokens"),
        Metric::Tokens => format!("{amount} tokens"),
        Metric::Concurrent => format!("{amount} requests at a time"),
        Metric::Streams => format!("{amount} streams at a time"),
    };
    let (of, kind) = match &limit.window {
        Window::Minute => (" a minute".to_string(), Kind::RateLimited),
        Window::Calendar(calendar) => {
            let period = calendar.period().word();
            let of = match period {
                "total" => " in total".to_string(),
                "hour" => " an hour".to_string(),
                period => format!(" a {period}"),
            };
            (of, Kind::QuotaExceeded)
        }
        Window::None => (String::new(), Kind::RateLimited),
    };
    let allowed = format!("{owner} is limited to {}{of}", shown(limit.amount));
    if refused.asked > limit.amount {
        let detail = format!("{allowed}, and this request may need {}: it never fits", shown(refused.asked));
        return Error::new(Kind::LimitTooSmall, detail);
    }
    let left = match limit.metric {
        Metric::Requests | Metric::Concurrent | Metric::Streams => String::new(),
        _ => format!(": {} are left and this request may need {}", shown(refused.left), shown(refused.asked)),
    };
    let again = match refused.resets_in_s {
        Some(seconds) => format!("; the next window begins in {}", lasting(seconds)),
        None if kind == Kind::QuotaExceeded => String::new(),
        None => "; try again when one has ended".to_string(),
    };
    let error = Error::new(kind, format!("{allowed}{left}{again}"));
    match (refused.resets_in_s, kind) {
        (Some(seconds), _) => error.retry_after_s(u32::try_from(seconds).unwrap_or(u32::MAX)),
        (None, Kind::RateLimited) => error.retry_after_s(1),
        _ => error,
    }
}

/// A refusal of a client's address in its words.
fn told_address(desk: &Desk<'_>, full: address::Full) -> Error {
    let (metric, limit, seconds) = match full {
        address::Full::Requests(limit) => ("requests a minute", limit, 60 - desk.time.node_s % 60),
        address::Full::Concurrent(limit) => ("requests at a time", limit, 1),
    };
    let counted = match full {
        address::Full::Requests(_) => Metric::Requests,
        address::Full::Concurrent(_) => Metric::Concurrent,
    };
    desk.counters.refused[counted as usize].add(1);
    let detail = format!("each client address is limited to {limit} {metric} here; try again in {seconds} s");
    Error::new(Kind::RateLimited, detail).retry_after_s(seconds as u32)
}

/// A length of time in its two largest units.
fn lasting(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if left >= unit {
            parts.push(format!("{} {name}", left / unit));
            left %= unit;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".to_string() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::lasting;

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        let rows =
            [(0, "0 s"), (12, "12 s"), (60, "1 min"), (3_725, "1 h 2 min"), (86_400 * 3 + 5, "3 d 5 s")];
        for (seconds, text) in rows {
            assert_eq!(lasting(seconds), text);
        }
    }
}
