//! What the gateway writes in a dialect, against goldens: `tests/goldens/dialect/NAME.txt`, one section for
//! each case.
//!
//! `TOLLGATE_GOLDENS=write cargo test writers` rewrites them; the difference is to be read before it is kept.

use std::fmt::Write;
use std::path::Path;
use tollgate::base::error::{Error, Kind, Timer};
use tollgate::base::id::RequestId;
use tollgate::llm::dialect::{
    Class, Dialect, Ending, Lane, LaneKind, Lanes, Refusal, ShowUsage, StreamState, Usage,
};

#[test]
fn what_is_written_is_what_the_goldens_say() {
    let mut wrong = Vec::new();
    for dialect in Dialect::ALL {
        let path = format!("tests/goldens/dialect/{}.txt", dialect.name());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let written = sections(dialect);
        if std::env::var("TOLLGATE_GOLDENS").is_ok_and(|value| value == "write") {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            std::fs::write(&path, &written).expect("writable");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        if golden != written {
            wrong.push(format!("{}:\n{}", path.display(), first_difference(&golden, &written)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_ending_is_complete_wherever_the_stream_stands() {
    for dialect in
        [Dialect::OpenAiChat, Dialect::OpenAiCompletions, Dialect::OpenAiResponses, Dialect::Anthropic]
    {
        let events: Vec<&str> = stream(dialect).split_inclusive("\n\n").collect();
        for seen in 0..=events.len() {
            for ending in [Ending::Length, Ending::ContentFilter, Ending::Stop] {
                let (mut state, mut out) = (StreamState::new(), Vec::new());
                dialect.observe(&mut state, events[..seen].concat().as_bytes());
                dialect.ending(ending, &state, None, &mut out);
                let classes = classes(dialect, &out);
                assert_eq!(classes.last(), Some(&Class::End), "{} after {seen}", dialect.name());
                assert!(!classes.contains(&Class::Error) && !classes.contains(&Class::Content));
                // All that was open is closed now.
                dialect.observe(&mut state, &out);
                let mut delta = Vec::new();
                for kind in [LaneKind::Text, LaneKind::ToolArguments] {
                    assert!(
                        !dialect.delta(Lane::new(0, 0, kind), "x", &mut state, &mut delta),
                        "after {seen}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_delta_reads_back_as_its_lane() {
    for dialect in
        [Dialect::OpenAiChat, Dialect::OpenAiCompletions, Dialect::OpenAiResponses, Dialect::Anthropic]
    {
        let events: Vec<&str> = stream(dialect).split_inclusive("\n\n").collect();
        let mut state = StreamState::new();
        let mut written = 0;
        for raw in events {
            let closes = dialect.closes(None, data(raw).as_bytes());
            let mut lanes = Lanes::new();
            dialect.lanes(None, data(raw).as_bytes(), &mut lanes);
            dialect.observe(&mut state, raw.as_bytes());
            for lane in lanes.into_iter().map(|text| text.lane) {
                let mut out = Vec::new();
                if !dialect.delta(lane, "a \"b\"\n\u{1f600}", &mut state, &mut out) {
                    assert!(closes.covers(lane), "{}: {raw}", dialect.name());
                    continue;
                }
                written += 1;
                let out = String::from_utf8(out).expect("UTF-8");
                let mut back = Lanes::new();
                dialect.lanes(None, data(&out).as_bytes(), &mut back);
                let read: Vec<(Lane, &str)> =
                    back.iter().map(|text| (text.lane, &data(&out)[text.range.clone()])).collect();
                assert_eq!(read, [(lane, "a \\\"b\\\"\\n\u{1f600}")], "{out}");
            }
        }
        assert!(written > 2, "{}", dialect.name());
    }
}

#[test]
fn a_refusal_reads_back_as_an_answer() {
    let id = RequestId::new();
    for dialect in Dialect::ALL {
        let refusal =
            Refusal { text: "No \"that\".", id: &id, model: "m\"x", created_s: 5, usage: ShowUsage::Asked };
        let (mut whole, mut streamed) = (Vec::new(), Vec::new());
        let status = dialect.refusal(&refusal, &mut whole);
        dialect.refusal_stream(&refusal, &mut streamed);
        serde_json::from_slice::<serde_json::Value>(&whole).expect("JSON");
        if dialect == Dialect::OpenAiEmbeddings {
            assert_eq!((status, streamed.is_empty()), (403, true));
            continue;
        }
        assert_eq!(status, 200);
        let mut lanes = Lanes::new();
        dialect.lanes_whole(&whole, &mut lanes);
        let texts: Vec<&[u8]> = lanes.iter().map(|text| &whole[text.range.clone()]).collect();
        assert_eq!(texts, [br#"No \"that\"."#], "{}", dialect.name());
        let classes = classes(dialect, &streamed);
        assert_eq!(classes.iter().filter(|class| **class == Class::Content).count(), 1, "{}", dialect.name());
        assert_eq!(classes.last(), Some(&Class::End));
    }
}

/// All cases of a dialect, each under its title.
fn sections(dialect: Dialect) -> String {
    let id = RequestId::new();
    let mut text = String::new();
    let mut section = |title: &str, out: Vec<u8>| {
        let out = String::from_utf8(out).expect("UTF-8").replace(id.as_str(), "req_ID");
        writeln!(text, "=== {title}\n{}\n", out.trim_end_matches('\n')).expect("a string");
    };
    let mut write = |title: &str, fill: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        fill(&mut out);
        section(title, out);
    };
    let errors = [
        ("model_unknown", Error::new(Kind::ModelUnknown, "no model \"x\"").param("model")),
        ("key_missing", Error::new(Kind::KeyMissing, "no API key")),
        ("upstream_timeout", Error::new(Kind::UpstreamTimeout(Timer::Idle), "silent for 60 s")),
        ("overloaded", Error::new(Kind::Overloaded, "too many requests at once").retry_after_s(1)),
    ];
    for (name, error) in &errors {
        write(&format!("error body: {name}"), &|out| dialect.error_body(error, &id, out));
    }
    let error = &errors[2].1;
    write("stream error at once", &|out| dialect.stream_error(error, &id, &StreamState::new(), out));
    let mid = observed(dialect);
    write("stream error in mid-stream", &|out| dialect.stream_error(error, &id, &mid, out));
    let usage = Usage { input: Some(11), output: Some(7), cache_read: Some(3), ..Usage::default() };
    for (name, ending) in
        [("length", Ending::Length), ("content filter", Ending::ContentFilter), ("stop", Ending::Stop)]
    {
        write(&format!("ending: {name}"), &|out| dialect.ending(ending, &mid, Some(&usage), out));
    }
    write("ending at once", &|out| dialect.ending(Ending::Stop, &StreamState::new(), None, out));
    for kind in [LaneKind::Text, LaneKind::Reasoning, LaneKind::Refusal, LaneKind::ToolArguments] {
        let item = open_item(dialect, kind);
        write(&format!("delta: {kind:?}"), &|out| {
            let lane = Lane::new(0, item, kind);
            dialect.delta(lane, "held \"text\"", &mut observed(dialect), out);
        });
    }
    let refusal = Refusal {
        text: "I cannot do that.",
        id: &id,
        model: "fast",
        created_s: 1_700_000_000,
        usage: ShowUsage::Asked,
    };
    write("refusal", &|out| {
        dialect.refusal(&refusal, out);
    });
    write("refusal as a stream", &|out| dialect.refusal_stream(&refusal, out));
    write("heartbeat", &|out| dialect.heartbeat(out));
    text
}

/// A stream up to the middle: a text and a tool call under way.
fn observed(dialect: Dialect) -> StreamState {
    let mut state = StreamState::new();
    dialect.observe(&mut state, stream(dialect).as_bytes());
    state
}

fn open_item(dialect: Dialect, kind: LaneKind) -> u32 {
    match (dialect, kind) {
        (Dialect::Anthropic | Dialect::OpenAiResponses, LaneKind::ToolArguments) => 2,
        (Dialect::Anthropic | Dialect::OpenAiResponses, _) => 1,
        _ => 0,
    }
}

pub fn stream(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAiChat => include_str!("streams/openai_chat.sse"),
        Dialect::OpenAiCompletions => include_str!("streams/openai_completions.sse"),
        Dialect::OpenAiEmbeddings => "",
        Dialect::OpenAiResponses => include_str!("streams/openai_responses.sse"),
        Dialect::Anthropic => include_str!("streams/anthropic.sse"),
    }
}

fn classes(dialect: Dialect, events: &[u8]) -> Vec<Class> {
    let text = std::str::from_utf8(events).expect("UTF-8");
    text.split_inclusive("\n\n").map(|raw| dialect.class(None, data(raw).as_bytes())).collect()
}

pub fn data(raw: &str) -> &str {
    raw.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default()
}

fn first_difference(golden: &str, written: &str) -> String {
    let differ = golden.lines().zip(written.lines()).find(|(golden, written)| golden != written);
    match differ {
        Some((golden, written)) => format!("  golden  {golden}\n  written {written}"),
        None => format!("  golden has {} lines, written {}", golden.lines().count(), written.lines().count()),
    }
}
