//! Segments: append-only files of records, the truth of the ledger.
//!
//! A directory holds the segments of all seats: `SEAT-NUMBER.seg`, numbers rising without end. A segment is eight
//! bytes of head, then frames: length and CRC-32 of what follows (both 32 bits, little-endian), then the record
//! (`encoding`). A process appends to segments of its own seat only and begins a new one when it starts. [`Mark`]
//! is a place in a seat's segments.
//!
//! Shape: [`Appender::append`] makes a batch durable (one write, one fdatasync) or says why not; the same batch is
//! then given again, and is written over what a failed try left. [`read`] gives records from a place on and stops
//! at the first frame that is not whole: the end, or the tail that a dying process tore.
//! Limits: `RECORD_BYTES_MAX` a record; a segment is closed at `SEGMENT_BYTES` or `SEGMENT_AGE`.
//! Errors: those of the system, with the path. Damage within a segment that others follow is told by `Read`.

use crate::usage::ledger::encoding::{self, RECORD_BYTES_MAX};
use crate::usage::ledger::record::Record;
use crate::usage::ledger::slots::Mark;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The head of a segment; the last byte is the format's number.
const HEAD: [u8; 8] = *b"tg-sgmt\x01";
/// Length and checksum.
const FRAME_BYTES: usize = 8;

/// A segment is closed when it has so many bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// A segment is closed when its first record is so old, so that retention by days has something to delete.
pub const SEGMENT_AGE: Duration = Duration::from_secs(24 * 3600);

/// A segment's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    pub seat: usize,
    pub number: u32,
    pub path: PathBuf,
}

/// The segments of `directory`, by seat and number. None where it is not there. Other files are passed over.
pub fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(named(error, directory)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| named(error, directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let numbers = name.strip_suffix(".seg").and_then(|name| name.split_once('-'));
        if let Some((Ok(seat), Ok(number))) = numbers.map(|(seat, number)| (seat.parse(), number.parse())) {
            segments.push(Segment { seat, number, path });
        }
    }
    segments.sort();
    Ok(segments)
}

fn path(directory: &Path, seat: usize, number: u32) -> PathBuf {
    directory.join(format!("{seat}-{number:08}.seg"))
}

/// Appends a frame with `record` to `out`.
pub fn frame(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    encoding::encode(record, out);
    let body = &out[start + FRAME_BYTES..];
    let (len, checksum) = (body.len() as u32, crc32fast::hash(body));
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + FRAME_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// The end of a seat's segments.
#[derive(Debug)]
pub struct Appender {
    directory: PathBuf,
    seat: usize,
    /// The number that a new segment gets is the next one.
    number: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// What of the file is durable.
    len: u64,
    since: Instant,
}

impl Appender {
    /// Appends behind the segments that `directory` has of `seat`, and behind `after`. The directory is made where
    /// it is not there.
    pub fn new(directory: &Path, seat: usize, after: Mark) -> io::Result<Appender> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| named(error, directory))?;
        let last = list(directory)?.into_iter().rfind(|segment| segment.seat == seat);
        let number = last.map_or(0, |segment| segment.number).max(after.segment);
        Ok(Appender { directory: directory.to_owned(), seat, number, open: None })
    }

    /// The end of what is durable: the next record stands there or, if a segment begins with it, behind.
    pub fn end(&self) -> Mark {
        Mark { segment: self.number, offset: self.open.as_ref().map_or(u64::MAX >> 24, |open| open.len) }
    }

    /// Makes `frames` durable. On an error none of them may be taken as durable, and the same ones are to be given
    /// again, alone or with more behind them.
    pub fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let is_full = |open: &Open| open.len >= SEGMENT_BYTES || open.since.elapsed() >= SEGMENT_AGE;
        self.open.take_if(|open| is_full(open));
        let path = path(&self.directory, self.seat, self.number + u32::from(self.open.is_none()));
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let open = begin(&path, &self.directory).map_err(|error| named(error, &path))?;
                self.number += 1;
                self.open.insert(open)
            }
        };
        let written = open.file.write_all_at(frames, open.len).and_then(|()| open.file.sync_data());
        written.map_err(|error| named(error, &path))?;
        open.len += frames.len() as u64;
        Ok(())
    }
}

/// A new segment. One that a failed try has left begins anew: nothing of it was durable.
fn begin(path: &Path, directory: &Path) -> io::Result<Open> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all_at(&HEAD, 0)?;
    file.sync_all()?;
    // Its name has to be durable, too.
    File::open(directory)?.sync_all()?;
    Ok(Open { file, len: HEAD.len() as u64, since: Instant::now() })
}

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Where the next record will stand.
    pub end: Mark,
    /// Segments that are damaged, and from which byte on they were passed over.
    pub damaged: Vec<(PathBuf, u64)>,
}

/// Gives every record of `seat` that stands at `from` or behind it, in order, with the place behind it.
pub fn read(
    directory: &Path,
    seat: usize,
    from: Mark,
    mut sink: impl FnMut(&Record, Mark) -> io::Result<()>,
) -> io::Result<Read> {
    let mut read = Read { end: from, damaged: Vec::new() };
    let segments: Vec<Segment> = list(directory)?
        .into_iter()
        .filter(|segment| segment.seat == seat && segment.number >= from.segment)
        .collect();
    for (at, segment) in segments.iter().enumerate() {
        let start = if segment.number == from.segment { from.offset } else { 0 };
        let opened = OpenOptions::new().read(true).open(&segment.path);
        let file = match opened {
            Ok(file) => file,
            // Retention was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(named(error, &segment.path)),
        };
        let len = file.metadata().map_err(|error| named(error, &segment.path))?.len();
        let start = start.min(len.max(HEAD.len() as u64));
        let end = read_segment(file, start, |record, offset| {
            sink(record, Mark { segment: segment.number, offset })
        });
        let end = end.map_err(|error| named(error, &segment.path))?;
        read.end = Mark { segment: segment.number, offset: end };
        if end < len && at + 1 < segments.len() {
            read.damaged.push((segment.path.clone(), end));
        }
    }
    Ok(read)
}

/// Where the last whole frame ends. A head that is none counts as no frame.
fn read_segment(
    file: File,
    start: u64,
    mut sink: impl FnMut(&Record, u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(256 << 10, file);
    let mut at = start;
    if at < HEAD.len() as u64 {
        let mut head = HEAD;
        if !fill(&mut file, &mut head)? || head != HEAD {
            return Ok(0);
        }
        at = HEAD.len() as u64;
    } else {
        file.seek(SeekFrom::Start(at))?;
    }
    let mut body = Vec::with_capacity(RECORD_BYTES_MAX);
    loop {
        let mut frame = [0; FRAME_BYTES];
        if !fill(&mut file, &mut frame)? {
            return Ok(at);
        }
        let word = |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let (len, checksum) = (word(0) as usize, word(4));
        if len > RECORD_BYTES_MAX {
            return Ok(at);
        }
        body.resize(len, 0);
        if !fill(&mut file, &mut body)? || crc32fast::hash(&body) != checksum {
            return Ok(at);
        }
        let Some(record) = encoding::decode(&body) else { return Ok(at) };
        // A record without an id was written by nobody: zeros, as a file system may leave them.
        if record.id.is_empty() {
            return Ok(at);
        }
        at += (FRAME_BYTES + len) as u64;
        sink(&record, at)?;
    }
}

/// False: the file ends before.
fn fill(file: &mut impl io::Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Cuts what stands behind `end` off its segment: the torn tail of a process that is dead. Bytes cut off.
pub fn cut_tail(directory: &Path, seat: usize, end: Mark) -> io::Result<u64> {
    let path = path(directory, seat, end.segment);
    let file = match OpenOptions::new().write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(named(error, &path)),
    };
    let cut = || -> io::Result<u64> {
        let len = file.metadata()?.len();
        if len <= end.offset {
            return Ok(0);
        }
        file.set_len(end.offset)?;
        file.sync_all()?;
        Ok(len - end.offset)
    };
    cut().map_err(|error| named(error, &path))
}

fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
impl Appender {
    /// Writes fail from now on.
    pub fn break_file(&mut self) {
        let path = path(&self.directory, self.seat, self.number);
        if let Some(open) = &mut self.open {
            open.file = File::open(path).expect("the segment, to be read only");
        }
    }

    /// Writes work again.
    pub fn mend_file(&mut self) {
        let path = path(&self.directory, self.seat, self.number);
        if let Some(open) = &mut self.open {
            open.file = OpenOptions::new().write(true).open(path).expect("the segment");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Appender, HEAD, Mark, cut_tail, frame, list, path, read};
    use crate::usage::ledger::encoding::tests::full;
    use crate::usage::ledger::record::Record;
    use std::path::{Path, PathBuf};

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tollgate-segments-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    fn framed(numbers: std::ops::Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        numbers.for_each(|n| frame(&full(n), &mut out));
        out
    }

    fn all(directory: &Path, seat: usize, from: Mark) -> (Vec<Record>, Vec<Mark>, super::Read) {
        let (mut records, mut marks) = (Vec::new(), Vec::new());
        let read = read(directory, seat, from, |record, mark| {
            records.push(record.clone());
            marks.push(mark);
            Ok(())
        });
        (records, marks, read.expect("it can be read"))
    }

    #[test]
    fn what_is_appended_is_read_from_any_record_on_and_a_new_process_begins_a_new_segment() {
        let directory = directory("append");
        let mut first = Appender::new(&directory, 0, Mark::default()).expect("an appender");
        first.append(&framed(0..3)).expect("appended");
        first.append(&framed(3..5)).expect("appended");
        let mut second = Appender::new(&directory, 0, Mark::default()).expect("an appender");
        second.append(&framed(5..6)).expect("appended");
        let mut other = Appender::new(&directory, 1, Mark { segment: 7, offset: 0 }).expect("an appender");
        other.append(&framed(9..10)).expect("appended");
        let expected: Vec<Record> = (0..6).map(full).collect();
        let (records, marks, done) = all(&directory, 0, Mark::default());
        assert_eq!(records, expected);
        assert_eq!((done.end, done.damaged.len()), (second.end(), 0));
        for (at, mark) in marks.iter().enumerate() {
            assert_eq!(all(&directory, 0, *mark).0, expected[at + 1..], "behind record {at}");
        }
        assert!(all(&directory, 0, second.end()).0.is_empty());
        let segments: Vec<_> = list(&directory).expect("a list").iter().map(|s| (s.seat, s.number)).collect();
        assert_eq!(segments, [(0, 1), (0, 2), (1, 8)]);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn a_tail_that_is_torn_at_any_byte_is_not_read_and_is_cut_off() {
        let directory = directory("torn");
        let mut appender = Appender::new(&directory, 0, Mark::default()).expect("an appender");
        appender.append(&framed(0..2)).expect("appended");
        let file = path(&directory, 0, 1);
        let whole = std::fs::read(&file).expect("its bytes");
        let ends: Vec<u64> = all(&directory, 0, Mark::default()).1.iter().map(|mark| mark.offset).collect();
        assert_eq!(*ends.last().expect("two"), whole.len() as u64);
        for len in 0..whole.len() {
            std::fs::write(&file, &whole[..len]).expect("written");
            let (records, _, done) = all(&directory, 0, Mark::default());
            let count = ends.iter().filter(|&&end| end <= len as u64).count();
            assert_eq!(records.len(), count, "{len} bytes");
            let cut = cut_tail(&directory, 0, done.end).expect("cut");
            assert_eq!(cut, len as u64 - done.end.offset);
            assert_eq!(std::fs::metadata(&file).expect("the file").len(), done.end.offset);
        }
        // A bit that has turned, and zeros as a file system may leave them.
        for at in [0, HEAD.len(), whole.len() - 1] {
            let mut turned = whole.clone();
            turned[at] ^= 4;
            std::fs::write(&file, turned).expect("written");
            assert!(all(&directory, 0, Mark::default()).0.len() < 2, "byte {at}");
        }
        std::fs::write(&file, [&whole[..], &[0; 64]].concat()).expect("written");
        assert_eq!(all(&directory, 0, Mark::default()).0.len(), 2);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn damage_within_the_segments_is_told_and_those_behind_are_read() {
        let directory = directory("damage");
        for n in 0..2 {
            let mut appender = Appender::new(&directory, 0, Mark::default()).expect("an appender");
            appender.append(&framed(n..n + 1)).expect("appended");
        }
        let file = path(&directory, 0, 1);
        let mut bytes = std::fs::read(&file).expect("its bytes");
        *bytes.last_mut().expect("some") ^= 1;
        std::fs::write(&file, bytes).expect("written");
        let (records, _, done) = all(&directory, 0, Mark::default());
        assert_eq!(records, [full(1)]);
        assert_eq!(done.damaged, [(file, HEAD.len() as u64)]);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn a_batch_that_failed_is_given_again_and_stands_there_once() {
        let directory = directory("again");
        let mut appender = Appender::new(&directory, 0, Mark::default()).expect("an appender");
        appender.append(&framed(0..1)).expect("appended");
        let end = appender.end();
        appender.break_file();
        let error = appender.append(&framed(1..2)).expect_err("it is read only").to_string();
        assert!(error.contains("0-00000001.seg"), "{error}");
        assert_eq!(appender.end(), end);
        // A part of it had been written.
        let mut file =
            std::fs::OpenOptions::new().append(true).open(path(&directory, 0, 1)).expect("the file");
        std::io::Write::write_all(&mut file, &framed(1..2)[..20]).expect("written");
        appender.mend_file();
        appender.append(&framed(1..3)).expect("appended");
        assert_eq!(all(&directory, 0, Mark::default()).0, (0..3).map(full).collect::<Vec<_>>());
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }
}
