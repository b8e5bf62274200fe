//! What do HTTP/1.1 heads and chunk framing cost per message?
//!
//! Unit: nanoseconds per head of the size named, or per read of 4 KiB of chunked events. Beside each stands
//! memchr over the same bytes: the cost of merely looking at them once. httparse is the rival for heads; it
//! does not check framing. The answer of each run is checked before it is timed, so a fast wrong one fails.
//!
//! Not asked: sockets, allocation of read buffers, heads that are refused.
//!
//! `cargo bench --bench http1_head`; instruction counts: `... -- --once CASE COUNT` under callgrind, twice
//! with different counts, and the difference divided.

#[path = "input.rs"]
mod input;

use criterion::{Criterion, Throughput};
use input::{chunked_body, request_head, response_head};
use std::hint::black_box;
use tollgate::codec::http1::{Asked, Chunk, ChunkDecoder, HeadLimits, RequestScan, ResponseScan};

const LIMITS: HeadLimits = HeadLimits::DEFAULT;

/// One thing to measure: name, bytes, and what runs over them. The returned number is checked against
/// `answer`.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    run: fn(&[u8]) -> usize,
    answer: usize,
}

fn cases() -> Vec<Case> {
    let (request, response, body) = (request_head(), response_head(), chunked_body());
    let chunks = body.len() / 156;
    let case = |name, bytes: &[u8], run, answer| Case { name, bytes: bytes.to_vec(), run, answer };
    vec![
        case("request/memchr", &request, look, request.len()),
        case("request/scan", &request, scan_request, request.len()),
        case("request/scan_and_decode", &request, decode_request, 16),
        case("request/httparse", &request, httparse_request, request.len()),
        case("response/memchr", &response, look, response.len()),
        case("response/scan", &response, scan_response, response.len()),
        case("response/httparse", &response, httparse_response, response.len()),
        case("chunked/memchr", &body, look, body.len()),
        case("chunked/decode", &body, decode_chunks, chunks * 150),
    ]
}

fn look(bytes: &[u8]) -> usize {
    memchr::memchr(0, bytes).unwrap_or(bytes.len())
}

fn scan_request(bytes: &[u8]) -> usize {
    RequestScan::new().advance(bytes, &LIMITS).ok().flatten().unwrap_or(0)
}

fn decode_request(bytes: &[u8]) -> usize {
    let mut scan = RequestScan::new();
    let _ = scan.advance(bytes, &LIMITS);
    scan.decode(bytes).map_or(0, |head| head.headers.len())
}

fn httparse_request(bytes: &[u8]) -> usize {
    let mut fields = [httparse::EMPTY_HEADER; 96];
    match httparse::Request::new(&mut fields).parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        _ => 0,
    }
}

fn scan_response(bytes: &[u8]) -> usize {
    let head = ResponseScan::new(Asked::Body).advance(bytes, &LIMITS);
    head.ok().flatten().map_or(0, |head| black_box(head).len)
}

fn httparse_response(bytes: &[u8]) -> usize {
    let mut fields = [httparse::EMPTY_HEADER; 96];
    match httparse::Response::new(&mut fields).parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        _ => 0,
    }
}

fn decode_chunks(bytes: &[u8]) -> usize {
    let (mut decoder, mut at, mut data) = (ChunkDecoder::new(), 0, 0);
    while let Ok(Chunk::Data(range)) = decoder.next(&bytes[at..]) {
        data += range.len();
        at += range.end;
    }
    data
}

fn main() {
    let cases = cases();
    for case in &cases {
        assert_eq!((case.run)(&case.bytes), case.answer, "{}", case.name);
    }
    let args: Vec<String> = std::env::args().collect();
    if let Some([_, name, count]) = args.windows(3).find(|window| window[0] == "--once") {
        let case = cases.iter().find(|case| case.name == name).expect("a case of the bench");
        for _ in 0..count.parse::<usize>().expect("a count") {
            black_box((case.run)(black_box(&case.bytes)));
        }
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("http1");
    for case in &cases {
        group.throughput(Throughput::Bytes(case.bytes.len() as u64));
        group.bench_function(case.name, |bencher| bencher.iter(|| (case.run)(black_box(&case.bytes))));
    }
    group.finish();
    criterion.final_summary();
}
