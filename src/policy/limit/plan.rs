//! The limits of a config, compiled: what there is to count, and which of it a request has to pass.
//!
//! `Plan::limits` holds every limit once; a `Chain` names those of one key (its own, its team's, its
//! organisation's), model, provider or listener as up to three runs of them. Nothing is counted here: `cell`
//! says where the bank does. 100,000 keys with three limits each come to some 40 MB. Limits of client
//! addresses are a template per listener, since their owners come and go. Source: the sections `limits` and
//! `budget` of the config (`control/config/compile/limit.rs`).

use crate::usage::bank::{self, Bank, Full};
use crate::usage::window::{Calendar, Period};
use std::fmt::Write;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Output tokens that a request is taken to ask for, and is capped to, where neither it nor the catalogue nor
/// the config says.
pub const OUTPUT_TOKENS_ASSUMED: NonZeroU32 = NonZeroU32::new(4_096).expect("it is not 0");

/// `Limit::cell` before control has given it one.
pub const NO_CELL: u32 = u32::MAX;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    Requests,
    InputTokens,
    OutputTokens,
    /// Both.
    Tokens,
    /// In units of 100 nano-dollars (`usage::price::PICO_PER_UNIT`).
    Money,
    /// Requests at the same time.
    Concurrent,
    /// Streamed answers at the same time.
    Streams,
}

/// When the count starts anew.
#[derive(Clone, Debug)]
pub enum Window {
    /// Every minute of the node's boot clock.
    Minute,
    Calendar(Arc<Calendar>),
    /// Never: what is taken is given back.
    None,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    Key,
    Team,
    Organisation,
    Model,
    Provider,
    Listener,
    Address,
}

/// What happens to a request that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtLimit {
    Refuse,
    /// It is admitted, and told of.
    Warn,
    /// It is sent to this model instead, as if the client had asked for it. A route serves it.
    Downgrade(Box<str>),
}

/// How much is reserved before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The most that it can cost.
    Full,
    /// Its input and so many tokens of output; as many again as they are used up.
    Step(u32),
}

/// Shares of a budget, in percent, at which it is told of: up to four, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Alerts([u8; 4]);

/// One limit of one owner.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Its place in the bank.
    pub cell: u32,
    pub metric: Metric,
    pub level: Level,
    /// Decided and recorded, not enforced.
    pub shadow: bool,
    pub alerts: Alerts,
    /// At least 1: requests, tokens, or units of 100 nano-dollars.
    pub amount: u64,
    pub window: Window,
    /// `Full` for all that is no budget.
    pub mode: Mode,
    /// `Refuse` for all that is no budget.
    pub at_limit: AtLimit,
    /// The name of the key, team, model, provider, or the address of the listener.
    pub owner: Arc<str>,
}

/// The limits that a key, a model, a provider or a listener is under.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain {
    /// Innermost first; runs of `Plan::limits`.
    runs: [Run; 3],
    /// `output_tokens_assumed` of the innermost owner that has it.
    pub output_tokens_assumed: Option<NonZeroU32>,
}

/// `first` and those that follow it in `Plan::limits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub first: u32,
    pub count: u32,
}

/// What each client address may have at a listener. None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    pub requests_per_minute: Option<u64>,
    pub concurrent: Option<u64>,
    /// Decided and recorded, not enforced.
    pub shadow: bool,
}

/// A team and what it belongs to.
#[derive(Clone, Debug)]
pub struct Team {
    pub name: Arc<str>,
    pub organisation: Option<Arc<str>>,
}

/// All limits of a config.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub limits: Vec<Limit>,
    /// By `Key::index`.
    pub keys: Vec<Chain>,
    /// By `Route::index`.
    pub models: Vec<Chain>,
    /// By `Provider::index`.
    pub providers: Vec<Chain>,
    /// By the place in `Snapshot::listeners`.
    pub listeners: Vec<Chain>,
    /// By the place in `Snapshot::listeners`.
    pub address: Vec<AddressLimits>,
    pub teams: Vec<Team>,
    /// The place of a key's team in `teams`, by `Key::index`.
    pub key_teams: Vec<Option<u32>>,
}

impl Plan {
    /// The limits of a chain with their places in `limits`, innermost first.
    pub fn of(&self, chain: &Chain) -> impl Iterator<Item = (u32, &Limit)> {
        chain.places().filter_map(|place| Some((place, self.limits.get(place as usize)?)))
    }

    /// Gives every limit its place in the bank. Errors: no place is left.
    pub fn attach(&mut self, bank: &Bank) -> Result<(), Full> {
        for limit in &mut self.limits {
            let kind = match limit.window {
                Window::Minute => bank::Kind::Rate,
                Window::Calendar(_) => bank::Kind::Budget,
                Window::None => bank::Kind::Gauge,
            };
            limit.cell = bank.place(&limit.name(), kind, limit.metric as u8)?;
        }
        Ok(())
    }

    /// The chain of a key.
    pub fn key(&self, index: u32) -> Chain {
        self.keys.get(index as usize).copied().unwrap_or_default()
    }

    /// The chain of a model, by its route.
    pub fn model(&self, route: u32) -> Chain {
        self.models.get(route as usize).copied().unwrap_or_default()
    }

    /// The chain of a provider.
    pub fn provider(&self, index: u32) -> Chain {
        self.providers.get(index as usize).copied().unwrap_or_default()
    }

    /// The chain of a listener.
    pub fn listener(&self, index: usize) -> Chain {
        self.listeners.get(index).copied().unwrap_or_default()
    }

    /// What each client address may have at a listener; none: as much as it wants.
    pub fn address(&self, listener: usize) -> Option<&AddressLimits> {
        let limits = self.address.get(listener)?;
        (limits.requests_per_minute.is_some() || limits.concurrent.is_some()).then_some(limits)
    }

    /// The team of a key.
    pub fn team(&self, key: u32) -> Option<&Team> {
        let place = self.key_teams.get(key as usize).copied()??;
        self.teams.get(place as usize)
    }
}

impl Chain {
    /// `runs` innermost first; further ones than three are not taken.
    pub fn new(runs: &[Run], output_tokens_assumed: Option<NonZeroU32>) -> Chain {
        let mut chain = Chain { runs: [Run::default(); 3], output_tokens_assumed };
        chain.runs.iter_mut().zip(runs).for_each(|(place, run)| *place = *run);
        chain
    }

    /// Whether it has no limit.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.count == 0)
    }

    /// Places in `Plan::limits`, innermost first.
    pub fn places(&self) -> impl Iterator<Item = u32> + use<> {
        self.runs.into_iter().flat_map(|run| run.first..run.first.saturating_add(run.count))
    }
}

impl Limit {
    /// Whether it is a budget.
    pub fn is_budget(&self) -> bool {
        matches!(self.window, Window::Calendar(_))
    }

    /// Its name in the bank and in metrics, the same in every generation: `team:blue/budget_usd_month`.
    pub fn name(&self) -> String {
        let mut name = format!("{}:{}/", self.level.word(), self.owner);
        let metric = self.metric.word();
        let _ = match &self.window {
            Window::Minute => write!(name, "{metric}_per_minute"),
            Window::None => write!(name, "{metric}"),
            Window::Calendar(calendar) => write!(name, "budget_{metric}_{}", calendar.period().word()),
        };
        name
    }
}

impl Metric {
    /// All of them, in their order.
    pub const ALL: [Metric; 7] = [
        Metric::Requests,
        Metric::InputTokens,
        Metric::OutputTokens,
        Metric::Tokens,
        Metric::Money,
        Metric::Concurrent,
        Metric::Streams,
    ];

    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            Metric::Requests => "requests",
            Metric::InputTokens => "input_tokens",
            Metric::OutputTokens => "output_tokens",
            Metric::Tokens => "tokens",
            Metric::Money => "usd",
            Metric::Concurrent => "concurrent",
            Metric::Streams => "streams",
        }
    }
}

impl Level {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            Level::Key => "key",
            Level::Team => "team",
            Level::Organisation => "organisation",
            Level::Model => "model",
            Level::Provider => "provider",
            Level::Listener => "listener",
            Level::Address => "address",
        }
    }
}

impl Period {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
            Period::Total => "total",
        }
    }
}

impl Alerts {
    /// How many there may be.
    pub const MAX: usize = 4;

    /// `percents`, 1 to 100 each, sorted and without repeats; beyond `MAX` they are not taken.
    pub fn new(percents: &[u8]) -> Alerts {
        let mut sorted = percents.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut alerts = Alerts::default();
        alerts.0.iter_mut().zip(sorted).for_each(|(place, percent)| *place = percent);
        alerts
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        self.0.into_iter().filter(|percent| *percent > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Alerts, AtLimit, Chain, Level, Limit, Metric, Mode, NO_CELL, Plan, Run, Window};
    use crate::usage::window::{Calendar, Period, Weekday};
    use std::sync::Arc;

    fn limit(level: Level, metric: Metric, window: Window) -> Limit {
        Limit {
            cell: NO_CELL,
            metric,
            level,
            shadow: false,
            alerts: Alerts::default(),
            amount: 1,
            window,
            mode: Mode::Full,
            at_limit: AtLimit::Refuse,
            owner: "blue".into(),
        }
    }

    #[test]
    fn a_limit_is_named_by_whose_it_is_and_what_it_counts() {
        let month = Arc::new(Calendar::new(Period::Month, "UTC", 0, Weekday::Monday).unwrap());
        let rows = [
            (limit(Level::Key, Metric::Requests, Window::Minute), "key:blue/requests_per_minute"),
            (limit(Level::Organisation, Metric::Streams, Window::None), "organisation:blue/streams"),
            (limit(Level::Team, Metric::Money, Window::Calendar(month)), "team:blue/budget_usd_month"),
        ];
        for (limit, name) in rows {
            assert_eq!(limit.name(), name);
        }
    }

    #[test]
    fn a_chain_gives_its_runs_innermost_first() {
        let limits = vec![limit(Level::Key, Metric::Requests, Window::Minute); 6];
        let runs = [Run { first: 4, count: 2 }, Run::default(), Run { first: 0, count: 1 }];
        let plan = Plan { limits, keys: vec![Chain::new(&runs, None)], ..Plan::default() };
        let places: Vec<u32> = plan.of(&plan.key(0)).map(|(place, _)| place).collect();
        assert_eq!(places, [4, 5, 0]);
        assert!(plan.key(1).is_empty() && plan.model(0).is_empty() && !plan.key(0).is_empty());
    }

    #[test]
    fn alerts_are_sorted_and_stand_once() {
        assert_eq!(Alerts::new(&[95, 80, 95]).iter().collect::<Vec<_>>(), [80, 95]);
        assert_eq!(Alerts::new(&[5, 4, 3, 2, 1]).iter().count(), Alerts::MAX);
    }

    #[test]
    fn three_hundred_thousand_limits_and_their_chains_stay_small() {
        assert!(size_of::<Limit>() <= 96, "{}", size_of::<Limit>());
        assert!(size_of::<Chain>() <= 28, "{}", size_of::<Chain>());
    }
}
