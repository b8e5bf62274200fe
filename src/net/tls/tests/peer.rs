//! A peer with a record layer that is not ours: rustls' buffered connection, without a socket.

use super::authority::{Authority, NAME};
use crate::net::page::Page;
use crate::net::send::SendList;
use crate::net::stream::Received;
use crate::net::tls::handshake::{Machine, Pending, Step, establish, step};
use crate::net::tls::session::Session;
use crate::net::tls::stream::Agreed;
use crate::net::tls::{TlsError, server_name};
use rustls::SupportedCipherSuite;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{CipherSuite, ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::sync::Arc;

/// Which side is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    Client,
    Server,
}

/// Our session and its peer, after the handshake.
pub struct Pair {
    pub ours: Session,
    pub agreed: Agreed,
    pub peer: Connection,
}

impl Pair {
    /// A pair that speaks `suite`.
    pub fn new(authority: &Authority, ours: Ours, suite: CipherSuite) -> Pair {
        Pair::of(ours, only_client(authority, suite), authority.server_side(&[]).config)
    }

    pub fn of(ours: Ours, client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Pair {
        let name = server_name(NAME).expect("a name");
        match ours {
            Ours::Client => {
                let mut peer = Connection::Server(ServerConnection::new(server).expect("a server"));
                let machine = UnbufferedClientConnection::new(client, name).expect("a client");
                let (ours, agreed) = shake(machine, &mut peer).expect("a handshake");
                Pair { ours, agreed, peer }
            }
            Ours::Server => {
                let mut peer = Connection::Client(ClientConnection::new(client, name).expect("a client"));
                let machine = UnbufferedServerConnection::new(server).expect("a server");
                let (ours, agreed) = shake(machine, &mut peer).expect("a handshake");
                Pair { ours, agreed, peer }
            }
        }
    }

    /// What the peer sends when it is given `bytes` to send.
    pub fn peer_sends(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        for part in bytes.chunks(32 * 1024) {
            self.peer.writer().write_all(part).expect("room for plaintext");
            records.append(&mut written(&mut self.peer));
        }
        records
    }

    /// What the peer reads from `records`.
    pub fn peer_reads(&mut self, mut records: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !records.is_empty() {
            self.peer.read_tls(&mut records).expect("bytes to read");
            self.peer.process_new_packets()?;
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = self.peer.reader().read(&mut part) {
                plain.extend_from_slice(&part[..n]);
            }
        }
        Ok(plain)
    }
}

/// All that a rustls connection wants to send.
pub fn written(peer: &mut Connection) -> Vec<u8> {
    let mut records = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut records).expect("memory takes bytes");
    }
    records
}

/// The records of a sealed list, joined.
pub fn joined(records: &SendList) -> Vec<u8> {
    records.pieces().flatten().copied().collect()
}

/// Everything that our side sends for `list`.
pub fn sealed(ours: &mut Session, list: &SendList) -> Vec<u8> {
    let (mut records, mut done) = (Vec::new(), 0);
    while done < list.len() {
        let (part, n) = ours.seal(list, done).expect("records");
        records.append(&mut joined(&part));
        done += n;
    }
    records
}

/// A list of one piece.
pub fn list_of(bytes: &[u8]) -> SendList {
    let mut list = SendList::new();
    list.push_copy(bytes);
    list
}

/// Gives our side ciphertext, as much at a time as `chunk` says, and reads with pages of `room` bytes.
/// What was read, and how it ended.
pub fn ours_reads(
    ours: &mut Session,
    mut records: &[u8],
    mut chunk: impl FnMut() -> usize,
    mut room: impl FnMut() -> usize,
) -> (Vec<u8>, Result<Received, TlsError>) {
    let mut plain = Vec::new();
    loop {
        let mut page = Page::with_room(room());
        let taken = ours.take(&mut page);
        plain.extend_from_slice(page.bytes());
        ours.settle();
        if taken > 0 {
            continue;
        }
        let verdict = ours.verdict();
        if records.is_empty() || !matches!(verdict, Ok(Received::Nothing)) {
            return (plain, verdict);
        }
        assert!(!ours.is_ready(), "nothing is taken, but something is said to be there");
        let filled = ours.fill(|page| {
            let n = chunk().clamp(1, records.len().min(page.room()));
            page.append(&records[..n]);
            records = &records[n..];
            Ok(Received::Bytes(n))
        });
        assert!(matches!(filled, Ok(Received::Bytes(1..))), "{filled:?}");
    }
}

/// Runs a handshake between a machine of ours and a peer.
pub fn shake<M: Machine>(mut machine: M, peer: &mut Connection) -> Result<(Session, Agreed), TlsError> {
    let (mut pending, mut output) = (Pending::default(), Vec::new());
    loop {
        match step(&mut machine, &mut pending, &mut output)? {
            Step::Done => return establish(machine, &pending, output),
            Step::Blocked if pending.show_next() => {}
            Step::Again => {}
            Step::Blocked | Step::Flush => {
                let mut records = std::mem::take(&mut output);
                let mut records = records.as_mut_slice() as &[u8];
                while !records.is_empty() {
                    peer.read_tls(&mut records).expect("bytes to read");
                    peer.process_new_packets()?;
                }
                pending.append(&written(peer));
            }
        }
    }
}

/// A client that offers one suite only.
pub fn only_client(authority: &Authority, suite: CipherSuite) -> Arc<ClientConfig> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|offered| offered.suite() == suite);
    let version = match provider.cipher_suites[0] {
        SupportedCipherSuite::Tls12(_) => &rustls::version::TLS12,
        SupportedCipherSuite::Tls13(_) => &rustls::version::TLS13,
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate()).expect("a CA certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    Arc::new(config)
}
