//! Prices: what an answer cost, and what a call can cost at most, in whole pico-dollars.
//!
//! A price is so many pico-dollars (10^-12 USD) a token: "$0.0375 per million tokens" is 37,500. Usage in,
//! one `u64` out; sums saturate, no float is touched. Parts that a price list leaves out cost what they are a
//! kind of (`Parts`). A request whose input is longer than a tier's `above` is priced by that tier as a
//! whole, as OpenAI, Anthropic and Google do (price pages, 2026-11). Counts that contradict each other:
//! no more tokens of a kind are charged than there were tokens. Absent: batch, flex and priority rates, tools and
//! searches that are priced by the call, storage of caches.

use crate::llm::dialect::{Caching, Usage};

/// Pico-dollars of a dollar.
pub const PICO_PER_USD: u64 = 1_000_000_000_000;

/// Pico-dollars of one unit of a bank cell that counts money: 100 nano-dollars.
pub const PICO_PER_UNIT: u64 = 100_000;

/// Units of a bank cell for `pico`, rounded up.
pub const fn units(pico: u64) -> u64 {
    pico.div_ceil(PICO_PER_UNIT)
}

/// `pico` as dollars, exact, without a sign for the currency: `12.5`, `0.0000375`.
pub fn usd(pico: impl Into<u128>) -> String {
    let pico = pico.into();
    let (whole, rest) = (pico / u128::from(PICO_PER_USD), pico % u128::from(PICO_PER_USD));
    let text = format!("{whole}.{rest:012}");
    let digits = text.trim_end_matches('0');
    digits.strip_suffix('.').unwrap_or(digits).to_string()
}

/// A price as a list gives it, in pico-dollars per token. `input` and `output` are needed; of the others,
/// what is not given costs what is named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Parts {
    pub input: Option<u64>,
    pub output: Option<u64>,
    /// As `input`.
    pub cache_read: Option<u64>,
    /// As `input`.
    pub cache_write: Option<u64>,
    /// Written to be kept longer (Anthropic: an hour). As `cache_write`.
    pub cache_write_long: Option<u64>,
    /// As `output`.
    pub reasoning: Option<u64>,
    /// As `input`.
    pub audio_input: Option<u64>,
    /// As `output`.
    pub audio_output: Option<u64>,
    /// As `input`.
    pub image_input: Option<u64>,
    /// As `output`.
    pub image_output: Option<u64>,
}

/// What a token of each kind costs, in pico-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub cache_write_long: u64,
    pub reasoning: u64,
    pub audio_input: u64,
    pub audio_output: u64,
    pub image_input: u64,
    pub image_output: u64,
}

/// Rates of requests with more input tokens than `above`, cached ones among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    pub above: u64,
    pub rates: Rates,
}

/// The price of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    pub rates: Rates,
    /// Added once for each request, in pico-dollars.
    pub per_request: u64,
    pub tier: Option<Tier>,
}

impl Parts {
    /// Every rate. None: `input` or `output` is not given.
    pub fn rates(&self) -> Option<Rates> {
        let (input, output) = (self.input?, self.output?);
        let cache_write = self.cache_write.unwrap_or(input);
        Some(Rates {
            input,
            output,
            cache_read: self.cache_read.unwrap_or(input),
            cache_write,
            cache_write_long: self.cache_write_long.unwrap_or(cache_write),
            reasoning: self.reasoning.unwrap_or(output),
            audio_input: self.audio_input.unwrap_or(input),
            audio_output: self.audio_output.unwrap_or(output),
            image_input: self.image_input.unwrap_or(input),
            image_output: self.image_output.unwrap_or(output),
        })
    }

    /// The prices of a tier that gives these, above `base`. What it leaves out rises as its `input` does, or
    /// its `output`: a cached token stays the same part of a plain one.
    pub fn above(&self, base: &Parts) -> Parts {
        let (input, output) = (self.input.or(base.input), self.output.or(base.output));
        let rise = |part: Option<u64>, base_part: Option<u64>, (to, from): (Option<u64>, Option<u64>)| {
            part.or_else(|| Some(scale(base_part?, to?, from?)))
        };
        let (into, out) = ((input, base.input), (output, base.output));
        Parts {
            input,
            output,
            cache_read: rise(self.cache_read, base.cache_read, into),
            cache_write: rise(self.cache_write, base.cache_write, into),
            cache_write_long: rise(self.cache_write_long, base.cache_write_long, into),
            reasoning: rise(self.reasoning, base.reasoning, out),
            audio_input: rise(self.audio_input, base.audio_input, into),
            audio_output: rise(self.audio_output, base.audio_output, out),
            image_input: rise(self.image_input, base.image_input, into),
            image_output: rise(self.image_output, base.image_output, out),
        }
    }
}

/// `part` times `to` / `from`, rounded up.
fn scale(part: u64, to: u64, from: u64) -> u64 {
    if from == 0 {
        return part;
    }
    let scaled = (u128::from(part) * u128::from(to)).div_ceil(u128::from(from));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

impl Price {
    /// A price without a tier. None: `input` or `output` is not given.
    pub fn new(parts: &Parts) -> Option<Price> {
        Some(Price { rates: parts.rates()?, per_request: 0, tier: None })
    }

    /// One rate for tokens of every kind.
    pub fn flat(pico_per_token: u64) -> Price {
        let parts = Parts { input: Some(pico_per_token), output: Some(pico_per_token), ..Parts::default() };
        Price { rates: parts.rates().expect("both are given"), per_request: 0, tier: None }
    }

    /// What an answer with `usage` cost, in pico-dollars. A count that is not known counts as none.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let input = Input::of(usage);
        let rates = match &self.tier {
            Some(tier) if input.total > tier.above => &tier.rates,
            _ => &self.rates,
        };
        let output = Output::of(usage);
        let charges = [
            (input.plain, rates.input),
            (input.audio, rates.audio_input),
            (input.image, rates.image_input),
            (input.read, rates.cache_read),
            (input.written, rates.cache_write),
            (input.written_long, rates.cache_write_long),
            (output.plain, rates.output),
            (output.audio, rates.audio_output),
            (output.image, rates.image_output),
            (output.reasoning, rates.reasoning),
        ];
        charges
            .iter()
            .fold(self.per_request, |sum, &(tokens, rate)| sum.saturating_add(tokens.saturating_mul(rate)))
    }

    /// The most that a call with at most so many tokens can cost, whatever kind they turn out to be of.
    pub fn bound(&self, input_tokens: u64, output_tokens: u64) -> u64 {
        let reached = self.tier.as_ref().filter(|tier| input_tokens > tier.above);
        let (mut input, mut output) = self.rates.dearest();
        if let Some((tier_input, tier_output)) = reached.map(|tier| tier.rates.dearest()) {
            (input, output) = (input.max(tier_input), output.max(tier_output));
        }
        let sum = input_tokens.saturating_mul(input).saturating_add(output_tokens.saturating_mul(output));
        sum.saturating_add(self.per_request)
    }
}

impl Rates {
    /// The dearest token that can come in, and the dearest that can come out.
    fn dearest(&self) -> (u64, u64) {
        let Rates { input, cache_read, cache_write, cache_write_long, audio_input, image_input, .. } = *self;
        let into = [input, cache_read, cache_write, cache_write_long, audio_input, image_input];
        let out = [self.output, self.reasoning, self.audio_output, self.image_output];
        (into.into_iter().fold(0, u64::max), out.into_iter().fold(0, u64::max))
    }
}

/// Prompt tokens by what they are charged as; no token is in two of them.
struct Input {
    total: u64,
    plain: u64,
    audio: u64,
    image: u64,
    read: u64,
    written: u64,
    written_long: u64,
}

impl Input {
    /// Which tokens of a sound or an image came from a cache is not told: as few as there can be.
    fn of(usage: &Usage) -> Input {
        let (read, written) = (usage.cache_read.unwrap_or(0), usage.cache_write.unwrap_or(0));
        let (mut plain, read, written) = match (usage.caching, usage.input_total()) {
            (Caching::Beside, _) => (usage.input.unwrap_or(0), read, written),
            (Caching::Inside, None) => (0, read, written),
            (Caching::Inside, Some(all)) => {
                let written = written.min(all);
                let read = read.min(all - written);
                (all - written - read, read, written)
            }
        };
        let total = plain.saturating_add(read).saturating_add(written);
        let audio = part_of(&mut plain, usage.apart.audio_input);
        let image = part_of(&mut plain, usage.apart.image_input);
        let written_long = written.min(u64::from(usage.apart.cache_write_long));
        Input { total, plain, audio, image, read, written: written - written_long, written_long }
    }
}

/// Tokens written by what they are charged as; no token is in two of them.
struct Output {
    plain: u64,
    audio: u64,
    image: u64,
    reasoning: u64,
}

impl Output {
    fn of(usage: &Usage) -> Output {
        let mut plain = usage.output_total().or(usage.reasoning).unwrap_or(0);
        let audio = part_of(&mut plain, usage.apart.audio_output);
        let image = part_of(&mut plain, usage.apart.image_output);
        let reasoning = plain.min(usage.reasoning.unwrap_or(0));
        Output { plain: plain - reasoning, audio, image, reasoning }
    }
}

/// Takes `part` out of `whole`, or what there is of it.
fn part_of(whole: &mut u64, part: u32) -> u64 {
    let part = u64::from(part).min(*whole);
    *whole -= part;
    part
}

#[cfg(test)]
mod tests {
    use super::{Caching, PICO_PER_USD, Parts, Price, Tier, units, usd};
    use crate::llm::dialect::{Apart, TOKENS_MAX, Usage};
    use proptest::prelude::*;

    /// Dollars per million tokens are micro-dollars a token: times 10^6 they are pico-dollars.
    fn price(input: u64, output: u64, cache_read: Option<u64>, cache_write: Option<u64>) -> Price {
        let parts =
            Parts { input: Some(input), output: Some(output), cache_read, cache_write, ..Parts::default() };
        Price::new(&parts).unwrap()
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input: Some(input), output: Some(output), ..Usage::default() }
    }

    fn anthropic(input: u64, cache_read: u64, cache_write: u64, output: u64) -> Usage {
        let (cache_read, cache_write) = (Some(cache_read), Some(cache_write));
        Usage { cache_read, cache_write, caching: Caching::Beside, ..usage(input, output) }
    }

    #[test]
    fn an_answer_costs_what_the_vendors_page_says() {
        // gpt-4o-mini: $0.15, cached $0.075, out $0.60 per million (OpenAI).
        let gpt_4o_mini = price(150_000, 600_000, Some(75_000), None);
        // claude-sonnet-4-5: $3, read $0.30, write $3.75, out $15; above 200k: $6, $0.60, $7.50, $22.50.
        let mut sonnet = price(3_000_000, 15_000_000, Some(300_000), Some(3_750_000));
        let long = price(6_000_000, 22_500_000, Some(600_000), Some(7_500_000));
        sonnet.tier = Some(Tier { above: 200_000, rates: long.rates });
        // A model with reasoning tokens of their own price, as perplexity/sonar-deep-research: $2, $8, $3.
        let mut sonar = price(2_000_000, 8_000_000, None, None);
        sonar.rates.reasoning = 3_000_000;
        let rows: [(&str, &Price, Usage, u64); 11] = [
            ("nothing known", &gpt_4o_mini, Usage::default(), 0),
            // 1000 * 0.15 + 500 * 0.60 = 450 micro-dollars
            ("plain", &gpt_4o_mini, usage(1_000, 500), 450_000_000),
            // 200 * 0.15 + 800 * 0.075 = 90
            ("cached inside", &gpt_4o_mini, Usage { cache_read: Some(800), ..usage(1_000, 0) }, 90_000_000),
            (
                "more cached than read",
                &gpt_4o_mini,
                Usage { cache_read: Some(9_999), ..usage(1_000, 0) },
                75_000_000,
            ),
            (
                "written, at the input's price",
                &gpt_4o_mini,
                Usage { cache_write: Some(400), ..usage(1_000, 0) },
                150_000_000,
            ),
            // 10 * 3 + 1000 * 0.3 + 2000 * 3.75 + 100 * 15 = 30 + 300 + 7500 + 1500
            ("cached beside", &sonnet, anthropic(10, 1_000, 2_000, 100), 9_330_000_000),
            // 200000 * 3 = 600000
            ("at the tier", &sonnet, usage(200_000, 0), 600_000_000_000),
            // 200001 * 6 = 1200006
            ("above the tier", &sonnet, usage(200_001, 0), 1_200_006_000_000),
            // 1 * 6 + 200000 * 0.6 + 1 * 22.5 = 120028.5
            ("above the tier with cached ones", &sonnet, anthropic(1, 200_000, 0, 1), 120_028_500_000),
            // 100 * 2 + 60 * 8 + 40 * 3 = 800
            ("reasoning", &sonar, Usage { reasoning: Some(40), ..usage(100, 100) }, 800_000_000),
            ("reasoning alone", &sonar, Usage { reasoning: Some(40), ..Usage::default() }, 120_000_000),
        ];
        for (name, price, usage, pico) in rows {
            assert_eq!(price.cost(&usage), pico, "{name}");
        }
    }

    #[test]
    fn tokens_of_other_kinds_have_prices_of_their_own() {
        // gpt-audio: $2.50, $10, audio $32 and $64 (OpenAI).
        let mut gpt_audio = price(2_500_000, 10_000_000, None, None);
        (gpt_audio.rates.audio_input, gpt_audio.rates.audio_output) = (32_000_000, 64_000_000);
        // A model that draws: $5, images $8 in and $30 out.
        let mut image = price(5_000_000, 0, None, None);
        (image.rates.image_input, image.rates.image_output) = (8_000_000, 30_000_000);
        // claude-sonnet-4-5 with its price for an hour in the cache: $6.
        let plain = price(3_000_000, 15_000_000, Some(300_000), Some(3_750_000));
        let mut hourly = plain;
        hourly.rates.cache_write_long = 6_000_000;
        let apart = |usage: Usage, audio_input, audio_output, cache_write_long| {
            let apart = Apart { audio_input, audio_output, cache_write_long, ..Apart::NONE };
            Usage { apart, ..usage }
        };
        let images = |usage: Usage, image_input, image_output| {
            let apart = Apart { image_input, image_output, ..Apart::NONE };
            Usage { apart, ..usage }
        };
        let rows: [(&str, &Price, Usage, u64); 8] = [
            // 300 * 2.5 + 700 * 32 + 50 * 10 + 250 * 64 = 750 + 22400 + 500 + 16000
            ("sound", &gpt_audio, apart(usage(1_000, 300), 700, 250, 0), 39_650_000_000),
            // 200 of the 1000 are cached: 0 * 2.5 + 800 * 32 + 200 * 2.5
            (
                "sound, some of it cached",
                &gpt_audio,
                apart(Usage { cache_read: Some(200), ..usage(1_000, 0) }, 1_000, 0, 0),
                26_100_000_000,
            ),
            // 1000 * 32 + 300 * 64
            ("more sound than tokens", &gpt_audio, apart(usage(1_000, 300), 9_999, 9_999, 0), 51_200_000_000),
            // Beside the 9, as its vendor counts: 9 * 2.5 + 375 * 32 + 201 * 10
            (
                "sound beside",
                &gpt_audio,
                apart(Usage { total_reported: Some(585), ..usage(9, 201) }, 375, 0, 0),
                14_032_500_000,
            ),
            // 744 * 5 + 256 * 8 + 1290 * 30
            ("images", &image, images(usage(1_000, 1_290), 256, 1_290), 44_468_000_000),
            // 2000 written, 1500 of them for an hour: 500 * 3.75 + 1500 * 6 = 1875 + 9000
            ("written for an hour", &hourly, apart(anthropic(0, 0, 2_000, 0), 0, 0, 1_500), 10_875_000_000),
            ("all for an hour", &hourly, apart(anthropic(0, 0, 2_000, 0), 0, 0, 9_999), 12_000_000_000),
            ("no price for an hour", &plain, apart(anthropic(0, 0, 2_000, 0), 0, 0, 1_500), 7_500_000_000),
        ];
        for (name, price, usage, pico) in rows {
            assert_eq!(price.cost(&usage), pico, "{name}");
        }
    }

    #[test]
    fn a_cost_saturates() {
        let dear = price(u64::MAX, u64::MAX, None, None);
        assert_eq!(dear.cost(&usage(2, 2)), u64::MAX);
        assert_eq!(dear.bound(2, 2), u64::MAX);
    }

    #[test]
    fn a_price_needs_input_and_output_and_a_request_may_cost_too() {
        assert_eq!(Price::new(&Parts { input: Some(1), ..Parts::default() }), None);
        assert_eq!(Price::new(&Parts { output: Some(1), ..Parts::default() }), None);
        let price = Price { per_request: 5_000, ..Price::flat(7) };
        assert_eq!((price.cost(&usage(10, 10)), price.bound(10, 10)), (5_140, 5_140));
    }

    #[test]
    fn what_a_tier_leaves_out_rises_with_what_it_gives() {
        let base = Parts {
            input: Some(100),
            output: Some(1_000),
            cache_read: Some(11),
            reasoning: Some(500),
            image_input: Some(7),
            ..Parts::default()
        };
        let tier = Parts { input: Some(250), image_input: Some(8), ..Parts::default() }.above(&base);
        assert_eq!((tier.input, tier.output, tier.reasoning), (Some(250), Some(1_000), Some(500)));
        assert_eq!((tier.cache_read, tier.image_input, tier.cache_write), (Some(28), Some(8), None));
        let free = Parts { input: Some(0), ..base };
        assert_eq!(Parts { input: Some(5), ..Parts::default() }.above(&free).cache_read, Some(11));
    }

    #[test]
    fn dollars_are_shown_to_the_last_digit() {
        let rows = [
            (0, "0"),
            (1, "0.000000000001"),
            (37_500, "0.0000000375"),
            (PICO_PER_USD, "1"),
            (12 * PICO_PER_USD + PICO_PER_USD / 2, "12.5"),
            (100 * PICO_PER_USD, "100"),
            (u64::MAX, "18446744.073709551615"),
        ];
        for (pico, text) in rows {
            assert_eq!(usd(pico), text);
        }
        assert_eq!(usd(u128::MAX), "340282366920938463463374607.431768211455");
    }

    #[test]
    fn units_are_rounded_up() {
        assert_eq!([0, 1, 100_000, 100_001, u64::MAX].map(units), [0, 1, 1, 2, 184_467_440_737_096]);
    }

    fn rate() -> impl Strategy<Value = Option<u64>> {
        prop_oneof![Just(None), (0..200_000_000_u64).prop_map(Some), Just(Some(u64::MAX))]
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let rates = prop::array::uniform10(rate());
        rates.prop_map(|[input, output, cache_read, cache_write, cache_write_long, reasoning, a, b, c, d]| {
            let (input, output) = (input.or(Some(1)), output.or(Some(2)));
            let (audio_input, audio_output, image_input, image_output) = (a, b, c, d);
            Parts {
                input,
                output,
                cache_read,
                cache_write,
                cache_write_long,
                reasoning,
                audio_input,
                audio_output,
                image_input,
                image_output,
            }
        })
    }

    fn counts() -> impl Strategy<Value = Usage> {
        let count =
            || prop_oneof![Just(None), (0..1_000_u64).prop_map(Some), (0..=TOKENS_MAX).prop_map(Some)];
        let part = || prop_oneof![Just(0), 0..1_000_u32, 0..=TOKENS_MAX as u32];
        let apart = prop::array::uniform5(part()).prop_map(|[a, b, c, d, cache_write_long]| {
            let (audio_input, audio_output, image_input, image_output) = (a, b, c, d);
            Apart { audio_input, audio_output, image_input, image_output, cache_write_long }
        });
        (prop::array::uniform6(count()), apart, any::<bool>()).prop_map(
            |([input, output, cache_read, cache_write, reasoning, total_reported], apart, beside)| Usage {
                apart,
                input,
                output,
                cache_read,
                cache_write,
                reasoning,
                total_reported,
                caching: if beside { Caching::Beside } else { Caching::Inside },
                ..Usage::default()
            },
        )
    }

    proptest! {
        #[test]
        fn no_usage_within_a_bound_costs_more(
            (base, above) in (parts(), parts()),
            tier in prop::option::of(0..2_000_u64),
            per_request in 0..1_000_u64,
            usage in counts(),
            (more_input, more_output) in (0..100_u64, 0..100_u64),
        ) {
            let tier = tier.map(|at| Tier { above: at, rates: above.above(&base).rates().unwrap() });
            let price = Price { per_request, tier, ..Price::new(&base).unwrap() };
            // What is within: the totals, or what parts say where there is none.
            let parts = usage.cache_read.unwrap_or(0) + usage.cache_write.unwrap_or(0);
            let input = usage.input_total().unwrap_or(parts);
            let output = usage.output_total().or(usage.reasoning).unwrap_or(0);
            let bound = price.bound(input + more_input, output + more_output);
            prop_assert!(price.cost(&usage) <= bound, "{} > {bound}", price.cost(&usage));
        }
    }
}
