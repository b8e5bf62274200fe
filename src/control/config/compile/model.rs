//! Models: what clients may ask for, and where it leads.

use crate::control::config::compile::Context;
use crate::control::config::problem::{did_you_mean, one_of, quoted};
use crate::control::config::raw;
use crate::control::config::sources::{At, List};
use crate::llm::provider::{DialectSet, Provider};
use crate::policy::pattern::Pattern;
use crate::policy::route::{Route, RouteError, RouteSpec, Routes, TARGETS_MAX, Target, TargetModel};
use std::collections::HashMap;

/// Bytes of a model's name.
const MODEL_BYTES_MAX: usize = 256;

pub fn compile(context: &mut Context<'_>, providers: &[Provider]) -> Routes {
    let sources = context.sources;
    let by_name: HashMap<&str, u32> =
        providers.iter().rev().map(|provider| (&*provider.name, provider.index)).collect();
    let mut specs = Vec::new();
    let mut good = true;
    for (index, raw) in sources.raw.model.iter().enumerate() {
        let at = sources.entry(List::Model, index);
        let pattern = pattern(context, &at.key("name"), &raw.name);
        good &= pattern.is_some();
        let pattern = pattern.unwrap_or_else(|| Pattern::Exact(raw.name.as_str().into()));
        let mut targets = Vec::new();
        for (place, target) in raw.targets.iter().enumerate() {
            let at = at.key("targets").at(place);
            match self::target(context, &at, target, &pattern, &by_name) {
                Some(target) => targets.push(target),
                None => good = false,
            }
        }
        let fallback = raw.fallback.iter().map(|name| name.as_str().into()).collect();
        specs.push(RouteSpec { name: raw.name.as_str().into(), pattern, targets, fallback });
    }
    match Routes::new(specs) {
        Ok(routes) if good => {
            unreachable_fallbacks(context, &routes, providers);
            routes
        }
        Ok(_) => Routes::default(),
        Err(errors) => {
            errors.into_iter().for_each(|error| tell(context, &error));
            Routes::default()
        }
    }
}

/// A model's name as a pattern; told where it is none.
pub fn pattern(context: &mut Context<'_>, at: &At, name: &str) -> Option<Pattern> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !(1..=MODEL_BYTES_MAX).contains(&name.len()) || !name.bytes().all(fits) {
        let allowed = format!("1 to {MODEL_BYTES_MAX} visible ASCII characters without \" \\");
        context.error(at.clone(), format!("{} is not allowed, allowed: {allowed}", quoted(name)));
        return None;
    }
    let pattern = Pattern::new(name);
    if pattern.is_err() {
        context.error(at.clone(), format!("{} has several *, allowed: one", quoted(name)));
    }
    pattern.ok()
}

fn target(
    context: &mut Context<'_>,
    at: &At,
    raw: &raw::Target,
    route: &Pattern,
    providers: &HashMap<&str, u32>,
) -> Option<Target> {
    let model = match raw.model.as_deref().map(|name| (name, pattern(context, &at.key("model"), name))) {
        None => Some(TargetModel::Same),
        Some((_, None)) => None,
        Some((_, Some(Pattern::Exact(name)))) => Some(TargetModel::Named(name)),
        Some((_, Some(Pattern::Wild { before, after }))) if route.is_wild() => {
            Some(TargetModel::Copied { before, after })
        }
        Some((name, Some(Pattern::Wild { .. }))) => {
            let message = format!(
                "{} has a * but the model's name has none; a * here copies what the * of the name stood for",
                quoted(name)
            );
            context.error(at.key("model"), message);
            None
        }
    };
    let Some(&provider) = providers.get(&*raw.provider) else {
        context.error(at.key("provider"), no_provider(&raw.provider, providers.keys().copied()));
        return None;
    };
    Some(Target { provider, model: model?, weight: raw.weight })
}

/// `no provider "x"`, with the nearest name, or all names where there are few.
pub fn no_provider<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    let near = did_you_mean(name, names.iter().copied());
    let known: Vec<String> = names.iter().take(10).map(|name| quoted(name)).collect();
    match (near.is_empty(), &known[..]) {
        (false, _) => format!("no provider {}{near}", quoted(name)),
        (true, []) => format!("no provider {}: there is no [[provider]]", quoted(name)),
        (true, _) if names.len() > known.len() => format!("no provider {}", quoted(name)),
        (true, _) => format!("no provider {}, allowed: {}", quoted(name), one_of(&known)),
    }
}

fn tell(context: &mut Context<'_>, error: &RouteError) {
    let sources = context.sources;
    let entry = |index: usize| sources.entry(List::Model, index);
    let name = |index: usize| quoted(&sources.raw.model[index].name);
    let fallback = |route: usize, place: usize| {
        (entry(route).key("fallback").at(place), quoted(&sources.raw.model[route].fallback[place]))
    };
    match *error {
        RouteError::NameTwice { first, second } => {
            let first = sources.refer(&entry(first).key("name"));
            let message = format!("{} is the name of the model at {first}", name(second));
            context.error(entry(second).key("name"), message);
        }
        RouteError::FallbackUnknown { route, fallback: place } => {
            let (at, asked) = fallback(route, place);
            let names = sources.raw.model.iter().map(|model| model.name.as_str());
            let near = did_you_mean(&sources.raw.model[route].fallback[place], names);
            context
                .error(at, format!("no model {asked}{near}; a fallback is named as a client would name it"));
        }
        RouteError::FallbackCycle { route, fallback: place } => {
            let (at, asked) = fallback(route, place);
            context.error(
                at,
                format!("{asked} leads back to {}: fallbacks must end; remove one of them", name(route)),
            );
        }
        RouteError::TooManyTargets { route, found } => {
            let message = format!("{found} targets with those of its fallbacks, allowed: {TARGETS_MAX}");
            context.error(entry(route).key("targets"), message);
        }
    }
}

/// Tells fallbacks that could never serve a request that the model itself can serve.
fn unreachable_fallbacks(context: &mut Context<'_>, routes: &Routes, providers: &[Provider]) {
    let sources = context.sources;
    for (index, raw) in sources.raw.model.iter().enumerate() {
        let Some(route) = routes.all().get(index) else { continue };
        let own = spoken(route, providers);
        for (place, asked) in raw.fallback.iter().enumerate() {
            let Some(other) = routes.resolve(asked).map(|route| spoken(route, providers)) else { continue };
            let shared = DialectSet {
                chat: own.chat && other.chat,
                responses: own.responses && other.responses,
                messages: own.messages && other.messages,
            };
            let at = sources.entry(List::Model, index).key("fallback").at(place);
            if shared == DialectSet::default() {
                let (own, other) = (own.names().join(", "), other.names().join(", "));
                let message = format!(
                    "{} is never reached: it is served in {other}, this model in {own}; remove it, or add a \
                     target that speaks one of them",
                    quoted(asked)
                );
                context.error(at, message);
            } else if raw.fallback[..place].contains(asked) {
                context.error(at, format!("{} stands here already; remove it", quoted(asked)));
            }
        }
    }
}

/// The dialects in which at least one target of `route` can be asked.
fn spoken(route: &Route, providers: &[Provider]) -> DialectSet {
    let mut all = DialectSet::default();
    for target in &route.targets {
        let Some(provider) = providers.get(target.provider as usize) else { continue };
        all.chat |= provider.dialects.chat;
        all.responses |= provider.dialects.responses;
        all.messages |= provider.dialects.messages;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::no_provider;

    #[test]
    fn a_provider_that_stands_twice_is_told_once() {
        let told = no_provider("none", ["openai", "b", "openai"].into_iter());
        assert_eq!(told, "no provider \"none\", allowed: \"b\" or \"openai\"");
    }
}
