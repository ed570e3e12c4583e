//! `headworks log`: the supervisor log, live or at rest.

use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use headworks::admin::LogRequest;
use headworks::supervisor_log::{self, LogEntry, Screen};
use headworks::text::nearest;
use headworks::{TenantId, UnixMillis};

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::encoded;
use super::table::{json_line, screen};

/// What `headworks log` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// Only what concerns this tenant
    #[arg(long, value_name = "T")]
    tenant: Option<TenantId>,
    /// Only entries of these kinds, with commas between them: failed,restarted,compensated
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = what)]
    what: Vec<String>,
    /// Only entries from then on: a time like 2026-11-22T09:00:00Z, or how long ago, like 10m
    #[arg(long, value_name = "TIME|AGO", value_parser = moment)]
    since: Option<UnixMillis>,
    /// How many at the most, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    last: usize,
    /// With those that say no more than that an actor is alive: started, stopped, idle, active
    #[arg(long)]
    all: bool,
    /// Go on with what comes, until the daemon ends
    #[arg(long)]
    follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

type Failure = (Exit, String);

pub(super) fn moment(text: &str) -> Result<UnixMillis, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(UnixMillis::now().minus(ago));
    }
    let time: SystemTime = humantime::parse_rfc3339_weak(text)
        .map_err(|_| "write a time like 2026-11-22T09:00:00Z, or how long ago, like 10m or 2h".to_owned())?;
    Ok(time.into())
}

/// A kind of entries. One that a newer version alone writes is none here.
fn what(word: &str) -> Result<String, String> {
    let valid = supervisor_log::words();
    if valid.contains(&word) {
        return Ok(word.to_owned());
    }
    let near = nearest(word, &valid).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    Err(format!("there are no such entries; valid: {}{near}", valid.join(", ")))
}

impl LogArgs {
    fn request(&self) -> LogRequest {
        LogRequest {
            tenant: self.tenant.clone(),
            what: Some(self.what.join(",")).filter(|what| !what.is_empty()),
            since: self.since.map(|since| since.0),
            last: Some(self.last),
            follow: self.follow,
            brief: !self.all && self.what.is_empty(),
            sentences: false,
        }
    }

    fn url(&self) -> String {
        let LogRequest { tenant, what, since, brief, .. } = self.request();
        let parts = [
            tenant.map(|tenant| format!("&tenant={}", encoded(tenant.as_str()))),
            what.map(|what| format!("&what={}", encoded(&what))),
            since.map(|since| format!("&since={since}")),
        ];
        let parts: String = parts.into_iter().flatten().collect();
        format!("/v1/log?last={}&follow={}&brief={brief}{parts}", self.last, self.follow)
    }
}

/// Ends with 1 where there is nothing to follow.
pub(crate) fn run(data: &Data, args: &LogArgs) -> Result<Exit, Failure> {
    let (path, directory) = data.directory()?;
    let mut printer = Printer::new(args.json);
    match directory {
        Directory::Live(live) => {
            let mut lines = Lines { pending: vec![], printer };
            let copied = live.copy(&args.url(), &mut lines)?;
            printer = lines.printer;
            if args.follow && copied.is_ok() {
                note("the daemon has ended: nothing follows");
            }
            written(copied.and_then(|()| printer.end()))
        }
        Directory::Files(_) if args.follow => {
            let why = "no daemon writes to it, so that nothing will follow; leave --follow out to see what there is";
            Err((Exit::Failure, format!("cannot follow the supervisor log of {}: {why}", path.display())))
        }
        Directory::Files(_at_rest) => {
            let file = supervisor_log::file(&path);
            if !file.exists() {
                let why = "name the directory that `headworks run --data DIR` writes to";
                return Err((Exit::Failure, format!("there is no supervisor log {}: {why}", file.display())));
            }
            let found = supervisor_log::read(&file, &args.request().query(), args.last);
            let found = found.map_err(|why| (Exit::Io, format!("cannot read {}: {why}", file.display())))?;
            let printed = found.entries.iter().try_for_each(|entry| printer.print(entry));
            let end = written(printed.and_then(|()| printer.end()));
            if found.unread > 0 {
                let lines = if found.unread == 1 { "1 line".to_owned() } else { format!("{} lines", found.unread) };
                note(&format!("{lines} of the log could not be read and are left out: a crash may tear the last one"));
            }
            end
        }
    }
}

fn written(written: io::Result<()>) -> Result<Exit, Failure> {
    let why = written.as_ref().err().map(ToString::to_string);
    match (Exit::after_writing(written), why) {
        (Exit::Ok, _) => Ok(Exit::Ok),
        (exit, why) => Err((exit, format!("cannot write to stdout: {}", why.unwrap_or_default()))),
    }
}

fn note(text: &str) {
    // Where stderr is gone, there is nobody to tell.
    let _ = writeln!(io::stderr(), "headworks: {text}");
}

/// Takes bytes, prints the entries in them.
struct Lines {
    pending: Vec<u8>,
    printer: Printer,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        let end = memchr::memrchr(b'\n', &self.pending).map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.pending.drain(..end).collect();
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let entry = serde_json::from_slice(line).map_err(io::Error::other)?;
            self.printer.print(&entry)?;
        }
        io::stdout().flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Prints entries as they come.
struct Printer {
    is_json: bool,
    text: Screen,
    count: usize,
}

impl Printer {
    fn new(is_json: bool) -> Self {
        let is_coloured = io::stdout().is_terminal() && console::colors_enabled();
        Self { is_json, text: Screen::new(screen().unwrap_or(80)).coloured(is_coloured), count: 0 }
    }

    fn print(&mut self, entry: &LogEntry) -> io::Result<()> {
        let text = if self.is_json { json_line(entry)? } else { self.text.entry(entry, UnixMillis::now()) };
        self.count += 1;
        io::stdout().write_all(text.as_bytes())
    }

    fn end(&self) -> io::Result<()> {
        if self.count == 0 && !self.is_json {
            note("no entry of the supervisor log matches");
        }
        io::stdout().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_732_233_600_000);

    #[test]
    fn a_kind_of_entries_that_is_none_is_refused_with_those_that_are_and_the_nearest() {
        assert_eq!(what("quarantined").as_deref(), Ok("quarantined"));
        let why = what("quarantine").unwrap_err();
        assert!(why.contains("valid: active, ") && why.ends_with("did you mean \"quarantined\"?"), "{why}");
        assert!(!what("nonsense").unwrap_err().contains("did you mean"));
        for word in supervisor_log::words() {
            assert_eq!(what(word).as_deref(), Ok(word));
        }
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        assert_eq!(moment("2024-11-22T00:00:00Z"), Ok(NOW));
        let ago = moment("10m").unwrap();
        assert!((UnixMillis::now().0 - ago.0 - 600_000).abs() < 60_000);
        assert!(moment("yesterday").unwrap_err().contains("how long ago, like 10m"));
    }
}
