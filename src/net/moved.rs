//! For tests: where bytes stood in memory when they were received and when they were sent, in their order, on
//! this thread. Connections with TLS are not seen: their bytes change on the way.

use std::cell::RefCell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Received,
    Sent,
}

/// One receive, or one piece of a send.
#[derive(Clone, Debug)]
pub struct Moved {
    pub way: Way,
    /// The address of the first byte.
    pub at: usize,
    pub bytes: Vec<u8>,
}

/// Notes from now on.
pub fn begin() {
    MOVED.set(Some(Vec::new()));
}

/// What moved since `begin`.
pub fn end() -> Vec<Moved> {
    MOVED.take().unwrap_or_default()
}

pub(in crate::net) fn note(way: Way, bytes: &[u8]) {
    MOVED.with_borrow_mut(|moved| {
        if let Some(moved) = moved {
            moved.push(Moved { way, at: bytes.as_ptr() as usize, bytes: bytes.to_vec() });
        }
    });
}

thread_local! {
    static MOVED: RefCell<Option<Vec<Moved>>> = const { RefCell::new(None) };
}
