//! Tests of the simulation itself: scheduling, clock, bounds, faults. What all drivers share is tested in
//! `tests/sim`.

use super::{Connecting, Failure, Faults, Flow, Link, Outcome, Simulation, Stall, Unread, each_seed};
use crate::base::clock::{self, Instant};
use crate::base::rng;
use crate::net::deadline::{Deadline, TICK};
use crate::net::listener::Listener;
use crate::net::page::Page;
use crate::net::runtime;
use crate::net::send::SendList;
use crate::net::stream::{Received, Stream, connect};
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

#[test]
fn the_clock_jumps_to_the_next_timer_and_wall_time_goes_with_it() {
    let outcome = plain(async {
        let (start, unix_ms) = (clock::now(), clock::unix_ms());
        runtime::sleep(Duration::from_secs(600)).await;
        assert_eq!(clock::now() - start, Duration::from_secs(600));
        assert_eq!(clock::unix_ms() - unix_ms, 600_000);
    });
    assert_eq!(outcome.elapsed, Duration::from_secs(600));
    assert!(outcome.steps <= 3, "{} steps", outcome.steps);
    outcome.finished();
}

#[test]
fn the_order_of_ready_tasks_is_drawn_from_the_seed() {
    let order = |seed| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let main = async {
            for n in 0..6 {
                let order = Rc::clone(&order);
                runtime::spawn(async move { order.borrow_mut().push(n) });
            }
            runtime::sleep(Duration::from_millis(1)).await;
        };
        Simulation::new(seed, Faults::none()).run(main).finished();
        order.take()
    };
    let orders: std::collections::BTreeSet<Vec<i32>> = (0..200).map(order).collect();
    assert!(orders.len() > 150, "{} different orders in 200 seeds", orders.len());
    assert_eq!(order(7), order(7));
}

#[test]
fn a_deadlock_names_the_tasks_that_wait() {
    let outcome = plain(async {
        runtime::spawn(pending());
        pending::<()>().await;
    });
    assert_eq!(outcome.result, Err(Failure::Deadlock));
    assert_eq!(outcome.tasks_left.len(), 1);
    assert!(outcome.tasks_left[0].contains("memory/tests.rs"), "{}", outcome.tasks_left[0]);
    assert!(outcome.to_string().contains("TOLLGATE_SEED=1"), "{outcome}");
}

#[test]
fn a_deadline_that_is_not_set_does_not_hide_a_deadlock() {
    let outcome = plain(async {
        let unset = Deadline::unset();
        unset.passed().await;
    });
    assert_eq!(outcome.result, Err(Failure::Deadlock));
}

#[test]
fn steps_and_time_are_bounded_and_one_less_is_enough() {
    let sleeps = || async {
        for _ in 0..10 {
            runtime::sleep(Duration::from_secs(1)).await;
        }
    };
    let run = || Simulation::new(1, Faults::none());
    assert_eq!(run().steps_max(10).run(sleeps()).result, Err(Failure::StepsMax(10)));
    run().steps_max(11).run(sleeps()).finished();
    let time = Duration::from_millis(9_999);
    assert_eq!(run().time_max(time).run(sleeps()).result, Err(Failure::TimeMax(time)));
    run().time_max(Duration::from_secs(10)).run(sleeps()).finished();
}

#[test]
fn a_panic_of_main_is_reported_and_one_of_a_task_is_counted() {
    let outcome = plain(async { panic!("as {}", "asked") });
    assert_eq!(outcome.result, Err::<(), _>(Failure::Panicked("as asked".to_string())));
    let outcome = plain(async {
        runtime::spawn(async { panic!("as asked") });
        runtime::sleep(Duration::from_millis(1)).await;
    });
    assert_eq!((outcome.panics, outcome.result), (1, Ok(())));
}

#[test]
fn a_run_leaves_clock_and_runtime_as_they_were() {
    plain(async {}).finished();
    assert_eq!(runtime::driver(), None);
    assert!(clock::now() < Instant(3_600_000_000));
    assert_ne!(plain_with(5, async { rng::bits() }), rng::bits());
}

#[test]
fn equal_seeds_give_equal_traces_and_others_do_not() {
    let trace = |seed| {
        let outcome = Simulation::new(seed, Faults::random(seed)).run(async {
            echo_server();
            for _ in 0..3 {
                runtime::spawn(async {
                    let _ = echo_once(&vec![7; 3000]).await;
                });
            }
            runtime::sleep(Duration::from_secs(300)).await;
        });
        (outcome.trace, outcome.steps, outcome.elapsed, outcome.tasks_left.len())
    };
    let traces: Vec<_> = (0..50).map(trace).collect();
    assert_eq!(traces, (0..50).map(trace).collect::<Vec<_>>());
    let different: std::collections::BTreeSet<u64> = traces.iter().map(|trace| trace.0).collect();
    assert_eq!(different.len(), 50);
}

#[test]
fn an_echo_survives_all_harmless_faults() {
    each_seed(0..300, |seed| {
        let outcome = Simulation::new(seed, Faults::harmless(seed)).run(async {
            echo_server();
            let sent: Vec<u8> = (0..2_000).map(|_| rng::bits() as u8).collect();
            assert!(echo_once(&sent).await.is_ok_and(|received| received == sent));
        });
        outcome.finished();
    });
}

#[test]
fn under_any_faults_a_prefix_arrives_and_a_clean_end_means_all_of_it() {
    let (ends, cuts) = (Cell::new(0), Cell::new(0));
    each_seed(0..2_000, |seed| {
        let outcome = Simulation::new(seed, Faults::random(seed)).run(async {
            let listener = Listener::in_memory(SERVER).unwrap();
            let sent: Rc<[u8]> = (0..1_000).map(|_| rng::bits() as u8).collect();
            let bytes = Rc::clone(&sent);
            runtime::spawn(async move {
                while let Ok(accepted) = listener.accept().await {
                    let bytes = Rc::clone(&bytes);
                    runtime::spawn(async move {
                        let _ = send(&accepted.stream, &bytes).await;
                    });
                }
            });
            let Ok(client) = connect(SERVER).await else { return };
            let deadline = Deadline::unset();
            deadline.set(Duration::from_secs(100));
            let Ok((received, end)) = deadline.bound(read_to_end(&client)).await else { return };
            assert!(sent.starts_with(&received), "{} bytes", received.len());
            assert!(
                end.is_err() || received.len() == sent.len(),
                "a clean end after {} bytes",
                received.len()
            );
            let count = if end.is_ok() { &ends } else { &cuts };
            count.set(count.get() + 1);
        });
        outcome.finished();
    });
    if std::env::var_os("TOLLGATE_SEED").is_none() {
        assert!(ends.get() > 1_000 && cuts.get() > 50, "{} ends, {} cuts", ends.get(), cuts.get());
    }
}

#[test]
fn a_deadline_passes_never_early_and_at_most_a_tick_late() {
    each_seed(0..200, |seed| {
        let late = plain_with(seed, async {
            let deadline = Deadline::unset();
            runtime::sleep(Duration::from_micros(rng::below(100_000))).await;
            deadline.set(Duration::from_millis(123));
            let at = deadline.at();
            deadline.passed().await;
            assert!(clock::now() >= at);
            clock::now() - at
        });
        assert!(late < TICK, "{late:?} late");
    });
}

#[test]
fn sleeps_end_late_as_much_as_allowed_and_never_early() {
    let mut latest = Duration::ZERO;
    for seed in 0..100 {
        let faults = Faults { timer_late_max: Duration::from_millis(5), ..Faults::none() };
        let outcome = Simulation::new(seed, faults).run(runtime::sleep(Duration::from_millis(10)));
        assert!(outcome.elapsed >= Duration::from_millis(10));
        latest = latest.max(outcome.elapsed);
        outcome.finished();
    }
    assert!(latest > Duration::from_millis(14) && latest <= Duration::from_millis(15), "{latest:?}");
}

#[test]
fn spurious_wakes_poll_a_task_that_waits_and_nothing_else_does() {
    let polls = |spurious_wakes_per_mille| {
        let polls = Rc::new(Cell::new(0));
        let faults = Faults { spurious_wakes_per_mille, ..Faults::none() };
        let main = async {
            let count = Rc::clone(&polls);
            runtime::spawn(poll_fn(move |_| {
                count.set(count.get() + 1);
                Poll::Pending
            }));
            for _ in 0..100 {
                runtime::sleep(Duration::from_millis(1)).await;
            }
        };
        Simulation::new(1, faults).run(main).finished();
        polls.get()
    };
    assert_eq!(polls(0), 1);
    assert!(polls(500) > 20, "{} polls", polls(500));
}

#[test]
fn a_reset_after_700_bytes_lets_700_be_read() {
    for (unread_at_reset, least) in [(Unread::Kept, 700), (Unread::Dropped, 0)] {
        let flow = Flow { reset_after: Some(700), ..Flow::default() };
        let link = Link { to_client: flow, unread_at_reset, ..Link::default() };
        each_seed(0..50, |seed| {
            let link = link.clone();
            let faults = Faults::none().links(move |_| link.clone());
            let outcome = Simulation::new(seed, faults).run(async {
                echo_server();
                let stream = connect(SERVER).await.unwrap();
                send(&stream, &[1; 1000]).await.unwrap();
                let (received, end) = read_to_end(&stream).await;
                assert!((least..=700).contains(&received.len()), "{} bytes", received.len());
                assert_eq!(end, Err(ErrorKind::ConnectionReset));
                assert_eq!(stream.try_peek().unwrap(), Received::End, "the error is told once");
                assert_eq!(send(&stream, b"x").await, Err(ErrorKind::BrokenPipe));
            });
            outcome.finished();
        });
    }
}

#[test]
fn bytes_that_a_reset_loses_are_never_followed_by_an_end() {
    let reset_at = Some(Duration::from_millis(300));
    let link = Link { reset_at, unread_at_reset: Unread::Dropped, ..Link::default() };
    let faults = Faults::none().links(move |_| link.clone());
    let outcome = Simulation::new(1, faults).run(async {
        let listener = Listener::in_memory(SERVER).unwrap();
        let client = connect(SERVER).await.unwrap();
        let server = listener.accept().await.unwrap().stream;
        send(&server, b"all of it").await.unwrap();
        drop(server);
        runtime::sleep(Duration::from_secs(1)).await;
        assert_eq!(read_to_end(&client).await, (Vec::new(), Err(ErrorKind::BrokenPipe)));
    });
    outcome.finished();
}

#[test]
fn a_reset_at_a_time_strikes_both_ends() {
    let reset_at = Some(Duration::from_millis(300));
    let faults = Faults::none().links(move |_| Link { reset_at, ..Link::default() });
    let outcome = Simulation::new(3, faults).run(async {
        let listener = Listener::in_memory(SERVER).unwrap();
        let client = connect(SERVER).await.unwrap();
        let server = listener.accept().await.unwrap().stream;
        assert_eq!(read_to_end(&client).await.1, Err(ErrorKind::ConnectionReset));
        assert_eq!(read_to_end(&server).await.1, Err(ErrorKind::ConnectionReset));
    });
    assert_eq!(outcome.elapsed, Duration::from_millis(300));
    outcome.finished();
}

#[test]
fn a_stall_holds_what_comes_after_its_bytes_for_its_time() {
    let stall = Some(Stall { after: 10, lasts: Duration::from_secs(5) });
    let link = Link { to_client: Flow { stall, ..Flow::default() }, ..Link::default() };
    let faults = Faults::none().links(move |_| link.clone());
    let outcome = Simulation::new(3, faults).run(async {
        echo_server();
        let client = connect(SERVER).await.unwrap();
        send(&client, &[1; 30]).await.unwrap();
        assert_eq!(read_exactly(&client, 10).await.len(), 10);
        assert_eq!(client.try_peek().unwrap(), Received::Nothing);
        let before = clock::now();
        assert_eq!(read_exactly(&client, 20).await.len(), 20);
        assert_eq!(clock::now() - before, Duration::from_secs(5));
    });
    outcome.finished();
}

#[test]
fn a_peer_that_never_reads_takes_what_the_connection_holds() {
    let stall = Some(Stall { after: 0, lasts: Duration::MAX });
    let link = Link { to_server: Flow { stall, capacity: 1000, ..Flow::default() }, ..Link::default() };
    let faults = Faults::none().links(move |_| link.clone());
    let outcome = Simulation::new(3, faults).run(async {
        echo_server();
        let client = connect(SERVER).await.unwrap();
        send(&client, &[1; 1000]).await.unwrap();
        send(&client, &[1; 1]).await.unwrap();
    });
    assert_eq!(outcome.result, Err(Failure::Deadlock));
    assert_eq!(outcome.sockets_open, 2);
}

#[test]
fn connecting_is_refused_where_nobody_listens_or_the_link_says_so() {
    let link = Link { connect: Connecting::Refused, ..Link::default() };
    for faults in [Faults::none(), Faults::none().links(move |_| link.clone())] {
        let listens = Rc::new(Cell::new(false));
        let outcome = Simulation::new(3, faults).run(async {
            let _listener = listens.get().then(|| Listener::in_memory(SERVER));
            assert_eq!(connect(SERVER).await.err().map(|e| e.kind()), Some(ErrorKind::ConnectionRefused));
            listens.set(true);
        });
        outcome.finished();
    }
}

#[test]
fn a_connect_that_hangs_is_given_up_after_127_s() {
    let link = Link { connect: Connecting::Hangs, ..Link::default() };
    let faults = Faults::none().links(move |_| link.clone());
    let outcome = Simulation::new(3, faults).run(async {
        echo_server();
        assert_eq!(connect(SERVER).await.err().map(|e| e.kind()), Some(ErrorKind::TimedOut));
    });
    assert_eq!(outcome.elapsed, Duration::from_secs(127));
    outcome.finished();
}

#[test]
fn latency_and_accept_delay_are_kept_to_the_microsecond() {
    let flow = |ms| Flow { latency: Duration::from_millis(ms), ..Flow::default() };
    let accept_delay = Duration::from_millis(7);
    let link = Link { to_server: flow(10), to_client: flow(30), accept_delay, ..Link::default() };
    let faults = Faults::none().links(move |_| link.clone());
    let outcome = Simulation::new(3, faults).run(async {
        echo_server();
        let client = connect(SERVER).await.unwrap();
        assert_eq!(clock::unix_ms() % 1000, 40, "connecting is a round trip");
        send(&client, b"x").await.unwrap();
        read_exactly(&client, 1).await;
    });
    assert_eq!(outcome.elapsed, Duration::from_millis(40 + 10 + 30));
    outcome.finished();
}

#[test]
fn the_backlog_is_bounded_and_the_next_connection_tries_again() {
    let outcome = plain(async {
        let listener = Listener::in_memory(SERVER).unwrap();
        let mut clients = Vec::new();
        for _ in 0..super::listener::BACKLOG {
            clients.push(connect(SERVER).await.unwrap());
        }
        let start = clock::now();
        runtime::spawn(async {
            connect(SERVER).await.unwrap();
        });
        runtime::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(clock::now() - start, Duration::from_millis(2_500));
        for _ in 0..=super::listener::BACKLOG {
            listener.accept().await.unwrap();
        }
        assert_eq!(clock::now() - start, Duration::from_millis(3_000));
    });
    outcome.finished();
}

#[test]
fn a_policy_tells_connections_apart() {
    let refused = Link { connect: Connecting::Refused, ..Link::default() };
    let faults = Faults::none().links(move |dial| match (dial.to, dial.number_to) {
        (SERVER, 1) => refused.clone(),
        _ => Link::default(),
    });
    let outcome = Simulation::new(3, faults).run(async {
        echo_server();
        assert!(connect(SERVER).await.is_ok());
        assert!(connect(SERVER).await.is_err());
        assert!(connect(SERVER).await.is_ok());
    });
    assert_eq!(outcome.connections, 3);
    outcome.finished();
}

#[test]
fn readiness_is_sometimes_spurious_where_the_link_says_so() {
    let spurious = |spurious_readable_per_mille| {
        let flow = Flow { spurious_readable_per_mille, latency: Duration::from_millis(1), ..Flow::default() };
        let link = Link { to_client: flow, ..Link::default() };
        let nothings = Cell::new(0);
        let faults = Faults::none().links(move |_| link.clone());
        let outcome = Simulation::new(9, faults).run(async {
            echo_server();
            let client = connect(SERVER).await.unwrap();
            let mut page = Page::rent();
            for n in 1..=100 {
                send(&client, b"x").await.unwrap();
                while page.bytes().len() < n {
                    client.readable().await.unwrap();
                    let nothing = client.try_recv(&mut page).unwrap() == Received::Nothing;
                    nothings.set(nothings.get() + u32::from(nothing));
                }
            }
        });
        outcome.finished();
        nothings.get()
    };
    assert_eq!(spurious(0), 0);
    assert!(spurious(300) > 10);
}

fn plain<T>(main: impl Future<Output = T>) -> Outcome<T> {
    Simulation::new(1, Faults::none()).run(main)
}

fn plain_with<T>(seed: u64, main: impl Future<Output = T>) -> T {
    Simulation::new(seed, Faults::none()).run(main).finished()
}

/// Sends back what it gets, on each connection.
fn echo_server() {
    let listener = Listener::in_memory(SERVER).unwrap();
    runtime::spawn(async move {
        while let Ok(accepted) = listener.accept().await {
            runtime::spawn(async move {
                let stream = accepted.stream;
                loop {
                    let mut page = Page::rent();
                    if stream.readable().await.is_err() {
                        return;
                    }
                    match stream.try_recv(&mut page) {
                        Ok(Received::Nothing) => {}
                        Ok(Received::Bytes(n)) => {
                            let mut list = SendList::new();
                            list.push_slice(page.slice(0..n));
                            if stream.send(list).await.is_err() {
                                return;
                            }
                        }
                        Ok(Received::End) | Err(_) => return,
                    }
                }
            });
        }
    });
}

async fn echo_once(bytes: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let stream = Rc::new(connect(SERVER).await.map_err(|error| error.kind())?);
    let sender = Rc::clone(&stream);
    let bytes = bytes.to_vec();
    runtime::spawn(async move {
        if send(&sender, &bytes).await.is_ok() {
            sender.shutdown_send();
        }
    });
    let (received, end) = read_to_end(&stream).await;
    end.map(|()| received)
}

async fn send(stream: &Stream, bytes: &[u8]) -> Result<(), ErrorKind> {
    let mut list = SendList::new();
    list.push_copy(bytes);
    stream.send(list).await.map_err(|error| error.kind())
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

async fn read_exactly(stream: &Stream, bytes: usize) -> Vec<u8> {
    let mut page = Page::with_room(bytes);
    while page.room() > 0 {
        stream.readable().await.unwrap();
        assert_ne!(stream.try_recv(&mut page).unwrap(), Received::End);
    }
    page.bytes().to_vec()
}
