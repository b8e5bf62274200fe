//! What a connection has received and not handed on: decrypted plaintext, then ciphertext of records to come.
//!
//! Shape: `fill` reads ciphertext behind what is there; `next_record` finds a whole record; its plaintext,
//! decrypted where it lies, is marked by `hold_plain` and handed on by `deliver` (the one copy of a received
//! byte).
//! Limits: one page, large enough for the record that is awaited. Nothing is held when there is nothing to
//! hold, and a small rest that waits for its record lies in a page of its own size, so that a peer which
//! stalls costs what it sent.

use crate::net::page::{PAGE_BYTES, Page};
use crate::net::stream::Received;
use crate::net::tls::fault::Fault;
use crate::net::tls::record::{RECORD_MAX, record_len};
use std::io;
use std::ops::Range;

/// A page for records that do not fit into a pooled one, with room for the start of the next.
const LARGE_BYTES: usize = 20 * 1024;

/// A rest of at most this size is kept in a page of its own size.
const REST_SMALL_BYTES: usize = 2048;

const _: () = assert!(RECORD_MAX <= LARGE_BYTES);

/// Received bytes that wait.
#[derive(Default)]
pub struct Input {
    page: Option<Page>,
    /// Plaintext within the page that has not been delivered.
    plain: Range<usize>,
    /// Where the ciphertext within the page begins.
    cipher: usize,
    /// Whether the last record was too large for a pooled page; the next one probably is, too.
    large: bool,
}

impl Input {
    /// Takes over ciphertext that was received before.
    pub fn with_ciphertext(bytes: &[u8]) -> Input {
        let page = (!bytes.is_empty()).then(|| {
            let mut page = Page::with_room(bytes.len());
            page.append(bytes);
            page
        });
        Input { page, ..Input::default() }
    }

    /// Plaintext that waits, in bytes.
    pub fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Copies plaintext that waits into `page`, as much as fits: how much.
    pub fn deliver(&mut self, page: &mut Page) -> usize {
        let Some(plain) = self.page.as_ref().and_then(|held| held.bytes().get(self.plain.clone())) else {
            return 0;
        };
        let n = page.append(plain);
        self.plain.start += n;
        n
    }

    /// The next record, where it is there as a whole. To be taken when no plaintext waits.
    pub fn next_record(&mut self) -> Result<Option<&mut [u8]>, Fault> {
        let Some(len) = self.record_len()? else { return Ok(None) };
        let start = self.cipher;
        let record =
            self.page.as_mut().and_then(Page::bytes_mut).and_then(|bytes| bytes.get_mut(start..start + len));
        if record.is_some() {
            self.cipher += len;
            self.large = len > PAGE_BYTES;
        }
        Ok(record)
    }

    /// Marks a part of the record that `next_record` gave last, of which `range` counts from the start, as
    /// plaintext that waits.
    pub fn hold_plain(&mut self, record_len: usize, range: Range<usize>) {
        let start = self.cipher - record_len;
        self.plain = start + range.start..start + range.end;
    }

    /// Whether `next_record` has something to say.
    pub fn is_ready(&self) -> bool {
        match self.record_len() {
            Ok(Some(len)) => self.ciphertext().len() >= len,
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Lets `read` append ciphertext. To be called when no plaintext waits and no record is whole.
    pub fn fill(&mut self, read: impl FnOnce(&mut Page) -> io::Result<Received>) -> io::Result<Received> {
        read(self.page_with_room())
    }

    /// Drops ciphertext that will never be opened.
    pub fn forget_ciphertext(&mut self) {
        self.cipher = self.page.as_ref().map_or(0, |page| page.bytes().len());
    }

    /// Gives back what is not needed while the connection waits.
    pub fn settle(&mut self) {
        let cipher = self.ciphertext();
        let rest = self.plain.len() + cipher.len();
        if rest == 0 {
            self.page = None;
            return;
        }
        let Some(page) = &self.page else { return };
        if rest > REST_SMALL_BYTES || page.bytes().len() + page.room() <= REST_SMALL_BYTES {
            return;
        }
        let mut small = Page::with_room(rest);
        small.append(page.bytes().get(self.plain.clone()).unwrap_or_default());
        small.append(cipher);
        self.plain = 0..self.plain.len();
        self.cipher = self.plain.end;
        self.page = Some(small);
    }

    fn ciphertext(&self) -> &[u8] {
        self.page.as_ref().and_then(|page| page.bytes().get(self.cipher..)).unwrap_or_default()
    }

    fn record_len(&self) -> Result<Option<usize>, Fault> {
        record_len(self.ciphertext())
    }

    /// The page, with room behind its ciphertext for the rest of the record that is awaited.
    fn page_with_room(&mut self) -> &mut Page {
        // A record that is too long is found by `next_record`; here its length only must not count.
        let awaited = self.record_len().ok().flatten();
        let is_large = awaited.map_or(self.large, |len| len > PAGE_BYTES);
        let wanted = if is_large { LARGE_BYTES } else { PAGE_BYTES };
        let cipher = self.cipher;
        let page = match self.page.take() {
            Some(mut page) if page.bytes().len() + page.room() >= wanted => {
                page.keep(cipher..usize::MAX);
                page
            }
            held => {
                let mut page = if is_large { Page::with_room(LARGE_BYTES) } else { Page::rent() };
                page.append(held.as_ref().and_then(|held| held.bytes().get(cipher..)).unwrap_or_default());
                page
            }
        };
        self.cipher = 0;
        self.plain = 0..0;
        self.page.insert(page)
    }
}
