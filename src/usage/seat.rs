//! Seats: which processes of this node share a state directory, and which of them live.
//!
//! A process takes a seat as it starts and holds an exclusive lock (`flock`) on the seat's file until it ends; the
//! kernel gives the lock up with the process, whatever ended it, so a seat whose lock can be had is of a dead
//! process. What belongs to a process (leases, intents) is kept under its seat's number, and whoever finds a
//! dead seat may tidy it up. Starting is serialised: `Directory::enter` holds a lock of its own until it is
//! dropped. Limits: `SEATS` processes at a time. Errors: those of the system, with the path.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Processes that share one directory at most: one that serves, one that drains, and some that drain long.
pub const SEATS: usize = 8;

/// A state directory while one process starts or tidies up in it; others wait.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _starting: File,
}

/// A place among the processes of a directory, for the life of this one.
#[derive(Debug)]
pub struct Seat {
    /// 0 to `SEATS` - 1.
    pub index: usize,
    _lock: File,
}

impl Directory {
    /// Makes the directory where it is not there (mode 700) and waits until no other process starts in it.
    pub fn enter(path: &Path) -> io::Result<Directory> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| named(error, path))?;
        let starting = lock_file(&path.join("starting"))?;
        flock(&starting, FlockOperation::LockExclusive).map_err(|error| named(error.into(), path))?;
        Ok(Directory { path: path.to_owned(), _starting: starting })
    }

    /// The same without waiting; none where another process starts.
    pub fn try_enter(path: &Path) -> io::Result<Option<Directory>> {
        let starting = lock_file(&path.join("starting"))?;
        match flock(&starting, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Directory { path: path.to_owned(), _starting: starting })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(named(error.into(), path)),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the first free seat. Errors: `ResourceBusy` where `SEATS` processes live.
    pub fn sit(&self) -> io::Result<Seat> {
        for index in 0..SEATS {
            if let Some(lock) = self.try_seat(index)? {
                return Ok(Seat { index, _lock: lock });
            }
        }
        let message = format!("{SEATS} processes use {} already", self.path.display());
        Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
    }

    /// Whether a process sits there.
    pub fn is_taken(&self, index: usize) -> io::Result<bool> {
        Ok(self.try_seat(index)?.is_none())
    }

    fn try_seat(&self, index: usize) -> io::Result<Option<File>> {
        let path = self.path.join(format!("seat-{index}"));
        let file = lock_file(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(named(error.into(), &path)),
        }
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(|error| named(error, path))
}

fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Directory, SEATS};

    #[test]
    fn a_seat_is_taken_until_its_holder_is_gone_and_there_are_so_many() {
        let path = std::env::temp_dir().join(format!("tollgate-seats-{}", std::process::id()));
        let directory = Directory::enter(&path).expect("a directory");
        let mut seats: Vec<_> = (0..SEATS).map(|_| directory.sit().expect("a free one")).collect();
        assert_eq!(seats.iter().map(|seat| seat.index).collect::<Vec<_>>(), (0..SEATS).collect::<Vec<_>>());
        let full = directory.sit().expect_err("all are taken");
        assert_eq!(full.kind(), std::io::ErrorKind::ResourceBusy);
        drop(seats.remove(3));
        assert!(!directory.is_taken(3).expect("a look"));
        assert!(directory.is_taken(2).expect("a look"));
        assert_eq!(directory.sit().expect("the free one").index, 3);
        std::fs::remove_dir_all(&path).expect("it is ours");
    }
}
