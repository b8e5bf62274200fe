//! The config from outside: goldens, shipped examples, generated pages, properties.
//!
//! A golden is `NAME.toml` and `NAME.txt`, what loading it says. Its environment and files are those of
//! `golden_surroundings`; one that is to be loaded for running has the line `# mode: run` on top.
//! `TOLLGATE_REWRITE=1 cargo test config` writes goldens and generated pages anew; the change is reviewed as
//! a diff.

mod goldens;
mod properties;
mod shipped;
mod surroundings;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares `text` with the file, or writes the file where that is asked for.
fn assert_file(path: &Path, text: &str) {
    if std::env::var_os("TOLLGATE_REWRITE").is_some() {
        std::fs::write(path, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let first = committed.lines().zip(text.lines()).position(|(one, two)| one != two);
    assert!(
        committed == text,
        "{} is not current (line {:?}); rewrite it with TOLLGATE_REWRITE=1\n{text}",
        path.display(),
        first.map(|line| line + 1),
    );
}

/// The files of a directory with an extension, sorted.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}
