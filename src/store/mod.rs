//! Stores that come with the daemon: one folder each.

#[cfg(any(feature = "object", feature = "postgres"))]
#[cfg_attr(not(any(feature = "parquet", feature = "postgres")), expect(dead_code, reason = "NDJSON has no columns"))]
pub(crate) mod columns;
#[cfg(any(feature = "nats", feature = "webhook"))]
mod desk;
pub mod files;
mod hash;
mod joined;
pub(crate) mod manifest;
pub mod nats;
pub mod object;
#[cfg(all(unix, feature = "sqlite"))]
pub(crate) mod patient;
pub mod postgres;
#[cfg(all(unix, feature = "sqlite"))]
pub(crate) mod servers;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "stdout")]
pub mod stdout;
pub mod webhook;

use serde::{Deserialize, Serialize};

#[cfg(feature = "sqlite")]
mod events;
#[cfg(feature = "sqlite")]
mod reader;

#[cfg(feature = "sqlite")]
pub use events::{EventQuery, EventReader, StoredEvent};
pub use files::{FilesOptions, FilesReader, FilesStore};
#[cfg(feature = "nats")]
pub use nats::NatsStore;
pub use nats::NatsStoreOptions;
pub use object::{ObjectFormat, ObjectOptions};
#[cfg(feature = "object")]
pub use object::{ObjectReader, ObjectStore};
pub use postgres::PostgresOptions;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresReader, PostgresStore};
#[cfg(feature = "sqlite")]
pub use reader::{StoreReadError, StoreReader};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteReader, SqliteStore};
#[cfg(feature = "stdout")]
pub use stdout::StdoutStore;
pub use webhook::WebhookOptions;
#[cfg(feature = "webhook")]
pub use webhook::WebhookStore;

/// Where a database keeps the events of new batches. What is there already stays where it is, and is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layout {
    /// In itself: each event is a row.
    #[default]
    Rows,
    /// In files beside it, its segments: each batch is a row.
    Index,
}

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
