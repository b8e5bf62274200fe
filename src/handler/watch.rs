//! Whether the client is still there, while nobody reads from it.
//!
//! Arming a poll costs an operation of the ring, and another to take it back: more than a short request is
//! worth. So the watch looks only after `ARM_AFTER`, once, and stays armed until the exchange ends. With the
//! deadline's tick a client that leaves is noticed within 100 ms at the latest. Bytes of a next request
//! (pipelining) blind the watch: the client's end is noticed by the next send then.

use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::stream::Received;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

/// How long a request runs before its client is watched.
pub const ARM_AFTER: Duration = Duration::from_millis(50);

/// A watch of one client for one exchange.
pub struct ClientWatch {
    conn: Rc<Conn>,
    arm: Deadline,
}

impl ClientWatch {
    /// A watch that begins now.
    pub fn new(conn: &Rc<Conn>) -> ClientWatch {
        let arm = Deadline::unset();
        arm.set(ARM_AFTER);
        ClientWatch { conn: Rc::clone(conn), arm }
    }

    /// Ends when the client has closed or reset its connection.
    pub async fn left(self) {
        self.arm.passed().await;
        loop {
            if self.conn.readable().await.is_err() {
                return;
            }
            match self.conn.try_peek() {
                Ok(Received::Nothing) => {}
                Ok(Received::Bytes(_)) => pending().await,
                Ok(Received::End) | Err(_) => return,
            }
        }
    }
}
