//! A store in objects, in a directory or on S3: one object a batch, for whoever reads NDJSON or Parquet.
//!
//! ```text
//! acme/2026-11-22/5f0c9b1e2d3a4f60-000000000042.ndjson.zst     a batch of tenant acme; `zstdcat`, DuckDB, Spark, ...
//! _headworks/store.json                                        what was decided at the first start
//! _headworks/pages/acme/5f0c9b1e2d3a4f60/000000000000/...      marks about 64 batches, empty objects
//! _headworks/gone/acme.json                                    what was pruned or erased of it, counted
//! ```
//!
//! With [`ObjectOptions::compact_after`]:
//!
//! ```text
//! acme/2026-11-22/5f0c9b1e2d3a4f60-000000000001-000000000041.ndjson.zst      a pack: batches from 1 to 41
//! _headworks/batches/acme/2026-11-22/5f0c9b1e2d3a4f60-000000000042.ndjson.zst      a batch that waits for the next
//! ```
//!
//! - **Whole or not at all.** A batch is one object, which is put whole: nobody ever sees half of it.
//! - **Once.** Its key follows from its id and the day (UTC) on which its first event arrived, both of which never change, and it
//!   is put there *if there is nothing yet* (`If-None-Match: *`, in a directory a hard link). What is there already has the hash of
//!   the events with it: the same batch again is a success, another one under the same id is an error. A server that does not
//!   heed the condition is found out when the store is opened, and refused.
//! - **Rollback and fence.** A rollback replaces the object by one without events that says which attempts it fences, or puts that
//!   there before the batch has come. So a key goes from nothing to a batch to a fence, or from nothing to a fence, and never back:
//!   a request that was given up and arrives late finds its key taken, and one that buries what is buried already changes nothing.
//!   An attempt above the fence has a key of its own (`...-r2` after attempt 2 was rolled back). An object without events is
//!   valid, so that tools that read whole folders read on.
//! - **Two writers.** A rollback has only the id of a batch and not its day. So whoever stores *first* marks the day on a page that
//!   64 batches share, and *then* looks for fences on it; whoever rolls back *first* marks the fence and *then* looks for days. One
//!   of the two sees the other, in whatever order requests arrive, since listings are consistent: either the attempt is refused, or
//!   the rollback takes the attempt's key. It holds between processes, and for requests of one that is dead. The page costs a
//!   request and a listing for every 64 batches of a tenant.
//! - **Durable.** What is answered as stored is as safe as the server makes it; in a directory it is synced, with its directory.
//! - **NDJSON** ([`ObjectFormat::Ndjson`]): the bodies as they came, one a line, in a frame of zstd; a skippable frame behind has the id,
//!   the hash and the times. A body that cannot be a line is written as the store on [files](super::files) does.
//! - **Parquet** ([`ObjectFormat::Parquet`]): rows of `batch, seq, idx, tenant, arrived_at, event_time, body, raw` and one column for each of
//!   [`ObjectOptions::columns`]; `body` is text, or NULL where text cannot be the bytes, which `raw` has then. The columns are the
//!   same in every object, also in one without events: what is not of a column's type is NULL there, and in `body` all the same.
//! - **Errors.** Of a server that is away, busy, full, or refuses the keys, all is waited for
//!   ([`StorageError::Unavailable`](headworks_actors::StorageError::Unavailable)); so is a disk that is full or fails. What is too large for the server is
//!   refused for good, and the batch halved.
//! - **Packs.** A batch waits where only this store looks, until it is put, with others of its tenant, opening and day, into a pack, which is
//!   put whole as a batch is; then it is taken away from where it waited. So whoever knows nothing of this store finds an event in one
//!   object at every moment, from when the pack is there. The pack has an index of its batches: their ids, lives, attempts, hashes and
//!   events, in order. A batch that comes again is looked for there, by the marks on its page, or waits once more and is dropped
//!   when its turn comes; readers count what waits and is in a pack once. A rollback puts the rest of the pack in its place *if it is still as
//!   it was seen* (`If-Match`, in a directory a lock), so that none brings back what another took out; where a pack is only announced, it
//!   takes its name. See `pack.rs` for who sees whom. Nothing is known of what is settled, nor need be: a pack may be made of whatever is
//!   stored, since a rollback is as good after as before. Here a page is of 1024 batches, and a pack of one page.
//! - **Pruned and erased** are whole objects, the oldest of an opening first. `_headworks/gone/acme.json` says up to which batch all are
//!   gone, and how many events those were, *before* the first of them is deleted, and is replaced *if it is still as it was seen*. Readers
//!   go by its word, so that each event counts once at every moment, and what is left of a batch that is gone, or brought there late, is
//!   nobody's. Pages go with all that is marked on them: nothing of it comes again. See `gone.rs` and `letting_go.rs`.

mod options;

#[cfg(feature = "object")]
mod compact;
#[cfg(feature = "object")]
mod content;
#[cfg(feature = "object")]
mod cursor;
#[cfg(feature = "object")]
mod error;
#[cfg(feature = "object")]
mod gone;
#[cfg(feature = "object")]
mod key;
#[cfg(feature = "object")]
mod letting_go;
#[cfg(feature = "object")]
mod link;
#[cfg(feature = "object")]
mod listing;
#[cfg(feature = "object")]
mod ndjson;
#[cfg(feature = "object")]
mod pack;
#[cfg(feature = "object")]
mod page;
#[cfg(feature = "object")]
mod reader;
#[cfg(feature = "parquet")]
mod rows;
#[cfg(feature = "object")]
mod store;
#[cfg(feature = "object")]
mod turns;
#[cfg(feature = "object")]
mod write;

pub use options::{ObjectFormat, ObjectOptions};

#[cfg(feature = "object")]
pub(in crate::store) use cursor::Cursor;
#[cfg(feature = "object")]
pub use error::{OpenError, ReadError};
#[cfg(feature = "object")]
pub(crate) use key::Template;
#[cfg(feature = "object")]
pub(crate) use letting_go::Holding;
#[cfg(feature = "object")]
pub(crate) use link::check_url;
#[cfg(feature = "object")]
pub(in crate::store) use reader::HeldInObjects;
#[cfg(feature = "object")]
pub use reader::ObjectReader;
#[cfg(feature = "object")]
pub use store::ObjectStore;

/// Reads one of the stores of a data directory.
#[cfg(feature = "object")]
pub(in crate::store) fn of(
    known: &std::collections::BTreeMap<headworks_actors::StoreName, ObjectOptions>,
    name: &headworks_actors::StoreName,
) -> Result<ObjectReader, OpenError> {
    let missing = || OpenError::Options(format!("stores.json does not say where the objects of store {name} are"));
    ObjectReader::new(known.get(name).ok_or_else(missing)?.clone())
}
