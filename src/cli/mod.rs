//! The command line: arguments in, an exit status out.
//!
//! Results go to stdout, everything else to stderr. Colour only where the stream is a terminal and `NO_COLOR`
//! is not set. Exit status: 0 done, 1 failed while doing it, 2 the config (or that it cannot be read) or the
//! command line is wrong.
//! One definition (clap) makes parser, help and completions.

mod demo;
mod check;
mod keys;
mod print;
mod run;
mod usage;

use crate::control::ledger::query::Format;
use crate::server::Occupied;
use clap::{Args, Parser, Subcommand, ValueEnum};
use print::Exit;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the command that `arguments` (the program's name first) ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let exit = match Cli::try_parse_from(arguments) {
        Ok(cli) => run_command(cli.command),
        Err(error) => {
            // Help and version are errors to clap, which go to stdout and are no failure.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    };
    exit.into()
}

fn run_command(command: Command) -> Exit {
    match command {
        Command::Run { file, takeover } => {
            let occupied = if takeover { Occupied::TakenOver } else { Occupied::Refused };
            run::run(&file, occupied)
        }
        Command::Check { file } => check::check(&file),
        Command::Demo { listen } => demo::demo(listen),
        Command::Keys { command: KeysCommand::New { name, write, config } } => {
            keys::new(&name, write.as_deref(), config.as_deref())
        }
        Command::Keys { command: KeysCommand::List { file } } => keys::list(&file),
        Command::Keys { command: KeysCommand::Revoke { name, file } } => keys::revoke(&name, &file),
        Command::Usage(arguments) => usage(&arguments),
        Command::Completions { shell } => completions(shell),
    }
}

fn usage(arguments: &Usage) -> Exit {
    let Usage { file, directory, by, since, until, format, records, rebuild } = arguments;
    usage::usage(&usage::Asked {
        file: file.as_deref(),
        directory: directory.as_deref(),
        by,
        since: since.as_deref(),
        until: until.as_deref(),
        format: match format {
            Form::Table => Format::Table,
            Form::Csv => Format::Csv,
            Form::Json => Format::Json,
        },
        what: match (records, rebuild) {
            (true, _) => usage::What::Records,
            (_, true) => usage::What::Rebuilt,
            _ => usage::What::Sums,
        },
    })
}

fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "tollgate", &mut script);
    print::result(&String::from_utf8_lossy(&script))
}

/// `0.1.0 (commit 1a2b3c4d5e6f)`.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("TOLLGATE_COMMIT"), ")");

#[derive(Parser)]
#[command(
    name = "tollgate",
    version = VERSION,
    about = "An AI gateway between applications and model providers",
    long_about = ABOUT,
    after_long_help = AFTER,
    max_term_width = 100,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    #[command(long_about = RUN)]
    Run {
        /// The config, TOML
        file: PathBuf,
        /// Listen beside the process that listens there, which is to be ended with SIGTERM then
        #[arg(long)]
        takeover: bool,
    },
    /// Judge a config and tell every problem
    #[command(long_about = CHECK)]
    Check {
        /// The config, TOML
        file: PathBuf,
    },
    /// Try the gateway with the built-in provider: no key, no account, no config
    #[command(long_about = DEMO)]
    Demo {
        /// Address that clients connect to; port 0 is any free one
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
    /// Make, list and revoke virtual keys
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Show what was used, from the ledger
    #[command(long_about = USAGE)]
    Usage(Usage),
    /// Print a completion script
    #[command(long_about = COMPLETIONS)]
    Completions {
        /// The shell that it is for
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
struct Usage {
    /// The config, TOML: its [ledger] names the directory
    #[arg(required_unless_present = "directory")]
    file: Option<PathBuf>,
    /// The state directory, without a config
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    directory: Option<PathBuf>,
    /// What to tell sums apart by, in this order
    #[arg(long, value_name = "NAMES", default_value = "key,model")]
    by: String,
    /// From when on: 90m, 24h, 7d ago, a date, a time; whole hours, UTC
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Until when
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Form,
    /// List single records instead, one line of JSON each
    #[arg(long, conflicts_with_all = ["by", "format", "rebuild"])]
    records: bool,
    /// First sum anew all records that are on the disk
    #[arg(long)]
    rebuild: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Table,
    Csv,
    Json,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make a key and print it, once
    #[command(long_about = KEYS_NEW)]
    New {
        /// Who it is for: stands in logs and metrics
        name: String,
        /// Add the entry to this config file; comments in it stay
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        /// The config that includes FILE: the name must be free in all of it
        #[arg(long, value_name = "CONFIG", requires = "write")]
        config: Option<PathBuf>,
    },
    /// List the keys of a config
    #[command(long_about = KEYS_LIST)]
    List {
        /// The config, TOML
        file: PathBuf,
    },
    /// Disable a key
    #[command(long_about = KEYS_REVOKE)]
    Revoke {
        /// The key's name
        name: String,
        /// The config, TOML; the key may stand in a file that it includes
        file: PathBuf,
    },
}

const ABOUT: &str = "\
An AI gateway: one binary between applications and model providers.

Applications call it instead of a provider, with the provider's own SDK and a key of the gateway. It \
checks the key, forwards the call with the operator's credential, relays the answer as it comes and counts \
tokens.

`tollgate demo` shows it without any account. `tollgate check FILE` and `tollgate run FILE` take a config \
in TOML.";

const AFTER: &str = "\
Exit status:
  0  done; for `run`: ended by a signal after its requests had ended
  1  failed: a busy port, a file that cannot be written, no io_uring and no epoll; for `run`: a second \
signal ended it while requests were open
  2  the config or the command line is wrong, or a file of the config cannot be read; every problem is told

Signals (to `tollgate run`):
  HUP         read the config again; a wrong one is told and the old one goes on
  USR1        open the access log anew, after it was moved away
  TERM, INT   take no new requests and end when the open ones have ended; a second one ends at once

Environment:
  NO_COLOR    no colours, where it is set to anything
  Variables that the config names with { env = \"NAME\" }

Files:
  The config and what it names. A running gateway looks for changes of them twice a second.";

const RUN: &str = "\
Run the gateway with a config until it is ended by a signal.

The config is read again on SIGHUP and when one of its files changes: requests that run keep the config \
they started with, new ones get the new config. A config with an error is told on stderr, and the old one \
goes on. Addresses, the number of workers and the driver change with a restart only.

A restart that loses nothing, for these or for another binary: run the new process with --takeover beside the \
old one, and send the old one SIGTERM once the new one says on which addresses it listens. It shares the \
addresses with the old one, whose streams end in peace, and takes the admin address over. Both have to run as \
the same user. Nothing that fails at the start of the new one reaches a client.

Other than `check`, `run` refuses a config whose variables or files are missing.";

const CHECK: &str = "\
Judge a config and tell every problem at once, each with its place, what was found and what is allowed:

  gateway.toml:41:13: model[2].targets[0].provider: no provider \"antropic\" (did you mean \"anthropic\"?)

What this machine lacks (an environment variable, a file, a certificate) is a warning, so that a config \
can be judged anywhere; `run` refuses it. Nothing is connected to and nothing is changed.

Exit status: 0 the config can be used, 2 it cannot.";

const DEMO: &str = "\
Try the gateway with the built-in provider, which answers by itself: no key, no account, no config.

Prints the gateway's URL, a key, a curl line and a Python snippet that work as they stand. Ends with Ctrl-C.";

const USAGE: &str = "\
Show what was used: requests, tokens by kind and cost, summed from the ledger.

  tollgate usage gateway.toml --by key,model --since 24h
  tollgate usage gateway.toml --by team,day --since 2026-11-01 --until 2026-12-01 --format csv
  tollgate usage gateway.toml --records --since 1h

Names for --by: hour, day, key, team, organisation, model (as asked for), model_sent, provider, dialect, status (2xx, \
...), ended (who ended it), tags. Times are UTC; a request belongs to the hour in which it began.

It reads beside a running gateway. Sums are a second behind; how many records on the disk are not in them yet is told \
on stderr. `estimated` counts requests whose tokens are not the provider's own numbers, `unpriced` those of models \
without a price, `crashed` those that were under way when a process died.";

const COMPLETIONS: &str = "\
Print a completion script for a shell.

  bash: tollgate completions bash > ~/.local/share/bash-completion/completions/tollgate
  zsh:  tollgate completions zsh > \"${fpath[1]}/_tollgate\"
  fish: tollgate completions fish > ~/.config/fish/completions/tollgate.fish";

const KEYS_NEW: &str = "\
Make a key and print it, once, with the entry for the config.

The key is `tg-` and 43 characters, 256 random bits of the operating system. The config holds its SHA-256 \
only: whoever reads the config cannot use it, and a key that is lost cannot be recovered.

With --write the entry is added to FILE, the config or a file that it includes; a running gateway takes it \
over within a second. FILE is made where it does not exist. Where FILE is one that a config includes, give \
that config with --config: a name that stands twice in it would make it unusable, and FILE alone does not \
tell.

To rotate a key: make a new one, add its hash to the entry of the old one (`hash = [\"sha256:OLD\", \
\"sha256:NEW\"]`), give the new key out, then remove the old hash.";

const KEYS_LIST: &str = "\
List the keys of a config and of the files that it includes: name, state, models, when it expires.

The state is active, disabled or expired; a key with several hashes is being rotated.";

const KEYS_REVOKE: &str = "\
Disable a key: its entry gets `disabled = true`, and comments in the file stay.

A running gateway takes it over within a second; requests that run already go on. The client is told that \
the key is disabled. To let it in again, remove the line.";

#[cfg(test)]
mod tests {
    use super::{Cli, VERSION};
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_names_a_commit() {
        let commit = VERSION.strip_prefix(concat!(env!("CARGO_PKG_VERSION"), " (commit ")).unwrap();
        let commit = commit.strip_suffix(')').unwrap();
        assert!(commit == "unknown" || commit.chars().all(|digit| digit.is_ascii_hexdigit()), "{commit}");
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        // arguments
        let rows: [&[&str]; 11] = [
            &["tollgate"],
            &["tollgate", "run"],
            &["tollgate", "run", "a", "b"],
            &["tollgate", "keys"],
            &["tollgate", "keys", "new"],
            &["tollgate", "keys", "revoke", "a"],
            &["tollgate", "demo", "--listen", "8080"],
            &["tollgate", "completions", "cmd"],
            &["tollgate", "usage"],
            &["tollgate", "usage", "a", "--directory", "b"],
            &["tollgate", "usage", "a", "--records", "--by", "key"],
        ];
        for row in rows {
            assert!(Cli::try_parse_from(row).is_err(), "{row:?}");
        }
    }
}
