//! Rented buffers: a `Page` is filled by reads, `Slice`s of it are sent; the last holder gives it back.
//!
//! Shape: `Page::rent` takes 16 KiB from the thread's pool; a read appends to it; `Page::slice` makes
//! read-only views that share it without a copy. When page and slices are gone the memory returns to the pool
//! of the thread. Limits: the pool keeps at most `POOL_PAGES_MAX` pages, and `trim_pool` gives back what has
//! not been in use lately, so memory decays after load. `Page::with_room` makes a page of any size outside
//! the pool (bodies that are collected whole). Not `Send`: a page belongs to its worker.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell, UnsafeCell};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, Range};
use std::rc::Rc;

/// Bytes in a pooled page: one TLS record fits.
pub const PAGE_BYTES: usize = 16 * 1024;

/// Room that a read into the shared page finds at least: a request with its head, or a lot of events.
const SHARED_ROOM_MIN: usize = 4 * 1024;

/// Pages that a thread keeps for reuse (16 MiB).
const POOL_PAGES_MAX: usize = 1024;

/// A buffer with one owner who may append; what is filled never changes.
pub struct Page {
    block: Handle,
}

impl Page {
    /// An empty page of `PAGE_BYTES` from the pool.
    pub fn rent() -> Page {
        let reused = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            let block = pool.free.pop();
            pool.low_water = pool.low_water.min(pool.free.len());
            block
        });
        let block = reused.ok().flatten().unwrap_or_else(|| Block::new(PAGE_BYTES));
        RENTED.set(RENTED.get() + 1);
        block.filled.set(0);
        Page { block: Handle(ManuallyDrop::new(block)) }
    }

    /// An empty page with room for `bytes`, outside the pool.
    pub fn with_room(bytes: usize) -> Page {
        // Never the size of pooled ones, which the pool would take for its own.
        let bytes = if bytes == PAGE_BYTES { bytes + 1 } else { bytes };
        Page { block: Handle(ManuallyDrop::new(Block::new(bytes))) }
    }

    /// What was filled so far.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the first `filled` bytes are initialised and nobody writes them again while the block
        // lives.
        unsafe { std::slice::from_raw_parts(self.block.start(), self.filled()) }
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.block.0.bytes.len() - self.filled()
    }

    /// The unfilled rest, to be written from its start; `advance` then says how much was.
    pub fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: slices end at or before `filled`, and only this owner reaches beyond it.
        unsafe {
            let rest = self.block.start().add(self.filled()).cast_mut().cast();
            std::slice::from_raw_parts_mut(rest, self.room())
        }
    }

    /// Counts `n` bytes of `spare` as filled.
    ///
    /// # Safety
    /// The first `n` bytes of `spare` have been written.
    pub unsafe fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.room());
        self.block.0.filled.set(self.filled() + n);
    }

    /// Appends as much of `bytes` as fits and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        self.spare()[..n].write_copy_of_slice(&bytes[..n]);
        // SAFETY: the line above wrote `n` bytes.
        unsafe { self.advance(n) };
        n
    }

    /// What was filled, to be changed in place (decryption); nothing where a slice refers to the page.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        // SAFETY: the first `filled` bytes are initialised, and no slice is there to see them change.
        self.is_alone()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.block.start().cast_mut(), self.filled()) })
    }

    /// Moves `range` of what was filled to the front and forgets the rest, where no slice refers to the page;
    /// false (and nothing done) otherwise.
    pub fn keep(&mut self, range: Range<usize>) -> bool {
        let end = range.end.min(self.filled());
        let start = range.start.min(end);
        let Some(bytes) = self.bytes_mut() else { return false };
        bytes.copy_within(start..end, 0);
        self.block.0.filled.set(end - start);
        true
    }

    /// A read-only view of a part of what was filled; a range beyond that is cut to it.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        let end = range.end.min(self.filled());
        Slice { block: self.block.share(), start: range.start.min(end), end }
    }

    /// Forgets what was filled, where no slice refers to it; false (and nothing done) otherwise.
    pub fn clear(&mut self) -> bool {
        let alone = self.is_alone();
        if alone {
            self.block.0.filled.set(0);
        }
        alone
    }

    fn filled(&self) -> usize {
        self.block.0.filled.get()
    }

    fn is_alone(&self) -> bool {
        Rc::strong_count(&self.block.0) == 1
    }
}

/// A read-only part of a page. Cheap to clone; keeps the page's memory alive.
#[derive(Clone)]
pub struct Slice {
    block: Handle,
    start: usize,
    end: usize,
}

impl Slice {
    /// A part of this slice; a range beyond it is cut to it.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        let end = self.start.saturating_add(range.end).min(self.end);
        Slice { block: self.block.share(), start: self.start.saturating_add(range.start).min(end), end }
    }

    /// This slice with `before` and `after` around it, where exactly these bytes (letters in either case) stand
    /// around it in its page: what a chunk came in is what it goes out in.
    pub fn framed(&self, before: &[u8], after: &[u8]) -> Option<Slice> {
        let start = self.start.checked_sub(before.len())?;
        let end = self.end + after.len();
        if end > self.block.0.filled.get() {
            return None;
        }
        let framed = Slice { block: self.block.share(), start, end };
        let is_framed = framed.get(..before.len())?.eq_ignore_ascii_case(before) && framed.ends_with(after);
        is_framed.then_some(framed)
    }

    /// Makes this slice longer where `next` follows it in the same page; false (and nothing done) otherwise.
    pub fn join(&mut self, next: &Slice) -> bool {
        let follows = Rc::ptr_eq(&self.block.0, &next.block.0) && self.end == next.start;
        if follows {
            self.end = next.end;
        }
        follows
    }
}

impl std::fmt::Debug for Slice {
    /// The length only: the bytes are somebody's data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} bytes)", self.len())
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `Page::slice` made the range lie within what was filled, and filled bytes do not change.
        unsafe { std::slice::from_raw_parts(self.block.start().add(self.start), self.end - self.start) }
    }
}

/// Lets `fill` append to the page that the thread's connections receive into one behind the other, and gives
/// what it appended. It finds room for `SHARED_ROOM_MIN` bytes or more. Who keeps the slice keeps its page:
/// at worst a page each, as if it had received into one of its own.
pub fn with_shared<T>(fill: impl FnOnce(&mut Page) -> T) -> (T, Slice) {
    let mut page = SHARED.take().unwrap_or_else(Page::rent);
    // Started anew as soon as nobody holds a part of it: the same few lines of cache again.
    if !page.clear() && page.room() < SHARED_ROOM_MIN {
        page = Page::rent();
    }
    let before = page.filled();
    let out = fill(&mut page);
    let slice = page.slice(before..page.filled());
    SHARED.set(Some(page));
    (out, slice)
}

/// Gives back pages that stood unused in this thread's pool since the last call. Call it every few seconds.
pub fn trim_pool() {
    POOL.with_borrow_mut(|pool| {
        let keep = pool.free.len() - pool.low_water.min(pool.free.len()).div_ceil(2);
        pool.free.truncate(keep);
        pool.free.shrink_to(keep);
        pool.low_water = pool.free.len();
    });
}

/// Gives what this process has freed back to the system. The allocator looks for that only as it allocates and frees,
/// so an idle worker would keep what its last request took. To be called with `trim_pool`; a visit of the heap's pages.
pub fn give_back() {
    // SAFETY: takes no pointer; works on the calling thread's heap and on what all threads have freed.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// Pages of this thread that are rented out (pooled size only), the shared one only while a part of it is held.
/// Tests use it to show that nothing leaks.
pub fn rented_pages() -> usize {
    let shared = SHARED.take();
    let unused = usize::from(shared.as_ref().is_some_and(Page::is_alone));
    SHARED.set(shared);
    RENTED.get() - unused
}

struct Block {
    bytes: Box<[UnsafeCell<MaybeUninit<u8>>]>,
    /// Set by the page, read by slices, too: so many bytes are initialised and do not change.
    filled: Cell<usize>,
}

impl Block {
    fn new(bytes: usize) -> Rc<Block> {
        let mut place = Vec::with_capacity(bytes);
        // SAFETY: the elements may be uninitialised, so `capacity` of them exist as soon as the memory does.
        unsafe { place.set_len(bytes) };
        Rc::new(Block { bytes: place.into_boxed_slice(), filled: Cell::new(0) })
    }
}

/// A counted reference to a block that puts it back into the pool when it was the last one.
struct Handle(ManuallyDrop<Rc<Block>>);

impl Handle {
    fn share(&self) -> Handle {
        Handle(ManuallyDrop::new(Rc::clone(&self.0)))
    }

    fn start(&self) -> *const u8 {
        self.0.bytes.as_ptr().cast()
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        self.share()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used afterwards.
        let block = unsafe { ManuallyDrop::take(&mut self.0) };
        if Rc::strong_count(&block) > 1 || block.bytes.len() != PAGE_BYTES {
            return;
        }
        RENTED.set(RENTED.get().saturating_sub(1));
        // A thread that is ending has no pool any more: the block is freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.free.len() < POOL_PAGES_MAX {
                pool.free.push(block);
            }
        });
    }
}

struct Pool {
    free: Vec<Rc<Block>>,
    /// The least that `free` held since the last trim: so many pages were not needed.
    low_water: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), low_water: 0 }) };
    static RENTED: Cell<usize> = const { Cell::new(0) };
    static SHARED: Cell<Option<Page>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::{PAGE_BYTES, Page, rented_pages, trim_pool};

    #[test]
    fn a_slice_outlives_its_page_and_the_page_goes_back_with_the_last_of_them() {
        let mut page = Page::rent();
        page.append(b"hello world");
        let slice = page.slice(6..11);
        let before = rented_pages();
        drop(page);
        assert_eq!(&*slice, b"world");
        assert_eq!(rented_pages(), before);
        drop(slice);
        assert_eq!(rented_pages(), before - 1);
    }

    #[test]
    fn appending_goes_on_while_slices_of_the_filled_part_live() {
        let mut page = Page::rent();
        page.append(b"abc");
        let first = page.slice(0..3);
        page.append(b"def");
        assert!(!page.clear());
        assert_eq!((&*first, page.bytes()), (&b"abc"[..], &b"abcdef"[..]));
        drop(first);
        assert!(page.clear());
        assert_eq!(page.room(), PAGE_BYTES);
    }

    #[test]
    fn filled_bytes_change_and_move_only_while_no_slice_sees_them() {
        let mut page = Page::rent();
        page.append(b"abcdef");
        let slice = page.slice(0..6);
        assert!(page.bytes_mut().is_none() && !page.keep(2..6));
        assert_eq!(&*slice, b"abcdef");
        drop(slice);
        if let Some(bytes) = page.bytes_mut() {
            bytes[2] = b'C';
        }
        assert!(page.keep(2..9));
        assert_eq!(page.bytes(), b"Cdef");
    }

    #[test]
    fn ranges_beyond_what_is_filled_are_cut() {
        let mut page = Page::with_room(4);
        assert_eq!(page.append(b"abcdef"), 4);
        assert_eq!(&*page.slice(2..9), b"cd");
        assert_eq!(&*page.slice(7..9), b"");
        assert_eq!(&*page.slice(0..4).slice(1..3), b"bc");
    }

    #[test]
    fn neighbouring_slices_join_and_others_do_not() {
        let mut page = Page::rent();
        page.append(b"abcdef");
        let mut first = page.slice(0..2);
        assert!(first.join(&page.slice(2..4)));
        assert!(!first.join(&page.slice(5..6)));
        assert_eq!(&*first, b"abcd");
    }

    #[test]
    fn a_slice_takes_its_frame_along_where_exactly_that_stands_around_it() {
        let mut page = Page::rent();
        page.append(b"3\r\nabc\r\n1A\r\nx\r");
        let abc = page.slice(3..6);
        assert_eq!(abc.framed(b"3\r\n", b"\r\n").as_deref(), Some(&b"3\r\nabc\r\n"[..]));
        for (name, slice, before, after) in [
            ("another head", &abc, &b"4\r\n"[..], &b"\r\n"[..]),
            ("a longer head", &abc, b"03\r\n", b"\r\n"),
            ("another end", &abc, b"3\r\n", b"\n\n"),
            ("an end that has not come", &page.slice(12..13), b"1a\r\n", b"\r\n"),
        ] {
            assert!(slice.framed(before, after).is_none(), "{name}");
        }
        let stale = Page::rent();
        drop((abc, page));
        let mut page = Page::rent();
        page.append(b"3\r\nabc");
        assert!(page.slice(3..6).framed(b"3\r\n", b"\r\n").is_none(), "an end that stood there before");
        drop(stale);
        page.append(b"\r\n1A\r\nx\r\n");
        assert_eq!(page.slice(12..13).framed(b"1a\r\n", b"\r\n").as_deref(), Some(&b"1A\r\nx\r\n"[..]));
    }

    #[test]
    fn the_pool_shrinks_when_its_pages_stay_unused() {
        let pages: Vec<Page> = (0..8).map(|_| Page::rent()).collect();
        drop(pages);
        for _ in 0..10 {
            trim_pool();
        }
        super::POOL.with_borrow(|pool| assert!(pool.free.len() <= 1, "{} kept", pool.free.len()));
    }
}
