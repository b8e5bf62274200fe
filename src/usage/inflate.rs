//! Metering answers that come compressed: a copy is decompressed for the meter, the bytes themselves pass as
//! they are.
//!
//! Input: pieces of a body as they come, and its `content-encoding`. Output: the meter's. The gateway never
//! asks for a compressed answer when it meters; some upstreams send one all the same.
//!
//! Limits: [`INFLATED_MAX`] bytes of an answer are read, so that a few bytes cannot cost minutes; memory is
//! the decompressor's window (32 KB for gzip and deflate, up to 16 MB for Brotli as its sender chooses).
//! Errors: what cannot be decompressed, or goes on beyond the limit, is read up to there; the usage is then
//! an estimate, for which the bytes from there on, as they came, count as text.
//! Absent: zstd and stacked codings, which [`Coding::of`] does not know.
//! Source: RFC 9110 8.4.1, RFC 1950 to 1952, RFC 7932.

use crate::codec::sse::Framer;
use crate::usage::meter::{Meter, Shape};
use brotli_decompressor::DecompressorWriter;
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

/// A meter behind a decompressor.
pub struct Inflate {
    decoder: Decoder,
    /// The body is broken, too long, or at its end: nothing more is read.
    done: bool,
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Plain>>),
    Deflate(Box<ZlibDecoder<Plain>>),
    Brotli(Box<DecompressorWriter<Plain>>),
}

/// Where the plain bytes go.
struct Plain {
    meter: Meter,
    framer: Framer,
    shape: Shape,
    left: u64,
}

impl Inflate {
    /// `meter` is a new one; `shape` is its own.
    pub fn new(coding: Coding, meter: Meter, shape: Shape) -> Inflate {
        let plain = Plain { meter, framer: Framer::new(), shape, left: INFLATED_MAX };
        let decoder = match coding {
            Coding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(plain))),
            Coding::Deflate => Decoder::Deflate(Box::new(ZlibDecoder::new(plain))),
            Coding::Brotli => Decoder::Brotli(Box::new(DecompressorWriter::new(plain, 4096))),
        };
        Inflate { decoder, done: false }
    }

    /// Reads a piece of the body, as it came.
    pub fn piece(&mut self, bytes: &[u8]) {
        self.done = self.done || self.decoder.write(bytes).is_err();
        if self.done {
            self.decoder.plain().meter.unread(bytes.len());
        }
    }

    /// The body has come to its end.
    pub fn end(&mut self) {
        self.done = true;
        let plain = self.decoder.plain();
        if plain.shape == Shape::Whole || !plain.framer.is_between_events() {
            plain.meter.end();
        }
    }

    pub fn meter(&self) -> &Meter {
        let plain = match &self.decoder {
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Deflate(decoder) => decoder.get_ref(),
            Decoder::Brotli(decoder) => decoder.get_ref(),
        };
        &plain.meter
    }
}

impl Decoder {
    /// All plain bytes that `bytes` complete have reached the meter on return.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let writer: &mut dyn Write = match self {
            Decoder::Gzip(decoder) => &mut **decoder,
            Decoder::Deflate(decoder) => &mut **decoder,
            Decoder::Brotli(decoder) => &mut **decoder,
        };
        writer.write_all(bytes)?;
        writer.flush()
    }

    fn plain(&mut self) -> &mut Plain {
        match self {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Deflate(decoder) => decoder.get_mut(),
            Decoder::Brotli(decoder) => decoder.get_mut(),
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
        body.chunks(piece_len).for_each(|piece| inflate.piece(piece));
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
        };
        assert!(plain.write(b"[[[").is_ok());
        assert!(plain.write(b"[").is_err());
        let bomb = coded(Coding::Gzip, &vec![b' '; 1 << 20]);
        let mut inflate =
            Inflate::new(Coding::Gzip, Meter::new(Dialect::OpenAiEmbeddings, Shape::Whole), Shape::Whole);
        inflate.decoder.plain().left = 1 << 19;
        inflate.piece(&bomb);
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
