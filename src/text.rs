//! Text for a screen: times, counts and lengths in words, lines of a width, and nothing that a terminal would obey.

use std::borrow::Cow;
use std::time::Duration;

use headworks_actors::UnixMillis;

/// When something is due, and how long until then: `at 09:10:38.204, in 1.4 s`.
#[must_use]
pub fn due(at: UnixMillis, now: UnixMillis) -> String {
    match at.0 - now.0 {
        left if left > 0 => format!("at {}, in {}", moment(at, now), span(left)),
        _ => format!("at {}", moment(at, now)),
    }
}

/// How long ago something was: `12 s ago`.
#[must_use]
pub fn ago(at: UnixMillis, now: UnixMillis) -> String {
    format!("{} ago", span((now.0 - at.0).max(0)))
}

/// An error with those that it came from, each as far as it says something new: the first one alone says little.
#[cfg(any(feature = "nats", feature = "otlp", feature = "webhook"))]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// A time of today without its date.
#[must_use]
pub fn moment(at: UnixMillis, now: UnixMillis) -> String {
    let (at, now) = (at.to_string(), now.to_string());
    match (at.split_once('T'), now.split_once('T')) {
        (Some((day, time)), Some((today, _))) => {
            let time = time.trim_end_matches('Z');
            if day == today { time.to_owned() } else { format!("{time} on {day}") }
        }
        _ => at,
    }
}

/// A length of time to two figures or so.
pub(crate) fn span(millis: i64) -> String {
    let millis = Duration::from_millis(millis.unsigned_abs());
    match millis.as_secs() {
        0 => format!("{} ms", millis.as_millis()),
        1..=9 => format!("{:.1} s", millis.as_secs_f64()),
        secs @ 10..=119 => format!("{secs} s"),
        secs @ 120..=7_199 => format!("{} min", secs / 60),
        secs @ 7_200..=172_799 => format!("{} h", secs / 3_600),
        secs => format!("{} days", secs / 86_400),
    }
}

/// A number of things: `1 event`, `2 batches`.
#[must_use]
pub fn count(number: u64, thing: &str) -> String {
    match (number, thing) {
        (1, _) => format!("1 {thing}"),
        (_, "entry") => format!("{number} entries"),
        (_, "batch") => format!("{number} batches"),
        (_, "try") => format!("{number} tries"),
        _ => format!("{number} {thing}s"),
    }
}

/// The text in lines of at most `width` columns, broken between words where that goes.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut taken) = (vec![], String::new(), 0);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word = word.to_owned();
        let mut wide = console::measure_text_width(&word);
        if taken > 0 && taken + 1 + wide > width {
            lines.push(std::mem::take(&mut line));
            taken = 0;
        }
        while taken == 0 && wide > width.max(2) {
            let begin = console::truncate_str(&word, width.max(2), "").into_owned();
            word = word[begin.len()..].to_owned();
            wide = console::measure_text_width(&word);
            lines.push(begin);
        }
        if taken > 0 {
            line.push(' ');
            taken += 1;
        }
        line.push_str(&word);
        taken += wide;
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// The text with every character escaped that a terminal would obey: `\n`, `\u{1b}`, `\u{202e}`.
#[must_use]
pub fn inert(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return text.into();
    }
    let mut inert = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => inert.extend(c.escape_default()),
            c if is_hostile(c) => inert.extend(c.escape_unicode()),
            c => inert.push(c),
        }
    }
    inert.into()
}

/// Controls (C0, C1, delete), and what is not seen but changes how the rest is seen: marks of direction, joiners, spaces of
/// no width, line separators, tags.
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What a store said, without the kind of failure in front that the code tells too.
#[must_use]
pub fn plain(detail: &str) -> &str {
    detail.strip_prefix("unavailable: ").unwrap_or(detail).trim_end_matches('.')
}

/// A batch by its place in the tenant's order.
#[must_use]
pub fn short(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

/// The valid word that was most likely meant, if one was.
#[must_use]
pub fn nearest<'v>(wrong: &str, valid: &[&'v str]) -> Option<&'v str> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    let distance = |word: &str| strsim::osa_distance(&wrong, word);
    let best = valid.iter().copied().min_by_key(|word| distance(word))?;
    (distance(best) <= 1 + best.len() / 4).then_some(best)
}
