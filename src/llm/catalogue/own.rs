//! Our form of a model list: TOML, a table for each vendor, a line for each model.
//!
//! ```toml
//! [openai]
//! "gpt-4o" = { input = 2.5, output = 10, cache_read = 1.25, context = 128_000, output_max = 16_384 }
//! ```
//! Prices are dollars per million tokens, `per_request` dollars per request; both are read digit by digit,
//! not as floats. `tier` holds `above` and the prices of requests with more input tokens than that; what it
//! leaves out rises as they do. `input` and `output` are required: a model that costs nothing says so. `date`
//! and `source` stand before the tables. Errors: all faults, by the offset of what is at fault.

use crate::llm::catalogue::{Entry, Model};
use crate::llm::decimal::{NoAmount, scaled};
use crate::llm::price::{Parts, Price, Tier};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What an entry may have.
pub const KEYS: [&str; 14] = [
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_long",
    "reasoning",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
    "per_request",
    "tier",
    "context",
    "output_max",
];

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In bytes.
    pub offset: usize,
    /// `openai."gpt-4o".input`
    pub path: String,
    /// What was found and what is allowed.
    pub message: String,
    /// A key that no entry has; the nearest of `KEYS` may have been meant.
    pub unknown_key: Option<String>,
}

/// The most that a million tokens, or a request, may cost: a million dollars.
const USD_MAX: u64 = 1_000_000;

/// Tokens that a model can read or write at most.
const TOKENS_MAX: u64 = 1_000_000_000;

/// Dollars per million tokens are 10^6 pico-dollars a token.
const PER_MILLION: i32 = 6;

/// Dollars are 10^12 pico-dollars.
const PER_REQUEST: i32 = 12;

pub fn parse(text: &str) -> Result<Vec<Entry>, Vec<Fault>> {
    let mut reader = Reader { entries: Vec::new(), faults: Vec::new() };
    let (tree, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        reader.fault(offset, "", format!("this is not TOML: {}", error.message()));
    }
    if reader.faults.is_empty() {
        tree.get_ref().iter().for_each(|(key, value)| reader.vendor(key.get_ref(), value));
    }
    reader.faults.sort_by_key(|fault| fault.offset);
    if reader.faults.is_empty() { Ok(reader.entries) } else { Err(reader.faults) }
}

struct Reader {
    entries: Vec<Entry>,
    faults: Vec<Fault>,
}

type Table<'t> = Spanned<DeValue<'t>>;

impl Reader {
    fn vendor(&mut self, vendor: &str, value: &Table<'_>) {
        match value.get_ref() {
            DeValue::String(_) | DeValue::Datetime(_) if ["date", "source"].contains(&vendor) => {}
            DeValue::Table(models) => {
                for (name, model) in models {
                    self.model(vendor, name.get_ref(), model);
                }
            }
            _ => {
                let allowed = "allowed: a vendor with its models, [openai], and above them date and source";
                let path = vendor.escape_debug().to_string();
                self.fault(value.span().start, &path, format!("is no table, {allowed}"));
            }
        }
    }

    fn model(&mut self, vendor: &str, name: &str, value: &Table<'_>) {
        let path = format!("{}.{name:?}", vendor.escape_debug());
        let start = value.span().start;
        let DeValue::Table(table) = value.get_ref() else {
            let message = "is no table, allowed: { input = 2.50, output = 10, ... }";
            return self.fault(start, &path, message.to_string());
        };
        let before = self.faults.len();
        let (mut parts, mut above) = (Parts::default(), None);
        let (mut model, mut per_request) = (Model::default(), 0);
        for (key, value) in table {
            let (key, at) = (key.get_ref(), key.span().start);
            let path = format!("{path}.{}", key.escape_debug());
            match &**key {
                "context" => model.context = self.tokens(&path, value),
                "output_max" => model.output_max = self.tokens(&path, value),
                "per_request" => per_request = self.usd(&path, value, PER_REQUEST).unwrap_or(0),
                "tier" => above = self.tier(&path, value),
                _ => match part(&mut parts, key) {
                    Some(place) => *place = self.usd(&path, value, PER_MILLION),
                    None => self.unknown(at, path, key, &KEYS),
                },
            }
        }
        for key in ["input", "output"] {
            if !table.contains_key(key) {
                let message = "missing; allowed: dollars per million tokens, 0 where they are free";
                self.fault(start, &format!("{path}.{key}"), message.to_string());
            }
        }
        if self.faults.len() > before {
            return;
        }
        let tier = above.and_then(|(above, tier)| Some(Tier { above, rates: tier.above(&parts).rates()? }));
        model.price = Price::new(&parts).map(|price| Price { per_request, tier, ..price });
        self.entries.push(Entry { vendor: vendor.into(), name: name.into(), model });
    }

    fn tier(&mut self, path: &str, value: &Table<'_>) -> Option<(u64, Parts)> {
        let start = value.span().start;
        let DeValue::Table(table) = value.get_ref() else {
            let message = "is no table, allowed: { above = 200_000, input = 5, output = 20, ... }";
            self.fault(start, path, message.to_string());
            return None;
        };
        let (mut parts, mut above) = (Parts::default(), None);
        for (key, value) in table {
            let (key, at) = (key.get_ref(), key.span().start);
            let path = format!("{path}.{}", key.escape_debug());
            match (&**key, part(&mut parts, key)) {
                ("above", _) => above = self.tokens(&path, value),
                (_, Some(place)) => *place = self.usd(&path, value, PER_MILLION),
                _ => self.unknown(at, path, key, &KEYS[..10]),
            }
        }
        if above.is_none() {
            let message = "missing; allowed: the input tokens above which the tier begins";
            self.fault(start, &format!("{path}.above"), message.to_string());
        }
        Some((above?, parts))
    }

    /// Pico-dollars.
    fn usd(&mut self, path: &str, value: &Table<'_>, places: i32) -> Option<u64> {
        let text = match value.get_ref() {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => "",
        };
        let max = USD_MAX.saturating_mul(10_u64.saturating_pow(places.unsigned_abs()));
        match scaled(text, places) {
            Ok(found) if found.units <= max => return Some(found.units),
            Err(NoAmount::NoNumber) => self.fault(
                value.span().start,
                path,
                format!("is no number, allowed: dollars from 0 to {USD_MAX}"),
            ),
            _ => self.fault(
                value.span().start,
                path,
                format!("{} is not allowed, allowed: dollars from 0 to {USD_MAX}", cut(text)),
            ),
        }
        None
    }

    fn tokens(&mut self, path: &str, value: &Table<'_>) -> Option<u64> {
        let found = match value.get_ref() {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let tokens = found.and_then(|found| u64::try_from(found).ok());
        let tokens = tokens.filter(|tokens| (1..=TOKENS_MAX).contains(tokens));
        if tokens.is_none() {
            let shown = found.map_or("this".to_string(), |found| found.to_string());
            let message = format!("{shown} is not allowed, allowed: a whole number from 1 to {TOKENS_MAX}");
            self.fault(value.span().start, path, message);
        }
        tokens
    }

    fn unknown(&mut self, offset: usize, path: String, key: &str, known: &[&str]) {
        let message = format!("unknown key, allowed: {}", known.join(", "));
        self.faults.push(Fault { offset, path, message, unknown_key: Some(key.to_string()) });
    }

    fn fault(&mut self, offset: usize, path: &str, message: String) {
        self.faults.push(Fault { offset, path: path.to_string(), message, unknown_key: None });
    }
}

/// The price of that name.
fn part<'p>(parts: &'p mut Parts, key: &str) -> Option<&'p mut Option<u64>> {
    Some(match key {
        "input" => &mut parts.input,
        "output" => &mut parts.output,
        "cache_read" => &mut parts.cache_read,
        "cache_write" => &mut parts.cache_write,
        "cache_write_long" => &mut parts.cache_write_long,
        "reasoning" => &mut parts.reasoning,
        "audio_input" => &mut parts.audio_input,
        "audio_output" => &mut parts.audio_output,
        "image_input" => &mut parts.image_input,
        "image_output" => &mut parts.image_output,
        _ => return None,
    })
}

/// A number as it is shown.
fn cut(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}
