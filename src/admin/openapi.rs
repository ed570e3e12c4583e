//! The description of the API: OpenAPI 3.1, made of the table of its routes.

use axum::Json;
use serde_json::{Map, Value, json};

use super::listing::{NEXT, STATUSES, TOTAL};
use super::routes::{Answer, Body, ROUTES, Route};
use super::schemas::{ORDERS, SORTS, schemas, tenant_id};
use super::tap::MOST_A_SECOND;

pub(super) async fn show() -> Json<Value> {
    Json(document())
}

/// The whole document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "headworks",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
            "description": "The admin API of a running daemon. Errors are application/problem+json (RFC 9457). Where a token is \
                            configured, every request over TCP bears it; the control socket needs none.",
        },
        // With no token configured none is needed.
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn operation(route: &Route) -> Value {
    let in_path = route.path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| {
        let schema = match name {
            "order" => json!({ "type": "string", "enum": ORDERS }),
            // Of the ids that the daemon makes; the slashes in it may be percent-encoded.
            "letter" => json!({ "type": "string", "pattern": "^[0-9a-f]{16}/[A-Za-z0-9._-]{1,64}/[0-9]{1,9}$" }),
            "file" => json!({ "type": "string", "enum": super::page::files() }),
            _ => tenant_id(),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let in_query = route.query.iter().map(|name| parameter(route, name));
    let mut operation = json!({
        "operationId": id(route),
        "summary": route.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses(route),
    });
    let content = match route.body {
        Body::None => return operation,
        Body::Json(schema) => json!({ "application/json": { "schema": reference(schema) } }),
        Body::Bytes => json!({ "application/octet-stream": { "schema": {} } }),
    };
    operation["requestBody"] = json!({ "required": true, "content": content });
    operation
}

/// `get_tenants_id_policy`, by method and path.
fn id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty() && *word != "v1");
    let index = (route.path == "/").then_some("index");
    std::iter::once(route.method).chain(index).chain(words).collect::<Vec<_>>().join("_")
}

fn parameter(route: &Route, name: &str) -> Value {
    let word = |words: &[&str]| json!({ "type": "string", "enum": words });
    let millis = json!({ "type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX });
    let schema = match name {
        "limit" if route.path.ends_with("/events") || route.path.ends_with("/tap") => {
            json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX })
        }
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }),
        "rate" => json!({ "type": "integer", "minimum": 1, "maximum": MOST_A_SECOND }),
        "last" => json!({ "type": "integer", "minimum": 0, "maximum": 100_000 }),
        "cursor" => json!({ "type": "string", "pattern": "^[0-9]{1,19}:[A-Za-z0-9._-]{0,64}$" }),
        "sort" => word(&SORTS),
        "order" => word(&["asc", "desc"]),
        "status" => word(&STATUSES),
        "muted" | "follow" | "brief" | "sentences" | "tenants" | "replayed" => json!({ "type": "boolean" }),
        "since" | "until" => millis,
        "tenant" => tenant_id(),
        "store" => json!({ "type": "string", "enum": ["store"] }),
        "reason" => {
            let codes: Vec<_> = headworks_actors::Code::ALL.iter().map(|code| code.as_str()).collect();
            word(&codes)
        }
        "as_events" | "as_export" => word(&["lines", "json"]),
        "within" => json!({ "type": "string", "pattern": "^[0-9]{1,3}(ms|s)$" }),
        _ => json!({ "type": "string" }),
    };
    let description = match name {
        "limit" => "How many at the most",
        "rate" => "How many events a second at the most; 100 where it is left out",
        "redact" => "Fields that are not told, with commas between them; with dots in between where they are deeper",
        "cursor" => "The header x-next-cursor of the page before, asked with the same sort and order",
        "status" => "One or several, with commas between them",
        "name" => "A part of the name, in whatever letter case",
        "since" => "From this time on, in milliseconds since 1970",
        "until" => "Up to this time, in milliseconds since 1970",
        "follow" => "Whether to go on with what comes",
        "sentences" => "Whether each entry has its `sentence` with it",
        "tenants" => "Whether the rows of the tenants are told; true where it is left out",
        "brief" => "Whether those are left out that say no more than that an actor is alive",
        "last" => "How many at the most, the newest",
        "what" => "The kinds, with commas between them",
        "store" => "In which store; one of those configured",
        "within" => "For how long drain and passivate may wait, at most 999s",
        _ => "",
    };
    let mut parameter = json!({ "name": name.split('_').next(), "in": "query", "required": false, "schema": schema });
    if !description.is_empty() {
        parameter["description"] = description.into();
    }
    parameter
}

fn responses(route: &Route) -> Value {
    let content = match route.answer {
        Answer::Json(schema) => json!({ "application/json": { "schema": reference(schema) } }),
        Answer::Array(schema) => {
            json!({ "application/json": { "schema": { "type": "array", "items": reference(schema) } } })
        }
        Answer::Log => json!({
            "application/jsonl": { "itemSchema": reference("LogEntry") },
            "text/event-stream": {},
        }),
        Answer::Lines(schema) => json!({ "application/jsonl": { "itemSchema": reference(schema) } }),
        Answer::Bytes => json!({ "application/octet-stream": {} }),
        Answer::Text(types) => types.iter().map(|of| ((*of).to_owned(), json!({}))).collect::<Map<_, _>>().into(),
    };
    let mut good = json!({ "description": "It is so", "content": content });
    if route.path == "/v1/tenants" && route.method == "get" {
        good["headers"] = json!({
            TOTAL: { "description": "How many match", "schema": { "type": "integer" } },
            NEXT: { "description": "The cursor of the next page, if there is one", "schema": { "type": "string" } },
        });
    }
    let mut responses = Map::new();
    responses.insert(route.status.to_string(), good.clone());
    if route.path == "/readyz" {
        responses.insert("503".to_owned(), good);
    }
    let problem = json!({ "application/problem+json": { "schema": reference("Problem") } });
    responses.insert("default".to_owned(), json!({ "description": "Why not", "content": problem }));
    responses.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                Some(to) if key == "$ref" => drop(found.insert(to.replace("#/components/schemas/", ""))),
                _ => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there_and_every_one_there_is_named() {
        let (document, mut named) = (document(), BTreeSet::new());
        references(&document, &mut named);
        let there: BTreeSet<_> = document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(named, there);
    }

    #[test]
    fn no_two_operations_have_one_id_and_each_parameter_has_a_name_of_its_own() {
        let ids: BTreeSet<_> = ROUTES.iter().map(id).collect();
        assert_eq!(ids.len(), ROUTES.len());
        for route in ROUTES {
            let described = operation(route);
            let names: BTreeSet<_> = described["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| (one["in"].to_string(), one["name"].to_string()))
                .collect();
            assert_eq!(names.len(), described["parameters"].as_array().unwrap().len(), "{}", route.path);
        }
    }

    #[test]
    fn no_route_is_made_but_by_the_table() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin");
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
        {
            let calls = std::fs::read_to_string(&file).unwrap().matches(concat!(".route", "(")).count();
            assert_eq!(calls, usize::from(file.ends_with("routes.rs")), "{}: put it into ROUTES", file.display());
        }
    }
}
