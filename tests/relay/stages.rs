//! Event stages, on dummies: upper-case the text, drop every third event, hold a word until it is whole, end
//! at a word. On streams and on whole answers, in each dialect that has both, at every cut offset.
//!
//! What the client gets is read by the strict readers of `told`.

use crate::relay::gateway::{Gateway, LAST, STREAM_HEAD, Setup, ask, call, chunk, json, post, send};
use crate::relay::http::{Pace, Reader};
use crate::relay::told::{
    DIALECTS, Finish, Told, datas, event, finishes, kind, path, reason, stream, told, told_whole, whole,
};
use crate::sim::driver::{calmly_on_every_driver, listen, on_every_driver};
use crate::sim::peer::{Script, serve};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tollgate::base::clock::{self, Instant};
use tollgate::handler::answer::Expected;
use tollgate::handler::relay::{Body, Events, Limits, Relay};
use tollgate::handler::sink::{MemorySink, Sink};
use tollgate::handler::source::Source;
use tollgate::handler::stages::StageRunner;
use tollgate::handler::tap::Tap;
use tollgate::llm::dialect::Dialect::{self, OpenAiResponses};
use tollgate::llm::dialect::{Closes, Ending, Lane};
use tollgate::llm::provider::ProviderKind;
use tollgate::net::memory::{Faults, Simulation};
use tollgate::net::page::Page;
use tollgate::policy::auth::OnDisconnect;
use tollgate::policy::exchange::{Ended, Exchange};
use tollgate::policy::stage::{EventStage, EventVerdict, EventView, MakeEventStage, Released};

/// The words of the answer, as the provider cuts them.
const PIECES: [&str; 7] =
    ["Hello \\u0077", "orld. It is a se", "cret: ", "\\\"forty-two\\\", be", "lieve", " ", "me"];
const TEXT: &str = "Hello world. It is a secret: \"forty-two\", believe me";

/// The same, and the word that ends it comes last.
const LATE: [&str; 3] = ["Believe me: it is ", "a se", "cret:"];

#[derive(Clone, Copy, Debug)]
enum Dummy {
    Upper,
    DropThird,
    /// Words are masked whole.
    HoldAndMask,
    HoldAndEnd,
    HoldAndUpper,
}

impl Dummy {
    fn stages(self) -> Vec<Box<dyn EventStage>> {
        let (mask, plain) = (Hold { mask: true, held: Vec::new() }, Hold::default());
        match self {
            Dummy::Upper => vec![Box::new(Upper)],
            Dummy::DropThird => vec![Box::new(DropThird(0))],
            Dummy::HoldAndMask => vec![Box::new(mask)],
            Dummy::HoldAndEnd => vec![Box::new(plain), Box::new(EndAt("secret:"))],
            Dummy::HoldAndUpper => vec![Box::new(mask), Box::new(Upper)],
        }
    }
}

impl MakeEventStage for Dummy {
    fn make(&self, _: &Exchange) -> Option<Box<dyn EventStage>> {
        Some(Box::new(Chain(self.stages())))
    }
}

/// The snapshot makes one stage an entry: a list as one.
struct Chain(Vec<Box<dyn EventStage>>);

impl EventStage for Chain {
    fn event(&mut self, event: &mut EventView<'_>) -> EventVerdict {
        let [only] = &mut self.0[..] else { panic!("lists are tested without a gateway") };
        only.event(event)
    }

    fn release(&mut self, closes: &Closes, released: &mut Vec<Released>) {
        self.0.iter_mut().for_each(|stage| stage.release(closes, released));
    }
}

struct Upper;

impl EventStage for Upper {
    fn event(&mut self, event: &mut EventView<'_>) -> EventVerdict {
        event.lanes.iter_mut().for_each(|lane| lane.replace(lane.text.to_uppercase()));
        EventVerdict::Pass
    }

    fn release(&mut self, _: &Closes, _: &mut Vec<Released>) {}
}

/// Of the events that have text.
struct DropThird(u32);

impl EventStage for DropThird {
    fn event(&mut self, event: &mut EventView<'_>) -> EventVerdict {
        self.0 += u32::from(event.lanes.iter().any(|lane| !lane.text.is_empty()));
        match self.0 {
            3 => {
                self.0 = 0;
                EventVerdict::Drop
            }
            _ => EventVerdict::Pass,
        }
    }

    fn release(&mut self, _: &Closes, _: &mut Vec<Released>) {}
}

struct DropAll;

impl EventStage for DropAll {
    fn event(&mut self, _: &mut EventView<'_>) -> EventVerdict {
        EventVerdict::Drop
    }

    fn release(&mut self, _: &Closes, _: &mut Vec<Released>) {}
}

/// Keeps the beginning of a word back until its end has come.
#[derive(Default)]
struct Hold {
    mask: bool,
    held: Vec<(Lane, String)>,
}

const HOLD: Duration = Duration::from_secs(1);

impl Hold {
    fn masked(&self, words: &str) -> String {
        if self.mask { words.replace("secret:", "****") } else { words.to_string() }
    }
}

impl EventStage for Hold {
    fn event(&mut self, event: &mut EventView<'_>) -> EventVerdict {
        for view in &mut event.lanes {
            let before = self.held.iter().position(|(lane, _)| *lane == view.lane);
            let mut text = before.map(|at| self.held.remove(at).1).unwrap_or_default();
            text.push_str(&view.text);
            let ready = match text.rfind(' ') {
                _ if event.is_whole => text.len(),
                Some(space) => space + 1,
                None => 0,
            };
            let rest = text.split_off(ready);
            view.replace(self.masked(&text));
            if !rest.is_empty() {
                self.held.push((view.lane, rest));
            }
        }
        if self.held.is_empty() { EventVerdict::Pass } else { EventVerdict::Hold(HOLD) }
    }

    fn release(&mut self, closes: &Closes, released: &mut Vec<Released>) {
        let (over, held) = std::mem::take(&mut self.held).into_iter().partition(|held| closes.covers(held.0));
        self.held = held;
        let over: Vec<(Lane, String)> = over;
        released.extend(over.into_iter().map(|(lane, text)| Released { lane, text: self.masked(&text) }));
    }
}

struct EndAt(&'static str);

impl EventStage for EndAt {
    fn event(&mut self, event: &mut EventView<'_>) -> EventVerdict {
        let mut verdict = EventVerdict::Pass;
        for lane in &mut event.lanes {
            if verdict != EventVerdict::Pass {
                lane.replace(String::new());
            } else if let Some(at) = lane.text.find(self.0) {
                lane.replace(lane.text[..at].to_string());
                verdict = EventVerdict::End(Ending::ContentFilter);
            }
        }
        verdict
    }

    fn release(&mut self, _: &Closes, _: &mut Vec<Released>) {}
}

/// What each dummy makes of `PIECES`.
fn rows() -> [(Dummy, String, bool); 5] {
    let dropped = "Hello world. It is a se\"forty-two\", believeme";
    [
        (Dummy::Upper, TEXT.to_uppercase(), false),
        (Dummy::DropThird, dropped.to_string(), false),
        (Dummy::HoldAndMask, TEXT.replace("secret:", "****"), false),
        (Dummy::HoldAndEnd, "Hello world. It is a ".to_string(), true),
        (Dummy::HoldAndUpper, TEXT.replace("secret:", "****").to_uppercase(), false),
    ]
}

#[test]
fn stages_change_a_stream_alike_at_every_cut() {
    for dialect in DIALECTS {
        for (dummy, text, ends) in rows() {
            for finish in finishes(dialect) {
                let stream = stream(dialect, &PIECES, finish);
                let (whole, ended) = relay_cut(dialect, dummy, &stream, stream.len());
                let expected = Told { text: text.clone(), reason: reason(dialect, ends) };
                assert_eq!(told(dialect, &whole), expected, "{dialect:?} {dummy:?} {finish:?}:\n{whole}");
                assert_eq!(ended, if ends { Ended::Stage } else { Ended::Whole });
                for cut in 1..stream.len() {
                    let (at_cut, _) = relay_cut(dialect, dummy, &stream, cut);
                    assert_eq!(at_cut, whole, "{dialect:?} {dummy:?} cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn an_end_in_the_last_text_is_an_end_for_the_reason_too() {
    for dialect in DIALECTS {
        for finish in finishes(dialect) {
            let stream = stream(dialect, &LATE, finish);
            let (got, ended) = relay_cut(dialect, Dummy::HoldAndEnd, &stream, stream.len());
            let expected = Told { text: "Believe me: it is a ".to_string(), reason: reason(dialect, true) };
            assert_eq!(told(dialect, &got), expected, "{dialect:?} {finish:?}:\n{got}");
            assert_eq!(ended, Ended::Stage);
            // The provider closes without its end; held text is asked for then.
            let end = stream.rfind("secret").map_or_else(|| stream.rfind("cret:"), Some).expect("the word");
            let end = end + stream[end..].find("\n\n").expect("the event's end") + 2;
            let (got, _) = relay_cut(dialect, Dummy::HoldAndEnd, &stream[..end], end);
            assert_eq!(told(dialect, &got), expected, "{dialect:?} {finish:?} without an end:\n{got}");
        }
    }
}

#[test]
fn without_a_blank_line_at_its_end_a_stream_is_looked_at_all_the_same() {
    for dialect in DIALECTS {
        let stream = stream(dialect, &PIECES, Finish::Apart);
        let events: Vec<&str> = stream.split_inclusive("\n\n").collect();
        for count in 1..=events.len() {
            let cut = events[..count].concat();
            let (got, _) = relay_cut(dialect, Dummy::Upper, cut.trim_end(), 3);
            let (whole, _) = relay_cut(dialect, Dummy::Upper, &cut, 3);
            assert_eq!(got.trim_end(), whole.trim_end());
        }
        // Half an event that nobody can read: no stage could, so that it does not go on.
        let half = &stream[..stream.rfind("lieve").expect("the word") + 3];
        let (got, _) = relay_cut(dialect, Dummy::Upper, half, 3);
        assert!(!got.contains("lie") && got.contains("BE"), "{got}");
    }
}

#[test]
fn what_responses_repeats_at_its_end_only_is_shown_to_stages() {
    let told = |kind: &str, name: &str, text: &str| {
        event(
            Some(kind),
            &format!("{{\"type\":\"{kind}\",\"output_index\":0,\"content_index\":0,\"{name}\":\"{text}\"}}"),
        )
    };
    // No deltas at all, as some servers do it.
    let stream = told("response.output_text.done", "text", "a secret: b");
    let (got, _) = relay_cut(OpenAiResponses, Dummy::HoldAndMask, &stream, 5);
    assert!(got.contains("a **** b") && !got.contains("secret"), "{got}");
    // All of it dropped: the repeat does not tell it either.
    let dropped = [
        told("response.output_text.delta", "delta", "a secret: b"),
        told("response.output_text.done", "text", "a secret: b"),
    ]
    .concat();
    let stages: Vec<Box<dyn EventStage>> = vec![Box::new(DropThird(2))];
    let (got, _) = relay_staged(OpenAiResponses, stages, &dropped, 5);
    assert!(got.contains("response.output_text.done") && !got.contains("secret"), "{got}");
}

#[test]
fn stages_change_a_whole_answer_alike_at_every_cut() {
    for dialect in DIALECTS {
        for (dummy, text, ends) in rows() {
            // A whole answer is one event: nothing is dropped as the third, and one stage at a time is made.
            let (stage, text) = match dummy {
                Dummy::DropThird => (dummy, TEXT.to_string()),
                Dummy::HoldAndEnd => continue,
                Dummy::HoldAndUpper => continue,
                _ => (dummy, text),
            };
            let body = whole(dialect, &PIECES.concat());
            let expected = (Told { text, reason: reason(dialect, ends) }, true);
            whole_at_every_cut(dialect, Arc::new(stage), &body, &expected, "whole");
        }
        let (body, cut) = (whole(dialect, &PIECES.concat()), reason(dialect, true));
        let ended = (Told { text: "Hello world. It is a ".to_string(), reason: cut }, false);
        whole_at_every_cut(dialect, Arc::new(Ends), &body, &ended, "stage");
        let nothing = (Told { text: String::new(), reason: reason(dialect, false) }, false);
        whole_at_every_cut(dialect, Arc::new(Drops), &body, &nothing, "whole");
    }
}

struct Ends;

impl MakeEventStage for Ends {
    fn make(&self, _: &Exchange) -> Option<Box<dyn EventStage>> {
        Some(Box::new(EndAt("secret:")))
    }
}

struct Drops;

impl MakeEventStage for Drops {
    fn make(&self, _: &Exchange) -> Option<Box<dyn EventStage>> {
        Some(Box::new(DropAll))
    }
}

/// Through a gateway, with a request for each cut.
fn whole_at_every_cut(
    dialect: Dialect,
    stage: Arc<dyn MakeEventStage>,
    body: &str,
    expected: &(Told, bool),
    ended: &str,
) {
    let work = async {
        let (listener, address) = listen();
        let body_of = body.to_string();
        let head = json("").replace("length: 0", &format!("length: {}", body.len()));
        let mut script = Script::new();
        for cut in 1..body.len() {
            script = script.expect_until("\r\n\r\n").expect(REQUEST).send([&head, &body_of[..cut]].concat());
            script = script.wait(Duration::from_micros(100)).send(&body_of[cut..]);
        }
        serve(listener, vec![script.expect_end()]);
        let setup = Setup::one(kind(dialect), address);
        let gateway = Gateway::start(&setup.with(|setup| setup.base.stages.event.push(stage)));
        let conn = call(gateway.address).await;
        let mut reader = Reader::new(&conn, Pace::default());
        for cut in 1..body.len() {
            send(&conn, post(path(dialect), REQUEST).as_bytes()).await;
            let answer = reader.answer(false).await.expect("an answer");
            assert!(answer.whole, "{dialect:?} cut at {cut}");
            assert_eq!(told_whole(dialect, &answer.json()), *expected, "{dialect:?} cut at {cut}");
        }
        drop(conn);
        gateway.end().await
    };
    for record in Simulation::new(7, Faults::none()).run(work).finished() {
        assert_eq!((&record["ended"], &record["usage"]), (&ended.into(), &"provider".into()));
    }
}

const REQUEST: &str = r#"{"model":"m"}"#;
const STREAMED: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;

#[test]
fn a_stage_works_in_a_gateway_on_a_stream() {
    on_every_driver(async || {
        for dialect in DIALECTS {
            let (listener, address) = listen();
            let stream = stream(dialect, &PIECES, Finish::Apart);
            let pieces: String =
                stream.as_bytes().chunks(61).map(|part| chunk(&String::from_utf8_lossy(part))).collect();
            serve(
                listener,
                vec![asked().send_pieces([STREAM_HEAD, &pieces, LAST].concat(), 150).expect_end()],
            );
            let gateway = Gateway::start(&Setup::one(kind(dialect), address).with(|setup| {
                setup.base.stages.event.push(Arc::new(Dummy::HoldAndMask));
                setup.base.stages.event.push(Arc::new(Ends));
                setup.base.stages.event.push(Arc::new(Dummy::Upper));
            }));
            let answer = ask(gateway.address, post(path(dialect), STREAMED)).await;
            let expected =
                Told { text: TEXT.replace("secret:", "****").to_uppercase(), reason: reason(dialect, false) };
            assert_eq!(told(dialect, answer.text()), expected);
            let records = gateway.end().await;
            assert_eq!((&records[0]["ended"], &records[0]["output_tokens"]), (&"whole".into(), &3.into()));
        }
    });
}

#[test]
fn held_text_goes_out_when_its_time_is_over_and_before_an_error() {
    calmly_on_every_driver(async || {
        let stream = stream(OpenAiResponses, &PIECES, Finish::Apart);
        let half = &stream[..stream.find("cret").expect("the word")];
        let half = &half[..half.rfind("event:").expect("an event")];
        let (listener, address) = listen();
        let script = asked().send([STREAM_HEAD, &chunk(half)].concat()).wait(HOLD * 2).reset();
        serve(listener, vec![script]);
        let setup = Setup::one(ProviderKind::OpenAi, address);
        let gateway =
            Gateway::start(&setup.with(|setup| setup.base.stages.event.push(Arc::new(Dummy::HoldAndMask))));
        let conn = call(gateway.address).await;
        let begun = clock::now();
        send(&conn, post(path(OpenAiResponses), STREAMED).as_bytes()).await;
        let answer = Reader::new(&conn, Pace::default()).answer(false).await.expect("an answer");
        assert!(!answer.whole && clock::now() - begun >= HOLD * 2);
        let datas = datas(answer.text());
        let deltas = datas.iter().filter_map(|data| data["delta"].as_str()).collect::<Vec<_>>();
        // "se" could have been the beginning of the word; its time was over.
        assert_eq!(deltas, ["Hello ", "world. It is a ", "se"]);
        let [.., held, error, failed] = &datas[..] else { panic!("{datas:?}") };
        assert_eq!(held["delta"], "se");
        assert_eq!(
            (&error["type"], &error["error"]["code"]),
            (&"error".into(), &"upstream_invalid_response".into())
        );
        assert_eq!(
            (&failed["type"], &failed["response"]["id"]),
            (&"response.failed".into(), &"resp_1".into())
        );
        let numbers: Vec<u64> = datas.iter().filter_map(|data| data["sequence_number"].as_u64()).collect();
        assert!(numbers.is_sorted() && numbers.len() == datas.len(), "{numbers:?}");
        drop(conn);
        gateway.end().await;
    });
}

fn asked() -> Script {
    Script::new().expect_until("\r\n\r\n").expect(STREAMED)
}

/// A stream in two reads through a relay without a gateway.
fn relay_cut(dialect: Dialect, dummy: Dummy, stream: &str, cut: usize) -> (String, Ended) {
    relay_staged(dialect, dummy.stages(), stream, cut)
}

fn relay_staged(
    dialect: Dialect,
    stages: Vec<Box<dyn EventStage>>,
    stream: &str,
    cut: usize,
) -> (String, Ended) {
    let work = async {
        let mut page = Page::rent();
        assert_eq!(page.append(stream.as_bytes()), stream.len());
        let cut = cut.min(stream.len());
        let mut source = Source::Replay(VecDeque::from([page.slice(0..cut), page.slice(cut..stream.len())]));
        let mut sink = Sink::Memory(MemorySink::default());
        let limits = Limits {
            idle_timeout: Duration::from_secs(60),
            total_deadline: Instant::NEVER,
            heartbeat: Duration::ZERO,
            event_bytes_max: 1 << 20,
            on_disconnect: OnDisconnect::default(),
        };
        let runner = StageRunner::new(dialect, stages);
        let (mut exchange, mut tap) = (Exchange::begin(clock::now()), Tap::closed());
        let mut relay = Relay {
            exchange: &mut exchange,
            source: &mut source,
            sink: &mut sink,
            tap: &mut tap,
            body: Body::Events(Events::new(dialect, Expected::default(), runner)),
            limits: &limits,
            account: None,
        };
        let ended = relay.run(pin!(std::future::pending())).await;
        let Sink::Memory(sink) = sink else { panic!("a sink in memory") };
        (String::from_utf8(sink.body).expect("text"), ended)
    };
    Simulation::new(1, Faults::none()).run(work).finished()
}
