//! The addresses of a host name as control publishes them: a worker reads the table and never resolves a name
//! itself.
//!
//! Shape: control holds an `Addresses` per host and publishes into it; each origin of a snapshot holds a
//! clone, so that a new answer of DNS reaches the workers without a new snapshot. Reading is one atomic load,
//! done when a connection is opened. A literal address is published from the start and never changes. Errors:
//! a failed resolution keeps what was known; only a name that never resolved has no addresses. Absent: the
//! resolver itself, its cache times and its retries (control).

use arc_swap::ArcSwap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A shared, published list of addresses. Cloning gives another hold on the same list.
#[derive(Clone, Debug)]
pub struct Addresses(Arc<ArcSwap<Published>>);

/// What is known of a host's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// Control has not answered yet.
    Pending,
    /// At least one address, in the resolver's order.
    Known(Box<[SocketAddr]>),
    /// The name never resolved; the reason of the last attempt.
    Failed(String),
}

impl Addresses {
    /// A list that control is still to publish.
    pub fn pending() -> Addresses {
        Addresses(Arc::new(ArcSwap::from_pointee(Published::Pending)))
    }

    /// A list that is known from the start.
    pub fn known(list: impl Into<Box<[SocketAddr]>>) -> Addresses {
        let addresses = Addresses::pending();
        addresses.publish(list);
        addresses
    }

    /// The list of a host that is written as an address (`192.0.2.1`, `::1`, `[::1]`); none for a name.
    pub fn literal(host: &str, port: u16) -> Option<Addresses> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let address: IpAddr = bare.parse().ok()?;
        Some(Addresses::known([SocketAddr::new(address, port)]))
    }

    /// Replaces the list. An empty one counts as a failed resolution.
    pub fn publish(&self, list: impl Into<Box<[SocketAddr]>>) {
        let list = list.into();
        if list.is_empty() {
            return self.publish_failure("the name has no addresses");
        }
        self.0.store(Arc::new(Published::Known(list)));
    }

    /// Says that the name did not resolve. Addresses that were known stay.
    pub fn publish_failure(&self, reason: &str) {
        if !matches!(**self.0.load(), Published::Known(_)) {
            self.0.store(Arc::new(Published::Failed(reason.to_owned())));
        }
    }

    /// Somebody beside the caller holds this list.
    pub fn is_held_elsewhere(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// What is published now.
    pub fn current(&self) -> Arc<Published> {
        self.0.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::{Addresses, Published};
    use std::net::SocketAddr;

    #[test]
    fn literal_hosts_are_known_at_once_and_names_are_not_literal() {
        let known =
            |text: &str| Published::Known(Box::new([text.parse::<SocketAddr>().expect("an address")]));
        for (host, expected) in [
            ("192.0.2.1", Some(known("192.0.2.1:443"))),
            ("::1", Some(known("[::1]:443"))),
            ("[::1]", Some(known("[::1]:443"))),
            ("api.example.com", None),
            ("[api.example.com]", None),
            ("192.0.2.1.", None),
            ("", None),
        ] {
            let got = Addresses::literal(host, 443).map(|addresses| (*addresses.current()).clone());
            assert_eq!(got, expected, "{host}");
        }
    }

    #[test]
    fn a_failure_keeps_the_addresses_that_were_known() {
        let addresses = Addresses::pending();
        let seen_by_a_worker = addresses.clone();
        addresses.publish_failure("no such name");
        assert_eq!(*seen_by_a_worker.current(), Published::Failed("no such name".to_owned()));
        addresses.publish([SocketAddr::from(([192, 0, 2, 1], 443))]);
        let known = seen_by_a_worker.current();
        addresses.publish_failure("timed out");
        addresses.publish([]);
        assert_eq!(seen_by_a_worker.current(), known);
    }
}
