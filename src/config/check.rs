use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Component, Path};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::error::Place;
use super::sections::MOST_THREADS;
use super::tree::dotted;
use super::{Config, ConfigError, DecoderConfig, JournalKind, LogConfig, SourceConfig, StoreConfig, StoreKind};
use crate::units::bytes::display as size;
use crate::{OverflowPolicy, Policy, StoreName, TenantId, WhenFull};

/// A value that is well-formed but cannot work.
#[derive(Debug)]
pub(super) struct Problem {
    /// Where, from the top.
    pub(super) path: Vec<String>,
    /// What is wrong and what is valid; the key goes before it.
    pub(super) what: String,
}

impl Problem {
    pub(super) fn new<'k>(path: impl IntoIterator<Item = &'k str>, what: impl Into<String>) -> Self {
        Self { path: path.into_iter().map(str::to_owned).collect(), what: what.into() }
    }

    /// The same as an error, once its place is known.
    pub(super) fn at(&self, place: Place) -> ConfigError {
        let key = dotted(&self.path);
        let sentence = format!("{key} {}", self.what);
        ConfigError::new(place, Some(key), sentence)
    }
}

/// A rule in a path: `[1]` is the first.
pub(super) fn nth_rule(index: usize) -> String {
    format!("[{}]", index + 1)
}

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything that a type cannot say.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    let Config {
        daemon,
        admin,
        log,
        report,
        limits,
        decoder,
        sources,
        journal,
        store,
        stores,
        dead_letters,
        retention,
        tenants,
        metrics,
        tap,
        telemetry,
    } = config;

    let data_dir = daemon.data_dir.to_str();
    if data_dir.is_none_or(|dir| dir.is_empty() || dir.contains('\0')) {
        let what = "must be a path in UTF-8 that is not empty";
        return Err(Problem::new(["daemon", "data_dir"], what));
    }
    let milli = Duration::from_millis(1);
    within(["daemon", "drain_deadline"], daemon.drain_deadline, milli, DAY, time)?;
    within(["daemon", "threads"], daemon.threads, 0, MOST_THREADS, ToString::to_string)?;
    super::admin::check(admin)?;
    check_log(log)?;
    for (table, key, value) in [("report", "every", report.every), ("daemon", "exit_when_hung", daemon.exit_when_hung)]
    {
        if !value.is_zero() {
            within([table, key], value, Duration::from_secs(1), DAY, time)
                .map_err(|problem| Problem { what: format!("{}, or 0s to turn it off", problem.what), ..problem })?;
        }
    }
    if report.path.to_str().is_none_or(|path| path.is_empty() || path.contains('\0')) {
        return Err(Problem::new(["report", "path"], "must be the path of a file in UTF-8 that is not empty"));
    }
    if is_own(&report.path, &daemon.data_dir) {
        let what = format!(
            "is {}, but must not be a file that the daemon keeps itself, nor lead there by \"..\": choose another name, like \
             \"report.jsonl\"",
            report.path.display()
        );
        return Err(Problem::new(["report", "path"], what));
    }
    within(["limits", "max_in_flight"], limits.max_in_flight, 64 << 10, 1 << 40, |n| size(*n))?;
    within(["limits", "max_tenants"], limits.max_tenants, 1, 10_000_000, usize::to_string)?;
    check_decoder(decoder)?;
    within(["journal", "segment_bytes"], journal.segment_bytes, 4 << 10, 1 << 30, |n| size(*n))?;
    // A reserve for what becomes of accepted events, and room for the space of settled ones to be given back.
    within(["journal", "max_bytes"], journal.max_bytes, journal.segment_bytes * 8, 1 << 44, |n| size(*n))?;
    within(["journal", "commit_every"], journal.commit_every, Duration::ZERO, Duration::from_secs(1), time)?;
    super::stores::check(&["store"], store)?;
    for (name, store) in stores {
        if *name == StoreName::ONLY {
            return Err(Problem::new(
                ["stores", "store"],
                "cannot be: that is the name of the one that [store] speaks of",
            ));
        }
        super::stores::check(&["stores", name.as_str()], store)?;
    }
    let letters = dead_letters.max_bytes_per_tenant;
    within(["dead_letters", "max_bytes_per_tenant"], letters, 64 << 10, 1 << 44, |n| size(*n))?;

    if let Some(age) = dead_letters.max_age {
        within(["dead_letters", "max_age"], age, Duration::from_secs(1), DAY * 3650, time)?;
    }
    within(["retention", "every"], retention.every, Duration::from_millis(100), DAY, time)?;

    if sources.is_empty() {
        let what = "is empty, so that nothing could be received: name a source, or leave [sources] out for the default";
        return Err(Problem::new(["sources"], what));
    }
    for (name, source) in sources {
        check_source(name, source)?;
        if source.max_frame > limits.max_in_flight {
            let what = format!(
                "is {}, but must be at least the max_frame of sources.{name}, {}: one frame must fit",
                size(limits.max_in_flight),
                size(source.max_frame)
            );
            return Err(Problem::new(["limits", "max_in_flight"], what));
        }
        let Some(listen) = source.listens() else { continue };
        if listen.port() != 0 && admin.listen == Some(listen) {
            let what = format!("is {}, where admin.listen is already; choose another port", source.listen);
            return Err(Problem::new(["sources", name, "listen"], what));
        }
        let twin = sources.iter().take_while(|(other, _)| *other != name).find(|(_, s)| s.listens() == Some(listen));
        if let Some((twin, _)) = twin.filter(|_| source.listen.port() != 0) {
            let what = format!("is {}, where sources.{twin} listens already", source.listen);
            return Err(Problem::new(["sources", name, "listen"], what));
        }
    }

    // A series more for each of a dozen numbers.
    within(["metrics", "max_tenants"], metrics.max_tenants, 0, 10_000, usize::to_string)?;
    super::tap::check(tap)?;
    super::telemetry::check(telemetry)?;
    if !telemetry.metrics_every.is_zero() {
        let (key, every) = (["telemetry", "metrics_every"], telemetry.metrics_every);
        within(key, every, Duration::from_secs(1), DAY, time)
            .map_err(|problem| Problem { what: format!("{}, or 0s to turn it off", problem.what), ..problem })?;
    }
    within(["telemetry", "trace_one_in"], telemetry.trace_one_in, 0, 1_000_000, u32::to_string)?;
    check_saga(&["tenants", "stores"], &tenants.stores, stores)?;
    check_rollback(&["tenants", "stores"], &tenants.stores, config)?;
    for (id, saga) in &tenants.stores_by_id {
        check_saga(&["tenants", "stores_by_id", id.as_str()], saga, stores)?;
        check_rollback(&["tenants", "stores_by_id", id.as_str()], saga, config)?;
    }
    check_retention(config)?;
    // Far above what can be kept up with.
    within(["tenants", "max_spawn_rate"], tenants.max_spawn_rate, 0, 1_000_000, u32::to_string)?;
    within(["tenants", "max_spawn_burst"], tenants.max_spawn_burst, 1, 10_000_000, u32::to_string)?;
    let is_durable = journal.kind == JournalKind::Durable;
    let kept = Kept { is_durable, max_bytes: journal.max_bytes };
    check_policy(["tenants", "defaults"].as_slice(), &tenants.defaults, kept)?;
    for (name, policy) in &tenants.classes {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name) {
            let what = "cannot be: the name of a class has letters, digits, \"-\" and \"_\" in it, from 1 to 64";
            return Err(Problem::new(["tenants", "classes", name], what));
        }
        check_policy(&["tenants", "classes", name], policy, kept)?;
    }
    for (nth, rule) in tenants.rules.iter().enumerate() {
        let at = nth_rule(nth);
        if let Some(twin) = tenants.rules[..nth].iter().position(|earlier| earlier.pattern == rule.pattern) {
            let what = format!(
                "is that of tenants.rules{} too, which comes first: this rule would never count",
                nth_rule(twin)
            );
            return Err(Problem::new(["tenants", "rules", &at, "match"], what));
        }
        check_policy(&["tenants", "rules", &at], &rule.policy, kept)?;
    }
    let own = |(id, policy): (&TenantId, &Policy)| check_policy(&["tenants", "by_id", id.as_str()], policy, kept);
    tenants.by_id.iter().try_for_each(own)
}

/// Whether the path, which starts at the data directory, may lead to what the daemon keeps there.
fn is_own(path: &Path, data_dir: &Path) -> bool {
    const KEPT: [&str; 9] = [
        "headworks.db",
        "headworks.segments",
        "journal",
        "events",
        "stores",
        "stores.json",
        "supervisor-log",
        "headworks.lock",
        "control.sock",
    ];
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let whole = absolute(&data_dir.join(path));
    let Ok(within) = whole.strip_prefix(absolute(data_dir)) else {
        return path.components().any(|part| part == Component::ParentDir);
    };
    let first = within.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    // The database has files beside it, named after it.
    first.is_none_or(|first| {
        KEPT.contains(&&*first) || first.starts_with("headworks.db") || first.starts_with("stores.json")
    }) || path.components().any(|part| part == Component::ParentDir)
}

/// Where a batch goes on to another store, the one before must be able to take it back.
fn check_rollback(at: &[&str], saga: &[StoreName], config: &Config) -> Result<(), Problem> {
    let kind = |name: &StoreName| if *name == StoreName::ONLY { Some(&config.store) } else { config.stores.get(name) };
    let Some((_, before)) = saga.split_last() else { return Ok(()) };
    for (name, store) in before.iter().filter_map(|name| Some((name, kind(name)?))) {
        if store.can_roll_back() {
            continue;
        }
        let how = match store.kind {
            StoreKind::Stdout => "what is printed cannot be taken back: put it last",
            _ => "it has no rollback_url, so that nothing can be taken back there: set one, or put it last",
        };
        let what = format!(
            "names {name} before others, but where one of those fails a batch is taken back from those before: {how}"
        );
        return Err(Problem::new(at.iter().copied(), what));
    }
    Ok(())
}

/// The stores that batches go through: each is there, and is named once.
fn check_saga(at: &[&str], saga: &[StoreName], stores: &BTreeMap<StoreName, StoreConfig>) -> Result<(), Problem> {
    let problem = |what: String| Err(Problem::new(at.iter().copied(), what));
    let valid =
        || [&StoreName::ONLY].into_iter().chain(stores.keys()).map(StoreName::as_str).collect::<Vec<_>>().join(", ");
    if saga.is_empty() {
        return problem(format!("is empty, so that nothing could be stored; valid: a list of {}", valid()));
    }
    for (nth, name) in saga.iter().enumerate() {
        if *name != StoreName::ONLY && !stores.contains_key(name) {
            return problem(format!("names {name}, but there is no [stores.{name}]; valid: {}", valid()));
        }
        if saga[..nth].contains(name) {
            return problem(format!("names {name} twice; a batch is stored there once"));
        }
    }
    Ok(())
}

/// Not all stores prune.
fn check_retention(config: &Config) -> Result<(), Problem> {
    let tenants = &config.tenants;
    let kind = |name: &StoreName| if *name == StoreName::ONLY { Some(&config.store) } else { config.stores.get(name) };
    let other = |saga: &[StoreName]| {
        let of = |name: &StoreName| Some((name.clone(), kind(name)?.kind));
        saga.iter().filter_map(of).find(|(_, kind)| !kind.prunes())
    };
    let refused = |at: &[&str], policy: &Policy, saga: &[StoreName]| {
        let Some((store, kind)) = other(saga).filter(|_| !policy.retention.keeps_all()) else { return Ok(()) };
        let kind = kind.as_str();
        let what = format!(
            "says that stored events are pruned, but their batches go to {store}, which is type = {kind:?} and prunes nothing: \
             choose type = \"sqlite\", \"files\", \"postgres\" or \"object\", or leave the rule out"
        );
        Err(Problem::new(at.iter().copied().chain(["retention"]), what))
    };
    refused(&["tenants", "defaults"], &tenants.defaults, &tenants.stores)?;
    for (nth, rule) in tenants.rules.iter().enumerate() {
        refused(&["tenants", "rules", &nth_rule(nth)], &rule.policy, &tenants.stores)?;
    }
    for id in tenants.by_id.keys().chain(tenants.stores_by_id.keys()) {
        refused(&["tenants", "by_id", id.as_str()], tenants.policy(id), config.effective_stores(id))?;
    }
    Ok(())
}

fn check_source(name: &str, source: &SourceConfig) -> Result<(), Problem> {
    if let Err(why) = TenantId::new(name) {
        let rule = why.to_string().replace("tenant id", "name for a source");
        return Err(Problem::new(["sources", name], format!("cannot be: {rule}")));
    }
    super::sources::check(name, source)?;
    within(["sources", name, "max_frame"], source.max_frame, 16, 1 << 30, |n| size(*n))?;
    within(["sources", name, "max_connections"], source.max_connections, 1, 1_000_000, usize::to_string)?;
    // An IPv4 address in IPv6's clothes is the same place.
    let is_open = !source.allow_beyond_loopback && !source.asks_who();
    if source.listens().is_some() && is_open && !source.listen.ip().to_canonical().is_loopback() {
        let what = format!(
            "is {}, which other machines can reach, and a source asks nobody for a password: listen on 127.0.0.1 or \
             [::1], ask clients for certificates (sources.{name}.tls.client_ca_file), or set \
             sources.{name}.allow_beyond_loopback = true",
            source.listen
        );
        return Err(Problem::new(["sources", name, "listen"], what));
    }
    Ok(())
}

fn check_log(log: &LogConfig) -> Result<(), Problem> {
    within(["log", "supervisor_max_bytes"], log.supervisor_max_bytes, 4 << 10, 1 << 30, |n| size(*n))?;
    within(["log", "supervisor_files"], log.supervisor_files, 1, 1_000, u32::to_string)?;
    if let Some(age) = log.supervisor_max_age {
        within(["log", "supervisor_max_age"], age, Duration::from_secs(60), DAY * 3650, time)?;
    }
    // On its own, a word that is no level is a target for EnvFilter, at the level of everything: `inof` would be valid.
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let problem = |why: String| {
        let valid = "valid is one of off, error, warn, info, debug, trace, or levels by target like \
                     \"info,headworks=debug\"";
        Problem::new(["log", "level"], format!("is {:?}: {why}; {valid}", log.level))
    };
    let mut bare = log.level.split(',').map(str::trim).filter(|word| !word.contains(['=', '[']));
    if let Some(word) = bare.find(|word| !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))) {
        return Err(problem(format!("{word:?} is no level")));
    }
    EnvFilter::builder().parse(&log.level).map(drop).map_err(|why| problem(why.to_string()))
}

fn check_decoder(decoder: &DecoderConfig) -> Result<(), Problem> {
    let fields = [("tenant_field", Some(&decoder.tenant_field)), ("time_field", decoder.time_field.as_ref())];
    for (key, name) in fields {
        if name.is_some_and(|name| name.is_empty() || name.len() > 256) {
            return Err(Problem::new(["decoder", key], "must be the name of a field, from 1 to 256 bytes"));
        }
    }
    if decoder.time_field.as_ref() == Some(&decoder.tenant_field) {
        let what = "is the tenant_field too: one field cannot hold both";
        return Err(Problem::new(["decoder", "time_field"], what));
    }
    Ok(())
}

/// The journal, as far as rules of a tenant count on it.
#[derive(Clone, Copy)]
struct Kept {
    is_durable: bool,
    max_bytes: usize,
}

/// The policy's own sentence begins with its key.
fn check_policy(at: &[&str], policy: &Policy, journal: Kept) -> Result<(), Problem> {
    let overflow = &policy.overflow;
    // The default is no promise that somebody made.
    let is_set = overflow.max_spilled != OverflowPolicy::default().max_spilled;
    if overflow.when_full == WhenFull::Spill && is_set && overflow.max_spilled > journal.max_bytes {
        let what = format!(
            "is {}, but must be at most journal.max_bytes, {}: what is spilled lies in the journal, which would be full first, and that \
             holds everybody",
            size(overflow.max_spilled),
            size(journal.max_bytes)
        );
        return Err(Problem::new(at.iter().copied().chain(["overflow", "max_spilled"]), what));
    }
    let check = policy.check().and_then(|()| overflow.check_journal(journal.is_durable));
    check.map_err(|sentence| {
        let (key, what) = sentence.split_once(' ').unwrap_or((&sentence, ""));
        Problem::new(at.iter().copied().chain(key.split('.')), what)
    })
}

/// As a user would write it: many days are days, not years and months.
pub(super) fn time(duration: &Duration) -> String {
    let days = duration.as_secs() / DAY.as_secs();
    if days > 30 && *duration == DAY * u32::try_from(days).unwrap_or(u32::MAX) {
        return format!("{days}days");
    }
    humantime::format_duration(*duration).to_string()
}

pub(super) fn within<'k, T: PartialOrd, S: Display>(
    path: impl IntoIterator<Item = &'k str>,
    value: T,
    least: T,
    most: T,
    show: impl Fn(&T) -> S,
) -> Result<(), Problem> {
    if value >= least && value <= most {
        return Ok(());
    }
    let what = format!("is {}, but must be from {} to {}", show(&value), show(&least), show(&most));
    Err(Problem::new(path, what))
}
