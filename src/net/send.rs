//! What is to be sent, as a list of pieces in order: own small bytes (framing, heads) and slices that are not
//! copied.
//!
//! Shape: push pieces, hand the list to `Conn::send`, which takes it. The kernel gathers the pieces (one
//! `iovec` each). Neighbouring slices of one page become one piece. The storage of a list is reused by the
//! thread. Limit: `PIECES_MAX` pieces a list (the kernel's IOV_MAX is 1,024); `is_full` tells before.

#![allow(unsafe_code)]

use crate::net::page::Slice;
use bytes::Bytes;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::ops::Range;

/// Pieces that one list takes.
pub const PIECES_MAX: usize = 256;

/// A place in a list that is filled later.
#[derive(Debug)]
pub struct Gap(usize);

/// Bytes to send, in order.
#[derive(Default)]
pub struct SendList {
    /// None: nothing was pushed yet. A stream that waits holds no storage.
    inner: Option<Box<Inner>>,
}

impl SendList {
    /// An empty list.
    pub const fn new() -> SendList {
        SendList { inner: None }
    }

    fn inner(&mut self) -> &mut Inner {
        self.inner.get_or_insert_with(|| {
            let reused = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
            reused.unwrap_or_default()
        })
    }

    /// Appends a copy of `bytes`: for framing and heads, not for bodies.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        self.push_with(|own| own.extend_from_slice(bytes));
    }

    /// Appends what `write` appends to the list's own storage.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let Inner { own, pieces, len, .. } = self.inner();
        let start = own.len();
        write(own);
        let end = own.len();
        *len += end - start;
        match pieces.last_mut() {
            Some(Piece::Own(last)) if last.end == start => last.end = end,
            _ if start == end => {}
            _ => pieces.push(Piece::Own(start..end)),
        }
    }

    /// Appends a slice without copying it.
    pub fn push_slice(&mut self, slice: Slice) {
        if slice.is_empty() {
            return;
        }
        let inner = self.inner();
        inner.len += slice.len();
        if let Some(Piece::Slice(last)) = inner.pieces.last_mut()
            && last.join(&slice)
        {
            return;
        }
        inner.pieces.push(Piece::Slice(slice));
    }

    /// Appends shared bytes without copying them.
    pub fn push_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            let inner = self.inner();
            inner.len += bytes.len();
            inner.pieces.push(Piece::Bytes(Box::new(bytes)));
        }
    }

    /// Appends static bytes without copying them.
    pub fn push_static(&mut self, bytes: &'static [u8]) {
        if !bytes.is_empty() {
            let inner = self.inner();
            inner.len += bytes.len();
            inner.pieces.push(Piece::Static(bytes));
        }
    }

    /// Leaves a gap for bytes that are known only when what follows is: the head of a chunk. An unfilled gap
    /// is empty.
    pub fn push_gap(&mut self) -> Gap {
        let inner = self.inner();
        inner.pieces.push(Piece::small(&[]));
        Gap(inner.pieces.len() - 1)
    }

    /// Fills a gap of this list with at most `SMALL_BYTES`.
    pub fn fill(&mut self, gap: Gap, bytes: &[u8]) {
        let Inner { pieces, len, .. } = self.inner();
        if let Some(piece @ Piece::Small(..)) = pieces.get_mut(gap.0) {
            *piece = Piece::small(bytes);
            *len += piece.bytes(&[]).len();
        }
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.len)
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No further slice should be pushed before this list is sent.
    pub fn is_full(&self) -> bool {
        // Room for the framing that closes what was pushed.
        self.inner.as_ref().is_some_and(|inner| inner.pieces.len() >= PIECES_MAX - 4)
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let own = self.inner.as_ref().map_or(&[][..], |inner| &inner.own);
        let pieces = self.inner.as_ref().map_or(&[][..], |inner| &inner.pieces);
        pieces.iter().map(move |piece| piece.bytes(own))
    }

    /// Builds the kernel's view of what is left after `sent` bytes.
    pub(in crate::net) fn gather(&mut self, sent: usize) {
        let Inner { own, pieces, iov, .. } = self.inner();
        iov.clear();
        let mut skip = sent;
        for piece in pieces.iter() {
            let bytes = piece.bytes(own);
            let rest = bytes.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(bytes.len());
            if !rest.is_empty() {
                iov.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
            }
        }
        iov.truncate(1024);
    }

    /// Pieces in the kernel's view.
    pub(in crate::net) fn gathered(&self) -> usize {
        self.iov().len()
    }

    fn iov(&self) -> &[libc::iovec] {
        self.inner.as_ref().map_or(&[], |inner| &inner.iov)
    }
}

impl Drop for SendList {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        inner.pieces.clear();
        inner.iov.clear();
        inner.own.clear();
        inner.len = 0;
        if inner.own.capacity() <= OWN_BYTES_KEPT {
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < LISTS_KEPT {
                    spare.push(inner);
                }
            });
        }
    }
}

// SAFETY: `gather` fills `iov` with addresses of bytes that the list owns or shares: its own storage and small
// pieces (heap, not touched while the runtime owns the list), pages (kept alive by the slice) and `Bytes`.
// Moving the list moves a box only.
unsafe impl monoio::buf::IoVecBuf for SendList {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.iov().as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.iov().len()
    }
}

// SAFETY: as above, for a list that was gathered into exactly one piece.
unsafe impl monoio::buf::IoBuf for SendList {
    fn read_ptr(&self) -> *const u8 {
        self.iov().first().map_or(std::ptr::null(), |first| first.iov_base.cast())
    }

    fn bytes_init(&self) -> usize {
        self.iov().first().map_or(0, |first| first.iov_len)
    }
}

/// The pieces of a lone event in its chunk stand in the list itself, so that they lie side by side in memory.
#[derive(Default)]
struct Inner {
    len: usize,
    pieces: SmallVec<[Piece; PIECES_INLINE]>,
    iov: SmallVec<[libc::iovec; PIECES_INLINE]>,
    own: Vec<u8>,
}

enum Piece {
    Own(Range<usize>),
    Small(u8, [u8; SMALL_BYTES]),
    Slice(Slice),
    Static(&'static [u8]),
    Bytes(Box<Bytes>),
}

impl Piece {
    /// A copy of the first `SMALL_BYTES`.
    fn small(bytes: &[u8]) -> Piece {
        let mut place = [0; SMALL_BYTES];
        let len = bytes.len().min(SMALL_BYTES);
        place[..len].copy_from_slice(&bytes[..len]);
        Piece::Small(len as u8, place)
    }

    fn bytes<'a>(&'a self, own: &'a [u8]) -> &'a [u8] {
        match self {
            Piece::Own(range) => own.get(range.clone()).unwrap_or_default(),
            Piece::Small(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Piece::Slice(slice) => slice,
            Piece::Static(bytes) => bytes,
            Piece::Bytes(bytes) => bytes,
        }
    }
}

/// Chunk head, event, chunk end, and one more.
const PIECES_INLINE: usize = 4;
/// Bytes that fill a gap: a chunk's head has 18 at most.
pub const SMALL_BYTES: usize = 22;
/// Storage above this size is freed with its list.
const OWN_BYTES_KEPT: usize = 4 * 1024;
const LISTS_KEPT: usize = 256;

thread_local! {
    #[expect(clippy::vec_box, reason = "the box is what a list holds; it moves in and out of the pool whole")]
    static SPARE: RefCell<Vec<Box<Inner>>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::SendList;
    use crate::net::page::Page;

    #[test]
    fn pieces_keep_their_order_and_neighbours_join() {
        let mut page = Page::rent();
        page.append(b"abcdef");
        let mut list = SendList::new();
        list.push_copy(b"6\r");
        list.push_copy(b"\n");
        list.push_slice(page.slice(0..3));
        list.push_slice(page.slice(3..6));
        list.push_static(b"\r\n");
        let pieces: Vec<&[u8]> = list.pieces().collect();
        assert_eq!(pieces, [&b"6\r\n"[..], b"abcdef", b"\r\n"]);
        assert_eq!(list.len(), 11);
    }

    #[test]
    fn a_gap_is_filled_where_it_was_left() {
        let mut list = SendList::new();
        list.push_copy(b"head ");
        let gap = list.push_gap();
        list.push_copy(b"data");
        list.fill(gap, b"4: ");
        list.push_copy(b" end");
        assert_eq!(list.pieces().collect::<Vec<_>>().concat(), b"head 4: data end");
        assert_eq!(list.len(), 16);
    }

    #[test]
    fn a_partial_send_is_continued_where_it_stopped() {
        for sent in 0..=5 {
            let mut list = SendList::new();
            list.push_copy(b"abc");
            list.push_static(b"de");
            list.gather(sent);
            let left: usize = list.iov().iter().map(|piece| piece.iov_len).sum();
            assert_eq!(left, 5 - sent, "after {sent} bytes");
        }
    }
}
