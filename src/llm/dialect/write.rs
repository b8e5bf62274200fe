//! Writing what the gateway itself says: JSON objects member by member, and events around them.

use crate::codec::{json, sse};

/// A JSON object under way; the last bracket comes with [`object`]'s return.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

/// Appends an object with the members that `fill` writes.
pub(super) fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fill(&mut Object { out, is_empty: true });
    out.push(b'}');
}

/// Appends an event whose data is such an object.
pub(super) fn event(out: &mut Vec<u8>, name: Option<&str>, fill: impl FnOnce(&mut Object<'_>)) {
    let mut data = Vec::with_capacity(256);
    object(&mut data, fill);
    sse::write_event(out, name, &data);
}

impl Object<'_> {
    /// A member whose value is JSON already.
    pub(super) fn raw(&mut self, key: &str, value: &[u8]) -> &mut Self {
        self.key(key).extend_from_slice(value);
        self
    }

    /// A member as it stands in another object.
    pub(super) fn member(&mut self, key_escaped: &[u8], value: &[u8]) -> &mut Self {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(key_escaped);
        self.out.extend_from_slice(b"\":");
        self.out.extend_from_slice(value);
        self
    }

    /// A string.
    pub(super) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        json::write_string(text.as_bytes(), self.key(key));
        self
    }

    /// A string that is escaped already.
    pub(super) fn escaped(&mut self, key: &str, text: &[u8]) -> &mut Self {
        let out = self.key(key);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        self
    }

    pub(super) fn number(&mut self, key: &str, number: u64) -> &mut Self {
        let mut digits = itoa::Buffer::new();
        self.raw(key, digits.format(number).as_bytes())
    }

    pub(super) fn null(&mut self, key: &str) -> &mut Self {
        self.raw(key, b"null")
    }

    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        object(self.key(key), fill);
        self
    }

    /// A list of one object.
    pub(super) fn list_of_one(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let out = self.key(key);
        out.push(b'[');
        object(out, fill);
        out.push(b']');
        self
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.comma();
        json::write_string(key.as_bytes(), self.out);
        self.out.push(b':');
        self.out
    }

    fn comma(&mut self) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.out.push(b',');
        }
    }
}
