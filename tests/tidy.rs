//! House rules as tests: layers, lengths, module heads, unsafe code, bans. What a tool can check is not left
//! to advice.
//!
//! A rule that old code breaks becomes a ratchet: the files are named here with their present number, and
//! none may grow. Absent: what clippy and rustfmt check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/lib.rs`, top to bottom. A module uses only those behind it.
const LAYERS: [&str; 10] =
    ["cli", "server", "control", "handler", "policy", "usage", "llm", "net", "codec", "base"];

/// `cli` starts control, and control starts the workers: the two uses that point up are named.
const UPWARD: [(&str, &str); 1] = [("control", "server")];

const FILE_LINES_MAX: usize = 800;
/// 110 is the aim; what is longer was there before the rule, and none may be longer than this.
const LINE_CHARS_MAX: usize = 120;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that hold unsafe code, each with its reason at the top and one at every block.
const UNSAFE_FILES: [&str; 7] = [
    "src/base/words.rs",
    "src/net/page.rs",
    "src/net/send.rs",
    "src/net/kernel.rs",
    "src/codec/json/blocks.rs",
    "src/codec/http1/simd.rs",
    // A counting allocator of tests.
    "src/net/upstream/allocations.rs",
];

/// Words that say nothing, and names that hold anything.
const PRAISE: [&str; 6] = ["efficient", "robust", "flexible", "seamless", "comprehensive", "blazing"];
const VAGUE_FILES: [&str; 5] = ["utils.rs", "util.rs", "common.rs", "helpers.rs", "manager.rs"];

#[test]
fn a_module_uses_only_modules_below_it() {
    let mut wrong = Vec::new();
    for (at, layer) in LAYERS.iter().enumerate() {
        for source in sources(&format!("src/{layer}")) {
            for upper in &LAYERS[..at] {
                let allowed = UPWARD.contains(&(*layer, *upper));
                let needle = format!("crate::{upper}::");
                if !allowed && code(&source.text).any(|(_, line)| line.contains(&needle)) {
                    wrong.push(format!("{}: {layer} uses {upper}, which stands above it", source.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_module_list_of_lib_rs_is_the_order_of_the_layers() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let listed: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(listed, LAYERS);
}

#[test]
fn monoio_is_named_in_net_alone() {
    // monoio-http's types are the project's types for heads; the runtime is not.
    let uses = |line: &str| line.contains("monoio::") && !line.trim_start().starts_with("//");
    let wrong: Vec<String> = sources("src")
        .into_iter()
        .filter(|source| !source.name.starts_with("src/net/"))
        .filter(|source| source.text.lines().any(uses))
        .map(|source| source.name)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let missing: Vec<String> = all_sources()
        .into_iter()
        .filter(|source| !source.text.trim_start_matches("#![no_main]\n").starts_with("//!"))
        .map(|source| source.name)
        .collect();
    assert!(missing.is_empty(), "no `//!` at the top of {missing:?}");
}

#[test]
fn files_lines_and_functions_keep_their_lengths() {
    let mut wrong = Vec::new();
    for source in all_sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.name));
        }
        for (number, line) in source.text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX && !line.contains("://") && !line.contains('"') {
                wrong.push(format!("{}:{}: {chars} characters", source.name, number + 1));
            }
        }
        wrong.extend(long_functions(&source));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_only_where_it_must_and_says_why() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let blocks: Vec<usize> =
            code(&source.text).filter(|(_, line)| line.contains("unsafe {")).map(|(at, _)| at).collect();
        if !blocks.is_empty() && !UNSAFE_FILES.contains(&source.name.as_str()) {
            wrong.push(format!("{}: unsafe code does not belong here", source.name));
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for block in blocks {
            let reason = lines[block.saturating_sub(6)..=block].iter().any(|line| line.contains("SAFETY:"));
            if !reason {
                wrong.push(format!("{}:{}: no SAFETY comment", source.name, block + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn words_that_praise_and_names_that_hold_anything_are_absent() {
    let mut wrong = Vec::new();
    for source in all_sources() {
        let file = source.name.rsplit('/').next().unwrap_or_default();
        if VAGUE_FILES.contains(&file) {
            wrong.push(format!("{}: a name that holds anything", source.name));
        }
        if source.name == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment).to_lowercase();
            for word in PRAISE.iter().filter(|word| comment.contains(**word)) {
                wrong.push(format!(
                    "{}:{}: \"{word}\" says nothing; give the number",
                    source.name,
                    number + 1
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_yields_by_waking_itself() {
    // monoio 0.2.4 puts a task that wakes itself at the front of its queue: all I/O of the thread starves.
    let banned = ["wake_by_ref()", "yield_now", "FuturesUnordered"];
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().filter(|source| !source.name.contains("/memory/")) {
        for (at, line) in code(&source.text) {
            if banned.iter().any(|ban| line.contains(ban)) {
                wrong.push(format!("{}:{}: {}", source.name, at + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn paths_that_pages_name_exist() {
    let mut wrong = Vec::new();
    for page in ["README.md", "loadtest/README.md", "conf/REFERENCE.md", "benches/README.md"] {
        let Ok(text) = fs::read_to_string(root().join(page)) else { continue };
        let folder = root().join(page).parent().expect("a page stands in a folder").to_owned();
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "conf/", "benches/", "loadtest/", "plugins/"];
            let path = quoted.trim_end_matches('/');
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            let named = is_path.iter().any(|start| path.starts_with(start)) && plain;
            if named && !root().join(path).exists() && !folder.join(path).exists() {
                wrong.push(format!("{page}: `{quoted}` is not there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Source {
    name: String,
    text: String,
}

fn all_sources() -> Vec<Source> {
    ["src", "tests", "benches", "loadtest/src"].iter().flat_map(|folder| sources(folder)).collect()
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = BTreeMap::new();
    let single = root().join(format!("{folder}.rs"));
    if single.is_file() {
        found.insert(name_of(&single), fs::read_to_string(&single).expect("a source file"));
    }
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("goldens") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(name_of(&path), fs::read_to_string(&path).expect("a source file"));
            }
        }
    }
    found.into_iter().map(|(name, text)| Source { name, text }).collect()
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned()
}

/// Lines that are no comment and no part of a file's unit tests, with their place from 0.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("\n#[cfg(test)]").map_or(usize::MAX, |at| text[..at].lines().count());
    text.lines()
        .enumerate()
        .take_while(move |(at, _)| *at < tests)
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn long_functions(source: &Source) -> Vec<String> {
    let mut long = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    for (at, line) in source.text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let start = line.trim_start();
        let is_function =
            ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn ", "pub(super) fn "]
                .iter()
                .any(|head| start.starts_with(head));
        match open {
            None if is_function && !line.trim_end().ends_with('}') && !line.trim_end().ends_with(';') => {
                open = Some((at, indent));
            }
            Some((began, outer)) if indent == outer && start.starts_with('}') => {
                let lines = at - began + 1;
                if lines > FUNCTION_LINES_MAX {
                    let place = format!("{}:{}", source.name, began + 1);
                    long.push(format!("{place}: a function of {lines} lines, at most {FUNCTION_LINES_MAX}"));
                }
                open = None;
            }
            _ => {}
        }
    }
    long
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
