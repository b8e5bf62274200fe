//! Which targets a model name leads to, and in which order they are tried.
//!
//! A name is looked up exactly first, then among the wildcards, the longest literal part first. The order of
//! trying is: the route's own targets drawn by weight without repetition, then those of weight 0 as written,
//! then the same for each fallback model. It is a pure function of the route and one random number, and ends
//! after `TARGETS_MAX` candidates. Nothing is allocated per request. A cycle of fallbacks cannot be built
//! (`Routes::new` refuses it). Absent: health, latency, cost. They will reorder candidates; this module only
//! knows what the config says.

use crate::policy::pattern::Pattern;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::rc::Rc;

/// Candidates of one request at most: own targets and those of all fallbacks together.
pub const TARGETS_MAX: usize = 16;

/// One provider and the model name to send to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index into `Snapshot::providers`.
    pub provider: u32,
    pub model: TargetModel,
    /// Share of the requests relative to the other targets; 0: tried only after all others failed. Default 1.
    pub weight: u32,
}

/// The model name that a target is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModel {
    /// The name that the client said.
    Same,
    /// A fixed name.
    Named(Box<str>),
    /// `before`, then what the `*` of the route stood for, then `after`.
    Copied { before: Box<str>, after: Box<str> },
}

/// What a client may ask for under one name.
#[derive(Clone, Debug)]
pub struct Route {
    /// Place in `Routes`; the order of the config.
    pub index: u32,
    /// As configured, with its `*`.
    pub name: Box<str>,
    pub pattern: Pattern,
    pub targets: Box<[Target]>,
    /// Flat: fallbacks of fallbacks follow the fallback that they belong to.
    fallbacks: Box<[Fallback]>,
}

/// A route as the config gives it.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    pub name: Box<str>,
    pub pattern: Pattern,
    pub targets: Vec<Target>,
    /// Model names as a client would say them, looked up like a client's.
    pub fallback: Vec<Box<str>>,
}

/// All routes of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
    exact: HashMap<Box<str>, u32>,
    /// Indices of wildcard routes, the longest literal part first, then the order of the config.
    wild: Vec<u32>,
}

/// Why routes cannot be built; indices into the list given to `Routes::new`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    NameTwice { first: usize, second: usize },
    FallbackUnknown { route: usize, fallback: usize },
    FallbackCycle { route: usize, fallback: usize },
    TooManyTargets { route: usize, found: usize },
}

/// One target to try, and the model name for it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub route: &'a Route,
    pub target: &'a Target,
    pub model: ModelSent<'a>,
}

/// The model name to send, in up to three pieces so that none is joined before it is spliced into the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelSent<'a> {
    /// As the client wrote it: nothing to splice.
    Same,
    /// `before`, `copied` and `after` one after the other.
    Other { before: &'a str, copied: &'a str, after: &'a str },
}

impl ModelSent<'_> {
    /// The name, where the client wrote `asked`.
    pub fn name(&self, asked: &Rc<str>) -> Rc<str> {
        match *self {
            ModelSent::Same => Rc::clone(asked),
            ModelSent::Other { before, copied: "", after: "" } => before.into(),
            ModelSent::Other { before, copied, after } => [before, copied, after].concat().into(),
        }
    }
}

impl Routes {
    /// Builds the lookup. Errors: every problem, none left out.
    pub fn new(specs: Vec<RouteSpec>) -> Result<Routes, Vec<RouteError>> {
        let mut routes = Routes::default();
        let mut errors = Vec::new();
        let mut named: HashMap<&str, usize> = HashMap::new();
        for (at, spec) in specs.iter().enumerate() {
            if let Some(&first) = named.get(&*spec.name) {
                errors.push(RouteError::NameTwice { first, second: at });
                continue;
            }
            named.insert(&spec.name, at);
            match &spec.pattern {
                Pattern::Exact(name) => {
                    routes.exact.insert(name.clone(), at as u32);
                }
                Pattern::Wild { .. } => routes.wild.push(at as u32),
            }
        }
        routes.wild.sort_by_key(|&at| std::cmp::Reverse(specs[at as usize].pattern.literal_len()));
        routes.routes = specs.iter().enumerate().map(|(at, spec)| Route::bare(at, spec)).collect();
        let flat: Vec<Vec<Fallback>> =
            (0..specs.len()).map(|at| routes.flatten(at, &specs, &mut errors)).collect();
        for (at, fallbacks) in flat.into_iter().enumerate() {
            let own = routes.routes[at].targets.len();
            let of = |fallback: &Fallback| routes.routes[fallback.route as usize].targets.len();
            let found = own + fallbacks.iter().map(of).sum::<usize>();
            if found > TARGETS_MAX {
                errors.push(RouteError::TooManyTargets { route: at, found });
            }
            routes.routes[at].fallbacks = fallbacks.into_boxed_slice();
        }
        if errors.is_empty() { Ok(routes) } else { Err(errors) }
    }

    /// The route of `model`, the name that a client says; none: no such model.
    pub fn resolve(&self, model: &str) -> Option<&Route> {
        if let Some(&at) = self.exact.get(model) {
            return self.routes.get(at as usize);
        }
        let wild = self.wild.iter().filter_map(|&at| self.routes.get(at as usize));
        wild.into_iter().find(|route| route.pattern.matches(model))
    }

    /// Whether one of `models`, as a key may have them, can be answered by `provider`, as a fallback or not.
    pub fn reach(&self, models: &[Pattern], provider: u32) -> bool {
        models.iter().any(|model| match model {
            Pattern::Exact(name) => self.resolve(name).is_some_and(|route| self.asks(route, provider)),
            Pattern::Wild { .. } => {
                self.routes.iter().any(|route| route.pattern.overlaps(model) && self.asks(route, provider))
            }
        })
    }

    /// The candidates for `asked` (which resolved to `route`) in the order of trying, drawn with `random`.
    pub fn pick<'a>(&'a self, route: &'a Route, asked: &'a str, random: u64) -> Order<'a> {
        Order { routes: self, first: route, asked, step: 0, drawn: 0, random, given: 0 }
    }

    /// Names for a model list: exact ones, in the order of the config. A wildcard names nothing that could be
    /// listed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter(|route| !route.pattern.is_wild()).map(|route| &*route.name)
    }

    /// Every route, in the order of the config; the place is `Route::index`.
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    fn asks(&self, route: &Route, provider: u32) -> bool {
        let fallbacks = route.fallbacks.iter().filter_map(|to| self.routes.get(to.route as usize));
        let mut all = std::iter::once(route).chain(fallbacks);
        all.any(|route| route.targets.iter().any(|target| target.provider == provider))
    }

    /// The fallbacks of route `at` and theirs, depth first, each (route, name) once.
    fn flatten(&self, at: usize, specs: &[RouteSpec], errors: &mut Vec<RouteError>) -> Vec<Fallback> {
        let mut found: Vec<Fallback> = Vec::new();
        // (route, its next fallback): the path from `at` to where the walk stands, so a repeat on it is a
        // cycle.
        let mut path: Vec<(usize, usize)> = vec![(at, 0)];
        while let Some((route, next)) = path.last_mut() {
            let (route, fallback) = (*route, *next);
            *next += 1;
            let Some(asked) = specs[route].fallback.get(fallback) else {
                path.pop();
                continue;
            };
            let own = route == at;
            let Some(to) = self.resolve(asked).map(|to| to.index as usize) else {
                if own {
                    errors.push(RouteError::FallbackUnknown { route, fallback });
                }
                continue;
            };
            if path.iter().any(|&(on, _)| on == to) {
                // A cycle is told at each route that is on it, not at those that merely lead into it.
                if to == at {
                    let (_, first) = path[0];
                    errors.push(RouteError::FallbackCycle { route: at, fallback: first - 1 });
                }
                continue;
            }
            let entry = Fallback { route: to as u32, asked: asked.clone() };
            if !found.contains(&entry) {
                found.push(entry);
                path.push((to, 0));
            }
        }
        found
    }
}

impl Route {
    fn bare(at: usize, spec: &RouteSpec) -> Route {
        Route {
            index: at as u32,
            name: spec.name.clone(),
            pattern: spec.pattern.clone(),
            targets: spec.targets.clone().into_boxed_slice(),
            fallbacks: Box::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fallback {
    route: u32,
    /// The name under which it is asked, which its targets of `TargetModel::Same` are sent.
    asked: Box<str>,
}

/// The candidates of one request, at most `TARGETS_MAX`.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    routes: &'a Routes,
    first: &'a Route,
    asked: &'a str,
    /// 0: the route itself; n: its fallback n - 1.
    step: usize,
    /// Targets of this step that were given already, one bit each.
    drawn: u32,
    random: u64,
    given: usize,
}

impl<'a> Iterator for Order<'a> {
    type Item = Candidate<'a>;

    fn next(&mut self) -> Option<Candidate<'a>> {
        while self.given < TARGETS_MAX {
            let (route, asked) = self.standing()?;
            if let Some(at) = self.draw(&route.targets) {
                self.drawn |= 1 << at;
                self.given += 1;
                let target = route.targets.get(at)?;
                return Some(Candidate { route, target, model: self.model(route, target, asked) });
            }
            self.step += 1;
            self.drawn = 0;
        }
        None
    }
}

impl<'a> Order<'a> {
    /// The route whose targets are drawn now and the name under which it is asked.
    fn standing(&self) -> Option<(&'a Route, &'a str)> {
        let Some(fallback) = self.step.checked_sub(1) else { return Some((self.first, self.asked)) };
        let fallback = self.first.fallbacks.get(fallback)?;
        Some((self.routes.routes.get(fallback.route as usize)?, &fallback.asked))
    }

    /// The next target: by weight among those that are left, then those of weight 0 as written.
    fn draw(&mut self, targets: &[Target]) -> Option<usize> {
        let left: SmallVec<[usize; TARGETS_MAX]> =
            (0..targets.len().min(TARGETS_MAX)).filter(|at| self.drawn & (1 << at) == 0).collect();
        let total: u64 = left.iter().map(|&at| u64::from(targets[at].weight)).sum();
        if total == 0 {
            return left.first().copied();
        }
        // The high half of the product maps 64 random bits onto 0..total with a bias below total / 2^64.
        let mut point = ((u128::from(self.random) * u128::from(total)) >> 64) as u64;
        self.random = mix(self.random);
        left.into_iter().find(|&at| {
            let weight = u64::from(targets[at].weight);
            let here = point < weight;
            point = point.saturating_sub(weight);
            here
        })
    }

    fn model(&self, route: &'a Route, target: &'a Target, asked: &'a str) -> ModelSent<'a> {
        match &target.model {
            TargetModel::Same if self.step == 0 => ModelSent::Same,
            TargetModel::Same => ModelSent::Other { before: asked, copied: "", after: "" },
            TargetModel::Named(name) => ModelSent::Other { before: name, copied: "", after: "" },
            TargetModel::Copied { before, after } => {
                ModelSent::Other { before, copied: route.pattern.star(asked).unwrap_or_default(), after }
            }
        }
    }
}

/// The next random number of a draw (the output step of SplitMix64, Steele, Lea and Flood 2014).
fn mix(before: u64) -> u64 {
    let mut bits = before.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
