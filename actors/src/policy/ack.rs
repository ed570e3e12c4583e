use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// When a sender is told that its event is safe.
///
/// For a source or a sender it is what it asks for; for a tenant it is the least: the later of the two counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckLevel {
    /// It is accepted, in memory: it survives the failure of everything but the process.
    #[default]
    Received,
    /// It is on disk, in a durable journal, after the disk has confirmed it. With a memory journal the same as `Received`.
    Journaled,
    /// It is in its store. (Or it is kept as a dead letter, and the sender is told that.)
    Stored,
}

impl AckLevel {
    /// Every level, in order.
    pub const ALL: [Self; 3] = [Self::Received, Self::Journaled, Self::Stored];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Journaled => "journaled",
            Self::Stored => "stored",
        }
    }
}

impl fmt::Display for AckLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no acknowledgement level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no acknowledgement level; there are received, journaled and stored")]
pub struct InvalidAckLevel(String);

impl FromStr for AckLevel {
    type Err = InvalidAckLevel;

    fn from_str(word: &str) -> Result<Self, InvalidAckLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == word).ok_or_else(|| InvalidAckLevel(word.to_owned()))
    }
}
