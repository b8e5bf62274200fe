//! Question: what does it cost to find the ends of events in a stream, and to read where the data of each
//! stands? Unit: time for 1,000 events in reads of 16 KB (so microseconds here are nanoseconds an event),
//! beside `memchr` and a copy of the same bytes (one pass of memory) and beside the plain ways: a search for
//! two line feeds, which knows no CRLF, and splitting text into lines.
//!
//! Streams: OpenAI chat (300 bytes an event, `data` only), Anthropic (140 bytes, `event` and `data`) and
//! Gemini (470 bytes, CRLF), the medians of recorded traffic. Every row checks how many events or bytes of
//! data it found.
//!
//! Not measured here: anything inside the data (`json_peek`), and carrying an event from one read to the
//! next.

#[path = "input.rs"]
mod input;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tollgate::codec::sse::{Event, Framer};

const EVENTS: usize = 1000;
const READ: usize = 16 << 10;

fn anthropic() -> String {
    let event = |n: usize| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{{\"type\":\"text_delta\",\"text\":\" word{n:04}\"}}}}\n\n"
        )
    };
    (0..EVENTS).map(event).collect()
}

fn gemini() -> String {
    let event = |n: usize| {
        format!(
            "data: {{\"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \"{}{n:04}\"}}],\
             \"role\": \"model\"}},\"index\": 0}}],\"usageMetadata\": {{\"promptTokenCount\": 1234,\
             \"candidatesTokenCount\": 56,\
             \"totalTokenCount\": 1290}},\"modelVersion\": \"gemini-2.0-flash\",\
             \"responseId\": \"0123456789abcdef\"}}\r\n\r\n",
            "A sentence or two, as Gemini likes to send them at once. ".repeat(4)
        )
    };
    (0..EVENTS).map(event).collect()
}

/// The ends of the events in `stream`, read by read; an event that straddles two reads counts in the second.
fn frame(stream: &[u8]) -> usize {
    let mut framer = Framer::new();
    let mut events = 0;
    for read in stream.chunks(READ) {
        let mut rest = read;
        while let Some(end) = framer.end_of_event(rest) {
            rest = &rest[end..];
            events += 1;
        }
    }
    events
}

/// As `frame`, and the length of all data.
fn frame_and_parse(stream: &[u8], joined: &mut Vec<u8>) -> (usize, usize) {
    let mut framer = Framer::new();
    let mut rest = stream;
    let (mut events, mut data) = (0, 0);
    while let Some(end) = framer.end_of_event(rest) {
        data += Event::parse(&rest[..end], joined).data.bytes().len();
        rest = &rest[end..];
        events += 1;
    }
    (events, data)
}

fn lines(stream: &str) -> (usize, usize) {
    let (mut events, mut data) = (0, 0);
    for line in stream.lines() {
        events += usize::from(line.is_empty());
        data += line.strip_prefix("data: ").map_or(0, str::len);
    }
    (events, data)
}

fn framing(c: &mut Criterion) {
    for (name, stream) in [
        ("openai_300B", input::openai_stream(EVENTS)),
        ("anthropic_140B", anthropic()),
        ("gemini_470B_crlf", gemini()),
    ] {
        let bytes = stream.as_bytes();
        let expected = lines(&stream);
        assert_eq!(expected.0, EVENTS);
        let mut group = c.benchmark_group(format!("sse_framing/{name}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter("memchr"), |b| {
            b.iter(|| assert_eq!(memchr::memchr(0, black_box(bytes)), None));
        });
        let mut copy = Vec::with_capacity(bytes.len());
        group.bench_function(BenchmarkId::from_parameter("copy"), |b| {
            b.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(bytes));
                assert_eq!(copy.len(), bytes.len());
            });
        });
        group.bench_function(BenchmarkId::from_parameter("frame"), |b| {
            b.iter(|| assert_eq!(frame(black_box(bytes)), EVENTS));
        });
        let mut joined = Vec::new();
        group.bench_function(BenchmarkId::from_parameter("frame_and_parse"), |b| {
            b.iter(|| assert_eq!(frame_and_parse(black_box(bytes), &mut joined), expected));
        });
        if !stream.contains('\r') {
            let two = memchr::memmem::Finder::new(b"\n\n");
            group.bench_function(BenchmarkId::from_parameter("memmem_two_line_feeds"), |b| {
                b.iter(|| assert_eq!(two.find_iter(black_box(bytes)).count(), EVENTS));
            });
        }
        group.bench_function(BenchmarkId::from_parameter("std_lines"), |b| {
            b.iter(|| assert_eq!(lines(black_box(&stream)), expected));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = framing
}
criterion_main!(benches);
