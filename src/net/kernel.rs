//! Real sockets through monoio 0.2.4, on the ring or on epoll. The only file that knows monoio's runtime.
//!
//! Reads: wait with a poll operation, then recv(2) into a rented page. So a waiting stream holds no buffer,
//! and a dropped wait loses nothing. The operation belongs to the socket and outlives who waits: the next one
//! takes it up, and of an idle connection it tells without a system call whether something has come. Sends: an
//! operation of the ring that owns its bytes. Accept and connect: readiness, then the plain call, so that a
//! dropped future leaks no descriptor (monoio's own accept does). Figures: STACK, section 5b. Ring flags are
//! tried by hand because monoio's own fallback ends with an error when the kernel refuses a flag.

#![allow(unsafe_code)]

use crate::net::page::Page;
use crate::net::runtime::{Choice, Driver, Wish};
use crate::net::send::SendList;
use crate::net::stream::Received;
use monoio::io::AsyncWriteRent;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use pin_project_lite::pin_project;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};
use std::cell::{RefCell, UnsafeCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Submission entries and completion entries of a ring (STACK, section 7).
const RING_ENTRIES: u32 = 4096;
const RING_COMPLETIONS: u32 = 32768;

/// A started runtime of this thread.
pub enum Runtime {
    Ring(Box<monoio::Runtime<TimeDriver<IoUringDriver>>>),
    Epoll(Box<monoio::Runtime<TimeDriver<LegacyDriver>>>),
}

impl Runtime {
    /// Tries the drivers that `wish` allows, best first.
    pub fn start(wish: Wish) -> io::Result<(Runtime, Choice)> {
        let mut refused = Vec::new();
        if wish != Wish::Epoll {
            for driver in [Driver::RingCoop, Driver::Ring] {
                match start_ring(driver) {
                    Ok(runtime) => return Ok((Runtime::Ring(Box::new(runtime)), Choice { driver, refused })),
                    Err(error) => refused.push((driver, error)),
                }
            }
        }
        if wish == Wish::Ring {
            let reason = refused.pop().map_or_else(String::new, |(_, error)| error.to_string());
            return Err(io::Error::other(format!("io_uring is refused by the kernel: {reason}")));
        }
        let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
        Ok((Runtime::Epoll(Box::new(runtime)), Choice { driver: Driver::Epoll, refused }))
    }

    /// Runs `main` until it ends.
    pub fn block_on(self, main: impl Future<Output = ()>) {
        match self {
            Runtime::Ring(mut runtime) => runtime.block_on(main),
            Runtime::Epoll(mut runtime) => runtime.block_on(main),
        }
    }
}

/// Starts a task.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(task));
}

/// A wait on monoio's wheel. Boxed: its 1 KiB would be part of every future that sleeps somewhere.
pub type Alarm = Pin<Box<monoio::time::Sleep>>;

/// Ends after `after`, on monoio's wheel (1 ms steps).
pub async fn sleep(after: Duration) {
    Box::pin(monoio::time::sleep(after)).await;
}

/// As `sleep`, in the place that an earlier wait left behind.
pub async fn sleep_again(place: &mut Option<Alarm>, after: Duration) {
    let due = monoio::time::Instant::now() + after;
    match place {
        Some(alarm) => {
            alarm.as_mut().reset(due);
            alarm.await;
        }
        none => none.insert(Box::pin(monoio::time::sleep_until(due))).await,
    }
}

/// A connected socket.
pub struct Socket {
    io: Rc<Io>,
    /// Made with the first wait.
    wait: RefCell<Option<Pin<Box<dyn Wait>>>>,
}

impl Socket {
    fn new(fd: OwnedFd) -> io::Result<Socket> {
        let io = monoio::net::TcpStream::from_std(std::net::TcpStream::from(fd))?;
        Ok(Socket { io: Rc::new(Io(UnsafeCell::new(io))), wait: RefCell::new(None) })
    }

    /// Ready when a read would not wait; sometimes without a reason. One waits at a time: the one that asked last is
    /// woken.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wait = self.wait.borrow_mut();
        let wait = wait.get_or_insert_with(|| {
            let io = Rc::clone(&self.io);
            let start = move || {
                let io = Rc::clone(&io);
                async move { io.get().readable(false).await }
            };
            Box::pin(Waiting { start, pending: None })
        });
        wait.as_mut().poll_ready(cx)
    }

    /// Starts to wait where nobody does, for `is_quiet`.
    pub fn arm(&self) {
        // Ready at once: the next who asks finds out.
        let _ = self.poll_readable(&mut Context::from_waker(Waker::noop()));
    }

    /// Whether a wait is under way and nothing has come: no bytes, no end.
    pub fn is_quiet(&self) -> bool {
        let mut wait = self.wait.borrow_mut();
        wait.as_mut().is_some_and(|wait| wait.as_mut().is_pending())
    }

    /// Reads what is there into `page`.
    pub fn try_recv(&self, page: &mut Page) -> io::Result<Received> {
        match rustix::net::recv(self.fd(), page.spare(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Ok(Received::End),
            Ok((_, n)) => {
                // SAFETY: the kernel wrote `n` bytes at the start of `spare`.
                unsafe { page.advance(n) };
                Ok(Received::Bytes(n))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Received::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at one byte without taking it.
    pub fn try_peek(&self) -> io::Result<Received> {
        let mut byte = [0_u8; 1];
        match rustix::net::recv(self.fd(), &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((0, _)) => Ok(Received::End),
            Ok((n, _)) => Ok(Received::Bytes(n)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Received::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the peer has ended or reset the connection, also where bytes of it wait still.
    pub fn has_ended(&self) -> bool {
        let fd = self.fd();
        let mut asked = [PollFd::new(&fd, PollFlags::RDHUP)];
        // What cannot be asked about is looked at again, or met by the next send.
        let answered = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        answered.is_ok() && asked.iter().any(|asked| asked.revents().intersects(ends))
    }

    /// Sends the whole list. A send that is dropped half-way leaves the connection unusable.
    pub async fn send(&self, mut list: SendList) -> io::Result<()> {
        let total = list.len();
        let mut sent = 0;
        while sent < total {
            list.gather(sent);
            // SAFETY: `write` and `writev` take `&mut self` by their trait but only clone the handle of the
            // descriptor (read in monoio 0.2.4, which is pinned). The reference ends before the future is
            // awaited; one thread.
            let io = unsafe { &mut *self.io.0.get() };
            let (result, returned) =
                if list.gathered() == 1 { io.write(list).await } else { io.writev(list).await };
            list = returned;
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing more will be sent.
    pub fn shutdown_send(&self) {
        // A peer that is gone already has no use for it.
        let _ = rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Write);
    }

    /// Makes the kernel drop what is unsent and reset the connection when it is closed.
    pub fn reset_on_close(&self) {
        let _ = sockopt::set_socket_linger(self.fd(), Some(Duration::ZERO));
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor lives as long as `self.io`.
        unsafe { BorrowedFd::borrow_raw(self.io.get().as_raw_fd()) }
    }
}

/// monoio's socket, shared with the wait on it.
struct Io(UnsafeCell<monoio::net::TcpStream>);

impl Io {
    fn get(&self) -> &monoio::net::TcpStream {
        // SAFETY: see `Socket::send`: no `&mut` is alive while another method runs on this thread.
        unsafe { &*self.0.get() }
    }
}

/// A wait that can be asked, left and taken up again.
trait Wait {
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn is_pending(self: Pin<&mut Self>) -> bool;
}

pin_project! {
    /// The room of one wait, used again by the next: no allocation a wait.
    struct Waiting<S, F> {
        start: S,
        #[pin]
        pending: Option<F>,
    }
}

impl<S: Fn() -> F, F: Future<Output = io::Result<()>>> Wait for Waiting<S, F> {
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        if this.pending.is_none() {
            this.pending.set(Some((this.start)()));
        }
        let pending = this.pending.as_mut().as_pin_mut();
        let ready = pending.map_or(Poll::Pending, |pending| pending.poll(cx));
        if ready.is_ready() {
            this.pending.set(None);
        }
        ready
    }

    fn is_pending(self: Pin<&mut Self>) -> bool {
        let mut this = self.project();
        let Some(pending) = this.pending.as_mut().as_pin_mut() else { return false };
        let ready = pending.poll(&mut Context::from_waker(Waker::noop())).is_ready();
        if ready {
            this.pending.set(None);
        }
        !ready
    }
}

/// A listening socket of this worker.
pub struct Listener {
    /// monoio has readiness for streams only; a listening socket is polled like one.
    io: monoio::net::TcpStream,
}

impl Listener {
    /// Takes over a listening, non-blocking socket.
    pub fn new(fd: OwnedFd) -> io::Result<Listener> {
        Ok(Listener { io: monoio::net::TcpStream::from_std(std::net::TcpStream::from(fd))? })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        // SAFETY: the descriptor lives as long as `self.io`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.io.as_raw_fd()) };
        rustix::net::getsockname(fd)?.try_into().map_err(|_| io::Error::other("not an IP socket"))
    }

    /// The next connection. May be dropped while it waits.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        loop {
            match self.try_accept()? {
                Some(accepted) => return Ok(accepted),
                None => self.io.readable(false).await?,
            }
        }
    }

    /// A connection that waits already.
    pub fn try_accept(&self) -> io::Result<Option<(Socket, SocketAddr)>> {
        // SAFETY: the descriptor lives as long as `self.io`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.io.as_raw_fd()) };
        loop {
            match rustix::net::acceptfrom_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok((fd, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).unwrap_or(UNKNOWN_PEER);
                    return Ok(Some((Socket::new(fd)?, peer)));
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Connects to `address`. May be dropped while it waits.
pub async fn connect(address: SocketAddr) -> io::Result<Socket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let socket = Socket::new(fd)?;
    socket.io.get().writable(false).await?;
    match sockopt::socket_error(socket.fd())? {
        Ok(()) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn start_ring(driver: Driver) -> io::Result<monoio::Runtime<TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_cqsize(RING_COMPLETIONS);
    if driver == Driver::RingCoop {
        ring.setup_coop_taskrun();
    }
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(RING_ENTRIES)
        .enable_timer()
        .build()
}

const UNKNOWN_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
