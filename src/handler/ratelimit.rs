//! What an answer's head tells of the caller's own limits, in the names that its dialect's SDKs and tools know.
//!
//! OpenAI: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, the reset as a length of time (`12s`, `1m0s`).
//! Anthropic: `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`, the reset
//! as a time. Of several limits of one kind the one with the least left is told. Limits a minute only: budgets
//! are told where they refuse.
//! Where anything of ours is told, the provider's own fields of these names are left out: they speak of an
//! account that is not the caller's. Source: OpenAI "Rate limits in headers", Anthropic "Response headers".

use crate::llm::dialect::Dialect;
use crate::policy::limit::plan::{Chain, Limit, Metric, Window};
use crate::policy::limit::reservation::Desk;
use jiff::Timestamp;
use smallvec::SmallVec;
use std::io::Write;
use std::ops::Range;

/// Header fields of limits.
#[derive(Debug, Default)]
pub struct Fields {
    fields: SmallVec<[(&'static str, Range<usize>); 6]>,
    values: SmallVec<[u8; 128]>,
}

/// One limit as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    limit: u64,
    left: u64,
    resets_in_s: u64,
}

/// Whether a provider's field of this name is about the limits of an account of its own.
pub fn is_about_limits(name: &[u8]) -> bool {
    let starts_with =
        |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts_with(b"x-ratelimit-") || starts_with(b"anthropic-ratelimit-")
}

impl Fields {
    /// The fields for limits of `chains`; none without a limit a minute.
    pub fn new(desk: &Desk<'_>, chains: &[Chain], dialect: Dialect) -> Fields {
        let mut tightest: [Option<Standing>; 4] = [None; 4];
        for (_, limit) in chains.iter().flat_map(|chain| desk.plan.of(chain)) {
            let Some(kind) = kind_of(limit) else { continue };
            let standing = Standing {
                limit: limit.amount,
                left: desk.left(limit),
                resets_in_s: desk.resets_in_s(limit).unwrap_or(0),
            };
            let place = &mut tightest[kind];
            if place.is_none_or(|known| standing.left < known.left) {
                *place = Some(standing);
            }
        }
        let mut fields = Fields::default();
        if dialect == Dialect::Anthropic {
            for (standing, names) in tightest.iter().zip(ANTHROPIC) {
                let Some(standing) = standing else { continue };
                let reset = desk.time.unix_s.saturating_add(standing.resets_in_s as i64);
                let reset = Timestamp::from_second(reset).unwrap_or_default();
                fields.add(names, standing, format_args!("{reset}"));
            }
            return fields;
        }
        let tokens = tightest[TOKENS..].iter().flatten().min_by_key(|standing| standing.left).copied();
        for (standing, names) in [tightest[REQUESTS], tokens].into_iter().zip(OPENAI) {
            let Some(standing) = standing else { continue };
            match standing.resets_in_s {
                60.. => fields.add(names, &standing, format_args!("1m{}s", standing.resets_in_s - 60)),
                seconds => fields.add(names, &standing, format_args!("{seconds}s")),
            }
        }
        fields
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (name.as_bytes(), &self.values[value.clone()]))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn add(&mut self, names: [&'static str; 3], standing: &Standing, reset: std::fmt::Arguments<'_>) {
        let [limit, remaining, resets] = names;
        for (name, value) in [(limit, standing.limit), (remaining, standing.left)] {
            let from = self.values.len();
            self.values.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            self.fields.push((name, from..self.values.len()));
        }
        let from = self.values.len();
        // Memory takes everything.
        let _ = self.values.write_fmt(reset);
        self.fields.push((resets, from..self.values.len()));
    }
}

const REQUESTS: usize = 0;
/// Here and behind: tokens of both kinds, those that come in, those that go out.
const TOKENS: usize = 1;

fn kind_of(limit: &Limit) -> Option<usize> {
    if !matches!(limit.window, Window::Minute) || limit.shadow {
        return None;
    }
    match limit.metric {
        Metric::Requests => Some(REQUESTS),
        Metric::Tokens => Some(TOKENS),
        Metric::InputTokens => Some(TOKENS + 1),
        Metric::OutputTokens => Some(TOKENS + 2),
        Metric::Money | Metric::Concurrent | Metric::Streams => None,
    }
}

const OPENAI: [[&str; 3]; 2] = [
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
];

const ANTHROPIC: [[&str; 3]; 4] = [
    [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ],
    [
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ],
    [
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ],
    [
        "anthropic-ratelimit-output-tokens-limit",
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ],
];

#[cfg(test)]
mod tests {
    use super::is_about_limits;

    #[test]
    fn fields_about_limits_are_told_by_their_names() {
        let rows = [
            ("x-ratelimit-limit-requests", true),
            ("X-RateLimit-Reset-Tokens", true),
            ("anthropic-ratelimit-tokens-reset", true),
            ("x-ratelimit", false),
            ("retry-after", false),
        ];
        for (name, is_one) in rows {
            assert_eq!(is_about_limits(name.as_bytes()), is_one, "{name}");
        }
    }
}
