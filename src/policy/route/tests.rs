//! Tests of `policy::route`: lookup, order of trying, names sent, what cannot be built.

use super::{ModelSent, RouteError, RouteSpec, Routes, TARGETS_MAX, Target, TargetModel};
use crate::policy::pattern::Pattern;

fn target(provider: u32, model: &str, weight: u32) -> Target {
    let model = match model.split_once('*') {
        _ if model.is_empty() => TargetModel::Same,
        Some((before, after)) => TargetModel::Copied { before: before.into(), after: after.into() },
        None => TargetModel::Named(model.into()),
    };
    Target { provider, model, weight }
}

fn spec(name: &str, targets: Vec<Target>, fallback: &[&str]) -> RouteSpec {
    let fallback = fallback.iter().map(|&name| name.into()).collect();
    RouteSpec { name: name.into(), pattern: Pattern::new(name).unwrap(), targets, fallback }
}

/// (provider, model sent) of each candidate in order.
fn order(routes: &Routes, asked: &str, random: u64) -> Vec<(u32, String)> {
    let route = routes.resolve(asked).unwrap();
    let sent = |model: ModelSent<'_>| model.name(&asked.into()).to_string();
    routes.pick(route, asked, random).map(|found| (found.target.provider, sent(found.model))).collect()
}

#[test]
fn an_exact_name_wins_over_wildcards_and_the_longest_literal_over_shorter_ones() {
    let routes = Routes::new(vec![
        spec("*", vec![target(0, "", 1)], &[]),
        spec("claude-*", vec![target(1, "", 1)], &[]),
        spec("claude-opus-*", vec![target(2, "", 1)], &[]),
        spec("claude-opus-4", vec![target(3, "", 1)], &[]),
    ])
    .unwrap();
    // asked, provider
    let rows = [("claude-opus-4", 3), ("claude-opus-5", 2), ("claude-x", 1), ("gpt-4o", 0)];
    for (asked, provider) in rows {
        assert_eq!(order(&routes, asked, 7), [(provider, asked.to_string())]);
    }
    assert_eq!(routes.names().collect::<Vec<_>>(), ["claude-opus-4"]);
}

#[test]
fn an_unknown_name_resolves_to_nothing() {
    let routes = Routes::new(vec![spec("a-*", vec![target(0, "", 1)], &[])]).unwrap();
    assert!(routes.resolve("b").is_none());
    assert!(Routes::default().resolve("").is_none());
}

#[test]
fn a_star_in_the_target_copies_what_matched() {
    let routes = Routes::new(vec![spec("eu/*", vec![target(0, "prod-*-v1", 1)], &[])]).unwrap();
    assert_eq!(order(&routes, "eu/mini", 0), [(0, "prod-mini-v1".to_string())]);
}

#[test]
fn targets_are_drawn_by_weight_each_once_and_weight_zero_comes_last() {
    let targets = vec![target(0, "", 9), target(1, "", 0), target(2, "", 1), target(3, "", 0)];
    let routes = Routes::new(vec![spec("m", targets, &[])]).unwrap();
    let mut first = [0_u32; 4];
    let mut random = 1;
    for _ in 0..10_000 {
        random = super::mix(random);
        let providers: Vec<u32> = order(&routes, "m", random).into_iter().map(|(at, _)| at).collect();
        first[providers[0] as usize] += 1;
        assert_eq!(providers.len(), 4);
        assert_eq!(providers[2..], [1, 3]);
    }
    assert_eq!((first[1], first[3]), (0, 0));
    assert!((8_800..9_200).contains(&first[0]), "weight 9 of 10 was first {} times of 10,000", first[0]);
}

#[test]
fn fallbacks_follow_in_depth_and_are_asked_under_their_own_name() {
    let routes = Routes::new(vec![
        spec("main", vec![target(0, "", 1)], &["cheap-x", "last"]),
        spec("cheap-*", vec![target(1, "", 1), target(2, "c-*", 0)], &["deep"]),
        spec("deep", vec![target(3, "named", 1)], &["last"]),
        spec("last", vec![target(4, "", 1)], &[]),
    ])
    .unwrap();
    let rows = [(0, "main"), (1, "cheap-x"), (2, "c-x"), (3, "named"), (4, "last")];
    assert_eq!(order(&routes, "main", 3), rows.map(|(at, name)| (at, name.to_string())));
}

#[test]
fn a_cycle_is_told_at_every_route_that_is_on_it() {
    let one = |name, fallback: &[&str]| spec(name, vec![target(0, "", 1)], fallback);
    let errors = Routes::new(vec![one("in", &["a"]), one("a", &["b"]), one("b", &["a"]), one("s", &["s"])]);
    let at = |route| RouteError::FallbackCycle { route, fallback: 0 };
    assert_eq!(errors.err(), Some(vec![at(1), at(2), at(3)]));
}

#[test]
fn all_problems_are_told_at_once() {
    let errors = Routes::new(vec![
        spec("a", vec![target(0, "", 1)], &["missing", "b"]),
        spec("b", vec![target(0, "", 1); TARGETS_MAX], &[]),
        spec("a", vec![], &[]),
    ]);
    let expected = vec![
        RouteError::NameTwice { first: 0, second: 2 },
        RouteError::FallbackUnknown { route: 0, fallback: 0 },
        RouteError::TooManyTargets { route: 0, found: TARGETS_MAX + 1 },
    ];
    assert_eq!(errors.err(), Some(expected));
}

#[test]
fn targets_up_to_the_bound_are_all_tried() {
    let routes = Routes::new(vec![spec("m", vec![target(0, "", 1); TARGETS_MAX], &[])]).unwrap();
    assert_eq!(order(&routes, "m", 5).len(), TARGETS_MAX);
}

#[test]
fn what_models_reach_is_what_they_may_be_answered_by() {
    let routes = Routes::new(vec![
        spec("*", vec![target(0, "", 1)], &[]),
        spec("gpt-4o", vec![target(1, "", 1)], &["claude-x"]),
        spec("claude-*", vec![target(2, "", 0)], &[]),
    ])
    .unwrap();
    // models of a key, providers that it reaches
    let rows: [(&[&str], &[u32]); 6] = [
        (&["gpt-4o"], &[1, 2]),
        (&["claude-opus"], &[2]),
        (&["other"], &[0]),
        (&["gpt-*"], &[0, 1, 2]),
        (&["claude-opus", "other"], &[0, 2]),
        (&[], &[]),
    ];
    for (models, providers) in rows {
        let patterns: Vec<Pattern> = models.iter().map(|model| Pattern::new(model).unwrap()).collect();
        let reached: Vec<u32> = (0..4).filter(|&provider| routes.reach(&patterns, provider)).collect();
        assert_eq!(reached, providers, "{models:?}");
    }
}
