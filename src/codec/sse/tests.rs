//! Tables of events, every chunking, and a reader written after the standard's text to compare with.

use super::*;
use proptest::prelude::*;

/// A case's name, its stream, and the events in it by type and data.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// What a client sees of an event: its type and its data.
type Seen = (Option<Vec<u8>>, Vec<u8>);

/// What `Framer` and `Event` make of a stream that arrives in `chunks`, and the bytes of an unfinished event.
fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, Vec<u8>) {
    let (mut framer, mut raw, mut joined, mut seen) = (Framer::new(), Vec::new(), vec![b'?'], Vec::new());
    let mut unclaimed = Vec::new();
    for chunk in chunks {
        let mut rest = chunk;
        while let Some(end) = framer.end_of_event(rest) {
            assert!(end > 0, "every call that finds an end moves on");
            raw.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
            assert!(framer.is_between_events());
            let event = Event::parse(&raw, &mut joined);
            assert_eq!(event.raw, raw);
            if let Some(range) = event.data.range() {
                assert_eq!(&raw[range], event.data.bytes());
            }
            if !event.data.is_absent() {
                seen.push((event.name.map(<[u8]>::to_vec), event.data.bytes().to_vec()));
            }
            raw.clear();
        }
        raw.extend_from_slice(rest);
        unclaimed = raw.clone();
        assert_eq!(framer.is_between_events(), raw.is_empty());
    }
    (seen, unclaimed)
}

/// The standard's parsing rules, line by line over the whole text, written without a thought for speed.
fn read_by_the_standard(stream: &[u8]) -> Vec<Seen> {
    let text = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut lines = vec![Vec::new()];
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\r' | b'\n' => {
                at += usize::from(text[at..].starts_with(b"\r\n"));
                lines.push(Vec::new());
            }
            byte => lines.last_mut().expect("one line at least").push(byte),
        }
        at += 1;
    }
    // What follows the last line end is no line.
    lines.pop();
    let (mut name, mut data, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        if line.is_empty() {
            if data.pop().is_some() {
                seen.push((Some(name).filter(|name| !name.is_empty()), data));
            }
            (name, data) = (Vec::new(), Vec::new());
            continue;
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value.to_vec(),
            b"data" => data.extend([value, b"\n"].concat()),
            _ => {}
        }
    }
    seen
}

/// Fails unless every two-part cut and every chunk length give what the standard gives.
fn assert_events(stream: &[u8]) {
    let shown = String::from_utf8_lossy(stream);
    let expected = read_by_the_standard(stream);
    assert_eq!(read([stream].into_iter()).0, expected, "{shown:?}");
    for cut in 0..=stream.len() {
        let (before, after) = stream.split_at(cut);
        assert_eq!(read([before, after].into_iter()).0, expected, "{shown:?} cut at {cut}");
    }
    for len in 1..stream.len().min(9) {
        assert_eq!(read(stream.chunks(len)).0, expected, "{shown:?} in chunks of {len}");
    }
}

#[test]
fn events_are_what_the_standard_says() {
    let table: &[Case] = &[
        ("one line", "data: a\n\n", &[("", "a")]),
        ("no space behind the colon", "data:a\n\n", &[("", "a")]),
        ("only one space is cut", "data:  a \n\n", &[("", " a ")]),
        ("named", "event: ping\ndata: {}\n\n", &[("ping", "{}")]),
        ("name behind the data", "data: {}\nevent: ping\n\n", &[("ping", "{}")]),
        ("the last name counts", "event: a\nevent: b\ndata:\n\n", &[("b", "")]),
        ("an empty name is none", "event: a\nevent\ndata:\n\n", &[("", "")]),
        ("several lines", "data: a\ndata: b\ndata:\ndata: c\n\n", &[("", "a\nb\n\nc")]),
        ("a comment between the lines", "data: a\n: b\ndata: c\n\n", &[("", "a\nc")]),
        ("two empty lines of data", "data\ndata\n\n", &[("", "\n")]),
        ("data without a colon", "data\n\n", &[("", "")]),
        ("comment only", ": OPENROUTER PROCESSING\n\n", &[]),
        ("name only", "event: a\n\ndata: b\n\n", &[("", "b")]),
        ("id and retry are left alone", "id: 7\nretry: 10\ndata: a\n\n", &[("", "a")]),
        ("fields are told by their exact name", "Data: a\n data: b\ndata2: c\ndat: d\n\n", &[]),
        ("a colon inside the value", "data: a: b\n\n", &[("", "a: b")]),
        ("blank lines alone", "\n\n\n", &[]),
        ("byte-order mark", "\u{feff}data: a\n\n", &[("", "a")]),
        ("byte-order mark and a blank line", "\u{feff}\ndata: a\n\n", &[("", "a")]),
        ("not finished", "data: a\n\ndata: b\n", &[("", "a")]),
        (
            "line separators are not line ends",
            "data: a\u{2028}b\u{85}\u{b}\u{c}c\n\n",
            &[("", "a\u{2028}b\u{85}\u{b}\u{c}c")],
        ),
        ("zero bytes", "data: a\0b\n\n", &[("", "a\0b")]),
    ];
    for (case, stream, expected) in table {
        let expected: Vec<Seen> = expected
            .iter()
            .map(|(name, data)| {
                (Some(name.as_bytes().to_vec()).filter(|name| !name.is_empty()), data.as_bytes().to_vec())
            })
            .collect();
        assert_eq!(read_by_the_standard(stream.as_bytes()), expected, "{case}");
        for line_end in ["\n", "\r\n", "\r"] {
            assert_events(stream.replace('\n', line_end).as_bytes());
        }
    }
}

#[test]
fn mixed_line_ends_end_lines_alike() {
    for first in ["\n", "\r", "\r\n"] {
        for second in ["\n", "\r", "\r\n"] {
            for third in ["\n", "\r", "\r\n"] {
                assert_events(
                    format!("data: a{first}data: b{second}{third}data: c{third}{first}").as_bytes(),
                );
            }
        }
    }
}

#[test]
fn an_event_ends_with_the_cr_and_its_lf_comes_alone() {
    let mut framer = Framer::new();
    assert_eq!(framer.end_of_event(b"data: a\r\n\r"), Some(10));
    assert!(framer.is_between_events());
    assert_eq!(framer.end_of_event(b"\ndata: b\r\n"), Some(1));
    assert_eq!(framer.end_of_event(b"data: b\r\n"), None);
    assert!(!framer.is_between_events());
    assert_eq!(framer.end_of_event(b"\r\nrest"), Some(2));
    // In one chunk the LF belongs to the event.
    assert_eq!(Framer::new().end_of_event(b"data: a\r\n\r\nrest"), Some(11));
    // Without an LF behind it the CR was all.
    assert_eq!(framer.end_of_event(b"x\r\r"), Some(3));
    assert_eq!(framer.end_of_event(b"\r"), Some(1));
    assert_eq!(framer.end_of_event(b"\n"), Some(1));
    assert_eq!(framer.end_of_event(b"\n"), Some(1));
    assert_eq!(framer.end_of_event(b""), None);
}

#[test]
fn a_cut_off_event_is_read_as_far_as_it_goes() {
    let mut joined = Vec::new();
    let event = Event::parse(b"event: error\ndata: {\"a\"", &mut joined);
    assert_eq!((event.name, event.data), (Some(&b"error"[..]), Data::Line { bytes: b"{\"a\"", start: 19 }));
}

#[test]
fn what_is_written_reads_back() {
    let cases: &[(Option<&str>, &str, &str)] = &[
        (None, "[DONE]", "data: [DONE]\n\n"),
        (Some("message_stop"), "{}", "event: message_stop\ndata: {}\n\n"),
        (None, "", "data: \n\n"),
        (None, "a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (None, "a\n", "data: a\ndata: \n\n"),
        (None, "\n", "data: \ndata: \n\n"),
        (None, "\r\n\r", "data: \ndata: \ndata: \n\n"),
        (Some("a\ndata: injected\n\n"), "x", "event: a\ndata: x\n\n"),
    ];
    for (name, data, expected) in cases {
        let mut out = Vec::new();
        write_event(&mut out, *name, data.as_bytes());
        assert_eq!(String::from_utf8_lossy(&out), *expected);
        let (seen, unclaimed) = read([&out[..]].into_iter());
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].1, data.replace("\r\n", "\n").replace('\r', "\n").into_bytes());
        assert_eq!(unclaimed, b"");
    }
    let mut out = Vec::new();
    write_comment(&mut out, b"still here");
    write_comment(&mut out, b"two\nlines");
    write_comment(&mut out, b"");
    assert_eq!(String::from_utf8_lossy(&out), ": still here\n\n: two\n: lines\n\n: \n\n");
    assert_eq!(read([&out[..]].into_iter()), (vec![], vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_in_any_chunks_is_read_by_the_standard(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "data", "event", "id", ":", ": ", " ", "\n", "\r", "\r\n", "\n\n", "x", "é", "\0",
            ]),
            0..40,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let stream = pieces.concat().into_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
        prop_assert_eq!(read(chunks).0, read_by_the_standard(&stream));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        len in 1usize..20,
    ) {
        let mut framer = Framer::new();
        let mut joined = Vec::new();
        for chunk in bytes.chunks(len) {
            let mut rest = chunk;
            while let Some(end) = framer.end_of_event(rest) {
                Event::parse(&rest[..end], &mut joined);
                rest = &rest[end..];
            }
            Event::parse(rest, &mut joined);
        }
    }
}

#[test]
fn the_beginning_of_events_is_told_from_other_texts() {
    let events = ["data: {", "data:[DONE]", "event: ping", ": hi", ":", "id: 1", "retry: 9", "\r\n\ndata: x"];
    let cut = ["d", "dat", "data", "e", "i", "retr", "\u{feff}data: x"];
    for text in events.iter().chain(&cut) {
        assert!(begins_as_events(text.as_bytes()), "{text:?}");
    }
    for text in
        ["", "\n", "{\"data:\":1}", "[1]", "\"data: x\"", " {", "null", "1", "<html>", "date: x", "datum"]
    {
        assert!(!begins_as_events(text.as_bytes()), "{text:?}");
    }
}
