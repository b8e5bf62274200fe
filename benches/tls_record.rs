//! What does TLS cost per event of 150 bytes, and per record of 16 KiB, beyond its cipher?
//!
//! Unit: nanoseconds for one message sealed by one side and opened by the other, TLS 1.3 with AES-256-GCM
//! (what OpenSSL, nginx and we agree on), no socket. Beside it stand the cipher alone on the same bytes, the
//! same message through rustls' unbuffered connection (the way that was not taken) and its buffered one.
//! Every way copies the ciphertext once, as recv(2) does. Each way's answer is checked before it is timed,
//! and its allocations are counted: ours must make none.
//!
//! Not asked: handshakes, sockets, TLS 1.2.
//!
//! `cargo bench --bench tls_record`; instruction counts: `... -- --once CASE COUNT` under callgrind, twice
//! with different counts, and the difference divided.

use criterion::{Criterion, Throughput};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use tollgate::net::page::Page;
use tollgate::net::send::SendList;
use tollgate::net::stream::Received;
use tollgate::net::tls::{self, ClientSide, MinVersion, Roots, ServerSide, Session};

const SIZES: [(&str, usize); 2] = [("event_150", 150), ("record_16k", 16_384)];

/// One way to carry a message.
trait Way {
    /// Carries `page`'s content over and says how many bytes arrived.
    fn carry(&mut self, page: &Page) -> usize;
}

/// The cipher alone: seals in a buffer that holds the message, opens it there.
struct Cipher {
    key: LessSafeKey,
    sequence: u64,
    buffer: Vec<u8>,
}

impl Way for Cipher {
    fn carry(&mut self, page: &Page) -> usize {
        self.sequence += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.sequence.to_be_bytes());
        let nonce = || Nonce::assume_unique_for_key(nonce);
        self.buffer.clear();
        self.buffer.extend_from_slice(page.bytes());
        self.buffer.push(23);
        let aad = Aad::from([23, 3, 3, 0, 0]);
        let tag = self.key.seal_in_place_separate_tag(nonce(), aad, &mut self.buffer).expect("sealed");
        self.buffer.extend_from_slice(tag.as_ref());
        self.key.open_in_place(nonce(), aad, &mut self.buffer).expect("opened").len() - 1
    }
}

/// Our two sessions.
struct Ours {
    from: Session,
    to: Session,
}

impl Way for Ours {
    fn carry(&mut self, page: &Page) -> usize {
        let mut list = SendList::new();
        list.push_slice(page.slice(0..page.bytes().len()));
        let (records, _) = self.from.seal(&list, 0).expect("records");
        let mut pieces = records.pieces();
        let (mut piece, mut received) = (pieces.next().unwrap_or_default(), 0);
        let mut target = Page::rent();
        while !piece.is_empty() {
            let read = |into: &mut Page| {
                let n = into.append(piece);
                piece = &piece[n..];
                if piece.is_empty() {
                    piece = pieces.next().unwrap_or_default();
                }
                Ok(Received::Bytes(n))
            };
            self.to.fill(read).expect("filled");
            received += self.to.take(&mut target);
            self.to.settle();
        }
        received
    }
}

/// rustls' unbuffered connections: the message is gathered, encrypted into a buffer, read from another.
struct Unbuffered {
    from: UnbufferedClientConnection,
    to: UnbufferedServerConnection,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Way for Unbuffered {
    fn carry(&mut self, page: &Page) -> usize {
        let UnbufferedStatus { state, .. } = self.from.process_tls_records(&mut []);
        let n = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                traffic.encrypt(page.bytes(), &mut self.sent).expect("encrypted")
            }
            other => panic!("{other:?}"),
        };
        self.received[..n].copy_from_slice(&self.sent[..n]);
        let mut target = Page::rent();
        let mut from = 0;
        while from < n {
            let UnbufferedStatus { discard, state } =
                self.to.process_tls_records(&mut self.received[from..n]);
            let more = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut more = 0;
                    while let Some(record) = traffic.next_record() {
                        let record = record.expect("a record");
                        more += record.discard;
                        target.append(record.payload);
                    }
                    more
                }
                other => panic!("{other:?}"),
            };
            from += discard + more;
        }
        target.bytes().len()
    }
}

/// rustls' buffered connections.
struct Buffered {
    from: ClientConnection,
    to: ServerConnection,
    wire: Vec<u8>,
}

impl Way for Buffered {
    fn carry(&mut self, page: &Page) -> usize {
        self.from.writer().write_all(page.bytes()).expect("room");
        self.wire.clear();
        while self.from.wants_write() {
            self.from.write_tls(&mut self.wire).expect("written");
        }
        let mut wire = self.wire.as_slice();
        let mut target = [0; 16_384];
        let mut received = 0;
        while !wire.is_empty() {
            self.to.read_tls(&mut wire).expect("read");
            self.to.process_new_packets().expect("records");
            received += self.to.reader().read(&mut target[received..]).unwrap_or(0);
        }
        received
    }
}

/// A CA, a certificate and both sides that use them; the files are gone when this returns.
struct Sides {
    ours: (ClientSide, ServerSide),
    rustls: (Arc<ClientConfig>, Arc<ServerConfig>),
}

const NAME: &str = "bench.test";

fn sides() -> Sides {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![NAME.to_string()]).expect("parameters");
    let leaf = params.signed_by(&key, &ca).expect("a certificate");
    let directory = std::env::temp_dir().join(format!("tollgate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = |name: &str, text: String| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let (roots, chain) = (file("ca.pem", ca.pem()), file("chain.pem", leaf.pem()));
    let private = file("key.pem", key.serialize_pem());
    let ours = ours(&roots, &chain, &private);
    std::fs::remove_dir_all(&directory).expect("removed");
    let mut store = RootCertStore::empty();
    store.add(ca.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .expect("a certificate");
    Sides { ours, rustls: (Arc::new(client), Arc::new(server)) }
}

fn ours(roots: &Path, chain: &Path, key: &Path) -> (ClientSide, ServerSide) {
    let client = ClientSide::new(Roots::File(roots), MinVersion::Tls12, &[]).expect("a client side");
    let server = ServerSide::from_files(chain, key, MinVersion::Tls12, &[]).expect("a server side");
    (client, server)
}

fn ways(sides: &Sides) -> Vec<(&'static str, Box<dyn Way>)> {
    let name = tls::server_name(NAME).expect("a name");
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("a key"));
    let (from, to) = tls::in_memory(&sides.ours.0, &sides.ours.1, &name).expect("a handshake");
    vec![
        ("cipher", Box::new(Cipher { key, sequence: 0, buffer: Vec::with_capacity(20_000) })),
        ("ours", Box::new(Ours { from, to })),
        ("rustls_unbuffered", Box::new(unbuffered(sides))),
        ("rustls_buffered", Box::new(buffered(sides))),
    ]
}

fn buffered(sides: &Sides) -> Buffered {
    let name = tls::server_name(NAME).expect("a name");
    let mut from = ClientConnection::new(Arc::clone(&sides.rustls.0), name).expect("a client");
    let mut to = ServerConnection::new(Arc::clone(&sides.rustls.1)).expect("a server");
    while from.is_handshaking() || to.is_handshaking() || from.wants_write() || to.wants_write() {
        let mut wire = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut wire).expect("written");
        }
        to.read_tls(&mut wire.as_slice()).expect("read");
        to.process_new_packets().expect("records");
        let mut wire = Vec::new();
        while to.wants_write() {
            to.write_tls(&mut wire).expect("written");
        }
        from.read_tls(&mut wire.as_slice()).expect("read");
        from.process_new_packets().expect("records");
    }
    Buffered { from, to, wire: Vec::with_capacity(20_000) }
}

fn unbuffered(sides: &Sides) -> Unbuffered {
    let name = tls::server_name(NAME).expect("a name");
    let mut from = UnbufferedClientConnection::new(Arc::clone(&sides.rustls.0), name).expect("a client");
    let mut to = UnbufferedServerConnection::new(Arc::clone(&sides.rustls.1)).expect("a server");
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut steps = 0;
    while steps < 50 {
        steps += 1;
        let UnbufferedStatus { discard, state } = from.process_tls_records(&mut to_client);
        answer(state.expect("a state"), &mut to_server);
        to_client.drain(..discard);
        let UnbufferedStatus { discard, state } = to.process_tls_records(&mut to_server);
        answer(state.expect("a state"), &mut to_client);
        to_server.drain(..discard);
    }
    assert!(!from.is_handshaking() && !to.is_handshaking());
    Unbuffered { from, to, sent: vec![0; 40_000], received: vec![0; 40_000] }
}

fn answer<D>(state: ConnectionState<'_, '_, D>, output: &mut Vec<u8>) {
    match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let start = output.len();
            output.resize(start + 20_000, 0);
            let n = data.encode(&mut output[start..]).expect("room");
            output.truncate(start + n);
        }
        ConnectionState::TransmitTlsData(data) => data.done(),
        _ => {}
    }
}

fn main() {
    let sides = sides();
    let args: Vec<String> = std::env::args().collect();
    if let Some([_, case, count]) = args.windows(3).find(|window| window[0] == "--once") {
        return once(&sides, case, count.parse().expect("a count"));
    }
    weigh(&sides);
    let mut criterion = Criterion::default().configure_from_args();
    for (size_name, size) in SIZES {
        let page = message(size);
        let mut group = criterion.benchmark_group(size_name);
        group.throughput(Throughput::Bytes(size as u64));
        for (name, mut way) in ways(&sides) {
            // The first messages carry tickets and fill the pools.
            for _ in 0..100 {
                assert_eq!(way.carry(&page), size, "{size_name}/{name}");
            }
            let before = COUNT.load(Relaxed);
            for _ in 0..1000 {
                way.carry(&page);
            }
            let allocations = (COUNT.load(Relaxed) - before) as f64 / 1000.0;
            println!("{size_name}/{name}: {allocations} allocations a message");
            assert!(name != "ours" || size > 150 || allocations == 0.0, "events must not allocate");
            group.bench_function(name, |bencher| bencher.iter(|| way.carry(black_box(&page))));
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Prints what connections keep allocated: idle ones of ours and of rustls after a message, and one whose
/// client stalls after its hello.
fn weigh(sides: &Sides) {
    let name = tls::server_name(NAME).expect("a name");
    let page = message(150);
    let ours = || {
        let (from, to) = tls::in_memory(&sides.ours.0, &sides.ours.1, &name).expect("a handshake");
        let mut pair = Ours { from, to };
        assert_eq!(pair.carry(&page), 150);
        (pair.from, pair.to)
    };
    let theirs = || {
        let mut pair = unbuffered(sides);
        assert_eq!(pair.carry(&page), 150);
        (pair.from, pair.to)
    };
    let stalled = || {
        let mut from = UnbufferedClientConnection::new(Arc::clone(&sides.rustls.0), name.clone());
        let mut to = UnbufferedServerConnection::new(Arc::clone(&sides.rustls.1)).expect("a server");
        let (mut hello, mut flight) = (Vec::new(), Vec::new());
        answer(
            from.as_mut().expect("a client").process_tls_records(&mut []).state.expect("a state"),
            &mut hello,
        );
        for _ in 0..4 {
            let UnbufferedStatus { discard, state } = to.process_tls_records(&mut hello);
            answer(state.expect("a state"), &mut flight);
            hello.drain(..discard);
        }
        to
    };
    println!("bytes allocated, one of {WEIGHED}:");
    println!("  our sessions, client {:?}, server {:?}", weight(|| ours().0), weight(|| ours().1));
    println!("  rustls unbuffered, client {:?}, server {:?}", weight(|| theirs().0), weight(|| theirs().1));
    println!("  rustls, a server whose client stalls after its hello: {:?}", weight(stalled));
}

/// The bytes of a value on the heap, with all that hangs on it.
fn weight<T>(make: impl Fn() -> T) -> i64 {
    // The caches of sessions fill with the first.
    for _ in 0..10 {
        make();
    }
    let before = LIVE.load(Relaxed);
    let all: Vec<Box<T>> = (0..WEIGHED).map(|_| Box::new(make())).collect();
    let vector = (all.capacity() * size_of::<Box<T>>()) as i64;
    (LIVE.load(Relaxed) - before - vector) / WEIGHED as i64
}

const WEIGHED: usize = 1000;

fn once(sides: &Sides, case: &str, count: usize) {
    for (size_name, size) in SIZES {
        for (name, mut way) in ways(sides) {
            if case == format!("{size_name}/{name}") {
                let page = message(size);
                for _ in 0..count {
                    black_box(way.carry(black_box(&page)));
                }
            }
        }
    }
}

fn message(size: usize) -> Page {
    let mut page = Page::rent();
    page.append(&vec![b'e'; size]);
    page
}

/// Counts allocations.
struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);

// SAFETY: passes everything on to mimalloc, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        LIVE.fetch_add(layout.size() as i64, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        LIVE.fetch_add(size as i64 - layout.size() as i64, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
