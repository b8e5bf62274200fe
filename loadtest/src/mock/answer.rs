//! One answer, step by step, without sockets: what to send next and when.
//!
//! Input: the request's dialect, mode and script, and the time. Output: one event per step, already in its
//! HTTP/1.1 framing, or the time at which the next one is due. The owner sends each step with a write of its
//! own. For HTTP/2 the head is handed out apart and events are bare; faults that only HTTP/1.1 has the bytes for
//! become resets.
//! A stream that is behind its plan sends what is due at once, an event per write, until it has caught up.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::dialect::{Dialect, Facts, Frame, Mode};
use crate::mock::fault::Fault;
use crate::mock::script::Script;
use crate::net::clock::NS_PER_S;
use crate::record;

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// What becomes of the connection behind the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    KeepAlive,
    Close,
}

/// Who frames what the answer consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The answer itself.
    Http1,
    /// Its owner.
    Http2,
}

/// The head of an answer, for an owner that frames it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub content_type: &'static str,
    pub length: Option<usize>,
    pub is_gzip: bool,
    pub retry_after_s: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Something was appended to be sent.
    Wrote,
    /// Nothing to send before this time.
    Wait(u64),
    Finished(End),
}

/// How an answer ends, for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    /// Spoilt; the connection is to be closed.
    FaultClose,
    /// Spoilt; the connection is to be reset.
    FaultReset,
    /// Spoilt, but the connection can go on.
    Fault,
}

pub struct Request {
    pub dialect: Dialect,
    pub mode: Mode,
    pub script: Script,
    pub facts: Facts,
    pub connection: Connection,
    /// The caller takes gzip.
    pub accepts_gzip: bool,
    pub framing: Framing,
}

pub struct Answer {
    dialect: Dialect,
    mode: Mode,
    script: Script,
    facts: Facts,
    connection: Connection,
    framing: Framing,
    /// For `Framing::Http2`, until it is taken.
    head: Option<Head>,
    /// Set when the body is compressed; each event is flushed.
    packer: Option<GzEncoder<Vec<u8>>>,
    frame: Frame,
    stream: u32,
    random: fastrand::Rng,
    stage: Stage,
    due_ns: u64,
    /// The text so far, for dialects that repeat it at the end.
    text: Vec<u8>,
    scratch: Vec<u8>,
    pub events_sent: u32,
    pub records_sent: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    First,
    Text,
    Trickle(usize),
    Endless,
    Over(End),
}

impl Answer {
    pub fn new(request: Request, stream: u32, now_ns: u64) -> Self {
        let Request { dialect, mode, script, facts, connection, accepts_gzip, framing } = request;
        let mut random = fastrand::Rng::with_seed(u64::from(stream) ^ 0x5eed);
        let ttft_ns = (script.ttft_us as f64 * log_normal(&mut random, script.ttft_sigma) * 1000.0) as u64;
        let frame = if mode == Mode::Stream { dialect.frame(&facts) } else { Frame::default() };
        Self {
            dialect,
            mode,
            script,
            facts,
            connection,
            framing,
            head: None,
            packer: (script.gzip && accepts_gzip).then(|| GzEncoder::new(Vec::new(), Compression::fast())),
            frame,
            stream,
            random,
            stage: Stage::First,
            due_ns: now_ns + ttft_ns,
            text: Vec::new(),
            scratch: Vec::new(),
            events_sent: 0,
            records_sent: 0,
        }
    }

    /// What the usage of a finished answer says, one token per record.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The head, once, when the answer has come to it.
    pub fn take_head(&mut self) -> Option<Head> {
        self.head.take()
    }

    /// Appends the next thing to send to `out`.
    pub fn step(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Step {
        if let Stage::Over(end) = self.stage {
            return Step::Finished(end);
        }
        if now_ns < self.due_ns {
            return Step::Wait(self.due_ns);
        }
        match self.stage {
            Stage::First => match self.script.fault {
                Some(fault) => self.first_faulty(fault, now_ns, out),
                None => self.first(now_ns, out),
            },
            Stage::Text => self.text_event(now_ns, out),
            Stage::Trickle(at) => self.trickle(at, now_ns, out),
            Stage::Endless => {
                out.extend_from_slice(b"x-more: and more and more and more and more\r\n");
                self.due_ns = now_ns + 10_000_000;
                Step::Wrote
            }
            Stage::Over(end) => Step::Finished(end),
        }
    }

    fn first(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Step {
        if self.mode == Mode::Whole {
            let body = self.whole(now_ns);
            let packed = self.packer.take().map(|packer| finish(packer, body.as_bytes()));
            let encoding = if packed.is_some() { Encoding::Gzip } else { Encoding::Identity };
            let bytes = packed.as_deref().unwrap_or(body.as_bytes());
            self.head_with(200, Some(bytes.len()), encoding, out);
            out.extend_from_slice(bytes);
            self.stage = Stage::Over(End::Whole);
            return Step::Wrote;
        }
        let encoding = if self.packer.is_some() { Encoding::Gzip } else { Encoding::Identity };
        self.head_with(200, None, encoding, out);
        let opening = self.dialect.opening(&self.facts);
        self.events_sent += opening.len() as u32;
        for event in &opening {
            self.data(event.as_bytes(), out);
        }
        self.stage = Stage::Text;
        self.plan_next(now_ns);
        if self.script.events == 0 {
            self.close(out);
        }
        Step::Wrote
    }

    fn text_event(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Step {
        let sequence = self.records_sent;
        let mut event = std::mem::take(&mut self.scratch);
        event.clear();
        let (stream, words, kept) = (self.stream, self.script.words, self.dialect.repeats_text());
        self.frame.write(sequence, &mut event, |event| {
            let start = event.len();
            record::write(stream, sequence, words, now_ns, event);
            if kept {
                self.text.extend_from_slice(&event[start..]);
            }
        });
        if let Some(fault) = self.script.fault
            && sequence == self.script.fault_at
        {
            let half = event.len() / 2;
            if self.framing == Framing::Http1 {
                chunk_head(event.len(), out);
            }
            out.extend_from_slice(&event[..half]);
            self.stage = Stage::Over(match fault {
                Fault::CutMidEvent => End::FaultClose,
                _ => End::FaultReset,
            });
            return Step::Wrote;
        }
        self.data(&event, out);
        self.scratch = event;
        self.events_sent += 1;
        self.records_sent += 1;
        self.plan_next(now_ns);
        if self.records_sent >= self.script.events {
            self.close(out);
        }
        Step::Wrote
    }

    /// The closing events go out with the last text event: providers send them in one piece.
    fn close(&mut self, out: &mut Vec<u8>) {
        self.facts.completion_tokens = u64::from(self.records_sent);
        let text = String::from_utf8(std::mem::take(&mut self.text)).unwrap_or_default();
        let closing = self.dialect.closing(&self.facts, &text, self.records_sent);
        self.events_sent += closing.len() as u32;
        for event in &closing {
            self.data(event.as_bytes(), out);
        }
        if let Some(packer) = self.packer.take() {
            let rest = finish(packer, b"");
            self.chunk(&rest, out);
        }
        if self.framing == Framing::Http1 {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.stage = Stage::Over(End::Whole);
    }

    fn plan_next(&mut self, now_ns: u64) {
        let mut gap_ns = self.script.gap_us * 1000;
        if self.script.jitter > 0.0 {
            let factor = 1.0 + self.script.jitter * (2.0 * self.random.f64() - 1.0);
            gap_ns = (gap_ns as f64 * factor) as u64;
        }
        if self.script.stall_us > 0 && self.records_sent == self.script.stall_at {
            gap_ns += self.script.stall_us * 1000;
        }
        self.due_ns = if gap_ns == 0 { now_ns } else { self.due_ns + gap_ns };
    }

    fn whole(&mut self, now_ns: u64) -> String {
        let mut text = Vec::new();
        if self.dialect != Dialect::Embeddings {
            for sequence in 0..self.script.events {
                record::write(self.stream, sequence, self.script.words, now_ns, &mut text);
            }
            self.records_sent = self.script.events;
        }
        self.events_sent = 1;
        self.facts.completion_tokens = u64::from(self.records_sent);
        self.dialect.whole(&self.facts, &String::from_utf8(text).unwrap_or_default())
    }

    fn first_faulty(&mut self, fault: Fault, now_ns: u64, out: &mut Vec<u8>) -> Step {
        self.stage = match fault {
            Fault::Status(status) => {
                let body = self.dialect.error(status, "scripted fault");
                self.head(status, Some(body.len()), out);
                out.extend_from_slice(body.as_bytes());
                Stage::Over(End::Fault)
            }
            Fault::ResetBeforeHead => Stage::Over(End::FaultReset),
            Fault::ResetAfterHead => {
                self.head(200, if self.mode == Mode::Whole { Some(500) } else { None }, out);
                Stage::Over(End::FaultReset)
            }
            Fault::Garbage | Fault::EndlessHead if self.framing == Framing::Http2 => {
                Stage::Over(End::FaultReset)
            }
            Fault::Garbage => {
                out.extend_from_slice(b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n");
                Stage::Over(End::FaultClose)
            }
            Fault::EndlessHead => {
                out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
                Stage::Endless
            }
            Fault::Trickle => {
                let body = self.whole(now_ns);
                let mut all = Vec::new();
                self.head(200, Some(body.len()), &mut all);
                all.extend_from_slice(body.as_bytes());
                self.scratch = all;
                Stage::Trickle(0)
            }
            Fault::Silent => {
                self.due_ns = u64::MAX;
                return Step::Wait(u64::MAX);
            }
            Fault::LengthTooLong | Fault::LengthTooShort => {
                let body = self.whole(now_ns);
                let told = if fault == Fault::LengthTooLong { body.len() + 100 } else { body.len() / 2 };
                self.head(200, Some(told), out);
                out.extend_from_slice(body.as_bytes());
                Stage::Over(End::FaultClose)
            }
            Fault::ResetMidEvent | Fault::CutMidEvent if self.mode == Mode::Stream => {
                return self.first(now_ns, out);
            }
            Fault::ResetMidEvent | Fault::CutMidEvent => {
                let body = self.whole(now_ns);
                self.head(200, Some(body.len()), out);
                out.extend_from_slice(&body.as_bytes()[..body.len() / 2]);
                let is_reset = fault == Fault::ResetMidEvent;
                Stage::Over(if is_reset { End::FaultReset } else { End::FaultClose })
            }
        };
        Step::Wrote
    }

    /// One byte a second of what is prepared in `scratch`.
    fn trickle(&mut self, at: usize, now_ns: u64, out: &mut Vec<u8>) -> Step {
        let Some(byte) = self.scratch.get(at) else {
            self.stage = Stage::Over(End::Whole);
            return Step::Finished(End::Whole);
        };
        out.push(*byte);
        self.stage = Stage::Trickle(at + 1);
        self.due_ns = now_ns + NS_PER_S;
        Step::Wrote
    }

    fn head(&mut self, status: u16, length: Option<usize>, out: &mut Vec<u8>) {
        self.head_with(status, length, Encoding::Identity, out);
    }

    fn head_with(&mut self, status: u16, length: Option<usize>, encoding: Encoding, out: &mut Vec<u8>) {
        let kind = if self.mode == Mode::Stream && status == 200 { EVENT_STREAM } else { JSON };
        let is_gzip = encoding == Encoding::Gzip;
        let asks_to_wait = matches!(status, 429 | 503 | 529);
        if self.framing == Framing::Http2 {
            let retry_after_s = asks_to_wait.then_some(1);
            self.head = Some(Head { status, content_type: kind, length, is_gzip, retry_after_s });
            return;
        }
        let framing = match length {
            Some(length) => format!("content-length: {length}"),
            None => "transfer-encoding: chunked".to_owned(),
        };
        let reason = if status == 200 { "OK" } else { "Fault" };
        let id = &self.facts.id;
        let retry = if asks_to_wait { "retry-after: 1\r\n" } else { "" };
        let encoding = if is_gzip { "content-encoding: gzip\r\n" } else { "" };
        let connection = if self.connection == Connection::Close { "connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\nx-request-id: req-{id}\r\n\
             {encoding}{retry}{connection}{framing}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
    }

    fn data(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(packer) = &mut self.packer else { return self.chunk(bytes, out) };
        // Writing to memory cannot fail.
        let _ = packer.write_all(bytes).and_then(|()| packer.flush());
        let packed = std::mem::take(packer.get_mut());
        self.chunk(&packed, out);
    }

    fn chunk(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.framing == Framing::Http2 {
            return out.extend_from_slice(bytes);
        }
        // An empty chunk would end the body.
        if bytes.is_empty() {
            return;
        }
        chunk_head(bytes.len(), out);
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

fn chunk_head(size: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[size >> (4 * place) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

fn finish(mut packer: GzEncoder<Vec<u8>>, last: &[u8]) -> Vec<u8> {
    // Writing to memory cannot fail.
    let _ = packer.write_all(last);
    packer.finish().unwrap_or_default()
}

/// Median 1; `sigma` 0 gives 1 always.
fn log_normal(random: &mut fastrand::Rng, sigma: f64) -> f64 {
    if sigma == 0.0 {
        return 1.0;
    }
    // Box-Muller; the first number is kept off zero.
    let (first, second) = (1.0 - random.f64(), random.f64());
    let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
    (sigma * normal).exp()
}

#[cfg(test)]
mod tests {
    use super::{Answer, Connection, End, Framing, Request, Step};
    use crate::dialect::{Dialect, EventText, Facts, Mode};
    use crate::mock::fault::Fault;
    use crate::mock::script::Script;
    use crate::net::clock::NS_PER_S;
    use crate::record::{Checker, Faults};
    use crate::wire::http1::{Item, Reader, ResponseHead};
    use crate::wire::sse::Splitter;

    fn answer(dialect: Dialect, mode: Mode, script: Script) -> Answer {
        let facts = Facts { id: "aaaaaaab".to_owned(), model: "m".to_owned(), ..Facts::default() };
        let connection = Connection::KeepAlive;
        let framing = Framing::Http1;
        Answer::new(Request { dialect, mode, script, facts, connection, accepts_gzip: false, framing }, 1, 0)
    }

    /// Runs an answer on a clock of its own: each write with its time.
    fn play(mut answer: Answer) -> (Vec<(u64, Vec<u8>)>, End) {
        let (mut now, mut writes) = (0, Vec::new());
        loop {
            let mut out = Vec::new();
            match answer.step(now, &mut out) {
                Step::Wrote => writes.push((now, out)),
                Step::Wait(until) => now = until,
                Step::Finished(end) => return (writes, end),
            }
        }
    }

    #[test]
    fn each_event_is_a_write_at_its_planned_time() {
        let script = Script { events: 4, ttft_us: 5000, gap_us: 30_000, ..Script::default() };
        let (writes, end) = play(answer(Dialect::Chat, Mode::Stream, script));
        let times: Vec<u64> = writes.iter().map(|(at, _)| at / 1_000_000).collect();
        assert_eq!((times, end), (vec![5, 35, 65, 95, 125], End::Whole));
    }

    #[test]
    fn a_stall_moves_all_later_events() {
        let script = Script { events: 3, gap_us: 1000, stall_at: 1, stall_us: 9000, ..Script::default() };
        let (writes, _) = play(answer(Dialect::Chat, Mode::Stream, script));
        let times: Vec<u64> = writes.iter().map(|(at, _)| at / 1_000_000).collect();
        assert_eq!(times, [0, 1, 11, 12]);
    }

    #[test]
    fn every_dialect_streams_text_that_checks() {
        for dialect in [Dialect::Chat, Dialect::Responses, Dialect::Messages, Dialect::Gemini] {
            let (writes, _) = play(answer(dialect, Mode::Stream, Script::default()));
            let bytes: Vec<u8> = writes.into_iter().flat_map(|(_, bytes)| bytes).collect();
            let (mut reader, mut splitter) = (Reader::<ResponseHead>::default(), Splitter::default());
            let (mut checker, mut faults, mut ends) = (Checker::new(1), Faults::default(), 0);
            let mut rest = bytes.as_slice();
            while let Some(item) = reader.next(&mut rest).expect("valid HTTP") {
                let Item::Data(data) = item else { continue };
                let on_event = |event: &[u8]| match dialect.read_event(event) {
                    EventText::Text(text) => checker.feed(text, &mut faults, |_| {}),
                    EventText::End => ends += 1,
                    _ => {}
                };
                splitter.feed(data, on_event).expect("short events");
            }
            checker.finish(Some(16), &mut faults);
            assert_eq!((faults, ends), (Faults::default(), 1), "{dialect:?}");
        }
    }

    #[test]
    fn a_fault_in_mid_event_leaves_half_an_event() {
        for (fault, end) in [(Fault::ResetMidEvent, End::FaultReset), (Fault::CutMidEvent, End::FaultClose)] {
            let script = Script { fault: Some(fault), fault_at: 2, ..Script::default() };
            let (writes, seen) = play(answer(Dialect::Chat, Mode::Stream, script));
            assert_eq!((writes.len(), seen), (4, end));
            assert!(!writes[3].1.ends_with(
                b"
"
            ));
        }
    }

    #[test]
    fn one_byte_a_second() {
        let script = Script { fault: Some(Fault::Trickle), ..Script::default() };
        let (writes, _) = play(answer(Dialect::Chat, Mode::Whole, script));
        assert!(writes.len() > 100);
        assert_eq!(writes[9].0 - writes[8].0, NS_PER_S);
    }

    #[test]
    fn times_to_first_token_spread_around_their_median() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut factors: Vec<f64> = (0..1001).map(|_| super::log_normal(&mut random, 0.5)).collect();
        factors.sort_by(f64::total_cmp);
        assert!((0.9..1.1).contains(&factors[500]), "{}", factors[500]);
        assert!(factors[990] > 2.0 && factors[10] < 0.5);
    }
}
