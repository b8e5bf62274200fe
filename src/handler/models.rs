//! `/v1/models`: the models that the caller's key may ask for, as a list or one of them.
//!
//! OpenAI's form, or Anthropic's where the caller sent `anthropic-version`. Wildcard routes name nothing that
//! could be listed; one model is found through them all the same. A name stands in the path as it is or
//! percent-encoded, as SDKs send one with a slash. Source: the reference pages of both vendors, November 2026;
//! RFC 3986 section 2.1.

use crate::codec::json;
use crate::handler::snapshot::Snapshot;
use crate::llm::dialect::Dialect;
use crate::policy::auth::Key;
use std::borrow::Cow;

/// The list as JSON.
pub fn list(snapshot: &Snapshot, key: &Key, dialect: Dialect) -> Vec<u8> {
    let names: Vec<&str> = snapshot.routes.names().filter(|name| key.may_use(name)).collect();
    let mut out = Vec::with_capacity(64 + names.len() * 96);
    out.extend_from_slice(if is_anthropic(dialect) {
        b"{\"data\":["
    } else {
        b"{\"object\":\"list\",\"data\":["
    });
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_model(name, dialect, &mut out);
    }
    out.push(b']');
    if is_anthropic(dialect) {
        out.extend_from_slice(b",\"has_more\":false,\"first_id\":");
        write_id(names.first().copied(), &mut out);
        out.extend_from_slice(b",\"last_id\":");
        write_id(names.last().copied(), &mut out);
    }
    out.push(b'}');
    out
}

/// One model as JSON; none where there is no such model or the key may not ask for it.
pub fn one(snapshot: &Snapshot, key: &Key, dialect: Dialect, name: &str) -> Option<Vec<u8>> {
    snapshot.routes.resolve(name).filter(|_| key.may_use(name))?;
    let mut out = Vec::with_capacity(96);
    write_model(name, dialect, &mut out);
    Some(out)
}

/// The name that a path says, its escapes decoded; none where one of them is no escape, or what they give is
/// not UTF-8.
pub fn name_in(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut name = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            byte => byte,
        });
    }
    String::from_utf8(name).ok().map(Cow::Owned)
}

fn write_model(name: &str, dialect: Dialect, out: &mut Vec<u8>) {
    out.extend_from_slice(if is_anthropic(dialect) {
        b"{\"type\":\"model\",\"id\":\""
    } else {
        b"{\"id\":\""
    });
    json::escape(name.as_bytes(), out);
    if is_anthropic(dialect) {
        out.extend_from_slice(b"\",\"display_name\":\"");
        json::escape(name.as_bytes(), out);
        out.extend_from_slice(b"\",\"created_at\":\"1970-01-01T00:00:00Z\"}");
    } else {
        out.extend_from_slice(b"\",\"object\":\"model\",\"created\":0,\"owned_by\":\"tollgate\"}");
    }
}

fn write_id(name: Option<&str>, out: &mut Vec<u8>) {
    match name {
        None => out.extend_from_slice(b"null"),
        Some(name) => json::write_string(name.as_bytes(), out),
    }
}

fn is_anthropic(dialect: Dialect) -> bool {
    dialect == Dialect::Anthropic
}
