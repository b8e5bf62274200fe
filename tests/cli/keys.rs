//! `keys new`, `list`, `revoke`, and that a running gateway follows them.

use super::{Directory, Ended, Running, ended, is_link, tollgate, wait_for};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

const CONFIG: &str = "\
# The gateway of a test.
include = [\"keys.d/*.toml\"]

[[listener]]
address = \"127.0.0.1:0\" # any port

[log]
access = \"off\"

[[provider]]
name = \"mock\"
kind = \"mock\"

[[model]]
name = \"gpt-4o\"
targets = [{ provider = \"mock\" }]
";

#[test]
fn a_new_key_is_printed_once_with_lines_that_can_be_pasted() {
    let Ended { status, stdout, .. } = ended(&["keys", "new", "team/blue"]);
    assert_eq!(status, Some(0));
    let (key, entry) = stdout.split_once("\n\n").unwrap();
    assert!(key.starts_with("tg-") && key.len() == 46, "{key}");
    let directory = Directory::new();
    directory.file("keys.d/blue.toml", entry);
    let file = directory.file("c.toml", CONFIG);
    assert_eq!(ended(&["check", &file]).status, Some(0));
    let list = ended(&["keys", "list", &file]).stdout;
    assert!(list.lines().nth(1).unwrap().starts_with("team/blue  active"), "{list}");
}

#[test]
fn a_name_that_does_not_fit_is_refused() {
    for name in ["", "a b", "quote\"d", "a\nb", &"x".repeat(129)] {
        let Ended { status, stdout, stderr } = ended(&["keys", "new", name]);
        assert_eq!((status, &*stdout), (Some(2), ""), "{name}");
        assert!(stderr.contains("is not allowed"), "{stderr}");
    }
    assert_eq!(ended(&["keys", "new", &"x".repeat(128)]).status, Some(0));
}

#[test]
fn writing_keeps_comments_mode_and_links_and_makes_a_private_file() {
    let directory = Directory::new();
    let file = directory.file("real.toml", CONFIG);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let link = directory.0.join("link.toml");
    std::os::unix::fs::symlink("real.toml", &link).unwrap();
    fs::create_dir(directory.0.join("keys.d")).unwrap();

    let written = ended(&["keys", "new", "blue", "--write", link.to_str().unwrap()]);
    assert_eq!(written.status, Some(0), "{}", written.stderr);
    assert_eq!(written.stdout.lines().count(), 1, "{}", written.stdout);
    let text = directory.read("real.toml");
    assert!(text.starts_with(CONFIG), "{text}");
    assert!(!text.contains(written.stdout.trim()), "the key itself is in the file");
    assert!(is_link(&link));
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o640);

    let fresh = directory.path("keys.d/red.toml");
    assert_eq!(ended(&["keys", "new", "red", "--write", &fresh]).status, Some(0));
    assert_eq!(mode(&fresh), 0o600);
    assert_eq!(ended(&["keys", "list", &file]).stdout.lines().count(), 3);
}

#[test]
fn a_name_that_is_taken_is_refused_and_nothing_is_written() {
    let directory = Directory::new();
    let file = directory.file("c.toml", CONFIG);
    directory.file("keys.d/a.toml", "");
    assert_eq!(ended(&["keys", "new", "blue", "--write", &directory.path("keys.d/a.toml")]).status, Some(0));
    let again = ended(&["keys", "new", "blue", "--write", &file]);
    assert_eq!((again.status, &*again.stdout), (Some(2), ""));
    assert!(again.stderr.contains("\"blue\" is there already"), "{}", again.stderr);
    assert_eq!(directory.read("c.toml"), CONFIG);
}

#[test]
fn with_its_config_a_name_that_is_taken_elsewhere_is_refused() {
    let directory = Directory::new();
    let file = directory.file("c.toml", CONFIG);
    let included = directory.file("keys.d/a.toml", "");
    assert_eq!(ended(&["keys", "new", "blue", "--write", &file]).status, Some(0));
    let taken = ended(&["keys", "new", "blue", "--write", &included, "--config", &file]);
    assert_eq!((taken.status, &*taken.stdout), (Some(2), ""));
    assert!(taken.stderr.contains("c.toml: a key \"blue\" is there already"), "{}", taken.stderr);
    assert_eq!(directory.read("keys.d/a.toml"), "");
    let free = ended(&["keys", "new", "red", "--write", &included, "--config", &file]);
    assert_eq!(free.status, Some(0), "{}", free.stderr);
    assert_eq!(ended(&["check", &file]).status, Some(0));
    let absent = ended(&["keys", "new", "green", "--write", &included, "--config", "nowhere.toml"]);
    assert_eq!((absent.status, &*absent.stdout), (Some(2), ""));
    assert_eq!(absent.stderr, "nowhere.toml: cannot be read: no such file or directory\n");
    assert_eq!(ended(&["keys", "new", "green", "--config", &file]).status, Some(2));
}

#[test]
fn revoking_in_a_file_that_cannot_be_read_says_why() {
    let absent = ended(&["keys", "revoke", "blue", "nowhere.toml"]);
    assert_eq!(absent.status, Some(2));
    assert_eq!(absent.stderr, "nowhere.toml: cannot be read: no such file or directory\n");
}

#[test]
fn a_file_that_is_no_toml_is_left_alone() {
    let directory = Directory::new();
    let file = directory.file("c.toml", "[[key]\n");
    let Ended { status, stderr, .. } = ended(&["keys", "new", "blue", "--write", &file]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("not TOML"), "{stderr}");
    assert_eq!(directory.read("c.toml"), "[[key]\n");
}

#[test]
fn a_key_that_is_not_there_cannot_be_revoked() {
    let directory = Directory::new();
    let file = directory.file("c.toml", CONFIG);
    directory.file("keys.d/a.toml", "");
    ended(&["keys", "new", "blue", "--write", &file]);
    let Ended { status, stderr, .. } = ended(&["keys", "revoke", "bleu", &file]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("did you mean \"blue\""), "{stderr}");
}

#[test]
fn a_running_gateway_takes_over_new_and_revoked_keys() {
    let directory = Directory::new();
    let file = directory.file("c.toml", CONFIG);
    let keys = directory.file("keys.d/a.toml", "# Keys.\n");
    let mut gateway = Running(tollgate().args(["run", &file]).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(gateway.0.stderr.take().unwrap()).lines();
    let address = lines
        .by_ref()
        .find_map(|line| line.unwrap().strip_prefix("tollgate: listens on ").map(str::to_string));
    let address = address.expect("the gateway tells its address");
    std::thread::spawn(move || lines.for_each(drop));

    let key = ended(&["keys", "new", "blue", "--write", &keys]).stdout;
    // The promise is one second; a busy test machine gets ten, and the CLI's own check of it is a
    // measurement.
    wait_for("200 with the new key", || (status(&address, key.trim()) == 200).then_some(()));
    assert_eq!(ended(&["keys", "revoke", "blue", &file]).status, Some(0));
    wait_for("401 with the revoked key", || (status(&address, key.trim()) == 401).then_some(()));
    assert!(directory.read("keys.d/a.toml").starts_with("# Keys.\n"));

    assert_eq!(gateway.terminate(), Some(0));
}

/// The status of a list of models, asked with `key`.
fn status(address: &str, key: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}
