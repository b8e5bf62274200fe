//! Question: what does the relay itself add to the bytes of a stream: ends of events, the meter, the usage chunk
//! that is hidden? Unit: time for 1,000 events (so microseconds here are nanoseconds an event), beside a copy of
//! the same slices, which is all that the sink in memory does with them.
//!
//! Streams of OpenAI chat, 300 bytes an event, with a usage chunk near the end; once an event a read, as paced
//! providers send, once in reads of 16 KB, which cut events in two. Rows: `copy`, the reference; `bytes`, an answer
//! that nothing looks at; `events`, their ends only; `metered`; `hiding`, metered and without the usage chunk. Every
//! row checks each byte that comes out.
//!
//! Not measured here: waiting, receiving (`upstream_event`), sending, framing for HTTP/1.1, event stages, allocations
//! (`relay_allocations`).

#[path = "input.rs"]
mod input;

#[path = "relaying.rs"]
mod relaying;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use relaying::{DONE, USAGE, Work, relay, slices};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;
use tollgate::net::page::Slice;

const EVENTS: usize = 1000;

fn steps(c: &mut Criterion) {
    let shown = input::openai_stream(EVENTS - 2);
    let stream = [&shown, USAGE, DONE].concat();
    let hidden = [&shown, DONE].concat();
    let events = stream.split_inclusive("\n\n").map(str::as_bytes);
    assert_eq!(events.clone().count(), EVENTS);
    for (name, reads) in
        [("an_event_a_read", slices(events)), ("reads_of_16KB", slices(stream.as_bytes().chunks(16 << 10)))]
    {
        let mut group = c.benchmark_group(format!("relay_step/{name}"));
        group.throughput(Throughput::Elements(EVENTS as u64));
        let fresh = || (reads.clone(), Vec::with_capacity(stream.len()));
        group.bench_function(BenchmarkId::from_parameter("copy"), |b| {
            let copy = |(slices, mut out): (VecDeque<Slice>, Vec<u8>)| {
                slices.into_iter().for_each(|slice| out.extend_from_slice(black_box(&slice)));
                assert_eq!(out, stream.as_bytes());
                out
            };
            b.iter_batched(fresh, copy, BatchSize::LargeInput);
        });
        for (work, name) in [
            (Work::Bytes, "bytes"),
            (Work::Events, "events"),
            (Work::Metered, "metered"),
            (Work::Hiding, "hiding"),
        ] {
            let expected = if work == Work::Hiding { &hidden } else { &stream };
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                let step = |(slices, out)| {
                    let out = relay(work, slices, out);
                    assert_eq!(out, expected.as_bytes());
                    out
                };
                b.iter_batched(fresh, step, BatchSize::LargeInput);
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = steps
}
criterion_main!(benches);
