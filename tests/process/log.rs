//! The access log of the process: no record is lost over a rotation, and a reader that is stuck holds up
//! nothing but the log.

use crate::cli::{Directory, tollgate};
use crate::process::gateway::{Gateway, KEY, ask_models, config, exchange, soon, status};
use crate::process::scaled;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

#[test]
fn no_record_is_lost_when_the_log_is_moved_away_and_opened_anew() {
    let (askers, rotations) = scaled((2, 4), (4, 100));
    let gateway = Gateway::start(&config(nowhere(), "[log]\naccess = { file = \"access.log\" }\n"));
    let over = Arc::new(AtomicBool::new(false));
    let work: Vec<_> = (0..askers)
        .map(|_| {
            let (over, address) = (Arc::clone(&over), gateway.address);
            std::thread::spawn(move || {
                let mut asked = 0;
                while !over.load(Relaxed) {
                    assert_eq!(ask_models(address), 200);
                    asked += 1;
                    // Not faster than a log can be written: that would be another test.
                    std::thread::sleep(Duration::from_millis(1));
                }
                asked
            })
        })
        .collect();
    let path = gateway.directory.path("access.log");
    for number in 0..rotations {
        std::thread::sleep(Duration::from_millis(100));
        std::fs::rename(&path, gateway.directory.path(&format!("access.log.{number}"))).unwrap();
        gateway.signal(Signal::USR1);
        assert!(soon(|| std::fs::exists(&path).unwrap()), "no new log");
    }
    over.store(true, Relaxed);
    let asked: usize = work.into_iter().map(|asker| asker.join().unwrap()).sum();
    gateway.check_calm();
    let names = (0..rotations).map(|number| format!("access.log.{number}")).chain(["access.log".to_string()]);
    let names: Vec<String> = names.collect();
    let text = || names.iter().map(|name| gateway.directory.read(name)).collect::<String>();
    assert!(soon(|| text().lines().count() >= asked), "{} of {asked}", text().lines().count());
    assert_eq!(ids(&text()), asked);
    assert_eq!(gateway.metrics()["tollgate_log_records_dropped_total"], 0.0);
    eprintln!("{asked} records over {rotations} rotations");
}

/// How many records there are; each is JSON with an id of its own.
fn ids(text: &str) -> usize {
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let mut ids = HashSet::new();
    for record in records {
        assert!(ids.insert(record["id"].as_str().expect("an id").to_string()), "{record} stands twice");
    }
    ids.len()
}

#[test]
fn a_stuck_reader_of_stdout_holds_up_neither_requests_nor_control_and_what_is_dropped_is_counted() {
    let mut gateway = Gateway::start_by(tollgate(), Directory::new(), &config(nowhere(), ""), Stdio::piped());
    let mut stdout = gateway.stdout();
    let mut asked = 0;
    let dropped = |gateway: &Gateway| gateway.metrics()["tollgate_log_records_dropped_total"];
    while dropped(&gateway) == 0.0 {
        assert!(asked < 100_000, "nothing is dropped after {asked} records that nobody reads");
        asked += pipelined(gateway.address, 200);
    }
    // Control goes on, too: it reloads and opens the log anew (which waits), tells and drains.
    assert_eq!(gateway.page("/readyz").0, 200);
    gateway.signal(Signal::HUP);
    gateway.wait_told("generation 2 serves", 1);
    gateway.signal(Signal::USR1);
    asked += pipelined(gateway.address, 10);
    let dropped = dropped(&gateway) as usize;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("text");
        text
    });
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit(), Some(0), "{:#?}", gateway.told());
    assert_eq!(ids(&reader.join().unwrap()) + dropped, asked, "{dropped} dropped");
}

#[test]
fn a_drain_ends_though_nobody_reads_the_log() {
    let mut gateway = Gateway::start_by(tollgate(), Directory::new(), &config(nowhere(), ""), Stdio::piped());
    for _ in 0..5 {
        pipelined(gateway.address, 200);
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit(), Some(0));
    gateway.wait_told("the access log is stuck", 1);
}

#[test]
fn a_log_without_a_reader_is_counted_as_lost_and_told_once() {
    let mut gateway = Gateway::start_by(tollgate(), Directory::new(), &config(nowhere(), ""), Stdio::piped());
    drop(gateway.stdout());
    for _ in 0..3 {
        assert_eq!(ask_models(gateway.address), 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(soon(|| gateway.metrics()["tollgate_log_lines_lost"] == 3.0));
    let told = gateway.told();
    assert_eq!(told.iter().filter(|line| line.contains("cannot be written")).count(), 1, "{told:#?}");
}

/// Asks so many times on one connection without waiting between.
fn pipelined(address: SocketAddr, count: usize) -> usize {
    let one = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n");
    let last = format!("{one}connection: close\r\n\r\n");
    let answers = exchange(address, &(format!("{one}\r\n").repeat(count - 1) + &last)).expect("answers");
    assert_eq!((status(&answers), answers.matches("HTTP/1.1 200 ").count()), (200, count));
    count
}
