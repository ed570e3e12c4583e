//! What is set and has no effect, or less than it seems.

use std::collections::BTreeSet;

use headworks::config::{
    Config, JournalKind, ReportConfig, ReportTo, StoreConfig, StoreKind, TenantsConfig, UnknownTenants,
};
use headworks::store::Layout;
use headworks::units::bytes::display as size;
use headworks::{OverflowPolicy, Policy, StoreName, ThrottlePolicy, WhenFull, WhenOver};

use super::time;

/// A sentence for each.
pub(super) fn notes(config: &Config) -> Vec<String> {
    let mut notes = stores(config);
    notes.extend(journal(config));
    notes.extend(tenants(config));
    notes.extend(report(&config.report));
    if config.admin.listen.is_none() && config.admin.token_file.is_some() {
        notes.push(
            "admin.token_file has no effect: admin.listen is empty, so that the API is not served over TCP".to_owned(),
        );
    }
    let defaults = rules(&config.tenants.defaults, config);
    notes.extend(defaults.iter().map(|what| format!("a tenant: {what}")));
    let classes = config.tenants.classes.iter().map(|(name, policy)| (format!("class {name}"), policy));
    let patterns = config.tenants.rules.iter().map(|rule| (format!("tenants {}", rule.pattern.as_str()), &rule.policy));
    let own = config.tenants.by_id.iter().map(|(id, policy)| (format!("tenant {id}"), policy));
    for (who, policy) in classes.chain(patterns).chain(own) {
        // What all have was told once.
        let further = rules(policy, config).into_iter().filter(|what| !defaults.contains(what));
        notes.extend(further.map(|what| format!("{who}: {what}")));
    }
    notes
}

/// Of one tenant's rules.
fn rules(policy: &Policy, config: &Config) -> Vec<String> {
    let Policy { throttle, overflow, window, retry, breaker, heartbeat, silence, .. } = policy;
    let mut notes = held_rates(throttle);
    let usual = OverflowPolicy::default();
    let never_spills = matches!(overflow.when_full, WhenFull::Reject | WhenFull::DropOldest);
    if never_spills && overflow.max_spilled != usual.max_spilled {
        notes.push(no_effect("overflow.max_spilled", "overflow.when_full spills nothing"));
    }
    if never_spills && overflow.block_for != usual.block_for {
        notes.push(no_effect("overflow.block_for", "overflow.when_full holds nobody"));
    }
    let is_durable = config.journal.kind != JournalKind::Memory;
    if is_durable && !never_spills && overflow.max_spilled > config.journal.max_bytes {
        notes.push(format!(
            "overflow.max_spilled is {}, but journal.max_bytes only {}: the journal is full first, and that holds everybody",
            size(overflow.max_spilled),
            size(config.journal.max_bytes)
        ));
    }
    if !is_durable && overflow.max_spilled != usual.max_spilled {
        notes.push(no_effect(
            "overflow.max_spilled",
            "journal.type is memory, and only a durable journal can be spilled to",
        ));
    }
    if window.max_bytes > overflow.max_in_flight {
        notes.push(format!(
            "window.max_bytes is {}, but overflow.max_in_flight only {}: it is full before a window is",
            size(window.max_bytes),
            size(overflow.max_in_flight)
        ));
    }
    if retry.deadline < retry.attempt_timeout {
        notes.push(format!(
            "retry.deadline is {}, but one attempt may take {} (retry.attempt_timeout): one that does is the last",
            time(retry.deadline),
            time(retry.attempt_timeout)
        ));
    }
    if breaker.failures == 0 && breaker.wait != Policy::default().breaker.wait {
        notes.push(no_effect("breaker.wait", "breaker.failures is 0, which turns it off"));
    }
    if silence.downstream && !silence.is_set() {
        notes.push(no_effect("silence.downstream", "silence.after is never, and silence.learn is false"));
    }
    if let Some(downstream) = heartbeat.downstream_every.filter(|every| *every < heartbeat.every) {
        notes.push(format!(
            "heartbeat.downstream_every is {}, but heartbeat.every {}: no event is made but at a heartbeat",
            time(downstream),
            time(heartbeat.every)
        ));
    }
    notes
}

fn held_rates(throttle: &ThrottlePolicy) -> Vec<String> {
    let usual = ThrottlePolicy::default();
    let mut notes = vec![];
    for (burst, is_set, rate, has_rate) in [
        (
            "throttle.burst_events",
            throttle.burst_events > 0,
            "throttle.events_per_second",
            throttle.events_per_second > 0,
        ),
        ("throttle.burst_bytes", throttle.burst_bytes > 0, "throttle.bytes_per_second", throttle.bytes_per_second > 0),
    ] {
        if is_set && !has_rate {
            notes.push(no_effect(burst, &format!("{rate} is 0, which is no rate")));
        }
    }
    if !throttle.is_set() && throttle.when_over != usual.when_over {
        notes.push(no_effect("throttle.when_over", "no rate is set"));
    }
    if throttle.delay_for != usual.delay_for && (!throttle.is_set() || throttle.when_over == WhenOver::Reject) {
        let why = if throttle.is_set() { "throttle.when_over is not delay" } else { "no rate is set" };
        notes.push(no_effect("throttle.delay_for", why));
    }
    notes
}

fn stores(config: &Config) -> Vec<String> {
    let usual = StoreConfig::default();
    let all = std::iter::once(("store".to_owned(), &config.store))
        .chain(config.stores.iter().map(|(name, store)| (format!("stores.{name}"), store)));
    let mut notes: Vec<_> = all
        .filter(|(_, store)| store.segment_bytes != usual.segment_bytes)
        .filter(|(_, store)| store.kind != StoreKind::Sqlite || store.layout != Layout::Index)
        .map(|(at, _)| no_effect(&format!("{at}.segment_bytes"), &format!("{at}.layout is not index")))
        .collect();
    let tenants = &config.tenants;
    let used: BTreeSet<&StoreName> = tenants.stores.iter().chain(tenants.stores_by_id.values().flatten()).collect();
    let unused = config.stores.keys().filter(|name| !used.contains(name));
    notes.extend(unused.map(|name| {
        format!("nothing is stored in stores.{name}: neither tenants.stores nor tenants.stores_by_id names it")
    }));
    notes
}

fn journal(config: &Config) -> Vec<String> {
    let (journal, usual) = (&config.journal, headworks::config::JournalConfig::default());
    let keys = [
        ("journal.max_bytes", journal.max_bytes != usual.max_bytes),
        ("journal.segment_bytes", journal.segment_bytes != usual.segment_bytes),
        ("journal.commit_every", journal.commit_every != usual.commit_every),
    ];
    let is_memory = journal.kind == JournalKind::Memory;
    let set = keys.into_iter().filter(|(_, is_set)| is_memory && *is_set);
    set.map(|(key, _)| no_effect(key, "journal.type is memory")).collect()
}

fn tenants(config: &Config) -> Vec<String> {
    let (tenants, usual) = (&config.tenants, TenantsConfig::default());
    let mut notes = vec![];
    let spawns = tenants.unknown == UnknownTenants::Spawn;
    if tenants.max_spawn_rate > 0 && !spawns {
        notes
            .push(no_effect("tenants.max_spawn_rate", "tenants.unknown is not spawn, so that no unknown one comes up"));
    }
    if tenants.max_spawn_burst != usual.max_spawn_burst && (!spawns || tenants.max_spawn_rate == 0) {
        let why = if spawns { "tenants.max_spawn_rate is 0, which is no rate" } else { "tenants.unknown is not spawn" };
        notes.push(no_effect("tenants.max_spawn_burst", why));
    }
    if tenants.catch_all != usual.catch_all && tenants.unknown != UnknownTenants::CatchAll {
        notes.push(no_effect("tenants.catch_all", "tenants.unknown is not catch_all"));
    }
    if let Some(all) = tenants.rules.iter().position(|rule| rule.pattern.as_str() == "*") {
        let behind = tenants.rules[all + 1..].iter().map(|rule| rule.pattern.as_str());
        notes.extend(behind.map(|pattern| {
            format!("the rule for {pattern} never counts: the one for *, which matches all, comes before it")
        }));
    }
    notes
}

fn report(report: &ReportConfig) -> Vec<String> {
    let usual = ReportConfig::default();
    let is_off = report.every.is_zero() || report.to == ReportTo::None;
    let mut notes = vec![];
    if report.every.is_zero() && report.to != usual.to && report.to != ReportTo::None {
        notes.push(no_effect("report.to", "report.every is 0, which turns the report off"));
    }
    if report.path != usual.path && (is_off || report.to != ReportTo::File) {
        notes.push(no_effect("report.path", "the report does not go to a file"));
    }
    if report.tenant != usual.tenant && (is_off || report.to != ReportTo::Store) {
        notes.push(no_effect("report.tenant", "the report does not go to the store"));
    }
    notes
}

fn no_effect(key: &str, why: &str) -> String {
    format!("{key} has no effect: {why}")
}

#[cfg(test)]
mod tests {
    use headworks::config::Layers;

    use super::*;

    fn of(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headworks.toml");
        std::fs::write(&path, text).unwrap();
        notes(&Layers::default().file(&path).unwrap().read().unwrap())
    }

    #[test]
    fn the_defaults_and_what_has_its_effect_are_no_note() {
        assert_eq!(of(""), [""; 0]);
        let text = "
            [tenants]
            max_spawn_rate = 5
            max_spawn_burst = 7
            [tenants.defaults.throttle]
            events_per_second = 100
            burst_events = 50
            when_over = 'reject'
            [stores.more]
            [tenants.stores_by_id]
            acme = ['store', 'more']
        ";
        assert_eq!(of(text), [""; 0]);
    }

    #[test]
    fn what_has_no_effect_is_named_with_the_reason() {
        for (text, says) in [
            (
                "[journal]\nmax_bytes = '128MiB'\nsegment_bytes = '1MiB'",
                "a tenant: overflow.max_spilled is 256MiB, but journal.max_bytes only 128MiB: ",
            ),
            (
                "[tenants.defaults.throttle]\nburst_events = 9",
                "a tenant: throttle.burst_events has no effect: throttle.events_per_second is 0",
            ),
            (
                "[tenants.defaults.throttle]\nburst_bytes = 9\nevents_per_second = 4",
                "a tenant: throttle.burst_bytes has no effect: throttle.bytes_per_second is 0",
            ),
            (
                "[tenants.by_id.acme.throttle]\nwhen_over = 'reject'",
                "tenant acme: throttle.when_over has no effect: no rate is set",
            ),
            (
                "[tenants.defaults.throttle]\nwhen_over = 'reject'\nevents_per_second = 5\ndelay_for = '9s'",
                "a tenant: throttle.delay_for has no effect: throttle.when_over is not delay",
            ),
            (
                "[tenants]\nunknown = 'reject'\nmax_spawn_rate = 5",
                "tenants.max_spawn_rate has no effect: tenants.unknown is not spawn",
            ),
            ("[tenants]\nmax_spawn_burst = 5", "tenants.max_spawn_burst has no effect: tenants.max_spawn_rate is 0"),
            ("[tenants]\ncatch_all = 'rest'", "tenants.catch_all has no effect: tenants.unknown is not catch_all"),
            ("[[tenants.rules]]\nmatch = '*'\n[[tenants.rules]]\nmatch = 'a*'", "the rule for a* never counts: "),
            (
                "[tenants.defaults.overflow]\nwhen_full = 'reject'\nblock_for = '9s'",
                "a tenant: overflow.block_for has no effect: ",
            ),
            (
                "[tenants.defaults.overflow]\nwhen_full = 'drop_oldest'\nmax_spilled = '9MiB'",
                "a tenant: overflow.max_spilled has no effect: overflow.when_full spills nothing",
            ),
            (
                "[journal]\ntype = 'memory'\ncommit_every = '9ms'",
                "journal.commit_every has no effect: journal.type is memory",
            ),
            (
                "[tenants.defaults]\nwindow.max_bytes = '2MiB'\noverflow.max_in_flight = '1MiB'",
                "a tenant: window.max_bytes is 2MiB, but overflow.max_in_flight only 1MiB: ",
            ),
            ("[tenants.defaults.breaker]\nfailures = 0\nwait = '9s'", "a tenant: breaker.wait has no effect: "),
            (
                "[tenants.defaults.silence]\ndownstream = true",
                "a tenant: silence.downstream has no effect: silence.after is never, and silence.learn is false",
            ),
            (
                "[tenants.defaults.heartbeat]\ndownstream_every = '2s'",
                "a tenant: heartbeat.downstream_every is 2s, but heartbeat.every 10s: ",
            ),
            ("[stores.more]", "nothing is stored in stores.more: "),
            ("[store]\nsegment_bytes = '1MiB'", "store.segment_bytes has no effect: store.layout is not index"),
            ("[report]\npath = 'x.jsonl'", "report.path has no effect: the report does not go to a file"),
            ("[report]\ntenant = 'x'", "report.tenant has no effect: the report does not go to the store"),
            ("[report]\nto = 'store'\nevery = '0s'", "report.to has no effect: report.every is 0"),
            ("[admin]\nlisten = ''\ntoken_file = '/x'", "admin.token_file has no effect: "),
        ] {
            let told = of(text);
            assert!(told.len() == 1 && told[0].starts_with(says), "{text}: {told:?}");
        }
    }
}
