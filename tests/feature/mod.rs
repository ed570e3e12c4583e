#[cfg(feature = "sqlite")]
mod sqlite_store;
