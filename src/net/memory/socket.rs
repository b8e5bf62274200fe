//! A connection of the simulation: two pipes and two ends, with the rules of TCP as Linux keeps them.
//!
//! - What was sent before the end or before closing arrives.
//! - Closing with unread bytes, or after `reset_on_close`, resets; bytes that reach a closed end are answered
//!   by a reset.
//! - A reset is told once, by whichever call comes first: `ConnectionReset`, or `BrokenPipe` where the peer
//!   had finished before. After that a read finds the end and a send fails with `BrokenPipe`. (So a reset
//!   that a send has met looks like an end to the next read. The kernel does this; code above must not take
//!   it for a complete answer.)
//! - Whether unread bytes survive a reset is the link's choice.

use crate::base::clock::{self, Instant};
use crate::net::memory::link::{Link, Unread};
use crate::net::memory::pipe::{Arrival, Parcel, Pipe};
use crate::net::memory::trace::Note;
use crate::net::memory::world::World;
use crate::net::page::Page;
use crate::net::send::SendList;
use crate::net::stream::Received;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

/// One end of a connection. Dropping it closes it.
pub struct Socket {
    connection: Rc<Connection>,
    side: usize,
}

impl Socket {
    /// Ends when `try_recv` would find something, or sometimes for no reason. May be dropped.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Connection { world, .. } = &*self.connection;
        if world.takes_turn() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut inbound = self.inbound().borrow_mut();
        let is_ready = inbound.readable() > 0 || inbound.ended || self.end().dead.get();
        if is_ready || world.chance(inbound.flow.spurious_readable_per_mille) {
            return Poll::Ready(Ok(()));
        }
        inbound.readers.add(cx.waker());
        Poll::Pending
    }

    /// Takes what has arrived into `page`, or a drawn part of it.
    pub fn try_recv(&self, page: &mut Page) -> io::Result<Received> {
        let world = &self.connection.world;
        let mut inbound = self.inbound().borrow_mut();
        if inbound.readable() == 0 {
            return self.end().nothing_there(inbound.ended);
        }
        let most = inbound.flow.read_max.map_or(usize::MAX, |most| world.one_to(most));
        let bytes = inbound.take(most, page);
        inbound.writers.wake();
        world.note(Note::Read { connection: self.connection.number, side: self.side, bytes });
        Ok(Received::Bytes(bytes))
    }

    /// Looks without taking.
    pub fn try_peek(&self) -> io::Result<Received> {
        let inbound = self.inbound().borrow();
        if inbound.readable() > 0 {
            return Ok(Received::Bytes(1));
        }
        self.end().nothing_there(inbound.ended)
    }

    /// Whether the peer has ended or reset the connection, also where bytes of it wait still.
    pub fn has_ended(&self) -> bool {
        self.inbound().borrow().ended || self.end().dead.get()
    }

    /// Sends the whole list, in drawn portions. A send that is dropped half-way leaves the connection
    /// unusable.
    pub async fn send(&self, list: SendList) -> io::Result<()> {
        self.connection.world.maybe_turn().await;
        for piece in list.pieces() {
            let mut rest = piece;
            while !rest.is_empty() {
                let sent = self.send_some(rest).await?;
                rest = rest.get(sent..).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing more will be sent.
    pub fn shutdown_send(&self) {
        if !self.end().dead.get() {
            self.connection.finish(self.side);
        }
    }

    /// Makes closing a reset.
    pub fn reset_on_close(&self) {
        self.end().resets_on_close.set(true);
    }

    /// The connection's number within the run.
    pub(super) fn number(&self) -> u64 {
        self.connection.number
    }

    async fn send_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let room = poll_fn(|cx| {
            let mut outbound = self.connection.pipe_from(self.side).borrow_mut();
            if self.end().dead.get() || outbound.finished {
                return Poll::Ready(Err(self.end().take_error()));
            }
            if outbound.room() == 0 {
                outbound.writers.add(cx.waker());
                return Poll::Pending;
            }
            Poll::Ready(Ok(outbound.room()))
        })
        .await?;
        let world = &self.connection.world;
        let write_max = self.connection.pipe_from(self.side).borrow().flow.write_max;
        let n = bytes.len().min(room).min(write_max.map_or(usize::MAX, |most| world.one_to(most)));
        self.connection.pipe_from(self.side).borrow_mut().put(bytes.get(..n).unwrap_or_default());
        world.note(Note::Send { connection: self.connection.number, side: self.side, bytes: n });
        self.connection.send_off(self.side, Parcel::Bytes(n));
        if n < bytes.len() {
            world.maybe_turn().await;
        }
        Ok(n)
    }

    fn inbound(&self) -> &RefCell<Pipe> {
        self.connection.pipe_from(1 - self.side)
    }

    fn end(&self) -> &End {
        self.connection.end(self.side)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Connection { world, .. } = &*self.connection;
        world.sockets.set(world.sockets.get() - 1);
        self.connection.close(self.side);
    }
}

/// Makes a connection: the client's socket and the server's.
pub fn pair(world: &Rc<World>, number: u64, link: Link) -> (Socket, Socket) {
    let connection = Rc::new(Connection {
        world: Rc::clone(world),
        number,
        unread_at_reset: link.unread_at_reset,
        client: End::default(),
        server: End::default(),
        to_server: RefCell::new(Pipe::new(link.to_server)),
        to_client: RefCell::new(Pipe::new(link.to_client)),
    });
    world.sockets.set(world.sockets.get() + 2);
    world.note(Note::Made { connection: number });
    if let Some(after) = link.reset_at {
        let connection = Rc::clone(&connection);
        world.at(clock::now() + after, move || connection.break_both());
    }
    let client = Socket { connection: Rc::clone(&connection), side: CLIENT };
    // A stall or a reset after 0 bytes strikes before anything is sent.
    connection.deliver(CLIENT);
    connection.deliver(SERVER);
    (client, Socket { connection, side: SERVER })
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// What both ends share. A pipe and an end are named by the side that writes into it and that owns it.
struct Connection {
    world: Rc<World>,
    number: u64,
    unread_at_reset: Unread,
    client: End,
    server: End,
    to_server: RefCell<Pipe>,
    to_client: RefCell<Pipe>,
}

#[derive(Default)]
struct End {
    closed: Cell<bool>,
    /// The connection was reset, as this end knows it.
    dead: Cell<bool>,
    /// What the next call is told of that.
    error: Cell<Option<io::ErrorKind>>,
    resets_on_close: Cell<bool>,
}

impl End {
    fn nothing_there(&self, ended: bool) -> io::Result<Received> {
        if ended {
            return Ok(Received::End);
        }
        match self.error.take() {
            Some(kind) => Err(kind.into()),
            None if self.dead.get() => Ok(Received::End),
            None => Ok(Received::Nothing),
        }
    }

    fn take_error(&self) -> io::Error {
        self.error.take().unwrap_or(io::ErrorKind::BrokenPipe).into()
    }
}

impl Connection {
    fn pipe_from(&self, side: usize) -> &RefCell<Pipe> {
        if side == CLIENT { &self.to_server } else { &self.to_client }
    }

    fn end(&self, side: usize) -> &End {
        if side == CLIENT { &self.client } else { &self.server }
    }

    /// Sends a parcel off from `side` and lets it arrive when it is due.
    fn send_off(self: &Rc<Self>, side: usize, parcel: Parcel) {
        let now = clock::now();
        let (latency, jitter) = {
            let pipe = self.pipe_from(side).borrow();
            (pipe.flow.latency, pipe.flow.jitter)
        };
        let due = now + latency + self.world.up_to(jitter);
        let due = self.pipe_from(side).borrow_mut().send_off(parcel, due);
        self.deliver_at(side, due, now);
    }

    fn deliver_at(self: &Rc<Self>, side: usize, due: Instant, now: Instant) {
        if due <= now {
            self.deliver(side);
        } else if due != Instant::NEVER {
            let connection = Rc::clone(self);
            self.world.at(due, move || connection.deliver(side));
        }
    }

    /// Lets everything arrive that `side` sent and that is due.
    fn deliver(self: &Rc<Self>, side: usize) {
        let peer = 1 - side;
        let now = clock::now();
        loop {
            let arrival = self.pipe_from(side).borrow_mut().advance(now);
            match arrival {
                Arrival::Bytes(bytes) => self.arrived(side, bytes),
                Arrival::End => self.pipe_from(side).borrow_mut().readers.wake(),
                Arrival::Reset => self.strike(peer),
                Arrival::Broken => self.break_both(),
                Arrival::Stalled(until) => {
                    self.world.note(Note::Stall { connection: self.number, at_side: peer });
                    return self.deliver_at(side, until, now);
                }
                Arrival::Nothing => return,
            }
        }
    }

    fn arrived(self: &Rc<Self>, side: usize, bytes: usize) {
        let peer = 1 - side;
        self.world.note(Note::Arrive { connection: self.number, at_side: peer, bytes });
        let mut pipe = self.pipe_from(side).borrow_mut();
        if !self.end(peer).closed.get() {
            return pipe.readers.wake();
        }
        pipe.lose_unread();
        pipe.writers.wake();
        drop(pipe);
        self.reset_from(peer);
    }

    fn finish(self: &Rc<Self>, side: usize) {
        if !std::mem::replace(&mut self.pipe_from(side).borrow_mut().finished, true) {
            self.world.note(Note::Finish { connection: self.number, side });
            self.send_off(side, Parcel::End);
        }
    }

    fn close(self: &Rc<Self>, side: usize) {
        let end = self.end(side);
        end.closed.set(true);
        self.world.note(Note::Close { connection: self.number, side });
        if end.dead.get() {
            return;
        }
        let unread = self.pipe_from(1 - side).borrow().readable() > 0;
        if unread || end.resets_on_close.get() {
            end.dead.set(true);
            return self.reset_from(side);
        }
        self.finish(side);
    }

    /// Tells the other end that this one has given up.
    fn reset_from(self: &Rc<Self>, side: usize) {
        self.world.note(Note::ResetSent { connection: self.number, side });
        self.pipe_from(side).borrow_mut().finished = true;
        self.send_off(side, Parcel::Reset);
    }

    fn break_both(&self) {
        self.strike(CLIENT);
        self.strike(SERVER);
    }

    /// A reset reaches `side`.
    fn strike(&self, side: usize) {
        let end = self.end(side);
        if end.dead.replace(true) || end.closed.get() {
            return;
        }
        self.world.note(Note::ResetSeen { connection: self.number, side });
        let mut inbound = self.pipe_from(1 - side).borrow_mut();
        let kind = if inbound.ended { io::ErrorKind::BrokenPipe } else { io::ErrorKind::ConnectionReset };
        end.error.set(Some(kind));
        inbound.lose_on_the_way();
        if self.unread_at_reset == Unread::Dropped {
            inbound.lose_unread();
        }
        inbound.readers.wake();
        let mut outbound = self.pipe_from(side).borrow_mut();
        outbound.lose_on_the_way();
        outbound.writers.wake();
    }
}
