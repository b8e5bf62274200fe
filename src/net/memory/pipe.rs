//! One direction of a simulated connection: bytes that were sent, on their way or waiting to be read.
//!
//! A state machine without clock or draws of its own: `put` and `take` move bytes, `advance` says what has
//! arrived by a time. What was sent first arrives first; the end and a reset travel behind the bytes.

use crate::base::clock::Instant;
use crate::net::memory::link::Flow;
use crate::net::page::Page;
use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

pub struct Pipe {
    pub flow: Flow,
    /// Sent and not read: the first `arrived` wait to be read, the rest is on its way.
    bytes: VecDeque<u8>,
    arrived: usize,
    on_the_way: VecDeque<(Instant, Parcel)>,
    /// Bytes that have arrived since the beginning.
    arrived_total: u64,
    last_due: Instant,
    stalled_until: Instant,
    /// The end has arrived.
    pub ended: bool,
    /// The end was sent: nothing more may be.
    pub finished: bool,
    pub readers: Waiting,
    pub writers: Waiting,
}

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parcel {
    Bytes(usize),
    End,
    Reset,
}

/// What `advance` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Bytes(usize),
    End,
    /// The peer gave up the connection.
    Reset,
    /// The fault `reset_after`: the connection breaks for both sides.
    Broken,
    /// From now on nothing moves before this time.
    Stalled(Instant),
    /// Nothing more by now.
    Nothing,
}

impl Pipe {
    pub fn new(flow: Flow) -> Pipe {
        Pipe {
            flow,
            bytes: VecDeque::new(),
            arrived: 0,
            on_the_way: VecDeque::new(),
            arrived_total: 0,
            last_due: Instant(0),
            stalled_until: Instant(0),
            ended: false,
            finished: false,
            readers: Waiting::default(),
            writers: Waiting::default(),
        }
    }

    /// Bytes that may be put.
    pub fn room(&self) -> usize {
        self.flow.capacity.max(1).saturating_sub(self.bytes.len())
    }

    /// Bytes that may be taken.
    pub fn readable(&self) -> usize {
        self.arrived
    }

    /// Sends a parcel off, due at `due` or with the one before it if that is later. When it will be due.
    pub fn send_off(&mut self, parcel: Parcel, due: Instant) -> Instant {
        self.last_due = self.last_due.max(due);
        self.on_the_way.push_back((self.last_due, parcel));
        self.last_due
    }

    /// Puts bytes, which are to be sent off with `send_off`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Moves up to `most` arrived bytes into `page`.
    pub fn take(&mut self, most: usize, page: &mut Page) -> usize {
        let most = most.min(self.arrived);
        let (first, second) = self.bytes.as_slices();
        let head = first.len().min(most);
        let mut taken = page.append(first.get(..head).unwrap_or_default());
        if taken == head {
            taken += page.append(second.get(..most - head).unwrap_or_default());
        }
        self.bytes.drain(..taken);
        self.arrived -= taken;
        taken
    }

    /// The next thing that has happened by `now`. To be called until `Nothing` or `Stalled`.
    pub fn advance(&mut self, now: Instant) -> Arrival {
        if now < self.stalled_until {
            return Arrival::Nothing;
        }
        let stall = self.flow.stall.filter(|stall| self.arrived_total >= stall.after);
        if let Some(stall) = stall {
            self.flow.stall = None;
            self.stalled_until =
                if stall.lasts == Duration::MAX { Instant::NEVER } else { now + stall.lasts };
            return Arrival::Stalled(self.stalled_until);
        }
        if self.flow.reset_after.is_some_and(|after| self.arrived_total >= after) {
            self.flow.reset_after = None;
            return Arrival::Broken;
        }
        match self.on_the_way.front().copied() {
            Some((due, parcel)) if due <= now => {
                self.on_the_way.pop_front();
                self.arrive(due, parcel)
            }
            _ => Arrival::Nothing,
        }
    }

    /// Loses what is on its way.
    pub fn lose_on_the_way(&mut self) {
        self.on_the_way.clear();
        self.bytes.truncate(self.arrived);
    }

    /// Loses what has arrived. An end that had arrived behind lost bytes is lost, too: a kernel never shows
    /// one for the whole.
    pub fn lose_unread(&mut self) {
        self.ended &= self.arrived == 0;
        self.bytes.drain(..self.arrived);
        self.arrived = 0;
    }

    fn arrive(&mut self, due: Instant, parcel: Parcel) -> Arrival {
        match parcel {
            Parcel::End => {
                self.ended = true;
                Arrival::End
            }
            Parcel::Reset => Arrival::Reset,
            Parcel::Bytes(bytes) => {
                let n = bytes.min(self.until_fault());
                if n < bytes {
                    self.on_the_way.push_front((due, Parcel::Bytes(bytes - n)));
                }
                self.arrived += n;
                self.arrived_total += n as u64;
                Arrival::Bytes(n)
            }
        }
    }

    /// Bytes that may arrive before the next fault; at least 1, because `advance` looks for a fault at this
    /// point first.
    fn until_fault(&self) -> usize {
        let stall = self.flow.stall.map_or(u64::MAX, |stall| stall.after);
        let reset = self.flow.reset_after.unwrap_or(u64::MAX);
        usize::try_from(stall.min(reset).saturating_sub(self.arrived_total)).unwrap_or(usize::MAX)
    }
}

/// Tasks that wait for one thing.
#[derive(Default)]
pub struct Waiting(Vec<Waker>);

impl Waiting {
    /// Adds a task, once.
    pub fn add(&mut self, waker: &Waker) {
        if !self.0.iter().any(|one| one.will_wake(waker)) {
            self.0.push(waker.clone());
        }
    }

    /// Wakes all.
    pub fn wake(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}
