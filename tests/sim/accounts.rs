//! Limits, budgets and a ledger under the simulation: what the key of a seed may, and what must be booked when all
//! has ended.
//!
//! Cells of the bank that never begin anew (`Period::Total`) count all of a seed, so that they hold the sums of the
//! ledger's records, to the token and to the unit of money. Minutes pass while a seed runs: of their cells it is
//! checked that nothing is reserved any more, and that no more was given out than there was.

use crate::relay::gateway::Gateway;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use tollgate::llm::catalogue::{Catalogue, Unpriced};
use tollgate::llm::price::{Price, units, usd};
use tollgate::policy::limit::plan::{
    Alerts, AtLimit, Chain, Level, Limit, Metric, Mode, NO_CELL, Plan, Run, Team, Window,
};
use tollgate::usage::ledger::Kind;
use tollgate::usage::ledger::record::Record;
use tollgate::usage::window::{Calendar, Period, Weekday};

/// The codes of refusals by a limit.
pub const REFUSALS: [&str; 3] = ["rate_limit_exceeded", "insufficient_quota", "request_exceeds_limit"];

/// More than a seed can use.
const PLENTY: u64 = 1 << 40;

/// What the key, its team and the providers may.
pub fn plan(draw: &mut fastrand::Rng) -> Plan {
    let mut limits = Vec::new();
    let mut runs = Vec::new();
    for (level, owner) in [(Level::Key, "tester"), (Level::Team, "blue")] {
        let first = limits.len();
        // What counts all, and refuses nothing.
        for metric in [Metric::Tokens, Metric::Money] {
            limits.push(Limit { mode: mode(draw), ..limit(level, owner, metric, total(), PLENTY) });
        }
        let small = [
            (Metric::Requests, Window::Minute, draw.u64(1..12)),
            (Metric::InputTokens, Window::Minute, draw.u64(200..40_000)),
            (Metric::Tokens, Window::Minute, draw.u64(1_000..100_000)),
            (Metric::Concurrent, Window::None, draw.u64(1..5)),
            (Metric::Streams, Window::None, draw.u64(1..4)),
        ];
        for (metric, window, amount) in small {
            let limit = limit(level, owner, metric, window, amount);
            limits.extend((draw.u32(..4) == 0).then(|| sometimes_lenient(limit, draw)));
        }
        // One that streams reach.
        if draw.bool() {
            let mode = if draw.u32(..6) == 0 { Mode::Full } else { Mode::Step(draw.u32(5..100)) };
            let small = limit(level, owner, Metric::OutputTokens, total(), draw.u64(10..3_000));
            limits.push(sometimes_lenient(Limit { mode, ..small }, draw));
        }
        runs.push(Run { first: first as u32, count: (limits.len() - first) as u32 });
    }
    let assumed = if draw.bool() { NonZeroU32::new(draw.u32(600..2_000)) } else { None };
    let mut providers = Vec::new();
    for name in PROVIDERS {
        let first = limits.len() as u32;
        limits.push(limit(Level::Provider, name, Metric::Requests, total(), PLENTY));
        let is_small = draw.u32(..4) == 0;
        let output = draw.u64(1_000..20_000);
        limits.extend(is_small.then(|| limit(Level::Provider, name, Metric::OutputTokens, total(), output)));
        providers.push(Chain::new(&[Run { first, count: 1 + u32::from(is_small) }], None));
    }
    Plan {
        limits,
        keys: vec![Chain::new(&runs, assumed)],
        providers,
        teams: vec![Team { name: "blue".into(), organisation: None }],
        key_teams: vec![Some(0)],
        ..Plan::default()
    }
}

/// Whether a provider has a limit that leads past it.
pub fn may_skip(plan: &Plan) -> bool {
    plan.limits.iter().any(|limit| limit.level == Level::Provider && limit.amount < PLENTY)
}

/// The same plan with more room.
pub fn wider(plan: &Plan) -> Plan {
    let mut wider = plan.clone();
    wider.limits.iter_mut().for_each(|limit| limit.amount += limit.amount / 2);
    wider
}

/// What the model of the simulation costs, and what becomes of that which has no price.
pub fn prices(draw: &mut fastrand::Rng) -> (Arc<Catalogue>, Unpriced) {
    let mut catalogue = Catalogue::default();
    let (input, output) = (draw.u32(1..2_000), draw.u32(1..9_000));
    let own = format!("[openai]\nup = {{ input = {input}, output = {output} }}\n");
    catalogue.add_own(&own).expect("a catalogue");
    let ceiling = Unpriced::Ceiling(Price::flat(draw.u64(1..1_000_000_000)));
    (Arc::new(catalogue), if draw.bool() { ceiling } else { Unpriced::Allow })
}

pub const PROVIDERS: [&str; 2] = ["first", "second"];

fn limit(level: Level, owner: &str, metric: Metric, window: Window, amount: u64) -> Limit {
    Limit {
        cell: NO_CELL,
        metric,
        level,
        shadow: false,
        alerts: Alerts::default(),
        amount,
        window,
        mode: Mode::Full,
        at_limit: AtLimit::Refuse,
        owner: owner.into(),
    }
}

fn sometimes_lenient(limit: Limit, draw: &mut fastrand::Rng) -> Limit {
    let shadow = draw.u32(..8) == 0;
    let at_limit = if draw.u32(..8) == 0 { AtLimit::Warn } else { AtLimit::Refuse };
    Limit { shadow, at_limit, ..limit }
}

fn mode(draw: &mut fastrand::Rng) -> Mode {
    if draw.bool() { Mode::Full } else { Mode::Step(draw.u32(5..300)) }
}

fn total() -> Window {
    Window::Calendar(Arc::new(Calendar::new(Period::Total, "UTC", 0, Weekday::Monday).expect("a calendar")))
}

/// What stands in the books when all has ended. `widest`: the plan with the most room that there was. `reached`:
/// which provider has seen which request.
pub fn check(gateway: &Gateway, widest: &Plan, reached: &BTreeSet<(u64, usize)>) {
    let ledger = gateway.ledger.as_ref().expect("a ledger");
    let records = ledger.records();
    let (attempts, requests): (Vec<_>, Vec<_>) =
        records.iter().partition(|record| record.kind == Kind::Attempt);
    let counters = &ledger.counters;
    assert_eq!(counters.lost.value(), 0);
    assert_eq!(counters.begun.value(), requests.len() as u64, "each intent has its final record");
    let mut by_id = BTreeMap::new();
    let mut by_plan = BTreeMap::new();
    for record in requests {
        assert_eq!(record.kind, Kind::Request);
        let plan: u64 = record.tags.parse().expect("the plan's number");
        assert!(by_id.insert(record.id.clone(), record).is_none(), "twice: {record:?}");
        assert!(by_plan.insert(plan, record).is_none(), "twice: {record:?}");
    }
    for (plan, _) in reached {
        assert!(by_plan.contains_key(plan), "a provider has seen {plan}, and there is no record");
    }
    for attempt in attempts {
        let of = by_id.get(&attempt.id).expect("the attempt's request");
        assert!(u32::from(attempt.number) <= of.attempts, "{attempt:?} {of:?}");
    }
    check_log(gateway, &by_id);
    check_cells(gateway, widest, &by_id);
    let called: u64 = by_id.values().map(|record| u64::from(record.attempts)).sum();
    assert!(called >= reached.len() as u64, "{called} calls, of which providers have seen {reached:?}");
}

/// The access log says the same.
fn check_log(gateway: &Gateway, by_id: &BTreeMap<String, &Record>) {
    let mut left: BTreeSet<&String> = by_id.keys().collect();
    for line in gateway.records() {
        let id = line["id"].as_str().expect("an id").to_string();
        let Some(record) = by_id.get(&id) else {
            assert_eq!(line["attempts"], 0, "called without a record: {line}");
            continue;
        };
        left.remove(&id);
        let number = |name: &str| line[name].as_u64();
        assert_eq!(number("input_tokens"), record.usage.input_total(), "{line}");
        assert_eq!(number("output_tokens"), record.usage.output_total(), "{line}");
        assert_eq!(number("status"), Some(u64::from(record.status)), "{line}");
        assert_eq!((&line["ended"], &line["key"]), (&record.ended.as_str().into(), &"tester".into()));
        assert_eq!(record.team, "blue");
    }
    assert!(left.is_empty(), "in the ledger and not in the log: {left:?}");
}

fn check_cells(gateway: &Gateway, widest: &Plan, by_id: &BTreeMap<String, &Record>) {
    let bank = &gateway.shared.bank;
    let snapshot = gateway.published.newest();
    let limits = &gateway.counters().limits;
    let sum = |read: fn(&Record) -> u64| by_id.values().map(|record| read(record)).sum::<u64>();
    let mut called = 0;
    for (limit, widest) in snapshot.plan.limits.iter().zip(&widest.limits) {
        let name = limit.name();
        let (in_use, spent) = (bank.in_use(limit.cell), bank.spent(limit.cell));
        if matches!(limit.window, Window::None) {
            assert_eq!(in_use.amount, 0, "{name}: places are taken");
            continue;
        }
        assert_eq!(in_use.amount, spent.amount, "{name}: reserved and not settled");
        let is_enforced = !limit.shadow && limit.at_limit == AtLimit::Refuse;
        if is_enforced {
            let most = widest.amount + limits.overrun.value();
            assert!(spent.amount <= most, "{name}: {} of {most}", spent.amount);
        }
        if !limit.is_budget() {
            continue;
        }
        let used = match limit.metric {
            Metric::Tokens => sum(|record| record.usage.total().unwrap_or(0)),
            Metric::Money => sum(|record| units(record.cost_pico.unwrap_or(0))),
            Metric::OutputTokens if limit.level != Level::Provider => {
                sum(|record| record.usage.output_total().unwrap_or(0))
            }
            Metric::Requests => {
                called += spent.amount;
                continue;
            }
            _ => continue,
        };
        assert_eq!(spent.amount, used, "{name}: the bank and the ledger's records");
    }
    assert_eq!(called, sum(|record| u64::from(record.attempts)), "calls that providers' limits have counted");
}

/// What a stream told of its usage is what is booked. `told`: the comment's JSON.
pub fn check_told(gateway: &Gateway, told: &str) {
    let told: Value = serde_json::from_str(told).unwrap_or_else(|error| panic!("{error}: {told}"));
    let records = gateway.ledger.as_ref().expect("a ledger").records();
    let is_it = |record: &&Record| record.kind == Kind::Request && told["id"] == *record.id;
    let record = records.iter().find(is_it).expect("its record");
    assert_eq!(told["input_tokens"].as_u64(), record.usage.input_total(), "{told}");
    assert_eq!(told["output_tokens"].as_u64(), record.usage.output_total(), "{told}");
    assert_eq!(told["cost_usd"].as_str(), record.cost_pico.map(usd).as_deref(), "{told}");
}

/// Takes the comment that tells a stream's usage off its end: what stands before it, and its JSON.
pub fn without_told(body: &str) -> (&str, Option<&str>) {
    match body.rfind(TOLD) {
        Some(at) if body.ends_with("}\n\n") => (&body[..at], Some(body[at + TOLD.len()..].trim_end())),
        _ => (body, None),
    }
}

/// The beginning of that comment.
pub const TOLD: &str = ": tollgate-usage ";

/// Whether `end`, which stands behind whole events, ends a chat as one that has reached its budget.
pub fn is_ending(end: &str, usage_asked: bool) -> bool {
    let mut events =
        end.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap_or("no data"));
    let parsed = |event: &str| serde_json::from_str::<Value>(event).unwrap_or_default();
    let reason = events.next().map(parsed);
    if reason.is_none_or(|reason| reason["choices"][0]["finish_reason"] != "length") {
        return false;
    }
    if usage_asked
        && events.next().map(parsed).is_none_or(|chunk| !chunk["usage"]["completion_tokens"].is_u64())
    {
        return false;
    }
    events.next() == Some("[DONE]") && events.next().is_none()
}
