//! Stores that come with the daemon: one folder each.

pub mod files;
mod hash;
mod joined;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use headworks_actors::{BatchId, Opening, Seq, TenantId};

#[cfg(feature = "sqlite")]
mod reader;

pub use files::{FilesOptions, FilesReader, FilesStore};
#[cfg(feature = "sqlite")]
pub use reader::{StoreReadError, StoreReader};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteReader, SqliteStore};

/// A batch id from the text that it is kept as.
fn parse_batch_id(text: &str) -> Option<BatchId> {
    // No part of it can hold a slash.
    let mut parts = text.splitn(3, '/');
    let opening = Opening(u64::from_str_radix(parts.next()?, 16).ok()?);
    let tenant = TenantId::new(parts.next()?).ok()?;
    let seq = Seq(parts.next()?.parse().ok()?);
    Some(BatchId { opening, tenant, seq })
}
