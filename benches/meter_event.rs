//! Question: what does the meter cost for an ordinary content event of a stream? Unit: time per event, beside
//! `memchr` over the same bytes (one pass of memory); read the ratios, all rows of a group are of one run.
//!
//! Events are generated in the form in which the providers send them: OpenAI Chat with its `obfuscation`
//! padding, another vendor's chat without, Responses with running numbers, Anthropic with spaces before the
//! last bracket; the text is words of one to eleven letters, one in thirty with an escape. Rows: `event`, as
//! it is called for an event that came whole; `pieces`, an event cut in the middle, which the remembered one
//! cannot help; `class`, the same event read by the dialect alone; `serde_json`, the usual way. Every row
//! checks what it saw.
//!
//! A second group reads whole bodies: an embeddings answer of 1 MB of numbers, and one of a 1 MB string.
//!
//! Not measured here: finding the event's end (`sse_framing`), usage events (one in a stream).

#[path = "input.rs"]
mod input;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tollgate::codec::sse::Event;
use tollgate::llm::dialect::{Class, Dialect};
use tollgate::usage::meter::{Meter, Seen, Shape};

fn event(c: &mut Criterion) {
    for (form, dialect) in [
        ("openai_chat", Dialect::OpenAiChat),
        ("vllm_chat", Dialect::OpenAiChat),
        ("openai_responses", Dialect::OpenAiResponses),
        ("anthropic", Dialect::Anthropic),
    ] {
        let events = input::meter_events(form);
        let bytes = events.iter().map(Vec::len).sum::<usize>() / events.len();
        let mut group = c.benchmark_group(format!("meter_event/{form}_{bytes}B"));
        let mut next = events.iter().cycle();
        let mut next = move || black_box(&next.next().expect("a cycle")[..]);
        group.bench_function(BenchmarkId::from_parameter("memchr"), |b| {
            b.iter(|| assert_eq!(memchr::memchr(0, next()), None));
        });
        let mut meter = Meter::new(dialect, Shape::Stream);
        group.bench_function(BenchmarkId::from_parameter("event"), |b| {
            b.iter(|| assert_eq!(meter.event(next()), Seen::Content));
        });
        group.bench_function(BenchmarkId::from_parameter("pieces"), |b| {
            b.iter(|| {
                let (first, second) = next().split_at(bytes / 2);
                meter.piece(first);
                meter.piece(second);
                assert_eq!(meter.end(), Seen::Content);
            });
        });
        let mut joined = Vec::new();
        group.bench_function(BenchmarkId::from_parameter("class"), |b| {
            b.iter(|| {
                let event = Event::parse(next(), &mut joined);
                assert_eq!(dialect.class(event.name, event.data.bytes()), Class::Content);
            });
        });
        group.bench_function(BenchmarkId::from_parameter("serde_json"), |b| {
            b.iter(|| {
                let event = Event::parse(next(), &mut joined);
                let value: serde_json::Value = serde_json::from_slice(event.data.bytes()).expect("JSON");
                assert!(value["usage"].is_null() && value["error"].is_null());
            });
        });
        group.finish();
    }
}

fn body(c: &mut Criterion) {
    let numbers = "-0.012345678,".repeat(80_000);
    let tail = r#""usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let bodies = [
        ("numbers_1MB", format!(r#"{{"data":[{{"embedding":[{}]}}],{tail}"#, &numbers[..numbers.len() - 1])),
        ("string_1MB", format!(r#"{{"data":[{{"embedding":"{}"}}],{tail}"#, "YgrOPM8N".repeat(131_072))),
    ];
    for (name, body) in &bodies {
        let mut group = c.benchmark_group(format!("meter_body/{name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::from_parameter("memchr"), |b| {
            b.iter(|| assert_eq!(memchr::memchr(0, black_box(body.as_bytes())), None));
        });
        group.bench_function(BenchmarkId::from_parameter("pieces_16KB"), |b| {
            b.iter(|| {
                let mut meter = Meter::new(Dialect::OpenAiEmbeddings, Shape::Whole);
                black_box(body.as_bytes()).chunks(16 << 10).for_each(|piece| meter.piece(piece));
                meter.end();
                assert_eq!(meter.reported().input, Some(8));
            });
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
    targets = event, body
}
criterion_main!(benches);
