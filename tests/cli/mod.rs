//! The command line as a user meets it: the real binary, its output and its exit status.

mod demo;
mod keys;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// The binary without any environment.
pub fn tollgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// What came of a command.
pub struct Ended {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn ended(arguments: &[&str]) -> Ended {
    let Output { status, stdout, stderr } = tollgate().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// A directory that goes with its test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tollgate-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_version_names_the_commit() {
    let Ended { status, stdout, .. } = ended(&["--version"]);
    assert_eq!(status, Some(0));
    assert!(stdout.starts_with("tollgate 0.") && stdout.contains(" (commit "), "{stdout}");
}

#[test]
fn help_goes_to_stdout_and_documents_exit_status_and_signals() {
    let Ended { status, stdout, stderr } = ended(&["--help"]);
    assert_eq!((status, &*stderr), (Some(0), ""));
    for word in ["Exit status:", "second signal", "cannot be read", "Environment:", "HUP", "check"] {
        assert!(stdout.contains(word), "no {word} in\n{stdout}");
    }
    assert!(!stdout.contains('\u{1b}'), "colour without a terminal");
}

#[test]
fn a_wrong_command_line_ends_with_2_and_says_what_is_wrong() {
    // arguments, what stderr says
    let rows: [(&[&str], &str); 4] = [
        (&["chekc", "x"], "check"),
        (&["check"], "<FILE>"),
        (&["demo", "--listen", "somewhere"], "--listen"),
        (&[], "Usage"),
    ];
    for (arguments, said) in rows {
        let Ended { status, stdout, stderr } = ended(arguments);
        assert_eq!((status, &*stdout), (Some(2), ""), "{arguments:?}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn check_judges_and_its_status_tells() {
    let good = ended(&["check", "conf/examples/minimal.toml"]);
    assert_eq!(good.status, Some(0));
    assert_eq!(good.stdout, "conf/examples/minimal.toml: ok, 1 listener, 1 provider, 1 model, 0 keys\n");
    assert!(good.stderr.contains("warning: provider[0].api_key.env"), "{}", good.stderr);

    let bad = ended(&["check", "tests/goldens/config/everything-at-once.toml"]);
    assert_eq!((bad.status, &*bad.stdout), (Some(2), ""));
    assert!(bad.stderr.lines().count() > 8, "{}", bad.stderr);
    assert!(bad.stderr.lines().all(|line| line.starts_with("tests/goldens/config/everything-at-once.toml:")));

    let absent = ended(&["check", "nowhere.toml"]);
    assert_eq!(absent.status, Some(2));
    assert_eq!(absent.stderr, "nowhere.toml: cannot be read: no such file or directory\n");
}

#[test]
fn run_refuses_what_check_warns_of() {
    let Ended { status, stderr, .. } = ended(&["run", "conf/examples/minimal.toml"]);
    assert_eq!(status, Some(2));
    let told = stderr.lines().filter(|line| line.contains("\"OPENAI_API_KEY\" is not set")).count();
    assert_eq!(told, 1, "{stderr}");
}

#[test]
fn a_busy_port_is_one_line_that_names_it_and_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = Directory::new();
    let file = directory.file("c.toml", &format!("[[listener]]\naddress = \"{address}\"\n"));
    let Ended { status, stderr, .. } = ended(&["run", &file]);
    assert_eq!(status, Some(1), "{stderr}");
    let told: Vec<&str> = stderr.lines().filter(|line| line.contains(&address)).collect();
    assert_eq!(told.len(), 1, "{stderr}");
    assert!(told[0].contains("in use"), "{stderr}");
}

#[test]
fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let Ended { status, stdout, .. } = ended(&["completions", shell]);
        assert_eq!(status, Some(0));
        assert!(stdout.contains("tollgate") && stdout.contains("revoke"), "{shell}");
    }
}

/// Waits until `done` or fails after ten seconds.
fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..200 {
        if let Some(value) = done() {
            return value;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("no {what} within ten seconds");
}

/// A process that runs until it is told to end, or until its test fails.
struct Running(Child);

impl Running {
    /// Ends it by a signal that it handles, and gives its exit status.
    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where its test passed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the path is there and is a link.
fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}
