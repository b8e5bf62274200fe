//! What goes wrong in a simulation: how tasks and timers are disturbed, and which link each connection gets.

use crate::base::clock::Instant;
use crate::net::memory::link::Link;
use std::net::SocketAddr;
use std::time::Duration;

/// The disturbances of one run. The scheduling is drawn in any case.
pub struct Faults {
    /// Steps (of 1,000) at which a task that waits is polled without reason; at most 900.
    pub spurious_wakes_per_mille: u32,
    /// A sleep ends up to so much late, drawn.
    pub timer_late_max: Duration,
    /// A poll takes up to so much virtual time, drawn.
    pub poll_takes_max: Duration,
    /// Chooses the link of each connection.
    pub(super) links: Box<dyn FnMut(&Dial) -> Link>,
}

/// A connection that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// Connections asked for before this one.
    pub number: u64,
    /// Connections asked for before this one to the same address.
    pub number_to: u64,
    /// Whom the client calls.
    pub to: SocketAddr,
    /// When.
    pub at: Instant,
    /// For `Link::random` and `Link::harmless`: differs by run and by connection.
    pub seed: u64,
}

impl Faults {
    /// Nothing but drawn scheduling.
    pub fn none() -> Faults {
        Faults {
            spurious_wakes_per_mille: 0,
            timer_late_max: Duration::ZERO,
            poll_takes_max: Duration::ZERO,
            links: Box::new(|_| Link::default()),
        }
    }

    /// Drawn disturbances that lose nothing: every exchange can still succeed, late and in small pieces.
    pub fn harmless(seed: u64) -> Faults {
        Faults::drawn(seed).links(|dial| Link::harmless(dial.seed))
    }

    /// Drawn disturbances of every kind.
    pub fn random(seed: u64) -> Faults {
        Faults::drawn(seed).links(|dial| Link::random(dial.seed))
    }

    /// Lets `policy` choose the link of each connection.
    pub fn links(self, policy: impl FnMut(&Dial) -> Link + 'static) -> Faults {
        Faults { links: Box::new(policy), ..self }
    }

    fn drawn(seed: u64) -> Faults {
        let mut draw = fastrand::Rng::with_seed(seed ^ 0x2545_f491_4f6c_dd1d);
        let mut micros = |most: u64| Duration::from_micros(if draw.bool() { draw.u64(..=most) } else { 0 });
        let timer_late_max = micros(5_000);
        let poll_takes_max = micros(200);
        let spurious_wakes_per_mille = if draw.bool() { draw.u32(1..300) } else { 0 };
        Faults { spurious_wakes_per_mille, timer_late_max, poll_takes_max, ..Faults::none() }
    }
}
