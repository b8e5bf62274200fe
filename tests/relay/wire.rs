//! Recorded provider answers through the gateway: the client gets the provider's bytes, the access log its
//! usage.
//!
//! Each case of `../shared/wire` in our dialects is answered by a scripted upstream with each framing, cut
//! at random points, small bodies at every offset. Where the gateway asked for usage itself, the chunk that
//! only tells usage is the one difference. Vendors that count otherwise than their dialect are named in
//! `dialect/usage.rs` and skipped here.

use crate::corpus::{Case, cases};
use crate::relay::gateway::{Gateway, Setup, call, post, send};
use crate::relay::http::{Pace, Reader};
use crate::sim::driver::listen;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tollgate::llm::dialect::Dialect;
use tollgate::llm::provider::ProviderKind;
use tollgate::net::conn::Conn;
use tollgate::net::listener::Listener;
use tollgate::net::memory::{Faults, Simulation};
use tollgate::net::runtime;
use tollgate::net::send::SendList;
use tollgate::usage::meter::Shape;

/// Bodies up to this long are cut at every offset.
const EVERY_CUT_MAX: usize = 300;

const EXCEPTIONS: [&str; 3] = [
    "gemini/openai_compat_chat.",
    "mistral/chat.audio_in.",
    "mistral/chat.special_audio_tokens_outside_prompt_tokens.",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// What the upstream does next.
struct Turn {
    framing: Framing,
    /// Where the body is cut, ascending.
    cuts: Vec<usize>,
}

#[test]
fn recorded_answers_go_through_byte_for_byte_and_are_metered() {
    let cases = cases();
    let (mut exchanges, mut metered, mut estimated) = (0, 0, Vec::new());
    for (seed, case) in (0..).zip(&cases) {
        let turns = turns(case, &mut fastrand::Rng::with_seed(seed));
        exchanges += turns.len();
        let hidden = case.shape == Shape::Stream
            && matches!(case.dialect, Dialect::OpenAiChat | Dialect::OpenAiCompletions);
        for hide in [false, true] {
            if hide && !hidden {
                continue;
            }
            let expected = if hide { without_usage(case) } else { case.body.clone() };
            let work = replay(case, &turns, hide, &expected);
            let records = Simulation::new(seed, Faults::none()).run(work).finished();
            assert_eq!(records.len(), turns.len());
            for record in records {
                match usage(case, &record) {
                    Metered::AsExpected => metered += 1,
                    Metered::Estimated => estimated.push(case.name.as_str()),
                    Metered::Nothing => {}
                }
            }
        }
    }
    estimated.dedup();
    eprintln!(
        "{} cases, {exchanges} exchanges, usage of {metered} compared, estimated: {estimated:?}",
        cases.len()
    );
    assert!(cases.is_empty() || metered > 1000, "{metered} compared");
}

fn turns(case: &Case, draw: &mut fastrand::Rng) -> Vec<Turn> {
    let len = case.body.len();
    let mut turns = Vec::new();
    for framing in [Framing::Length, Framing::Chunked, Framing::UntilClose] {
        let mut cuts: Vec<usize> = (0..draw.usize(1..30)).map(|_| draw.usize(0..=len)).collect();
        cuts.sort_unstable();
        turns.push(Turn { framing, cuts });
    }
    if len <= EVERY_CUT_MAX {
        turns.extend((1..len).map(|at| Turn { framing: Framing::Chunked, cuts: vec![at] }));
        turns.push(Turn { framing: Framing::Length, cuts: (1..len).collect() });
    }
    turns
}

/// The body without the chunk that only tells usage.
fn without_usage(case: &Case) -> Vec<u8> {
    let is_usage = |event: &&[u8]| {
        let text = String::from_utf8_lossy(event);
        let data = text.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_default();
        let Ok(data) = serde_json::from_str::<Value>(data) else { return false };
        data["usage"].is_object() && data["choices"].as_array().is_some_and(Vec::is_empty)
    };
    case.events().into_iter().filter(|event| !is_usage(event)).collect::<Vec<_>>().concat()
}

/// All turns of one case through one gateway. The access log.
async fn replay(case: &Case, turns: &[Turn], hide: bool, expected: &[u8]) -> Vec<Value> {
    let (listener, address) = listen();
    let answers = turns.iter().map(|turn| sends(case, turn)).collect();
    let over = Rc::new(Cell::new(false));
    runtime::spawn(upstream(listener, Rc::new(RefCell::new(answers)), Rc::clone(&over)));
    let (kind, path) = match case.dialect {
        Dialect::OpenAiChat => (ProviderKind::OpenAi, "/v1/chat/completions"),
        Dialect::OpenAiCompletions => (ProviderKind::OpenAi, "/v1/completions"),
        Dialect::OpenAiEmbeddings => (ProviderKind::OpenAi, "/v1/embeddings"),
        Dialect::OpenAiResponses => (ProviderKind::OpenAi, "/v1/responses"),
        Dialect::Anthropic => (ProviderKind::Anthropic, "/v1/messages"),
    };
    let options = if hide { "" } else { ",\"stream_options\":{\"include_usage\":true}" };
    let body = match (case.shape, case.dialect) {
        (Shape::Stream, Dialect::OpenAiChat | Dialect::OpenAiCompletions) => {
            format!("{{\"model\":\"m\",\"stream\":true{options}}}")
        }
        (Shape::Stream, _) => "{\"model\":\"m\",\"stream\":true}".to_string(),
        (Shape::Whole, _) => "{\"model\":\"m\"}".to_string(),
    };
    let gateway = Gateway::start(&Setup::one(kind, address));
    let conn = call(gateway.address).await;
    let mut reader = Reader::new(&conn, Pace::default());
    for turn in turns {
        send(&conn, post(path, &body).as_bytes()).await;
        let answer = reader.answer(false).await.expect("an answer");
        assert_eq!((answer.status(), answer.whole), (case.status, true), "{} {:?}", case.name, turn.framing);
        assert!(
            answer.body == expected,
            "{} {:?} cut at {:?}: the bytes differ",
            case.name,
            turn.framing,
            turn.cuts
        );
    }
    drop(conn);
    over.set(true);
    gateway.end().await
}

/// Plays one answer a request, in order.
async fn upstream(listener: Listener, answers: Rc<RefCell<Vec<Vec<Vec<u8>>>>>, over: Rc<Cell<bool>>) {
    answers.borrow_mut().reverse();
    while !over.get() && !answers.borrow().is_empty() {
        let Ok(accepted) = listener.accept().await else { return };
        let conn = Conn::Plain(accepted.stream);
        let mut reader = Reader::new(&conn, Pace::default());
        while reader.request().await.is_some() {
            let sends = answers.borrow_mut().pop().expect("as many answers as requests");
            let closes = !sends[0].windows(9).any(|bytes| bytes == b"content-l" || bytes == b"transfer-");
            for bytes in sends {
                let mut list = SendList::new();
                list.push_copy(&bytes);
                conn.send(list).await.expect("the gateway takes it");
                // A read of its own for each.
                runtime::sleep(std::time::Duration::from_micros(100)).await;
            }
            if closes {
                break;
            }
        }
    }
}

/// The sends of one answer: head and first piece, then piece by piece.
fn sends(case: &Case, turn: &Turn) -> Vec<Vec<u8>> {
    let kind = if case.shape == Shape::Stream { "text/event-stream" } else { "application/json" };
    let framing = match turn.framing {
        Framing::Length => format!("content-length: {}\r\n", case.body.len()),
        Framing::Chunked => "transfer-encoding: chunked\r\n".to_string(),
        Framing::UntilClose => String::new(),
    };
    let mut sends = vec![
        format!("HTTP/1.1 {} Recorded\r\ncontent-type: {kind}\r\n{framing}\r\n", case.status).into_bytes(),
    ];
    let len = [case.body.len()];
    let (starts, ends) = ([0].iter().chain(&turn.cuts), turn.cuts.iter().chain(&len));
    for piece in
        starts.zip(ends).map(|(&start, &end)| &case.body[start..end]).filter(|piece| !piece.is_empty())
    {
        match turn.framing {
            Framing::Chunked => {
                sends.push([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            _ => sends.push(piece.to_vec()),
        }
    }
    if turn.framing == Framing::Chunked {
        sends.push(b"0\r\n\r\n".to_vec());
    }
    sends
}

enum Metered {
    AsExpected,
    Estimated,
    Nothing,
}

/// The record's usage against what the corpus says.
fn usage(case: &Case, record: &Value) -> Metered {
    assert_eq!(
        (&record["ended"], &record["status"]),
        (&"whole".into(), &case.status.into()),
        "{}",
        case.name
    );
    let Some(expect) = case.expect.as_ref().map(|expect| &expect["usage"]).filter(|usage| usage.is_object())
    else {
        return Metered::Nothing;
    };
    if case.status != 200 || EXCEPTIONS.iter().any(|name| case.name.starts_with(name)) {
        return Metered::Nothing;
    }
    if record["usage"] != "provider" {
        return Metered::Estimated;
    }
    let rows = [
        ("input_total", "input_tokens"),
        ("output_total", "output_tokens"),
        ("cache_read", "cache_read_tokens"),
        ("cache_write", "cache_write_tokens"),
        ("reasoning", "reasoning_tokens"),
    ];
    for (expected, found) in rows {
        assert_eq!(record[found], expect[expected], "{} {found}: {record}", case.name);
    }
    Metered::AsExpected
}
