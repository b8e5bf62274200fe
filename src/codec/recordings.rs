//! The byte formats against recorded provider traffic: `../shared/wire`. Where it is absent the tests say so
//! and pass.

use super::json::{self, tests::assert_same};
use super::sse::{Event, Framer};
use std::path::PathBuf;

/// Every file below `../shared/wire` whose name ends with `suffix`, with its name and bytes; none where the
/// folder is absent.
fn recordings(suffix: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/wire"));
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                let bytes = std::fs::read(&path).expect("a readable recording");
                found.push((path, bytes));
            }
        }
    }
    if found.is_empty() {
        eprintln!("skipped: no recordings in ../shared/wire");
    }
    found
}

/// The recorded bodies that were sent as event streams.
fn streams() -> Vec<(PathBuf, Vec<u8>)> {
    let mut streams = recordings(".response.body");
    streams.retain(|(path, _)| {
        let head = std::fs::read_to_string(path.with_extension("json")).unwrap_or_default();
        head.contains("text/event-stream")
    });
    streams
}

/// The events of a stream given in one piece, the unfinished one at its end included.
fn events(stream: &[u8]) -> Vec<&[u8]> {
    let mut framer = Framer::new();
    let mut rest = stream;
    let mut events = Vec::new();
    while let Some(end) = framer.end_of_event(rest) {
        events.push(&rest[..end]);
        rest = &rest[end..];
    }
    events.push(rest);
    events
}

#[test]
fn recorded_json_is_read_as_by_serde_json() {
    let mut documents = 0;
    let mut compare = |path: &PathBuf, bytes: &[u8]| {
        let Ok(tree) = serde_json::from_slice(bytes) else {
            assert!(json::check(bytes).is_err(), "{path:?}");
            return;
        };
        assert_eq!(json::check(bytes), Ok(()), "{path:?}");
        assert_same(json::root(bytes).expect("a document"), &tree, bytes);
        documents += 1;
    };
    for (path, bytes) in recordings(".json") {
        compare(&path, &bytes);
    }
    for (path, bytes) in recordings(".response.body") {
        compare(&path, &bytes);
    }
    let mut joined = Vec::new();
    for (path, stream) in streams() {
        for event in events(&stream) {
            compare(&path, Event::parse(event, &mut joined).data.bytes());
        }
    }
    eprintln!("{documents} documents");
    assert!(documents == 0 || documents > 7_000, "{documents} documents: were all of them found?");
}

#[test]
fn recorded_streams_have_as_many_events_as_an_independent_reader_found() {
    let mut compared = 0;
    for (path, stream) in streams() {
        let expected = path.to_string_lossy().replace(".response.body", ".expect.json");
        let Ok(expected) = std::fs::read(expected) else { continue };
        let expected: serde_json::Value = serde_json::from_slice(&expected).expect("JSON");
        let Some(expected) = expected["stream_events"].as_u64() else { continue };
        let mut joined = Vec::new();
        let mut count = 0;
        for raw in events(&stream) {
            let event = Event::parse(raw, &mut joined);
            if let Some(range) = event.data.range() {
                assert_eq!(&raw[range], event.data.bytes());
            }
            // The reader did not count the marker at the end.
            count += u64::from(!event.data.is_absent() && event.data.bytes() != b"[DONE]");
        }
        assert_eq!(count, expected, "{path:?}");
        compared += 1;
    }
    eprintln!("{compared} streams");
    assert!(compared == 0 || compared > 200, "{compared} streams: were all of them found?");
}

/// Cutting an event anywhere must leave its end where it is. Long events are cut at their beginning and end
/// and at some places between, as the time grows with the square of their length.
#[test]
fn recorded_streams_have_the_same_events_however_they_are_cut() {
    for (path, stream) in streams() {
        let mut start = Framer::new();
        for event in events(&stream) {
            let end = start.end_of_event(event);
            for cut in (0..event.len()).filter(|cut| *cut < 100 || event.len() - cut < 40 || cut % 97 == 0) {
                let mut framer = Framer::new();
                // The one place where a cut makes an end of its own: behind the CR of the blank line.
                let before = framer.end_of_event(&event[..cut]);
                if before.is_some() {
                    assert!(cut + 1 == event.len() && event.ends_with(b"\r\n"), "{path:?} cut at {cut}");
                    assert_eq!((before, framer.end_of_event(&event[cut..])), (Some(cut), Some(1)));
                    continue;
                }
                assert_eq!(
                    framer.end_of_event(&event[cut..]).map(|behind| cut + behind),
                    end,
                    "{path:?} at {cut}"
                );
            }
        }
        let mut framer = Framer::new();
        let ends = stream.iter().filter(|byte| framer.end_of_event(&[**byte]).is_some()).count();
        let tails = stream.windows(3).filter(|window| *window == b"\n\r\n").count();
        assert_eq!(ends, events(&stream).len() - 1 + tails, "{path:?} byte by byte");
    }
}
