use std::borrow::Cow;
use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{Decoder, Json};
use crate::model::{Code, UnixMillis};

fn code(frame: impl AsRef<[u8]>) -> Code {
    Json::new().decode(frame.as_ref()).unwrap_err().code
}

fn detail(frame: &str) -> String {
    Json::new().decode(frame.as_bytes()).unwrap_err().to_string()
}

fn time(value: &str) -> Option<UnixMillis> {
    let frame = format!(r#"{{"ts":{value},"tenant":"a"}}"#);
    Json::new().time_field("ts").decode(frame.as_bytes()).unwrap().time
}

#[test]
fn an_object_with_a_tenant_is_an_event_and_its_body_is_the_frame_as_it_came() {
    let frame = " {\"a\": [1, {\"tenant\": 7}], \"tenant\" : \"t042\" }\r".as_bytes();
    let json = Json::new();
    let event = json.decode(frame).unwrap();
    assert!(matches!(event.tenant, Cow::Borrowed("t042")));
    assert!(matches!(event.body, Cow::Borrowed(body) if body == frame));
    assert_eq!(event.time, None);
}

#[test]
fn escapes_in_the_tenant_and_in_the_name_of_its_field_are_read() {
    assert_eq!(Json::new().decode(br#"{"ten\u0061nt":"a\u0062\n"}"#).unwrap().tenant, "ab\n");
    assert_eq!(code(r#"{"tenant":"a","ten\u0061nt":"b"}"#), Code::BadTenant);
}

#[test]
fn a_name_that_is_no_tenant_id_is_left_to_the_ingress() {
    for name in ["", "../etc", "caf\u{e9}"] {
        let frame = format!(r#"{{"tenant":"{name}"}}"#);
        assert_eq!(Json::new().decode(frame.as_bytes()).unwrap().tenant, name);
    }
}

#[test]
fn the_fields_can_be_named() {
    let json = Json::new().tenant_field("t").time_field("ts");
    let event = json.decode(br#"{"tenant":1,"ts":-5,"t":"x"}"#).unwrap();
    assert_eq!((event.tenant.as_ref(), event.time), ("x", Some(UnixMillis(-5))));
    assert_eq!(json.decode(br#"{"tenant":"x"}"#).unwrap_err().code, Code::NoTenant);
}

#[test]
fn a_time_is_a_whole_number_of_milliseconds_or_none() {
    for (value, expected) in [
        ("1732233600007", Some(1_732_233_600_007)),
        ("1732233600007.0", Some(1_732_233_600_007)),
        ("1.5e3", Some(1500)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-1e19", None),
        ("0.5", None),
        ("1e300", None),
        ("\"1732233600007\"", None),
        ("null", None),
        ("[1]", None),
        ("{\"ts\":1}", None),
    ] {
        assert_eq!(time(value), expected.map(UnixMillis), "{value}");
    }
    assert_eq!(time("1,\"ts\":2"), Some(UnixMillis(2)), "the last one counts");
}

#[test]
fn every_refusal_has_its_code() {
    for (frame, expected) in [
        (&b""[..], Code::Empty),
        (b" \t\r\n", Code::Empty),
        (b"{\"tenant\":\"\xff\"}", Code::BadUtf8),
        (b"{\"tenant\":\"\xed\xa0\x80\"}", Code::BadUtf8),
        (b"nonsense", Code::BadJson),
        (b"\0", Code::BadJson),
        (b"{\"tenant\":\"a\0\"}", Code::BadJson),
        (b"{\"tenant\":\"a\"}\0", Code::BadJson),
        (b"{\"tenant\":\"a\"} x", Code::BadJson),
        (b"{\"tenant\":\"a\"}{\"tenant\":\"a\"}", Code::BadJson),
        (b"{\"tenant\":\"a\",}", Code::BadJson),
        (b"{\"tenant\":\"a\"", Code::BadJson),
        (b"{tenant:\"a\"}", Code::BadJson),
        (b"{'tenant':'a'}", Code::BadJson),
        (b"{\"tenant\":\"a\",\"n\":1e400000}", Code::BadJson),
        (b"{\"tenant\":\"a\",\"n\":01}", Code::BadJson),
        (b"{\"tenant\":\"a\",\"n\":NaN}", Code::BadJson),
        (br#"{"tenant":"a","s":"\ud800"}"#, Code::BadJson),
        (br#"{"tenant":"a","s":["\udc00 "]}"#, Code::BadJson),
        (br#"{"tenant":7,"s":}"#, Code::BadJson),
        ("\u{feff}{\"tenant\":\"a\"}".as_bytes(), Code::BadJson),
        ("\u{a0}{\"tenant\":\"a\"}".as_bytes(), Code::BadJson),
        (b"[{\"tenant\":\"a\"}]", Code::BadEvent),
        (b"\"tenant\"", Code::BadEvent),
        (b" null", Code::BadEvent),
        (b"-1", Code::BadEvent),
        (b"{}", Code::NoTenant),
        (b"{\"Tenant\":\"a\",\"x\":{\"tenant\":\"a\"}}", Code::NoTenant),
        (b"{\"tenant\":null}", Code::BadTenant),
        (b"{\"tenant\":[\"a\"]}", Code::BadTenant),
        (b"{\"tenant\":\"a\",\"tenant\":\"a\"}", Code::BadTenant),
        (b"{\"tenant\":1,\"tenant\":\"a\"}", Code::BadTenant),
    ] {
        assert_eq!(code(frame), expected, "{}", String::from_utf8_lossy(frame));
    }
}

#[test]
fn a_refusal_says_what_is_wrong_and_where() {
    assert_eq!(detail(r#"{"tenant":7}"#), r#"bad_tenant: the field "tenant" is a number, not a string"#);
    assert_eq!(detail(r#"{"a":1}"#), r#"no_tenant: the object has no field "tenant" at its top level"#);
    assert_eq!(detail("[]"), "bad_event: the frame is an array, not an object");
    assert_eq!(detail(r#"{"a" 1}"#), "bad_json: the frame is not JSON: expected `:` at line 1 column 6");
    let utf8 = Json::new().decode(b"{\"a\":\"\xff\"}").unwrap_err().to_string();
    assert_eq!(utf8, "bad_utf8: the frame is not UTF-8: invalid utf-8 sequence of 1 bytes from index 6");
}

#[test]
fn nesting_is_read_to_127_levels_and_refused_beyond() {
    let nested = |levels: usize| {
        let inner = levels - 1;
        format!(r#"{{"tenant":"a","x":{}{}}}"#, "[".repeat(inner), "]".repeat(inner))
    };
    assert!(Json::new().decode(nested(127).as_bytes()).is_ok());
    assert_eq!(code(nested(128)), Code::TooDeep);
    assert_eq!(code(nested(100_000)), Code::TooDeep);
    assert_eq!(code("[".repeat(1 << 20)), Code::TooDeep);
    assert_eq!(code("{\"tenant\":".repeat(100_000)), Code::TooDeep);
}

/// The top-level fields of an object in order, with those that stand twice.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The simple model: what serde_json takes for an object with one tenant, which is a string.
fn tenant_of(frame: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(frame).ok()?.as_object()?;
    let Pairs(pairs) = serde_json::from_slice(frame).ok()?;
    let mut tenants = pairs.into_iter().filter(|(name, _)| name == "tenant");
    match (tenants.next(), tenants.next()) {
        (Some((_, Value::String(tenant))), None) => Some(tenant),
        _ => None,
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![2 => Just("tenant".to_owned()), 1 => Just("ts".to_owned()), 3 => any::<String>()]
}

/// An object as text, where fields may stand twice and white space anywhere between them.
fn object() -> impl Strategy<Value = String> {
    let tenant = prop_oneof![3 => any::<String>().prop_map(Value::from), 1 => value()];
    let field = prop_oneof![
        2 => (Just("tenant".to_owned()), tenant.boxed()),
        3 => (name(), value().boxed()),
    ];
    let space = prop::sample::select(vec!["", " ", "\t", "\r\n"]);
    (prop::collection::vec(field, 0..4), space).prop_map(|(fields, space)| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{}{space}:{space}{value}", Value::from(name.as_str())))
            .collect();
        format!("{space}{{{space}{}{space}}}{space}", fields.join(","))
    })
}

fn agrees_with_the_model(frame: &[u8]) -> Result<(), TestCaseError> {
    let json = Json::new().time_field("ts");
    let event = json.decode(frame);
    prop_assert_eq!(event.as_ref().ok().map(|event| event.tenant.to_string()), tenant_of(frame), "{:?}", event);
    if let Ok(event) = event {
        prop_assert_eq!(event.body, frame);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_object_is_an_event_exactly_if_serde_json_finds_one_tenant_in_it(object in object()) {
        agrees_with_the_model(object.as_bytes())?;
    }

    #[test]
    fn a_damaged_object_is_an_event_exactly_if_serde_json_says_so(
        object in object(),
        damage in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\ \n0e-n"[..])], 0..3),
            1..4,
        ),
    ) {
        let mut frame = object.into_bytes();
        for (place, byte, how) in damage {
            let place = place.index(frame.len() + 1);
            match how {
                0 => frame.insert(place, byte),
                1 if place < frame.len() => frame[place] = byte,
                _ => frame.truncate(place.max(1)),
            }
        }
        agrees_with_the_model(&frame)?;
    }

    #[test]
    fn arbitrary_bytes_are_an_event_exactly_if_serde_json_says_so(frame in any::<Vec<u8>>()) {
        agrees_with_the_model(&frame)?;
    }
}
