//! The result of a run as a value: what the JSON file holds and every report is made from.
//!
//! Histograms are kept whole (hdrhistogram V2, deflated, base64), so results of several machines can be
//! merged.
//! Units stand in the names; times are microseconds in summaries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::measure::recorder::{Counts, Recorder, Second, Times};
use crate::mock::stats::Totals;
use crate::net::process::Sample;
use crate::record::Faults;

/// Raised when a reader of older files would misread a newer one.
pub const FORMAT: u32 = 1;
/// Beyond either the figures show the generator's limit, not the target's.
pub const CPU_SHARE_MAX: f64 = 0.85;
pub const LAG_P99_US_MAX: f64 = 1000.0;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    pub format: u32,
    pub scenario: String,
    pub question: String,
    pub passes_when: String,
    pub target: String,
    /// Name of the target in a compare; empty otherwise.
    #[serde(default)]
    pub label: String,
    pub started_at: String,
    pub machine: Machine,
    pub command: String,
    pub duration_s: f64,
    pub loads: Vec<LoadResult>,
    pub generator: Generator,
    pub process: Option<ProcessResult>,
    /// What the mock sent within the run, warm-up included; only with `--mock`.
    pub mock: Option<Totals>,
    /// What did not hold; empty: passed.
    pub failures: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// How the generator was scheduled: "normal", "nice -20", "fifo 10".
    #[serde(default)]
    pub scheduling: String,
    /// Of the last minute, when the run began: above 0.1 a core it is shared with others.
    #[serde(default)]
    pub load_average: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadResult {
    pub name: String,
    pub shape: String,
    pub is_open_loop: bool,
    pub counts: Counts,
    pub faults: Faults,
    pub errors: BTreeMap<String, ErrorCount>,
    pub requests_per_s: f64,
    pub events_per_s: f64,
    /// Text records a second: one record is one token of the mock.
    pub tokens_per_s: f64,
    pub good_per_s: f64,
    pub total: Summary,
    pub ttft: Summary,
    pub gap: Summary,
    pub one_way: Summary,
    pub lag: Summary,
    pub seconds: Vec<Second>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorCount {
    pub count: u64,
    pub example: String,
}

/// Percentiles in microseconds, and the histogram itself in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub histogram: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    pub threads: usize,
    /// Of the busiest thread's core, 0 to 1.
    pub cpu_share: f64,
    pub cpu_us_per_request: Option<f64>,
    pub cpu_us_per_event: Option<f64>,
    /// Time that threads were ready and had no core (a shared core), 0 to 1.
    pub wait_share: f64,
    pub lag_p99_us: f64,
    pub is_saturated: bool,
}

/// Of the measured process within the window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessResult {
    pub pids: Vec<u32>,
    pub spent: Sample,
    pub cpu_share: f64,
    pub cpu_us_per_request: Option<f64>,
    pub cpu_us_per_event: Option<f64>,
    pub events_per_cpu_s: Option<f64>,
    /// User space's part of the CPU time, by the kernel's tick sampling.
    pub user_share: Option<f64>,
    pub user_ns_per_event: Option<f64>,
    pub switches_per_request: Option<f64>,
    pub switches_per_event: Option<f64>,
    pub rss_idle_bytes: u64,
    /// At the end of the window, everything open.
    pub rss_loaded_bytes: u64,
    pub rss_max_bytes: u64,
    /// After the decay time, if one was asked for.
    pub rss_decayed_bytes: Option<u64>,
    pub rss_kb_per_stream: Option<f64>,
    pub open_streams: u64,
    /// (milliseconds from the start of the window, bytes)
    pub rss_timeline: Vec<(i64, u64)>,
}

impl Summary {
    pub fn of(times: &Times) -> Self {
        let at = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1000.0;
        if times.is_empty() {
            return Self::default();
        }
        Self {
            count: times.len(),
            mean_us: times.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: times.max() as f64 / 1000.0,
            histogram: histogram::write(times),
        }
    }

    /// The histogram that the summary was made of; an empty one where none is kept.
    pub fn times(&self) -> Result<Times, String> {
        if self.histogram.is_empty() {
            Ok(crate::measure::recorder::times())
        } else {
            histogram::read(&self.histogram)
        }
    }
}

impl LoadResult {
    pub fn of(name: &str, shape: &str, is_open_loop: bool, recorder: &Recorder, duration_s: f64) -> Self {
        let per_s = |count: u64| count as f64 / duration_s;
        let counts = recorder.counts;
        let error = |(class, (count, example)): (&String, &(u64, String))| {
            (class.clone(), ErrorCount { count: *count, example: example.clone() })
        };
        Self {
            name: name.to_owned(),
            shape: shape.to_owned(),
            is_open_loop,
            counts,
            faults: recorder.faults,
            errors: recorder.errors.iter().map(error).collect(),
            requests_per_s: per_s(counts.completed),
            events_per_s: per_s(counts.events),
            tokens_per_s: per_s(counts.records),
            good_per_s: per_s(counts.good),
            total: Summary::of(&recorder.total),
            ttft: Summary::of(&recorder.ttft),
            gap: Summary::of(&recorder.gap),
            one_way: Summary::of(&recorder.one_way),
            lag: Summary::of(&recorder.lag),
            seconds: recorder.seconds.clone(),
        }
    }
}

impl Machine {
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
        Self {
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            scheduling: scheduling(&read("/proc/thread-self/stat")),
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|first| first.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// Fields 19 (nice), 40 (priority) and 41 (policy) of a `stat` line, counted behind the command's name.
fn scheduling(stat: &str) -> String {
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("?");
    match field(41) {
        "1" => format!("fifo {}", field(40)),
        "2" => format!("round-robin {}", field(40)),
        _ if field(19) == "0" => "normal".to_owned(),
        _ => format!("nice {}", field(19)),
    }
}

mod histogram {
    //! A histogram as text: hdrhistogram's V2 form, deflated, in base64.

    use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

    use crate::measure::recorder::Times;

    pub fn write(times: &Times) -> String {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = V2DeflateSerializer::new().serialize(times, &mut bytes);
        base64::write(&bytes)
    }

    pub fn read(text: &str) -> Result<Times, String> {
        let bytes = base64::read(text).ok_or("a histogram that is not base64")?;
        let times = Deserializer::new().deserialize::<u64, _>(&mut bytes.as_slice());
        times.map_err(|error| format!("a histogram that cannot be read: {error}"))
    }

    mod base64 {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

        pub fn write(bytes: &[u8]) -> String {
            let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
            for group in bytes.chunks(3) {
                let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
                let word = word << (8 * (3 - group.len()));
                for place in 0..4 {
                    let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
                    text.push(if place <= group.len() { char::from(letter) } else { '=' });
                }
            }
            text
        }

        pub fn read(text: &str) -> Option<Vec<u8>> {
            let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
            let (mut word, mut bits) = (0u32, 0);
            for byte in text.bytes().filter(|byte| *byte != b'=') {
                let value = LETTERS.iter().position(|letter| *letter == byte)? as u32;
                word = word << 6 | value;
                bits += 6;
                if bits >= 8 {
                    bits -= 8;
                    bytes.push((word >> bits) as u8);
                    word &= (1 << bits) - 1;
                }
            }
            Some(bytes)
        }
    }

    #[cfg(test)]
    mod tests {
        use crate::measure::recorder::{record, times};

        #[test]
        fn a_histogram_round_trips() {
            for count in [0, 1, 2, 1000] {
                let mut all = times();
                for value in 0..count {
                    record(&mut all, value * 12_345);
                }
                assert_eq!(super::read(&super::write(&all)).expect("readable"), all);
            }
        }

        #[test]
        fn broken_text_is_refused() {
            for wrong in ["%%%%", "AAAA"] {
                assert!(super::read(wrong).is_err(), "{wrong}");
            }
        }
    }
}
