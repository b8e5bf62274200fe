//! Response heads: every lie of `chaos.py` that a head can tell, accepted or refused by name.

use super::{schedules, wire};
use crate::codec::http1::{
    Asked, BadResponse, HeadLimits, INTERIM_HEADS_MAX, ResponseFraming, ResponseHead, ResponseScan,
};
use ResponseFraming::{Chunked, Length, None as NoBody, UntilClose};

fn verdict(
    name: &str,
    bytes: &[u8],
    asked: Asked,
    limits: &HeadLimits,
) -> Result<Option<ResponseHead>, BadResponse> {
    let whole = ResponseScan::new(asked).advance(bytes, limits);
    for schedule in schedules(bytes.len()) {
        let mut scan = ResponseScan::new(asked);
        let mut seen = Ok(None);
        for &end in &schedule {
            seen = scan.advance(&bytes[..end], limits);
            if seen != Ok(None) {
                break;
            }
        }
        assert_eq!(seen, whole, "{name}: cut as {:?}", &schedule[..schedule.len().min(4)]);
    }
    whole
}

fn run(name: &str, head: &str, asked: Asked) -> Option<ResponseHead> {
    verdict(name, &wire(head), asked, &HeadLimits::DEFAULT).ok().flatten()
}

/// Name, request, head, framing and whether the connection stays; `None`: refused.
type FramingRow = (&'static str, Asked, &'static str, Option<(ResponseFraming, bool)>);
/// Name, status line, status and reason.
type StatusRow = (&'static str, &'static str, Option<(u16, &'static str)>);
/// Name, field line, name and value.
type FieldRow = (&'static str, &'static str, Option<(&'static str, &'static str)>);

const GET: Asked = Asked::Body;

const FRAMING: &[FramingRow] = &[
    ("length", GET, "HTTP/1.1 200 OK|Content-Length: 5||", Some((Length(5), true))),
    ("chunked", GET, "HTTP/1.1 200 OK|transfer-encoding: Chunked||", Some((Chunked, true))),
    ("neither", GET, "HTTP/1.1 200 OK||", Some((UntilClose, false))),
    ("neither, close", GET, "HTTP/1.1 200 OK|Connection: close||", Some((UntilClose, false))),
    ("close", GET, "HTTP/1.1 200 OK|Content-Length: 5|Connection: close||", Some((Length(5), false))),
    ("1.0", GET, "HTTP/1.0 200 OK|Content-Length: 5||", Some((Length(5), false))),
    (
        "1.0, keep-alive",
        GET,
        "HTTP/1.0 200 OK|Content-Length: 5|Connection: keep-alive||",
        Some((Length(5), true)),
    ),
    ("1.0, chunked", GET, "HTTP/1.0 200 OK|Transfer-Encoding: chunked||", None),
    ("HEAD with length", Asked::Head, "HTTP/1.1 200 OK|Content-Length: 5||", Some((NoBody, true))),
    ("HEAD with chunked", Asked::Head, "HTTP/1.1 200 OK|Transfer-Encoding: chunked||", Some((NoBody, true))),
    ("HEAD with neither", Asked::Head, "HTTP/1.1 404 No||", Some((NoBody, true))),
    ("304 with length", GET, "HTTP/1.1 304 Not Modified|Content-Length: 5||", Some((NoBody, true))),
    ("204", GET, "HTTP/1.1 204 No Content||", Some((NoBody, true))),
    ("204 with length 0", GET, "HTTP/1.1 204 No Content|Content-Length: 0||", Some((NoBody, true))),
    ("204 with length is not reused", GET, "HTTP/1.1 204 No|Content-Length: 8||", Some((NoBody, false))),
    (
        "204 with chunked is not reused",
        GET,
        "HTTP/1.1 204 No|Transfer-Encoding: chunked||",
        Some((NoBody, false)),
    ),
    ("205 has what it says", GET, "HTTP/1.1 205 Reset|Content-Length: 0||", Some((Length(0), true))),
    ("100", GET, "HTTP/1.1 100 Continue||", Some((NoBody, true))),
    ("103", GET, "HTTP/1.1 103 Early Hints|Link: </a>||", Some((NoBody, true))),
    ("103 with a body", GET, "HTTP/1.1 103 Early Hints|Content-Length: 3||", None),
    ("CONNECT, 200", Asked::Connect, "HTTP/1.1 200 OK|Content-Length: 5||", Some((NoBody, true))),
    ("CONNECT, 407", Asked::Connect, "HTTP/1.1 407 No|Content-Length: 5||", Some((Length(5), true))),
    (
        "101 asked for",
        Asked::Upgrade,
        "HTTP/1.1 101 S|Connection: Upgrade|Upgrade: x||",
        Some((NoBody, true)),
    ),
    ("101 without Upgrade", Asked::Upgrade, "HTTP/1.1 101 S|Connection: Upgrade||", None),
    ("101 without Connection", Asked::Upgrade, "HTTP/1.1 101 S|Upgrade: x||", None),
    ("101 unsolicited", GET, "HTTP/1.1 101 S|Connection: Upgrade|Upgrade: x||", None),
    ("both, TE first", GET, "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Content-Length: 3||", None),
    ("both, CL first", GET, "HTTP/1.1 200 OK|Content-Length: 3|Transfer-Encoding: chunked||", None),
    (
        "length twice, same",
        GET,
        "HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 5||",
        Some((Length(5), true)),
    ),
    ("length list, same", GET, "HTTP/1.1 200 OK|Content-Length: 5, 5||", Some((Length(5), true))),
    ("length twice, different", GET, "HTTP/1.1 200 OK|Content-Length: 9|Content-Length: 5||", None),
    ("length list, different", GET, "HTTP/1.1 200 OK|Content-Length: 5, 6||", None),
    ("length list, empty member", GET, "HTTP/1.1 200 OK|Content-Length: 5,||", None),
    ("length negative", GET, "HTTP/1.1 200 OK|Content-Length: -5||", None),
    ("length with plus", GET, "HTTP/1.1 200 OK|Content-Length: +5||", None),
    ("length empty", GET, "HTTP/1.1 200 OK|Content-Length:||", None),
    ("length over 64 bits", GET, "HTTP/1.1 200 OK|Content-Length: 18446744073709551617||", None),
    ("length over 63 bits", GET, "HTTP/1.1 200 OK|Content-Length: 9223372036854775808||", None),
    ("length bad on a 304 too", GET, "HTTP/1.1 304 No|Content-Length: x||", None),
    ("an unknown coding", GET, "HTTP/1.1 200 OK|Transfer-Encoding: xyz||", None),
    ("gzip before chunked", GET, "HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||", None),
    ("identity", GET, "HTTP/1.1 200 OK|Transfer-Encoding: identity||", None),
    ("chunked twice", GET, "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked||", None),
    ("length named as an option", GET, "HTTP/1.1 200 OK|Connection: Content-Length||", None),
    (
        "coding named as an option",
        GET,
        "HTTP/1.1 200 OK|Connection: Transfer-Encoding|Transfer-Encoding: chunked||",
        Some((Chunked, true)),
    ),
];

#[test]
fn framing_follows_rfc_9112_section_6_3_or_the_head_is_refused() {
    for &(name, asked, head, expected) in FRAMING {
        let seen = run(name, head, asked).map(|head| (head.framing, head.keep_alive));
        assert_eq!(seen, expected, "{name}");
    }
}

const STATUS_LINES: &[StatusRow] = &[
    ("usual", "HTTP/1.1 200 OK", Some((200, "OK"))),
    ("a reason of words", "HTTP/1.1 404 Not Found at all", Some((404, "Not Found at all"))),
    ("an empty reason", "HTTP/1.1 200 ", Some((200, ""))),
    ("no reason and no space", "HTTP/1.1 200", Some((200, ""))),
    ("a reason with eight bits", "HTTP/1.1 200 \u{e9}", Some((200, "\u{e9}"))),
    ("an odd status", "HTTP/1.1 999 Odd", Some((999, "Odd"))),
    ("status 000", "HTTP/1.1 000 Zero", None),
    ("status 099", "HTTP/1.1 099 Low", None),
    ("two digits", "HTTP/1.1 20 OK", None),
    ("four digits", "HTTP/1.1 2000 OK", None),
    ("no digits", "HTTP/1.1 OK 200", None),
    ("a sign", "HTTP/1.1 +20 OK", None),
    ("two spaces", "HTTP/1.1  200 OK", None),
    ("a tab", "HTTP/1.1\t200 OK", None),
    ("a tab after the status", "HTTP/1.1 200\tOK", None),
    ("version 9.9", "HTTP/9.9 200 OK", None),
    ("version 1.2", "HTTP/1.2 200 OK", None),
    ("version 2", "HTTP/2 200 OK", None),
    ("lower case", "http/1.1 200 OK", None),
    ("no version", "200 OK", None),
    ("words", "HELLO WORLD", None),
    ("a leading space", " HTTP/1.1 200 OK", None),
    ("an empty line first", "|HTTP/1.1 200 OK", None),
    ("NUL in the reason", "HTTP/1.1 200 O\0K", None),
    ("CR in the reason", "HTTP/1.1 200 O\rK", None),
    ("LF in the reason", "HTTP/1.1 200 O\nK", None),
];

#[test]
fn status_lines_are_version_three_digits_and_reason() {
    for &(name, line, expected) in STATUS_LINES {
        let bytes = wire(&format!("{line}|Content-Length: 0||"));
        let head = verdict(name, &bytes, Asked::Body, &HeadLimits::DEFAULT).ok().flatten();
        let seen = head.map(|h| {
            (
                h.status,
                String::from_utf8_lossy(&bytes[h.reason.start as usize..h.reason.end as usize]).into_owned(),
            )
        });
        assert_eq!(seen.as_ref().map(|(status, reason)| (*status, reason.as_str())), expected, "{name}");
    }
    let binary: Vec<u8> = (0..=255).collect();
    assert!(verdict("binary", &binary, Asked::Body, &HeadLimits::DEFAULT).is_err());
}

const FIELD_LINES: &[FieldRow] = &[
    ("usual", "X-A: b", Some(("X-A", "b"))),
    ("blanks around", "X-A:\t b c \t", Some(("X-A", "b c"))),
    ("no blanks", "X-A:b", Some(("X-A", "b"))),
    ("empty value", "X-A:", Some(("X-A", ""))),
    ("space before the colon", "X-A \t: b", Some(("X-A", "b"))),
    ("underscore", "x_request_id: b", Some(("x_request_id", "b"))),
    ("look-alike", "Content_Length: 3", None),
    ("two words before the colon", "X A: b", None),
    ("an empty name", ": b", None),
    ("an empty name of blanks", " : b", None),
    ("no colon", "XAXA", None),
    ("obs-fold", "X-A: a| b", None),
    ("NUL", "X-A: a\0b", None),
    ("bare CR", "X-A: a\rSet-Cookie: evil=1", None),
    ("bare LF", "X-A: a\nX-B: c", None),
    ("control", "X-A: \u{1b}[31m", None),
];

#[test]
fn field_lines_are_strict_but_for_the_space_a_proxy_removes() {
    for &(name, line, expected) in FIELD_LINES {
        let bytes = wire(&format!("HTTP/1.1 200 OK|{line}|Content-Length: 2||"));
        let head = verdict(name, &bytes, Asked::Body, &HeadLimits::DEFAULT).ok().flatten();
        let first = head.as_ref().and_then(|head| head.fields(&bytes).next());
        assert_eq!(first, expected.map(|(n, v)| (n.as_bytes(), v.as_bytes())), "{name}");
    }
}

#[test]
fn framing_field_with_a_space_before_the_colon_still_frames() {
    // Otherwise the body would be read until close, or as the next answer.
    let head = run("space", "HTTP/1.1 200 OK|Content-Length : 5||", Asked::Body).expect("taken");
    assert_eq!(head.framing, Length(5));
    assert_eq!(
        run("space and TE", "HTTP/1.1 200 OK|Content-Length : 5|Transfer-Encoding: chunked||", Asked::Body),
        None
    );
}

#[test]
fn fields_are_found_by_name_in_any_case() {
    let bytes = wire("HTTP/1.1 200 OK|Content-Type: text/event-stream|X: 1|x: 2|Content-Length: 0||rest");
    let head =
        ResponseScan::new(Asked::Body).advance(&bytes, &HeadLimits::DEFAULT).expect("valid").expect("whole");
    assert_eq!(head.field(&bytes, "content-type"), Some(&b"text/event-stream"[..]));
    assert_eq!(head.field(&bytes, "X"), Some(&b"1"[..]));
    assert_eq!(head.field(&bytes, "missing"), None);
    assert_eq!(head.fields(&bytes).count(), 4);
    assert_eq!(&bytes[head.len..], b"rest");
    assert_eq!(head.content_length, Some(0));
}

#[test]
fn interim_heads_come_one_by_one_before_the_final_one() {
    let bytes =
        wire("HTTP/1.1 100 Continue||HTTP/1.1 103 Early Hints|Link: a||HTTP/1.1 200 OK|Content-Length: 1||x");
    for schedule in schedules(bytes.len()) {
        let mut scan = ResponseScan::new(Asked::Body);
        let (mut start, mut statuses) = (0, vec![]);
        for &end in &schedule {
            while statuses.last() != Some(&200) {
                match scan.advance(&bytes[start..end], &HeadLimits::DEFAULT).expect("valid") {
                    Some(head) => {
                        assert_eq!(head.is_interim(), head.status < 200);
                        start += head.len;
                        statuses.push(head.status);
                    }
                    None => break,
                }
            }
        }
        assert_eq!((statuses, &bytes[start..]), (vec![100, 103, 200], &b"x"[..]));
    }
}

#[test]
fn a_flood_of_interim_heads_ends_at_its_bound() {
    let interim = wire("HTTP/1.1 103 Early Hints||");
    for (count, is_taken) in [(INTERIM_HEADS_MAX, true), (INTERIM_HEADS_MAX + 1, false)] {
        let mut scan = ResponseScan::new(Asked::Body);
        let all_taken = (0..count).all(|_| scan.advance(&interim, &HeadLimits::DEFAULT).is_ok());
        assert_eq!(all_taken, is_taken, "{count}");
    }
}

#[test]
fn every_bound_holds_at_its_value_and_refuses_one_past_it() {
    let limits = HeadLimits { head_bytes_max: 500, fields_max: 3, name_bytes_max: 20, target_bytes_max: 0 };
    let head = |name: usize, fields: usize, value: usize| {
        let more = "a: b\r\n".repeat(fields - 1);
        format!("HTTP/1.1 200 OK\r\n{more}{}: {}\r\n\r\n", "n".repeat(name), "v".repeat(value)).into_bytes()
    };
    let is_ok = |bytes: &[u8]| matches!(verdict("bound", bytes, Asked::Body, &limits), Ok(Some(_)));
    assert!(is_ok(&head(20, 3, 0)));
    assert!(!is_ok(&head(21, 3, 0)));
    assert!(!is_ok(&head(20, 4, 0)));
    let fill = 500 - head(1, 1, 0).len();
    assert!(is_ok(&head(1, 1, fill)));
    assert!(!is_ok(&head(1, 1, fill + 1)));
    assert_eq!(verdict("not ended", &head(1, 1, fill)[..499], Asked::Body, &limits), Ok(None));
    assert!(verdict("never ended", &head(1, 1, 4 << 20), Asked::Body, &limits).is_err());
    let many: String = (0..50_000).map(|k| format!("X-{k}: 1|")).collect();
    assert_eq!(run("50,000 fields", &format!("HTTP/1.1 200 OK|{many}|"), Asked::Body), None);
}
