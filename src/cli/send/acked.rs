//! Sending with acknowledgements: one connection after the other, until everything is answered.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use headworks::{AckLevel, RetryPolicy, StreamId};
use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::session::{self, Ended, Input, Options};
use super::summary::Summary;
use super::window::Window;
use super::{SendArgs, SendError, input};
use crate::cli::exit::Exit;
use crate::cli::table::json;

/// What is kept of the input until it is answered, in bytes.
const LIMIT: usize = 64 << 20;

/// After how long without a word the server counts as gone.
const SILENCE: Duration = Duration::from_secs(30);

/// The wait before the next connection.
const RECONNECT: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    base: Duration::from_millis(100),
    cap: Duration::from_secs(5),
    attempt_timeout: SILENCE,
    // Of no use for connections.
    deadline: SILENCE,
    compensation_deadline: SILENCE,
    max_poison: 0,
};

/// Why sending ended before its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server says no, or nonsense.
    Refused { to: String, why: String },
    /// No connection that lasts.
    GaveUp { to: String, after: Duration, why: String },
    /// By a signal.
    Interrupted,
    /// The server has more of the stream than there is.
    Shorter { stream: StreamId, lines: u64, had: u64 },
    /// To the end, but some lines were refused.
    LinesRefused(u64),
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::GaveUp { .. } => Exit::Unavailable,
            _ => Exit::Failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { to, why } => write!(f, "{to} refused: {why}"),
            Self::GaveUp { to, after, why } => {
                let after = humantime::format_duration(*after);
                write!(f, "gave up on {to} after {after} (--give-up-after): {why}")
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::Shorter { stream, lines, had } => write!(
                f,
                "the input has {lines} lines, but {had} lines of the stream {stream} were sent before: it is another \
                 input, or was cut; to send it all, name a stream of its own with --stream"
            ),
            Self::LinesRefused(lines) => {
                write!(f, "{lines} lines were refused; the listener's log and dead letters say why")
            }
        }
    }
}

/// Sends the input to its end and its last answer, or says on stderr how far it came.
pub(super) fn run(
    args: &SendArgs,
    level: AckLevel,
    stream: StreamId,
    input: impl Read + Send + 'static,
    bar: &ProgressBar,
) -> Result<(), SendError> {
    let options = Options { to: args.to.clone(), stream, level, silence: SILENCE };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SendError::Start)?;
    let began = Instant::now();
    let (mut window, mut input) = (Window::new(LIMIT), Input::new(input::read(input).map_err(SendError::Start)?));
    let mut connections = 0;
    let ended = runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).map_err(SendError::Start)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(SendError::Start)?;
        let sending = send(&options, args.give_up_after, &mut window, &mut input, &mut connections, bar);
        let sent = tokio::select! {
            biased;
            _ = interrupted.recv() => Err(Failure::Interrupted),
            _ = terminated.recv() => Err(Failure::Interrupted),
            sent = sending => sent,
        };
        sent.map_err(SendError::Unacknowledged)
    });
    bar.finish_and_clear();
    let summary = Summary { options: &options, window: &window, is_whole: input.is_over(), connections };
    if args.json {
        // Where stdout is gone, the code says how it ended.
        let _ = json(&summary.told(began.elapsed())).map(|text| super::super::say(text.as_bytes()));
    } else {
        eprintln!("{}", summary.text(began.elapsed()));
    }
    ended?;
    if let Some(source) = input.failed() {
        return Err(SendError::Read { file: args.file.clone(), bytes: window.answered_bytes(), source });
    }
    match window.refused().values().map(|refused| refused.frames).sum() {
        0 => Ok(()),
        refused => Err(SendError::Unacknowledged(Failure::LinesRefused(refused))),
    }
}

/// Connection after connection.
pub(super) async fn send(
    options: &Options,
    give_up_after: Duration,
    window: &mut Window,
    input: &mut Input,
    connections: &mut u64,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut rng = fastrand::Rng::new();
    let (mut failures, mut down_since) = (0, Instant::now());
    let mut start = window.first_unanswered();
    let mut said = String::new();
    loop {
        let (answers, began) = (window.answers(), Instant::now());
        let ended = session::run(options, start, window, input, bar).await;
        start = window.first_unanswered();
        match ended {
            Ended::Done if window.had() > window.read() => {
                let (stream, lines, had) = (options.stream.clone(), window.read(), window.had());
                return Err(Failure::Shorter { stream, lines, had });
            }
            Ended::Done => {
                *connections += 1;
                return Ok(());
            }
            Ended::Jump(to) => {
                *connections += 1;
                start = to;
            }
            Ended::Refused(why) => return Err(Failure::Refused { to: options.to.clone(), why }),
            Ended::Broken { why, was_up } => {
                *connections += u64::from(was_up);
                // A server that lets us in again and again and does nothing else is not there.
                if was_up && (window.answers() > answers || began.elapsed() >= SILENCE) {
                    (failures, down_since) = (0, Instant::now());
                    said.clear();
                }
                failures += 1;
                let wait = RECONNECT.wait(failures, None, &mut rng);
                if down_since.elapsed() + wait >= give_up_after {
                    return Err(Failure::GaveUp { to: options.to.clone(), after: give_up_after, why });
                }
                if said != why {
                    bar.suspend(|| eprintln!("{}: {why}; trying again", options.to));
                    said = why;
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
