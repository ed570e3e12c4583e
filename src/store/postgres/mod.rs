//! A store on a PostgreSQL server: its events are rows, for whoever has SQL.
//!
//! ```sql
//! SELECT tenant, count(*) FROM headworks.events GROUP BY tenant;
//! SELECT body::jsonb ->> 'level' AS level, count(*) FROM headworks.events WHERE tenant = 'acme' GROUP BY level;
//! SELECT batch, idx, body FROM headworks.events_with_batch WHERE tenant = 'acme' ORDER BY number, idx LIMIT 10;
//! ```
//!
//! - **Whole or not at all.** The batches that wait at the same time, of whatever tenants, share one transaction, up to
//!   `group_max_bytes`; as many transactions as there are connections go on at once. Where the server refuses one, each of its
//!   batches is tried alone, so that a bad one harms no other.
//! - **Once.** Each batch has a row in `batches`, which is claimed in the transaction that copies its events: the same batch again is
//!   a success, another one under the same id is an error. The row is the fence too: a rollback leaves the number of its attempt
//!   there, and waits for an attempt that is under way, even one whose process is gone and whose server has not noticed.
//! - **Fast.** Events go straight into their table by COPY in its binary format; there is no staging table, since the row of the
//!   batch has decided before that none of them is there.
//! - **Durable.** What is answered as stored is as safe as the server's commits are. A session with `synchronous_commit = off` is set
//!   right; `fsync = off` is warned of.
//! - **Bodies.** Any bytes: `body` is `text`, and where text cannot be these bytes (they are not UTF-8, or have a NUL byte in them),
//!   it is NULL and `raw` has them as `bytea`. With [`BodyColumn::Jsonb`] `body` is `jsonb`, and what that cannot hold is refused.
//! - **Times** are `timestamptz`; those beyond what that can hold are infinite.
//! - **Errors.** Of a server that is away, full, locked or refuses the password, all is waited for
//!   ([`StorageError::Unavailable`](headworks_actors::StorageError::Unavailable)); a deadlock is tried again; data that a type, a constraint or a trigger refuses are refused
//!   for good, and found among their neighbours by halving the batch.
//! - **Columns**, where asked for: fields of the events as columns of `events`, beside the body, by [`PostgresOptions::columns`]. What is
//!   not there or does not fit its column is NULL, and counted; the body has it. Columns that the table lacks are added.
//! - **Partitions**, where asked for: a table a day or a month of arrival, made when the first event of it comes (with
//!   [`SchemaMode::Check`] by somebody else, and waited for). `DROP TABLE headworks.events_2026_11_22` takes a day away.
//! - **Retention** deletes whole batches with their rows in `batches`, and counts them in `pruned`, in one transaction; see
//!   [`retention`](crate::retention). Partitions of the past that no batch is in any more are dropped. Of rows that are deleted by hand the
//!   totals go on counting, and the audit tells as missing. What is erased of a tenant is counted in `erased`, in the same way. All that is in a namespace is pruned by the rules of the daemon that stores there:
//!   two daemons need two.

mod options;

#[cfg(feature = "postgres")]
mod columns;
#[cfg(feature = "postgres")]
mod connect;
#[cfg(feature = "postgres")]
mod copy;
#[cfg(feature = "postgres")]
mod counts;
#[cfg(feature = "postgres")]
mod erase;
#[cfg(feature = "postgres")]
mod error;
#[cfg(feature = "postgres")]
mod partition;
#[cfg(feature = "postgres")]
mod prune;
#[cfg(feature = "postgres")]
mod reader;
#[cfg(feature = "postgres")]
mod schema;
#[cfg(feature = "postgres")]
mod store;
#[cfg(feature = "postgres")]
mod tls;
#[cfg(feature = "postgres")]
mod worker;
#[cfg(feature = "postgres")]
mod write;

#[cfg(feature = "postgres")]
pub use error::{OpenError, ReadError};
pub use options::{BodyColumn, Partition, PostgresOptions, SchemaMode, SslMode};
#[cfg(feature = "postgres")]
pub use reader::PostgresReader;
#[cfg(feature = "postgres")]
pub(in crate::store) use reader::{Cursor, HeldOnServer};
#[cfg(feature = "postgres")]
pub use store::PostgresStore;

/// Reads one of the stores of a data directory.
#[cfg(feature = "postgres")]
pub(in crate::store) fn of(
    known: &std::collections::BTreeMap<headworks_actors::StoreName, PostgresOptions>,
    name: &headworks_actors::StoreName,
) -> Result<PostgresReader, OpenError> {
    let missing = || OpenError::Options(format!("stores.json does not say where the server of store {name} is"));
    PostgresReader::new(known.get(name).ok_or_else(missing)?.clone())
}

/// What is wrong with the columns, if anything; for the check of a configuration.
#[cfg(feature = "postgres")]
pub(crate) fn check_columns(columns: &[String]) -> Result<(), String> {
    columns::parse(columns).map(drop)
}

/// What is wrong with an address, if anything; for the check of a configuration.
#[cfg(feature = "postgres")]
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    connect::parsed(url).map(drop)
}
