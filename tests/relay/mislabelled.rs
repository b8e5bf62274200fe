//! Event streams that their provider labels as something else, or not at all: relayed by events all the same.

use crate::relay::gateway::{Gateway, LAST, Setup, ask, call, chat, chunk, send};
use crate::relay::http::{Pace, Reader};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use std::sync::Arc;
use std::time::Duration;
use tollgate::llm::dialect::Closes;
use tollgate::llm::provider::ProviderKind::OpenAi;
use tollgate::net::runtime;
use tollgate::net::signal::Signal;
use tollgate::policy::exchange::Exchange;
use tollgate::policy::stage::{EventStage, EventVerdict, EventView, MakeEventStage, Released};

const BODY: &str = r#"{"model":"m","stream":true}"#;
const SENT: &str = r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#;
const WORD: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\
                    \"delta\":{\"content\":\"hi\"}}]}\n\n";
const FINISH: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\
                      \"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\
                     \"completion_tokens\":3,\"total_tokens\":10}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const WHOLE: &str = "{\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"content\":\
                     \"data: hi\"}}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}";
const MS: Duration = Duration::from_millis(1);

/// Passes every event. With it an answer that is no stream is collected before it goes on.
struct Passes;

impl MakeEventStage for Passes {
    fn make(&self, _: &Exchange) -> Option<Box<dyn EventStage>> {
        Some(Box::new(Passes))
    }
}

impl EventStage for Passes {
    fn event(&mut self, _: &mut EventView<'_>) -> EventVerdict {
        EventVerdict::Pass
    }

    fn release(&mut self, _: &Closes, _: &mut Vec<Released>) {}
}

fn head(label: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{label}transfer-encoding: chunked\r\n\r\n")
}

/// A gateway before one provider that has read the request and then plays `script`.
fn gateway(script: impl FnOnce(Script) -> Script, stages: usize) -> Gateway {
    let (listener, address) = listen();
    serve(listener, vec![script(Script::new().expect_until("\r\n\r\n").expect(SENT))]);
    let setup = Setup::one(OpenAi, address);
    let stages = (0..stages).map(|_| Arc::new(Passes) as Arc<dyn MakeEventStage>).collect();
    Gateway::start(&setup.with(|setup| setup.base.stages.event = stages))
}

const LABELS: [&str; 3] =
    ["", "content-type: text/plain; charset=utf-8\r\n", "content-type: application/json\r\n"];

#[test]
fn a_stream_under_another_label_is_relayed_at_once_and_metered_as_what_it_is() {
    calmly_on_every_driver(async || {
        for (label, stages) in LABELS.iter().flat_map(|label| [(label, 0), (label, 1)]) {
            let go_on = Signal::default();
            let rest = [&chunk(WORD), &chunk(FINISH), &chunk(USAGE), &chunk(DONE), LAST].concat();
            let begun = [&head(label), &chunk(WORD)[..]].concat();
            let gateway = gateway(|asked| asked.send(begun).until(&go_on).send(rest).expect_end(), stages);
            let conn = call(gateway.address).await;
            send(&conn, chat(BODY).as_bytes()).await;
            let mut reader = Reader::new(&conn, Pace::default());
            // The provider says more only when the client has the first word.
            reader.hear("hi").await;
            go_on.raise();
            let answer = reader.answer(false).await.expect("an answer");
            assert_eq!((answer.status(), answer.whole), (200, true), "{label} {stages}");
            // The usage was asked for by the gateway.
            assert_eq!(answer.text(), [WORD, WORD, FINISH, DONE].concat(), "{label} {stages}");
            drop(conn);
            let record = gateway.end().await.remove(0);
            let told = (&record["usage"], &record["input_tokens"], &record["output_tokens"]);
            assert_eq!(told, (&"provider".into(), &7.into(), &3.into()), "{label} {stages}");
            assert_eq!(record["events"], 5, "{label} {stages}");
        }
    });
}

#[test]
fn a_whole_answer_where_a_stream_was_asked_for_stays_one() {
    calmly_on_every_driver(async || {
        for (label, stages) in LABELS.iter().flat_map(|label| [(label, 0), (label, 1)]) {
            let sent = [&head(label), &chunk("\n")[..], &chunk(WHOLE), LAST].concat();
            let gateway = gateway(|asked| asked.send(sent).expect_end(), stages);
            let answer = ask(gateway.address, chat(BODY)).await;
            assert_eq!((answer.status(), answer.text().trim()), (200, WHOLE), "{label} {stages}");
            let record = gateway.end().await.remove(0);
            assert_eq!((&record["usage"], &record["output_tokens"]), (&"provider".into(), &3.into()));
        }
    });
}

#[test]
fn an_answer_that_ends_or_breaks_off_before_its_first_byte_is_told_so() {
    calmly_on_every_driver(async || {
        for (script, status) in [(LAST, 200), ("", 502), ("xyz\r\n", 502)] {
            let sent = [&head("")[..], script].concat();
            let gateway = gateway(|asked| asked.send(sent).wait(20 * MS).close(), 0);
            assert_eq!(ask(gateway.address, chat(BODY)).await.status(), status, "{script}");
            gateway.end().await;
        }
    });
}

#[test]
fn a_silent_one_is_a_504_and_a_client_that_leaves_takes_it_along() {
    calmly_on_every_driver(async || {
        let (listener, address) = listen();
        let silent = || Script::new().expect_until("\r\n\r\n").expect(SENT).send(head("")).expect_gone();
        serve(listener, vec![silent(), silent()]);
        let gateway = Gateway::start(&Setup::one(OpenAi, address).with(|setup| {
            setup.upstreams[0].timeouts.idle = 400 * MS;
        }));
        let answer = ask(gateway.address, chat(BODY)).await;
        assert_eq!(answer.status(), 504);
        assert!(answer.text().contains("idle_ms"), "{}", answer.text());
        let conn = call(gateway.address).await;
        send(&conn, chat(BODY).as_bytes()).await;
        while gateway.counters().upstream.open.value() == 0 {
            runtime::sleep(MS).await;
        }
        drop(conn);
        let records = gateway.end().await;
        assert_eq!(records[1]["ended"], "client_left");
    });
}
