//! Where the rules of one tenant come from.

use serde::Serialize;
use toml::de::DeTable;
use toml::{Spanned, Value};

use super::laid::{rule_of, rules, table};
use super::layers::Layers;
use super::tree::Tree;
use super::{Config, ConfigError};
use crate::{Policy, StoreName, TenantId, TenantPattern};

/// What a tenant would get by a configuration, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TenantOrigins {
    /// Whose.
    pub tenant: TenantId,
    /// Whether the configuration names it, so that its events are let in where those of unknown tenants are not.
    pub is_named: bool,
    /// The rule that is for it, if one is.
    pub rule: Option<RuleOrigin>,
    /// The class that it goes by, if it does.
    pub class: Option<ClassOrigin>,
    /// Whether it is muted.
    pub is_muted: bool,
    /// The stores that its batches go through.
    pub stores: Vec<StoreName>,
    /// Each of its rules, by key.
    pub settings: Vec<Origin>,
}

/// A rule that is for a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleOrigin {
    /// Which of them, from 1.
    pub nth: usize,
    /// Its pattern.
    #[serde(rename = "match")]
    pub pattern: TenantPattern,
    /// Where it is written: `headworks.toml:7`.
    pub place: Option<String>,
}

/// The class of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassOrigin {
    /// Its name.
    pub name: String,
    /// Where that is said: by the tenant itself or by its rule.
    pub place: Option<String>,
}

/// One rule of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Origin {
    /// Which: `window.max_age`.
    pub key: String,
    /// What it is.
    pub value: Value,
    /// Which level says so.
    pub from: Level,
    /// Where: `headworks.toml:7`, or the name of a variable or a flag. None for what is built in.
    pub place: Option<String>,
}

/// The levels that the rules of a tenant come from, the highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Level {
    /// `[tenants.by_id.ID]`.
    Own,
    /// `[[tenants.rules]]`.
    Rule,
    /// `[tenants.classes.NAME]`.
    Class,
    /// `[tenants.defaults]`.
    Defaults,
    /// Nobody said anything.
    BuiltIn,
}

impl Level {
    /// The words for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "its own",
            Self::Rule => "rule",
            Self::Class => "class",
            Self::Defaults => "defaults",
            Self::BuiltIn => "built in",
        }
    }
}

impl Layers {
    /// What `tenant` would get, each value with the place it comes from.
    ///
    /// ```
    /// use headworks::config::{Layers, Level};
    ///
    /// let layers = Layers::default().toml("my.toml", "[[tenants.rules]]\nmatch = 'acme-*'\nretry.attempts = 7");
    /// let origins = layers.tenant(&"acme-eu".parse()?)?;
    /// let attempts = origins.settings.iter().find(|origin| origin.key == "retry.attempts").unwrap();
    /// assert_eq!((attempts.from, attempts.place.as_deref()), (Level::Rule, Some("my.toml:3")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn tenant(&self, tenant: &TenantId) -> Result<TenantOrigins, ConfigError> {
        let tree = Tree::grow(self)?;
        let config = tree.read()?;
        Ok(origins(&tree, &config, tenant))
    }
}

fn origins(tree: &Tree<'_>, config: &Config, id: &TenantId) -> TenantOrigins {
    let root = &tree.root;
    let own = table(root, &["tenants", "by_id", id.as_str()]);
    let rule = rule_of(root, id.as_str());
    let class = [own, rule.map(|(_, rule)| rule)].into_iter().flatten().find_map(|level| level.get("class"));
    let class = class.and_then(|class| Some((class.get_ref().as_str()?, tree.place(&class.span()).short())));
    let levels = [
        (Level::Own, own),
        (Level::Rule, rule.map(|(_, rule)| rule)),
        (Level::Class, class.as_ref().and_then(|(name, _)| table(root, &["tenants", "classes", name]))),
        (Level::Defaults, table(root, &["tenants", "defaults"])),
    ];
    let policy = config.effective_policy(id);
    let origin = |(key, value): (String, Value)| {
        let path: Vec<_> = key.split('.').collect();
        let said = levels.iter().find_map(|(level, table)| Some((*level, found((*table)?, &path)?)));
        let (from, place) = match said {
            Some((level, span)) => (level, tree.place(&span).short()),
            None => (Level::BuiltIn, None),
        };
        Origin { key, value, from, place }
    };
    let pattern = |nth: usize| config.tenants.rules.get(nth).map(|rule| rule.pattern.clone());
    TenantOrigins {
        tenant: id.clone(),
        is_named: config.tenants.by_id.contains_key(id) || config.tenants.stores_by_id.contains_key(id),
        rule: rule.and_then(|(nth, _)| {
            let span = rules(root).nth(nth).map(Spanned::span)?;
            Some(RuleOrigin { nth: nth + 1, pattern: pattern(nth)?, place: tree.place(&span).short() })
        }),
        class: class.map(|(name, place)| ClassOrigin { name: name.to_owned(), place }),
        is_muted: config.tenants.mute.contains(id),
        stores: config.effective_stores(id).to_vec(),
        settings: leaves(&policy).into_iter().map(origin).collect(),
    }
}

/// Where in the table the value at the path is said.
fn found(table: &DeTable<'_>, path: &[&str]) -> Option<std::ops::Range<usize>> {
    let (last, tables) = path.split_last()?;
    let table = tables.iter().try_fold(table, |table, level| table.get(*level)?.get_ref().as_table())?;
    table.get(*last).map(Spanned::span)
}

/// Every rule of a policy, by key.
fn leaves(policy: &Policy) -> Vec<(String, Value)> {
    let whole = toml::Table::try_from(policy).unwrap_or_default();
    let inner = |(name, value): (String, Value)| match value {
        Value::Table(table) => table.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect(),
        value => vec![(name, value)],
    };
    whole.into_iter().flat_map(inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key, its value, and where it comes from.
    type Told = (String, String, Level, Option<String>);

    fn told(id: &str) -> (TenantOrigins, Vec<Told>) {
        let text = "\
[tenants.defaults]
retry.attempts = 9
[tenants.classes.gold]
window.max_bytes = '2MiB'
ack = 'stored'
[[tenants.rules]]
match = 'x'
[[tenants.rules]]
match = 'acme-*'
class = 'gold'
window = { max_age = '2s' }
[tenants.by_id.acme-us]
window.max_age = '3s'
";
        let variable = ("HEADWORKS__TENANTS__CLASSES__GOLD__ACK".to_owned(), "journaled".to_owned());
        let layers = Layers::default().toml("my.toml", text).environment([variable]).unwrap();
        let origins = layers.tenant(&id.parse().unwrap()).unwrap();
        let said = origins.settings.iter().filter(|origin| origin.from != Level::BuiltIn);
        let said = said.map(|o| (o.key.clone(), o.value.to_string(), o.from, o.place.clone())).collect();
        (origins, said)
    }

    #[test]
    fn each_value_is_told_with_the_level_and_the_place_that_it_comes_from() {
        let (origins, said) = told("acme-us");
        let row = |key: &str, value: &str, from, place: &str| {
            (key.to_owned(), value.to_owned(), from, Some(place.to_owned()))
        };
        let expected = [
            row("ack", "\"journaled\"", Level::Class, "HEADWORKS__TENANTS__CLASSES__GOLD__ACK"),
            row("retry.attempts", "9", Level::Defaults, "my.toml:2"),
            row("window.max_age", "\"3s\"", Level::Own, "my.toml:13"),
            row("window.max_bytes", "\"2MiB\"", Level::Class, "my.toml:4"),
        ];
        assert_eq!(said, expected);
        assert!(origins.is_named && origins.settings.len() > 30);
        let rule = origins.rule.unwrap();
        assert_eq!((rule.nth, rule.pattern.as_str(), rule.place.as_deref()), (2, "acme-*", Some("my.toml:8")));
        assert_eq!(origins.class.unwrap(), ClassOrigin { name: "gold".into(), place: Some("my.toml:10".into()) });
    }

    #[test]
    fn a_tenant_that_is_not_named_has_what_its_rule_or_the_defaults_say() {
        let (origins, said) = told("acme-eu");
        assert!(!origins.is_named);
        assert_eq!((said[2].1.as_str(), said[2].2, said[2].3.as_deref()), ("\"2s\"", Level::Rule, Some("my.toml:11")));
        let (origins, said) = told("other");
        assert_eq!((origins.rule, origins.class, said.len()), (None, None, 1));
    }
}
