//! Chunked bodies: grammar, bounds, and the same data for every way of cutting them.

use super::wire;
use crate::codec::http1::{
    CHUNK_LINE_BYTES_MAX, Chunk, ChunkDecoder, ChunkError, EXTENSION_BYTES_MAX, TRAILER_BYTES_MAX,
    TRAILERS_MAX,
};

/// Data, and whether the body ended and where; fed in the given pieces.
type Decoded = Result<(Vec<u8>, Option<usize>), ChunkError>;

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = ChunkDecoder::new();
    let (mut data, mut offset) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.next(&piece[at..])? {
                Chunk::Data(range) => {
                    assert!(!range.is_empty(), "data is never empty");
                    data.extend_from_slice(&piece[at..][range.clone()]);
                    at += range.end;
                }
                Chunk::NeedMore => break,
                Chunk::End { consumed } => {
                    assert!(decoder.is_done());
                    assert_eq!(decoder.next(b"GET"), Ok(Chunk::End { consumed: 0 }), "the end stays");
                    return Ok((data, Some(offset + at + consumed)));
                }
            }
        }
        offset += piece.len();
    }
    Ok((data, None))
}

/// The same for every cut in two and byte by byte.
fn decoded(name: &str, bytes: &[u8]) -> Decoded {
    let whole = decode([bytes].into_iter());
    assert_eq!(decode(bytes.chunks(1)), whole, "{name}: byte by byte");
    let step = (bytes.len() / 2048).max(1);
    for cut in (0..=bytes.len()).step_by(step) {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(decode([a, b].into_iter()), whole, "{name}: cut at {cut}");
    }
    whole
}

#[test]
fn legal_bodies_give_their_data_and_their_end() {
    let rows: &[(&str, &str, &str)] = &[
        ("one chunk", "5|hello|0||", "hello"),
        ("no data", "0||", ""),
        ("three chunks", "1|a|2|bc|A|0123456789|0||", "abc0123456789"),
        ("hex in both cases", "a|0123456789|B|0123456789a|0||", "01234567890123456789a"),
        ("leading zeros to 16 digits", "0000000000000005|hello|0000000000000000||", "hello"),
        ("data that looks like framing", "7|\r\n0\r\n\r\n|0||", "\r\n0\r\n\r\n"),
        ("an extension", "5;a=b|hello|0||", "hello"),
        ("an extension without value", "5;a|hello|0;z||", "hello"),
        ("a quoted extension", "5;a=\"b;c\\\" \t=\"|hello|0||", "hello"),
        ("an empty quoted extension", "5;a=\"\"|hello|0||", "hello"),
        ("whitespace within extensions", "5 ;\ta = b ; c\t=\t\"d\" ;e|hello|0||", "hello"),
        ("a trailer", "5|hello|0|X-T: 1||", "hello"),
        ("trailers that would frame", "5|hello|0|Content-Length: 9|Host: evil|Authorization: x||", "hello"),
        ("an empty trailer value", "0|X-T:|Y:\t||", ""),
    ];
    for &(name, body, data) in rows {
        let bytes = [wire(body), b"GET /next".to_vec()].concat();
        let end = bytes.len() - 9;
        assert_eq!(decoded(name, &bytes), Ok((data.as_bytes().to_vec(), Some(end))), "{name}");
        for cut in 0..end {
            let (_, ended) = decode([&bytes[..cut]].into_iter()).expect("a cut is no error");
            assert_eq!(ended, None, "{name}: cut at {cut} is not an end");
        }
    }
}

const BROKEN: &[(&str, &str)] = &[
    ("an empty size line", "|hello|0||"),
    ("an empty size line after data", "5|hello||0||"),
    ("an extension without size", ";a=b|hello|0||"),
    ("0x", "0x5|hello|0||"),
    ("plus", "+5|hello|0||"),
    ("minus", "-1|hello|0||"),
    ("underscore", "0_5|hello|0||"),
    ("not hex", "5g|hello|0||"),
    ("space before the size", " 5|hello|0||"),
    ("space after the size", "5 |hello|0||"),
    ("tab after the size", "5\t|hello|0||"),
    ("17 digits", "00000000000000005|hello|0||"),
    ("over 64 bits", "10000000000000005|hello|0||"),
    ("2^64 - 1", "FFFFFFFFFFFFFFFF|hello|0||"),
    ("2^63", "8000000000000000|hello|0||"),
    ("LF after the size", "5\nhello|0||"),
    ("CR after the size", "5\rhello|0||"),
    ("LF after an extension", "5;x\nhello|0||"),
    ("CR in an extension", "5;x\ry|hello|0||"),
    ("NUL in an extension", "5;\0|hello|0||"),
    ("an extension without name", "5;|hello|0||"),
    ("an extension with an empty value", "5;a=|hello|0||"),
    ("a second value", "5;a=b=c|hello|0||"),
    ("whitespace after an extension", "5;a=b |hello|0||"),
    ("a word after an extension", "5;a=b c|hello|0||"),
    ("a quote in a token", "5;a=b\"c\"|hello|0||"),
    ("a quote not closed", "5;a=\"b|hello|0||"),
    ("a control in a quote", "5;a=\"\u{1}\"|hello|0||"),
    ("a quoted CR", "5;a=\"\\\r\n\"|hello|0||"),
    ("a quoted LF", "5;a=\"\n\"|hello|0||"),
    ("data longer than its size", "4|hello|0||"),
    ("data shorter than its size", "6|hello|0||"),
    ("two bytes that are not CRLF", "5|helloXX0||"),
    ("LF after data", "5|hello\n0||"),
    ("CR and no LF after data", "5|hello\rX0||"),
    ("a last chunk of LFs", "5|hello|0\n\n"),
    ("a trailer section that ends in LF", "0|\n"),
    ("a CR and no LF at the end", "0|\rX"),
    ("a request line as a trailer", "0|GET /smuggled HTTP/1.1|Host: a||"),
    ("a trailer without colon", "0|XT||"),
    ("a trailer with an empty name", "0|: a||"),
    ("a trailer with a space before the colon", "0|X : a||"),
    ("a folded trailer", "0|X: a| b||"),
    ("a trailer with NUL", "0|X: a\0||"),
    ("a trailer with a bare LF", "0|X: a\nY: b||"),
    ("a trailer with a bare CR", "0|X: a\rY: b||"),
];

#[test]
fn everything_else_is_an_error() {
    for &(name, body) in BROKEN {
        let bytes = wire(body);
        assert!(decoded(name, &bytes).is_err(), "{name}: {:?}", decoded(name, &bytes));
    }
}

#[test]
fn an_error_stays() {
    let mut decoder = ChunkDecoder::new();
    let error = decoder.next(b"zz\r\n").expect_err("not hex");
    assert_eq!(decoder.next(b"0\r\n\r\n"), Err(error));
    assert!(!decoder.is_done());
}

#[test]
fn data_is_handed_out_before_its_chunk_is_whole() {
    let mut decoder = ChunkDecoder::new();
    assert_eq!(decoder.next(b"64\r\nhello"), Ok(Chunk::Data(4..9)));
    assert_eq!(decoder.chunk_remaining(), 95);
    assert_eq!(decoder.next(b"x"), Ok(Chunk::Data(0..1)));
    assert_eq!(decoder.next(b""), Ok(Chunk::NeedMore));
    // The largest size is only a number: nothing is reserved for it.
    let mut decoder = ChunkDecoder::new();
    assert_eq!(decoder.next(b"7fffffffffffffff\r\nab"), Ok(Chunk::Data(18..20)));
    assert_eq!(decoder.chunk_remaining(), i64::MAX as u64 - 2);
}

#[test]
fn extensions_are_bounded_per_line_and_per_body() {
    let line = |len: usize| format!("1;{}\r\nx\r\n", "e".repeat(len - 2)).into_bytes();
    assert!(decoded("line at its bound", &line(CHUNK_LINE_BYTES_MAX)).is_ok());
    assert!(decoded("line one past it", &line(CHUNK_LINE_BYTES_MAX + 1)).is_err());
    assert!(decoded("70,000 bytes", &line(70_000)).is_err());
    // 256-byte lines carry 255 bytes of extension each; the rest is made up by the last line.
    let full = EXTENSION_BYTES_MAX / (CHUNK_LINE_BYTES_MAX - 1);
    let rest = EXTENSION_BYTES_MAX % (CHUNK_LINE_BYTES_MAX - 1);
    let body = |last: usize| [line(CHUNK_LINE_BYTES_MAX).repeat(full), line(last + 1)].concat();
    assert!(decode([&body(rest)[..]].into_iter()).is_ok());
    assert!(decode([&body(rest + 1)[..]].into_iter()).is_err());
}

#[test]
fn trailers_are_bounded_in_count_and_bytes() {
    let trailers = |count: usize| format!("0\r\n{}\r\n", "a: b\r\n".repeat(count)).into_bytes();
    assert!(decoded("count", &trailers(TRAILERS_MAX)).is_ok());
    assert!(decoded("count", &trailers(TRAILERS_MAX + 1)).is_err());
    // Each line counts whole: name, colon, value, CRLF.
    let long = |bytes: usize| format!("0\r\na:{}\r\n\r\n", "b".repeat(bytes - 4)).into_bytes();
    assert!(decoded("bytes", &long(TRAILER_BYTES_MAX)).is_ok());
    assert!(decoded("bytes", &long(TRAILER_BYTES_MAX + 1)).is_err());
    assert!(decoded("200,000 bytes", &long(200_000)).is_err());
}
