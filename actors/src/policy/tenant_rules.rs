use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use super::Policy;
use crate::model::TenantId;

/// Tenant ids by a pattern: `*` stands for any run of characters, none included, `?` for one; all else for itself.
///
/// ```
/// use headworks_actors::TenantPattern;
///
/// let pattern: TenantPattern = "acme-*".parse()?;
/// assert!(pattern.matches("acme-eu") && !pattern.matches("acme"));
/// assert!("acme/*".parse::<TenantPattern>().is_err(), "no id has a slash in it");
/// # Ok::<(), headworks_actors::InvalidTenantPattern>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantPattern(Arc<str>);

/// Why a text is no [`TenantPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern for tenant ids: it may have letters, digits, \".\", \"_\" and \"-\" in it, * for any run of them and ? for one, from 1 to 64"
)]
pub struct InvalidTenantPattern(String);

impl TenantPattern {
    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `id` is one of those.
    #[must_use]
    pub fn matches(&self, id: &str) -> bool {
        let (pattern, id) = (self.0.as_bytes(), id.as_bytes());
        // Where to go on after the last star, should what follows it not fit: one character of the id later.
        let (mut at, mut seen, mut again) = (0, 0, None);
        while seen < id.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    again = Some((at + 1, seen + 1));
                    at += 1;
                }
                Some(here) if *here == b'?' || *here == id[seen] => (at, seen) = (at + 1, seen + 1),
                _ => {
                    let Some((after, from)) = again else { return false };
                    again = Some((after, from + 1));
                    (at, seen) = (after, from);
                }
            }
        }
        pattern[at..].iter().all(|rest| *rest == b'*')
    }
}

impl FromStr for TenantPattern {
    type Err = InvalidTenantPattern;

    fn from_str(text: &str) -> Result<Self, InvalidTenantPattern> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for TenantPattern {
    type Error = InvalidTenantPattern;

    fn try_from(text: String) -> Result<Self, InvalidTenantPattern> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
        match (1..=64).contains(&text.len()) && text.bytes().all(is_valid) {
            true => Ok(Self(text.into())),
            false => Err(InvalidTenantPattern(text)),
        }
    }
}

impl From<TenantPattern> for String {
    fn from(pattern: TenantPattern) -> Self {
        pattern.0.as_ref().to_owned()
    }
}

impl fmt::Display for TenantPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which rules each tenant lives by: its own, else those of the first pattern that matches its id, else the default ones.
///
/// ```
/// use headworks_actors::{Policy, TenantRules};
///
/// let mut small = Policy::default();
/// small.window.max_events = 10;
/// let rules = TenantRules::new(Policy::default()).pattern("trial-*".parse()?, small.clone());
/// assert_eq!(**rules.of(&"trial-7".parse()?), small);
/// assert_eq!(**rules.of(&"acme".parse()?), Policy::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct TenantRules {
    default: Arc<Policy>,
    by_id: HashMap<TenantId, Arc<Policy>, RandomState>,
    patterns: Vec<(TenantPattern, Arc<Policy>)>,
}

impl TenantRules {
    /// The same for all.
    pub fn new(default: Policy) -> Self {
        Self { default: Arc::new(default), ..Self::default() }
    }

    /// These for the tenants that match, unless an earlier pattern does, or they have their own.
    pub fn pattern(mut self, pattern: TenantPattern, policy: Policy) -> Self {
        self.patterns.push((pattern, Arc::new(policy)));
        self
    }

    /// These for one tenant. It counts as known: its events are let in where those of unknown ones are refused.
    pub fn tenant(mut self, id: TenantId, policy: Policy) -> Self {
        self.by_id.insert(id, Arc::new(policy));
        self
    }

    /// The rules of a tenant.
    #[must_use]
    pub fn of(&self, id: &TenantId) -> &Arc<Policy> {
        if let Some(own) = self.by_id.get(id) {
            return own;
        }
        let matching = self.patterns.iter().find(|(pattern, _)| pattern.matches(id.as_str()));
        matching.map_or(&self.default, |(_, policy)| policy)
    }

    /// Whether a tenant has rules of its own, not by a pattern.
    pub(crate) fn names(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// The tenants with rules of their own, in no order.
    pub(crate) fn named(&self) -> impl Iterator<Item = &TenantId> {
        self.by_id.keys()
    }

    /// Whether all of them can work as written, with that kind of journal.
    pub(crate) fn check(&self, is_durable: bool) -> Result<(), String> {
        let check = |policy: &Policy| policy.check().and_then(|()| policy.overflow.check_journal(is_durable));
        check(&self.default)?;
        self.patterns
            .iter()
            .try_for_each(|(pattern, policy)| check(policy).map_err(|why| format!("tenants {pattern}: {why}")))?;
        self.by_id.iter().try_for_each(|(id, policy)| check(policy).map_err(|why| format!("tenant {id}: {why}")))
    }
}

/// What other rules came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RulesSet {
    /// Tenants that were awake and live by other rules now.
    pub changed: usize,
    /// Tenants that keep the rules that they were given by themselves at run time, by name; these would be others.
    pub kept: Vec<TenantId>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious way, which takes time without end on a pattern full of stars.
    fn model(pattern: &[u8], id: &[u8]) -> bool {
        match (pattern, id) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => model(rest, id) || (!id.is_empty() && model(pattern, &id[1..])),
            ([p, rest @ ..], [c, more @ ..]) => (*p == b'?' || p == c) && model(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_the_obvious_way_says(pattern in "[ab*?]{1,8}", id in "[ab]{0,10}") {
            let parsed: TenantPattern = pattern.parse().unwrap();
            prop_assert_eq!(parsed.matches(&id), model(pattern.as_bytes(), id.as_bytes()));
        }
    }

    #[test]
    fn a_pattern_full_of_stars_costs_no_more_than_its_length_times_that_of_the_id() {
        let pattern: TenantPattern = format!("{}b", "*a".repeat(31)).parse().unwrap();
        assert!(!pattern.matches(&"a".repeat(64)));
    }

    #[test]
    fn what_no_id_can_match_is_no_pattern() {
        for text in ["", "a b", "a/b", "ä*", &"a".repeat(65)] {
            assert!(text.parse::<TenantPattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn its_own_rules_go_before_the_first_pattern_and_that_before_later_ones() {
        let policy = |max_events| {
            let mut policy = Policy::default();
            policy.window.max_events = max_events;
            policy
        };
        let id = |id: &str| id.parse::<TenantId>().unwrap();
        let rules = TenantRules::new(policy(1))
            .pattern("acme-*".parse().unwrap(), policy(2))
            .pattern("acme-e*".parse().unwrap(), policy(3))
            .pattern("*".parse().unwrap(), policy(4))
            .tenant(id("acme-us"), policy(5));
        for (name, max_events) in [("acme-us", 5), ("acme-eu", 2), ("other", 4)] {
            assert_eq!(rules.of(&id(name)).window.max_events, max_events, "{name}");
        }
        assert!(rules.names("acme-us") && !rules.names("acme-eu"));
    }
}
