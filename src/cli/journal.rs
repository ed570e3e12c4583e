use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use headworks::TenantId;
use headworks::admin::{ExportAs, Inspect, JournalFiles, JournalSummary, Verdict};
use headworks::daemon::AtRest;

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::{Live, encoded};
use super::say;
use super::table::{Narrow, Rows, inert, json, prose, screen};

type Failure = (Exit, String);

/// What `headworks journal` does.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Journal {
    /// Say what it holds: segments, what is unsettled of each tenant, streams, damage
    Inspect {
        #[command(flatten)]
        data: Data,
        /// Print one JSON document instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Read and check every block; 1 where something is damaged
    Verify {
        #[command(flatten)]
        data: Data,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Write the bodies of unsettled events to stdout, one a line, by tenant and in order: for a rescue
    Export {
        #[command(flatten)]
        data: Data,
        /// Only those of this tenant
        #[arg(long, value_name = "T")]
        tenant: Option<TenantId>,
        /// Write one JSON object a line: tenant, times and body, which may then hold newlines
        #[arg(long)]
        json: bool,
    },
}

/// Who answers for the journal. Its files are read under the lock of the directory.
enum Source {
    Live(Live),
    Files {
        files: JournalFiles,
        /// Kept for as long as the files are read.
        _at_rest: AtRest,
    },
}

fn open(data: &Data) -> Result<(PathBuf, Source), Failure> {
    let (path, directory) = data.directory()?;
    let path = path.join("journal");
    let source = match directory {
        Directory::Live(live) => Source::Live(live),
        Directory::Files(at_rest) => Source::Files { files: files(&path)?, _at_rest: at_rest },
    };
    Ok((path, source))
}

fn files(path: &Path) -> Result<JournalFiles, Failure> {
    if path.is_dir() {
        return Ok(JournalFiles::new(path.to_owned()));
    }
    let why = "name the directory that `headworks run --data DIR` writes to; where the journal is kept in memory there is none";
    Err((Exit::Failure, format!("there is no journal {}: {why}", path.display())))
}

impl Source {
    fn summary(&self) -> Result<JournalSummary, Failure> {
        match self {
            Self::Live(live) => Ok(live.get("/v1/journal")?),
            Self::Files { files, .. } => files.summary().map_err(unread),
        }
    }

    fn verify(&self) -> Result<Verdict, Failure> {
        match self {
            Self::Live(live) => Ok(live.get("/v1/journal/verify")?),
            Self::Files { files, .. } => files.verify().map_err(unread),
        }
    }

    fn export(&self, tenant: Option<&TenantId>, form: ExportAs, out: &mut dyn Write) -> Result<Exit, Failure> {
        match self {
            Self::Live(live) => {
                let tenant = tenant.map_or_else(String::new, |tenant| format!("&tenant={}", encoded(tenant.as_str())));
                let copied = live.copy(&format!("/v1/journal/export?as={form}{tenant}"), out)?;
                Ok(Exit::after_writing(copied))
            }
            Self::Files { files, .. } => {
                files.export(tenant, form, out).map_err(unread)?;
                Ok(Exit::after_writing(out.flush()))
            }
        }
    }
}

fn unread(why: headworks::JournalError) -> Failure {
    (Exit::Io, why.to_string())
}

/// Ends with 1 where `verify` finds damage.
pub(crate) fn run(journal: &Journal) -> Result<Exit, Failure> {
    match journal {
        Journal::Inspect { data, json: as_json } => {
            let (path, source) = open(data)?;
            let summary = source.summary()?;
            Ok(say(if *as_json { document(&summary)? } else { inspected(&path, &summary) }.as_bytes()))
        }
        Journal::Verify { data, json: as_json } => {
            let (path, source) = open(data)?;
            let verdict = source.verify()?;
            Ok(match say(if *as_json { document(&verdict)? } else { verified(&path, &verdict) }.as_bytes()) {
                Exit::Ok if !verdict.is_whole => Exit::Failure,
                said => said,
            })
        }
        Journal::Export { data, tenant, json } => {
            let form = if *json { ExportAs::Json } else { ExportAs::Lines };
            let mut out = BufWriter::with_capacity(64 << 10, Stdout::default());
            let exported = open(data)?.1.export(tenant.as_ref(), form, &mut out);
            // A reader that has had enough is no failure of the journal.
            if out.get_ref().is_left { Ok(Exit::Ok) } else { exported }
        }
    }
}

fn document(value: &impl serde::Serialize) -> Result<String, Failure> {
    json(value).map_err(|why| (Exit::Internal, why.to_string()))
}

/// Stdout that remembers whether its reader has gone.
#[derive(Default)]
pub(super) struct Stdout {
    pub(super) is_left: bool,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = std::io::stdout().write(bytes);
        self.is_left |= written.as_ref().is_err_and(|why| why.kind() == std::io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}

/// What a screen may do without.
const NARROW: Narrow<'_> = Narrow {
    names: &[("dead-lettered", "dead"), ("discarded", "dropped"), ("perhaps stored", "perhaps")],
    spare: &["shed", "dropped", "dead", "chunks", "perhaps", "blocks"],
    long: &[("tenant", 11), ("stream", 24)],
};

fn inspected(path: &Path, summary: &JournalSummary) -> String {
    let JournalSummary { segments, tenants, streams, .. } = summary;
    let mut rows = Rows::new(&["segment", "#bytes", "#first block", "#blocks", "#unsettled bytes"]);
    for segment in segments {
        let numbers = [segment.bytes, segment.first_block, segment.blocks, segment.live_bytes];
        rows.push([segment.number].into_iter().chain(numbers).map(|number| number.to_string()).collect());
    }
    let mut text = rows.fit(screen(), &NARROW) + "\n";
    let mut rows = Rows::new(&[
        "tenant",
        "#accepted",
        "#stored",
        "#dead-lettered",
        "#shed",
        "#discarded",
        "#in flight",
        "#chunks",
        "#batches",
        "#perhaps stored",
    ]);
    for tenant in tenants {
        let events = &tenant.events;
        let settled = [events.stored, events.dead_lettered, events.shed, events.discarded];
        let numbers = [events.accepted].into_iter().chain(settled).chain([
            events.in_flight,
            tenant.chunks,
            tenant.batches,
            tenant.batches_open,
        ]);
        rows.push([tenant.tenant.to_string()].into_iter().chain(numbers.map(|n| n.to_string())).collect());
    }
    text += &rows.fit(screen(), &NARROW);
    if !streams.is_empty() {
        let mut rows = Rows::new(&["stream", "#position", "at"]);
        for stream in streams {
            rows.push(vec![stream.stream.to_string(), stream.position.to_string(), stream.at.clone()]);
        }
        text += &format!("\n{}", rows.fit(screen(), &NARROW));
    }
    let closed = if summary.was_closed { "closed" } else { "not closed: in use, or left by a crash" };
    let (disk, live) = (summary.disk_bytes, summary.live_bytes);
    let mut end = format!("\n{}: {disk} bytes, {live} of them of unsettled events; {closed}\n", path.display());
    if let Some(why) = &summary.failing {
        end += &format!("FAILING: {}; no events are taken until it can be written\n", inert(why));
    }
    text + &prose(&(end + &flaws(summary.torn_bytes, &summary.damage)), screen())
}

fn verified(path: &Path, verdict: &Verdict) -> String {
    let said = if verdict.is_whole { "nothing is damaged" } else { "DAMAGED" };
    let blocks = verdict.blocks;
    let blocks = format!("{blocks} whole block{}", if blocks == 1 { "" } else { "s" });
    format!("{}: {blocks}; {said}\n{}", path.display(), flaws(verdict.torn_bytes, &verdict.damage))
}

fn flaws(torn_bytes: u64, damage: &[String]) -> String {
    let mut text = String::new();
    if torn_bytes > 0 {
        text += &format!("the end is torn: {torn_bytes} bytes that were never committed, which is no damage\n");
    }
    for damage in damage {
        text += &format!("damage: {}\n", inert(damage));
    }
    text
}
