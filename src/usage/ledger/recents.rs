//! Requests that have ended lately, for callers who ask what one has used.
//!
//! Limits: `RECENTS_MAX` requests, `RECENT_AGE` each: whichever is less. Memory: some 300 bytes a request. Attempts
//! are not kept; they are parts of their request.

use crate::usage::Usage;
use crate::usage::ledger::{Kind, Record};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests that are remembered.
pub const RECENTS_MAX: usize = 100_000;
/// How long each is.
pub const RECENT_AGE: Duration = Duration::from_secs(3600);
/// Texts that are shared between them.
const TEXTS_MAX: usize = 10_000;

/// What a request has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Whose request it was. Only that key may see it.
    pub key: Arc<str>,
    pub model: Arc<str>,
    pub provider: Arc<str>,
    pub model_sent: Arc<str>,
    pub started_unix_ms: u64,
    pub usage: Usage,
    pub cost_pico: Option<u64>,
    pub is_unpriced: bool,
    pub status: u16,
    pub ended: Arc<str>,
    pub attempts: u32,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Recents {
    found: HashMap<Arc<str>, Recent>,
    order: VecDeque<(Instant, Arc<str>)>,
    texts: HashSet<Arc<str>>,
}

impl Recents {
    /// Remembers `record`, which ended at `now`.
    pub fn add(&mut self, record: &Record, now: Instant) {
        if record.kind == Kind::Attempt {
            return;
        }
        self.forget(now, RECENTS_MAX - 1);
        if self.texts.len() > TEXTS_MAX {
            self.texts.clear();
        }
        let recent = Recent {
            key: self.shared(&record.key),
            model: self.shared(&record.model),
            provider: self.shared(&record.provider),
            model_sent: self.shared(&record.model_sent),
            started_unix_ms: record.started_unix_ms,
            usage: record.usage,
            cost_pico: record.cost_pico,
            is_unpriced: record.is_unpriced,
            status: record.status,
            ended: self.shared(&record.ended),
            attempts: record.attempts,
        };
        let id: Arc<str> = record.id.as_str().into();
        if self.found.insert(Arc::clone(&id), recent).is_none() {
            self.order.push_back((now, id));
        }
    }

    /// The request with this id.
    pub fn find(&mut self, id: &str, now: Instant) -> Option<Recent> {
        self.forget(now, RECENTS_MAX);
        self.found.get(id).cloned()
    }

    /// Forgets what is too old, and the oldest ones above `count_max`.
    fn forget(&mut self, now: Instant, count_max: usize) {
        while let Some((since, id)) = self.order.front() {
            if self.order.len() <= count_max && now.duration_since(*since) <= RECENT_AGE {
                return;
            }
            self.found.remove(id);
            self.order.pop_front();
        }
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.texts.get(text) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::{RECENT_AGE, RECENTS_MAX, Recents};
    use crate::usage::ledger::{Kind, Record};
    use std::time::{Duration, Instant};

    #[test]
    fn so_many_are_remembered_for_so_long_and_attempts_are_not() {
        let mut recents = Recents::default();
        let start = Instant::now();
        let record = |id: String| Record { id, key: "ci".to_owned(), status: 200, ..Record::default() };
        for n in 0..RECENTS_MAX {
            recents.add(&record(n.to_string()), start);
        }
        recents.add(&Record { kind: Kind::Attempt, ..record("attempt".to_owned()) }, start);
        assert_eq!(recents.find("0", start).expect("the first").key.as_ref(), "ci");
        assert!(recents.find("attempt", start).is_none());
        recents.add(&record("one more".to_owned()), start + Duration::from_secs(1));
        assert!(recents.find("0", start).is_none() && recents.find("1", start).is_some());
        assert_eq!((recents.found.len(), recents.order.len()), (RECENTS_MAX, RECENTS_MAX));
        assert!(recents.find("1", start + RECENT_AGE).is_some());
        assert!(recents.find("1", start + RECENT_AGE + Duration::from_millis(1)).is_none());
        assert_eq!((recents.found.len(), recents.texts.len()), (1, 2));
    }
}
