//! Another configuration for a daemon that runs.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use headworks_actors::{Cause, Code, Error, System, TenantId, TenantRules, UnixMillis, What};

use super::Daemon;
use crate::config::{Change, Config, ConfigError, Reloadable, ReportTo, Running};

/// What another configuration came to. [`Display`](fmt::Display) is one line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// What is another now.
    pub applied: Vec<Change>,
    /// What the file says beyond that: it needs a restart.
    pub needs_restart: Vec<Change>,
    /// Tenants that were awake and live by other rules now.
    pub tenants: usize,
    /// Tenants that keep the rules that they were given by hand; by the file they would have others now.
    pub kept: Vec<TenantId>,
}

/// Why another configuration changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// What can be changed while the daemon runs does not fit what cannot.
    #[error("{0}; that is so together with what cannot be changed while the daemon runs: restart it for all of it")]
    NeedsRestart(ConfigError),
    /// The rules are refused.
    #[error(transparent)]
    Rules(Error),
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.applied.as_slice() {
            [] => f.write_str("nothing is changed")?,
            applied => write!(f, "changed: {}", listed(applied))?,
        }
        match self.tenants {
            0 => {}
            1 => f.write_str("; 1 tenant lives by other rules now")?,
            tenants => write!(f, "; {tenants} tenants live by other rules now")?,
        }
        if !self.kept.is_empty() {
            write!(f, "; rules given by hand are kept until a restart, of: {}", listed(&self.kept))?;
        }
        match self.needs_restart.as_slice() {
            [] => Ok(()),
            waiting => write!(f, "; needs a restart: {}", listed(waiting)),
        }
    }
}

/// The first of them, and how many more there are.
fn listed<T: fmt::Display>(items: &[T]) -> String {
    const TOLD: usize = 20;
    let told: Vec<_> = items.iter().take(TOLD).map(ToString::to_string).collect();
    let more = if items.len() > TOLD { format!(", and {} more", items.len() - TOLD) } else { String::new() };
    told.join("; ") + &more
}

/// The rules of all tenants, that of the reports among them.
pub(super) fn rules(config: &Config) -> TenantRules {
    let rules = config.tenants.rules();
    let tenant = &config.report.tenant;
    match config.report.to {
        // It is known, whoever else is refused.
        ReportTo::Store => rules.tenant(tenant.clone(), config.effective_policy(tenant)),
        _ => rules,
    }
}

impl Daemon {
    /// What holds now.
    #[must_use]
    pub fn config(&self) -> Config {
        self.running.borrow().config.clone()
    }

    /// Says which file the configuration came from.
    pub fn came_from(&self, file: &Path) {
        self.running.send_modify(|running| Arc::make_mut(running).file = Some(file.to_owned()));
    }

    /// Takes over from `fresh`, which [was read](crate::config::Layers::read), what can be changed while the daemon runs: the
    /// rules, mutes and limits of tenants, the report, the deadline of a stop. No event is lost or delayed by it, no actor and no
    /// connection ends. The certificates of sources are read again, for new connections. The level of the log is its caller's. The supervisor log says what was changed, and what needs a restart.
    ///
    /// Rules and mutes that were given by hand stay: a mute is changed where the file's is.
    ///
    /// # Errors
    /// [`ReloadError`]: nothing is changed.
    pub fn reload(&self, fresh: &Config) -> Result<Reloaded, ReloadError> {
        // One after the other.
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.config();
        let Reloadable { config, applied, waiting } = before.reloaded(fresh).map_err(ReloadError::NeedsRestart)?;
        let set = self.system.set_rules(rules(&config)).map_err(ReloadError::Rules)?;
        admit(&self.system, &before, &config);
        reports.change(&config, &self.system);
        drop(reports);
        self.read_certificates();

        let reloaded = Reloaded { applied, needs_restart: waiting.clone(), tenants: set.changed, kept: set.kept };
        self.running.send_modify(|running| {
            let running = Arc::make_mut(running);
            if !reloaded.applied.is_empty() {
                running.since = UnixMillis::now();
            }
            *running = Running { config, waiting, refused: None, ..running.clone() };
        });
        tracing::info!(target: "headworks", report = %reloaded, "the configuration was read again");
        if !reloaded.applied.is_empty() || !reloaded.needs_restart.is_empty() {
            self.system.note(What::Reloaded, Cause::new(Code::Config, reloaded.to_string()));
        }
        Ok(reloaded)
    }

    /// Has the sources that speak TLS read their files again; one whose files cannot be used goes on as it was.
    fn read_certificates(&self) {
        #[cfg(feature = "tls")]
        for (source, tls) in self.encrypted.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            match tls.reload() {
                Ok(()) => tracing::info!(target: "headworks", source, "the certificates were read again"),
                Err(why) => {
                    tracing::error!(target: "headworks", source, why, "the certificates cannot be used, and those from before stay");
                    self.system.note(What::ReloadRefused, Cause::new(Code::Config, format!("source {source}: {why}")));
                }
            }
        }
    }

    /// Says that a configuration that was read again changes nothing, and why.
    pub fn reload_refused(&self, why: &str) {
        self.running.send_modify(|running| Arc::make_mut(running).refused = Some(why.to_owned()));
        tracing::error!(target: "headworks", why, "the configuration was read again, is not valid, and changes nothing");
        self.system.note(What::ReloadRefused, Cause::new(Code::Config, why));
    }
}

/// Who is let in from now on.
fn admit(system: &System, before: &Config, now: &Config) {
    let (before, tenants) = (&before.tenants, &now.tenants);
    tenants.mute.difference(&before.mute).for_each(|id| system.mute(id));
    before.mute.difference(&tenants.mute).for_each(|id| system.unmute(id));
    system.set_unknown_tenants(tenants.unknown());
    system.set_max_spawn_rate(tenants.spawn_rate());
    system.set_max_tenants(now.limits.max_tenants);
}
