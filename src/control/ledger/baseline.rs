//! What each key usually does, and what is unlike it: many more requests, much more money, a model or a network
//! that was not seen before. A stolen key shows so.
//!
//! In: records, as they become final. Out: `Deviation`s, at most one of each kind for a key and an hour. Requests
//! and money are counted by the hour of their start; their mean is a plain one up to a week and lets older hours
//! fade from then on. An hour is unusual above `TIMES` the mean and a floor, after a day of history; a model or a
//! network after a week. A network is a /24 of IPv4, a /48 of IPv6.
//! It is kept in the state directory, written every `SAVE_EVERY` and at the end: a process that is killed forgets
//! that much, two processes that overlap keep the later one's. Limits: `KEYS_MAX` keys; `MODELS_MAX` and
//! `NETWORKS_MAX` of each, and a key that has had as many is not watched for new ones. Errors: of the file, told by
//! the ledger's thread. Absent: times of day and days of the week.

use crate::llm::price::{PICO_PER_USD, usd};
use crate::usage::ledger::{Kind, Record};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Keys that are watched. With all that can be kept of each: some 30 MB.
pub const KEYS_MAX: usize = 10_000;
pub const MODELS_MAX: usize = 16;
pub const NETWORKS_MAX: usize = 32;
/// An hour is unusual above so many times the mean,
const TIMES: f64 = 10.0;
/// and above so much.
const REQUESTS_MIN: u64 = 100;
const COST_MIN_PICO: u64 = PICO_PER_USD;
const DAY: u64 = 24;
const WEEK: u64 = 7 * DAY;
/// A model or a network that was not seen for so long is new again, in hours.
const FORGET_AFTER: u64 = 60 * DAY;
const SAVE_EVERY: Duration = Duration::from_secs(600);
/// Deviations that wait for control, which looks twice a second.
const WAITING_MAX: usize = 1_000;
const MS_IN_HOUR: u64 = 3_600_000;

/// Something unlike a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    pub key: String,
    pub kind: DeviationKind,
    /// What was seen, and what is usual.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviationKind {
    Requests,
    Spend,
    Model,
    Network,
}

impl DeviationKind {
    pub const ALL: [DeviationKind; 4] =
        [DeviationKind::Requests, DeviationKind::Spend, DeviationKind::Model, DeviationKind::Network];

    /// Its name in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            DeviationKind::Requests => "requests",
            DeviationKind::Spend => "spend",
            DeviationKind::Model => "model",
            DeviationKind::Network => "network",
        }
    }
}

/// Baselines of all keys.
#[derive(Debug)]
pub struct Baselines {
    keys: HashMap<String, Baseline>,
    path: PathBuf,
    saved: Instant,
    found: SyncSender<Deviation>,
}

/// What one key does. Hours are those since 1970.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Baseline {
    first_hour: u64,
    /// The one that is counted.
    hour: u64,
    requests: u64,
    cost_pico: u64,
    /// Of the hours before.
    mean_requests: f64,
    mean_cost_pico: f64,
    models: Vec<(String, u64)>,
    networks: Vec<(IpAddr, u64)>,
    /// By `DeviationKind`: it was told of in this hour.
    #[serde(skip)]
    told: [bool; 4],
}

impl Baselines {
    /// Those of a state directory; an error with none: the file cannot be read, and they begin anew.
    pub fn open(directory: &Path) -> (Baselines, Receiver<Deviation>, io::Result<()>) {
        let path = directory.join("baselines.json");
        let read = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashMap::new()),
            Err(error) => Err(error),
        };
        let (keys, read) = match read {
            Ok(keys) => (keys, Ok(())),
            Err(error) => {
                (HashMap::new(), Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))))
            }
        };
        let (found, deviations) = sync_channel(WAITING_MAX);
        (Baselines { keys, path, saved: Instant::now(), found }, deviations, read)
    }

    /// Compares a request with what its key usually does, and learns from it.
    pub fn add(&mut self, record: &Record) {
        if record.kind == Kind::Attempt || record.key.is_empty() {
            return;
        }
        let hour = record.started_unix_ms / MS_IN_HOUR;
        let tell = |kind, detail| {
            // Where control does not come to read, there is nobody to tell.
            let _ = self.found.try_send(Deviation { key: record.key.clone(), kind, detail });
        };
        let is_full = self.keys.len() >= KEYS_MAX;
        match self.keys.get_mut(&record.key) {
            Some(baseline) => baseline.add(record, hour, tell),
            None if !is_full => {
                let mut baseline = Baseline { first_hour: hour, hour, ..Baseline::default() };
                baseline.add(record, hour, tell);
                self.keys.insert(record.key.clone(), baseline);
            }
            None => {}
        }
    }

    /// Writes them down, where that is due.
    pub fn save_if_due(&mut self) -> io::Result<()> {
        if self.saved.elapsed() < SAVE_EVERY { Ok(()) } else { self.save() }
    }

    /// Writes them down.
    pub fn save(&mut self) -> io::Result<()> {
        self.saved = Instant::now();
        // Each process writes a file of its own; the last rename wins.
        let new = self.path.with_extension(format!("{}", std::process::id()));
        fs::write(&new, serde_json::to_vec(&self.keys)?)?;
        fs::rename(&new, &self.path)
    }
}

impl Baseline {
    fn add(&mut self, record: &Record, hour: u64, mut tell: impl FnMut(DeviationKind, String)) {
        self.advance(hour);
        self.requests += 1;
        self.cost_pico = self.cost_pico.saturating_add(record.cost_pico.unwrap_or(0));
        let age = self.hour.saturating_sub(self.first_hour);
        let mut once = |kind: DeviationKind, detail: String| {
            if !std::mem::replace(&mut self.told[kind as usize], true) {
                tell(kind, detail);
            }
        };
        if age >= DAY && is_unusual(self.requests, self.mean_requests, REQUESTS_MIN) {
            let detail =
                format!("{} requests in this hour, {:.1} are usual", self.requests, self.mean_requests);
            once(DeviationKind::Requests, detail);
        }
        if age >= DAY && is_unusual(self.cost_pico, self.mean_cost_pico, COST_MIN_PICO) {
            let usual = usd(self.mean_cost_pico as u64);
            once(DeviationKind::Spend, format!("${} in this hour, ${usual} are usual", usd(self.cost_pico)));
        }
        // A name that nobody serves says nothing.
        if !record.model_sent.is_empty()
            && is_new(&mut self.models, &record.model, self.hour, MODELS_MAX)
            && age >= WEEK
        {
            let model = record.model.escape_default();
            once(DeviationKind::Model, format!("the model \"{model}\", which it did not use before"));
        }
        let network = record.client.map(network);
        if let Some(network) = network
            && is_new(&mut self.networks, &network, self.hour, NETWORKS_MAX)
            && age >= WEEK
        {
            once(DeviationKind::Network, format!("the network of {network}, where it was not seen before"));
        }
    }

    /// Goes on to `hour`, where that is later.
    fn advance(&mut self, hour: u64) {
        if hour <= self.hour {
            return;
        }
        // What is older than some weeks weighs nothing.
        for ended in self.hour..hour.min(self.hour + 20 * WEEK) {
            let weight = (ended.saturating_sub(self.first_hour) + 1).min(WEEK) as f64;
            self.mean_requests += (self.requests as f64 - self.mean_requests) / weight;
            self.mean_cost_pico += (self.cost_pico as f64 - self.mean_cost_pico) / weight;
            (self.requests, self.cost_pico) = (0, 0);
        }
        self.hour = hour;
        self.told = [false; 4];
    }
}

fn is_unusual(count: u64, mean: f64, floor: u64) -> bool {
    count > floor && count as f64 > TIMES * mean
}

/// Whether `value` is not among those that were `seen` lately. It is from now on, where there is room; where there
/// is none, nothing is new.
fn is_new<T: PartialEq<V>, V: ToOwned<Owned = T> + ?Sized>(
    seen: &mut Vec<(T, u64)>,
    value: &V,
    hour: u64,
    count_max: usize,
) -> bool {
    if let Some((_, last)) = seen.iter_mut().find(|(known, _)| known == value) {
        let is_new = hour.saturating_sub(*last) > FORGET_AFTER;
        *last = hour;
        return is_new;
    }
    seen.retain(|(_, last)| hour.saturating_sub(*last) <= FORGET_AFTER);
    if seen.len() >= count_max {
        return false;
    }
    seen.push((value.to_owned(), hour));
    true
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Baselines, Deviation, DeviationKind, KEYS_MAX, MODELS_MAX, MS_IN_HOUR, REQUESTS_MIN, network,
    };
    use crate::usage::ledger::{Kind, Record};
    use std::net::IpAddr;
    use std::path::Path;
    use std::sync::mpsc::Receiver;

    fn record(hour: u64, model: &str, client: &str) -> Record {
        Record {
            key: "ci".to_owned(),
            started_unix_ms: hour * MS_IN_HOUR,
            model: model.to_owned(),
            model_sent: model.to_owned(),
            client: Some(client.parse().expect("an address")),
            cost_pico: Some(10_000_000_000),
            ..Record::default()
        }
    }

    fn baselines() -> (Baselines, Receiver<Deviation>) {
        let (baselines, deviations, read) = Baselines::open(Path::new("there is no such directory"));
        read.expect("no file is no error");
        (baselines, deviations)
    }

    fn kinds(deviations: &Receiver<Deviation>) -> Vec<DeviationKind> {
        deviations.try_iter().map(|deviation| deviation.kind).collect()
    }

    /// `count` requests of a model in each of these hours.
    fn pass(baselines: &mut Baselines, hours: std::ops::Range<u64>, count: usize) {
        hours.for_each(|hour| (0..count).for_each(|_| baselines.add(&record(hour, "m", "192.0.2.1"))));
    }

    #[test]
    fn ten_times_the_usual_is_told_once_an_hour_and_only_of_a_key_that_is_known() {
        let (mut baselines, deviations) = baselines();
        pass(&mut baselines, 1_000..1_024, 20);
        assert_eq!(kinds(&deviations), []);
        // 200 requests at one cent each: not more than ten times 20, and more than a dollar, not ten times 0.2.
        pass(&mut baselines, 1_024..1_025, 200);
        assert_eq!(kinds(&deviations), []);
        baselines.add(&record(1_024, "m", "192.0.2.1"));
        let told: Vec<Deviation> = deviations.try_iter().collect();
        let details: Vec<&str> = told.iter().map(|deviation| &*deviation.detail).collect();
        assert_eq!(
            details,
            ["201 requests in this hour, 20.0 are usual", "$2.01 in this hour, $0.2 are usual"]
        );
        pass(&mut baselines, 1_024..1_025, 100);
        assert_eq!(kinds(&deviations), [], "once an hour");
        // An hour of a key that was idle, with fewer requests than ever alarm.
        pass(&mut baselines, 1_500..1_501, REQUESTS_MIN as usize);
        assert_eq!(kinds(&deviations), []);
        baselines.add(&record(1_500, "m", "192.0.2.1"));
        assert_eq!(kinds(&deviations), [DeviationKind::Requests, DeviationKind::Spend]);
        // Of a new key nothing is known.
        let (mut baselines, deviations) = super::tests::baselines();
        pass(&mut baselines, 0..23, 1);
        pass(&mut baselines, 23..24, 5_000);
        assert_eq!(kinds(&deviations), []);
    }

    #[test]
    fn a_model_or_a_network_is_new_after_a_week() {
        let (mut baselines, deviations) = baselines();
        pass(&mut baselines, 0..1, 1);
        baselines.add(&record(167, "early", "198.51.100.1"));
        assert_eq!(kinds(&deviations), []);
        for known in [record(168, "early", "192.0.2.255"), record(168, "m", "198.51.100.9")] {
            baselines.add(&known);
        }
        assert_eq!(kinds(&deviations), []);
        baselines.add(&Record { kind: Kind::Attempt, ..record(168, "x", "2001:db8::1") });
        baselines.add(&Record { model_sent: String::new(), ..record(168, "refused", "192.0.2.1") });
        assert_eq!(kinds(&deviations), []);
        baselines.add(&record(168, "x", "2001:db8::1"));
        assert_eq!(kinds(&deviations), [DeviationKind::Model, DeviationKind::Network]);
        baselines.add(&record(169, "x", "2001:db8:0:ffff::1"));
        assert_eq!(kinds(&deviations), []);
        (0..MODELS_MAX).for_each(|at| baselines.add(&record(170 + at as u64, &format!("{at}"), "192.0.2.1")));
        assert_eq!(kinds(&deviations).len(), MODELS_MAX - 3, "a key that uses many is not watched");
    }

    #[test]
    fn a_network_is_that_of_an_access() {
        let of = |text: &str| network(text.parse::<IpAddr>().expect("an address")).to_string();
        assert_eq!(of("192.0.2.77"), "192.0.2.0");
        assert_eq!(of("::ffff:192.0.2.77"), "192.0.2.0");
        assert_eq!(of("2001:db8:7:8:9::1"), "2001:db8:7::");
    }

    #[test]
    fn keys_are_bounded() {
        let (mut baselines, _deviations) = baselines();
        for at in 0..=KEYS_MAX {
            baselines.add(&Record { key: format!("{at}"), ..record(1, "m", "192.0.2.1") });
        }
        assert_eq!(baselines.keys.len(), KEYS_MAX);
    }

    #[test]
    fn they_outlive_the_process() {
        let directory = std::env::temp_dir().join(format!("tollgate-baselines-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (mut first, _, read) = Baselines::open(&directory);
        read.expect("nothing there yet");
        pass(&mut first, 0..1, 3);
        first.save().expect("it can be written");
        let (mut second, deviations, read) = Baselines::open(&directory);
        read.expect("what was written");
        second.add(&record(200, "m", "198.51.100.1"));
        assert_eq!(kinds(&deviations), [DeviationKind::Network]);
        std::fs::write(directory.join("baselines.json"), b"{").expect("a file");
        let (third, _, read) = Baselines::open(&directory);
        assert!(read.is_err() && third.keys.is_empty());
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
