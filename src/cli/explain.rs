//! `headworks explain`: everything about one tenant on one screen.

use headworks::admin::{ExplainedBatch, ExplainedFailure, ExplainedWindow, Explanation};
use headworks::units::bytes::display as size;
use headworks::{TenantId, UnixMillis};

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::encoded;
use super::log::brief;
use super::say;
use super::sentence::{ago, count, due, moment, plain, wrap};
use super::table::{inert, json, screen};

/// What `headworks explain` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExplainArgs {
    /// Which tenant
    tenant: TenantId,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Ends with 1 where there is no such tenant.
pub(crate) fn run(data: &Data, args: &ExplainArgs) -> Result<Exit, (Exit, String)> {
    let (path, directory) = data.directory()?;
    let explanation: Explanation = match directory {
        Directory::Live(live) => live.get(&format!("/v1/tenants/{}/explain", encoded(args.tenant.as_str())))?,
        Directory::Files(_at_rest) => {
            let found = Explanation::at_rest(&path, &args.tenant).map_err(|why| (Exit::Io, why))?;
            let tenant = &args.tenant;
            let none =
                || format!("there is no tenant {tenant} in {}: no event, no dead letter, no entry", path.display());
            found.ok_or_else(|| (Exit::Failure, none()))?
        }
    };
    let text = match args.json {
        true => json(&explanation).map_err(|why| (Exit::Internal, why.to_string()))?,
        false => render(&explanation, screen().unwrap_or(80)),
    };
    Ok(say(text.as_bytes()))
}

/// The width of the names on the left.
const NAME: usize = 10;
/// So many codes of failures are told; the worst first.
const CODES: usize = 3;

/// The screen.
pub(crate) fn render(told: &Explanation, width: usize) -> String {
    let now = told.at;
    let mut screen = Screen { width, text: String::new() };
    screen.line("tenant", &format!("{}: {}", told.tenant, standing(told)));
    screen.line(
        "",
        &format!("read at {now}{}", if told.is_live { "" } else { "; no daemon runs, so these are its files" }),
    );
    if told.is_muted {
        screen.line("", "MUTED: its events are dropped at the door");
    }
    if let Some(window) = &told.window {
        screen.line("window", &window_told(window, now));
    }
    screen.line("backlog", &backlog(told));
    if let Some(batch) = &told.batch {
        screen.line("batch", &format!("{}, {}, {}", batch.id, count(batch.events, "event"), bytes(batch.bytes)));
        screen.line("attempt", &attempt(batch, now));
        if let Some(cause) = &batch.last_cause {
            screen.line("why", &format!("{} ({})", plain(&cause.detail), cause.code));
        }
        if !batch.undo_steps.is_empty() {
            screen.line("undo", &format!("if it is given up: {}, then the rollback", batch.undo_steps.join(", ")));
        }
    }
    if !told.actors.is_empty() {
        let actors = told.actors.iter().map(|actor| {
            let status = actor.status.as_deref().unwrap_or("running");
            format!("{} {status}, restarted {}", actor.actor, times(actor.epoch))
        });
        screen.line("actors", &actors.collect::<Vec<_>>().join("; "));
    }
    counters(&mut screen, told);
    failures(&mut screen, told);
    let done = &told.compensations;
    if done.batches + done.run + done.failed > 0 {
        let since = done.since.map_or(String::new(), |since| format!(" since {}", moment(since, now)));
        let failed = if done.failed > 0 { format!(", {} FAILED", done.failed) } else { String::new() };
        let (batches, run) = (count(done.batches, "batch"), count(done.run, "compensation"));
        screen.line("rollbacks", &format!("{batches} rolled back{since}: {run} ran{failed}"));
    }
    if !told.log.is_empty() {
        screen.text += &format!("log        the newest; more with `headworks log --tenant {}`\n", told.tenant);
        // As many as fit a screen of a troubled tenant, whole entries, the newest.
        let entries: Vec<_> = told.log.iter().map(|entry| brief(entry, now, width)).collect();
        let room = 34usize.saturating_sub(screen.text.lines().count()).max(6);
        let mut taken = 0;
        let fits = entries.iter().rev().take_while(|lines| {
            taken += lines.len();
            taken <= room
        });
        let fits = fits.count().max(1);
        for line in entries.iter().skip(entries.len().saturating_sub(fits)).flatten() {
            screen.text += &format!("{line}\n");
        }
    }
    screen.text
}

/// Lines with a name on the left.
struct Screen {
    width: usize,
    text: String,
}

impl Screen {
    fn line(&mut self, name: &str, value: &str) {
        let room = self.width.saturating_sub(NAME + 2).max(30);
        for (nth, line) in wrap(&inert(value), room).into_iter().enumerate() {
            self.text += &format!("{:NAME$} {line}\n", if nth == 0 { name } else { "" });
        }
    }
}

/// The status, and what it means here.
fn standing(told: &Explanation) -> String {
    let until = |what: &str| told.restart_at.map_or(what.to_owned(), |at| format!("{what} {}", due(at, told.at)));
    let status = told.status.as_str();
    match status {
        "dormant" => "dormant, no event has come yet".to_owned(),
        "active" => "active, its events move".to_owned(),
        "idle" => "idle, no event lately".to_owned(),
        "retrying" => "retrying, its store failed and is tried again".to_owned(),
        "parked" => "parked, its store is not there; nothing is given up".to_owned(),
        "compensating" => "compensating, a batch was given up and is rolled back or kept as dead letters".to_owned(),
        "restarting" => until("restarting, an actor failed; a fresh one takes over"),
        "quarantined" => until("quarantined, its actors failed too often; its events wait; the next start is"),
        "stopped" => "stopped".to_owned(),
        "unknown" if told.is_live => "not met since the daemon was started".to_owned(),
        "unknown" => "at rest".to_owned(),
        other => other.to_owned(),
    }
}

fn window_told(window: &ExplainedWindow, now: UnixMillis) -> String {
    let ExplainedWindow { events, max_events, bytes: body_bytes, max_bytes, due_at, .. } = window;
    if *events == 0 {
        return format!("empty; closes at {}, {} or by age", count(*max_events, "event"), bytes(*max_bytes));
    }
    let due = due_at.map_or(String::new(), |at| format!("; closes {} at the latest", due(at, now)));
    format!("{events} of {max_events} events, {} of {}{due}", bytes(*body_bytes), bytes(*max_bytes))
}

fn backlog(told: &Explanation) -> String {
    let backlog = &told.backlog;
    let unread = match backlog.unread {
        0 => String::new(),
        unread => format!("; {} of an earlier process are yet to be read back", count(unread, "event")),
    };
    if backlog.batches == 0 && (told.is_live || backlog.events == 0) {
        return format!("nothing waits to be stored{unread}");
    }
    if !told.is_live {
        let open = match backlog.batches_open {
            0 => String::new(),
            open => format!(", {open} of which may be in the store already"),
        };
        let (events, batches) = (count(backlog.events, "event"), count(backlog.batches, "batch"));
        return format!(
            "{events} on record and not stored yet, in {batches} cut{open}; the next start goes on with them"
        );
    }
    let oldest = backlog.oldest_at.map_or(String::new(), |at| format!("; the oldest event came {}", ago(at, told.at)));
    let (batches, events) = (count(backlog.batches, "batch"), count(backlog.events, "event"));
    format!("{batches}, {events}, {}{oldest}{unread}", bytes(backlog.bytes))
}

fn attempt(batch: &ExplainedBatch, now: UnixMillis) -> String {
    let ExplainedBatch { attempt, attempts_spent: spent, attempts_allowed: allowed, .. } = batch;
    let spent = format!("{spent} of {allowed} attempts failed");
    let at = if batch.is_given_up {
        "it is given up: rolled back, then kept as dead letters".to_owned()
    } else if let Some(since) = batch.open_since {
        format!("number {attempt} is under way, begun {}", ago(since, now))
    } else if let Some(at) = batch.next_attempt_at {
        let next = if batch.is_parked { "the store is asked again" } else { "the next is due" };
        format!("{next} {}", due(at, now))
    } else {
        "the next is due now".to_owned()
    };
    format!("{spent}; {at}")
}

fn counters(screen: &mut Screen, told: &Explanation) {
    let of = |name: &str| told.counters.get(name).copied().unwrap_or_default();
    // The sums of the accounting, without what is nothing.
    let sum = |whole: &str, parts: &[&str]| {
        let parts = parts.iter().filter(|name| of(name) > 0);
        let parts: Vec<_> = parts.map(|name| format!("{} {}", of(name), name.replace('_', " "))).collect();
        let parts = if parts.is_empty() { "nothing yet".to_owned() } else { parts.join(" + ") };
        format!("{} {whole} = {parts}", of(whole))
    };
    if told.counters.contains_key("received") {
        let parts = ["accepted", "duplicate", "muted", "throttled", "rejected", "malformed"];
        screen.line("frames", &sum("received", &parts));
    }
    if told.counters.contains_key("accepted") {
        screen.line("events", &sum("accepted", &["stored", "dead_lettered", "shed", "discarded", "in_flight"]));
    }
    if told.is_live {
        let (batches, failed, restarts) = (of("batches"), of("attempts_failed"), of("restarts"));
        let (failed, restarts) = (count(failed, "failed attempt"), count(restarts, "restart"));
        screen.line("counted", &format!("{} stored, {failed}, {restarts}", count(batches, "batch")));
    }
    if let Some(row) = &told.stored {
        let (events, letters) = (count(row.events, "event"), count(row.dead_letters, "dead letter"));
        let last = row.last_arrived.as_deref().map_or(String::new(), |at| format!("; the last event came {at}"));
        screen.line("store", &format!("{events}, {letters}{last}"));
    }
}

fn failures(screen: &mut Screen, told: &Explanation) {
    let now = told.at;
    let mut failures: Vec<_> = told.failures.iter().collect();
    let said = told.batch.as_ref().and_then(|batch| batch.last_cause.as_ref()).map(|cause| cause.detail.as_str());
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.last_at));
    let more = failures.len().saturating_sub(CODES);
    for (nth, failure) in failures.into_iter().take(CODES).enumerate() {
        let ExplainedFailure { code, failures, last_minute, last_hour, sample, .. } = failure;
        let (first, last) = (moment(failure.first_at, now), moment(failure.last_at, now));
        let text = format!(
            "{code}: {failures}, {last_minute} in the last minute, {last_hour} in the last hour; {first} to {last}"
        );
        screen.line(if nth == 0 { "failures" } else { "" }, &text);
        if said == Some(sample) {
            continue;
        }
        let sample =
            console::truncate_str(&inert(sample), screen.width.saturating_sub(NAME + 4).max(30), "…").into_owned();
        screen.line("", &sample);
    }
    if more > 0 {
        screen.line("", &format!("and {} more in `--json`", count(more as u64, "code")));
    }
}

fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { count(number, "time") }
}

fn bytes(bytes: u64) -> String {
    let whole = usize::try_from(bytes).unwrap_or(usize::MAX);
    // A round size as the configuration writes it, any other to three figures.
    match bytes {
        0..=1023 => format!("{bytes} B"),
        _ if bytes % 1024 == 0 => size(whole).to_string(),
        _ if bytes < 1 << 20 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}
