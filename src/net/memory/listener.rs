//! Listening and connecting in the simulation.
//!
//! Several listeners of one address share its connections, as with SO_REUSEPORT: which one gets a connection
//! is drawn. Limit: `BACKLOG` connections wait to be accepted at one listener; the next one tries again a
//! second later, as TCP does. Absent: wildcard addresses and port 0; a listener has the very address that
//! clients call.

use crate::base::clock;
use crate::net::memory::link::Connecting;
use crate::net::memory::pipe::Waiting;
use crate::net::memory::socket::{Socket, pair};
use crate::net::memory::timers::sleep;
use crate::net::memory::trace::Note;
use crate::net::memory::world::World;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Connections that may wait to be accepted.
pub const BACKLOG: usize = 128;

/// When Linux stops trying to connect (tcp_syn_retries = 6).
const CONNECT_GIVEN_UP_AFTER: Duration = Duration::from_secs(127);

/// When a connection that found the backlog full is tried again.
const CONNECT_RETRIED_AFTER: Duration = Duration::from_secs(1);

/// Port 0 becomes this one, or the next that is free.
const FIRST_ASSIGNED_PORT: u16 = 20_000;

/// All listeners of a run, by address.
#[derive(Default)]
pub struct Listeners {
    at: RefCell<BTreeMap<SocketAddr, Vec<Rc<Queue>>>>,
}

/// Connections that wait to be accepted.
#[derive(Default)]
struct Queue {
    made: RefCell<VecDeque<(Socket, SocketAddr)>>,
    /// Of those and of those that will be seen after `accept_delay`.
    count: Cell<usize>,
    closed: Cell<bool>,
    acceptors: RefCell<Waiting>,
}

/// A listener. Dropping it closes it and the connections that wait for it.
pub struct Listener {
    world: Rc<World>,
    address: SocketAddr,
    queue: Rc<Queue>,
}

/// Listens at `address`. Errors: no simulation runs on this thread.
pub fn listen(address: SocketAddr) -> io::Result<Listener> {
    let world = World::current().ok_or_else(no_simulation)?;
    let queue = Rc::new(Queue::default());
    let address = world.listeners.assigned(address);
    world.listeners.at.borrow_mut().entry(address).or_default().push(Rc::clone(&queue));
    Ok(Listener { world, address, queue })
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection and who made it. May be dropped while it waits.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        self.world.maybe_turn().await;
        poll_fn(|cx| match self.try_accept() {
            Some(accepted) => Poll::Ready(Ok(accepted)),
            None => {
                self.queue.acceptors.borrow_mut().add(cx.waker());
                Poll::Pending
            }
        })
        .await
    }

    /// A connection that waits already, and who made it.
    pub fn try_accept(&self) -> Option<(Socket, SocketAddr)> {
        let (socket, peer) = self.queue.made.borrow_mut().pop_front()?;
        self.queue.count.set(self.queue.count.get() - 1);
        self.world.note(Note::Accept { connection: socket.number() });
        Some((socket, peer))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(queues) = self.world.listeners.at.borrow_mut().get_mut(&self.address) {
            queues.retain(|queue| !Rc::ptr_eq(queue, &self.queue));
        }
        self.queue.closed.set(true);
        for (socket, _) in self.queue.made.take() {
            socket.reset_on_close();
        }
    }
}

/// Connects to `address`. May be dropped while it waits. Errors: nobody listens there, or the link says so.
pub async fn connect(address: SocketAddr) -> io::Result<Socket> {
    let world = World::current().ok_or_else(no_simulation)?;
    let (number, link) = world.dial(address);
    if link.connect == Connecting::Hangs {
        sleep(CONNECT_GIVEN_UP_AFTER).await;
        return Err(io::ErrorKind::TimedOut.into());
    }
    world.maybe_turn().await;
    let round_trip = link.to_server.latency + link.to_client.latency;
    if !round_trip.is_zero() {
        sleep(round_trip).await;
    }
    let queue = loop {
        match world.listeners.choose(&world, address) {
            Some(queue) if link.connect == Connecting::Normal => {
                if queue.count.get() < BACKLOG {
                    break queue;
                }
                sleep(CONNECT_RETRIED_AFTER).await;
            }
            _ => {
                world.note(Note::Refused { connection: number });
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
    };
    let accept_delay = link.accept_delay;
    let peer = link.client.unwrap_or_else(|| client_address(number));
    let (client, server) = pair(&world, number, link);
    queue.offer(&world, server, peer, accept_delay);
    world.maybe_turn().await;
    Ok(client)
}

impl Listeners {
    /// `address` with a port that nobody listens at, where it has port 0.
    fn assigned(&self, mut address: SocketAddr) -> SocketAddr {
        let at = self.at.borrow();
        let mut port = FIRST_ASSIGNED_PORT;
        while address.port() == 0 {
            let free = SocketAddr::new(address.ip(), port);
            if at.contains_key(&free) {
                port += 1;
            } else {
                address = free;
            }
        }
        address
    }

    fn choose(&self, world: &World, address: SocketAddr) -> Option<Rc<Queue>> {
        let at = self.at.borrow();
        let queues = at.get(&address)?;
        match queues.len() {
            0 | 1 => queues.first().cloned(),
            many => queues.get(world.one_to(many) - 1).cloned(),
        }
    }

    /// Drops what was left by listeners that outlive the run.
    pub fn clear(&self) {
        let all = self.at.take();
        for queue in all.values().flatten() {
            let made = queue.made.take();
            drop(made);
        }
    }
}

impl Queue {
    fn offer(self: &Rc<Self>, world: &World, socket: Socket, peer: SocketAddr, delay: Duration) {
        self.count.set(self.count.get() + 1);
        if delay.is_zero() {
            return self.show(socket, peer);
        }
        let queue = Rc::clone(self);
        world.at(clock::now() + delay, move || queue.show(socket, peer));
    }

    fn show(&self, socket: Socket, peer: SocketAddr) {
        if self.closed.get() {
            return socket.reset_on_close();
        }
        self.made.borrow_mut().push_back((socket, peer));
        self.acceptors.borrow_mut().wake();
    }
}

/// The address that connection `number` seems to come from.
fn client_address(number: u64) -> SocketAddr {
    let port = 40_000 + u16::try_from(number % 20_000).unwrap_or(0);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn no_simulation() -> io::Error {
    io::Error::other("no simulation runs on this thread")
}
