//! `headworks prune`: retention by hand, on a directory at rest and by the daemon that runs.

use headworks::Policy;
use headworks::admin::PruneRequest;
use headworks::config::{Config, environment};
use headworks::daemon::{DaemonError, PruneError, prune_at_rest};
use headworks::retention::Report;
use headworks::units::bytes::display as size;

use super::data::{Data, Directory, database};
use super::exit::Exit;
use super::say;
use super::table::{Rows, json};

/// What `headworks prune` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PruneArgs {
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Write the databases anew afterwards, without the room of what is gone. Needs as much free disk as they take then.
    #[arg(long)]
    vacuum: bool,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// Prunes by the rules of the configuration. A daemon that runs there does it by the rules that it runs by.
pub(crate) fn run(data: &Data, args: &PruneArgs) -> Result<Exit, (Exit, String)> {
    let config = data.config()?;
    let path = data.path()?;
    database(&path)?;
    if let (_, Directory::Live(live)) = data.directory()? {
        if args.vacuum {
            let why = format!(
                "--vacuum writes the databases anew, which needs them for itself; stop the daemon on {} first",
                path.display()
            );
            return Err((Exit::Unavailable, why));
        }
        let report: Report = live.send("POST", "/v1/prune", &PruneRequest { dry_run: args.dry_run })?;
        return told(args, &report, || render(&report, None, args.dry_run));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| (Exit::Internal, format!("cannot start a runtime: {why}")))?;
    let report =
        runtime.block_on(prune_at_rest(&path, &config, args.vacuum, args.dry_run)).map_err(|why| match &why {
            PruneError::Directory(DaemonError::InUse { .. }) => (Exit::Unavailable, why.to_string()),
            _ => (Exit::Io, why.to_string()),
        })?;
    told(args, &report, || render(&report, Some(&config), args.dry_run))
}

fn told(args: &PruneArgs, report: &Report, words: impl FnOnce() -> String) -> Result<Exit, (Exit, String)> {
    let text = if args.json { json(report) } else { Ok(words()) };
    let text = text.map_err(|why| (Exit::Internal, why.to_string()))?;
    Ok(say(text.as_bytes()))
}

impl Data {
    /// The configuration, or the default one.
    fn config(&self) -> Result<Config, (Exit, String)> {
        Config::load(self.file(), environment()).map_err(|why| (Exit::Config, why.to_string()))
    }
}

/// With the configuration that it went by, where that is known here.
fn render(report: &Report, config: Option<&Config>, dry_run: bool) -> String {
    let mut text = String::new();
    if !report.events.is_empty() {
        let mut rows = Rows::new(&["store", "tenant", "#batches", "#events", "#bytes"]);
        for row in &report.events {
            let bytes = size(usize::try_from(row.pruned.bytes).unwrap_or(usize::MAX));
            let (batches, events) = (row.pruned.batches.to_string(), row.pruned.events.to_string());
            rows.push(vec![row.store.to_string(), row.tenant.to_string(), batches, events, bytes]);
        }
        text += &rows.render(Some(usize::MAX));
        text.push('\n');
    }
    for tenant in &report.held_back {
        text += &format!("{tenant} keeps all: compensations are owed to it, see `headworks uncompensated`\n");
    }
    let events: u64 = report.events.iter().map(|row| row.pruned.events).sum();
    let done = if dry_run { "would be pruned" } else { "were pruned" };
    text += &format!("{events} events and {} dead letters {done}.\n", report.dead_letters);
    let keeps_all = |config: &Config| {
        let keeps = |policy: &Policy| policy.retention.keeps_all() && policy.retention.dead_letters_max_age.is_none();
        config.tenants.rules.iter().all(|rule| keeps(&rule.policy))
            && config.tenants.by_id.values().all(keeps)
            && keeps(&config.tenants.defaults)
            && config.dead_letters.max_age.is_none()
    };
    if config.is_some_and(keeps_all) {
        text += "No rule says that anything is to go: see [tenants.defaults.retention] and dead_letters.max_age.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use headworks::retention::{Pruned, PrunedRow};
    use headworks::{StoreName, TenantId};

    use super::*;

    #[test]
    fn what_went_is_told_by_store_and_tenant() {
        let tenant = TenantId::new("acme").unwrap();
        let pruned = Pruned { batches: 2, events: 10, bytes: 2048 };
        let report = Report {
            events: vec![PrunedRow { store: StoreName::ONLY, tenant: tenant.clone(), pruned }],
            dead_letters: 1,
            held_back: [TenantId::new("zen").unwrap()].into(),
        };
        let expected = "\
store  tenant  batches  events  bytes
store  acme          2      10   2KiB

zen keeps all: compensations are owed to it, see `headworks uncompensated`
10 events and 1 dead letters would be pruned.
No rule says that anything is to go: see [tenants.defaults.retention] and dead_letters.max_age.
";
        assert_eq!(render(&report, Some(&Config::default()), true), expected);
    }
}
