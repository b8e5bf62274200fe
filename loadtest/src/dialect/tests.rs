//! Every dialect: what the mock's side writes, the generator's side reads, also after a JSON writer re-spaced
//! it.

use super::{Dialect, EventText, Facts, Mode, Usage, is_true_at, string_at};

fn facts() -> Facts {
    Facts {
        id: "abcdefgh".to_owned(),
        model: "m".to_owned(),
        prompt_tokens: 10,
        completion_tokens: 2,
        include_usage: true,
    }
}

/// The JSON of an event's data line, written anew with other spacing and sorted keys.
fn rewritten(event: &str) -> String {
    let line = event.lines().find(|line| line.starts_with("data: ")).expect("a data line");
    match serde_json::from_str::<serde_json::Value>(&line["data: ".len()..]) {
        Ok(value) => {
            format!("data: {}", serde_json::to_string_pretty(&value).expect("a value").replace('\n', " "))
        }
        Err(_) => line.to_owned(),
    }
}

#[test]
fn requests_are_json_and_name_model_prompt_and_mode() {
    for dialect in Dialect::ALL {
        for mode in [Mode::Whole, Mode::Stream] {
            for image in [None, Some("aGk=")] {
                let body = dialect.request("m-1", mode, Usage::Asked, "hello there", image);
                serde_json::from_str::<serde_json::Value>(&body).expect("valid JSON");
                assert!(body.contains("hello there"), "{body}");
                let path = dialect.path("m-1", mode);
                let (seen, fixed) = Dialect::of_path(&path).expect("a known path");
                assert_eq!(seen, dialect);
                let streams = fixed.map_or(is_true_at(body.as_bytes(), b"\"stream\""), |m| m == Mode::Stream);
                assert_eq!(streams, mode == Mode::Stream && dialect != Dialect::Embeddings, "{path} {body}");
            }
        }
    }
}

#[test]
fn a_chat_stream_asks_for_usage_unless_it_is_left_out() {
    for (usage, asks) in [(Usage::Asked, true), (Usage::LeftOut, false)] {
        let body = Dialect::Chat.request("m", Mode::Stream, usage, "hello", None);
        assert_eq!(is_true_at(body.as_bytes(), b"\"include_usage\""), asks, "{body}");
    }
}

#[test]
fn a_stream_reads_back_its_text_and_its_end_also_when_rewritten() {
    for dialect in [Dialect::Chat, Dialect::Responses, Dialect::Messages, Dialect::Gemini] {
        let facts = facts();
        let mut events = dialect.opening(&facts);
        for (sequence, text) in [(0, "one "), (1, "two ")] {
            let mut out = Vec::new();
            dialect.frame(&facts).write(sequence, &mut out, |out| out.extend_from_slice(text.as_bytes()));
            events.push(String::from_utf8(out).expect("text"));
        }
        events.extend(dialect.closing(&facts, "one two ", 2));
        let is_rewritten = [false, true];
        for rewrite in is_rewritten {
            let (mut text, mut ends) = (String::new(), 0);
            for event in &events {
                assert!(event.ends_with("\n\n") || event.ends_with("\r\n\r\n"), "{event:?}");
                let event = if rewrite { rewritten(event) } else { event.clone() };
                match dialect.read_event(event.as_bytes()) {
                    EventText::Text(piece) | EventText::TextAndEnd(piece) => {
                        text.push_str(std::str::from_utf8(piece).expect("text"));
                    }
                    EventText::End => ends += 1,
                    EventText::Error => panic!("{event}"),
                    EventText::Other => {}
                }
            }
            assert_eq!((text.as_str(), ends), ("one two ", 1), "{dialect:?}");
        }
        let error = dialect.error(500, "broken");
        if dialect != Dialect::Responses {
            assert_eq!(dialect.read_event(error.as_bytes()), EventText::Error, "{dialect:?}");
        }
    }
}

#[test]
fn a_whole_answer_is_json_and_reads_back_its_text() {
    for dialect in Dialect::ALL {
        let body = dialect.whole(&facts(), "some text ");
        let value = serde_json::from_str::<serde_json::Value>(&body).expect("valid JSON");
        let spaced = serde_json::to_string_pretty(&value).expect("a value");
        for body in [&body, &spaced] {
            let found = dialect.read_whole(body.as_bytes()).expect("text");
            if dialect == Dialect::Embeddings {
                assert!(Dialect::is_vector_of(found, "abcdefgh"));
                assert!(!Dialect::is_vector_of(found, "abcdefgi"));
            } else {
                assert_eq!(found, b"some text ", "{dialect:?}");
            }
        }
    }
}

#[test]
fn an_embedding_that_went_through_floats_is_noticed() {
    let body = Dialect::Embeddings.whole(&facts(), "");
    let found = Dialect::Embeddings.read_whole(body.as_bytes()).expect("a vector");
    let vector: Vec<f32> = serde_json::from_slice(found).expect("numbers");
    let narrowed: Vec<f64> = vector.into_iter().map(f64::from).collect();
    let narrowed = serde_json::to_vec(&narrowed).expect("numbers");
    assert!(!Dialect::is_vector_of(&narrowed, "abcdefgh"));
}

#[test]
fn a_key_that_is_a_value_and_an_escaped_quote_do_not_mislead() {
    let json = br#"{"type":"text", "x":"\"text\": \"no\"", "text" : "a\"b\\"}"#;
    assert_eq!(string_at(json, b"\"text\""), Some(br#"a\"b\\"#.as_slice()));
    assert_eq!(string_at(br#"{"text":"open"#, b"\"text\""), None);
}
