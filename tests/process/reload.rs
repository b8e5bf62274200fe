//! Reload after reload under open streams: not one event is lost, repeated or changed, and no generation
//! stays behind.

use crate::process::gateway::{Gateway, ask_models, config, soon};
use crate::process::scaled;
use crate::process::streams::{Callers, Plan, provider, run};
use rustix::process::Signal;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// What a new file is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Valid,
    NotToml,
    UnknownKey,
    NoSuchVariable,
    OtherAddress,
}

#[test]
fn reloads_under_open_streams_lose_nothing_and_leave_nothing() {
    let (streams, reloads) = scaled((20, 8), (500, 100));
    let gap = Duration::from_millis(scaled(20, 100));
    run(async {
        let upstream = provider().await;
        let gateway = Gateway::start(&text(upstream, 0, File::Valid));
        assert_eq!(ask_models(gateway.address), 200);
        let idle_kb = gateway.rss_kb();
        let (callers, over) = (Callers::default(), Rc::new(Cell::new(false)));
        let work: Vec<_> = (0..streams)
            .map(|number| {
                let work = again_and_again(callers.clone(), gateway.address, number, gap, Rc::clone(&over));
                tokio::task::spawn_local(work)
            })
            .collect();
        callers.have_begun(streams as usize).await;
        let generation = reload(&gateway, upstream, reloads).await;
        over.set(true);
        let mut calls = 0;
        for caller in work {
            calls += caller.await.expect("every byte of every stream is true");
        }
        check(&gateway, generation, calls + 1, idle_kb);
        eprintln!(
            "{reloads} reloads to generation {generation} under {streams} open streams, {calls} in all"
        );
    });
}

/// One caller: stream after stream until the reloads are over. Half of the callers begin often, so under
/// another generation each time; half outlive several.
async fn again_and_again(
    callers: Callers,
    address: SocketAddr,
    caller: u64,
    gap: Duration,
    over: Rc<Cell<bool>>,
) -> u64 {
    let events = if caller.is_multiple_of(2) { 10 + caller as u32 % 30 } else { 150 };
    let mut done = 0;
    while !over.get() || done == 0 {
        let plan = Plan { number: (caller << 20) | done, events, gap };
        callers.spawn(address, plan).await.unwrap().unwrap_or_else(|why| panic!("{plan:?}: {why}"));
        done += 1;
    }
    done
}

/// Writes new files, asks for every second one by a signal, and waits for what is said. The last generation.
async fn reload(gateway: &Gateway, upstream: SocketAddr, reloads: u64) -> u64 {
    let mut generation = 1;
    for number in 1..=reloads {
        let other = |one, two| if number / 8 % 2 == 0 { one } else { two };
        let file = match number % 8 {
            3 => other(File::NotToml, File::UnknownKey),
            6 => other(File::NoSuchVariable, File::OtherAddress),
            _ => File::Valid,
        };
        let said = match file {
            File::Valid => format!("generation {} serves", generation + 1),
            File::OtherAddress => "which needs a restart".to_string(),
            _ => "the new config is refused".to_string(),
        };
        let count = || gateway.told().iter().filter(|line| line.contains(&said)).count();
        let before = count();
        gateway.directory.file("c.toml", &text(upstream, number, file));
        if number % 2 == 0 {
            gateway.signal(Signal::HUP);
        }
        for waited in 0.. {
            if count() > before {
                break;
            }
            assert!(waited < 3_000, "{file:?} is not answered by {said:?}: {:#?}", gateway.told());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        generation += u64::from(file == File::Valid);
    }
    generation
}

/// A file that differs from the one before in names (and so pools), times, keys, models and the log.
fn text(upstream: SocketAddr, number: u64, file: File) -> String {
    let (log, pool, keep_alive) = (["a", "b"][number as usize % 2], number % 3, 60_000 + number);
    let mut text = config(upstream, &format!("[log]\naccess = {{ file = \"{log}.log\" }}\n"));
    text += &format!("\n[timeout]\nkeep_alive_ms = {keep_alive}\n");
    text += &format!("\n[[model]]\nname = \"m-{number}\"\ntargets = [{{ provider = \"up-{pool}\" }}]\n");
    text += &format!("\n[[key]]\nname = \"red-{number}\"\nhash = \"sha256:{number:064x}\"\n");
    text = text.replace("\"up\"", &format!("\"up-{pool}\""));
    match file {
        File::Valid => text,
        File::NotToml => text + "[[key\n",
        File::UnknownKey => text.replace("keep_alive_ms", "keep_alife_ms"),
        File::NoSuchVariable => {
            text.replace("kind = \"openai\"", "kind = \"openai\"\napi_key = { env = \"NOT_SET\" }")
        }
        File::OtherAddress => text.replacen("127.0.0.1:0", "127.0.0.2:0", 1),
    }
}

fn check(gateway: &Gateway, generation: u64, requests: u64, idle_kb: u64) {
    gateway.check_calm();
    let metrics = gateway.metrics();
    let rows = [
        ("tollgate_config_generation", generation),
        ("tollgate_requests_total", requests),
        ("tollgate_requests_ended_total{by=\"whole\"}", requests),
        ("tollgate_log_records_dropped_total", 0),
    ];
    for (name, expected) in rows {
        assert_eq!(metrics[name], expected as f64, "{name}");
    }
    let lines = || {
        ["a.log", "b.log"].iter().map(|name| gateway.directory.read(name).lines().count() as u64).sum::<u64>()
    };
    assert!(soon(|| lines() == requests), "{} records of {requests} requests", lines());
    assert!(soon(|| gateway.rss_kb() <= idle_kb * 2), "{} KB, idle {idle_kb} KB", gateway.rss_kb());
    eprintln!("resident: idle {idle_kb} KB, afterwards {} KB", gateway.rss_kb());
}
