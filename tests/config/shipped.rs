//! What is shipped in `conf/`: examples that pass `check`, generated pages that are current, a reference that
//! lacks no key.

use super::surroundings::Maps;
use super::{assert_file, files, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tollgate::control::config::{Loaded, Mode, Process, Surroundings, load, schema};

/// The process's files without any environment.
struct NoEnvironment;

impl Surroundings for NoEnvironment {
    fn env(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        Process.read(path)
    }

    fn list(&self, directory: &Path) -> std::io::Result<Vec<PathBuf>> {
        Process.list(directory)
    }
}

fn checked(path: &Path) -> Loaded {
    load(path, Mode::Check, &NoEnvironment).unwrap_or_else(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

#[test]
fn every_shipped_config_passes_check_without_any_environment_variable() {
    let mut paths = files(&root().join("conf/examples"), "toml");
    assert!(paths.len() >= 6, "{} examples", paths.len());
    paths.push(root().join("conf/tollgate.toml"));
    for path in paths {
        let loaded = checked(&path);
        for warning in &loaded.warnings {
            let expected = ["is not set", "cannot be read", "store holds no CA", "no [[key]]"]
                .map(|lack| warning.message.contains(lack));
            assert!(expected.contains(&true), "{warning}");
        }
    }
}

#[test]
fn no_shipped_config_can_be_used_with_a_key_that_is_publicly_known() {
    // No string is known whose SHA-256 begins with 31 zero bytes: who copies the file has to put a hash of their
    // own.
    let placeholder = "0".repeat(62);
    let folders = ["conf", "conf/examples", "conf/examples/keys.d"];
    let mut hashes = 0;
    for path in folders.iter().flat_map(|folder| files(&root().join(folder), "toml")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for digits in text.split("sha256:").skip(1) {
            assert!(digits.starts_with(&placeholder), "{}: {digits:.64}", path.display());
            hashes += 1;
        }
    }
    assert!(hashes >= 5, "{hashes} hashes");
}

#[test]
fn the_schema_and_the_reference_page_are_current() {
    assert_file(&root().join("conf/tollgate.schema.json"), &schema::json());
    assert_file(&root().join("conf/REFERENCE.md"), &schema::reference());
}

#[test]
fn the_commented_reference_has_every_key() {
    let text = std::fs::read_to_string(root().join("conf/tollgate.toml")).unwrap();
    let words: BTreeSet<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let mut keys = BTreeSet::new();
    collect_keys(schema::of_file(), &mut keys);
    assert!(keys.len() > 60, "{} keys", keys.len());
    let absent: Vec<&String> = keys.iter().filter(|key| !words.contains(&***key)).collect();
    assert!(absent.is_empty(), "conf/tollgate.toml does not mention {absent:?}");
}

#[test]
fn the_commented_reference_with_all_of_its_keys_written_out_passes_check() {
    let directory = root().join("conf");
    let text = std::fs::read_to_string(directory.join("tollgate.toml")).unwrap();
    // `#key = value` is a key that is left out; `# Text` is a comment.
    let is_key = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let left_out = text.lines().filter(is_key).count();
    assert!(left_out > 15, "{left_out} keys are left out");
    let written: Vec<&str> = text.lines().map(|line| if is_key(&line) { &line[1..] } else { line }).collect();
    let surroundings =
        Maps::default().file("c.toml", written.join("\n")).file("examples/keys.d/none.txt", "");
    if let Err(problems) = load(Path::new("c.toml"), Mode::Check, &surroundings) {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"));
    }
}

#[test]
fn the_commented_reference_states_the_defaults() {
    let path = root().join("conf/tollgate.toml");
    let written = checked(&path).effective.value();
    let bare = Maps::default().file("c.toml", "[[listener]]\naddress = \"127.0.0.1:8080\"\n");
    let defaults = load(Path::new("c.toml"), Mode::Check, &bare).unwrap().effective.value();
    for section in ["server", "limit", "timeout", "relay", "log", "catalogue"] {
        assert_eq!(written[section], defaults[section], "[{section}]");
    }
}

fn collect_keys(schema: &Value, keys: &mut BTreeSet<String>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        keys.insert(name.clone());
        collect_keys(below, keys);
    }
    for list in ["anyOf", "oneOf"] {
        schema[list].as_array().into_iter().flatten().for_each(|below| collect_keys(below, keys));
    }
    if schema["items"].is_object() {
        collect_keys(&schema["items"], keys);
    }
}
