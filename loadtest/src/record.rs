//! Checked text: what the mock writes into every event and the generator proves to have arrived.
//!
//! A stream's text is a row of records. Each names its stream, its place and the time of sending, and carries
//! a CRC over all of that and its words, so loss, duplication, reorder, corruption and another stream's text
//! are told apart.
//! Layout, lower-case letters and spaces only, so that no JSON writer needs to escape it and no number or
//! secret appears for a guard to find:
//!
//! ```text
//! Zq<stream: 8> <sequence: 6> <words length: 4> <sent, µs: 12> <crc: 8> <words>
//! ```
//!
//! Numbers are written with the letters a to p for 0 to 15. Words are a slice of the corpus chosen by stream
//! and sequence, so everything but the time is deterministic.
//! The checker takes text cut anywhere: a gateway may re-chunk a stream, which is not a fault, but is counted
//! elsewhere.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// English text without quotes, backslashes, digits and line breaks.
pub static CORPUS: LazyLock<&'static str> =
    LazyLock::new(|| include_str!("../corpus/english.txt").trim_end());

pub const HEADER_BYTES: usize = 45;
/// Longest words of one record (the field has four letters).
pub const WORDS_BYTES_MAX: usize = 0xffff;
const CRC_AT: usize = HEADER_BYTES - 9;

/// Appends record `sequence` of `stream` with `words` bytes of text, sent at `sent_ns`.
pub fn write(stream: u32, sequence: u32, words: usize, sent_ns: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let words = words.min(WORDS_BYTES_MAX);
    let mut header = *b"Zqssssssss nnnnnn llll tttttttttttt cccccccc ";
    letters(&mut header[2..10], u64::from(stream));
    letters(&mut header[11..17], u64::from(sequence));
    letters(&mut header[18..22], words as u64);
    letters(&mut header[23..35], sent_ns / 1000);
    out.extend_from_slice(&header);
    write_words(stream, sequence, words, out);
    let crc = checksum(&out[start..]);
    letters(&mut out[start + CRC_AT..start + CRC_AT + 8], u64::from(crc));
}

/// The 8 letters by which a request names its stream.
pub fn stream_name(stream: u32) -> [u8; 8] {
    let mut name = [0; 8];
    letters(&mut name, u64::from(stream));
    name
}

pub fn stream_of(name: &[u8]) -> Option<u32> {
    if name.len() != 8 { None } else { number(name).and_then(|value| u32::try_from(value).ok()) }
}

fn write_words(stream: u32, sequence: u32, words: usize, out: &mut Vec<u8>) {
    let Some(length) = words.checked_sub(1) else { return };
    let corpus = CORPUS.as_bytes();
    let seed = u64::from(stream) << 24 ^ u64::from(sequence);
    let mut at = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % corpus.len();
    let mut rest = length;
    while rest > 0 {
        let piece = &corpus[at..(at + rest).min(corpus.len())];
        out.extend_from_slice(piece);
        rest -= piece.len();
        at = 0;
    }
    out.push(b' ');
}

fn checksum(record: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&record[..CRC_AT]);
    crc.update(&record[HEADER_BYTES..]);
    crc.finalize()
}

fn letters(field: &mut [u8], mut value: u64) {
    for byte in field.iter_mut().rev() {
        *byte = b'a' + (value & 15) as u8;
        value >>= 4;
    }
}

fn number(field: &[u8]) -> Option<u64> {
    field.iter().try_fold(0u64, |value, &byte| match byte {
        b'a'..=b'p' => Some(value << 4 | u64::from(byte - b'a')),
        _ => None,
    })
}

/// What went wrong with the text of streams, by kind; all zero is the only pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Records that never came although a later one did, or the stream ended normally.
    pub lost: u64,
    /// Records that came again or after a later one.
    pub repeated: u64,
    /// Text that is no record, or whose checksum is wrong.
    pub corrupted: u64,
    /// Records of another stream.
    pub foreign: u64,
    /// Streams that ended without their dialect's end.
    pub cut: u64,
}

impl Faults {
    pub fn total(&self) -> u64 {
        self.lost + self.repeated + self.corrupted + self.foreign + self.cut
    }

    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.corrupted += other.corrupted;
        self.foreign += other.foreign;
        self.cut += other.cut;
    }
}

/// Proves the text of one stream.
#[derive(Default)]
pub struct Checker {
    stream: u32,
    /// Sequence number that must come next, which is also how many records came.
    pub next: u32,
    carry: Vec<u8>,
}

/// One valid record: when its mock sent it, in microseconds of the monotonic clock.
#[derive(Debug, PartialEq, Eq)]
pub struct Valid {
    pub sent_us: u64,
}

enum Parsed {
    Whole { size: usize, stream: u32, sequence: u32, sent_us: u64 },
    Partial,
    Broken,
}

impl Checker {
    pub fn new(stream: u32) -> Self {
        Self { stream, ..Self::default() }
    }

    /// Takes text as it comes; `on_valid` is called once per record in place.
    pub fn feed(&mut self, text: &[u8], faults: &mut Faults, mut on_valid: impl FnMut(Valid)) {
        if self.carry.is_empty() {
            let rest = self.consume(text, faults, &mut on_valid);
            if !rest.is_empty() {
                self.carry.extend_from_slice(rest);
            }
            return;
        }
        let mut joined = std::mem::take(&mut self.carry);
        joined.extend_from_slice(text);
        let rest = self.consume(&joined, faults, &mut on_valid);
        self.carry = rest.to_vec();
    }

    /// The stream ended normally after `expected` records (`None`: unknown).
    pub fn finish(&mut self, expected: Option<u32>, faults: &mut Faults) {
        if !self.carry.is_empty() {
            faults.corrupted += 1;
            self.carry.clear();
        }
        if let Some(expected) = expected {
            faults.lost += u64::from(expected.saturating_sub(self.next));
        }
    }

    fn consume<'a>(
        &mut self,
        mut text: &'a [u8],
        faults: &mut Faults,
        on_valid: &mut impl FnMut(Valid),
    ) -> &'a [u8] {
        while !text.is_empty() {
            match parse(text) {
                Parsed::Partial => return text,
                Parsed::Whole { size, stream, sequence, sent_us } => {
                    text = &text[size..];
                    if stream != self.stream {
                        faults.foreign += 1;
                    } else if sequence < self.next {
                        faults.repeated += 1;
                    } else {
                        faults.lost += u64::from(sequence - self.next);
                        self.next = sequence + 1;
                        on_valid(Valid { sent_us });
                    }
                }
                Parsed::Broken => {
                    faults.corrupted += 1;
                    let next = memchr::memmem::find(&text[1..], b"Zq").map_or(text.len(), |at| at + 1);
                    text = &text[next..];
                }
            }
        }
        text
    }
}

fn parse(text: &[u8]) -> Parsed {
    let Some(header) = text.get(..HEADER_BYTES) else {
        // A short start that cannot become a record is broken at once, so that the carry stays short.
        let is_start = b"Zq".iter().zip(text).all(|(a, b)| a == b);
        return if is_start { Parsed::Partial } else { Parsed::Broken };
    };
    let fields = (
        number(&header[2..10]),
        number(&header[11..17]),
        number(&header[18..22]),
        number(&header[23..35]),
        number(&header[36..44]),
    );
    let (Some(stream), Some(sequence), Some(words), Some(sent_us), Some(crc)) = fields else {
        return Parsed::Broken;
    };
    // The other spaces are under the checksum.
    if !header.starts_with(b"Zq") || !header.ends_with(b" ") {
        return Parsed::Broken;
    }
    let size = HEADER_BYTES + words as usize;
    let Some(record) = text.get(..size) else { return Parsed::Partial };
    if u64::from(checksum(record)) != crc {
        return Parsed::Broken;
    }
    // Eight and six letters fit 32 bits.
    Parsed::Whole { size, stream: stream as u32, sequence: sequence as u32, sent_us }
}

#[cfg(test)]
mod tests {
    use super::{CORPUS, Checker, Faults, HEADER_BYTES, stream_name, stream_of, write};

    fn records(stream: u32, count: u32) -> Vec<Vec<u8>> {
        let one = |sequence| {
            let mut out = Vec::new();
            write(stream, sequence, 20, 5_000_000, &mut out);
            assert_eq!(out.len(), HEADER_BYTES + 20);
            out
        };
        (0..count).map(one).collect()
    }

    fn check(texts: &[&[u8]], expected: u32) -> (Faults, u32) {
        let (mut checker, mut faults, mut valid) = (Checker::new(7), Faults::default(), 0);
        for text in texts {
            checker.feed(text, &mut faults, |record| {
                assert_eq!(record.sent_us, 5000);
                valid += 1;
            });
        }
        checker.finish(Some(expected), &mut faults);
        (faults, valid)
    }

    #[test]
    fn any_cutting_of_a_whole_text_passes() {
        let text = records(7, 5).concat();
        for size in 1..=text.len() {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(check(&pieces, 5), (Faults::default(), 5), "by {size}");
        }
    }

    #[test]
    fn each_kind_of_fault_is_named() {
        let r = records(7, 5);
        let other = records(8, 1).remove(0);
        let mut bent = r[1].clone();
        bent[HEADER_BYTES + 3] ^= 1;
        let none = Faults::default();
        let rows: [(&str, Vec<&[u8]>, Faults); 7] = [
            ("lost inside", vec![&r[0], &r[2]], Faults { lost: 1, ..none }),
            ("lost at the end", vec![&r[0], &r[1]], Faults { lost: 1, ..none }),
            ("twice", vec![&r[0], &r[0], &r[1], &r[2]], Faults { repeated: 1, ..none }),
            ("swapped", vec![&r[1], &r[0], &r[2]], Faults { lost: 1, repeated: 1, ..none }),
            ("bent", vec![&r[0], &bent, &r[2]], Faults { lost: 1, corrupted: 1, ..none }),
            ("foreign", vec![&r[0], &other, &r[1], &r[2]], Faults { foreign: 1, ..none }),
            ("cut short", vec![&r[0], &r[1], &r[2], &r[3][..30]], Faults { corrupted: 1, ..none }),
        ];
        for (name, texts, faults) in rows {
            assert_eq!(check(&texts, 3).0, faults, "{name}");
        }
    }

    #[test]
    fn every_single_byte_change_is_noticed() {
        let text = records(7, 2).concat();
        for at in 0..text.len() {
            let mut bent = text.clone();
            bent[at] ^= 2;
            let (faults, _) = check(&[&bent], 2);
            assert!(faults.total() > 0, "byte {at} of {}", text.len());
        }
    }

    #[test]
    fn the_corpus_needs_no_escaping() {
        assert!(
            CORPUS.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\<>&0123456789".contains(&byte))
        );
    }

    #[test]
    fn a_stream_name_round_trips() {
        for stream in [0, 1, 0xdead_beef, u32::MAX] {
            assert_eq!(stream_of(&stream_name(stream)), Some(stream));
        }
        assert_eq!(stream_of(b"abcdefgz"), None);
    }
}
