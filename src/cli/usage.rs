//! `tollgate usage [FILE | --directory DIR]`: what was used, from the ledger of a state directory.
//!
//! Reads beside a running gateway, and after it. Sums are those of the roll-ups; what is durable and not rolled up
//! yet is counted and told on stderr. `--records` reads the segments themselves. Errors: no ledger there, a word
//! that is not known.

use crate::base::clock;
use crate::cli::print::{self, Exit};
use crate::control::config::{Mode, Process, load};
use crate::control::ledger::query::{self, Format, Query};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What the command line says.
pub struct Asked<'a> {
    pub file: Option<&'a Path>,
    pub directory: Option<&'a Path>,
    pub by: &'a str,
    pub since: Option<&'a str>,
    pub until: Option<&'a str>,
    pub format: Format,
    pub what: What,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Sums,
    Records,
    /// Sum anew what the segments hold, then show the sums.
    Rebuilt,
}

pub fn usage(asked: &Asked<'_>) -> Exit {
    let query = match Query::parse(asked.by, asked.since, asked.until, clock::unix_ms()) {
        Ok(query) => query,
        Err(message) => return print::failure(&message, Exit::Usage),
    };
    let directory = match directory(asked) {
        Ok(directory) => directory,
        Err(exit) => return exit,
    };
    match asked.what {
        What::Records => records(&query, &directory),
        What::Sums => sums(&query, &directory, asked.format),
        What::Rebuilt => {
            let rebuilt = query::open(&directory).and_then(|mut store| store.rebuild());
            match rebuilt {
                Ok(count) => print::note(&format!("{count} records were summed anew")),
                Err(error) => return print::failure(&error.to_string(), Exit::Failed),
            }
            sums(&query, &directory, asked.format)
        }
    }
}

fn directory(asked: &Asked<'_>) -> Result<PathBuf, Exit> {
    let file = match (asked.directory, asked.file) {
        (Some(directory), _) => return Ok(directory.to_owned()),
        (None, Some(file)) => file,
        (None, None) => return Err(print::failure("give the config's FILE or --directory DIR", Exit::Usage)),
    };
    let loaded = load(file, Mode::Check, &Process).map_err(|problems| {
        print::problems(&problems);
        Exit::Usage
    })?;
    loaded.snapshot.ledger.map(|ledger| ledger.directory).ok_or_else(|| {
        print::failure(&format!("{} has no [ledger]: nothing is recorded", file.display()), Exit::Usage)
    })
}

fn sums(query: &Query, directory: &Path, format: Format) -> Exit {
    match query.ask(directory) {
        Err(error) => print::failure(&error.to_string(), Exit::Failed),
        Ok(answer) => {
            let exit = print::result(&answer.shown(format));
            if answer.behind > 0 {
                print::note(&format!("{} records are on the disk and not in these sums yet", answer.behind));
            }
            exit
        }
    }
}

fn records(query: &Query, directory: &Path) -> Exit {
    let mut out = BufWriter::new(io::stdout().lock());
    let listed = query::open(directory).map_err(|error| io::Error::other(error.to_string())).and_then(|_| {
        query.records(directory, |line| out.write_all(line.as_bytes()))?;
        out.flush()
    });
    match listed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            print::failure(&error.to_string(), Exit::Failed)
        }
        _ => Exit::Done,
    }
}
