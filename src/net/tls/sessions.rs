//! Sessions that a client may take up again, kept per worker: no lock and no cache line is shared.
//!
//! rustls asks for one store per config and calls it from any thread; here each thread has its own behind it.
//! A session belongs to the config that made it, so that one set of roots never vouches for another's server.
//! Limits: `ORIGINS_MAX` servers per config and worker, eight tickets each (rustls' number); the oldest goes
//! first. The store of a config that is gone goes when the next one is made.

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

/// Servers whose sessions are kept, per config and worker.
const ORIGINS_MAX: usize = 32;

/// Tickets per server, fixed by rustls, whose constructor counts in tickets.
const TICKETS_PER_ORIGIN: usize = 8;

/// The store of one config.
#[derive(Debug, Default)]
pub struct WorkerSessions {
    config: Arc<()>,
}

impl WorkerSessions {
    fn of_this_thread(&self) -> Rc<ClientSessionMemoryCache> {
        STORES.with_borrow_mut(|stores| {
            if let Some((_, store)) =
                stores.iter().find(|(config, _)| config.as_ptr() == Arc::as_ptr(&self.config))
            {
                return Rc::clone(store);
            }
            // The weak reference keeps the address from being used again, so that it names one config for
            // ever.
            stores.retain(|(config, _)| config.strong_count() > 0);
            let store = Rc::new(ClientSessionMemoryCache::new(ORIGINS_MAX * TICKETS_PER_ORIGIN));
            stores.push((Arc::downgrade(&self.config), Rc::clone(&store)));
            store
        })
    }
}

impl ClientSessionStore for WorkerSessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.of_this_thread().set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.of_this_thread().kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.of_this_thread().set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.of_this_thread().tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.of_this_thread().remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.of_this_thread().insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.of_this_thread().take_tls13_ticket(server_name)
    }
}

type Store = (Weak<()>, Rc<ClientSessionMemoryCache>);

thread_local! {
    static STORES: RefCell<Vec<Store>> = const { RefCell::new(Vec::new()) };
}
