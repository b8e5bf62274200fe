//! What both sides need to poll the `h2` crate from a loop of our own, without tokio's runtime: a socket
//! with its traits, and wakers that note which stream has something to do.
//!
//! The loop polls a connection whenever its socket is ready (edge-triggered) or one of its streams was
//! woken; "would block" is `Pending`, and no waker is ever told of the socket. Everything belongs to one
//! thread: the locks inside are never contended. Source: RFC 9113 is h2's business; here are only its
//! edges.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::stream::Stream;

/// What a client sends before its first frame (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that a peer may send ahead of the reader, per stream and per connection.
pub const STREAM_WINDOW: u32 = 1 << 20;
pub const CONNECTION_WINDOW: u32 = 64 << 20;
/// The same per stream of a slow reader.
pub const SLOW_READER_WINDOW: u32 = 4096;

/// A stream that h2 reads and writes while its owner keeps a hand on it.
pub struct Socket {
    pub stream: Stream,
    /// Bytes that were read before it was known that they are HTTP/2.
    first: Vec<u8>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Socket {
    pub fn new(stream: Stream, first: &[u8]) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { stream, first: first.to_vec(), bytes_in: 0, bytes_out: 0 }))
    }
}

/// The half that h2 owns.
pub struct Io(pub Rc<RefCell<Socket>>);

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.0.borrow_mut();
        if !socket.first.is_empty() {
            let size = socket.first.len().min(into.remaining());
            into.put_slice(&socket.first[..size]);
            socket.first.drain(..size);
            return Poll::Ready(Ok(()));
        }
        match socket.stream.read(into.initialize_unfilled()) {
            Ok(size) => {
                socket.bytes_in += size as u64;
                into.advance(size);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = self.0.borrow_mut();
        match socket.stream.write(bytes) {
            Ok(size) => {
                socket.bytes_out += size as u64;
                Poll::Ready(Ok(size))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow_mut().stream.flush())
    }

    /// The socket closes with its owner.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// The slot of the connection itself among those of its streams.
pub const CONNECTION: u32 = u32::MAX;

/// Wakers of a connection and its streams, one per slot, made once and used again.
pub struct Wakers {
    woken: Arc<Mutex<Vec<u32>>>,
    connection: Arc<Slot>,
    slots: Vec<Arc<Slot>>,
}

struct Slot {
    number: u32,
    is_woken: AtomicBool,
    woken: Arc<Mutex<Vec<u32>>>,
}

impl Wake for Slot {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::Relaxed) {
            self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

impl Default for Wakers {
    fn default() -> Self {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let connection = Slot { number: CONNECTION, is_woken: AtomicBool::new(false), woken: woken.clone() };
        Self { woken, connection: Arc::new(connection), slots: Vec::new() }
    }
}

impl Wakers {
    /// The waker of a stream's slot, or of `CONNECTION`.
    pub fn of(&mut self, number: u32) -> Waker {
        if number == CONNECTION {
            return Waker::from(self.connection.clone());
        }
        while self.slots.len() <= number as usize {
            let (number, woken) = (self.slots.len() as u32, self.woken.clone());
            self.slots.push(Arc::new(Slot { number, is_woken: AtomicBool::new(false), woken }));
        }
        Waker::from(self.slots[number as usize].clone())
    }

    /// Moves the slots that were woken into `into`; each is there once.
    pub fn take(&self, into: &mut Vec<u32>) {
        into.append(&mut self.woken.lock().unwrap_or_else(PoisonError::into_inner));
        for number in into.iter() {
            let slot = self.slots.get(*number as usize).unwrap_or(&self.connection);
            slot.is_woken.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CONNECTION, Wakers};

    #[test]
    fn a_slot_that_is_woken_twice_is_taken_once_and_can_be_woken_again() {
        let mut wakers = Wakers::default();
        let (third, own) = (wakers.of(2), wakers.of(CONNECTION));
        for _ in 0..2 {
            third.wake_by_ref();
            third.wake_by_ref();
            own.wake_by_ref();
            let mut taken = Vec::new();
            wakers.take(&mut taken);
            assert_eq!(taken, [2, CONNECTION]);
        }
    }
}
