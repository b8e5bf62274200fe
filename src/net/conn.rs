//! A connection as HTTP sees it: plain or TLS, same calls.
//!
//! Methods take `&self`: a relay waits for its client's end while it sends to it. TLS keeps its state in
//! cells and never holds a borrow across an await.

use crate::net::page::Page;
use crate::net::send::SendList;
use crate::net::stream::{Received, Stream};
use crate::net::tls::{Agreed, TlsStream};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A connection.
pub enum Conn {
    Plain(Stream),
    Tls(Box<TlsStream>),
}

impl Conn {
    /// Ready when `try_recv` may find something. One waits at a time: who asked last is woken.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Conn::Plain(stream) => stream.poll_readable(cx),
            Conn::Tls(stream) => stream.poll_readable(cx),
        }
    }

    /// Ends when `try_recv` may find something. May be dropped while it waits.
    pub fn readable(&self) -> Readable<'_> {
        Readable { conn: self }
    }

    /// Says that nobody reads for a while: `is_quiet` will be asked.
    pub fn arm(&self) {
        match self {
            Conn::Plain(stream) => stream.arm(),
            Conn::Tls(stream) => stream.arm(),
        }
    }

    /// Whether nothing has arrived, not even the end. Costs a system call where nobody has armed the connection.
    pub fn is_quiet(&self) -> bool {
        let is_known = match self {
            Conn::Plain(stream) => stream.is_quiet(),
            Conn::Tls(stream) => stream.is_quiet(),
        };
        is_known || matches!(self.try_peek(), Ok(Received::Nothing))
    }

    /// Appends what is there to `page` without waiting.
    pub fn try_recv(&self, page: &mut Page) -> io::Result<Received> {
        match self {
            Conn::Plain(stream) => stream.try_recv(page),
            Conn::Tls(stream) => stream.try_recv(page),
        }
    }

    /// Waits for bytes and appends them: how many; 0 at the end or where the page is full. May be dropped
    /// while it waits.
    pub async fn recv(&self, page: &mut Page) -> io::Result<usize> {
        if page.room() == 0 {
            return Ok(0);
        }
        loop {
            self.readable().await?;
            match self.try_recv(page)? {
                Received::Bytes(n) => return Ok(n),
                Received::End => return Ok(0),
                Received::Nothing => {}
            }
        }
    }

    /// Looks whether the peer is still there: its bytes are waiting, it has ended, or nothing.
    pub fn try_peek(&self) -> io::Result<Received> {
        match self {
            Conn::Plain(stream) => stream.try_peek(),
            Conn::Tls(stream) => stream.try_peek(),
        }
    }

    /// Whether the peer has ended or reset the connection, also where bytes of it wait still.
    pub fn has_ended(&self) -> bool {
        match self {
            Conn::Plain(stream) => stream.has_ended(),
            Conn::Tls(stream) => stream.has_ended(),
        }
    }

    /// Sends the whole list. A send that is dropped half-way leaves the connection unusable.
    pub async fn send(&self, list: SendList) -> io::Result<()> {
        match self {
            Conn::Plain(stream) => stream.send(list).await,
            Conn::Tls(stream) => stream.send(list).await,
        }
    }

    /// Says goodbye: for TLS its closing alert, then the end of sending.
    pub async fn shutdown(&self) {
        match self {
            Conn::Plain(stream) => stream.shutdown_send(),
            Conn::Tls(stream) => stream.shutdown().await,
        }
    }

    /// What a TLS handshake agreed on (version, ALPN); nothing on a plain connection.
    pub fn agreed(&self) -> Option<&Agreed> {
        match self {
            Conn::Plain(_) => None,
            Conn::Tls(stream) => Some(stream.agreed()),
        }
    }

    /// Makes closing this connection a reset, so that the peer cannot take a cut for an end.
    pub fn reset_on_close(&self) {
        match self {
            Conn::Plain(stream) => stream.reset_on_close(),
            Conn::Tls(stream) => stream.reset_on_close(),
        }
    }
}

/// A wait for bytes.
pub struct Readable<'a> {
    conn: &'a Conn,
}

impl Future for Readable<'_> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_readable(cx)
    }
}
