//! Where an answer goes: a client's HTTP/1.1 connection, or memory (tests; later a cache's store).
//!
//! Shape: `head` once, `data` as often as there is some, `flush` when nothing more is at hand, `end` or drop.
//! Framing is written here and nowhere else: Content-Length where the length is known, chunks otherwise, the
//! end of the connection for HTTP/1.0. One flush is one send: head, chunk framing and the slices of what the
//! upstream sent, gathered, not copied. Errors: `Gone`, the client left or took nothing for the write
//! timeout. A sink dropped before `end` leaves the answer visibly cut: its connection must not be used again.
//! Source: RFC 9112 sections 6 and 7.

use crate::base::clock::{self, Instant};
use crate::codec::http1::{CHUNK_END, HeadWriter, LAST_CHUNK, ResponseFraming, chunk_head};
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::downstream::Downstream;
use crate::net::page::Slice;
use crate::net::send::{Gap, SendList};
use std::time::Duration;

/// The client is not there any more, or does not take its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// How long the body will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLen {
    /// No body, and none announced (204, 304).
    None,
    /// So many bytes.
    Known(u64),
    /// Until it ends.
    Open,
}

/// What the client is: decided by its request.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// HTTP/1.0 knows no chunks.
    pub is_http10: bool,
    /// HEAD: head as for GET, no body.
    pub is_head: bool,
    /// The connection may be used again after this answer.
    pub keep_alive: bool,
}

/// Where an answer goes.
pub enum Sink<'a> {
    Http1(Http1Sink<'a>),
    Memory(MemorySink),
}

impl Sink<'_> {
    /// The status line and the fields, framing apart.
    pub fn head<'f>(
        &mut self,
        status: u16,
        reason: &[u8],
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        len: BodyLen,
    ) {
        match self {
            Sink::Http1(sink) => sink.head(status, reason, fields, len),
            Sink::Memory(sink) => {
                sink.status = status;
                sink.fields = fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            }
        }
    }

    /// A piece of the body that is not copied.
    pub fn data(&mut self, slice: Slice) {
        match self {
            Sink::Http1(sink) => sink.data(slice),
            Sink::Memory(sink) => sink.body.extend_from_slice(&slice),
        }
    }

    /// A small piece of the body, copied.
    pub fn copy(&mut self, bytes: &[u8]) {
        match self {
            Sink::Http1(sink) => sink.part(bytes.len(), |list| list.push_copy(bytes)),
            Sink::Memory(sink) => sink.body.extend_from_slice(bytes),
        }
    }

    /// As much is waiting as one send takes: flush before more is added.
    pub fn is_full(&self) -> bool {
        match self {
            Sink::Http1(sink) => sink.list.is_full(),
            Sink::Memory(_) => false,
        }
    }

    /// Body bytes taken so far, framing not counted.
    pub fn body_bytes(&self) -> u64 {
        match self {
            Sink::Http1(sink) => sink.body_bytes,
            Sink::Memory(sink) => sink.body.len() as u64,
        }
    }

    /// Sends what is waiting. `now` is a reading of the clock that the caller has just made.
    pub async fn flush(&mut self, now: Instant) -> Result<(), Gone> {
        match self {
            Sink::Http1(sink) => sink.flush(now).await,
            Sink::Memory(_) => Ok(()),
        }
    }

    /// Ends the body and sends what is waiting.
    pub async fn end(&mut self) -> Result<(), Gone> {
        match self {
            Sink::Http1(sink) => sink.end().await,
            Sink::Memory(sink) => {
                sink.ended = true;
                Ok(())
            }
        }
    }

    /// The head has been given.
    pub fn is_committed(&self) -> bool {
        match self {
            Sink::Http1(sink) => sink.framing.is_some(),
            Sink::Memory(sink) => sink.status != 0,
        }
    }

    /// The answer was ended as its framing asks and the connection may carry another one.
    pub fn is_reusable(&self) -> bool {
        match self {
            Sink::Http1(sink) => sink.ended && sink.client.keep_alive,
            Sink::Memory(sink) => sink.ended,
        }
    }

    /// The end of the connection alone tells the client that the answer is not whole: its framing says when it is.
    pub fn shows_a_cut(&self) -> bool {
        match self {
            Sink::Http1(sink) => matches!(sink.framing, Some(Framing::Chunked | Framing::Length(_))),
            Sink::Memory(_) => true,
        }
    }

    /// No further answer on this connection: said in the head where it is not out yet.
    pub fn close_after(&mut self) {
        if let Sink::Http1(sink) = self {
            sink.client.keep_alive = false;
        }
    }
}

/// A client's connection.
pub struct Http1Sink<'a> {
    conn: &'a Conn,
    deadline: Deadline,
    write_timeout: Duration,
    client: Client,
    list: SendList,
    framing: Option<Framing>,
    /// The chunk that is being filled: where its head goes, and its length.
    chunk: Option<(Gap, usize)>,
    body_bytes: u64,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Nothing,
    Length(u64),
    Chunked,
    UntilClose,
}

impl<'a> Http1Sink<'a> {
    /// A sink for one answer on `downstream`.
    pub fn new(downstream: &'a Downstream, client: Client) -> Http1Sink<'a> {
        let (conn, write_timeout) = downstream.sending();
        Http1Sink {
            conn,
            deadline: Deadline::unset(),
            write_timeout,
            client,
            list: SendList::new(),
            framing: None,
            chunk: None,
            body_bytes: 0,
            ended: false,
        }
    }

    fn head<'f>(
        &mut self,
        status: u16,
        reason: &[u8],
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        len: BodyLen,
    ) {
        let (written, framing) = match len {
            BodyLen::None => (ResponseFraming::None, Framing::Nothing),
            BodyLen::Known(length) if self.client.is_head => {
                (ResponseFraming::Length(length), Framing::Nothing)
            }
            BodyLen::Known(length) => (ResponseFraming::Length(length), Framing::Length(length)),
            BodyLen::Open if self.client.is_head => (ResponseFraming::None, Framing::Nothing),
            BodyLen::Open if self.client.is_http10 => (ResponseFraming::UntilClose, Framing::UntilClose),
            BodyLen::Open => (ResponseFraming::Chunked, Framing::Chunked),
        };
        if framing == Framing::UntilClose {
            self.client.keep_alive = false;
        }
        self.framing = Some(framing);
        let client = self.client;
        let mut written_whole = Ok(());
        self.list.push_with(|out| {
            let mut head = HeadWriter::response(out, status, reason);
            for (name, value) in fields {
                head.field(name, value);
            }
            match (client.keep_alive, client.is_http10) {
                (false, _) => head.field(b"connection", b"close"),
                (true, true) => head.field(b"connection", b"keep-alive"),
                (true, false) => &mut head,
            };
            head.framing(written);
            written_whole = head.finish();
        });
        if written_whole.is_err() {
            // A field that must not get out (an upstream's parser let it in): the client sees a closed
            // connection.
            self.framing = Some(Framing::Nothing);
            self.client.keep_alive = false;
        }
    }

    /// A piece that came as one chunk goes on as that chunk, framing and all, where ours would be the same
    /// bytes: a send of one piece costs the kernel less than one of three.
    fn data(&mut self, slice: Slice) {
        if self.framing == Some(Framing::Chunked)
            && self.chunk.is_none()
            && let Some(head) = chunk_head(slice.len())
            && let Some(framed) = slice.framed(head.as_bytes(), CHUNK_END)
        {
            self.body_bytes += slice.len() as u64;
            return self.list.push_slice(framed);
        }
        self.part(slice.len(), |list| list.push_slice(slice));
    }

    fn part(&mut self, len: usize, push: impl FnOnce(&mut SendList)) {
        if len == 0 || self.framing == Some(Framing::Nothing) {
            return;
        }
        if self.framing == Some(Framing::Chunked) {
            let list = &mut self.list;
            self.chunk.get_or_insert_with(|| (list.push_gap(), 0)).1 += len;
        }
        self.body_bytes += len as u64;
        push(&mut self.list);
    }

    fn close_chunk(&mut self) {
        if let Some((gap, len)) = self.chunk.take()
            && let Some(head) = chunk_head(len)
        {
            self.list.fill(gap, head.as_bytes());
            self.list.push_static(CHUNK_END);
        }
    }

    async fn flush(&mut self, now: Instant) -> Result<(), Gone> {
        self.close_chunk();
        if self.list.is_empty() {
            return Ok(());
        }
        let list = std::mem::take(&mut self.list);
        self.deadline.set_at(now + self.write_timeout);
        match self.deadline.bound(self.conn.send(list)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.client.keep_alive = false;
                Err(Gone)
            }
        }
    }

    async fn end(&mut self) -> Result<(), Gone> {
        self.close_chunk();
        match self.framing {
            Some(Framing::Chunked) => self.list.push_static(LAST_CHUNK),
            // Fewer bytes than announced: only a closed connection can tell the client.
            Some(Framing::Length(length)) if length != self.body_bytes => {
                self.client.keep_alive = false;
                let _ = self.flush(clock::now()).await;
                return Err(Gone);
            }
            _ => {}
        }
        self.flush(clock::lately()).await?;
        self.ended = true;
        Ok(())
    }
}

/// An answer kept in memory.
#[derive(Debug, Default)]
pub struct MemorySink {
    pub status: u16,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    pub ended: bool,
}
