//! Fields of events as columns, for the stores that have columns: a pure rule.
//!
//! `"ms=http.took:number"` is a column `ms` with the number in the field `took` of the object in the field `http` of the event.
//! Without `ms=` it bears the name of its path, and without `:number` it is text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    /// A string as it is, anything else as JSON.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// Any number, as a double.
    Number,
    Boolean,
    /// A string by RFC 3339, or a whole number of milliseconds since 1970.
    Time,
    /// Any value, as JSON.
    Json,
}

/// A column, and the field of the events that is in it. What is of another type, or not there, is null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) kind: ColumnType,
}

/// What a field says, as its column has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'b> {
    Text(Cow<'b, str>),
    Integer(i64),
    Number(f64),
    Boolean(bool),
    /// In microseconds since 1970.
    Time(i64),
    Json(&'b str),
}

/// A field that is there, and is not what its column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misfit;

/// Those that every row has.
const FIXED: [&str; 8] = ["batch", "seq", "idx", "tenant", "arrived_at", "event_time", "body", "raw"];

/// So many there may be.
const MOST: usize = 100;

impl ColumnType {
    const ALL: [(&str, Self); 6] = [
        ("text", Self::Text),
        ("integer", Self::Integer),
        ("number", Self::Number),
        ("boolean", Self::Boolean),
        ("time", Self::Time),
        ("json", Self::Json),
    ];

    /// What a value that was [found](Columns::find) is in a column of this type; none where it is `null`.
    pub(super) fn read<'b>(self, json: &'b str) -> Result<Option<Value<'b>>, Misfit> {
        if json == "null" {
            return Ok(None);
        }
        let value = match self {
            Self::Text if json.starts_with('"') => string(json).map(Value::Text),
            Self::Text => Some(Value::Text(json.into())),
            Self::Integer => json.parse().ok().map(Value::Integer),
            Self::Number => json.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Number),
            Self::Boolean => json.parse().ok().map(Value::Boolean),
            Self::Time => time(json).map(Value::Time),
            Self::Json => Some(Value::Json(json)),
        };
        value.map(Some).ok_or(Misfit)
    }
}

/// The text of a JSON string; none where it is no text: half a surrogate.
fn string(json: &str) -> Option<Cow<'_, str>> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Some(plain.into()),
        _ => serde_json::from_str::<String>(json).ok().map(Into::into),
    }
}

fn time(json: &str) -> Option<i64> {
    if json.starts_with('"') {
        let at = chrono::DateTime::parse_from_rfc3339(&string(json)?).ok()?;
        return Some(at.timestamp_micros());
    }
    json.parse::<i64>().ok()?.checked_mul(1000)
}

impl Column {
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with its key.
    fn parse(text: &str) -> Result<Self, String> {
        let (rest, kind) = text.rsplit_once(':').unwrap_or((text, "text"));
        let Some((_, kind)) = ColumnType::ALL.into_iter().find(|(word, _)| *word == kind) else {
            return Err(format!(
                "has {text:?}, but a column is text, integer, number, boolean, time or json: \"latency:number\""
            ));
        };
        let (name, path) = rest.split_once('=').unwrap_or((rest, rest));
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return Err(format!(
                "has {text:?}, but the path of a field is names with dots between them: \"card.number\""
            ));
        }
        if name.is_empty() {
            return Err(format!("has {text:?}, but a column has a name before \"=\": \"ms=http.took:number\""));
        }
        if FIXED.contains(&name) {
            return Err(format!(
                "has {text:?}, but every row has a column of that name already: leave it out, or name it, as in \
                 \"the_{name}={path}\""
            ));
        }
        Ok(Self { name: name.to_owned(), path: path.to_owned(), kind })
    }

    /// All of them.
    pub(crate) fn parse_all(columns: &[String]) -> Result<Vec<Self>, String> {
        let mut all: Vec<Self> = vec![];
        for text in columns {
            let column = Self::parse(text)?;
            if all.iter().any(|other| other.name == column.name) {
                return Err(format!("has {:?} twice", column.name));
            }
            all.push(column);
        }
        if all.len() > MOST {
            return Err(format!("has {} columns, but {MOST} at the most", all.len()));
        }
        Ok(all)
    }
}

/// All columns, and where they are found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Columns {
    pub(super) all: Vec<Column>,
    root: Node,
}

/// A field that columns have, or whose own fields do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Node {
    columns: Vec<usize>,
    fields: Vec<(String, Node)>,
}

/// What each column finds, as JSON, in their order; none where the field is not there.
pub(super) type Found<'b> = Vec<Option<&'b str>>;

impl Columns {
    pub(super) fn new(all: Vec<Column>) -> Self {
        let mut root = Node::default();
        for (nth, column) in all.iter().enumerate() {
            let node = column.path.split('.').fold(&mut root, Node::field);
            node.columns.push(nth);
        }
        Self { all, root }
    }

    /// Looks for all of them in an event, in one pass over it. Of a field that stands twice the last one counts. What is no JSON
    /// object has no fields.
    pub(super) fn find<'b>(&self, body: &'b [u8], found: &mut Found<'b>) {
        found.clear();
        found.resize(self.all.len(), None);
        if self.root.find(body, found).is_err() {
            found.fill(None);
        }
    }
}

impl Node {
    fn field<'n>(&'n mut self, name: &str) -> &'n mut Self {
        let nth = self.fields.iter().position(|(other, _)| other == name).unwrap_or_else(|| {
            self.fields.push((name.to_owned(), Self::default()));
            self.fields.len() - 1
        });
        &mut self.fields[nth].1
    }

    fn find<'b>(&self, json: &'b [u8], found: &mut Found<'b>) -> serde_json::Result<()> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        reader.deserialize_map(Object { node: self, found })?;
        reader.end()
    }

    /// What the field says. An earlier one of its name has said nothing.
    fn take<'b>(&self, json: &'b str, found: &mut Found<'b>) {
        for nth in &self.columns {
            found[*nth] = Some(json);
        }
        if !self.fields.is_empty() {
            self.fields.iter().for_each(|(_, field)| field.forget(found));
            if json.starts_with('{') {
                // It was read as a part of the whole.
                let _ = self.find(json.as_bytes(), found);
            }
        }
    }

    fn forget(&self, found: &mut Found<'_>) {
        self.columns.iter().for_each(|nth| found[*nth] = None);
        self.fields.iter().for_each(|(_, field)| field.forget(found));
    }
}

/// An object whose fields are looked at.
struct Object<'n, 'f, 'b> {
    node: &'n Node,
    found: &'f mut Found<'b>,
}

impl<'b> Visitor<'b> for Object<'_, '_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(Name(self.node))? {
            match field {
                Some(field) => field.take(map.next_value::<&RawValue>()?.get(), self.found),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The name of a field, and what is known by it. As bytes, so that half a surrogate in the name of another one is nobody's matter.
struct Name<'n>(&'n Node);

impl<'b, 'n> DeserializeSeed<'b> for Name<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: serde::Deserializer<'b>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_bytes(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().find(|(other, _)| other.as_bytes() == name).map(|(_, field)| field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(texts: &[&str]) -> Columns {
        let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
        Columns::new(Column::parse_all(&texts).unwrap())
    }

    fn found(texts: &[&str], body: &str) -> Vec<Option<String>> {
        let mut found = vec![];
        columns(texts).find(body.as_bytes(), &mut found);
        found.into_iter().map(|found| found.map(str::to_owned)).collect()
    }

    #[test]
    fn a_column_that_cannot_be_is_refused_with_the_reason() {
        for (columns, says) in [
            (&["a:float"][..], "integer, number, boolean, time or json"),
            (&[""], "names with dots"),
            (&["a..b:text"], "names with dots"),
            (&["a="], "names with dots"),
            (&["=a"], "a name before"),
            (&["tenant"], "\"the_tenant=tenant\""),
            (&["a", "a:number"], "has \"a\" twice"),
            (&["a", "a=b:number"], "has \"a\" twice"),
        ] {
            let columns: Vec<_> = columns.iter().map(ToString::to_string).collect();
            let why = Column::parse_all(&columns).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        let column = |name: &str, path: &str, kind| Column { name: name.into(), path: path.into(), kind };
        assert_eq!(Column::parse("a.b:integer"), Ok(column("a.b", "a.b", ColumnType::Integer)));
        assert_eq!(Column::parse("ms=a.b:number"), Ok(column("ms", "a.b", ColumnType::Number)));
        assert_eq!(Column::parse("who=tenant"), Ok(column("who", "tenant", ColumnType::Text)));
        let many: Vec<_> = (0..101).map(|n| format!("c{n}")).collect();
        assert!(Column::parse_all(&many).unwrap_err().contains("100 at the most"));
    }

    #[test]
    fn a_field_is_found_by_its_path_and_the_last_of_its_name_counts() {
        let all = ["a", "b.c:number", "b:json", "deep=b.d.e"];
        let some = |text: &str| Some(text.to_owned());
        let body = r#" {"x":[1e999,"\ud800"],"a":"A","b":{"c":1.5,"d":{"e":"E"}},"\ud800":0} "#;
        let expected = [some("\"A\""), some("1.5"), some(r#"{"c":1.5,"d":{"e":"E"}}"#), some("\"E\"")];
        assert_eq!(found(&all, body), expected);
        let twice = r#"{"a":1,"a":2,"b":{"c":1,"d":{"e":1}},"b":{"c":2}}"#;
        assert_eq!(found(&all, twice), [some("2"), some("2"), some("{\"c\":2}"), None]);
        assert_eq!(found(&["b.c"], r#"{"b":[{"c":1}]}"#), [None]);
        assert_eq!(found(&["é"], r#"{"\u00e9":1}"#), [some("1")]);
        for no_object in ["", "[]", "7", "no JSON", "{\"a\":1", "{\"a\":1}x", "{\"a\":1,}"] {
            assert_eq!(found(&all, no_object), [None, None, None, None], "{no_object}");
        }
    }

    #[test]
    fn what_is_not_of_the_type_of_its_column_is_a_misfit() {
        let text = |text: &str| Ok(Some(Value::Text(text.to_owned().into())));
        for (kind, json, expected) in [
            (ColumnType::Text, r#""plain""#, text("plain")),
            (ColumnType::Text, r#""a\n\u00e9""#, text("a\né")),
            (ColumnType::Text, r#""\ud800""#, Err(Misfit)),
            (ColumnType::Text, "[1, 2]", text("[1, 2]")),
            (ColumnType::Integer, "-9223372036854775808", Ok(Some(Value::Integer(i64::MIN)))),
            (ColumnType::Integer, "9223372036854775808", Err(Misfit)),
            (ColumnType::Integer, "1.0", Err(Misfit)),
            (ColumnType::Integer, "\"1\"", Err(Misfit)),
            (ColumnType::Number, "1e3", Ok(Some(Value::Number(1000.0)))),
            (ColumnType::Number, "1e999", Err(Misfit)),
            (ColumnType::Number, "true", Err(Misfit)),
            (ColumnType::Boolean, "true", Ok(Some(Value::Boolean(true)))),
            (ColumnType::Boolean, "1", Err(Misfit)),
            (ColumnType::Time, "1732233600007", Ok(Some(Value::Time(1_732_233_600_007_000)))),
            (ColumnType::Time, "\"2024-11-22T02:00:00.000007+02:00\"", Ok(Some(Value::Time(1_732_233_600_000_007)))),
            (ColumnType::Time, "\"yesterday\"", Err(Misfit)),
            (ColumnType::Time, "9223372036854775807", Err(Misfit)),
            (ColumnType::Json, "{\"a\": 1}", Ok(Some(Value::Json("{\"a\": 1}")))),
            (ColumnType::Json, "null", Ok(None)),
        ] {
            assert_eq!(kind.read(json), expected, "{kind:?} {json}");
        }
    }

    /// Sound JSON of any shape, with the names that are looked for.
    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[ -~é\u{1}\"\\\\]{0,20}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::Array),
                prop::collection::hash_map("[abx]", inner, 0..4)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_reader_of_the_whole_event_finds(event in value()) {
            let all = columns(&["a:json", "b:json", "a.b:json", "b.a.b:json"]);
            let body = serde_json::to_vec(&event).unwrap();
            let mut found = vec![];
            all.find(&body, &mut found);
            for (column, found) in all.all.iter().zip(found) {
                let expected = column.path.split('.').try_fold(&event, |value, name| value.as_object()?.get(name));
                let found = found.map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap());
                prop_assert_eq!(found.as_ref(), expected, "{}", column.path);
            }
        }
    }
}
