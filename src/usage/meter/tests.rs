//! Unit tests of the module above.

use super::*;
use crate::llm::dialect::TOKENS_MAX;

fn chat() -> Meter {
    Meter::new(Dialect::OpenAiChat, Shape::Stream)
}

fn chunk(choices: &str, usage: &str) -> Vec<u8> {
    format!("data: {{\"choices\":{choices},\"usage\":{usage}}}\n\n").into_bytes()
}

#[test]
fn keys_inside_texts_and_nested_objects_are_not_the_answers_own() {
    let mut meter = chat();
    let fake = r#"{\"usage\":{\"prompt_tokens\":1}}"#;
    let text = chunk(&format!(r#"[{{"delta":{{"content":"{fake}"}},"finish_reason":null}}]"#), "null");
    assert_eq!(meter.event(&text), Seen::Content);
    let nested = chunk(
        r#"[{"delta":{"content":"","usage":{"prompt_tokens":1},"finish_reason":"stop","error":{}}}]"#,
        "null",
    );
    assert_eq!(meter.event(&nested), Seen::Plain);
    assert!(meter.reported().is_unknown());
}

#[test]
fn what_differs_beyond_its_text_is_read_anew() {
    let mut meter = chat();
    let event = |content: &str, tail: &str| {
        format!(r#"data: {{"choices":[{{"delta":{{"content":"{content}"}}{tail}}}],"obfuscation":"abc"}}"#)
            + "\n\n"
    };
    assert_eq!(meter.event(event("one", "").as_bytes()), Seen::Content);
    for (content, seen) in [("two", Seen::Content), ("a\\\"b", Seen::Content), ("", Seen::Plain)] {
        let raw = event(content, "");
        assert!(memo::recognise(Dialect::OpenAiChat, raw.as_bytes()).is_some(), "{raw}");
        assert_eq!(meter.event(raw.as_bytes()), seen, "{raw}");
    }
    for content in [r#"x"},"finish_reason":"stop","z":{"y":""#, "a\nb", "a\\"] {
        let raw = event(content, "");
        assert!(memo::recognise(Dialect::OpenAiChat, raw.as_bytes()).is_none(), "{raw}");
    }
    assert_eq!(meter.event(event("", r#","finish_reason":"stop""#).as_bytes()), Seen::Finish);
    assert_eq!(meter.text_bytes(), 3 + 3 + 4);
}

#[test]
fn numbers_that_cannot_be_are_left_out_and_flagged() {
    let max = TOKENS_MAX.to_string();
    let beyond = (TOKENS_MAX + 1).to_string();
    for (count, expected) in [
        ("7", Some(7)),
        ("-7", None),
        ("\"7\"", None),
        ("7.5", None),
        (&max, Some(TOKENS_MAX)),
        (&beyond, None),
        ("1e400", None),
        ("[7]", None),
        ("{\"a\":1}", None),
    ] {
        let mut meter = chat();
        let usage = format!(r#"{{"prompt_tokens":{count},"completion_tokens":3}}"#);
        assert_eq!(meter.event(&chunk("[]", &usage)), Seen::UsageOnly);
        assert_eq!(
            (meter.reported().input, meter.reported().flawed),
            (expected, expected.is_none()),
            "{count}"
        );
        let usage = meter.finish(Known { request_bytes: 80, output_max: None });
        assert_eq!(usage.input, expected.or(Some(20)), "{count}");
        assert_eq!(usage.provenance == Provenance::Estimated, expected.is_none(), "{count}");
    }
}

#[test]
fn the_last_number_of_each_member_counts() {
    let mut meter = chat();
    meter.event(&chunk("[]", r#"{"prompt_tokens":5,"completion_tokens":6}"#));
    meter.event(&chunk("[]", r#"{"completion_tokens":2,"completion_tokens":3,"prompt_tokens":null}"#));
    let usage = meter.finish(Known::default());
    assert_eq!((usage.input, usage.output, usage.total()), (Some(5), Some(3), Some(8)));
}

#[test]
fn usage_may_be_missing_at_the_end_and_is_estimated_then() {
    let mut meter = chat();
    let content = chunk(r#"[{"delta":{"content":"12345678"}}]"#, "null");
    for _ in 0..5 {
        meter.event(&content);
    }
    assert_eq!(meter.event(b"data: [DONE]\n\n"), Seen::End);
    let known = Known { request_bytes: 7, output_max: None };
    let usage = meter.finish(known);
    assert_eq!((usage.input, usage.output, usage.provenance), (Some(2), Some(10), Provenance::Estimated));
    let usage = meter.finish(Known { output_max: Some(9), ..known });
    assert_eq!(usage.output, Some(9));
}

#[test]
fn an_answer_that_is_an_error_used_nothing_known() {
    let mut meter = Meter::new(Dialect::Anthropic, Shape::Whole);
    meter.piece(br#"{"type":"error","error":{"type":"overloaded_error"}}"#);
    assert_eq!(meter.end(), Seen::Error);
    assert!(meter.finish(Known { request_bytes: 100, output_max: None }).is_unknown());
}

#[test]
fn lines_of_any_form_carry_the_data() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":5}}"#;
    let (one, two) = usage.split_at(13);
    for raw in [
        format!("data: {usage}\r\n\r\n"),
        format!("data:{usage}\r\r"),
        format!("\u{feff}data: {usage}\n\n"),
        format!(": note\nevent: x\ndata: {one}\ndata: {two}\nid: 1\n\n"),
        format!("data\ndata: {usage}\ndatas: {{\n\n"),
    ] {
        let mut meter = chat();
        assert_eq!(meter.event(raw.as_bytes()), Seen::UsageOnly, "{raw:?}");
        assert_eq!(meter.reported().input, Some(5), "{raw:?}");
        for cut in 0..raw.len() {
            let mut meter = chat();
            meter.piece(&raw.as_bytes()[..cut]);
            assert_eq!(meter.event(&raw.as_bytes()[cut..]), Seen::UsageOnly, "{raw:?} at {cut}");
        }
    }
}

#[test]
fn an_event_that_says_nothing_changes_nothing() {
    let mut meter = Meter::new(Dialect::Anthropic, Shape::Stream);
    let start =
        r#"{"type":"message_start","message":{"usage":{"input_tokens":5,"cache_read_input_tokens":7}}}"#;
    meter.event(format!("event: message_start\ndata: {start}\n\n").as_bytes());
    for nothing in [": note\n\n", "\n", "data: [DONE]\n\n", "data: no json\n\n"] {
        meter.event(nothing.as_bytes());
        assert_eq!(meter.reported().input_total(), Some(12), "{nothing:?}");
    }
}
