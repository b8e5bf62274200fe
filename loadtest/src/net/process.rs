//! What a local process costs: CPU time, memory, context switches, read and write calls, from `/proc`.
//!
//! CPU is the run time of every thread in nanoseconds (`task/*/schedstat`), so figures per request need no
//! long runs.
//! The share of user space comes from the kernel's own split of it (`task/*/stat`), which is sampled at its
//! tick: over a second or more it is good to a few per cent.
//! Errors: a process that is gone gives an error naming it; threads that end between two samples take their
//! time along, so their last slice is missing.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// Counters of one or several processes, summed at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub at_ns: u64,
    pub cpu_ns: u64,
    /// Time that threads were ready to run and had no core.
    pub wait_ns: u64,
    pub user_ticks: u64,
    pub system_ticks: u64,
    pub rss_bytes: u64,
    pub switches_voluntary: u64,
    pub switches_forced: u64,
    /// read(2) and write(2) and their vectored kin; send(2), recv(2) and io_uring are not among them.
    pub read_write_calls: u64,
    pub threads: u64,
}

impl Sample {
    /// Sums the processes of `pids` now.
    pub fn take(pids: &[u32]) -> io::Result<Self> {
        let mut sum = Self { at_ns: crate::net::clock::now_ns(), ..Self::default() };
        for &pid in pids {
            sum.add(pid).map_err(|error| io::Error::new(error.kind(), format!("process {pid}: {error}")))?;
        }
        Ok(sum)
    }

    fn add(&mut self, pid: u32) -> io::Result<()> {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // A thread may end between the listing and the reading.
            if let Ok(text) = fs::read_to_string(task.join("schedstat")) {
                let mut fields = text.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0u64));
                self.cpu_ns += fields.next().unwrap_or(0);
                self.wait_ns += fields.next().unwrap_or(0);
                self.threads += 1;
            }
            if let Ok(text) = fs::read_to_string(task.join("status")) {
                self.switches_voluntary += field(&text, "voluntary_ctxt_switches:");
                self.switches_forced += field(&text, "nonvoluntary_ctxt_switches:");
            }
        }
        let (user, system) = ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?);
        self.user_ticks += user;
        self.system_ticks += system;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        self.rss_bytes += field(&status, "VmRSS:") * 1024;
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/io")) {
            self.read_write_calls += field(&text, "syscr:") + field(&text, "syscw:");
        }
        Ok(())
    }

    /// What was spent since `earlier`; memory is that of `self`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            at_ns: self.at_ns.saturating_sub(earlier.at_ns),
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            rss_bytes: self.rss_bytes,
            switches_voluntary: self.switches_voluntary.saturating_sub(earlier.switches_voluntary),
            switches_forced: self.switches_forced.saturating_sub(earlier.switches_forced),
            read_write_calls: self.read_write_calls.saturating_sub(earlier.read_write_calls),
            threads: self.threads,
        }
    }

    /// User space's part of the CPU time, 0 to 1; `None` when no tick fell into the time.
    pub fn user_share(&self) -> Option<f64> {
        let all = self.user_ticks + self.system_ticks;
        (all > 0).then(|| self.user_ticks as f64 / all as f64)
    }
}

/// CPU and waiting time of the calling thread, in nanoseconds.
pub fn own_thread_ns() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

/// Resident memory of `pids` in bytes; a process that is gone counts 0.
pub fn rss_bytes(pids: &[u32]) -> u64 {
    let read = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    pids.iter().map(|pid| field(&read(pid), "VmRSS:") * 1024).sum()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// utime and stime of a `stat` line; the command name before them may hold spaces and brackets.
fn ticks(stat: &str) -> (u64, u64) {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_ascii_whitespace().skip(11).map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{Sample, ticks};

    #[test]
    fn a_command_name_with_a_bracket_does_not_shift_the_ticks() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks(line), (123, 45));
    }

    #[test]
    fn burnt_cpu_is_seen_and_a_missing_process_is_named() {
        let own = [std::process::id()];
        let before = Sample::take(&own).expect("the own process exists");
        let mut sum = 0u64;
        for i in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(i));
        }
        std::hint::black_box(sum);
        let spent = Sample::take(&own).expect("the own process exists").since(&before);
        assert!(spent.cpu_ns > 1_000_000, "{spent:?}");
        assert!(spent.rss_bytes > 100_000, "{spent:?}");
        let error = Sample::take(&[u32::MAX - 1]).expect_err("no such process");
        assert!(error.to_string().starts_with("process 4294967294: "), "{error}");
    }
}
