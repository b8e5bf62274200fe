//! The config: TOML files in, a snapshot or all problems out.
//!
//! Three forms: as written (`raw`, checked against its own schema by `shape`), judged (`compile`), ready to
//! run (`handler::snapshot`). Reading changes nothing; environment, files and time come in through
//! `Surroundings`, so a test gives maps. All problems are told at once, each with file, line, column, key
//! path, what was found and what is allowed; unknown keys are problems. A text that is no TOML is told alone:
//! what follows from it would be noise. Two modes: `Check` judges what is written and warns of what this
//! machine lacks (a variable, a file, a certificate that cannot be read); `Run` refuses then. What is there
//! but malformed is an error in both. Limits: `FILES_MAX` files of `FILE_BYTES_MAX` bytes.
//! Absent: watching and publishing (control's reload), opening sockets and log files.

pub mod effective;
pub mod schema;
pub mod problem;
mod chunks;
mod compile;
mod sources;
mod shape;
pub mod raw;

use crate::handler::snapshot::Snapshot;
use crate::net::resolve::Addresses;
use effective::Effective;
use problem::{Problem, Severity};
use sources::Sources;
use std::io;
use std::path::{Path, PathBuf};

/// Files of one config: the main file and those that it includes.
pub const FILES_MAX: usize = 1_000;

/// Bytes of one file, credentials and certificates alike: 64 MiB, about 400,000 keys.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// Whether what this machine lacks is a warning or an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Check,
    Run,
}

/// What lies outside of the config's text.
pub trait Surroundings {
    /// The value of an environment variable; none: not set, or not text.
    fn env(&self, name: &str) -> Option<String>;
    /// The content of a file, at most `FILE_BYTES_MAX`.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The files of a directory, in any order.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// The published addresses of a host. Control hands out the same list for the same host on every reload.
    fn addresses(&self, host: &str, port: u16) -> Addresses {
        Addresses::literal(host, port).unwrap_or_else(Addresses::pending)
    }
    /// Now, in milliseconds since 1970: keys that have expired already are warned of.
    fn unix_ms(&self) -> u64 {
        crate::base::clock::unix_ms()
    }
}

/// A config that may be used.
#[derive(Debug)]
pub struct Loaded {
    /// Generation 0; who publishes it numbers it.
    pub snapshot: Snapshot,
    pub warnings: Vec<Problem>,
    /// Everything whose change may change the config: its files, the directories of `include` with `*`,
    /// credentials, certificates.
    pub watched: Vec<PathBuf>,
    /// The config with every default and without any secret, for operators.
    pub effective: Effective,
}

/// Reads the config at `path`. Errors: every problem; warnings stand among them.
pub fn load(path: &Path, mode: Mode, surroundings: &dyn Surroundings) -> Result<Loaded, Vec<Problem>> {
    let sources = Sources::read(path, surroundings);
    let compiled = compile::compile(&sources, mode, surroundings);
    let problems = sources.problems(&compiled.findings);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(problems);
    }
    let Sources { raw, watched, .. } = sources;
    let watched = watched.into_iter().chain(compiled.watched).collect();
    Ok(Loaded { snapshot: compiled.snapshot, warnings: problems, watched, effective: Effective::new(raw) })
}

/// The main file and those that it includes, as far as they can be read.
pub fn files_of(path: &Path, surroundings: &dyn Surroundings) -> Vec<PathBuf> {
    Sources::read(path, surroundings).files()
}

/// Whether `name` may be the name of a provider or a key. Errors: what was found and what is allowed.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'*');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    let allowed = format!("1 to {NAME_BYTES_MAX} visible ASCII characters without \" \\ *");
    Err(format!("{} is not allowed, allowed: {allowed}", problem::quoted(name)))
}

/// Bytes of the name of a provider or a key: it is a label of every metric.
const NAME_BYTES_MAX: usize = 128;

/// Reads `text` as a main file, for its shape only. Errors: every problem of the shape.
pub fn parse_only(text: &str) -> Result<raw::File, Vec<Problem>> {
    let sources = Sources::of_text(text);
    let problems = sources.problems(&[]);
    if problems.is_empty() { Ok(sources.raw) } else { Err(problems) }
}

/// The process's own environment and files.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Surroundings for Process {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use io::Read;
        let file = std::fs::File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > FILE_BYTES_MAX {
            let message = format!("it has more than {FILE_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(bytes)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }
}

#[cfg(test)]
mod tests;
