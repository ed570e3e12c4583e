//! `headworks report`: what failed since the daemon was started, by tenant and code.

use headworks::admin::FailureReport;
use headworks::supervisor_log;
use headworks::text::{ago, moment, plain, wrap};

use super::data::{Data, Directory};
use super::exit::Exit;
use super::say;
use super::table::{Narrow, Rows, inert, json, screen};

/// What `headworks report` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReportArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Only a running daemon has it.
pub(crate) fn run(data: &Data, args: &ReportArgs) -> Result<Exit, (Exit, String)> {
    let report: FailureReport = match data.directory()? {
        (_, Directory::Live(live)) => {
            live.warn_unless_ready();
            live.get("/v1/report")?
        }
        (path, Directory::Files(_)) => {
            let why = format!(
                "no daemon runs on {}, and the report is in its memory; what failed is in {}: `headworks log`. With `[report] to = \
                 \"file\"` the daemon writes its report to a file every minute",
                path.display(),
                supervisor_log::file(&path).display()
            );
            return Err((Exit::Unavailable, why));
        }
    };
    let text = match args.json {
        true => json(&report).map_err(|why| (Exit::Internal, why.to_string()))?,
        false => render(&report, screen()),
    };
    Ok(say(text.as_bytes()))
}

/// What a screen may do without.
const NARROW: Narrow<'_> =
    Narrow { names: &[], spare: &["the last one said", "5 min", "first", "events"], long: &[("tenant", 12)] };

/// The worst of the last hour first.
fn render(report: &FailureReport, width: Option<usize>) -> String {
    let since = format!("since {}, {}", moment(report.since, report.at), ago(report.since, report.at));
    if report.entries.is_empty() {
        return format!("Nothing failed {since}.\n");
    }
    let mut entries: Vec<_> = report.entries.iter().collect();
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.last_hour, entry.last_at)));
    let names =
        ["tenant", "code", "#1 min", "#5 min", "#hour", "#all", "#events", "first", "last", "the last one said"];
    let mut rows = Rows::new(&names);
    let time = |at| moment(at, report.at).split('.').next().unwrap_or_default().to_owned();
    // The words of what failed matter most: where the screen has no room for them, they stand below.
    let is_narrow = width.is_some_and(|width| width < 130);
    let samples: Vec<_> = entries.iter().map(|entry| plain(&entry.sample).to_owned()).collect();
    for (entry, sample) in entries.into_iter().zip(&samples) {
        rows.push(vec![
            entry.tenant.clone().unwrap_or_else(|| "-".to_owned()),
            entry.code.clone(),
            entry.last_minute.to_string(),
            entry.last_5_minutes.to_string(),
            entry.last_hour.to_string(),
            entry.failures.to_string(),
            entry.events.to_string(),
            time(entry.first_at),
            time(entry.last_at),
            if is_narrow { String::new() } else { sample.clone() },
        ]);
    }
    let table = match width {
        Some(width) if is_narrow => {
            let table = rows.fit(Some(width), &NARROW);
            let mut text = String::new();
            for (nth, line) in table.lines().enumerate() {
                text += &format!("{line}\n");
                let sample = nth.checked_sub(1).and_then(|nth| samples.get(nth)).map(|sample| inert(sample));
                let lines = sample.map(|sample| wrap(&sample, width.saturating_sub(4).max(30))).unwrap_or_default();
                lines.into_iter().for_each(|line| text += &format!("    {line}\n"));
            }
            text
        }
        // In a pipe nothing is shortened.
        _ => rows.render(Some(width.unwrap_or(usize::MAX))),
    };
    format!("failures {since}; times are UTC\n\n{table}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use headworks::UnixMillis;
    use headworks::admin::FailureRow;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_732_276_800_000);

    #[test]
    fn what_failed_most_lately_stands_first_with_its_counts_times_and_sample() {
        let row = |tenant: Option<&str>, last_hour, sample: &str| FailureRow {
            tenant: tenant.map(str::to_owned),
            code: "bad_json".into(),
            failures: 100,
            events: 7,
            last_minute: 1,
            last_5_minutes: 5,
            last_hour,
            first_at: NOW.minus(Duration::from_secs(600)),
            last_at: NOW.minus(Duration::from_secs(1)),
            sample: sample.into(),
            ..FailureRow::default()
        };
        let entries = vec![row(Some("acme"), 8, "a\nb"), row(None, 9, "no JSON.")];
        let report = FailureReport { since: NOW.minus(Duration::from_secs(3_600)), at: NOW, entries };
        let expected = "\
failures since 11:00:00.000, 60 min ago; times are UTC

tenant  code      1 min  5 min  hour  all  events  first     last      the last one said
-       bad_json      1      5     9  100       7  11:50:00  11:59:59  no JSON
acme    bad_json      1      5     8  100       7  11:50:00  11:59:59  a\\nb
";
        assert_eq!(render(&report, None), expected);
        let narrow = render(&report, Some(80));
        assert!(narrow.lines().all(|line| console::measure_text_width(line) <= 80), "{narrow}");
        assert!(narrow.ends_with("11:59:59\n    a\\nb\n"), "{narrow}");
        let nothing = FailureReport { entries: vec![], ..report };
        assert_eq!(render(&nothing, None), "Nothing failed since 11:00:00.000, 60 min ago.\n");
    }
}
