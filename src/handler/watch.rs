//! Whether the client is still there, while nobody reads from it.
//!
//! An armed watch has a waker of its own, more than a short request is worth. So it is armed only after
//! `ARM_AFTER`, once, and the wait that it begins is the one in which the connection's next request is awaited
//! afterwards. With the deadline's tick a client that leaves is noticed within 100 ms at the latest. Bytes of
//! a next request (pipelining) stand before the client's end and make every wait end at once: from the first of
//! them on the watch asks the socket instead, every `LOOK_EVERY`.
//!
//! A relay asks with every event. An armed watch has a waker of its own that says who called, so that all but
//! one of these questions are answered without touching the connection.

use crate::net::conn::Conn;
use crate::net::deadline::{Deadline, Expired};
use crate::net::stream::Received;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

/// How long a request runs before its client is watched.
pub const ARM_AFTER: Duration = Duration::from_millis(50);

/// How often a client with unread bytes is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(80);

/// A watch of one client for one exchange. As a future it ends when the client has closed or reset its
/// connection. To be polled by one task only.
pub struct ClientWatch {
    conn: Rc<Conn>,
    arm: Deadline,
    armed: Option<Armed>,
    /// `CALLS` when it was looked for last.
    calls_seen: u64,
}

struct Armed {
    /// Boxed: only long answers have it.
    left: Pin<Box<dyn Future<Output = ()>>>,
    called: Arc<Called>,
}

impl ClientWatch {
    /// A watch that begins now.
    pub fn new(conn: &Rc<Conn>) -> ClientWatch {
        let arm = Deadline::unset();
        arm.set(ARM_AFTER);
        ClientWatch { conn: Rc::clone(conn), arm, armed: None, calls_seen: 0 }
    }
}

impl Future for ClientWatch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(armed) = &mut this.armed else {
            let Expired = ready!(this.arm.poll_passed(cx));
            let called = Arc::new(Called { task: cx.waker().clone(), is_called: AtomicBool::new(false) });
            let left = Box::pin(left(Rc::clone(&this.conn)));
            return this.armed.insert(Armed { left, called }).poll();
        };
        // Whether any watch of this worker was called is known without touching this one's.
        let calls = CALLS.get();
        if std::mem::replace(&mut this.calls_seen, calls) == calls || !armed.called.is_called.load(Relaxed) {
            return Poll::Pending;
        }
        armed.poll()
    }
}

impl Armed {
    fn poll(&mut self) -> Poll<()> {
        self.called.is_called.store(false, Relaxed);
        let waker = Waker::from(Arc::clone(&self.called));
        self.left.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// Ends when the client has closed or reset its connection.
async fn left(conn: Rc<Conn>) {
    loop {
        if conn.readable().await.is_err() {
            return;
        }
        match conn.try_peek() {
            Ok(Received::Nothing) => {}
            Ok(Received::Bytes(_)) => break,
            Ok(Received::End) | Err(_) => return,
        }
    }
    let next_look = Deadline::unset();
    while !conn.has_ended() {
        next_look.set(LOOK_EVERY);
        next_look.passed().await;
    }
}

/// The waker of an armed watch.
struct Called {
    task: Waker,
    is_called: AtomicBool,
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.is_called.store(true, Relaxed);
        CALLS.set(CALLS.get() + 1);
        Waker::wake_by_ref(&self.task);
    }
}

thread_local! {
    /// How often a watch of this worker was called. Connections wake on the worker's own thread.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}
