//! One HTTP/1.1 exchange on a leased connection: the request out, the answer's head and body in.
//!
//! ```text new -> send .. send -> read_head -> next .. next -> finish \ Sent::Answered ^          \ 101 ->
//! into_tunnel ```
//!
//! Body pieces are slices of the pages into which they were received, payload only: the transfer framing ends
//! here. While it waits it holds no page: it waits for readiness, takes a page, receives, hands it on. So a
//! lot of bytes costs one recv(2) and no allocation, however many chunks are in it.
//!
//! Early answers: a server may answer before it has the whole request. A send of more than `WATCHED_FROM`
//! bytes therefore watches the other direction; less than that fits into the peer's window without the peer
//! reading.
//!
//! Reuse: `finish` gives the connection back where the request was sent whole before the answer began, the
//! answer ended by its own framing with nothing behind it, and the peer did not say `close`. Anything else
//! closes it, above all dropping the exchange: that is how it is cancelled.
//!
//! Limits: of heads and framing in `codec::http1`; the body's length is the caller's business. Deadlines are
//! handed in; `next` has none of its own: it may be raced and dropped while it waits, without loss. Errors:
//! `UpstreamError`, the upstream's fault, after which the connection is of no use. Source: RFC 9112 sections
//! 6, 7, 9; RFC 9110 section 15.

use super::head::{Answer, HeadReader, Progress};
use super::pool::Lease;
use crate::base::error::{Kind, Timer};
use crate::codec::http1::{Asked, Chunk, ChunkDecoder, ResponseFraming};
use crate::net::deadline::Deadline;
use crate::net::page::{self, Page, Slice};
use crate::net::race::{First, race};
use crate::net::send::SendList;
use crate::net::stream::Received;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

/// Sends of more bytes than this watch for an early answer.
pub const WATCHED_FROM: usize = 32 * 1024;

/// A read of so many bytes is followed by one that may bring more.
const MUCH_BYTES: usize = 4 * 1024;

/// One exchange. Dropping it cancels it: the connection is closed.
pub struct Http1Upstream {
    lease: Lease,
    /// Until the final head was handed out.
    head: Option<Box<HeadReader>>,
    body: Body,
    /// Received, not yet decoded.
    unread: Option<Slice>,
    /// The last read brought so much that the next one gets a page of its own, not the rest of the shared one.
    brings_much: bool,
    /// A part of the request did not go out, or the answer began before it had.
    request_cut: bool,
    /// What the head said about this connection.
    keep_alive: bool,
    /// How long the peer said that it keeps the connection open.
    kept_for: Duration,
}

/// What became of a part of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was handed to the kernel.
    Whole,
    /// The answer came first, and it is such that the rest of the request is of no use: go on with
    /// `read_head`.
    Answered,
}

/// The next part of the answer's body.
pub enum Piece {
    /// Payload, never empty.
    Data(Slice),
    /// The body has ended as its framing says. Asked again, it says so again.
    End,
}

/// What broke an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// `Timer::Write` or `Timer::ResponseHead`.
    Timeout(Timer),
    /// The connection ended before the first byte of an answer. One that was reused (`is_reused`) had most
    /// likely been closed before the request reached the server.
    NoAnswer,
    /// It ended inside the head.
    HeadCut,
    /// The head is not one; why.
    HeadInvalid(&'static str),
    /// It ended inside the body: by a reset, or before the length was reached or the last chunk had come.
    BodyCut,
    /// The chunked framing is broken; how.
    BodyInvalid(&'static str),
}

/// How much of the answer's body is still to come.
enum Body {
    /// No head yet.
    Unknown,
    Length(u64),
    Chunked(ChunkDecoder),
    UntilClose,
    Ended,
}

impl Http1Upstream {
    /// An exchange on `lease`. `asked` decides with the status whether the answer has a body.
    pub fn new(lease: Lease, asked: Asked) -> Http1Upstream {
        Http1Upstream {
            lease,
            head: Some(Box::new(HeadReader::new(asked))),
            body: Body::Unknown,
            unread: None,
            brings_much: false,
            request_cut: false,
            keep_alive: false,
            kept_for: Duration::MAX,
        }
    }

    /// Whether the connection had carried exchanges before.
    pub fn is_reused(&self) -> bool {
        self.lease.reused
    }

    /// Sends a part of the request; the first one begins with its head, framing included. The deadline holds
    /// for the part: a long body goes in parts of some 100 KiB.
    pub async fn send(&mut self, part: SendList, deadline: &Deadline) -> Result<Sent, UpstreamError> {
        let cut_before = std::mem::replace(&mut self.request_cut, true);
        let sent = if part.len() > WATCHED_FROM {
            // Boxed: its state is large and rare, and would be part of every exchange that waits.
            let mut sending = Box::pin(self.send_watched(part));
            race(sending.as_mut(), deadline.passed()).await
        } else {
            race(self.send_unwatched(part), deadline.passed()).await
        };
        let sent = match sent {
            First::One(sent) => sent?,
            // It has answered and does not take the rest: the answer counts.
            First::Two(_) if self.is_answered() => Sent::Answered,
            First::Two(_) => return Err(UpstreamError::Timeout(Timer::Write)),
        };
        self.request_cut = cut_before || sent == Sent::Answered || self.is_answered();
        Ok(sent)
    }

    /// Ends when the final answer's head came before the request was sent whole. To be raced with the wait
    /// for the next part of the request; may be dropped while it waits.
    pub async fn early_answer(&mut self) -> Result<(), UpstreamError> {
        if let Some(head) = &mut self.head {
            head.read(&self.lease).await?;
        }
        self.request_cut = true;
        Ok(())
    }

    /// The final answer's head; interim ones are skipped. To be called once, when the request was sent whole
    /// or the answer came early.
    pub async fn read_head(&mut self, deadline: &Deadline) -> Result<Answer, UpstreamError> {
        let taken_before = UpstreamError::HeadInvalid("the head was taken before");
        let head = self.head.as_mut().ok_or(taken_before)?;
        match race(head.read(&self.lease), deadline.passed()).await {
            First::One(read) => read?,
            First::Two(_) => return Err(UpstreamError::Timeout(Timer::ResponseHead)),
        }
        let (answer, unread) = head.take().ok_or(taken_before)?;
        self.head = None;
        self.unread = unread;
        self.body = match answer.framing {
            ResponseFraming::None | ResponseFraming::Length(0) => Body::Ended,
            ResponseFraming::Length(length) => Body::Length(length),
            ResponseFraming::Chunked => Body::Chunked(ChunkDecoder::new()),
            ResponseFraming::UntilClose => Body::UntilClose,
        };
        self.kept_for = answer.field("keep-alive").map_or(Duration::MAX, kept_for);
        self.keep_alive = answer.keep_alive && answer.status != 101 && !self.kept_for.is_zero();
        Ok(answer)
    }

    /// The next piece of the body. May be dropped while it waits, without loss.
    pub async fn next(&mut self) -> Result<Piece, UpstreamError> {
        loop {
            if let Some(piece) = self.next_ready()? {
                return Ok(piece);
            }
            self.lease.readable().await.map_err(|_| UpstreamError::BodyCut)?;
            self.receive()?;
        }
    }

    /// The next piece where it has been received already: several chunks often come in one lot.
    pub fn next_ready(&mut self) -> Result<Option<Piece>, UpstreamError> {
        if let Body::Ended = self.body {
            return Ok(Some(Piece::End));
        }
        let Some(unread) = self.unread.take() else { return Ok(None) };
        let (piece, used) = match &mut self.body {
            Body::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.body = Body::Ended;
                }
                (Piece::Data(unread.slice(0..taken)), taken)
            }
            Body::Chunked(decoder) => match decoder.next(&unread) {
                Ok(Chunk::Data(range)) => (Piece::Data(unread.slice(range.clone())), range.end),
                Ok(Chunk::NeedMore) => return Ok(None),
                Ok(Chunk::End { consumed }) => {
                    self.body = Body::Ended;
                    (Piece::End, consumed)
                }
                Err(error) => return Err(UpstreamError::BodyInvalid(error.what)),
            },
            Body::UntilClose => return Ok(Some(Piece::Data(unread))),
            Body::Unknown | Body::Ended => return Ok(None),
        };
        if used < unread.len() {
            self.unread = Some(unread.slice(used..unread.len()));
        }
        Ok(Some(piece))
    }

    /// Whether `finish` would give the connection back.
    pub fn is_reusable(&self) -> bool {
        self.keep_alive && !self.request_cut && self.unread.is_none() && matches!(self.body, Body::Ended)
    }

    /// Ends the exchange: the connection goes back to its pool where it can carry another one, else it is
    /// closed.
    pub fn finish(self) {
        if self.is_reusable() {
            self.lease.give_back_for(self.kept_for);
        }
    }

    /// Takes the connection over after a 101, with what was received behind its head.
    pub fn into_tunnel(self) -> (Lease, Option<Slice>) {
        (self.lease, self.unread)
    }
}

impl Http1Upstream {
    async fn send_unwatched(&mut self, part: SendList) -> Result<Sent, UpstreamError> {
        if self.lease.send(part).await.is_err() {
            // The peer takes no more. What it said before it closed counts, if that is an answer.
            return self.early_answer().await.map(|()| Sent::Answered);
        }
        Ok(Sent::Whole)
    }

    async fn send_watched(&mut self, part: SendList) -> Result<Sent, UpstreamError> {
        let Some(head) = &mut self.head else { return Ok(Sent::Answered) };
        let conn = &*self.lease;
        let mut sending = pin!(conn.send(part));
        let sent = loop {
            // An answer that succeeds early may still depend on the rest of the request: that is sent.
            if head.progress() != Progress::Waiting {
                break sending.await;
            }
            match race(sending.as_mut(), conn.readable()).await {
                First::One(sent) => break sent,
                First::Two(_) => {
                    if let Progress::Answered { status: 300.. } = head.receive(conn)? {
                        return Ok(Sent::Answered);
                    }
                }
            }
        };
        if sent.is_err() {
            // As above.
            head.read(conn).await?;
            return Ok(Sent::Answered);
        }
        Ok(Sent::Whole)
    }

    fn is_answered(&self) -> bool {
        self.head.as_ref().is_none_or(|head| head.progress() != Progress::Waiting)
    }

    /// Takes in what has arrived, without waiting. Only where nothing is left to decode.
    fn receive(&mut self) -> Result<(), UpstreamError> {
        let (received, slice) = if self.brings_much {
            let mut page = Page::rent();
            let received = self.lease.try_recv(&mut page);
            (received, page.slice(0..usize::MAX))
        } else {
            page::with_shared(|page| self.lease.try_recv(page))
        };
        match received {
            Ok(Received::Bytes(n)) => {
                self.brings_much = n >= MUCH_BYTES;
                self.unread = Some(slice);
            }
            Ok(Received::Nothing) => {}
            Ok(Received::End) if matches!(self.body, Body::UntilClose) => self.body = Body::Ended,
            // TLS reports an end without its closing alert as an error, so that a cut is visible.
            Ok(Received::End) | Err(_) => return Err(UpstreamError::BodyCut),
        }
        Ok(())
    }
}

/// The time in a `Keep-Alive` value, less a second for the way: a connection that the peer is about to close
/// is not worth the retry.
fn kept_for(value: &[u8]) -> Duration {
    let parameter = b"timeout=";
    let seconds = value.split(|byte| *byte == b',').find_map(|member| {
        let (name, digits) = member.trim_ascii().split_at_checked(parameter.len())?;
        let is_timeout = name.eq_ignore_ascii_case(parameter);
        is_timeout.then(|| std::str::from_utf8(digits).ok()?.parse::<u32>().ok()).flatten()
    });
    seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(u64::from(seconds.saturating_sub(1))))
}

impl UpstreamError {
    /// The kind of error that it is for a client.
    pub fn kind(self) -> Kind {
        match self {
            UpstreamError::Timeout(timer) => Kind::UpstreamTimeout(timer),
            _ => Kind::UpstreamBroken,
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamError::Timeout(timer) => write!(f, "the upstream's {} time ran out", timer.name()),
            UpstreamError::NoAnswer => f.write_str("the upstream closed the connection without an answer"),
            UpstreamError::HeadCut => {
                f.write_str("the upstream closed the connection inside its answer's head")
            }
            UpstreamError::HeadInvalid(what) => {
                write!(f, "the upstream's answer has an invalid head: {what}")
            }
            UpstreamError::BodyCut => {
                f.write_str("the upstream closed the connection inside its answer's body")
            }
            UpstreamError::BodyInvalid(what) => {
                write!(f, "the upstream's answer has an invalid body: {what}")
            }
        }
    }
}

impl std::error::Error for UpstreamError {}

#[cfg(test)]
mod tests;
