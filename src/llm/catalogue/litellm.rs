//! Model lists in the form of LiteLLM's `model_prices_and_context_window.json`.
//!
//! One JSON object: a member for each model, prices in dollars per token, read digit by digit. The list is
//! kept by many hands, so an entry that cannot be understood is left out and counted, never refused. A name
//! that starts with its vendor (`groq/llama-3.3-70b`) is known with and without it. Token prices that are all
//! 0 are taken for no price: the list has many such that are priced by the image or song, or were previews;
//! who means a model to be free says so in a file of their own. Read: the prices that `Parts` has, one tier
//! (`..._above_200k_tokens`), `input_cost_per_request`, `max_input_tokens`, `max_output_tokens`. Everything
//! else is passed over. Source: LiteLLM 1.109.1.

use crate::codec::json::{self, Defect, Kind, Value};
use crate::llm::catalogue::{Entry, Model};
use crate::llm::decimal::scaled;
use crate::llm::price::{PICO_PER_USD, Parts, Price, Tier};

/// Entries that were left out, or are known without a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Taken for its context window and cap alone: no token prices, or all of them 0.
    pub unpriced: u32,
    /// Left out: a price that is no number, is negative or above a dollar a token; several tiers; no object.
    pub odd: u32,
}

/// An entry that describes the form.
const SAMPLE: &str = "sample_spec";

/// Dollars are 10^12 pico-dollars.
const USD_PLACES: i32 = 12;

pub fn parse(bytes: &[u8]) -> Result<(Vec<Entry>, Skipped), Defect> {
    json::check(bytes)?;
    let (mut entries, mut skipped) = (Vec::new(), Skipped::default());
    for member in json::root(bytes)?.members() {
        let member = member?;
        let name = String::from_utf8_lossy(&json::unescaped(member.key.raw)).into_owned();
        if name == SAMPLE {
            continue;
        }
        let Some((vendor, model)) = entry(member.value) else {
            skipped.odd += 1;
            continue;
        };
        skipped.unpriced += u32::from(model.price.is_none());
        let short = name.split_once('/').filter(|(first, _)| is_vendor(first, &vendor)).map(|(_, rest)| rest);
        for name in [short, Some(&*name)].into_iter().flatten() {
            entries.push(Entry { vendor: vendor.as_str().into(), name: name.into(), model });
        }
    }
    Ok((entries, skipped))
}

/// Whether the first part of a name is its vendor: `vertex_ai/...` of `vertex_ai-anthropic_models`.
fn is_vendor(first: &str, vendor: &str) -> bool {
    vendor.strip_prefix(first).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// What is read of an entry.
#[derive(Default)]
struct Found {
    base: Parts,
    tier: Parts,
    above: Option<u64>,
    per_request: Option<u64>,
    output_max: Option<u64>,
    tokens_max: Option<u64>,
    context: Option<u64>,
    is_embedding: bool,
    vendor: String,
}

/// None: it cannot be understood.
fn entry(value: Value<'_>) -> Option<(String, Model)> {
    if value.kind != Kind::Object {
        return None;
    }
    let mut found = Found::default();
    for member in value.members() {
        let member = member.ok()?;
        let Ok(name) = std::str::from_utf8(member.key.raw) else { continue };
        found.member(name, member.value)?;
    }
    let Found { mut base, tier, above, per_request, output_max, tokens_max, context, is_embedding, vendor } =
        found;
    if is_embedding {
        base.output = base.output.or(Some(0));
    }
    let priced = |price: &Price| price.bound(1, 1) > 0;
    let tier = above.and_then(|above| Some(Tier { above, rates: tier.above(&base).rates()? }));
    let price = Price::new(&base).map(|price| Price { per_request: per_request.unwrap_or(0), tier, ..price });
    Some((vendor, Model { price: price.filter(priced), output_max: output_max.or(tokens_max), context }))
}

impl Found {
    /// None: the entry cannot be understood.
    fn member(&mut self, name: &str, value: Value<'_>) -> Option<()> {
        match name {
            "litellm_provider" => self.vendor = text(value),
            "mode" => self.is_embedding = text(value) == "embedding",
            "max_input_tokens" => self.context = tokens(value),
            "max_output_tokens" => self.output_max = tokens(value),
            "max_tokens" => self.tokens_max = tokens(value),
            _ => {
                let (base, above) = tier_of(name);
                let parts = if above.is_some() { &mut self.tier } else { &mut self.base };
                let place = match base {
                    "input_cost_per_request" if above.is_none() => &mut self.per_request,
                    _ => match part(parts, base) {
                        Some(place) => place,
                        None => return Some(()),
                    },
                };
                if value.is_null() {
                    return Some(());
                }
                *place = Some(pico(value)?);
                if above.is_some() && self.above.is_some() && above != self.above {
                    return None;
                }
                self.above = above.or(self.above);
            }
        }
        Some(())
    }
}

/// `name` without its tier, and the tier: `..._above_200k_tokens`.
fn tier_of(name: &str) -> (&str, Option<u64>) {
    let tier = name.rsplit_once("_above_").and_then(|(base, tier)| {
        let thousands: u64 = tier.strip_suffix("k_tokens")?.parse().ok()?;
        Some((base, thousands.checked_mul(1_000)?))
    });
    tier.map_or((name, None), |(base, above)| (base, Some(above)))
}

fn part<'p>(parts: &'p mut Parts, name: &str) -> Option<&'p mut Option<u64>> {
    Some(match name {
        "input_cost_per_token" => &mut parts.input,
        "output_cost_per_token" => &mut parts.output,
        "cache_read_input_token_cost" => &mut parts.cache_read,
        "cache_creation_input_token_cost" => &mut parts.cache_write,
        "cache_creation_input_token_cost_above_1hr" | "cache_creation_input_token_cost_above_12hr" => {
            &mut parts.cache_write_long
        }
        "output_cost_per_reasoning_token" => &mut parts.reasoning,
        "input_cost_per_audio_token" => &mut parts.audio_input,
        "output_cost_per_audio_token" => &mut parts.audio_output,
        "input_cost_per_image_token" => &mut parts.image_input,
        "output_cost_per_image_token" => &mut parts.image_output,
        _ => return None,
    })
}

/// Pico-dollars of a number of dollars; none above one dollar.
fn pico(value: Value<'_>) -> Option<u64> {
    let text = std::str::from_utf8(value.raw).ok().filter(|_| value.kind == Kind::Number)?;
    let found = scaled(text, USD_PLACES).ok()?;
    Some(found.units).filter(|pico| *pico <= PICO_PER_USD)
}

fn tokens(value: Value<'_>) -> Option<u64> {
    value.as_u64().filter(|tokens| (1..=1_000_000_000).contains(tokens))
}

fn text(value: Value<'_>) -> String {
    value.str_raw().map(|raw| String::from_utf8_lossy(&json::unescaped(raw)).into_owned()).unwrap_or_default()
}
