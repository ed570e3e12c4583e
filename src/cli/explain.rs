//! `headworks explain`: everything about one tenant on one screen.

use std::time::Duration;

use headworks::admin::{
    ExplainedBatch, ExplainedBreaker, ExplainedFailure, ExplainedPriority, ExplainedSilence, ExplainedWindow,
    Explanation,
};
use headworks::supervisor_log::{LogEntry, brief};
use headworks::text::{ago, count, due, moment, plain, short, wrap};
use headworks::units::bytes::display as size;
use headworks::{StoreName, TenantId, UnixMillis};

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::encoded;
use super::say;
use super::table::{inert, json, screen};
use super::uncompensated::next_try;

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
/// So many lines are told of a troubled tenant, as far as whole entries of the log go.
const SCREEN: usize = 34;
/// So many codes of failures are told; the worst first.
const CODES: usize = 3;

/// So many compensations that could not be done.
const OWED: usize = 2;

/// The screen.
pub(crate) fn render(told: &Explanation, width: usize) -> String {
    let now = told.at;
    let mut screen = Screen { width, text: String::new() };
    screen.line("tenant", &format!("{}: {}", told.tenant, standing(told)));
    screen.line(
        "",
        &format!("read at {now}{}", if told.is_live { "" } else { "; no daemon runs, so these are its files" }),
    );
    if let Some(why) = &told.journal_trouble {
        screen.line("", &format!("ALL TENANTS WAIT for the journal: {why}"));
    }
    for why in &told.sources_trouble {
        screen.line("", &format!("NOT EVERYTHING COMES IN from the source {why}"));
    }
    if let Some(since) = told.since {
        screen.line("", &format!("so since {}, {}", moment(since, now), ago(since, now)));
    }
    if told.is_muted {
        screen.line("", "MUTED: its events are dropped at the door");
    }
    if let Some(window) = &told.window {
        screen.line("window", &window_told(window, now));
    }
    if let Some(silence) = &told.silence {
        screen.line("silence", &silence_told(silence));
    }
    screen.line("backlog", &backlog(told));
    if let Some(batch) = &told.batch {
        // A tenant's only store needs no name.
        let store = batch.store.as_deref().filter(|store| *store != StoreName::ONLY.as_str());
        let store = store.map_or(String::new(), |store| format!(", at the store {store}"));
        let (events, size) = (count(batch.events, "event"), bytes(batch.bytes));
        screen.line("batch", &format!("{}, {events}, {size}{store}", batch.id));
        screen.line("attempt", &attempt(batch, now));
        if let Some(cause) = &batch.last_cause {
            screen.line("why", &format!("{} ({})", plain(&cause.detail), cause.code));
        }
        if !batch.undo_steps.is_empty() {
            screen.line("undo", &format!("if it is given up: {}, then the rollback", batch.undo_steps.join(", ")));
        }
    }
    for breaker in told.breakers.iter().filter(|breaker| breaker.state != "closed") {
        screen.line("breaker", &breaker_told(breaker, now));
    }
    if !told.actors.is_empty() {
        let actors = told.actors.iter().map(|actor| {
            let status = actor.status.as_deref().unwrap_or("running");
            format!("{} {status}, restarted {}", actor.actor, times(actor.epoch))
        });
        screen.line("actors", &actors.collect::<Vec<_>>().join("; "));
    }
    if let Some(rules) = rules(told) {
        screen.line("rules", &rules);
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
    not_undone(&mut screen, told);
    for (nth, advice) in told.advice.iter().enumerate() {
        screen.line(if nth == 0 { "to do" } else { "" }, advice);
    }
    if !told.log.is_empty() {
        screen.text += &format!("log        the newest; more with `headworks log --tenant {}`\n", told.tenant);
        // As many as fit a screen of a troubled tenant, whole entries, the newest; the first tells its cause in full.
        let room = SCREEN.saturating_sub(screen.text.lines().count()).max(6);
        let listed = |entries: &[LogEntry]| {
            let above = std::iter::once(None).chain(entries.iter().map(Some));
            let lines = entries.iter().zip(above).flat_map(|(entry, above)| brief(entry, above, now, width));
            lines.collect::<Vec<_>>()
        };
        let fits = (0..told.log.len()).map(|from| listed(&told.log[from..])).find(|lines| lines.len() <= room);
        for line in fits.unwrap_or_else(|| listed(&told.log[told.log.len() - 1..])) {
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
        "dormant" => "dormant, none of its actors runs; its next event brings them up".to_owned(),
        "active" => "active, its events move".to_owned(),
        "idle" => "idle, no event lately".to_owned(),
        "silent" => "silent, no frame of it for as long as its sender may be quiet".to_owned(),
        "retrying" => "retrying, its store failed and is tried again".to_owned(),
        "breaker_open" => "breaker open, its store failed too often in a row and is left alone for a while".to_owned(),
        "failing" => "failing, events of it were given up in the last minute".to_owned(),
        "parked" => "parked, its store is not there; nothing is given up".to_owned(),
        "compensating" => "compensating, a batch was given up and is rolled back or kept as dead letters".to_owned(),
        "restarting" => until("restarting, an actor failed; a fresh one takes over"),
        "quarantined" => until("quarantined, its actors failed too often; its events wait; the next start is"),
        "stopped" => "stopped by hand or with the system; its events are kept and wait, until it is resumed".to_owned(),
        "stalled" => "stalled, batches wait and nothing moves".to_owned(),
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

fn silence_told(silence: &ExplainedSilence) -> String {
    let time = |millis: u64| {
        // To the second where it is long.
        let millis = if millis < 10_000 { millis } else { millis / 1_000 * 1_000 };
        humantime::format_duration(Duration::from_millis(millis)).to_string()
    };
    let now = match (silence.silent_ms, silence.heard_ms_ago) {
        (Some(silent), Some(_)) => format!("SILENT: no frame came for {}", time(silent)),
        (Some(silent), None) => {
            format!("SILENT: no frame came since the daemon was started, and one is expected for {}", time(silent))
        }
        (None, Some(ago)) => format!("the last frame came {} ago", time(ago)),
        (None, None) => "no frame came since the daemon was started".to_owned(),
    };
    let expected = match (silence.expected_within_ms, silence.is_learnt) {
        (Some(within), true) => {
            format!("one is expected within {} of the last, as learnt from its rhythm", time(within))
        }
        (Some(within), false) => format!("one is expected within {} of the last, as silence.after says", time(within)),
        (None, _) => "its rhythm is still being learnt".to_owned(),
    };
    format!("{now}; {expected}")
}

fn backlog(told: &Explanation) -> String {
    let backlog = &told.backlog;
    let unread = match backlog.unread {
        0 => String::new(),
        unread => format!("; {} of an earlier process are yet to be read back", count(unread, "event")),
    };
    let unread = match backlog.in_journal {
        0 => unread,
        events => {
            let size = bytes(backlog.in_journal_bytes);
            format!(
                "{unread}; {} ({size}) more in the journal alone, read back as memory gets free",
                count(events, "event")
            )
        }
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
    } else if let Some(since) = batch.wants_turn_since {
        format!("it waits for its turn at the store, since {}", moment(since, now))
    } else if let Some(at) = batch.next_attempt_at {
        let next = if batch.is_parked { "the store is asked again" } else { "the next is due" };
        format!("{next} {}", due(at, now))
    } else {
        "the next is due now".to_owned()
    };
    format!("{spent}; {at}")
}

fn breaker_told(breaker: &ExplainedBreaker, now: UnixMillis) -> String {
    let ExplainedBreaker { store, failures, probe_at, .. } = breaker;
    let probe = match (&*breaker.state, probe_at) {
        ("open", Some(at)) => format!("the next call is tried {}", due(*at, now)),
        _ => "the next call says whether it closes".to_owned(),
    };
    format!("of the store {store}, open after {failures} failed calls in a row; {probe}")
}

/// What decides when its events may pass, and who goes first.
fn rules(told: &Explanation) -> Option<String> {
    let ExplainedPriority { class, weight } = told.priority.as_ref()?;
    let priority = format!("priority {class}, weight {weight}");
    let Some(throttle) = &told.throttle else { return Some(format!("{priority}; held to no rate")) };
    let left = |left: Option<u64>, show: fn(u64) -> String| {
        left.map_or(String::new(), |left| format!(", of which {} may pass now", show(left)))
    };
    let number = |number: u64| number.to_string();
    let rates = [
        (throttle.events_per_second > 0)
            .then(|| format!("{} events a second{}", throttle.events_per_second, left(throttle.events_left, number))),
        (throttle.bytes_per_second > 0)
            .then(|| format!("{} a second{}", bytes(throttle.bytes_per_second), left(throttle.bytes_left, bytes))),
    ];
    let rates = rates.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    let over = if throttle.when_over == "reject" { "more is refused" } else { "more waits at the door" };
    Some(format!("{priority}; held to {rates}; {over}"))
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
        let waiting = of("received").saturating_sub(parts.iter().map(|name| of(name)).sum());
        let waiting = match waiting {
            0 => String::new(),
            1 => " + 1 that waits at the door".to_owned(),
            frames => format!(" + {frames} that wait at the door"),
        };
        screen.line("frames", &format!("{}{waiting}", sum("received", &parts)));
    }
    if told.counters.contains_key("accepted") {
        screen.line("events", &sum("accepted", &["stored", "dead_lettered", "shed", "discarded", "in_flight"]));
    }
    if told.is_live {
        let (batches, failed, restarts) = (of("batches"), of("attempts_failed"), of("restarts"));
        let (failed, restarts) = (count(failed, "failed call"), count(restarts, "restart"));
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
    let causes = told.batch.iter().filter_map(|batch| batch.last_cause.as_ref());
    let causes = causes.chain(told.log.iter().filter_map(|entry| entry.cause.as_ref()));
    let said: Vec<_> = causes.map(|cause| cause.detail.as_str()).collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.last_at));
    let more = failures.len().saturating_sub(CODES);
    for (nth, failure) in failures.into_iter().take(CODES).enumerate() {
        let ExplainedFailure { code, failures, last_minute, last_hour, sample, .. } = failure;
        let (first, last) = (moment(failure.first_at, now), moment(failure.last_at, now));
        let text = format!(
            "{code}: {failures}, {last_minute} in the last minute, {last_hour} in the last hour; {first} to {last}"
        );
        screen.line(if nth == 0 { "failures" } else { "" }, &text);
        if said.contains(&sample.as_str()) {
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

/// What a store may hold although it was given up.
fn not_undone(screen: &mut Screen, told: &Explanation) {
    for (nth, owed) in told.uncompensated.iter().take(OWED).enumerate() {
        let text = format!("{} of batch {} in {}", owed.what, short(&owed.batch), owed.store);
        let text = format!("{text}, since {}; {}", moment(owed.since, told.at), next_try(owed, told.at));
        screen.line(if nth == 0 { "not undone" } else { "" }, &text);
    }
    if let more @ 1.. = told.uncompensated.len().saturating_sub(OWED) {
        screen.line("", &format!("and {more} more; see `headworks uncompensated --tenant {}`", told.tenant));
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
        _ if bytes.is_multiple_of(1024) => size(whole).to_string(),
        _ if bytes < 1 << 20 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use headworks::admin::{Compensations, ExplainedActor, ExplainedBacklog, ExplainedThrottle, TenantRow};
    use headworks::supervisor_log::LogCause;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_732_276_800_000);

    fn later(millis: u64) -> Option<UnixMillis> {
        Some(NOW.plus(Duration::from_millis(millis)))
    }

    fn earlier(millis: u64) -> UnixMillis {
        NOW.minus(Duration::from_millis(millis))
    }

    fn actor(actor: &str, epoch: u64, status: Option<&str>) -> ExplainedActor {
        ExplainedActor { actor: actor.into(), epoch, status: status.map(str::to_owned) }
    }

    fn quiet() -> Explanation {
        let counters =
            [("received", 12), ("accepted", 10), ("malformed", 2), ("stored", 7), ("in_flight", 3), ("batches", 2)];
        Explanation {
            tenant: "acme".into(),
            at: NOW,
            is_live: true,
            status: "active".into(),
            window: Some(ExplainedWindow {
                events: 3,
                max_events: 500,
                bytes: 77,
                max_bytes: 1 << 20,
                due_at: later(640),
                oldest_at: Some(earlier(360)),
            }),
            actors: vec![actor("tenant", 0, None), actor("writer", 1, None)],
            counters: counters.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
            ..Explanation::default()
        }
    }

    fn cause() -> Option<LogCause> {
        Some(LogCause { code: "store_transient".into(), detail: "the disk sighs".into() })
    }

    fn batch() -> ExplainedBatch {
        ExplainedBatch {
            id: "0000000000000001/acme/3".into(),
            events: 3,
            bytes: 4_000,
            attempt: 2,
            attempts_spent: 2,
            attempts_allowed: 5,
            next_attempt_at: later(1_400),
            last_cause: cause(),
            undo_steps: vec!["delete part 2".into(), "delete part 1".into()],
            ..ExplainedBatch::default()
        }
    }

    fn entry(what: &str, millis: u64) -> LogEntry {
        LogEntry {
            at: earlier(millis),
            tenant: Some("acme".into()),
            actor: "writer".into(),
            what: what.into(),
            ..LogEntry::default()
        }
    }

    #[test]
    fn silence_is_told_with_what_is_expected_and_by_what() {
        let told = |silent_ms, heard_ms_ago, expected_within_ms, is_learnt| {
            let silence = Some(ExplainedSilence { silent_ms, heard_ms_ago, expected_within_ms, is_learnt });
            let text = render(&Explanation { silence, ..quiet() }, 200);
            text.lines().find_map(|line| line.strip_prefix("silence    ")).unwrap().to_owned()
        };
        assert_eq!(
            told(Some(620_250), Some(620_250), Some(30_000), false),
            "SILENT: no frame came for 10m 20s; one is expected within 30s of the last, as silence.after says"
        );
        assert_eq!(
            told(None, Some(2_500), Some(12_345), true),
            "the last frame came 2s 500ms ago; one is expected within 12s of the last, as learnt from its rhythm"
        );
        assert_eq!(told(None, Some(0), None, false), "the last frame came 0s ago; its rhythm is still being learnt");
        assert!(
            told(Some(1_000), None, Some(10), false).starts_with("SILENT: no frame came since the daemon was started")
        );
        assert!(!render(&quiet(), 200).contains("silence"));
    }

    #[test]
    fn a_quiet_tenant_is_told_in_a_few_lines() {
        let expected = "\
tenant     acme: active, its events move
           read at 2024-11-22T12:00:00.000Z
window     3 of 500 events, 77 B of 1MiB; closes at 12:00:00.640, in 640 ms at
           the latest
backlog    nothing waits to be stored
actors     tenant running, restarted 0 times; writer running, restarted once
frames     12 received = 10 accepted + 2 malformed
events     10 accepted = 7 stored + 3 in flight
counted    2 batches stored, 0 failed calls, 0 restarts
";
        assert_eq!(render(&quiet(), 80), expected);
    }

    #[test]
    fn a_journal_that_takes_nothing_is_told_with_every_tenant() {
        let journal_trouble = Some("it cannot be written: no space".to_owned());
        let text = render(&Explanation { journal_trouble, ..quiet() }, 80);
        assert!(
            text.contains("           ALL TENANTS WAIT for the journal: it cannot be written: no space\n"),
            "{text}"
        );
    }

    #[test]
    fn its_priority_its_rate_and_what_waits_at_the_door_are_told() {
        let priority = Some(ExplainedPriority { class: "bulk".into(), weight: 4 });
        let free = render(&Explanation { priority: priority.clone(), ..quiet() }, 200);
        assert!(free.contains("rules      priority bulk, weight 4; held to no rate\n"), "{free}");
        let throttle = ExplainedThrottle {
            events_per_second: 100,
            bytes_per_second: 2_048,
            when_over: "delay".into(),
            events_left: Some(0),
            bytes_left: Some(512),
        };
        let mut told = Explanation { priority, throttle: Some(throttle), ..quiet() };
        told.counters.insert("received".into(), 19);
        let text = render(&told, 200);
        let rules = "held to 100 events a second, of which 0 may pass now and 2KiB a second, of which 512 B may pass now; more waits at the door\n";
        assert!(text.contains(rules), "{text}");
        assert!(text.contains("19 received = 10 accepted + 2 malformed + 7 that wait at the door\n"), "{text}");
    }

    #[test]
    fn what_is_spilled_is_told_with_the_backlog() {
        let backlog = ExplainedBacklog { in_journal: 1_200, in_journal_bytes: 3 << 20, ..ExplainedBacklog::default() };
        let text = render(&Explanation { backlog, ..quiet() }, 200);
        let expected = "backlog    nothing waits to be stored; 1200 events (3MiB) more in the journal alone, read back as memory gets free\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_retrying_tenant_is_told_with_its_batch_the_attempt_the_next_one_and_what_would_be_undone() {
        let told = Explanation {
            status: "retrying".into(),
            backlog: ExplainedBacklog {
                batches: 2,
                events: 6,
                bytes: 8_192,
                oldest_at: Some(earlier(12_000)),
                ..ExplainedBacklog::default()
            },
            batch: Some(batch()),
            ..quiet()
        };
        let text = render(&told, 80);
        let expected = "\
backlog    2 batches, 6 events, 8KiB; the oldest event came 12 s ago
batch      0000000000000001/acme/3, 3 events, 3.9 KiB
attempt    2 of 5 attempts failed; the next is due at 12:00:01.400, in 1.4 s
why        the disk sighs (store_transient)
undo       if it is given up: delete part 2, delete part 1, then the rollback
";
        assert!(
            text.contains("acme: retrying, its store failed and is tried again\n") && text.contains(expected),
            "{text}"
        );
    }

    #[test]
    fn a_parked_tenant_waits_and_one_that_is_being_stored_or_given_up_says_so() {
        let told = |batch| render(&Explanation { status: "parked".into(), batch: Some(batch), ..quiet() }, 100);
        let parked = told(ExplainedBatch { is_parked: true, attempts_spent: 0, ..batch() });
        assert!(
            parked.contains("0 of 5 attempts failed; the store is asked again at 12:00:01.400, in 1.4 s"),
            "{parked}"
        );
        let open = told(ExplainedBatch { open_since: Some(earlier(3_000)), next_attempt_at: None, ..batch() });
        assert!(open.contains("2 of 5 attempts failed; number 2 is under way, begun 3.0 s ago"), "{open}");
        let given_up = told(ExplainedBatch { is_given_up: true, next_attempt_at: None, ..batch() });
        assert!(given_up.contains("it is given up: rolled back, then kept as dead letters"), "{given_up}");
    }

    #[test]
    fn an_open_breaker_says_when_the_next_call_is_tried_and_a_batch_that_waits_for_its_turn_says_so() {
        let breaker =
            ExplainedBreaker { store: "db".into(), state: "open".into(), failures: 10, probe_at: later(1_400) };
        let batch = ExplainedBatch { wants_turn_since: Some(earlier(3_000)), next_attempt_at: None, ..batch() };
        let told =
            Explanation { status: "breaker_open".into(), batch: Some(batch), breakers: vec![breaker], ..quiet() };
        let text = render(&told, 120);
        let expected = "breaker    of the store db, open after 10 failed calls in a row; the next call is tried at 12:00:01.400, in 1.4 s\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("it waits for its turn at the store, since 11:59:57"), "{text}");
        assert!(text.contains("breaker open, its store failed too often in a row"), "{text}");
    }

    #[test]
    fn a_quarantined_tenant_says_until_when_and_why_on_one_screen() {
        let mut log = vec![];
        for n in 0..6 {
            let failed = LogEntry { cause: cause(), attempt: Some(n), ..entry("failed", 9_000 - u64::from(n)) };
            log.push(LogEntry { next_attempt_at: later(1), what: "backing_off".into(), ..failed.clone() });
            log.push(failed);
        }
        log.push(LogEntry {
            cause: cause(),
            attempt: Some(6),
            next_attempt_at: later(55_000),
            events_kept: 9,
            ..entry("quarantined", 5_000)
        });
        let failure = ExplainedFailure {
            code: "actor_panic".into(),
            failures: 6,
            last_minute: 6,
            last_hour: 6,
            first_at: earlier(9_000),
            last_at: earlier(5_000),
            sample: "index out of bounds\n\u{1b}[2J".into(),
            ..ExplainedFailure::default()
        };
        let told = Explanation {
            status: "quarantined".into(),
            since: Some(earlier(5_000)),
            advice: vec!["mend what the last failure names".into()],
            restart_at: later(55_000),
            actors: vec![actor("tenant", 5, None), actor("writer", 6, Some("quarantined"))],
            failures: vec![failure],
            compensations: Compensations { batches: 1, run: 3, failed: 1, since: Some(earlier(9_000)) },
            log,
            ..quiet()
        };
        let text = render(&told, 80);
        for says in [
            "its events wait; the\n           next start is at 12:00:55.000, in 55 s\n",
            "           so since 11:59:55.000, 5.0 s ago\n",
            "to do      mend what the last failure names\n",
            "actors     tenant running, restarted 5 times; writer quarantined, restarted 6\n           times\n",
            "failures   actor_panic: 6, 6 in the last minute, 6 in the last hour;\n           11:59:51.000 to 11:59:55.000\n",
            "           index out of bounds\\n\\u{1b}[2J\n",
            "rollbacks  1 batch rolled back since 11:59:51.000: 3 compensations ran, 1\n           FAILED\n",
        ] {
            assert!(text.contains(says), "{says}\n{text}");
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words.ends_with("9 events are kept meanwhile. The last failure: as above (store_transient)."),
            "{text}"
        );
        assert!(text.lines().count() <= 35, "{} lines\n{text}", text.lines().count());
        assert!(text.lines().all(|line| console::measure_text_width(line) <= 80), "{text}");
    }

    #[test]
    fn at_rest_it_is_told_what_the_files_know() {
        let told = Explanation {
            tenant: "acme".into(),
            at: NOW,
            status: "unknown".into(),
            backlog: ExplainedBacklog { batches: 2, events: 6, batches_open: 1, ..ExplainedBacklog::default() },
            stored: Some(TenantRow { events: 7, ..TenantRow::default() }),
            ..Explanation::default()
        };
        let expected = "\
tenant     acme: at rest
           read at 2024-11-22T12:00:00.000Z; no daemon runs, so these are its
           files
backlog    6 events on record and not stored yet, in 2 batches cut, 1 of which
           may be in the store already; the next start goes on with them
store      7 events, 0 dead letters
";
        assert_eq!(render(&told, 80), expected);
    }
}
