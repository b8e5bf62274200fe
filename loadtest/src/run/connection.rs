//! One client connection: its socket, what is still to be sent, and the answer under way.

use std::io;

use crate::measure::recorder::Recorder;
use crate::net::stream::Stream;
use crate::run::exchange::{Exchange, Failure, Next};
use crate::scenario::Slo;
use crate::wire::http1::{Item, Reader, ResponseHead};

/// The class of requests that met a connection at its end.
pub const CLOSED_ON_REUSE: &str = "closed on reuse";

pub struct Connection {
    pub stream: Stream,
    /// Which load of the scenario it serves.
    pub load: usize,
    pub exchange: Option<Exchange>,
    /// Answers that were completed on it.
    pub uses: u32,
    /// The client leaves after so many text events; 0: it stays.
    pub leave_after: u32,
    /// Bytes that may be read at each sweep; 0: as they come.
    pub read_bytes: usize,
    reader: Reader<ResponseHead>,
    out: Vec<u8>,
    sent: usize,
    closes: bool,
}

/// What became of a connection after bytes came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Busy,
    /// The answer is complete and the connection can take another request.
    Idle,
    /// To be closed; its exchange has been settled.
    Over,
    /// The client leaves on purpose.
    Leaves,
}

impl Connection {
    pub fn new(stream: Stream, load: usize, leave_after: u32) -> Self {
        Self {
            stream,
            load,
            exchange: None,
            uses: 0,
            leave_after,
            read_bytes: 0,
            reader: Reader::default(),
            out: Vec::new(),
            sent: 0,
            closes: false,
        }
    }

    /// Queues a request and sends as much of it as the socket takes.
    pub fn start(&mut self, exchange: Exchange, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.exchange = Some(exchange);
        fill(&mut self.out);
        self.flush()
    }

    /// Sends what is queued; a socket that is full, or not yet connected, is not an error.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()?;
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(size) => self.sent += size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Takes bytes that arrived.
    pub fn take_in(&mut self, mut bytes: &[u8], now_ns: u64, slo: &Slo, recorder: &mut Recorder) -> State {
        loop {
            let Some(exchange) = &mut self.exchange else {
                if bytes.is_empty() {
                    return if self.closes { State::Over } else { State::Idle };
                }
                recorder.failed(now_ns, "bytes that belong to no answer", &crate::wire::http1::quote(bytes));
                return State::Over;
            };
            match self.reader.next(&mut bytes) {
                Ok(None) => return State::Busy,
                Ok(Some(Item::Head(head))) => {
                    self.closes = head.close;
                    exchange.on_head(head);
                }
                Ok(Some(Item::Data(data))) => {
                    if exchange.on_data(data, now_ns, recorder) == Next::Drop {
                        self.fail(now_ns, Failure::new("dropped", ""), recorder);
                        return State::Over;
                    }
                    if self.leave_after > 0 && exchange.records() >= self.leave_after {
                        return State::Leaves;
                    }
                }
                Ok(Some(Item::End)) => {
                    self.uses += 1;
                    if let Some(exchange) = self.exchange.take() {
                        exchange.on_end(now_ns, slo, recorder);
                    }
                }
                Err(error) => {
                    self.fail(now_ns, Failure::new("not an HTTP/1.1 answer", error), recorder);
                    return State::Over;
                }
            }
        }
    }

    /// The peer closed its side.
    pub fn close(&mut self, now_ns: u64, slo: &Slo, recorder: &mut Recorder) {
        let outcome = self.reader.close();
        let Some(exchange) = self.exchange.take() else { return };
        match outcome {
            Ok(()) => exchange.on_end(now_ns, slo, recorder),
            Err(reason) => {
                let class = if self.is_reused(&exchange) { CLOSED_ON_REUSE } else { "closed by the target" };
                exchange.on_failure(now_ns, Failure::new(class, reason), recorder);
            }
        }
    }

    /// The socket gave an error.
    pub fn broke(&mut self, now_ns: u64, error: &io::Error, recorder: &mut Recorder) {
        let Some(exchange) = self.exchange.take() else { return };
        let class = match self.uses {
            _ if self.is_reused(&exchange) => CLOSED_ON_REUSE.to_owned(),
            0 => format!("broken before the first answer: {}", error.kind()),
            _ => format!("broken: {}", error.kind()),
        };
        exchange.on_failure(now_ns, Failure::new(class, error.to_string()), recorder);
    }

    /// A server may close an idle connection in the very moment of its reuse; a request that came too late
    /// makes it a reset.
    fn is_reused(&self, exchange: &Exchange) -> bool {
        self.uses > 0 && !exchange.has_answer()
    }

    /// Settles the exchange under way as failed.
    pub fn fail(&mut self, now_ns: u64, failure: Failure, recorder: &mut Recorder) {
        if let Some(exchange) = self.exchange.take() {
            exchange.on_failure(now_ns, failure, recorder);
        }
    }
}
