//! Command line: `mock`, `run`, `compare`, `verify`, `report`, `merge`.
//!
//! Exit codes: 0 passed; 1 the target failed a run (integrity, errors, a limit of the scenario); 2 wrong use,
//! an unreachable target or an unreadable file; 3 the generator was saturated, so the figures are its own
//! limit.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::scenario::Http;

pub const EXIT_FAILED: u8 = 1;
pub const EXIT_USAGE: u8 = 2;
pub const EXIT_SATURATED: u8 = 3;

/// Measures AI gateways: open-loop load in every dialect, a mock provider, and proof that no event was lost.
#[derive(Parser)]
#[command(
    name = "tollgate-load",
    version,
    after_help = "Exit codes: 0 passed, 1 the target failed, 2 wrong use or \
    unreachable target, 3 the generator was saturated."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves checked answers of every dialect, at a scripted pace.
    Mock(MockArgs),
    /// Runs a scenario against a target and reports.
    Run(RunArgs),
    /// Runs a scenario against several targets in turn, round after round, and reports ratios to the first.
    /// Or, with two result files: says whether the second is worse than the first.
    Compare(CompareArgs),
    /// Checks properties under load: integrity, promptness, disconnects, slow readers, reload, memory,
    /// fairness.
    Verify(VerifyArgs),
    /// Writes reports of a result file.
    Report(ReportArgs),
    /// Adds up the results of several load machines that ran one scenario together.
    Merge(MergeArgs),
}

/// What to write beside the table.
#[derive(Args, Clone)]
struct OutputArgs {
    /// Write the whole result here, histograms included.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures as CSV here.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write one self-contained page with charts here.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Args)]
struct ReportArgs {
    /// A result that `run`, `compare` or `merge` wrote.
    result: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args)]
struct MergeArgs {
    /// Results of `run`.
    #[arg(required = true, num_args = 2..)]
    results: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args)]
struct MockArgs {
    /// Addresses to listen on: IP:PORT, [IPv6]:PORT or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:9100", value_name = "ADDRESS")]
    listen: Vec<String>,
    /// One thread on each of these cores; without it one thread, not pinned.
    #[arg(long, value_delimiter = ',', value_name = "CORE")]
    cores: Vec<usize>,
    /// What an answer is like when its request does not say: e.g. "ttft_ms=20 gap_ms=5 events=100".
    #[arg(long, default_value = "", value_name = "PAIRS")]
    script: String,
    /// A fault and its probability, e.g. status-429=0.01; may be given several times.
    #[arg(long, value_name = "FAULT=PROBABILITY")]
    fault: Vec<String>,
    /// The only key that is accepted.
    #[arg(long)]
    key: Option<String>,
    /// PEM file of the certificate chain: serve TLS.
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's key.
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

#[derive(Args)]
struct RunArgs {
    /// A scenario file.
    scenario: PathBuf,
    /// http://HOST:PORT, https://HOST:PORT or unix:PATH.
    #[arg(long)]
    target: String,
    #[command(flatten)]
    load: LoadArgs,
    /// Processes to be measured: CPU, memory, switches.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Run so many rounds, each against the mock directly and against the target, and tell what the target
    /// adds.
    #[arg(long, value_name = "ROUNDS", requires = "mock")]
    added: Option<usize>,
}

#[derive(Args)]
struct CompareArgs {
    /// Adapters (nginx, haproxy, …), `direct` (the mock alone), or NAME=URL or NAME=URL@PID+PID; the first is
    /// the base.
    /// Or two result files, OLD.json NEW.json.
    #[arg(required = true, num_args = 2.., value_name = "TARGET")]
    targets: Vec<String>,
    #[arg(long, default_value = "loadtest/scenarios/chat.toml", value_name = "FILE")]
    scenario: PathBuf,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder of the adapters.
    #[arg(long, default_value = "loadtest/adapters", value_name = "FOLDER")]
    adapters: PathBuf,
    /// Core that every gateway is pinned to.
    #[arg(long, value_name = "CORE")]
    gateway_core: Option<usize>,
    /// Cores of the mock's threads; without it one thread, not pinned.
    #[arg(long, value_delimiter = ',', value_name = "CORE")]
    mock_cores: Vec<usize>,
    /// Port of the mock, for targets that were started by hand; 0: any.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    mock_port: u16,
    /// How much worse a median may be when two result files are compared.
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    tolerance: f64,
    /// TLS 1.3 on both sides of every gateway.
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Args)]
struct VerifyArgs {
    /// The gateway: http://HOST:PORT, https://HOST:PORT or unix:PATH.
    target: String,
    /// The mock that is its provider.
    #[arg(long, value_name = "URL")]
    mock: String,
    #[arg(long, value_delimiter = ',', default_value = "none")]
    key: Vec<String>,
    #[arg(long)]
    model: Option<String>,
    /// Its processes, for the properties of memory.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    #[arg(long, value_delimiter = ',', value_name = "CORE")]
    cores: Vec<usize>,
    /// Shapes that it shall carry.
    #[arg(long, value_delimiter = ',', default_value = "chat-stream")]
    shapes: Vec<String>,
    /// Streams at once.
    #[arg(long, default_value_t = 1000)]
    streams: usize,
    /// 1.1 or 2: plain connections speak 2 without asking, TLS agrees on it.
    #[arg(long, default_value = "1.1", value_name = "VERSION")]
    http: Http,
    /// Seconds per property.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    duration: f64,
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    cancel_within: u64,
    /// Memory after load may be this multiple of idle (and 8 MB).
    #[arg(long, default_value_t = 1.5)]
    decay_factor: f64,
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    decay: f64,
    #[arg(long, default_value_t = 5.0)]
    runaway_factor: f64,
    /// A p99 beside the runaway client that is good in any case.
    #[arg(long, default_value_t = 20.0, value_name = "MS")]
    runaway_p99: f64,
    /// Only properties whose name contains this.
    #[arg(long, default_value = "", value_name = "WORDS")]
    only: String,
    /// Shell command that makes it reload.
    #[arg(long, value_name = "COMMAND")]
    reload: Option<String>,
    /// Shell command that restarts it without loss.
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What `run` and `compare` have in common.
#[derive(Args, Clone)]
struct LoadArgs {
    /// Keys that the target accepts.
    #[arg(long, value_delimiter = ',', default_value = "none")]
    key: Vec<String>,
    /// One generator thread on each of these cores; without it one thread, not pinned.
    #[arg(long, value_delimiter = ',', value_name = "CORE")]
    cores: Vec<usize>,
    /// Model that the requests name, instead of the scenario's.
    #[arg(long)]
    model: Option<String>,
    /// Measured seconds, instead of the scenario's.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Seconds before that, instead of the scenario's.
    #[arg(long, value_name = "SECONDS")]
    warmup: Option<f64>,
    /// Requests a second, instead of the scenario's (constant and Poisson rates).
    #[arg(long)]
    rate: Option<f64>,
    /// Open streams or clients, instead of the scenario's (held and closed loads).
    #[arg(long)]
    streams: Option<usize>,
    /// Most connections, instead of the scenario's.
    #[arg(long)]
    connections: Option<usize>,
    /// 1.1 or 2, instead of the scenario's. Plain connections speak 2 without asking, TLS agrees on it.
    #[arg(long, value_name = "VERSION")]
    http: Option<Http>,
    /// HTTP/2: streams that one connection carries at once, instead of the scenario's.
    #[arg(long, value_name = "STREAMS")]
    streams_per_connection: Option<usize>,
    /// Closed loop with this many clients, whatever the scenario plans. Hides the target's stalls.
    #[arg(long, value_name = "CLIENTS")]
    closed_loop: Option<usize>,
    /// Certificates that a TLS target must be signed by; without it none is verified.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The mock behind the target: its counters go into the result.
    #[arg(long, value_name = "URL")]
    mock: Option<String>,
    /// Seconds to watch the memory of the measured process after the load.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    decay: f64,
    /// A further header field of every request, as "NAME: VALUE"; may be given several times.
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Mock(args) => commands::mock(&args),
        Command::Run(args) => commands::run(&args),
        Command::Compare(args) => commands::compare(&args),
        Command::Verify(args) => commands::verify(&args),
        Command::Report(args) => commands::report(&args),
        Command::Merge(args) => commands::merge(&args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("tollgate-load: {message}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
