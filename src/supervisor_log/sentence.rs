//! What an entry of the supervisor log means, for somebody who has not read the docs.

use headworks_actors::{StoreName, UnixMillis};

use super::{CLOSED, LogEntry, MISSED, OPENED};
use crate::text::{count, due, moment, plain, short, span};

/// The entry as a sentence or two, as told at `now`, below `above`: a cause that stands there already is not told again. One that
/// sums up others says how many, and what the last one was.
#[must_use]
pub fn sentence(entry: &LogEntry, now: UnixMillis, above: Option<&LogEntry>) -> String {
    let Some(since) = entry.since.filter(|_| entry.repeats > 0) else { return one(entry, now, above) };
    let times = entry.repeats + 1;
    // What is summed up is not the last one's.
    let last = LogEntry { batch_events: 0, compensations_run: 0, compensations_failed: 0, ..entry.clone() };
    let sums = [
        (entry.batch_events, "event"),
        (entry.compensations_run, "compensation"),
        (entry.compensations_failed, "failure"),
    ];
    let sums: Vec<_> = sums.into_iter().filter(|(sum, _)| *sum > 0).map(|(sum, thing)| count(sum, thing)).collect();
    let sums = if sums.is_empty() { String::new() } else { format!(" ({} in all)", sums.join(", ")) };
    format!("{} since {}{sums}, the last: {}", count(times, "time"), moment(since, now), one(&last, now, above))
}

/// Of an entry by itself, or the last of those that are summed up in it.
fn one(entry: &LogEntry, now: UnixMillis, above: Option<&LogEntry>) -> String {
    let actor = entry.actor.as_str();
    let batch = entry.batch.as_deref().map_or("a batch".to_owned(), |id| format!("batch {}", short(id)));
    let with_events = match entry.batch_events {
        0 => batch.clone(),
        events => format!("{batch} ({})", count(events, "event")),
    };
    // A tenant's only store needs no name.
    let named = entry.store.as_deref().filter(|store| *store != StoreName::ONLY.as_str());
    let there = named.map_or(String::new(), |store| format!(" in {store}"));
    let store = named.map_or("store".to_owned(), |store| format!("store {store}"));
    let source = entry.source.as_deref().unwrap_or("of unknown name");
    let kept = match entry.events_kept {
        0 => String::new(),
        events => format!(" {} kept meanwhile.", are(events, "event")),
    };
    let again = |verb: &str| entry.next_attempt_at.map_or(String::new(), |at| format!(" {verb} {}.", due(at, now)));
    let why = why(entry, above);
    let in_a_row =
        entry.attempt.map_or(String::new(), |attempt| format!(", restart {attempt} with nothing stored in between"));
    match entry.what.as_str() {
        "started" => format!("The {actor} came up."),
        "stopped" => format!("The {actor} ended, as it was told to."),
        "idle" => "No event for a while.".to_owned(),
        "active" => "Events come again.".to_owned(),
        // A store that failed, or an actor.
        "failed" if actor == "writer" && entry.batch.is_some() => {
            let attempt = entry.attempt.map_or(String::new(), |attempt| format!("Attempt {attempt} to store "));
            let next = match entry.next_attempt_at {
                Some(at) => format!("Next attempt {}.", due(at, now)),
                None => "There is no further attempt: the batch is given up.".to_owned(),
            };
            format!("{attempt}{batch}{there} failed: {why} {next}")
        }
        "failed" => format!("The {actor} failed: {why}"),
        "ambiguous" => {
            let attempt = entry.attempt.map_or(String::new(), |attempt| format!("Attempt {attempt} to store "));
            let next = again("It is sent again under the same id");
            format!("{}{there} was cut off, and may have taken effect or not: {why}{next}", capital(&format!("{attempt}{batch}")))
        }
        "missed_heartbeat" => {
            let which = entry.attempt.map_or(String::new(), |n| format!(", the {} in a row", nth(u64::from(n))));
            format!("The {actor} did not answer its heartbeat{which}.{kept}")
        }
        "stalled" => format!("Events wait and nothing moves: {why}{kept}"),
        "unstalled" => "Events move again.".to_owned(),
        "hung" => format!("The thread of all actors is held up: {why}"),
        "journal_full" => format!("The journal is full, and no event is taken in until some are settled: {why}"),
        "journal_has_room" => "The journal has room again.".to_owned(),
        "journal_fails" => format!("The journal cannot be written, and no event is taken in until it can: {why}"),
        "journal_works" => "The journal can be written again, and events are taken in.".to_owned(),
        "source_fails" => {
            let since = entry.since.filter(|since| *since < entry.at);
            let since = since.map_or(String::new(), |since| format!(" It has been so since {}.", moment(since, now)));
            format!("The source {source} fails: {why}{since}{}", again("It is tried again"))
        }
        "source_works" => {
            let lasted = entry.since.map_or(String::new(), |since| format!(", after {}", span(entry.at.0 - since.0)));
            format!("The source {source} works again{lasted}.")
        }
        "source_lost" => format!("Something was lost before the source {source} could take it in: {why}"),
        "unhung" => "The thread of all actors turns again.".to_owned(),
        "silent" => format!("The tenant has fallen silent: {why}"),
        "heard" => format!("The tenant is heard again: {why}"),
        "passivated" => "The tenant's actors ended to free their memory; its next event brings them back.".to_owned(),
        "moved" => format!("The tenant lives on another thread from now on: {why}"),
        "policy_changed" => format!("The tenant's rules were changed: {why}"),
        "muted" => "The tenant is muted: its events are dropped at the door, and counted.".to_owned(),
        "unmuted" => "The tenant is muted no longer: its events are let in again.".to_owned(),
        "ordered" => format!("An operator's order to the tenant: {why}"),
        "erased" => format!("What was kept of the tenant was erased: {why}"),
        "pruned" => format!("What the rules of retention let go of was pruned: {why}"),
        "letters_full" if entry.tenant.is_some() => format!("There is no room for more of its dead letters: {why}"),
        "letters_full" => format!("There is no room for more dead letters of bad frames: {why}"),
        "reloaded" => format!("The configuration was read again. {why}"),
        "reload_refused" => format!("A configuration that was read again is not valid, and changed nothing: {why}"),
        "draining" => "No new events are taken; what was accepted is stored, then the system ends.".to_owned(),
        "backing_off" => format!("A fresh {actor} takes over {}{in_a_row}.{kept}", soon(entry, now)),
        "restarted" => {
            let times = if entry.epoch > 1 { format!(", the {} since the start", nth(entry.epoch)) } else { String::new() };
            format!("A fresh {actor} took over{times}.{}", lost_nothing(entry.events_kept))
        }
        "quarantined" => {
            let times = entry.attempt.map_or(String::new(), |times| format!(" after {times} failures with nothing stored"));
            format!("The {actor} is left alone{times}; its next start is {}.{kept} The last failure: {why}", soon(entry, now))
        }
        "resumed" => format!("Somebody cut the wait of the {actor} short: it starts now."),
        "parked" => format!(
            "The {store} is not there: {why} {} waits, which costs no attempt.{kept}{}",
            capital(&batch),
            again(&format!("The {store} is asked again"))
        ),
        "unparked" => format!("The {store} is there again."),
        "breaker_opened" => {
            let times = entry.attempt.map_or(String::new(), |times| format!(" {} in a row", count(u64::from(times), "time")));
            format!("Calls of the {store} failed{times}: it is left alone. The last failure: {why}{kept}{}", again("The next call is tried"))
        }
        "breaker_closed" => format!("A call of the {store} went through: it is left alone no longer."),
        "compensated" => {
            let run = count(entry.compensations_run, "compensation");
            match &entry.cause {
                Some(_) if entry.compensations_run == 0 => format!("{} was rolled back. Why: {why}", capital(&with_events)),
                Some(_) => {
                    let order = if entry.compensations_run > 1 { ", newest first" } else { "" };
                    format!("{} was rolled back: {run} ran{order}, none failed. Why: {why}", capital(&with_events))
                }
                None => format!("What could not be undone of {batch}{there} before is undone now."),
            }
        }
        "compensation_failed" if entry.compensations_failed == 0 => format!(
            "{} could NOT be rolled back whole; a store may still hold a part of it, and what failed is tried again until it is done. \
             Why: {why}",
            capital(&with_events)
        ),
        "compensation_failed" => {
            let (run, failed) = (entry.compensations_run, entry.compensations_failed);
            format!(
                "{} could NOT be rolled back whole: {} ran, {failed} failed; a store may still hold a part of it, and what failed is \
                 tried again until it is done. Why: {why}",
                capital(&with_events),
                count(run, "compensation")
            )
        }
        "dead_lettered" => {
            let attempts = entry.attempt.filter(|attempts| *attempts > 0);
            let attempts = attempts.map_or(String::new(), |n| format!(" after {}", count(u64::from(n), "attempt")));
            let kept_as = if entry.batch_events == 1 { "a dead letter" } else { "dead letters" };
            format!("{} was given up{attempts} and is kept as {kept_as}: {why}", capital(&with_events))
        }
        "split" => format!("{} is tried again in two halves, to find what is refused: {why}", capital(&with_events)),
        "started_over" => format!("{} was given up and begins anew, as on_failure says: {why}", capital(&with_events)),
        "discarded" => format!("{} was given up and is dropped, as on_failure says: {why}", capital(&with_events)),
        "shedding" => format!("The tenant is full. {why} Batches that were cut are kept."),
        "shedding_ended" => format!("There is room again, and nothing more is given up: {why}"),
        "recovered" => {
            let open = entry.attempt.map_or(String::new(), |attempt| {
                format!(" Attempt {attempt} had begun; what became of it is not known, so it is sent again under its id.")
            });
            format!("{} that an earlier process had accepted were found in the journal.{open}", capital(&count(entry.events_kept, "event")))
        }
        "spilling" => {
            "The tenant's memory is full: what arrives lies in the journal alone, and is read back in order once there is room."
                .to_owned()
        }
        "caught_up" => "All that lay in the journal alone was read back.".to_owned(),
        OPENED => {
            let version = entry.version.as_deref().unwrap_or("of an unknown version");
            let process = entry.process.map_or(String::new(), |process| format!(", process {process}"));
            format!("The daemon started: headworks {version}{process}.")
        }
        CLOSED => "The daemon ended.".to_owned(),
        MISSED => format!("{} not here: {why}", are(entry.missed, "entry")),
        // A newer version's.
        _ => {
            let next = again("Next");
            format!("The {actor}: {why}{next}{kept}").trim_end().to_owned()
        }
    }
    .trim_end()
    .to_owned()
}

/// The cause, with its code behind it.
fn why(entry: &LogEntry, above: Option<&LogEntry>) -> String {
    let is_told = above.is_some_and(|above| above.tenant == entry.tenant && above.cause == entry.cause);
    entry.cause.as_ref().map_or(String::new(), |cause| {
        if is_told {
            return format!("as above ({}).", cause.code);
        }
        let detail = plain(&cause.detail);
        if cause.code == MISSED { format!("{detail}.") } else { format!("{detail} ({}).", cause.code) }
    })
}

fn soon(entry: &LogEntry, now: UnixMillis) -> String {
    entry.next_attempt_at.map_or("soon".to_owned(), |at| due(at, now))
}

fn lost_nothing(kept: u64) -> String {
    if kept == 0 {
        " Nothing was waiting.".to_owned()
    } else {
        format!(" It goes on with the {} kept.", count(kept, "event"))
    }
}

fn are(number: u64, thing: &str) -> String {
    format!("{} {}", count(number, thing), if number == 1 { "is" } else { "are" })
}

fn nth(number: u64) -> String {
    let end = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
