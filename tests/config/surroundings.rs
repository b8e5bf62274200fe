//! An environment and files out of maps.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tollgate::control::config::Surroundings;

/// What a config finds outside of itself.
#[derive(Default)]
pub struct Maps {
    pub env: BTreeMap<String, String>,
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Maps {
    /// With one more file.
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Maps {
        self.files.insert(path.into(), content.into());
        self
    }

    /// With one more variable.
    pub fn env(mut self, name: &str, value: &str) -> Maps {
        self.env.insert(name.into(), value.into());
        self
    }
}

impl Surroundings for Maps {
    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let inside: Vec<PathBuf> =
            self.files.keys().filter(|file| file.parent() == Some(directory)).cloned().collect();
        if inside.is_empty() { Err(io::Error::from_raw_os_error(2)) } else { Ok(inside) }
    }

    fn unix_ms(&self) -> u64 {
        // 2026-11-21T00:00:00Z
        1_795_219_200_000
    }
}
