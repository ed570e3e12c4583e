//! The configuration as a JSON Schema, for editors and checks elsewhere.

use serde_json::{Map, Value, json};

use super::Config;
use super::keys::{KEYS, Kind, NAMED, word};
use crate::units::bytes::display as size;

/// The JSON Schema (draft 2020-12) of the configuration file: every key with its type, its bounds, its default and what it is for.
/// What must fit together, such as one key that must be above another, is beyond it: `headworks check` knows.
#[must_use]
pub fn schema() -> Value {
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut root = table("");
    for (path, keys) in KEYS {
        let mut at = &mut root;
        for level in path.split('.') {
            let said = at.get_mut("properties").and_then(Value::as_object_mut);
            let Some(said) = said else { return root };
            at = said.entry(level).or_insert_with(|| table(""));
        }
        let Some(said) = at.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        for (key, kind) in *keys {
            let default = defaults.pointer(&format!("/{}/{key}", path.replace('.', "/")));
            said.insert((*key).to_owned(), value(*kind, word(path, key), default));
        }
    }
    for (of, name) in NAMED {
        let one = root.pointer(&format!("/properties/{of}/properties/{name}")).cloned().unwrap_or_default();
        root["properties"][of] = any(one);
    }
    let tenants = &mut root["properties"]["tenants"]["properties"];
    let mut policy = tenants["defaults"].clone();
    forget_defaults(&mut policy);
    let with = |more: Value| {
        let mut policy = policy.clone();
        if let (Some(said), Value::Object(more)) = (policy["properties"].as_object_mut(), more) {
            said.extend(more);
        }
        policy
    };
    let class =
        json!({"type": "string", "description": "The class of tenants that it goes by: [tenants.classes.NAME]."});
    let pattern = json!({
        "type": "string", "pattern": "^[A-Za-z0-9._*?-]{1,64}$",
        "description": "The tenants that it is for: an id with * for any run of characters and ? for one.",
    });
    tenants["classes"] = any(with(json!({})));
    tenants["by_id"] = any(with(json!({"class": class})));
    let mut rule = with(json!({"class": class, "match": pattern}));
    rule["required"] = json!(["match"]);
    tenants["rules"] = json!({"type": "array", "items": rule});
    tenants["stores_by_id"] = any(value(Kind::Stores, "The stores of tenants that have others.", None));
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "Configuration of headworks".into();
    root
}

fn table(description: &str) -> Value {
    let mut table = json!({"type": "object", "properties": {}, "additionalProperties": false});
    if !description.is_empty() {
        table["description"] = description.into();
    }
    table
}

/// A table whose keys are names.
fn any(one: Value) -> Value {
    json!({"type": "object", "additionalProperties": one})
}

fn forget_defaults(value: &mut Value) {
    if let Value::Object(table) = value {
        // A key of that name would be a table; this one is a value.
        if table.get("default").is_some_and(|default| !default.is_object()) {
            table.remove("default");
        }
        table.values_mut().for_each(forget_defaults);
    }
}

fn value(kind: Kind, description: &str, default: Option<&Value>) -> Value {
    const TIME: &str = "^\\s*([0-9]+\\s*(ns|nsec|us|µs|usec|ms|msec|millis|s|sec|secs|second|seconds|m|min|mins|minute|minutes|h|hr|hrs|hour|hours|d|day|days)\\s*)+$";
    const SIZE: &str = "^\\s*[0-9]+(\\.[0-9]+)?\\s*([kKmMgGtTpP]([iI]?[bB])?|[bB])?\\s*$";
    const TENANT: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
    let mut schema = match kind {
        Kind::Text | Kind::Path | Kind::Address => json!({"type": "string"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Size(least, most) => json!({
            "anyOf": [{"type": "integer", "minimum": least, "maximum": most}, {"type": "string", "pattern": SIZE}],
        }),
        Kind::Time(_, _, Some("never")) => {
            json!({"anyOf": [{"const": "never"}, {"type": "string", "pattern": TIME}]})
        }
        Kind::Time(..) => json!({"type": "string", "pattern": TIME}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Tenant => json!({"type": "string", "pattern": TENANT}),
        Kind::Tenants => json!({"type": "array", "items": {"type": "string", "pattern": TENANT}}),
        Kind::Fields => {
            json!({"type": "array", "items": {"type": "string", "pattern": "^[^.]+([.][^.]+)*$"}, "maxItems": 100})
        }
        Kind::Stores => json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": true}),
    };
    if let Value::Object(schema) = &mut schema {
        let more = [("description", Some(Value::from(description))), ("default", default.cloned())];
        schema
            .extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<Map<_, _>>());
    }
    schema
}

/// The range of a key, in words.
pub(super) fn range(kind: Kind) -> String {
    let told = |bytes: u64| usize::try_from(bytes).map_or_else(|_| format!("{bytes}B"), size);
    match kind {
        Kind::Text
        | Kind::Path
        | Kind::Address
        | Kind::Bool
        | Kind::Tenant
        | Kind::Tenants
        | Kind::Stores
        | Kind::Fields => String::new(),
        Kind::Whole(least, most) if most == u64::from(u32::MAX) => format!("from {least}"),
        Kind::Whole(least, most) => format!("{least} to {most}"),
        Kind::Size(least, most) => format!("{} to {}", told(least), told(most)),
        Kind::Time(least, most, or) => {
            let or = or.map_or_else(String::new, |or| format!(", or `\"{or}\"`"));
            format!("{least} to {most}{or}")
        }
        Kind::Choice(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
    }
}

/// What a key is, in words.
pub(super) fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Choice(_) => "string",
        Kind::Path => "path",
        Kind::Address => "address:port",
        Kind::Bool => "true or false",
        Kind::Whole(..) => "whole number",
        Kind::Size(..) => "size",
        Kind::Time(..) => "duration",
        Kind::Tenant => "tenant id",
        Kind::Tenants => "list of tenant ids",
        Kind::Stores => "list of stores",
        Kind::Fields => "list of fields",
    }
}
