//! How many tokens a text has, from its bytes: an upper estimate that follows what providers say.
//!
//! For each model a worker keeps the bytes of a request's body for one input token, and the bytes of text for one
//! output token, as low as they have been lately: a request with fewer bytes to a token lowers them at once,
//! one with more raises them by a 64th of the difference. Before anything is known they are `START`. No tokenizer
//! runs. Limits: `MODELS` models are kept, in a table in which one that comes may take another's place; ratios
//! stay between 1 and 16 bytes. Not estimated: images and audio that are named by a URL.

use std::cell::Cell;

/// Bytes for one token before anything is known, in 256ths: 3, where English text has about 4 and JSON 3.
const START: u32 = 3 << 8;
const RATIO_MIN: u32 = 1 << 8;
const RATIO_MAX: u32 = 16 << 8;

/// Places of the table, a power of two.
const MODELS: usize = 256;

/// A text is not looked at below this: a few words say nothing of a ratio.
const TOKENS_MIN: u64 = 32;

/// The ratios of one worker.
#[derive(Debug)]
pub struct Estimator {
    models: Box<[Cell<Ratios>]>,
}

#[derive(Clone, Copy, Debug)]
struct Ratios {
    model: u64,
    /// Bytes for one token, in 256ths.
    input: u32,
    output: u32,
}

const UNKNOWN: Ratios = Ratios { model: 0, input: START, output: START };

impl Default for Estimator {
    fn default() -> Estimator {
        Estimator { models: (0..MODELS).map(|_| Cell::new(UNKNOWN)).collect() }
    }
}

/// A model of a provider, for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelId(u64);

impl ModelId {
    /// The id of `model` at the provider of this place.
    pub fn new(provider: u32, model: &str) -> ModelId {
        // FNV-1a: models are named by the config or by callers who may use them, and a collision only mixes
        // two ratios.
        let bytes = provider.to_le_bytes();
        let hash = bytes.iter().chain(model.as_bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        ModelId(hash.max(1))
    }
}

impl Estimator {
    /// Input tokens of a body of so many bytes.
    pub fn input_tokens(&self, model: ModelId, bytes: u64) -> u64 {
        tokens(bytes, self.ratios(model).input)
    }

    /// Bytes of text that one output token has at least, in 256ths.
    pub fn output_ratio(&self, model: ModelId) -> u32 {
        self.ratios(model).output
    }

    /// Learns from an answer whose provider gave its numbers.
    pub fn learn(&self, model: ModelId, input: (u64, u64), output: (u64, u64)) {
        let mut ratios = self.ratios(model);
        ratios.input = follow(ratios.input, input);
        ratios.output = follow(ratios.output, output);
        self.place(model).set(Ratios { model: model.0, ..ratios });
    }

    fn ratios(&self, model: ModelId) -> Ratios {
        let found = self.place(model).get();
        if found.model == model.0 { found } else { UNKNOWN }
    }

    fn place(&self, model: ModelId) -> &Cell<Ratios> {
        &self.models[(model.0 >> 32) as usize % MODELS]
    }
}

/// Tokens of so many bytes, rounded up.
pub fn tokens(bytes: u64, ratio: u32) -> u64 {
    (bytes << 8).div_ceil(u64::from(ratio))
}

/// The ratio after a text of (bytes, tokens).
fn follow(ratio: u32, (bytes, tokens): (u64, u64)) -> u32 {
    if tokens < TOKENS_MIN || bytes == 0 {
        return ratio;
    }
    let seen = u32::try_from((bytes << 8) / tokens).unwrap_or(u32::MAX).clamp(RATIO_MIN, RATIO_MAX);
    if seen < ratio { seen } else { ratio + (seen - ratio) / 64 }
}

#[cfg(test)]
mod tests {
    use super::{Estimator, ModelId, START, tokens};

    #[test]
    fn an_estimate_falls_short_once_at_most_and_comes_down_slowly() {
        let estimator = Estimator::default();
        let model = ModelId::new(1, "m");
        assert_eq!(estimator.input_tokens(model, 3_000), 1_000);
        // Chinese: two bytes a token.
        estimator.learn(model, (2_000, 1_000), (0, 0));
        assert_eq!(estimator.input_tokens(model, 2_000), 1_000);
        for _ in 0..1_000 {
            estimator.learn(model, (4_000, 1_000), (4_000, 1_000));
        }
        let low = estimator.input_tokens(model, 4_000);
        assert!((1_000..1_080).contains(&low), "{low}");
        assert_eq!(ModelId::new(1, "m"), model);
        assert_eq!(estimator.input_tokens(ModelId::new(2, "m"), 3_000), 1_000, "another provider's");
    }

    #[test]
    fn few_words_and_absurd_numbers_change_little() {
        let estimator = Estimator::default();
        let model = ModelId::new(1, "m");
        estimator.learn(model, (10_000, 3), (0, 0));
        assert_eq!(estimator.input_tokens(model, 300), 100);
        estimator.learn(model, (10, 1_000_000), (u64::MAX >> 9, 40));
        assert_eq!(estimator.input_tokens(model, 300), 300);
        assert!(estimator.output_ratio(model) < START + (16 << 8) / 64);
        assert_eq!(tokens(0, START), 0);
    }
}
