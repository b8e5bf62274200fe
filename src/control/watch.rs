//! Whether files of the config have changed: looked at twice a second, by size, time, and inode.
//!
//! Looking needs no watch descriptors, sees files that are replaced by a link (as container volumes do) and
//! works on every file system. A change counts when the files have stood still for one look, so that a file
//! that is being written is not read half.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Files that are looked at.
pub struct Watched {
    paths: Vec<PathBuf>,
    /// As they were when the config was loaded, and at the last look.
    loaded: Vec<Option<Stamp>>,
    last: Vec<Option<Stamp>>,
}

/// What changes when a file does; none stands for a file that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl Watched {
    /// Watches `paths` from how they are now.
    pub fn new(paths: Vec<PathBuf>) -> Watched {
        let now = stamps(&paths);
        Watched { paths, loaded: now.clone(), last: now }
    }

    /// True once for each change, as soon as the files have stood still since the last look.
    pub fn have_changed(&mut self) -> bool {
        let now = stamps(&self.paths);
        let stands = now == self.last;
        self.last = now;
        if !stands || self.last == self.loaded {
            return false;
        }
        self.loaded.clone_from(&self.last);
        true
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: found.ino(),
            bytes: found.len(),
            changed_s: found.mtime(),
            changed_ns: found.mtime_nsec(),
        })
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::Watched;

    #[test]
    fn a_change_counts_once_and_only_after_the_file_stood_still() {
        let path = std::env::temp_dir().join(format!("tollgate-watch-{}", std::process::id()));
        std::fs::write(&path, "one").expect("written");
        let mut watched = Watched::new(vec![path.clone()]);
        assert!(!watched.have_changed());
        std::fs::write(&path, "three").expect("written");
        assert!(!watched.have_changed(), "it may still be written");
        assert!(watched.have_changed());
        assert!(!watched.have_changed());
        std::fs::remove_file(&path).expect("removed");
        assert!(!watched.have_changed());
        assert!(watched.have_changed());
    }
}
