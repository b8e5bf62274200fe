//! The access log: a thread that empties the workers' rings and appends to stdout or a file.
//!
//! The thread is the only one that waits for a slow disk or for a reader of stdout that is stuck: the rings
//! fill, what does not fit is counted by the workers, and control goes on. A file is opened anew on SIGUSR1,
//! after a rotation. A write that fails is counted and told once until one succeeds again.
//! Limits: `ORDERS_MAX` orders wait for a stuck thread, more are refused and told.

use crate::control::tell::tell;
use crate::handler::snapshot::AccessLog;
use crate::server::LogRings;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

const ORDERS_MAX: usize = 16;
/// The rings are emptied often while there is traffic and seldom without: a wake-up costs, too.
const EVERY: Duration = Duration::from_millis(10);
const EVERY_IDLE: Duration = Duration::from_millis(100);

/// The thread, seen from control.
pub struct AccessLogThread {
    orders: SyncSender<Order>,
    ended: Receiver<()>,
    lines_lost: Arc<AtomicU64>,
}

enum Order {
    Reopen(AccessLog),
    End,
}

impl AccessLogThread {
    /// A thread that writes what comes from `rings`. Errors: the file cannot be opened, no thread.
    pub fn start(rings: LogRings, target: AccessLog) -> io::Result<AccessLogThread> {
        let lines_lost = Arc::new(AtomicU64::new(0));
        let mut writer = AccessLogWriter::new(rings, target, Arc::clone(&lines_lost))?;
        let (orders, taken) = sync_channel(ORDERS_MAX);
        let (end, ended) = sync_channel(1);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            writer.follow(&taken);
            let _ = end.send(());
        })?;
        Ok(AccessLogThread { orders, ended, lines_lost })
    }

    /// Writes to another target from now on, or to the same one opened anew. Where it cannot be opened, that
    /// is told and the old one stays.
    pub fn reopen(&self, target: &AccessLog) {
        if self.orders.try_send(Order::Reopen(target.clone())).is_err() {
            tell("tollgate: the access log is stuck in a write and cannot be opened anew now");
        }
    }

    /// Writes what is left, for `time_max` at most. False: not all could be written in it.
    pub fn end(&self, time_max: Duration) -> bool {
        self.orders.try_send(Order::End).is_ok() && self.ended.recv_timeout(time_max).is_ok()
    }

    /// Lines that could not be written.
    pub fn lines_lost(&self) -> u64 {
        self.lines_lost.load(Relaxed)
    }
}

struct AccessLogWriter {
    rings: LogRings,
    target: AccessLog,
    file: Option<File>,
    failing: bool,
    lines_lost: Arc<AtomicU64>,
}

impl AccessLogWriter {
    /// A writer that reads from `rings`. Errors: the file cannot be opened.
    fn new(rings: LogRings, target: AccessLog, lines_lost: Arc<AtomicU64>) -> io::Result<AccessLogWriter> {
        let file = open(&target)?;
        Ok(AccessLogWriter { rings, target, file, failing: false, lines_lost })
    }

    /// Writes until it is told to end, or control is gone.
    fn follow(&mut self, orders: &Receiver<Order>) {
        let mut pause = EVERY;
        loop {
            match orders.recv_timeout(pause) {
                Ok(Order::Reopen(target)) => {
                    if let Err(error) = self.reopen(&target) {
                        tell(format_args!(
                            "tollgate: cannot open the access log {error}; the old one is written on"
                        ));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => {
                    self.drain();
                    return;
                }
            }
            pause = if self.drain() { EVERY } else { (pause * 2).min(EVERY_IDLE) };
        }
    }

    /// Writes to another target from now on, or to the same one opened anew. On an error the old one stays.
    fn reopen(&mut self, target: &AccessLog) -> io::Result<()> {
        self.drain();
        self.file = open(target)?;
        self.target = target.clone();
        Ok(())
    }

    /// Writes what the rings hold; true where there was something.
    fn drain(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.rings.len() {
            let waiting = self.rings[at].slots();
            let Ok(chunk) = self.rings[at].read_chunk(waiting) else { continue };
            let (first, second) = chunk.as_slices();
            if first.is_empty() {
                continue;
            }
            any = true;
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
                    self.lines_lost.fetch_add(lines, Relaxed);
                    if !std::mem::replace(&mut self.failing, true) {
                        tell(format_args!(
                            "tollgate: the access log cannot be written: {error}; lines are lost until it can"
                        ));
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

/// Opens what is written to; a FIFO that nobody reads is refused, since to wait for a reader would hold up the
/// start, or the log's end.
fn open(target: &AccessLog) -> io::Result<Option<File>> {
    let AccessLog::File(path) = target else { return Ok(None) };
    open_to_append(path)
        .map(Some)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(|error| match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::NXIO) => io::Error::other("it is a FIFO or a device that nobody reads"),
        _ => error,
    })?;
    // Only to open must not wait: a write may, this is what the thread is for.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{AccessLogWriter, open};
    use crate::handler::snapshot::AccessLog;
    use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, mknodat};
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::Arc;

    #[test]
    fn records_reach_the_file_in_order_and_a_moved_file_is_left_behind_on_reopen() {
        let dir = std::env::temp_dir().join(format!("tollgate-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("access.log");
        let (mut producer, consumer) = rtrb::RingBuffer::new(64);
        let target = AccessLog::File(path.clone());
        let mut writer =
            AccessLogWriter::new(vec![consumer], target.clone(), Arc::default()).expect("a writer");
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

    #[test]
    fn a_fifo_without_a_reader_is_refused_and_one_with_a_reader_is_written_and_waited_for() {
        let dir = std::env::temp_dir().join(format!("tollgate-log-fifo-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("access.log");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        let target = AccessLog::File(path.clone());
        let refused = open(&target).expect_err("nobody reads").to_string();
        assert!(refused.starts_with(&path.display().to_string()), "{refused}");
        assert!(refused.ends_with("that nobody reads"), "{refused}");
        let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
        let mut reader: File =
            OpenOptions::new().read(true).custom_flags(without_waiting).open(&path).expect("a reader");
        let mut file = open(&target).expect("it is read").expect("a file");
        assert!(!fcntl_getfl(&file).expect("its flags").contains(OFlags::NONBLOCK));
        file.write_all(b"one\n").expect("a reader");
        let mut read = [0; 8];
        assert_eq!(reader.read(&mut read).expect("a line"), 4);
        std::fs::remove_dir_all(&dir).expect("cleaned up");
    }
}
