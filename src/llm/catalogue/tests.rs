//! Names and their prices: ours, LiteLLM's, what is wrong with either, and that no bytes make it panic.

use super::own::Fault;
use super::{Catalogue, Model, Skipped, own, undated};
use crate::llm::dialect::Usage;
use crate::llm::price::Price;
use crate::llm::provider::ProviderKind::{Anthropic, Mock, OpenAi};
use proptest::prelude::*;
use std::path::Path;

fn empty() -> Catalogue {
    Catalogue { offers: Default::default() }
}

fn input(model: Model) -> Option<u64> {
    model.price.map(|price| price.rates.input)
}

#[test]
fn the_built_in_list_is_read_and_priced() {
    let entries = own::parse(super::BUILT_IN).unwrap();
    assert!(entries.len() >= 80, "{} models", entries.len());
    let catalogue = Catalogue::default();
    assert_eq!(catalogue.len(), entries.len(), "a name stands twice");
    for entry in &entries {
        let Price { rates, tier, .. } = entry.model.price.unwrap();
        let name = &entry.name;
        assert!(rates.input > 0 && rates.cache_read <= rates.input, "{name}");
        assert!(rates.cache_write_long >= rates.cache_write && rates.cache_write >= rates.input, "{name}");
        assert!(entry.model.context.is_some(), "{name}");
        assert!(tier.is_none_or(|tier| tier.rates.input > rates.input && tier.above >= 100_000), "{name}");
        assert!(rates.output == 0 || entry.model.output_max.is_some(), "{name}");
    }
    let sonnet = catalogue.model(Anthropic, "claude-sonnet-4-5");
    let usage = Usage { input: Some(1_000), output: Some(100), ..Usage::default() };
    // 1000 * 3 + 100 * 15 micro-dollars
    assert_eq!(sonnet.price.unwrap().cost(&usage), 4_500_000_000);
    assert_eq!((sonnet.context, sonnet.output_max), (Some(200_000), Some(64_000)));
}

#[test]
fn a_name_is_found_without_its_vendor_and_without_its_date() {
    let catalogue = Catalogue::default();
    // name as sent, dollars per million input tokens times 1000
    let rows = [
        ("gpt-4o", Some(2_500)),
        ("gpt-4o-2024-08-06", Some(2_500)),
        ("gpt-4o-2024-05-13", Some(5_000)),
        ("gpt-4o-latest", Some(2_500)),
        ("openai/gpt-4o", Some(2_500)),
        ("openrouter/openai/gpt-4o-2024-05-13", Some(5_000)),
        ("models/gemini-2.5-pro", Some(1_250)),
        ("claude-opus-4-5-20251101", Some(5_000)),
        ("claude-opus-4-5@20251101", Some(5_000)),
        ("a/b/c/d/gpt-4o", Some(2_500)),
        ("a/b/c/d/e/gpt-4o", None),
        ("gpt-4o-2024-08", None),
        ("gpt-4o-2024-08-0x", None),
        ("gpt-4o:free", None),
        ("GPT-4o", None),
        ("ft:gpt-4o:acme", None),
        ("us.anthropic.claude-opus-4-5", None),
        ("-latest", None),
        ("-2024-08-06", None),
        ("/", None),
        ("", None),
    ];
    for (name, expected) in rows {
        let found = input(catalogue.model(OpenAi, name));
        assert_eq!(found, expected.map(|thousandths: u64| thousandths * 1_000), "{name}");
    }
    assert_eq!(undated("\u{e4}-20240806"), Some("\u{e4}"));
    assert_eq!(undated("\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}"), None);
}

#[test]
fn of_several_vendors_the_one_of_the_kind_counts_and_else_the_dearest() {
    let mut catalogue = empty();
    let list = "[openai]\nm = { input = 1, output = 1 }\n[anthropic]\nm = { input = 2, output = 1 }\n\
        [other]\nm = { input = 3, output = 1 }\nn = { input = 4, output = 1 }\n[more]\nn = { input = 5, output = 1 }";
    catalogue.add_own(list).unwrap();
    let found = |kind, name| input(catalogue.model(kind, name)).map(|input| input / 1_000_000);
    assert_eq!([OpenAi, Anthropic, Mock].map(|kind| found(kind, "m")), [Some(1), Some(2), Some(3)]);
    assert_eq!([OpenAi, Anthropic, Mock].map(|kind| found(kind, "n")), [Some(5); 3]);
}

#[test]
fn a_later_list_replaces_entries_of_the_same_name() {
    let mut catalogue = Catalogue::default();
    let count = catalogue.len();
    let list = br#"{
        "gpt-4o": {"litellm_provider": "openai", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
        "azure/gpt-4o": {"litellm_provider": "azure", "input_cost_per_token": 9e-6, "output_cost_per_token": 9e-6}
    }"#;
    assert_eq!(catalogue.add_litellm(list), Ok(Skipped::default()));
    assert_eq!(input(catalogue.model(OpenAi, "gpt-4o")), Some(1_000_000));
    assert_eq!(input(catalogue.model(OpenAi, "azure/gpt-4o")), Some(9_000_000));
    catalogue.add_own("[ours]\n\"gpt-4o\" = { input = 0.5, output = 0 }").unwrap();
    assert_eq!(input(catalogue.model(OpenAi, "gpt-4o")), Some(500_000));
    assert_eq!(catalogue.len(), count + 1);
}

#[test]
fn our_form_has_every_part_of_a_price() {
    let mut catalogue = empty();
    let list = "date = 2026-11-21\nsource = \"a page\"\n[v]\nm = { input = 1, output = 2, cache_read = 0.000_001, \
        cache_write = 4, cache_write_long = 5, reasoning = 6, audio_input = 7, audio_output = 8, image_input = 9, \
        image_output = 1e1, per_request = 0.005, context = 100, output_max = 1_000_000_000, \
        tier = { above = 50, input = 20, cache_read = 3 } }";
    catalogue.add_own(list).unwrap();
    let model = catalogue.model(Mock, "m");
    let Price { rates, per_request, tier } = model.price.unwrap();
    let all = [
        rates.input,
        rates.output,
        rates.cache_read,
        rates.cache_write,
        rates.cache_write_long,
        rates.reasoning,
        rates.audio_input,
        rates.audio_output,
        rates.image_input,
        rates.image_output,
    ];
    let million = |number: u64| number * 1_000_000;
    assert_eq!(
        all,
        [
            million(1),
            million(2),
            1,
            million(4),
            million(5),
            million(6),
            million(7),
            million(8),
            million(9),
            million(10)
        ]
    );
    assert_eq!(
        (per_request, model.context, model.output_max),
        (5_000_000_000, Some(100), Some(1_000_000_000))
    );
    let tier = tier.unwrap();
    let part = [tier.rates.input, tier.rates.output, tier.rates.cache_read, tier.rates.cache_write];
    assert_eq!((tier.above, part), (50, [million(20), million(2), million(3), million(80)]));
}

#[test]
fn what_is_wrong_with_a_list_of_ours_is_told_with_its_place() {
    let told = |list: &str| -> Vec<String> {
        let Err(faults) = own::parse(list) else { return vec!["fine".to_string()] };
        let place = |Fault { offset, path, message, .. }| format!("{offset} {path}: {message}");
        faults.into_iter().map(place).collect()
    };
    // list, what is told first (its beginning), how many
    let rows = [
        ("[v]\nm = { input = 1, output = 1 }", "fine", 1),
        ("", "fine", 1),
        ("[v", "", 1),
        ("prices = 1", "9 prices: is no table", 1),
        ("[v]\nm = 1", "8 v.\"m\": is no table", 1),
        ("[v]\nm = { input = 1 }", "8 v.\"m\".output: missing", 1),
        ("[v]\nm = {}", "8 v.\"m\".input: missing", 2),
        ("[v]\nm = { inptu = 1, output = 1 }", "8 v.\"m\".input: missing", 2),
        ("[v]\nm = { input = -1, output = 1 }", "18 v.\"m\".input: -1 is not allowed", 1),
        ("[v]\nm = { input = 1_000_000.1, output = 1 }", "18 v.\"m\".input: 1000000.1 is not allowed", 1),
        ("[v]\nm = { input = \"1\", output = nan }", "18 v.\"m\".input: is no number", 2),
        ("[v]\nm = { input = 0x1, output = inf }", "18 v.\"m\".input: is no number", 2),
        ("[v]\nm = { input = 1, output = 1, context = 0 }", "43 v.\"m\".context: 0 is not allowed", 1),
        ("[v]\nm = { input = 1, output = 1, context = 1.5 }", "43 v.\"m\".context: this is not allowed", 1),
        ("[v]\nm = { input = 1, output = 1, tier = 5 }", "40 v.\"m\".tier: is no table", 1),
        ("[v]\nm = { input = 1, output = 1, tier = { input = 1 } }", "40 v.\"m\".tier.above: missing", 1),
        (
            "[v]\nm = { input = 1, output = 1, tier = { above = 1, context = 1 } }",
            "53 v.\"m\".tier.context: unknown",
            1,
        ),
    ];
    for (list, first, count) in rows {
        let told = told(list);
        assert!(told[0].starts_with(first) && told.len() == count, "{list}\n{told:?}");
    }
}

#[test]
fn an_entry_of_litellm_that_cannot_be_understood_is_left_out_and_counted() {
    let entry = |fields: &str| format!("{{\"x/m\": {{\"litellm_provider\": \"x\", {fields}}}}}");
    let both = "\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 2e-6";
    // fields, input price, skipped (unpriced, odd)
    let rows = [
        (both.to_string(), Some(1_000_000), (0, 0)),
        (format!("{both}, \"mode\": null, \"x\": [{{}}]"), Some(1_000_000), (0, 0)),
        ("\"input_cost_per_token\": 1e-6".to_string(), None, (1, 0)),
        ("\"input_cost_per_token\": 1e-6, \"mode\": \"embedding\"".to_string(), Some(1_000_000), (0, 0)),
        ("\"input_cost_per_token\": 0, \"output_cost_per_token\": 0.0".to_string(), None, (1, 0)),
        ("\"max_input_tokens\": 5".to_string(), None, (1, 0)),
        (format!("{both}, \"cache_read_input_token_cost\": \"1e-7\""), None, (0, 1)),
        (format!("{both}, \"cache_read_input_token_cost\": -1"), None, (0, 1)),
        (format!("{both}, \"cache_read_input_token_cost\": 1.1"), None, (0, 1)),
        (format!("{both}, \"cache_read_input_token_cost\": null"), Some(1_000_000), (0, 0)),
        (
            format!(
                "{both}, \"input_cost_per_token_above_1k_tokens\": 1, \"input_cost_per_token_above_2k_tokens\": 1"
            ),
            None,
            (0, 1),
        ),
    ];
    for (fields, price, (unpriced, odd)) in rows {
        let mut catalogue = empty();
        let skipped = catalogue.add_litellm(entry(&fields).as_bytes()).unwrap();
        assert_eq!(skipped, Skipped { unpriced, odd }, "{fields}");
        assert_eq!(["m", "x/m"].map(|name| input(catalogue.model(Mock, name))), [price; 2], "{fields}");
    }
    assert_eq!(empty().add_litellm(b"{\"m\": 5, \"sample_spec\": 5}"), Ok(Skipped { unpriced: 0, odd: 1 }));
    for wrong in [&b""[..], b"[]", b"{\"m\": {}", b"{\"m\": {}}}", b"\xff"] {
        assert!(empty().add_litellm(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_list_of_litellm_agrees_with_the_built_in_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.join("../shared/wire/specs/model_prices.litellm-1.109.1.trimmed.json");
    let Ok(bytes) = std::fs::read(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    let mut theirs = empty();
    let skipped = theirs.add_litellm(&bytes).unwrap();
    assert_eq!(skipped.odd, 0);
    assert!(theirs.len() > 2_000, "{} names", theirs.len());
    let built_in = own::parse(super::BUILT_IN).unwrap();
    for entry in &built_in {
        let kind = if &*entry.vendor == "anthropic" { Anthropic } else { OpenAi };
        let offers = &theirs.offers[&entry.name];
        assert!(offers.iter().any(|offer| offer.model == entry.model), "{}: {:?}", entry.name, entry.model);
        assert!(theirs.model(kind, &entry.name).price.is_some(), "{}", entry.name);
    }
    // $3 and $15, read $0.30, written $3.75 and, for an hour, $6.
    let sonnet = theirs.model(Anthropic, "claude-sonnet-4-5").price.unwrap().rates;
    assert_eq!((sonnet.input, sonnet.output, sonnet.cache_read), (3_000_000, 15_000_000, 300_000));
    assert_eq!((sonnet.cache_write, sonnet.cache_write_long), (3_750_000, 6_000_000));
}

proptest! {
    #[test]
    fn no_bytes_make_a_list_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0..400_usize,
        flip in any::<u8>(),
    ) {
        let mut list = br#"{"x/m": {"litellm_provider": "x", "input_cost_per_token": 1e-06,
            "output_cost_per_token_above_200k_tokens": 2.5e-6, "max_tokens": 5}}"#.to_vec();
        let at = cut % list.len();
        list[at] = flip;
        let _ = empty().add_litellm(&list);
        list.truncate(at);
        let _ = empty().add_litellm(&list);
        let _ = empty().add_litellm(&bytes);
        let text = "[v]\nm = { input = 1.5, output = 1e3, tier = { above = 50, input = 2 }, context = 0x10 }";
        let mut ours = text.as_bytes().to_vec();
        let at = cut % ours.len();
        ours[at] = flip;
        let _ = empty().add_own(&String::from_utf8_lossy(&ours));
        let _ = empty().add_own(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_name_makes_a_lookup_panic(name in "\\PC{0,40}") {
        let catalogue = Catalogue::default();
        prop_assert_eq!(catalogue.model(OpenAi, &name).price.is_some(), false);
    }
}
