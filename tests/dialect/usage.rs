//! What the meter reads out of recorded answers is what the corpus says, however the bytes are cut.

use crate::corpus::{Case, cases};
use serde_json::{Value, json};
use tollgate::codec::sse::{Event, Framer};
use tollgate::llm::dialect::{Apart, Caching, Class, Dialect};
use tollgate::usage::inflate::{Coding, Inflate};
use tollgate::usage::meter::{Known, Meter, Seen, Shape};
use tollgate::usage::{Provenance, Usage};

/// Answers whose vendor counts otherwise than the dialect, and how. The numbers are read as they stand.
const EXCEPTIONS: [(&str, &str); 1] = [("gemini/openai_compat_chat.", "thinking shows in total_tokens only")];

/// Recorded answers with tokens that have prices of their own: audio and images that came in, and the
/// tokens that this makes in all.
const APART: [(&str, u32, u32, u64); 5] = [
    ("mistral/chat.audio_in.1", 375, 0, 384),
    ("mistral/chat.special_audio_tokens_outside_prompt_tokens.1", 375, 0, 386),
    ("openai/chat.audio_in.1", 1, 0, 28),
    ("openrouter/chat.audio_in.1", 150, 0, 175),
    ("azure/chat.image_b64.1", 0, 256, 265),
];

/// Bodies up to this long are cut at every offset.
const EVERY_CUT_MAX: usize = 700;

#[test]
fn usage_is_what_the_corpus_expects() {
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        let Some(expect) = &case.expect else { continue };
        let mut meter = Meter::new(case.dialect, case.shape);
        read_whole(&mut meter, case);
        let (found, expected) = (totals(meter.reported()), expected(&expect["usage"]));
        let excepted = EXCEPTIONS.iter().any(|(name, _)| case.name.starts_with(name));
        if (found != expected) != excepted {
            wrong.push(format!("{}: found {found}, expected {expected}", case.name));
        }
        assert!(!meter.reported().flawed, "{}", case.name);
        assert_eq!(meter.reported().provenance, Provenance::Provider, "{}", case.name);
    }
    let checked = cases.iter().filter(|case| case.expect.is_some()).count();
    eprintln!("checked the usage of {checked} recorded answers");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tokens_with_prices_of_their_own_are_told_apart() {
    let cases = cases();
    let mut told = Vec::new();
    for case in cases.iter().filter(|case| case.expect.is_some()) {
        let mut meter = Meter::new(case.dialect, case.shape);
        read_whole(&mut meter, case);
        let finished = meter.finish(Known::default());
        match APART.iter().find(|(name, ..)| case.name.starts_with(name)) {
            Some(&(name, audio_input, image_input, all)) => {
                told.push(name);
                assert_eq!(finished.apart, Apart { audio_input, image_input, ..Apart::NONE }, "{name}");
                assert_eq!(finished.input_total(), Some(all), "{name}");
            }
            None => assert_eq!(finished.apart, Apart::NONE, "{}", case.name),
        }
    }
    assert!(cases.is_empty() || told.len() == APART.len(), "only {told:?}");
}

#[test]
fn every_place_of_such_tokens_is_read() {
    let rows: [(Dialect, &str, Apart); 3] = [
        (
            Dialect::OpenAiChat,
            r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":90,"total_tokens":190,
            "prompt_tokens_details":{"audio_tokens":5,"cached_tokens":2,"image_tokens":6},
            "completion_tokens_details":{"image_tokens":7,"audio_tokens":8,"reasoning_tokens":0}}}"#,
            Apart { audio_input: 5, image_input: 6, image_output: 7, audio_output: 8, cache_write_long: 0 },
        ),
        (
            Dialect::OpenAiResponses,
            r#"{"output":[],"status":"completed","usage":{"input_tokens":100,"output_tokens":90,
            "input_tokens_details":{"image_tokens":6,"audio_tokens":5},"output_tokens_details":null}}"#,
            Apart { audio_input: 5, image_input: 6, ..Apart::NONE },
        ),
        (
            Dialect::Anthropic,
            r#"{"content":[],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":1,
            "cache_creation_input_tokens":1636,"cache_creation":{"ephemeral_5m_input_tokens":600,
            "ephemeral_1h_input_tokens":1036}}}"#,
            Apart { cache_write_long: 1_036, ..Apart::NONE },
        ),
    ];
    for (dialect, body, apart) in rows {
        let mut meter = Meter::new(dialect, Shape::Whole);
        meter.piece(body.as_bytes());
        meter.end();
        assert_eq!(meter.reported().apart, apart, "{body}");
        assert!(!meter.reported().flawed, "{body}");
    }
    // A stream tells it with the first event; the last one, which tells no parts, takes nothing back.
    let events = [
        r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"cache_creation_input_tokens":9,
        "cache_creation":{"ephemeral_1h_input_tokens":9},"output_tokens":1}}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},
        "usage":{"input_tokens":3,"cache_creation_input_tokens":9,"output_tokens":4}}"#,
    ];
    let mut meter = Meter::new(Dialect::Anthropic, Shape::Stream);
    for event in events {
        meter.event(format!("data: {}\n\n", event.replace('\n', "")).as_bytes());
    }
    assert_eq!(meter.reported().apart, Apart { cache_write_long: 9, ..Apart::NONE });
    let absurd = r#"{"choices":[],"usage":{"prompt_tokens":1,"prompt_tokens_details":{"audio_tokens":-1}}}"#;
    let mut meter = Meter::new(Dialect::OpenAiChat, Shape::Whole);
    meter.piece(absurd.as_bytes());
    meter.end();
    assert!(meter.reported().flawed && meter.reported().apart == Apart::NONE);
}

#[test]
fn cuts_change_nothing() {
    let mut random = fastrand::Rng::with_seed(3);
    for case in cases() {
        let mut meter = Meter::new(case.dialect, case.shape);
        let mut seen = read_whole(&mut meter, &case);
        seen.retain(|seen| *seen != Seen::Plain);
        let whole = (seen, result(&meter));
        let len = case.body.len();
        let check = |cuts: &[usize]| {
            let mut meter = Meter::new(case.dialect, case.shape);
            let seen = read_cut(&mut meter, &case, cuts);
            assert_eq!((seen, result(&meter)), whole, "{} cut at {cuts:?}", case.name);
        };
        if len <= EVERY_CUT_MAX {
            (1..len).for_each(|at| check(&[at]));
        }
        if len <= 8 * 1024 {
            check(&(1..len).collect::<Vec<_>>());
        }
        for _ in 0..4 {
            let mut cuts: Vec<usize> = (0..random.usize(1..40)).map(|_| random.usize(0..=len)).collect();
            cuts.sort_unstable();
            check(&cuts);
        }
    }
}

#[test]
fn the_meter_sees_what_the_dialect_reads() {
    for case in cases().iter().filter(|case| case.shape == Shape::Stream) {
        let (mut meter, mut joined) = (Meter::new(case.dialect, case.shape), Vec::new());
        for raw in case.events() {
            let event = Event::parse(raw, &mut joined);
            let class = case.dialect.class(None, event.data.bytes());
            let expected = match class {
                Class::Other | Class::Ping => Seen::Plain,
                Class::Content => Seen::Content,
                Class::Finish => Seen::Finish,
                Class::Usage => Seen::UsageOnly,
                Class::End => Seen::End,
                Class::Error => Seen::Error,
            };
            let found = meter.event(raw);
            assert_eq!(found, expected, "{}: {}", case.name, String::from_utf8_lossy(raw));
            assert_eq!(class, case.dialect.class(event.name, event.data.bytes()), "{}", case.name);
        }
    }
}

#[test]
fn an_answer_that_breaks_off_is_estimated() {
    let known = Known { request_bytes: 400, output_max: Some(7) };
    for case in cases().iter().filter(|case| case.shape == Shape::Stream) {
        let mut meter = Meter::new(case.dialect, case.shape);
        let estimated = |meter: &Meter| {
            let usage = meter.finish(known);
            let reported = meter.reported().output.unwrap_or(0);
            let of_text = meter.text_bytes().div_ceil(4).max(meter.content_events()).min(7);
            assert_eq!(usage.output, Some(reported.max(of_text)), "{}", case.name);
            assert_eq!(usage.provenance, Provenance::Estimated, "{}", case.name);
            assert!(usage.input_total().is_some(), "{}", case.name);
        };
        for raw in case.events() {
            estimated(&meter);
            if !matches!(meter.event(raw), Seen::Plain | Seen::Content) {
                break;
            }
        }
        // Read to its end, it is estimated only where the provider said nothing.
        let mut meter = Meter::new(case.dialect, case.shape);
        read_whole(&mut meter, case);
        match meter.reported().output {
            Some(_) if meter.is_complete() => {
                let reported = meter.reported();
                // Sound that is counted beside the prompt goes in.
                let with_all = Usage { input: reported.input_total(), ..*reported };
                let expected = if reported.caching == Caching::Inside { with_all } else { *reported };
                let finished = meter.finish(known);
                assert_eq!(finished, expected, "{}", case.name);
                assert_eq!(totals(&finished), totals(reported), "{}", case.name);
            }
            None if meter.is_complete() => estimated(&meter),
            _ => {}
        }
    }
}

#[test]
fn compressed_answers_are_metered_like_plain_ones() {
    let mut checked = 0;
    for case in cases() {
        let Some(gzip) = &case.gzip else { continue };
        checked += 1;
        let mut plain = Meter::new(case.dialect, case.shape);
        read_whole(&mut plain, &case);
        for len in [1, 100, gzip.len()] {
            let meter = Meter::new(case.dialect, case.shape);
            let mut inflate = Inflate::new(Coding::Gzip, meter, case.shape);
            gzip.chunks(len).for_each(|piece| inflate.piece(piece));
            inflate.end();
            assert_eq!(result(inflate.meter()), result(&plain), "{} in pieces of {len}", case.name);
        }
    }
    eprintln!("read {checked} compressed answers");
    let brotli = include_bytes!("streams/openai_chat.sse.br");
    let meter = Meter::new(Dialect::OpenAiChat, Shape::Stream);
    let mut inflate = Inflate::new(Coding::Brotli, meter, Shape::Stream);
    brotli.chunks(3).for_each(|piece| inflate.piece(piece));
    inflate.end();
    assert_eq!((inflate.meter().reported().input, inflate.meter().content_events()), (Some(11), 5));
}

fn read_whole(meter: &mut Meter, case: &Case) -> Vec<Seen> {
    if case.shape == Shape::Stream {
        return case.events().into_iter().map(|event| meter.event(event)).collect();
    }
    meter.piece(&case.body);
    vec![meter.end()]
}

fn read_cut(meter: &mut Meter, case: &Case, cuts: &[usize]) -> Vec<Seen> {
    let (mut framer, mut seen) = (Framer::new(), Vec::new());
    let len = case.body.len();
    let (starts, ends) = ([0].iter().chain(cuts), cuts.iter().chain([&len]));
    for mut piece in starts.zip(ends).map(|(&start, &end)| &case.body[start..end]) {
        if case.shape == Shape::Stream {
            while let Some(end) = framer.end_of_event(piece) {
                meter.piece(&piece[..end]);
                seen.push(meter.end());
                piece = &piece[end..];
            }
        }
        meter.piece(piece);
    }
    if case.shape == Shape::Whole || !framer.is_between_events() {
        seen.push(meter.end());
    }
    // The lone line feed of a CRLF that was cut in two counts as an event that says nothing.
    seen.retain(|seen| *seen != Seen::Plain);
    seen
}

fn result(meter: &Meter) -> (Usage, u64, u64, bool) {
    (*meter.reported(), meter.content_events(), meter.text_bytes(), meter.is_complete())
}

fn totals(usage: &Usage) -> Value {
    let members = [
        ("input_total", usage.input_total()),
        ("output_total", usage.output_total()),
        ("total_reported", usage.total_reported),
        ("cache_read", usage.cache_read),
        ("cache_write", usage.cache_write),
        ("reasoning", usage.reasoning),
    ];
    members.into_iter().filter_map(|(name, count)| Some((name.to_string(), json!(count?)))).collect()
}

fn expected(usage: &Value) -> Value {
    if usage.is_null() { json!({}) } else { usage.clone() }
}
