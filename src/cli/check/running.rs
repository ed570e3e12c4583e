//! In what a configuration differs from that of the daemon that runs.

use headworks::admin::RunningConfig;
use headworks::config::{Config, changes, shown};
use headworks::daemon::Found;

use super::section;
use crate::cli::live::Live;

/// Adds what a daemon on the data directory runs by, where one does and that is another.
pub(super) fn compare(text: &mut String, config: &Config) {
    let path = &config.daemon.data_dir;
    if !path.is_dir() {
        return;
    }
    // Whether it could be looked at is not what was asked.
    let Ok(Found::InUse { holder }) = Found::look(path) else { return };
    let asked = Live::greet(path, holder).and_then(|live| Ok(live.get::<RunningConfig>("/v1/config")?));
    let running = match asked {
        Ok(running) => running,
        Err((_, why)) => {
            return section(text, "The running daemon", vec![("", format!("cannot be asked what it runs by: {why}"))]);
        }
    };
    let differences = changes(&running.config, &shown(config));
    let mut lines: Vec<_> = differences.iter().map(|change| ("differs", change.to_string())).collect();
    if lines.is_empty() {
        lines.push(("same", "it runs by this configuration".to_owned()));
    }
    lines.extend(running.needs_restart.iter().map(|change| ("waits", format!("for its restart: {change}"))));
    lines.extend(running.refused.iter().map(|why| ("refused", why.clone())));
    let by_hand = running.set_at_run_time.iter().flat_map(|(tenant, changes)| {
        changes.iter().map(move |change| ("by hand", format!("tenant {tenant}: {change}, until its end")))
    });
    lines.extend(by_hand);
    section(text, "The running daemon", lines);
}
