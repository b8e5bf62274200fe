//! Runs the gateway: loads the config, starts workers, then follows signals, files and names until the drain
//! has ended.
//!
//! Control is one thread with a tokio runtime of its own, one more that writes the access log, and one that keeps
//! the ledger.
//! SIGHUP or a change of a watched file: load again, publish, or say why not and go on with the old
//! generation. SIGUSR1: open the log anew. SIGTERM, SIGINT: readiness falls, workers stop accepting and end
//! when their last request has; a second one ends the process at once. Errors: `RunError`, before anything
//! serves; later ones are told on stderr and in metrics.

use crate::base::secret::Secret;
use crate::control::admin::place::Place;
use crate::control::admin::{self, Pages};
use crate::control::alerts::Alerts;
use crate::control::alerts::webhook::Outbox;
use crate::control::config::effective::Packed;
use crate::control::config::problem::Problem;
use crate::control::config::{self, Loaded, Mode, Process, Surroundings};
use crate::control::ledger::Ledger;
use crate::control::ledger::settle::{Newest, Prices, Settlement};
use crate::control::limits::{Limited, Selection};
use crate::control::log::AccessLogThread;
use crate::control::metrics::{self, Scrape};
use crate::control::names::Names;
use crate::control::tell::tell;
use crate::control::watch::Watched;
use crate::handler::facts::Counters;
use crate::handler::series::Registry;
use crate::handler::snapshot::{AdminAddress, AdminTls, Snapshot, Workers as WorkerCount};
use crate::handler::worker::Published;
use crate::net::resolve::Addresses;
use crate::policy::limit::plan::Plan;
use crate::policy::limit::reservation::Time;
use crate::server::{self, Bound, Occupied, Shared, StartError, Workers};
use crate::usage::bank::{Bank, Full};
use crate::usage::ledger::{Book, Settings};
use crate::usage::seat::{Directory, Seat};
use arc_swap::ArcSwap;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// Where the config comes from.
pub trait Origin {
    /// Loads it, for the first time or again.
    fn load(&self, surroundings: &dyn Surroundings) -> Result<Loaded, Vec<Problem>>;
}

/// A config file.
pub struct ConfigFile(pub PathBuf);

impl Origin for ConfigFile {
    fn load(&self, surroundings: &dyn Surroundings) -> Result<Loaded, Vec<Problem>> {
        config::load(&self.0, Mode::Run, surroundings)
    }
}

/// What runs, for whoever announces it.
#[derive(Debug)]
pub struct Ready {
    pub listeners: Vec<SocketAddr>,
    /// Those of `listeners` where another process listens, too.
    pub shared: Vec<SocketAddr>,
    pub admin: Option<AdminAddress>,
    pub workers: usize,
    pub driver: &'static str,
}

/// Why the gateway could not start.
#[derive(Debug)]
pub enum RunError {
    /// The config has errors; warnings stand among them.
    Config(Vec<Problem>),
    /// One line: what was tried and what came.
    Start(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Start(line) => f.write_str(line),
            RunError::Config(problems) => problems.iter().try_for_each(|problem| writeln!(f, "{problem}")),
        }
    }
}

/// Runs until the drain has ended. `ready` is called once everything listens.
pub fn run(origin: &dyn Origin, occupied: Occupied, ready: impl FnOnce(&Ready)) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| RunError::Start(format!("the control thread cannot start: {error}")))?;
    let ended = LocalSet::new().block_on(&runtime, async {
        let signals =
            Signals::new().map_err(|error| RunError::Start(format!("signals cannot be handled: {error}")))?;
        let files = raise_file_limit();
        let (control, mut workers, bound) = Control::start(origin, occupied).await?;
        let control = Rc::new(control);
        let admin = control.admin(occupied)?;
        let shared = bound.shared.clone();
        workers.listen(bound).map_err(not_started)?;
        tell_file_limit(files);
        ready(&Ready {
            listeners: control.addresses.clone(),
            shared,
            admin: admin.as_ref().map(|(_, address)| address.clone()),
            workers: workers.choices.len(),
            driver: control.driver,
        });
        if let Some((admin, _)) = admin {
            let pages = Rc::clone(&control) as Rc<dyn Pages>;
            tokio::task::spawn_local(admin::serve(admin, pages, Rc::clone(&control.drained)));
        }
        tokio::task::spawn_local(Rc::clone(&control).resolve());
        control.follow(origin, workers, signals).await
    });
    // Dropped, it would wait for a thread that hangs in the system's resolver.
    runtime.shutdown_background();
    ended
}

/// The state of the control thread.
struct Control {
    live: Live,
    shared: Arc<Shared>,
    registry: RefCell<Registry>,
    log: AccessLogThread,
    /// None: no ledger is kept.
    ledger: Option<Kept>,
    prices: Newest,
    alerts: RefCell<Alerts>,
    outbox: Outbox,
    watched: RefCell<Watched>,
    effective: RefCell<Packed>,
    stale: Cell<bool>,
    generation: Cell<u64>,
    addresses: Vec<SocketAddr>,
    driver: &'static str,
    /// Told as the drain begins.
    drained: Rc<Notify>,
}

/// The ledger, and the seat in its directory.
struct Kept {
    ledger: Ledger,
    directory: PathBuf,
    started: Instant,
    _seat: Seat,
}

/// The process's surroundings, with names that control keeps resolved.
#[derive(Default)]
struct Live {
    names: Names,
}

impl Surroundings for Live {
    fn env(&self, name: &str) -> Option<String> {
        Process.env(name)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Process.read(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        Process.list(directory)
    }

    fn addresses(&self, host: &str, port: u16) -> Addresses {
        self.names.addresses(host, port)
    }
}

impl Control {
    async fn start(origin: &dyn Origin, occupied: Occupied) -> Result<(Control, Workers, Bound), RunError> {
        let live = Live::default();
        let loaded = origin.load(&live).map_err(RunError::Config)?;
        tell_warnings(&loaded.warnings);
        live.names.resolve_due().await;
        let mut snapshot = loaded.snapshot;
        let workers = match snapshot.server.workers {
            WorkerCount::Auto => server::cores().len(),
            WorkerCount::Count(count) => usize::from(count),
        };
        let mut registry = Registry::default();
        let prices = Arc::new(ArcSwap::from_pointee(Prices::of(&snapshot)));
        let State { bank, kept, books } = match &snapshot.ledger {
            Some(settings) => keep_state(settings, workers, &snapshot.plan, &prices),
            None => Bank::in_memory(workers).map(|bank| State { bank, kept: None, books: Vec::new() }),
        }
        .map_err(|error| {
            RunError::Start(format!("the state of limits and ledger cannot be kept: {error}"))
        })?;
        prepare(&mut snapshot, &mut registry, &bank, workers, 1).map_err(RunError::Start)?;
        let asked: Vec<SocketAddr> = snapshot.listeners.iter().map(|listener| listener.address).collect();
        let bound = server::bind(&asked, workers, occupied).map_err(not_started)?;
        let (wish, access) = (snapshot.server.driver, snapshot.log.access.clone());
        let shared = Arc::new(Shared {
            published: Arc::new(Published::new(snapshot)),
            draining: AtomicBool::new(false),
            counters: (0..workers).map(|_| Arc::new(Counters::default())).collect(),
            bank: Arc::new(bank),
        });
        let mut workers = server::start(&shared, workers, wish, books).map_err(not_started)?;
        let driver = workers.choices.first().map_or("none", |choice| choice.driver.name());
        tell_driver(&workers);
        let log = AccessLogThread::start(std::mem::take(&mut workers.logs), access)
            .map_err(|error| RunError::Start(format!("cannot open the access log {error}")))?;
        let outbox = Outbox::start(Arc::clone(&shared.published));
        let control = Control {
            live,
            shared,
            registry: RefCell::new(registry),
            log,
            ledger: kept,
            prices,
            alerts: RefCell::default(),
            outbox,
            watched: RefCell::new(Watched::new(loaded.watched)),
            effective: RefCell::new(loaded.effective.packed()),
            stale: Cell::new(false),
            generation: Cell::new(1),
            addresses: bound.addresses.clone(),
            driver,
            drained: Rc::default(),
        };
        Ok((control, workers, bound))
    }

    fn admin(&self, occupied: Occupied) -> Result<Option<(Place, AdminAddress)>, RunError> {
        let Some(section) = self.shared.published.newest().admin.clone() else { return Ok(None) };
        let bound = match &section.address {
            AdminAddress::Tcp(address) => Place::tcp(*address, occupied),
            AdminAddress::Unix(path) => Place::unix(path, occupied),
        };
        let shown = match &section.address {
            AdminAddress::Tcp(address) => address.to_string(),
            AdminAddress::Unix(path) => path.display().to_string(),
        };
        let admin =
            bound.map_err(|error| RunError::Start(format!("cannot listen on {shown} (admin): {error}")))?;
        let address = admin.tcp_address().map_or(section.address, AdminAddress::Tcp);
        Ok(Some((admin, address)))
    }

    /// Keeps names resolved.
    async fn resolve(self: Rc<Control>) {
        loop {
            self.live.names.ask_due().detach_all();
            tokio::time::sleep(NAMES_EVERY).await;
        }
    }

    async fn follow(
        &self,
        origin: &dyn Origin,
        workers: Workers,
        mut signals: Signals,
    ) -> Result<(), RunError> {
        let mut looked = Instant::now();
        let mut drain_until = None;
        loop {
            let is_draining = self.shared.draining.load(Acquire);
            let pause = if is_draining { DRAIN_EVERY } else { LOOK_EVERY.saturating_sub(looked.elapsed()) };
            match tokio::time::timeout(pause, signals.next()).await {
                Ok(Told::Reload) => self.reload(origin),
                Ok(Told::ReopenLog) => self.log.reopen(&self.shared.published.newest().log.access),
                Ok(Told::Stop) if is_draining => {
                    self.end_records();
                    return Err(stopped());
                }
                Ok(Told::Stop) => drain_until = self.drain(),
                Err(_) => {}
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.look_after_bank();
                if !is_draining {
                    self.look_at_budgets();
                }
                if self.watched.borrow_mut().have_changed() {
                    self.reload(origin);
                }
            }
            if is_draining && workers.have_ended() {
                self.end_records();
                return Ok(());
            }
            if drain_until.is_some_and(|until| Instant::now() >= until) {
                tell("tollgate: drain_timeout_ms has passed; what is still open is cut");
                self.end_records();
                return Ok(());
            }
        }
    }

    /// Returns idle leases, and follows which other processes use the same bank.
    fn look_after_bank(&self) {
        let bank = &self.shared.bank;
        bank.sweep();
        let Some(Kept { directory, started, .. }) = &self.ledger else { return };
        let looked = Directory::try_enter(directory)
            .and_then(|entered| entered.map_or(Ok(()), |entered| bank.look_for_others(&entered)));
        if let Err(error) = looked {
            tell(format_args!("tollgate: other processes of {} are not seen: {error}", directory.display()));
        }
        if started.elapsed() >= KNOWN_AFTER {
            bank.begin_to_lease();
        }
    }

    /// Tells of budgets that are spent so far that somebody wants to know. Not as it drains: its successor does.
    fn look_at_budgets(&self) {
        let serving = self.shared.published.newest();
        let limited = Limited { plan: &serving.plan, bank: &self.shared.bank, time: Time::now() };
        let send = |message| {
            if serving.webhook.is_some() {
                self.outbox.send(message);
            }
        };
        let mut alerts = self.alerts.borrow_mut();
        alerts.look(&limited, serving.generation, send);
        let deviations = self.ledger.iter().flat_map(|kept| kept.ledger.deviations());
        deviations.for_each(|deviation| alerts.deviate(&deviation, serving.baseline, limited.time, send));
    }

    /// Writes what is left of both.
    fn end_records(&self) {
        if let Some(Kept { ledger, .. }) = &self.ledger
            && !ledger.end(LEDGER_END_MAX)
        {
            tell(
                "tollgate: the ledger cannot be written; what is missing is in its slots, for the next start",
            );
        }
        if !self.log.end(LOG_END_MAX) {
            tell("tollgate: the access log is stuck in a write; its last records are lost");
        }
    }

    fn reload(&self, origin: &dyn Origin) {
        let loaded = match origin.load(&self.live) {
            Ok(loaded) => loaded,
            Err(problems) => {
                self.stale.set(true);
                let generation = self.generation.get();
                tell(format_args!("tollgate: the new config is refused, generation {generation} goes on:"));
                problems.iter().for_each(tell);
                return;
            }
        };
        tell_warnings(&loaded.warnings);
        let serving = self.shared.published.newest();
        let mut snapshot = loaded.snapshot;
        if let Some(what) = needs_restart(&serving, &snapshot) {
            self.stale.set(true);
            tell(format_args!(
                "tollgate: the new config changes {what}, which needs a restart; the old one goes on"
            ));
            return;
        }
        let generation = self.generation.get() + 1;
        let (registry, workers) = (&mut self.registry.borrow_mut(), self.shared.counters.len());
        if let Err(what) = prepare(&mut snapshot, registry, &self.shared.bank, workers, generation) {
            self.stale.set(true);
            tell(format_args!("tollgate: {what}; the old config goes on"));
            return;
        }
        if snapshot.log.access != serving.log.access {
            self.log.reopen(&snapshot.log.access);
        }
        self.generation.set(generation);
        self.stale.set(false);
        *self.watched.borrow_mut() = Watched::new(loaded.watched);
        *self.effective.borrow_mut() = loaded.effective.packed();
        self.prices.store(Arc::new(Prices::of(&snapshot)));
        self.shared.published.publish(snapshot);
        // Leases of a limit that has become lower may be more than it allows.
        self.shared.bank.call_leases_back();
        tell(format_args!("tollgate: generation {generation} serves"));
    }

    /// Begins the drain; when it must have ended, where that is limited.
    fn drain(&self) -> Option<Instant> {
        self.shared.draining.store(true, Release);
        self.drained.notify_one();
        tell("tollgate: draining; a second signal ends at once");
        let limit = self.shared.published.newest().server.drain_timeout;
        (!limit.is_zero()).then(|| Instant::now() + limit)
    }
}

impl Pages for Control {
    fn is_ready(&self) -> bool {
        !self.shared.draining.load(Acquire)
    }

    fn metrics(&self) -> String {
        let serving = self.shared.published.newest();
        metrics::page(&Scrape {
            counters: &self.shared.counters,
            registry: &self.registry.borrow(),
            generation: self.generation.get(),
            config_stale: self.stale.get(),
            driver: self.driver,
            draining: self.shared.draining.load(Acquire),
            log_lines_lost: self.log.lines_lost(),
            ledger: self.ledger.as_ref().map(|kept| kept.ledger.standing()),
            limits: Limited { plan: &serving.plan, bank: &self.shared.bank, time: Time::now() },
            alerts: &self.alerts.borrow(),
            sent: self.outbox.sent(),
        })
    }

    fn ledger(&self) -> Option<PathBuf> {
        self.shared.published.newest().ledger.as_ref().map(|settings| settings.directory.clone())
    }

    fn limits(&self, selection: &Selection) -> String {
        let serving = self.shared.published.newest();
        Limited { plan: &serving.plan, bank: &self.shared.bank, time: Time::now() }.json(selection)
    }

    fn config(&self) -> String {
        self.effective.borrow().text()
    }

    fn token(&self) -> Option<Secret> {
        self.shared.published.newest().admin.as_ref().and_then(|admin| admin.token.clone())
    }

    fn tls(&self) -> Option<AdminTls> {
        self.shared.published.newest().admin.as_ref().and_then(|admin| admin.tls.clone())
    }
}

/// What is kept of limits and requests.
struct State {
    bank: Bank,
    kept: Option<Kept>,
    /// One for each worker, where a ledger is kept.
    books: Vec<Book>,
}

/// Takes a seat in the state directory, settles what dead processes have left there, starts the ledger's thread and
/// opens the bank.
fn keep_state(settings: &Settings, workers: usize, plan: &Plan, prices: &Newest) -> io::Result<State> {
    let directory = Directory::enter(&settings.directory)?;
    let seat = directory.sit()?;
    let settlement = Box::new(Settlement { prices: Arc::clone(prices) });
    // Before the bank is opened, which may make it anew: what the dead have held is known by the old places.
    let (ledger, books) = Ledger::start(settings, &directory, &seat, workers, settlement)?;
    let bank = Bank::open(&directory, &seat, workers, plan.limits.len())?;
    let kept = Kept { ledger, directory: settings.directory.clone(), started: Instant::now(), _seat: seat };
    Ok(State { bank, kept: Some(kept), books })
}

/// What a compiled snapshot still lacks: its number and the counters of its targets.
fn prepare(
    snapshot: &mut Snapshot,
    registry: &mut Registry,
    bank: &Bank,
    workers: usize,
    generation: u64,
) -> Result<(), String> {
    snapshot.plan.attach(bank).map_err(|Full { capacity }| {
        format!("the bank has room for {capacity} limits, which are taken; a restart makes it larger")
    })?;
    snapshot.generation = generation;
    snapshot.series = registry.series(workers, &snapshot.routes, &snapshot.providers);
    Ok(())
}

/// What of a new config cannot be changed while the process runs.
fn needs_restart(serving: &Snapshot, new: &Snapshot) -> Option<&'static str> {
    let addresses = |snapshot: &Snapshot| -> Vec<SocketAddr> {
        snapshot.listeners.iter().map(|listener| listener.address).collect()
    };
    let admin = |snapshot: &Snapshot| snapshot.admin.as_ref().map(|admin| admin.address.clone());
    let has_tls = |snapshot: &Snapshot| -> Vec<bool> {
        snapshot.listeners.iter().map(|listener| listener.tls.is_some()).collect()
    };
    match () {
        () if addresses(serving) != addresses(new) => Some("the listeners"),
        () if has_tls(serving) != has_tls(new) => Some("whether a listener has TLS"),
        () if admin(serving) != admin(new) => Some("the admin address"),
        () if serving.server.workers != new.server.workers => Some("the number of workers"),
        () if serving.server.driver != new.server.driver => Some("the driver"),
        () if serving.ledger != new.ledger => Some("the ledger"),
        () => None,
    }
}

enum Told {
    Reload,
    ReopenLog,
    Stop,
}

struct Signals {
    hangup: Signal,
    reopen: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.reopen.recv() => Told::ReopenLog,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
        }
    }
}

/// Streams need descriptors: two each. The soft limit is raised to the hard one, and that to `FILES_WANTED`
/// where the process may. What there is then; none: no limit.
fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map(|hard| hard.max(FILES_WANTED));
    for maximum in [wanted, limit.maximum] {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
            return maximum;
        }
    }
    limit.current
}

fn tell_file_limit(files: Option<u64>) {
    if let Some(files) = files
        && files < FILES_WANTED
    {
        tell(format_args!(
            "tollgate: only {files} files may be open, about {} streams; raise it with `ulimit -Hn {FILES_WANTED}` or \
             LimitNOFILE={FILES_WANTED} in the service's unit",
            files / 2
        ));
    }
}

fn tell_warnings(warnings: &[Problem]) {
    warnings.iter().for_each(tell);
}

fn tell_driver(workers: &Workers) {
    let Some(choice) = workers.choices.first() else { return };
    for (driver, error) in &choice.refused {
        tell(format_args!("tollgate: the kernel refuses {}: {error}", driver.name()));
    }
}

fn not_started(error: StartError) -> RunError {
    RunError::Start(error.to_string())
}

fn stopped() -> RunError {
    RunError::Start("ended at once by a second signal; open requests were cut".to_owned())
}

/// Descriptors for 10,000 streams and what else is open.
const FILES_WANTED: u64 = 20_500;
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// A reader of the log that is stuck holds up the end of the process for so long.
const LOG_END_MAX: Duration = Duration::from_secs(1);
/// A disk that is stuck or full holds it up for so long.
const LEDGER_END_MAX: Duration = Duration::from_secs(5);
/// Every process of a state directory looks for others each second: then all know of this one.
const KNOWN_AFTER: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(400);
const NAMES_EVERY: Duration = Duration::from_millis(500);
