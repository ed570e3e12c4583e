use std::fmt::Write;
use std::time::Duration;

use indicatif::{BinaryBytes, HumanCount};

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

impl Summary<'_> {
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
