//! Runs a main future and what it spawns in a simulated world, to its end or to a bound, and tells how it
//! went.

use crate::base::clock::{self, Instant};
use crate::base::rng;
use crate::net::deadline;
use crate::net::memory::faults::Faults;
use crate::net::memory::tasks::{Taken, Tasks};
use crate::net::memory::trace::Note;
use crate::net::memory::world::World;
use crate::net::{page, runtime};
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A run that has not begun.
pub struct Simulation {
    seed: u64,
    faults: Faults,
    steps_max: u64,
    time_max: Duration,
}

/// How a run went.
#[must_use = "a run may have failed: call `finished`"]
#[derive(Debug)]
pub struct Outcome<T = ()> {
    pub seed: u64,
    /// What the main future gave, or why there is nothing.
    pub result: Result<T, Failure>,
    /// Virtual time used.
    pub elapsed: Duration,
    /// Polls made.
    pub steps: u64,
    /// The hash of everything that happened: equal for equal seeds.
    pub trace: u64,
    /// The tasks that were alive when the run ended, without the main future.
    pub tasks_left: Vec<String>,
    /// Sockets that were open then.
    pub sockets_open: usize,
    /// Connections asked for.
    pub connections: u64,
    /// Tasks that ended in a panic.
    pub panics: u64,
    /// Pages rented more than before the run, when all its tasks had been dropped.
    pub pages_rented: usize,
}

/// Why the main future did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No task is ready and no timer is set.
    Deadlock,
    /// `steps_max` polls were made.
    StepsMax(u64),
    /// The next timer is due after `time_max`.
    TimeMax(Duration),
    /// The main future panicked, with this message.
    Panicked(String),
}

impl Simulation {
    /// A run whose scheduling, delays and `base::rng` are drawn from `seed`.
    pub fn new(seed: u64, faults: Faults) -> Simulation {
        Simulation { seed, faults, steps_max: 1_000_000, time_max: Duration::from_secs(3600) }
    }

    /// Polls after which the run is given up; 1,000,000 unless told.
    pub fn steps_max(self, steps_max: u64) -> Simulation {
        Simulation { steps_max, ..self }
    }

    /// Virtual time after which the run is given up; an hour unless told.
    pub fn time_max(self, time_max: Duration) -> Simulation {
        Simulation { time_max, ..self }
    }

    /// Runs until `main` ends; tasks that are left are then dropped. Blocks the thread for the real time that
    /// takes.
    ///
    /// # Panics
    /// Inside another runtime.
    pub fn run<T>(self, main: impl Future<Output = T>) -> Outcome<T> {
        assert!(runtime::driver().is_none(), "a simulation cannot run inside another runtime");
        let (panics_before, pages_before) = (runtime::panics(), page::rented_pages());
        let (tasks, waker) = Tasks::new();
        let world = Rc::new(World::new(self.seed, self.faults, tasks));
        let entered = Entered::new(&world, self.seed);
        let mut run = Run { world: &world, steps: 0, steps_max: self.steps_max, ends: START + self.time_max };
        let mut main = Box::pin(main);
        let result = run.drive(main.as_mut(), &waker);
        let mut outcome = Outcome {
            seed: self.seed,
            result,
            elapsed: clock::now() - START,
            steps: run.steps,
            trace: world.trace(),
            tasks_left: world.tasks.names(),
            sockets_open: world.sockets.get(),
            connections: world.dials.get(),
            panics: 0,
            pages_rented: 0,
        };
        drop_quietly(main);
        drop(entered);
        outcome.panics = runtime::panics() - panics_before;
        outcome.pages_rented = page::rented_pages().saturating_sub(pages_before);
        outcome
    }
}

impl<T> Outcome<T> {
    /// What the main future gave.
    ///
    /// # Panics
    /// Where it gave nothing, a task panicked or a page is still rented; the message names the seed and the
    /// tasks.
    #[track_caller]
    pub fn finished(self) -> T {
        assert!(self.result.is_ok() && self.panics == 0 && self.pages_rented == 0, "{self}");
        match self.result {
            Ok(value) => value,
            Err(failure) => unreachable!("checked above: {failure}"),
        }
    }
}

impl<T> fmt::Display for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { seed, elapsed, steps, panics, pages_rented, sockets_open, .. } = self;
        match &self.result {
            Ok(_) => write!(f, "seed {seed}: main ended")?,
            Err(failure) => write!(f, "seed {seed}: {failure}")?,
        }
        write!(f, " after {elapsed:?} of virtual time and {steps} steps; {panics} tasks panicked, ")?;
        write!(f, "{pages_rented} pages still rented, {sockets_open} sockets open")?;
        for task in self.tasks_left.iter().take(TASKS_LISTED_MAX) {
            write!(f, "\n  {task}")?;
        }
        let unlisted = self.tasks_left.len().saturating_sub(TASKS_LISTED_MAX);
        if unlisted > 0 {
            write!(f, "\n  and {unlisted} tasks more")?;
        }
        write!(f, "\nrun this seed alone: TOLLGATE_SEED={seed} (TOLLGATE_TRACE=1 prints what happens)")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Deadlock => write!(f, "deadlock: no task is ready and no timer is set"),
            Failure::StepsMax(steps) => write!(f, "main has not ended within {steps} steps"),
            Failure::TimeMax(time) => write!(f, "main has not ended within {time:?} of virtual time"),
            Failure::Panicked(message) => write!(f, "main panicked: {message}"),
        }
    }
}

const TASKS_LISTED_MAX: usize = 20;

/// Where the virtual clock starts: not at 0, so that code may look an hour back.
const START: Instant = Instant(3_600_000_000);

/// Wall time at `START`: 2026-01-01T00:00:00Z.
const UNIX_MS_AT_START: u64 = 1_767_225_600_000;

struct Run<'a> {
    world: &'a World,
    steps: u64,
    steps_max: u64,
    ends: Instant,
}

impl Run<'_> {
    fn drive<F: Future>(&mut self, mut main: Pin<&mut F>, waker: &Waker) -> Result<F::Output, Failure> {
        let world = self.world;
        loop {
            world.fire_due();
            let Some(taken) = world.take_ready() else {
                self.wait()?;
                continue;
            };
            if self.steps == self.steps_max {
                return Err(Failure::StepsMax(self.steps_max));
            }
            self.steps += 1;
            match taken {
                Taken::Task(id, mut work, waker) => {
                    world.note(Note::Poll { task: id.number });
                    // A panic does not come this far: `runtime::spawn` catches and counts it.
                    match work.as_mut().poll(&mut Context::from_waker(&waker)) {
                        Poll::Pending => world.tasks.put_back(id, work),
                        Poll::Ready(()) => {
                            world.note(Note::End { task: id.number });
                            world.tasks.remove(id);
                        }
                    }
                }
                Taken::Main => {
                    world.note(Note::Poll { task: 0 });
                    let poll = || main.as_mut().poll(&mut Context::from_waker(waker));
                    match catch_unwind(AssertUnwindSafe(poll)) {
                        Ok(Poll::Pending) => {}
                        Ok(Poll::Ready(output)) => return Ok(output),
                        Err(panic) => return Err(Failure::Panicked(message_of(&*panic))),
                    }
                }
            }
            world.spend();
        }
    }

    /// Moves the clock to the next timer.
    fn wait(&self) -> Result<(), Failure> {
        let due = self.world.next_due().ok_or(Failure::Deadlock)?;
        if due > self.ends {
            return Err(Failure::TimeMax(self.ends - START));
        }
        clock::set_virtual(due.max(clock::now()));
        Ok(())
    }
}

/// Gives the thread its world, and takes it away with all that lives in it.
struct Entered {
    world: Rc<World>,
    seed_after: u64,
}

impl Entered {
    fn new(world: &Rc<World>, seed: u64) -> Entered {
        let seed_after = rng::bits();
        clock::go_virtual(START, UNIX_MS_AT_START - START.0 / 1000);
        deadline::begin(START);
        rng::seed(seed);
        World::enter(Some(Rc::clone(world)));
        Entered { world: Rc::clone(world), seed_after }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        while let Some(work) = self.world.tasks.take_last() {
            drop_quietly(work);
        }
        self.world.listeners.clear();
        self.world.timers.clear();
        World::enter(None);
        clock::go_real();
        deadline::begin(Instant::default());
        rng::seed(self.seed_after);
    }
}

/// Drops a future; a panic in that is counted like one in a task.
fn drop_quietly<F>(future: Pin<Box<F>>)
where
    F: ?Sized + Future,
{
    if catch_unwind(AssertUnwindSafe(|| drop(future))).is_err() {
        runtime::count_panic();
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_string())
}
