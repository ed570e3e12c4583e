//! `headworks send`: a file or stdin, streamed to a TCP listener, with acknowledgements or without.

mod acked;
mod input;
mod plain;
mod ranges;
mod session;
mod stream;
mod summary;
mod window;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use headworks::{AckLevel, StreamId};
use indicatif::{ProgressBar, ProgressStyle};

use super::exit::Exit;

/// The arguments of `headworks send`.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The listener, as host:port
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// Have every line acknowledged once it is received (in memory), journaled (on disk) or stored (in the store), and send
    /// again what was not, over as many connections as it takes
    #[arg(long, value_name = "LEVEL")]
    ack: Option<AckLevel>,
    /// What the listener knows the lines by: sent again under the same id, a line is not taken in again. For an input that
    /// is the same from its beginning, or has grown [default: made from the file's place on disk and its first line; for
    /// stdin a new one each time]
    #[arg(long, value_name = "ID", requires = "ack")]
    stream: Option<StreamId>,
    /// How long to try for a connection before giving up
    #[arg(long, value_name = "TIME", requires = "ack", default_value = "1m", value_parser = humantime::parse_duration)]
    give_up_after: Duration,
    /// Print what it came to as one JSON document, on stdout
    #[arg(long)]
    json: bool,
    /// The file to send; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Why not everything was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// There is nothing to send.
    #[error("cannot open {}: {source}", .file.display())]
    Open { file: PathBuf, source: io::Error },
    /// The file or stdin failed halfway.
    #[error("cannot read {} after {bytes} bytes: {source}; what was read was sent", .file.display())]
    Read { file: PathBuf, bytes: u64, source: io::Error },
    /// Nobody listens.
    #[error("cannot connect to {to}: {source}; is `headworks run` listening there?")]
    Refused { to: String, source: io::Error },
    /// The address leads nowhere.
    #[error("cannot connect to {to}: {source}; the address of a listener is host:port")]
    Connect { to: String, source: io::Error },
    /// The listener went away.
    #[error(
        "the connection to {to} broke after {bytes} bytes were sent: {source}; how many of them were taken in only the listener knows"
    )]
    Broken { to: String, bytes: u64, source: io::Error },
    /// Not every line is acknowledged.
    #[error("{0}")]
    Unacknowledged(acked::Failure),
    /// The machine has nothing left for us.
    #[error("cannot start sending: {0}")]
    Start(io::Error),
}

impl SendError {
    /// The code to end with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Open { .. } | Self::Read { .. } => Exit::Io,
            Self::Refused { .. } | Self::Connect { .. } | Self::Broken { .. } => Exit::Unavailable,
            Self::Unacknowledged(failure) => failure.exit(),
            Self::Start(_) => Exit::Internal,
        }
    }
}

/// Sends the input as the arguments say.
pub(crate) fn run(args: &SendArgs) -> Result<(), SendError> {
    let failed = |source| SendError::Open { file: args.file.clone(), source };
    let (input, length): (Box<dyn Read + Send>, _) = if args.file.as_os_str() == "-" {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(&args.file).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        // A pipe or a device has no length to show.
        (Box::new(file), meta.is_file().then_some(meta.len()))
    };
    let bar = progress(length);
    let Some(level) = args.ack else { return plain::run(args, input, &bar) };
    let stream = match &args.stream {
        Some(stream) => stream.clone(),
        None if length.is_some() => stream::of_file(&args.file).map_err(failed)?,
        None => stream::random().map_err(failed)?,
    };
    acked::run(args, level, stream, input, &bar)
}

/// A bar on stderr; hidden where stderr is no terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {binary_bytes_per_sec} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
