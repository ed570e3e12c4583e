use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn redaction(fields: &[&str]) -> Redaction {
    Redaction::new(fields.iter().copied()).unwrap()
}

#[track_caller]
fn told(fields: &[&str], body: &str) -> String {
    match redaction(fields).payload(body.as_bytes()) {
        Payload::Json(json) => json,
        other => panic!("{body} is told as {other:?}"),
    }
}

/// The rule, by a tree of values.
fn model(value: &mut Value, ways: &[&str]) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|element| model(element, ways)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let below = format!("{name}.");
                let behind: Vec<_> = ways.iter().filter_map(|way| way.strip_prefix(&below)).collect();
                if ways.contains(&name.as_str()) {
                    *value = REDACTED.into();
                } else if !behind.is_empty() {
                    model(value, &behind);
                }
            }
        }
        _ => {}
    }
}

fn values() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec!["", "a", "\"", "\\", "{\"a\":1}", "ä\u{7f}", "]", "a,b:c"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    let name = prop::sample::select(vec!["a", "b", "a.b", "c\"", "ä", "\\", ""]);
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, of)| (name.to_owned(), of)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_told_is_the_event_without_the_redacted_fields(
        mut value in prop::collection::vec(values(), 1..4).prop_map(|values| json!({ "a": values[0], "b": values })),
        ways in prop::collection::vec(prop::sample::select(vec!["a", "b", "a.b", "b.a", "a.b.a", "b.a.b.b", "ä", "b.ä", "c\"", "b.c\".a"]), 0..4),
        is_pretty: bool,
    ) {
        let body = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let told = told(&ways, &body);
        model(&mut value, &ways);
        prop_assert_eq!(&told, &serde_json::to_string(&value).unwrap());
    }

    #[test]
    fn whatever_comes_is_told_on_one_line_or_withheld(body in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Payload::Json(json) = redaction(&["a"]).payload(&body) {
            let is_object_on_one_line = !json.contains('\n') && json.starts_with('{');
            prop_assert!(is_object_on_one_line, "{}", json);
        }
        // Without a wish nothing is kept back.
        prop_assert!(redaction(&[]).payload(&body) != Payload::Withheld);
    }
}

#[test]
fn a_secret_is_not_told_however_it_is_written() {
    for body in [
        r#"{"key":"SECRET"}"#,
        r#"{"key" : "SECRET" , "n":1}"#,
        r#"{"\u006bey":"SECRET"}"#,
        r#"{"key":1,"key":"SECRET"}"#,
        r#"{"key":{"deep":["SECRET",{"x":"SECRET"}]},"n":1}"#,
        r#"{"key":["SECRET","\"}SECRET"]}"#,
        "{\n\t\"key\":\r\n \"SECRET\"}",
        r#"{"in":[[{"x.key":"SECRET"}],{"x":[{"key":"SECRET"}]}]}"#,
    ] {
        let told = told(&["key", "in.x.key"], body);
        assert!(!told.contains("SECRET") && told.contains(REDACTED), "{told}");
        assert!(serde_json::from_str::<Value>(&told).is_ok(), "{told}");
    }
}

#[test]
fn the_rest_stays_as_it_came() {
    let body = r#"{ "z": 1.50, "a": 12345678901234567890123, "z": [ ], "t": "a b\u00e4" , "e": {} }"#;
    assert_eq!(told(&["key"], body), r#"{"z":1.50,"a":12345678901234567890123,"z":[],"t":"a b\u00e4","e":{}}"#);
    assert_eq!(told(&[], " [1, \"a\"] "), r#"[1,"a"]"#);
}

#[test]
fn where_fields_cannot_be_found_nothing_is_told() {
    for body in
        ["SECRET", "[{\"key\":\"SECRET\"}]", "\"SECRET\"", "{\"key\":\"SECRET\"", "7", "{\"\\ud800\":\"SECRET\"}"]
    {
        assert_eq!(redaction(&["key"]).payload(body.as_bytes()), Payload::Withheld, "{body}");
    }
    assert_eq!(redaction(&["key"]).payload(b"{\"key\":\"\xff\"}"), Payload::Withheld);
    assert_eq!(redaction(&[]).payload(b"no JSON"), Payload::Text("no JSON".to_owned()));
    assert_eq!(redaction(&[]).payload(b"\xff"), Payload::Bytes(vec![0xff]));
}

#[test]
fn depth_is_no_danger() {
    let body = format!("{{\"key\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(told(&["key"], &body), r#"{"key":"[redacted]"}"#);
    assert_eq!(told(&["other"], &body), body);
}

#[test]
fn a_field_that_names_nothing_is_refused() {
    for field in ["", ".", "a.", ".a", "a..b", &"a".repeat(257)] {
        let why = Redaction::new([field]).unwrap_err();
        assert!(why.contains("names no field"), "{why}");
    }
    let many = (0..101).map(|n| n.to_string());
    assert!(Redaction::new(many).unwrap_err().contains("101 fields are too many"));
    assert_eq!(redaction(&["b", "a", "b"]).fields(), ["a", "b"]);
}
