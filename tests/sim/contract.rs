//! What callers of `net` may rely on, checked on every driver by the same tests.

use crate::sim::driver::{listen, on_every_driver, on_every_driver_with_panics, pair, pair_by};
use crate::sim::peer::{Script, serve};
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tollgate::base::clock;
use tollgate::net::deadline::{Deadline, Expired, TICK};
use tollgate::net::page::{PAGE_BYTES, Page};
use tollgate::net::race::{First, race};
use tollgate::net::runtime::{self, Driver};
use tollgate::net::send::{PIECES_MAX, SendList};
use tollgate::net::signal::Signal;
use tollgate::net::stream::{self, Received, Stream};

/// How late a busy machine may run a task.
const SLACK: Duration = Duration::from_secs(2);

const MS: Duration = Duration::from_millis(1);

// Waiting

#[test]
fn a_wait_that_is_dropped_loses_nothing() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        for round in 0..20_u8 {
            poll_once(server.readable()).await;
            send(&client, &[round]).await.unwrap();
            poll_once(server.readable()).await;
            assert_eq!(receive(&server, 1).await, [round]);
        }
    });
}

#[test]
fn a_1_ms_limit_around_each_wait_loses_none_of_1000_bytes() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        runtime::spawn(async move {
            for n in 0..1000_u16 {
                send(&client, &[n as u8]).await.unwrap();
                if n % 4 == 0 {
                    runtime::sleep(2 * MS).await;
                }
            }
        });
        let (mut received, mut given_up) = (Vec::new(), 0);
        while received.len() < 1000 {
            match race(server.readable(), runtime::sleep(MS)).await {
                First::One(ready) => {
                    ready.unwrap();
                    let mut page = Page::rent();
                    assert_ne!(server.try_recv(&mut page).unwrap(), Received::End);
                    received.extend_from_slice(page.bytes());
                }
                First::Two(()) => given_up += 1,
            }
        }
        assert!(received.iter().enumerate().all(|(n, byte)| n as u8 == *byte));
        assert!(given_up > 0, "no wait was ever dropped");
    });
}

#[test]
fn a_wait_for_the_peer_stands_beside_a_send_to_it() {
    on_every_driver(async || {
        let bytes = if is_memory() { 20_000 } else { 3_000_000 };
        let (client, server) = pair().await;
        let both = [Rc::new(client), Rc::new(server)];
        let done = Rc::new(Cell::new(0));
        for one in &both {
            let (sender, receiver, done) = (Rc::clone(one), Rc::clone(one), Rc::clone(&done));
            let finished = Rc::clone(&done);
            runtime::spawn(async move {
                send(&sender, &pattern(bytes)).await.unwrap();
                finished.set(finished.get() + 1);
            });
            runtime::spawn(async move {
                assert!(receive(&receiver, bytes).await == pattern(bytes));
                done.set(done.get() + 1);
            });
        }
        until(|| done.get() == 4).await;
    });
}

#[test]
fn looking_takes_nothing() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        assert_eq!(server.try_peek().unwrap(), Received::Nothing);
        assert_eq!(server.try_recv(&mut Page::rent()).unwrap(), Received::Nothing);
        send(&client, b"ab").await.unwrap();
        client.shutdown_send();
        until(|| server.try_peek().unwrap() == Received::Bytes(1)).await;
        assert_eq!(server.try_peek().unwrap(), Received::Bytes(1));
        // The end is seen behind bytes that nobody has read.
        until(|| server.has_ended()).await;
        assert!(!client.has_ended());
        assert_eq!(receive(&server, 2).await, b"ab");
        until(|| server.try_peek().unwrap() == Received::End).await;
        assert_eq!(server.try_recv(&mut Page::rent()).unwrap(), Received::End);
    });
}

#[test]
fn a_full_page_receives_nothing_and_loses_nothing() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        send(&client, b"abcd").await.unwrap();
        let mut page = Page::with_room(3);
        while page.room() > 0 {
            server.readable().await.unwrap();
            server.try_recv(&mut page).unwrap();
        }
        assert_eq!(server.try_recv(&mut page).unwrap(), Received::Nothing);
        assert_eq!((page.bytes(), &*receive(&server, 1).await), (&b"abc"[..], &b"d"[..]));
    });
}

// Sending

#[test]
fn a_list_of_many_pieces_reaches_a_slow_reader_whole_and_in_order() {
    on_every_driver(async || {
        // Real sockets hold several megabytes; a simulated connection holds 64 KiB and runs 40 times.
        let piece = if is_memory() { 100 } else { PAGE_BYTES };
        for pieces in [1, 2, PIECES_MAX, 1500] {
            let (client, server) = pair().await;
            let sent = pattern(pieces * piece);
            let expected = sent.clone();
            let sender = async move {
                let mut list = SendList::new();
                for bytes in sent.chunks(piece) {
                    let mut page = Page::rent();
                    page.append(bytes);
                    list.push_slice(page.slice(0..bytes.len()));
                }
                client.send(list).await.unwrap();
            };
            runtime::spawn(sender);
            runtime::sleep(5 * MS).await;
            assert!(slow_receive_to_end(&server).await == expected, "{pieces} pieces");
        }
    });
}

#[test]
fn an_empty_list_is_sent_at_once() {
    on_every_driver(async || {
        let (client, _server) = pair().await;
        client.send(SendList::new()).await.unwrap();
    });
}

#[test]
fn a_send_waits_while_the_peer_does_not_read() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        let bytes = if is_memory() { 100_000 } else { 16_000_000 };
        let sent = Rc::new(Cell::new(false));
        let flag = Rc::clone(&sent);
        runtime::spawn(async move {
            send(&client, &vec![1; bytes]).await.unwrap();
            flag.set(true);
        });
        runtime::sleep(50 * MS).await;
        assert!(!sent.get());
        assert_eq!(slow_receive_to_end(&server).await.len(), bytes);
        until(|| sent.get()).await;
    });
}

#[test]
fn a_send_that_is_dropped_half_way_gives_its_pages_back() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        {
            let mut list = SendList::new();
            for _ in 0..600 {
                let mut page = Page::rent();
                page.append(&[1; PAGE_BYTES]);
                list.push_slice(page.slice(0..PAGE_BYTES));
            }
            assert!(matches!(race(client.send(list), runtime::sleep(20 * MS)).await, First::Two(())));
        }
        client.reset_on_close();
        drop(client);
        drop(server);
        runtime::sleep(20 * MS).await;
        // The harness finds no page rented after this.
    });
}

// Ends

#[test]
fn what_was_sent_before_closing_arrives_and_then_the_end() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        runtime::spawn(async move {
            send(&client, &pattern(40_000)).await.unwrap();
        });
        assert!(slow_receive_to_end(&server).await == pattern(40_000));
        assert_eq!(server.try_recv(&mut Page::rent()).unwrap(), Received::End, "the end stays");
    });
}

#[test]
fn a_connection_that_is_closed_one_way_works_the_other_way() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        client.shutdown_send();
        assert_eq!(read_to_end(&server).await, (vec![], Ok(())));
        send(&server, b"still here").await.unwrap();
        drop(server);
        assert_eq!(read_to_end(&client).await, (b"still here".to_vec(), Ok(())));
        assert_eq!(send(&client, b"x").await, Err(ErrorKind::BrokenPipe));
    });
}

#[test]
fn a_reset_is_not_taken_for_an_end() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        send(&server, b"part").await.unwrap();
        assert_eq!(receive(&client, 4).await, b"part");
        server.reset_on_close();
        drop(server);
        assert_eq!(read_to_end(&client).await, (vec![], Err(ErrorKind::ConnectionReset)));
    });
}

#[test]
fn bytes_that_arrived_before_a_reset_are_read_before_it_is_told() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        send(&server, b"last words").await.unwrap();
        until(|| client.try_peek().unwrap() == Received::Bytes(1)).await;
        runtime::sleep(if is_memory() { 10_000 * MS } else { 20 * MS }).await;
        server.reset_on_close();
        drop(server);
        runtime::sleep(if is_memory() { 10_000 * MS } else { 20 * MS }).await;
        let (received, end) = read_to_end(&client).await;
        // Other systems drop them: the simulation draws which.
        assert!(received == b"last words" || received.is_empty() && is_memory(), "{received:?}");
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn closing_with_unread_bytes_is_a_reset() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        send(&client, b"never read").await.unwrap();
        until(|| server.try_peek().unwrap() == Received::Bytes(1)).await;
        drop(server);
        assert_eq!(read_to_end(&client).await, (vec![], Err(ErrorKind::ConnectionReset)));
    });
}

#[test]
fn sending_to_a_peer_that_closed_fails_in_the_end() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        drop(server);
        for _ in 0..1000 {
            if let Err(kind) = send(&client, b"x").await {
                assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind:?}");
                return;
            }
            runtime::sleep(MS).await;
        }
        panic!("1000 sends succeeded");
    });
}

#[test]
fn a_reset_that_a_send_was_told_of_reads_as_an_end() {
    on_every_driver(async || {
        let (client, server) = pair().await;
        server.reset_on_close();
        drop(server);
        runtime::sleep(Duration::from_secs(if is_memory() { 10 } else { 0 }) + 20 * MS).await;
        assert_eq!(send(&client, b"x").await, Err(ErrorKind::ConnectionReset));
        assert_eq!(send(&client, b"x").await, Err(ErrorKind::BrokenPipe));
        assert_eq!(read_to_end(&client).await, (vec![], Ok(())), "so a caller must remember the first error");
    });
}

// Connecting and accepting

#[test]
fn connecting_where_nobody_listens_is_refused() {
    on_every_driver(async || {
        let (listener, address) = listen();
        drop(listener);
        runtime::sleep(MS).await;
        assert_eq!(
            stream::connect(address).await.err().map(|e| e.kind()),
            Some(ErrorKind::ConnectionRefused)
        );
    });
}

#[test]
fn an_accept_that_is_dropped_loses_no_connection() {
    on_every_driver(async || {
        let (listener, address) = listen();
        for round in 0..50_u8 {
            let mut accepted = None;
            runtime::spawn(async move {
                let client = stream::connect(address).await.unwrap();
                send(&client, &[round]).await.unwrap();
            });
            while accepted.is_none() {
                accepted = match race(listener.accept(), runtime::sleep(Duration::from_micros(100))).await {
                    First::One(accepted) => Some(accepted.unwrap()),
                    First::Two(()) => None,
                };
            }
            let stream = accepted.map(|accepted| accepted.stream).unwrap();
            assert_eq!(read_to_end(&stream).await, (vec![round], Ok(())));
        }
    });
}

#[test]
fn dropped_accepts_connects_and_waits_leak_no_descriptor() {
    alone("sim::contract::dropped_accepts_connects_and_waits_leak_no_descriptor", || {
        on_every_driver(async || {
            let (listener, address) = listen();
            drop(pair_by(&listener, address).await);
            runtime::sleep(10 * MS).await;
            let before = descriptors();
            for _ in 0..50 {
                poll_once(listener.accept()).await;
                poll_once(stream::connect(address)).await;
                let (client, server) = pair_by(&listener, address).await;
                poll_once(client.readable()).await;
                poll_once(server.readable()).await;
            }
            // Connections whose connect was dropped may still stand in the queue.
            while let First::One(accepted) = race(listener.accept(), runtime::sleep(50 * MS)).await {
                drop(accepted);
            }
            assert_eq!(descriptors(), before);
        });
    });
}

// Tasks and time

#[test]
fn a_panic_ends_its_task_alone_and_is_counted() {
    on_every_driver_with_panics(1, async || {
        let before = runtime::panics();
        let (client, server) = pair().await;
        runtime::spawn(async move {
            let _closes_with_its_task = client;
            panic!("as asked");
        });
        assert_eq!(read_to_end(&server).await, (vec![], Ok(())));
        assert_eq!(runtime::panics(), before + 1);
    });
}

#[test]
fn a_deadline_passes_not_early_and_at_most_a_tick_late() {
    on_every_driver(async || {
        let deadline = Deadline::unset();
        for after in [Duration::ZERO, MS, TICK, 50 * MS] {
            deadline.set(after);
            let at = deadline.at();
            assert_eq!(deadline.passed().await, Expired);
            let late = clock::now() - at;
            assert!(clock::now() >= at, "early");
            let slack = if is_memory() { 10 * MS } else { SLACK };
            assert!(late <= TICK + slack, "{late:?} late");
        }
    });
}

#[test]
fn a_deadline_set_anew_while_it_is_waited_for_counts_from_then() {
    on_every_driver(async || {
        let deadline = Rc::new(Deadline::unset());
        let setter = Rc::clone(&deadline);
        setter.set(40 * MS);
        runtime::spawn(async move {
            for _ in 0..5 {
                runtime::sleep(20 * MS).await;
                setter.set(40 * MS);
            }
        });
        let start = clock::now();
        deadline.passed().await;
        assert!(clock::now() - start >= 60 * MS);
        assert!(clock::now() >= deadline.at());
    });
}

#[test]
fn a_deadline_bounds_work_and_lets_faster_work_through() {
    on_every_driver(async || {
        let deadline = Deadline::unset();
        deadline.set(30 * MS);
        assert_eq!(deadline.bound(pending::<()>()).await, Err(Expired));
        deadline.set(Duration::from_secs(600));
        assert_eq!(deadline.bound(async { 7 }).await, Ok(7));
        deadline.set_at(clock::Instant::NEVER);
        assert_eq!(race(deadline.passed(), runtime::sleep(3 * TICK)).await, First::Two(()));
    });
}

#[test]
fn a_signal_wakes_all_who_wait_and_stays_up() {
    on_every_driver(async || {
        let signal = Signal::default();
        let woken = Rc::new(Cell::new(0));
        for _ in 0..100 {
            let (signal, woken) = (signal.clone(), Rc::clone(&woken));
            runtime::spawn(async move {
                signal.raised().await;
                woken.set(woken.get() + 1);
            });
        }
        runtime::sleep(MS).await;
        assert_eq!(woken.get(), 0);
        signal.raise();
        until(|| woken.get() == 100).await;
        signal.raised().await;
        signal.lower();
        assert_eq!(poll_once(signal.raised()).await, None);
    });
}

#[test]
fn a_thousand_tasks_each_get_their_turn() {
    on_every_driver(async || {
        let (connections, tasks) = if is_memory() { (10, 100) } else { (200, 1000) };
        let (listener, address) = listen();
        serve(
            listener,
            (0..connections).map(|_| Script::new().expect("ping").send("pong").expect_end()).collect(),
        );
        let done = Rc::new(RefCell::new(vec![0; tasks]));
        for task in 0..tasks {
            let done = Rc::clone(&done);
            runtime::spawn(async move {
                if task < connections {
                    Script::new().send("ping").expect("pong").close().connect(address).await;
                }
                for _ in 0..3 {
                    runtime::sleep(MS).await;
                    done.borrow_mut()[task] += 1;
                }
            });
        }
        until(|| done.borrow().iter().all(|turns| *turns == 3)).await;
    });
}

// Scripted peers

#[test]
fn a_dialogue_of_two_scripts_goes_through() {
    on_every_driver(async || {
        let (listener, address) = listen();
        let server = Script::new()
            .expect("GET / HTTP/1.1\r\n")
            .expect_until("\r\n\r\n")
            .check(|head| assert_eq!(head, b"Host: a\r\n\r\n"))
            .wait(5 * MS)
            .send_pieces("HTTP/1.1 200 OK\r\n\r\nbody", 3)
            .finish()
            .expect_end();
        serve(listener, vec![server, Script::new().expect_bytes(1).reset()]);
        let client = Script::new()
            .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("HTTP/1.1 200 OK\r\n")
            .expect_until("\r\n")
            .expect("body")
            .expect_end()
            .close();
        assert_eq!(client.connect(address).await, b"HTTP/1.1 200 OK\r\n\r\nbody");
        Script::new().expect_nothing(5 * MS).send("x").expect_reset().connect(address).await;
    });
}

#[test]
fn a_script_that_is_not_kept_to_says_where() {
    let rows: [(&str, Script, Script, &str); 5] = [
        (
            "other bytes",
            Script::new().send("abd"),
            Script::new().expect("abc"),
            "step 1 of the script, expect \"abc\": \"abd\" came",
        ),
        (
            "an end",
            Script::new().send("ab"),
            Script::new().expect("ab").expect("c"),
            "step 2 of the script, expect \"c\": the end came after \"\"",
        ),
        (
            "bytes for an end",
            Script::new().send("ab"),
            Script::new().expect("a").expect_end(),
            "step 2 of the script, expect the end: \"b\" came",
        ),
        (
            "an end for a reset",
            Script::new(),
            Script::new().expect_reset(),
            "step 1 of the script, expect a reset: the end came",
        ),
        (
            "a reset for an end",
            Script::new().reset(),
            Script::new().expect_end(),
            "step 1 of the script, expect the end: connection reset after \"\"",
        ),
    ];
    for (name, does, expects, message) in rows {
        let faults = tollgate::net::memory::Faults::none();
        let outcome = tollgate::net::memory::Simulation::new(1, faults).run(async {
            let (listener, address) = listen();
            serve(listener, vec![does]);
            expects.connect(address).await;
        });
        let failure = tollgate::net::memory::Failure::Panicked(message.to_string());
        assert_eq!(outcome.result.err(), Some(failure), "{name}");
    }
}

fn is_memory() -> bool {
    runtime::driver() == Some(Driver::Memory)
}

/// Polls once and drops.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Waits until `condition` holds; the harness bounds it.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        runtime::sleep(MS).await;
    }
}

async fn send(stream: &Stream, bytes: &[u8]) -> Result<(), ErrorKind> {
    let mut list = SendList::new();
    list.push_copy(bytes);
    stream.send(list).await.map_err(|error| error.kind())
}

async fn receive(stream: &Stream, count: usize) -> Vec<u8> {
    let mut page = Page::with_room(count);
    while page.room() > 0 {
        stream.readable().await.unwrap();
        assert_ne!(stream.try_recv(&mut page).unwrap(), Received::End, "after {} bytes", page.bytes().len());
    }
    page.bytes().to_vec()
}

async fn read_to_end(stream: &Stream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut received = Vec::new();
    loop {
        let mut page = Page::rent();
        stream.readable().await.unwrap();
        match stream.try_recv(&mut page) {
            Ok(Received::End) => return (received, Ok(())),
            Ok(_) => received.extend_from_slice(page.bytes()),
            Err(error) => return (received, Err(error.kind())),
        }
    }
}

/// Reads to the end with a pause after each 100 KB.
async fn slow_receive_to_end(stream: &Stream) -> Vec<u8> {
    let (mut received, mut paused_at) = (Vec::new(), 0);
    loop {
        let mut page = Page::rent();
        stream.readable().await.unwrap();
        if stream.try_recv(&mut page).unwrap() == Received::End {
            return received;
        }
        received.extend_from_slice(page.bytes());
        if received.len() - paused_at > 100_000 {
            paused_at = received.len();
            runtime::sleep(MS).await;
        }
    }
}

/// Bytes in which every position differs from its neighbours and pages.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n ^ (n >> 8) ^ (n >> 13)) as u8).collect()
}

/// Descriptors that this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Runs `test`, which is the test `name`, in a process of its own: what it counts belongs to the whole
/// process.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os("TOLLGATE_TEST_ALONE").is_some() {
        return test();
    }
    let this = std::env::current_exe().expect("the test binary");
    let mut command = std::process::Command::new(this);
    let output = command.args(["--exact", name]).env("TOLLGATE_TEST_ALONE", "1").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
