//! Runs a worker's tasks: starts the runtime that fits, spawns, sleeps. The same calls on every driver.
//!
//! `run` blocks the thread until its main future ends. The driver is the first that the kernel grants, in the
//! order ring with COOP_TASKRUN, plain ring, epoll (`Driver`); what was refused and why is handed to the
//! caller to be reported. A task that panics ends alone: the panic is caught, counted (`panics`) and its
//! message is kept by the panic hook.

use crate::base::clock;
use crate::net::{deadline, kernel, memory};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// How a thread waits for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring with COOP_TASKRUN (kernel 5.19).
    RingCoop,
    /// io_uring without flags: about a third more CPU.
    Ring,
    /// epoll, where io_uring is forbidden or absent.
    Epoll,
    /// The simulation: no sockets at all.
    Memory,
}

impl Driver {
    /// The name in logs, metrics and the `TOLLGATE_DRIVER` switch of the tests.
    pub fn name(self) -> &'static str {
        match self {
            Driver::RingCoop => "ring-coop",
            Driver::Ring => "ring",
            Driver::Epoll => "epoll",
            Driver::Memory => "memory",
        }
    }
}

/// Which drivers may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wish {
    /// The best that the kernel grants.
    #[default]
    Any,
    /// A ring or nothing.
    Ring,
    /// epoll only.
    Epoll,
}

/// The driver that was granted, and what was refused before it.
#[derive(Debug)]
pub struct Choice {
    pub driver: Driver,
    pub refused: Vec<(Driver, io::Error)>,
}

/// Runs `main` on this thread until it ends, with the best driver that `wish` and the kernel allow.
/// `chosen` hears which one that is before `main` starts. Errors: every allowed driver was refused.
pub fn run<F: Future<Output = ()>>(
    wish: Wish,
    chosen: impl FnOnce(Choice),
    main: impl FnOnce() -> F,
) -> io::Result<()> {
    let (runtime, choice) = kernel::Runtime::start(wish)?;
    KIND.set(Some(Kind::Kernel));
    DRIVER.set(Some(choice.driver));
    chosen(choice);
    runtime.block_on(async {
        spawn(deadline::watch());
        let mut main = pin!(main());
        poll_fn(|cx| {
            clock::forget_lately();
            main.as_mut().poll(cx)
        })
        .await;
    });
    KIND.set(None);
    DRIVER.set(None);
    Ok(())
}

/// The driver of this thread; none outside a runtime.
pub fn driver() -> Option<Driver> {
    DRIVER.get()
}

/// Starts a task on this thread. A panic in it ends it alone. Without a runtime the task is dropped.
#[track_caller]
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    let task = Guarded { task };
    match KIND.get() {
        Some(Kind::Kernel) => kernel::spawn(task),
        Some(Kind::Memory) => memory::spawn(task),
        None => drop(task),
    }
}

/// Ends after `after`. May be dropped while it waits.
pub async fn sleep(after: Duration) {
    match KIND.get() {
        Some(Kind::Kernel) => kernel::sleep(after).await,
        Some(Kind::Memory) => memory::sleep(after).await,
        None => {}
    }
}

/// A wait that is repeated: allocates the first time only, where `sleep` does each time.
#[derive(Default)]
pub struct Timer {
    kernel: Option<kernel::Alarm>,
}

impl Timer {
    /// Ends after `after`. May be dropped while it waits.
    pub async fn wait(&mut self, after: Duration) {
        match KIND.get() {
            Some(Kind::Kernel) => kernel::sleep_again(&mut self.kernel, after).await,
            Some(Kind::Memory) => memory::sleep(after).await,
            None => {}
        }
    }
}

/// Tasks of this thread that ended in a panic. Reads 0 in every test but the one that panics.
pub fn panics() -> u64 {
    PANICS.get()
}

/// Counts a panic that was caught.
pub(in crate::net) fn count_panic() {
    PANICS.set(PANICS.get() + 1);
}

/// Says that this thread belongs to the simulation from now on (or to nobody).
pub(in crate::net) fn enter_memory(inside: bool) {
    KIND.set(inside.then_some(Kind::Memory));
    DRIVER.set(inside.then_some(Driver::Memory));
}

/// Whether sockets of this thread are those of the simulation.
pub(in crate::net) fn is_memory() -> bool {
    matches!(KIND.get(), Some(Kind::Memory))
}

#[derive(Clone, Copy)]
enum Kind {
    Kernel,
    Memory,
}

pin_project_lite::pin_project! {
    /// A task whose panic ends nothing but itself.
    struct Guarded<F> {
        #[pin]
        task: F,
    }
}

impl<F: Future<Output = ()>> Future for Guarded<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.project().task;
        clock::forget_lately();
        // The task is dropped right after a panic, so nobody sees what it left half done but what it shares
        // by `Cell`s.
        match catch_unwind(AssertUnwindSafe(|| task.poll(cx))) {
            Ok(state) => state,
            Err(_) => {
                count_panic();
                Poll::Ready(())
            }
        }
    }
}

thread_local! {
    static KIND: Cell<Option<Kind>> = const { Cell::new(None) };
    static DRIVER: Cell<Option<Driver>> = const { Cell::new(None) };
    static PANICS: Cell<u64> = const { Cell::new(0) };
}
