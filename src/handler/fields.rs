//! Which header fields go on, in both directions. One rule each, so that a reader can predict what an
//! upstream sees.
//!
//! Request: every field goes on as it came but those that end here: fields of this hop (RFC 9110 section
//! 7.6.1 and what `Connection` names), framing, `Host`, `Expect`, the caller's credentials, cookies, what
//! proxies before us added about the caller, and what is for our own books. `Accept-Encoding` is replaced where
//! the answer is metered. Beta, organisation, version and trace fields go on. Answer: every field goes on but
//! those of the hop, framing, `Set-Cookie` (a cookie of one caller's upstream connection is not for another) and
//! `Alt-Svc` (it would lead the client past the gateway). Source: RFC 9110 section 7.6; DESIGN section 2.

use crate::codec::http1::{ConnectionOptions, is_hop_by_hop};
use crate::handler::account::TAGS;
use crate::handler::usage;

/// Whether a field of a request goes on to the provider. `name` is in lower case.
pub fn request_field_goes_on(name: &str, connection: &ConnectionOptions) -> bool {
    match name {
        "host" | "content-length" | "expect" => false,
        "authorization" | "x-api-key" | "api-key" | "x-goog-api-key" | "proxy-authorization" | "cookie" => {
            false
        }
        "forwarded" | "x-real-ip" | "via" | "accept-encoding" => false,
        TAGS | usage::WISH => false,
        _ => !name.starts_with("x-forwarded-") && !is_hop_by_hop(name.as_bytes(), connection),
    }
}

/// Whether a field of an answer goes on to the client. `name` is in any case.
pub fn answer_field_goes_on(name: &[u8], connection: &ConnectionOptions) -> bool {
    // Most names are neither: their length or first letter says so.
    match name.len() {
        7 if name.eq_ignore_ascii_case(b"alt-svc") => false,
        10 if name.eq_ignore_ascii_case(b"set-cookie") => false,
        14 if name.eq_ignore_ascii_case(b"content-length") => false,
        _ => !is_hop_by_hop(name, connection),
    }
}

#[cfg(test)]
mod tests {
    use super::{answer_field_goes_on, request_field_goes_on};
    use crate::codec::http1::decode_request;

    #[test]
    fn what_ends_here_and_what_goes_on() {
        let head =
            decode_request(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-mine\r\n\r\n").expect("a valid head");
        let rows = [
            ("content-type", true, true),
            ("openai-organization", true, true),
            ("anthropic-beta", true, true),
            ("traceparent", true, true),
            ("x-stainless-lang", true, true),
            ("authorization", false, true),
            ("x-api-key", false, true),
            ("api-key", false, true),
            ("x-goog-api-key", false, true),
            ("cookie", false, true),
            ("x-forwarded-for", false, true),
            ("x-tollgate-tags", false, true),
            ("x-tollgate-usage", false, true),
            ("x-mine", false, false),
            ("connection", false, false),
            ("transfer-encoding", false, false),
            ("upgrade", false, false),
            ("content-length", false, false),
            ("set-cookie", true, false),
            ("alt-svc", true, false),
            ("x-ratelimit-remaining-requests", true, true),
        ];
        for (name, up, down) in rows {
            assert_eq!(request_field_goes_on(name, &head.connection), up, "request {name}");
            assert_eq!(answer_field_goes_on(name.as_bytes(), &head.connection), down, "answer {name}");
        }
    }
}
