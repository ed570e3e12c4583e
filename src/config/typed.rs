use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    AdminConfig, Config, DaemonConfig, DeadLettersConfig, DecoderConfig, JournalConfig, LimitsConfig, LogConfig,
    MetricsConfig, ReportConfig, SourceConfig, StoreConfig, TapConfig, TenantRule, TenantsConfig, UnknownTenants,
};
use crate::{Policy, StoreName, TenantId, TenantPattern};

/// [`Config`] as it is read, once the tables of single tenants are laid over the defaults.
///
/// A type of its own, so that nobody reads a [`Config`] past that step and past the check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Typed {
    #[serde(default)]
    daemon: DaemonConfig,
    #[serde(default)]
    admin: AdminConfig,
    #[serde(default)]
    log: LogConfig,
    #[serde(default)]
    report: ReportConfig,
    #[serde(default)]
    limits: LimitsConfig,
    #[serde(default)]
    decoder: DecoderConfig,
    sources: Option<BTreeMap<String, SourceConfig>>,
    #[serde(default)]
    journal: JournalConfig,
    #[serde(default)]
    store: StoreConfig,
    #[serde(default)]
    stores: BTreeMap<StoreName, StoreConfig>,
    #[serde(default)]
    dead_letters: DeadLettersConfig,
    #[serde(default)]
    tenants: TypedTenants,
    #[serde(default)]
    metrics: MetricsConfig,
    #[serde(default)]
    tap: TapConfig,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TypedTenants {
    stores: Option<Vec<StoreName>>,
    stores_by_id: BTreeMap<TenantId, Vec<StoreName>>,
    mute: BTreeSet<TenantId>,
    unknown: UnknownTenants,
    catch_all: Option<TenantId>,
    max_spawn_rate: Option<u32>,
    max_spawn_burst: Option<u32>,
    defaults: Policy,
    classes: BTreeMap<String, Policy>,
    rules: Vec<TypedRule>,
    by_id: BTreeMap<TenantId, Policy>,
}

/// A rule, once its own keys are laid over those of its class and the defaults, in a table of their own: beside `match` and
/// `class` an unknown key would pass.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedRule {
    #[serde(rename = "match")]
    pattern: TenantPattern,
    class: Option<String>,
    policy: Policy,
}

impl From<TypedRule> for TenantRule {
    fn from(TypedRule { pattern, class, policy }: TypedRule) -> Self {
        Self { pattern, class, policy }
    }
}

impl From<Typed> for Config {
    fn from(typed: Typed) -> Self {
        let Typed {
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
            tenants,
            metrics,
            tap,
        } = typed;
        let base = TenantsConfig::default();
        let tenants = TenantsConfig {
            stores: tenants.stores.unwrap_or(base.stores),
            stores_by_id: tenants.stores_by_id,
            mute: tenants.mute,
            unknown: tenants.unknown,
            catch_all: tenants.catch_all.unwrap_or(base.catch_all),
            max_spawn_rate: tenants.max_spawn_rate.unwrap_or(base.max_spawn_rate),
            max_spawn_burst: tenants.max_spawn_burst.unwrap_or(base.max_spawn_burst),
            defaults: tenants.defaults,
            classes: tenants.classes,
            rules: tenants.rules.into_iter().map(TenantRule::from).collect(),
            by_id: tenants.by_id,
        };
        let sources = sources.unwrap_or_else(|| Self::default().sources);
        Self {
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
            tenants,
            metrics,
            tap,
        }
    }
}
