//! Records as bytes: fields with a number and a length, so that a version can add some and others pass them over.
//!
//! The wire format of protocol buffers: varints and runs of bytes, each behind its field's number; what is zero,
//! empty or unknown is left out. A number is never used again for something else. Decoding passes over fields that
//! it does not know and gives none for bytes that are no record. Absent: the frame around a record, which tells its
//! length and its checksum (`segments`).
//! Source: protobuf.dev, "Encoding" (2026-05).

use crate::llm::dialect::Caching;
use crate::usage::ledger::record::{Kind, Record};
use crate::usage::{Provenance, Usage};
use std::net::IpAddr;

/// Bytes of a record at most: a slot's, and the numbers and lengths around them.
pub const RECORD_BYTES_MAX: usize = 4096;

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// The numbers of the fields.
mod field {
    pub const KIND: u64 = 1;
    pub const ID: u64 = 2;
    pub const NUMBER: u64 = 3;
    pub const STARTED: u64 = 4;
    pub const KEY: u64 = 5;
    pub const TEAM: u64 = 6;
    pub const ORGANISATION: u64 = 7;
    pub const MODEL: u64 = 8;
    pub const PROVIDER: u64 = 9;
    pub const MODEL_SENT: u64 = 10;
    pub const SURFACE: u64 = 11;
    pub const DIALECT: u64 = 12;
    pub const TAGS: u64 = 13;
    pub const CLIENT: u64 = 14;
    pub const IS_STREAM: u64 = 15;
    pub const INPUT_ESTIMATE: u64 = 16;
    pub const INPUT: u64 = 17;
    pub const OUTPUT: u64 = 18;
    pub const CACHE_READ: u64 = 19;
    pub const CACHE_WRITE: u64 = 20;
    pub const REASONING: u64 = 21;
    pub const TOTAL_REPORTED: u64 = 22;
    pub const CACHING: u64 = 23;
    pub const PROVENANCE: u64 = 24;
    pub const FLAWED: u64 = 25;
    pub const COST_PICO: u64 = 26;
    pub const IS_UNPRICED: u64 = 27;
    pub const STATUS: u64 = 28;
    pub const ENDED: u64 = 29;
    pub const ERROR: u64 = 30;
    pub const ATTEMPTS: u64 = 31;
    pub const EVENTS: u64 = 32;
    pub const BYTES_IN: u64 = 33;
    pub const BYTES_OUT: u64 = 34;
    /// One varint a step.
    pub const STEPS_US: u64 = 35;
}

/// Appends `record` to `out`. Its holds are not kept.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    use field::*;
    text(out, ID, &record.id);
    number(out, KIND, record.kind as u64);
    number(out, NUMBER, u64::from(record.number));
    number(out, STARTED, record.started_unix_ms);
    text(out, KEY, &record.key);
    text(out, TEAM, &record.team);
    text(out, ORGANISATION, &record.organisation);
    text(out, MODEL, &record.model);
    text(out, PROVIDER, &record.provider);
    text(out, MODEL_SENT, &record.model_sent);
    text(out, SURFACE, &record.surface);
    text(out, DIALECT, &record.dialect);
    text(out, TAGS, &record.tags);
    match record.client {
        None => {}
        Some(IpAddr::V4(address)) => bytes(out, CLIENT, &address.octets()),
        Some(IpAddr::V6(address)) => bytes(out, CLIENT, &address.octets()),
    }
    number(out, IS_STREAM, u64::from(record.is_stream));
    number(out, INPUT_ESTIMATE, record.input_estimate);
    encode_usage(&record.usage, out);
    option(out, COST_PICO, record.cost_pico);
    number(out, IS_UNPRICED, u64::from(record.is_unpriced));
    number(out, STATUS, u64::from(record.status));
    text(out, ENDED, &record.ended);
    text(out, ERROR, &record.error);
    number(out, ATTEMPTS, u64::from(record.attempts));
    number(out, EVENTS, record.events);
    number(out, BYTES_IN, record.bytes_in);
    number(out, BYTES_OUT, record.bytes_out);
    if record.steps_us.iter().any(|&micros| micros > 0) {
        let len: usize = record.steps_us.iter().map(|&micros| varint_len(u64::from(micros))).sum();
        varint(out, (STEPS_US << 3) | BYTES);
        varint(out, len as u64);
        record.steps_us.iter().for_each(|&micros| varint(out, u64::from(micros)));
    }
}

fn encode_usage(usage: &Usage, out: &mut Vec<u8>) {
    use field::*;
    // Named one by one: a count that is added to `Usage` is to be added here.
    let &Usage {
        input,
        output,
        cache_read,
        cache_write,
        reasoning,
        total_reported,
        apart: _, // the cost has it
        caching,
        provenance,
        flawed,
    } = usage;
    option(out, INPUT, input);
    option(out, OUTPUT, output);
    option(out, CACHE_READ, cache_read);
    option(out, CACHE_WRITE, cache_write);
    option(out, REASONING, reasoning);
    option(out, TOTAL_REPORTED, total_reported);
    number(out, CACHING, u64::from(caching == Caching::Beside));
    number(out, PROVENANCE, provenance as u64);
    number(out, FLAWED, u64::from(flawed));
}

/// The record that `from` is the bytes of. None: they are none.
pub fn decode(mut from: &[u8]) -> Option<Record> {
    let mut record = Record::default();
    while !from.is_empty() {
        let tag = take_varint(&mut from)?;
        match tag & 7 {
            VARINT => set_number(&mut record, tag >> 3, take_varint(&mut from)?),
            BYTES => {
                let len = usize::try_from(take_varint(&mut from)?).ok()?;
                let (bytes, rest) = from.split_at_checked(len)?;
                from = rest;
                set_bytes(&mut record, tag >> 3, bytes)?;
            }
            EIGHT_BYTES => from = from.get(8..)?,
            FOUR_BYTES => from = from.get(4..)?,
            _ => return None,
        }
    }
    Some(record)
}

fn set_number(record: &mut Record, field: u64, value: u64) {
    use field::*;
    let usage = &mut record.usage;
    match field {
        KIND => record.kind = Kind::ALL.into_iter().find(|&kind| kind as u64 == value).unwrap_or_default(),
        NUMBER => record.number = value as u16,
        STARTED => record.started_unix_ms = value,
        IS_STREAM => record.is_stream = value != 0,
        INPUT_ESTIMATE => record.input_estimate = value,
        INPUT => usage.input = Some(value),
        OUTPUT => usage.output = Some(value),
        CACHE_READ => usage.cache_read = Some(value),
        CACHE_WRITE => usage.cache_write = Some(value),
        REASONING => usage.reasoning = Some(value),
        TOTAL_REPORTED => usage.total_reported = Some(value),
        CACHING => usage.caching = if value == 0 { Caching::Inside } else { Caching::Beside },
        PROVENANCE => {
            usage.provenance = match value {
                0 => Provenance::Provider,
                1 => Provenance::Counted,
                _ => Provenance::Estimated,
            }
        }
        FLAWED => usage.flawed = value != 0,
        COST_PICO => record.cost_pico = Some(value),
        IS_UNPRICED => record.is_unpriced = value != 0,
        STATUS => record.status = value as u16,
        ATTEMPTS => record.attempts = value as u32,
        EVENTS => record.events = value,
        BYTES_IN => record.bytes_in = value,
        BYTES_OUT => record.bytes_out = value,
        _ => {}
    }
}

/// None: it is not what the field holds.
fn set_bytes(record: &mut Record, field: u64, mut bytes: &[u8]) -> Option<()> {
    use field::*;
    let text = match field {
        ID => &mut record.id,
        KEY => &mut record.key,
        TEAM => &mut record.team,
        ORGANISATION => &mut record.organisation,
        MODEL => &mut record.model,
        PROVIDER => &mut record.provider,
        MODEL_SENT => &mut record.model_sent,
        SURFACE => &mut record.surface,
        DIALECT => &mut record.dialect,
        TAGS => &mut record.tags,
        ENDED => &mut record.ended,
        ERROR => &mut record.error,
        CLIENT => {
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            record.client = Some(v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()?);
            return Some(());
        }
        STEPS_US => {
            for micros in &mut record.steps_us {
                if bytes.is_empty() {
                    break;
                }
                *micros = u32::try_from(take_varint(&mut bytes)?).ok()?;
            }
            return Some(());
        }
        _ => return Some(()),
    };
    std::str::from_utf8(bytes).ok()?.clone_into(text);
    Some(())
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        option(out, field, Some(value));
    }
}

fn option(out: &mut Vec<u8>, field: u64, value: Option<u64>) {
    if let Some(value) = value {
        varint(out, (field << 3) | VARINT);
        varint(out, value);
    }
}

fn text(out: &mut Vec<u8>, field: u64, text: &str) {
    if !text.is_empty() {
        bytes(out, field, text.as_bytes());
    }
}

fn bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, (field << 3) | BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub mod tests {
    use super::{RECORD_BYTES_MAX, decode, encode};
    use crate::llm::dialect::Caching;
    use crate::usage::ledger::record::{Kind, Record};
    use crate::usage::{Apart, Provenance, Usage};
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

    /// A record with something in every field, numbers near `n`.
    pub fn full(n: u64) -> Record {
        let name = |what: &str| format!("{what}-{n}");
        Record {
            kind: Kind::ALL[n as usize % 3],
            id: name("req"),
            number: n as u16,
            started_unix_ms: n,
            key: name("key"),
            team: name("team"),
            organisation: name("organisation"),
            model: name("model"),
            provider: name("provider"),
            model_sent: name("sent"),
            surface: name("surface"),
            dialect: name("dialect"),
            tags: name("é"),
            client: Some(if n.is_multiple_of(2) { [1, 2, 3, 4].into() } else { [7_u16; 8].into() }),
            is_stream: n.is_multiple_of(2),
            input_estimate: n,
            holds: Vec::new(),
            usage: Usage {
                input: Some(n),
                output: Some(0),
                cache_read: Some(n),
                cache_write: Some(u64::MAX),
                reasoning: None,
                total_reported: Some(n),
                apart: Apart::NONE,
                caching: Caching::Beside,
                provenance: Provenance::Counted,
                flawed: true,
            },
            cost_pico: Some(n),
            is_unpriced: true,
            status: 200,
            ended: name("whole"),
            error: name("error"),
            attempts: n as u32,
            events: n,
            bytes_in: n,
            bytes_out: n,
            steps_us: [0, 1, 127, 128, 1 << 20, u32::MAX, 0],
        }
    }

    fn encoded(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        encode(record, &mut out);
        out
    }

    #[test]
    fn a_record_reads_back_and_an_empty_one_takes_no_bytes() {
        assert!(encoded(&Record::default()).is_empty());
        for n in [0, 1, 2, 127, 128, u64::MAX] {
            assert_eq!(decode(&encoded(&full(n))), Some(full(n)), "{n}");
        }
    }

    #[test]
    fn fields_of_later_versions_are_passed_over_and_what_is_cut_is_no_record() {
        let mut bytes = encoded(&full(9));
        // Field 100 as a varint, as bytes, as eight and as four bytes.
        bytes.extend([
            0xa0, 0x06, 1, 0xa2, 0x06, 2, 7, 7, 0xa1, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, 0xa5, 0x06, 0, 0, 0, 0,
        ]);
        assert_eq!(decode(&bytes), Some(full(9)));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        for (what, bytes) in [
            ("a group", &[0x0b][..]),
            ("a text that is none", &[0x12, 1, 0xff]),
            ("a length past the end", &[0x12, 200, 1]),
            ("a varint without an end", &[0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]),
            ("an address of five bytes", &[0x72, 5, 1, 2, 3, 4, 5]),
        ] {
            assert_eq!(decode(bytes), None, "{what}");
        }
    }

    #[test]
    fn the_longest_record_is_within_the_bound() {
        let text = "m".repeat(255);
        let longest = Record {
            id: text.clone(),
            key: text.clone(),
            team: text.clone(),
            organisation: text.clone(),
            model: text.clone(),
            provider: text.clone(),
            model_sent: text.clone(),
            surface: text.clone(),
            dialect: text.clone(),
            tags: text.clone(),
            ended: text.clone(),
            error: text,
            ..full(u64::MAX)
        };
        assert!(encoded(&longest).len() <= RECORD_BYTES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_text_and_number_reads_back(text: String, n in any::<u64>()) {
            let record = Record { key: text.clone(), tags: text, ..full(n) };
            prop_assert_eq!(decode(&encoded(&record)), Some(record));
        }
    }
}
