//! The supervisor log on disk: JSON lines that go on across restarts of the daemon.
//!
//! One line an entry, in `DATA/supervisor-log/log.jsonl`, older ones in `log.jsonl.1` and on. Beside the entries of the system
//! ([`SupervisorEvent`]) there are three of the log itself, whose actor is `log`: [`OPENED`], [`CLOSED`] and [`MISSED`].
//! Lines are written for readers of any version: words that a reader does not know are kept as they are.
//!
//! For eyes, [`sentence`] says what an entry means, and a [`Screen`] prints them.

mod entry;
mod reader;
mod screen;
mod sentence;

#[cfg(feature = "sqlite")]
pub(crate) use entry::rfc3339;
pub use entry::{CLOSED, LogCause, LogEntry, MISSED, OPENED};
pub use reader::{Found, LogQuery, read};
pub use screen::{Screen, brief};
pub use sentence::sentence;

use std::path::{Path, PathBuf};

use headworks_actors::{Role, SupervisorEvent, What};

/// The kinds of entries that say no more than that an actor is alive.
pub const LIVELY: [&str; 4] = ["started", "stopped", "idle", "active"];

/// The words for what an entry of this version may tell, in the order of their letters.
#[must_use]
pub fn words() -> Vec<&'static str> {
    let own = What::ALL.iter().map(|what| what.as_str());
    let mut words: Vec<_> = own.chain([OPENED, CLOSED, MISSED]).collect();
    words.sort_unstable();
    words
}

/// Whether an entry of the system is kept on disk. That a connection began or ended as it should is not: there may be thousands a
/// second, and they would push out what matters.
#[must_use]
pub fn is_kept(event: &SupervisorEvent) -> bool {
    !(event.actor == Role::Ingress && event.cause.is_none() && matches!(event.what, What::Started | What::Stopped))
}

/// The directory of the supervisor log in the data directory.
pub const DIRECTORY: &str = "supervisor-log";

/// The newest file of the supervisor log of a data directory.
#[must_use]
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(DIRECTORY).join("log.jsonl")
}
