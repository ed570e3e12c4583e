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
    /// Files of sources that cannot be used, so that what was read of them before stays; the log says which and why.
    pub files_kept: usize,
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
        match self.files_kept {
            0 => {}
            1 => f.write_str("; 1 file of a source cannot be used, and what was read of it before stays")?,
            files => write!(f, "; {files} files of sources cannot be used, and what was read of them before stays")?,
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
    /// rules, mutes and limits of tenants, the report, how much of the supervisor log is kept, the deadline of a stop. No event is lost or delayed by it, no actor and no
    /// connection ends. The certificates and tokens of sources are read again, for new connections and requests. The level of the log is its caller's. The supervisor log says what was changed, and what needs a restart.
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
        self.log_file.change(&config);
        drop(reports);
        let files_kept = self.read_files();

        let reloaded =
            Reloaded { applied, needs_restart: waiting.clone(), tenants: set.changed, kept: set.kept, files_kept };
        self.running.send_modify(|running| {
            let running = Arc::make_mut(running);
            if !reloaded.applied.is_empty() {
                running.since = UnixMillis::now();
            }
            *running = Running { config, waiting, refused: None, ..running.clone() };
        });
        match reloaded.files_kept {
            0 => tracing::info!(target: "headworks", report = %reloaded, "the configuration was read again"),
            _ => {
                tracing::warn!(target: "headworks", report = %reloaded, "the configuration was read again, but not all of its files")
            }
        }
        if !reloaded.applied.is_empty() || !reloaded.needs_restart.is_empty() {
            self.system.note(What::Reloaded, Cause::new(Code::Config, reloaded.to_string()));
        }
        Ok(reloaded)
    }

    /// Has the sources read their files again; one whose files cannot be used goes on as it was. How many such files there are.
    fn read_files(&self) -> usize {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = 0;
        for (source, files) in files.iter() {
            for (what, read) in files.read_again() {
                match read {
                    Ok(()) => tracing::info!(target: "headworks", source, "the {what} were read again"),
                    Err(why) => {
                        kept += 1;
                        tracing::error!(target: "headworks", source, why, "the {what} cannot be used, and those from before stay");
                        let cause = Cause::new(Code::Config, format!("source {source}: {why}"));
                        self.system.note(What::ReloadRefused, cause);
                    }
                }
            }
        }
        tell_warnings(&files);
        kept
    }

    /// Says that a configuration that was read again changes nothing, and why.
    pub fn reload_refused(&self, why: &str) {
        self.running.send_modify(|running| Arc::make_mut(running).refused = Some(why.to_owned()));
        tracing::error!(target: "headworks", why, "the configuration was read again, is not valid, and changes nothing");
        self.system.note(What::ReloadRefused, Cause::new(Code::Config, why));
    }
}

/// What is to be told of files that can be used.
pub(super) fn tell_warnings(files: &[(String, super::sources::Files)]) {
    let now = std::time::SystemTime::now();
    for (source, why) in files.iter().filter_map(|(source, files)| Some((source, files.warning(now)?))) {
        tracing::warn!(target: "headworks", source, "{why}");
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
