//! What a connection has received and nobody has used yet, in one piece.
//!
//! Shape: `receive` reads behind what is there; `unread` shows it; `take` and `skip` use it up from the front.
//! All connections of a thread receive into one page, one behind the other: a waiting connection holds no
//! buffer, and what is kept for long (a request's body while its provider thinks) costs its own length and not
//! a page. Only what has to stand in one piece and came in several (a head that straddles reads) is copied into
//! a page of its own, which doubles as it grows. Limits: the caller's, who stops when a piece is too long.
//! Errors: those of the read.

use crate::net::page::{self, Page, Slice};
use crate::net::stream::Received;
use std::io;

/// Received and not used.
#[derive(Default)]
pub enum Inbox {
    #[default]
    Empty,
    /// All of it, in the page that the thread's connections share. Never empty.
    Shared(Slice),
    /// `page[start..]`, in a page of its own. Never empty.
    Own { page: Page, start: usize },
}

impl Inbox {
    /// An inbox that holds `unread`.
    pub fn with(unread: Slice) -> Inbox {
        if unread.is_empty() { Inbox::Empty } else { Inbox::Shared(unread) }
    }

    /// What was received and not used.
    pub fn unread(&self) -> &[u8] {
        match self {
            Inbox::Empty => &[],
            Inbox::Shared(slice) => slice,
            Inbox::Own { page, start } => page.bytes().get(*start..).unwrap_or_default(),
        }
    }

    /// Everything was used.
    pub fn is_empty(&self) -> bool {
        matches!(self, Inbox::Empty)
    }

    /// Uses up the first `n` bytes (at most what is there) and gives them without a copy.
    pub fn take(&mut self, n: usize) -> Option<Slice> {
        let taken = match self {
            Inbox::Empty => None,
            Inbox::Shared(slice) => Some(slice.slice(0..n)),
            Inbox::Own { page, start } => Some(page.slice(*start..start.saturating_add(n))),
        };
        self.skip(n);
        taken
    }

    /// Uses up the first `n` bytes (at most what is there). A page that is used up is given back.
    pub fn skip(&mut self, n: usize) {
        if n >= self.unread().len() {
            *self = Inbox::Empty;
            return;
        }
        match self {
            Inbox::Empty => {}
            Inbox::Shared(slice) => *slice = slice.slice(n..slice.len()),
            Inbox::Own { start, .. } => *start += n,
        }
    }

    /// Lets `read` append behind what is unread.
    pub fn receive(&mut self, read: impl FnOnce(&mut Page) -> io::Result<Received>) -> io::Result<Received> {
        match self {
            Inbox::Empty => {
                let (received, slice) = page::with_shared(read);
                *self = Inbox::with(slice);
                received
            }
            Inbox::Own { page, .. } if page.room() > 0 => read(page),
            _ => {
                let unread = self.unread();
                let mut page = Page::with_room((unread.len() * 2).max(OWN_BYTES_MIN));
                page.append(unread);
                let received = read(&mut page);
                *self = Inbox::Own { page, start: 0 };
                received
            }
        }
    }
}

/// The first page of its own: a client that sends its head byte by byte must not hold much.
const OWN_BYTES_MIN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::Inbox;
    use crate::net::stream::Received;
    use proptest::prelude::*;

    fn receive(inbox: &mut Inbox, bytes: &[u8]) -> usize {
        let read = inbox.receive(|page| Ok(Received::Bytes(page.append(bytes))));
        match read {
            Ok(Received::Bytes(n)) => n,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn whatever_is_received_and_used_in_whatever_steps_comes_out_in_order(
            steps in prop::collection::vec((1..6000_usize, 0..7000_usize), 1..40),
        ) {
            let mut others = Inbox::default();
            let (mut inbox, mut sent, mut got) = (Inbox::default(), 0_u32, Vec::new());
            let mut wanted = Vec::new();
            for (arrives, used) in steps {
                let bytes: Vec<u8> = (0..arrives).map(|i| ((sent as usize + i) % 251) as u8).collect();
                let n = receive(&mut inbox, &bytes);
                prop_assert!(n > 0);
                sent += n as u32;
                wanted.extend_from_slice(&bytes[..n]);
                // Another connection of the thread receives into the shared page, too.
                receive(&mut others, b"zzz");
                others.skip(used % 5);
                let taken = inbox.take(used);
                got.extend_from_slice(taken.as_deref().unwrap_or_default());
                prop_assert_eq!(got.len() + inbox.unread().len(), wanted.len());
                prop_assert_eq!(inbox.is_empty(), inbox.unread().is_empty());
            }
            got.extend_from_slice(inbox.unread());
            prop_assert_eq!(got, wanted);
        }
    }
}
