//! One HTTP/2 connection of the generator: its streams are lanes, each with an exchange like that of an
//! HTTP/1.1 connection.
//!
//! Input: requests, and word that the socket is ready. Output: settled exchanges, and how many lanes have
//! become free. A request waits here until the handshake is over and the peer's limit of streams allows it;
//! its wait counts. Times are those of the read that brought the bytes, as with HTTP/1.1. A slow reader takes
//! from its stream only what `give_room` has allowed: what it leaves holds back WINDOW_UPDATE, so that the
//! peer may be ahead of it by one stream window. Absent: server push, trailers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};

use crate::measure::recorder::Recorder;
use crate::net::clock::now_ns;
use crate::net::http2::{
    CONNECTION, CONNECTION_WINDOW, Io, SLOW_READER_WINDOW, STREAM_WINDOW, Socket, Wakers,
};
use crate::net::stream::Stream;
use crate::run::connection::CLOSED_ON_REUSE;
use crate::run::exchange::{Exchange, Failure, Next};
use crate::scenario::Slo;
use crate::wire::http1::{Content, ResponseHead};

type Handshake = dyn Future<Output = Result<(SendRequest<Bytes>, Connection<Io, Bytes>), h2::Error>>;

enum State {
    Handshake(Pin<Box<Handshake>>),
    Open {
        sender: SendRequest<Bytes>,
        connection: Box<Connection<Io, Bytes>>,
    },
    /// Failed, or closed by either side.
    Over,
}

pub struct Http2 {
    /// Which load of the scenario it serves.
    pub load: usize,
    /// Streams that it may carry at once.
    pub lanes: usize,
    pub socket: Rc<RefCell<Socket>>,
    state: State,
    is_tls: bool,
    queue: VecDeque<(Exchange, http::Request<()>, Bytes)>,
    open: Vec<Option<Lane>>,
    free: Vec<u32>,
    wakers: Wakers,
    woken: Vec<u32>,
    habits: Habits,
}

/// How the clients of a load read.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// They leave a stream after so many text events; 0: they stay.
    pub leave_after: u32,
    /// What `give_room` allows a stream each time; `None`: they take what comes.
    pub room_bytes: Option<usize>,
}

struct Lane {
    exchange: Exchange,
    answer: Answer,
    /// Bytes that may be taken for now; below zero by the rest of a frame that was larger.
    room: i64,
}

enum Answer {
    Awaited(ResponseFuture),
    Read(h2::RecvStream),
}

/// What became of the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Exchanges that are settled: so many lanes can take another request.
    pub freed: usize,
    /// Of these, clients that left on purpose.
    pub left: usize,
    pub is_over: bool,
}

impl Http2 {
    pub fn new(stream: Stream, is_tls: bool, load: usize, lanes: usize, habits: Habits) -> Self {
        let socket = Socket::new(stream, b"");
        let mut builder = Builder::new();
        let window = if habits.room_bytes.is_some() { SLOW_READER_WINDOW } else { STREAM_WINDOW };
        builder.initial_window_size(window).initial_connection_window_size(CONNECTION_WINDOW);
        builder.enable_push(false).max_concurrent_reset_streams(10_000);
        let io = Io(socket.clone());
        Self {
            load,
            lanes,
            socket,
            state: State::Handshake(Box::pin(async move { builder.handshake(io).await })),
            is_tls,
            queue: VecDeque::new(),
            open: Vec::new(),
            free: Vec::new(),
            wakers: Wakers::default(),
            woken: Vec::new(),
            habits,
        }
    }

    /// Queues a request; `turn` sends it.
    pub fn start(&mut self, exchange: Exchange, request: http::Request<()>, body: Bytes) {
        self.queue.push_back((exchange, request, body));
    }

    /// Exchanges under way, sent or not.
    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        let sent = self.open.iter().flatten().map(|lane| &lane.exchange);
        sent.chain(self.queue.iter().map(|(exchange, ..)| exchange))
    }

    /// Takes every exchange off the connection, which is to be closed.
    pub fn take_all(&mut self) -> Vec<Exchange> {
        self.state = State::Over;
        let sent = self.open.drain(..).flatten().map(|lane| lane.exchange);
        sent.chain(self.queue.drain(..).map(|(exchange, ..)| exchange)).collect()
    }

    /// Does what can be done now: reads, writes, sends what is queued, settles what has ended.
    pub fn turn(&mut self, slo: &Slo, recorder: &mut Recorder) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            if let Err(failure) = self.drive() {
                self.poll_lanes(true, slo, recorder, &mut outcome);
                let rest = self.take_all();
                outcome.freed += rest.len();
                for exchange in rest {
                    exchange.on_failure(now_ns(), failure.clone(), recorder);
                }
                outcome.is_over = true;
                return outcome;
            }
            self.send_queued(recorder, &mut outcome);
            if !self.poll_lanes(false, slo, recorder, &mut outcome) {
                return outcome;
            }
        }
    }

    /// Polls the connection itself. The error is the end of all its lanes.
    fn drive(&mut self) -> Result<(), Failure> {
        let waker = self.wakers.of(CONNECTION);
        let mut cx = Context::from_waker(&waker);
        self.socket.borrow_mut().stream.flush().map_err(|error| broken(&error.to_string()))?;
        if let State::Handshake(handshake) = &mut self.state
            && let Poll::Ready(made) = handshake.as_mut().poll(&mut cx)
        {
            let (sender, connection) = made.map_err(|error| broken(&error.to_string()))?;
            self.state = State::Open { sender, connection: Box::new(connection) };
        }
        match &mut self.state {
            State::Handshake(_) => Ok(()),
            State::Over => Err(broken("closed")),
            State::Open { connection, .. } => {
                let polled = Pin::new(connection.as_mut()).poll(&mut cx);
                self.check_agreement()?;
                match polled {
                    Poll::Pending => Ok(()),
                    Poll::Ready(Ok(())) => {
                        Err(Failure::new("closed by the target", "HTTP/2 connection closed"))
                    }
                    Poll::Ready(Err(error)) => Err(broken(&error.to_string())),
                }
            }
        }
    }

    /// Under TLS the peer must have agreed to HTTP/2.
    fn check_agreement(&self) -> Result<(), Failure> {
        let socket = self.socket.borrow();
        if !self.is_tls || socket.stream.is_handshaking() || socket.stream.alpn() == Some(b"h2") {
            return Ok(());
        }
        let chosen = socket.stream.alpn().map_or("nothing".into(), String::from_utf8_lossy).into_owned();
        Err(Failure::new("no HTTP/2", format!("asked for h2 in TLS (ALPN), the target chose {chosen}")))
    }

    fn send_queued(&mut self, recorder: &mut Recorder, outcome: &mut Outcome) {
        let State::Open { sender, .. } = &mut self.state else { return };
        let waker = self.wakers.of(CONNECTION);
        while !self.queue.is_empty() {
            match sender.poll_ready(&mut Context::from_waker(&waker)) {
                Poll::Pending => return,
                // The connection is ending; its poll says why, or the peer lets what is under way end.
                Poll::Ready(Err(error)) => {
                    for (exchange, ..) in self.queue.drain(..) {
                        outcome.freed += 1;
                        let failure = Failure::new(CLOSED_ON_REUSE, error.to_string());
                        exchange.on_failure(now_ns(), failure, recorder);
                    }
                    return;
                }
                Poll::Ready(Ok(())) => {}
            }
            let Some((exchange, request, body)) = self.queue.pop_front() else { return };
            let sent = sender.send_request(request, body.is_empty()).and_then(|(response, mut upload)| {
                if !body.is_empty() {
                    upload.send_data(body, true)?;
                }
                Ok(response)
            });
            match sent {
                Ok(response) => {
                    let slot = self.free.pop().unwrap_or_else(|| {
                        self.open.push(None);
                        self.open.len() as u32 - 1
                    });
                    let room = self.habits.room_bytes.map_or(i64::MAX, |bytes| bytes as i64);
                    let answer = Answer::Awaited(response);
                    self.open[slot as usize] = Some(Lane { exchange, answer, room });
                    // The first poll leaves the slot's waker with h2.
                    self.wakers.of(slot).wake();
                }
                Err(error) => {
                    outcome.freed += 1;
                    exchange.on_failure(now_ns(), broken(&error.to_string()), recorder);
                }
            }
        }
    }

    /// Polls the lanes that were woken, or all; says whether the connection must be polled again.
    fn poll_lanes(&mut self, all: bool, slo: &Slo, recorder: &mut Recorder, outcome: &mut Outcome) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.wakers.take(&mut woken);
        if all {
            woken = (0..self.open.len() as u32).collect();
        }
        let has_work = !woken.is_empty();
        let now = now_ns();
        for slot in woken.drain(..) {
            let Some(mut lane) = self.open.get_mut(slot as usize).and_then(Option::take) else { continue };
            if all {
                // Nothing comes any more: what is there is told before the failure.
                lane.room = i64::MAX;
            }
            let waker = self.wakers.of(slot);
            match lane.poll(&mut Context::from_waker(&waker), now, self.habits.leave_after, recorder) {
                LaneState::Goes => {
                    self.open[slot as usize] = Some(lane);
                    continue;
                }
                LaneState::Ended => lane.exchange.on_end(now, slo, recorder),
                LaneState::Failed(failure) => lane.exchange.on_failure(now, failure, recorder),
                LaneState::Left => {
                    outcome.left += 1;
                    lane.exchange.on_leave(recorder);
                }
            }
            outcome.freed += 1;
            self.free.push(slot);
        }
        self.woken = woken;
        has_work
    }

    /// Lets slow readers take their next bytes with the next `turn`; says whether there are any.
    pub fn give_room(&mut self) -> bool {
        let Some(bytes) = self.habits.room_bytes else { return false };
        for (slot, lane) in self.open.iter_mut().enumerate() {
            if let Some(lane) = lane {
                // What one did not take is not kept for it.
                lane.room = lane.room.saturating_add(bytes as i64).min(bytes as i64);
                self.wakers.of(slot as u32).wake();
            }
        }
        true
    }

    /// Fails exchanges that `is_late` picks; each stream is reset.
    pub fn fail_late(
        &mut self,
        is_late: impl Fn(&Exchange) -> bool,
        failure: &Failure,
        recorder: &mut Recorder,
    ) -> usize {
        let mut failed = 0;
        for slot in 0..self.open.len() {
            if let Some(lane) = self.open[slot].take_if(|lane| is_late(&lane.exchange)) {
                lane.exchange.on_failure(now_ns(), failure.clone(), recorder);
                self.free.push(slot as u32);
                failed += 1;
            }
        }
        for (exchange, request, body) in std::mem::take(&mut self.queue) {
            if is_late(&exchange) {
                exchange.on_failure(now_ns(), failure.clone(), recorder);
                failed += 1;
            } else {
                self.queue.push_back((exchange, request, body));
            }
        }
        failed
    }
}

enum LaneState {
    Goes,
    Ended,
    Left,
    Failed(Failure),
}

impl Lane {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: u64,
        leave_after: u32,
        recorder: &mut Recorder,
    ) -> LaneState {
        if let Answer::Awaited(response) = &mut self.answer {
            match Pin::new(response).poll(cx) {
                Poll::Pending => return LaneState::Goes,
                Poll::Ready(Err(error)) => return LaneState::Failed(reset(&error)),
                Poll::Ready(Ok(response)) => {
                    let (parts, body) = response.into_parts();
                    self.exchange.on_head(head(&parts));
                    self.answer = Answer::Read(body);
                }
            }
        }
        let Answer::Read(body) = &mut self.answer else { return LaneState::Goes };
        while self.room > 0 {
            let bytes = match body.poll_data(cx) {
                Poll::Pending => return LaneState::Goes,
                Poll::Ready(None) => return LaneState::Ended,
                Poll::Ready(Some(Err(error))) => return LaneState::Failed(reset(&error)),
                Poll::Ready(Some(Ok(bytes))) => bytes,
            };
            self.room -= bytes.len() as i64;
            // Fails only for more than was received.
            let _ = body.flow_control().release_capacity(bytes.len());
            if self.exchange.on_data(&bytes, now, recorder) == Next::Drop {
                return LaneState::Failed(Failure::new("dropped", ""));
            }
            if leave_after > 0 && self.exchange.records() >= leave_after {
                return LaneState::Left;
            }
        }
        LaneState::Goes
    }
}

fn broken(example: &str) -> Failure {
    Failure::new("HTTP/2 connection broken", example)
}

fn reset(error: &h2::Error) -> Failure {
    let class = if error.is_reset() { "HTTP/2 stream reset" } else { "HTTP/2 connection broken" };
    Failure::new(class, error.to_string())
}

fn head(parts: &http::response::Parts) -> ResponseHead {
    let field = |name: &str| parts.headers.get(name).map(http::HeaderValue::as_bytes);
    ResponseHead {
        status: parts.status.as_u16(),
        content: field("content-type").map_or(Content::default(), Content::of),
        gzip: field("content-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"gzip")),
        close: false,
    }
}
