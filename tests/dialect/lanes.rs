//! The texts that lanes point at are those that the corpus says, from streams and from whole answers.

use crate::corpus::{Case, cases};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tollgate::codec::json::unescape;
use tollgate::codec::sse::Event;
use tollgate::llm::dialect::{Class, Dialect, Lane, LaneKind, LaneText, Lanes, Part};
use tollgate::usage::meter::Shape;

/// Answers with more lanes than the corpus lists texts, and why.
const EXCEPTIONS: [(&str, &str); 4] = [
    ("anthropic/messages.mcp_tool_stream.", "arguments of a tool that the provider runs are a lane, too"),
    ("anthropic/messages.server_tool_stream.", "the same"),
    ("anthropic/messages.special_input_tokens_change_in_message_delta_stream.", "the same"),
    ("openai/responses.custom_tool_stream.", "the input of a custom tool is a lane, too"),
];

type Texts = BTreeMap<Lane, Vec<u8>>;

#[test]
fn lanes_hold_the_texts_that_the_corpus_expects() {
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(expect) = case.expect.as_ref().filter(|expect| expect["kind"] == "message") else {
            continue;
        };
        let (found, expected) = (found(&case, &lanes_of(&case)), expected(case.dialect, case.shape, expect));
        let excepted = EXCEPTIONS.iter().any(|(name, _)| case.name.starts_with(name));
        if (found != expected) != excepted {
            wrong.push(format!("{}:\n  found    {found}\n  expected {expected}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_responses_repeats_is_what_it_said() {
    let mut repeats = 0;
    for case in cases().iter().filter(|case| case.dialect == Dialect::OpenAiResponses) {
        if case.shape == Shape::Whole {
            continue;
        }
        let (mut said, mut joined) = (Texts::new(), Vec::new());
        for raw in case.events() {
            let event = Event::parse(raw, &mut joined);
            let data = event.data.bytes();
            let mut lanes = Lanes::new();
            case.dialect.lanes(event.name, data, &mut lanes);
            for LaneText { lane, part, range } in lanes {
                let so_far = said.entry(lane).or_default();
                match part {
                    Part::Next => so_far.extend_from_slice(&data[range]),
                    Part::Again => {
                        repeats += 1;
                        let again = String::from_utf8_lossy(&data[range]).into_owned();
                        // A server that sends no deltas for a kind of item says it here for the first time.
                        let first = so_far.is_empty();
                        assert!(first || again.as_bytes() == so_far, "{} {lane:?}: {again}", case.name);
                    }
                    Part::Echo => panic!("{}: {lane:?}", case.name),
                }
            }
        }
    }
    eprintln!("compared {repeats} repeats");
}

/// The texts of an answer, pieces put together.
fn lanes_of(case: &Case) -> Texts {
    let (mut texts, mut joined) = (Texts::new(), Vec::new());
    if case.shape == Shape::Whole {
        let mut lanes = Lanes::new();
        case.dialect.lanes_whole(&case.body, &mut lanes);
        take(&case.body, lanes, &mut texts);
        return texts;
    }
    for raw in case.events() {
        let event = Event::parse(raw, &mut joined);
        let mut lanes = Lanes::new();
        case.dialect.lanes(event.name, event.data.bytes(), &mut lanes);
        if event.name == Some(b"message_start") {
            texts.clear();
        }
        let speaks = lanes.iter().any(|text| text.part == Part::Next && !text.range.is_empty());
        let class = case.dialect.class(event.name, event.data.bytes());
        assert!(speaks == (class == Class::Content) || class != Class::Other, "{}", case.name);
        take(event.data.bytes(), lanes, &mut texts);
    }
    texts
}

fn take(data: &[u8], lanes: Lanes, texts: &mut Texts) {
    for LaneText { lane, part, range } in lanes {
        if part == Part::Next {
            texts.entry(lane).or_default().extend_from_slice(&data[range]);
        }
    }
}

/// By choice: text, reasoning, refusal, and the arguments of each tool call.
fn found(case: &Case, texts: &Texts) -> Value {
    let mut choices: BTreeMap<u32, Value> = BTreeMap::new();
    for (lane, raw) in texts {
        let mut text = Vec::new();
        unescape(raw, &mut text).unwrap_or_else(|defect| panic!("{}: {defect}", case.name));
        let text = String::from_utf8(text).expect("UTF-8");
        let choice = choices.entry(lane.choice).or_insert_with(|| json!({"tools": []}));
        let name = match lane.kind {
            LaneKind::Text => "text",
            LaneKind::Reasoning => "reasoning",
            LaneKind::Refusal => "refusal",
            LaneKind::ToolArguments => {
                choice["tools"].as_array_mut().expect("a list").push(arguments(&text));
                continue;
            }
        };
        let before = choice.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        choice[name] = json!(before + &text);
    }
    choices.into_values().map(without_empty).filter(is_not_empty).collect()
}

fn expected(dialect: Dialect, shape: Shape, expect: &Value) -> Value {
    let choices = expect["choices"].as_array().expect("choices").iter();
    let choice = |choice: &Value| {
        let calls = choice["tool_calls"].as_array().cloned().unwrap_or_default();
        let tools: Vec<Value> = calls.iter().map(|call| call["arguments"].clone()).collect();
        // A whole Anthropic answer has its arguments as objects, which are no lanes.
        let tools = if (dialect, shape) == (Dialect::Anthropic, Shape::Whole) { Vec::new() } else { tools };
        without_empty(json!({
            "text": choice["text"],
            "reasoning": choice["reasoning"],
            "refusal": choice["refusal"],
            "tools": tools,
        }))
    };
    choices.map(choice).filter(is_not_empty).collect()
}

fn is_not_empty(choice: &Value) -> bool {
    *choice != json!({})
}

/// Arguments that are JSON compare as values; none at all means none.
fn arguments(text: &str) -> Value {
    if text.is_empty() {
        return json!({});
    }
    serde_json::from_str(text).unwrap_or_else(|_| json!({ "$unparsed": text }))
}

fn without_empty(mut choice: Value) -> Value {
    let members = choice.as_object_mut().expect("an object");
    members.retain(|_, value| !value.is_null() && *value != json!("") && *value != json!([]));
    choice
}
