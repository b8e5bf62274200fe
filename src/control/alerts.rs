//! Alerts: whoever has spent so much of a budget is told of, once in each window and at each percentage.
//!
//! Control looks once a second at the budgets that have `alerts`. What counts is what was spent, not what running
//! requests still hold: a reservation that is given back has alarmed nobody. An alert is a line on stderr, a
//! counter, and a message to the webhook where there is one (`webhook`).
//! Limits: `COUNTED_MAX` budgets and percentages have a counter of their own, the others share one. What was told
//! is remembered by this process: its successor tells it again, so that nothing is missed in between.
//! What is unlike a key (`control/ledger/baseline`) is told on the same ways, or in shadow only counted.
//! Absent: budgets of client addresses; there are none.

pub mod webhook;

use crate::control::ledger::baseline::{Deviation, DeviationKind};
use crate::control::limits::{Limited, Standing, shown};
use crate::control::tell::tell;
use crate::handler::snapshot::Baseline;
use crate::policy::limit::plan::Limit;
use crate::policy::limit::reservation::Time;
use crate::usage::bank::cell::is_later;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

/// Pairs of a budget and a percentage that are counted apart.
pub const COUNTED_MAX: usize = 1_000;
/// The budget's name in the counter of all others.
const OTHERS: &str = "(others)";
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was told, and how often.
#[derive(Debug, Default)]
pub struct Alerts {
    looked: Option<Instant>,
    generation: u64,
    /// Places in `Plan::limits` of those with alerts, in `generation`.
    watched: Vec<u32>,
    /// By place in the bank: the window, and the highest percentage that was told of it.
    told: HashMap<u32, (u16, u8)>,
    counts: BTreeMap<(String, u8), u64>,
    /// By `DeviationKind`.
    deviations: [u64; DeviationKind::ALL.len()],
}

impl Alerts {
    /// Looks, where that is due, and hands what is new to `send`, as JSON.
    pub fn look(&mut self, limited: &Limited<'_>, generation: u64, mut send: impl FnMut(Value)) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let limits = &limited.plan.limits;
        if self.generation != generation {
            self.generation = generation;
            let has_alerts = |(_, limit): &(u32, &Limit)| limit.alerts.iter().next().is_some();
            self.watched = (0..).zip(limits).filter(has_alerts).map(|(place, _)| place).collect();
            let cells: HashSet<u32> = self.watched.iter().map(|&place| limits[place as usize].cell).collect();
            self.told.retain(|cell, _| cells.contains(cell));
        }
        for at in 0..self.watched.len() {
            if let Some(limit) = limits.get(self.watched[at] as usize) {
                self.look_at(limit, limited, &mut send);
            }
        }
    }

    fn look_at(&mut self, limit: &Limit, limited: &Limited<'_>, send: &mut impl FnMut(Value)) {
        let standing = limited.standing(limit);
        let percent = u128::from(standing.spent) * 100 / u128::from(limit.amount.max(1));
        let now = limited.time.tag(limit);
        let (window, before) = match self.told.get(&limit.cell) {
            // Not of an earlier window: the clock may have been set back.
            Some(&(window, told)) if !is_later(now, window) => (window, told),
            _ => (now, 0),
        };
        let reached = |alert: &u8| *alert > before && percent >= u128::from(*alert);
        for alert in limit.alerts.iter().filter(reached) {
            self.told.insert(limit.cell, (window, alert));
            let name = limit.name();
            tell(format_args!(
                "tollgate: {name}: {alert} % of the budget are spent, {} of {}{}",
                shown(limit, standing.spent),
                shown(limit, limit.amount),
                if limit.shadow { " (shadow)" } else { "" },
            ));
            send(message(limit, limited, standing, alert));
            self.count(name, alert);
        }
    }

    fn count(&mut self, name: String, percent: u8) {
        let is_full = self.counts.len() >= COUNTED_MAX;
        let key = (name, percent);
        let key = if is_full && !self.counts.contains_key(&key) { (OTHERS.to_owned(), 0) } else { key };
        *self.counts.entry(key).or_default() += 1;
    }

    /// Counts what is unlike a key and, unless it is in shadow, tells of it and hands it to `send`.
    pub fn deviate(&mut self, deviation: &Deviation, mode: Baseline, now: Time, mut send: impl FnMut(Value)) {
        let Deviation { key, kind, detail } = deviation;
        match mode {
            Baseline::Off => {}
            Baseline::Shadow => self.deviations[*kind as usize] += 1,
            Baseline::Alert => {
                self.deviations[*kind as usize] += 1;
                tell(format_args!("tollgate: the key {key} is unlike itself: {detail}"));
                send(json!({
                    "alert": "baseline",
                    "key": key,
                    "kind": kind.name(),
                    "detail": detail,
                    "time": written(now),
                }));
            }
        }
    }

    /// How often keys were unlike themselves, by the kind of it.
    pub fn deviations(&self) -> [(&'static str, u64); DeviationKind::ALL.len()] {
        DeviationKind::ALL.map(|kind| (kind.name(), self.deviations[kind as usize]))
    }

    /// How often each budget was told of, by name and percentage; percentage 0: all others.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u8, u64)> {
        self.counts.iter().map(|((name, percent), count)| (&**name, *percent, *count))
    }
}

/// What the webhook is told.
fn message(limit: &Limit, limited: &Limited<'_>, standing: Standing, percent: u8) -> Value {
    let mut message = limited.row(limit, standing);
    message["alert"] = json!("budget");
    message["percent"] = json!(percent);
    message["time"] = json!(written(limited.time));
    message
}

fn written(time: Time) -> Option<String> {
    jiff::Timestamp::from_second(time.unix_s).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Alerts, COUNTED_MAX};
    use crate::control::ledger::baseline::{Deviation, DeviationKind};
    use crate::control::limits::Limited;
    use crate::control::limits::tests::{NOW, plan, use_up};
    use crate::handler::snapshot::Baseline;
    use crate::policy::limit::reservation::Time;
    use crate::usage::bank::Bank;
    use serde_json::Value;
    use std::sync::Arc;

    fn look(alerts: &mut Alerts, limited: &Limited<'_>, generation: u64) -> Vec<Value> {
        let mut sent = Vec::new();
        alerts.looked = None;
        alerts.look(limited, generation, |message| sent.push(message));
        sent
    }

    fn percents(sent: &[Value]) -> Vec<u64> {
        sent.iter().map(|message| message["percent"].as_u64().expect("a number")).collect()
    }

    #[test]
    fn each_percentage_is_told_once_in_a_window() {
        let bank = Arc::new(Bank::in_memory(1).expect("memory"));
        let plan = plan(&bank);
        let budget = &plan.limits[0];
        let at = |time| Limited { plan: &plan, bank: &bank, time };
        let mut alerts = Alerts::default();
        assert_eq!(look(&mut alerts, &at(NOW), 1), [Value::Null; 0]);
        // All of it held, a tenth of a micro-dollar less than half of it spent.
        use_up(&bank, budget, NOW, 4_999_999, 0);
        assert_eq!(look(&mut alerts, &at(NOW), 1), [Value::Null; 0]);
        use_up(&bank, budget, NOW, 1, 1_000_000);
        let sent = look(&mut alerts, &at(NOW), 1);
        assert_eq!(percents(&sent), [50]);
        let expected = serde_json::json!({
            "alert": "budget", "percent": 50, "time": "2026-11-22T00:00:30Z", "name": budget.name(),
            "level": "team", "owner": "blue", "metric": "usd", "max": "1", "in_use": "0.6", "spent": "0.5",
            "window_end": "2026-12-01T00:00:00Z", "shadow": false
        });
        assert_eq!(sent[0], expected);
        assert_eq!(look(&mut alerts, &at(NOW), 1), [Value::Null; 0]);
        use_up(&bank, budget, NOW, 3_999_999, 0);
        assert_eq!(percents(&look(&mut alerts, &at(NOW), 2)), [80], "a reload repeats nothing");
        let next_month = Time { unix_s: NOW.unix_s + 10 * 86_400, ..NOW };
        assert_eq!(look(&mut alerts, &at(next_month), 2), [Value::Null; 0]);
        use_up(&bank, budget, next_month, 10_000_000, 0);
        assert_eq!(percents(&look(&mut alerts, &at(next_month), 2)), [50, 80, 100]);
        assert_eq!(
            look(&mut alerts, &at(NOW), 2),
            [Value::Null; 0],
            "a clock that goes back repeats nothing"
        );
        let counts: Vec<_> = alerts.counts().collect();
        assert_eq!(counts, [(&*budget.name(), 50, 2), (&*budget.name(), 80, 2), (&*budget.name(), 100, 1)]);
    }

    #[test]
    fn what_is_unlike_a_key_is_counted_and_only_told_where_that_is_asked_for() {
        let deviation =
            Deviation { key: "ci".to_owned(), kind: DeviationKind::Network, detail: "elsewhere".to_owned() };
        let mut alerts = Alerts::default();
        let mut sent = Vec::new();
        for mode in [Baseline::Off, Baseline::Shadow, Baseline::Alert] {
            alerts.deviate(&deviation, mode, NOW, |message| sent.push(message));
        }
        assert_eq!(alerts.deviations()[DeviationKind::Network as usize], ("network", 2));
        assert_eq!(sent.len(), 1);
        assert_eq!((&sent[0]["key"], &sent[0]["kind"]), (&"ci".into(), &"network".into()), "{}", sent[0]);
    }

    #[test]
    fn it_looks_once_a_second() {
        let bank = Arc::new(Bank::in_memory(1).expect("memory"));
        let plan = plan(&bank);
        let limited = Limited { plan: &plan, bank: &bank, time: NOW };
        let mut alerts = Alerts::default();
        alerts.look(&limited, 1, |_| {});
        use_up(&bank, &plan.limits[0], NOW, 10_000_000, 0);
        alerts.look(&limited, 1, |message| panic!("{message}"));
    }

    #[test]
    fn counters_of_their_own_are_bounded() {
        let mut alerts = Alerts::default();
        (0..COUNTED_MAX).for_each(|at| alerts.count(format!("{at}"), 80));
        assert_eq!(alerts.counts().count(), COUNTED_MAX);
        (0..3).for_each(|at| alerts.count(format!("one more {at}"), 80));
        alerts.count("7".to_owned(), 80);
        assert_eq!(alerts.counts().count(), COUNTED_MAX + 1);
        let of = |name: &str| alerts.counts().find(|(found, ..)| *found == name).map(|(.., count)| count);
        assert_eq!((of("(others)"), of("7"), of("8")), (Some(3), Some(2), Some(1)));
    }
}
