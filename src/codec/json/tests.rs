use super::*;

fn members(text: &str) -> Vec<(String, String)> {
    let members = root(text.as_bytes()).expect("an object").members();
    members
        .map(|member| member.expect("a member"))
        .map(|member| (member.key.raw, member.value.raw))
        .map(|(key, raw)| (String::from_utf8_lossy(key).into(), String::from_utf8_lossy(raw).into()))
        .collect()
}

#[test]
fn members_come_in_their_order_with_their_bytes() {
    let found = members(" { \"a\" : [1, {\"b\":\"}\"}] ,\"c\\\"d\":\"x\\\\\" , \"e\":-1.5e3,\"f\":null}\n");
    let expected = [("a", "[1, {\"b\":\"}\"}]"), ("c\\\"d", "\"x\\\\\""), ("e", "-1.5e3"), ("f", "null")];
    assert_eq!(found, expected.map(|(key, raw)| (key.to_string(), raw.to_string())));
}

#[test]
fn check_accepts_and_refuses() {
    let mut scratch = Scratch::default();
    for good in
        ["{}", " [] ", "1", "\"\\ud83d\\ude00\"", "123456789012345678901234567890", "{\"a\":1,\"a\":2}"]
    {
        assert_eq!(check(good.as_bytes(), &mut scratch), Ok(()), "{good}");
    }
    for bad in
        ["", " ", "{", "{}x", "[1,]", "nan", "01", "\"\\q\"", "\"\\ud83d\"", "\u{feff}{}", "\"\n\"", "[1}"]
    {
        assert!(check(bad.as_bytes(), &mut scratch).is_err(), "{bad}");
    }
}

#[test]
fn a_repeat_of_a_named_key_is_refused_in_any_spelling() {
    let object = root(br#"{"model":"a","x":1,"mod\u0065l":"b"}"#).expect("an object");
    let what = "a key that must be unique occurs a second time";
    assert_eq!(fields(object, ["stream", "model"]), Err(Defect::at(20, what)));
    let [x, y] = fields(object, ["x", "y"]).expect("both at most once");
    assert_eq!((x.and_then(|x| x.as_u64()), y), (Some(1), None));
}
