//! Stores that come with the daemon: one folder each.

pub mod files;
mod hash;
mod joined;
#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(feature = "sqlite")]
mod reader;

pub use files::{FilesOptions, FilesReader, FilesStore};
#[cfg(feature = "sqlite")]
pub use reader::{StoreReadError, StoreReader};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteReader, SqliteStore};
