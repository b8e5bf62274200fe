//! Unit tests of the module above.

use super::*;
use crate::codec::patch::Patches;

fn patched(dialect: Dialect, body: &str) -> String {
    let peek = dialect.peek(body.as_bytes()).expect(body);
    let mut patches = Patches::new();
    peek.ask_for_usage(&mut patches).expect("free");
    peek.set_model(&mut patches, "a\"b").expect("free");
    let mut out = Vec::new();
    patches.apply(body.as_bytes(), &mut out);
    String::from_utf8(out).expect("text")
}

#[test]
fn usage_is_asked_for_without_touching_what_the_client_wrote() {
    let rows = [
        (r#"{"model":"m"}"#, r#"{"model":"a\"b"}"#),
        (r#"{"model":"m","stream":false}"#, r#"{"model":"a\"b","stream":false}"#),
        (r#"{"model":"m","stream":null}"#, r#"{"model":"a\"b","stream":null}"#),
        (
            r#"{ "model":"m","stream":true}"#,
            r#"{"stream_options":{"include_usage":true}, "model":"a\"b","stream":true}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":null}"#,
            r#"{"model":"a\"b","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{ }}"#,
            r#"{"model":"a\"b","stream":true,"stream_options":{"include_usage":true }}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"x":1}}"#,
            r#"{"model":"a\"b","stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"x":1,"include_usage": false}}"#,
            r#"{"model":"a\"b","stream":true,"stream_options":{"x":1,"include_usage": true}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":null}}"#,
            r#"{"model":"a\"b","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"model":"a\"b","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(patched(Dialect::OpenAiChat, body), expected);
        assert_eq!(patched(Dialect::OpenAiCompletions, body), expected);
    }
    let stream = r#"{"model":"m","stream":true}"#;
    for dialect in [Dialect::OpenAiResponses, Dialect::Anthropic, Dialect::OpenAiEmbeddings] {
        assert_eq!(patched(dialect, stream), r#"{"model":"a\"b","stream":true}"#);
    }
}

#[test]
fn a_peek_reads_what_the_request_asks_for() {
    let read = |dialect: Dialect, body: &str| {
        let peek = dialect.peek(body.as_bytes()).expect(body);
        (peek.model(body.as_bytes()).to_string(), peek.stream, peek.output_max)
    };
    let body = r#"{"max_tokens":9,"mod\u0065l":"gpt\u002d5","n":2,"max_completion_tokens":7,"stream":true}"#;
    assert_eq!(read(Dialect::OpenAiChat, body), ("gpt-5".to_string(), true, Some(14)));
    assert_eq!(read(Dialect::OpenAiCompletions, body), ("gpt-5".to_string(), true, Some(18)));
    assert_eq!(read(Dialect::Anthropic, body), ("gpt-5".to_string(), true, Some(9)));
    assert_eq!(read(Dialect::OpenAiEmbeddings, body), ("gpt-5".to_string(), false, None));
    let body = r#"{"max_output_tokens":1e3,"model":"é","n":null}"#;
    assert_eq!(read(Dialect::OpenAiResponses, body), ("é".to_string(), false, Some(1000)));
    let body = r#"{"max_tokens":18446744073709551615,"model":"","n":3}"#;
    assert_eq!(read(Dialect::OpenAiChat, body), (String::new(), false, Some(u64::MAX)));
}

#[test]
fn a_request_that_cannot_be_told_apart_is_refused_by_its_field() {
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(MODEL_LEN_MAX + 1));
    let rows = [
        (r#"{}"#, Some("model"), "`model` is missing; it must be a string"),
        (r#"{"model":3}"#, Some("model"), "`model` is a number; it must be a string"),
        (&long, Some("model"), "`model` is 513 bytes long; at most 512 are allowed"),
        (
            r#"{"model":"a","mod\u0065l":"b"}"#,
            Some("model"),
            "`model` occurs more than once; it may occur once",
        ),
        (
            r#"{"model":"a","stream":"true"}"#,
            Some("stream"),
            "`stream` is a string; it must be true, false or null",
        ),
        (
            r#"{"model":"a","stream":true,"stream_options":[]}"#,
            Some("stream_options"),
            "`stream_options` is an array; it must be an object or null",
        ),
        (
            r#"{"model":"a","stream":true,"stream_options":{"include_usage":1}}"#,
            Some("stream_options.include_usage"),
            "`stream_options.include_usage` is a number; it must be true, false or null",
        ),
        (
            r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
            Some("include_usage"),
            "`include_usage` occurs more than once; it may occur once",
        ),
        (
            r#"{"model":"a","Model":"b"}"#,
            Some("model"),
            "a key differs from `model` in its case only; spell it `model`",
        ),
        (r#"[1]"#, None, "the body is an array; it must be a JSON object"),
        (
            "{\"model\":\"a\",}",
            None,
            "the body is not JSON: at byte 13: a key in double quotes must follow here",
        ),
    ];
    for (body, param, detail) in rows {
        let error = Dialect::OpenAiChat.peek(body.as_bytes()).expect_err(body);
        assert_eq!((error.param, error.detail.as_ref()), (param, detail), "{body}");
        assert_eq!(error.kind.row().status, 400, "{body}");
    }
    let longest = format!(r#"{{"model":"{}"}}"#, "m".repeat(MODEL_LEN_MAX));
    assert!(Dialect::OpenAiChat.peek(longest.as_bytes()).is_ok());
}

#[test]
fn a_field_in_another_case_is_refused_as_a_repeat_is() {
    for (key, name) in [
        ("Model", "model"),
        ("MODEL", "model"),
        (r"mod\u0045l", "model"),
        (r"\u004dodel", "model"),
        ("Stream", "stream"),
        ("\u{17f}tream", "stream"),
        (r"\u017ftream", "stream"),
        ("stream_Options", "stream_options"),
        ("max_to\u{212a}ens", "max_tokens"),
        (r"max_to\u212aens", "max_tokens"),
        ("Max_Completion_Tokens", "max_completion_tokens"),
        ("N", "n"),
    ] {
        // Before the field, behind it, and alone.
        for body in [
            format!(r#"{{"{key}":1,"model":"a","stream":true}}"#),
            format!(r#"{{"model":"a","stream":true,"{key}":1}}"#),
        ] {
            let error = Dialect::OpenAiChat.peek(body.as_bytes()).expect_err(&body);
            assert_eq!((error.param, error.kind.row().status), (Some(name), 400), "{body}");
        }
    }
    let nested = r#"{"model":"a","stream":true,"stream_options":{"Include_Usage":true}}"#;
    let error = Dialect::OpenAiChat.peek(nested.as_bytes()).expect_err(nested);
    assert_eq!(error.param, Some("include_usage"));
    for body in [
        r#"{"model":"a","models":1,"mode":2,"Temperature":1,"temperature":0,"ɱodel":1,"m\u006fdels":1}"#,
        r#"{"model":"a","metadata":{"Model":1},"messages":[{"STREAM":1}]}"#,
    ] {
        assert!(
            Dialect::OpenAiChat.peek(body.as_bytes()).is_ok(),
            "what is not read may be spelt as it likes"
        );
    }
}
