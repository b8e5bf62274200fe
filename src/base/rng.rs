//! Random numbers for everything that is not a secret: ids, weights, jitter.
//!
//! Per thread, seeded by the system, or by `seed` in a simulation so that a run repeats.
//! Absent: randomness for keys. That comes from the operating system (`getrandom`) where a key is made.

/// Makes this thread's numbers repeat for the same `seed`.
pub fn seed(seed: u64) {
    fastrand::seed(seed);
}

/// Any 64 bits.
pub fn bits() -> u64 {
    fastrand::u64(..)
}

/// A number from 0 to `bound` - 1; 0 where `bound` is 0.
pub fn below(bound: u64) -> u64 {
    if bound == 0 { 0 } else { fastrand::u64(..bound) }
}
