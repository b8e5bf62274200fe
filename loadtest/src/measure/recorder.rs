//! What one thread records of one load. No locks: each thread has its own, they are added up at the end.
//!
//! Times are nanoseconds in histograms of three digits, from 1 ns to ten minutes; longer ones count as ten
//! minutes.
//! Only what happens within the window (after warm-up, before the end) is counted; a latency belongs to the
//! window in which its request was planned.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::net::clock::NS_PER_S;
use crate::record::Faults;

pub const LONGEST_NS: u64 = 600 * NS_PER_S;

/// The measured time, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    pub fn holds(&self, at_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&at_ns)
    }

    /// Which second of the window `at_ns` falls into.
    fn second(&self, at_ns: u64) -> usize {
        ((at_ns - self.start_ns) / NS_PER_S) as usize
    }
}

pub type Times = Histogram<u64>;

pub fn times() -> Times {
    // The bounds are constants that the crate accepts.
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("1 to LONGEST_NS with three digits are valid bounds")
}

fn second_times() -> Times {
    Histogram::new_with_bounds(1000, LONGEST_NS, 2)
        .expect("1000 to LONGEST_NS with two digits are valid bounds")
}

pub struct Recorder {
    pub window: Window,
    /// Planned send to end of the answer.
    pub total: Times,
    /// Planned send to first text (stream) or first byte of the body (whole).
    pub ttft: Times,
    /// Between two text events of a stream, as they arrive.
    pub gap: Times,
    /// Sent by the mock to read here, per text event: the way through the target.
    pub one_way: Times,
    /// Planned to handed to the kernel or its queue: the generator's own lateness.
    pub lag: Times,
    pub counts: Counts,
    pub faults: Faults,
    /// Failures by class, with an example of each.
    pub errors: BTreeMap<String, (u64, String)>,
    pub seconds: Vec<Second>,
    current: Option<(usize, Times)>,
}

/// Counters within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    pub planned: u64,
    pub sent: u64,
    pub completed: u64,
    pub failed: u64,
    /// Completed within the limits of the SLO.
    pub good: u64,
    /// Open, or waiting for a connection, when the run ended.
    pub unfinished: u64,
    /// Left by the client on purpose; held streams that were open and answered when the window ended.
    pub left: u64,
    pub connects: u64,
    /// Server-sent events of any kind; whole answers count as one.
    pub events: u64,
    /// Valid records: the text events of the mock.
    pub records: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Reads that brought text, to see clumping: records per read near 1 means each came alone.
    pub reads: u64,
}

/// One second of the timeline.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Second {
    pub completed: u64,
    pub failed: u64,
    pub events: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Recorder {
    pub fn new(window: Window) -> Self {
        Self {
            window,
            total: times(),
            ttft: times(),
            gap: times(),
            one_way: times(),
            lag: times(),
            counts: Counts::default(),
            faults: Faults::default(),
            errors: BTreeMap::new(),
            seconds: Vec::new(),
            current: None,
        }
    }

    pub fn event(&mut self, at_ns: u64) {
        if self.window.holds(at_ns) {
            self.counts.events += 1;
            self.second(at_ns).events += 1;
        }
    }

    pub fn text_event(&mut self, at_ns: u64, one_way_ns: u64, gap_ns: Option<u64>) {
        if !self.window.holds(at_ns) {
            return;
        }
        self.counts.records += 1;
        record(&mut self.one_way, one_way_ns);
        self.sample(at_ns, one_way_ns);
        if let Some(gap_ns) = gap_ns {
            record(&mut self.gap, gap_ns);
        }
    }

    pub fn completed(&mut self, at_ns: u64, planned_ns: u64) {
        if self.window.holds(planned_ns) {
            record(&mut self.total, at_ns - planned_ns);
        }
        if self.window.holds(at_ns) {
            self.counts.completed += 1;
            self.second(at_ns).completed += 1;
            // The timeline of a stream shows its events, otherwise its answers.
            if self.one_way.is_empty() {
                self.sample(at_ns, at_ns - planned_ns);
            }
        }
    }

    /// Adds a time to the timeline's percentiles of its second.
    pub fn sample(&mut self, at_ns: u64, time_ns: u64) {
        let second = self.window.second(at_ns);
        if self.current.as_ref().is_none_or(|(current, _)| *current != second) {
            self.close_second();
            self.current = Some((second, second_times()));
        }
        if let Some((_, times)) = &mut self.current {
            record(times, time_ns);
        }
    }

    pub fn failed(&mut self, at_ns: u64, class: &str, example: &str) {
        if !self.window.holds(at_ns) {
            return;
        }
        self.counts.failed += 1;
        self.second(at_ns).failed += 1;
        let entry = self.errors.entry(class.to_owned()).or_insert_with(|| (0, example.to_owned()));
        entry.0 += 1;
    }

    fn second(&mut self, at_ns: u64) -> &mut Second {
        let second = self.window.second(at_ns);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        &mut self.seconds[second]
    }

    /// The run is over: the last second is added to the timeline.
    pub fn close(&mut self) {
        self.close_second();
    }

    fn close_second(&mut self) {
        let Some((place, times)) = self.current.take() else { return };
        if self.seconds.len() <= place {
            self.seconds.resize(place + 1, Second::default());
        }
        let second = &mut self.seconds[place];
        second.p50_us = second.p50_us.max(times.value_at_quantile(0.5) as f64 / 1000.0);
        second.p99_us = second.p99_us.max(times.value_at_quantile(0.99) as f64 / 1000.0);
        second.max_us = second.max_us.max(times.max() as f64 / 1000.0);
    }

    /// Adds another thread's record. Percentiles of a second are those of the worse thread.
    pub fn add(&mut self, mut other: Self) {
        self.close_second();
        other.close_second();
        let pairs = [
            (&mut self.total, &other.total),
            (&mut self.ttft, &other.ttft),
            (&mut self.gap, &other.gap),
            (&mut self.one_way, &other.one_way),
            (&mut self.lag, &other.lag),
        ];
        for (mine, theirs) in pairs {
            mine.add(theirs).expect("histograms of equal bounds can be added");
        }
        self.counts.add(&other.counts);
        self.faults.add(&other.faults);
        for (class, (count, example)) in other.errors {
            self.errors.entry(class).or_insert((0, example)).0 += count;
        }
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), Second::default());
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.add(theirs);
        }
    }
}

impl Second {
    /// Percentiles cannot be added: the worse ones are kept.
    pub fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.events += other.events;
        self.p50_us = self.p50_us.max(other.p50_us);
        self.p99_us = self.p99_us.max(other.p99_us);
        self.max_us = self.max_us.max(other.max_us);
    }
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.planned += other.planned;
        self.sent += other.sent;
        self.completed += other.completed;
        self.failed += other.failed;
        self.good += other.good;
        self.unfinished += other.unfinished;
        self.left += other.left;
        self.connects += other.connects;
        self.events += other.events;
        self.records += other.records;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.reads += other.reads;
    }
}

pub fn record(times: &mut Times, time_ns: u64) {
    times.saturating_record(time_ns.clamp(1, LONGEST_NS));
}

#[cfg(test)]
mod tests {
    use super::{Recorder, Window};
    use crate::net::clock::NS_PER_S;

    #[test]
    fn only_the_window_counts_and_threads_add_up() {
        let window = Window { start_ns: NS_PER_S, end_ns: 3 * NS_PER_S };
        let (mut one, mut two) = (Recorder::new(window), Recorder::new(window));
        one.completed(NS_PER_S - 1, NS_PER_S - 500);
        one.completed(NS_PER_S, NS_PER_S - 500);
        two.completed(2 * NS_PER_S + 5, NS_PER_S + 5);
        // Planned inside, done outside: a latency, but no throughput.
        two.completed(3 * NS_PER_S, 2 * NS_PER_S);
        two.failed(2 * NS_PER_S, "reset", "by peer");
        one.add(two);
        assert_eq!((one.counts.completed, one.counts.failed, one.total.len()), (2, 1, 2));
        assert_eq!(one.seconds.len(), 2);
        assert_eq!((one.seconds[0].completed, one.seconds[1].completed, one.seconds[1].failed), (1, 1, 1));
        assert!((999_000.0..1_010_000.0).contains(&one.seconds[1].p50_us), "{:?}", one.seconds[1]);
        assert_eq!(one.errors["reset"], (1, "by peer".to_owned()));
    }
}
