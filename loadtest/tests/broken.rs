//! `verify` against proxies that are broken on purpose: each must fail the property that it breaks, and only
//! a faithful one passes them all.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tollgate_load::net::stream::Address;
use tollgate_load::run::Options;
use tollgate_load::scenario::{Http, Shape};
use tollgate_load::verify::{Plan, Status, verify};
use tollgate_load::wire::http1::{Item, Reader, RequestHead, ResponseHead};
use tollgate_load::wire::sse::Splitter;

use crate::loopback::{options, start};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// The fifth event of each stream is lost.
    DropsAnEvent,
    /// The fifth event of each stream is sent twice.
    RepeatsAnEvent,
    /// A stream is collected and sent at its end, or when 64 events are there.
    Buffers,
    /// Reads on upstream when its client has left.
    LeaksOnDisconnect,
    /// Takes from upstream whatever comes, however slowly the client reads.
    TakesEverything,
    /// Asks upstream twice.
    AsksTwice,
    /// Ends its streams when it is told to reload, which the file `reload_mark` does.
    CutsOnReload,
}

/// Starts a proxy on a thread per connection, for as long as the test runs.
fn proxy(upstream: SocketAddr, flaw: Flaw) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let relay = move || drop(relay(client, upstream, flaw));
            let _ = std::thread::Builder::new().stack_size(256 * 1024).spawn(relay);
        }
    });
    address
}

/// Reads one request whole; `None` at the end of the connection.
fn request(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let (mut reader, mut bytes, mut buffer) = (Reader::<RequestHead>::default(), Vec::new(), [0; 4096]);
    loop {
        let size = client.read(&mut buffer)?;
        if size == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..size]);
        let mut rest = &buffer[..size];
        while let Some(item) = reader.next(&mut rest).map_err(std::io::Error::other)? {
            if item == Item::End {
                return Ok(Some(bytes));
            }
        }
    }
}

fn relay(mut client: TcpStream, upstream: SocketAddr, flaw: Flaw) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    while let Some(bytes) = request(&mut client)? {
        if flaw == Flaw::AsksTwice {
            let mut other = TcpStream::connect(upstream)?;
            other.write_all(&bytes)?;
            std::thread::spawn(move || std::io::copy(&mut other, &mut std::io::sink()));
        }
        let mut server = TcpStream::connect(upstream)?;
        server.write_all(&bytes)?;
        let watched = (client.try_clone()?, server.try_clone()?);
        if flaw != Flaw::LeaksOnDisconnect {
            std::thread::Builder::new().stack_size(64 * 1024).spawn(move || watch(&watched.0, &watched.1))?;
        }
        answer(&mut client, &mut server, flaw)?;
        // A connection per request keeps the watcher simple.
        client.shutdown(Shutdown::Both)?;
    }
    Ok(())
}

fn reload_mark() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("tollgate-load-reload-{}", std::process::id()))
}

/// Ends the upstream connection when the client has left.
fn watch(client: &TcpStream, server: &TcpStream) {
    let _ = client.peek(&mut [0]);
    let _ = server.shutdown(Shutdown::Both);
}

fn answer(client: &mut TcpStream, server: &mut TcpStream, flaw: Flaw) -> std::io::Result<()> {
    let (mut reader, mut splitter, mut events) = (Reader::<ResponseHead>::default(), Splitter::default(), 0);
    let (mut buffer, mut held, mut is_stream) = ([0; 16 * 1024], Vec::new(), false);
    let mut queue = (flaw == Flaw::TakesEverything).then(|| writer(client.try_clone())).transpose()?;
    loop {
        let size = server.read(&mut buffer)?;
        if size == 0 || (flaw == Flaw::CutsOnReload && is_stream && reload_mark().exists()) {
            return Ok(());
        }
        if flaw == Flaw::TakesEverything {
            // Some 15 MB a second from each stream are far too much, and leave the other tests their cores.
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut rest = &buffer[..size];
        while let Some(item) = reader.next(&mut rest).map_err(std::io::Error::other)? {
            let mut out = Vec::new();
            match item {
                Item::Head(head) => {
                    is_stream = head.content == tollgate_load::wire::http1::Content::EventStream;
                    let kind = if is_stream { "text/event-stream" } else { "application/json" };
                    out = format!(
                        "HTTP/1.1 {} X\r\ncontent-type: {kind}\r\nconnection: close\r\n\
                         transfer-encoding: chunked\r\n\r\n",
                        head.status
                    )
                    .into_bytes();
                }
                Item::Data(data) if is_stream => {
                    let on_event = |event: &[u8]| {
                        events += 1;
                        let times = match flaw {
                            Flaw::DropsAnEvent if events == 5 => 0,
                            Flaw::RepeatsAnEvent if events == 5 => 2,
                            _ => 1,
                        };
                        (0..times).for_each(|_| chunk(&[event, b"\n\n"].concat(), &mut held));
                    };
                    splitter.feed(data, on_event).map_err(|_| std::io::Error::other("too long"))?;
                    if flaw != Flaw::Buffers || events % 64 == 0 {
                        out = std::mem::take(&mut held);
                    }
                }
                Item::Data(data) => chunk(data, &mut out),
                Item::End => {
                    out = std::mem::take(&mut held);
                    out.extend_from_slice(b"0\r\n\r\n");
                    send(client, &mut queue, out)?;
                    return Ok(());
                }
            }
            if let Err(error) = send(client, &mut queue, out)
                && flaw != Flaw::LeaksOnDisconnect
            {
                return Err(error);
            }
        }
    }
}

type Queue = std::sync::mpsc::Sender<Vec<u8>>;

/// A thread that writes what an unbounded queue holds.
fn writer(client: std::io::Result<TcpStream>) -> std::io::Result<Queue> {
    let (mut client, (queue, taken)) = (client?, std::sync::mpsc::channel::<Vec<u8>>());
    std::thread::spawn(move || taken.into_iter().try_for_each(|bytes| client.write_all(&bytes)));
    Ok(queue)
}

fn send(client: &mut TcpStream, queue: &mut Option<Queue>, bytes: Vec<u8>) -> std::io::Result<()> {
    match queue {
        Some(queue) => queue.send(bytes).map_err(std::io::Error::other),
        None => client.write_all(&bytes),
    }
}

fn chunk(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The properties called `only` that a proxy with `flaw` fails.
fn failed(flaw: Flaw, only: &str) -> Vec<(&'static str, String)> {
    let mock = start(&["127.0.0.1:0"], &[]);
    let Address::Ip(upstream) = mock.addresses[0] else { panic!("a port") };
    let gateway = Address::Ip(proxy(upstream, flaw));
    let plan = Plan {
        base: Options { mock: options(&mock.addresses[0]).target.into(), ..options(&gateway) },
        model: None,
        shapes: vec![Shape::ChatStream],
        http: Http::One,
        streams: 40,
        duration_s: 1.0,
        cancel_within_ms: 500,
        decay_factor: 1.5,
        decay_s: 1.0,
        // Threads that share a test's cores say nothing about fairness.
        runaway_factor: 1000.0,
        runaway_p99_ms: 5000.0,
        reload: Some(format!("touch {}", reload_mark().display())),
        restart: None,
        only: only.to_owned(),
    };
    let findings = verify(&plan, |_| {}).expect("the proxy runs");
    mock.stop();
    let _ = std::fs::remove_file(reload_mark());
    std::thread::sleep(Duration::from_millis(50));
    let is_failed = |finding: &tollgate_load::verify::Finding| finding.status == Status::Fail;
    findings.into_iter().filter(is_failed).map(|finding| (finding.property, finding.evidence)).collect()
}

#[test]
fn a_faithful_proxy_passes() {
    assert_eq!(failed(Flaw::None, ""), []);
}

#[test]
fn each_flaw_fails_its_property() {
    let rows = [
        (Flaw::DropsAnEvent, "integrity of events", "faults"),
        (Flaw::RepeatsAnEvent, "integrity of events", "faults"),
        (Flaw::Buffers, "events are not held back", "one way p90"),
        (Flaw::LeaksOnDisconnect, "a client that leaves frees the upstream", "not within"),
        (Flaw::TakesEverything, "slow readers do not grow memory", "on the way"),
        (Flaw::AsksTwice, "one call upstream per request", "calls upstream"),
        (Flaw::CutsOnReload, "reload and restart under load lose nothing", "closed by the target"),
    ];
    for (flaw, property, word) in rows {
        let failed = failed(flaw, property);
        let found = failed.iter().find(|(name, _)| *name == property);
        assert!(found.is_some_and(|(_, evidence)| evidence.contains(word)), "{flaw:?}: {failed:?}");
    }
}
