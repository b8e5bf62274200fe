//! JSON: no input panics, our check accepts what serde_json accepts, the walker reads the tree that
//! serde_json reads, and the fields found in the pass of the check are the fields found by walking.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value as Tree;
use tollgate::codec::json::{self, Defect, Kind, Value};

const NAMES: [&str; 3] = ["model", "a", ""];

fuzz_target!(|document: &[u8]| {
    let checked = json::check(document);
    let fields = json::check_fields(document, NAMES);
    let walked = json::root(document).and_then(|value| json::fields(value, NAMES));
    match serde_json::from_slice::<Tree>(document) {
        Ok(expected) => {
            assert_eq!(checked, Ok(()));
            let value = json::root(document).expect("accepted documents have a root");
            assert_eq!(tree(value, document), Ok(expected.clone()));
            match expected {
                Tree::Object(_) => assert_eq!(fields, walked),
                _ => assert!(fields.is_err() && walked.is_err()),
            }
        }
        // Numbers beyond a float and more than 127 brackets are refused there only.
        Err(error) if is_out_of_range(&error.to_string()) => {}
        Err(_) => {
            let defect = checked.expect_err("serde_json refuses it");
            assert!(defect.offset.is_some_and(|offset| offset <= document.len()));
            assert!(fields.is_err());
            if let Ok(value) = json::root(document) {
                let _ = tree(value, document);
            }
        }
    }
});

fn is_out_of_range(error: &str) -> bool {
    error.starts_with("number out of range") || error.starts_with("recursion limit exceeded")
}

/// The tree that the walker sees.
fn tree(value: Value<'_>, document: &[u8]) -> Result<Tree, Defect> {
    assert_eq!(&document[value.range()], value.raw);
    Ok(match value.kind {
        Kind::Object => {
            let member = |member: Result<json::Member<'_>, Defect>| {
                let member = member?;
                Ok((text(member.key.raw)?, tree(member.value, document)?))
            };
            Tree::Object(value.members().map(member).collect::<Result<_, Defect>>()?)
        }
        Kind::Array => {
            let elements = value.elements().map(|element| tree(element?, document));
            Tree::Array(elements.collect::<Result<_, Defect>>()?)
        }
        Kind::String => Tree::String(text(value.str_raw().expect("a string has an inside"))?),
        // What the walker passed over unchecked may be no number.
        Kind::Number => serde_json::from_slice(value.raw).unwrap_or(Tree::Null),
        Kind::True => Tree::Bool(true),
        Kind::False => Tree::Bool(false),
        Kind::Null => Tree::Null,
    })
}

fn text(raw: &[u8]) -> Result<String, Defect> {
    let mut out = Vec::new();
    json::unescape(raw, &mut out)?;
    assert_eq!(*json::unescaped(raw), *out);
    let mut again = Vec::new();
    json::write_string(&out, &mut again);
    let text = String::from_utf8_lossy(&out).into_owned();
    assert_eq!(serde_json::from_slice::<String>(&again).ok(), Some(text.clone()));
    Ok(text)
}
