//! The ends of a process: SIGTERM lets streams finish, a second one does not, and `kill -9` leaves nothing in
//! the way of the next.

use crate::process::gateway::{Gateway, KEY, ask_models, config, soon};
use crate::process::scaled;
use crate::process::streams::{Callers, Failure, Plan, provider, run};
use rustix::process::Signal;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LOG_OFF: &str = "[log]\naccess = \"off\"\n";

fn plan(number: u64) -> Plan {
    Plan { number, events: scaled(60, 200), gap: Duration::from_millis(20) }
}

#[test]
fn sigterm_lets_streams_finish_takes_nothing_new_and_ends_with_0() {
    let streams = scaled(20, 500);
    run(async {
        let mut gateway = Gateway::start(&config(provider().await, LOG_OFF));
        assert_eq!((ask_models(gateway.address), gateway.page("/readyz").0), (200, 200));
        let mut idle = TcpStream::connect(gateway.address).unwrap();
        let callers = Callers::default();
        let work: Vec<_> = (0..streams).map(|number| callers.spawn(gateway.address, plan(number))).collect();
        callers.have_begun(streams as usize).await;
        gateway.signal(Signal::TERM);
        gateway.wait_told("draining", 1);
        assert_eq!((gateway.page("/readyz").0, gateway.page("/healthz").0), (503, 200));
        assert!(soon(|| TcpStream::connect(gateway.address).is_err()), "a connection was taken");
        // A connection without a request is let go, not waited for.
        idle.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(idle.read(&mut [0; 16]).unwrap_or(0), 0);
        assert_eq!(gateway.metrics()["tollgate_requests_active"], streams as f64, "streams ended too early");
        for caller in work {
            caller.await.unwrap().expect("the whole stream");
        }
        assert_eq!(gateway.exit(), Some(0), "{:#?}", gateway.told());
    });
}

#[test]
fn a_second_sigterm_ends_at_once_with_1_and_cuts_visibly() {
    let streams = scaled(10, 500);
    run(async {
        let mut gateway = Gateway::start(&config(provider().await, LOG_OFF));
        let callers = Callers::default();
        let work: Vec<_> = (0..streams).map(|number| callers.spawn(gateway.address, plan(number))).collect();
        callers.have_begun(streams as usize).await;
        gateway.signal(Signal::TERM);
        gateway.wait_told("draining", 1);
        let second = Instant::now();
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.exit(), Some(1));
        assert!(second.elapsed() < Duration::from_secs(5), "it took {:?}", second.elapsed());
        gateway.wait_told("ended at once by a second signal", 1);
        for caller in work {
            let came = caller.await.unwrap();
            assert!(matches!(came, Err(Failure::Cut(_))), "{came:?}");
        }
    });
}

#[test]
fn a_drain_that_is_limited_cuts_what_is_still_open() {
    run(async {
        let text = config(provider().await, LOG_OFF);
        let text = text.replace("workers = 1", "workers = 1\ndrain_timeout_ms = 300");
        let mut gateway = Gateway::start(&text);
        let callers = Callers::default();
        let work = callers.spawn(gateway.address, Plan { gap: Duration::from_secs(5), ..plan(1) });
        callers.have_begun(1).await;
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.exit(), Some(0));
        gateway.wait_told("drain_timeout_ms has passed", 1);
        assert!(matches!(work.await.unwrap(), Err(Failure::Cut(_))));
    });
}

#[test]
fn after_kill_9_the_next_process_starts_on_the_same_port_at_once() {
    let (streams, rounds) = scaled((10, 2), (500, 10));
    run(async {
        let upstream = provider().await;
        let mut gateway = Gateway::start(&config(upstream, LOG_OFF));
        let fixed = |address, admin| {
            let text = config(upstream, LOG_OFF).replacen("127.0.0.1:0", &format!("{address}"), 1);
            text.replacen("127.0.0.1:0", &format!("{admin}"), 1)
        };
        for _ in 0..rounds {
            let callers = Callers::default();
            let work: Vec<_> =
                (0..streams).map(|number| callers.spawn(gateway.address, plan(number))).collect();
            callers.have_begun(streams as usize).await;
            let (address, admin) = (gateway.address, gateway.admin);
            gateway.signal(Signal::KILL);
            assert_eq!(gateway.exit(), None);
            let killed = Instant::now();
            gateway = Gateway::start(&fixed(address, admin));
            assert_eq!((gateway.address, gateway.admin), (address, admin));
            assert_eq!(ask_models(address), 200, "with key {KEY}");
            eprintln!("serves {:?} after the kill", killed.elapsed());
            for caller in work {
                let came = caller.await.unwrap();
                assert!(matches!(came, Err(Failure::Cut(_))), "{came:?}");
            }
        }
    });
}
