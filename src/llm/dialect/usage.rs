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
    pub caching: Caching,
    pub provenance: Provenance,
    /// The provider reported a number that was not believed.
    pub flawed: bool,
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
}

/// Where a dialect's usage object holds which member: its name, or the name of an object in it and a name in
/// that.
pub(super) type Members = [(&'static str, Option<&'static str>, Member)];

impl Usage {
    /// All prompt tokens, with those read from and written to a cache.
    pub fn input_total(&self) -> Option<u64> {
        match self.caching {
            Caching::Inside => self.input,
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
        let beside = self.input_total().zip(self.total_reported).is_some_and(|(input, total)| {
            reasoning > 0 && input.checked_add(output + reasoning) == Some(total)
        });
        Some(if beside { output + reasoning } else { output })
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
            let named = members.iter().filter(|(name, ..)| member.key.is(name));
            for (_, inner, place) in named {
                match inner {
                    None => self.set(*place, member.value),
                    Some(inner) => {
                        let details = member.value.members().map_while(Result::ok);
                        details
                            .filter(|detail| detail.key.is(inner))
                            .for_each(|detail| self.set(*place, detail.value));
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
        let place = match place {
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
