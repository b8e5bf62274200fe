//! A TLS connection over a stream, with the calls of `Conn`.
//!
//! The state is in a cell that is never borrowed across an await, so that a wait for the peer can stand
//! beside a send. One send at a time. An idle connection holds no page: incoming ciphertext lies in one while
//! a record is incomplete or plaintext waits, outgoing ciphertext during a send. Copies: a received byte is
//! decrypted where it was received and copied once, into the caller's page; a sent byte is copied once, into
//! the page in which it is encrypted. Errors: `io::Error` with a `TlsError` inside; a stream that ends
//! without the closing alert is `UnexpectedEof`, never an end.

use crate::net::page::Page;
use crate::net::send::SendList;
use crate::net::stream::{Received, Stream};
use crate::net::tls::record::Version;
use crate::net::tls::session::Session;
use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Poll};

/// A connection whose handshake is complete.
pub struct TlsStream {
    stream: Stream,
    session: RefCell<Session>,
    /// A send is under way, or was dropped half-way: no other record can follow.
    is_sending: Cell<bool>,
    agreed: Agreed,
}

/// What the handshake agreed on.
#[derive(Clone, Debug)]
pub struct Agreed {
    pub version: Version,
    /// The application protocol (ALPN), where one was agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// An earlier session was taken up again: no certificate was sent.
    pub is_resumed: bool,
}

impl TlsStream {
    pub(in crate::net::tls) fn new(stream: Stream, session: Session, agreed: Agreed) -> TlsStream {
        TlsStream { stream, session: RefCell::new(session), is_sending: Cell::new(false), agreed }
    }

    /// What the handshake agreed on.
    pub fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// Ready when `try_recv` may find something; at once where it is there already.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.session.borrow().is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.stream.poll_readable(cx)
    }

    /// Says that nobody reads for a while: `is_quiet` will be asked.
    pub fn arm(&self) {
        self.stream.arm();
    }

    /// Whether nothing is waiting and nothing has come since `arm`.
    pub fn is_quiet(&self) -> bool {
        !self.session.borrow().is_ready() && self.stream.is_quiet()
    }

    /// Appends what is there to `page` without waiting. `Nothing` also where only a part of a record, or a
    /// record without data, came.
    pub fn try_recv(&self, page: &mut Page) -> io::Result<Received> {
        if page.room() == 0 {
            return Ok(Received::Nothing);
        }
        let session = &mut *self.session.borrow_mut();
        let mut n = session.take(page);
        if n == 0 && matches!(session.fill(|page| self.stream.try_recv(page))?, Received::Bytes(_)) {
            n = session.take(page);
        }
        session.settle();
        if n > 0 { Ok(Received::Bytes(n)) } else { Ok(session.verdict()?) }
    }

    /// Looks whether the peer is still there: its bytes are waiting, it has ended, or nothing. Reads ahead
    /// one record at most.
    pub fn try_peek(&self) -> io::Result<Received> {
        let session = &mut *self.session.borrow_mut();
        let mut n = session.peek();
        if n == 0 && matches!(session.fill(|page| self.stream.try_recv(page))?, Received::Bytes(_)) {
            n = session.peek();
        }
        session.settle();
        if n > 0 { Ok(Received::Bytes(n)) } else { Ok(session.verdict()?) }
    }

    /// Whether the peer has ended or reset the connection below, also where bytes of it wait still.
    pub fn has_ended(&self) -> bool {
        self.stream.has_ended()
    }

    /// Sends the whole list. A send that is dropped half-way leaves the connection unusable.
    pub async fn send(&self, list: SendList) -> io::Result<()> {
        if self.is_sending.replace(true) {
            return Err(io::Error::other(
                "another send of this connection is under way or was dropped half-way",
            ));
        }
        let total = list.len();
        let (mut plain, mut done) = (list, 0);
        while done < total {
            let sealed = self.session.borrow_mut().seal(&plain, done);
            // Nothing of a part that could not be sealed was sent: the alert that says why can follow.
            let (records, n) = sealed.inspect_err(|_| self.is_sending.set(false))?;
            done += n;
            if done == total {
                // The last part is sealed: the plaintext's pages go back before the wait for the socket.
                plain = SendList::new();
            }
            self.stream.send(records).await?;
        }
        self.is_sending.set(false);
        Ok(())
    }

    /// Sends the closing alert (or the one that names the failure), then ends sending. May wait for the peer:
    /// bound it.
    pub async fn shutdown(&self) {
        if !self.is_sending.get() {
            let goodbye = self.session.borrow_mut().goodbye();
            if let Some(goodbye) = goodbye {
                // A peer that is gone already has no use for it.
                let _ = self.stream.send(goodbye).await;
            }
        }
        self.stream.shutdown_send();
    }

    /// Makes closing this connection a reset, so that the peer cannot take a cut for an end.
    pub fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }
}
