//! The real binary with a config of its own, what it tells, and its admin pages.

use crate::cli::{Directory, tollgate};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything that a busy machine may hold up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The key that `config` knows.
pub const KEY: &str = "tg-example";

/// A config: one worker, ports of its own, one key, `model` at `upstream`. `more` stands behind it.
pub fn config(upstream: SocketAddr, more: &str) -> String {
    format!(
        "[server]\nworkers = 1\n\n[[listener]]\naddress = \"127.0.0.1:0\"\n\n[admin]\naddress = \"127.0.0.1:0\"\n\n\
         [[provider]]\nname = \"up\"\nkind = \"openai\"\nbase_url = \"http://{upstream}/v1\"\n\n\
         [[model]]\nname = \"m\"\ntargets = [{{ provider = \"up\" }}]\n\n\
         [[key]]\nname = \"blue\"\nhash = \"sha256:da0c916dc50a298a6f3e26826c119601701640c14d1013c544afbce1ececa0fc\"\n\n\
         {more}"
    )
}

/// A running gateway.
pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub directory: Directory,
    told: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts with this config and waits until it serves. stdout is thrown away.
    pub fn start(config: &str) -> Gateway {
        Gateway::start_by(tollgate(), Directory::new(), config, Stdio::null())
    }

    /// As `start`, by a command that ends in the binary, in a directory, with a stdout.
    pub fn start_by(command: Command, directory: Directory, config: &str, stdout: Stdio) -> Gateway {
        Gateway::run(command, &["run"], directory, config, stdout)
    }

    /// As `start`, beside the process that listens there.
    pub fn take_over(config: &str) -> Gateway {
        Gateway::run(tollgate(), &["run", "--takeover"], Directory::new(), config, Stdio::null())
    }

    fn run(
        mut command: Command,
        arguments: &[&str],
        directory: Directory,
        config: &str,
        stdout: Stdio,
    ) -> Gateway {
        let file = directory.file("c.toml", config);
        let mut child = command
            .args(arguments)
            .arg(&file)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let told = Arc::new(Mutex::new(Vec::new()));
        let (lines, heard) =
            (BufReader::new(child.stderr.take().expect("a pipe")).lines(), Arc::clone(&told));
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| heard.lock().unwrap().push(line))
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Gateway { child, address: nowhere, admin: nowhere, directory, told };
        gateway.wait_told(" driver ", 1);
        for line in gateway.told() {
            match line.strip_prefix("tollgate: ").and_then(|line| line.rsplit_once(' ')) {
                Some(("listens on", address)) => gateway.address = address.parse().expect("an address"),
                // On a unix socket it has no address.
                Some(("admin on", address)) => gateway.admin = address.parse().unwrap_or(nowhere),
                _ => {}
            }
        }
        gateway
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Every line of stderr so far.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// Waits until so many lines of stderr hold `text`.
    pub fn wait_told(&self, text: &str, count: usize) {
        let has = || self.told().iter().filter(|line| line.contains(text)).count() >= count;
        assert!(soon(has), "no {count} × {text:?} in {:#?}", self.told());
    }

    /// Status and body of an admin page.
    pub fn page(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = exchange(self.admin, &request).expect("the admin listener answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (status(head), body.to_string())
    }

    /// Every number of /metrics.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (_, page) = self.page("/metrics");
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, n)| (name.to_string(), n.parse().unwrap()))
            .collect()
    }

    /// What must hold when nothing is under way: nothing open, nothing lost, no panic. Waits for the first.
    pub fn check_calm(&self) {
        let open = ["tollgate_requests_active", "tollgate_connections_open"];
        let calm = || {
            let metrics = self.metrics();
            open.iter().all(|name| metrics[*name] == 0.0)
                && metrics["tollgate_upstream_open"] == metrics["tollgate_upstream_idle"]
        };
        assert!(soon(calm), "{:#?}", self.metrics());
        let metrics = self.metrics();
        for name in
            ["tollgate_panics_total", "tollgate_exchanges_unfinished_total", "tollgate_upstream_waiting"]
        {
            assert_eq!(metrics[name], 0.0, "{name}");
        }
    }

    /// Resident memory in KB.
    pub fn rss_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Whether it has ended, with which status; none: by a signal that it does not handle.
    pub fn has_ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("a child").map(|status| status.code())
    }

    /// Waits for the end: its exit status.
    pub fn exit(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            match self.has_ended() {
                Some(status) => return status,
                None if started.elapsed() > PATIENCE => panic!("it does not end: {:#?}", self.told()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The pipe that stdout was given.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("stdout is a pipe")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already where its test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `is_so` comes true before patience ends.
pub fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// What comes of a request on a connection that is closed behind it.
pub fn exchange(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// A list of models, asked for on a connection of its own: its status.
pub fn ask_models(address: SocketAddr) -> u16 {
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
    );
    exchange(address, &request).map_or(0, |answer| status(&answer))
}
