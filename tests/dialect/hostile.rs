//! Damaged and malicious answers: nothing panics, and whole events, pieces and remembered shapes agree on
//! them.

use crate::dialect::writers::{data, stream};
use tollgate::codec::sse::Framer;
use tollgate::llm::dialect::{Dialect, Lane, LaneKind, Lanes, StreamState};
use tollgate::usage::Usage;
use tollgate::usage::meter::{Known, Meter, Seen, Shape};

/// What is put into answers: all that the readers look for, and what could confuse them.
const TOKENS: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    ":",
    "null",
    "true",
    "-1",
    "18446744073709551616",
    "1e999",
    "\n",
    "\r",
    " ",
    "\"usage\":{\"prompt_tokens\":5}",
    "\"usage\":{\"input_tokens\":-5,\"output_tokens\":\"7\"}",
    "\"usage\":[]",
    "\"us\\u0061ge\":{\"total_tokens\":9}",
    "\"choices\":[]",
    "\"choices\":[{}]",
    "\"index\":4294967296",
    "\"finish_reason\":\"stop\"",
    "\"error\":{}",
    "\"type\":\"message_stop\"",
    "\"type\":\"response.completed\"",
    "\"content\":\"x\"",
    "\"text\":\"y\"",
    "\"delta\":\"z\"",
    "\\ud83d",
    "\u{feff}",
    "data: ",
    "[DONE]",
];

const STREAMING: [Dialect; 4] =
    [Dialect::OpenAiChat, Dialect::OpenAiCompletions, Dialect::OpenAiResponses, Dialect::Anthropic];

/// A stream in which a few bytes were changed, moved or put in; every event stands twice, so that the second
/// may be taken for the first.
fn damaged(dialect: Dialect, random: &mut fastrand::Rng) -> Vec<u8> {
    let events = stream(dialect).split_inclusive("\n\n");
    let mut bytes: Vec<u8> = events.flat_map(|event| [event, event]).collect::<String>().into_bytes();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(0..bytes.len());
        match random.u8(0..5) {
            0 => bytes[at] = random.u8(..),
            1 if bytes.len() > 1 => drop(bytes.remove(at)),
            2 => bytes.truncate(at.max(1)),
            3 => {
                let end = (at + random.usize(0..40)).min(bytes.len());
                let moved = bytes[at..end].to_vec();
                let to = random.usize(0..bytes.len());
                bytes.splice(to..to, moved);
            }
            _ => {
                let token = TOKENS[random.usize(..TOKENS.len())];
                bytes.splice(at..at, token.bytes());
            }
        }
    }
    bytes
}

fn whole(dialect: Dialect, bytes: &[u8]) -> (Vec<Seen>, Meter) {
    let (mut meter, mut framer, mut rest, mut seen) =
        (Meter::new(dialect, Shape::Stream), Framer::new(), bytes, Vec::new());
    while let Some(end) = framer.end_of_event(rest) {
        seen.push(meter.event(&rest[..end]));
        rest = &rest[end..];
    }
    (seen, meter)
}

fn in_pieces(dialect: Dialect, bytes: &[u8], random: &mut fastrand::Rng) -> (Vec<Seen>, Meter) {
    let (mut meter, mut framer, mut rest, mut seen) =
        (Meter::new(dialect, Shape::Stream), Framer::new(), bytes, Vec::new());
    while let Some(end) = framer.end_of_event(rest) {
        let mut event = &rest[..end];
        while !event.is_empty() {
            let (piece, more) = event.split_at(random.usize(1..=event.len().min(50)));
            meter.piece(piece);
            event = more;
        }
        seen.push(meter.end());
        rest = &rest[end..];
    }
    (seen, meter)
}

#[test]
fn whole_events_and_pieces_agree_on_damaged_streams() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..6000 {
        let dialect = STREAMING[round % STREAMING.len()];
        let bytes = damaged(dialect, &mut random);
        let (seen, meter) = whole(dialect, &bytes);
        let (seen_in_pieces, pieces) = in_pieces(dialect, &bytes, &mut random);
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(seen, seen_in_pieces, "round {round}: {}", text());
        assert_eq!(meter.reported(), pieces.reported(), "round {round}: {}", text());
        assert_eq!(meter.text_bytes(), pieces.text_bytes(), "round {round}: {}", text());
        let usage = meter.finish(Known { request_bytes: 10, output_max: Some(100) });
        assert!(usage.total().is_none_or(|total| total < 1 << 40), "round {round}");
    }
}

#[test]
fn readers_and_writers_survive_damaged_documents() {
    let mut random = fastrand::Rng::with_seed(12);
    for round in 0..6000 {
        let dialect = STREAMING[round % STREAMING.len()];
        let bytes = damaged(dialect, &mut random);
        let mut state = StreamState::new();
        dialect.observe(&mut state, &bytes);
        for raw in String::from_utf8_lossy(&bytes).split_inclusive("\n\n") {
            let document = data(raw).as_bytes();
            let (mut lanes, mut usage) = (Lanes::new(), Usage::default());
            dialect.lanes(None, document, &mut lanes);
            dialect.lanes_whole(document, &mut lanes);
            dialect.usage(document, &mut usage);
            dialect.class(None, document);
            dialect.closes(None, document);
            assert!(lanes.iter().all(|text| document.get(text.range.clone()).is_some()), "round {round}");
            drop(dialect.peek(document));
        }
        let mut out = Vec::new();
        dialect.delta(Lane::new(0, 1, LaneKind::Text), "x", &mut state, &mut out);
        dialect.ending(tollgate::llm::dialect::Ending::Stop, &state, None, &mut out);
    }
}
