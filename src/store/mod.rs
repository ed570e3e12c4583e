//! Stores that come with the daemon: one folder each.

pub mod files;
mod hash;
mod joined;
pub(crate) mod manifest;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use serde::{Deserialize, Serialize};

#[cfg(feature = "sqlite")]
mod reader;

pub use files::{FilesOptions, FilesReader, FilesStore};
#[cfg(feature = "sqlite")]
pub use reader::{StoreReadError, StoreReader};
#[cfg(feature = "sqlite")]
pub use sqlite::{Layout, SqliteOptions, SqliteReader, SqliteStore};

/// What happens to a dead letter for which its tenant has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LettersWhenFull {
    /// The oldest letters of the tenant are purged, counted and logged; the newest is kept, however large.
    PurgeOldest,
    /// It waits until there is room: what it says stays in flight, and in the end the tenant's senders wait too. Nothing is lost.
    Wait,
}
