//! `tollgate usage` against what providers have said: every recorded answer through the binary, each record's tokens
//! as the recording's own reader counts them, and the sums as the records say.

use crate::cli::{Directory, ended};
use crate::corpus::{Case, cases};
use crate::process::gateway::{Gateway, KEY, config, soon};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use tollgate::llm::dialect::Dialect;
use tollgate::usage::meter::Shape;

/// Vendors that count otherwise than their dialect; `dialect/usage.rs` says how.
const EXCEPTIONS: [&str; 3] = [
    "gemini/openai_compat_chat.",
    "mistral/chat.audio_in.",
    "mistral/chat.special_audio_tokens_outside_prompt_tokens.",
];

const KINDS: [(&str, &str); 5] = [
    ("input_total", "input_tokens"),
    ("output_total", "output_tokens"),
    ("cache_read", "cache_read_tokens"),
    ("cache_write", "cache_write_tokens"),
    ("reasoning", "reasoning_tokens"),
];

#[test]
fn usage_reconciles_with_what_providers_have_said_to_the_token() {
    let wanted =
        |case: &Case| case.status == 200 && !EXCEPTIONS.iter().any(|name| case.name.starts_with(name));
    let cases: Arc<Vec<Case>> = Arc::new(cases().into_iter().filter(wanted).collect());
    if cases.is_empty() {
        return;
    }
    let state = Directory::new();
    let directory = state.path("state");
    let upstream = provider(Arc::clone(&cases));
    let more = format!(
        "[log]\naccess = \"off\"\n\n[ledger]\ndirectory = \"{directory}\"\n\n[[provider]]\nname = \"messages\"\n\
         kind = \"anthropic\"\nbase_url = \"http://{upstream}\"\n\n[[model]]\nname = \"a\"\n\
         targets = [{{ provider = \"messages\" }}]\n"
    );
    let mut gateway = Gateway::start(&config(upstream, &more).replace("workers = 1", "workers = 2"));
    for (number, case) in cases.iter().enumerate() {
        ask(gateway.address, number, case);
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit(), Some(0), "{:#?}", gateway.told());

    let listed = ended(&["usage", "--directory", &directory, "--records"]).stdout;
    let records: BTreeMap<String, Value> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|record| (record["tags"].as_str().expect("a tag").to_owned(), record))
        .collect();
    assert_eq!(records.len(), cases.len(), "each answer has one record");
    let mut compared = 0;
    for (number, case) in cases.iter().enumerate() {
        let record = &records[&number.to_string()];
        let expected = case.expect.as_ref().map(|expect| &expect["usage"]).filter(|usage| usage.is_object());
        let Some(expected) = expected.filter(|_| record["usage"] == "provider") else { continue };
        for (name, found) in KINDS {
            let (said, found) = (expected[name].as_u64(), record[found].as_u64());
            assert_eq!(found.unwrap_or(0), said.unwrap_or(0), "{} {name}: {record}", case.name);
        }
        compared += 1;
    }
    assert!(compared > 250, "{compared} compared");

    let arguments = ["usage", "--directory", &directory, "--by", "model", "--format", "json"];
    let sums = || serde_json::from_str::<Value>(&ended(&arguments).stdout).expect("JSON");
    assert!(soon(|| sums()["not_rolled_up"] == 0), "{}", sums());
    let sums = sums();
    let of_rows = |name: &str| -> u64 {
        sums["rows"].as_array().expect("rows").iter().filter_map(|row| row[name].as_u64()).sum()
    };
    let of_records =
        |name: &str| -> u64 { records.values().filter_map(|record| record[name].as_u64()).sum() };
    for (_, name) in KINDS {
        assert_eq!(of_rows(name), of_records(name), "{name}");
    }
    assert_eq!(of_rows("requests"), cases.len() as u64);
    eprintln!("{} answers, usage of {compared} compared", cases.len());
}

/// One request for the case of this number. Its answer must be the recorded one.
fn ask(address: SocketAddr, number: usize, case: &Case) {
    let (path, model) = match case.dialect {
        Dialect::OpenAiChat => ("/v1/chat/completions", "m"),
        Dialect::OpenAiCompletions => ("/v1/completions", "m"),
        Dialect::OpenAiEmbeddings => ("/v1/embeddings", "m"),
        Dialect::OpenAiResponses => ("/v1/responses", "m"),
        Dialect::Anthropic => ("/v1/messages", "a"),
    };
    let stream = match (case.shape, case.dialect) {
        (Shape::Stream, Dialect::OpenAiChat | Dialect::OpenAiCompletions) => {
            ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"
        }
        (Shape::Stream, _) => ",\"stream\":true",
        (Shape::Whole, _) => "",
    };
    let body = format!("{{\"case\":{number},\"model\":\"{model}\"{stream}}}");
    let mut conn = TcpStream::connect(address).expect("the gateway listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n\
         connection: close\r\nx-tollgate-tags: {number}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    conn.write_all(request.as_bytes()).expect("it takes the request");
    let mut answer = Vec::new();
    conn.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}: {}", case.name, String::from_utf8_lossy(&answer));
}

/// Plays the recorded answers, a connection each.
fn provider(cases: Arc<Vec<Case>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for conn in listener.incoming().map_while(Result::ok) {
            // The gateway's affair where it fails.
            let _ = play(&cases, conn);
        }
    });
    address
}

fn play(cases: &[Case], conn: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(&conn);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let asked: Value = serde_json::from_slice(&body)?;
    let Some(case) = asked["case"].as_u64().and_then(|number| cases.get(number as usize)) else {
        return Ok(());
    };
    let kind = if case.shape == Shape::Stream { "text/event-stream" } else { "application/json" };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        case.body.len()
    );
    (&conn).write_all(head.as_bytes())?;
    (&conn).write_all(&case.body)
}
