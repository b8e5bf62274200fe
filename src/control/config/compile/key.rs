//! Virtual keys.

use crate::control::config::compile::{Context, model};
use crate::control::config::problem::{did_you_mean, quoted};
use crate::control::config::raw;
use crate::control::config::sources::{At, List};
use crate::policy::auth::{self, DrainCap, Hash, Key, Keys, OnDisconnect};
use crate::policy::pattern::Pattern;
use crate::policy::route::Routes;
use std::collections::HashMap;
use std::sync::Arc;
use toml::value::{Datetime, Offset};

/// What stands before the digits of a hash.
pub const HASH_PREFIX: &str = "sha256:";

pub fn compile(context: &mut Context<'_>, routes: &Routes) -> Keys {
    let sources = context.sources;
    let mut list: Vec<(Key, Vec<Hash>)> = Vec::with_capacity(sources.raw.key.len());
    let mut named: HashMap<&str, usize> = HashMap::new();
    // Keys with the same models share one list: 100,000 keys have few different ones.
    let mut shared: HashMap<&[String], Arc<[Pattern]>> = HashMap::new();
    for (index, raw) in sources.raw.key.iter().enumerate() {
        let at = sources.entry(List::Key, index);
        context.name(&at, &raw.name);
        if let Some(first) = named.insert(&raw.name, index) {
            let first = sources.refer(&sources.entry(List::Key, first).key("name"));
            let message = format!(
                "{} is the name of the key at {first}; to rotate a key, give it two hashes",
                quoted(&raw.name)
            );
            context.error(at.key("name"), message);
        }
        let models = raw.models.as_deref().map(|names| match shared.get(names) {
            Some(models) => models.clone(),
            None => {
                let models = models(context, &at.key("models"), names, routes);
                shared.insert(names, models.clone());
                models
            }
        });
        let key = Key {
            index: 0,
            name: raw.name.as_str().into(),
            passthrough: raw.passthrough.unwrap_or(models.is_none()),
            models,
            expires_unix_ms: expires(context, &at.key("expires"), raw),
            disabled: raw.disabled,
            on_disconnect: on_disconnect(&raw.on_disconnect),
        };
        list.push((key, hashes(context, &at.key("hash"), &raw.hash)));
    }
    if list.is_empty() && sources.is_whole() {
        context.warn(
            sources.main("key"),
            "no [[key]]: every request is answered with 401; `tollgate keys new NAME` makes one",
        );
    }
    build(context, list)
}

fn build(context: &mut Context<'_>, list: Vec<(Key, Vec<Hash>)>) -> Keys {
    let sources = context.sources;
    let mut owner: HashMap<Hash, usize> = HashMap::with_capacity(list.len());
    for (index, hash) in
        list.iter().enumerate().flat_map(|(at, (_, hashes))| hashes.iter().map(move |hash| (at, hash)))
    {
        if let Some(first) = owner.insert(*hash, index) {
            let message = match first == index {
                true => "the same hash stands here twice; remove one".to_string(),
                false => format!(
                    "this is the hash of the key at {} too; each key has its own",
                    sources.refer(&sources.entry(List::Key, first).key("hash"))
                ),
            };
            context.error(sources.entry(List::Key, index).key("hash"), message);
        }
    }
    Keys::new(list).unwrap_or_default()
}

fn models(context: &mut Context<'_>, at: &At, names: &[String], routes: &Routes) -> Arc<[Pattern]> {
    let mut patterns = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let Some(pattern) = model::pattern(context, &at.at(index), name) else { continue };
        let served = match &pattern {
            Pattern::Exact(name) => routes.resolve(name).is_some(),
            Pattern::Wild { .. } => routes.all().iter().any(|route| route.pattern.overlaps(&pattern)),
        };
        // Routes with an error compile to none at all: then nothing can be said.
        if !served && !routes.all().is_empty() {
            let near = did_you_mean(name, routes.all().iter().map(|route| &*route.name));
            context.warn(at.at(index), format!("no [[model]] is named {}{near}", quoted(name)));
        }
        patterns.push(pattern);
    }
    patterns.into()
}

fn hashes(context: &mut Context<'_>, at: &At, raw: &raw::Hashes) -> Vec<Hash> {
    match raw {
        raw::Hashes::One(text) => hash(context, at, text).into_iter().collect(),
        raw::Hashes::Several(texts) => {
            let each = texts.iter().enumerate();
            each.filter_map(|(index, text)| hash(context, &at.at(index), text)).collect()
        }
    }
}

/// A hash as written. What is written is never shown: it may be the key itself.
fn hash(context: &mut Context<'_>, at: &At, text: &str) -> Option<Hash> {
    let allowed = "allowed: \"sha256:\" and 64 hexadecimal digits, as `tollgate keys new NAME` prints them";
    let Some(digits) = text.strip_prefix(HASH_PREFIX) else {
        let what = match text.starts_with("tg-") {
            true => "this is a key, not its hash: consider it known and make a new one",
            false => "this is not a hash",
        };
        context.error(at.clone(), format!("{what}; {allowed}"));
        return None;
    };
    let mut hash = [0; 32];
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    match bytes {
        Some(bytes) if bytes.len() == hash.len() => hash.copy_from_slice(&bytes),
        _ => {
            let found = digits.chars().count();
            context.error(
                at.clone(),
                format!("{found} characters after \"sha256:\" that are no SHA-256; {allowed}"),
            );
            return None;
        }
    }
    if hash == auth::hash(b"") {
        context.error(at.clone(), "this is the hash of the empty string, which no client can present");
        return None;
    }
    Some(hash)
}

fn expires(context: &mut Context<'_>, at: &At, raw: &raw::Key) -> Option<u64> {
    let expires = unix_ms(raw.expires.as_ref()?);
    if expires <= context.surroundings.unix_ms() && !raw.disabled {
        context.warn(at.clone(), "this key has expired");
    }
    Some(expires)
}

fn on_disconnect(raw: &raw::OnDisconnect) -> OnDisconnect {
    match raw {
        raw::OnDisconnect::Cancel => OnDisconnect::Cancel,
        raw::OnDisconnect::Drain(raw::Drain { tokens_max, bytes_max, time_max_ms }) => {
            let (tokens_max, bytes_max, time_max_ms) = (*tokens_max, *bytes_max, *time_max_ms);
            OnDisconnect::Drain(DrainCap { tokens_max, bytes_max, time_max_ms })
        }
    }
}

/// Milliseconds since 1970 of a date with time and offset; 0 before that.
fn unix_ms(at: &Datetime) -> u64 {
    let days = at
        .date
        .map_or(0, |date| days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day)));
    let seconds = at.time.map_or(0, |time| {
        i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0))
    });
    let millis = at.time.and_then(|time| time.nanosecond).unwrap_or(0) / 1_000_000;
    let offset = match at.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60,
        Some(Offset::Z) | None => 0,
    };
    let unix_ms = (days * 86_400 + seconds - offset) * 1_000 + i64::from(millis);
    u64::try_from(unix_ms).unwrap_or(0)
}

/// Days of the Gregorian calendar. Years are counted from March, so that the leap day is the last of its
/// year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // (153 m + 2) / 5 gives the days before month m of a year that starts in March.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::unix_ms;

    #[test]
    fn a_date_becomes_milliseconds_since_1970() {
        // text, milliseconds since 1970 (GNU date)
        let rows = [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2024-12-31T23:59:59.250Z", 1_735_689_599_250),
            ("2027-01-31T00:00:00+01:30", 1_801_348_200_000),
            ("2027-01-31T00:00:00-08:00", 1_801_382_400_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
        ];
        for (text, expected) in rows {
            assert_eq!(unix_ms(&text.parse().unwrap()), expected, "{text}");
        }
    }
}
