//! Chunked bodies: no input panics, no way of cutting the input changes data or end, and httparse reads every
//! chunk line that we accept in the same way.
//!
//! Input: the first byte chooses where the rest is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::codec::http1::{Chunk, ChunkDecoder, ChunkError};

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = decode([bytes].into_iter());
    assert_eq!(decode(bytes.chunks(usize::from(cut) + 1)), whole);
    assert_first_line_agrees(bytes);
    if let Ok((data, Some(end))) = whole {
        // Written again without extensions and trailers, it is the same data.
        let mut out = Vec::new();
        for piece in data.chunks(usize::from(cut) + 1) {
            tollgate::codec::http1::write_chunk_head(&mut out, piece.len());
            out.extend_from_slice(piece);
            out.extend_from_slice(tollgate::codec::http1::CHUNK_END);
        }
        out.extend_from_slice(tollgate::codec::http1::LAST_CHUNK);
        assert!(end <= bytes.len());
        assert_eq!(decode([&out[..]].into_iter()), Ok((data, Some(out.len()))));
    }
});

fn assert_first_line_agrees(bytes: &[u8]) {
    let mut decoder = ChunkDecoder::new();
    if let Ok(Chunk::Data(range)) = decoder.next(bytes) {
        let size = range.len() as u64 + decoder.chunk_remaining();
        assert_eq!(httparse::parse_chunk_size(bytes), Ok(httparse::Status::Complete((range.start, size))));
    }
}

/// Data, and where the body ended.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, Option<usize>), ChunkError> {
    let (mut decoder, mut data, mut offset) = (ChunkDecoder::new(), Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.next(&piece[at..])? {
                Chunk::Data(range) => {
                    data.extend_from_slice(&piece[at..][range.clone()]);
                    at += range.end;
                }
                Chunk::NeedMore => break,
                Chunk::End { consumed } => return Ok((data, Some(offset + at + consumed))),
            }
        }
        offset += piece.len();
    }
    Ok((data, None))
}
