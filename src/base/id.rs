//! Request ids: `req_` and 26 characters, sortable by time, unique over workers and restarts.
//!
//! 48 bits of wall time in milliseconds, 80 random bits, in Crockford's base 32 (lower case, no i, l, o, u).
//! The 80 bits come from the per-thread generator: an id names a request, it is no secret.

use crate::base::{clock, rng};
use std::fmt;

/// The id of one request, as it stands in headers, errors and logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; RequestId::LEN]);

impl RequestId {
    /// Length of the text form in bytes.
    pub const LEN: usize = PREFIX.len() + 26;

    /// A new id, of now.
    pub fn new() -> RequestId {
        let time = u128::from(clock::unix_ms() & 0xffff_ffff_ffff) << 80;
        let random = (u128::from(rng::bits()) << 16) | u128::from(rng::bits() & 0xffff);
        let mut bits = time | random;
        let mut text = [0; RequestId::LEN];
        text[..PREFIX.len()].copy_from_slice(PREFIX);
        for place in text[PREFIX.len()..].iter_mut().rev() {
            *place = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        RequestId(text)
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text form as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Default for RequestId {
    fn default() -> RequestId {
        RequestId::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const PREFIX: &[u8] = b"req_";
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[cfg(test)]
mod tests {
    use super::RequestId;

    #[test]
    fn ids_differ_and_have_the_stated_form() {
        let (one, two) = (RequestId::new(), RequestId::new());
        assert_ne!(one, two);
        assert!(one.as_str().starts_with("req_"));
        assert_eq!(one.as_str().len(), RequestId::LEN);
    }
}
