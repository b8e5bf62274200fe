//! Counters and histograms with one writer, read by control at a scrape.
//!
//! A worker owns its counters and adds without a locked instruction; control sums the workers' values.
//! A reader may see a value that is a moment old, never a torn one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows, or a gauge that goes up and down. One writing thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. One writing thread only: two would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away, for gauges.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// The value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets in microseconds: 10 µs to 3 minutes, about 1-2.5-5 a decade. Above: +Inf.
pub const BUCKETS_US: [u64; 22] = [
    10,
    25,
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    180_000_000,
];

/// A histogram of durations in microseconds over `BUCKETS_US`. One writing thread.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, micros: u64) {
        self.buckets[BUCKETS_US.partition_point(|bound| *bound < micros)].add(1);
        self.sum_us.add(micros);
    }

    /// Observations per bucket, not cumulated, the last one above all bounds; and the sum in microseconds.
    pub fn read(&self) -> ([u64; BUCKETS_US.len() + 1], u64) {
        (std::array::from_fn(|i| self.buckets[i].value()), self.sum_us.value())
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS_US, Histogram};

    #[test]
    fn a_value_on_a_bound_is_counted_in_that_bucket_and_one_past_it_in_the_next() {
        let histogram = Histogram::default();
        histogram.record(10);
        histogram.record(11);
        histogram.record(u64::MAX / 2);
        let (buckets, _) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[BUCKETS_US.len()]), (1, 1, 1));
    }
}
