//! What operators see of limits: how full each one is, in `/metrics` and at `/admin/v1/limits`.
//!
//! In: the plan of the generation that serves, and the bank. Out: `Standing`s, and JSON of those that a
//! `Selection` names. Money is in dollars, exact to the tenth of a micro-dollar; all else are whole numbers.
//! Limits: `SHOWN_MAX` in one answer, the others are counted. Absent: limits of client addresses, whose owners
//! come and go.

use crate::control::ledger::query::decoded;
use crate::llm::price::{PICO_PER_UNIT, usd};
use crate::policy::limit::plan::{Limit, Metric, Plan, Window};
use crate::policy::limit::reservation::Time;
use crate::usage::bank::Bank;
use crate::usage::bank::cell::{Tally, is_later};
use serde_json::{Value, json};

/// Limits that one answer shows.
pub const SHOWN_MAX: usize = 10_000;

/// The limits that hold, and where they are counted.
#[derive(Clone, Copy)]
pub struct Limited<'a> {
    pub plan: &'a Plan,
    pub bank: &'a Bank,
    pub time: Time,
}

/// How full a limit is, in its own units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What requests hold or have spent.
    pub in_use: u64,
    /// What they have spent for good; 0 where everything is given back.
    pub spent: u64,
}

/// Which limits are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The owner's name, alone or behind its level: `blue`, `team:blue`.
    pub owner: Option<String>,
    /// So many percent of it at least are in use.
    pub over: Option<u64>,
}

impl Limited<'_> {
    /// How full a limit is in the window that is now.
    pub fn standing(&self, limit: &Limit) -> Standing {
        if self.is_idle(limit) {
            return Standing { in_use: 0, spent: 0 };
        }
        let now = self.time.tag(limit);
        // A window that the clock has not come to yet is the one that counts: the clock was set back.
        let of_now = |tally: Tally| if is_later(now, tally.tag) { 0 } else { tally.amount };
        let spent = match limit.window {
            Window::None => 0,
            _ => of_now(self.bank.spent(limit.cell)),
        };
        Standing { in_use: of_now(self.bank.in_use(limit.cell)), spent }
    }

    /// Whether nothing of it is given out, which is quickly seen.
    pub fn is_idle(&self, limit: &Limit) -> bool {
        let given_out = self.bank.given_out(limit.cell);
        given_out.amount == 0 || is_later(self.time.tag(limit), given_out.tag)
    }

    /// Those that are asked for, as JSON.
    pub fn json(&self, selection: &Selection) -> String {
        let chosen = self.plan.limits.iter().filter(|limit| selection.names(limit));
        let mut standing = chosen.map(|limit| (limit, self.standing(limit))).filter(|(limit, standing)| {
            let percent = u128::from(standing.in_use) * 100 / u128::from(limit.amount.max(1));
            selection.over.is_none_or(|over| percent >= u128::from(over))
        });
        let shown: Vec<Value> =
            standing.by_ref().take(SHOWN_MAX).map(|(limit, standing)| self.row(limit, standing)).collect();
        format!("{:#}\n", json!({ "limits": shown, "omitted": standing.count() }))
    }

    /// One of them as JSON.
    pub fn row(&self, limit: &Limit, standing: Standing) -> Value {
        let amount = |amount| match limit.metric {
            Metric::Money => json!(shown(limit, amount)),
            _ => json!(amount),
        };
        let ends = self.time.resets_in_s(limit).and_then(|left| {
            let end = self.time.unix_s.saturating_add(left.cast_signed());
            jiff::Timestamp::from_second(end).ok()
        });
        json!({
            "name": limit.name(),
            "level": limit.level.word(),
            "owner": &*limit.owner,
            "metric": limit.metric.word(),
            "max": amount(limit.amount),
            "in_use": amount(standing.in_use),
            "spent": amount(standing.spent),
            "window_end": ends.map(|end| end.to_string()),
            "shadow": limit.shadow,
        })
    }
}

impl Selection {
    /// Reads the query part of a URL: `owner=team:blue&over=80`.
    pub fn from_url(text: &str) -> Result<Selection, String> {
        let mut selection = Selection::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            match name {
                "owner" => selection.owner = Some(value),
                "over" => {
                    let percent = value.parse().ok().filter(|percent| *percent <= 1_000);
                    let wrong =
                        || format!("over is \"{}\", allowed: 0 to 1000 percent", value.escape_default());
                    selection.over = Some(percent.ok_or_else(wrong)?);
                }
                _ => {
                    let name = name.escape_default();
                    return Err(format!("\"{name}\" is not known here; allowed: owner, over"));
                }
            }
        }
        Ok(selection)
    }

    fn names(&self, limit: &Limit) -> bool {
        self.owner.as_deref().is_none_or(|owner| {
            let named = owner.strip_prefix(limit.level.word()).and_then(|rest| rest.strip_prefix(':'));
            owner == &*limit.owner || named == Some(&*limit.owner)
        })
    }
}

/// An amount of a limit: dollars, or a whole number.
pub fn shown(limit: &Limit, amount: u64) -> String {
    match limit.metric {
        Metric::Money => usd(u128::from(amount) * u128::from(PICO_PER_UNIT)),
        _ => amount.to_string(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::{Limited, Selection, Standing};
    use crate::policy::limit::plan::{Alerts, AtLimit, Level, Limit, Metric, Mode, NO_CELL, Plan, Window};
    use crate::policy::limit::reservation::Time;
    use crate::usage::bank::Bank;
    use crate::usage::window::{Calendar, Period, Weekday};
    use std::sync::Arc;

    /// 2026-11-22 00:00:30 UTC, in the first half of a minute of the node.
    pub const NOW: Time = Time { node_s: 615, unix_s: 1_795_305_630 };

    /// A month's budget of a team in dollars, and what `blue` and `ci` may ask in a minute and at a time.
    pub fn plan(bank: &Bank) -> Plan {
        let month = Arc::new(Calendar::new(Period::Month, "UTC", 0, Weekday::Monday).expect("a zone"));
        let row = |level, owner: &str, metric, window, amount| Limit {
            cell: NO_CELL,
            metric,
            level,
            shadow: level == Level::Key,
            alerts: Alerts::new(&[50, 80, 100]),
            amount,
            window,
            mode: Mode::Full,
            at_limit: AtLimit::Refuse,
            owner: owner.into(),
        };
        let limits = vec![
            row(Level::Team, "blue", Metric::Money, Window::Calendar(month), 10_000_000),
            row(Level::Key, "ci", Metric::Requests, Window::Minute, 100),
            row(Level::Key, "blue", Metric::Concurrent, Window::None, 4),
        ];
        let mut plan = Plan { limits, ..Plan::default() };
        plan.attach(bank).expect("room");
        plan
    }

    /// Books `spent` of a limit and holds `held` of it.
    pub fn use_up(bank: &Arc<Bank>, limit: &Limit, time: Time, spent: u64, held: u64) {
        let column = bank.column(0);
        let take = |amount| column.take(limit.cell, time.tag(limit), limit.amount, amount).expect("room");
        column.settle(take(spent), spent, limit.amount);
        take(held);
    }

    #[test]
    fn a_limit_stands_at_what_is_used_in_the_window_that_is_now() {
        let bank = Arc::new(Bank::in_memory(2).expect("memory"));
        let plan = plan(&bank);
        let at = |time| Limited { plan: &plan, bank: &bank, time };
        let [money, requests, concurrent] = &plan.limits[..] else { panic!("three") };
        assert_eq!(at(NOW).standing(money), Standing { in_use: 0, spent: 0 });
        use_up(&bank, money, NOW, 8_000_000, 500_000);
        use_up(&bank, requests, NOW, 30, 1);
        use_up(&bank, concurrent, NOW, 0, 3);
        assert_eq!(at(NOW).standing(money), Standing { in_use: 8_500_000, spent: 8_000_000 });
        assert_eq!(at(NOW).standing(requests), Standing { in_use: 31, spent: 30 });
        assert_eq!(at(NOW).standing(concurrent), Standing { in_use: 3, spent: 0 });
        let later = Time { node_s: NOW.node_s + 60, unix_s: NOW.unix_s + 60 };
        assert_eq!(at(later).standing(requests), Standing { in_use: 0, spent: 0 });
        assert_eq!(at(later).standing(money).in_use, 8_500_000);
        let before = Time { node_s: NOW.node_s - 60, ..NOW };
        assert_eq!(at(before).standing(requests).in_use, 31, "a clock that goes back refills nothing");
    }

    #[test]
    fn those_that_are_asked_for_are_shown() {
        let bank = Arc::new(Bank::in_memory(1).expect("memory"));
        let plan = plan(&bank);
        use_up(&bank, &plan.limits[0], NOW, 7_999_999, 1);
        use_up(&bank, &plan.limits[1], NOW, 79, 0);
        let limited = Limited { plan: &plan, bank: &bank, time: NOW };
        let names = |query: &str| -> Vec<String> {
            let text = limited.json(&Selection::from_url(query).expect(query));
            let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let limits = answer["limits"].as_array().expect("a list").iter();
            limits.map(|limit| limit["name"].as_str().expect("a name").to_owned()).collect()
        };
        let all = ["team:blue/budget_usd_month", "key:ci/requests_per_minute", "key:blue/concurrent"];
        assert_eq!(names(""), all);
        assert_eq!(names("owner=blue"), [all[0], all[2]]);
        assert_eq!(names("owner=team%3Ablue"), [all[0]]);
        assert_eq!(names("over=80"), [all[0]]);
        assert_eq!(names("over=79"), [all[0], all[1]]);
        assert_eq!(names("owner=ci&over=80"), [""; 0]);
        let text = limited.json(&Selection { owner: Some("team:blue".into()), over: None });
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let expected = serde_json::json!({ "limits": [{
            "name": all[0], "level": "team", "owner": "blue", "metric": "usd", "max": "1", "in_use": "0.8",
            "spent": "0.7999999", "window_end": "2026-12-01T00:00:00Z", "shadow": false
        }], "omitted": 0 });
        assert_eq!(answer, expected);
        for wrong in ["over=1001", "over=-1", "over=", "under=3", "owner"] {
            let found = Selection::from_url(wrong);
            assert_eq!(found.is_err(), wrong != "owner", "{wrong}");
        }
    }
}
