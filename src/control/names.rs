//! Host names of providers and their addresses: resolved here, published to the workers, never looked up by
//! them.
//!
//! Every host has one published list for as long as somebody holds it, whatever generation names it. At start
//! and after a reload names without an answer are resolved at once; all are asked again every
//! `REFRESH_EVERY`, those that failed every second. Names are asked for side by side, each by one thread at
//! most, so that one whose server is silent holds up no other.
//! Limits: `LOOKUPS_MAX` threads; `RESOLVE_TIMEOUT` a name, after which it counts as failed. The system's
//! resolver cannot be stopped: its thread ends by itself, what it says then still counts, and no other asks for
//! that name before. Errors: a failure keeps the last answer and is told on stderr once; a name that never had
//! one is told to callers.

use crate::control::tell::tell;
use crate::net::resolve::{Addresses, Published};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How often a name that is known is asked again.
pub const REFRESH_EVERY: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_secs(1);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// So many names may have silent servers before others wait for them.
const LOOKUPS_MAX: usize = 64;

/// All host names that somebody holds.
#[derive(Clone)]
pub struct Names {
    hosts: Rc<RefCell<BTreeMap<Name, Host>>>,
    lookups: Arc<Semaphore>,
    /// The system's resolver, which blocks, and how long it is waited for.
    resolver: Resolver,
    timeout: Duration,
}

type Name = (String, u16);
type Resolver = Arc<dyn Fn(&Name) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

struct Host {
    addresses: Addresses,
    /// When it is asked again; none for literal addresses, and while it is being asked.
    due: Option<Instant>,
    /// The last answer was a failure, which was told.
    is_failing: bool,
    is_asked: bool,
}

impl Default for Names {
    fn default() -> Names {
        let system = |(name, port): &Name| Ok((name.as_str(), *port).to_socket_addrs()?.collect());
        Names::new(Arc::new(system), RESOLVE_TIMEOUT)
    }
}

impl Names {
    fn new(resolver: Resolver, timeout: Duration) -> Names {
        Names { hosts: Rc::default(), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)), resolver, timeout }
    }

    /// The published list of a host; the same one each time.
    pub fn addresses(&self, host: &str, port: u16) -> Addresses {
        let mut hosts = self.hosts.borrow_mut();
        let made = || {
            let literal = Addresses::literal(host, port);
            let due = literal.is_none().then(Instant::now);
            let addresses = literal.unwrap_or_else(Addresses::pending);
            Host { addresses, due, is_failing: false, is_asked: false }
        };
        hosts.entry((host.to_owned(), port)).or_insert_with(made).addresses.clone()
    }

    /// Asks for every name that is due and waits for the answers, for `RESOLVE_TIMEOUT` at most.
    pub async fn resolve_due(&self) {
        let mut asked = self.ask_due();
        let _ = timeout(self.timeout, async { while asked.join_next().await.is_some() {} }).await;
        // A set that is dropped would end its tasks.
        asked.detach_all();
    }

    /// Begins to ask for every name that is due; names that nobody holds any more are forgotten. Wants a
    /// `LocalSet` around it.
    pub fn ask_due(&self) -> JoinSet<()> {
        let mut asked = JoinSet::new();
        let now = Instant::now();
        let mut hosts = self.hosts.borrow_mut();
        hosts.retain(|_, host| host.is_asked || host.addresses.is_held_elsewhere());
        for (name, host) in hosts.iter_mut().filter(|(_, host)| host.due.is_some_and(|due| due <= now)) {
            (host.due, host.is_asked) = (None, true);
            asked.spawn_local(self.clone().ask(name.clone()));
        }
        asked
    }

    async fn ask(self, name: Name) {
        let lookup = async {
            let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
            let (resolver, name) = (Arc::clone(&self.resolver), name.clone());
            let lookup = tokio::task::spawn_blocking(move || {
                let found = resolver(&name);
                drop(place);
                found
            });
            lookup.await.map_err(io::Error::other)?
        };
        let mut lookup = std::pin::pin!(lookup);
        let found = match timeout(self.timeout, &mut lookup).await {
            Ok(found) => found,
            Err(_) => {
                let late = format!("the resolver did not answer within {:?}", self.timeout);
                self.answered(&name, Err(io::Error::other(late)));
                lookup.await
            }
        };
        self.answered(&name, found);
        if let Some(host) = self.hosts.borrow_mut().get_mut(&name) {
            let pause = if host.is_failing { RETRY_EVERY } else { REFRESH_EVERY };
            (host.due, host.is_asked) = (Some(Instant::now() + pause), false);
        }
    }

    fn answered(&self, name: &Name, found: io::Result<Vec<SocketAddr>>) {
        let mut hosts = self.hosts.borrow_mut();
        let Some(host) = hosts.get_mut(name) else { return };
        let failure = match found {
            Ok(list) => publish(&host.addresses, list),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = &failure {
            host.addresses.publish_failure(reason);
        }
        let was_failing = std::mem::replace(&mut host.is_failing, failure.is_some());
        tell_change(&name.0, was_failing, failure.as_deref());
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
    use super::{LOOKUPS_MAX, Name, Names};
    use crate::net::resolve::{Addresses, Published};
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;
    use tokio::task::LocalSet;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let out = LocalSet::new().block_on(&runtime, work);
        runtime.shutdown_background();
        out
    }

    fn is_known(addresses: &Addresses) -> bool {
        matches!(&*addresses.current(), Published::Known(list) if !list.is_empty())
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let wait = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}"));
    }

    #[test]
    fn a_name_is_resolved_once_for_all_who_hold_it_and_forgotten_after_them() {
        let names = Names::default();
        let held = names.addresses("localhost", 80);
        let literal = names.addresses("::1", 81);
        run(names.resolve_due());
        assert!(is_known(&held) && is_known(&literal));
        assert!(names.hosts.borrow()[&("localhost".to_owned(), 80)].due.is_some());
        drop((held, literal));
        run(async { assert!(names.ask_due().is_empty()) });
        assert!(names.hosts.borrow().is_empty());
    }

    /// A resolver for which names that begin with `silent` have a silent server until the gate is open.
    #[derive(Default)]
    struct HalfSilent {
        threads: AtomicUsize,
        gate: OnceLock<()>,
    }

    /// Opens the gate when it is dropped, also by a test that fails: its runtime waits for the threads.
    struct Opens<'a>(&'a HalfSilent);

    impl Drop for Opens<'_> {
        fn drop(&mut self) {
            let _ = self.0.gate.set(());
        }
    }

    fn names(resolver: &Arc<HalfSilent>, timeout: Duration) -> Names {
        let resolver = Arc::clone(resolver);
        let resolve = move |(name, port): &Name| {
            if name.starts_with("silent") {
                resolver.threads.fetch_add(1, SeqCst);
                resolver.gate.wait();
            }
            Ok(vec![([192, 0, 2, 1], *port).into()])
        };
        Names::new(Arc::new(resolve), timeout)
    }

    fn several(names: &Names, word: &str, count: usize) -> Vec<Addresses> {
        (0..count).map(|at| names.addresses(&format!("{word}{at}"), 80)).collect()
    }

    #[test]
    fn names_whose_server_is_silent_hold_up_no_other() {
        let resolver = Arc::default();
        run(async {
            let names = names(&resolver, Duration::from_secs(600));
            let gate = Opens(&resolver);
            let silent = several(&names, "silent", LOOKUPS_MAX - 1);
            let others = several(&names, "other", 10);
            names.ask_due().detach_all();
            until("the others are resolved", || others.iter().all(is_known)).await;
            let later = names.addresses("later", 80);
            names.ask_due().detach_all();
            until("what a reload names is resolved", || is_known(&later)).await;
            assert!(silent.iter().all(|addresses| *addresses.current() == Published::Pending));
            drop(gate);
            until("all are resolved", || silent.iter().all(is_known)).await;
        });
        assert_eq!(resolver.threads.load(SeqCst), LOOKUPS_MAX - 1);
    }

    #[test]
    fn a_silent_name_fails_in_time_takes_one_thread_and_may_answer_late() {
        let resolver = Arc::default();
        run(async {
            let names = names(&resolver, Duration::from_millis(1));
            let gate = Opens(&resolver);
            let silent = several(&names, "silent", LOOKUPS_MAX + 1);
            names.resolve_due().await;
            let has_failed = |addresses: &Addresses| matches!(*addresses.current(), Published::Failed(_));
            until("they have failed", || silent.iter().all(has_failed)).await;
            until("each has a thread", || resolver.threads.load(SeqCst) == LOOKUPS_MAX).await;
            assert!(names.ask_due().is_empty(), "one is asked for by a second thread");
            assert_eq!(resolver.threads.load(SeqCst), LOOKUPS_MAX, "one past the bound has a thread");
            drop(gate);
            until("all are resolved", || silent.iter().all(is_known)).await;
        });
        assert_eq!(resolver.threads.load(SeqCst), LOOKUPS_MAX + 1);
    }
}
