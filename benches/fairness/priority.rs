//! Who goes first at a store that cannot take all.

use headworks::Policy;
use serde_json::json;

use crate::Result;

/// The policy, with this class of priority and weight 1. `None` where the system knows no priorities.
pub(crate) fn with_class(policy: &Policy, class: &str) -> Result<Option<Policy>> {
    let mut rules = serde_json::to_value(policy)?;
    rules["priority"] = json!({ "class": class, "weight": 1 });
    match serde_json::from_value(rules) {
        Ok(policy) => Ok(Some(policy)),
        Err(why) if why.to_string().contains("unknown field `priority`") => Ok(None),
        Err(why) => Err(why.into()),
    }
}
