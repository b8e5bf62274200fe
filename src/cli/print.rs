//! What the command line prints, and the exit status.
//!
//! A reader of stdout that goes away (`| head`) is no error.

use crate::control::config::problem::{Problem, Severity};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// It failed while it was done.
    Failed,
    /// The config or the command line is wrong.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Done => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::Usage => ExitCode::from(2),
        }
    }
}

/// Prints a result.
pub fn result(text: &str) -> Exit {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            failure(&format!("stdout cannot be written: {error}"), Exit::Failed)
        }
        _ => Exit::Done,
    }
}

/// Prints one line about what went wrong.
pub fn failure(line: &str, exit: Exit) -> Exit {
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "{} {line}", painted("tollgate:", RED, &stderr));
    exit
}

/// Prints a line beside the result.
pub fn note(line: &str) {
    // Nothing can be told where stderr is gone.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints problems, one a line.
pub fn problems(problems: &[Problem]) {
    let mut stderr = io::stderr();
    for problem in problems {
        let printed = problem.to_string();
        let colour = match problem.severity {
            Severity::Error => RED,
            Severity::Warning => YELLOW,
        };
        // The place is what the eye looks for: all up to the first space.
        let (place, rest) = printed.split_once(' ').unwrap_or((&printed, ""));
        let _ = writeln!(stderr, "{} {rest}", painted(place, colour, &stderr));
    }
}

const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";

fn painted(text: &str, colour: &str, stream: &impl IsTerminal) -> String {
    if !stream.is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return text.to_string();
    }
    format!("{colour}{text}\u{1b}[0m")
}
