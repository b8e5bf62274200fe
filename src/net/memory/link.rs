//! What one connection of the simulation is like: how it is made, and each direction's size, speed and
//! faults.
//!
//! "Server" is the side that accepts, "client" the side that connects. `Link::default()` is a connection
//! without faults.

use std::net::SocketAddr;
use std::time::Duration;

/// One connection.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// How connecting goes. It takes one round trip: the latency of both directions.
    pub connect: Connecting,
    /// Time from the client's connection being made to the listener seeing it.
    pub accept_delay: Duration,
    /// The address that the listener sees. None: 127.0.0.1 and a port counted up.
    pub client: Option<SocketAddr>,
    /// From the side that connects to the side that accepts.
    pub to_server: Flow,
    /// From the side that accepts to the side that connects.
    pub to_client: Flow,
    /// Both sides see a reset so long after the connection was made.
    pub reset_at: Option<Duration>,
    /// What a reset does to bytes that had arrived and were not read.
    pub unread_at_reset: Unread,
}

/// How connecting goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connecting {
    /// As a listener is there or not.
    #[default]
    Normal,
    /// Refused after a round trip.
    Refused,
    /// No answer: the kernel gives up after 127 s.
    Hangs,
}

/// What a reset does to bytes that had arrived and were not read. TCP allows both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unread {
    /// They can still be read, then comes the error: Linux.
    #[default]
    Kept,
    /// They are gone: other systems, and Linux where they were still on their way.
    Dropped,
}

/// One direction of a connection.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Bytes sent and not yet read that the direction holds; at least 1.
    pub capacity: usize,
    /// Time from a send to its arrival.
    pub latency: Duration,
    /// Up to so much is added to the latency, drawn per send; order is kept.
    pub jitter: Duration,
    /// A read takes 1 to so many bytes, drawn. None: all that is there.
    pub read_max: Option<usize>,
    /// A send passes on 1 to so many bytes at a time, drawn. None: all that fits.
    pub write_max: Option<usize>,
    /// Waits (of 1,000) for bytes that end though nothing came; at most 900.
    pub spurious_readable_per_mille: u32,
    /// Stands still once. For ever after 0 bytes: a peer that never reads.
    pub stall: Option<Stall>,
    /// Both sides see a reset when so many bytes have arrived; no further byte does.
    pub reset_after: Option<u64>,
}

/// Nothing arrives for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When so many bytes have arrived.
    pub after: u64,
    /// So long; `Duration::MAX` is for ever.
    pub lasts: Duration,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow {
            capacity: 64 * 1024,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            read_max: None,
            write_max: None,
            spurious_readable_per_mille: 0,
            stall: None,
            reset_after: None,
        }
    }
}

impl Link {
    /// A drawn link that delays and cuts but loses nothing: every exchange over it can still succeed.
    pub fn harmless(seed: u64) -> Link {
        let mut draw = fastrand::Rng::with_seed(seed);
        Link {
            accept_delay: sometimes(&mut draw, 4).map_or(Duration::ZERO, |draw| up_to(draw, 50_000)),
            to_server: Flow::harmless(&mut draw),
            to_client: Flow::harmless(&mut draw),
            unread_at_reset: if draw.bool() { Unread::Kept } else { Unread::Dropped },
            ..Link::default()
        }
    }

    /// A drawn link with everything that can happen: about one in three does not live to a normal end.
    pub fn random(seed: u64) -> Link {
        let mut link = Link::harmless(seed);
        let mut draw = fastrand::Rng::with_seed(seed ^ 0x5bd1_e995_97f4_a7c5);
        match draw.u32(..24) {
            0 => link.connect = Connecting::Refused,
            1 => link.connect = Connecting::Hangs,
            2 => link.reset_at = Some(up_to(&mut draw, 5_000_000)),
            3 => link.to_server.reset_after = Some(spread(&mut draw, 16)),
            4 | 5 => link.to_client.reset_after = Some(spread(&mut draw, 16)),
            6 => link.to_server.stall = Some(for_ever(&mut draw)),
            7 => link.to_client.stall = Some(for_ever(&mut draw)),
            _ => {}
        }
        link
    }
}

impl Flow {
    fn harmless(draw: &mut fastrand::Rng) -> Flow {
        Flow {
            capacity: sometimes(draw, 3).map_or(64 * 1024, |draw| CAPACITY_MIN + spread(draw, 16) as usize),
            latency: sometimes(draw, 2).map_or(Duration::ZERO, |draw| up_to(draw, 40_000)),
            jitter: sometimes(draw, 3).map_or(Duration::ZERO, |draw| up_to(draw, 10_000)),
            read_max: sometimes(draw, 2).map(short),
            write_max: sometimes(draw, 2).map(short),
            spurious_readable_per_mille: sometimes(draw, 3).map_or(0, |draw| draw.u32(1..500)),
            stall: sometimes(draw, 6)
                .map(|draw| Stall { after: spread(draw, 14), lasts: up_to(draw, 3_000_000) }),
            reset_after: None,
        }
    }
}

/// The least that a drawn connection holds in one direction. Real ones hold a few KB at least, so that a
/// dialogue of small messages cannot block itself.
const CAPACITY_MIN: usize = 512;

/// The draw, in one of `n` cases.
fn sometimes(draw: &mut fastrand::Rng, n: u32) -> Option<&mut fastrand::Rng> {
    (draw.u32(..n) == 0).then_some(draw)
}

/// A number below 2^`bits` whose magnitude is drawn first: small numbers are as likely as large ones.
fn spread(draw: &mut fastrand::Rng, bits: u32) -> u64 {
    let bits = draw.u32(..=bits);
    draw.u64(..1 << bits)
}

fn short(draw: &mut fastrand::Rng) -> usize {
    1 + spread(draw, 12) as usize
}

fn up_to(draw: &mut fastrand::Rng, micros: u64) -> Duration {
    Duration::from_micros(draw.u64(..=micros))
}

fn for_ever(draw: &mut fastrand::Rng) -> Stall {
    Stall { after: spread(draw, 16), lasts: Duration::MAX }
}
