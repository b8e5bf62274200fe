//! The access log's writer: empties the workers' rings and appends to stdout or a file.
//!
//! It runs on control, so a slow disk delays nothing but the log: the rings fill, and what does not fit is
//! counted by the workers. A file is opened anew on SIGUSR1, after a rotation. A write that fails is counted
//! and told once until one succeeds again.

use crate::handler::snapshot::AccessLog;
use crate::server::LogRings;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};

/// The writer.
pub struct AccessLogWriter {
    rings: LogRings,
    target: AccessLog,
    file: Option<File>,
    failing: bool,
    /// Lines that could not be written.
    pub lines_lost: u64,
}

impl AccessLogWriter {
    /// A writer that reads from `rings`. Errors: the file cannot be opened.
    pub fn new(rings: LogRings, target: AccessLog) -> io::Result<AccessLogWriter> {
        let file = open(&target)?;
        Ok(AccessLogWriter { rings, target, file, failing: false, lines_lost: 0 })
    }

    /// Writes to another target from now on, or to the same one opened anew. On an error the old one stays.
    pub fn reopen(&mut self, target: &AccessLog) -> io::Result<()> {
        self.drain();
        self.file = open(target)?;
        self.target = target.clone();
        Ok(())
    }

    /// Writes what the rings hold; true where there was something.
    pub fn drain(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.rings.len() {
            let waiting = self.rings[at].slots();
            let Ok(chunk) = self.rings[at].read_chunk(waiting) else { continue };
            let (first, second) = chunk.as_slices();
            any |= !first.is_empty();
            let written = match (&self.target, &mut self.file) {
                (AccessLog::Off, _) => Ok(()),
                (_, Some(file)) => write_both(file, first, second),
                (_, None) => write_both(&mut io::stdout().lock(), first, second),
            };
            let lines = [first, second]
                .iter()
                .map(|part| memchr::memchr_iter(b'\n', part).count() as u64)
                .sum::<u64>();
            chunk.commit_all();
            match written {
                Ok(()) => self.failing = false,
                Err(error) => {
                    self.lines_lost += lines;
                    if !std::mem::replace(&mut self.failing, true) {
                        eprintln!(
                            "tollgate: the access log cannot be written: {error}; lines are lost until it can"
                        );
                    }
                }
            }
        }
        any
    }
}

fn write_both(out: &mut impl Write, first: &[u8], second: &[u8]) -> io::Result<()> {
    out.write_all(first)?;
    out.write_all(second)?;
    out.flush()
}

fn open(target: &AccessLog) -> io::Result<Option<File>> {
    match target {
        AccessLog::File(path) => OpenOptions::new().create(true).append(true).open(path).map(Some),
        AccessLog::Stdout | AccessLog::Off => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::AccessLogWriter;
    use crate::handler::snapshot::AccessLog;

    #[test]
    fn records_reach_the_file_in_order_and_a_moved_file_is_left_behind_on_reopen() {
        let dir = std::env::temp_dir().join(format!("tollgate-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("access.log");
        let (mut producer, consumer) = rtrb::RingBuffer::new(64);
        let target = AccessLog::File(path.clone());
        let mut writer = AccessLogWriter::new(vec![consumer], target.clone()).expect("a writer");
        let mut push = |text: &str| text.bytes().for_each(|byte| producer.push(byte).expect("room"));
        push("one\n");
        assert!(writer.drain() && !writer.drain());
        std::fs::rename(&path, dir.join("access.log.1")).expect("a rotation");
        writer.reopen(&target).expect("a new file");
        push("two\n");
        writer.drain();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("a log");
        assert_eq!((read("access.log.1"), read("access.log")), ("one\n".to_owned(), "two\n".to_owned()));
        std::fs::remove_dir_all(&dir).expect("cleaned up");
    }
}
