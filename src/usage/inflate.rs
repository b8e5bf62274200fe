//! Metering answers that come compressed: a copy is decompressed for the meter, the bytes themselves pass as
//! they are.
//!
//! Input: pieces of a body as they come, and its `content-encoding`. Output: the meter's. The gateway never
//! asks for a compressed answer when it meters; some upstreams send one all the same.
//!
//! Limits: [`INFLATED_MAX`] bytes of an answer are read, so that a few bytes cannot cost minutes, and about
//! [`STEP_MAX`] of them at once: the caller lets others run before it asks for more ([`Inflate::catch_up`]). Memory
//! is the decompressor's window (32 KB for gzip and deflate, up to 16 MB for Brotli as its sender chooses) and
//! what of a piece waits for the next step.
//! Errors: what cannot be decompressed, or goes on beyond the limit, is read up to there; the usage is then
//! an estimate, for which the bytes from there on, as they came, count as text.
//! Absent: zstd and stacked codings, which [`Coding::of`] does not know.
//! Source: RFC 9110 8.4.1, RFC 1950 to 1952, RFC 7932.

use crate::codec::sse::Framer;
use crate::usage::meter::{Meter, Shape};
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use std::io::{self, Write};

/// Most decompressed bytes of one answer that are read.
pub const INFLATED_MAX: u64 = 64 * 1024 * 1024;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// With the zlib wrapper, as the specification wants it.
    Deflate,
    Brotli,
}

impl Coding {
    /// The coding of that name in `content-encoding`; none where it is not known here.
    pub fn of(name: &[u8]) -> Option<Coding> {
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Coding::Gzip),
            b"deflate" => Some(Coding::Deflate),
            b"br" => Some(Coding::Brotli),
            _ => None,
        }
    }
}

/// Most decompressed bytes that are read in one step, but for what a decompressor still holds then (64 KiB).
pub const STEP_MAX: usize = 256 * 1024;

/// A meter behind a decompressor.
pub struct Inflate {
    decoder: Decoder,
    /// What of the pieces so far is left for further steps.
    waiting: Vec<u8>,
    is_behind: bool,
    /// The body is broken, too long, or at its end: nothing more is read.
    done: bool,
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Plain>>),
    Deflate(Box<ZlibDecoder<Plain>>),
    Brotli(Box<Brotli>),
}

/// Written out, since the writer of its crate cannot stop before it has given all that a piece holds.
struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    total_out: usize,
    plain: Plain,
}

/// Where the plain bytes go.
struct Plain {
    meter: Meter,
    framer: Framer,
    shape: Shape,
    left: u64,
    left_in_step: usize,
}

/// What became of a step that could be made.
struct Step {
    /// Bytes that need not be given again.
    used: usize,
    /// There is more to be had, of the bytes that were not used or of those that were.
    is_behind: bool,
}

impl Inflate {
    /// `meter` is a new one; `shape` is its own.
    pub fn new(coding: Coding, meter: Meter, shape: Shape) -> Inflate {
        let plain = Plain { meter, framer: Framer::new(), shape, left: INFLATED_MAX, left_in_step: 0 };
        let decoder = match coding {
            Coding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(plain))),
            Coding::Deflate => Decoder::Deflate(Box::new(ZlibDecoder::new(plain))),
            Coding::Brotli => Decoder::Brotli(Box::new(Brotli::new(plain))),
        };
        Inflate { decoder, waiting: Vec::new(), is_behind: false, done: false }
    }

    /// Reads a piece of the body, as it came, or the beginning of what it holds: see `is_behind`.
    pub fn piece(&mut self, bytes: &[u8]) {
        if self.is_behind {
            return self.waiting.extend_from_slice(bytes);
        }
        let used = self.step(bytes);
        self.waiting.extend_from_slice(&bytes[used..]);
    }

    /// Pieces that were given hold more than has been read: `catch_up` before the next one.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Reads on, one step.
    pub fn catch_up(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.drain(..self.step(&waiting));
        self.waiting = waiting;
    }

    /// The body has come to its end. What was not caught up with is not read.
    pub fn end(&mut self) {
        self.done = true;
        self.catch_up();
        let plain = self.decoder.plain();
        if plain.shape == Shape::Whole || !plain.framer.is_between_events() {
            plain.meter.end();
        }
    }

    pub fn meter(&self) -> &Meter {
        let plain = match &self.decoder {
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Deflate(decoder) => decoder.get_ref(),
            Decoder::Brotli(decoder) => &decoder.plain,
        };
        &plain.meter
    }

    /// How many of `bytes` need not be given again.
    fn step(&mut self, bytes: &[u8]) -> usize {
        self.decoder.plain().left_in_step = STEP_MAX;
        let step = if self.done { None } else { self.decoder.step(bytes).ok() };
        self.is_behind = step.as_ref().is_some_and(|step| step.is_behind);
        match step {
            Some(step) => step.used,
            None => {
                self.done = true;
                self.decoder.plain().meter.unread(bytes.len());
                bytes.len()
            }
        }
    }
}

impl Decoder {
    /// Unless it stays behind, all plain bytes that `bytes` complete have reached the meter on return.
    fn step(&mut self, bytes: &[u8]) -> io::Result<Step> {
        match self {
            Decoder::Gzip(decoder) => {
                step_of(&mut **decoder, |decoder| decoder.get_ref().left_in_step, bytes)
            }
            Decoder::Deflate(decoder) => {
                step_of(&mut **decoder, |decoder| decoder.get_ref().left_in_step, bytes)
            }
            Decoder::Brotli(decoder) => decoder.step(bytes),
        }
    }

    fn plain(&mut self) -> &mut Plain {
        match self {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Deflate(decoder) => decoder.get_mut(),
            Decoder::Brotli(decoder) => &mut decoder.plain,
        }
    }
}

/// A write of these takes so much of its bytes as gives 32 KiB.
fn step_of<W: Write>(decoder: &mut W, left: impl Fn(&W) -> usize, bytes: &[u8]) -> io::Result<Step> {
    let mut used = 0;
    while used < bytes.len() {
        if left(decoder) == 0 {
            return Ok(Step { used, is_behind: true });
        }
        match decoder.write(&bytes[used..])? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            taken => used += taken,
        }
    }
    decoder.flush()?;
    Ok(Step { used, is_behind: false })
}

impl Brotli {
    fn new(plain: Plain) -> Brotli {
        let alloc = StandardAlloc::default;
        // Strict: no windows beyond those of RFC 7932, which may take 1 GB.
        Brotli { state: BrotliState::new_strict(alloc(), alloc(), alloc()), total_out: 0, plain }
    }

    fn step(&mut self, bytes: &[u8]) -> io::Result<Step> {
        let (mut used, mut left) = (0, bytes.len());
        let mut out = [0; 4096];
        loop {
            let (mut room, mut made) = (out.len(), 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut used,
                bytes,
                &mut room,
                &mut made,
                &mut out,
                &mut self.total_out,
                &mut self.state,
            );
            self.plain.write_all(&out[..made])?;
            match result {
                BrotliResult::NeedsMoreOutput if self.plain.left_in_step > 0 => {}
                BrotliResult::NeedsMoreOutput => return Ok(Step { used, is_behind: true }),
                BrotliResult::NeedsMoreInput => return Ok(Step { used, is_behind: false }),
                BrotliResult::ResultSuccess if left == 0 => return Ok(Step { used, is_behind: false }),
                BrotliResult::ResultSuccess | BrotliResult::ResultFailure => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len() as u64;
        let Some(left) = self.left.checked_sub(len) else {
            return Err(io::Error::other("more plain bytes than are read"));
        };
        self.left = left;
        self.left_in_step = self.left_in_step.saturating_sub(bytes.len());
        let mut rest = bytes;
        if self.shape == Shape::Stream {
            while let Some(end) = self.framer.end_of_event(rest) {
                self.meter.event(&rest[..end]);
                rest = &rest[end..];
            }
        }
        self.meter.piece(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::dialect::Dialect;
    use crate::usage::meter::Known;
    use crate::usage::{Provenance, Usage};
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello there\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"!\"}}]}\r\n\r\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";

    fn coded(coding: Coding, plain: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(plain).expect("memory");
                encoder.finish().expect("memory")
            }
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(plain).expect("memory");
                encoder.finish().expect("memory")
            }
            Coding::Brotli => stored_brotli(plain),
        }
    }

    /// Brotli without compression (RFC 7932 9.2): a window of 16 bits, then blocks that say that they are
    /// stored.
    fn stored_brotli(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, block) in plain.chunks(1 << 16).enumerate() {
            // Lowest bit first: [window: 0] last: 0, four nibbles: 00, length - 1: 16 bits, stored: 1.
            let header = (block.len() as u32 - 1) << 3 | 1 << 19;
            let header = if at == 0 { header << 1 } else { header };
            out.extend_from_slice(&header.to_le_bytes()[..3]);
            out.extend_from_slice(block);
        }
        out.push(0b11);
        out
    }

    fn metered(coding: Coding, body: &[u8], piece_len: usize) -> Usage {
        let mut inflate = Inflate::new(coding, Meter::new(Dialect::OpenAiChat, Shape::Stream), Shape::Stream);
        for piece in body.chunks(piece_len) {
            inflate.piece(piece);
            while inflate.is_behind() {
                inflate.catch_up();
            }
        }
        inflate.end();
        inflate.meter().finish(Known { request_bytes: 40, output_max: None })
    }

    #[test]
    fn a_compressed_stream_is_metered_however_it_is_cut() {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
            let body = coded(coding, STREAM.as_bytes());
            for piece_len in [1, 2, 7, 64, body.len()] {
                let usage = metered(coding, &body, piece_len);
                assert_eq!((usage.input, usage.output), (Some(5), Some(3)), "{coding:?} {piece_len}");
                assert_eq!(usage.provenance, Provenance::Provider);
            }
        }
    }

    #[test]
    fn events_reach_the_meter_with_the_bytes_that_complete_them() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let mut inflate =
            Inflate::new(Coding::Gzip, Meter::new(Dialect::OpenAiChat, Shape::Stream), Shape::Stream);
        for (at, event) in STREAM.split_inclusive("\n\n").enumerate().take(1) {
            encoder.write_all(event.as_bytes()).expect("memory");
            encoder.flush().expect("memory");
            inflate.piece(encoder.get_ref());
            assert_eq!(inflate.meter().content_events(), at as u64 + 1);
        }
    }

    #[test]
    fn what_is_broken_is_read_up_to_there_and_estimated() {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
            let body = coded(coding, STREAM.as_bytes());
            assert_eq!(metered(coding, &body[..body.len() / 2], 5).provenance, Provenance::Estimated);
            let usage = metered(coding, b"\xffno such coding", 15);
            assert_eq!((usage.input, usage.output), (Some(10), Some(4)), "{coding:?}");
        }
    }

    #[test]
    fn plain_bytes_are_bounded() {
        let mut plain = Plain {
            meter: Meter::new(Dialect::OpenAiEmbeddings, Shape::Whole),
            framer: Framer::new(),
            shape: Shape::Whole,
            left: 3,
            left_in_step: 0,
        };
        assert!(plain.write(b"[[[").is_ok());
        assert!(plain.write(b"[").is_err());
        let bomb = coded(Coding::Gzip, &vec![b' '; 1 << 20]);
        let mut inflate =
            Inflate::new(Coding::Gzip, Meter::new(Dialect::OpenAiEmbeddings, Shape::Whole), Shape::Whole);
        inflate.decoder.plain().left = 1 << 19;
        inflate.piece(&bomb);
        while inflate.is_behind() {
            inflate.catch_up();
        }
        assert!(inflate.done);
    }

    #[test]
    fn a_piece_that_holds_much_is_read_step_by_step() {
        // The text counts, so that the meter tells what was read of it.
        let text = 4 << 20;
        let mut plain = b"{\"choices\":[{\"message\":{\"content\":\"".to_vec();
        plain.resize(plain.len() + text, b'a');
        plain.extend_from_slice(b"\"}}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}");
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
            let body = coded(coding, &plain);
            let meter = Meter::new(Dialect::OpenAiChat, Shape::Whole);
            let mut inflate = Inflate::new(coding, meter, Shape::Whole);
            let (mut left, mut steps) = (INFLATED_MAX, 0);
            inflate.piece(&body);
            loop {
                let read = left - inflate.decoder.plain().left;
                assert!(read <= (STEP_MAX + 64 * 1024) as u64, "{coding:?}: {read} bytes in step {steps}");
                left -= read;
                if !inflate.is_behind() {
                    break;
                }
                steps += 1;
                // What comes meanwhile waits its turn.
                inflate.piece(&[]);
                inflate.catch_up();
            }
            assert!(steps >= text / STEP_MAX - 2, "{coding:?}: {steps} steps");
            inflate.end();
            let usage = inflate.meter().finish(Known::default());
            assert_eq!((usage.input, usage.output), (Some(5), Some(3)), "{coding:?}");
        }
    }

    #[test]
    fn what_is_left_when_a_body_ends_counts_as_text() {
        let body = coded(Coding::Brotli, &vec![b' '; 4 << 20]);
        let mut inflate =
            Inflate::new(Coding::Brotli, Meter::new(Dialect::OpenAiChat, Shape::Whole), Shape::Whole);
        inflate.piece(&body);
        assert!(inflate.is_behind());
        inflate.end();
        assert!(!inflate.is_behind() && inflate.meter().text_bytes() > (3 << 20));
    }

    #[test]
    fn a_window_beyond_the_specification_is_refused() {
        // RFC 7932 9.1 reserves 0010001; the extension of some encoders follows it with a size of 30 bits.
        let mut inflate =
            Inflate::new(Coding::Brotli, Meter::new(Dialect::OpenAiChat, Shape::Whole), Shape::Whole);
        inflate.piece(&[0b0001_0001, 30, 0, 0]);
        assert!(inflate.done);
    }

    #[test]
    fn codings_are_known_by_name() {
        assert_eq!(Coding::of(b" GZip "), Some(Coding::Gzip));
        assert_eq!(Coding::of(b"br"), Some(Coding::Brotli));
        for name in ["zstd", "gzip, br", "", "identity"] {
            assert_eq!(Coding::of(name.as_bytes()), None);
        }
    }
}
