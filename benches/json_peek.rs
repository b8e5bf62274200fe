//! Question: what does it cost to find the few members of a chat request that the gateway reads, and to check
//! the whole body strictly? Unit: time per body, beside `memchr` over the same bytes (one pass of memory) and
//! beside the usual way (`serde_json::Value`); read the ratios, all rows of a group are of one run.
//!
//! Bodies are generated: chat requests of 0.5, 2, 16 and 128 KB whose members stand in the order in which
//! OpenAI's Python SDK sends them (`messages` first, so that everything has to be passed over), one of
//! source code instead of prose, and one with a 1 MB image as base64. Every row checks its answer.
//!
//! A second group changes the body afterwards: the model's name is replaced and usage asked for. `pieces` gathers the
//! slices that are sent, `apply` copies them into one buffer, beside a plain copy of the body and the usual way (a
//! tree, changed and written anew). Every row gives the same JSON.
//!
//! Not measured here: reading the texts themselves, sending, events of a stream (`sse_framing`).

#[path = "input.rs"]
mod input;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use input::{PROSE, TAIL, chat_body};
use std::hint::black_box;
use std::time::Duration;
use tollgate::codec::json::{self, Value};
use tollgate::codec::patch::Patches;
use tollgate::llm::dialect::Dialect;

const NAMES: [&str; 4] = ["model", "stream", "stream_options", "max_tokens"];

/// As it stands in JSON: an escape about every 10 bytes.
const CODE: &str = concat!(
    r#"fn main() {\n    let name = \"a\";\n\tif name.is_empty() {\n        return greet(name);\n    }\n}\n"#,
    " "
);

fn image_body(bytes: usize) -> String {
    let image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ".repeat(bytes / 44);
    let before = concat!(
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"What is this?"},"#,
        r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,"#
    );
    format!("{before}{image}\"}}}}]}}]{}", &TAIL[1..])
}

/// What every row must find.
fn assert_found(found: &[Option<Value<'_>>; 4]) {
    let [model, stream, options, max_tokens] = found.map(|value| value.expect("in every body"));
    assert_eq!(model.str_raw(), Some(&b"gpt-4o-mini"[..]));
    assert_eq!(stream.as_bool(), Some(true));
    assert_eq!(options.get("include_usage").and_then(|value| value.as_bool()), Some(true));
    assert_eq!(max_tokens.as_u64(), Some(512));
}

/// simd-json as it would be used for a check: a copy of the body, because it writes into it, in reused
/// buffers.
struct Tape {
    input: Vec<u8>,
    buffers: simd_json::Buffers,
    tape: simd_json::Tape<'static>,
}

impl Tape {
    fn new(body_len: usize) -> Tape {
        Tape {
            input: Vec::new(),
            buffers: simd_json::Buffers::new(body_len),
            tape: simd_json::Tape(Vec::new()),
        }
    }

    fn check(&mut self, body: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(body);
        self.input.resize(body.len() + simd_json::INPUT_PADDING, b' ');
        let mut tape = std::mem::replace(&mut self.tape, simd_json::Tape(Vec::new())).reset();
        simd_json::fill_tape_padded(&mut self.input, body.len(), &mut self.buffers, &mut tape).expect("JSON");
        self.tape = tape.reset();
    }
}

fn peek(c: &mut Criterion) {
    let bodies = [
        ("0.5KB", chat_body(512, PROSE)),
        ("2KB", chat_body(2 << 10, PROSE)),
        ("16KB", chat_body(16 << 10, PROSE)),
        ("128KB", chat_body(128 << 10, PROSE)),
        ("code_128KB", chat_body(128 << 10, CODE)),
        ("image_1MB", image_body(1 << 20)),
    ];
    for (name, body) in &bodies {
        let body = body.as_bytes();
        let mut group = c.benchmark_group(format!("json_peek/{name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::from_parameter("memchr"), |b| {
            b.iter(|| assert_eq!(memchr::memchr(0, black_box(body)), None));
        });
        group.bench_function(BenchmarkId::from_parameter("fields"), |b| {
            b.iter(|| {
                let object = json::root(black_box(body)).expect("an object");
                assert_found(&json::fields(object, NAMES).expect("no repeats"));
            });
        });
        group.bench_function(BenchmarkId::from_parameter("check_fields"), |b| {
            b.iter(|| assert_found(&json::check_fields(black_box(body), NAMES).expect("JSON")));
        });
        group.bench_function(BenchmarkId::from_parameter("check"), |b| {
            b.iter(|| json::check(black_box(body)).expect("JSON"));
        });
        let mut tape = Tape::new(body.len());
        group.bench_function(BenchmarkId::from_parameter("simd_json_tape"), |b| {
            b.iter(|| tape.check(black_box(body)));
        });
        group.bench_function(BenchmarkId::from_parameter("serde_json_value"), |b| {
            b.iter(|| {
                let value: serde_json::Value = serde_json::from_slice(black_box(body)).expect("JSON");
                assert_eq!(value["model"], "gpt-4o-mini");
                assert_eq!(value["max_tokens"], 512);
            });
        });
        group.finish();
    }
}

fn splice(c: &mut Criterion) {
    for (name, bytes) in [("2KB", 2 << 10), ("128KB", 128 << 10)] {
        let body = chat_body(bytes, PROSE).replace(r#""stream_options":{"include_usage":true},"#, "");
        let body = body.as_bytes();
        let peek = Dialect::OpenAiChat.peek(body).expect("a chat request");
        let mut group = c.benchmark_group(format!("json_splice/{name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut copy = Vec::with_capacity(body.len());
        group.bench_function(BenchmarkId::from_parameter("copy"), |b| {
            b.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(body));
                assert_eq!(copy.len(), body.len());
            });
        });
        let patched = |patches: &mut Patches| {
            patches.clear();
            assert_eq!(peek.ask_for_usage(patches), Ok(true));
            peek.set_model(patches, "other").expect("apart from it");
        };
        let (mut patches, mut pieces, mut out) = (Patches::new(), Vec::new(), Vec::new());
        group.bench_function(BenchmarkId::from_parameter("pieces"), |b| {
            b.iter(|| {
                patched(&mut patches);
                pieces.clear();
                let ends = patches.pieces(black_box(body)).map(|piece| (piece.as_ptr(), piece.len()));
                pieces.extend(ends);
                assert_eq!(pieces.len(), 5);
            });
        });
        group.bench_function(BenchmarkId::from_parameter("apply"), |b| {
            b.iter(|| {
                patched(&mut patches);
                out.clear();
                patches.apply(black_box(body), &mut out);
                assert_eq!(out.len(), patches.len_after(body.len()));
            });
        });
        let mut changed = Vec::new();
        group.bench_function(BenchmarkId::from_parameter("serde_json_value"), |b| {
            b.iter(|| {
                let mut tree: serde_json::Value = serde_json::from_slice(black_box(body)).expect("JSON");
                tree["model"] = "other".into();
                tree["stream_options"]["include_usage"] = true.into();
                changed.clear();
                serde_json::to_writer(&mut changed, &tree).expect("memory");
            });
        });
        group.finish();
        // Rows may be left out on the command line: what they made is compared where both ran.
        if !out.is_empty() && !changed.is_empty() {
            let tree = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).expect("JSON");
            assert_eq!(tree(&out), tree(&changed));
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = peek, splice
}
criterion_main!(benches);
