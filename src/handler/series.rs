//! Counters with labels: one set per worker, route and provider, so that label values come from the config
//! only.
//!
//! Control owns the `Registry` and puts, with each generation, the sets of its targets into the snapshot. A
//! set that a later generation names again is the same one, so totals never fall. One that no generation holds
//! any more, its streams included, is forgotten with the next: until then its last counts can be scraped. A
//! worker adds to its own sets without a locked instruction and shares no cache line with another worker;
//! control sums them at a scrape.
//!
//! Limits: the labels of the generations that live, and of those that ended since the last one came.

use crate::base::counter::{Counter, Histogram};
use crate::llm::provider::Provider;
use crate::policy::route::Routes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is counted of one target.
#[derive(Debug, Default)]
pub struct Set {
    pub answers_2xx: Counter,
    pub answers_4xx: Counter,
    pub answers_5xx: Counter,
    /// Attempts without an answer: not reached, timed out, broken.
    pub unanswered: Counter,
    /// Answers that broke off after the commit point.
    pub cut: Counter,
    pub client_left: Counter,
    pub events: Counter,
    pub input_tokens: Counter,
    pub output_tokens: Counter,
    pub cache_read_tokens: Counter,
    pub cache_write_tokens: Counter,
    pub reasoning_tokens: Counter,
    /// Answers whose usage is an estimate.
    pub usage_estimated: Counter,
    pub duration: Histogram,
    pub first_token: Histogram,
    /// Between two lots of events.
    pub gap: Histogram,
}

/// The labels of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// The model as the config names it for clients; a wildcard stays one. Empty for pass-through.
    pub model: Box<str>,
    pub provider: Box<str>,
}

/// The sets of one worker for one generation.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// By route, then the providers of its targets.
    routes: Vec<Vec<(u32, Arc<Set>)>>,
    /// By provider, for what has no route.
    providers: Vec<Arc<Set>>,
}

impl Series {
    /// The set of a target; of the provider alone where there is no route.
    pub fn set(&self, route: Option<u32>, provider: u32) -> Option<&Arc<Set>> {
        let Some(route) = route else { return self.providers.get(provider as usize) };
        let targets = self.routes.get(route as usize)?;
        targets.iter().find(|(target, _)| *target == provider).map(|(_, set)| set)
    }
}

/// Every set that a generation names, and that of one that has gone until the next comes.
#[derive(Debug, Default)]
pub struct Registry {
    /// One set per worker.
    sets: BTreeMap<Labels, Vec<Arc<Set>>>,
}

impl Registry {
    /// The series of each worker for a generation; sets that are new are made, those that nobody holds forgotten.
    pub fn series(&mut self, workers: usize, routes: &Routes, providers: &[Provider]) -> Vec<Series> {
        let mut all = vec![Series::default(); workers];
        let name = |provider: u32| providers.get(provider as usize).map_or("", |provider| &provider.name);
        for route in routes.all() {
            let mut named: Vec<u32> = route.targets.iter().map(|target| target.provider).collect();
            named.sort_unstable();
            named.dedup();
            let sets: Vec<_> = named.iter().map(|at| self.sets(workers, &route.name, name(*at))).collect();
            for (worker, series) in all.iter_mut().enumerate() {
                let targets = named.iter().zip(&sets).map(|(at, sets)| (*at, Arc::clone(&sets[worker])));
                series.routes.push(targets.collect());
            }
        }
        for provider in providers {
            let sets = self.sets(workers, "", &provider.name);
            for (worker, series) in all.iter_mut().enumerate() {
                series.providers.push(Arc::clone(&sets[worker]));
            }
        }
        // Only from here can further holds come, so a set that has none stays without.
        self.sets.retain(|_, sets| sets.iter().any(|set| Arc::strong_count(set) > 1));
        all
    }

    /// Labels and the sets of all workers.
    pub fn all(&self) -> impl Iterator<Item = (&Labels, &[Arc<Set>])> {
        self.sets.iter().map(|(labels, sets)| (labels, sets.as_slice()))
    }

    fn sets(&mut self, workers: usize, model: &str, provider: &str) -> Vec<Arc<Set>> {
        let labels = Labels { model: model.into(), provider: provider.into() };
        let sets = self.sets.entry(labels).or_default();
        while sets.len() < workers {
            sets.push(Arc::default());
        }
        sets.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::Registry;
    use crate::llm::provider::{Provider, ProviderKind};
    use crate::policy::route::Routes;
    use std::sync::Arc;

    #[test]
    fn a_set_that_is_named_again_keeps_its_counts() {
        let mut registry = Registry::default();
        let providers = [Provider::new("a", ProviderKind::Mock, None)];
        let first = registry.series(2, &Routes::default(), &providers);
        first[1].set(None, 0).expect("the provider's set").events.add(3);
        let second = registry.series(2, &Routes::default(), &providers);
        let again = second[1].set(None, 0).expect("the provider's set");
        assert_eq!(again.events.value(), 3);
        assert!(!Arc::ptr_eq(again, second[0].set(None, 0).expect("the other worker's set")));
        assert!(second[0].set(None, 1).is_none());
    }

    #[test]
    fn labels_of_generations_that_are_gone_are_forgotten_and_no_others() {
        let mut registry = Registry::default();
        let kept = Provider::new("kept", ProviderKind::Mock, None);
        let of = |number: u32| Provider::new(&format!("p{number}"), ProviderKind::Mock, None);
        let has =
            |registry: &Registry, name: &str| registry.all().any(|(labels, _)| *labels.provider == *name);
        let open_stream = registry.series(2, &Routes::default(), &[kept.clone(), of(0)]);
        let mut serving = Vec::new();
        for number in 1..=100 {
            let before = serving;
            serving = registry.series(2, &Routes::default(), &[kept.clone(), of(number)]);
            serving[1].set(None, 0).expect("the kept one").events.add(1);
            // The one that still serves while the new one is made, and the one with an open stream.
            for (held, count) in [(number, 1), (number - 1, u32::from(!before.is_empty())), (0, 1)] {
                assert!(has(&registry, &format!("p{held}")) || count == 0, "{held} of {number}");
            }
            assert!(registry.all().count() <= 4, "{number}: {}", registry.all().count());
        }
        let (_, sets) =
            registry.all().find(|(labels, _)| *labels.provider == *"kept").expect("it never left");
        assert_eq!(sets[1].events.value(), 100);
        drop(open_stream);
        registry.series(2, &Routes::default(), std::slice::from_ref(&kept));
        assert!(!has(&registry, "p0") && has(&registry, "p100"));
    }
}
