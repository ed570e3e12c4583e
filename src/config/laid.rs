//! The rules of tenants, level over level: what a tenant says itself, over what the first rule that matches it says, over its class,
//! over the defaults.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::ConfigError;
use super::check::nth_rule;
use super::error::unknown_name;
use super::tree::{Tree, dotted, merge};
use crate::TenantPattern;

/// The place of a rule in a path, as [`nth_rule`] writes it.
pub(super) fn index(level: &str) -> Option<usize> {
    level.strip_prefix('[')?.strip_suffix(']')?.parse::<usize>().ok()?.checked_sub(1)
}

/// The table at the path, where there is one.
pub(super) fn table<'t, 'l>(root: &'t DeTable<'l>, path: &[&str]) -> Option<&'t DeTable<'l>> {
    path.iter().try_fold(root, |table, level| table.get(*level)?.get_ref().as_table())
}

/// The tables of `[[tenants.rules]]`, where they are written as such.
pub(super) fn rules<'t, 'l>(root: &'t DeTable<'l>) -> impl Iterator<Item = &'t Spanned<DeValue<'l>>> {
    let list = table(root, &["tenants"]).and_then(|tenants| tenants.get("rules"));
    list.and_then(|list| list.get_ref().as_array()).into_iter().flatten()
}

/// The first rule that is for the tenant: its place, and its table.
pub(super) fn rule_of<'t, 'l>(root: &'t DeTable<'l>, id: &str) -> Option<(usize, &'t DeTable<'l>)> {
    let tables = rules(root).enumerate().filter_map(|(nth, rule)| Some((nth, rule.get_ref().as_table()?)));
    // What is no pattern is refused where the types are looked at.
    let pattern = |rule: &DeTable<'_>| rule.get("match")?.get_ref().as_str()?.parse::<TenantPattern>().ok();
    tables.into_iter().find(|(_, rule)| pattern(rule).is_some_and(|pattern| pattern.matches(id)))
}

/// What is in no rule of [`Policy`](crate::Policy).
const SELECTORS: [&str; 2] = ["match", "class"];

/// The whole, with complete rules in the place of those that say only what differs.
pub(super) fn laid<'l>(tree: &Tree<'l>) -> Result<DeTable<'l>, ConfigError> {
    let root = &tree.root;
    let mut whole = root.clone();
    let Some(DeValue::Table(tenants)) = whole.get_mut("tenants").map(Spanned::get_mut) else { return Ok(whole) };
    let defaults = table(root, &["tenants", "defaults"]).cloned().unwrap_or_default();

    let mut classes = BTreeMap::new();
    if let Some(DeValue::Table(named)) = tenants.get_mut("classes").map(Spanned::get_mut) {
        for (name, class) in named.iter_mut() {
            if let DeValue::Table(own) = class.get_mut() {
                merge_over(own, &[&defaults]);
                classes.insert(name.get_ref().to_string(), own.clone());
            }
        }
    }
    let base = |class: Option<&Spanned<DeValue<'l>>>, at: &[&str]| -> Result<DeTable<'l>, ConfigError> {
        let Some(class) = class else { return Ok(defaults.clone()) };
        let key = dotted(&at.iter().copied().chain(["class"]).map(str::to_owned).collect::<Vec<_>>());
        let refused =
            |why: String| ConfigError::new(tree.place(&class.span()), Some(key.clone()), format!("{key}: {why}"));
        let Some(name) = class.get_ref().as_str() else {
            return Err(refused("expected a string (in quotes), the name of a class".to_owned()));
        };
        let unknown = || {
            let valid: Vec<_> = classes.keys().map(String::as_str).collect();
            refused(unknown_name(&format!("there is no [tenants.classes.{name}]"), name, &valid))
        };
        classes.get(name).cloned().ok_or_else(unknown)
    };

    if let Some(DeValue::Array(list)) = tenants.get_mut("rules").map(Spanned::get_mut) {
        for (nth, rule) in list.iter_mut().enumerate() {
            let span = rule.span();
            let DeValue::Table(own) = rule.get_mut() else { continue };
            let base = base(own.get("class"), &["tenants", "rules", &nth_rule(nth)])?;
            let mut policy = without_selectors(own);
            merge_over(&mut policy, &[&base]);
            for key in policy_keys(own) {
                own.remove(key.as_str());
            }
            let key = Spanned::new(span.clone(), DeString::from("policy"));
            own.insert(key, Spanned::new(span, DeValue::Table(policy)));
        }
    }
    if let Some(DeValue::Table(by_id)) = tenants.get_mut("by_id").map(Spanned::get_mut) {
        for (id, tenant) in by_id.iter_mut() {
            let DeValue::Table(own) = tenant.get_mut() else { continue };
            let id = id.get_ref().as_ref();
            let rule = rule_of(root, id);
            // A class that the rule names and that is not there was refused above.
            let class = own.get("class").or_else(|| rule.and_then(|(_, rule)| rule.get("class")));
            let base = base(class, &["tenants", "by_id", id])?;
            let by_rule = rule.map(|(_, rule)| without_selectors(rule)).unwrap_or_default();
            own.remove("class");
            merge_over(own, &[&base, &by_rule]);
        }
    }
    Ok(whole)
}

fn policy_keys(table: &DeTable<'_>) -> Vec<String> {
    table.keys().map(|key| key.get_ref().to_string()).filter(|key| !SELECTORS.contains(&key.as_str())).collect()
}

fn without_selectors<'l>(table: &DeTable<'l>) -> DeTable<'l> {
    let mut rest = table.clone();
    for selector in SELECTORS {
        rest.remove(selector);
    }
    rest
}

/// Puts under `own` what it does not say: of `below`, the lowest first.
fn merge_over<'l>(own: &mut DeTable<'l>, below: &[&DeTable<'l>]) {
    let mut whole = DeTable::new();
    for table in below {
        merge(&mut whole, (*table).clone());
    }
    merge(&mut whole, std::mem::take(own));
    *own = whole;
}
