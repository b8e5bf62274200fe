//! Request heads: every class of `h1_cases.py` and every hole of monoio-http, accepted or refused by name.

use super::{schedules, wire};
use crate::codec::http1::{
    BodyFraming, EMPTY_LINES_MAX, HeadLimits, METHOD_BYTES_MAX, Refusal, RequestHead, RequestScan,
    decode_request, path_of_refused,
};

/// The verdict on `bytes`, the same for every way of cutting them.
fn verdict(name: &str, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
    let whole = RequestScan::new().advance(bytes, limits);
    for schedule in schedules(bytes.len()) {
        let mut scan = RequestScan::new();
        let mut seen = Ok(None);
        for &end in &schedule {
            seen = scan.advance(&bytes[..end], limits);
            if seen != Ok(None) {
                break;
            }
        }
        assert_eq!(seen, whole, "{name}: cut as {:?}", &schedule[..schedule.len().min(4)]);
        if let Err(refusal) = seen {
            assert_eq!(scan.advance(bytes, limits), Err(refusal), "{name}: a refusal stays");
        }
    }
    whole
}

fn accepted(name: &str, bytes: &[u8]) -> RequestHead {
    let len = match verdict(name, bytes, &HeadLimits::DEFAULT) {
        Ok(Some(len)) => len,
        other => panic!("{name}: {other:?}"),
    };
    let head = decode_request(bytes).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
    assert!(bytes[..len].ends_with(b"\r\n\r\n"), "{name}: the head ends at its blank line");
    head
}

fn refused(name: &str, bytes: &[u8]) -> u16 {
    match verdict(name, bytes, &HeadLimits::DEFAULT) {
        Err(refusal) => refusal.status,
        Ok(len) => panic!("{name}: not refused, {len:?}"),
    }
}

/// A POST with these lines after Host.
fn post(fields: &str) -> Vec<u8> {
    wire(&format!("POST /v1/x HTTP/1.1|Host: gw.test|{fields}|"))
}

/// A request with this request line.
fn line(request_line: &str) -> Vec<u8> {
    wire(&format!("{request_line}|Host: gw.test|Content-Length: 3||"))
}

const FRAMING: &[(&str, &str, Result<BodyFraming, u16>)] = &[
    ("no framing field is no body", "X-A: 1|", Ok(BodyFraming::None)),
    ("length", "Content-Length: 44|", Ok(BodyFraming::Length(44))),
    ("length zero", "Content-Length: 0|", Ok(BodyFraming::Length(0))),
    ("length with leading zeros", "Content-Length: 00044|", Ok(BodyFraming::Length(44))),
    ("length between tabs", "Content-Length:\t44\t|", Ok(BodyFraming::Length(44))),
    ("length, largest", "Content-Length: 9223372036854775807|", Ok(BodyFraming::Length(i64::MAX as u64))),
    ("length, one over the largest", "Content-Length: 9223372036854775808|", Err(400)),
    ("length over 32 bits is not cut", "Content-Length: 4294967340|", Ok(BodyFraming::Length(4294967340))),
    ("length over 64 bits", "Content-Length: 18446744073709551616|", Err(400)),
    ("length of 20 digits", "Content-Length: 00000000000000000044|", Err(400)),
    ("length with plus", "Content-Length: +44|", Err(400)),
    ("length with minus", "Content-Length: -44|", Err(400)),
    ("length in hex", "Content-Length: 0x44|", Err(400)),
    ("length with fraction", "Content-Length: 44.0|", Err(400)),
    ("length quoted", "Content-Length: \"44\"|", Err(400)),
    ("length empty", "Content-Length:|", Err(400)),
    ("length of blanks", "Content-Length:  \t |", Err(400)),
    ("length with inner space", "Content-Length: 4 4|", Err(400)),
    ("length with trailing word", "Content-Length: 44 abc|", Err(400)),
    ("length with underscore", "Content-Length: 4_4|", Err(400)),
    ("length in other digits", "Content-Length: \u{0664}\u{0664}|", Err(400)),
    ("length list, same", "Content-Length: 44, 44|", Err(400)),
    ("length list, different", "Content-Length: 44, 1|", Err(400)),
    ("length with comma", "Content-Length: 44,|", Err(400)),
    ("length with vertical tab", "Content-Length: 44\u{b}|", Err(400)),
    ("length with NUL", "Content-Length: 44\0|", Err(400)),
    ("length twice, same", "Content-Length: 44|Content-Length: 44|", Err(400)),
    ("length twice, different", "Content-Length: 44|Content-Length: 0|", Err(400)),
    ("length twice, other case", "Content-Length: 0|CONTENT-LENGTH: 44|", Err(400)),
    ("length before a space and colon", "Content-Length : 44|", Err(400)),
    ("length look-alike", "Content_Length: 3|Content-Length: 44|", Err(400)),
    ("length behind a bare LF", "X-A: b\nContent-Length: 44|", Err(400)),
    ("length behind a bare CR", "X-A: b\rContent-Length: 44|", Err(400)),
    ("length in a folded line", "X-A: b| Content-Length: 5|Content-Length: 44|", Err(400)),
    ("chunked", "Transfer-Encoding: chunked|", Ok(BodyFraming::Chunked)),
    ("chunked in capitals", "TRANSFER-ENCODING: CHUNKED|", Ok(BodyFraming::Chunked)),
    ("chunked after a tab", "Transfer-Encoding:\tchunked|", Ok(BodyFraming::Chunked)),
    ("chunked then length", "Transfer-Encoding: chunked|Content-Length: 4|", Err(400)),
    ("length then chunked", "Content-Length: 6|Transfer-Encoding: chunked|", Err(400)),
    ("chunked twice", "Transfer-Encoding: chunked|Transfer-Encoding: chunked|", Err(400)),
    ("chunked twice in a list", "Transfer-Encoding: chunked, chunked|", Err(400)),
    ("chunked not last", "Transfer-Encoding: chunked, identity|", Err(400)),
    ("chunked, then gzip on a line", "Transfer-Encoding: chunked|Transfer-Encoding: gzip|", Err(400)),
    ("identity on a line, then chunked", "Transfer-Encoding: identity|Transfer-Encoding: chunked|", Err(400)),
    ("chunked, then an unknown one", "Transfer-Encoding: chunked|Transfer-Encoding: cow|", Err(400)),
    ("identity alone", "Transfer-Encoding: identity|", Err(400)),
    ("identity before chunked", "Transfer-Encoding: identity, chunked|", Err(501)),
    ("gzip before chunked", "Transfer-Encoding: gzip, chunked|", Err(501)),
    ("an unknown coding", "Transfer-Encoding: xchunked|", Err(400)),
    ("an unknown coding and a length", "Transfer-Encoding: xchunked|Content-Length: 5|", Err(400)),
    ("no coding and a length", "Transfer-Encoding:|Content-Length: 5|", Err(400)),
    ("chunked with vertical tab", "Transfer-Encoding: \u{b}chunked|", Err(400)),
    ("chunked with form feed", "Transfer-Encoding: chunked\u{c}|", Err(400)),
    ("chunked with NUL", "Transfer-Encoding: chunked\0|", Err(400)),
    ("chunked with DEL", "Transfer-Encoding: chunked\u{7f}|", Err(400)),
    ("chunked with no-break space", "Transfer-Encoding: \u{a0}chunked|", Err(400)),
    ("chunked quoted", "Transfer-Encoding: \"chunked\"|", Err(400)),
    ("chunked with a parameter", "Transfer-Encoding: chunked;q=1|", Err(400)),
    ("chunked with trailing comma", "Transfer-Encoding: chunked,|", Err(400)),
    ("chunked with leading comma", "Transfer-Encoding: ,chunked|", Err(400)),
    ("NUL before the name", "\0Transfer-Encoding: chunked|", Err(400)),
    ("coding before a space and colon", "Transfer-Encoding : chunked|", Err(400)),
    ("coding in a folded value", "Transfer-Encoding:| chunked|", Err(400)),
    ("coding in a folded name", "Transfer-Encoding| : chunked|", Err(400)),
    ("coding look-alike", "Transfer_Encoding: chunked|Content-Length: 5|", Err(400)),
    ("coding behind a bare LF", "X: y\nTransfer-Encoding: chunked|Content-Length: 5|", Err(400)),
    ("coding behind a bare CR", "X: y\rTransfer-Encoding: chunked|Content-Length: 5|", Err(400)),
];

#[test]
fn framing_fields_decide_the_body_or_are_refused() {
    for &(name, fields, expected) in FRAMING {
        let bytes = post(fields);
        match expected {
            Ok(framing) => assert_eq!(accepted(name, &bytes).framing, framing, "{name}"),
            Err(status) => assert_eq!(refused(name, &bytes), status, "{name}"),
        }
    }
}

const GRAMMAR: &[(&str, &str, Option<u16>)] = &[
    ("tabs around a value", "X-T:\t a b \t|", None),
    ("an empty value", "X-T:|", None),
    ("every token character", "!#$%&'*+-.^`|", Some(400)),
    ("every token character, with colon", "!#$%&'*+-.^`~0aZ: 1|", None),
    ("a name with underscore", "session_id: 1|", None),
    ("an api key look-alike", "x_api_key: 1|", Some(400)),
    ("a forwarded look-alike", "X_Forwarded-For: 1|", Some(400)),
    ("space before the colon", "X-A : b|", Some(400)),
    ("tab before the colon", "X-A\t: b|", Some(400)),
    ("an empty name", ": b|", Some(400)),
    ("no colon", "XAb|", Some(400)),
    ("NUL in a value", "X-A: a\0b|", Some(400)),
    ("CR in a value", "X-A: a\rb|", Some(400)),
    ("LF in a value", "X-A: a\nX-B: c|", Some(400)),
    ("CR CR LF", "X-A: a\r|", Some(400)),
    ("obs-fold with space", "X-A: a| b|", Some(400)),
    ("obs-fold with tab", "X-A: a|\tb|", Some(400)),
    ("a line of one space", " |", Some(400)),
    ("parenthesis in a name", "X-A(b): c|", Some(400)),
    ("slash in a name", "X/A: c|", Some(400)),
    ("space in a name", "X A: c|", Some(400)),
    ("eight bits in a name", "X-\u{e9}: c|", Some(400)),
    ("control in a value", "X-A: a\u{1}b|", Some(400)),
    ("DEL in a value", "X-A: a\u{7f}b|", Some(400)),
    ("escape in a value", "X-A: \u{1b}[31m|", Some(400)),
    ("a second Host", "Host: gw.test|", Some(400)),
    ("a second Host behind a space", "Host : evil.test|", Some(400)),
    ("continue", "Expect: 100-Continue|Content-Length: 4|", None),
    ("an unknown expectation", "Expect: 207-x|", Some(417)),
    ("continue in a list", "Expect: 100-continue, y|", Some(417)),
    ("continue behind a word", "Expect: y 100-continue|", Some(417)),
    ("Connection names Content-Length", "Connection: Content-Length|Content-Length: 4|", Some(400)),
    ("Connection names Host", "Connection: close, host|", Some(400)),
    ("Connection with a bad token", "Connection: a b|", Some(400)),
];

#[test]
fn header_grammar_is_strict() {
    for &(name, fields, expected) in GRAMMAR {
        let bytes = post(fields);
        match expected {
            None => drop(accepted(name, &bytes)),
            Some(status) => assert_eq!(refused(name, &bytes), status, "{name}"),
        }
    }
    let obs_text = b"GET / HTTP/1.1\r\nHost: a\r\nX-T: caf\xe9\r\n\r\n";
    assert_eq!(accepted("obs-text", obs_text).headers["x-t"].as_bytes(), b"caf\xe9");
}

const REQUEST_LINES: &[(&str, &str, Result<&str, u16>)] = &[
    ("origin form", "POST /v1/x?a=b HTTP/1.1", Ok("/v1/x?a=b")),
    ("root", "GET / HTTP/1.1", Ok("/")),
    ("two slashes are a path", "GET //evil.test/x HTTP/1.1", Ok("//evil.test/x")),
    ("raw brackets and braces", "GET /v1/x?include[]=a&b={c|d} HTTP/1.1", Ok("/v1/x?include[]=a&b={c|d}")),
    ("encoded NUL in a query", "POST /v1?a=%00 HTTP/1.1", Ok("/v1?a=%00")),
    ("a colon in a path", "POST /v1beta/models/g-2.5:gen HTTP/1.1", Ok("/v1beta/models/g-2.5:gen")),
    ("a method of its own", "post /v1 HTTP/1.1", Ok("/v1")),
    ("absolute form", "POST http://gw.test/v1/x?y HTTP/1.1", Ok("/v1/x?y")),
    ("absolute form without path", "POST HTTP://gw.test:80 HTTP/1.1", Ok("/")),
    ("absolute form, query only", "POST https://gw.test?y HTTP/1.1", Err(400)),
    ("absolute form with IPv6", "POST http://[::1]:80/v1 HTTP/1.1", Ok("/v1")),
    ("absolute form with user", "POST http://u:p@gw.test/v1 HTTP/1.1", Err(400)),
    ("absolute form without host", "POST http:///v1 HTTP/1.1", Err(400)),
    ("absolute form of another scheme", "POST ftp://gw.test/v1 HTTP/1.1", Err(400)),
    ("dots in names are no segments", "GET /a.b/..c/.d/e%2Ef HTTP/1.1", Ok("/a.b/..c/.d/e%2Ef")),
    ("dots in a query are data", "GET /a?/../b HTTP/1.1", Ok("/a?/../b")),
    ("dot segments", "POST /v1/../v1/x HTTP/1.1", Err(400)),
    ("one dot", "POST /v1/./x HTTP/1.1", Err(400)),
    ("dots at the end", "POST /v1/.. HTTP/1.1", Err(400)),
    ("encoded dots", "POST /v1/%2e%2E/x HTTP/1.1", Err(400)),
    ("half encoded dots", "POST /v1/.%2e/x HTTP/1.1", Err(400)),
    ("dots behind an encoded slash", "POST /v1%2f..%2fx HTTP/1.1", Err(400)),
    ("dots behind an encoded backslash", "POST /v1%5C..%5Cx HTTP/1.1", Err(400)),
    ("dots in absolute form", "POST http://gw.test/a/../b HTTP/1.1", Err(400)),
    ("no version", "POST /v1", Err(400)),
    ("nothing but a method", "POST", Err(400)),
    ("lower-case version", "POST /v1 http/1.1", Err(400)),
    ("version 1.2", "POST /v1 HTTP/1.2", Err(505)),
    ("version 2.0", "POST /v1 HTTP/2.0", Err(505)),
    ("version 0.9", "POST /v1 HTTP/0.9", Err(505)),
    ("version with junk", "POST /v1 HTTP/1.1x", Err(400)),
    ("version with two digits", "POST /v1 HTTP/1.10", Err(400)),
    ("version with a space", "POST /v1 HTTP/1.1 ", Err(400)),
    ("version with a comma", "POST /v1 HTTP/1,1", Err(400)),
    ("two spaces", "POST  /v1 HTTP/1.1", Err(400)),
    ("tabs", "POST\t/v1\tHTTP/1.1", Err(400)),
    ("leading space", " POST /v1 HTTP/1.1", Err(400)),
    ("a space in the target", "POST /v1?a=b c HTTP/1.1", Err(400)),
    ("NUL in the target", "POST /v1?a=\0 HTTP/1.1", Err(400)),
    ("eight bits in the target", "POST /v1?a=\u{e9} HTTP/1.1", Err(400)),
    ("control in the target", "POST /v1?a=\u{1} HTTP/1.1", Err(400)),
    ("DEL in the target", "POST /v1?a=\u{7f} HTTP/1.1", Err(400)),
    ("CR in the target", "POST /v1?\r HTTP/1.1", Err(400)),
    ("LF in the target", "POST /v1?x\nX-I: 1 HTTP/1.1", Err(400)),
    ("fragment", "POST /v1?a#b HTTP/1.1", Err(400)),
    ("no slash", "POST v1/chat HTTP/1.1", Err(400)),
    ("authority form", "POST example.test:80 HTTP/1.1", Err(400)),
    ("asterisk", "POST * HTTP/1.1", Err(400)),
    ("options asterisk", "OPTIONS * HTTP/1.1", Err(400)),
    ("options without path", "OPTIONS http://gw.test HTTP/1.1", Err(400)),
    ("backslashes", "POST \\v1\\chat HTTP/1.1", Err(400)),
    ("backslash in a path", "POST /v1\\chat HTTP/1.1", Err(400)),
    ("bad method", "PO(ST /v1 HTTP/1.1", Err(400)),
    ("empty method", " /v1 HTTP/1.1", Err(400)),
    ("connect", "CONNECT evil.test:443 HTTP/1.1", Err(501)),
    ("connect with a path", "CONNECT /v1 HTTP/1.1", Err(501)),
    ("h2 preface", "PRI * HTTP/2.0", Err(505)),
];

#[test]
fn request_lines_are_method_target_version_and_nothing_else() {
    for &(name, request_line, expected) in REQUEST_LINES {
        let bytes = if request_line.contains("c|d") {
            // The row itself needs a bar.
            line(&request_line.replace('|', "\u{1}")).iter().map(|&b| if b == 1 { b'|' } else { b }).collect()
        } else {
            line(request_line)
        };
        match expected {
            Ok(target) => assert_eq!(accepted(name, &bytes).path_and_query(), target, "{name}"),
            Err(status) => assert_eq!(refused(name, &bytes), status, "{name}"),
        }
    }
}

const HOSTS: &[(&str, &str, Result<&str, u16>)] = &[
    ("name", "Host: gw.test|", Ok("gw.test")),
    ("name and port", "Host: gw.test:8080|", Ok("gw.test:8080")),
    ("underscore, as in container names", "Host: my_gw:80|", Ok("my_gw:80")),
    ("IPv4", "Host: 127.0.0.1:1|", Ok("127.0.0.1:1")),
    ("IPv6", "Host: [2001:db8::1]:443|", Ok("[2001:db8::1]:443")),
    ("empty port", "Host: gw.test:|", Ok("gw.test:")),
    ("largest port", "Host: a:65535|", Ok("a:65535")),
    ("missing", "X-A: 1|", Err(400)),
    ("empty", "Host:|", Err(400)),
    ("port only", "Host: :80|", Err(400)),
    ("twice, same", "Host: gw.test|Host: gw.test|", Err(400)),
    ("twice, different", "Host: gw.test|Host: evil.test|", Err(400)),
    ("space", "Host: a b|", Err(400)),
    ("user", "Host: u@gw.test|", Err(400)),
    ("path", "Host: gw.test/x|", Err(400)),
    ("list", "Host: gw.test, evil.test|", Err(400)),
    ("list without space", "Host: gw.test,evil.test|", Err(400)),
    ("port too large", "Host: a:65536|", Err(400)),
    ("port too long", "Host: a:99999999|", Err(400)),
    ("port not digits", "Host: a:b|", Err(400)),
    ("two ports", "Host: a:1:2|", Err(400)),
    ("control", "Host: a\u{1}b|", Err(400)),
    ("folded", "Host:| evil.test|", Err(400)),
    ("IPv6 without bracket", "Host: ::1|", Err(400)),
    ("IPv6 not closed", "Host: [::1|", Err(400)),
    ("IPv6 with zone", "Host: [fe80::1%25eth0]|", Err(400)),
    ("IPv6 with a tail", "Host: [::1]x|", Err(400)),
    ("percent-encoded", "Host: gw%2etest|", Err(400)),
];

#[test]
fn host_is_there_once_and_valid() {
    for &(name, fields, expected) in HOSTS {
        let bytes = wire(&format!("GET /v1 HTTP/1.1|{fields}|"));
        match expected {
            Ok(host) => assert_eq!(accepted(name, &bytes).authority(), Some(host), "{name}"),
            Err(status) => assert_eq!(refused(name, &bytes), status, "{name}"),
        }
    }
    let other = accepted("target wins", &wire("GET http://other.test:1/v1 HTTP/1.1|Host: gw.test||"));
    assert_eq!(other.authority(), Some("other.test:1"));
    let old = accepted("1.0 needs no Host", &wire("GET /v1 HTTP/1.0||"));
    assert_eq!(old.authority(), None);
}

#[test]
fn what_the_connection_does_next_follows_version_and_options() {
    let rows: &[(&str, &str, &str, bool, bool)] = &[
        ("1.1 stays open", "HTTP/1.1", "", true, false),
        ("1.1 with close", "HTTP/1.1", "Connection: x, Close|", false, false),
        ("close beats keep-alive", "HTTP/1.1", "Connection: keep-alive|Connection: close|", false, false),
        ("1.0 closes", "HTTP/1.0", "", false, false),
        ("1.0 with keep-alive", "HTTP/1.0", "Connection: Keep-Alive|", true, false),
        ("an upgrade", "HTTP/1.1", "Connection: Upgrade|Upgrade: websocket|", true, true),
        ("an upgrade that Connection does not name", "HTTP/1.1", "Upgrade: websocket|", true, false),
        ("an upgrade without protocol", "HTTP/1.1", "Connection: upgrade|", true, false),
        ("an upgrade in 1.0", "HTTP/1.0", "Connection: upgrade|Upgrade: x|", false, false),
    ];
    for &(name, version, fields, keep_alive, upgrade) in rows {
        let head = accepted(name, &wire(&format!("GET / {version}|Host: a|{fields}|")));
        assert_eq!((head.keep_alive, head.upgrade.is_some()), (keep_alive, upgrade), "{name}");
    }
    let head = accepted("named", &post("Connection: X-Secret-Hop|X-Secret-Hop: 1|"));
    assert!(head.connection.names(b"x-secret-hop") && !head.connection.names(b"x-secret"));
    assert_eq!(
        refused("1.0 with a coding", &wire("GET / HTTP/1.0|Host: a|Transfer-Encoding: chunked||")),
        400
    );
}

#[test]
fn only_a_body_is_waited_for_with_continue() {
    let rows: &[(&str, &str, &str, bool)] = &[
        ("a length", "HTTP/1.1", "Content-Length: 4|", true),
        ("chunked", "HTTP/1.1", "Transfer-Encoding: chunked|", true),
        ("no body", "HTTP/1.1", "", false),
        ("length zero", "HTTP/1.1", "Content-Length: 0|", false),
        ("1.0 ignores it", "HTTP/1.0", "Content-Length: 4|", false),
    ];
    for &(name, version, fields, expected) in rows {
        let head = accepted(name, &wire(&format!("POST / {version}|Host: a|Expect: 100-continue|{fields}|")));
        assert_eq!(head.expect_continue, expected, "{name}");
    }
}

#[test]
fn what_is_no_http_is_refused_at_its_first_wrong_byte() {
    let tls = b"\x16\x03\x01\x00\xb0\x01\x00\x00\xac\x03\x03";
    assert_eq!(refused("TLS hello, first byte", &tls[..1]), 400);
    assert_eq!(refused("TLS hello", tls), 400);
    let binary: Vec<u8> = (0..=255).collect();
    assert_eq!(refused("binary", &binary), 400);
    assert_eq!(refused("LF only", b"GET / HTTP/1.1\nHost: a\n\n"), 400);
    assert_eq!(verdict("part of a line", b"GET / HT", &HeadLimits::DEFAULT), Ok(None));
    assert_eq!(verdict("nothing", b"", &HeadLimits::DEFAULT), Ok(None));
}

#[test]
fn empty_lines_before_a_request_are_skipped_up_to_their_bound() {
    let request = wire("GET / HTTP/1.1|Host: a||");
    for count in 0..=EMPTY_LINES_MAX {
        let bytes = [b"\r\n".repeat(count), request.clone()].concat();
        accepted("empty lines", &bytes);
        assert_eq!(verdict("empty lines", &bytes, &HeadLimits::DEFAULT), Ok(Some(bytes.len())));
    }
    assert_eq!(refused("one more", &[b"\r\n".repeat(EMPTY_LINES_MAX + 1), request].concat()), 400);
}

#[test]
fn every_bound_holds_at_its_value_and_refuses_one_past_it() {
    let limits = HeadLimits { head_bytes_max: 1000, fields_max: 3, name_bytes_max: 20, target_bytes_max: 60 };
    let run = |what: &str, bytes: &[u8]| verdict(what, bytes, &limits).map_err(|refusal| refusal.status);
    let head = |method: usize, target: usize, name: usize, fields: usize, value: usize| {
        let more = "a: b\r\n".repeat(fields - 2);
        format!(
            "{} /{} HTTP/1.1\r\nHost: a\r\n{more}{}: {}\r\n\r\n",
            "M".repeat(method),
            "t".repeat(target - 1),
            "n".repeat(name),
            "v".repeat(value)
        )
        .into_bytes()
    };
    let whole = |bytes: &[u8]| Ok(Some(bytes.len()));
    let base = head(3, 1, 1, 2, 0);
    assert_eq!(run("base", &base), whole(&base));
    let at = head(METHOD_BYTES_MAX, 60, 20, 3, 0);
    assert_eq!(run("all at their bounds", &at), whole(&at));
    assert_eq!(run("method", &head(METHOD_BYTES_MAX + 1, 1, 1, 2, 0)), Err(501));
    assert_eq!(run("target", &head(3, 61, 1, 2, 0)), Err(414));
    assert_eq!(run("name", &head(3, 1, 21, 2, 0)), Err(431));
    assert_eq!(run("fields", &head(3, 1, 1, 4, 0)), Err(431));
    let fill = 1000 - base.len();
    assert_eq!(run("head", &head(3, 1, 1, 2, fill)), Ok(Some(1000)));
    assert_eq!(run("head", &head(3, 1, 1, 2, fill + 1)), Err(431));
    assert_eq!(run("head, not ended", &head(3, 1, 1, 2, fill)[..999]), Ok(None));
    assert_eq!(run("head, never ended", &head(3, 1, 1, 2, 5000)[..1000]), Err(431));
    assert_eq!(run("target, never ended", &head(3, 600, 1, 2, 0)[..500]), Err(414));
    assert_eq!(run("method, never ended", &[b'M'; 500]), Err(501));
    let told = |bytes: &[u8]| verdict("told", bytes, &limits).map_err(|refusal| refusal.to_string());
    assert_eq!(told(&head(3, 61, 1, 2, 0)), Err("a request target of too many bytes (60 at most)".into()));
    assert_eq!(
        told(&head(3, 600, 1, 2, 0)[..500]),
        Err("a request target of too many bytes (60 at most)".into())
    );
    assert_eq!(told(&head(3, 1, 21, 2, 0)), Err("a field name of too many bytes (20 at most)".into()));
    assert_eq!(told(&head(3, 1, 1, 4, 0)), Err("too many header fields (3 at most)".into()));
    assert_eq!(
        told(&head(3, 1, 1, 2, fill + 1)),
        Err("a request head of too many bytes (1000 at most)".into())
    );
}

#[test]
fn the_path_of_a_refused_head_is_read_as_far_as_it_came() {
    let rows: &[(&[u8], &str)] = &[
        (b"POST /v1/messages?beta=1 HTTP/1.1\r\nHost", "/v1/messages"),
        (b"POST /v1/messages HTTP/1.1\n\n", "/v1/messages"),
        (b"\r\nPOST /v1/messages HTTP/3.0\r\n", "/v1/messages"),
        (b"POST http://a:1/v1/messages HTTP/1.1", "/v1/messages"),
        (b"POST /v1/mess", "/v1/mess"),
        (b"POST /v1/\x01messages HTTP/1.1", "/v1/"),
        (b"POST /v1/\xffmessages HTTP/1.1", "/v1/"),
        (b"POST\t/v1/messages HTTP/1.1", ""),
        (b"POST a HTTP/1.1", ""),
        (b"POST ", ""),
        (b"POST", ""),
        (b"\x16\x03\x01\x02\x00\x01\x00", ""),
        (b"", ""),
    ];
    for (head, path) in rows {
        assert_eq!(path_of_refused(head), *path, "{}", head.escape_ascii());
    }
}

#[test]
fn sizes_of_the_edge_kit_are_refused_by_name() {
    let rows: &[(&str, Vec<u8>, u16)] = &[
        ("a value of 64 KiB", post(&format!("X-A: {}|", "a".repeat(65536))), 431),
        ("a value of 2 MB", post(&format!("X-A: {}|", "a".repeat(2_000_000))), 431),
        ("2000 fields", post(&(0..2000).map(|k| format!("X-{k}: 1|")).collect::<String>()), 431),
        ("a name of 70,000 bytes", post(&format!("{}: a|", "X".repeat(70_000))), 431),
        ("a name of 270 bytes", post(&format!("Content-Length0{}:|", "a".repeat(255))), 431),
        ("a target of 64 KiB", line(&format!("POST /?{} HTTP/1.1", "a".repeat(65536))), 414),
        ("a target of 1 MB", line(&format!("POST /?{} HTTP/1.1", "a".repeat(1_000_000))), 414),
        ("a method of 9000 bytes", line(&format!("{} / HTTP/1.1", "A".repeat(9000))), 501),
    ];
    for (name, bytes, status) in rows {
        assert_eq!(refused(name, bytes), *status, "{name}");
    }
}

#[test]
fn limits_beyond_what_the_decoder_holds_are_capped() {
    let wide = HeadLimits {
        head_bytes_max: usize::MAX,
        fields_max: usize::MAX,
        name_bytes_max: usize::MAX,
        target_bytes_max: usize::MAX,
    };
    for bytes in [
        post(&format!("{}: a|", "X".repeat(65_536))),
        post(&"a: b|".repeat(96)),
        line(&format!("POST /{} HTTP/1.1", "a".repeat(65_536))),
        post(&format!("X: {}|", "a".repeat(2_000_000))),
    ] {
        assert!(RequestScan::new().advance(&bytes, &wide).is_err());
    }
    // At the caps the decoder takes the head.
    let bytes = line(&format!("POST /{} HTTP/1.1|{}: a", "a".repeat(32 * 1024 - 1), "X".repeat(4096)));
    let mut scan = RequestScan::new();
    assert_eq!(scan.advance(&bytes, &wide), Ok(Some(bytes.len())));
    assert!(scan.decode(&bytes).is_ok());
    let bytes = post(&"a: b|".repeat(95));
    assert_eq!(accepted("96 fields", &bytes).headers.len(), 96);
}

#[test]
fn pipelined_requests_are_told_apart_by_one_scan() {
    let first = wire("GET /1 HTTP/1.1|Host: a||");
    let second = wire("|GET /2 HTTP/1.1|Host: b||");
    let bytes = [first.clone(), second].concat();
    let mut scan = RequestScan::new();
    let len = scan.advance(&bytes, &HeadLimits::DEFAULT).expect("valid").expect("whole");
    assert_eq!(len, first.len());
    assert_eq!(scan.decode(&bytes).expect("valid").path_and_query(), "/1");
    let rest = &bytes[len..];
    assert_eq!(scan.advance(rest, &HeadLimits::DEFAULT), Ok(Some(rest.len())));
    let head = scan.decode(rest).expect("valid");
    assert_eq!((head.path_and_query(), head.authority()), ("/2", Some("b")));
    assert!(scan.decode(rest).is_err(), "nothing was scanned");
}
