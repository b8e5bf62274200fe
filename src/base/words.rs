//! A fixed run of 64-bit words in memory that other threads, other processes and later processes share.
//!
//! Shape: `Words::anonymous` gives zeroed words for this process; `Words::open` maps a file, so that what is
//! written there outlives the process (kill -9 included) and is seen by every process that maps the same file.
//! Words are atomics and nothing else is ever read from the mapping, so any content of the file is a value.
//! Limits: the file's blocks are allocated before it is mapped: a full disk is an error here and not a fatal
//! signal at the first write. Power failure: the kernel writes the pages back when it likes; whoever needs
//! more appends to a file and syncs that. Errors: those of the system. Absent: growing; a larger run is another
//! file.

#![allow(unsafe_code)]

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::fs::OpenOptions;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

/// Bytes of a word.
pub const WORD_BYTES: usize = size_of::<AtomicU64>();

/// The mapping. It ends with the last use of it.
#[derive(Debug)]
pub struct Words {
    start: NonNull<AtomicU64>,
    len: usize,
}

impl Words {
    /// `len` words of zero, at least one.
    pub fn anonymous(len: usize) -> io::Result<Words> {
        let bytes = bytes(len)?;
        // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        Words::of(start?, len)
    }

    /// The first `len` words of the file at `path`, which is made (mode 600) where it is not there and grows
    /// where it is shorter; new words are zero.
    pub fn open(path: &Path, len: usize) -> io::Result<Words> {
        let bytes = bytes(len)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        allocate(&file, bytes)?;
        // SAFETY: as above. The file may be changed by others under the mapping: it is read through atomics
        // only. One that is cut shorter by somebody would be a fatal signal; nobody but us writes there.
        let start = unsafe {
            mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)
        };
        Words::of(start?, len)
    }

    fn of(start: *mut std::ffi::c_void, len: usize) -> io::Result<Words> {
        let start = NonNull::new(start.cast::<AtomicU64>());
        Ok(Words { start: start.ok_or(io::ErrorKind::OutOfMemory)?, len })
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `len` words, is aligned to a page, readable, writable, and lives as long as
        // `self`. Any bits are a valid `AtomicU64`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no reference into it outlives `self`. It cannot fail for a
        // whole mapping, and if it did, memory would be lost and nothing else.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len * WORD_BYTES) };
    }
}

// SAFETY: all that is reached through it are atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

fn bytes(len: usize) -> io::Result<usize> {
    len.checked_mul(WORD_BYTES).filter(|bytes| *bytes > 0).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Makes the file at least `bytes` long, with every block on the disk. What stands there already stays.
fn allocate(file: &std::fs::File, bytes: usize) -> io::Result<()> {
    let len = bytes as u64;
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        // The file system cannot promise; the length alone has to do.
        Err(rustix::io::Errno::OPNOTSUPP) if file.metadata()?.len() < len => file.set_len(len),
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::Words;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn what_is_written_is_seen_by_the_next_who_opens_the_file_and_by_others_at_once() {
        let directory = std::env::temp_dir().join(format!("tollgate-words-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("words");
        let first = Words::open(&path, 3).expect("a mapping");
        assert_eq!(first.iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>(), [0, 0, 0]);
        let second = Words::open(&path, 3).expect("another mapping");
        first[2].store(7, Relaxed);
        assert_eq!(second[2].load(Relaxed), 7);
        drop((first, second));
        let longer = Words::open(&path, 2000).expect("a longer one");
        assert_eq!((longer[2].load(Relaxed), longer[1999].load(Relaxed)), (7, 0));
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn a_run_of_no_words_or_of_more_than_memory_has_is_refused() {
        assert!(Words::anonymous(0).is_err());
        assert!(Words::anonymous(usize::MAX).is_err());
        assert_eq!(Words::anonymous(1).expect("a page").len(), 1);
    }
}
