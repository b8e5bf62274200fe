//! HTTP/1.1 body framing, read side: Content-Length, chunked, until close.
//!
//! Input: bytes as they come. Output: pieces of the body borrowed from them, then the end.
//! Limits: a chunk-size line and the trailer section of at most `LINE_BYTES_MAX` bytes each.
//! Errors: framing that no reader should accept (bare LF, no digits, an overflowing size) is the peer's
//! fault.
//! Source: RFC 9112, sections 6 and 7.

pub const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyReader {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    Size { value: u64, digits: u8, line: usize, stage: SizeStage },
    Data(u64),
    DataEnd { seen_cr: bool },
    Trailer { line: usize, total: usize, seen_cr: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeStage {
    Digits,
    Extension,
    LineFeed,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Data(&'a [u8]),
    End,
}

pub type BodyError = &'static str;

impl BodyReader {
    pub fn length(bytes: u64) -> Self {
        if bytes == 0 { Self::Done } else { Self::Length(bytes) }
    }

    pub fn chunked() -> Self {
        Self::Chunked(Chunk::SIZE)
    }

    /// Takes the next piece off the front of `bytes`; `None` when more bytes are needed. `End` comes again
    /// and again.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, BodyError> {
        match self {
            Self::Done => Ok(Some(Piece::End)),
            Self::UntilClose => Ok(take(bytes, u64::MAX).map(Piece::Data)),
            Self::Length(rest) => {
                let Some(piece) = take(bytes, *rest) else { return Ok(None) };
                *rest -= piece.len() as u64;
                if *rest == 0 {
                    *self = Self::Done;
                }
                Ok(Some(Piece::Data(piece)))
            }
            Self::Chunked(_) => self.next_chunked(bytes),
        }
    }

    /// The connection ended: was this the end of the body?
    pub fn ends_at_close(&self) -> bool {
        matches!(self, Self::UntilClose | Self::Done)
    }

    fn next_chunked<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, BodyError> {
        let Self::Chunked(chunk) = self else { return Ok(None) };
        loop {
            if let Chunk::Data(rest) = chunk {
                let Some(piece) = take(bytes, *rest) else { return Ok(None) };
                *rest -= piece.len() as u64;
                if *rest == 0 {
                    *chunk = Chunk::DataEnd { seen_cr: false };
                }
                return Ok(Some(Piece::Data(piece)));
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(None) };
            *bytes = rest;
            if chunk.step(byte)? == Step::Finished {
                *self = Self::Done;
                return Ok(Some(Piece::End));
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Step {
    More,
    Finished,
}

impl Chunk {
    const SIZE: Self = Self::Size { value: 0, digits: 0, line: 0, stage: SizeStage::Digits };

    fn step(&mut self, byte: u8) -> Result<Step, BodyError> {
        match self {
            Self::Size { .. } => self.step_size(byte),
            Self::Data(_) => Ok(Step::More),
            Self::DataEnd { seen_cr } => {
                match (byte, *seen_cr) {
                    (b'\r', false) => *seen_cr = true,
                    (b'\n', true) => *self = Self::SIZE,
                    _ => return Err("a chunk's data is not followed by CRLF"),
                }
                Ok(Step::More)
            }
            Self::Trailer { line, total, seen_cr } => {
                *total += 1;
                if *total > LINE_BYTES_MAX {
                    return Err("trailer section over 16 KiB");
                }
                match (byte, *seen_cr) {
                    (b'\r', _) => *seen_cr = true,
                    (b'\n', true) if *line == 0 => return Ok(Step::Finished),
                    (b'\n', true) => (*line, *seen_cr) = (0, false),
                    (b'\n', false) => return Err("bare LF in the trailer section"),
                    _ => (*line, *seen_cr) = (*line + 1, false),
                }
                Ok(Step::More)
            }
        }
    }

    fn step_size(&mut self, byte: u8) -> Result<Step, BodyError> {
        let Self::Size { value, digits, line, stage } = self else { return Ok(Step::More) };
        *line += 1;
        if *line > LINE_BYTES_MAX {
            return Err("chunk-size line over 16 KiB");
        }
        match (*stage, byte) {
            (SizeStage::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                if *value >> 60 != 0 {
                    return Err("chunk size over 64 bits");
                }
                *value = *value << 4 | u64::from(digit);
                *digits = digits.saturating_add(1);
            }
            (SizeStage::Digits, _) if *digits == 0 => return Err("a chunk size without digits"),
            (SizeStage::LineFeed, b'\n') => {
                *self = match *value {
                    0 => Self::Trailer { line: 0, total: 0, seen_cr: false },
                    size => Self::Data(size),
                };
            }
            (SizeStage::LineFeed, _) | (_, b'\n') => return Err("a chunk-size line does not end in CRLF"),
            (_, b'\r') => *stage = SizeStage::LineFeed,
            (SizeStage::Digits, b';' | b' ' | b'\t') => *stage = SizeStage::Extension,
            (SizeStage::Digits, _) => return Err("a chunk size that is not hexadecimal"),
            (SizeStage::Extension, _) => {}
        }
        Ok(Step::More)
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: u64) -> Option<&'a [u8]> {
    if bytes.is_empty() {
        return None;
    }
    let size = usize::try_from(most).map_or(bytes.len(), |most| most.min(bytes.len()));
    let (piece, rest) = bytes.split_at(size);
    *bytes = rest;
    Some(piece)
}

#[cfg(test)]
mod tests {
    use super::{BodyReader, Piece};

    fn read(mut reader: BodyReader, text: &[u8], size: usize) -> Result<(Vec<u8>, bool), &'static str> {
        let (mut body, mut ended) = (Vec::new(), false);
        for mut chunk in text.chunks(size) {
            while let Some(piece) = reader.next(&mut chunk)? {
                match piece {
                    Piece::Data(data) => body.extend_from_slice(data),
                    Piece::End => {
                        ended = true;
                        break;
                    }
                }
            }
        }
        Ok((body, ended))
    }

    #[test]
    fn any_chunking_gives_the_same_body() {
        type Row = (&'static str, BodyReader, &'static [u8], &'static [u8], bool);
        let rows: [Row; 5] = [
            ("length", BodyReader::length(5), b"hello", b"hello", true),
            ("short", BodyReader::length(6), b"hello", b"hello", false),
            ("chunked", BodyReader::chunked(), b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello", true),
            ("trailer", BodyReader::chunked(), b"005\r\nhello\r\n0\r\nA: b\r\n\r\n", b"hello", true),
            ("close", BodyReader::UntilClose, b"hello", b"hello", false),
        ];
        for (name, reader, text, body, mut ended) in rows {
            for size in 1..=text.len() {
                let outcome = read(reader.clone(), text, size);
                // The end of a counted body is told with the next pull, which the last chunk here still
                // makes.
                ended |= name == "length";
                assert_eq!(outcome, Ok((body.to_vec(), ended)), "{name} by {size}");
            }
        }
    }

    #[test]
    fn broken_framing_is_refused() {
        let rows: [(&[u8], &str); 6] = [
            (b"\r\n", "without digits"),
            (b"5\nhello", "CRLF"),
            (b"5x\r\n", "hexadecimal"),
            (b"5\r\nhelloX", "not followed by CRLF"),
            (b"11111111111111111\r\n", "64 bits"),
            (b"0\r\nA: b\n\r\n", "bare LF"),
        ];
        for (text, reason) in rows {
            let error = read(BodyReader::chunked(), text, 1).expect_err("must be refused");
            assert!(error.contains(reason), "{error}");
        }
    }
}
