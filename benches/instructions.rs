//! Question: how many instructions do the pure parts of an exchange take? Unit: instructions per head, event,
//! body or chunk, exact and the same on every run, counted by callgrind: `benches/count`.
//!
//! This program only runs one case a number of times: `instructions CASE COUNT`; `instructions list` names
//! them. Without arguments each case runs once, which checks its answer. `memchr` rows look at the same bytes
//! once.
//!
//! Not counted here: anything that waits, and what the kernel does. Cycles are not instructions: a case that
//! loses its cache takes longer with the same count.

#[path = "input.rs"]
mod input;
#[path = "limiting.rs"]
mod limiting;
#[path = "relaying.rs"]
mod relaying;

use limiting::Node;
use relaying::{DONE, USAGE, Work, relay, slices};
use std::hint::black_box;
use std::sync::Arc;
use tollgate::codec::http1::{Asked, Chunk, ChunkDecoder, HeadLimits, RequestScan, ResponseScan};
use tollgate::codec::json;
use tollgate::codec::patch::Patches;
use tollgate::codec::sse::Framer;
use tollgate::llm::dialect::Dialect;
use tollgate::usage::Usage;
use tollgate::usage::ledger::{Book, Counters, Final, Hold, Intent, OnFailure, Region, State, Target};
use tollgate::usage::meter::{Meter, Seen, Shape};

/// A name with its unit, and what runs once; it checks its own answer.
type Case = (&'static str, Box<dyn FnMut()>);

fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    head_cases(&mut all);
    body_cases(&mut all);
    event_cases(&mut all);
    relay_cases(&mut all);
    ledger_case(&mut all);
    limit_cases(&mut all);
    all
}

/// Admission and settlement under three nested levels: requests, then requests and tokens.
fn limit_cases(all: &mut Vec<Case>) {
    for (name, tokens) in [("limits/places", false), ("limits/places_and_tokens", true)] {
        let node = Node::new(1_000, tokens);
        assert_eq!(node.in_use(), 0);
        all.push((name, Box::new(move || node.request(black_box(7), tokens))));
    }
}

fn head_cases(all: &mut Vec<Case>) {
    let (request, response) = (input::request_head(), input::response_head());
    let looked = request.clone();
    all.push(("request_head/memchr", Box::new(move || look(&looked))));
    let scanned = request.clone();
    all.push((
        "request_head/scan",
        Box::new(move || {
            let end = RequestScan::new().advance(black_box(&scanned), &HeadLimits::DEFAULT);
            assert_eq!(end.ok().flatten(), Some(scanned.len()));
        }),
    ));
    all.push((
        "request_head/scan_and_decode",
        Box::new(move || {
            let mut scan = RequestScan::new();
            let _ = scan.advance(black_box(&request), &HeadLimits::DEFAULT);
            assert_eq!(scan.decode(&request).map_or(0, |head| head.headers.len()), 16);
        }),
    ));
    all.push((
        "response_head/scan",
        Box::new(move || {
            let head = ResponseScan::new(Asked::Body).advance(black_box(&response), &HeadLimits::DEFAULT);
            assert_eq!(head.ok().flatten().map(|head| head.len), Some(response.len()));
        }),
    ));
}

fn body_cases(all: &mut Vec<Case>) {
    const NAMES: [&str; 4] = ["model", "stream", "stream_options", "max_tokens"];
    let chunked = input::chunked_body();
    all.push((
        "chunked_4KB/decode",
        Box::new(move || {
            let (mut decoder, mut at, mut data) = (ChunkDecoder::new(), 0, 0);
            let bytes = black_box(chunked.as_slice());
            while let Ok(Chunk::Data(range)) = decoder.next(&bytes[at..]) {
                data += range.len();
                at += range.end;
            }
            assert_eq!(data, bytes.len() / 156 * 150);
        }),
    ));
    let body = input::chat_body(2 << 10, input::PROSE).into_bytes();
    let looked = body.clone();
    all.push(("json_2KB/memchr", Box::new(move || look(&looked))));
    all.push((
        "json_2KB/check_fields",
        Box::new(move || {
            let found = json::check_fields(black_box(&body), NAMES).expect("JSON");
            assert!(found.iter().all(Option::is_some));
        }),
    ));
    let body = input::chat_body(2 << 10, input::PROSE).replace(r#""include_usage":true"#, "").into_bytes();
    let peek = Dialect::OpenAiChat.peek(&body).expect("a chat request");
    let mut patches = Patches::new();
    all.push((
        "json_2KB/splice",
        Box::new(move || {
            patches.clear();
            assert_eq!(peek.ask_for_usage(&mut patches), Ok(true));
            peek.set_model(&mut patches, "other").expect("apart from it");
            assert_eq!(patches.pieces(black_box(&body)).count(), 5);
        }),
    ));
}

fn event_cases(all: &mut Vec<Case>) {
    const EVENTS: usize = 20;
    let stream = input::openai_stream(EVENTS).into_bytes();
    let looked = stream.clone();
    all.push(("sse_20_events/memchr", Box::new(move || look(&looked))));
    all.push((
        "sse_20_events/frame",
        Box::new(move || {
            let (mut framer, mut rest, mut events) = (Framer::new(), black_box(stream.as_slice()), 0);
            while let Some(end) = framer.end_of_event(rest) {
                rest = &rest[end..];
                events += 1;
            }
            assert_eq!(events, EVENTS);
        }),
    ));
    for (name, form, dialect) in [
        ("meter_event/openai_chat", "openai_chat", Dialect::OpenAiChat),
        ("meter_event/openai_responses", "openai_responses", Dialect::OpenAiResponses),
        ("meter_event/anthropic", "anthropic", Dialect::Anthropic),
    ] {
        let events = input::meter_events(form);
        let (mut meter, mut next) = (Meter::new(dialect, Shape::Stream), 0);
        all.push((
            name,
            Box::new(move || {
                next = (next + 1) % events.len();
                assert_eq!(meter.event(black_box(&events[next])), Seen::Content);
            }),
        ));
    }
}

/// An event a read, beside a copy of the same slices.
fn relay_cases(all: &mut Vec<Case>) {
    let shown = input::openai_stream(18);
    let stream = [&shown, USAGE, DONE].concat();
    let reads = slices(stream.split_inclusive("\n\n").map(str::as_bytes));
    let mut out = Vec::new();
    let copied = reads.clone();
    all.push((
        "relay_20_events/copy",
        Box::new(move || {
            out.clear();
            copied.clone().into_iter().for_each(|slice| out.extend_from_slice(black_box(&slice)));
            assert_eq!(out.len(), stream.len());
        }),
    ));
    let lengths = [shown.len() + USAGE.len() + DONE.len(), shown.len() + DONE.len()];
    for (name, work, len) in [
        ("relay_20_events/bytes", Work::Bytes, lengths[0]),
        ("relay_20_events/events", Work::Events, lengths[0]),
        ("relay_20_events/metered", Work::Metered, lengths[0]),
        ("relay_20_events/hiding", Work::Hiding, lengths[1]),
    ] {
        let (reads, mut out) = (reads.clone(), Vec::new());
        all.push((
            name,
            Box::new(move || {
                out.clear();
                out = relay(work, reads.clone(), std::mem::take(&mut out));
                assert_eq!(out.len(), len);
            }),
        ));
    }
}

/// An intent, one progress, a final record; the slot comes back at once.
fn ledger_case(all: &mut Vec<Case>) {
    let region = Arc::new(Region::anonymous(1, 8).expect("memory"));
    let (book, mut tray) = Book::new(
        Arc::clone(&region),
        0,
        OnFailure::Open,
        Arc::<State>::default(),
        Arc::<Counters>::default(),
    );
    let holds = [Hold { cell: 17, tag: 3, amount: 4_000 }; 6];
    let usage = Usage { input: Some(312), output: Some(128), ..Usage::default() };
    all.push((
        "ledger/request",
        Box::new(move || {
            let target = Target { provider: "openai", model: "gpt-4o-mini-2024-07-18", holds: &holds };
            let intent = Intent {
                id: b"req_01kakxq3v5f0q9n8j2m4s6t7w8",
                key: "ci",
                team: "platform",
                organisation: "acme",
                model: "gpt-4o-mini",
                surface: "chat",
                dialect: "openai_chat",
                client: Some([192, 0, 2, 17].into()),
                target,
                ..Intent::default()
            };
            let entry = book.begin(black_box(&intent)).expect("a slot");
            book.progress(&entry, black_box(&usage));
            let last = Final { usage, cost_pico: Some(1), status: 200, ended: "whole", ..Final::default() };
            book.finish(entry, black_box(&last));
            let at = tray.finished.pop().expect("a record");
            tray.give_back(&region, at);
        }),
    ));
}

fn look(bytes: &[u8]) {
    assert_eq!(memchr::memchr(0, black_box(bytes)), None);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let mut cases = cases();
    match args.as_slice() {
        [list] if list == "list" => cases.iter().for_each(|(name, _)| println!("{name}")),
        [name, count] => {
            let (_, run) = cases.iter_mut().find(|(known, _)| known == name).expect("a case of the list");
            (0..count.parse::<usize>().expect("a count")).for_each(|_| run());
        }
        _ => cases.iter_mut().for_each(|(_, run)| run()),
    }
}
