//! The supply chain: licences, duplicate versions and banned crates, from Cargo.lock alone, offline.
//!
//! `deny.toml` says the same to cargo-deny where that is installed; advisories need its database and a
//! network and are not checked here (`cargo deny check advisories`). A new duplicate or licence is a
//! decision: it is named here with its reason.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Licences of which one must apply to every crate.
const LICENCES: [&str; 9] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-3-Clause",
    "BSD-2-Clause",
    "ISC",
    "Zlib",
    "Unlicense",
    "Unicode-3.0",
];

/// Crates that stand in the lock file in more than one version, and why.
const DUPLICATES: [(&str, &str); 22] = [
    ("rustls", "0.21 comes with monoio-http, which names it and never calls it; no code path links it"),
    ("rustls-webpki", "with rustls 0.21"),
    ("monoio-rustls", "with monoio-http"),
    ("indexmap", "1.9 with monoio-http"),
    ("hashbrown", "with the indexmaps, and simd-json's halfbrown"),
    ("mio", "0.8 is monoio's epoll driver"),
    ("bitflags", "1.3 with monoio's nix and io-uring"),
    ("thiserror", "1 with monoio-http"),
    ("thiserror-impl", "1 with monoio-http"),
    ("getrandom", "0.2 with ring and flume"),
    ("socket2", "0.5 with monoio"),
    ("windows-sys", "not built here"),
    ("windows-targets", "not built here"),
    ("windows_aarch64_gnullvm", "not built here"),
    ("windows_x86_64_gnu", "not built here"),
    ("syn", "2 with derive macros that have not moved to 3"),
    ("base64", "0.22 with criterion's and hyper's users"),
    ("nom", "7 with tests' certificate reader"),
    ("cpufeatures", "0.2 with sha2"),
    ("wasi", "not built here"),
    ("itertools", "with criterion"),
    ("rand_core", "with proptest"),
];

/// Crates that must never come in, and what is used instead.
const BANNED: [(&str, &str); 6] = [
    ("openssl", "rustls with ring"),
    ("openssl-sys", "rustls with ring"),
    ("native-tls", "rustls with ring"),
    ("monoio-transports", "net/upstream: it mixes tenants on cancel"),
    ("sonic-rs", "codec/json: it aborts the process on deep input"),
    ("chrono", "httpdate for headers; jiff where calendars are needed"),
];

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let wrong: Vec<String> = packages()
        .iter()
        .filter(|package| !is_allowed(package["license"].as_str().unwrap_or_default()))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_crate_in_two_versions_is_named_with_its_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        versions.entry(text("name")).or_default().insert(text("version"));
    }
    let wrong: Vec<String> = versions
        .iter()
        .filter(|(name, found)| found.len() > 1 && DUPLICATES.iter().all(|(known, _)| known != name))
        .filter(|(name, _)| !name.starts_with("windows"))
        .map(|(name, found)| format!("{name}: {found:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn banned_crates_are_absent() {
    for package in packages() {
        for (banned, instead) in BANNED {
            assert_ne!(package["name"], banned, "use {instead}");
        }
    }
}

#[test]
fn the_old_rustls_is_named_by_monoio_http_alone() {
    let tree = run(&[
        "tree",
        "--offline",
        "--locked",
        "--invert",
        "rustls@0.21",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]);
    let users: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let known = ["rustls", "monoio-rustls", "monoio-http", "tollgate", ""];
    assert!(users.iter().all(|user| known.contains(user)), "{tree}");
    let uses = "monoio_rustls";
    let sources =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).expect("src/lib.rs");
    assert!(!sources.contains(uses));
}

fn is_allowed(expression: &str) -> bool {
    let or = expression.replace('/', " OR ").replace(['(', ')'], "");
    or.split(" OR ").any(|choice| choice.split(" AND ").all(|part| LICENCES.contains(&part.trim())))
        || or.split(" AND ").all(|part| part.split(" OR ").any(|choice| LICENCES.contains(&choice.trim())))
}

fn packages() -> Vec<Value> {
    let metadata = run(&["metadata", "--format-version", "1", "--locked", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo's metadata");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

fn run(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    let output =
        command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
