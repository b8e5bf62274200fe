//! What one answer shall be like: pace, length, faults; read from a request or from the command line.
//!
//! Form: `key=value` pairs between spaces or semicolons. In a prompt they stand between `[[mock ` and `]]`;
//! the last such place of a body counts. Unknown keys are ignored in requests (text of a user may look like a
//! script) and refused on the command line.

use crate::mock::fault::Fault;
use crate::record;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Script {
    /// Number of the stream, which its records carry; `None`: the mock numbers it.
    pub stream: Option<u32>,
    /// Text events of a stream, or records of a whole answer.
    pub events: u32,
    /// Bytes of words per record, besides its 45-byte header.
    pub words: usize,
    /// Request read to first byte of the answer; with `ttft_sigma` > 0 the median of a log-normal
    /// distribution.
    pub ttft_us: u64,
    pub ttft_sigma: f64,
    /// Time between text events; 0: as fast as the reader takes them.
    pub gap_us: u64,
    /// 0 to 1: each gap is drawn evenly from gap × (1 − jitter) to gap × (1 + jitter).
    pub jitter: f64,
    /// A pause of `stall_us` before event `stall_at`.
    pub stall_at: u32,
    pub stall_us: u64,
    pub fault: Option<Fault>,
    /// Event at which a fault of a stream strikes.
    pub fault_at: u32,
    /// Compress the answer where the caller accepts it.
    pub gzip: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            stream: None,
            events: 16,
            words: 24,
            ttft_us: 0,
            ttft_sigma: 0.0,
            gap_us: 0,
            jitter: 0.0,
            stall_at: 0,
            stall_us: 0,
            fault: None,
            fault_at: 2,
            gzip: false,
        }
    }
}

const KEYS: &str = "id, events, words, ttft_ms, ttft_sigma, gap_ms, tokens_per_s, jitter, stall_at, stall_ms, \
                    fault, fault_at, gzip";

impl Script {
    /// Applies `pairs` on top; an unknown key or a wrong value is an error naming it.
    pub fn apply(&mut self, pairs: &str) -> Result<(), String> {
        for pair in pairs.split([' ', ';']).filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("script {pair:?}: need KEY=VALUE"))?;
            self.set(key, value)?;
        }
        Ok(())
    }

    /// Applies what a request says, leaving out what cannot be read.
    pub fn apply_request(&mut self, header: &str, body: &[u8]) {
        for pair in header.split([' ', ';']).filter_map(|pair| pair.split_once('=')) {
            let _ = self.set(pair.0, pair.1);
        }
        let Some(start) = memchr::memmem::rfind(body, b"[[mock ") else { return };
        let body = &body[start + b"[[mock ".len()..];
        let Some(end) = memchr::memmem::find(&body[..body.len().min(1024)], b"]]") else { return };
        let text = std::str::from_utf8(&body[..end]).unwrap_or("");
        for pair in text.split(' ').filter_map(|pair| pair.split_once('=')) {
            let _ = self.set(pair.0, pair.1);
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |need: &str| format!("script {key}={value}: need {need}");
        let whole = || value.parse::<u32>().map_err(|_| wrong("a whole number"));
        let number = |most: f64| match value.parse::<f64>() {
            Ok(number) if (0.0..=most).contains(&number) => Ok(number),
            _ => Err(wrong(&format!("a number from 0 to {most}"))),
        };
        const DAY_MS: f64 = 86_400_000.0;
        let micros = || number(DAY_MS).map(|ms| (ms * 1000.0) as u64);
        match key {
            "id" => {
                let stream = record::stream_of(value.as_bytes());
                self.stream = Some(stream.ok_or_else(|| wrong("eight letters from a to p"))?);
            }
            "events" => self.events = whole()?.min(0xff_ffff),
            "words" => self.words = (whole()? as usize).min(record::WORDS_BYTES_MAX),
            "ttft_ms" => self.ttft_us = micros()?,
            "ttft_sigma" => self.ttft_sigma = number(5.0)?,
            "gap_ms" => self.gap_us = micros()?,
            "tokens_per_s" => {
                let rate = number(1e9)?;
                self.gap_us = if rate > 0.0 { (1e6 / rate) as u64 } else { 0 };
            }
            "jitter" => self.jitter = number(1.0)?,
            "stall_at" => self.stall_at = whole()?,
            "stall_ms" => self.stall_us = micros()?,
            "fault" => self.fault = Some(value.parse()?),
            "fault_at" => self.fault_at = whole()?,
            "gzip" => self.gzip = whole()? != 0,
            _ => return Err(format!("script key {key:?}: need one of {KEYS}")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Script;
    use crate::mock::fault::Fault;

    #[test]
    fn the_last_prompt_overrides_the_header_and_the_header_the_default() {
        let mut script = Script { words: 9, ..Script::default() };
        let body =
            br#"{"a":"[[mock gap_ms=1 events=5]] x [[mock id=aaaaaaab gap_ms=2.5 fault=status-429]]"}"#;
        script.apply_request("events=7; gap_ms=9", body);
        assert_eq!((script.events, script.words, script.gap_us, script.stream), (7, 9, 2500, Some(1)));
        assert_eq!(script.fault, Some(Fault::Status(429)));
    }

    #[test]
    fn a_wrong_pair_is_refused_on_the_command_line_and_passed_over_in_a_request() {
        for wrong in ["evnts=1", "events", "events=x", "jitter=1.5", "fault=boom", "id=zz"] {
            let mut script = Script::default();
            assert!(script.apply(wrong).is_err(), "{wrong}");
            script.apply_request(wrong, b"");
            assert_eq!(script, Script::default(), "{wrong}");
        }
    }
}
