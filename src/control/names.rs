//! Host names of providers and their addresses: resolved here, published to the workers, never looked up by
//! them.
//!
//! Every host of the config has one published list for as long as the process lives, whatever generation
//! names it. At start and after a reload names without an answer are resolved at once; all are asked again
//! every `REFRESH_EVERY`, those that failed every second. Limits: `RESOLVE_TIMEOUT` a name. Errors: a failure
//! keeps the last answer; a name that never had one is told to callers.

use crate::net::resolve::{Addresses, Published};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often a name that is known is asked again.
pub const REFRESH_EVERY: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_secs(1);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// All host names that the config has ever named.
#[derive(Default)]
pub struct Names {
    hosts: RefCell<BTreeMap<(String, u16), Host>>,
}

#[derive(Clone)]
struct Host {
    addresses: Addresses,
    /// When it is asked again; none for literal addresses.
    due: Option<Instant>,
}

impl Names {
    /// The published list of a host; the same one each time.
    pub fn addresses(&self, host: &str, port: u16) -> Addresses {
        let mut hosts = self.hosts.borrow_mut();
        let made = || match Addresses::literal(host, port) {
            Some(addresses) => Host { addresses, due: None },
            None => Host { addresses: Addresses::pending(), due: Some(Instant::now()) },
        };
        hosts.entry((host.to_owned(), port)).or_insert_with(made).addresses.clone()
    }

    /// Asks for every name that is due.
    pub async fn resolve_due(&self) {
        let now = Instant::now();
        let is_due = |host: &Host| host.due.is_some_and(|due| due <= now);
        let due: Vec<(String, u16)> = self
            .hosts
            .borrow()
            .iter()
            .filter(|(_, host)| is_due(host))
            .map(|(name, _)| name.clone())
            .collect();
        for (name, port) in due {
            let found =
                tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name.clone(), port))).await;
            let addresses = self.addresses(&name, port);
            let known = match found {
                Ok(Ok(list)) => publish(&addresses, list.collect()),
                Ok(Err(error)) => fail(&addresses, &error.to_string()),
                Err(_) => fail(&addresses, "the resolver did not answer in time"),
            };
            let again = Instant::now() + if known { REFRESH_EVERY } else { RETRY_EVERY };
            if let Some(host) = self.hosts.borrow_mut().get_mut(&(name, port)) {
                host.due = Some(again);
            }
        }
    }
}

fn publish(addresses: &Addresses, list: Vec<SocketAddr>) -> bool {
    let unchanged = matches!(&*addresses.current(), Published::Known(known) if **known == *list);
    if !unchanged {
        addresses.publish(list);
    }
    matches!(&*addresses.current(), Published::Known(_))
}

fn fail(addresses: &Addresses, reason: &str) -> bool {
    addresses.publish_failure(reason);
    false
}

#[cfg(test)]
mod tests {
    use super::Names;
    use crate::net::resolve::Published;

    #[test]
    fn a_name_is_resolved_once_for_all_who_hold_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let names = Names::default();
        let held = names.addresses("localhost", 80);
        let literal = names.addresses("::1", 81);
        runtime.block_on(names.resolve_due());
        assert!(matches!(&*held.current(), Published::Known(list) if !list.is_empty()));
        assert!(matches!(&*literal.current(), Published::Known(list) if list.len() == 1));
        assert!(names.hosts.borrow()[&("localhost".to_owned(), 80)].due.is_some());
    }
}
