//! A connected byte stream without TLS: a kernel socket, or one end of a pipe of the simulation.

#[cfg(test)]
use crate::net::moved;
use crate::net::page::Page;
use crate::net::send::SendList;
use crate::net::{kernel, memory, runtime};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// What a read that does not wait found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes were appended to the page.
    Bytes(usize),
    /// The peer sends no more.
    End,
    /// Nothing yet.
    Nothing,
}

/// A connected byte stream. One thread; methods take `&self` so that a wait for the peer can stand beside a
/// send.
pub enum Stream {
    Kernel(kernel::Socket),
    Memory(memory::Socket),
}

impl Stream {
    /// Ready when `try_recv` would find something; sometimes without a reason. One waits at a time: who asked last is
    /// woken.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Kernel(socket) => socket.poll_readable(cx),
            Stream::Memory(socket) => socket.poll_readable(cx),
        }
    }

    /// Ends when `try_recv` would find something. May be dropped while it waits.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Says that nobody reads for a while: `is_quiet` will be asked.
    pub fn arm(&self) {
        match self {
            Stream::Kernel(socket) => socket.arm(),
            Stream::Memory(_) => {}
        }
    }

    /// Whether nothing has come since `arm`, as far as the driver has heard: no bytes, no end.
    pub fn is_quiet(&self) -> bool {
        match self {
            Stream::Kernel(socket) => socket.is_quiet(),
            Stream::Memory(socket) => matches!(socket.try_peek(), Ok(Received::Nothing)),
        }
    }

    /// Appends what is there to `page`. A full page is an error of the caller and reads as `Nothing`.
    pub fn try_recv(&self, page: &mut Page) -> io::Result<Received> {
        if page.room() == 0 {
            return Ok(Received::Nothing);
        }
        let received = match self {
            Stream::Kernel(socket) => socket.try_recv(page),
            Stream::Memory(socket) => socket.try_recv(page),
        };
        #[cfg(test)]
        if let Ok(Received::Bytes(n)) = received {
            moved::note(moved::Way::Received, &page.bytes()[page.bytes().len() - n..]);
        }
        received
    }

    /// Looks whether something is there without taking it: `Bytes(1)`, the end, or nothing.
    pub fn try_peek(&self) -> io::Result<Received> {
        match self {
            Stream::Kernel(socket) => socket.try_peek(),
            Stream::Memory(socket) => socket.try_peek(),
        }
    }

    /// Whether the peer has ended or reset the connection, also where bytes of it wait still.
    pub fn has_ended(&self) -> bool {
        match self {
            Stream::Kernel(socket) => socket.has_ended(),
            Stream::Memory(socket) => socket.has_ended(),
        }
    }

    /// Sends the whole list. A send that is dropped half-way leaves the stream unusable.
    pub async fn send(&self, list: SendList) -> io::Result<()> {
        #[cfg(test)]
        list.pieces().for_each(|piece| moved::note(moved::Way::Sent, piece));
        match self {
            Stream::Kernel(socket) => socket.send(list).await,
            Stream::Memory(socket) => socket.send(list).await,
        }
    }

    /// Tells the peer that nothing more will be sent.
    pub fn shutdown_send(&self) {
        match self {
            Stream::Kernel(socket) => socket.shutdown_send(),
            Stream::Memory(socket) => socket.shutdown_send(),
        }
    }

    /// Makes closing this stream a reset, so that the peer cannot take a cut for an end.
    pub fn reset_on_close(&self) {
        match self {
            Stream::Kernel(socket) => socket.reset_on_close(),
            Stream::Memory(socket) => socket.reset_on_close(),
        }
    }
}

/// Connects to `address` with this thread's driver. May be dropped while it waits.
pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
    if runtime::is_memory() {
        return memory::connect(address).await.map(Stream::Memory);
    }
    kernel::connect(address).await.map(Stream::Kernel)
}
