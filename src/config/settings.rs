//! Single rules of a tenant, as an operator gives them at run time: `window.max_age` and `250ms`.

use std::fmt::Write as _;

use serde::Deserialize;
use toml::{Table, Value};

use super::error::reworded;
use crate::Policy;

/// `policy` with other values for some of its keys, checked. The values are read as those of variables are: as TOML where they
/// are TOML, else as strings.
///
/// ```
/// use headworks::Policy;
/// use headworks::config::with_settings;
///
/// let policy = with_settings(&Policy::default(), [("throttle.events_per_second", "100"), ("window.max_age", "250ms")])?;
/// assert_eq!(policy.throttle.events_per_second, 100);
/// let why = with_settings(&policy, [("window.max_agee", "1s")]).unwrap_err();
/// assert!(why.ends_with("did you mean \"window.max_age\"?"), "{why}");
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// A sentence that names the key, what is wrong with it, and what is valid.
pub fn with_settings<'s>(
    policy: &Policy,
    settings: impl IntoIterator<Item = (&'s str, &'s str)>,
) -> Result<Policy, String> {
    let mut table = Table::try_from(policy).map_err(|why| format!("these rules cannot be written as TOML: {why}"))?;
    let valid = keys(&table);
    let mut changed = policy.clone();
    for (key, value) in settings {
        if !valid.iter().any(|valid| valid == key) {
            return Err(unknown(key, &valid));
        }
        let value: Value = match format!("value = {value}").parse::<Table>() {
            Ok(mut parsed) if parsed.len() == 1 => parsed.remove("value").unwrap_or(Value::String(value.to_owned())),
            _ => Value::String(value.to_owned()),
        };
        set(&mut table, key, value);
        changed = Policy::deserialize(table.clone()).map_err(|why| format!("{key}: {}", reworded(why.message())))?;
    }
    changed.check()?;
    Ok(changed)
}

/// Every key of a policy, from the top.
fn keys(table: &Table) -> Vec<String> {
    let leaves = |(key, value): (&String, &Value)| match value {
        Value::Table(inner) => keys(inner).into_iter().map(|inner| format!("{key}.{inner}")).collect(),
        _ => vec![key.clone()],
    };
    table.iter().flat_map(leaves).collect()
}

fn unknown(key: &str, valid: &[String]) -> String {
    let mut sentence = format!("there is no rule {key:?}; valid: {}", valid.join(", "));
    // Its last part alone may be that of several.
    let mut meant: Vec<_> = valid.iter().filter(|valid| valid.rsplit('.').next() == Some(key)).collect();
    if meant.is_empty() {
        let nearest = valid.iter().min_by_key(|valid| strsim::osa_distance(key, valid));
        meant.extend(nearest.filter(|near| strsim::osa_distance(key, near) <= 1 + near.len() / 4));
    }
    if !meant.is_empty() {
        let meant: Vec<_> = meant.iter().map(|near| format!("{near:?}")).collect();
        let _ = write!(sentence, "; did you mean {}?", meant.join(" or "));
    }
    sentence
}

fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((name, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(name) {
                set(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(settings: &[(&'static str, &'static str)]) -> Result<Policy, String> {
        with_settings(&Policy::default(), settings.iter().copied())
    }

    #[test]
    fn values_are_read_as_in_a_configuration() {
        let policy = given(&[
            ("throttle.bytes_per_second", "1MiB"),
            ("throttle.when_over", "reject"),
            ("retry.attempts", "7"),
            ("ack", "\"stored\""),
        ])
        .unwrap();
        assert_eq!((policy.throttle.bytes_per_second, policy.retry.attempts), (1 << 20, 7));
        assert_eq!((policy.throttle.when_over, policy.ack), (crate::WhenOver::Reject, crate::AckLevel::Stored));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_valid() {
        for (key, value, told) in [
            ("throttle.rate", "5", "there is no rule \"throttle.rate\"; valid: ack, "),
            ("window", "5", "there is no rule \"window\"; valid: "),
            ("window.max_age", "soon", "window.max_age: \"soon\" is no duration"),
            (
                "throttle.when_over",
                "drop",
                "throttle.when_over: there is no choice \"drop\" here; valid: delay, reject",
            ),
            (
                "retry.attempts",
                "many",
                "retry.attempts: invalid type: string \"many\", expected a whole number, 0 or more",
            ),
            ("retry.attempts", "0", "retry.attempts is 0, but must be from 1 to 1000"),
            ("retry.attempts", "1\nack = 'stored'", "retry.attempts: invalid type: string"),
        ] {
            let why = given(&[(key, value)]).unwrap_err();
            assert!(why.starts_with(told), "{why}");
        }
    }

    #[test]
    fn rules_that_only_fit_together_are_checked_together() {
        assert!(given(&[("throttle.burst_events", "1"), ("throttle.events_per_second", "1000")]).is_err());
        let both = given(&[("retry.attempt_timeout", "2m"), ("heartbeat.stall_after", "3m")]);
        assert!(both.is_ok(), "{both:?}");
    }
}
