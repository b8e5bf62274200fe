//! What is written can be read back, and nothing else is written.

use crate::codec::http1::{
    Asked, BodyFraming, CHUNK_END, Chunk, ChunkDecoder, HeadLimits, HeadWriter, LAST_CHUNK, ResponseFraming,
    ResponseScan, chunk_head, decode_request, reason_phrase, write_chunk_head,
};
use proptest::prelude::*;

#[test]
fn heads_are_written_as_the_rfc_spells_them() {
    let mut out = b"before".to_vec();
    let mut head = HeadWriter::request(&mut out, "POST", "/v1/chat?x=y");
    head.field(b"host", b"api.test").field(b"x-empty", b"").framing(ResponseFraming::Length(12));
    head.finish().expect("valid");
    assert_eq!(
        String::from_utf8_lossy(&out),
        "beforePOST /v1/chat?x=y HTTP/1.1\r\nhost: api.test\r\nx-empty: \r\ncontent-length: 12\r\n\r\n"
    );
    let mut out = Vec::new();
    let mut head = HeadWriter::response(&mut out, 200, reason_phrase(200).as_bytes());
    head.field(b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT").framing(ResponseFraming::Chunked);
    head.finish().expect("valid");
    let expected =
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
    for framing in [ResponseFraming::None, ResponseFraming::UntilClose] {
        let mut out = Vec::new();
        let mut head = HeadWriter::response(&mut out, 599, b"");
        head.framing(framing);
        head.finish().expect("valid");
        assert_eq!(out, b"HTTP/1.1 599 \r\n\r\n");
    }
}

#[test]
fn nothing_is_written_where_a_part_would_break_the_head() {
    type Write = fn(&mut Vec<u8>) -> bool;
    fn response(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> bool {
        let mut head = HeadWriter::response(out, 200, b"OK");
        head.field(b"a", b"b").field(name, value).field(b"c", b"d");
        head.finish().is_ok()
    }
    let rows: &[(&str, Write)] = &[
        ("CR in a value", |out| response(out, b"x", b"a\rb")),
        ("LF in a value", |out| response(out, b"x", b"a\nb")),
        ("NUL in a value", |out| response(out, b"x", b"a\0b")),
        ("a control in a value", |out| response(out, b"x", b"a\x1bb")),
        ("CRLF in a name", |out| response(out, b"x\r\ny", b"a")),
        ("a colon in a name", |out| response(out, b"x:", b"a")),
        ("an empty name", |out| response(out, b"", b"a")),
        ("a length as a field", |out| response(out, b"Content-Length", b"1")),
        ("a coding as a field", |out| response(out, b"transfer-encoding", b"chunked")),
        ("LF in a reason", |out| HeadWriter::response(out, 200, b"O\nK").finish().is_ok()),
        ("status 99", |out| HeadWriter::response(out, 99, b"").finish().is_ok()),
        ("status 1000", |out| HeadWriter::response(out, 1000, b"").finish().is_ok()),
        ("a space in a target", |out| HeadWriter::request(out, "GET", "/a b").finish().is_ok()),
        ("CRLF in a target", |out| HeadWriter::request(out, "GET", "/a\r\nx: y").finish().is_ok()),
        ("an empty target", |out| HeadWriter::request(out, "GET", "").finish().is_ok()),
        ("a space in a method", |out| HeadWriter::request(out, "GE T", "/").finish().is_ok()),
        ("framing twice", |out| {
            let mut head = HeadWriter::response(out, 200, b"OK");
            head.framing(ResponseFraming::Chunked).framing(ResponseFraming::Length(1));
            head.finish().is_ok()
        }),
        ("no finish", |out| {
            HeadWriter::response(out, 200, b"OK").field(b"a", b"b");
            false
        }),
    ];
    for (name, write) in rows {
        let mut out = b"before".to_vec();
        assert!(!write(&mut out), "{name}");
        assert_eq!(out, b"before", "{name}");
    }
}

#[test]
fn chunk_heads_are_hex_without_leading_zeros() {
    for (len, expected) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (0xabc, "abc\r\n"),
        (usize::MAX, "ffffffffffffffff\r\n"),
    ] {
        let head = chunk_head(len).expect("not zero");
        assert_eq!(head.as_bytes(), expected.as_bytes());
        let mut out = Vec::new();
        write_chunk_head(&mut out, len);
        assert_eq!(out, expected.as_bytes());
    }
    let mut out = Vec::new();
    write_chunk_head(&mut out, 0);
    assert!(out.is_empty() && chunk_head(0).is_none(), "a zero would end the body");
}

fn name() -> impl Strategy<Value = String> {
    // Not a name that the codec itself understands.
    "x-[!#$%&'*+.^`|~0-9A-Za-z-]{0,20}"
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff, Just(b'\t')], 0..40)
}

fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

proptest! {
    #[test]
    fn a_written_request_is_read_back(
        method in "[A-Z]{1,10}",
        path in "/[a-z0-9/=&]{0,60}",
        fields in prop::collection::vec((name(), value()), 0..20),
        length in prop::option::of(0..=i64::MAX as u64),
    ) {
        prop_assume!(method != "CONNECT");
        let framing = length.map_or(BodyFraming::Chunked, BodyFraming::Length);
        let mut out = Vec::new();
        let mut head = HeadWriter::request(&mut out, &method, &path);
        head.field(b"host", b"a.test");
        for (name, value) in &fields {
            head.field(name.as_bytes(), value);
        }
        head.framing(framing.into());
        head.finish().expect("valid");
        let read = decode_request(&out).expect("readable");
        prop_assert_eq!(read.method.as_str(), &method);
        prop_assert_eq!(read.path_and_query(), &path);
        prop_assert_eq!(read.framing, framing);
        prop_assert_eq!(read.headers.len(), fields.len() + 2);
        for (name, _) in &fields {
            let sent = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| trimmed(v));
            prop_assert!(sent.eq(read.headers.get_all(name).iter().map(|v| v.as_bytes())));
        }
    }

    #[test]
    fn a_written_response_is_read_back(
        status in 200u16..1000,
        reason in "[ -~]{0,20}",
        fields in prop::collection::vec((name(), value()), 0..40),
        length in prop::option::of(0..=i64::MAX as u64),
    ) {
        prop_assume!(status != 204 && status != 304);
        let framing = length.map_or(ResponseFraming::Chunked, ResponseFraming::Length);
        let mut out = Vec::new();
        let mut head = HeadWriter::response(&mut out, status, reason.as_bytes());
        for (name, value) in &fields {
            head.field(name.as_bytes(), value);
        }
        head.framing(framing);
        head.finish().expect("valid");
        let read = ResponseScan::new(Asked::Body).advance(&out, &HeadLimits::DEFAULT);
        let read = read.expect("readable").expect("whole");
        prop_assert_eq!((read.status, read.framing, read.len), (status, framing, out.len()));
        prop_assert_eq!(&out[read.reason.start as usize..read.reason.end as usize], reason.as_bytes());
        let sent = fields.iter().map(|(name, value)| (name.as_bytes(), trimmed(value)));
        prop_assert!(sent.eq(read.fields(&out).take(fields.len())));
    }

    #[test]
    fn a_written_chunked_body_is_read_back(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..10),
        piece in 1usize..64,
    ) {
        let mut out = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            write_chunk_head(&mut out, chunk.len());
            out.extend_from_slice(chunk);
            out.extend_from_slice(CHUNK_END);
        }
        out.extend_from_slice(LAST_CHUNK);
        let mut decoder = ChunkDecoder::new();
        let mut read = Vec::new();
        for piece in out.chunks(piece) {
            let mut at = 0;
            while let Chunk::Data(range) = decoder.next(&piece[at..]).expect("valid") {
                read.extend_from_slice(&piece[at..][range.clone()]);
                at += range.end;
            }
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(read, chunks.concat());
    }
}
