use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use headworks::{AckLevel, StreamId};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use super::session::Options;
use super::window::Window;

/// What sending with acknowledgements came to.
pub(super) struct Summary<'a> {
    pub(super) options: &'a Options,
    pub(super) window: &'a Window,
    /// Whether the input was read to its end.
    pub(super) is_whole: bool,
    pub(super) connections: u64,
}

/// The same as a document.
#[derive(Serialize)]
pub(super) struct Told<'t> {
    to: &'t str,
    stream: &'t StreamId,
    level: AckLevel,
    lines: u64,
    acknowledged: u64,
    refused: BTreeMap<String, u64>,
    not_acknowledged: u64,
    is_whole: bool,
    reconnects: u64,
    seconds: f64,
}

impl Summary<'_> {
    /// For a machine.
    pub(super) fn told(&self, took: Duration) -> Told<'_> {
        let Self { options, window, .. } = self;
        let refused: BTreeMap<_, _> =
            window.refused().iter().map(|(code, refused)| (code.to_string(), refused.frames)).collect();
        Told {
            to: &options.to,
            stream: &options.stream,
            level: options.level,
            lines: window.read(),
            acknowledged: window.answered().saturating_sub(refused.values().sum()),
            not_acknowledged: window.read().saturating_sub(window.answered()),
            refused,
            is_whole: self.is_whole,
            reconnects: self.connections.saturating_sub(1),
            seconds: took.as_secs_f64(),
        }
    }

    /// A few lines for a reader.
    pub(super) fn text(&self, took: Duration) -> String {
        let Self { options, window, .. } = self;
        let refused: u64 = window.refused().values().map(|refused| refused.frames).sum();
        let (read, answered) = (window.read(), window.answered());
        let mut text = format!(
            "{} lines of stream {} to {}: {} {} ({}), {} refused, {} not acknowledged; {} reconnects; {:.1} s",
            HumanCount(read),
            options.stream,
            options.to,
            HumanCount(answered.saturating_sub(refused)),
            options.level,
            BinaryBytes(window.answered_bytes()),
            HumanCount(refused),
            HumanCount(read - answered),
            HumanCount(self.connections.saturating_sub(1)),
            took.as_secs_f64(),
        );
        // Memory takes everything.
        for (code, refused) in window.refused() {
            let first: Vec<_> = refused.first.iter().map(u64::to_string).collect();
            let more = if refused.frames > refused.first.len() as u64 { ", ..." } else { "" };
            let _ = write!(text, "\n  {} {code}: lines {}{more}", HumanCount(refused.frames), first.join(", "));
        }
        if !window.is_answered() {
            let _ = write!(text, "\n  the first line that is not acknowledged is {}", window.first_unanswered());
        }
        if !self.is_whole {
            let _ = write!(text, "\n  what comes after line {read} was not read");
        }
        if !window.is_answered() || !self.is_whole {
            let _ = write!(text, "\n  to go on: the same again, with --stream {}", options.stream);
        }
        text
    }
}
