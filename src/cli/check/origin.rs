//! `headworks check --tenant`: what one tenant would get, and why.

use headworks::config::{Config, Level, Origin, TenantOrigins};
use headworks::{StoreName, Unknown};

use super::section;

/// The rules of one tenant, each with where it comes from.
pub(super) fn explain(origins: &TenantOrigins, config: &Config) -> String {
    let mut text = format!("Tenant {} by this configuration:\n", origins.tenant);
    let place = |place: &Option<String>| place.as_ref().map_or_else(String::new, |place| format!(", {place}"));
    let mut who = vec![("known", known(origins, config))];
    if origins.is_muted {
        who.push(("muted", "its events are dropped and counted (tenants.mute)".to_owned()));
    }
    who.push((
        "rule",
        match &origins.rule {
            Some(rule) => {
                format!("the {} of them, match = {:?}{}", nth(rule.nth), rule.pattern.as_str(), place(&rule.place))
            }
            None => "none matches".to_owned(),
        },
    ));
    who.push((
        "class",
        match &origins.class {
            Some(class) => format!("{}{}", class.name, place(&class.place)),
            None => "none".to_owned(),
        },
    ));
    let stores: Vec<_> = origins.stores.iter().map(StoreName::as_str).collect();
    who.push(("stores", stores.join(", then ")));
    section(&mut text, "Who it is", who);
    let width = origins.settings.iter().map(|origin| origin.value.to_string().len()).max().unwrap_or(0);
    let line = |origin: &Origin| {
        let from = match origin.from {
            Level::BuiltIn => "built in".to_owned(),
            level => format!("{}{}", level.as_str(), place(&origin.place)),
        };
        format!("{:<width$}  {from}", origin.value.to_string())
    };
    let lines = origins.settings.iter().map(|origin| (origin.key.as_str(), line(origin))).collect();
    section(&mut text, "Its rules, and where each comes from", lines);
    text
}

fn nth(number: usize) -> String {
    let end = match (number % 10, number % 100) {
        (1, tens) if tens != 11 => "st",
        (2, tens) if tens != 12 => "nd",
        (3, tens) if tens != 13 => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

/// Whether its events are let in, and why.
fn known(origins: &TenantOrigins, config: &Config) -> String {
    match config.tenants.unknown() {
        _ if origins.is_named => "by this configuration, which names it".to_owned(),
        Unknown::Reject => "only if it is on record: tenants.unknown = \"reject\"".to_owned(),
        Unknown::CatchAll(other) if other == origins.tenant => {
            "as the tenant for unknown ones (tenants.catch_all)".to_owned()
        }
        Unknown::CatchAll(other) => format!("only if it is on record; else its events become {other}'s"),
        _ => "by its first event".to_owned(),
    }
}
