//! What keeps the process from starting: one line that names it, and the exit status that the help promises.

use crate::cli::{Directory, ended};
use std::net::{SocketAddr, TcpListener};

/// A config with these parts, each on lines of its own.
fn text(parts: &[&str]) -> String {
    parts.join("\n") + "\n"
}

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"";
const TLS: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = { cert = \"cert.pem\", key = \"key.pem\" }";
const PROVIDER: &str = "[[provider]]\nname = \"p\"\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"";

#[test]
fn what_keeps_it_from_starting_is_one_line_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let (listener, admin) =
        (format!("[[listener]]\naddress = \"{busy}\""), format!("[admin]\naddress = \"{busy}\""));
    let (cert, other) = (pair(), pair());
    let log = "[log]\naccess = { file = \"a-directory/\" }";
    let env = format!("{PROVIDER}\napi_key = {{ env = \"NO_SUCH_VARIABLE\" }}");
    let credential = format!("{PROVIDER}\napi_key = {{ file = \"no-such-file\" }}");
    let foreign = "[[listener]]\naddress = \"192.0.2.1:80\"";
    // What is wrong, config, further files, exit status, what the line says.
    type Row<'r> = (&'r str, String, &'r [(&'r str, &'r str)], i32, &'r [&'r str]);
    let rows: [Row<'_>; 13] = [
        ("busy port", text(&[&listener]), &[], 1, &[&busy, "in use"]),
        ("busy admin port", text(&[LISTENER, &admin]), &[], 1, &[&busy, "(admin)", "in use"]),
        ("address of another machine", text(&[foreign]), &[], 1, &["192.0.2.1:80"]),
        (
            "log is a directory",
            text(&[LISTENER, log]),
            &[("a-directory/x", "")],
            1,
            &["access log", "a-directory"],
        ),
        (
            "no certificate",
            text(&[TLS]),
            &[("key.pem", &cert.1)],
            2,
            &["c.toml:3:", "cert.pem", "no such file"],
        ),
        ("no key", text(&[TLS]), &[("cert.pem", &cert.0)], 2, &["c.toml:3:", "key.pem", "no such file"]),
        ("no PEM", text(&[TLS]), &[("cert.pem", "x"), ("key.pem", &cert.1)], 2, &["c.toml:3:", "cert.pem"]),
        (
            "key of another certificate",
            text(&[TLS]),
            &[("cert.pem", &cert.0), ("key.pem", &other.1)],
            2,
            &["c.toml:3:", "key.pem"],
        ),
        ("no variable", text(&[LISTENER, &env]), &[], 2, &["c.toml:7:", "NO_SUCH_VARIABLE", "not set"]),
        ("no credential", text(&[LISTENER, &credential]), &[], 2, &["c.toml:7:", "no-such-file"]),
        ("unknown key", text(&["[[listner]]"]), &[], 2, &["c.toml:1:", "listner", "listener"]),
        ("no TOML", text(&["[[listener"]), &[], 2, &["c.toml:1:"]),
        ("wrong type", text(&["[[listener]]", "address = 8080"]), &[], 2, &["c.toml:2:", "8080"]),
    ];
    for (what, config, files, status, said) in rows {
        let directory = Directory::new();
        files.iter().for_each(|(name, text)| drop(directory.file(name, text)));
        let came = ended(&["run", &directory.file("c.toml", &config)]);
        assert_eq!((came.status, &*came.stdout), (Some(status), ""), "{what}: {}", came.stderr);
        let told: Vec<&str> = came.stderr.lines().filter(|line| !line.contains("warning: ")).collect();
        assert_eq!(told.len(), 1, "{what}: {}", came.stderr);
        assert!(said.iter().all(|word| told[0].contains(word)), "{what}: {}", told[0]);
        eprintln!("{what}: {}", told[0]);
    }
}

/// The path of a file that an operator wants to keep was taken for one of a socket left behind.
#[test]
fn the_admin_socket_replaces_a_dead_socket_and_nothing_else() {
    let directory = Directory::new();
    let path = directory.path("admin.sock");
    let config = text(&[LISTENER, &format!("[admin]\naddress = \"unix:{path}\"")]);
    let refused = |said: &str| {
        let came = ended(&["run", &directory.file("c.toml", &config)]);
        assert_eq!(came.status, Some(1), "{}", came.stderr);
        let told: Vec<&str> = came.stderr.lines().filter(|line| !line.contains("warning: ")).collect();
        assert!(told.len() == 1 && told[0].contains(&path) && told[0].contains(said), "{}", came.stderr);
    };
    directory.file("admin.sock", "mine");
    refused("no socket");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    std::fs::rename(&path, directory.path("mine")).unwrap();
    std::os::unix::fs::symlink(directory.path("mine"), &path).unwrap();
    refused("no socket");
    assert_eq!(std::fs::read_to_string(directory.path("mine")).unwrap(), "mine");
    std::fs::remove_file(&path).unwrap();
    let live = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refused("in use");
    // Nobody listens, and its file stays behind.
    drop(live);
    let gateway = super::gateway::Gateway::start(&config);
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    drop(gateway);
}

#[test]
fn a_config_that_is_not_there_or_no_file_is_one_line() {
    let directory = Directory::new();
    for (file, said) in [(directory.path("absent.toml"), "no such file"), (directory.path("."), "directory")]
    {
        let came = ended(&["run", &file]);
        assert_eq!(came.status, Some(2), "{}", came.stderr);
        assert!(came.stderr.lines().count() == 1 && came.stderr.contains(said), "{}", came.stderr);
    }
}

#[test]
fn two_processes_cannot_share_a_port_by_accident() {
    let first =
        super::gateway::Gateway::start("[[listener]]\naddress = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n");
    let address: SocketAddr = first.address;
    let directory = Directory::new();
    let came =
        ended(&["run", &directory.file("c.toml", &format!("[[listener]]\naddress = \"{address}\"\n"))]);
    assert_eq!(came.status, Some(1));
    assert!(came.stderr.contains(&address.to_string()) && came.stderr.contains("in use"), "{}", came.stderr);
}

/// A certificate and its key.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}
