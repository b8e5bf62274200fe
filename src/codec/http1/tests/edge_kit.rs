//! The shared edge kit without a socket: each of its HTTP/1.1 cases and each fault that a canned upstream
//! answer can be, through scan, framing and chunk decoder, judged by the kit's own expectations.
//!
//! Needs `../shared/edge` and python3, which holds the cases; says so and passes where either is absent.

use crate::codec::http1::{
    Asked, BodyFraming, Chunk, ChunkDecoder, HeadLimits, RequestScan, ResponseFraming, ResponseScan,
};
use std::path::PathBuf;
use std::process::Command;

/// One line per row: columns between tabs, bytes in hex.
const DUMP_CASES: &str = r#"
import h1_cases
for c in h1_cases.CASES:
    auth = b"Content-Type: application/json\r\n"
    if c.get("lf"): auth = auth.replace(b"\r\n", b"\n")
    raw = c["raw"].replace(b"{P}", b"/v1/chat/completions").replace(b"{H}", b"gw.test").replace(b"{A}", auth)
    flags = [k for k in ("nobody", "pipelined_smug_ok") if c.get(k)]
    print(c["id"], "|".join(c["ok"]), ",".join(flags), c.get("n", 1), raw.hex(), sep="\t")
"#;

const DUMP_FAULTS: &str = r#"
import chaos, inspect
for name, (fn, expect, why) in chaos.F.items():
    canned = inspect.getclosurevars(fn).nonlocals
    if "data" in canned: print(name, "|".join(expect), canned["data"].hex(), sep="\t")
"#;

/// Rows of the kit, or `None` with a message where it is not there.
fn kit(script: &str) -> Option<Vec<Vec<String>>> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/edge"));
    if !folder.join("h1_cases.py").exists() {
        eprintln!("skipped: no edge kit in ../shared/edge");
        return None;
    }
    let python = Command::new("python3").args(["-B", "-c", script]).current_dir(folder).output();
    let Ok(output) = python else {
        eprintln!("skipped: no python3, which the edge kit needs");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("the kit prints ASCII");
    Some(text.lines().map(|row| row.split('\t').map(str::to_owned).collect()).collect())
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).expect("hex") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// What a gateway makes of one message.
#[derive(Debug, PartialEq)]
enum Outcome {
    Accept { is_smuggled: bool, body: Vec<u8> },
    Reject,
    Wait,
}

/// The messages that a connection carrying these bytes holds, up to the first that is not accepted.
fn messages(mut bytes: &[u8]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while !bytes.is_empty() {
        let mut scan = RequestScan::new();
        let len = match scan.advance(bytes, &HeadLimits::DEFAULT) {
            Ok(Some(len)) => len,
            Ok(None) => return with(outcomes, Outcome::Wait),
            Err(_) => return with(outcomes, Outcome::Reject),
        };
        let Ok(head) = scan.decode(bytes) else { return with(outcomes, Outcome::Reject) };
        bytes = &bytes[len..];
        let body = match head.framing {
            BodyFraming::None => Ok(Some((Vec::new(), 0))),
            BodyFraming::Length(n) if n > bytes.len() as u64 => Ok(None),
            BodyFraming::Length(n) => Ok(Some((bytes[..n as usize].to_vec(), n as usize))),
            BodyFraming::Chunked => chunked(bytes),
        };
        let Ok(body) = body else { return with(outcomes, Outcome::Reject) };
        let Some((body, used)) = body else { return with(outcomes, Outcome::Wait) };
        bytes = &bytes[used..];
        let is_smuggled = head.path_and_query().contains("smug=")
            || head.authority().is_some_and(|authority| authority.contains("smug"));
        outcomes.push(Outcome::Accept { is_smuggled, body });
        if !head.keep_alive {
            break;
        }
    }
    outcomes
}

fn with(mut outcomes: Vec<Outcome>, last: Outcome) -> Vec<Outcome> {
    outcomes.push(last);
    outcomes
}

/// Data and bytes used; `None` where the body has not ended.
fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let (mut decoder, mut data, mut at) = (ChunkDecoder::new(), Vec::new(), 0);
    loop {
        match decoder.next(&bytes[at..]).map_err(drop)? {
            Chunk::Data(range) => {
                data.extend_from_slice(&bytes[at..][range.clone()]);
                at += range.end;
            }
            Chunk::NeedMore => return Ok(None),
            Chunk::End { consumed } => return Ok(Some((data, at + consumed))),
        }
    }
}

#[test]
fn every_case_of_the_edge_kit_has_an_allowed_outcome() {
    let Some(rows) = kit(DUMP_CASES) else { return };
    assert!(rows.len() >= 198, "{} cases", rows.len());
    for row in &rows {
        let [id, allowed, flags, count, raw] = &row[..] else { panic!("{row:?}") };
        let outcomes = messages(&unhex(raw));
        let first = match outcomes.first() {
            Some(Outcome::Accept { .. }) => "accept",
            Some(Outcome::Reject) => "reject",
            Some(Outcome::Wait) | None => "wait",
        };
        assert!(allowed.split('|').any(|outcome| outcome == first), "{id}: {first}, allowed {allowed}");
        let accepted = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Accept { is_smuggled, body } => Some((*is_smuggled, body)),
            _ => None,
        });
        let (smuggled, clean): (Vec<_>, Vec<_>) = accepted.partition(|(is_smuggled, _)| *is_smuggled);
        assert!(smuggled.is_empty() || flags.contains("pipelined_smug_ok"), "{id}: smuggled");
        if first == "accept" {
            assert_eq!(clean.len().to_string(), *count, "{id}: messages");
        }
        let marker = format!("case-{id}");
        let has_marker = |body: &[u8]| memchr::memmem::find(body, marker.as_bytes()).is_some();
        let bodies_are_whole = clean.iter().all(|(_, body)| has_marker(body));
        assert!(bodies_are_whole || flags.contains("nobody"), "{id}: body changed or lost");
    }
    eprintln!("{} cases of the edge kit", rows.len());
}

#[test]
fn every_canned_answer_of_the_chaos_upstream_has_an_allowed_outcome() {
    let Some(rows) = kit(DUMP_FAULTS) else { return };
    assert!(rows.len() >= 38, "{} faults", rows.len());
    for row in &rows {
        let [name, allowed, raw] = &row[..] else { panic!("{row:?}") };
        let outcome = answer(&unhex(raw));
        let is_allowed = allowed.split('|').any(|expected| match expected {
            "any" => true,
            "pass" => outcome != "cut",
            "clean" => outcome == "ok",
            _ => expected == outcome,
        });
        assert!(is_allowed, "{name}: {outcome}, allowed {allowed}");
    }
    eprintln!("{} canned answers of the chaos upstream", rows.len());
}

/// What a client would get of an answer after which the connection ends: err, cut or ok.
fn answer(bytes: &[u8]) -> &'static str {
    let mut scan = ResponseScan::new(Asked::Body);
    let Ok(Some(head)) = scan.advance(bytes, &HeadLimits::DEFAULT) else { return "err" };
    if head.status >= 400 {
        return "err";
    }
    let body = &bytes[head.len..];
    let is_whole = match head.framing {
        ResponseFraming::None | ResponseFraming::UntilClose => true,
        ResponseFraming::Length(n) => body.len() as u64 >= n,
        ResponseFraming::Chunked => matches!(chunked(body), Ok(Some(_))),
    };
    if is_whole { "ok" } else { "cut" }
}
