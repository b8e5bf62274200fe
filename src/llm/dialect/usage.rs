//! Usage: the token counts of one answer and where they are from.
//!
//! Counts are kept as the provider reports them; totals are computed on reading, because a provider may
//! correct one member in a later event. A number that is no whole one, is negative or above [`TOKENS_MAX`] is
//! left out and flagged.

use crate::codec::json::Value;

/// The largest count that is believed. Context windows end at some ten million tokens.
pub const TOKENS_MAX: u64 = 1_000_000_000;

/// Where a number is from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum Provenance {
    /// The provider said it.
    #[default]
    Provider,
    /// Counted here with the model's tokenizer.
    Counted,
    /// Derived from numbers of bytes.
    Estimated,
}

impl Provenance {
    /// The word in logs and records.
    pub fn name(self) -> &'static str {
        match self {
            Provenance::Provider => "provider",
            Provenance::Counted => "counted",
            Provenance::Estimated => "estimated",
        }
    }
}

/// Whether `input` holds the tokens that were read from or written to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Caching {
    /// OpenAI: they are among them.
    #[default]
    Inside,
    /// Anthropic: they are counted apart.
    Beside,
}

/// Token counts of one answer; none where nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens as the provider counts them; see `caching` and [`Usage::input_total`].
    pub input: Option<u64>,
    /// Tokens written as the provider counts them; see [`Usage::output_total`].
    pub output: Option<u64>,
    pub cache_read: Option<u64>,
    pub cache_write: Option<u64>,
    pub reasoning: Option<u64>,
    /// The provider's own sum.
    pub total_reported: Option<u64>,
    pub apart: Apart,
    pub caching: Caching,
    pub provenance: Provenance,
    /// The provider reported a number that was not believed.
    pub flawed: bool,
}

/// Tokens among the others that have prices of their own; 0 where there are none or nothing is said of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Apart {
    pub audio_input: u32,
    pub audio_output: u32,
    pub image_input: u32,
    pub image_output: u32,
    /// Of `cache_write`, those that are kept longer (Anthropic: an hour).
    pub cache_write_long: u32,
}

/// A member of [`Usage`] that a document may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Input,
    Output,
    CacheRead,
    CacheWrite,
    Reasoning,
    Total,
    AudioInput,
    AudioOutput,
    ImageInput,
    ImageOutput,
    CacheWriteLong,
}

/// Where a dialect's usage object holds which member.
pub(super) type Members = [(&'static str, Place)];

/// What a name in a usage object stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Count(Member),
    /// An object with further counts.
    Details(&'static [(&'static str, Member)]),
}

impl Usage {
    /// All prompt tokens, with those read from and written to a cache.
    ///
    /// Mistral counts audio beside `prompt_tokens` (2 of 2 recordings, 2026-08): where the provider's own sum
    /// holds only with those tokens added, they are added here.
    pub fn input_total(&self) -> Option<u64> {
        match self.caching {
            Caching::Inside => {
                let audio = u64::from(self.apart.audio_input);
                let beside = audio > 0 && self.reasoning != Some(audio) && self.sum_lacks(self.input, audio);
                self.input.map(|input| if beside { input + audio } else { input })
            }
            Caching::Beside => {
                let parts = [self.input, self.cache_read, self.cache_write];
                parts.into_iter().flatten().reduce(|sum, part| sum + part)
            }
        }
    }

    /// All tokens written, with those of reasoning.
    ///
    /// xAI counts reasoning beside `completion_tokens` (32 of 32 recordings, 2026-08): where the provider's
    /// own sum holds only with the reasoning tokens added, they are added here.
    pub fn output_total(&self) -> Option<u64> {
        let (output, Some(reasoning)) = (self.output?, self.reasoning) else { return self.output };
        let beside = reasoning > 0 && self.sum_lacks(self.input_total(), reasoning);
        Some(if beside { output + reasoning } else { output })
    }

    /// Whether the provider's own sum is that of `input`, the output and so many tokens more.
    fn sum_lacks(&self, input: Option<u64>, tokens: u64) -> bool {
        let (Some(input), Some(output), Some(total)) = (input, self.output, self.total_reported) else {
            return false;
        };
        input.checked_add(output + tokens) == Some(total)
    }

    /// The sum of both totals, as far as they are known.
    pub fn total(&self) -> Option<u64> {
        let parts = [self.input_total(), self.output_total()];
        parts.into_iter().flatten().reduce(|sum, part| sum + part)
    }

    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        let Usage { input, output, cache_read, cache_write, reasoning, total_reported, .. } = *self;
        [input, output, cache_read, cache_write, reasoning, total_reported].iter().all(Option::is_none)
    }

    /// Takes over what `later` knows.
    pub fn update(&mut self, later: &Usage) {
        let take = |old: &mut Option<u64>, new: Option<u64>| *old = new.or(*old);
        take(&mut self.input, later.input);
        take(&mut self.output, later.output);
        take(&mut self.cache_read, later.cache_read);
        take(&mut self.cache_write, later.cache_write);
        take(&mut self.reasoning, later.reasoning);
        take(&mut self.total_reported, later.total_reported);
        self.apart.update(&later.apart);
        if later.caching == Caching::Beside {
            self.caching = Caching::Beside;
        }
        self.provenance = self.provenance.max(later.provenance);
        self.flawed |= later.flawed;
    }

    /// Takes over what `object` says; a member that is null or absent stays as it was, the last of repeats
    /// counts.
    pub(super) fn merge(&mut self, object: Value<'_>, members: &Members) {
        for member in object.members().map_while(Result::ok) {
            let Some((_, place)) = members.iter().find(|(name, _)| member.key.is(name)) else { continue };
            match place {
                Place::Count(count) => self.set(*count, member.value),
                Place::Details(names) => {
                    for detail in member.value.members().map_while(Result::ok) {
                        if let Some((_, count)) = names.iter().find(|(name, _)| detail.key.is(name)) {
                            self.set(*count, detail.value);
                        }
                    }
                }
            }
        }
    }

    fn set(&mut self, place: Member, value: Value<'_>) {
        if value.is_null() {
            return;
        }
        let Some(count) = value.as_u64().filter(|&count| count <= TOKENS_MAX) else {
            self.flawed = true;
            return;
        };
        // A count that is believed fits: `TOKENS_MAX` is less than 2^32.
        let part = count as u32;
        let place = match place {
            Member::AudioInput => return self.apart.audio_input = part,
            Member::AudioOutput => return self.apart.audio_output = part,
            Member::ImageInput => return self.apart.image_input = part,
            Member::ImageOutput => return self.apart.image_output = part,
            Member::CacheWriteLong => return self.apart.cache_write_long = part,
            Member::Input => &mut self.input,
            Member::Output => &mut self.output,
            Member::CacheRead => &mut self.cache_read,
            Member::CacheWrite => &mut self.cache_write,
            Member::Reasoning => &mut self.reasoning,
            Member::Total => &mut self.total_reported,
        };
        *place = Some(count);
    }
}

impl Apart {
    /// Nothing is said.
    pub const NONE: Apart =
        Apart { audio_input: 0, audio_output: 0, image_input: 0, image_output: 0, cache_write_long: 0 };

    /// Takes over what `later` knows.
    fn update(&mut self, later: &Apart) {
        if *later == Apart::NONE {
            return;
        }
        let take = |old: &mut u32, new: u32| *old = if new == 0 { *old } else { new };
        take(&mut self.audio_input, later.audio_input);
        take(&mut self.audio_output, later.audio_output);
        take(&mut self.image_input, later.image_input);
        take(&mut self.image_output, later.image_output);
        take(&mut self.cache_write_long, later.cache_write_long);
    }
}
