//! The config that serves, for operators: with every default and without any secret.
//!
//! In: the config as it was read. Out: a JSON value, or its text, packed: with 100,000 keys the text has some 40 MB,
//! and little of it differs from key to key. It is packed as it is written, so no whole of it is ever in memory.
//! What is masked: header values and the webhook, which may be credentials, and hashes, since the key behind one may
//! be a word that can be guessed.
//! Errors: none. Absent: where each part came from.

use crate::control::config::raw;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::fmt;
use std::io::{BufWriter, Read};

const PIECE_BYTES: usize = 32 * 1024;

/// See the module's text.
pub struct Effective {
    /// All but the two lists that may be long.
    rest: raw::File,
    keys: Vec<raw::Key>,
    teams: Vec<raw::Team>,
}

/// Its text.
#[derive(Default)]
pub struct Packed(Vec<u8>);

impl Effective {
    pub fn new(mut raw: raw::File) -> Effective {
        let (keys, teams) = (std::mem::take(&mut raw.key), std::mem::take(&mut raw.team));
        Effective { rest: raw, keys, teams }
    }

    /// As a value.
    pub fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// As text, packed.
    pub fn packed(&self) -> Packed {
        let packer = DeflateEncoder::new(Vec::new(), Compression::fast());
        // The writer of JSON hands on a few bytes at a time.
        let mut pieces = BufWriter::with_capacity(PIECE_BYTES, packer);
        let written = serde_json::to_writer_pretty(&mut pieces, self);
        let packer = written.ok().and_then(|()| pieces.into_inner().ok());
        Packed(packer.and_then(|packer| packer.finish().ok()).unwrap_or_default())
    }
}

impl Packed {
    pub fn text(&self) -> String {
        let mut text = String::new();
        // It was packed here.
        let _ = DeflateDecoder::new(&*self.0).read_to_string(&mut text);
        text
    }
}

impl Serialize for Effective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rest = serde_json::to_value(&self.rest).unwrap_or_default();
        mask_rest(&mut rest);
        let rest = rest.as_object().into_iter().flatten();
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in rest {
            match &**name {
                "key" => map.serialize_entry(name, &Each(&self.keys, mask_key))?,
                "team" => map.serialize_entry(name, &Each(&self.teams, |_| {}))?,
                _ => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

/// A list, one entry after the other.
struct Each<'a, T>(&'a [T], fn(&mut Value));

impl<T: Serialize> Serialize for Each<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|entry| {
            let mut value = serde_json::to_value(entry).unwrap_or_default();
            (self.1)(&mut value);
            value
        }))
    }
}

fn mask_key(key: &mut Value) {
    match &mut key["hash"] {
        Value::Array(hashes) => hashes.fill(masked()),
        hash => *hash = masked(),
    }
}

fn mask_rest(config: &mut Value) {
    // Its path may be what protects it.
    if config["alerts"]["webhook"].is_string() {
        config["alerts"]["webhook"] = masked();
    }
    for provider in config["provider"].as_array_mut().into_iter().flatten() {
        for value in provider["headers"].as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
            if value.is_string() {
                *value = masked();
            }
        }
    }
}

fn masked() -> Value {
    Value::from("***")
}

impl fmt::Debug for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.value(), f)
    }
}

impl PartialEq for Effective {
    fn eq(&self, other: &Effective) -> bool {
        self.value() == other.value()
    }
}

#[cfg(test)]
mod tests {
    use super::Effective;
    use crate::control::config::parse_only;
    use serde_json::Value;

    #[test]
    fn the_packed_text_is_the_value_and_holds_no_secret() {
        let text = "[alerts]\nwebhook = \"https://alerts.example/hidden\"\n\
            [[provider]]\nname = \"one\"\nkind = \"mock\"\nheaders = { a = \"hidden\", b = { env = \"B\" } }\n\
            [[team]]\nname = \"blue\"\n\
            [[key]]\nname = \"ci\"\nhash = [\"sha256:hidden\", \"sha256:hidden\"]\n\
            [[key]]\nname = \"cd\"\nhash = \"sha256:hidden\"\n";
        let effective = Effective::new(parse_only(text).expect("a config"));
        let value = effective.value();
        let shown = effective.packed().text();
        assert!(!shown.contains("hidden"), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), value);
        assert_eq!(shown, serde_json::to_string_pretty(&value).expect("text"));
        assert_eq!((&value["key"][1]["hash"], &value["team"][0]["name"]), (&"***".into(), &"blue".into()));
        assert_eq!(value["provider"][0]["headers"]["b"]["env"], "B");
        assert_eq!(value["alerts"]["webhook"], "***");
    }
}
