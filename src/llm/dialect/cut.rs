//! Ending an answer that is there already: its reasons are replaced, its tool calls taken out.
//!
//! Input: a document as the provider sent it. Output: patches of it, so that everything else stays. Used
//! where a stage ends a whole answer, or a stream in the very event that tells the provider's reason.

use crate::codec::json::{Kind, Value};
use crate::codec::patch::Patches;
use std::ops::Range;

/// Gives `object` the member `name` with `value`, which is JSON, in place of the one that is there.
pub(super) fn set(object: Value<'_>, name: &str, value: &[u8], out: &mut Patches) {
    if object.kind != Kind::Object {
        return;
    }
    let (mut is_there, mut is_empty) = (false, true);
    for member in object.members().map_while(Result::ok) {
        is_empty = false;
        if member.key.is(name) {
            is_there = true;
            put(member.value.range(), value, out);
        }
    }
    if !is_there {
        let comma: &[u8] = if is_empty { b"" } else { b"," };
        let end = object.range().end - 1;
        put(end..end, &[comma, b"\"", name.as_bytes(), b"\":", value].concat(), out);
    }
}

/// Takes the members of those names out of `object`.
pub(super) fn cut_members(object: Value<'_>, names: &[&str], out: &mut Patches) {
    let members = object.members().map_while(Result::ok);
    cut(
        members.map(|member| {
            let goes = names.iter().any(|name| member.key.is(name));
            (member.key.start - 1..member.value.range().end, goes)
        }),
        out,
    );
}

/// Takes the elements that `goes` is true of out of `array`.
pub(super) fn cut_elements(array: Value<'_>, goes: impl Fn(Value<'_>) -> bool, out: &mut Patches) {
    let elements = array.elements().map_while(Result::ok);
    cut(elements.map(|element| (element.range(), goes(element))), out);
}

/// `{"type":"TYPE"}`, where an object says so; empty else.
pub(super) fn type_of(value: Value<'_>) -> &[u8] {
    value.get("type").and_then(|kind| kind.str_raw()).unwrap_or_default()
}

/// Neighbours with commas between them: each that goes takes the comma before it along, or the one behind it
/// where none before it stays.
fn cut(neighbours: impl Iterator<Item = (Range<usize>, bool)>, out: &mut Patches) {
    let mut kept_until = None;
    let mut leading: Option<Range<usize>> = None;
    for (range, goes) in neighbours {
        match (goes, kept_until) {
            (true, Some(until)) => {
                put(until..range.end, b"", out);
                kept_until = Some(range.end);
            }
            (true, None) => leading = Some(leading.map_or(range.start, |first| first.start)..range.end),
            (false, _) => {
                if let Some(first) = leading.take() {
                    put(first.start..range.start, b"", out);
                }
                kept_until = Some(range.end);
            }
        }
    }
    if let Some(all) = leading {
        put(all, b"", out);
    }
}

/// A place that a stage patched by hand has been heard already.
fn put(range: Range<usize>, by: &[u8], out: &mut Patches) {
    let _ = out.replace(range, by);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json;

    fn applied(text: &str, edit: impl FnOnce(Value<'_>, &mut Patches)) -> String {
        let (mut patches, mut out) = (Patches::new(), Vec::new());
        edit(json::root(text.as_bytes()).expect("JSON"), &mut patches);
        patches.apply(text.as_bytes(), &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_member_is_replaced_or_added() {
        for (before, after) in [
            (r#"{"a":1,"b" : "x"}"#, r#"{"a":1,"b" : null}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            ("{}", r#"{"b":null}"#),
            (r#"{"b":1,"b":2}"#, r#"{"b":null,"b":null}"#),
            ("[]", "[]"),
        ] {
            assert_eq!(applied(before, |doc, out| set(doc, "b", b"null", out)), after);
        }
    }

    #[test]
    fn whatever_goes_the_commas_stay_right() {
        for count in 0..5_u32 {
            for which in 0..1_u32 << count {
                let list = |numbers: &mut dyn Iterator<Item = u32>| {
                    format!("[{}]", numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(","))
                };
                let goes = |number: u32| which >> number & 1 == 1;
                let after = applied(&list(&mut (0..count)), |doc, out| {
                    cut_elements(doc, |value| value.as_u64().is_some_and(|number| goes(number as u32)), out);
                });
                assert_eq!(after, list(&mut (0..count).filter(|number| !goes(*number))));
            }
        }
        let after = applied(r#"{ "a": 1 , "b": [2] ,"c":3 }"#, |doc, out| cut_members(doc, &["b", "c"], out));
        assert_eq!(after, r#"{ "a": 1 }"#);
    }
}
