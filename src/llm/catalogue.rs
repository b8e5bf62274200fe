//! The catalogue: what is known of a model by its name: price, context window, cap of the output.
//!
//! Three layers, a later one wins: the built-in `conf/models.toml` (its head names source and date), a list
//! in LiteLLM's form, the operator's own file. An entry replaces the one of the same name and vendor; the
//! operator's replaces all of that name. A name is looked up as it is sent: exactly; then without what stands
//! before a `/` (`openai/gpt-4o`, `models/gemini-2.5-pro`); then both again without a date or `-latest` at
//! its end (`gpt-4o-2024-08-06`, `claude-opus-4-5-20251101`, `@20251101`). Nothing else is guessed: regional
//! and fine-tuned names have prices of their own (`us.anthropic.`, `ft:`). Where several vendors sell a name,
//! the one that the provider's kind names counts (`openai`, `anthropic`); else the dearest. Limits:
//! `NAME_PARTS_MAX` slashes. Errors of the operator's file: all, with their place. Absent: modalities,
//! parameters that a model takes, batch and priority prices.

mod litellm;
mod own;

pub use litellm::Skipped;
pub use own::{Fault, KEYS};

use crate::codec::json::Defect;
use crate::llm::price::Price;
use crate::llm::provider::ProviderKind;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Parts before a `/` that are left out in turn.
const NAME_PARTS_MAX: usize = 4;

const BUILT_IN: &str = include_str!("../../conf/models.toml");

/// What is known of a model; nothing of one that no layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Model {
    /// None: nobody said what it costs.
    pub price: Option<Price>,
    /// Tokens that it can write at most.
    pub output_max: Option<u64>,
    /// Tokens that it can read at most.
    pub context: Option<u64>,
}

/// What becomes of a request to a model without a price where money is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unpriced {
    Refuse,
    /// It is let through at no cost, and counted.
    #[default]
    Allow,
    /// It is charged at this price.
    Ceiling(Price),
}

/// All models. The default holds the built-in ones.
#[derive(Clone, Debug)]
pub struct Catalogue {
    offers: HashMap<Box<str>, Vec<Offer>>,
}

/// A model as one vendor sells it.
#[derive(Clone, Debug)]
struct Offer {
    vendor: Box<str>,
    model: Model,
}

/// One entry of a layer.
struct Entry {
    vendor: Box<str>,
    name: Box<str>,
    model: Model,
}

impl Default for Catalogue {
    fn default() -> Catalogue {
        static BUILT: OnceLock<Catalogue> = OnceLock::new();
        let built_in = || {
            let mut catalogue = Catalogue { offers: HashMap::new() };
            // A test reads the file.
            let entries = own::parse(BUILT_IN).unwrap_or_default();
            entries.into_iter().for_each(|entry| catalogue.add(entry));
            catalogue
        };
        BUILT.get_or_init(built_in).clone()
    }
}

impl Catalogue {
    /// Adds an operator's file. Errors: every fault; then nothing is added.
    pub fn add_own(&mut self, text: &str) -> Result<(), Vec<Fault>> {
        let entries = own::parse(text)?;
        let names: Vec<Box<str>> = entries.iter().map(|entry| entry.name.clone()).collect();
        names.iter().for_each(|name| drop(self.offers.remove(name)));
        entries.into_iter().for_each(|entry| self.add(entry));
        Ok(())
    }

    /// Adds a file in the form of LiteLLM's `model_prices_and_context_window.json`; says how many of its
    /// entries were left out. Errors: it is no JSON object.
    pub fn add_litellm(&mut self, bytes: &[u8]) -> Result<Skipped, Defect> {
        let (entries, skipped) = litellm::parse(bytes)?;
        entries.into_iter().for_each(|entry| self.add(entry));
        Ok(skipped)
    }

    /// What is known of `name` as it is sent to a provider of `kind`.
    pub fn model(&self, kind: ProviderKind, name: &str) -> Model {
        self.find(kind, name).unwrap_or_default()
    }

    /// How many names it has.
    pub fn len(&self) -> usize {
        self.offers.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    fn find(&self, kind: ProviderKind, name: &str) -> Option<Model> {
        let parts = || std::iter::successors(Some(name), |name| after_slash(name)).take(NAME_PARTS_MAX + 1);
        let undated = || parts().filter_map(undated);
        let offers = parts().chain(undated()).find_map(|name| self.offers.get(name))?;
        let vendor = match kind {
            ProviderKind::OpenAi => "openai",
            ProviderKind::Anthropic => "anthropic",
            ProviderKind::Mock => "",
        };
        let own = offers.iter().find(|offer| &*offer.vendor == vendor);
        own.or_else(|| offers.iter().max_by_key(|offer| offer.dearness())).map(|offer| offer.model)
    }

    fn add(&mut self, entry: Entry) {
        let Entry { vendor, name, model } = entry;
        let offers = self.offers.entry(name).or_default();
        match offers.iter_mut().find(|offer| offer.vendor == vendor) {
            Some(offer) => offer.model = model,
            None => offers.push(Offer { vendor, model }),
        }
    }
}

impl Offer {
    /// For comparing what vendors ask for the same name: what a request with as much output as input costs.
    fn dearness(&self) -> u64 {
        self.model.price.map_or(0, |price| price.bound(1_000, 1_000))
    }
}

/// `name` without its first part.
fn after_slash(name: &str) -> Option<&str> {
    name.split_once('/').map(|(_, rest)| rest)
}

/// `name` without a date or `-latest` at its end; none where it has neither.
fn undated(name: &str) -> Option<&str> {
    let cut = name.strip_suffix("-latest").or_else(|| {
        let at = name.len().checked_sub(DATE_FORMS.iter().find(|form| ends_in(name, form))?.len())?;
        name.get(..at)
    });
    cut.filter(|rest| !rest.is_empty())
}

/// Dates at the end of a name; `0` stands for a digit.
const DATE_FORMS: [&str; 3] = ["-0000-00-00", "-00000000", "@00000000"];

fn ends_in(name: &str, form: &str) -> bool {
    let Some(end) = name.len().checked_sub(form.len()).and_then(|at| name.as_bytes().get(at..)) else {
        return false;
    };
    let fits = |(found, form): (&u8, u8)| if form == b'0' { found.is_ascii_digit() } else { *found == form };
    end.iter().zip(form.bytes()).all(fits)
}

#[cfg(test)]
mod tests;
