//! In what two configurations differ, key by key; and secrets kept out of what is shown.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Config;
use super::check::nth_rule;
use super::tree::dotted;

/// A key that is another in another configuration. Reads as `log.level = "debug", was "info"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key, from the top: `tenants.defaults.window.max_age`. A table that is there in one of them only is one change.
    pub key: String,
    /// As it was; none where it was not there.
    pub from: Option<Value>,
    /// As it is now; none where it is not there.
    pub to: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A list may be as long as it likes.
        const SHOWN: usize = 120;
        let told = |value: &Value| {
            let text = value.to_string();
            match text.char_indices().nth(SHOWN) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        };
        let key = &self.key;
        match (&self.from, &self.to) {
            (None, Some(Value::Object(_))) => write!(f, "{key} is new"),
            (Some(Value::Object(_)), None) => write!(f, "{key} is gone"),
            (None, Some(to)) => write!(f, "{key} = {}, was not set", told(to)),
            (Some(from), None) => write!(f, "{key} is not set any more, was {}", told(from)),
            (Some(from), Some(to)) => write!(f, "{key} = {}, was {}", told(to), told(from)),
            (None, None) => f.write_str(key),
        }
    }
}

/// What stands in the place of a secret.
const REDACTED: &str = "(redacted)";

/// The whole configuration as JSON, without its secrets: the value of a key that is named like one, and the password in a URL.
/// The path of a file that holds one is none.
#[must_use]
pub fn shown(config: &Config) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or_default();
    redact(&mut value);
    value
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let words = || key.split('_');
                let is_named = words()
                    .any(|w| ["token", "tokens", "password", "secret", "secrets", "passphrase"].contains(&w))
                    && !matches!(words().next_back(), Some("file" | "path"));
                match value {
                    Value::String(text) if is_named => REDACTED.clone_into(text),
                    Value::Array(list) if is_named => list.fill(REDACTED.into()),
                    _ => redact(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some((login, place)) = rest.split_once('@')
                && let Some((user, _)) = login.split_once(':')
            {
                *text = format!("{scheme}://{user}:{REDACTED}@{place}");
            }
        }
        _ => {}
    }
}

/// The keys in which `to` is not as `from`; both as [`shown`]. What differs in a tenant, a class or a rule only because it does so
/// in the defaults is told of the defaults alone.
#[must_use]
pub fn changes(from: &Value, to: &Value) -> Vec<Change> {
    let mut found = vec![];
    compare(&mut vec![], Some(from), Some(to), &mut found);
    let implied = |path: &[String], change: &Change| {
        let rest = match path {
            [tenants, of, _, rest @ ..]
                if tenants == "tenants" && ["by_id", "classes", "rules"].contains(&of.as_str()) =>
            {
                rest
            }
            _ => return false,
        };
        let key =
            dotted(&["tenants", "defaults"].into_iter().map(str::to_owned).chain(rest.to_vec()).collect::<Vec<_>>());
        found.iter().any(|(_, other)| other.key == key && (&other.from, &other.to) == (&change.from, &change.to))
    };
    let told = found.iter().filter(|(path, change)| !implied(path, change));
    told.map(|(_, change)| change.clone()).collect()
}

fn compare(path: &mut Vec<String>, from: Option<&Value>, to: Option<&Value>, found: &mut Vec<(Vec<String>, Change)>) {
    let is_tables = |list: &Vec<Value>| list.iter().all(Value::is_object);
    match (from, to) {
        (from, to) if from == to => {}
        (Some(Value::Object(from)), Some(Value::Object(to))) => {
            let new = to.keys().filter(|key| !from.contains_key(*key));
            for key in from.keys().chain(new) {
                path.push(key.clone());
                compare(path, from.get(key), to.get(key), found);
                path.pop();
            }
        }
        (Some(Value::Array(from)), Some(Value::Array(to))) if is_tables(from) && is_tables(to) => {
            for nth in 0..from.len().max(to.len()) {
                path.push(nth_rule(nth));
                compare(path, from.get(nth), to.get(nth), found);
                path.pop();
            }
        }
        _ => found.push((path.clone(), Change { key: dotted(path), from: from.cloned(), to: to.cloned() })),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Layers;

    fn told(from: &str, to: &str) -> Vec<String> {
        let read = |text: &str| shown(&Layers::default().toml("f", text).read().unwrap());
        changes(&read(from), &read(to)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_change_is_told_by_its_key_and_one_of_the_defaults_once() {
        assert_eq!(told("log.level = 'info'", "log.level = 'debug'"), ["log.level = \"debug\", was \"info\""]);
        let tenants =
            "\n[tenants.by_id.acme]\nack = 'stored'\n[tenants.classes.gold]\n[[tenants.rules]]\nmatch = 'a-*'";
        let from = format!("[tenants.defaults.window]\nmax_events = 5{tenants}");
        let to = format!("[tenants.defaults.window]\nmax_events = 6{tenants}");
        assert_eq!(told(&from, &to), ["tenants.defaults.window.max_events = 6, was 5"]);
    }

    #[test]
    fn what_is_new_or_gone_is_one_change() {
        let acme = "[tenants.by_id.'a.b']\nwindow.max_events = 5";
        assert_eq!(told("", acme), ["tenants.by_id.\"a.b\" is new"]);
        assert_eq!(told(acme, ""), ["tenants.by_id.\"a.b\" is gone"]);
        let rule = "[[tenants.rules]]\nmatch = 'a-*'";
        assert_eq!(told(rule, &format!("{rule}\n[[tenants.rules]]\nmatch = 'b-*'")), ["tenants.rules[2] is new"]);
        assert_eq!(told(rule, "[[tenants.rules]]\nmatch = 'c-*'"), ["tenants.rules[1].match = \"c-*\", was \"a-*\""]);
        assert_eq!(told("", "[decoder]\ntime_field = 'at'"), ["decoder.time_field = \"at\", was not set"]);
    }

    #[test]
    fn secrets_are_not_shown_and_what_only_looks_like_one_is() {
        let mut value = json!({
            "admin": {"token": "hunter2", "token_file": "/etc/t", "tokens": ["a"], "client_secret": "x", "secretary": "Ann"},
            "stores": [{"url": "postgres://app:hunter2@db/x", "plain": "http://db/x"}],
        });
        redact(&mut value);
        let expected = json!({
            "admin": {"token": "(redacted)", "token_file": "/etc/t", "tokens": ["(redacted)"], "client_secret": "(redacted)", "secretary": "Ann"},
            "stores": [{"url": "postgres://app:(redacted)@db/x", "plain": "http://db/x"}],
        });
        assert_eq!(value, expected);
    }
}
