//! The catalogue: the built-in list, one in LiteLLM's form, the operator's own, in this order; and what
//! becomes of models that none of them prices.
//!
//! The files are watched: a new price holds from the next reload on. A fault in the operator's list is an
//! error with its line; entries of the other form that cannot be understood are counted in one warning.

use crate::control::config::compile::Context;
use crate::control::config::problem::{Place, did_you_mean};
use crate::control::config::raw;
use crate::control::config::sources::At;
use crate::llm::catalogue::{Catalogue, Fault, KEYS, Skipped, Unpriced};
use crate::llm::decimal::scaled;
use crate::llm::price::Price;
use std::sync::Arc;

/// Faults of one list that are told.
const FAULTS_TOLD: usize = 20;

/// The most that a million tokens of an unpriced model may cost.
const USD_MAX: u64 = 1_000_000;

/// Dollars per million tokens are 10^6 pico-dollars a token.
const PLACES: i32 = 6;

pub fn compile(context: &mut Context<'_>) -> Arc<Catalogue> {
    let raw = &context.sources.raw.catalogue;
    let at = context.sources.main("catalogue");
    let mut catalogue = Catalogue::default();
    if let Some(path) = &raw.litellm {
        litellm(context, &at.key("litellm"), path, &mut catalogue);
    }
    if let Some(path) = &raw.models {
        models(context, &at.key("models"), path, &mut catalogue);
    }
    Arc::new(catalogue)
}

pub fn unpriced(context: &mut Context<'_>) -> Unpriced {
    let usd = match &context.sources.raw.catalogue.unpriced {
        raw::Unpriced::Refuse => return Unpriced::Refuse,
        raw::Unpriced::Allow => return Unpriced::Allow,
        raw::Unpriced::UsdPerMillionTokens(usd) => usd,
    };
    let price = scaled(&usd.0, PLACES).ok().filter(|price| price.is_exact && price.units > 0);
    match price.filter(|price| price.units <= USD_MAX * 10_u64.pow(PLACES as u32)) {
        Some(price) => Unpriced::Ceiling(Price::flat(price.units)),
        None => {
            let at = context.sources.main("catalogue").key("unpriced").key("usd_per_million_tokens");
            let shown: String = usd.0.chars().take(40).flat_map(char::escape_debug).collect();
            let allowed = format!("more than 0, at most {USD_MAX}, with 6 decimal places");
            context.error(at, format!("{shown} is not allowed, allowed: {allowed}"));
            Unpriced::Refuse
        }
    }
}

fn litellm(context: &mut Context<'_>, at: &At, path: &str, catalogue: &mut Catalogue) {
    let Some(bytes) = context.file(at, path) else { return };
    let path = path.escape_debug();
    match catalogue.add_litellm(&bytes) {
        Ok(Skipped { odd: 0, .. }) => {}
        Ok(Skipped { odd, .. }) => {
            context
                .warn(at.clone(), format!("{odd} entries of {path} cannot be understood and are left out"));
        }
        Err(defect) => context.error(at.clone(), format!("{path} is no list of models: {defect}")),
    }
}

fn models(context: &mut Context<'_>, at: &At, path: &str, catalogue: &mut Catalogue) {
    let Some(bytes) = context.file(at, path) else { return };
    let path = path.escape_debug();
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return context.error(at.clone(), format!("{path} is not UTF-8; a list of models is UTF-8 text"));
    };
    let Err(faults) = catalogue.add_own(text) else { return };
    for Fault { offset, path: key, message, unknown_key } in faults.iter().take(FAULTS_TOLD) {
        let near = unknown_key.as_ref().map_or(String::new(), |key| did_you_mean(key, KEYS));
        let message = if near.is_empty() { message.clone() } else { format!("unknown key{near}") };
        let Place { line, column } = Place::of(text, *offset);
        let colon = if key.is_empty() { "" } else { ": " };
        context.error(at.clone(), format!("{path}:{line}:{column}: {key}{colon}{message}"));
    }
    if faults.len() > FAULTS_TOLD {
        context.error(at.clone(), format!("{path} has {} more faults", faults.len() - FAULTS_TOLD));
    }
}
