//! `headworks uncompensated`: what a store may still hold of batches that were given up.

use headworks::admin::{Inspect, JournalFiles, UncompensatedRow};
use headworks::text::{ago, count, due, moment, plain, wrap};
use headworks::{TenantId, UnixMillis};

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::encoded;
use super::say;
use super::table::{inert, json, screen};

/// What `headworks uncompensated` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UncompensatedArgs {
    /// Only what concerns this tenant
    #[arg(long, value_name = "T")]
    tenant: Option<TenantId>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Asks the daemon; at rest, the journal.
pub(crate) fn run(data: &Data, args: &UncompensatedArgs) -> Result<Exit, (Exit, String)> {
    let (path, directory) = data.directory()?;
    let is_live = matches!(directory, Directory::Live(_));
    let mut rows: Vec<UncompensatedRow> = match directory {
        Directory::Live(live) => {
            let tenant = args.tenant.as_ref().map(|tenant| format!("?tenant={}", encoded(tenant.as_str())));
            live.get(&format!("/v1/uncompensated{}", tenant.unwrap_or_default()))?
        }
        Directory::Files(_at_rest) => {
            let journal = path.join("journal");
            if !journal.is_dir() {
                let why = format!(
                    "no daemon runs on {}, and it has no journal: what could not be undone was known to the process alone; its \
                     supervisor log says what failed: `headworks log --what compensation_failed`",
                    path.display()
                );
                return Err((Exit::Failure, why));
            }
            let summary = JournalFiles::new(journal).summary().map_err(|why| (Exit::Io, why.to_string()))?;
            summary.tenants.into_iter().flat_map(|told| told.uncompensated).collect()
        }
    };
    rows.retain(|row| args.tenant.as_ref().is_none_or(|tenant| row.tenant == tenant.as_str()));
    let text = match args.json {
        true => json(&rows).map_err(|why| (Exit::Internal, why.to_string()))?,
        false => render(&rows, is_live, UnixMillis::now(), screen().unwrap_or(80)),
    };
    Ok(say(text.as_bytes()))
}

/// When one is tried again.
pub(crate) fn next_try(row: &UncompensatedRow, now: UnixMillis) -> String {
    let tried =
        if row.tries == 0 { String::new() } else { format!("{} since then failed; ", count(row.tries.into(), "try")) };
    match row.next_at {
        Some(at) => format!("{tried}the next is {}", due(at, now)),
        None => format!("{tried}it is tried again"),
    }
}

/// A paragraph for each: a cause is too long for a table.
fn render(rows: &[UncompensatedRow], is_live: bool, now: UnixMillis, width: usize) -> String {
    if rows.is_empty() {
        return "Nothing: every batch that was given up is undone in every store.\n".to_owned();
    }
    let mut text = String::new();
    for row in rows {
        let since = format!("since {}, {}", moment(row.since, now), ago(row.since, now));
        let next = if is_live { next_try(row, now) } else { "the next start of the daemon tries it again".to_owned() };
        text += &format!("{}\n", inert(&format!("{}: {} in {}", row.batch, row.what, row.store)));
        // The line above says that already.
        let said = format!("{} of batch {} in {}: ", row.what, row.batch, row.store);
        let detail = row.cause.detail.strip_prefix(&said).unwrap_or(&row.cause.detail);
        let why = format!("{} ({}).", plain(detail), row.cause.code);
        for line in [format!("{since}; {next}."), why].iter().flat_map(|line| wrap(&inert(line), width.max(34) - 4)) {
            text += &format!("    {line}\n");
        }
    }
    let left = count(rows.len() as u64, "compensation");
    let end = format!("{left} not done yet: the stores above may still hold events that were given up.");
    text.extend(wrap(&end, width.max(30)).into_iter().map(|line| line + "\n"));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use headworks::supervisor_log::LogCause;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_732_276_800_000);

    fn row() -> UncompensatedRow {
        UncompensatedRow {
            tenant: "acme".into(),
            batch: "0000000000000001/acme/3".into(),
            store: "archive".into(),
            what: "rollback".into(),
            since: NOW.minus(Duration::from_secs(90)),
            tries: 2,
            next_at: Some(NOW.plus(Duration::from_secs(4))),
            cause: LogCause {
                code: "compensation_failed".into(),
                detail: "rollback of batch 0000000000000001/acme/3 in archive: the disk is\nread-only".into(),
            },
        }
    }

    #[test]
    fn each_says_which_batch_in_which_store_since_when_when_next_and_why() {
        let expected = "\
0000000000000001/acme/3: rollback in archive
    since 11:58:30.000, 90 s ago; 2 tries since then failed; the next is at
    12:00:04.000, in 4.0 s.
    the disk is\\nread-only (compensation_failed).
1 compensation not done yet: the stores above may still hold events that were
given up.
";
        assert_eq!(render(&[row()], true, NOW, 80), expected);
        let rest = render(&[row()], false, NOW, 80);
        assert!(rest.contains("90 s ago; the next start of the daemon tries it again.\n"), "{rest}");
        assert!(render(&[], true, NOW, 80).starts_with("Nothing: "));
    }
}
