//! One HTTP/1.1 connection of a client, as the side that answers: heads and bodies in, answers out through
//! `handler/sink`.
//!
//! Shape: `read_head` gives the next request; `body_piece` or `collect_body` its body; between requests an
//! idle connection holds no buffer. Bytes that came behind a message (pipelining) stay and are the next
//! message's. Limits: `Bounds`. Every wait has a deadline: idle, head, body (silence, and a minimum rate),
//! write. Errors: `Refusal` (the client broke the grammar: answer and close), `BodyError` (who and what).
//! Source: RFC 9112 sections 2, 6, 7, 9; RFC 9110 section 10.1.1 (Expect).

use crate::base::clock::{self, Instant};
use crate::codec::http1::{
    BodyFraming, CONTINUE, Chunk, ChunkDecoder, HeadLimits, Refusal, RequestHead, RequestScan,
    path_of_refused,
};
use crate::net::allowance::Permit;
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::inbox::Inbox;
use crate::net::page::{Page, Slice};
use crate::net::race::{First, race};
use crate::net::send::SendList;
use crate::net::signal::Signal;
use crate::net::stream::Received;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bounds and deadlines of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub head: HeadLimits,
    /// From the first byte of a head to its end.
    pub head_timeout: Duration,
    /// Between requests, and from accept to the first byte.
    pub idle_timeout: Duration,
    /// Silence within a body; the whole of one that is collected.
    pub body_timeout: Duration,
    /// The least that a body must bring on average after `UPLOAD_GRACE`; 0 asks for nothing.
    pub upload_bytes_per_second_min: u64,
    /// One send that makes no progress to its end.
    pub write_timeout: Duration,
}

/// How long an upload may be slower than its minimum rate at the start.
pub const UPLOAD_GRACE: Duration = Duration::from_secs(5);

/// What `read_head` found.
pub enum HeadRead {
    Head(Box<RequestHead>),
    /// The client left, or nothing came within the idle time: close without a word.
    Over,
    /// The gateway drains and no last request came: linger, so that one which crosses the end is not answered
    /// by a reset, which could take the tail of the answer before it away.
    Drained,
    /// A head that breaks a rule or came too slowly: answer with the status and close.
    Refused(Refusal),
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The client closed or reset the connection.
    Gone,
    /// Longer than allowed.
    TooLarge,
    /// All bodies of the worker together are larger than allowed.
    Overloaded,
    /// Silent for too long, or slower than the minimum rate.
    TooSlow,
    /// Broken chunk framing.
    Broken(&'static str),
}

/// A client's connection.
pub struct Downstream {
    conn: Rc<Conn>,
    peer: SocketAddr,
    listener: usize,
    bounds: Arc<Bounds>,
    inbox: Inbox,
    body: Body,
    upload: Upload,
    deadline: Deadline,
}

enum Body {
    None,
    Length(u64),
    Chunked(ChunkDecoder),
}

/// How far the current body has come, for its minimum rate.
#[derive(Default)]
struct Upload {
    started: Instant,
    received: u64,
    /// How long the client was waited for: time in which a provider took nothing is not its fault.
    waited: Duration,
    /// It is collected: all of it must come within the body timeout.
    is_collected: bool,
}

impl Downstream {
    /// Takes over an accepted connection; `unread` are bytes that were read from it already.
    pub fn new(conn: Conn, peer: SocketAddr, bounds: Arc<Bounds>, unread: Option<Slice>) -> Downstream {
        Downstream {
            conn: Rc::new(conn),
            peer,
            listener: 0,
            bounds,
            inbox: unread.map(Inbox::with).unwrap_or_default(),
            body: Body::None,
            upload: Upload::default(),
            deadline: Deadline::unset(),
        }
    }

    /// The connection itself, for sending and for watching whether the client is still there.
    pub fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// The same, accepted at the listener of this place.
    pub fn at_listener(self, listener: usize) -> Downstream {
        Downstream { listener, ..self }
    }

    /// The place of the listener that accepted it; 0 where nobody said.
    pub fn listener(&self) -> usize {
        self.listener
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The path of the head that `read_head` refused, as far as it can be read.
    pub fn refused_path(&self) -> &str {
        path_of_refused(self.inbox.unread())
    }

    /// What a sink needs of this connection.
    pub fn sending(&self) -> (&Conn, Duration) {
        (&self.conn, self.bounds.write_timeout)
    }

    /// The whole body of the last head has been read.
    pub fn is_body_read(&self) -> bool {
        match &self.body {
            Body::None | Body::Length(0) => true,
            Body::Length(_) => false,
            Body::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// Bytes behind the current message have arrived already.
    pub fn has_unread(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Waits for the next request's head. `drain` ends the wait between requests after `LAST_REQUEST_WAIT`:
    /// the client could not know of it when it sent, or connected, a moment ago.
    pub async fn read_head(&mut self, drain: &Signal) -> HeadRead {
        let mut scan = RequestScan::new();
        let mut awaited = Awaited::Request;
        self.deadline.set(self.bounds.idle_timeout);
        loop {
            if self.has_unread() {
                match scan.advance(self.inbox.unread(), &self.bounds.head) {
                    Err(refusal) => return HeadRead::Refused(refusal),
                    Ok(Some(len)) => return self.take_head(&mut scan, len),
                    Ok(None) if awaited != Awaited::RestOfHead => {
                        awaited = Awaited::RestOfHead;
                        self.deadline.set(self.bounds.head_timeout);
                    }
                    Ok(None) => {}
                }
            }
            match (self.wait_for_head(drain, awaited).await, awaited) {
                (Waited::Bytes, _) => {}
                (Waited::Draining, _) => {
                    awaited = Awaited::LastRequest;
                    self.deadline.set(LAST_REQUEST_WAIT.min(self.bounds.idle_timeout));
                }
                (Waited::Expired, Awaited::RestOfHead) => return HeadRead::Refused(HEAD_TOO_SLOW),
                (Waited::Expired, Awaited::LastRequest) => return HeadRead::Drained,
                (Waited::Expired, Awaited::Request) | (Waited::Over, _) => return HeadRead::Over,
            }
        }
    }

    /// The next piece of the body's payload, without a copy; none at its end.
    pub async fn body_piece(&mut self) -> Result<Option<Slice>, BodyError> {
        loop {
            if self.is_body_read() {
                return Ok(None);
            }
            if let Some(piece) = self.take_piece()? {
                self.upload.received += piece.len() as u64;
                return Ok(Some(piece));
            }
            if !self.is_body_read() {
                self.receive().await?;
            }
        }
    }

    /// Forgets what has come of a body that nobody wants: where that is all of it, the connection can go on behind
    /// an answer that was given without it.
    pub fn forget_body(&mut self) {
        while !self.is_body_read() {
            if !matches!(self.take_piece(), Ok(Some(_))) {
                return;
            }
        }
    }

    /// The whole body in one piece of at most `bytes_max`. A body that came with its head is not copied;
    /// another one grows as its bytes arrive, and `permit` with it.
    pub async fn collect_body(&mut self, bytes_max: u64, permit: &mut Permit) -> Result<Slice, BodyError> {
        if let Body::Length(length) = self.body {
            if length > bytes_max {
                return Err(BodyError::TooLarge);
            }
            if let Some(whole) = self.take_whole(length) {
                return Ok(whole);
            }
        }
        self.upload.is_collected = true;
        let mut collected = Page::with_room(0);
        while let Some(piece) = self.body_piece().await? {
            let len = collected.bytes().len() + piece.len();
            if len as u64 > bytes_max {
                return Err(BodyError::TooLarge);
            }
            if collected.bytes().is_empty() && self.is_body_read() {
                return Ok(piece);
            }
            self.make_room(&mut collected, piece.len(), bytes_max, permit)?;
            collected.append(&piece);
            drop(piece);
            self.receive_into(&mut collected, bytes_max, permit).await?;
        }
        let len = collected.bytes().len();
        Ok(collected.slice(0..len))
    }

    /// Tells a client that waits with its body to send it, where nothing of the body has come yet.
    pub async fn send_continue(&mut self) -> Result<(), BodyError> {
        if self.has_unread() || self.is_body_read() {
            return Ok(());
        }
        let mut list = SendList::new();
        list.push_static(CONTINUE);
        self.deadline.set(self.bounds.write_timeout);
        match self.deadline.bound(self.conn.send(list)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(BodyError::Gone),
            Err(_) => Err(BodyError::TooSlow),
        }
    }

    /// Closes so that an answer which was sent before the whole request was read still reaches the client:
    /// says goodbye, then reads and forgets what still comes, bounded in bytes and time. A close with unread
    /// bytes would be a reset.
    pub async fn linger(mut self) {
        self.conn.shutdown().await;
        self.inbox = Inbox::Empty;
        self.deadline.set(LINGER_TIMEOUT);
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            let mut page = Page::rent();
            match self.deadline.bound(self.conn.recv(&mut page)).await {
                Ok(Ok(n)) if n > 0 => left = left.saturating_sub(n),
                _ => return,
            }
        }
    }

    /// Gives the connection away with the bytes that were read and not used: a tunnel begins
    /// (`After::Tunnelled`). No further request is read here.
    pub fn tunnel(&mut self) -> (Rc<Conn>, Option<Slice>) {
        (Rc::clone(&self.conn), self.inbox.take(usize::MAX))
    }

    fn take_head(&mut self, scan: &mut RequestScan, len: usize) -> HeadRead {
        match scan.decode(self.inbox.unread()) {
            Err(refusal) => HeadRead::Refused(refusal),
            Ok(head) => {
                self.inbox.skip(len);
                self.upload = Upload { started: clock::lately(), ..Upload::default() };
                self.body = match head.framing {
                    BodyFraming::None => Body::None,
                    BodyFraming::Length(length) => Body::Length(length),
                    BodyFraming::Chunked => Body::Chunked(ChunkDecoder::new()),
                };
                HeadRead::Head(Box::new(head))
            }
        }
    }

    async fn wait_for_head(&mut self, drain: &Signal, awaited: Awaited) -> Waited {
        let conn = Rc::clone(&self.conn);
        let ready = async {
            if awaited != Awaited::Request {
                return First::One(conn.readable().await);
            }
            race(conn.readable(), drain.raised()).await
        };
        match self.deadline.bound(ready).await {
            Err(_) => return Waited::Expired,
            Ok(First::Two(())) => return Waited::Draining,
            Ok(First::One(Err(_))) => return Waited::Over,
            Ok(First::One(Ok(()))) => {}
        }
        match self.inbox.receive(|page| conn.try_recv(page)) {
            Ok(Received::Bytes(_) | Received::Nothing) => Waited::Bytes,
            Ok(Received::End) | Err(_) => Waited::Over,
        }
    }

    /// Payload that is there already.
    fn take_piece(&mut self) -> Result<Option<Slice>, BodyError> {
        let unread = self.inbox.unread();
        if unread.is_empty() {
            return Ok(None);
        }
        match &mut self.body {
            Body::None => Ok(None),
            Body::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len());
                *left -= taken as u64;
                Ok(self.inbox.take(taken))
            }
            Body::Chunked(decoder) => match decoder.next(unread) {
                Err(error) => Err(BodyError::Broken(error.what)),
                Ok(Chunk::Data(range)) => {
                    self.inbox.skip(range.start);
                    Ok(self.inbox.take(range.len()))
                }
                Ok(Chunk::NeedMore) => {
                    self.inbox = Inbox::Empty;
                    Ok(None)
                }
                Ok(Chunk::End { consumed }) => {
                    self.inbox.skip(consumed);
                    Ok(None)
                }
            },
        }
    }

    /// The whole body, where it came with its head.
    fn take_whole(&mut self, length: u64) -> Option<Slice> {
        let length = usize::try_from(length).ok()?;
        if length == 0 || self.inbox.unread().len() < length {
            return None;
        }
        self.body = Body::None;
        self.inbox.take(length)
    }

    /// Waits for more bytes. Nothing is unread then: a decoder has used all that was there.
    async fn receive(&mut self) -> Result<(), BodyError> {
        self.wait_for_body().await?;
        match self.inbox.receive(|page| self.conn.try_recv(page)) {
            Ok(Received::Bytes(_) | Received::Nothing) => Ok(()),
            Ok(Received::End) | Err(_) => Err(BodyError::Gone),
        }
    }

    /// The rest of a body of known length, read straight into the collected one, which never has room for
    /// more than that.
    async fn receive_into(
        &mut self,
        collected: &mut Page,
        bytes_max: u64,
        permit: &mut Permit,
    ) -> Result<(), BodyError> {
        while let Body::Length(left) = self.body
            && left > 0
            && !self.has_unread()
        {
            self.wait_for_body().await?;
            self.make_room(collected, 1, bytes_max, permit)?;
            match self.conn.try_recv(collected) {
                Ok(Received::Bytes(n)) => {
                    self.body = Body::Length(left.saturating_sub(n as u64));
                    self.upload.received += n as u64;
                }
                Ok(Received::Nothing) => {}
                Ok(Received::End) | Err(_) => return Err(BodyError::Gone),
            }
        }
        Ok(())
    }

    /// Makes room for `more` in `collected`: twice as much as before, never more than the body can still
    /// bring.
    fn make_room(
        &self,
        collected: &mut Page,
        more: usize,
        bytes_max: u64,
        permit: &mut Permit,
    ) -> Result<(), BodyError> {
        if collected.room() >= more {
            return Ok(());
        }
        let held = collected.bytes().len();
        let needed = (held + more) as u64;
        let expected = match self.body {
            Body::Length(left) => (held as u64 + left).max(needed),
            _ => bytes_max.max(needed),
        };
        let wanted = needed.max(held as u64 * 2).max(COLLECT_BYTES_MIN).min(expected);
        if !permit.grow_to(wanted) {
            return Err(BodyError::Overloaded);
        }
        let mut grown = Page::with_room(usize::try_from(wanted).map_err(|_| BodyError::TooLarge)?);
        grown.append(collected.bytes());
        *collected = grown;
        Ok(())
    }

    async fn wait_for_body(&mut self) -> Result<(), BodyError> {
        let now = clock::now();
        let since = if self.upload.is_collected { self.upload.started } else { now };
        let silence = since + self.bounds.body_timeout;
        let slow = match self.bounds.upload_bytes_per_second_min {
            0 => Instant::NEVER,
            rate => {
                let earned = Duration::from_micros(self.upload.received.saturating_mul(1_000_000) / rate);
                now + (UPLOAD_GRACE + earned).saturating_sub(self.upload.waited)
            }
        };
        self.deadline.set_at(silence.min(slow));
        let waited = self.deadline.bound(self.conn.readable()).await;
        self.upload.waited += clock::now() - now;
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(BodyError::Gone),
            Err(_) => Err(BodyError::TooSlow),
        }
    }
}

/// What a client is waited for, between the end of a message and the end of the next head.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Request,
    /// As `Request`, while the gateway drains.
    LastRequest,
    RestOfHead,
}

enum Waited {
    Bytes,
    Draining,
    Expired,
    Over,
}

/// How long a connection without a request outlives the begin of a drain.
const LAST_REQUEST_WAIT: Duration = Duration::from_secs(1);

const HEAD_TOO_SLOW: Refusal = Refusal { status: 408, what: "the request head took too long", limit: None };
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// What a collected body starts with: a client that sends a byte a second must not hold much.
const COLLECT_BYTES_MIN: u64 = 4 * 1024;
