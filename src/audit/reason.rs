//! What a difference means, in words.

use super::{Check, Held, Scope};

/// A sentence without its full stop.
pub(super) fn meaning(check: Check, scope: Scope, expected: u64, found: u64, held: &Held) -> String {
    let (count, fewer) = (expected.abs_diff(found), found < expected);
    let events = plural(count, "event");
    let side = if fewer { "fewer" } else { "more" };
    match check {
        Check::Frames if fewer => {
            format!("{} received without an answer", was(plural(count, "frame"), count))
        }
        Check::Frames => format!("{} more answered than were received", plural(count, "frame")),
        Check::Events if fewer => {
            format!("{events} more accepted than have an outcome or are in flight: lost")
        }
        Check::Events => format!("{events} more with an outcome or in flight than were accepted"),
        Check::Stored => {
            let why = match (fewer, held.events.checked_sub(held.rows)) {
                (true, Some(gone @ 1..)) => missing(gone, held.damaged),
                (true, _) => "whole batches were deleted, or the database was replaced by an older one".to_owned(),
                (false, _) if scope == Scope::Run => "they were added by hand".to_owned(),
                (false, _) => {
                    "they were stored without this journal, before it was begun or after it was removed or replaced"
                        .to_owned()
                }
            };
            format!("the store holds {events} {side} than the journal says were stored: {why}")
        }
        Check::Rows if fewer => {
            let why = if held.damaged == 0 { "rows were deleted".to_owned() } else { missing(count, held.damaged) };
            format!("the store holds {events} fewer than its own batches say: {why}")
        }
        Check::Rows => format!("the store holds {events} more than its own batches say: rows were added by hand"),
        Check::DeadLettered => {
            let why = match fewer {
                true => "rows were deleted and not purged, or the database was replaced by an older one",
                false => "they were added by hand, or the journal was removed or replaced",
            };
            format!("the dead letters hold {events} {side} than the journal says were dead-lettered: {why}")
        }
        Check::Settled => {
            format!("store and dead letters hold {events} more together than can be there: some are in both")
        }
        Check::Malformed if fewer => {
            format!(
                "{} counted as malformed that are neither among the dead letters nor purged",
                was(plural(count, "frame"), count)
            )
        }
        Check::Numbered => {
            format!(
                "{} made at the door by earlier starts {} neither there nor purged, as the gaps in their numbers show: rows were deleted, \
                 or the database was replaced",
                plural(count, "dead letter"),
                if count == 1 { "is" } else { "are" }
            )
        }
        Check::Malformed => {
            format!("the dead letters hold {} more than were counted as malformed", plural(count, "frame"))
        }
    }
}

/// Why so many events of a store's own batches are not there, of which so many lie there damaged.
fn missing(gone: u64, damaged: u64) -> String {
    let deleted = |rows| format!("{} deleted from its batches", was(plural(rows, "row"), rows));
    match (damaged, gone.saturating_sub(damaged)) {
        (0, gone) => deleted(gone),
        (damaged, 0) => format!("{} in damaged batches, which cannot be read", plural(damaged, "event")),
        (damaged, rest) => {
            format!("{} in damaged batches, which cannot be read, and {}", plural(damaged, "event"), deleted(rest))
        }
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn was(subject: String, count: u64) -> String {
    format!("{subject} {}", if count == 1 { "was" } else { "were" })
}
