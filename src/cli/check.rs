//! `tollgate check FILE`.

use crate::cli::print::{self, Exit};
use crate::control::config::{Mode, Process, load};
use std::path::Path;

pub fn check(file: &Path) -> Exit {
    match load(file, Mode::Check, &Process) {
        Ok(loaded) => {
            print::problems(&loaded.warnings);
            let snapshot = &loaded.snapshot;
            print::result(&format!(
                "{}: ok, {}, {}, {}, {}\n",
                file.display(),
                counted(snapshot.listeners.len(), "listener"),
                counted(snapshot.providers.len(), "provider"),
                counted(snapshot.routes.all().len(), "model"),
                counted(snapshot.keys.all().len(), "key"),
            ))
        }
        Err(problems) => {
            print::problems(&problems);
            Exit::Usage
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
