//! The configuration as one page for people.

use std::fmt::Write as _;

use super::Config;
use super::keys::{KEYS, WORDS, word};
use super::schema::{kind_word, range};

const HEAD: &str = "\
# Configuration reference

Every key, its type, its bounds, its default and what it is for. This page is what `headworks config reference` prints;
[headworks.example.toml](headworks.example.toml) has the same as a file to begin with, and `headworks config schema` as a JSON Schema
for editors.

- A **duration** is written like `\"500ms\"`, `\"1s\"`, `\"2m\"` or `\"1m 30s\"`, a **size** like `65536`, `\"64KiB\"` or `\"16MiB\"`.
- Every key can be set by an environment variable, which wins over the file: `HEADWORKS__TABLE__KEY=value`, with two underscores between
  the levels. A flag wins over both.
- **R** marks what a running daemon takes over when its file is changed, and on SIGHUP; all else needs a restart.
- The keys of `[tenants.defaults]` may stand in `[tenants.classes.NAME]`, in each of `[[tenants.rules]]`, which have `match` and may have
  `class` beside, and in `[tenants.by_id.ID]`, which may have `class` beside: each says only what differs. What a tenant says itself goes
  over the first rule that matches its id, that over its class, and that over the defaults.
  `headworks check --config FILE --tenant ID` says what a tenant gets, and where each value comes from.
";

/// All keys as a page of Markdown.
#[must_use]
pub fn reference() -> String {
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut page = HEAD.to_owned();
    for (table, keys) in KEYS {
        // Its keys are those of [store].
        if *table == "stores.NAME" {
            let _ = writeln!(page, "\n## `[stores.NAME]`\n\n{}\n\nThe keys are those of `[store]`.", words("stores"));
            continue;
        }
        let name = table.replace("sources.tcp", "sources.NAME");
        let _ = writeln!(page, "\n## `[{name}]`\n");
        let said = words(table);
        if !said.is_empty() {
            let _ = writeln!(page, "{said}\n");
        }
        let _ = writeln!(page, "| key | type | range | default | R | what it is for |\n|---|---|---|---|---|---|");
        for (key, kind) in *keys {
            let default = defaults.pointer(&format!("/{}/{key}", table.replace('.', "/")));
            let default = default.map_or_else(|| "unset".to_owned(), |value| format!("`{value}`"));
            let live = if is_live(table, key) { "R" } else { "" };
            let what = word(table, key);
            let what = if what == said { "" } else { what }.replace('|', "\\|");
            let _ =
                writeln!(page, "| `{key}` | {} | {} | {default} | {live} | {what} |", kind_word(*kind), range(*kind));
        }
    }
    page
}

fn words(table: &str) -> &str {
    WORDS.get(table).map_or("", String::as_str)
}

/// Whether a running daemon takes it over; see [`Config::reloaded`].
fn is_live(table: &str, key: &str) -> bool {
    match table {
        "daemon" => key == "drain_deadline",
        "log" => key != "format",
        "limits" => key == "max_tenants",
        "tenants" => key != "stores",
        "dead_letters" => key == "max_age",
        _ => matches!(table, "report" | "retention" | "tap") || table.starts_with("tenants.defaults"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::keys::Kind;
    use crate::config::{Layers, schema};

    #[test]
    fn docs_config_md_is_the_reference() {
        let page = include_str!("../../docs/CONFIG.md");
        assert!(page == reference(), "it is stale: `cargo run -- config reference > docs/CONFIG.md`");
    }

    #[test]
    fn what_is_marked_as_taken_over_is_and_the_rest_waits() {
        let before = Config::default();
        for (table, keys) in KEYS.iter().filter(|(table, _)| *table != "stores.NAME") {
            for (key, kind) in *keys {
                let path = format!("{table}.{key}");
                let value = match kind {
                    Kind::Whole(least, most) => (least + (most - least) / 2).max(4_000.min(*most)).to_string(),
                    // Eight files of 64 MiB must fit.
                    Kind::Size(..) if path == "journal.max_bytes" => "'2GiB'".to_owned(),
                    Kind::Size(..) => "'3MiB'".to_owned(),
                    Kind::Time(_, "1s" | "1m" | "1h", _) => "'700ms'".to_owned(),
                    Kind::Time(..) => "'7h'".to_owned(),
                    Kind::Choice([_, .., last]) => format!("'{last}'"),
                    Kind::Choice(_) => continue,
                    Kind::Bool if path == "tap.enabled" => "false".to_owned(),
                    Kind::Bool => "true".to_owned(),
                    Kind::Fields => "['card.number']".to_owned(),
                    Kind::Address => "'127.0.0.1:7999'".to_owned(),
                    Kind::Tenants => "['zen']".to_owned(),
                    Kind::Stores => "['archive', 'store']\n[stores.archive]".to_owned(),
                    Kind::Text if *key == "level" => "'debug'".to_owned(),
                    // Without the feature it is refused.
                    Kind::Text if *key == "endpoint" && !cfg!(feature = "otlp") => continue,
                    Kind::Text if *key == "endpoint" => "'http://127.0.0.1:4318'".to_owned(),
                    Kind::Text if *key == "resource_attributes" => "'team=data'".to_owned(),
                    Kind::Text | Kind::Path | Kind::Tenant => "'other'".to_owned(),
                };
                // Those of a type that cannot do without some.
                let beside = match *table {
                    "sources.tcp" => crate::config::sources::with_key(key),
                    "store" => crate::config::stores::with_key(key),
                    _ => Some(""),
                };
                let Some(beside) = beside else { continue };
                let text = match (*table, *key) {
                    ("store", "type") => "[store]\ntype = 'files'".to_owned(),
                    ("store", "sslmode" | "ca_file") => {
                        format!("[store]\n{beside}\nsslmode = 'verify_full'\nca_file = 'other'")
                    }
                    ("store", "url" | "format" | "stream") => format!("[store]\n{beside}"),
                    ("store", "path") => format!("[store]\n{beside}\npath = '{{tenant}}/{{batch}}'"),
                    ("store", "subject") => format!("[store]\n{beside}\nsubject = 'o.{{tenant}}.{{batch}}'"),
                    ("store", "rollback_url") => format!("[store]\n{beside}\nrollback_url = 'http://other'"),
                    ("store", _) => format!("[store]\n{beside}\n{key} = {value}"),
                    ("sources.tcp", "type") => "[sources.tcp]\ntype = 'demo'".to_owned(),
                    ("sources.tcp", "url") => "[sources.tcp]\ntype = 'mqtt'\nurl = 'mqtt://o'\ntopic = 't'".to_owned(),
                    ("sources.tcp", "topic" | "username") => {
                        "[sources.tcp]\ntype = 'mqtt'\nurl = 'mqtt://b'\nusername = 'o'\ntopic = 'o'".to_owned()
                    }
                    ("sources.tcp", "qos") => format!("[sources.tcp]\n{beside}\nqos = 0"),
                    ("sources.tcp", "keep_alive") => format!("[sources.tcp]\n{beside}\nkeep_alive = '7h'"),
                    ("sources.tcp", "stream") => format!("[sources.tcp]\n{beside}"),
                    ("sources.tcp", "path") => "[sources.tcp]\ntype = 'tail'\npath = '/y'".to_owned(),
                    ("sources.tcp", "tenant_from") if beside.contains("http") => {
                        format!("[sources.tcp]\n{beside}\ntenant_from = 'query'")
                    }
                    ("sources.tcp", "tenant_from") => format!("[sources.tcp]\n{beside}\ntenant_from = 'app_name'"),
                    ("sources.tcp.tls", _) if !cfg!(feature = "tls") => continue,
                    ("sources.tcp.tls", _) => {
                        let own = if key.starts_with("tenants") { format!("\n{key} = {value}") } else { String::new() };
                        let files = ["cert_file", "key_file", "client_ca_file"].map(|key| format!("\n{key} = 'other'"));
                        format!("[sources.tcp.tls]{}{own}", files.concat())
                    }
                    ("sources.tcp", _) => format!("[sources.tcp]\n{beside}\n{key} = {value}"),
                    // Below or above another key.
                    ("tenants.defaults.heartbeat", "stall_after") => format!("{table}.{key} = '8h'"),
                    ("tenants.defaults.retry", "base") => format!("{table}.{key} = '20s'"),
                    ("tenants.defaults.retry", "attempt_timeout") => format!("{table}.{key} = '20s'"),
                    ("tenants.defaults.restart", "base") => format!("{table}.{key} = '9s'"),
                    _ => format!("{table}.{key} = {value}"),
                };
                let fresh = Layers::default().toml("f", &text).read().unwrap_or_else(|why| panic!("{text}: {why}"));
                let reloaded = before.reloaded(&fresh).unwrap();
                let is_in = |changes: &[crate::config::Change]| changes.iter().any(|change| change.key == path);
                assert!(is_in(&reloaded.applied) || is_in(&reloaded.waiting), "{text} changes nothing");
                assert_eq!(is_in(&reloaded.applied), is_live(table, key), "{path}");
            }
        }
    }

    fn is_valid(validator: &jsonschema::Validator, text: &str) -> Result<(), String> {
        let document: Value = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        validator.validate(&document).map_err(|why| format!("{}: {why}", why.instance_path()))
    }

    #[test]
    fn what_is_valid_passes_the_schema_and_what_is_not_does_not() {
        let schema = schema();
        jsonschema::meta::validate(&schema).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let whole = Config::default().to_toml().unwrap();
        for valid in [include_str!("../../docs/headworks.example.toml"), whole.as_str(), ""] {
            Layers::default().toml("f", valid).read().unwrap();
            is_valid(&validator, valid).unwrap();
        }
        for wrong in [
            "[daemon]\ndat_dir = 'x'",
            "[demon]",
            "[tenants.defaults.window]\nmax_event = 1",
            "[tenants.by_id.a.window]\nmax_events = 0",
            "[tenants.by_id.a]\nmatch = 'a'",
            "[tenants.classes.a]\nclass = 'a'",
            "[[tenants.rules]]\nack = 'stored'",
            "[[tenants.rules]]\nmatch = 'a/b'",
            "[sources.x]\ntype = 'udp'",
            "[stores.x]\ntype = 'sqllite'",
            "[tenants.defaults.window]\nmax_age = 'soon'",
            "[store]\nsegment_bytes = 'much'",
            "[tenants.defaults.heartbeat]\npassivate_after = 'ever'",
            "[tenants]\nmute = 'acme'",
        ] {
            assert!(Layers::default().toml("f", wrong).read().is_err(), "{wrong}");
            assert!(is_valid(&validator, wrong).is_err(), "the schema lets pass: {wrong}");
        }
        is_valid(&validator, "[tenants.defaults.heartbeat]\npassivate_after = 'never'").unwrap();
        is_valid(&validator, "[limits]\nmax_in_flight = '64 MiB'\n[tenants.defaults.window]\nmax_age = '1m 30s'")
            .unwrap();
    }
}
