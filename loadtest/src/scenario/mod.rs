//! Scenario files: which load, for how long, and the question that the figures answer.
//!
//! Input: TOML text. Output: a checked `Scenario`. Every problem that serde does not see is reported with its
//! key, what was found and what is allowed; unknown keys are refused.
//! Times in files are in the unit that the key names.

pub mod schedule;
pub mod shape;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use shape::Shape;

use crate::dialect::Usage;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without its ending; set by `read`.
    #[serde(default)]
    pub name: String,
    /// What the figures answer.
    pub question: String,
    /// When the answer is good, for a reader; what a machine can check stands in `pass`.
    pub passes_when: String,
    #[serde(default = "Scenario::warmup_default")]
    pub warmup_s: f64,
    #[serde(default = "Scenario::duration_default")]
    pub duration_s: f64,
    /// How long answers that are under way may take after the end.
    #[serde(default = "Scenario::drain_default")]
    pub drain_s: f64,
    /// An answer that took longer has failed; streams count until their first byte. 0: no limit.
    #[serde(default = "Scenario::timeout_default")]
    pub timeout_s: f64,
    #[serde(default)]
    pub http: Http,
    /// HTTP/2: streams that one connection carries at once.
    #[serde(default = "Scenario::streams_default")]
    pub streams_per_connection: usize,
    #[serde(default)]
    pub slo: Slo,
    #[serde(default)]
    pub pass: Pass,
    pub load: Vec<Load>,
}

/// What the generator speaks: on plain connections without asking (prior knowledge), under TLS as agreed by
/// ALPN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Http {
    #[default]
    #[serde(rename = "1.1")]
    One,
    #[serde(rename = "2")]
    Two,
}

impl std::str::FromStr for Http {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1.1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            _ => Err("need 1.1 or 2"),
        }
    }
}

/// Limits by which an answer counts as good (goodput).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    pub ttft_ms: f64,
    /// Largest gap between two text events of an answer.
    pub gap_ms: f64,
}

impl Default for Slo {
    fn default() -> Self {
        Self { ttft_ms: 500.0, gap_ms: 200.0 }
    }
}

/// What a machine checks at the end; integrity faults fail a run in any case.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pass {
    /// Largest share of requests that may fail, 0 to 1.
    pub errors_share_max: f64,
    pub ttft_p99_ms_max: Option<f64>,
    pub total_p99_ms_max: Option<f64>,
    pub rss_kb_per_stream_max: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    pub name: String,
    pub shape: Shape,
    #[serde(default = "Load::model_default")]
    pub model: String,
    pub rate: Rate,
    /// Most connections (HTTP/1.1) or streams at once (HTTP/2); a planned send beyond waits, and its wait
    /// counts.
    #[serde(default = "Load::connections_default")]
    pub connections: usize,
    /// Sizes of request bodies and their weights.
    #[serde(default = "Load::body_default")]
    pub body: Vec<Body>,
    #[serde(default)]
    pub prefix: Prefix,
    /// Whether streamed chat requests ask for their usage.
    #[serde(default)]
    pub usage: Usage,
    /// Which of the keys given on the command line this load uses: the first `keys` of them.
    #[serde(default = "Load::keys_default")]
    pub keys: usize,
    #[serde(default)]
    pub answer: Answer,
    /// The reader takes at most this many bytes a second from each connection (HTTP/1.1) or stream (HTTP/2); 0:
    /// as they come.
    #[serde(default)]
    pub read_bytes_per_s: u64,
    /// The client leaves after this many text events of a stream; 0: it stays.
    #[serde(default)]
    pub leave_after_events: u32,
}

/// When requests are planned.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rate {
    Constant {
        per_s: f64,
    },
    Poisson {
        per_s: f64,
    },
    Ramp {
        from_per_s: f64,
        to_per_s: f64,
    },
    Step {
        per_s: Vec<f64>,
        each_s: f64,
    },
    Trace {
        file: PathBuf,
    },
    /// Keeps this many answers open, opened over `ramp_s`; one that ends is followed by the next.
    Hold {
        streams: usize,
        #[serde(default)]
        ramp_s: f64,
    },
    /// Closed loop: each of this many clients asks again when it has its answer. Hides the target's stalls.
    Closed {
        clients: usize,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    pub bytes: usize,
    #[serde(default = "Body::weight_default")]
    pub weight: u32,
    /// Most of the bytes are one base64 image part.
    #[serde(default)]
    pub image: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefix {
    /// Every prompt starts elsewhere in the corpus.
    #[default]
    Unique,
    /// All prompts start with the same text and differ at their end.
    Shared,
}

/// What the mock is asked for, in the prompt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    pub events: u32,
    pub words: usize,
    pub ttft_ms: f64,
    pub gap_ms: f64,
    /// Further pairs of the mock's script, as they are.
    pub script: String,
}

impl Default for Answer {
    fn default() -> Self {
        Self { events: 16, words: 24, ttft_ms: 0.0, gap_ms: 0.0, script: String::new() }
    }
}

impl Answer {
    /// The script for one request; `stream` is its eight letters.
    pub fn script(&self, stream: &str) -> String {
        let Self { events, words, ttft_ms, gap_ms, script } = self;
        let more = if script.is_empty() { String::new() } else { format!(" {script}") };
        format!("[[mock id={stream} events={events} words={words} ttft_ms={ttft_ms} gap_ms={gap_ms}{more}]]")
    }
}

impl Scenario {
    fn warmup_default() -> f64 {
        2.0
    }

    fn streams_default() -> usize {
        100
    }

    fn duration_default() -> f64 {
        10.0
    }

    fn drain_default() -> f64 {
        5.0
    }

    fn timeout_default() -> f64 {
        30.0
    }

    /// Reads and checks a file; a trace that it names is looked for beside it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut scenario = Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for load in &mut scenario.load {
            if let Rate::Trace { file } = &mut load.rate
                && file.is_relative()
            {
                *file = path.parent().unwrap_or(Path::new(".")).join(&*file);
            }
        }
        Ok(scenario)
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            format!("{place}{}", error.message().replace('\n', " "))
        })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks what types do not say. Call again after a change.
    pub fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: f64, least: f64, most: f64| match value {
            value if (least..=most).contains(&value) => Ok(()),
            value => Err(format!("{key} = {value}: need {least} to {most}")),
        };
        within("duration_s", self.duration_s, 0.1, 86_400.0)?;
        within("warmup_s", self.warmup_s, 0.0, 3600.0)?;
        within("drain_s", self.drain_s, 0.0, 3600.0)?;
        within("timeout_s", self.timeout_s, 0.0, 86_400.0)?;
        within("pass.errors_share_max", self.pass.errors_share_max, 0.0, 1.0)?;
        if !(1..=10_000).contains(&self.streams_per_connection) {
            let found = self.streams_per_connection;
            return Err(format!("streams_per_connection = {found}: need 1 to 10000"));
        }
        if self.load.is_empty() {
            return Err("load: need at least one [[load]]".to_owned());
        }
        for (number, load) in self.load.iter().enumerate() {
            load.check().map_err(|error| format!("load[{number}].{error}"))?;
        }
        Ok(())
    }
}

impl Load {
    fn model_default() -> String {
        "mock".to_owned()
    }

    fn connections_default() -> usize {
        64
    }

    fn body_default() -> Vec<Body> {
        vec![Body { bytes: 1024, weight: 1, image: false }]
    }

    fn keys_default() -> usize {
        1
    }

    fn check(&self) -> Result<(), String> {
        const RATE_MAX: f64 = 5e6;
        const OPEN_MAX: usize = 100_000;
        let rate = |key: &str, value: f64, least: f64| match value {
            value if value >= least && value <= RATE_MAX => Ok(()),
            value => Err(format!("rate.{key} = {value}: need {least} to {RATE_MAX}")),
        };
        let count = |key: &str, value: usize| match value {
            1..=OPEN_MAX => Ok(()),
            value => Err(format!("{key} = {value}: need 1 to {OPEN_MAX}")),
        };
        match &self.rate {
            Rate::Constant { per_s } | Rate::Poisson { per_s } => rate("per_s", *per_s, 0.001)?,
            Rate::Ramp { from_per_s, to_per_s } => {
                rate("from_per_s", *from_per_s, 0.0)?;
                rate("to_per_s", *to_per_s, 0.001)?;
            }
            Rate::Step { per_s, each_s } => {
                if per_s.is_empty() || !(0.01..=86_400.0).contains(each_s) {
                    return Err(
                        "rate: a step needs at least one per_s and 0.01 <= each_s <= 86400".to_owned()
                    );
                }
                per_s.iter().try_for_each(|per_s| rate("per_s", *per_s, 0.001))?;
            }
            Rate::Trace { .. } => {}
            Rate::Hold { streams, .. } => count("rate.streams", *streams)?,
            Rate::Closed { clients } => count("rate.clients", *clients)?,
        }
        count("connections", self.connections)?;
        count("keys", self.keys)?;
        if self.body.is_empty() || self.body.iter().all(|body| body.weight == 0) {
            return Err("body: need at least one size with a weight above 0".to_owned());
        }
        if let Some(body) = self.body.iter().find(|body| !(256..=32 << 20).contains(&body.bytes)) {
            return Err(format!("body.bytes = {}: need 256 to {}", body.bytes, 32 << 20));
        }
        Ok(())
    }
}

impl Body {
    fn weight_default() -> u32 {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::Scenario;

    const GOOD: &str = "question = 'q'\npasses_when = 'p'\n[[load]]\nname = 'a'\nshape = 'chat'\n\
                        rate = { kind = 'constant', per_s = 10 }\n";

    #[test]
    fn every_shipped_scenario_is_valid() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut seen = 0;
        for file in std::fs::read_dir(folder).expect("the folder is shipped") {
            let path = file.expect("readable").path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                Scenario::read(&path).expect("valid");
                seen += 1;
            }
        }
        assert!(seen > 0);
    }

    #[test]
    fn mistakes_are_refused_with_key_value_and_what_is_allowed() {
        assert!(Scenario::parse(GOOD).is_ok());
        let rows = [
            ("per_s = 10", "per_s = 0", "load[0].rate.per_s = 0: need 0.001"),
            ("per_s = 10", "per_s = 10, x = 1", "unknown field `x`"),
            ("name = 'a'", "name = 'a'\nsize = 4", "unknown field `size`"),
            ("'chat'", "'chatt'", "unknown variant `chatt`"),
            ("name = 'a'", "name = 'a'\nbody = [{ bytes = 255 }]", "body.bytes = 255: need 256"),
            ("question = 'q'", "question = 'q'\nduration_s = 0", "duration_s = 0: need 0.1"),
            ("name = 'a'", "name = 'a'\nconnections = 0", "load[0].connections = 0: need 1"),
        ];
        for (from, to, message) in rows {
            let error = Scenario::parse(&GOOD.replace(from, to)).expect_err("must be refused");
            assert!(error.contains(message) && !error.contains('\n'), "{error}");
        }
        let error =
            Scenario::parse(&GOOD.replace("name = 'a'", "name = 'a'\nsize = 4")).expect_err("refused");
        assert!(error.starts_with("line 5: unknown field `size`"), "{error}");
    }
}
