//! A node with many limited keys, and a request of one of them: for `limits` and `instructions`.

use std::sync::Arc;
use tollgate::policy::limit::counters::Counters;
use tollgate::policy::limit::plan::{Alerts, AtLimit, Chain, Level, Limit, Metric, Mode, Plan, Run, Window};
use tollgate::policy::limit::reservation::{Ask, Desk, Reservation, Time};
use tollgate::usage::Usage;
use tollgate::usage::bank::{Bank, Column};

pub const TEAMS: u32 = 100;

/// Keys, each in one of `TEAMS` teams of one organisation, on one worker.
pub struct Node {
    bank: Arc<Bank>,
    column: Column,
    plan: Plan,
    counters: Counters,
    limits_each: u32,
}

impl Node {
    /// With a limit of requests for each, and one of tokens.
    pub fn new(keys: u32, tokens: bool) -> Node {
        let bank = Arc::new(Bank::in_memory(2).expect("memory"));
        let limits_each = if tokens { 2 } else { 1 };
        let metrics = &[Metric::Requests, Metric::Tokens][..limits_each as usize];
        let owners = (0..keys)
            .map(|at| (Level::Key, format!("k{at}")))
            .chain((0..TEAMS).map(|at| (Level::Team, format!("t{at}"))))
            .chain([(Level::Organisation, "o".to_string())]);
        let limits = owners.flat_map(|(level, owner)| {
            let owner: Arc<str> = owner.into();
            metrics.iter().map(move |metric| limit(level, Arc::clone(&owner), *metric))
        });
        let run = |at: u32| Run { first: at * limits_each, count: limits_each };
        let chain = |key: u32| Chain::new(&[run(key), run(keys + key % TEAMS), run(keys + TEAMS)], None);
        let mut plan =
            Plan { limits: limits.collect(), keys: (0..keys).map(chain).collect(), ..Plan::default() };
        plan.attach(&bank).expect("room");
        let column = bank.column(0);
        Node { bank, column, plan, counters: Counters::default(), limits_each }
    }

    /// One request, from its admission to its settlement.
    pub fn request(&self, key: u32, tokens: bool) {
        let time = Time { node_s: 60, unix_s: 0 };
        let desk = Desk { plan: &self.plan, column: &self.column, counters: &self.counters, time };
        let chains = [self.plan.key(key)];
        let mut reservation = Reservation::default();
        assert!(reservation.admit(&desk, &chains).is_ok());
        if tokens {
            let ask = Ask { input_tokens: 100, output_tokens: 400, price: None, is_stream: false };
            assert!(reservation.reserve(&desk, &chains, &ask).is_ok());
        }
        reservation.settle(&desk, &Usage::default(), 0);
    }

    /// Tokens that are held or used of the organisation's limit.
    pub fn in_use(&self) -> u64 {
        let last = self.plan.limits.last().filter(|_| self.limits_each > 1);
        last.map_or(0, |limit| self.bank.in_use(limit.cell).amount)
    }
}

fn limit(level: Level, owner: Arc<str>, metric: Metric) -> Limit {
    Limit {
        cell: 0,
        metric,
        level,
        shadow: false,
        alerts: Alerts::default(),
        amount: 1 << 40,
        window: Window::Minute,
        mode: Mode::Full,
        at_limit: AtLimit::Refuse,
        owner,
    }
}
