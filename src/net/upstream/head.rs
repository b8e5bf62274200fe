//! Reads the heads of one answer: skips interim ones, ends at the final one, and keeps what came after it.
//!
//! Input: a connection. Output: an `Answer`, and the bytes behind it, in the pages into which they were
//! received. A page is held only while a head is incomplete; a head that outgrows it is moved to a larger one
//! once. Limits: `HeadLimits::DEFAULT` and `INTERIM_HEADS_MAX` of `codec::http1`.
//! Errors: `UpstreamError`, all the upstream's fault. Absent: deadlines (the caller's).

use super::http1::UpstreamError;
use crate::codec::http1::{Asked, HeadLimits, ResponseHead, ResponseScan};
use crate::net::conn::Conn;
use crate::net::inbox::Inbox;
use crate::net::page::Slice;
use crate::net::stream::Received;
use std::ops::Deref;

/// The head of a final answer. Its bytes hold on to a page: drop it as soon as it was passed on.
pub struct Answer {
    pub head: Box<ResponseHead>,
    /// What the ranges of `head` refer to.
    pub bytes: Slice,
}

impl Answer {
    /// Value of the first field of that name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.field(&self.bytes, name)
    }

    /// Names and values in order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.head.fields(&self.bytes)
    }
}

impl Deref for Answer {
    type Target = ResponseHead;
    fn deref(&self) -> &ResponseHead {
        &self.head
    }
}

/// Reads until the final head is there.
pub(super) struct HeadReader {
    scan: ResponseScan,
    inbox: Inbox,
    /// Something has come, be it an interim head.
    heard: bool,
    final_head: Option<Box<ResponseHead>>,
}

/// What a look at the connection gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The final head is not whole yet.
    Waiting,
    /// It is; `take` gives it.
    Answered { status: u16 },
}

impl HeadReader {
    /// A reader for the answer to one request.
    pub fn new(asked: Asked) -> HeadReader {
        HeadReader { scan: ResponseScan::new(asked), inbox: Inbox::Empty, heard: false, final_head: None }
    }

    /// What is known so far.
    pub fn progress(&self) -> Progress {
        match &self.final_head {
            Some(head) => Progress::Answered { status: head.status },
            None => Progress::Waiting,
        }
    }

    /// Reads on until the final head is there. May be dropped while it waits, and called again.
    pub async fn read(&mut self, conn: &Conn) -> Result<(), UpstreamError> {
        while self.progress() == Progress::Waiting {
            conn.readable().await.map_err(|_| self.end())?;
            self.receive(conn)?;
        }
        Ok(())
    }

    /// Takes in what has arrived, without waiting.
    pub fn receive(&mut self, conn: &Conn) -> Result<Progress, UpstreamError> {
        if self.final_head.is_some() {
            return Ok(self.progress());
        }
        match self.inbox.receive(|page| conn.try_recv(page)) {
            Ok(Received::Bytes(_)) => {
                self.heard = true;
                self.scan_on()?;
            }
            Ok(Received::Nothing) => {}
            Ok(Received::End) | Err(_) => return Err(self.end()),
        }
        Ok(self.progress())
    }

    /// The answer, and what was received behind it.
    pub fn take(&mut self) -> Option<(Answer, Option<Slice>)> {
        let head = self.final_head.take()?;
        let bytes = self.inbox.take(head.len)?;
        Some((Answer { head, bytes }, self.inbox.take(usize::MAX)))
    }

    fn scan_on(&mut self) -> Result<(), UpstreamError> {
        while !self.inbox.is_empty() {
            let head = self.scan.advance(self.inbox.unread(), &LIMITS);
            match head.map_err(|bad| UpstreamError::HeadInvalid(bad.what))? {
                Some(head) if head.is_interim() => self.inbox.skip(head.len),
                Some(head) => {
                    self.final_head = Some(Box::new(head));
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// What the end of the connection means here.
    fn end(&self) -> UpstreamError {
        if self.heard { UpstreamError::HeadCut } else { UpstreamError::NoAnswer }
    }
}

const LIMITS: HeadLimits = HeadLimits::DEFAULT;
