//! The simulated network: seeded scheduling, a virtual clock, faults. (Being built.)

use crate::net::page::Page;
use crate::net::send::SendList;
use crate::net::stream::Received;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub struct Socket {}
impl Socket {
    pub async fn readable(&self) -> io::Result<()> {
        Ok(())
    }
    pub fn try_recv(&self, _page: &mut Page) -> io::Result<Received> {
        Ok(Received::End)
    }
    pub fn try_peek(&self) -> io::Result<Received> {
        Ok(Received::End)
    }
    pub async fn send(&self, _list: SendList) -> io::Result<()> {
        Ok(())
    }
    pub fn shutdown_send(&self) {}
    pub fn reset_on_close(&self) {}
}
pub struct Listener {}
impl Listener {
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
pub fn listen(_address: SocketAddr) -> io::Result<Listener> {
    Ok(Listener {})
}
pub async fn connect(_address: SocketAddr) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}
pub fn spawn(_task: impl Future<Output = ()> + 'static) {}
pub async fn sleep(_after: Duration) {}
