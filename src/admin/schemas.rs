//! What requests and answers look like, for the description of the API.

use headworks_actors::Policy;
use serde_json::{Map, Value, json};

use super::listing::STATUSES;

/// The words of [`Order`](super::Order).
pub(super) const ORDERS: [&str; 9] =
    ["resume", "stop", "pause", "restart", "passivate", "flush", "drain", "mute", "unmute"];

/// The words of [`TenantSort`](super::TenantSort).
pub(super) const SORTS: [&str; 12] = [
    "name",
    "status",
    "events",
    "dead_letters",
    "received",
    "accepted",
    "stored",
    "in_flight",
    "in_flight_bytes",
    "batches_waiting",
    "attempts_failed",
    "restarts",
];

pub(super) fn tenant_id() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" })
}

/// An object that has at least these fields.
fn object(fields: &[(&str, Value)]) -> Value {
    let properties: Map<_, _> = fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let required: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// An object that has these fields and no others; the first `required` of them always.
fn request(required: usize, fields: &[(&str, Value)]) -> Value {
    let mut schema = object(fields);
    schema["required"] = fields[..required].iter().map(|(name, _)| *name).collect();
    schema["additionalProperties"] = false.into();
    schema
}

fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"].clone(), "null"]);
    schema
}

pub(super) fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let flag = || json!({ "type": "boolean" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let numbers = |names: &[&'static str]| names.iter().map(|name| (*name, number())).collect::<Vec<_>>();
    let list = |items: Value| json!({ "type": "array", "items": items });
    let named = |schema: &str| json!({ "$ref": format!("#/components/schemas/{schema}") });
    let cause = || object(&[("code", text()), ("detail", text())]);
    let not_erased = || object(&[("store", text()), ("why", text()), ("is_tried_again", flag())]);
    let millis = || json!({ "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX });
    let words = headworks_actors::Code::ALL.iter().map(|code| Some(code.as_str()));
    let codes: Vec<_> = words.chain([None]).collect();
    let filter = request(
        0,
        &[
            ("ids", list(text())),
            ("tenant", or_null(tenant_id())),
            ("reason", json!({ "type": ["string", "null"], "enum": codes })),
            ("since", or_null(millis())),
            ("until", or_null(millis())),
            ("replayed", or_null(flag())),
            ("limit", or_null(json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }))),
        ],
    );
    let stored = [
        ("tenant", or_null(tenant_id())),
        ("events", number()),
        ("batches", number()),
        ("dead_letters", number()),
        ("first_arrived", or_null(time())),
        ("last_arrived", or_null(time())),
    ];
    let counted = numbers(&[
        "received",
        "accepted",
        "duplicate",
        "muted",
        "throttled",
        "rejected",
        "malformed",
        "stored",
        "dead_lettered",
        "shed",
        "discarded",
        "spilled",
        "batches",
        "attempts_failed",
        "restarts",
        "in_flight",
        "window",
        "batches_waiting",
        "in_flight_bytes",
        "in_journal",
        "in_journal_bytes",
        "uncompensated",
    ]);
    let live = [
        vec![
            ("tenant", tenant_id()),
            ("status", json!({ "type": "string", "enum": STATUSES })),
            ("is_muted", flag()),
            ("flushes", json!({ "type": "object", "additionalProperties": number() })),
        ],
        counted,
    ]
    .concat();
    let letter = [
        ("id", text()),
        ("kind", json!({ "type": "string", "enum": ["frame", "event"] })),
        ("tenant", or_null(tenant_id())),
        ("source", or_null(text())),
        ("reason", text()),
        ("detail", text()),
        ("attempts", number()),
        ("first_at", time()),
        ("last_at", time()),
        ("batch", or_null(text())),
        ("original_bytes", number()),
        ("replayed_at", or_null(time())),
    ];
    let failure = [
        vec![
            ("tenant", or_null(text())),
            ("code", text()),
            ("first_at", time()),
            ("last_at", time()),
            ("sample", text()),
        ],
        numbers(&["failures", "events", "recent", "last_minute", "last_5_minutes", "last_hour"]),
    ]
    .concat();
    let check = object(&[("name", text()), ("ok", flag()), ("why", or_null(text()))]);
    let change = object(&[("key", text()), ("from", text()), ("to", text())]);
    json!({
        "Problem": object(&[("type", text()), ("title", text()), ("status", number()), ("detail", text())]),
        "OpenApi": object(&[("openapi", text()), ("info", json!({ "type": "object" })), ("paths", json!({ "type": "object" }))]),
        "Hello": object(&[("name", text()), ("version", text()), ("process", number())]),
        "Alive": object(&[("status", json!({ "const": "alive" }))]),
        "Ready": object(&[("ready", flag()), ("checks", list(check))]),
        "Config": object(&[("config", json!({ "type": "object" }))]),
        "Overview": object(&[("at", number()), ("version", text()), ("process", number()), ("opening", text()), ("tenants", json!({ "type": "array" }))]),
        "Tenant": object(&[&stored[..], &[("live", json!({ "oneOf": [{ "type": "null" }, named("Live")] }))]].concat()),
        "Live": object(&live),
        "SpawnRequest": request(1, &[("tenant", tenant_id())]),
        // And a `remark`, where there was nothing to do.
        "Ordered": object(&[("tenant", tenant_id()), ("order", json!({ "type": "string", "enum": ORDERS }))]),
        "EraseRequest": request(1, &[("confirm", tenant_id())]),
        "Erased": object(&[&[("tenant", tenant_id())][..], &numbers(&["events", "messages", "dead_letters", "dropped"]), &[("let_in", flag()), ("not_erased", list(not_erased())), ("remains", list(text()))]].concat()),
        "Policy": object(&[("window", json!({ "type": "object" })), ("retry", json!({ "type": "object" }))]),
        "PolicyRequest": request(1, &[("set", settings())]),
        "PolicyChanged": object(&[("tenant", tenant_id()), ("changes", list(change))]),
        "Explanation": object(&[
            ("tenant", tenant_id()),
            ("at", time()),
            ("is_live", flag()),
            ("status", text()),
            ("since", or_null(time())),
            ("advice", list(text())),
            ("is_muted", flag()),
            ("counters", json!({ "type": "object", "additionalProperties": number() })),
            ("log", list(named("LogEntry"))),
            ("uncompensated", list(named("Uncompensated"))),
        ]),
        "LogEntry": object(&[("at", time()), ("actor", text()), ("what", text()), ("opening", text())]),
        "FailureReport": object(&[("since", time()), ("at", time()), ("entries", list(object(&failure)))]),
        "Uncompensated": object(&[
            ("tenant", tenant_id()),
            ("batch", text()),
            ("store", text()),
            ("what", text()),
            ("since", time()),
            ("tries", number()),
            ("next_at", or_null(time())),
            ("cause", cause()),
        ]),
        "Tapped": json!({ "type": "object", "properties": {
            "tenant": tenant_id(),
            "seq": number(),
            "place": number(),
            "arrived": time(),
            "time": time(),
            "skipped": number(),
            "payload": {},
            "payload_text": text(),
            "payload_hex": text(),
            "withheld": text(),
            "missed": number(),
        } }),
        "Letter": object(&letter),
        "LetterFilter": filter,
        "ReplayRequest": request(0, &[
            ("which", named("LetterFilter")),
            ("rate", or_null(json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }))),
            ("dry_run", flag()),
        ]),
        "ReplayReport": object(&numbers(&["replayed"])),
        "PruneRequest": request(0, &[("dry_run", flag())]),
        "Pruned": object(&[("events", list(json!({ "type": "object" }))), ("dead_letters", number()), ("held_back", list(text()))]),
        "PurgeRequest": request(0, &[("which", named("LetterFilter")), ("dry_run", flag())]),
        "Purged": object(&numbers(&["letters"])),
        "ExportRequest": request(0, &[
            ("which", named("LetterFilter")),
            ("as", json!({ "type": "string", "enum": ["ndjson", "raw"] })),
        ]),
        "Audit": object(&[("holds", flag()), ("differences", list(json!({ "type": "object" })))]),
        "JournalSummary": object(&[
            ("segments", list(json!({ "type": "object" }))),
            ("disk_bytes", number()),
            ("live_bytes", number()),
            ("failing", or_null(text())),
            ("tenants", list(json!({ "type": "object" }))),
        ]),
        "Verdict": object(&[("is_whole", flag()), ("blocks", number()), ("torn_bytes", number()), ("damage", list(text()))]),
    })
}

/// The rules that can be changed, by key; what their values may be says a configuration.
fn settings() -> Value {
    fn flatten(prefix: &str, value: &Value, found: &mut Map<String, Value>) {
        match value {
            Value::Object(table) => table.iter().for_each(|(key, value)| {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, found);
            }),
            value => {
                let now = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let schema = json!({ "type": "string", "default": now });
                found.insert(prefix.to_owned(), schema);
            }
        }
    }
    let mut keys = Map::new();
    // Rules are plain data: numbers, words and tables of them.
    flatten("", &serde_json::to_value(Policy::default()).unwrap_or_default(), &mut keys);
    json!({ "type": "object", "properties": keys, "additionalProperties": false })
}
