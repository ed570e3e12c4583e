use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Policy;

/// One rule of a tenant that is another now. Reads as `window.max_age = "250ms", was "1s"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Which, as a configuration names it: `window.max_age`.
    pub key: String,
    /// As it was.
    pub from: String,
    /// As it is now.
    pub to: String,
}

impl std::fmt::Display for PolicyChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}, was {}", self.key, self.to, self.from)
    }
}

impl Policy {
    /// The keys in which `to` differs, by name.
    ///
    /// ```
    /// use headworks_actors::Policy;
    ///
    /// let mut to = Policy::default();
    /// to.throttle.events_per_second = 100;
    /// let changes = Policy::default().changes(&to);
    /// assert_eq!(changes[0].to_string(), "throttle.events_per_second = 100, was 0");
    /// assert_eq!(changes.len(), 1);
    /// ```
    #[must_use]
    pub fn changes(&self, to: &Self) -> Vec<PolicyChange> {
        // Rules are plain data: numbers, words and tables of them.
        let whole = |policy: &Self| serde_json::to_value(policy).unwrap_or_default();
        let mut changes = vec![];
        compare(String::new(), &whole(self), &whole(to), &mut changes);
        changes
    }
}

fn compare(key: String, from: &Value, to: &Value, changes: &mut Vec<PolicyChange>) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            for (name, to) in to {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(key, from.get(name).unwrap_or(&Value::Null), to, changes);
            }
        }
        _ if from == to => {}
        _ => changes.push(PolicyChange { key, from: from.to_string(), to: to.to_string() }),
    }
}
