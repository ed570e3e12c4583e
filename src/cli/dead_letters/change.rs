//! Replay, edit, purge, export: what each takes, and what it prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;

use headworks::admin::{ExportRequest, LettersAs, PurgeRequest, Purged, ReplayRequest};
use headworks::source::ReplayReport;
use serde::Serialize;

use super::super::data::Data;
use super::super::exit::Exit;
use super::super::say;
use super::super::table::{inert, json};
use super::editor;
use super::filter::{Choice, Filter};

type Failure = (Exit, String);

fn unsaid(why: String) -> Failure {
    (Exit::Usage, why)
}

/// What `headworks dead-letters replay` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    choice: Choice,
    /// At most so many a second
    #[arg(long, value_name = "N", default_value = "1000")]
    rate: NonZeroU32,
    /// Only say what would be replayed
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Ends with 1 where something that was to be replayed was not.
pub(crate) fn replay(data: &Data, args: &ReplayArgs) -> Result<Exit, Failure> {
    let which = args.choice.filter().map_err(unsaid)?;
    let request = ReplayRequest { which, rate: Some(args.rate), dry_run: args.dry_run };
    let asked: BTreeSet<_> = request.which.ids.iter().collect();
    let report = data.replay(&request)?;
    let found = report.chosen + report.cut_short + report.malformed.values().sum::<u64>();
    // What was replayed before is done; what is not there was a slip.
    let mut missing = 0;
    if (asked.len() as u64) > found {
        let store = data.open()?;
        for id in asked {
            missing += u64::from(store.dead_letter(id)?.is_none());
        }
    }
    let text = if args.json { json(&report) } else { Ok(told(&report, missing, args.dry_run)) };
    let text = text.map_err(|why| (Exit::Internal, why.to_string()))?;
    let ReplayReport { refused, malformed, cut_short, interrupted, .. } = &report;
    let is_done = refused.is_empty() && malformed.is_empty() && *cut_short == 0 && missing == 0 && !interrupted;
    Ok(match say(text.as_bytes()) {
        Exit::Ok if !is_done => Exit::Failure,
        said => said,
    })
}

/// `missing`: how many of the ids that were named are no dead letter's.
fn told(report: &ReplayReport, missing: u64, dry_run: bool) -> String {
    let mut text = match dry_run {
        true => format!("{} would be replayed\n", report.chosen),
        false => format!("{} replayed\n", report.replayed),
    };
    let by_reason = [
        (&report.given_up_again, "of them given up again, as new dead letters"),
        (&report.refused, "refused at the door; they stay as they were"),
        (&report.malformed, "still malformed; `headworks dead-letters edit` can mend them"),
    ];
    for (reasons, meaning) in by_reason {
        for (code, letters) in reasons {
            let _ = writeln!(text, "{letters} {code}: {meaning}");
        }
    }
    if report.cut_short > 0 {
        let _ = writeln!(text, "{} of which only the beginning was kept; edit them first", report.cut_short);
    }
    if missing > 0 {
        let _ = writeln!(
            text,
            "{missing} of these ids: there is no such dead letter; `headworks dead-letters list` has them"
        );
    }
    if report.interrupted {
        text += "The daemon stopped before the end; it goes on when it is started again.\n";
    }
    text
}

/// What `headworks dead-letters edit` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EditArgs {
    /// The id, as `list` prints it
    id: String,
    /// Take the new body from this file. A newline at its end is left out, unless the old body has one too
    #[arg(long, value_name = "FILE", conflicts_with = "stdin")]
    body: Option<PathBuf>,
    /// Take the new body from stdin, likewise
    #[arg(long)]
    stdin: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// With neither file nor stdin, and a terminal, $VISUAL or $EDITOR is opened on the body.
pub(crate) fn edit(data: &Data, args: &EditArgs) -> Result<Exit, Failure> {
    let id = &args.id;
    let Some(letter) = data.open()?.dead_letter(id)? else { return Err(super::missing(id)) };
    let old = letter.body.bytes();
    let unread = |what: String| move |why: std::io::Error| (Exit::Io, format!("cannot read {what}: {why}"));
    let mut new = match &args.body {
        Some(file) => std::fs::read(file).map_err(unread(file.display().to_string()))?,
        None if args.stdin => {
            let mut new = vec![];
            std::io::stdin().read_to_end(&mut new).map_err(unread("stdin".to_owned()))?;
            new
        }
        None if std::io::stdin().is_terminal() => editor::edited(old)?,
        None => return Err(unsaid("say where the new body is: --body FILE or --stdin".to_owned())),
    };
    if new.ends_with(b"\n") && !old.ends_with(b"\n") {
        new.pop();
    }
    let (before, after, is_new) = (old.len(), new.len(), new != old);
    if is_new && !data.edit(id, new)? {
        return Err(super::missing(id));
    }
    if args.json {
        return told_json(&Edited { id, edited: is_new, bytes: after, bytes_before: before });
    }
    if !is_new {
        return Ok(say(b"nothing changed\n"));
    }
    let id = inert(id);
    let text = format!(
        "edited: {after} bytes, {before} before; the bytes as they came are kept\nheadworks dead-letters replay {id}\n"
    );
    Ok(say(text.as_bytes()))
}

/// What `headworks dead-letters purge` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    choice: Choice,
    /// Only say how many would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What became of an edit.
#[derive(Serialize)]
struct Edited<'e> {
    id: &'e str,
    edited: bool,
    bytes: usize,
    bytes_before: usize,
}

fn told_json(what: &impl Serialize) -> Result<Exit, Failure> {
    let text = json(what).map_err(|why| (Exit::Internal, why.to_string()))?;
    Ok(say(text.as_bytes()))
}

/// Asks first, on a terminal; without one somebody must have said yes.
pub(crate) fn purge(data: &Data, args: &PurgeArgs) -> Result<Exit, Failure> {
    let which = args.choice.filter().map_err(unsaid)?;
    let request = |dry_run| PurgeRequest { which: which.clone(), dry_run };
    if args.dry_run || !args.yes {
        let letters = data.purge(&request(true))?.letters;
        if args.dry_run && args.json {
            return told_json(&Purged { letters });
        }
        if args.dry_run {
            return Ok(say(format!("{letters} would be purged\n").as_bytes()));
        }
        if !std::io::stdin().is_terminal() {
            return Err(unsaid(format!("nothing was purged: say --yes to purge {letters} dead letters for good")));
        }
        let _ = write!(std::io::stderr(), "Purge {letters} dead letters for good? [y/N] ");
        let mut answer = String::new();
        let _ = std::io::stdin().read_line(&mut answer);
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err((Exit::Failure, "nothing was purged".to_owned()));
        }
    }
    let letters = data.purge(&request(false))?.letters;
    if args.json {
        return told_json(&Purged { letters });
    }
    Ok(say(format!("{letters} purged; the audit goes on counting them\n").as_bytes()))
}

/// What `headworks dead-letters export` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    /// ndjson: one JSON object a line, with everything. raw: the bodies, each with a newline behind it
    #[arg(long = "as", value_name = "ndjson|raw", default_value = "ndjson", value_parser = form)]
    form: LettersAs,
}

fn form(word: &str) -> Result<LettersAs, String> {
    match word {
        "ndjson" => Ok(LettersAs::Ndjson),
        "raw" => Ok(LettersAs::Raw),
        _ => Err("valid: ndjson, raw".to_owned()),
    }
}

pub(crate) fn export(data: &Data, args: &ExportArgs) -> Result<Exit, Failure> {
    let request = ExportRequest { which: args.filter.of(&[]), form: args.form };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    data.export_letters(&request, &mut out)
}

#[cfg(test)]
mod tests {
    use headworks::Code;

    use super::*;

    #[test]
    fn a_replay_tells_what_came_back_and_what_did_not_and_why() {
        let report = ReplayReport {
            chosen: 12,
            replayed: 10,
            given_up_again: [(Code::StorePermanent, 1)].into(),
            refused: [(Code::Muted, 2)].into(),
            malformed: [(Code::BadJson, 3)].into(),
            cut_short: 1,
            interrupted: true,
        };
        let expected = "\
10 replayed
1 store_permanent: of them given up again, as new dead letters
2 muted: refused at the door; they stay as they were
3 bad_json: still malformed; `headworks dead-letters edit` can mend them
1 of which only the beginning was kept; edit them first
The daemon stopped before the end; it goes on when it is started again.
";
        assert_eq!(told(&report, 0, false), expected);
        assert!(told(&report, 0, true).starts_with("12 would be replayed\n"));
        let nothing = told(&ReplayReport::default(), 2, false);
        assert_eq!(
            nothing,
            "0 replayed\n2 of these ids: there is no such dead letter; `headworks dead-letters list` has them\n"
        );
    }
}
