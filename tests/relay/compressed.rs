//! Answers that come compressed though nobody asked for it: byte for byte to the client, metered from a copy.
//!
//! Bodies are real: gzip and deflate made here, Brotli by its reference encoder (`dialect/streams`). Each is
//! cut at random; the recorded compressed answers of `../shared/wire` go through as they were recorded.

use crate::corpus::cases;
use crate::relay::gateway::{Gateway, Setup, ask, call, chat, post, send};
use crate::relay::http::{Pace, Reader};
use crate::relay::told::{DIALECTS, Finish, kind, path, stream, whole};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::Value;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tollgate::llm::dialect::Dialect::{self, OpenAiChat};
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::memory::{Faults, Simulation};
use tollgate::policy::exchange::Exchange;
use tollgate::policy::stage::{EventStage, EventVerdict, EventView, MakeEventStage, Released};
use tollgate::usage::inflate::INFLATED_MAX;

const REQUEST: &str = r#"{"model":"m","max_tokens":900}"#;
const BROTLI_WHOLE: &[u8] = include_bytes!("../dialect/streams/openai_chat.json.br");
const BROTLI_STREAM: &[u8] = include_bytes!("../dialect/streams/openai_chat.sse.br");
/// `{"a":"aaa…","usage":…}` of 100 MiB.
const BROTLI_BOMB: &[u8] = include_bytes!("../dialect/streams/bomb.json.br");
const STREAM: &str = "text/event-stream";
const WHOLE: &str = "application/json";

fn gzip(plain: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain.as_ref()).expect("memory");
    encoder.finish().expect("memory")
}

fn deflate(plain: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain.as_ref()).expect("memory");
    encoder.finish().expect("memory")
}

/// Sends `body` in `framing`, cut at random, and gives the record. The client must get the same bytes.
fn metered(dialect: Dialect, coding: &str, content_type: &str, body: &[u8], seed: u64) -> Value {
    let mut draw = fastrand::Rng::with_seed(seed);
    let work = async {
        let (listener, address) = listen();
        let fields = format!("content-type: {content_type}\r\ncontent-encoding: {coding}\r\n");
        let chunked = draw.bool();
        let framing = match chunked {
            true => "transfer-encoding: chunked\r\n".to_string(),
            false => format!("content-length: {}\r\n", body.len()),
        };
        let head = format!("HTTP/1.1 200 OK\r\n{fields}{framing}\r\n");
        let mut script = Script::new().expect_until("\r\n\r\n").check(|head| {
            let head = String::from_utf8_lossy(head).to_ascii_lowercase();
            assert!(head.contains("accept-encoding: identity\r\n") && !head.contains("gzip"), "{head}");
        });
        script = script.expect(REQUEST).send(head);
        let mut rest = body;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(draw.usize(1..=rest.len().min(1 + body.len() / 3)));
            let piece = match chunked {
                true => [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
                false => piece.to_vec(),
            };
            script = script.send(piece).wait(Duration::from_micros(draw.u64(0..200)));
            rest = more;
        }
        script = if chunked { script.send("0\r\n\r\n") } else { script };
        serve(listener, vec![script.expect_end()]);
        let gateway = Gateway::start(&Setup::one(kind(dialect), address));
        let request = post(path(dialect), REQUEST).replace("host:", "Accept-Encoding: gzip, br\r\nhost:");
        let answer = ask(gateway.address, request).await;
        assert!(answer.whole && answer.body == body, "the bytes differ");
        assert_eq!(answer.field("content-encoding"), Some(coding));
        gateway.end().await.remove(0)
    };
    Simulation::new(seed, Faults::none()).run(work).finished()
}

#[test]
fn a_compressed_answer_goes_through_byte_for_byte_and_is_metered() {
    for dialect in DIALECTS {
        let streamed = stream(dialect, &["Hel", "lo ", "there"], Finish::Apart);
        for (content_type, plain) in [(STREAM, streamed), (WHOLE, whole(dialect, "Hello there"))] {
            for seed in 0..20 {
                let rows = [("gzip", gzip(&plain)), ("deflate", deflate(&plain)), ("X-GZip", gzip(&plain))];
                for (coding, body) in rows {
                    let record = metered(dialect, coding, content_type, &body, seed);
                    let seen = (&record["usage"], &record["input_tokens"], &record["output_tokens"]);
                    let all = (&"provider".into(), &7.into(), &3.into());
                    assert_eq!(seen, all, "{dialect:?} {coding} {content_type} seed {seed}");
                }
            }
        }
    }
    for seed in 0..50 {
        let record = metered(OpenAiChat, "br", WHOLE, BROTLI_WHOLE, seed);
        assert_eq!((&record["usage"], &record["output_tokens"]), (&"provider".into(), &3.into()));
        let record = metered(OpenAiChat, "br", STREAM, BROTLI_STREAM, seed);
        assert_eq!(record["input_tokens"], 11);
    }
}

#[test]
fn compressed_recordings_are_metered_as_their_plain_ones() {
    let mut compared = 0;
    for (seed, case) in (0..).zip(cases().iter().filter(|case| case.gzip.is_some() && case.status == 200)) {
        let Some(usage) = case.expect.as_ref().map(|expect| expect["usage"].clone()) else { continue };
        let content_type = if case.shape == tollgate::usage::meter::Shape::Stream { STREAM } else { WHOLE };
        let body = case.gzip.as_deref().expect("filtered by it");
        let record = metered(case.dialect, "gzip", content_type, body, seed);
        if record["usage"] == "provider" {
            assert_eq!(record["input_tokens"], usage["input_total"], "{}", case.name);
            assert_eq!(record["output_tokens"], usage["output_total"], "{}", case.name);
            compared += 1;
        }
    }
    eprintln!("compared {compared} compressed recordings");
}

#[test]
fn what_cannot_be_read_goes_through_and_is_estimated_from_what_came() {
    let text = "word ".repeat(400);
    let plain = whole(OpenAiChat, &text);
    let (zipped, unknown) = (gzip(&plain), vec![7; 100]);
    let rows: [(&str, &str, &[u8]); 5] = [
        // All but the end, where the usage stands: the text that came counts.
        ("gzip", "cut short", &zipped[..zipped.len() - 40]),
        ("gzip", "no gzip at all", b"{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}"),
        ("br", "broken at once", &[0xff; 50]),
        ("zstd", "not known here", &unknown),
        ("gzip, br", "one over the other", &zipped),
    ];
    for (coding, what, body) in rows {
        for seed in 0..20 {
            let record = metered(OpenAiChat, coding, WHOLE, body, seed);
            assert_eq!(record["usage"], "estimated", "{what}");
            assert_eq!(record["input_tokens"], REQUEST.len().div_ceil(4), "{what}");
            let output = record["output_tokens"].as_u64().expect("a number");
            assert!((1..=900).contains(&output), "{what}: {output}");
            if coding == "zstd" {
                assert_eq!(output, 25);
            }
        }
    }
}

#[test]
fn a_bomb_goes_through_small_and_is_read_up_to_the_bound() {
    let mut plain = vec![b'a'; INFLATED_MAX as usize + 1];
    plain[..6].copy_from_slice(b"{\"a\":\"");
    plain.extend_from_slice(b"\",\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}");
    for (coding, body) in [("gzip", &gzip(&plain)[..]), ("br", BROTLI_BOMB)] {
        let record = metered(OpenAiChat, coding, WHOLE, body, 1);
        assert_eq!(record["usage"], "estimated", "{coding}");
    }
    // One that ends within the bound is read to its usage.
    let usage = b"\",\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}";
    plain.truncate(INFLATED_MAX as usize - usage.len());
    plain.extend_from_slice(usage);
    let record = metered(OpenAiChat, "gzip", WHOLE, &gzip(&plain), 1);
    assert_eq!((&record["usage"], &record["output_tokens"]), (&"provider".into(), &3.into()));
}

struct Looks;

impl MakeEventStage for Looks {
    fn make(&self, _: &Exchange) -> Option<Box<dyn EventStage>> {
        Some(Box::new(Looks))
    }
}

impl EventStage for Looks {
    fn event(&mut self, _: &mut EventView<'_>) -> EventVerdict {
        EventVerdict::Pass
    }

    fn release(&mut self, _: &tollgate::llm::dialect::Closes, _: &mut Vec<Released>) {}
}

#[test]
fn nothing_that_a_stage_cannot_read_passes_it() {
    calmly_on_every_driver(async || {
        let zipped = gzip(whole(OpenAiChat, "Hello"));
        let (streamed, text) = (gzip(stream(OpenAiChat, &["Hello"], Finish::Apart)), b"Hello".to_vec());
        let head = |coding: &str, kind: &str, body: &[u8]| {
            let coding =
                if coding.is_empty() { String::new() } else { format!("content-encoding: {coding}\r\n") };
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{coding}content-length: {}\r\n\r\n",
                body.len()
            )
        };
        let rows = [
            ("gzip", WHOLE, zipped, "content-encoding \"gzip\""),
            ("br", STREAM, streamed, "content-encoding \"br\""),
            ("", WHOLE, text, "no JSON"),
        ];
        let (listener, address) = listen();
        let script = |(coding, kind, body, _): &(&str, &str, Vec<u8>, &str)| {
            let answer = [head(coding, kind, body).as_bytes(), body].concat();
            Script::new().expect_until("\r\n\r\n").expect(REQUEST).send(answer).wait(Duration::from_millis(5))
        };
        serve(listener, rows.iter().map(script).collect());
        let gateway = Gateway::start(
            &Setup::one(OpenAi, address).with(|setup| setup.base.stages.event.push(Arc::new(Looks))),
        );
        let conn = call(gateway.address).await;
        let mut reader = Reader::new(&conn, Pace::default());
        for (_, _, _, says) in &rows {
            send(&conn, chat(REQUEST).as_bytes()).await;
            let answer = reader.answer(false).await.expect("an answer");
            assert_eq!((answer.status(), answer.field("content-encoding")), (502, None));
            let error = &answer.json()["error"];
            assert_eq!(error["code"], "upstream_invalid_response");
            assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{error}");
        }
        drop(conn);
        gateway.end().await;
    });
}
