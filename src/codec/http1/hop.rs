//! Which fields end at this hop: `Connection`, what it names, and the fields that never travel further.
//!
//! Input: `Connection` values, field names. Output: `ConnectionOptions`, and one function for both
//! directions.
//! Limits: `CONNECTION_OPTIONS_MAX` options a message.
//! Errors: an option that is no token; too many; an option that names `Content-Length` or `Host`: dropping
//! these because a peer asked for it would change where the next message starts or whom it is for.
//! `Transfer-Encoding` may be named: it is hop-by-hop, and some content networks do.
//! Source: RFC 9110 section 7.6.1.

use super::syntax::{is_token, members};

/// Options of all `Connection` lines of a message together, empty ones included.
pub const CONNECTION_OPTIONS_MAX: usize = 16;

/// What the `Connection` field of a message asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    seen: usize,
    /// Only names that `is_standard_hop` does not know already, so that usual requests allocate nothing.
    named: Vec<Box<[u8]>>,
}

impl ConnectionOptions {
    /// Whether `Connection` named this field (any case), beyond the fields that are hop-by-hop anyway.
    pub fn names(&self, field: &[u8]) -> bool {
        self.named.iter().any(|option| option.eq_ignore_ascii_case(field))
    }

    /// Takes one `Connection` value in.
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), &'static str> {
        // What nearly every client sends, and nothing else on the line.
        if self.seen < CONNECTION_OPTIONS_MAX && value.eq_ignore_ascii_case(b"keep-alive") {
            self.seen += 1;
            self.keep_alive = true;
            return Ok(());
        }
        for option in members(value) {
            self.seen += 1;
            if self.seen > CONNECTION_OPTIONS_MAX {
                return Err("more than 16 Connection options");
            }
            // RFC 9110 section 5.6.1.2: empty list members are ignored, within reason.
            if option.is_empty() {
                continue;
            }
            if !is_token(option) {
                return Err("a Connection option that is not a token");
            }
            self.add_option(option)?;
        }
        Ok(())
    }

    fn add_option(&mut self, option: &[u8]) -> Result<(), &'static str> {
        if option.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if option.eq_ignore_ascii_case(b"content-length") || option.eq_ignore_ascii_case(b"host") {
            return Err("a Connection option that names Content-Length or Host");
        } else if !is_standard_hop(option) && !self.names(option) {
            self.named.push(option.into());
        }
        Ok(())
    }

    /// Whether the connection stays open after this message, by version and options (RFC 9112 section 9.3).
    pub(super) fn keeps_alive(&self, version: http::Version) -> bool {
        !self.close && (version == http::Version::HTTP_11 || self.keep_alive)
    }
}

/// Whether a field must not be forwarded, in either direction: the standard hop-by-hop fields, whatever
/// `Connection` named, and `Proxy`, which CGI servers take for a setting (CVE-2016-5385).
///
/// `Content-Length` is end-to-end by the RFC and not in this list; the writer sets it from the framing, so
/// that a relay skips it as well (`HeadWriter::field` refuses it).
pub fn is_hop_by_hop(name: &[u8], options: &ConnectionOptions) -> bool {
    is_standard_hop(name) || options.names(name)
}

fn is_standard_hop(name: &[u8]) -> bool {
    let candidates: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        5 => &[b"proxy"],
        7 => &[b"trailer", b"upgrade"],
        10 => &[b"connection", b"keep-alive"],
        14 => &[b"http2-settings"],
        16 => &[b"proxy-connection"],
        17 => &[b"transfer-encoding"],
        18 => &[b"proxy-authenticate"],
        19 => &[b"proxy-authorization"],
        25 => &[b"proxy-authentication-info"],
        _ => return false,
    };
    candidates.iter().any(|candidate| name.eq_ignore_ascii_case(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_and_named_fields_end_here_and_others_travel() {
        let mut options = ConnectionOptions::default();
        options.add(b"close, X-Secret-Hop ,, TE, Transfer-Encoding").expect("a valid list");
        assert!(options.close && !options.keep_alive && !options.upgrade);
        for name in [
            "Connection",
            "keep-alive",
            "TE",
            "Trailer",
            "TRANSFER-ENCODING",
            "Upgrade",
            "Proxy-Connection",
            "Proxy-Authorization",
            "Proxy-Authenticate",
            "Proxy-Authentication-Info",
            "Proxy",
            "HTTP2-Settings",
            "x-secret-hop",
        ] {
            assert!(is_hop_by_hop(name.as_bytes(), &options), "{name}");
        }
        for name in
            ["Content-Type", "Content-Length", "Host", "Authorization", "close", "X-Secret", "Proxy-Status"]
        {
            assert!(!is_hop_by_hop(name.as_bytes(), &options), "{name}");
        }
    }

    #[test]
    fn options_that_break_framing_or_bounds_are_refused() {
        for value in ["Content-Length", "close, host", "a b", "\"close\"", "close;q=1"] {
            assert!(ConnectionOptions::default().add(value.as_bytes()).is_err(), "{value}");
        }
        let list = |n: usize| vec!["x"; n].join(",");
        assert!(ConnectionOptions::default().add(list(CONNECTION_OPTIONS_MAX).as_bytes()).is_ok());
        assert!(ConnectionOptions::default().add(list(CONNECTION_OPTIONS_MAX + 1).as_bytes()).is_err());
    }
}
