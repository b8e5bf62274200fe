//! What loading each file of `tests/goldens/config` says.

use super::surroundings::Maps;
use super::{assert_file, files, root};
use std::fmt::Write;
use std::path::Path;
use tollgate::control::config::{Mode, load};

#[test]
fn every_golden_says_what_it_said() {
    let directory = root().join("tests/goldens/config");
    let goldens = files(&directory, "toml");
    assert!(goldens.len() >= 10, "{} goldens", goldens.len());
    for path in goldens {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = if text.starts_with("# mode: run") { Mode::Run } else { Mode::Check };
        let surroundings = golden_surroundings().file(name, text);
        assert_file(&path.with_extension("txt"), &said(Path::new(name), mode, &surroundings));
    }
}

/// One line for each problem, or the warnings and then `ok`.
fn said(path: &Path, mode: Mode, surroundings: &Maps) -> String {
    let (problems, end) = match load(path, mode, surroundings) {
        Ok(loaded) => (loaded.warnings, "ok\n"),
        Err(problems) => (problems, ""),
    };
    let mut said = String::new();
    for problem in problems {
        writeln!(said, "{problem}").unwrap();
    }
    said + end
}

const FAULTY_LIST: &str = "\
date = 2026-11-21
[ours]
small = { inptu = 0.5, output = 1 }
\"big one\" = { input = 0.5, context = 0 }
";

fn golden_surroundings() -> Maps {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let mut maps = Maps::default()
        .env("OPENAI_API_KEY", "sk-canary")
        .env("EMPTY", "")
        .env("TWO_LINES", "sk-canary\nx")
        .env("SHORT", "canary")
        .file("secrets/openai", "sk-canary\n")
        .file("tls/cert.pem", pair.cert.pem())
        .file("tls/key.pem", pair.signing_key.serialize_pem())
        .file("tls/other-key.pem", rcgen::KeyPair::generate().unwrap().serialize_pem())
        .file("tls/empty.pem", "")
        .file("lists/fine.toml", "[ours]\nsmall = { input = 0.5, output = 1 }\n")
        .file("lists/faulty.toml", FAULTY_LIST)
        .file("lists/odd.json", r#"{"a": 5, "b": {"input_cost_per_token": -1}, "sample_spec": {}}"#)
        .file("lists/no-list.json", "[]");
    let included = root().join("tests/goldens/config/more.d");
    for path in files(&included, "toml") {
        let name = path.file_name().unwrap().to_str().unwrap();
        maps = maps.file(&format!("more.d/{name}"), std::fs::read(&path).unwrap());
    }
    maps
}
