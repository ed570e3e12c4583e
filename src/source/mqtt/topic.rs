//! Which messages are asked for, and whose they are. Pure.

use std::fmt;
use std::str::FromStr;

/// Stands in a filter for the level that names the tenant.
const TENANT: &str = "{tenant}";

/// What is subscribed to: a filter of MQTT, in which one level may be `{tenant}`, as in `tenants/{tenant}/#`: the level of that place
/// in the topic of a message names its tenant. With `$share/GROUP/` before it, several clients share the messages.
///
/// ```
/// use headworks::source::TopicFilter;
///
/// let topic: TopicFilter = "tenants/{tenant}/#".parse().unwrap();
/// assert_eq!(topic.filter(), "tenants/+/#");
/// assert_eq!(topic.tenant("tenants/acme/events/1"), Some("acme"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFilter {
    filter: String,
    /// The level with the tenant, among those of a topic.
    tenant: Option<usize>,
}

/// A filter that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFilter(&'static str);

impl TopicFilter {
    /// As the broker is told.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Whether the topic names the tenant.
    #[must_use]
    pub fn names_tenant(&self) -> bool {
        self.tenant.is_some()
    }

    /// What of the topic names the tenant; none where it has no such level, or the filter says nothing of tenants.
    #[must_use]
    pub fn tenant<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.split('/').nth(self.tenant?).filter(|name| !name.is_empty())
    }
}

impl FromStr for TopicFilter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let bad = |why| Err(InvalidFilter(why));
        if text.is_empty() || text.len() > 65_535 || text.contains('\0') {
            return bad("must have from 1 to 65535 bytes, and no NUL in it");
        }
        let levels = match text.strip_prefix("$share/") {
            None => text,
            Some(shared) => match shared.split_once('/') {
                Some((group, levels)) if !group.is_empty() && !group.contains(['+', '#']) && !levels.is_empty() => {
                    levels
                }
                _ => return bad("must be $share/GROUP/FILTER where it is shared"),
            },
        };
        let mut tenant = None;
        let count = levels.split('/').count();
        for (nth, level) in levels.split('/').enumerate() {
            match level {
                "+" => {}
                "#" if nth + 1 == count => {}
                TENANT if tenant.is_none() => tenant = Some(nth),
                TENANT => return bad("must have {tenant} once"),
                _ if level.contains(['+', '#']) => {
                    return bad("must have + as a whole level, and # as the whole last one");
                }
                _ if level.contains(TENANT) => return bad("must have {tenant} as a whole level"),
                _ => {}
            }
        }
        Ok(Self { filter: text.replace(TENANT, "+"), tenant })
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_the_topic_names_the_tenant() {
        for (filter, told, topic, tenant) in [
            ("tenants/{tenant}/#", "tenants/+/#", "tenants/acme/a/b", Some("acme")),
            ("{tenant}", "+", "acme", Some("acme")),
            ("$share/g/t/{tenant}", "$share/g/t/+", "t/acme", Some("acme")),
            ("a/{tenant}/b", "a/+/b", "a//b", None),
            ("a/#", "a/#", "a/acme", None),
            ("#", "#", "a", None),
        ] {
            let parsed: TopicFilter = filter.parse().unwrap();
            assert_eq!((parsed.filter(), parsed.tenant(topic)), (told, tenant), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in ["", "a/#/b", "a+", "a/b#", "{tenant}/{tenant}", "a/x{tenant}", "$share/g", "$share//a", "a\0"] {
            assert!(bad.parse::<TopicFilter>().is_err(), "{bad:?}");
        }
    }
}
