//! One HTTP/2 connection of the mock: each stream is a lane with a request, then an answer.
//!
//! Input: word that the socket is ready or a deadline has come. Output: frames, and when to be called
//! again. A lane holds at most one event that its reader's window has no room for. Events of several
//! streams that are due in one turn share a write. Faults: resets become RST_STREAM; a cut ends the stream
//! in mid-event; what only HTTP/1.1 has bytes for becomes RST_STREAM.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};

use crate::mock::BODY_BYTES_MAX;
use crate::mock::answer::{Answer, End, Framing, Step};
use crate::mock::desk::{Desk, Reply};
use crate::net::clock::now_ns;
use crate::net::http2::{CONNECTION, CONNECTION_WINDOW, Io, STREAM_WINDOW, Socket, Wakers};
use crate::net::stream::Stream;
use crate::net::timers::Timers;
use crate::wire::http1::RequestHead;

/// Streams that a client may have open at once.
const STREAMS_MAX: u32 = 10_000;
/// Events that one lane may write before the others have their turn.
const BURST_EVENTS: u32 = 16;

enum State {
    Handshake(Box<Handshake<Io, Bytes>>),
    Open(Box<Connection<Io, Bytes>>),
}

pub struct Http2 {
    socket: Rc<RefCell<Socket>>,
    state: State,
    lanes: Vec<Option<Box<Lane>>>,
    free: Vec<u32>,
    wakers: Wakers,
    timers: Timers,
    /// Lanes opened so far: tells a lane from earlier users of its slot.
    opened: u32,
}

/// The connection is over; its lanes are settled.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

struct Lane {
    generation: u32,
    head: RequestHead,
    body: Vec<u8>,
    upload: Option<RecvStream>,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    answer: Option<Box<Answer>>,
    out: Vec<u8>,
    end: Option<End>,
}

/// What a lane waits for.
enum Wait {
    /// Its waker.
    Peer,
    Until(u64),
    /// Nothing: it yields to the others.
    Turn,
    /// It is over.
    Over,
}

impl Http2 {
    /// `first` is what was read from the stream already.
    pub fn new(stream: Stream, first: &[u8]) -> Self {
        let socket = Socket::new(stream, first);
        let mut builder = Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        builder.max_concurrent_streams(STREAMS_MAX).max_local_error_reset_streams(None);
        let state = State::Handshake(Box::new(builder.handshake(Io(socket.clone()))));
        let (lanes, free, wakers, timers) = (Vec::new(), Vec::new(), Wakers::default(), Timers::default());
        Self { socket, state, lanes, free, wakers, timers, opened: 0 }
    }

    /// Does what can be done now; gives the time of the next deadline.
    pub fn turn(&mut self, desk: &mut Desk) -> Result<u64, Gone> {
        let mut woken = Vec::new();
        let mut yielded = Vec::new();
        loop {
            if self.drive(&mut woken).is_err() {
                self.settle_all(desk);
                return Err(Gone);
            }
            self.wakers.take(&mut woken);
            let now = now_ns();
            while let Some((_, token)) = self.timers.take_due(now) {
                let (slot, generation) = (token as u32, (token >> 32) as u32);
                let lane = self.lanes.get(slot as usize).and_then(Option::as_ref);
                if lane.is_some_and(|lane| lane.generation == generation) {
                    woken.push(slot);
                }
            }
            if woken.is_empty() {
                yielded.iter().for_each(|slot| self.wakers.of(*slot).wake());
                let next_ns = if yielded.is_empty() { self.timers.next_ns() } else { now };
                return Ok(next_ns);
            }
            for slot in woken.drain(..) {
                self.step(slot, desk, &mut yielded);
            }
        }
    }

    /// Polls the connection; new requests become lanes, which are put into `woken`.
    fn drive(&mut self, woken: &mut Vec<u32>) -> Result<(), Gone> {
        let waker = self.wakers.of(CONNECTION);
        let mut cx = Context::from_waker(&waker);
        self.socket.borrow_mut().stream.flush().map_err(|_| Gone)?;
        if let State::Handshake(handshake) = &mut self.state
            && let Poll::Ready(made) = Pin::new(handshake.as_mut()).poll(&mut cx)
        {
            self.state = State::Open(Box::new(made.map_err(|_| Gone)?));
        }
        let State::Open(connection) = &mut self.state else { return Ok(()) };
        loop {
            let (request, respond) = match connection.poll_accept(&mut cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(accepted))) => accepted,
                Poll::Ready(_) => return Err(Gone),
            };
            let (parts, upload) = request.into_parts();
            let path = parts.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
            let mut head = RequestHead { method: parts.method.to_string(), path, ..RequestHead::default() };
            for (name, value) in &parts.headers {
                head.read(name.as_str(), value.as_bytes());
            }
            self.opened = self.opened.wrapping_add(1);
            let lane = Lane {
                generation: self.opened,
                head,
                body: Vec::new(),
                upload: Some(upload),
                respond,
                send: None,
                answer: None,
                out: Vec::new(),
                end: None,
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.lanes.push(None);
                self.lanes.len() as u32 - 1
            });
            self.lanes[slot as usize] = Some(Box::new(lane));
            woken.push(slot);
        }
    }

    fn step(&mut self, slot: u32, desk: &mut Desk, yielded: &mut Vec<u32>) {
        let waker = self.wakers.of(slot);
        let Some(lane) = self.lanes.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        match lane.step(&mut Context::from_waker(&waker), desk) {
            Wait::Peer => {}
            Wait::Until(at_ns) => self.timers.set(at_ns, u64::from(lane.generation) << 32 | u64::from(slot)),
            Wait::Turn => yielded.push(slot),
            Wait::Over => {
                self.lanes[slot as usize] = None;
                self.free.push(slot);
            }
        }
    }

    fn settle_all(&mut self, desk: &Desk) {
        for lane in self.lanes.drain(..).flatten() {
            if let Some(answer) = &lane.answer {
                desk.cancel(answer);
            }
        }
    }
}

impl Lane {
    fn step(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Wait {
        if self.upload.is_some() {
            match self.read_body(cx) {
                Poll::Pending => return Wait::Peer,
                Poll::Ready(Err(Gone)) => return Wait::Over,
                Poll::Ready(Ok(())) => {}
            }
            match desk.take(&self.head, &self.body, Framing::Http2) {
                Reply::Plain(status, body) => return self.reply(status, body),
                Reply::Answer(answer) => self.answer = Some(answer),
            }
            self.body = Vec::new();
        }
        let wait = self.pump(cx, desk);
        if matches!(wait, Wait::Over) {
            return wait;
        }
        // Asked last, so that the waker is left with h2.
        let reset = match &mut self.send {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        if reset.is_pending() {
            return wait;
        }
        if let Some(answer) = self.answer.take() {
            desk.cancel(&answer);
        }
        Wait::Over
    }

    /// Reads the request's body to its end.
    fn read_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
        loop {
            match upload.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) if self.body.len() + bytes.len() <= BODY_BYTES_MAX => {
                    self.body.extend_from_slice(&bytes);
                    // Fails only for more than was received.
                    let _ = upload.flow_control().release_capacity(bytes.len());
                }
                Poll::Ready(None) => break,
                Poll::Ready(Some(_)) => return Poll::Ready(Err(Gone)),
            }
        }
        self.upload = None;
        Poll::Ready(Ok(()))
    }

    /// Sends what is due, an event per frame.
    fn pump(&mut self, cx: &mut Context<'_>, desk: &Desk) -> Wait {
        let mut burst = 0;
        loop {
            if !self.out.is_empty() {
                match self.send_out(cx) {
                    Poll::Pending => return Wait::Peer,
                    Poll::Ready(Err(Gone)) => return self.cancelled(desk),
                    Poll::Ready(Ok(())) => {}
                }
            }
            if let Some(end) = self.end {
                return self.finish(end, desk);
            }
            if burst >= BURST_EVENTS {
                return Wait::Turn;
            }
            burst += 1;
            let Some(answer) = &mut self.answer else { return Wait::Over };
            let (events, records) = (answer.events_sent, answer.records_sent);
            let step = answer.step(now_ns(), &mut self.out);
            desk.stats.events_sent.add(u64::from(answer.events_sent - events));
            desk.stats.records_sent.add(u64::from(answer.records_sent - records));
            desk.stats.bytes_sent.add(self.out.len() as u64);
            if let Some(head) = answer.take_head() {
                let id = answer.facts().id.clone();
                match self.respond.send_response(response(&head, &id), false) {
                    Ok(send) => self.send = Some(send),
                    Err(_) => return self.cancelled(desk),
                }
            }
            match step {
                Step::Wrote => {}
                Step::Wait(u64::MAX) => return Wait::Peer,
                Step::Wait(until) => return Wait::Until(until),
                Step::Finished(end) => self.end = Some(end),
            }
        }
    }

    /// Hands `out` to h2 as far as the reader's window goes.
    fn send_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(Gone)) };
        while !self.out.is_empty() {
            send.reserve_capacity(self.out.len());
            if send.capacity() == 0 {
                match send.poll_capacity(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(_) => return Poll::Ready(Err(Gone)),
                }
            }
            let size = send.capacity().min(self.out.len());
            if send.send_data(Bytes::copy_from_slice(&self.out[..size]), false).is_err() {
                return Poll::Ready(Err(Gone));
            }
            self.out.drain(..size);
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self, end: End, desk: &Desk) -> Wait {
        if let Some(answer) = self.answer.take() {
            desk.settle(&answer, end);
        }
        match (&mut self.send, end) {
            (Some(send), End::FaultReset) => send.send_reset(Reason::INTERNAL_ERROR),
            (None, _) => self.respond.send_reset(Reason::INTERNAL_ERROR),
            (Some(send), _) => {
                // Fails only where the reader is gone, which its reset says.
                let _ = send.send_data(Bytes::new(), true);
            }
        }
        Wait::Over
    }

    fn cancelled(&mut self, desk: &Desk) -> Wait {
        if let Some(answer) = self.answer.take() {
            desk.cancel(&answer);
        }
        Wait::Over
    }

    fn reply(&mut self, status: u16, body: String) -> Wait {
        let made = http::Response::builder().status(status).header("content-type", "application/json");
        if let Ok(head) = made.body(())
            && let Ok(mut send) = self.respond.send_response(head, false)
        {
            // Fails only where the reader is gone.
            let _ = send.send_data(Bytes::from(body), true);
        }
        Wait::Over
    }
}

fn response(head: &crate::mock::answer::Head, id: &str) -> http::Response<()> {
    let mut made = http::Response::builder()
        .status(head.status)
        .header("content-type", head.content_type)
        .header("x-request-id", format!("req-{id}"));
    if let Some(length) = head.length {
        made = made.header("content-length", length);
    }
    if head.is_gzip {
        made = made.header("content-encoding", "gzip");
    }
    if let Some(wait_s) = head.retry_after_s {
        made = made.header("retry-after", wait_s);
    }
    made.body(()).expect("a status of three digits and fields of ASCII")
}
