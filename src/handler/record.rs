//! The access log's record of one request: a line of JSON.
//!
//! Times in microseconds from the start of the request; absent where a step was not reached. Values that a
//! client chose (the model's name) are escaped and cut. Nothing of bodies, credentials or headers stands
//! here.

use crate::base::clock;
use crate::codec::json;
use crate::handler::snapshot::Snapshot;
use crate::llm::price::PICO_PER_USD;
use crate::policy::exchange::{Exchange, Step};
use std::net::{IpAddr, SocketAddr};

/// What stands between two values: the comma, the name, the colon.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// Bytes of a client's value that are kept.
const VALUE_BYTES_MAX: usize = 128;
/// Bytes that are kept of what went wrong.
const TROUBLE_BYTES_MAX: usize = 1024;

/// Appends the record of a finished exchange, line end included.
pub fn write(exchange: &Exchange, snapshot: &Snapshot, peer: SocketAddr, out: &mut Vec<u8>) {
    let mut line = Line { out };
    line.number("{\"time_ms\":", clock::unix_ms());
    line.word(name!("id"), exchange.id.as_str());
    line.word(name!("surface"), exchange.surface);
    let key = exchange.key.and_then(|at| snapshot.keys.all().get(at as usize));
    line.text_if(name!("key"), key.map(|key| &*key.name));
    line.text_if(name!("model"), exchange.model.as_deref());
    if let Some(served) = &exchange.served {
        line.text_if(
            name!("provider"),
            snapshot.providers.get(served.provider as usize).map(|found| &*found.name),
        );
        line.text_if(name!("model_sent"), Some(&*served.model).filter(|model| !model.is_empty()));
    }
    line.number(name!("status"), u64::from(exchange.status));
    line.text_if(name!("error"), exchange.error);
    if let Some(trouble) = &exchange.trouble {
        line.text_up_to(name!("trouble"), trouble, TROUBLE_BYTES_MAX);
    }
    line.word(name!("ended"), exchange.ended.name());
    line.out.extend_from_slice(if exchange.stream { b",\"stream\":true" } else { b",\"stream\":false" });
    line.number(name!("attempts"), u64::from(exchange.attempts));
    line.number(name!("events"), exchange.events);
    line.number(name!("bytes_in"), exchange.bytes_in);
    line.number(name!("bytes_out"), exchange.bytes_out);
    usage(exchange, &mut line);
    if let Some(cost) = exchange.cost_pico {
        line.dollars(name!("cost_usd"), cost);
    }
    for (name, step) in STEPS {
        if let Some(micros) = exchange.clock.at(step) {
            line.number(name, u64::from(micros));
        }
    }
    line.address(name!("peer"), peer.ip());
    line.out.extend_from_slice(b"}\n");
}

const STEPS: [(&str, Step); 6] = [
    (name!("body_us"), Step::Body),
    (name!("policy_us"), Step::Policy),
    (name!("connect_us"), Step::Connect),
    (name!("head_us"), Step::Head),
    (name!("first_us"), Step::FirstContent),
    (name!("total_us"), Step::Done),
];

fn usage(exchange: &Exchange, line: &mut Line<'_>) {
    let usage = &exchange.usage;
    let numbers = [
        (name!("input_tokens"), usage.input_total()),
        (name!("output_tokens"), usage.output_total()),
        (name!("cache_read_tokens"), usage.cache_read),
        (name!("cache_write_tokens"), usage.cache_write),
        (name!("reasoning_tokens"), usage.reasoning),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            line.number(name, number);
        }
    }
    if usage.input.is_some() || usage.output.is_some() {
        line.word(name!("usage"), usage.provenance.name());
    }
}

/// A line that is being written. Names come with all that stands before their value (`name!`).
struct Line<'o> {
    out: &'o mut Vec<u8>,
}

impl Line<'_> {
    fn number(&mut self, name: &str, value: u64) {
        self.out.extend_from_slice(name.as_bytes());
        self.digits(value);
    }

    /// Pico-dollars as dollars, without a float.
    fn dollars(&mut self, name: &str, pico: u64) {
        self.number(name, pico / PICO_PER_USD);
        let mut rest = pico % PICO_PER_USD;
        if rest > 0 {
            self.out.push(b'.');
        }
        while rest > 0 {
            rest *= 10;
            self.out.push(b'0' + (rest / PICO_PER_USD) as u8);
            rest %= PICO_PER_USD;
        }
    }

    /// A word of ours, which needs no escape.
    fn word(&mut self, name: &str, value: &str) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    fn text_up_to(&mut self, name: &str, value: &str, bytes_max: usize) {
        self.out.extend_from_slice(name.as_bytes());
        let mut end = value.len().min(bytes_max);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        json::write_string(&value.as_bytes()[..end], self.out);
    }

    fn text_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text_up_to(name, value, VALUE_BYTES_MAX);
        }
    }

    fn address(&mut self, name: &str, address: IpAddr) {
        let IpAddr::V4(address) = address else { return self.word(name, &address.to_string()) };
        self.out.extend_from_slice(name.as_bytes());
        for (at, part) in address.octets().into_iter().enumerate() {
            self.out.push(if at == 0 { b'"' } else { b'.' });
            self.digits(u64::from(part));
        }
        self.out.push(b'"');
    }

    fn digits(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::base::clock::Instant;
    use crate::handler::snapshot::Snapshot;
    use crate::policy::exchange::Exchange;

    #[test]
    fn a_record_is_one_line_of_json_whatever_the_client_sent() {
        let mut exchange = Exchange::begin(Instant(0));
        exchange.model = Some(format!("a\"\n\u{1}{}", "é".repeat(200)).into());
        exchange.cost_pico = Some(2_000_300_000_000);
        let mut out = Vec::new();
        write(&exchange, &Snapshot::default(), ([127, 0, 0, 1], 9).into(), &mut out);
        let line = std::str::from_utf8(&out).expect("text");
        assert_eq!(line.matches('\n').count(), 1);
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(record["model"].as_str().expect("a model").starts_with("a\"\n\u{1}éé"));
        assert!(line.contains(",\"cost_usd\":2.0003,"), "{line}");
        assert_eq!(record["ended"], "whole");
        assert_eq!(record["peer"], "127.0.0.1");
    }
}
