//! One request and its answer, as the client sees it: times, events, and proof of every byte of text.
//!
//! Independent of the protocol that carries it: the connection hands in the head, pieces of the body and the
//! end.

use std::io::Write as _;

use flate2::write::GzDecoder;

use crate::dialect::{Dialect, EventText, Mode};
use crate::measure::recorder::Recorder;
use crate::net::clock::NS_PER_MS;
use crate::record::{Checker, Faults, stream_name};
use crate::scenario::Slo;
use crate::wire::http1::{Content, ResponseHead, quote};
use crate::wire::sse::Splitter;

/// Whole answers are collected up to this size.
const WHOLE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Of an error's body so much is kept as its example.
const EXAMPLE_BYTES_MAX: usize = 512;

pub struct Exchange {
    pub planned_ns: u64,
    pub stream: u32,
    dialect: Dialect,
    mode: Mode,
    /// Records of a full answer; `None`: the body came from outside and the text is not checked.
    expected: Option<u32>,
    head: Option<ResponseHead>,
    checker: Checker,
    faults: Faults,
    splitter: Splitter,
    /// Set when the answer is compressed.
    unpacker: Option<GzDecoder<Vec<u8>>>,
    body: Vec<u8>,
    first_ns: u64,
    last_text_ns: u64,
    gap_max_ns: u64,
    events: u32,
    ended: bool,
    failure: Option<Failure>,
}

/// Why an exchange failed: a class to count by and the words of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: String,
    pub example: String,
}

impl Failure {
    pub fn new(class: impl Into<String>, example: impl Into<String>) -> Self {
        Self { class: class.into(), example: example.into() }
    }
}

/// Whether the client shall go on reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Read,
    /// The target sends what it must not; the connection is of no use.
    Drop,
}

impl Exchange {
    pub fn new(planned_ns: u64, stream: u32, dialect: Dialect, mode: Mode, expected: Option<u32>) -> Self {
        Self {
            planned_ns,
            stream,
            dialect,
            mode,
            expected,
            head: None,
            checker: Checker::new(stream),
            faults: Faults::default(),
            splitter: Splitter::default(),
            unpacker: None,
            body: Vec::new(),
            first_ns: 0,
            last_text_ns: 0,
            gap_max_ns: 0,
            events: 0,
            ended: false,
            failure: None,
        }
    }

    /// Text events so far.
    pub fn records(&self) -> u32 {
        self.checker.next
    }

    /// A stream that has begun may last as long as it likes.
    pub fn is_streaming(&self) -> bool {
        self.mode == Mode::Stream && self.first_ns > 0
    }

    pub fn has_answer(&self) -> bool {
        self.head.is_some()
    }

    pub fn on_head(&mut self, head: ResponseHead) {
        let expected = match self.mode {
            Mode::Stream => Content::EventStream,
            Mode::Whole => Content::Json,
        };
        if head.status != 200 {
            self.failure = Some(Failure::new(format!("status {}", head.status), ""));
        } else if head.content != expected {
            let class = format!("answered {:?} instead of {expected:?}", head.content);
            self.failure = Some(Failure::new(class, ""));
        }
        self.unpacker = head.gzip.then(|| GzDecoder::new(Vec::new()));
        self.head = Some(head);
    }

    pub fn on_data(&mut self, data: &[u8], now_ns: u64, recorder: &mut Recorder) -> Next {
        let Some(unpacker) = &mut self.unpacker else { return self.on_plain(data, now_ns, recorder) };
        if let Err(error) = unpacker.write_all(data).and_then(|()| unpacker.flush()) {
            self.failure = Some(Failure::new("not gzip", error.to_string()));
            return Next::Drop;
        }
        let plain = std::mem::take(unpacker.get_mut());
        if plain.is_empty() { Next::Read } else { self.on_plain(&plain, now_ns, recorder) }
    }

    fn on_plain(&mut self, data: &[u8], now_ns: u64, recorder: &mut Recorder) -> Next {
        if self.failure.is_some() {
            let room = EXAMPLE_BYTES_MAX.saturating_sub(self.body.len());
            self.body.extend_from_slice(&data[..data.len().min(room)]);
            return Next::Read;
        }
        if self.mode == Mode::Whole {
            if self.first_ns == 0 {
                self.first_ns = now_ns;
            }
            if self.body.len() + data.len() > WHOLE_BYTES_MAX {
                self.failure = Some(Failure::new("answer too long", format!("over {WHOLE_BYTES_MAX} bytes")));
                return Next::Drop;
            }
            self.body.extend_from_slice(data);
            return Next::Read;
        }
        let mut splitter = std::mem::take(&mut self.splitter);
        let records = self.checker.next;
        let outcome = splitter.feed(data, |event| self.on_event(event, now_ns, recorder));
        self.splitter = splitter;
        if self.checker.next != records && recorder.window.holds(now_ns) {
            recorder.counts.reads += 1;
        }
        if outcome.is_err() {
            self.failure = Some(Failure::new("event too long", ""));
            return Next::Drop;
        }
        Next::Read
    }

    fn on_event(&mut self, event: &[u8], now_ns: u64, recorder: &mut Recorder) {
        self.events += 1;
        recorder.event(now_ns);
        match self.dialect.read_event(event) {
            EventText::Text(text) => self.on_text(text, now_ns, recorder),
            EventText::TextAndEnd(text) => {
                self.on_text(text, now_ns, recorder);
                self.ended = true;
            }
            EventText::End => self.ended = true,
            EventText::Error => self.failure = Some(Failure::new("error in the stream", quote(event))),
            EventText::Other => {}
        }
    }

    fn on_text(&mut self, text: &[u8], now_ns: u64, recorder: &mut Recorder) {
        if self.first_ns == 0 {
            self.first_ns = now_ns;
            if recorder.window.holds(self.planned_ns) {
                crate::measure::recorder::record(&mut recorder.ttft, now_ns - self.planned_ns);
            }
        }
        if self.expected.is_none() {
            return;
        }
        let (last_ns, gap_max_ns) = (&mut self.last_text_ns, &mut self.gap_max_ns);
        self.checker.feed(text, &mut self.faults, |valid| {
            let gap_ns = (*last_ns > 0).then(|| now_ns - *last_ns);
            *gap_max_ns = (*gap_max_ns).max(gap_ns.unwrap_or(0));
            *last_ns = now_ns;
            recorder.text_event(now_ns, now_ns.saturating_sub(valid.sent_us * 1000), gap_ns);
        });
    }

    /// The answer ended properly as far as the protocol goes.
    pub fn on_end(mut self, now_ns: u64, slo: &Slo, recorder: &mut Recorder) {
        if self.failure.is_none() {
            self.judge(now_ns, recorder);
        }
        recorder.faults.add(&self.faults);
        if let Some(failure) = &self.failure {
            let example =
                if failure.example.is_empty() { quote(&self.body) } else { failure.example.clone() };
            return recorder.failed(now_ns, &failure.class, &example);
        }
        recorder.completed(now_ns, self.planned_ns);
        let ttft_ns = self.first_ns.saturating_sub(self.planned_ns);
        if self.mode == Mode::Whole && recorder.window.holds(self.planned_ns) {
            crate::measure::recorder::record(&mut recorder.ttft, ttft_ns);
        }
        let limit = |ms: f64| (ms * NS_PER_MS as f64) as u64;
        let is_good = ttft_ns <= limit(slo.ttft_ms) && self.gap_max_ns <= limit(slo.gap_ms);
        if is_good && recorder.window.holds(now_ns) {
            recorder.counts.good += 1;
        }
    }

    fn judge(&mut self, now_ns: u64, recorder: &mut Recorder) {
        if self.mode == Mode::Stream {
            if !self.ended || self.splitter.pending() > 0 {
                self.faults.cut += 1;
                let example = format!("after {} events", self.events);
                self.failure = Some(Failure::new("stream ended without its dialect's end", example));
                return;
            }
            if let Some(expected) = self.expected {
                self.checker.finish(Some(expected), &mut self.faults);
            }
            return;
        }
        recorder.event(now_ns);
        let Some(expected) = self.expected else { return };
        let Some(text) = self.dialect.read_whole(&self.body) else {
            self.failure = Some(Failure::new("answer without text", quote(&self.body)));
            return;
        };
        if self.dialect == Dialect::Embeddings {
            let name = stream_name(self.stream);
            let is_right = Dialect::is_vector_of(text, &String::from_utf8_lossy(&name));
            self.faults.corrupted += u64::from(!is_right);
            return;
        }
        let mut records = 0;
        self.checker.feed(text, &mut self.faults, |_| records += 1);
        self.checker.finish(Some(expected), &mut self.faults);
        if recorder.window.holds(now_ns) {
            recorder.counts.records += records;
        }
    }

    /// The connection broke, or the answer took too long.
    pub fn on_failure(mut self, now_ns: u64, failure: Failure, recorder: &mut Recorder) {
        if self.mode == Mode::Stream && self.head.is_some() && self.failure.is_none() {
            self.faults.cut += 1;
        }
        recorder.faults.add(&self.faults);
        let failure = self.failure.take().unwrap_or(failure);
        recorder.failed(now_ns, &failure.class, &failure.example);
    }

    /// The run is over, or the client leaves, while the answer is under way: what came must be right so far.
    pub fn on_leave(self, recorder: &mut Recorder) {
        recorder.faults.add(&self.faults);
    }
}

#[cfg(test)]
mod tests {
    use super::{Exchange, Failure};
    use crate::dialect::{Dialect, Facts, Mode};
    use crate::measure::recorder::{Recorder, Window};
    use crate::record;
    use crate::scenario::Slo;
    use crate::wire::http1::{Content, ResponseHead};

    const WINDOW: Window = Window { start_ns: 0, end_ns: u64::MAX };

    fn events(stream: u32, sequences: &[u32], has_end: bool) -> Vec<Vec<u8>> {
        let facts = Facts { id: "aaaaaaab".to_owned(), ..Facts::default() };
        let frame = Dialect::Chat.frame(&facts);
        let mut all: Vec<Vec<u8>> = Vec::new();
        for sequence in sequences {
            let mut event = Vec::new();
            frame.write(*sequence, &mut event, |out| record::write(stream, *sequence, 8, 2_000_000, out));
            all.push(event);
        }
        if has_end {
            all.extend(Dialect::Chat.closing(&facts, "", 0).into_iter().map(String::into_bytes));
        }
        all
    }

    fn run(events: &[Vec<u8>], expected: u32) -> Recorder {
        let mut recorder = Recorder::new(WINDOW);
        let mut exchange = Exchange::new(1_000_000, 1, Dialect::Chat, Mode::Stream, Some(expected));
        exchange.on_head(ResponseHead {
            status: 200,
            content: Content::EventStream,
            ..ResponseHead::default()
        });
        for (number, event) in events.iter().enumerate() {
            exchange.on_data(event, 3_000_000 + number as u64 * 1_000_000, &mut recorder);
        }
        exchange.on_end(9_000_000, &Slo::default(), &mut recorder);
        recorder
    }

    #[test]
    fn a_whole_stream_is_completed_with_its_times() {
        let recorder = run(&events(1, &[0, 1, 2], true), 3);
        let counts = recorder.counts;
        assert_eq!((counts.completed, counts.good, counts.records, counts.failed), (1, 1, 3, 0));
        assert_eq!((counts.events, counts.reads, recorder.faults.total()), (5, 3, 0));
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) * 500 <= wanted;
        assert!(near(recorder.ttft.max(), 2_000_000) && near(recorder.gap.max(), 1_000_000));
        assert!(near(recorder.one_way.min(), 1_000_000) && near(recorder.total.max(), 8_000_000));
    }

    #[test]
    fn loss_a_foreign_stream_and_a_missing_end_are_faults() {
        assert_eq!(run(&events(1, &[0, 2], true), 3).faults.lost, 1);
        assert_eq!(run(&events(2, &[0], true), 0).faults.foreign, 1);
        let cut = run(&events(1, &[0, 1], false), 3);
        assert_eq!((cut.faults.cut, cut.counts.failed, cut.counts.completed), (1, 1, 0));
    }

    #[test]
    fn a_page_instead_of_an_answer_is_told_with_its_start() {
        let mut recorder = Recorder::new(WINDOW);
        let mut exchange = Exchange::new(0, 1, Dialect::Chat, Mode::Whole, Some(1));
        exchange.on_head(ResponseHead { status: 200, content: Content::Html, ..ResponseHead::default() });
        exchange.on_data(b"<html>hello", 1, &mut recorder);
        exchange.on_end(2, &Slo::default(), &mut recorder);
        let (class, (count, example)) = recorder.errors.iter().next().expect("an error");
        assert_eq!((class.as_str(), *count), ("answered Html instead of Json", 1));
        assert_eq!(example, "\"<html>hello\"");
        let exchange = Exchange::new(0, 1, Dialect::Chat, Mode::Whole, Some(1));
        exchange.on_failure(3, Failure::new("reset", "by peer"), &mut recorder);
        assert_eq!(recorder.errors["reset"].0, 1);
    }
}
