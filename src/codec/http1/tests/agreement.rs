//! What we accept, httparse accepts with the same meaning: a second opinion on heads broken at random.
//!
//! The other direction does not hold and is not wanted: httparse takes bare LF, Host twice and much else.

use super::wire;
use crate::codec::http1::{
    Asked, Chunk, ChunkDecoder, HeadLimits, RequestScan, ResponseScan, decode_request,
};
use fastrand::Rng;

const ROUNDS: usize = 60_000;

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1|Host: a.test||",
    "POST /v1/chat?a=b HTTP/1.1|Host: [::1]:80|Content-Length: 12|Content-Type: application/json||",
    "POST http://a.test/x HTTP/1.1|host: a|Transfer-Encoding: chunked|Expect: 100-continue|X-A: b \t||",
    "GET /x HTTP/1.0|Connection: keep-alive, x|X:||",
    "|PUT /a%20b/[c] HTTP/1.1|Host:a:1|Connection: Upgrade|Upgrade: websocket|session_id: 1||",
];

const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK|Content-Length: 5||",
    "HTTP/1.1 200|transfer-encoding: chunked|Content-Type: text/event-stream|X:||",
    "HTTP/1.0 404 Not Found|Connection: keep-alive|Content-Length: 0, 0|X-A : b \t||",
    "HTTP/1.1 103 Early Hints|Link: </a>; rel=x||",
];

const BODIES: &[&str] = &["5|hello|0||", "a;x=\"y\"|0123456789|0|T: u||", "00F ;q|0123456789abcde|0||"];

/// One to four small edits with the bytes that parsers differ about.
fn broken(rng: &mut Rng, original: &[u8]) -> Vec<u8> {
    const BYTES: &[u8] = b"\r\n\r\n\0\t  ::,;=\"/\\%#?_-+09aAfFxHTP.1\x0b\x0c\x1f\x7f\x80\xff";
    let mut bytes = original.to_vec();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(0..bytes.len());
        let byte = BYTES[rng.usize(0..BYTES.len())];
        match rng.u8(0..5) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            3 => bytes[at] ^= 0x20,
            _ => {
                let end = (at + rng.usize(1..20)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
        }
    }
    bytes
}

fn rounds(seeds: &[&str], mut accepts: impl FnMut(&[u8]) -> bool) {
    let mut rng = Rng::with_seed(1);
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let bytes = broken(&mut rng, &wire(seeds[round % seeds.len()]));
        accepted += usize::from(accepts(&bytes));
    }
    assert!(accepted > ROUNDS / 50 && accepted < ROUNDS, "{accepted} accepted: the test says nothing");
}

#[test]
fn httparse_reads_every_accepted_request_the_same_way() {
    rounds(REQUESTS, |bytes| {
        let Ok(Some(len)) = RequestScan::new().advance(bytes, &HeadLimits::DEFAULT) else { return false };
        let Ok(head) = decode_request(bytes) else { return false };
        let text = String::from_utf8_lossy(bytes);
        let mut fields = [httparse::EMPTY_HEADER; 96];
        let mut theirs = httparse::Request::new(&mut fields);
        assert_eq!(theirs.parse(bytes), Ok(httparse::Status::Complete(len)), "{text}");
        assert_eq!(theirs.method, Some(head.method.as_str()), "{text}");
        assert_eq!(theirs.version, Some(u8::from(head.version == http::Version::HTTP_11)), "{text}");
        let target = theirs.path.expect("complete");
        assert!(target.ends_with(head.path_and_query()) || head.path_and_query() == "/", "{text}");
        assert_eq!(theirs.headers.len(), head.headers.len(), "{text}");
        for field in theirs.headers.iter() {
            let mut ours = head.headers.get_all(field.name).iter();
            assert!(ours.any(|value| value.as_bytes() == field.value), "{text}");
        }
        true
    });
}

#[test]
fn httparse_reads_every_accepted_response_the_same_way() {
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    rounds(RESPONSES, |bytes| {
        let scanned = ResponseScan::new(Asked::Body).advance(bytes, &HeadLimits::DEFAULT);
        let Ok(Some(head)) = scanned else { return false };
        let text = String::from_utf8_lossy(bytes);
        let mut fields = [httparse::EMPTY_HEADER; 96];
        let mut theirs = httparse::Response::new(&mut fields);
        let parsed = config.parse_response(&mut theirs, bytes);
        assert_eq!(parsed, Ok(httparse::Status::Complete(head.len)), "{text}");
        assert_eq!(theirs.code, Some(head.status), "{text}");
        assert_eq!(theirs.version, Some(u8::from(head.version == http::Version::HTTP_11)), "{text}");
        let ours = head.fields(bytes);
        assert!(ours.eq(theirs.headers.iter().map(|field| (field.name.as_bytes(), field.value))), "{text}");
        true
    });
}

#[test]
fn httparse_reads_every_accepted_chunk_line_the_same_way() {
    rounds(BODIES, |bytes| {
        let mut decoder = ChunkDecoder::new();
        let Ok(Chunk::Data(range)) = decoder.next(bytes) else { return false };
        let size = range.len() as u64 + decoder.chunk_remaining();
        let theirs = httparse::parse_chunk_size(bytes);
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(theirs, Ok(httparse::Status::Complete((range.start, size))), "{text}");
        true
    });
}
