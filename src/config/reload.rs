//! What of another configuration a running daemon can take over.

use super::diff::{Change, changes, shown};
use super::{Config, ConfigError, DaemonConfig, DeadLettersConfig, LimitsConfig, LogConfig, TenantsConfig};

/// A configuration as far as it can be changed while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloadable {
    /// The running one with what can be changed as in the fresh one.
    pub config: Config,
    /// In what it differs from the running one.
    pub applied: Vec<Change>,
    /// In what the fresh one still differs from it: that needs a restart.
    pub waiting: Vec<Change>,
}

impl Config {
    /// What comes of `fresh` while this one runs: the rules, the mutes and the limits of tenants, what is pruned and how often, the
    /// report, the tap, the level of the log, how much of the supervisor log is kept, and the deadline of a stop change at once; all else with
    /// the next start.
    ///
    /// # Errors
    /// What can be changed does not fit what cannot, so that a restart is needed for all of it.
    pub fn reloaded(&self, fresh: &Self) -> Result<Reloadable, ConfigError> {
        let running = self.clone();
        let tenants = TenantsConfig {
            stores: running.tenants.stores,
            stores_by_id: running.tenants.stores_by_id,
            ..fresh.tenants.clone()
        };
        let config = Self {
            daemon: DaemonConfig { drain_deadline: fresh.daemon.drain_deadline, ..running.daemon },
            log: LogConfig { format: running.log.format, ..fresh.log.clone() },
            report: fresh.report.clone(),
            limits: LimitsConfig { max_tenants: fresh.limits.max_tenants, ..running.limits },
            retention: fresh.retention.clone(),
            dead_letters: DeadLettersConfig { max_age: fresh.dead_letters.max_age, ..running.dead_letters },
            tenants,
            tap: fresh.tap.clone(),
            ..running
        };
        config.check()?;
        let [before, now, then] = [self, &config, fresh].map(shown);
        Ok(Reloadable { config, applied: changes(&before, &now), waiting: changes(&now, &then) })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Layers;

    fn reloaded(from: &str, to: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let read = |text: &str| Layers::default().toml("f", text).read().unwrap();
        let reloadable = read(from).reloaded(&read(to)).map_err(|why| why.to_string())?;
        let keys = |changes: Vec<super::Change>| changes.into_iter().map(|change| change.key).collect();
        Ok((keys(reloadable.applied), keys(reloadable.waiting)))
    }

    #[test]
    fn what_can_change_does_and_the_rest_is_named() {
        let to = "
[daemon]
data_dir = '/elsewhere'
drain_deadline = '1s'
[log]
level = 'debug'
format = 'json'
supervisor_max_age = '1day'
[report]
every = '5s'
[limits]
max_tenants = 5
max_in_flight = '2MiB'
[sources.tcp]
listen = '127.0.0.1:7500'
[tenants]
mute = ['spam']
stores = ['archive']
[tenants.defaults]
window.max_events = 7
[stores.archive]
";
        let (applied, waiting) = reloaded("", to).unwrap();
        let expected = [
            "daemon.drain_deadline",
            "limits.max_tenants",
            "log.level",
            "log.supervisor_max_age",
            "report.every",
            "tenants.defaults.window.max_events",
            "tenants.mute",
        ];
        assert_eq!(applied, expected);
        let expected = [
            "daemon.data_dir",
            "limits.max_in_flight",
            "log.format",
            "sources.tcp.listen",
            "stores.archive",
            "tenants.stores",
        ];
        assert_eq!(waiting, expected);
    }

    #[test]
    fn what_does_not_fit_what_cannot_change_is_refused() {
        let to = "[tenants.defaults]\noverflow.when_full = 'spill'";
        let why = reloaded("journal.type = 'memory'", to).unwrap_err();
        assert!(why.starts_with("tenants.defaults.overflow.when_full is \"spill\""), "{why}");
    }
}
