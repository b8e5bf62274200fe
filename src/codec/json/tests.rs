//! Tables of what is and is not JSON, agreement with serde_json and simd-json, and everything at every block
//! border.

use super::*;
use proptest::prelude::*;
use serde_json::Value as Tree;

/// What serde_json makes of it; none too where it refuses what we by intention accept.
enum Other {
    Accepts(Tree),
    Refuses,
    /// Numbers beyond an `f64` are JSON, and more than 127 brackets are allowed.
    OutOfItsRange,
}

fn serde(bytes: &[u8]) -> Other {
    match serde_json::from_slice(bytes) {
        Ok(tree) => Other::Accepts(tree),
        Err(error) if error.to_string().starts_with("number out of range") => Other::OutOfItsRange,
        Err(error) if error.to_string().starts_with("recursion limit exceeded") => Other::OutOfItsRange,
        Err(_) => Other::Refuses,
    }
}

/// Whether simd-json accepts: a second judge, of another make than the first.
fn simd_json_accepts(bytes: &[u8]) -> bool {
    simd_json::to_tape(&mut bytes.to_vec()).is_ok()
}

/// Fails unless our check, serde_json and simd-json agree on `bytes`, and the walker finds what serde_json
/// finds.
fn assert_agreement(bytes: &[u8]) {
    let shown = String::from_utf8_lossy(bytes);
    let checked = check(bytes);
    match serde(bytes) {
        Other::Accepts(tree) => {
            assert_eq!(checked, Ok(()), "{shown:?}");
            assert!(simd_json_accepts(bytes), "{shown:?}");
            let value = root(bytes).unwrap_or_else(|defect| panic!("{shown:?}: {defect}"));
            assert_same(value, &tree, bytes);
        }
        Other::Refuses => {
            let defect = checked.expect_err(&shown);
            assert!(defect.offset.is_some_and(|offset| offset <= bytes.len()), "{shown:?}: {defect}");
            assert!(!simd_json_accepts(bytes), "{shown:?}");
        }
        Other::OutOfItsRange => {}
    }
    walk_all(bytes);
}

/// Fails unless the walker sees in `value` what serde_json sees in it.
pub(in crate::codec) fn assert_same(value: Value<'_>, tree: &Tree, document: &[u8]) {
    assert_eq!(&document[value.range()], value.raw);
    match (value.kind, tree) {
        (Kind::Object, Tree::Object(map)) => {
            let mut seen = std::collections::HashMap::new();
            for member in value.members() {
                let member = member.expect("a member");
                assert_eq!(&document[member.key.start..][..member.key.raw.len()], member.key.raw);
                assert_eq!(member.key.escaped, member.key.raw.contains(&b'\\'));
                // Of a repeated key serde_json keeps the last.
                seen.insert(unescaped(member.key.raw).into_owned(), member.value);
            }
            assert_eq!(seen.len(), map.len());
            for (key, tree) in map {
                assert_same(seen[key.as_bytes()], tree, document);
            }
        }
        (Kind::Array, Tree::Array(list)) => {
            let elements: Vec<_> = value.elements().map(|element| element.expect("an element")).collect();
            assert_eq!(elements.len(), list.len());
            elements.iter().zip(list).for_each(|(element, tree)| assert_same(*element, tree, document));
        }
        (Kind::String, Tree::String(text)) => {
            let raw = value.str_raw().expect("a string");
            let mut plain = Vec::new();
            assert_eq!(unescape(raw, &mut plain), Ok(()));
            assert_eq!(plain, text.as_bytes());
            assert_eq!(*unescaped(raw), *text.as_bytes());
        }
        (Kind::Number, Tree::Number(_)) => {
            assert_eq!(&serde_json::from_slice::<Tree>(value.raw).expect("a number"), tree);
            // An exponent makes a float of it there and may leave it whole here.
            if let Some(number) = tree.as_u64() {
                assert_eq!(value.as_u64(), Some(number));
            }
        }
        (Kind::True, Tree::Bool(true)) | (Kind::False, Tree::Bool(false)) | (Kind::Null, Tree::Null) => {}
        (kind, tree) => panic!("{kind:?} for {tree}"),
    }
}

/// Walks into everything that can be walked into, for what must not happen: a panic, an endless loop, a range
/// outside of the document.
fn walk_all(document: &[u8]) {
    let Ok(value) = root(document) else { return };
    let mut left = vec![value];
    let mut steps = 0;
    while let Some(value) = left.pop() {
        steps += 1;
        assert!(steps <= 2 * document.len(), "no byte begins two values");
        assert_eq!(&document[value.range()], value.raw);
        left.extend(value.elements().map_while(Result::ok));
        for member in value.members().map_while(Result::ok) {
            unescaped(member.key.raw);
            left.push(member.value);
        }
        if let Some(raw) = value.str_raw() {
            assert_eq!(unescape(raw, &mut Vec::new()).is_ok(), unescape(raw, &mut Vec::new()).is_ok());
            unescaped(raw);
        }
        value.as_u64();
    }
}

/// Documents of RFC 8259, each for one reason.
const GOOD: &[(&str, &str)] = &[
    ("empty object", "{}"),
    ("empty array", "[]"),
    ("space around everything", " \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \n"),
    ("a lone string", "\"\""),
    ("a lone number", "-0"),
    ("lone words", "true"),
    ("null", "null"),
    ("false", "false"),
    ("empty key", "{\"\":0}"),
    ("repeated key", "{\"a\":1,\"a\":2}"),
    ("key that needs escapes", "{\"\\u0000\\n\\\"\":1}"),
    ("all escapes", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\""),
    ("surrogate pair", "\"\\ud83d\\uDE00\""),
    ("two surrogate pairs", "\"\\ud83d\\ude00\\ud83d\\ude00\""),
    ("escaped backslash before u", "\"\\\\ud83d\""),
    ("highest and lowest of their kind", "\"\\udbff\\udfff\\ud800\\udc00\""),
    ("no characters, but code points", "\"\\uffff\\ufffe\\ufdd0\""),
    ("delete and C1 controls", "\"\u{7f}\u{80}\u{9f}\""),
    ("line separators", "\"\u{2028}\u{2029}\""),
    ("byte-order mark inside a string", "\"\u{feff}\""),
    ("other scripts", "[\"é\",\"日本\",\"😀\"]"),
    ("numbers", "[0,-0,1,-1,10,0.5,-0.5,1e5,1E5,1e+5,1e-5,0e0,0e+1,1.25e-3,0.00]"),
    ("integer beyond 64 bits", "123456789012345678901234567890"),
    ("tiny number", "1e-400"),
    ("quotes and brackets inside strings", "[\"]\",\"}\",\"[{\\\"\",\",\",\":\"]"),
    ("nested", "[[[[{\"a\":[{}]}]]],[]]"),
];

/// What is refused, and the offset of the defect.
const BAD: &[(&str, &[u8], usize)] = &[
    ("nothing", b"", 0),
    ("only space", b" \n ", 3),
    ("byte-order mark", b"\xef\xbb\xbf{}", 0),
    ("UTF-16 mark", b"\xff\xfe{\0}\0", 0),
    ("cut after the brace", b"{", 1),
    ("cut in a key", b"{\"a", 3),
    ("cut after a key", b"{\"a\"", 4),
    ("cut after the colon", b"{\"a\":", 5),
    ("cut after a value", b"{\"a\":1", 6),
    ("cut after the comma", b"{\"a\":1,", 7),
    ("cut in a word", b"tru", 0),
    ("cut in an escape", b"\"\\", 2),
    ("cut in a unicode escape", b"\"\\u12", 1),
    ("cut in a number", b"-", 1),
    ("cut behind a point", b"1.", 2),
    ("cut in an exponent", b"1e", 2),
    ("comma at an array's end", b"[1,]", 3),
    ("comma at an object's end", b"{\"a\":1,}", 7),
    ("comma at an array's start", b"[,1]", 1),
    ("comma at an object's start", b"{,}", 1),
    ("two commas", b"[1,,2]", 3),
    ("no comma", b"[1 2]", 3),
    ("no comma between members", b"{\"a\":1 \"b\":2}", 7),
    ("colon in an array", b"[\"a\":1]", 4),
    ("no colon", b"{\"a\" 1}", 5),
    ("two colons", b"{\"a\"::1}", 5),
    ("comma for a colon", b"{\"a\",1}", 4),
    ("key without quotes", b"{a:1}", 1),
    ("key in single quotes", b"{'a':1}", 1),
    ("number as key", b"{1:1}", 1),
    ("string in single quotes", b"['a']", 1),
    ("bracket of the other kind", b"[1}", 2),
    ("brace of the other kind", b"{\"a\":1]", 6),
    ("closing bracket alone", b"]", 0),
    ("one closing bracket too many", b"[]]", 2),
    ("second document", b"{}{}", 2),
    ("second document behind a space", b"1 2", 2),
    ("comma behind the document", b"[],", 2),
    ("zero byte behind the document", b"{}\0", 2),
    ("comment", b"[1/*2*/]", 2),
    ("line comment", b"//\n1", 0),
    ("form feed as space", b"[\x0c1]", 1),
    ("no-break space as space", b"[\xc2\xa01]", 1),
    ("NaN", b"NaN", 0),
    ("infinity", b"[Infinity]", 1),
    ("minus infinity", b"-Infinity", 1),
    ("capital word", b"True", 0),
    ("word too long", b"nulls", 4),
    ("undefined", b"[undefined]", 1),
    ("plus sign", b"+1", 0),
    ("leading zero", b"[01]", 1),
    ("leading zero behind a minus", b"-01", 1),
    ("two zeros", b"00", 0),
    ("point first", b".5", 0),
    ("point behind a minus", b"-.5", 1),
    ("two points", b"1.2.3", 3),
    ("two minus signs", b"--1", 1),
    ("exponent without digits", b"1e+", 3),
    ("exponent with a point", b"1e1.5", 3),
    ("hexadecimal", b"0x1", 1),
    ("underscore", b"1_000", 1),
    ("space in a number", b"1 000", 2),
    ("number with a letter", b"[1a]", 2),
    ("full-width digit", b"\xef\xbc\x91", 0),
    ("newline in a string", b"\"a\nb\"", 2),
    ("tab in a string", b"[\"\t\"]", 2),
    ("zero byte in a string", b"\"\0\"", 1),
    ("escape in a key's control", b"{\"\x1f\":1}", 2),
    ("unknown escape", b"\"\\x41\"", 1),
    ("octal escape", b"\"\\0\"", 1),
    ("escaped quote", b"\"\\'\"", 1),
    ("escaped newline", b"\"\\\n\"", 2),
    ("capital U", b"\"\\U0041\"", 1),
    ("three hexadecimal digits", b"\"\\u123\"", 1),
    ("letter in four digits", b"\"\\u12g4\"", 1),
    ("sign in four digits", b"\"\\u+123\"", 1),
    ("first half alone", b"\"\\ud83d\"", 1),
    ("first half before text", b"\"\\ud83dx\"", 1),
    ("first half before another escape", b"\"\\ud83d\\n\"", 1),
    ("two first halves", b"\"\\ud83d\\ud83d\"", 1),
    ("second half alone", b"\"\\ude00\"", 1),
    ("halves in the wrong order", b"\"\\ude00\\ud83d\"", 1),
    ("a pair and a second half", b"\"\\ud83d\\ude00\\ude00\"", 13),
    ("backslash outside a string", b"[\\\"a\"]", 1),
    ("string without end", b"[\"abc]", 6),
    ("string whose end is escaped", b"[\"abc\\\"]", 8),
    ("lone continuation byte", b"\"\x80\"", 1),
    ("cut UTF-8", b"\"\xe6\x97\"", 1),
    ("overlong UTF-8", b"\"\xc0\xaf\"", 1),
    ("UTF-8 of a surrogate", b"\"\xed\xa0\xbd\"", 1),
    ("UTF-8 beyond the last character", b"\"\xf4\x90\x80\x80\"", 1),
    ("bytes that UTF-8 never has", b"\"\xff\"", 1),
];

#[test]
fn every_good_document_is_accepted() {
    for (name, text) in GOOD {
        assert_eq!(check(text.as_bytes()), Ok(()), "{name}");
        assert_agreement(text.as_bytes());
    }
}

#[test]
fn every_bad_document_is_refused_where_it_goes_wrong() {
    for (name, bytes, offset) in BAD {
        let defect = check(bytes).expect_err(name);
        assert_eq!(defect.offset, Some(*offset), "{name}: {defect}");
        assert_agreement(bytes);
    }
}

#[test]
fn a_good_document_cut_anywhere_is_refused_and_walked_without_harm() {
    for (name, text) in GOOD {
        let text = text.trim_end();
        let is_number = text.ends_with(|last: char| last.is_ascii_digit());
        for cut in (0..text.len()).filter(|_| !is_number) {
            assert!(check(&text.as_bytes()[..cut]).is_err(), "{name} cut at {cut}");
            walk_all(&text.as_bytes()[..cut]);
        }
    }
}

#[test]
fn a_number_beyond_a_float_is_json_and_no_integer_of_ours() {
    for text in ["1e400", "-1e400", "[1e999999999999999999999]"] {
        assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        assert!(matches!(serde(text.as_bytes()), Other::OutOfItsRange), "{text}");
    }
    assert_eq!(root(b"1e400").map(|value| value.as_u64()), Ok(None));
}

#[test]
fn depth_is_accepted_at_its_bound_and_refused_one_past_it() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}0{}", open.repeat(depth), close.repeat(depth));
        assert_eq!(check(nested(DEPTH_MAX).as_bytes()), Ok(()));
        let defect = check(nested(DEPTH_MAX + 1).as_bytes()).expect_err("one too many");
        assert_eq!(defect, Defect::at(DEPTH_MAX * open.len(), "more than 128 brackets are open"));
        for depth in [DEPTH_MAX, DEPTH_MAX + 1] {
            let text = nested(depth);
            let value = root(text.as_bytes()).expect("brackets at both ends");
            let inside =
                value.members().chain([]).next().filter(|_| open == "{\"a\":").map(|item| item.map(|_| ()));
            let inside = inside.or(value.elements().next().map(|item| item.map(|_| ())));
            assert_eq!(inside.expect("one item").is_ok(), depth == DEPTH_MAX, "{depth}");
        }
    }
    // A million brackets neither overflow a stack nor take long.
    assert!(check("[".repeat(1_000_000).as_bytes()).is_err());
    walk_all(format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000)).as_bytes());
}

#[test]
fn strings_are_read_alike_at_every_place_in_a_block() {
    let cases = [
        "",
        "\\\"",
        "\\\\",
        "\\\\\\\"",
        "\\n",
        "\\q",
        "\\u00e9",
        "\\u00g9",
        "\\ud83d\\ude00",
        "\\ud83d\\ud83d",
        "\\ud83d",
        "\\ude00",
        "\n",
        "\u{1f}",
        "é",
        "\\\\\\\\\\\\",
        "\\\\\\\\\\",
        "\",\"b\":\"",
        "\"]",
        "\\u12",
        "\\",
    ];
    for case in cases {
        for place in 0..200 {
            let before = "a".repeat(place);
            assert_agreement(format!("[\"{before}{case}\"]").as_bytes());
            assert_agreement(format!("{{\"{before}{case}tail\" :[ \"{case}\"]}}").as_bytes());
        }
    }
}

#[test]
fn long_runs_that_memchr_passes_over_are_checked_too() {
    for place in (0..1200).step_by(7) {
        let before = "a".repeat(place);
        for case in ["\n", "\\n", "\\\"", "\\u00e", "é", "\","] {
            assert_agreement(format!("[\"{before}{case}{}\"]", "b".repeat(500)).as_bytes());
        }
    }
}

#[test]
fn a_string_of_any_length_without_its_end_is_cut_off() {
    for len in 0..700 {
        for before in ["\"", "[\"", "{\"a\":\"", "{\""] {
            let text = format!("{before}{}", "a".repeat(len));
            assert!(check(text.as_bytes()).is_err(), "{text}");
            let brackets_at_both_ends = text + if before.starts_with('[') { "]" } else { "}" };
            walk_all(brackets_at_both_ends.as_bytes());
        }
    }
}

#[test]
fn runs_of_backslashes_are_counted_across_blocks() {
    for place in 0..70 {
        for count in 0..140 {
            let text = format!("[\"{}{}\"]", "a".repeat(place), "\\".repeat(count));
            assert_eq!(check(text.as_bytes()).is_ok(), count % 2 == 0, "{count} at {place}");
            let value = root(text.as_bytes()).expect("brackets at both ends");
            assert_eq!(value.elements().all(|element| element.is_ok()), count % 2 == 0, "{count} at {place}");
        }
    }
}

/// Every text of up to `len_max` pieces out of `pieces`, between `before` and `after`.
fn for_all_texts(pieces: &[&str], len_max: u32, before: &str, after: &str) {
    let base = pieces.len();
    for len in 0..=len_max {
        for number in 0..base.pow(len) {
            let mut text = String::from(before);
            let mut number = number;
            for _ in 0..len {
                text += pieces[number % base];
                number /= base;
            }
            assert_agreement((text + after).as_bytes());
        }
    }
}

#[test]
fn all_short_structures_are_judged_as_by_others() {
    for_all_texts(&["{", "}", "[", "]", "\"a\"", ",", ":", "1", " "], 5, "", "");
}

#[test]
fn all_short_numbers_are_judged_as_by_others() {
    for_all_texts(&["-", "+", "0", "1", ".", "e"], 5, "", "");
    for_all_texts(&["-", "0", "1", ".", "E+"], 4, "[", "]");
}

#[test]
fn all_short_strings_are_judged_as_by_others() {
    for_all_texts(&["\\", "\"", "u", "d83d", "de00", "n", "\u{1}", "é"], 5, "\"", "\"");
}

/// Documents of random shape and spelling.
fn documents() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-z\"\\\\/\u{8}\n\t\u{0}é日😀 ]{0,20}"
            .prop_map(|text| serde_json::to_string(&text).expect("a string")),
        "(\\\\u[0-9a-cA-C][0-9a-fA-F]{3}|\\\\[\"\\\\/bfnrt]|[a-z ]){0,12}"
            .prop_map(|text| format!("\"{text}\"")),
        "[a-z]{60,700}".prop_map(|text| format!("\"{text}\"")),
    ];
    let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?";
    let word = prop_oneof![Just("true"), Just("false"), Just("null")];
    let leaf = prop_oneof![text.clone(), number, word.prop_map(str::to_string)];
    let space = "[ \n\t\r]{0,2}";
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let element =
            (space, inner.clone(), space).prop_map(|(before, value, after)| before + &value + &after);
        let member = (space, text.clone(), space, element.clone())
            .prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{value}"));
        prop_oneof![
            prop::collection::vec(element, 1..6).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec(member, 1..6).prop_map(|list| format!("{{{}}}", list.join(","))),
            space.prop_map(|space| format!("[{space}]")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn documents_are_accepted_and_read_as_by_others(document in documents()) {
        prop_assert_eq!(check(document.as_bytes()), Ok(()));
        assert_agreement(document.as_bytes());
    }

    #[test]
    fn damaged_documents_are_judged_as_by_others(
        document in documents(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), 0..3, any::<u8>()), 1..4),
    ) {
        let mut bytes = document.into_bytes();
        for (place, kind, byte) in damages {
            let significant = b"{}[]\",:\\u0d8 e.-tn\n\x01"[usize::from(byte) % 19];
            let byte = if byte < 200 { significant } else { byte };
            let at = place.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ => bytes.truncate(at),
            }
        }
        assert_agreement(&bytes);
    }

    #[test]
    fn any_bytes_are_judged_as_by_others(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_agreement(&bytes);
    }

    #[test]
    fn what_is_escaped_reads_back(text in "([\\PC\"\\\\\n\t\u{0}\u{1f}]|[a-z]{40}){0,8}") {
        let mut escaped = Vec::new();
        write_string(text.as_bytes(), &mut escaped);
        prop_assert_eq!(serde_json::from_slice::<String>(&escaped).expect("a string"), text.clone());
        let raw = &escaped[1..escaped.len() - 1];
        prop_assert_eq!(unescaped(raw), text.as_bytes());
    }
}

#[test]
fn members_come_in_their_order_with_their_bytes() {
    let text = " { \"a\" : [1, {\"b\":\"}\"}] ,\"c\\\"d\":\"x\\\\\" , \"e\":-1.5e3,\"f\":null}\n";
    let found: Vec<_> = root(text.as_bytes())
        .expect("an object")
        .members()
        .map(|member| member.expect("a member"))
        .map(|member| (member.key.raw, member.value.raw, member.value.start))
        .collect();
    let expected: [(&[u8], &[u8], usize); 4] = [
        (b"a", b"[1, {\"b\":\"}\"}]", 9),
        (b"c\\\"d", b"\"x\\\\\"", 32),
        (b"e", b"-1.5e3", 44),
        (b"f", b"null", 55),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_walker_passes_over_what_it_does_not_hand_out() {
    // vLLM has written NaN into log probabilities; the usage behind it counts all the same.
    let text = br#"{"logprobs":{"a":[NaN,-Infinity,01]},"usage":{"prompt_tokens":7}}"#;
    assert!(check(text).is_err());
    let tokens = root(text).expect("an object").path(&["usage", "prompt_tokens"]);
    assert_eq!(tokens.and_then(|tokens| tokens.as_u64()), Some(7));
}

#[test]
fn an_iterator_ends_behind_its_first_defect() {
    let cases: [(&[u8], usize); 7] = [
        (b"{\"a\":1,}", 1),
        (b"{\"a\":1 \"b\":2}", 1),
        (b"{\"a\":1}}", 1),
        (b"{\"a\":[1}", 0),
        (b"{\"a\":1,\"b\":}", 1),
        (b"{a:1}", 0),
        (b"{\"a\" 1}", 0),
    ];
    for (text, good) in cases {
        let found: Vec<_> = root(text).expect("braces at both ends").members().take(9).collect();
        let shown = String::from_utf8_lossy(text);
        assert_eq!(
            found.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [vec![true; good], vec![false]].concat(),
            "{shown}"
        );
    }
}

#[test]
fn members_of_an_array_and_elements_of_an_object_are_a_defect_each() {
    let found: Vec<_> = root(b"[1]").expect("an array").members().collect();
    assert_eq!(found, [Err(Defect::at(0, "this is not an object"))]);
    let found: Vec<_> = root(b" {}").expect("an object").elements().collect();
    assert_eq!(found, [Err(Defect::at(1, "this is not an array"))]);
    assert_eq!(root(b"7").expect("a number").get("a"), None);
}

#[test]
fn root_refuses_what_shows_at_the_ends() {
    for bad in ["", "  ", "{", "[}", "{]", "1 2", "\"a\" b", "tru", "x", "\"a", "\u{feff}{}"] {
        assert!(root(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert_eq!(root(b" \"a\" ").map(|value| value.range()), Ok(1..4));
}

#[test]
fn a_repeat_of_a_named_key_is_refused_in_any_spelling() {
    let what = "a key that must be unique occurs a second time";
    let repeats: [(&[u8], usize); 4] = [
        (br#"{"model":"a","x":1,"model":"b"}"#, 20),
        (br#"{"model":"a","x":1,"mod\u0065l":"b"}"#, 20),
        (br#"{"mod\u0065l":"a","x":1,"\u006d\u006F\u0064\u0065\u006c":"b"}"#, 25),
        (br#"{"model":null,"model":null}"#, 15),
    ];
    for (text, at) in repeats {
        assert_eq!(fields(root(text).expect("an object"), ["stream", "model"]), Err(Defect::at(at, what)));
        assert_eq!(check_fields(text, ["stream", "model"]), Err(Defect::at(at, what)));
        assert!(check_fields(text, ["stream"]).is_ok());
    }
}

#[test]
fn a_named_key_in_another_case_is_refused() {
    let what = "a key that is read without regard to case by some; spell it exactly";
    for key in ["Model", "MODEL", r"mod\u0045l", r"\u006dOdel"] {
        let text = format!(r#"{{"a":1,"{key}":2,"model":3}}"#);
        let refused = Err(Defect::at(8, what));
        assert_eq!(check_fields(text.as_bytes(), ["model"]), refused, "{key}");
        assert_eq!(fields(root(text.as_bytes()).expect("an object"), ["model"]), refused, "{key}");
        assert!(check_fields(text.as_bytes(), ["a", "mode"]).is_ok());
    }
}

#[test]
fn fields_of_the_outermost_object_only_are_found() {
    let text =
        br#" {"a":{"model":"x","b":[{"model":"y"}]},"mod\u0065l":"m","Models":1,"model ":2,"n":12, "o":{} } "#;
    for found in [
        fields(root(text).expect("an object"), ["n", "model", "o", "p"]),
        check_fields(text, ["n", "model", "o", "p"]),
    ] {
        let [n, model, o, p] = found.expect("no repeats");
        assert_eq!(n.and_then(|n| n.as_u64()), Some(12));
        assert_eq!(model.map(|model| (model.raw, model.kind)), Some((&b"\"m\""[..], Kind::String)));
        assert_eq!(o.map(|o| o.raw), Some(&b"{}"[..]));
        assert_eq!(p, None);
    }
    assert_eq!(check_fields(b" []", ["a"]), Err(Defect::at(1, "the document must be an object")));
    assert_eq!(check_fields(b"{}", ["a"]), Ok([None]));
}

#[test]
fn a_key_is_compared_by_its_meaning() {
    let cases: [(&str, &str, bool); 12] = [
        ("model", "model", true),
        ("Model", "model", false),
        ("mode", "model", false),
        ("models", "model", false),
        ("mod\\u0065l", "model", true),
        ("\\u006Dodel", "model", true),
        ("mod\\u0065", "model", false),
        ("mod\\u0065ls", "model", false),
        ("a\\/b\\\\", "a/b\\", true),
        ("\\ud83d\\ude00\\u00e9", "😀é", true),
        ("\\ud83d", "\u{fffd}", false),
        ("\\u0000", "", false),
    ];
    for (raw, name, expected) in cases {
        let text = format!("{{\"{raw}\":1}}");
        let member =
            root(text.as_bytes()).expect("an object").members().next().expect("one").expect("a member");
        assert_eq!(member.key.is(name), expected, "{raw} for {name}");
    }
}

#[test]
fn whole_numbers_and_nothing_else_are_u64() {
    let cases = [
        ("0", Some(0)),
        ("512", Some(512)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("99999999999999999999999", None),
        ("1e3", Some(1000)),
        ("12E+2", Some(1200)),
        ("1e19", Some(10_000_000_000_000_000_000)),
        ("1e20", None),
        ("1e99999999999999999999", None),
        ("0e99", Some(0)),
        ("1e-3", None),
        ("-1", None),
        ("-0", None),
        ("1.0", None),
        ("01", None),
        ("1e", None),
        ("1e+", None),
        ("1e+-3", None),
        ("1-2", None),
    ];
    for (text, expected) in cases {
        assert_eq!(root(text.as_bytes()).expect("a number").as_u64(), expected, "{text}");
    }
    assert_eq!(root(b"\"1\"").expect("a string").as_u64(), None);
}

#[test]
fn bad_escapes_are_refused_or_replaced() {
    let cases: [(&[u8], &str, usize); 8] = [
        (b"a\\ud83db", "a\u{fffd}b", 1),
        (b"\\ud83d\\ud83d\\ude00", "\u{fffd}\u{1f600}", 0),
        (b"\\ude00", "\u{fffd}", 0),
        (b"ok\\q", "ok\u{fffd}q", 2),
        (b"\\u12", "\u{fffd}u12", 0),
        (b"\\u+123", "\u{fffd}u+123", 0),
        (b"end\\", "end\u{fffd}", 3),
        (b"\\ud83d\\u12", "\u{fffd}\u{fffd}u12", 0),
    ];
    for (raw, replaced, at) in cases {
        assert_eq!(String::from_utf8_lossy(&unescaped(raw)), replaced);
        let defect = unescape(raw, &mut Vec::new()).expect_err(replaced);
        assert_eq!(defect.offset, Some(at), "{replaced}");
    }
    assert!(matches!(unescaped(b"plain"), std::borrow::Cow::Borrowed(b"plain")));
}

#[test]
fn escaping_writes_what_json_allows() {
    let mut out = Vec::new();
    escape(b"a\"\\\n\r\t\x00\x1f\x7f/\xff\xe6\x97", &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "a\\\"\\\\\\n\\r\\t\\u0000\\u001f\u{7f}/\u{fffd}\u{fffd}");
}

#[test]
fn a_member_near_the_end_is_found_from_there_and_nowhere_else() {
    let rows: [(&str, &str, Option<&str>); 12] = [
        ("the last", r#"{"a":[1,{"u":2}],"u":{"x":1}}"#, Some(r#"{"x":1}"#)),
        ("the first", r#"{"u":1}"#, Some("1")),
        ("others follow", r#"{"a":1,"u":{"x":[]},"b":"}","c":[{}]} "#, Some(r#"{"x":[]}"#)),
        ("space around it", "{ \"u\" : 7 , \"b\" : 1 }", Some("7")),
        ("the last of two", r#"{"u":1,"u":2}"#, Some("2")),
        ("only of an inner object", r#"{"a":{"u":1}}"#, None),
        ("of an inner object behind it", r#"{"u":1,"a":{"u":2}}"#, None),
        ("an element of an array", r#"{"a":["u"]}"#, None),
        ("a value", r#"{"a":"u"}"#, None),
        ("the end of a name with an escaped quote", r#"{"a \"u":{"x":1}}"#, None),
        ("broken behind it", r#"{"u":1,"b"}"#, None),
        ("an array", r#"["u",1]"#, None),
    ];
    for (name, document, wanted) in rows {
        let found = root(document.as_bytes()).expect(name).get_from_end(b"\"u\"");
        assert_eq!(found.map(|value| value.raw), wanted.map(str::as_bytes), "{name}");
        if let (Some(found), Some(wanted)) = (found, wanted) {
            assert_eq!(&document[found.start..found.start + wanted.len()], wanted, "{name}: where it stands");
        }
    }
}
