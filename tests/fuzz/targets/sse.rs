//! Server-sent events: no input panics, no way of cutting the stream changes its events, an event's data
//! stands where the range says, and an event written again reads the same.
//!
//! Input: the first byte chooses where the rest is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::codec::sse::{self, Event, Framer};

type Seen = (Option<Vec<u8>>, Vec<u8>);

fuzz_target!(|input: &[u8]| {
    let Some((&cut, stream)) = input.split_first() else { return };
    let seen = read([stream].into_iter());
    assert_eq!(read(stream.chunks(usize::from(cut) + 1)), seen);
    assert_eq!(read(stream.chunks(1)), seen);
    let mut again = Vec::new();
    for (name, data) in &seen {
        let name = name.as_deref().map(String::from_utf8_lossy);
        sse::write_event(&mut again, name.as_deref(), data);
        sse::write_comment(&mut again, data);
    }
    let expected = seen.into_iter().map(|(name, data)| {
        let name = name.map(|name| String::from_utf8_lossy(&name).into_owned().into_bytes());
        (name, data)
    });
    assert_eq!(read([&again[..]].into_iter()), expected.collect::<Vec<Seen>>());
});

/// Type and data of every event that a client would see.
fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Seen> {
    let (mut framer, mut raw, mut joined, mut seen) = (Framer::new(), Vec::new(), Vec::new(), Vec::new());
    for chunk in chunks {
        let mut rest = chunk;
        while let Some(end) = framer.end_of_event(rest) {
            let (event, behind) = rest.split_at(end);
            raw.extend_from_slice(event);
            rest = behind;
            let event = Event::parse(&raw, &mut joined);
            if let Some(range) = event.data.range() {
                assert_eq!(&raw[range], event.data.bytes());
            }
            if !event.data.is_absent() {
                seen.push((event.name.map(<[u8]>::to_vec), event.data.bytes().to_vec()));
            }
            raw.clear();
        }
        raw.extend_from_slice(rest);
        assert_eq!(framer.is_between_events(), raw.is_empty());
    }
    seen
}
