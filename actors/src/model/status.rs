use std::fmt;

use serde::Serialize;

/// What a tenant is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Known, and no actor runs: none of its events has come yet, or it was passivated.
    Dormant,
    /// Events come and move.
    Active,
    /// No event lately.
    Idle,
    /// No event for as long as its sender may be quiet: see [`SilencePolicy`](crate::SilencePolicy).
    Silent,
    /// Events come and move, but some were given up within the last minute: they are dead letters, or dropped as its rules say.
    Failing,
    /// The last attempt to store failed; another follows.
    Retrying,
    /// Its calls of a store failed too often in a row: its circuit breaker is open, and its batches wait.
    BreakerOpen,
    /// The store is not available; the lane waits for it.
    Parked,
    /// A batch was given up and is being rolled back or kept as dead letters.
    Compensating,
    /// Batches wait and nothing moves: its writer or the journal hangs.
    Stalled,
    /// One of its actors failed and waits for its restart.
    Restarting,
    /// The restart intensity is spent; its events wait.
    Quarantined,
    /// It was stopped, by hand or with the system; its events wait.
    Stopped,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dormant => "dormant",
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Silent => "silent",
            Self::Failing => "failing",
            Self::Retrying => "retrying",
            Self::BreakerOpen => "breaker_open",
            Self::Parked => "parked",
            Self::Compensating => "compensating",
            Self::Stalled => "stalled",
            Self::Restarting => "restarting",
            Self::Quarantined => "quarantined",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
