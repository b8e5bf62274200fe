//! `tollgate run [--takeover] FILE`.

use crate::cli::print::{self, Exit};
use crate::control::run::{ConfigFile, Ready, RunError, run as run_gateway};
use crate::handler::snapshot::AdminAddress;
use crate::server::Occupied;
use std::path::Path;

pub fn run(file: &Path, occupied: Occupied) -> Exit {
    match run_gateway(&ConfigFile(file.to_path_buf()), occupied, announce) {
        Ok(()) => Exit::Done,
        Err(error) => failed(&error),
    }
}

/// Says why the gateway ended or did not start.
pub fn failed(error: &RunError) -> Exit {
    match error {
        RunError::Config(problems) => {
            print::problems(problems);
            Exit::Usage
        }
        RunError::Start(line) => print::failure(line, Exit::Failed),
    }
}

fn announce(ready: &Ready) {
    for address in &ready.listeners {
        print::note(&format!("tollgate: listens on {address}"));
    }
    for address in &ready.shared {
        print::note(&format!(
            "tollgate: another process listens on {address}, too: end that one with SIGTERM"
        ));
    }
    match &ready.admin {
        Some(AdminAddress::Tcp(address)) => print::note(&format!("tollgate: admin on {address}")),
        Some(AdminAddress::Unix(path)) => print::note(&format!("tollgate: admin on unix:{}", path.display())),
        None => {}
    }
    let workers = if ready.workers == 1 { "worker" } else { "workers" };
    print::note(&format!("tollgate: {} {workers}, driver {}", ready.workers, ready.driver));
}
