//! The config: no input panics; every problem has a place inside of its file and is one line without a secret;
//! what `check` passes without a warning `run` takes and compiles to the same snapshot, what it passes with
//! warnings `run` refuses only at their places; and what is compiled can be used: every index leads somewhere.
//!
//! Input: the main file, then after a line `#---` the file that `include = ["more.toml"]` finds. Variables and
//! the file `secret` hold canaries; `absent` names are missing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io;
use std::path::{Path, PathBuf};
use tollgate::control::config::problem::{Problem, Severity};
use tollgate::control::config::{Mode, Surroundings, load, parse_only};
use tollgate::handler::snapshot::Snapshot;

const CANARY: &str = "k9-canary-k9";

struct Files<'t> {
    main: &'t str,
    more: &'t str,
}

impl Surroundings for Files<'_> {
    fn env(&self, name: &str) -> Option<String> {
        (name != "ABSENT").then(|| CANARY.to_string())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("c.toml") => Ok(self.main.into()),
            Some("more.toml") => Ok(self.more.into()),
            Some("secret") => Ok(format!("{CANARY}\n").into()),
            _ => Err(io::Error::from_raw_os_error(2)),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        match directory.to_str() {
            Some("" | ".") => Ok(vec!["c.toml".into(), "more.toml".into()]),
            _ => Err(io::Error::from_raw_os_error(2)),
        }
    }

    fn unix_ms(&self) -> u64 {
        1_795_219_200_000
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (main, more) = text.split_once("#---\n").unwrap_or((text, ""));
    let files = Files { main, more };
    let _ = parse_only(main);
    let run = load(Path::new("c.toml"), Mode::Run, &files);
    match load(Path::new("c.toml"), Mode::Check, &files) {
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
            assert_told_well(&files, &problems);
            assert!(run.is_err(), "run takes what check refuses: {problems:?}");
        }
        Ok(checked) => {
            assert_told_well(&files, &checked.warnings);
            assert!(!format!("{:?}{}", checked.snapshot, checked.effective.value()).contains(CANARY));
            assert_usable(&checked.snapshot);
            match run {
                Ok(run) => {
                    assert_eq!(said(&run.snapshot), said(&checked.snapshot));
                    assert_eq!(run.effective, checked.effective);
                }
                Err(problems) => {
                    assert_told_well(&files, &problems);
                    for problem in problems {
                        let same =
                            |warned: &Problem| (&warned.file, warned.place) == (&problem.file, problem.place);
                        assert!(checked.warnings.iter().any(same), "check did not warn of {problem}");
                    }
                }
            }
        }
    }
});

fn assert_told_well(files: &Files<'_>, problems: &[Problem]) {
    for problem in problems {
        let printed = problem.to_string();
        let text = match problem.file.to_str() {
            Some("c.toml") => files.main,
            Some("more.toml") => files.more,
            _ => panic!("of another file: {printed}"),
        };
        let place = problem.place.unwrap_or_else(|| panic!("no place: {printed}"));
        let line =
            text.split('\n').nth(place.line - 1).unwrap_or_else(|| panic!("behind the file: {printed}"));
        assert!((1..=line.chars().count() + 1).contains(&place.column), "behind the line: {printed}");
        assert!(!problem.message.is_empty() && !printed.contains(char::is_control), "{printed:?}");
        assert!(!printed.contains(CANARY), "{printed}");
    }
}

/// All of a snapshot that has an order of its own (a `HashMap` has none).
fn said(snapshot: &Snapshot) -> String {
    let Snapshot { server, listeners, admin, limits, timeouts, relay, log, .. } = snapshot;
    let Snapshot { origins, providers, keys, routes, passthroughs, .. } = snapshot;
    format!(
        "{server:?} {listeners:?} {admin:?} {limits:?} {timeouts:?} {relay:?} {log:?} {origins:?} {providers:?} {:?} \
         {:?} {passthroughs:?}",
        keys.all(),
        routes.all()
    )
}

/// What a worker takes for granted.
fn assert_usable(snapshot: &Snapshot) {
    let providers = snapshot.providers.len() as u32;
    for (at, provider) in snapshot.providers.iter().enumerate() {
        assert_eq!(provider.index, at as u32);
        assert!(provider.origin.is_none_or(|origin| (origin as usize) < snapshot.origins.len()));
    }
    for route in snapshot.routes.all() {
        assert!(!route.targets.is_empty() && route.targets.iter().all(|target| target.provider < providers));
    }
    assert!(snapshot.passthroughs.iter().all(|through| through.provider < providers));
    assert!(!snapshot.listeners.is_empty());
}
