//! Takes requests, gives answers, counts both: what the mock does whatever protocol carries it. One per
//! thread.

use std::sync::Arc;

use crate::dialect::{Dialect, Facts, Mode, is_true_at, string_at};
use crate::mock::Config;
use crate::mock::answer::{self, Answer, End, Framing, Request};
use crate::mock::stats::{Stats, Totals};
use crate::net::clock::now_ns;
use crate::wire::http1::RequestHead;

pub struct Desk {
    pub config: Config,
    pub stats: Arc<Stats>,
    all_stats: Vec<Arc<Stats>>,
    /// Numbers of streams whose request names none, and the draw of faults.
    random: fastrand::Rng,
}

/// What a request gets.
pub enum Reply {
    Answer(Box<Answer>),
    /// At once and whole: no model call, or a refused one.
    Plain(u16, String),
}

impl Desk {
    pub fn new(config: Config, all_stats: Vec<Arc<Stats>>, place: usize) -> Self {
        let random = fastrand::Rng::with_seed(place as u64 + 1);
        Self { config, stats: all_stats[place].clone(), all_stats, random }
    }

    /// A request is whole: its answer, which counts as open from now on.
    pub fn take(&mut self, head: &RequestHead, body: &[u8], framing: Framing) -> Reply {
        let is_post = head.method == "POST";
        let Some((dialect, fixed_mode)) = Dialect::of_path(&head.path).filter(|_| is_post) else {
            self.stats.requests_other.add(1);
            return other(&head.path, &self.all_stats);
        };
        if self.config.key.as_ref().is_some_and(|key| *key != head.key) {
            self.stats.requests_refused.add(1);
            return Reply::Plain(401, dialect.error(401, "wrong key"));
        }
        let Some(model) = model_of(dialect, &head.path, body) else {
            self.stats.requests_refused.add(1);
            return Reply::Plain(400, dialect.error(400, "the body names no model"));
        };
        count_request(&self.stats, dialect);
        let mut script = self.config.script;
        script.apply_request(&head.script, body);
        if script.fault.is_none() {
            let drawn = |(_, probability): &&(_, f64)| self.random.f64() < *probability;
            script.fault = self.config.faults.iter().find(drawn).map(|(fault, _)| *fault);
        }
        let stream = script.stream.unwrap_or_else(|| self.random.u32(..));
        let streamed = || is_true_at(body, b"\"stream\"");
        let mode = fixed_mode.unwrap_or_else(|| if streamed() { Mode::Stream } else { Mode::Whole });
        let facts = Facts {
            id: String::from_utf8_lossy(&crate::record::stream_name(stream)).into_owned(),
            model,
            // Four bytes a token, as providers bill English within a few per cent.
            prompt_tokens: body.len() as u64 / 4,
            completion_tokens: u64::from(script.events),
            include_usage: is_true_at(body, b"\"include_usage\""),
        };
        let connection = if head.close { answer::Connection::Close } else { answer::Connection::KeepAlive };
        let accepts_gzip = head.accepts_gzip;
        let request = Request { dialect, mode, script, facts, connection, accepts_gzip, framing };
        self.stats.answers_open.add(1);
        Reply::Answer(Box::new(Answer::new(request, stream, now_ns())))
    }

    /// The answer is out, whole or spoilt on purpose.
    pub fn settle(&self, answer: &Answer, end: End) {
        self.stats.answers_open.sub(1);
        if end == End::Whole {
            self.stats.answers_finished.add(1);
            self.stats.completion_tokens_finished.add(u64::from(answer.records_sent));
            self.stats.prompt_tokens.add(answer.facts().prompt_tokens);
        } else {
            self.stats.answers_faulty.add(1);
            self.stats.completion_tokens_partial.add(u64::from(answer.records_sent));
        }
    }

    /// Its reader left before the end.
    pub fn cancel(&self, answer: &Answer) {
        self.stats.answers_open.sub(1);
        self.stats.answers_cancelled.add(1);
        self.stats.completion_tokens_partial.add(u64::from(answer.records_sent));
    }
}

fn model_of(dialect: Dialect, path: &str, body: &[u8]) -> Option<String> {
    if dialect == Dialect::Gemini {
        let name = path.split('?').next()?.rsplit('/').next()?;
        return name.split(':').next().map(str::to_owned);
    }
    string_at(body, b"\"model\"").map(|name| String::from_utf8_lossy(name).into_owned())
}

fn count_request(stats: &Stats, dialect: Dialect) {
    let counter = match dialect {
        Dialect::Chat => &stats.requests_chat,
        Dialect::Responses => &stats.requests_responses,
        Dialect::Messages => &stats.requests_messages,
        Dialect::Embeddings => &stats.requests_embeddings,
        Dialect::Gemini => &stats.requests_gemini,
    };
    counter.add(1);
}

fn other(path: &str, stats: &[Arc<Stats>]) -> Reply {
    match path.split('?').next().unwrap_or(path) {
        "/mock/stats" => Reply::Plain(200, serde_json::to_string(&Totals::of(stats)).unwrap_or_default()),
        path if path.ends_with("/models") => {
            let model = r#"{"id":"mock","object":"model","created":1760000000,"owned_by":"tollgate-load"}"#;
            Reply::Plain(200, format!(r#"{{"object":"list","data":[{model}]}}"#))
        }
        _ => Reply::Plain(
            404,
            r#"{"error":{"message":"no such path","type":"invalid_request_error"}}"#.to_owned(),
        ),
    }
}
