//! Limits, budgets, teams and organisations.
//!
//! In: the tables `limits`, `budget` and `address_limits` of every owner. Out: a `Plan` in which each limit
//! stands once and each key, model, provider and listener knows the run of its own and those of its team and
//! organisation. Told here is what the shape cannot say: names that are not there, two budgets under one
//! name, limits that another one makes pointless, settings that do nothing, owners that nothing belongs to.

use crate::control::config::compile::Context;
use crate::control::config::problem::{did_you_mean, one_of, quoted};
use crate::control::config::raw;
use crate::control::config::sources::{At, List, Sources};
use crate::llm::decimal::{NoAmount, scaled};
use crate::policy::limit::plan::{
    AddressLimits, Alerts, AtLimit, Chain, Level, Limit, Metric, Mode, NO_CELL, Plan, Run, Team, Window,
};
use crate::policy::route::Routes;
use crate::usage::window::{Calendar, Period, Weekday, zone_names};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Dollars of one budget at most. A bank cell counts to 2^48 units of 100 nano-dollars, some 28 million.
const USD_MAX: u64 = 10_000_000;

/// Decimal places of a dollar that a bank cell counts.
const USD_PLACES: i32 = 7;

/// Output tokens of a step where the config does not say.
const STEP_TOKENS: u32 = 256;

/// Names of a list that a message shows.
const NAMES_SHOWN: usize = 10;

pub fn compile(context: &mut Context<'_>, routes: &Routes) -> Plan {
    let raw = &context.sources.raw;
    let mut limits =
        Compiler { context, routes, limits: Vec::new(), calendars: HashMap::new(), needs_ledger_told: false };
    let organisations = limits.organisations();
    let (teams, team_chains) = limits.teams(&organisations);
    let by_name: HashMap<&str, usize> =
        raw.team.iter().enumerate().rev().map(|(index, team)| (&*team.name, index)).collect();
    let (mut keys, mut key_teams) = (Vec::with_capacity(raw.key.len()), Vec::with_capacity(raw.key.len()));
    for (index, key) in raw.key.iter().enumerate() {
        let owner = Owner::new(Level::Key, &key.name, &key.limits, &key.budget);
        let own = limits.owner(&owner, |sources| sources.entry(List::Key, index));
        let team = key.team.as_ref().and_then(|team| by_name.get(&**team).copied());
        if let (Some(name), None) = (&key.team, team) {
            let at = limits.context.sources.entry(List::Key, index).key("team");
            limits.context.error(at, unknown("team", name, by_name.keys().copied()));
        }
        keys.push(own.below(team.map(|team| &team_chains[team])));
        key_teams.push(team.map(|team| team as u32));
    }
    let (models, providers) = (limits.models(), limits.providers());
    let (listeners, address) = limits.listeners();
    Plan { limits: limits.limits, keys, models, providers, listeners, address, teams, key_teams }
}

/// Warns of teams and organisations with limits that no key is under.
pub fn unreached(context: &mut Context<'_>) {
    if context.has_errors() {
        return;
    }
    let sources = context.sources;
    let (teams, keys) = (&sources.raw.team, &sources.raw.key);
    let with_keys: HashSet<&str> = keys.iter().filter_map(|key| key.team.as_deref()).collect();
    for (index, team) in teams.iter().enumerate().filter(|(_, team)| !with_keys.contains(&*team.name)) {
        if team.limits.is_some() || team.budget.is_some() {
            let message = format!("matches nothing: no [[key]] has team = {}", quoted(&team.name));
            context.warn(sources.entry(List::Team, index), message);
        }
    }
    let reached = |name: &str| {
        let members = teams.iter().filter(|team| team.organisation.as_deref() == Some(name));
        members.into_iter().any(|team| with_keys.contains(&*team.name))
    };
    for (index, organisation) in sources.raw.organisation.iter().enumerate() {
        if (organisation.limits.is_some() || organisation.budget.is_some()) && !reached(&organisation.name) {
            let name = quoted(&organisation.name);
            let message = format!("matches nothing: no [[key]] is in a team with organisation = {name}");
            context.warn(sources.entry(List::Organisation, index), message);
        }
    }
}

/// `no team "x"`, with the nearest name, or the names that there are.
fn unknown<'n>(what: &str, name: &str, names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let near = did_you_mean(name, names.iter().copied());
    let known: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| quoted(name)).collect();
    match (near.is_empty(), names.len()) {
        (true, 0) => format!("no {what} {}: there is no [[{what}]]", quoted(name)),
        (true, 1..=NAMES_SHOWN) => format!("no {what} {}, allowed: {}", quoted(name), one_of(&known)),
        _ => format!("no {what} {}{near}", quoted(name)),
    }
}

/// Who has limits, as written.
struct Owner<'r> {
    level: Level,
    name: &'r str,
    limits: Option<&'r raw::Limits>,
    budgets: &'r [raw::Budget],
    /// The budgets are written as a list.
    is_list: bool,
}

impl<'r> Owner<'r> {
    fn new(
        level: Level,
        name: &'r str,
        limits: &'r Option<raw::Limits>,
        budget: &'r Option<raw::Budgets>,
    ) -> Owner<'r> {
        let budgets = budget.as_ref().map_or(&[][..], raw::Budgets::all);
        let is_list = matches!(budget, Some(raw::Budgets::Several(_)));
        Owner { level, name, limits: limits.as_ref(), budgets, is_list }
    }

    fn budget_at(&self, at: &At, index: usize) -> At {
        let at = at.key("budget");
        if self.is_list { at.at(index) } else { at }
    }
}

/// What one owner's tables came to.
#[derive(Clone, Copy)]
struct Own {
    run: Run,
    output_tokens_assumed: Option<NonZeroU32>,
}

/// An owner's own and what it belongs to, innermost first.
#[derive(Clone)]
struct Nested(Vec<Own>);

impl Own {
    fn alone(self) -> Chain {
        Chain::new(&[self.run], self.output_tokens_assumed)
    }

    fn below(self, outer: Option<&Nested>) -> Chain {
        let outer = outer.map_or(&[][..], |outer| &outer.0);
        let all = || std::iter::once(&self).chain(outer);
        let mut runs = [Run::default(); 3];
        runs.iter_mut().zip(all()).for_each(|(place, own)| *place = own.run);
        Chain::new(&runs, all().find_map(|own| own.output_tokens_assumed))
    }
}

type CalendarKey<'r> = (raw::Period, &'r str, u8, u8);

struct Compiler<'c, 'a> {
    context: &'c mut Context<'a>,
    routes: &'c Routes,
    limits: Vec<Limit>,
    /// 100,000 budgets have few different calendars.
    calendars: HashMap<CalendarKey<'a>, Option<Arc<Calendar>>>,
    /// It has been told that budgets need a ledger.
    needs_ledger_told: bool,
}

impl<'a> Compiler<'_, 'a> {
    fn organisations(&mut self) -> HashMap<&'a str, (Arc<str>, Own)> {
        let sources = self.context.sources;
        let mut known: HashMap<&str, (Arc<str>, Own)> = HashMap::new();
        for (index, raw) in sources.raw.organisation.iter().enumerate() {
            let at = |sources: &Sources| sources.entry(List::Organisation, index);
            let own = self.owner(&Owner::new(Level::Organisation, &raw.name, &raw.limits, &raw.budget), at);
            let first = sources.raw.organisation[..index].iter().position(|other| other.name == raw.name);
            self.name(List::Organisation, index, &raw.name, first);
            known.entry(&raw.name).or_insert_with(|| (raw.name.as_str().into(), own));
        }
        known
    }

    fn teams(&mut self, organisations: &HashMap<&str, (Arc<str>, Own)>) -> (Vec<Team>, Vec<Nested>) {
        let sources = self.context.sources;
        let mut named: HashMap<&str, usize> = HashMap::new();
        let (mut teams, mut chains) = (Vec::new(), Vec::new());
        for (index, raw) in sources.raw.team.iter().enumerate() {
            let at = |sources: &Sources| sources.entry(List::Team, index);
            let own = self.owner(&Owner::new(Level::Team, &raw.name, &raw.limits, &raw.budget), at);
            self.name(List::Team, index, &raw.name, named.get(&*raw.name).copied());
            named.entry(&raw.name).or_insert(index);
            let organisation = raw.organisation.as_ref().and_then(|name| organisations.get(&**name));
            if let (Some(name), None) = (&raw.organisation, organisation) {
                let message = unknown("organisation", name, organisations.keys().copied());
                self.context.error(at(sources).key("organisation"), message);
            }
            chains
                .push(Nested([Some(own), organisation.map(|(_, own)| *own)].into_iter().flatten().collect()));
            let organisation = organisation.map(|(name, _)| name.clone());
            teams.push(Team { name: raw.name.as_str().into(), organisation });
        }
        (teams, chains)
    }

    fn name(&mut self, list: List, index: usize, name: &str, first: Option<usize>) {
        let sources = self.context.sources;
        let at = sources.entry(list, index);
        self.context.name(&at, name);
        if let Some(first) = first {
            let what = if list == List::Team { "team" } else { "organisation" };
            let first = sources.refer(&sources.entry(list, first).key("name"));
            let message = format!("{} is the name of the {what} at {first}", quoted(name));
            self.context.error(at.key("name"), message);
        }
    }

    fn models(&mut self) -> Vec<Chain> {
        let models = &self.context.sources.raw.model;
        let each = models.iter().enumerate();
        each.map(|(index, raw)| {
            let owner = Owner::new(Level::Model, &raw.name, &raw.limits, &raw.budget);
            self.owner(&owner, |sources| sources.entry(List::Model, index)).alone()
        })
        .collect()
    }

    fn providers(&mut self) -> Vec<Chain> {
        let providers = &self.context.sources.raw.provider;
        let each = providers.iter().enumerate();
        each.map(|(index, raw)| {
            let owner = Owner::new(Level::Provider, &raw.name, &raw.limits, &raw.budget);
            self.owner(&owner, |sources| sources.entry(List::Provider, index)).alone()
        })
        .collect()
    }

    fn listeners(&mut self) -> (Vec<Chain>, Vec<AddressLimits>) {
        let listeners = &self.context.sources.raw.listener;
        let each = listeners.iter().enumerate();
        each.map(|(index, raw)| {
            let owner = Owner::new(Level::Listener, &raw.address, &raw.limits, &None);
            let chain = self.owner(&owner, |sources| sources.main("listener").at(index)).alone();
            let address = raw.address_limits.as_ref().map_or(AddressLimits::default(), |raw| AddressLimits {
                requests_per_minute: raw.requests_per_minute,
                concurrent: raw.concurrent,
                shadow: raw.shadow,
            });
            (chain, address)
        })
        .unzip()
    }

    /// Adds the limits of one owner. `at` is asked only where there is something to tell.
    fn owner(&mut self, owner: &Owner<'a>, at: impl Fn(&Sources) -> At) -> Own {
        let first = self.limits.len();
        let name: Option<Arc<str>> =
            (owner.limits.is_some() || !owner.budgets.is_empty()).then(|| owner.name.into());
        if let (Some(raw), Some(name)) = (owner.limits, &name) {
            self.rates(owner.level, name, raw);
            self.pointless(raw, &at);
        }
        for (index, raw) in owner.budgets.iter().enumerate() {
            let at = owner.budget_at(&at(self.context.sources), index);
            let limit = self.budget(owner, name.as_ref(), raw, &at);
            self.limits.extend(limit);
            let same =
                |other: &raw::Budget| other.window == raw.window && other.usd.is_some() == raw.usd.is_some();
            if owner.budgets[..index].iter().any(same) {
                let unit = if raw.usd.is_some() { "usd" } else { "tokens" };
                let message = format!(
                    "there is a budget in {unit} for {} already; one of each unit and window is allowed",
                    quoted(period(raw.window).word())
                );
                self.context.error(at, message);
            }
        }
        let (first, count) = (first as u32, (self.limits.len() - first) as u32);
        let assumed = owner.limits.and_then(|raw| raw.output_tokens_assumed);
        Own { run: Run { first, count }, output_tokens_assumed: assumed.and_then(NonZeroU32::new) }
    }

    fn rates(&mut self, level: Level, owner: &Arc<str>, raw: &raw::Limits) {
        let each = [
            (Metric::Requests, raw.requests_per_minute, Window::Minute),
            (Metric::Concurrent, raw.concurrent, Window::None),
            (Metric::Streams, raw.streams, Window::None),
            (Metric::InputTokens, raw.input_tokens_per_minute, Window::Minute),
            (Metric::OutputTokens, raw.output_tokens_per_minute, Window::Minute),
            (Metric::Tokens, raw.tokens_per_minute, Window::Minute),
        ];
        for (metric, amount, window) in each {
            let Some(amount) = amount else { continue };
            self.limits.push(Limit {
                cell: NO_CELL,
                metric,
                level,
                shadow: raw.shadow,
                alerts: Alerts::default(),
                amount,
                window,
                mode: Mode::Full,
                at_limit: AtLimit::Refuse,
                owner: owner.clone(),
            });
        }
    }

    /// Tells of limits that are never reached because of another one.
    fn pointless(&mut self, raw: &raw::Limits, at: &impl Fn(&Sources) -> At) {
        let pairs = [
            ("streams", raw.streams, "concurrent", raw.concurrent),
            (
                "input_tokens_per_minute",
                raw.input_tokens_per_minute,
                "tokens_per_minute",
                raw.tokens_per_minute,
            ),
            (
                "output_tokens_per_minute",
                raw.output_tokens_per_minute,
                "tokens_per_minute",
                raw.tokens_per_minute,
            ),
        ];
        for (part, part_max, whole, whole_max) in pairs {
            let (Some(found), Some(max)) = (part_max, whole_max) else { continue };
            if found > max {
                let message = format!("{found} can never be reached, allowed: at most {whole}, {max}");
                let at = at(self.context.sources).key("limits").key(part);
                self.context.error(at, message);
            }
        }
    }

    fn budget(
        &mut self,
        owner: &Owner<'a>,
        name: Option<&Arc<str>>,
        raw: &'a raw::Budget,
        at: &At,
    ) -> Option<Limit> {
        let (metric, amount) = match (&raw.usd, raw.tokens) {
            (Some(usd), None) => (Metric::Money, self.usd(&at.key("usd"), usd)),
            (None, Some(tokens)) => (Metric::Tokens, Some(tokens)),
            (Some(_), Some(_)) => {
                self.context
                    .error(at.clone(), "both usd and tokens, allowed: one; for both, write two budgets");
                return None;
            }
            (None, None) if self.context.sources.lacks_something(at) => return None,
            (None, None) => {
                self.context.error(at.clone(), "neither usd nor tokens, allowed: one of them");
                return None;
            }
        };
        let calendar = self.calendar(at, raw);
        self.idle(at, raw);
        self.needs_ledger(at, raw);
        let mode = match raw.mode {
            raw::Mode::Full => Mode::Full,
            raw::Mode::Step => Mode::Step(raw.step_tokens.unwrap_or(STEP_TOKENS)),
        };
        let percents: Vec<u8> = raw.alerts.iter().map(|percent| percent.0).collect();
        Some(Limit {
            cell: NO_CELL,
            metric,
            level: owner.level,
            shadow: raw.shadow,
            alerts: Alerts::new(&percents),
            amount: amount?,
            window: Window::Calendar(calendar?),
            mode,
            at_limit: self.at_limit(owner, &at.key("at_limit"), &raw.at_limit),
            owner: name?.clone(),
        })
    }

    /// Units of 100 nano-dollars.
    fn usd(&mut self, at: &At, raw: &raw::Decimal) -> Option<u64> {
        let units = scaled(&raw.0, USD_PLACES);
        let wrong = match units {
            Ok(found) if !found.is_exact => {
                "has more than 7 decimal places, which is as fine as money is counted"
            }
            Ok(found) if found.units > 0 && found.units <= USD_MAX * 10_u64.pow(USD_PLACES as u32) => {
                return Some(found.units);
            }
            Ok(_) | Err(NoAmount::Negative | NoAmount::TooLarge) => "is not allowed",
            Err(NoAmount::NoNumber) => "is no amount",
        };
        let message = format!(
            "{} {wrong}, allowed: more than 0 and at most {USD_MAX}; remove the budget for no limit",
            raw.0.chars().take(40).flat_map(char::escape_debug).collect::<String>()
        );
        self.context.error(at.clone(), message);
        None
    }

    fn calendar(&mut self, at: &At, raw: &'a raw::Budget) -> Option<Arc<Calendar>> {
        let (zone, hour) = (raw.timezone.as_deref().unwrap_or("UTC"), raw.reset_hour.unwrap_or(0));
        let week_start = raw.week_start.map_or(Weekday::Monday, weekday);
        let key = (raw.window, zone, hour, week_start as u8);
        let calendar = self
            .calendars
            .entry(key)
            .or_insert_with(|| Calendar::new(period(raw.window), zone, hour, week_start).ok().map(Arc::new));
        let calendar = calendar.clone();
        // The shape has judged the hour: what is unknown is the zone.
        if calendar.is_none() {
            let names = zone_names();
            let near = did_you_mean(zone, names.iter().map(String::as_str));
            let allowed = "allowed: a name of the tz database, such as \"UTC\" or \"Europe/Berlin\"";
            let message = format!("no time zone {}{near}, {allowed}", quoted(zone));
            self.context.error(at.key("timezone"), message);
        }
        calendar
    }

    /// A budget that a restart would refill is none. Told once.
    fn needs_ledger(&mut self, at: &At, raw: &raw::Budget) {
        let sources = self.context.sources;
        let outlives = raw.window != raw::Period::Hour;
        if outlives && sources.raw.ledger.is_none() && sources.is_whole() && !self.needs_ledger_told {
            self.needs_ledger_told = true;
            let message = "a budget of more than an hour needs [ledger] directory = \"PATH\", where what is spent \
                           outlives the process: every restart would refill it";
            self.context.error(at.key("window"), message);
        }
    }

    /// Warns of settings without effect.
    fn idle(&mut self, at: &At, raw: &raw::Budget) {
        let window = period(raw.window);
        let has_days = !matches!(raw.window, raw::Period::Hour | raw::Period::Total);
        let is_week = raw.window == raw::Period::Week;
        let is_step = raw.mode == raw::Mode::Step;
        let without = format!("window = {}", quoted(window.word()));
        let rows = [
            ("timezone", raw.timezone.is_some() && !has_days, &*without),
            ("reset_hour", raw.reset_hour.is_some() && !has_days, &*without),
            ("week_start", raw.week_start.is_some() && !is_week, &*without),
            ("step_tokens", raw.step_tokens.is_some() && !is_step, "mode = \"full\""),
        ];
        for (key, idle, with) in rows {
            if idle {
                self.context.warn(at.key(key), format!("does nothing with {with}; remove it"));
            }
        }
    }

    fn at_limit(&mut self, owner: &Owner<'_>, at: &At, raw: &raw::AtLimit) -> AtLimit {
        let model = match raw {
            raw::AtLimit::Refuse => return AtLimit::Refuse,
            raw::AtLimit::Warn => return AtLimit::Warn,
            raw::AtLimit::Downgrade(model) => model,
        };
        let at = at.key("downgrade");
        let routes = self.routes;
        match routes.resolve(model) {
            Some(route) if owner.level == Level::Model && *route.name == *owner.name => {
                self.context
                    .error(at, format!("{} leads to this model itself, allowed: another", quoted(model)));
            }
            Some(_) => {}
            // Routes with an error compile to none at all: then nothing can be said.
            None if routes.all().is_empty() && !self.context.sources.raw.model.is_empty() => {}
            None => {
                let near = did_you_mean(model, routes.all().iter().map(|route| &*route.name));
                self.context.error(at, format!("no [[model]] serves {}{near}", quoted(model)));
            }
        }
        AtLimit::Downgrade(model.as_str().into())
    }
}

fn period(raw: raw::Period) -> Period {
    match raw {
        raw::Period::Hour => Period::Hour,
        raw::Period::Day => Period::Day,
        raw::Period::Week => Period::Week,
        raw::Period::Month => Period::Month,
        raw::Period::Total => Period::Total,
    }
}

fn weekday(raw: raw::Weekday) -> Weekday {
    match raw {
        raw::Weekday::Monday => Weekday::Monday,
        raw::Weekday::Tuesday => Weekday::Tuesday,
        raw::Weekday::Wednesday => Weekday::Wednesday,
        raw::Weekday::Thursday => Weekday::Thursday,
        raw::Weekday::Friday => Weekday::Friday,
        raw::Weekday::Saturday => Weekday::Saturday,
        raw::Weekday::Sunday => Weekday::Sunday,
    }
}
