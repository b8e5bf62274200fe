//! The clock that all code reads: the kernel's, or a virtual one that a simulation moves by hand.
//!
//! Monotonic time is microseconds since the process first asked (`Instant`); wall time is milliseconds since
//! 1970. A thread that calls `go_virtual` reads its own virtual clock from then on; other threads are not
//! touched. Cost: one vDSO call (about 25 ns) for a real reading; take a reading once and hand it down.

use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point of monotonic time, in microseconds since the process first asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Later than any reading.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// Microseconds from `earlier` to `self`; 0 where `earlier` is the later one.
    pub fn micros_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, after: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }
}

/// Monotonic time now.
pub fn now() -> Instant {
    match VIRTUAL.get() {
        Some(virtual_time) => virtual_time.monotonic,
        None => {
            let start = START.get_or_init(std::time::Instant::now);
            let now = Instant(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
            if FORGETS.get() {
                LATELY.set(Some(now));
            }
            now
        }
    }
}

/// Monotonic time as it was read last within this poll of a task, for deadlines and whatever else a few
/// microseconds do not matter to: one reading serves them all. A thread that polls no tasks reads the clock.
pub fn lately() -> Instant {
    match LATELY.get() {
        Some(lately) => lately,
        None => now(),
    }
}

/// Says that time may have passed: the runtime calls it as it polls a task.
pub fn forget_lately() {
    FORGETS.set(true);
    LATELY.set(None);
}

/// Seconds since the node's boot: the same for every process of the node, and never set back.
pub fn node_s() -> u64 {
    match VIRTUAL.get() {
        Some(virtual_time) => virtual_time.monotonic.0 / 1_000_000,
        None => {
            let now = lately();
            let before_start = *BEFORE_START.get_or_init(|| {
                let since_boot = clock_gettime(ClockId::Monotonic);
                let since_boot = Duration::new(since_boot.tv_sec as u64, since_boot.tv_nsec as u32);
                u64::try_from(since_boot.as_micros()).unwrap_or(0).saturating_sub(self::now().0)
            });
            (before_start + now.0) / 1_000_000
        }
    }
}

/// Wall time now, in milliseconds since 1970-01-01T00:00:00Z.
pub fn unix_ms() -> u64 {
    match VIRTUAL.get() {
        Some(virtual_time) => virtual_time.unix_ms_at_zero + virtual_time.monotonic.0 / 1000,
        None => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }
    }
}

/// Gives this thread a virtual clock that stands at `monotonic` until `set_virtual` moves it.
pub fn go_virtual(monotonic: Instant, unix_ms_at_zero: u64) {
    forget_lately();
    VIRTUAL.set(Some(VirtualTime { monotonic, unix_ms_at_zero }));
}

/// Moves this thread's virtual clock. Without effect on a thread that reads the real one.
pub fn set_virtual(monotonic: Instant) {
    if let Some(virtual_time) = VIRTUAL.get() {
        VIRTUAL.set(Some(VirtualTime { monotonic, ..virtual_time }));
    }
}

/// Gives this thread the real clock back.
pub fn go_real() {
    VIRTUAL.set(None);
}

#[derive(Clone, Copy)]
struct VirtualTime {
    monotonic: Instant,
    unix_ms_at_zero: u64,
}

static START: OnceLock<std::time::Instant> = OnceLock::new();

/// Microseconds from the node's boot to `START`.
static BEFORE_START: OnceLock<u64> = OnceLock::new();

thread_local! {
    /// None in virtual time.
    static LATELY: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Somebody says when time may have passed: a reading may be kept until then.
    static FORGETS: Cell<bool> = const { Cell::new(false) };
    static VIRTUAL: Cell<Option<VirtualTime>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::{Instant, forget_lately, go_real, go_virtual, lately, now, set_virtual, unix_ms};
    use std::time::Duration;

    #[test]
    fn a_virtual_clock_stands_until_it_is_moved() {
        go_virtual(Instant(5), 1_000);
        assert_eq!(now(), Instant(5));
        set_virtual(Instant(2_000_000));
        assert_eq!(now(), Instant(2_000_000));
        assert_eq!(unix_ms(), 3_000);
        go_real();
        assert_ne!(unix_ms(), 3_000);
    }

    /// Windows of limits seemed to end seconds later than they did: control read the clock once and for all.
    #[test]
    fn a_reading_is_kept_only_where_somebody_says_when_time_has_passed() {
        std::thread::spawn(|| {
            let first = now();
            std::thread::sleep(Duration::from_millis(5));
            assert!(lately() > first, "nobody would say so on this thread");
            forget_lately();
            let first = now();
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(lately(), first);
            forget_lately();
            assert!(lately() > first);
        })
        .join()
        .expect("all hold");
    }

    #[test]
    fn adding_and_subtracting_saturate() {
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
        assert_eq!(Instant(1) - Instant(2), Duration::ZERO);
    }
}
