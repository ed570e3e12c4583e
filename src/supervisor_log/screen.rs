use headworks_actors::UnixMillis;

use super::{LogEntry, sentence};
use crate::text::{inert, moment, wrap};

/// The log as text for a screen: what `headworks log` prints.
///
/// ```
/// use headworks::supervisor_log::{LogEntry, Screen};
/// # use headworks::{MemoryStore, System, TenantSpec};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let system = System::builder().start()?;
/// # system.spawn(TenantSpec::new("acme")?).await?;
/// let mut screen = Screen::new(80);
/// for event in system.log().last(20) {
///     let entry = LogEntry::of(&event, system.opening());
///     print!("{}", screen.entry(&entry, entry.at));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Screen {
    width: usize,
    is_coloured: bool,
    /// The last that was told.
    day: String,
    above: Option<LogEntry>,
}

/// The widths of the columns: time, what.
const TIME: usize = 12;
const WHAT: usize = 13;

impl Screen {
    /// Of `width` columns, without colours.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// With colours, or without.
    #[must_use]
    pub fn coloured(self, is_coloured: bool) -> Self {
        Self { is_coloured, ..self }
    }

    /// One entry, as told at `now`: time, what, tenant, and a sentence that goes on below. The day is told once.
    pub fn entry(&mut self, entry: &LogEntry, now: UnixMillis) -> String {
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
        let word = if is_long { what } else { format!("{what:WHAT$} ") };
        let indent = TIME + 2 + WHAT + 1;
        let tenant = entry.tenant.as_ref().map_or(String::new(), |tenant| format!("{tenant}: "));
        let told = inert(&(tenant + &sentence(entry, now, self.above.as_ref()))).into_owned();
        // One without a cause between two of a tenant with the same is not in the way.
        if entry.cause.is_some() || self.above.as_ref().is_none_or(|above| above.tenant != entry.tenant) {
            self.above = Some(entry.clone());
        }
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
        "failed"
        | "quarantined"
        | "compensation_failed"
        | "dead_lettered"
        | "discarded"
        | "shedding"
        | "hung"
        | "journal_fails"
        | "journal_full"
        | "source_fails"
        | "source_lost"
        | "missed" => Some(style.red()),
        "backing_off" | "parked" | "breaker_opened" | "ambiguous" | "stalled" | "split" | "started_over"
        | "spilling" | "silent" | "letters_full" => Some(style.yellow()),
        "restarted" | "resumed" | "unparked" | "breaker_closed" | "unstalled" | "unhung" | "journal_works"
        | "source_works" | "journal_has_room" | "shedding_ended" | "caught_up" | "compensated" | "recovered"
        | "heard" => Some(style.green()),
        _ => None,
    }
}

/// An entry in short, for a list of a few of one tenant, below `above`: its lines.
#[must_use]
pub fn brief(entry: &LogEntry, above: Option<&LogEntry>, now: UnixMillis, width: usize) -> Vec<String> {
    let at = moment(entry.at, now);
    // Of another day the date counts more than the second: `11-21 23:59`.
    let at = match at.split_once(" on ") {
        Some((time, day)) => format!("{} {}", day.get(5..).unwrap_or(day), time.get(..5).unwrap_or(time)),
        None => at,
    };
    let what = inert(&entry.what);
    let indent = 2 + TIME + 2 + WHAT + 1;
    let told = wrap(&inert(&sentence(entry, now, above)), width.saturating_sub(indent + 1).max(30));
    let mut told = told.into_iter().peekable();
    // As on the larger screen, a long word has its line alone.
    let beside = told.next_if(|_| what.chars().count() <= WHAT).unwrap_or_default();
    let head = format!("  {at:TIME$}  {what:WHAT$} {beside}").trim_end().to_owned();
    std::iter::once(head).chain(told.map(|line| format!("{:indent$}{line}", ""))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::supervisor_log::LogCause;

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
        let mut text = Screen::new(80);
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
                            compensations ran, newest first, none failed. Why:
                            as above (store_permanent).
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
                            50 ms, restart 1 with nothing stored in between. 1
                            event is kept meanwhile.
00:00:00.000  restarted     acme: A fresh tenant took over, the 2nd since the
                            start. It goes on with the 1 event kept.
00:00:00.000  quarantined   acme: The tenant is left alone after 6 failures
                            with nothing stored; its next start is at
                            00:00:00.050, in 50 ms. The last failure: as above
                            (actor_panic).
";
        assert_eq!(told(&entries), expected);
    }

    #[test]
    fn an_entry_that_sums_up_others_says_how_many_they_were_since_when_and_what_the_last_one_was() {
        let (repeats, since) = (40, Some(UnixMillis(NOW.0 - 9_000)));
        let sum = |what: &str| LogEntry { repeats, since, batch_events: 57, ..entry(what, 1) };
        let entries = [
            LogEntry { attempt: Some(1), batch_events: 0, ..sum("failed") },
            LogEntry { compensations_run: 41, ..sum("compensated") },
            sum("split"),
            sum("dead_lettered"),
            LogEntry { compensations_run: 1, compensations_failed: 40, ..sum("compensation_failed") },
        ];
        let text = told(&entries);
        assert!(
            text.starts_with("2024-11-22 (UTC)\n00:00:00.001  failed        acme: 41 times since 23:59:51.000 on "),
            "{text}"
        );
        let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for sentence in [
            "2024-11-21, the last: Attempt 1 to store batch 42 failed: this row is poison (store_permanent).",
            "(57 events, 41 compensations in all), the last: Batch 42 was rolled back. Why: as above (store_permanent).",
            "(57 events in all), the last: Batch 42 is tried again in two halves",
            "(57 events in all), the last: Batch 42 was given up and is kept as dead letters: as above",
            "(57 events, 1 compensation, 40 failures in all), the last: Batch 42 could NOT be rolled back whole; a store may",
        ] {
            assert!(plain.contains(sentence), "{text}");
        }
    }

    #[test]
    fn a_word_of_a_newer_version_is_told_with_what_is_known() {
        let newer = LogEntry { actor: "oracle".into(), ..entry("foresaw_something", 0) };
        let text = told(&[newer]);
        let expected =
            "00:00:00.000  foresaw_something\n                            acme: The oracle: this row is poison\n";
        assert!(text.contains(expected), "{text}");
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
