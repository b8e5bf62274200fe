//! Question: what does `Http1Upstream::next` add to the wait and the recv(2) of one event of a stream?
//!
//! Rows, each for ring and epoll: `bare` waits for readiness, rents a page, receives and takes a slice;
//! `chunked` is `next` over chunked framing; `length` is `next` over a Content-Length. Events of 150 bytes, one
//! write each; the peer is played by the same thread, so its write is part of every row. Unit: CPU time of the
//! thread per event, from its scheduler statistics; rows are interleaved and the median of the rounds counts.
//! Read the differences between rows: the absolute value is mostly the kernel's. Every row checks its bytes.
//!
//! Not measured here: several chunks a read, TLS, the client's side.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tollgate::codec::http1::Asked;
use tollgate::net::conn::Conn;
use tollgate::net::deadline::Deadline;
use tollgate::net::listener::{Listener, bind, local_address};
use tollgate::net::page::Page;
use tollgate::net::resolve::Addresses;
use tollgate::net::runtime::{self, Wish};
use tollgate::net::send::SendList;
use tollgate::net::stream::Received;
use tollgate::net::upstream::{Counters, Http1Upstream, Limits, Origin, Piece, Pools, Settings, Timeouts};

const EVENT_BYTES: usize = 150;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Bare,
    Chunked,
    Length,
}

fn main() {
    // `cargo test --benches` runs every bench once, to see that it still works.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let (rounds, events) = if is_measured { (15, 40_000) } else { (1, 100) };
    for wish in [Wish::Any, Wish::Epoll] {
        let medians: Rc<RefCell<Vec<(Row, f64)>>> = Rc::default();
        let results = Rc::clone(&medians);
        runtime::run(
            wish,
            |choice| println!("{}", choice.driver.name()),
            async move || {
                let rows = [Row::Bare, Row::Chunked, Row::Length];
                let mut times = rows.map(|row| (row, Vec::new()));
                for _ in 0..rounds {
                    for (row, times) in &mut times {
                        times.push(measure(*row, events).await);
                    }
                }
                results.borrow_mut().extend(times.map(|(row, mut times)| {
                    times.sort_by(f64::total_cmp);
                    (row, times[times.len() / 2])
                }));
            },
        )
        .expect("epoll at least");
        let medians = medians.borrow();
        for (row, time) in medians.iter() {
            println!("  {row:?}: {time:.0} ns of CPU an event, {:+.0} to bare", time - medians[0].1);
        }
    }
}

/// Nanoseconds of CPU of this thread per event.
async fn measure(row: Row, events: usize) -> f64 {
    let bound = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = local_address(&bound).expect("its address");
    let listener = Listener::from_bound(bound).expect("a listener");
    let origin = Arc::new(Origin::new(Settings {
        name: "bench".to_owned(),
        host: "bench.test".to_owned(),
        port: 80,
        addresses: Addresses::known([address]),
        proxy: None,
        tls: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
    }));
    let pools = Pools::new(Arc::new(Counters::default()));
    let lease = pools.checkout(&origin).await.expect("a connection");
    let peer = Conn::Plain(listener.accept().await.expect("its other end").stream);
    let payload = vec![b'e'; EVENT_BYTES];
    let event = match row {
        Row::Chunked => [format!("{EVENT_BYTES:x}\r\n").as_bytes(), &payload, b"\r\n"].concat(),
        Row::Bare | Row::Length => payload,
    };
    let head = match row {
        Row::Chunked => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        Row::Bare | Row::Length => "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n",
    };
    let mut upstream = Http1Upstream::new(lease, Asked::Body);
    say(&peer, head.as_bytes()).await;
    let deadline = Deadline::unset();
    deadline.set(Duration::from_secs(10));
    upstream.read_head(&deadline).await.expect("a head");
    let mut received = 0;
    if row == Row::Bare {
        let (conn, _) = upstream.into_tunnel();
        let start = cpu_ns();
        for _ in 0..events {
            say(&peer, &event).await;
            conn.readable().await.expect("an event");
            let mut page = Page::rent();
            let Ok(Received::Bytes(n)) = conn.try_recv(&mut page) else { panic!("no event") };
            received += page.slice(0..n).len();
        }
        let spent = cpu_ns() - start;
        assert_eq!(received, events * EVENT_BYTES);
        return spent / events as f64;
    }
    let start = cpu_ns();
    for _ in 0..events {
        say(&peer, &event).await;
        let Ok(Piece::Data(slice)) = upstream.next().await else { panic!("no event") };
        received += slice.len();
    }
    let spent = cpu_ns() - start;
    assert_eq!(received, events * EVENT_BYTES);
    spent / events as f64
}

async fn say(peer: &Conn, bytes: &[u8]) {
    let mut list = SendList::new();
    list.push_copy(bytes);
    peer.send(list).await.expect("the other side listens");
}

fn cpu_ns() -> f64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("scheduler statistics");
    statistics.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number of nanoseconds")
}
