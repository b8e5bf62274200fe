//! One thread of the mock: accepts, reads requests, sends answers step by step.
//!
//! Each step of an answer is one write. An unpaced answer yields after `BURST_EVENTS` so that others go on;
//! an answer whose reader is slow waits for its socket and holds at most one event.

use std::io;
use std::sync::Arc;

use crate::mock::answer::{Answer, End, Framing, Step};
use crate::mock::desk::{Desk, Reply};
use crate::mock::http2::{Gone, Http2};
use crate::mock::stats::Stats;
use crate::mock::{BODY_BYTES_MAX, Config};
use crate::net::clock::{NS_PER_MS, now_ns};
use crate::net::http2::PREFACE;
use crate::net::reactor::{Reactor, Ready};
use crate::net::stream::{Listener, Stream};
use crate::net::timers::Timers;
use crate::wire::http1::{Item, Reader, RequestHead};

/// Events that one answer may write before the others have their turn.
const BURST_EVENTS: u32 = 16;
const READ_BYTES: usize = 64 * 1024;
/// Tokens of listeners stand above those of connections.
const LISTENER: u64 = 1 << 63;
/// How often the thread looks whether it shall stop.
const STOP_CHECK_NS: u64 = 50 * NS_PER_MS;

pub struct Server {
    desk: Desk,
    listeners: Vec<Listener>,
    reactor: Reactor,
    timers: Timers,
    ready: Vec<Ready>,
    connections: Vec<Option<Box<Connection>>>,
    /// HTTP/2 connections, by the same places; empty while there is none.
    carriers: Vec<Option<Carrier>>,
    free: Vec<usize>,
    /// Connections with an unpaced answer that yielded.
    eager: Vec<usize>,
    buffer: Vec<u8>,
}

struct Carrier {
    http2: Http2,
    generation: u32,
    /// The earliest deadline that was set for it.
    armed_ns: u64,
}

struct Connection {
    stream: Stream,
    reader: Reader<RequestHead>,
    head: RequestHead,
    body: Vec<u8>,
    answer: Option<Box<Answer>>,
    /// Read, but behind the request in work.
    backlog: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    /// Told apart from earlier users of the same place, in timers.
    generation: u32,
    is_eager: bool,
    /// Nothing was read from it.
    is_fresh: bool,
    /// The request asked for a close, and its answer needed no steps.
    ends_after_reply: bool,
}

#[derive(PartialEq, Eq)]
enum Life {
    Goes,
    Ends,
}

impl Server {
    pub fn new(
        config: Config,
        listeners: Vec<Listener>,
        place: usize,
        all_stats: Vec<Arc<Stats>>,
    ) -> io::Result<Self> {
        let reactor = Reactor::new()?;
        for (number, listener) in listeners.iter().enumerate() {
            reactor.add_listener(listener, LISTENER + number as u64)?;
        }
        Ok(Self {
            desk: Desk::new(config, all_stats, place),
            listeners,
            reactor,
            timers: Timers::default(),
            ready: Vec::new(),
            connections: Vec::new(),
            carriers: Vec::new(),
            free: Vec::new(),
            eager: Vec::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Waits once and does what is due.
    pub fn turn(&mut self) -> io::Result<()> {
        let now = now_ns();
        let until = if self.eager.is_empty() { self.timers.next_ns().min(now + STOP_CHECK_NS) } else { now };
        let mut ready = std::mem::take(&mut self.ready);
        self.reactor.wait(until, &mut ready)?;
        for one in ready.drain(..) {
            if one.token >= LISTENER {
                self.accept((one.token - LISTENER) as usize)?;
            } else {
                self.on_ready(one);
            }
        }
        self.ready = ready;
        let now = now_ns();
        while let Some((_, token)) = self.timers.take_due(now) {
            let (place, generation) = (token as u32 as usize, (token >> 32) as u32);
            let is_same = |c: &Connection| c.generation == generation;
            let is_carrier = |c: &Carrier| c.generation == generation;
            if self.carriers.get(place).and_then(Option::as_ref).is_some_and(is_carrier) {
                self.turn_carrier(place, now);
            } else if self.connections.get(place).and_then(Option::as_deref).is_some_and(is_same) {
                self.pump_or_end(place);
            }
        }
        if !self.eager.is_empty() {
            // In real-time scheduling a thread that has work never lets another of its core run.
            rustix::thread::sched_yield();
        }
        for place in std::mem::take(&mut self.eager) {
            if let Some(connection) = self.connections[place].as_mut().filter(|c| c.is_eager) {
                connection.is_eager = false;
                self.pump_or_end(place);
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        loop {
            let stream = match self.listeners[listener].accept(self.desk.config.tls.as_ref()) {
                Ok(stream) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // A peer that gave up in the queue; running out of files ends the mock with the kernel's
                // words.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let place = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.reactor.add(&stream, place as u64)?;
            self.desk.stats.connections_accepted.add(1);
            self.desk.stats.connections_open.add(1);
            let generation = self.desk.stats.connections_accepted.value() as u32;
            self.connections[place] = Some(Box::new(Connection {
                stream,
                reader: Reader::default(),
                head: RequestHead::default(),
                body: Vec::new(),
                answer: None,
                backlog: Vec::new(),
                out: Vec::new(),
                sent: 0,
                generation,
                is_eager: false,
                is_fresh: true,
                ends_after_reply: false,
            }));
        }
    }

    fn on_ready(&mut self, one: Ready) {
        let place = one.token as usize;
        if self.connections[place].is_none() {
            return self.turn_carrier(place, now_ns());
        }
        if one.readable && self.read(place, one.closing) == Life::Ends {
            return self.end(place);
        }
        if one.writable {
            self.pump_or_end(place);
        }
    }

    fn read(&mut self, place: usize, is_closing: bool) -> Life {
        loop {
            let Some(connection) = self.connections[place].as_mut() else { return Life::Goes };
            let mut buffer = std::mem::take(&mut self.buffer);
            let outcome = connection.stream.read(&mut buffer);
            let life = match &outcome {
                Ok(0) => Life::Ends,
                Ok(size) => self.take_in(place, &buffer[..*size]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Life::Goes,
                Err(_) => Life::Ends,
            };
            let is_drained = !matches!(outcome, Ok(size) if size == buffer.len());
            self.buffer = buffer;
            let may_hold_more = (self.desk.config.tls.is_some() || is_closing) && outcome.is_ok();
            if life == Life::Ends || (is_drained && !may_hold_more) {
                return life;
            }
        }
    }

    /// Parses bytes until a request is whole, starts its answer and keeps the rest.
    fn take_in(&mut self, place: usize, mut bytes: &[u8]) -> Life {
        if self.is_http2(place, bytes) {
            self.carry(place, bytes);
            return Life::Goes;
        }
        loop {
            let Some(connection) = self.connections[place].as_mut() else { return Life::Ends };
            connection.is_fresh = false;
            if connection.answer.is_some() {
                connection.backlog.extend_from_slice(bytes);
                return if connection.backlog.len() > BODY_BYTES_MAX { Life::Ends } else { Life::Goes };
            }
            match connection.reader.next(&mut bytes) {
                Ok(None) => return Life::Goes,
                Ok(Some(Item::Head(head))) => {
                    if head.expects_continue {
                        connection.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    connection.head = head;
                    connection.body.clear();
                }
                Ok(Some(Item::Data(data))) => {
                    if connection.body.len() + data.len() > BODY_BYTES_MAX {
                        return Life::Ends;
                    }
                    connection.body.extend_from_slice(data);
                }
                Ok(Some(Item::End)) => {
                    self.start(place);
                    if self.pump(place) == Life::Ends {
                        return Life::Ends;
                    }
                }
                Err(_) => {
                    self.desk.stats.requests_refused.add(1);
                    return Life::Ends;
                }
            }
        }
    }

    fn pump_or_end(&mut self, place: usize) {
        if self.pump(place) == Life::Ends {
            self.end(place);
        }
    }

    /// Sends what is due, an event per write.
    fn pump(&mut self, place: usize) -> Life {
        let mut burst = 0;
        loop {
            let Some(connection) = self.connections[place].as_mut() else { return Life::Goes };
            match connection.send() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Life::Goes,
                Err(_) => return Life::Ends,
            }
            let Some(answer) = &mut connection.answer else {
                return if connection.ends_after_reply { Life::Ends } else { Life::Goes };
            };
            if burst >= BURST_EVENTS {
                connection.is_eager = true;
                self.eager.push(place);
                return Life::Goes;
            }
            burst += 1;
            let (events, records) = (answer.events_sent, answer.records_sent);
            let step = answer.step(now_ns(), &mut connection.out);
            self.desk.stats.events_sent.add(u64::from(answer.events_sent - events));
            self.desk.stats.records_sent.add(u64::from(answer.records_sent - records));
            self.desk.stats.bytes_sent.add(connection.out.len() as u64);
            match step {
                Step::Wrote => {}
                Step::Wait(u64::MAX) => return Life::Goes,
                Step::Wait(until) => {
                    let token = u64::from(connection.generation) << 32 | place as u64;
                    self.timers.set(until, token);
                    return Life::Goes;
                }
                Step::Finished(end) => {
                    if self.finish(place, end) == Life::Ends {
                        return Life::Ends;
                    }
                }
            }
        }
    }

    fn finish(&mut self, place: usize, end: End) -> Life {
        let Some(connection) = self.connections[place].as_mut() else { return Life::Ends };
        let Some(answer) = connection.answer.take() else { return Life::Ends };
        self.desk.settle(&answer, end);
        if end == End::FaultReset {
            let _ = connection.stream.reset_on_close();
        }
        if matches!(end, End::FaultClose | End::FaultReset) || connection.head.close {
            return Life::Ends;
        }
        let backlog = std::mem::take(&mut connection.backlog);
        if backlog.is_empty() { Life::Goes } else { self.take_in(place, &backlog) }
    }

    fn end(&mut self, place: usize) {
        let Some(connection) = self.connections[place].take() else { return };
        if let Some(answer) = &connection.answer {
            self.desk.cancel(answer);
        }
        self.desk.stats.connections_open.sub(1);
        self.free.push(place);
    }

    /// Does the connection open with HTTP/2's preface? Under TLS the agreement says so, otherwise its first
    /// bytes: enough of them come in one read from every client that there is.
    fn is_http2(&self, place: usize, bytes: &[u8]) -> bool {
        let Some(connection) = self.connections[place].as_ref() else { return false };
        connection.is_fresh && (connection.stream.alpn() == Some(b"h2") || bytes.starts_with(PREFACE))
    }

    /// The connection goes on as HTTP/2, with `first` as its first bytes.
    fn carry(&mut self, place: usize, first: &[u8]) {
        let Some(connection) = self.connections[place].take() else { return };
        let generation = connection.generation;
        let http2 = Http2::new(connection.stream, first);
        self.carriers.resize_with(self.carriers.len().max(self.connections.len()), || None);
        self.carriers[place] = Some(Carrier { http2, generation, armed_ns: u64::MAX });
        self.turn_carrier(place, now_ns());
    }

    fn turn_carrier(&mut self, place: usize, now: u64) {
        let Some(carrier) = self.carriers.get_mut(place).and_then(Option::as_mut) else { return };
        match carrier.http2.turn(&mut self.desk) {
            Err(Gone) => {
                self.carriers[place] = None;
                self.desk.stats.connections_open.sub(1);
                self.free.push(place);
            }
            Ok(next_ns) => {
                if next_ns < carrier.armed_ns || carrier.armed_ns <= now {
                    carrier.armed_ns = next_ns;
                    if next_ns < u64::MAX {
                        let token = u64::from(carrier.generation) << 32 | place as u64;
                        self.timers.set(next_ns, token);
                    }
                }
            }
        }
    }

    /// A request is whole: its answer begins, or is there at once where it is no model call.
    fn start(&mut self, place: usize) {
        let Some(connection) = self.connections[place].as_mut() else { return };
        match self.desk.take(&connection.head, &connection.body, Framing::Http1) {
            Reply::Plain(status, body) => connection.reply(status, &body),
            Reply::Answer(answer) => {
                connection.answer = Some(answer);
                connection.body = Vec::new();
            }
        }
    }
}

impl Connection {
    /// Sends `out` as far as the socket takes it.
    fn send(&mut self) -> io::Result<()> {
        self.stream.flush()?;
        while self.sent < self.out.len() {
            self.sent += self.stream.write(&self.out[self.sent..])?;
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn reply(&mut self, status: u16, body: &str) {
        let head = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            if status == 200 { "OK" } else { "Refused" },
            body.len()
        );
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body.as_bytes());
        self.ends_after_reply = self.head.close;
    }
}
