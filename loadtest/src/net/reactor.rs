//! Readiness of sockets: one epoll instance per thread, edge-triggered, registered once per socket.
//!
//! Edge-triggered because a socket is then never re-registered: a request costs one write, one read and a
//! share of one wait. Who reads must read until the kernel says "would block" or returns less than asked for;
//! where the peer is `closing`, until the end or the error itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};

use crate::net::clock::{NS_PER_S, now_ns};

/// Events taken per wait; more simply wait for the next call.
const EVENTS_MAX: usize = 1024;

#[derive(Clone, Copy)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// The peer has closed or reset: no further edge tells of it, so a reader must go on to the end.
    pub closing: bool,
}

pub struct Reactor {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Reactor {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Reports both directions of `socket` under `token` from now on, until the socket is closed.
    pub fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        let flags = both | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags).map_err(io::Error::from)
    }

    /// Reports a listener, level-triggered: connections left in its queue are reported again.
    pub fn add_listener(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN).map_err(io::Error::from)
    }

    /// Waits until something is ready or the clock reaches `until_ns`, and appends what is ready to `ready`.
    pub fn wait(&mut self, until_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        let rest_ns = until_ns.saturating_sub(now_ns());
        let timeout = Timespec { tv_sec: (rest_ns / NS_PER_S) as i64, tv_nsec: (rest_ns % NS_PER_S) as _ };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            let closing = broken || flags.contains(epoll::EventFlags::RDHUP);
            let readable = closing || flags.contains(epoll::EventFlags::IN);
            let writable = broken || flags.contains(epoll::EventFlags::OUT);
            Ready { token: event.data.u64(), readable, writable, closing }
        }));
        Ok(())
    }
}
