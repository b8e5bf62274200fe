//! Requests against plans of a few limits, on a bank in memory.

use super::{Ask, Desk, Reservation, Time};
use crate::llm::price::{PICO_PER_UNIT, Price};
use crate::policy::limit::counters::Counters;
use crate::policy::limit::plan::{Alerts, AtLimit, Chain, Level, Limit, Metric, Mode, Plan, Run, Window};
use crate::usage::Usage;
use crate::usage::bank::{Bank, Column, Kind};
use std::sync::Arc;

/// A node with one key's limits.
struct Node {
    bank: Arc<Bank>,
    columns: Vec<Column>,
    plan: Plan,
    counters: Counters,
    time: Time,
}

impl Node {
    fn new(workers: usize, mut limits: Vec<Limit>) -> Node {
        let bank = Arc::new(Bank::in_memory(workers).expect("memory"));
        for (at, limit) in limits.iter_mut().enumerate() {
            limit.cell = bank.place(&format!("{at}"), Kind::Budget, 0).expect("room");
        }
        let runs = [Run { first: 0, count: limits.len() as u32 }];
        let plan = Plan { limits, keys: vec![Chain::new(&runs, None)], ..Plan::default() };
        let columns = (0..workers).map(|worker| bank.column(worker)).collect();
        Node { bank, columns, plan, counters: Counters::default(), time: Time { node_s: 600, unix_s: 0 } }
    }

    fn desk(&self, worker: usize) -> Desk<'_> {
        let Node { plan, columns, counters, time, .. } = self;
        Desk { plan, column: &columns[worker], counters, time: *time }
    }

    fn chain(&self) -> Chain {
        self.plan.key(0)
    }

    fn in_use(&self, limit: usize) -> u64 {
        self.bank.in_use(self.plan.limits[limit].cell).amount
    }
}

fn limit(metric: Metric, amount: u64) -> Limit {
    let window = match metric {
        Metric::Concurrent | Metric::Streams => Window::None,
        _ => Window::Minute,
    };
    Limit {
        cell: 0,
        metric,
        level: Level::Key,
        shadow: false,
        alerts: Alerts::default(),
        amount,
        window,
        mode: Mode::Full,
        at_limit: AtLimit::Refuse,
        owner: "ci".into(),
    }
}

fn usage(input: u64, output: u64) -> Usage {
    Usage { input: Some(input), output: Some(output), ..Usage::default() }
}

fn ask(input_tokens: u64, output_tokens: u64) -> Ask<'static> {
    Ask { input_tokens, output_tokens, price: None, is_stream: true }
}

#[test]
fn all_limits_admit_or_none_is_taken() {
    let node = Node::new(1, vec![limit(Metric::Requests, 10), limit(Metric::Concurrent, 2)]);
    let (desk, chain) = (node.desk(0), node.chain());
    let mut open: Vec<Reservation> = (0..2).map(|_| Reservation::default()).collect();
    open.iter_mut().for_each(|request| request.admit(&desk, &[chain]).expect("room"));
    let refused = Reservation::default().admit(&desk, &[chain]).expect_err("two are open");
    assert_eq!((refused.limit, refused.left, refused.resets_in_s), (1, 0, None));
    assert_eq!((node.in_use(0), node.in_use(1)), (2, 2));
    open.iter_mut().for_each(|request| request.settle(&desk, &Usage::default(), 0));
    assert_eq!((node.in_use(0), node.in_use(1)), (2, 0), "requests count, places come back");
}

#[test]
fn a_call_books_what_was_used_and_gives_the_rest_back() {
    let price = Price::flat(3 * PICO_PER_UNIT);
    let limits =
        vec![limit(Metric::Tokens, 1_000), limit(Metric::OutputTokens, 500), limit(Metric::Money, 10_000)];
    let node = Node::new(1, limits);
    let (desk, chain) = (node.desk(0), node.chain());
    let mut request = Reservation::default();
    let ask = Ask { price: Some(&price), ..ask(100, 400) };
    request.reserve(&desk, &[chain], &ask).expect("room");
    assert_eq!([0, 1, 2].map(|at| node.in_use(at)), [500, 400, 1_500]);
    let refused = Reservation::default().reserve(&desk, &[chain], &ask).expect_err("the output");
    assert_eq!((refused.limit, refused.asked, refused.left), (1, 400, 100));
    assert_eq!([0, 1, 2].map(|at| node.in_use(at)), [500, 400, 1_500]);
    request.settle(&desk, &usage(90, 10), price.cost(&usage(90, 10)));
    assert_eq!([0, 1, 2].map(|at| node.in_use(at)), [100, 10, 300]);
    request.settle(&desk, &usage(90, 10), 1);
    assert_eq!([0, 1, 2].map(|at| node.in_use(at)), [100, 10, 300], "once");
}

#[test]
fn what_turns_out_dearer_is_booked_beyond_the_limit_and_counted() {
    let node = Node::new(1, vec![limit(Metric::Tokens, 100)]);
    let (desk, chain) = (node.desk(0), node.chain());
    let mut request = Reservation::default();
    request.reserve(&desk, &[chain], &ask(10, 60)).expect("room");
    request.settle(&desk, &usage(80, 60), 0);
    assert_eq!((node.in_use(0), node.counters.overrun.value()), (140, 40));
    assert!(Reservation::default().reserve(&desk, &[chain], &ask(1, 0)).is_err());
}

#[test]
fn a_stream_in_steps_goes_on_until_there_is_no_room_for_another() {
    let steps = Limit { mode: Mode::Step(100), ..limit(Metric::Tokens, 350) };
    let node = Node::new(1, vec![steps]);
    let (desk, chain) = (node.desk(0), node.chain());
    let mut request = Reservation::default();
    request.reserve(&desk, &[chain], &ask(50, 4_000)).expect("room");
    assert_eq!((request.allowance().output_tokens, node.in_use(0)), (100, 150));
    request.extend(&desk, &[chain], 100, None).expect("room");
    assert_eq!((request.allowance().output_tokens, node.in_use(0)), (200, 250));
    request.extend(&desk, &[chain], 200, None).expect("room");
    let refused = request.extend(&desk, &[chain], 300, None).expect_err("none");
    assert_eq!((refused.asked, refused.left), (100, 0));
    assert_eq!(request.allowance().output_tokens, 300);
    request.settle(&desk, &usage(50, 260), 0);
    assert_eq!(node.in_use(0), 310);
}

#[test]
fn a_stream_that_reaches_into_the_next_window_is_booked_in_both() {
    let steps = Limit { mode: Mode::Step(100), ..limit(Metric::OutputTokens, 350) };
    let mut node = Node::new(1, vec![steps]);
    let chain = node.chain();
    let mut request = Reservation::default();
    request.reserve(&node.desk(0), &[chain], &ask(0, 4_000)).expect("room");
    node.time.node_s += 60;
    request.extend(&node.desk(0), &[chain], 100, None).expect("room");
    assert_eq!(node.in_use(0), 100, "of the new window");
    request.settle(&node.desk(0), &usage(0, 130), 0);
    assert_eq!(node.in_use(0), 30);
}

#[test]
fn limits_in_shadow_and_those_that_warn_refuse_nobody_and_count() {
    for kind in [
        Limit { shadow: true, ..limit(Metric::Requests, 1) },
        Limit { at_limit: AtLimit::Warn, ..limit(Metric::Requests, 1) },
    ] {
        let node = Node::new(1, vec![kind]);
        let (desk, chain) = (node.desk(0), node.chain());
        for _ in 0..3 {
            Reservation::default().admit(&desk, &[chain]).expect("never refused");
        }
        assert_eq!((node.counters.passed.value(), node.in_use(0)), (2, 3));
    }
}

#[test]
fn n_requests_a_window_are_admitted_on_any_number_of_workers() {
    for n in [1, 3, 10, 600] {
        for workers in [1, 2, 8] {
            for (moves, turn) in [("on one worker", 0), ("spread", 1), ("moving in lots", 5)] {
                let mut node = Node::new(workers, vec![limit(Metric::Requests, n)]);
                for window in 0..2 {
                    let chain = node.chain();
                    let worker = |at: u64| match turn {
                        5 => (at / 5) as usize % workers,
                        turn => at as usize * turn % workers,
                    };
                    let admitted = (0..2 * n + 5)
                        .filter(|at| Reservation::default().admit(&node.desk(worker(*at)), &[chain]).is_ok())
                        .count();
                    assert_eq!(admitted as u64, n, "{n} on {workers} workers, {moves}, window {window}");
                    node.time.node_s += 60;
                }
            }
        }
    }
}

#[test]
fn a_target_that_was_called_keeps_the_request_also_where_the_next_one_is_refused() {
    let of_provider = Limit { level: Level::Provider, ..limit(Metric::Requests, 5) };
    let node = Node::new(1, vec![limit(Metric::Requests, 5), of_provider, limit(Metric::Tokens, 100)]);
    let (desk, chain) = (node.desk(0), node.chain());
    for (was_made, counted) in [(true, 1), (false, 1), (true, 2)] {
        let mut request = Reservation::default();
        let key = Chain::new(&[Run { first: 0, count: 1 }], None);
        request.admit(&desk, &[key]).expect("room");
        request.reserve(&desk, &[chain], &ask(10, 10)).expect("room");
        request.release_call(&desk, was_made);
        request.reserve(&desk, &[chain], &ask(90, 90)).expect_err("no room");
        request.release(&desk);
        assert_eq!([node.in_use(0), node.in_use(1), node.in_use(2)], [0, counted, 0]);
        assert_eq!(node.bank.spent(node.plan.limits[1].cell).amount, counted);
    }
}

#[test]
fn a_refused_call_gives_everything_back_and_a_released_one_keeps_its_place() {
    let node = Node::new(1, vec![limit(Metric::Requests, 5), limit(Metric::Tokens, 100)]);
    let (desk, chain) = (node.desk(0), node.chain());
    let mut request = Reservation::default();
    request.admit(&desk, &[chain]).expect("room");
    request.reserve(&desk, &[chain], &ask(10, 10)).expect("room");
    request.release_call(&desk, true);
    assert_eq!((node.in_use(0), node.in_use(1)), (1, 0));
    request.reserve(&desk, &[chain], &ask(20, 20)).expect("room");
    assert_eq!(request.holds().len(), 2);
    request.release(&desk);
    assert_eq!((node.in_use(0), node.in_use(1)), (0, 0));
}
