//! What a request has used, for the caller whose request it was.
//!
//! `/v1/usage/ID` asks the ledger's thread: JSON with who was asked, tokens by kind, where the numbers are from and
//! what they cost. Where a request wishes it (`x-tollgate-usage: comment`), its stream tells the same numbers behind
//! its end, in a comment that SDKs pass over; where no account is kept, without the cost. What is unknown is left
//! out; `priced` is true where the cost is by the model's own price and false where there is none, or a ceiling took
//! its place. Limits: what has ended within an hour, the last 100,000 of this process (`usage/ledger/recents`).
//! Errors: one and the same for the request of another key, one that is under way, and one that is unknown or
//! forgotten.

use crate::base::error::{Error, Kind};
use crate::base::id::RequestId;
use crate::codec::{json, sse};
use crate::handler::account::Bill;
use crate::handler::worker::Worker;
use crate::net::runtime;
use crate::policy::auth::Key;
use crate::usage::ledger::{Book, Busy, Recent};
use crate::usage::price::usd;
use http::HeaderMap;
use jiff::Timestamp;
use std::time::Duration;

/// The field by which a request wishes to be told of its usage. It ends here.
pub const WISH: &str = "x-tollgate-usage";

/// Whether a stream is to tell at its end what it has used.
pub fn is_wished(headers: &HeaderMap) -> bool {
    headers.get(WISH).is_some_and(|wish| wish.as_bytes().eq_ignore_ascii_case(b"comment"))
}

/// Writes the comment that tells it.
pub fn write_comment(id: &RequestId, bill: &Bill, out: &mut Vec<u8>) {
    let mut text = b"tollgate-usage ".to_vec();
    let mut object = Object::begin(&mut text);
    object.word("id", id.as_str());
    object.used(bill);
    object.end();
    sse::write_comment(out, &text);
}

/// What the request with this id has used, as JSON for `key`.
pub async fn of_request(worker: &Worker, key: &Key, id: &str) -> Result<Vec<u8>, Error> {
    let Some(book) = &worker.book else {
        let detail = "no ledger is kept here, so nothing is known of requests that have ended";
        return Err(Error::new(Kind::RequestUnknown, detail));
    };
    let found = match id.len() {
        RequestId::LEN => find(book, id).await?,
        _ => None,
    };
    let Some(recent) = found.filter(|recent| *recent.key == *key.name) else {
        let detail = "no request of this key with this id has ended within the last hour";
        return Err(Error::new(Kind::RequestUnknown, detail));
    };
    let mut out = Vec::with_capacity(512);
    let mut object = Object::begin(&mut out);
    object.word("id", id);
    object.text("key", &recent.key);
    object.text("model", &recent.model);
    object.text("provider", &recent.provider);
    object.text("model_sent", &recent.model_sent);
    let started = i64::try_from(recent.started_unix_ms).map(Timestamp::from_millisecond);
    if let Ok(Ok(started)) = started {
        object.word("started", &format!("{started:.3}"));
    }
    if recent.status > 0 {
        object.number("status", u64::from(recent.status));
    }
    object.word("ended", &recent.ended);
    object.number("attempts", u64::from(recent.attempts));
    let Recent { usage, cost_pico, is_unpriced, .. } = recent;
    object.used(&Bill { usage, cost_pico, is_unpriced });
    object.end();
    Ok(out)
}

/// Who has read the last byte may ask before the worker that sent it has handed the record on: what is not there is
/// looked for once more.
async fn find(book: &Book, id: &str) -> Result<Option<Recent>, Error> {
    let found = book.ask(id).await.map_err(busy)?;
    if found.is_some() {
        return Ok(found);
    }
    runtime::sleep(AGAIN_AFTER).await;
    book.ask(id).await.map_err(busy)
}

fn busy(Busy: Busy) -> Error {
    Error::new(Kind::Overloaded, "the ledger cannot answer now; try again").retry_after_s(1)
}

const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A JSON object that is being written.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl<'o> Object<'o> {
    fn begin(out: &'o mut Vec<u8>) -> Object<'o> {
        out.push(b'{');
        Object { out, is_first: true }
    }

    fn end(self) {
        self.out.push(b'}');
    }

    /// The numbers of tokens, where they are from, and what they cost.
    fn used(&mut self, bill: &Bill) {
        let Bill { usage, cost_pico, is_unpriced } = bill;
        let numbers = [
            ("input_tokens", usage.input_total()),
            ("output_tokens", usage.output_total()),
            ("cache_read_tokens", usage.cache_read),
            ("cache_write_tokens", usage.cache_write),
            ("reasoning_tokens", usage.reasoning),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                self.number(name, number);
            }
        }
        if !usage.is_unknown() {
            self.word("usage", usage.provenance.name());
        }
        if let Some(pico) = cost_pico {
            self.word("cost_usd", &usd(*pico));
        }
        let is_priced = cost_pico.is_some() && !is_unpriced;
        self.raw("priced", if is_priced { b"true" } else { b"false" });
    }

    /// Left out where it is empty.
    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.name(name);
            json::write_string(text.as_bytes(), self.out);
        }
    }

    /// A word of ours, which needs no escape.
    fn word(&mut self, name: &str, word: &str) {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(word.as_bytes());
        self.out.push(b'"');
    }

    fn number(&mut self, name: &str, number: u64) {
        self.raw(name, itoa::Buffer::new().format(number).as_bytes());
    }

    fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(value);
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}
