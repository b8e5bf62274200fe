//! Unit tests of the module above.

use super::*;

static KEPT: Kept = Kept {
    into: &["choices"],
    keep: &["usage", "finish"],
    texts_in_event: Texts { names: &["content"], reach: Reach::Anywhere },
    texts_in_whole: Texts { names: &["content"], reach: Reach::Opened },
    loose: &["pad", "seq"],
};

fn skeleton(document: &str, cuts: &[usize]) -> (Option<String>, u64, Option<Vec<Hole>>) {
    let mut machine = Skeleton::new(&KEPT, KEPT.texts_in_event);
    let mut from = 0;
    for cut in cuts.iter().copied().chain([document.len()]) {
        machine.feed(&document.as_bytes()[from..cut]);
        from = cut;
    }
    let kept = machine.document().map(|kept| String::from_utf8_lossy(kept).into_owned());
    (kept, machine.text_bytes(), machine.holes().map(<[Hole]>::to_vec))
}

#[test]
fn what_is_kept_does_not_depend_on_cuts() {
    let rows = [
        (r#" {"a":1,"usage":{"in": 3,"x":[{}]},"b":"\"usage\":{" }"#, r#"{"usage":{"in": 3,"x":[{}]}}"#, 0),
        (r#"{"us\u0061ge":7,"x":{"usage":8},"y":[{"usage":9}]}"#, r#"{"us\u0061ge":7}"#, 0),
        (
            r#"{"choices":[{"delta":{"content":"a\"b"},"finish":"s\\"},{"content":"c"}, 4 ]}"#,
            r#"{"choices":[{"finish":"s\\"},{},0]}"#,
            5,
        ),
        (r#"{"choices":[],"usage":null,"pad":"x}","seq":17}"#, r#"{"choices":[],"usage":null}"#, 0),
        (
            r#"{"x":[[1.5,-2e3],[]],"k":{"content" : "content","content":["content"]},"usage":true}"#,
            r#"{"usage":true}"#,
            7,
        ),
        ("[DONE]", "[DONE]", 0),
        ("{}", "{}", 0),
    ];
    for (document, expected, text_bytes) in rows {
        let whole = skeleton(document, &[]);
        assert_eq!((whole.0.as_deref(), whole.1), (Some(expected), text_bytes), "{document}");
        for first in 0..=document.len() {
            for second in first..=document.len() {
                assert_eq!(skeleton(document, &[first, second]), whole, "{document} at {first}, {second}");
            }
        }
    }
}

#[test]
fn what_breaks_off_or_is_no_json_has_no_skeleton() {
    for document in [r#"{"usage":{"a":1}"#, r#"{"usage" 1}"#, r#"{usage:1}"#, r#"{"a":1]"#, ""] {
        assert_eq!(skeleton(document, &[]).0, None, "{document}");
    }
}

#[test]
fn a_skeleton_is_bounded() {
    let usage = |len| format!(r#"{{"usage":"{}"}}"#, "x".repeat(len));
    let around = usage(0).len();
    assert!(skeleton(&usage(DOCUMENT_MAX - around), &[]).0.is_some());
    assert_eq!(skeleton(&usage(DOCUMENT_MAX - around + 1), &[]).0, None);
    let many = format!(r#"{{"choices":[{}1]}}"#, "{},".repeat(DOCUMENT_MAX));
    assert_eq!(skeleton(&many, &[]).0, None);
}

#[test]
fn holes_are_where_the_content_does_not_matter() {
    let document = r#"{"d":{"content":"ab"},"pad":"xyz","seq":12}"#;
    let holes = skeleton(document, &[]).2.expect("three places");
    let found: Vec<_> =
        holes.iter().map(|hole| (&document[hole.start as usize..hole.end as usize], hole.kind)).collect();
    assert_eq!(found, [("ab", HoleKind::Text), ("xyz", HoleKind::String), ("12", HoleKind::Digits)]);
    let texts = |n: usize| format!("{{{}}}", vec![r#""content":"""#; n].join(","));
    assert_eq!(skeleton(&texts(HOLES_MAX), &[]).2.map(|holes| holes.len()), Some(HOLES_MAX));
    assert_eq!(skeleton(&texts(HOLES_MAX + 1), &[]).2, None);
}
