use super::*;

/// (name, data) of the events that a client would see, fed in chunks of `chunk` bytes.
fn seen(stream: &[u8], chunk: usize) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
    let (mut framer, mut raw, mut joined, mut events) = (Framer::new(), Vec::new(), Vec::new(), Vec::new());
    for mut rest in stream.chunks(chunk) {
        while let Some(end) = framer.end_of_event(rest) {
            raw.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
            let event = Event::parse(&raw, &mut joined);
            if !event.data.is_absent() {
                events.push((event.name.map(<[u8]>::to_vec), event.data.bytes().to_vec()));
            }
            raw.clear();
        }
        raw.extend_from_slice(rest);
    }
    events
}

#[test]
fn any_line_end_and_any_chunking_give_the_same_events() {
    let lines =
        "\u{feff}: hi\nevent: a\ndata: one\ndata:two\nid: 3\n\n\ndata\n\ndata: x\n\n: only a comment\n\n";
    let expected: Vec<(Option<Vec<u8>>, Vec<u8>)> =
        vec![(Some(b"a".to_vec()), b"one\ntwo".to_vec()), (None, vec![]), (None, b"x".to_vec())];
    for line_end in ["\n", "\r\n", "\r"] {
        let stream = lines.replace('\n', line_end);
        for chunk in 1..stream.len() {
            assert_eq!(seen(stream.as_bytes(), chunk), expected, "{line_end:?} in chunks of {chunk}");
        }
    }
}
