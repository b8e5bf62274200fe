//! Where the admin listener listens: an address or a socket file, and how a successor takes it over.
//!
//! A socket file is taken over by a rename: from then on callers reach the new process. An address is shared
//! (SO_REUSEPORT) until the old process drains: then it looks whether another one listens there and, if so,
//! leaves. Errors: an address that is in use, a path where something else stands than a socket that was left
//! behind. Absent: figures of a process that drains beside its successor.

use crate::net::listener::{self, local_address};
use crate::server::Occupied;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A bound admin listener.
pub enum Place {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A caller.
pub enum Caller {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket file of this process; removed with it.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: the file at `path` may be a successor's by now.
    made: (u64, u64),
}

impl Place {
    /// Listens on an address.
    pub fn tcp(address: SocketAddr, occupied: Occupied) -> io::Result<Place> {
        if occupied == Occupied::Refused {
            listener::probe(address)?;
        }
        from_bound(listener::bind(address)?).map(Place::Tcp)
    }

    /// Listens on a unix socket that only this user may use. A socket that was left behind is replaced, a live
    /// one is where it is to be taken over; anything else that stands there is an error.
    pub fn unix(path: &Path, occupied: Occupied) -> io::Result<Place> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.file_type().is_socket() => {
                let what = "something that is no socket stands there; it is left alone, name another path";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            Ok(_) if occupied == Occupied::TakenOver => {}
            Ok(_) => remove_left_behind(path)?,
        }
        let own = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
        let bound_at = if occupied == Occupied::TakenOver { &own } else { path };
        let listener = UnixListener::bind(bound_at)?;
        let mut file = SocketFile { path: bound_at.to_owned(), made: identity(bound_at)? };
        fs::set_permissions(bound_at, fs::Permissions::from_mode(0o600))?;
        if bound_at != path {
            fs::rename(bound_at, path)?;
            file.path = path.to_owned();
        }
        Ok(Place::Unix(listener, file))
    }

    /// The address that was bound, where it is none of a file.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Place::Tcp(listener) => listener.local_addr().ok(),
            Place::Unix(..) => None,
        }
    }

    /// The next caller. May be dropped while it waits.
    pub async fn accept(&self) -> io::Result<Caller> {
        match self {
            Place::Tcp(listener) => listener.accept().await.map(|(stream, _)| Caller::Tcp(stream)),
            Place::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Caller::Unix(stream)),
        }
    }

    /// Leaves the address where a successor listens there; who waits there is given to `take`. None: it has
    /// left. Whether somebody else listens shows only while this process does not.
    pub fn unless_taken_over(self, mut take: impl FnMut(Caller)) -> io::Result<Option<Place>> {
        let Place::Tcp(listener) = self else { return Ok(Some(self)) };
        let listener = listener.into_std()?;
        let address = local_address(&listener)?;
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            take(Caller::Tcp(TcpStream::from_std(stream)?));
        }
        drop(listener);
        match Place::tcp(address, Occupied::Refused) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            bound => bound.map(Some),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Left behind it would be replaced by the next start.
        if identity(&self.path).is_ok_and(|found| found == self.made) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn from_bound(socket: OwnedFd) -> io::Result<TcpListener> {
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

/// Removes a socket that nobody listens on.
fn remove_left_behind(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
