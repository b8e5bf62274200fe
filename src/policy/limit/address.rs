//! Limits of each client address: a table of those that were seen lately.
//!
//! Addresses come and go and belong to nobody, so they have no cells in the bank: an entry of the table is found by
//! the address, is shared by all workers of the process, and is given to another address once nothing of it is
//! counted any more. An IPv6 address counts as its /64, which one client has to itself. Requests are counted in
//! minutes of the node's boot clock, as those of keys are.
//! Limits: `ENTRIES`; an address that finds none of `PROBES` places free shares the last with another one, so that
//! who brings many addresses is limited sooner, not later. Two processes of one node count apart. Errors: which of
//! the two limits has no room.

use crate::policy::limit::plan::AddressLimits;
use crate::usage::bank::cell::Tally;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// Addresses that are counted at a time (1.5 MiB).
const ENTRIES: usize = 1 << 16;

/// Places where an address may stand.
const PROBES: usize = 8;

/// The table of a process.
#[derive(Debug)]
pub struct Addresses {
    entries: Box<[Entry]>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Of the address and its listener; 0: free.
    owner: AtomicU64,
    /// The minute's tag, and its requests.
    requests: AtomicU64,
    concurrent: AtomicU64,
}

/// A place that a request has among those of its address.
#[derive(Debug)]
#[must_use = "it is given back with the end of the request"]
pub struct Place(u32);

/// Which limit of an address has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Requests(u64),
    Concurrent(u64),
}

impl Default for Addresses {
    fn default() -> Addresses {
        Addresses { entries: (0..ENTRIES).map(|_| Entry::default()).collect() }
    }
}

impl Addresses {
    /// Counts a request of `address` at a listener in the minute of `node_s`. What is in shadow is counted and never
    /// refused.
    pub fn take(
        &self,
        listener: usize,
        address: IpAddr,
        limits: &AddressLimits,
        node_s: u64,
    ) -> Result<Place, Full> {
        let tag = (node_s / 60) as u16;
        let owner = owner(listener, address);
        loop {
            let at = self.find(owner, tag);
            let entry = &self.entries[at];
            let (requests_max, concurrent_max) = match limits.shadow {
                true => (u64::MAX, u64::MAX),
                false => {
                    (limits.requests_per_minute.unwrap_or(u64::MAX), limits.concurrent.unwrap_or(u64::MAX))
                }
            };
            let one_more = |open: u64| (open < concurrent_max).then_some(open + 1);
            if entry.concurrent.fetch_update(AcqRel, Acquire, one_more).is_err() {
                return Err(Full::Concurrent(concurrent_max));
            }
            // While one is open nobody takes the entry away: now it is known whose it is.
            if entry.owner.load(Acquire) != owner && !self.is_crowded(owner, tag) {
                self.give(Place(at as u32));
                continue;
            }
            let one_more = |word: u64| {
                let now = Tally::of(word);
                let amount = if now.tag == tag { now.amount } else { 0 };
                (amount < requests_max).then_some(Tally { tag, amount: amount + 1 }.word())
            };
            if entry.requests.fetch_update(AcqRel, Acquire, one_more).is_err() {
                self.give(Place(at as u32));
                return Err(Full::Requests(requests_max));
            }
            return Ok(Place(at as u32));
        }
    }

    /// The request has ended.
    pub fn give(&self, place: Place) {
        let fewer = |open: u64| Some(open.saturating_sub(1));
        let _ = self.entries[place.0 as usize].concurrent.fetch_update(AcqRel, Acquire, fewer);
    }

    /// Where `owner` stands, or may stand from now on.
    fn find(&self, owner: u64, tag: u16) -> usize {
        let places = places(owner);
        for at in places {
            if self.entries[at].owner.load(Acquire) == owner {
                return at;
            }
        }
        for at in places {
            let entry = &self.entries[at];
            let before = entry.owner.load(Acquire);
            if (before == 0 || entry.is_idle(tag))
                && entry.owner.compare_exchange(before, owner, AcqRel, Acquire).is_ok()
            {
                return at;
            }
        }
        places[PROBES - 1]
    }

    /// Whether `owner` has to share a place.
    fn is_crowded(&self, owner: u64, tag: u16) -> bool {
        places(owner).into_iter().all(|at| {
            let entry = &self.entries[at];
            let of = entry.owner.load(Acquire);
            of != 0 && of != owner && !entry.is_idle(tag)
        })
    }
}

impl Entry {
    /// Whether nothing of it counts any more.
    fn is_idle(&self, tag: u16) -> bool {
        self.concurrent.load(Acquire) == 0 && Tally::of(self.requests.load(Acquire)).tag != tag
    }
}

fn places(owner: u64) -> [usize; PROBES] {
    std::array::from_fn(|at| (owner as usize).wrapping_add(at) % ENTRIES)
}

/// Never 0. Mixed, so that neighbours in the address space are none in the table (SplitMix64's last steps).
fn owner(listener: usize, address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(address) => u64::from(u32::from(address)) | 1 << 32,
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    };
    let mut mixed = bits ^ (listener as u64).rotate_left(48);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

#[cfg(test)]
mod tests {
    use super::{Addresses, ENTRIES, Full, PROBES, owner, places};
    use crate::policy::limit::plan::AddressLimits;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn limits(requests: u64, concurrent: u64) -> AddressLimits {
        AddressLimits { requests_per_minute: Some(requests), concurrent: Some(concurrent), shadow: false }
    }

    fn v4(last: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + last).into()
    }

    #[test]
    fn each_address_has_so_many_requests_a_minute_and_places() {
        let table = Addresses::default();
        let limits = limits(3, 2);
        for address in [v4(1), v4(2), Ipv6Addr::LOCALHOST.into()] {
            let first = table.take(0, address, &limits, 60).expect("room");
            let second = table.take(0, address, &limits, 60).expect("room");
            assert_eq!(table.take(0, address, &limits, 61).err(), Some(Full::Concurrent(2)));
            table.give(first);
            let third = table.take(0, address, &limits, 61).expect("a place came free");
            table.give(second);
            table.give(third);
            assert_eq!(table.take(0, address, &limits, 119).err(), Some(Full::Requests(3)));
            let next = table.take(0, address, &limits, 120).expect("the next minute");
            table.give(next);
            let other = table.take(1, address, &limits, 119).expect("another listener");
            table.give(other);
        }
    }

    #[test]
    fn the_addresses_of_one_ipv6_client_count_together() {
        let table = Addresses::default();
        let address = |last: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        table.give(table.take(0, address(1), &limits(1, 9), 0).expect("room"));
        assert_eq!(table.take(0, address(2), &limits(1, 9), 0).err(), Some(Full::Requests(1)));
    }

    #[test]
    fn more_addresses_than_the_table_holds_share_places_and_the_next_minute_frees_them() {
        let table = Addresses::default();
        let limits = limits(1, 1);
        let count = 2 * ENTRIES as u32;
        let admitted = |node_s: u64| {
            let each = 0..count;
            each.filter_map(|last| table.take(0, v4(last), &limits, node_s).ok())
                .map(|place| table.give(place))
                .count()
        };
        let first = admitted(0);
        assert!(first <= ENTRIES && first > ENTRIES * 9 / 10, "{first}");
        assert!(admitted(60) > ENTRIES * 9 / 10);
        assert_eq!(places(owner(0, v4(1))).len(), PROBES);
    }

    #[test]
    fn threads_that_take_and_give_at_once_never_have_more_than_the_limit() {
        let table = Addresses::default();
        let admitted = std::sync::atomic::AtomicU64::new(0);
        let (table, admitted) = (&table, &admitted);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    for turn in 0..5_000_u64 {
                        if let Ok(place) = table.take(0, v4(7), &limits(1_000, 3), turn / 5_000) {
                            admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            table.give(place);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.load(std::sync::atomic::Ordering::Relaxed), 1_000);
    }
}
