//! `headworks log`: the supervisor log, live or at rest.

use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use headworks::admin::LogRequest;
use headworks::supervisor_log::{self, LogEntry};
use headworks::{TenantId, UnixMillis};

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::encoded;
use super::sentence::{moment, sentence, wrap};
use super::table::{inert, json_line, screen};

/// What `headworks log` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// Only what concerns this tenant
    #[arg(long, value_name = "T")]
    tenant: Option<TenantId>,
    /// Only entries of these kinds, with commas between them: failed,restarted,compensated
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    what: Vec<String>,
    /// Only entries from then on: a time like 2026-11-22T09:00:00Z, or how long ago, like 10m
    #[arg(long, value_name = "TIME|AGO", value_parser = since)]
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

fn since(text: &str) -> Result<UnixMillis, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(UnixMillis::now().minus(ago));
    }
    let time: SystemTime = humantime::parse_rfc3339_weak(text)
        .map_err(|_| "write a time like 2026-11-22T09:00:00Z, or how long ago, like 10m or 2h".to_owned())?;
    Ok(time.into())
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
    text: Text,
    count: usize,
}

impl Printer {
    fn new(is_json: bool) -> Self {
        let is_coloured = io::stdout().is_terminal() && console::colors_enabled();
        Self { is_json, text: Text { width: screen().unwrap_or(80), is_coloured, ..Text::default() }, count: 0 }
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

/// The log as text for a screen.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) width: usize,
    pub(crate) is_coloured: bool,
    /// The last that was told.
    day: String,
    above: Option<LogEntry>,
}

/// The widths of the columns: time, what.
const TIME: usize = 12;
const WHAT: usize = 13;

impl Text {
    /// One entry: time, what, tenant, and a sentence that goes on below. The day is told once.
    pub(crate) fn entry(&mut self, entry: &LogEntry, now: UnixMillis) -> String {
        let mut text = String::new();
        let at = entry.at.to_string();
        let (day, time) = at.split_once('T').unwrap_or(("", &at));
        if day != self.day {
            text += &format!("{day} (UTC)\n");
            day.clone_into(&mut self.day);
        }
        let time = time.trim_end_matches('Z');
        let what = inert(&entry.what).into_owned();
        // A word of a newer version may be longer: then the sentence begins below it.
        let is_long = what.chars().count() > WHAT;
        let word = format!("{what:WHAT$} ");
        let indent = TIME + 2 + WHAT + 1;
        let tenant = entry.tenant.as_ref().map_or(String::new(), |tenant| format!("{tenant}: "));
        let told = inert(&(tenant + &sentence(entry, now, self.above.as_ref()))).into_owned();
        self.above = Some(entry.clone());
        let room = self.width.saturating_sub(indent + 1).max(30);
        let mut lines = wrap(&told, room).into_iter().peekable();
        let word = match (self.is_coloured, colour(&entry.what)) {
            (true, Some(style)) => style.apply_to(word).to_string(),
            _ => word,
        };
        let beside = lines.next_if(|_| !is_long).unwrap_or_default();
        text += &format!("{time:TIME$}  {word}{beside}\n");
        for line in lines {
            text += &format!("{:indent$}{line}\n", "");
        }
        text
    }
}

fn colour(what: &str) -> Option<console::Style> {
    let style = console::Style::new().force_styling(true);
    match what {
        "failed" | "quarantined" | "compensation_failed" | "dead_lettered" | "missed" => Some(style.red()),
        "backing_off" | "parked" => Some(style.yellow()),
        "restarted" | "resumed" | "unparked" | "compensated" | "recovered" => Some(style.green()),
        _ => None,
    }
}

/// An entry in short, for a list of a few of one tenant, below `above`.
pub(crate) fn brief(entry: &LogEntry, above: Option<&LogEntry>, now: UnixMillis, width: usize) -> Vec<String> {
    let at = moment(entry.at, now);
    // Of another day the date counts more than the second: `11-21 23:59`.
    let at = match at.split_once(" on ") {
        Some((time, day)) => format!("{} {}", day.get(5..).unwrap_or(day), time.get(..5).unwrap_or(time)),
        None => at,
    };
    let head = format!("  {at:TIME$}  {:WHAT$} ", inert(&entry.what));
    let indent = console::measure_text_width(&head);
    let lines = wrap(&inert(&sentence(entry, now, above)), width.saturating_sub(indent + 1).max(30));
    let first = |nth: usize| if nth == 0 { head.clone() } else { " ".repeat(indent) };
    lines.into_iter().enumerate().map(|(nth, line)| first(nth) + &line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use headworks::supervisor_log::LogCause;
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_732_233_600_000);

    fn entry(what: &str, millis: i64) -> LogEntry {
        LogEntry {
            at: UnixMillis(NOW.0 + millis),
            tenant: Some("acme".into()),
            actor: "writer".into(),
            what: what.into(),
            batch: Some("0000000000000001/acme/42".into()),
            cause: Some(LogCause { code: "store_permanent".into(), detail: "this row is poison".into() }),
            ..LogEntry::default()
        }
    }

    fn told(entries: &[LogEntry]) -> String {
        let mut text = Text { width: 80, ..Text::default() };
        entries.iter().map(|entry| text.entry(entry, NOW)).collect()
    }

    #[test]
    fn why_it_failed_what_was_rolled_back_and_when_the_next_attempt_is_stand_on_one_screen() {
        let next = Some(NOW.plus(Duration::from_millis(1_400)));
        let entries = [
            LogEntry { attempt: Some(1), next_attempt_at: next, events_kept: 5, ..entry("failed", -2) },
            LogEntry { attempt: Some(2), ..entry("failed", 0) },
            LogEntry { batch_events: 5, compensations_run: 2, attempt: Some(2), ..entry("compensated", 1) },
            LogEntry { batch_events: 5, attempt: Some(2), ..entry("dead_lettered", 2) },
        ];
        let expected = "\
2024-11-21 (UTC)
23:59:59.998  failed        acme: Attempt 1 to store batch 42 failed: this row
                            is poison (store_permanent). Next attempt at
                            00:00:01.400, in 1.4 s.
2024-11-22 (UTC)
00:00:00.000  failed        acme: Attempt 2 to store batch 42 failed: as above
                            (store_permanent). There is no further attempt: the
                            batch is given up.
00:00:00.001  compensated   acme: Batch 42 (5 events) was rolled back: 2
                            compensations ran, none failed. Why: as above
                            (store_permanent).
00:00:00.002  dead_lettered acme: Batch 42 (5 events) was given up after 2
                            attempts and is kept as dead letters: as above
                            (store_permanent).
";
        assert_eq!(told(&entries), expected);
    }

    #[test]
    fn a_panic_a_restart_and_a_quarantine_are_told_with_their_times() {
        let cause = Some(LogCause { code: "actor_panic".into(), detail: "oh no".into() });
        let next = Some(NOW.plus(Duration::from_millis(50)));
        let entry =
            |what: &str| LogEntry { batch: None, cause: cause.clone(), actor: "tenant".into(), ..entry(what, 0) };
        let entries = [
            LogEntry { attempt: Some(1), ..entry("failed") },
            LogEntry { attempt: Some(1), next_attempt_at: next, events_kept: 1, ..entry("backing_off") },
            LogEntry { cause: None, epoch: 2, events_kept: 1, ..entry("restarted") },
            LogEntry { attempt: Some(6), next_attempt_at: next, ..entry("quarantined") },
        ];
        let expected = "\
2024-11-22 (UTC)
00:00:00.000  failed        acme: The tenant failed: oh no (actor_panic).
00:00:00.000  backing_off   acme: A fresh tenant takes over at 00:00:00.050, in
                            50 ms, restart 1 without progress. 1 event is kept
                            meanwhile.
00:00:00.000  restarted     acme: A fresh tenant took over, the 2nd since the
                            start. It goes on with the 1 event kept.
00:00:00.000  quarantined   acme: The tenant is left alone after 6 failures
                            with nothing stored; its next start is at
                            00:00:00.050, in 50 ms. The last failure: oh no
                            (actor_panic).
";
        assert_eq!(told(&entries), expected);
    }

    #[test]
    fn a_word_of_a_newer_version_is_told_with_what_is_known() {
        let newer = LogEntry { actor: "oracle".into(), ..entry("foresaw_something", 0) };
        let text = told(&[newer]);
        let expected =
            "00:00:00.000  foresaw_something \n                            acme: The oracle: this row is poison\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        assert_eq!(since("2024-11-22T00:00:00Z"), Ok(NOW));
        let ago = since("10m").unwrap();
        assert!((UnixMillis::now().0 - ago.0 - 600_000).abs() < 60_000);
        assert!(since("yesterday").unwrap_err().contains("how long ago, like 10m"));
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_screen_and_nothing_of_the_cause_is_lost(
            detail in "[ a-zA-Z0-9日\u{1b}]{0,300}", tenant in "[a-z]{1,64}",
        ) {
            let cause = Some(LogCause { code: "x".into(), detail: detail.clone() });
            let text = told(&[LogEntry { tenant: Some(tenant), cause, ..entry("failed", 0) }]);
            prop_assert!(text.lines().all(|line| console::measure_text_width(line) <= 80), "{text}");
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert!(letters(&text).contains(&letters(&inert(&detail))), "{text}");
        }
    }
}
