//! Virtual keys: which key a presented string is, and what that key may do.
//!
//! A key is stored as the SHA-256 of the string that the client presents; any string may be one. The table is
//! indexed by the first bytes of the hash and the whole hash is compared in constant time, so timing tells
//! nothing about a stored hash that the presenter does not know already. A key may have several hashes: that
//! is how it is rotated. Cost: one SHA-256 over the presented bytes (bounded by the request head) and one
//! probe, whatever the number of keys. Absent: limits and budgets per key. They hang on `Key::index` when
//! they come.

use crate::base::error::Kind;
use crate::policy::pattern::Pattern;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// SHA-256 of a presented key.
pub type Hash = [u8; 32];

/// The SHA-256 of `presented`.
pub fn hash(presented: &[u8]) -> Hash {
    Sha256::digest(presented).into()
}

/// What becomes of the provider's answer when the client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnDisconnect {
    /// Cancel the call at once.
    #[default]
    Cancel,
    /// Read on until the provider's usage is known or a cap is reached; the first cap that is reached
    /// cancels.
    Drain(DrainCap),
}

/// How long an answer is read for its usage after the client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainCap {
    /// Output tokens that are counted after the client left. Default 1,000.
    pub tokens_max: u64,
    /// Bytes that are read after the client left. Default 1 MiB.
    pub bytes_max: u64,
    /// Milliseconds after the client left. Default 30,000.
    pub time_max_ms: u64,
}

impl Default for DrainCap {
    fn default() -> DrainCap {
        DrainCap { tokens_max: 1_000, bytes_max: 1 << 20, time_max_ms: 30_000 }
    }
}

/// One virtual key, whichever of its hashes was presented.
#[derive(Clone, Debug)]
pub struct Key {
    /// Place in `Keys`; set by `Keys::new`.
    pub index: u32,
    /// Unique; stands in logs and metrics.
    pub name: Box<str>,
    /// Models that it may ask for; none: every model. Shared, since many keys have the same list.
    pub models: Option<Arc<[Pattern]>>,
    /// May use pass-through routes. Default: yes where `models` is none, since they do not look at the model.
    pub passthrough: bool,
    /// Milliseconds since 1970 from which it is refused; none: never.
    pub expires_unix_ms: Option<u64>,
    /// Refused, but kept and told apart from an unknown key.
    pub disabled: bool,
    pub on_disconnect: OnDisconnect,
}

impl Key {
    /// A key that may do everything.
    pub fn new(name: &str) -> Key {
        Key {
            index: 0,
            name: name.into(),
            models: None,
            passthrough: true,
            expires_unix_ms: None,
            disabled: false,
            on_disconnect: OnDisconnect::Cancel,
        }
    }

    /// Whether it may ask for `model` (the name that the client says).
    pub fn may_use(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|pattern| pattern.matches(model)))
    }
}

/// All keys of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
    entries: Vec<Entry>,
    /// Open addressing over `entries`, a power of two at least twice as long; `EMPTY` ends a probe.
    slots: Vec<u32>,
}

/// The same hash belongs to two keys (or twice to one); indices into the list given to `Keys::new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SameHash {
    pub first: u32,
    pub second: u32,
}

/// Why a presented string gives no access.
#[derive(Clone, Copy, Debug)]
pub struct Unauthenticated<'k> {
    /// `KeyMissing` (it is empty), `KeyUnknown`, `KeyDisabled` or `KeyExpired`.
    pub kind: Kind,
    /// The key that it is, though it may not be used: the operator wants to know who still does.
    pub key: Option<&'k Key>,
}

impl Keys {
    /// Builds the table; `index` of each key is set to its place. Errors: a hash that stands twice.
    pub fn new(list: impl IntoIterator<Item = (Key, Vec<Hash>)>) -> Result<Keys, SameHash> {
        let mut keys = Keys::default();
        for (mut key, hashes) in list {
            key.index = u32::try_from(keys.keys.len()).unwrap_or(u32::MAX);
            keys.entries.extend(hashes.into_iter().map(|hash| Entry { hash, key: key.index }));
            keys.keys.push(key);
        }
        keys.slots = vec![EMPTY; (keys.entries.len() * 2).next_power_of_two()];
        for at in 0..keys.entries.len() {
            keys.place(at)?;
        }
        Ok(keys)
    }

    /// The key that `presented` is, where it may be used. Errors: `Unauthenticated`.
    pub fn authenticate(&self, presented: &[u8], now_unix_ms: u64) -> Result<&Key, Unauthenticated<'_>> {
        if presented.is_empty() {
            return Err(Unauthenticated { kind: Kind::KeyMissing, key: None });
        }
        let key = self.find(&hash(presented)).ok_or(Unauthenticated { kind: Kind::KeyUnknown, key: None })?;
        if key.disabled {
            return Err(Unauthenticated { kind: Kind::KeyDisabled, key: Some(key) });
        }
        if key.expires_unix_ms.is_some_and(|expires| now_unix_ms >= expires) {
            return Err(Unauthenticated { kind: Kind::KeyExpired, key: Some(key) });
        }
        Ok(key)
    }

    /// Every key, in the order of the config; the place is `Key::index`.
    pub fn all(&self) -> &[Key] {
        &self.keys
    }

    fn find(&self, hash: &Hash) -> Option<&Key> {
        let mut slot = first_slot(hash, self.slots.len())?;
        // At most half of the slots are taken, so the probe ends at an empty one.
        loop {
            let entry = self.entries.get(*self.slots.get(slot)? as usize)?;
            if bool::from(entry.hash.ct_eq(hash)) {
                return self.keys.get(entry.key as usize);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn place(&mut self, at: usize) -> Result<(), SameHash> {
        let Entry { hash, key } = self.entries[at];
        let mut slot = first_slot(&hash, self.slots.len()).unwrap_or(0);
        while self.slots[slot] != EMPTY {
            let taken = &self.entries[self.slots[slot] as usize];
            if taken.hash == hash {
                return Err(SameHash { first: taken.key, second: key });
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = u32::try_from(at).unwrap_or(EMPTY);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: Hash,
    key: u32,
}

/// No entry has this index: `entries.get` of it gives none.
const EMPTY: u32 = u32::MAX;

/// The slot where the probe for `hash` starts; none in an empty table.
fn first_slot(hash: &Hash, slots: usize) -> Option<usize> {
    let start = u64::from_le_bytes(*hash.first_chunk::<8>()?) as usize;
    Some(start & slots.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::{Hash, Key, Keys, SameHash, hash};
    use crate::base::error::Kind;
    use crate::policy::pattern::Pattern;

    fn keys(list: Vec<(Key, &[&str])>) -> Keys {
        let hashed = |(key, texts): (Key, &[&str])| {
            (key, texts.iter().map(|text| hash(text.as_bytes())).collect::<Vec<Hash>>())
        };
        Keys::new(list.into_iter().map(hashed)).unwrap()
    }

    #[test]
    fn each_way_of_being_refused_has_its_kind() {
        let keys = keys(vec![
            (Key::new("good"), &["tg-good"]),
            (Key { disabled: true, ..Key::new("off") }, &["tg-off"]),
            (Key { expires_unix_ms: Some(1_000), ..Key::new("old") }, &["tg-old"]),
        ]);
        let ask = |text: &str, now| {
            let asked = keys.authenticate(text.as_bytes(), now);
            asked.map(|key| &*key.name).map_err(|refused| (refused.kind, refused.key.map(|key| &*key.name)))
        };
        assert_eq!(ask("tg-good", 5), Ok("good"));
        assert_eq!(ask("", 5), Err((Kind::KeyMissing, None)));
        assert_eq!(ask("tg-goo", 5), Err((Kind::KeyUnknown, None)));
        assert_eq!(ask("tg-good ", 5), Err((Kind::KeyUnknown, None)));
        assert_eq!(ask("tg-off", 5), Err((Kind::KeyDisabled, Some("off"))));
        assert_eq!(ask("tg-old", 999), Ok("old"));
        assert_eq!(ask("tg-old", 1_000), Err((Kind::KeyExpired, Some("old"))));
    }

    #[test]
    fn without_keys_every_string_is_unknown() {
        for none in [Keys::default(), keys(vec![])] {
            assert_eq!(none.authenticate(b"x", 0).err().map(|refused| refused.kind), Some(Kind::KeyUnknown));
        }
    }

    #[test]
    fn a_key_is_found_by_each_of_its_hashes() {
        let keys = keys(vec![(Key::new("rotated"), &["one", "two"])]);
        assert!(keys.authenticate(b"one", 0).is_ok());
        assert!(keys.authenticate(b"two", 0).is_ok());
    }

    #[test]
    fn a_hash_that_stands_twice_is_refused() {
        let twice =
            Keys::new([(Key::new("a"), vec![hash(b"1")]), (Key::new("b"), vec![hash(b"2"), hash(b"1")])]);
        assert_eq!(twice.err(), Some(SameHash { first: 0, second: 1 }));
    }

    #[test]
    fn every_one_of_many_keys_is_found_and_no_other() {
        let keys =
            Keys::new((0..5_000_u32).map(|n| (Key::new(&n.to_string()), vec![hash(&n.to_le_bytes())])));
        let keys = keys.unwrap();
        for n in 0..5_000_u32 {
            assert_eq!(keys.authenticate(&n.to_le_bytes(), 0).unwrap().index, n);
        }
        for n in 5_000..10_000_u32 {
            assert!(keys.authenticate(&n.to_le_bytes(), 0).is_err());
        }
    }

    #[test]
    fn a_model_list_limits_and_its_absence_does_not() {
        let list = [Pattern::new("gpt-4o").unwrap(), Pattern::new("claude-*").unwrap()];
        let key = Key { models: Some(list.into()), ..Key::new("k") };
        assert!(key.may_use("gpt-4o") && key.may_use("claude-sonnet-5"));
        assert!(!key.may_use("gpt-4o-mini"));
        assert!(Key::new("k").may_use("anything"));
    }
}
