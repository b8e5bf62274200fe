//! Host names of providers and their addresses: resolved here, published to the workers, never looked up by
//! them.
//!
//! Every host of the config has one published list for as long as the process lives, whatever generation
//! names it. At start and after a reload names without an answer are resolved at once; all are asked again
//! every `REFRESH_EVERY`, those that failed every second. Limits: `RESOLVE_TIMEOUT` a name. Errors: a failure
//! keeps the last answer and is told on stderr once; a name that never had one is told to callers.

use crate::control::tell::tell;
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
    /// The last answer was a failure, which was told.
    is_failing: bool,
}

impl Names {
    /// The published list of a host; the same one each time.
    pub fn addresses(&self, host: &str, port: u16) -> Addresses {
        let mut hosts = self.hosts.borrow_mut();
        let made = || match Addresses::literal(host, port) {
            Some(addresses) => Host { addresses, due: None, is_failing: false },
            None => Host { addresses: Addresses::pending(), due: Some(Instant::now()), is_failing: false },
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
            let failure = match found {
                Ok(Ok(list)) => publish(&addresses, list.collect()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("the resolver did not answer within {} s", RESOLVE_TIMEOUT.as_secs())),
            };
            if let Some(reason) = &failure {
                addresses.publish_failure(reason);
            }
            let again = Instant::now() + if failure.is_none() { REFRESH_EVERY } else { RETRY_EVERY };
            if let Some(host) = self.hosts.borrow_mut().get_mut(&(name.clone(), port)) {
                host.due = Some(again);
                let was_failing = std::mem::replace(&mut host.is_failing, failure.is_some());
                tell_change(&name, was_failing, failure.as_deref());
            }
        }
    }
}

/// Once when a name begins to fail, once when it is found again.
fn tell_change(name: &str, was_failing: bool, failure: Option<&str>) {
    match failure {
        Some(reason) if !was_failing => {
            tell(format_args!(
                "tollgate: the name {name} cannot be resolved: {reason}; it is asked for again"
            ));
        }
        None if was_failing => tell(format_args!("tollgate: the name {name} is resolved again")),
        _ => {}
    }
}

/// What failed, where the list holds nothing.
fn publish(addresses: &Addresses, list: Vec<SocketAddr>) -> Option<String> {
    let unchanged = matches!(&*addresses.current(), Published::Known(known) if **known == *list);
    if !unchanged {
        addresses.publish(list);
    }
    match &*addresses.current() {
        Published::Known(_) => None,
        Published::Failed(reason) => Some(reason.clone()),
        Published::Pending => Some("the resolver has not answered".to_owned()),
    }
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
