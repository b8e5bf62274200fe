//! Deadlines of one thread: a heap of (time, token).
//!
//! Nothing is ever removed early: who no longer wants a deadline changes its token's generation and ignores
//! it.
//! 10,000 deadlines cost about 14 comparisons each; a wheel would round them, and the lag of a timer is a
//! figure here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Timers {
    pub fn set(&mut self, at_ns: u64, token: u64) {
        self.heap.push(Reverse((at_ns, token)));
    }

    /// When the next deadline is due; `u64::MAX` for none.
    pub fn next_ns(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |Reverse((at_ns, _))| *at_ns)
    }

    /// Takes the earliest deadline that is not after `now_ns`.
    pub fn take_due(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        if self.next_ns() > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::Timers;

    #[test]
    fn deadlines_come_in_order_and_never_early() {
        let mut timers = Timers::default();
        timers.set(30, 3);
        timers.set(10, 1);
        timers.set(20, 2);
        assert_eq!(timers.take_due(9), None);
        assert_eq!(timers.take_due(20), Some((10, 1)));
        assert_eq!(timers.take_due(20), Some((20, 2)));
        assert_eq!(timers.take_due(20), None);
        assert_eq!(timers.next_ns(), 30);
    }
}
